//! Reads the file of a program: its size, its sum and its revision.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use ringmark::whereabouts::FileStamp;
use serde::{Deserialize, Serialize};

use super::facts;
use super::files::output;

/// The file of a program, without its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgramFile {
    /// Its file's name.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its sum by `sha256sum`; null where there is no such command.
    pub sha256: Option<String>,
    /// The revision of the source that it was built from; only of programs of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The file's stamp from before it was read, so that a write in between shows.
    #[serde(skip)]
    pub stamp: Option<FileStamp>,
}

impl ProgramFile {
    /// Reads a program on this machine.
    pub fn of_file(path: &Path) -> Result<Self> {
        Self::read(path, path)
    }

    /// Reads this program.
    pub fn of_this() -> Result<Self> {
        let this = std::env::current_exe().context("find this program")?;
        // The file that runs, even if another has taken its name since.
        let running = format!("/proc/{}/exe", std::process::id());
        Ok(Self { revision: facts::revision(), ..Self::read(Path::new(&running), &this)? })
    }

    /// Reads the server's program on this machine.
    pub fn of_server(path: &Path) -> Result<Self> {
        Ok(Self {
            revision: fs::read(path).ok().and_then(|bytes| revision_in(&bytes)),
            ..Self::of_file(path)?
        })
    }

    /// Tells whether both files are known to hold the same.
    pub fn has_contents_of(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.sha256.is_some() && self.sha256 == other.sha256
    }

    fn read(path: &Path, name: &Path) -> Result<Self> {
        let stamp = FileStamp::of(path);
        let open = || File::open(path).with_context(|| format!("read {}", name.display()));
        let bytes = open()?.metadata().with_context(|| format!("read {}", name.display()))?.len();
        let sum = output(Command::new("sha256sum").stdin(open()?));
        Ok(Self {
            file: name.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes,
            sha256: sum.and_then(|line| line.split_whitespace().next().map(str::to_owned)),
            revision: None,
            stamp,
        })
    }
}

/// Finds the revision that a program of ours prints with `--version`. It is not started for that,
/// because a script in its place would do whatever it does.
fn revision_in(program: &[u8]) -> Option<String> {
    const BEFORE: &[u8] = b", revision ";
    const DIGITS: usize = 40;
    let digits = |at: usize| program.get(at + BEFORE.len()..at + BEFORE.len() + DIGITS);
    let mut found = memchr::memmem::find_iter(program, BEFORE);
    let revision = found
        .find_map(|at| digits(at).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit)))?;
    String::from_utf8(revision.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_read_out_of_a_program() {
        let revision = "0123456789abcdef0123456789abcdef01234567";
        let program =
            format!("\0, revision unknown\00.1.0, revision {revision}, with local changes\0");
        assert_eq!(revision_in(program.as_bytes()).as_deref(), Some(revision));
        assert_eq!(revision_in(b"#!/bin/sh\nexec x, revision 0123"), None);
    }
}
