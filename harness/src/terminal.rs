//! Writes to stdout. A reader that stops, as `head` does, wants no more: it is no error, and
//! changes neither what is done nor the exit status.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

/// Writes a text, of which nobody need read the rest.
pub fn say(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("stdout"),
    }
}
