//! What is read from outside of the measured server.
//!
//! | question | instrument |
//! |---|---|
//! | which system calls, how often? | [`tracepoints`] |
//! | how much CPU, who waited for a CPU? | [`cpu`] |
//! | how much memory, in which kernel objects? | [`memory`] |
//! | did TCP lose or refuse anything? what stands on a port? | [`network`] |
//! | which processes are a server's? | [`process_tree`] |
//! | does anything else want the CPUs? | [`contention`] |
//! | does the CPU count by itself? | [`pmu`] |
//!
//! [`network_namespace`] and [`affinity`] give a trial its place to run in; [`idle_spinner`] keeps its CPUs awake.

pub mod affinity;
pub mod clock;
pub mod contention;
pub mod cpu;
pub mod idle_spinner;
pub mod memory;
pub mod network;
pub mod network_namespace;
pub mod pmu;
pub mod process_tree;
pub mod procfs;
pub mod tracepoints;

/// An instrument that this machine or this user's rights do not allow, with the cause and the next step in
/// one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// What is missing, and what to do about it.
    pub reason: String,
}

impl Unavailable {
    /// For the given reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Unavailable {}
