//! The words that stand in the files of a run.

use serde::{Deserialize, Serialize};

/// The kind of a trial. Never two at once: counting calls and reading memory disturb timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// Calls by name, over a fixed number of echoes.
    Syscalls,
    /// Instructions, cycles and misses by the CPUs' own counters, over a fixed number of echoes.
    Hardware,
    /// Instructions by function, in an emulator, over a fixed number of echoes.
    Instructions,
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
    /// Returns its word in `trials.csv`.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Syscalls => "syscalls",
            Pass::Hardware => "hardware",
            Pass::Instructions => "instructions",
            Pass::Memory => "memory",
            Pass::Scale => "scale",
            Pass::Capacity => "capacity",
            Pass::Latency => "latency",
        }
    }

    /// Returns whether one server is walked through several connection counts, which takes minutes.
    pub fn is_walk(self) -> bool {
        matches!(self, Pass::Memory | Pass::Scale)
    }

    /// Returns whether a rejected trial is run again. A walk takes minutes, and exact counts would
    /// be the same.
    pub fn is_tried_again(self) -> bool {
        !self.is_walk() && self != Pass::Instructions
    }
}

/// Whether a trial's figures may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// Not tried: so many connections do not fit on this machine.
    Skipped,
    /// The trial did not come to its end.
    #[default]
    Failed,
}

impl Status {
    /// Returns whether some of the figures may be used: CPU per echo at least.
    pub fn is_usable(self) -> bool {
        matches!(self, Status::Ok | Status::ClientLimited)
    }

    /// Returns its word in `trials.csv`.
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

/// Begins the reason of a trial that `failed` without being run, because all of its arm before it
/// failed in the same way.
pub const NOT_RUN: &str = "not run: ";

/// An object of `memory.csv`: the sum of all kernel objects and the server's page tables.
pub const KERNEL_SUM: &str = "all kernel objects";

/// An object: the page tables of the server's process.
pub const PAGE_TABLES: &str = "server's page tables";

/// An object: the server's private pages.
pub const USER_SUM: &str = "server's private pages";

/// An object: what the machine has less of by its own account. The load's pages are in it, but not
/// all that sockets take: the kernel counts their inodes and dentries as reclaimable.
pub const MACHINE_SUM: &str = "MemAvailable";

/// An object: pages of the machine that are in use for anything.
pub const USED_SUM: &str = "used pages";

/// An object: the used pages that no other object accounts for.
pub const UNEXPLAINED: &str = "unexplained";

/// A state of connections in `memory.csv`: none has sent anything.
pub const NEVER_USED: &str = "never-used";

/// A state: each has made one echo and rests.
pub const USED_THEN_IDLE: &str = "used-then-idle";

/// A state: each has a message in flight, in a closed loop.
pub const ACTIVE: &str = "active";

/// A server in `scale.csv`: the one that holds all connections.
pub const CROWDED: &str = "crowded";

/// A server in `scale.csv`: the one that holds the active connections only.
pub const ALONE: &str = "alone";
