//! `trials.csv`: one run of one backend under one workload.

use serde::{Deserialize, Serialize};

use super::words::{Pass, Status};

/// A row of `trials.csv`. Runs of earlier versions have fewer columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialRow {
    /// Number of the trial in its run, from 1, in the order in which they ran.
    pub run_id: u32,
    /// When it began, UTC.
    pub started_utc: String,
    /// `syscalls`, `memory`, `scale`, `capacity` or `latency`.
    pub pass: Option<Pass>,
    /// Name of the workload in the matrix; `memory` and `scale` in these passes.
    pub workload: String,
    /// Number of the block, from 1. A block that lost a trial stays. Another one is run for it,
    /// with the next number after those of the matrix, up to a quarter more blocks, rounded up.
    pub block: u32,
    /// Place in the block's shuffled order, from 1.
    pub order: u32,
    /// Its role in the block, which the other files refer to: the backend and its settings, with `
    /// (again)` for the baseline's second reading.
    pub arm: String,
    /// The backend, or the external server's name in the matrix.
    pub backend: String,
    /// All of its knobs, as JSON; those of an external server are not known.
    pub knobs: String,
    /// The settings that the kernel granted it, as JSON.
    pub in_force: String,
    /// Worker threads of the server.
    pub workers: u16,
    /// CPUs that the server was pinned to; empty: not pinned from here.
    pub server_cpus: String,
    /// CPUs that the client was pinned to; empty: not pinned from here.
    pub client_cpus: String,
    /// `fresh`; `as commanded` with --server-command or --load-command; or why the trial ran in the
    /// host's network namespace.
    pub network_namespace: String,
    /// The network between the sides, if ringmark made one: `loopback`, `loopback6`, the same over
    /// IPv6, `veth`, a pair of virtual Ethernet devices, or `unix`, a Unix socket.
    #[serde(default)]
    pub path: String,
    /// Bytes of the largest packet there.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// The congestion control there.
    #[serde(default)]
    pub congestion: String,
    /// How packets larger than that are handled there: `gso`, divided by the kernel, `tso`, divided
    /// by the device, and `gro`, joined on the way in; or `none`.
    #[serde(default)]
    pub offloads: String,
    /// Connections that stood, as the server counted them. For an external server, as the kernel
    /// lists them: accepted, and not closed by the server.
    pub connections: Option<u64>,
    /// Connections that sent.
    pub active_connections: Option<u64>,
    /// The server's service; with another one than `echo` also its sizes, as its options say them.
    #[serde(default)]
    pub service: String,
    /// Size of a message: of an echo one way, of an exchange its request and response together.
    pub message_bytes: u64,
    /// Messages in flight on each active connection.
    pub pipeline_depth: usize,
    /// `closed`: the next message goes when an earlier one is back. `poisson` or `uniform`: an open
    /// loop, in which a seed decides when a message is due.
    pub arrival: String,
    /// Open loop: messages per second that were due within the window.
    pub offered_per_s: Option<f64>,
    /// Open loop: messages that were sent more than 1 ms after they were due.
    pub late_sends: Option<u64>,
    /// Open loop: messages that were sent only after the window's end. Their lateness counts.
    pub unsent: Option<u64>,
    /// Messages that the server still owed when the load waited no longer for them: as long after
    /// the window as the window was, and at least 20 s. They count with the latency that they had
    /// at least. Percentiles that lie among them are lower bounds, and empty.
    pub owed: Option<u64>,
    /// Echoes per second within the window. In a closed loop: capacity with this many connections.
    pub achieved_per_s: Option<f64>,
    /// Echoes within the window, each verified byte for byte. With another service these are
    /// messages: responses that came back or, of a sink, requests that the client's socket took;
    /// and `per_echo` means for each of them.
    pub echoes: Option<u64>,
    /// Bytes of these messages, per second of the window.
    #[serde(default)]
    pub bytes_per_s: Option<f64>,
    /// Length of the window.
    pub duration_s: Option<f64>,
    /// Length of the warm-up before it, which is discarded.
    pub warmup_s: Option<f64>,
    /// Whether the rate had settled by its end, or the longest warm-up was over.
    pub warmup_settled: Option<bool>,
    /// Echoes of the warm-up.
    pub warmup_echoes: Option<u64>,
    /// Until a message's last byte is back and verified, arithmetic mean; over the same messages as
    /// the median.
    #[serde(default)]
    pub latency_mean_us: Option<f64>,
    /// Until a message's last byte is back and verified, median, over the messages that were due
    /// within the window, whenever they came back. In a closed loop a message is due right before
    /// it is written. Runs without a column `owed` have the echoes that came back in the window.
    pub latency_p50_us: Option<f64>,
    /// The same, 90th percentile.
    pub latency_p90_us: Option<f64>,
    /// The same, 99th percentile.
    pub latency_p99_us: Option<f64>,
    /// The same, 99.9th percentile.
    pub latency_p999_us: Option<f64>,
    /// The same, largest.
    pub latency_max_us: Option<f64>,
    /// Open loop: the same from when a message was sent, median.
    pub service_p50_us: Option<f64>,
    /// The same, 99th percentile.
    pub service_p99_us: Option<f64>,
    /// Open loop: from when a message was due until it was sent, median. This is the load's own
    /// share of latency.
    pub send_lag_p50_us: Option<f64>,
    /// The same, 99th percentile.
    pub send_lag_p99_us: Option<f64>,
    /// CPU clock of the server's process, all of its threads, over the window. For an external
    /// server: of all its processes, and empty if one began or ended within the window.
    pub server_cpu_ns_per_echo: Option<f64>,
    /// The same for 1,048,576 bytes of messages.
    #[serde(default)]
    pub server_cpu_ns_per_mib: Option<f64>,
    /// Who read that clock: `process clock`, from outside; or `self-reported`, by a server that is
    /// not to be seen from here. Then the request's way there is part of the window, and the answer
    /// part of the CPU.
    #[serde(default)]
    pub server_cpu_source: String,
    /// The part of it that the server's own program took. /proc/PID/stat gives the proportion,
    /// which is a sample in nearly every kernel; empty below 30 of its ticks. Not shown in reports:
    /// see `server_cpu_division_ticks`.
    pub server_cpu_user_ns_per_echo: Option<f64>,
    /// The part that the kernel took, with softirqs if the manifest says `softirq_in_process_cpu`.
    pub server_cpu_kernel_ns_per_echo: Option<f64>,
    /// The ticks that this division is made of. Its standard error is up to 50/√ticks in 100 of
    /// one trial's CPU: 5 in 100 with 100 ticks.
    pub server_cpu_division_ticks: Option<u64>,
    /// The application's work of the server (`work_ns`), as it counted it from clock to clock;
    /// empty without work. The cost of reading the clock comes on top.
    #[serde(default)]
    pub worked_ns_per_echo: Option<f64>,
    /// CPU of the client over the window.
    pub client_cpu_ns_per_echo: Option<f64>,
    /// Busy time of all CPUs over the window, other programs' too; empty with an idle spinner,
    /// which is always busy, and if a side is on another machine. Not shown in reports: most
    /// kernels look at each tick (mostly 10 ms) who runs, and miss who sleeps between two ticks. It
    /// may be less than server and client together, which are read off clocks.
    pub machine_cpu_ns_per_echo: Option<f64>,
    /// Time of all CPUs in softirqs, where most of TCP's work is done, for both ends and all else.
    /// Not shown in reports. Empty below 30 ticks of 10 ms, and if the kernel does not tell
    /// softirqs apart.
    pub machine_softirq_ns_per_echo: Option<f64>,
    /// Time in which CPUs idled while a task of theirs waited for I/O, in percent of all CPUs'
    /// time, as monitoring shows it; in ticks like `steal_percent`. A wait for completions of
    /// io_uring counts as one, unless `no_iowait` is on.
    #[serde(default)]
    pub machine_iowait_percent: Option<f64>,
    /// Time for which some task of the machine waited for a CPU, in percent of the window
    /// (/proc/pressure/cpu).
    #[serde(default)]
    pub cpu_pressure_percent: Option<f64>,
    /// The same for I/O (/proc/pressure/io).
    #[serde(default)]
    pub io_pressure_percent: Option<f64>,
    /// CPU of the client over what its threads could use, in percent.
    pub client_cpu_percent: Option<f64>,
    /// Voluntary and involuntary, of all threads of the server, or of all its processes.
    pub context_switches_per_echo: Option<f64>,
    /// The bound on the server's CPU time, in percent of one CPU: a control group with all of its
    /// threads, the kernel's for its rings too.
    #[serde(default)]
    pub cpu_quota_percent: Option<f64>,
    /// Time for which the server had used up that bound, in percent of the window; summed over the
    /// CPUs on which it had work.
    #[serde(default)]
    pub throttled_percent: Option<f64>,
    /// Time that a worker of the server was ready but had no CPU, in percent of the window; the
    /// mean over the workers.
    pub server_run_delay_percent: Option<f64>,
    /// The same of the client's threads.
    pub client_run_delay_percent: Option<f64>,
    /// With churn: connections that the client opened within the window, per second of it. In the
    /// scale pass: connections up to the largest count, per second of opening, until the server has
    /// them.
    pub connections_per_s: Option<f64>,
    /// With churn: from before connect() until the client learns that the connection stands,
    /// median. The kernel shakes hands before a server accepts: a slow accept shows in
    /// `latency_*_us` instead.
    pub connect_p50_us: Option<f64>,
    /// The same, 99th percentile.
    pub connect_p99_us: Option<f64>,
    /// With churn: CPU clock of the server's process over the window, per connection that was
    /// opened in it; the echoes on it included.
    pub server_cpu_ns_per_connection: Option<f64>,
    /// Jain's index of fairness over the echoes that each active connection of a closed loop had in
    /// the window, (Σx)² / (n Σx²): 1 when all had equally many, k/n when k of n had all of them
    /// (R. Jain, D.-M. Chiu, W. Hawe, "A Quantitative Measure of Fairness and Discrimination for
    /// Resource Allocation in Shared Computer Systems", DEC-TR-301, 1984). With churn x is what the
    /// connections in one place had.
    pub fairness_connections: Option<f64>,
    /// Echoes of the connection that had the fewest, over the mean. The index hides it where one of
    /// many starves.
    pub slowest_connection_over_mean: Option<f64>,
    /// Echoes of the connection that had the most, over the mean.
    pub fastest_connection_over_mean: Option<f64>,
    /// Jain's index over the echoes of each worker, if each has a port to itself. It is less than 1
    /// by itself if the connections are no multiple of the workers.
    pub fairness_workers: Option<f64>,
    /// The connections of the worker that has accepted the most so far, in percent of all. Empty
    /// with one worker, and of external servers.
    pub busiest_worker_percent: Option<f64>,
    /// System calls of the server's workers. For an external server: of all its threads and of the
    /// processes that it forks.
    pub syscalls_per_echo: Option<f64>,
    /// `tracepoints`, or `self-reported` with the reason. Those of an external server are not
    /// checked against anything.
    pub syscalls_source: String,
    /// Readiness events or completions that one wait brought; empty if a backend blocks in its
    /// receives.
    pub events_per_wait: Option<f64>,
    /// Counters of the server's loops from its start to its end, as JSON. A memory trial has those
    /// of its last server.
    #[serde(default)]
    pub loop_counters: String,
    /// Slope of the server's private pages; no part of the other end is in them.
    pub memory_user_bytes_per_connection: Option<f64>,
    /// Slope of the kernel's objects, both ends of the connection.
    pub memory_kernel_bytes_per_connection: Option<f64>,
    /// Time that the hypervisor gave to others, in percent of all CPUs' time of ringmark's machine;
    /// empty if neither side was there. Counted in ticks (mostly 10 ms): one tick in 800 ms of two
    /// CPUs is 0.6 %.
    pub steal_percent: Option<f64>,
    /// TCP segments sent again in the trial's network namespace, if it has one of its own.
    pub retransmitted_segments: Option<u64>,
    /// Whether a thread of the lowest priority (SCHED_IDLE) spun on each CPU of both sides, from
    /// before the warm-up on, so that none of them halted. CPU per echo then includes the switches
    /// from and to that thread, and is not comparable with that of an idle CPU.
    #[serde(default)]
    pub idle_spinner: bool,
    /// Whether threads that should run at the same time had to share a CPU, or are not known to
    /// have been kept apart: server and client, workers, or a worker and its SQPOLL thread. No
    /// verdict is based on such figures.
    #[serde(default)]
    pub shared_cpu: bool,
    /// Whether two of the trial's CPUs are hyperthreads of one core, which slow each other down;
    /// empty if the machine does not tell, and in passes without times. There are verdicts only if
    /// the matrix asks for them (`hyperthreads`).
    pub shared_core: Option<bool>,
    /// Whether the figures may be used.
    pub status: Status,
    /// Why not, or what to mind although they may.
    pub reason: String,
}

impl TrialRow {
    /// Returns whether the server still owed messages when the load waited no longer. A latency
    /// that is missing then is longer than any that was measured.
    pub fn is_saturated(&self) -> bool {
        self.owed.is_some_and(|owed| owed > 0)
    }

    /// Returns its line in the manifest's order.
    pub fn order_line(&self) -> String {
        let pass = self.pass.map_or("", Pass::name);
        order_line(self.run_id, pass, &self.workload, self.block, &self.arm)
    }

    /// Returns one of its latencies; infinite if it lies among messages that were owed.
    pub fn latency_or_beyond(&self, value: fn(&Self) -> Option<f64>) -> Option<f64> {
        value(self).or_else(|| self.is_saturated().then_some(f64::INFINITY))
    }
}

/// Returns the line of a trial in the manifest's order.
pub fn order_line(run_id: u32, pass: &str, workload: &str, block: u32, role: &str) -> String {
    format!("{run_id} {pass} {workload} block {block} {role}")
}
