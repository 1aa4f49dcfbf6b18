//! Reads the machine and the measured server from outside.
//!
//! | question | instrument |
//! |---|---|
//! | which system calls, how often? | [`tracepoints`] |
//! | how many instructions, cycles and misses? | [`hardware`] |
//! | how much CPU, who waited for a CPU? | [`cpu`] |
//! | how much memory, in which kernel objects? | [`memory`], [`slabs`], [`meminfo`] |
//! | did TCP lose or refuse anything? who listens on a port? | [`network`] |
//! | which processes are a server's? | [`process_tree`] |
//! | does anything else want the CPUs? | [`contention`], [`pressure`] |
//! | which CPUs share a core, a package, a cache? | [`topology`] |
//! | what may this process do, and use? | [`rights`], [`cgroup`], [`cpu_quota`] |
//!
//! [`path`], [`network_namespace`], [`affinity`] and [`placement`] give a trial its place to run
//! in.

pub mod cgroup;
pub mod contention;
pub mod cpu;
pub mod cpu_quota;
mod facts;
pub mod files;
pub mod hardware;
pub mod link;
pub mod meminfo;
pub mod memory;
pub mod network;
pub mod network_namespace;
pub mod path;
pub mod placement;
pub mod pressure;
pub mod process_tree;
pub mod procfs;
pub mod program_file;
pub mod rights;
pub mod slabs;
pub mod topology;
pub mod tracepoints;
mod unavailable;

pub use facts::{Machine, cpuinfo_value};
pub use unavailable::Unavailable;
