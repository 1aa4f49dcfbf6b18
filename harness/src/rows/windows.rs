//! `windows.csv`: the turns of an interleaved workload.

use serde::{Deserialize, Serialize};

/// A row of `windows.csv`: one arm's turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowRow {
    /// The trial.
    pub run_id: u32,
    /// Its workload.
    pub workload: String,
    /// Its arm.
    pub arm: String,
    /// The set of processes, by the number of its first trial.
    pub set: u32,
    /// The round within the set, in which each arm of it has one turn.
    pub round: u32,
    /// The turn within the round.
    pub turn: u32,
    /// Echoes of the turn: before, within and after its window.
    pub echoes: u64,
    /// CPU time of the server from rest to rest, in ns.
    pub server_cpu_ns: u64,
    /// CPU time of the client from rest to rest, in ns; empty if it is not to be seen from here.
    pub client_cpu_ns: Option<u64>,
    /// The median latency of the messages that were due within the window, in µs.
    pub latency_p50_us: Option<f64>,
}

impl WindowRow {
    /// Returns the server's CPU time for an echo.
    pub fn server_cpu_ns_per_echo(&self) -> Option<f64> {
        self.per_echo(self.server_cpu_ns)
    }

    /// Returns the CPU time of server and client for an echo.
    pub fn both_cpu_ns_per_echo(&self) -> Option<f64> {
        self.per_echo(self.server_cpu_ns + self.client_cpu_ns?)
    }

    fn per_echo(&self, ns: u64) -> Option<f64> {
        (self.echoes > 0).then(|| ns as f64 / self.echoes as f64)
    }
}
