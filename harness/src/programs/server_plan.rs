//! How a server is started.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ringmark::address::Address;

use super::sides::Launchers;
use crate::matrix::external::External;

/// How to start a server.
pub struct ServerPlan<'a> {
    /// The server, if it is external; the rest is then of no use but for the workers and the CPUs.
    pub external: Option<&'a External>,
    /// The program.
    pub binary: &'a Path,
    /// The backend.
    pub backend: &'a str,
    /// Its `--set`s.
    pub settings: &'a [String],
    /// The options of its service.
    pub service: &'a [String],
    /// Worker threads.
    pub workers: u16,
    /// Its address, with the first of its ports where no other program can have taken it. Port 0
    /// lets it take free ones, and say which: others may be looking for some too.
    pub listen: Address,
    /// The number of its ports, dealt to the workers in turn.
    pub ports: u16,
    /// CPUs to pin the workers to; empty: none.
    pub cpus: &'a str,
    /// Starts it on its side, if the run has a command for either.
    pub launchers: Option<&'a Launchers>,
}

/// Returns the server's program: the one given, or the one beside this. If it lies elsewhere only
/// its name counts.
pub fn server_binary(given: Option<&Path>, is_elsewhere: bool) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => {
            std::env::current_exe().context("find this program")?.with_file_name("ringmark-server")
        }
    };
    ensure!(
        path.is_file() || is_elsewhere,
        "{}: there is no server; build it with `cargo build --release --workspace`, or give \
         --server",
        path.display()
    );
    // A name without a slash would be looked for in PATH.
    std::path::absolute(&path).with_context(|| path.display().to_string())
}
