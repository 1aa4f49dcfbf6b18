//! `hardware.csv`: what the CPUs themselves count.

use serde::{Deserialize, Serialize};

/// A row of `hardware.csv`: how often an event happened in the server's threads, in one mode, over
/// the echoes of a trial. Work that the kernel does for the server in other threads' time is not in
/// it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardwareRow {
    /// The trial.
    pub run_id: u32,
    /// Its workload.
    pub workload: String,
    /// Its arm.
    pub arm: String,
    /// Its backend.
    pub backend: String,
    /// `user` or `kernel`.
    pub mode: String,
    /// `instructions`, `cycles`, `cache_misses` (of the last level) or `branch_misses`.
    pub event: String,
    /// How often it was counted, before scaling.
    pub counted: u64,
    /// The share of the time in which its group counted, in percent: below 100 the groups took
    /// turns, and the figure is scaled.
    pub running_percent: f64,
    /// The scaled count for each echo; empty if it counted too seldom for that.
    pub count_per_echo: Option<f64>,
    /// `perf_event`, or `unavailable` with the reason.
    pub source: String,
}
