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
//! | which CPUs share a core, a package, a cache? | [`topology`] |
//!
//! [`network_namespace`] and [`affinity`] give a trial its place to run in; [`idle_spinner`] keeps
//! its CPUs awake.

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
pub mod rights;
pub mod topology;
pub mod tracepoints;

/// An instrument that this machine or this user's rights do not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// What is missing.
    pub reason: String,
    /// What to do about it, if the reason does not say it.
    advice: Option<String>,
}

impl Unavailable {
    /// For the given reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), advice: None }
    }

    /// With the next step.
    pub fn advising(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)?;
        self.advice.as_ref().map_or(Ok(()), |advice| write!(f, ": {advice}"))
    }
}

impl std::error::Error for Unavailable {}
