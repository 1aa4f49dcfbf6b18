//! `scale.csv`: the steps of a walk through connection counts.

use serde::{Deserialize, Serialize};

use super::trials::TrialRow;
use super::words::Status;

/// A row of `scale.csv`: one step. All steps of a trial are in the order of the rows, on one
/// server. Loads are measured on a second server of the same kind too, see `server`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleRow {
    /// The trial.
    pub run_id: u32,
    /// Its arm.
    pub arm: String,
    /// Its backend.
    pub backend: String,
    /// `before` the server was started; `open`: connections were opened, up to `connections`;
    /// `rest`: none sent; `load`; `all`: every one sent one message and got it back; `close`:
    /// connections were reset, down to `connections`; `after` the server had ended.
    pub step: String,
    /// Connections that stood at its end, as the server counted them. With a load: those that the
    /// crowded server had while it was measured.
    pub connections: u64,
    /// Connections that sent.
    pub active_connections: u64,
    /// `closed` or `poisson`, with a load.
    pub arrival: String,
    /// With a load: `crowded`, the server that holds all connections, or `alone`, the one that
    /// holds the active ones only, and is measured right before or after. Empty in runs that had no
    /// second server.
    #[serde(default)]
    pub server: String,
    /// Which measurement of the same load, from 1.
    pub repeat: Option<u32>,
    /// How long it took; the window of a load and of the rest.
    pub duration_s: Option<f64>,
    /// Connections that were opened or closed, per second, until the server had taken note of the
    /// last.
    pub connections_per_s: Option<f64>,
    /// From before connect() until the client learned that the connection stood, median.
    pub connect_p50_us: Option<f64>,
    /// The same, 99th percentile.
    pub connect_p99_us: Option<f64>,
    /// The same, largest.
    pub connect_max_us: Option<f64>,
    /// As in `trials.csv`, like the columns up to `server_cpu_ns_per_echo`.
    pub offered_per_s: Option<f64>,
    /// Messages that the server still owed in the end.
    pub owed: Option<u64>,
    /// Echoes per second.
    pub achieved_per_s: Option<f64>,
    /// Echoes within the window, each verified byte for byte.
    pub echoes: Option<u64>,
    /// Latency, median.
    pub latency_p50_us: Option<f64>,
    /// Latency, 99th percentile.
    pub latency_p99_us: Option<f64>,
    /// Latency, 99.9th percentile.
    pub latency_p999_us: Option<f64>,
    /// Latency, largest.
    pub latency_max_us: Option<f64>,
    /// Latency from when a message was sent, median.
    pub service_p50_us: Option<f64>,
    /// The same, 99th percentile.
    pub service_p99_us: Option<f64>,
    /// CPU clock of the server's process, over the echoes.
    pub server_cpu_ns_per_echo: Option<f64>,
    /// The same, over the time.
    pub server_cpu_percent: Option<f64>,
    /// The client's, over the echoes; without the program that holds the idle connections.
    pub client_cpu_ns_per_echo: Option<f64>,
    /// Busy time of the machine's CPUs that neither took, over all of their time: the kernel's own
    /// threads and other programs. To the kernel's tick, which is 2.5 % of two CPUs' 200 ms; 0 if
    /// both took more than the machine was busy.
    pub other_cpu_percent: Option<f64>,
    /// At rest: how often a thread of the server woke up and went to sleep again, per second.
    #[serde(default)]
    pub wakeups_per_s: Option<f64>,
    /// At rest: as in `trials.csv`, like the two columns after it.
    #[serde(default)]
    pub machine_iowait_percent: Option<f64>,
    /// Some task waited for a CPU.
    #[serde(default)]
    pub cpu_pressure_percent: Option<f64>,
    /// Some task waited for I/O.
    #[serde(default)]
    pub io_pressure_percent: Option<f64>,
    /// System calls of the server's workers by their own counters, over all echoes of the step, its
    /// warm-up's too.
    pub syscalls_per_echo: Option<f64>,
    /// Readiness events or completions that one wait brought.
    pub events_per_wait: Option<f64>,
    /// Memory that the machine had left (`MemAvailable`) at the end of the step.
    pub machine_available_bytes: u64,
    /// Whether the figures may be used.
    pub status: Status,
    /// Why not, or what to mind although they may.
    pub reason: String,
}

impl ScaleRow {
    /// Returns a row with the figures of a load.
    pub fn of_load(load: TrialRow) -> Self {
        Self {
            run_id: load.run_id,
            arm: load.arm,
            backend: load.backend,
            active_connections: load.active_connections.unwrap_or_default(),
            arrival: load.arrival,
            duration_s: load.duration_s,
            offered_per_s: load.offered_per_s,
            owed: load.owed,
            achieved_per_s: load.achieved_per_s,
            echoes: load.echoes,
            latency_p50_us: load.latency_p50_us,
            latency_p99_us: load.latency_p99_us,
            latency_p999_us: load.latency_p999_us,
            latency_max_us: load.latency_max_us,
            service_p50_us: load.service_p50_us,
            service_p99_us: load.service_p99_us,
            server_cpu_ns_per_echo: load.server_cpu_ns_per_echo,
            client_cpu_ns_per_echo: load.client_cpu_ns_per_echo,
            syscalls_per_echo: load.syscalls_per_echo,
            events_per_wait: load.events_per_wait,
            status: load.status,
            reason: load.reason,
            ..Self::default()
        }
    }
}
