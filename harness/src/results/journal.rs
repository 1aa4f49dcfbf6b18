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

/// A journal that trials are added to.
pub struct Journal(pub(super) File);

/// The trials of a journal.
pub struct JournalRows {
    pub rows: RunRows,
    /// The bytes of the whole lines.
    pub length: u64,
}

impl Journal {
    /// Makes the journal of a new run.
    pub fn create(folder: &Path) -> Result<Self> {
        let path = path(folder);
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        Ok(Self(file.with_context(|| format!("make {}", path.display()))?))
    }

    /// Opens the journal of a run that is resumed, and cuts it to its whole lines.
    pub fn reopen(folder: &Path, length: u64) -> Result<Self> {
        let path = path(folder);
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        file.set_len(length).with_context(|| format!("cut {}", path.display()))?;
        Ok(Self(file))
    }

    /// Appends a trial.
    pub fn add(&mut self, outcome: &Outcome) -> Result<()> {
        let line = serde_json::to_string(outcome)? + "\n";
        self.0
            .write_all(line.as_bytes())
            .context("a trial cannot be written: make room on the disk")
    }
}

/// Reads the journal of a folder; none if it has none, as complete runs and those of earlier
/// versions.
pub fn read(folder: &Path) -> Result<Option<JournalRows>> {
    let path = path(folder);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.with_context(|| format!("read {}", path.display()))?,
    };
    let parsed = parse(&bytes).with_context(|| path.display().to_string())?;
    Ok(Some(parsed))
}

/// Reads the lines of a journal that have an end.
pub fn parse(bytes: &[u8]) -> Result<JournalRows> {
    let length = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let mut rows = RunRows::default();
    for (line, number) in bytes[..length].split_inclusive(|&byte| byte == b'\n').zip(1..) {
        let outcome = serde_json::from_slice(line).with_context(|| {
            format!("line {number}: another version of ringmark wrote it, or it was edited")
        })?;
        rows.add(outcome);
    }
    Ok(JournalRows { rows, length: length as u64 })
}

/// Removes the journal of a run that is complete.
pub fn remove(folder: &Path) -> Result<()> {
    let path = path(folder);
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
}

fn path(folder: &Path) -> PathBuf {
    folder.join("trials.jsonl")
}
