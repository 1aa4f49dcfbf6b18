//! Output of results. A run's result is printed whatever else fails.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::result::{LoadEvent, LoadResult};
use crate::terminal;

/// Standard output, and the file of `--histogram`.
pub struct Output {
    is_json: bool,
    histogram: Option<HistogramFile>,
}

impl Output {
    /// Opens the file before anything is measured.
    pub fn open(histogram: Option<&Path>, is_json: bool) -> Result<Self> {
        let path = histogram.filter(|path| *path != Path::new("-"));
        Ok(Self { is_json, histogram: path.map(HistogramFile::open).transpose()? })
    }

    /// Prints the result, as that event if it is JSON, and writes its histogram; fails after both
    /// if either failed, or the run was interrupted.
    pub fn publish(
        &mut self,
        mut result: LoadResult,
        event: fn(LoadResult) -> LoadEvent,
    ) -> Result<()> {
        let interrupted = result.interrupted;
        let log = self.histogram.as_ref().and_then(|_| result.histogram_log.take());
        let printed = if self.is_json {
            print(&event(result))
        } else {
            terminal::say(&format!("{result}\n"))
        };
        let written =
            self.histogram.as_mut().zip(log).map_or(Ok(()), |(file, log)| file.write(&log));
        match (printed, written) {
            (Err(printed), Err(written)) => bail!("{printed:#}; {written:#}"),
            (printed, written) => printed.and(written)?,
        }
        ensure!(!interrupted, "interrupted: the result is of the part before");
        Ok(())
    }
}

/// Prints a line of JSON.
pub fn print(event: &LoadEvent) -> Result<()> {
    terminal::print_line(&serde_json::to_string(event)?)
}

struct HistogramFile {
    file: File,
    path: PathBuf,
    /// The file holds neither its old text nor a histogram.
    to_remove: bool,
}

impl HistogramFile {
    /// Opens the file. Its old text stays until there is a histogram to put in its place.
    fn open(path: &Path) -> Result<Self> {
        let is_new = !path.exists();
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.with_context(|| format!("--histogram {}", path.display()))?;
        Ok(Self { file, path: path.to_owned(), to_remove: is_new })
    }

    fn write(&mut self, log: &str) -> Result<()> {
        self.replace_text(log).with_context(|| format!("--histogram {}", self.path.display()))
    }

    fn replace_text(&mut self, log: &str) -> io::Result<()> {
        // Devices and pipes cannot be cut, nor wound back.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
            self.to_remove = true;
            io::Seek::rewind(&mut self.file)?;
        }
        self.file.write_all(log.as_bytes())?;
        self.to_remove = false;
        Ok(())
    }
}

impl Drop for HistogramFile {
    fn drop(&mut self) {
        if self.to_remove {
            // A file that holds no histogram, or half of one, is worse than none.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
