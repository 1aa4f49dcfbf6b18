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
//! [`network_namespace`] gives a trial its place to run in; [`idle_spinner`] keeps
//! its CPUs awake.

pub mod cgroup;
pub mod contention;
pub mod cpu;
mod facts;
pub mod files;
pub mod memory;
pub mod network;
pub mod network_namespace;
pub mod placement;
pub mod pmu;
pub mod process_tree;
pub mod procfs;
pub mod program_file;
pub mod rights;
pub mod topology;
pub mod tracepoints;
mod unavailable;

pub use facts::*;
pub use unavailable::Unavailable;
