//! What is said on stdout. Who reads no more, as `head`, wants no more: that is no error, and changes nothing of what
//! is done and how it ends.

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
