//! Writes to stdout.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

/// The program that reads stdout has closed it.
#[derive(Debug, thiserror::Error)]
#[error("stdout: nobody reads it any more")]
pub struct NoReader;

/// Writes a text for people. A reader that stops, as `head` does, wants no more: that is no error,
/// and changes neither what is done nor the exit status.
pub fn say(text: &str) -> Result<()> {
    write(text.as_bytes()).or_else(|error| if error.is::<NoReader>() { Ok(()) } else { Err(error) })
}

/// Writes a line that a program waits for; fails with [`NoReader`] if it no longer does.
pub fn print_line(line: &str) -> Result<()> {
    write(format!("{line}\n").as_bytes())
}

fn write(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(NoReader.into()),
        written => written.context("stdout"),
    }
}
