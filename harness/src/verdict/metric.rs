//! The figures that arms and runs are compared by. Comparisons, charts, tables and sentences read
//! this one table.

use crate::matrix::Margins;
use crate::rows::{KERNEL_SUM, Pass, TrialRow, USER_SUM, Verdict, WindowRow};
use crate::statistics::Interval;

/// A figure that is compared.
#[derive(Debug)]
pub struct Metric {
    /// The name in `comparisons.csv`; for a figure of a trial also its column in `trials.csv`, or
    /// the sum of two.
    pub name: &'static str,
    /// The kind of figure: a name that `ringmark compare` knows.
    pub class: Class,
    /// Its name and unit for people.
    pub words: Words,
    /// The verdict on an arm that is better by it; none if only its consequences are good or bad.
    pub better: Option<Verdict>,
    /// Whether it stands when the client was the bottleneck.
    pub stands_when_client_limited: bool,
    /// The figure below which it has no ratio: the smallest change would decide it.
    pub least: f64,
    source: Source,
}

/// The kinds of figures, by the names that users know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Server CPU.
    Cpu,
    /// Latency, and what stands in its pass beside it.
    Latency,
    /// Echoes a second.
    Throughput,
    /// System calls.
    Calls,
    /// Instructions, counted by an emulator.
    Instructions,
    /// Memory per connection.
    Memory,
}

impl Class {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Cpu, Self::Latency, Self::Throughput, Self::Calls, Self::Instructions, Self::Memory];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Calls => "calls",
            Self::Instructions => "instructions",
            Self::Memory => "memory",
        }
    }

    /// Returns the pass that measures it.
    pub fn pass(self) -> Pass {
        match self {
            Self::Cpu | Self::Latency | Self::Throughput => Pass::Latency,
            Self::Calls => Pass::Syscalls,
            Self::Instructions => Pass::Instructions,
            Self::Memory => Pass::Memory,
        }
    }
}

/// A metric in words.
#[derive(Debug)]
pub struct Words {
    /// The figure.
    pub noun: &'static str,
    /// The unit of its medians.
    pub unit: &'static str,
}

/// A column of `trials.csv`; none where a trial has no figure.
type TrialColumn = fn(&TrialRow) -> Option<f64>;

/// The same of `windows.csv`.
type TurnColumn = fn(&WindowRow) -> Option<f64>;

#[derive(Debug)]
enum Source {
    /// A column of `trials.csv`. In an open loop a part of a latency is the client's own: how late
    /// it sent, at the same percentile or the nearest that there is. A turn of an interleaved
    /// workload may have the figure too.
    Trial { value: TrialColumn, send_lag: Option<TrialColumn>, turn: Option<TurnColumn> },
    /// A slope of `memory.csv` over that of `null`, by its object.
    Slope(&'static str),
    /// A sum of `instructions.csv`.
    Instructions,
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Metric {
    /// Returns the pass that measures it.
    pub fn pass(&self) -> Pass {
        self.class.pass()
    }

    /// Returns the difference that does not matter, in percent.
    pub fn margin_percent(&self, margins: &Margins) -> f64 {
        match self.class {
            Class::Cpu => margins.cpu_percent,
            _ if *self == P50 => margins.p50_percent,
            _ => margins.other_percent,
        }
    }

    /// Returns the figure of a trial.
    pub fn value(&self, row: &TrialRow) -> Option<f64> {
        match self.source {
            Source::Trial { value, .. } => value(row),
            Source::Slope(_) | Source::Instructions => None,
        }
    }

    /// Returns the figure of a turn, if turns have it.
    pub fn value_of_turn(&self) -> Option<TurnColumn> {
        match self.source {
            Source::Trial { turn, .. } => turn,
            Source::Slope(_) | Source::Instructions => None,
        }
    }

    /// Returns the column of the client's lag in sending, if it is a part of this figure.
    pub fn send_lag(&self) -> Option<TrialColumn> {
        match self.source {
            Source::Trial { send_lag, .. } => send_lag,
            Source::Slope(_) | Source::Instructions => None,
        }
    }

    /// Returns the object of `memory.csv` whose slope it is.
    pub fn object(&self) -> Option<&'static str> {
        match self.source {
            Source::Slope(object) => Some(object),
            Source::Trial { .. } | Source::Instructions => None,
        }
    }
}

/// Server CPU for an echo.
pub const CPU: Metric = Metric {
    name: "server_cpu_ns_per_echo",
    class: Class::Cpu,
    words: Words { noun: "server CPU per echo", unit: "ns" },
    better: Some(Verdict::Lower),
    stands_when_client_limited: true,
    least: 0.01,
    source: Source::Trial {
        value: |row| row.server_cpu_ns_per_echo,
        send_lag: None,
        turn: Some(WindowRow::server_cpu_ns_per_echo),
    },
};

/// CPU of server and client for an echo: on loopback the sender's CPU does a part of the receiver's
/// work.
pub const BOTH_CPU: Metric = Metric {
    name: "server_and_client_cpu_ns_per_echo",
    class: Class::Cpu,
    words: Words { noun: "server and client CPU per echo", unit: "ns" },
    better: Some(Verdict::Lower),
    stands_when_client_limited: true,
    least: 0.01,
    source: Source::Trial {
        value: |row| Some(row.server_cpu_ns_per_echo? + row.client_cpu_ns_per_echo?),
        send_lag: None,
        turn: Some(WindowRow::both_cpu_ns_per_echo),
    },
};

/// Echoes a second.
pub const THROUGHPUT: Metric = Metric {
    name: "achieved_per_s",
    class: Class::Throughput,
    words: Words { noun: "echoes per second", unit: "/s" },
    better: Some(Verdict::Higher),
    stands_when_client_limited: false,
    least: 0.0,
    source: Source::Trial { value: |row| row.achieved_per_s, send_lag: None, turn: None },
};

/// The median latency.
pub const P50: Metric = latency(
    "latency_p50_us",
    "median latency",
    |row| row.latency_p50_us,
    Some(|row| row.send_lag_p50_us),
);

/// The 99th percentile of latency.
pub const P99: Metric = latency(
    "latency_p99_us",
    "p99 latency",
    |row| row.latency_p99_us,
    Some(|row| row.send_lag_p99_us),
);

/// The 99.9th percentile of latency.
pub const P999: Metric = latency(
    "latency_p999_us",
    "p99.9 latency",
    |row| row.latency_p999_us,
    Some(|row| row.send_lag_p99_us),
);

const SERVICE_P99: Metric =
    latency("service_p99_us", "p99 service time", |row| row.service_p99_us, None);

const fn latency(
    name: &'static str,
    noun: &'static str,
    value: TrialColumn,
    send_lag: Option<TrialColumn>,
) -> Metric {
    Metric {
        name,
        class: Class::Latency,
        words: Words { noun, unit: "µs" },
        better: Some(Verdict::Lower),
        stands_when_client_limited: false,
        least: 0.0,
        source: Source::Trial { value, send_lag, turn: None },
    }
}

const CONTEXT_SWITCHES: Metric = Metric {
    name: "context_switches_per_echo",
    class: Class::Latency,
    words: Words { noun: "context switches per echo", unit: "" },
    better: None,
    stands_when_client_limited: true,
    least: 0.01,
    source: Source::Trial {
        value: |row| row.context_switches_per_echo,
        send_lag: None,
        turn: None,
    },
};

const SYSCALLS: Metric = Metric {
    name: "syscalls_per_echo",
    class: Class::Calls,
    words: Words { noun: "system calls per echo", unit: "" },
    better: Some(Verdict::Lower),
    stands_when_client_limited: true,
    least: 0.01,
    source: Source::Trial { value: |row| row.syscalls_per_echo, send_lag: None, turn: None },
};

const fn memory(name: &'static str, noun: &'static str, object: &'static str) -> Metric {
    Metric {
        name,
        class: Class::Memory,
        words: Words { noun, unit: "bytes" },
        better: Some(Verdict::Lower),
        stands_when_client_limited: true,
        least: 1.0,
        source: Source::Slope(object),
    }
}

/// The figures of trials, in the order of `comparisons.csv`.
pub static OF_TRIALS: [Metric; 9] =
    [CPU, BOTH_CPU, THROUGHPUT, P50, P99, P999, SERVICE_P99, CONTEXT_SWITCHES, SYSCALLS];

/// The figure of `instructions.csv`.
pub static INSTRUCTIONS: Metric = Metric {
    name: "instructions_per_echo",
    class: Class::Instructions,
    words: Words { noun: "the server's instructions per echo", unit: "instructions" },
    better: Some(Verdict::Lower),
    stands_when_client_limited: true,
    least: 1.0,
    source: Source::Instructions,
};

/// The figures of walks through connection counts, likewise.
pub static OF_WALKS: [Metric; 2] = [
    memory(
        "memory_kernel_bytes_per_connection_over_null",
        "kernel memory per idle connection",
        KERNEL_SUM,
    ),
    memory(
        "memory_user_bytes_per_connection_over_null",
        "server memory per idle connection",
        USER_SUM,
    ),
];

/// Returns the interval of a ratio as that of a cost, of which more is worse; `better` is the
/// verdict that is good news.
pub fn cost(better: Option<Verdict>, Interval { low, high }: Interval) -> Interval {
    match better {
        Some(Verdict::Higher) => Interval { low: 1.0 / high, high: 1.0 / low },
        _ => Interval { low, high },
    }
}

/// Returns every metric.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    OF_TRIALS.iter().chain(&OF_WALKS).chain(std::iter::once(&INSTRUCTIONS))
}

/// Returns the metric of that name, which is its column in `comparisons.csv`.
pub fn named(name: &str) -> Option<&'static Metric> {
    all().find(|metric| metric.name == name)
}
