//! How a server is started.

use std::path::Path;

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
    /// Worker threads.
    pub workers: u16,
    /// The first of its ports, where no other program can have taken it.
    pub first_port: u16,
    /// The number of its ports, dealt to the workers in turn.
    pub ports: u16,
    /// CPUs to pin the workers to; empty: none.
    pub cpus: &'a str,
    /// Starts it on its side, if the run has a command for either.
    pub launchers: Option<&'a Launchers>,
}
