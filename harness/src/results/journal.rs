//! The journal of a run under way: a line of JSON a trial. The CSV files are made from it.
//!
//! A line is appended as a whole. A run that is killed leaves at most one line without its end, and
//! that trial is run again. A complete run needs no journal and has none.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::run_rows::RunRows;
use crate::rows::Outcome;

/// The journal of a run, to which trials are added.
pub struct Journal {
    pub(super) file: File,
    /// The bytes of its whole lines.
    length: u64,
}

impl Journal {
    /// Makes the journal of a new run.
    pub fn create(folder: &Path) -> Result<Self> {
        let path = path(folder);
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        Ok(Self { file: file.with_context(|| format!("make {}", path.display()))?, length: 0 })
    }

    /// Opens the journal of a run that is resumed, and returns its rows; none if there is none.
    pub fn open(folder: &Path) -> Result<Option<(Self, RunRows)>> {
        let Some((rows, length)) = read(folder)? else { return Ok(None) };
        let path = path(folder);
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        Ok(Some((Self { file, length }, rows)))
    }

    /// Cuts off what came after the whole lines when it was opened.
    pub fn cut(&self) -> Result<()> {
        self.file.set_len(self.length).context("cut the journal")
    }

    /// Appends a trial, which then outlives a power cut.
    pub fn add(&mut self, outcome: &Outcome) -> Result<()> {
        let line = serde_json::to_string(outcome)? + "\n";
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.context("a trial cannot be written: make room on the disk")
    }
}

/// Reads the journal of a folder, as [`parse`] does; none if there is none, as with complete runs
/// and those of earlier versions.
pub fn read(folder: &Path) -> Result<Option<(RunRows, u64)>> {
    let path = path(folder);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.with_context(|| format!("read {}", path.display()))?,
    };
    parse(&bytes).map(Some).with_context(|| path.display().to_string())
}

/// Returns the rows of the lines that have an end, and the bytes of these lines.
pub fn parse(bytes: &[u8]) -> Result<(RunRows, u64)> {
    let length = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let mut rows = RunRows::default();
    for (line, number) in bytes[..length].split_inclusive(|&byte| byte == b'\n').zip(1..) {
        let outcome = serde_json::from_slice(line).with_context(|| {
            format!("line {number}: another version of ringmark wrote it, or it was edited: in it")
        })?;
        rows.add(outcome);
    }
    Ok((rows, length as u64))
}

/// Removes the journal of a run that is complete, if it has one.
pub fn remove(folder: &Path) -> Result<()> {
    let path = path(folder);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("remove {}", path.display())),
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("trials.jsonl")
}
