//! `syscalls.csv` and `events.csv`: the server's calls, and the events within io_uring.

use serde::{Deserialize, Serialize};

/// A row of `syscalls.csv`: one call's count in one trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyscallRow {
    /// The trial.
    pub run_id: u32,
    /// Its workload.
    pub workload: String,
    /// Its arm.
    #[serde(default)]
    pub arm: String,
    /// Its backend.
    pub backend: String,
    /// The kernel's name of the call; `other`: the calls that have no counter of their own.
    pub syscall: String,
    /// How often the server's workers made it.
    pub calls: u64,
    /// The same over the echoes.
    pub calls_per_echo: f64,
    /// `tracepoints` or `self-reported`.
    pub source: String,
}

/// A row of `events.csv`: how often one event happened within io_uring, over the same echoes as the
/// calls of the trial. Only trials of backends that use io_uring have such rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventRow {
    /// The trial.
    pub run_id: u32,
    /// Its workload.
    pub workload: String,
    /// Its arm.
    pub arm: String,
    /// Its backend.
    pub backend: String,
    /// The kernel's name of the tracepoint, as in `machine/tracepoints/ring_event.rs`.
    pub event: String,
    /// How often it fired in the server's threads, its SQPOLL thread and io-wq workers included.
    /// Exact: only tracepoints that fire there and nowhere else are counted. A trial has no counts
    /// if `io_uring_complete` (with `io_uring_cqe_overflow`) does not equal the completions that
    /// the server took.
    pub count: Option<u64>,
    /// The same over the echoes.
    pub count_per_echo: Option<f64>,
    /// `tracepoints`, or `unavailable` with the reason.
    pub source: String,
}
