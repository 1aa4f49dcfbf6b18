//! The files of a guest.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::archive::Archive;
use super::guest::{JOB, PROGRAM};
use super::job::Job;

/// The files of a guest, which has nothing else.
pub struct FileSystem {
    archive: Archive,
    libraries: BTreeSet<PathBuf>,
}

impl FileSystem {
    /// Begins with this program, which is the first of the guest's.
    pub fn with_this_program() -> Result<Self> {
        let mut archive = Archive::default();
        archive.console();
        for folder in ["/proc", "/sys", "/tmp", "/run"] {
            archive.folder(Path::new(folder));
        }
        let mut files = Self { archive, libraries: BTreeSet::new() };
        let program = std::env::current_exe().context("find this program")?;
        files.program(&program, Path::new(PROGRAM))?;
        Ok(files)
    }

    /// Adds a program, and what it is linked with.
    pub fn program(&mut self, path: &Path, place: &Path) -> Result<()> {
        self.file(path, place)?;
        for library in libraries_of(path)? {
            if self.libraries.insert(library.clone()) {
                self.file(&library, &library)?;
            }
        }
        Ok(())
    }

    /// Adds a file at its own place; a program with what it is linked with, a folder without what
    /// is in it.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        if path.is_dir() {
            self.archive.folder(path);
            return Ok(());
        }
        let contents = fs::read(path).with_context(|| path.display().to_string())?;
        if contents.starts_with(b"\x7fELF") {
            return self.program(path, path);
        }
        self.archive.file(path, &contents);
        Ok(())
    }

    fn file(&mut self, path: &Path, place: &Path) -> Result<()> {
        let contents = fs::read(path).with_context(|| path.display().to_string())?;
        self.archive.file(place, &contents);
        Ok(())
    }

    /// Adds the job, and returns the archive.
    pub fn finish(mut self, job: &Job) -> Result<Vec<u8>> {
        self.archive.file(Path::new(JOB), &serde_json::to_vec(job).context("the job")?);
        Ok(self.archive.finish())
    }
}

/// Returns the files that a program is linked with, and its loader: see ld.so(8),
/// LD_TRACE_LOADED_OBJECTS. A static program has none.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let mut command = Command::new(program);
    command.arg("--version").env("LD_TRACE_LOADED_OBJECTS", "1").stdin(Stdio::null());
    let output = command.output().with_context(|| program.display().to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.lines().filter_map(|line| {
        let (name, _) = line.rsplit_once(" (0x")?;
        let path = name.split_once(" => ").map_or(name, |(_, path)| path).trim();
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    Ok(paths.collect())
}
