//! The rows of a run's CSV files: each column is documented here, where it is written and read.
//!
//! An empty cell means that the figure was not measured in that pass, or that the sample cannot
//! carry it.

use serde::{Deserialize, Serialize, Serializer};

/// What a trial measures. Never two at once: counting calls and reading memory disturb timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// Calls by name, over a fixed number of echoes.
    Syscalls,
    /// Bytes per connection, as a slope over connection counts.
    Memory,
    /// A walk through connection counts, with loads beside those that are idle.
    Scale,
    /// A closed loop's throughput, from which the rates of a sweep follow. Nothing is compared.
    Capacity,
    /// Latency, throughput and CPU, over a window of time.
    Latency,
}

impl Pass {
    /// As in `trials.csv`.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Syscalls => "syscalls",
            Pass::Memory => "memory",
            Pass::Scale => "scale",
            Pass::Capacity => "capacity",
            Pass::Latency => "latency",
        }
    }

    /// Whether one server is walked through several connection counts, which takes minutes.
    pub fn is_walk(self) -> bool {
        matches!(self, Pass::Memory | Pass::Scale)
    }
}

/// Whether a trial's figures may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// All of them.
    Ok,
    /// The client was the bottleneck: CPU per echo may be used, throughput and latency may not.
    ClientLimited,
    /// None: a gate was not passed.
    Rejected,
    /// The kernel refuses the backend, or it cannot hold that many connections.
    Unsupported,
    /// Not tried: this machine has no room for so many connections.
    Skipped,
    /// The trial did not come to its end.
    #[default]
    Failed,
}

impl Status {
    /// Whether some of the figures may be used: CPU per echo at least.
    pub fn is_usable(self) -> bool {
        matches!(self, Status::Ok | Status::ClientLimited)
    }

    /// As in `trials.csv`.
    pub fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::ClientLimited => "client-limited",
            Status::Rejected => "rejected",
            Status::Unsupported => "unsupported",
            Status::Skipped => "skipped",
            Status::Failed => "failed",
        }
    }
}

/// Before the reason of a trial that `failed` without being run, because all of its arm before it
/// failed alike.
pub const NOT_RUN: &str = "not run: ";

/// A row of `trials.csv`: one run of one backend under one workload.
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
    /// Number of the block, from 1. A block that lost a trial stays, and another with the next
    /// number after those of the matrix is run for it, up to a quarter of the matrix's blocks,
    /// rounded up.
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
    /// What the kernel granted it, as JSON.
    pub in_force: String,
    /// Worker threads of the server.
    pub workers: u16,
    /// CPUs that the server was pinned to; empty: not pinned from here.
    pub server_cpus: String,
    /// CPUs that the client was pinned to; empty: not pinned from here.
    pub client_cpus: String,
    /// `fresh`; `as commanded`, where --server-command or --load-command say where the sides run;
    /// or why the trial ran in the host's network namespace.
    pub network_namespace: String,
    /// Connections that stood, as the server counted them; of an external one, as the kernel lists
    /// them: accepted, and not closed by the server.
    pub connections: Option<u64>,
    /// Those of them that sent.
    pub active_connections: Option<u64>,
    /// Size of a message.
    pub message_bytes: u64,
    /// Messages in flight on each active connection.
    pub pipeline_depth: usize,
    /// `closed`: the next message goes when an earlier one is back. `poisson` or `uniform`: an open
    /// loop, in which a seed decides when a message is due.
    pub arrival: String,
    /// Messages per second that were due within the window; only for an open loop, as the next two.
    pub offered_per_s: Option<f64>,
    /// Of those, the ones sent more than 1 ms after they were due.
    #[serde(default)]
    pub late_sends: Option<u64>,
    /// Of those, the ones that were sent only after the window's end, whose lateness counts all the
    /// same.
    #[serde(default)]
    pub unsent: Option<u64>,
    /// Messages that the server still owed when the load waited no longer for them: as long after
    /// the window as the window was, and at least 20 s. They count with the latency that they had
    /// at least; of `latency_*_us` and `service_*_us` those that lie among them are lower bounds,
    /// and empty. Empty in runs that began before there was this column.
    #[serde(default)]
    pub owed: Option<u64>,
    /// Echoes per second within the window. In a closed loop: capacity under this many connections.
    pub achieved_per_s: Option<f64>,
    /// Echoes within the window, each verified byte for byte.
    pub echoes: Option<u64>,
    /// Length of the window.
    pub duration_s: Option<f64>,
    /// Length of the warm-up before it, which is discarded.
    pub warmup_s: Option<f64>,
    /// Whether the rate had settled by its end, or the longest warm-up was over.
    pub warmup_settled: Option<bool>,
    /// Echoes of the warm-up.
    pub warmup_echoes: Option<u64>,
    /// Until a message's last byte is back and verified; median, of the messages that were due
    /// within the window, whenever they came back. In a closed loop a message is due when it
    /// begins, right before it is written; runs that have no column `owed` have there the echoes
    /// that came back within the window.
    pub latency_p50_us: Option<f64>,
    /// The same, 90th percentile.
    pub latency_p90_us: Option<f64>,
    /// The same, 99th percentile.
    pub latency_p99_us: Option<f64>,
    /// The same, 99.9th percentile.
    pub latency_p999_us: Option<f64>,
    /// The same, largest.
    pub latency_max_us: Option<f64>,
    /// From when it was sent, median; only for an open loop (in a closed one latency is that).
    #[serde(default)]
    pub service_p50_us: Option<f64>,
    /// The same, 99th percentile.
    pub service_p99_us: Option<f64>,
    /// From when a message was due until it was sent, median: the load's own share of latency; only
    /// for an open loop.
    #[serde(default)]
    pub send_lag_p50_us: Option<f64>,
    /// The same, 99th percentile.
    pub send_lag_p99_us: Option<f64>,
    /// CPU clock of the server's process, all of its threads, over the window. Of an external
    /// server that has several processes: of all of them, and nothing if one began or ended within
    /// the window.
    pub server_cpu_ns_per_echo: Option<f64>,
    /// Who read that clock: `process clock`, from outside; or `self-reported`, by the server, which
    /// is not to be seen from here, when a line asked it to, so that the line's way there is part
    /// of the window and its answer of the CPU.
    #[serde(default)]
    pub server_cpu_source: String,
    /// The part of it that the server's own program took; the next is the kernel's part, softirqs
    /// among it if the manifest says `softirq_in_process_cpu`. Made of the figure before and the
    /// proportion in which /proc/PID/stat divides the window's time, which is a sample in nearly
    /// every kernel; empty below 25 of its ticks. Not shown in reports: it is known to 50/√(ticks)
    /// in 100 of the figure before, see `server_cpu_division_ticks`.
    #[serde(default)]
    pub server_cpu_user_ns_per_echo: Option<f64>,
    /// The same in the kernel.
    #[serde(default)]
    pub server_cpu_kernel_ns_per_echo: Option<f64>,
    /// The ticks that this division is made of: of one trial its standard error is up to 50/√ticks
    /// in 100, 5 in 100 of 100 ticks.
    #[serde(default)]
    pub server_cpu_division_ticks: Option<u64>,
    /// CPU of the client over the window.
    pub client_cpu_ns_per_echo: Option<f64>,
    /// Busy time of all CPUs over the window, other programs' too; empty with an idle spinner,
    /// which is always busy, and where a side is on another machine. Not shown in reports: most
    /// kernels look at each of their ticks who runs, so that who sleeps between two of them is
    /// missed. It is known to a tick (mostly 10 ms) of each CPU over the echoes at best, and may be
    /// less than server and client together, which are read off clocks.
    pub machine_cpu_ns_per_echo: Option<f64>,
    /// Time of all CPUs in softirqs, where most of TCP's work is done: for both ends, and for
    /// whatever else the machine does. To the kernel's tick, as the column before, and not shown in
    /// reports; empty below 25 ticks of 10 ms, as where the kernel does not tell softirqs apart.
    #[serde(default)]
    pub machine_softirq_ns_per_echo: Option<f64>,
    /// CPU of the client over what its threads could use, in percent.
    pub client_cpu_percent: Option<f64>,
    /// Voluntary and involuntary, of all the server's threads; of an external server's processes as
    /// its CPU.
    pub context_switches_per_echo: Option<f64>,
    /// Time that a worker of the server was ready but had no CPU, in percent of the window; the
    /// mean over the workers.
    pub server_run_delay_percent: Option<f64>,
    /// The same of the client's threads.
    pub client_run_delay_percent: Option<f64>,
    /// With churn: connections that the client opened within the window, per second of it. In the
    /// scale pass: of those up to the largest count, per second of opening, until the server has
    /// them.
    #[serde(default)]
    pub connections_per_s: Option<f64>,
    /// With churn: from before connect() until the client learns that the connection stands,
    /// median. The kernel shakes hands before a server accepts: one that is slow to accept shows in
    /// `latency_*_us` instead.
    #[serde(default)]
    pub connect_p50_us: Option<f64>,
    /// The same, 99th percentile.
    #[serde(default)]
    pub connect_p99_us: Option<f64>,
    /// With churn: CPU clock of the server's process over the window, per connection that was
    /// opened in it; the echoes on it included.
    #[serde(default)]
    pub server_cpu_ns_per_connection: Option<f64>,
    /// Jain's index of fairness over the echoes that each active connection of a closed loop had in
    /// the window, (Σx)² / (n Σx²): 1 when all had equally many, k/n when k of n had all of them
    /// (R. Jain, D.-M. Chiu, W. Hawe, "A Quantitative Measure of Fairness and Discrimination for
    /// Resource Allocation in Shared Computer Systems", DEC-TR-301, 1984). With churn x is what the
    /// connections in one place had.
    #[serde(default)]
    pub fairness_connections: Option<f64>,
    /// Echoes of the connection that had the fewest, over the mean: what the index hides where one
    /// of many starves.
    #[serde(default)]
    pub slowest_connection_over_mean: Option<f64>,
    /// Echoes of the connection that had the most, over the mean.
    #[serde(default)]
    pub fastest_connection_over_mean: Option<f64>,
    /// Jain's index over the echoes of each worker, to which its port belongs. Connections that are
    /// no multiple of the workers make it less than 1 by themselves.
    #[serde(default)]
    pub fairness_workers: Option<f64>,
    /// System calls of the server's workers; of an external server, of all its threads and of the
    /// processes that it forks.
    pub syscalls_per_echo: Option<f64>,
    /// `tracepoints`, or `self-reported` with the reason. Those of an external server are checked
    /// against nothing.
    pub syscalls_source: String,
    /// Readiness events or completions that one wait brought; none of a backend that blocks in its
    /// receives.
    pub events_per_wait: Option<f64>,
    /// What the server's loops counted from its start to its end, as JSON; of a memory trial, its
    /// last server.
    #[serde(default)]
    pub loop_counters: String,
    /// Slope of the server's private pages; the server's own pages hold no part of the other end.
    pub memory_user_bytes_per_connection: Option<f64>,
    /// Slope of the kernel's objects, both ends of the connection.
    pub memory_kernel_bytes_per_connection: Option<f64>,
    /// Time that the hypervisor gave to others, in percent of all CPUs' time, of the machine that
    /// ringmark ran on; empty where neither side did. To a tick (mostly 10 ms): of two CPUs and a
    /// window of 800 ms that is 0.6 %.
    pub steal_percent: Option<f64>,
    /// TCP segments sent again in the trial's network namespace, if it has one of its own.
    pub retransmitted_segments: Option<u64>,
    /// Whether a thread of the lowest priority (SCHED_IDLE) spun on each CPU of the server and of
    /// the client, from before the warm-up on, so that none of them halted when it had nothing to
    /// do. CPU per echo is then that of switches from and to that thread, and not to be set beside
    /// that of an idle CPU.
    #[serde(default)]
    pub idle_spinner: bool,
    /// Whether threads that should run at the same time had to share a CPU, or nothing is known to
    /// have kept them apart: server and client, workers, or a worker and its SQPOLL thread. The
    /// figures are those of such a machine, and no verdict is based on them.
    #[serde(default)]
    pub shared_cpu: bool,
    /// Whether two of the trial's CPUs are hyperthreads of one core, which take each other's time
    /// though each thread has a CPU; empty where the machine does not tell, and in passes without
    /// times. There are verdicts only if the matrix asks for it (`hyperthreads`).
    #[serde(default)]
    pub shared_core: Option<bool>,
    /// Whether the figures may be used.
    pub status: Status,
    /// Why not, or what to mind although they may.
    pub reason: String,
}

impl TrialRow {
    /// Whether the server still owed messages when the load waited no longer. A latency that is
    /// missing then is longer than any that was measured.
    pub fn is_saturated(&self) -> bool {
        self.owed.is_some_and(|owed| owed > 0)
    }

    /// Returns its line in the manifest's order.
    pub fn order_line(&self) -> String {
        let pass = self.pass.map_or("", Pass::name);
        order_line(self.run_id, pass, &self.workload, self.block, &self.arm)
    }

    /// One of its latencies; infinite if it lies among messages that were owed.
    pub fn latency_or_beyond(&self, value: fn(&Self) -> Option<f64>) -> Option<f64> {
        value(self).or_else(|| self.is_saturated().then_some(f64::INFINITY))
    }
}

/// Returns the line of a trial in the manifest's order.
pub fn order_line(run_id: u32, pass: &str, workload: &str, block: u32, role: &str) -> String {
    format!("{run_id} {pass} {workload} block {block} {role}")
}

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

/// A row of `events.csv`: how often one thing happened within io_uring in one trial of a backend
/// that uses it, over the same echoes as the calls of the trial.
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
    /// The kernel's name of the tracepoint. What each tells stands in
    /// `instruments/tracepoints/ring_event.rs`.
    pub event: String,
    /// How often it fired in the server's threads, its SQPOLL thread and io-wq workers included.
    /// Exact: only tracepoints that fire there and nowhere else are counted, and a trial whose
    /// `io_uring_complete` (with `io_uring_cqe_overflow`) does not equal the completions that the
    /// server took has no counts.
    pub count: Option<u64>,
    /// The same over the echoes.
    pub count_per_echo: Option<f64>,
    /// `tracepoints`, or `unavailable` with the reason.
    pub source: String,
}

/// A row of `scale.csv`: one step of a walk through connection counts. All steps of a trial are in
/// the order of the rows, on one server; loads are measured on another of its kind too, see
/// `server`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleRow {
    /// The trial.
    pub run_id: u32,
    /// Its arm.
    pub arm: String,
    /// Its backend.
    pub backend: String,
    /// `before` the server was started; `open`: connections were opened, and so many stood in the
    /// end; `rest`: none sent; `load`; `all`: every one sent one message and got it back; `close`:
    /// connections were reset, and so many were left; `after` the server had ended.
    pub step: String,
    /// Connections that stood at its end, as the server counted them; of a load, those that the
    /// crowded server had while it was measured.
    pub connections: u64,
    /// Those of them that sent.
    pub active_connections: u64,
    /// `closed` or `poisson`, of a load.
    pub arrival: String,
    /// Of a load: `crowded`, the server that holds all of them, or `alone`, one of the same kind
    /// that holds the active ones only, and is measured right before or after. Empty in runs that
    /// had no second server.
    #[serde(default)]
    pub server: String,
    /// Which measurement of the same load, from 1.
    pub repeat: Option<u32>,
    /// How long it took; of a load and of the rest, the window.
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
    /// Messages per second that were due; of an open loop.
    pub offered_per_s: Option<f64>,
    /// As in `trials.csv`.
    #[serde(default)]
    pub owed: Option<u64>,
    /// Echoes per second.
    pub achieved_per_s: Option<f64>,
    /// Echoes within the window, each verified byte for byte.
    pub echoes: Option<u64>,
    /// As in `trials.csv`.
    pub latency_p50_us: Option<f64>,
    /// As in `trials.csv`.
    pub latency_p99_us: Option<f64>,
    /// As in `trials.csv`.
    pub latency_p999_us: Option<f64>,
    /// As in `trials.csv`.
    pub latency_max_us: Option<f64>,
    /// As in `trials.csv`.
    pub service_p50_us: Option<f64>,
    /// As in `trials.csv`.
    pub service_p99_us: Option<f64>,
    /// CPU clock of the server's process, over the echoes.
    pub server_cpu_ns_per_echo: Option<f64>,
    /// The same, over the time.
    pub server_cpu_percent: Option<f64>,
    /// The client's, over the echoes; the one that holds the idle connections is another program,
    /// and not in it.
    pub client_cpu_ns_per_echo: Option<f64>,
    /// What neither took of the time that the machine's CPUs were busy, over all of their time: the
    /// kernel's own threads and other programs. To the kernel's tick: of two CPUs and 200 ms that
    /// is 2.5 %. 0 where that is less than both took.
    #[serde(default)]
    pub other_cpu_percent: Option<f64>,
    /// System calls of the server's workers by their own counters, over all echoes of the step, its
    /// warm-up's too.
    pub syscalls_per_echo: Option<f64>,
    /// Readiness events or completions that one wait brought.
    pub events_per_wait: Option<f64>,
    /// What the machine had left (`MemAvailable`) at the end of the step.
    pub machine_available_bytes: u64,
    /// Whether the figures may be used.
    pub status: Status,
    /// Why not, or what to mind although they may.
    pub reason: String,
}

impl ScaleRow {
    /// Returns the row of a step that has the figures of a load.
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

/// A row of `memory_points.csv`: one reading of one object at one connection count. An object whose
/// readings differ by less than a byte for each connection of the walk is left out, here and in
/// `memory.csv`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryPointRow {
    /// The trial.
    pub run_id: u32,
    /// Its arm.
    #[serde(default)]
    pub arm: String,
    /// Its backend.
    pub backend: String,
    /// `never-used`, `used-then-idle` or `active`.
    pub state: String,
    /// `up` or `down`: how the count was reached.
    pub direction: String,
    /// Connections that stood.
    pub connections: u64,
    /// `kernel`, `user` or `machine`.
    pub space: String,
    /// What was read: a slab cache, or one of the sums.
    pub object: String,
    /// The bytes in use.
    pub bytes: u64,
    /// Whether the reading had come to rest.
    pub settled: bool,
}

/// A row of `memory.csv`: what one connection costs of one object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryRow {
    /// The trial.
    pub run_id: u32,
    /// Its arm.
    #[serde(default)]
    pub arm: String,
    /// Its backend.
    pub backend: String,
    /// `never-used`: no connection has sent anything. `used-then-idle`: each has made one echo and
    /// rests. `active`: each has a message on its way at any moment.
    pub state: String,
    /// `kernel`, `user` or `machine`.
    pub space: String,
    /// A slab cache, or one of the sums.
    pub object: String,
    /// All names of a cache that several kinds of objects share.
    pub aliases: String,
    /// Theil–Sen slope over the points of the way up.
    pub bytes_per_connection: f64,
    /// Lower end of its 95 % interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// The line's value at no connection.
    pub intercept_bytes: f64,
    /// The slope of the way down: where it is less, memory was kept for reuse.
    pub down_bytes_per_connection: Option<f64>,
    /// The kernel's slope less that of `null`, never used: what the backend adds to two bare TCP
    /// endpoints. In user space the slope itself, because `null`'s own pages are no part of another
    /// server.
    pub over_null_bytes_per_connection: Option<f64>,
    /// Lower end of its interval: the lower end of this slope less the upper end of `null`'s.
    pub over_null_low: Option<f64>,
    /// Upper end.
    pub over_null_high: Option<f64>,
    /// Status of the trial; only `ok` is compared and reported. A reader looks further: `slopes.rs`
    /// tells which slopes of an `ok` trial show something else's memory, or are not told from 0,
    /// and nothing is computed from these.
    pub status: Status,
}

impl MemoryRow {
    /// Connections and bytes of the readings that the slope is through.
    pub fn way_up<'a>(
        &'a self,
        points: &'a [MemoryPointRow],
    ) -> impl Iterator<Item = (f64, f64)> + 'a {
        let is_own = |point: &&MemoryPointRow| {
            (point.run_id, &point.state, &point.space, &point.object, point.direction.as_str())
                == (self.run_id, &self.state, &self.space, &self.object, "up")
        };
        points.iter().filter(is_own).map(|point| (point.connections as f64, point.bytes as f64))
    }
}

/// What the bounds of a ratio are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bounds {
    /// The smallest and the largest ratio of a block: below ten blocks.
    Range,
    /// The 95 % interval of the geometric mean, by Student's t on the logarithms of the blocks'
    /// ratios.
    Interval95,
}

/// What a comparison shows, in words that fit every metric: of CPU and latency `lower` is better,
/// of throughput `higher`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The arm's figure is lower: the interval lies below 1, and the ratio below the noise.
    Lower,
    /// It is higher: the interval lies above 1, and the ratio above the noise.
    Higher,
    /// Neither.
    NoDifferenceShown,
    /// Fewer than ten blocks count.
    Range,
    /// The baseline's second reading is missing, so that a difference has nothing to exceed.
    NoNoise,
    /// The client's own lag in sending differs between the two, by enough to account for a tenth or
    /// more of the difference in latency.
    SendLag,
    /// One of the two had to share a CPU.
    SharedCpu,
    /// One of the two had CPUs that are hyperthreads of one core.
    SharedCore,
    /// The calls of one trial of each, which are a count.
    Counted,
    /// One walk of each; the interval of each slope stands in memory.csv.
    OneWalk,
}

impl Verdict {
    /// As in `comparisons.csv`.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Lower => "lower",
            Verdict::Higher => "higher",
            Verdict::NoDifferenceShown => "no difference shown",
            Verdict::Range => "range, no verdict",
            Verdict::SendLag => "send lag differs, no verdict",
            Verdict::NoNoise => "no noise measured, no verdict",
            Verdict::SharedCpu => "shared-cpu, no verdict",
            Verdict::SharedCore => "shared-core, no verdict",
            Verdict::Counted => "counted",
            Verdict::OneWalk => "one walk; the interval of each slope stands in memory.csv",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.words())
    }
}

/// A row of `comparisons.csv`: an arm against the baseline, or against the arm that it is over in
/// the matrix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparisonRow {
    /// The workload.
    pub workload: String,
    /// What is compared: a column of `trials.csv`.
    pub metric: String,
    /// The arm.
    pub arm: String,
    /// Its backend.
    pub backend: String,
    /// The arm that it is compared with.
    pub baseline: String,
    /// That one's median over the blocks that count.
    pub baseline_median: f64,
    /// The arm's median over the same blocks.
    pub arm_median: f64,
    /// Geometric mean over the blocks of arm / baseline.
    pub ratio: f64,
    /// `range`: the smallest and the largest ratio of a block; `interval95`, from ten blocks on:
    /// the 95 % interval by Student's t on the logarithms of the blocks' ratios.
    pub bounds: Bounds,
    /// The lower bound.
    pub ratio_low: f64,
    /// The upper bound.
    pub ratio_high: f64,
    /// How many blocks count: those in which no trial of this workload was turned away, additional
    /// ones included. An arm that stood in none of three blocks or more has no figures and takes
    /// none out.
    pub blocks: u32,
    /// The noise: the same lower bound of the matrix's baseline to itself, in the same blocks.
    pub noise_low: Option<f64>,
    /// The upper one.
    pub noise_high: Option<f64>,
    /// `lower` or `higher` than the baseline: the interval excludes 1, and the ratio lies beyond
    /// the noise. Else `no difference shown`, or why there is no verdict.
    pub verdict: Verdict,
}

/// A row of `capacity.csv`: what an arm carried in a sweep at the latency objective.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CapacityRow {
    /// The workload that was swept.
    pub sweep: String,
    /// The arm.
    pub arm: String,
    /// The 99th percentile of latency that is to be kept.
    pub objective_p99_us: f64,
    /// The highest rate that kept it, as did every lower one: over the blocks that count, the upper
    /// end of the bounds of the geometric mean does not exceed it. None if the lowest rate did not
    /// keep it.
    pub kept_per_s: Option<f64>,
    /// The mean there.
    pub kept_p99_us: Option<f64>,
    /// The lower end of its bounds.
    pub kept_p99_low_us: Option<f64>,
    /// The upper end.
    pub kept_p99_high_us: Option<f64>,
    /// The next rate, which is not shown to be kept; none if all were.
    pub missed_per_s: Option<f64>,
    /// Its mean, where the sample carries one.
    pub missed_p99_us: Option<f64>,
    /// The lower end of its bounds.
    pub missed_p99_low_us: Option<f64>,
    /// The upper end.
    pub missed_p99_high_us: Option<f64>,
    /// The kind of all bounds: the 95 % interval, or the range of the blocks where one rate has
    /// fewer than ten.
    pub bounds: Option<Bounds>,
    /// Why it does not count as kept. `the client was the limit`: the bounds reach beyond the
    /// objective, but the client was too busy to tell whose doing that is.
    pub missed_because: String,
}

/// The sum of all kernel objects and the server's page tables.
pub const KERNEL_SUM: &str = "all kernel objects";

/// Those of the server's process.
pub const PAGE_TABLES: &str = "server's page tables";

/// The server's private pages.
pub const USER_SUM: &str = "server's private pages";

/// What the machine has less of as it says itself: the load's pages too, but not all that sockets
/// take, because it counts their inodes and dentries among what it could reclaim.
pub const MACHINE_SUM: &str = "MemAvailable";

/// Pages of the machine that are in use for anything.
pub const USED_SUM: &str = "used pages";

/// Those of them that no other object here accounts for.
pub const UNEXPLAINED: &str = "unexplained";

/// No connection has sent anything.
pub const NEVER_USED: &str = "never-used";

/// Each connection has made one echo and rests.
pub const USED_THEN_IDLE: &str = "used-then-idle";

/// Each connection of a closed loop has a message on its way.
pub const ACTIVE: &str = "active";

/// The servers, in `scale.csv`.
pub const CROWDED: &str = "crowded";

pub const ALONE: &str = "alone";

/// All that came of a trial.
#[derive(Default)]
pub struct Outcome {
    /// Its row.
    pub row: TrialRow,
    /// The latencies of its messages, as an HdrHistogram log.
    pub histogram: Option<String>,
    /// Its calls.
    pub syscalls: Vec<SyscallRow>,
    /// What happened within io_uring.
    pub events: Vec<EventRow>,
    /// Its memory readings.
    pub memory_points: Vec<MemoryPointRow>,
    /// Slopes through them, not yet compared with `null`.
    pub memory: Vec<MemoryRow>,
    /// The steps of a walk.
    pub scale: Vec<ScaleRow>,
}
