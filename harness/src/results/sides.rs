//! The places of a run's server and load, as its manifest tells them.

use std::net::IpAddr;

use itertools::Itertools as _;
use ringmark::cpus::CpuList;
use ringmark::whereabouts::Whereabouts;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::machine::program_file::ProgramFile;
use crate::machine::topology::Topology;

/// One side of a run that has a command on either.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Side {
    /// The command that started its program, without its arguments; null: none.
    pub command: Option<String>,
    /// Figures that are not measured of it, and why.
    pub not_measured: Vec<String>,
    /// The description of its machine.
    pub machine: Value,
    /// The program that ran.
    pub program: Option<ProgramFile>,
    /// The CPUs on which its program may run, if they are known.
    #[serde(skip)]
    pub cpus: Option<CpuList>,
    /// Whether it is on this machine.
    #[serde(skip)]
    pub is_here: bool,
    /// Whether /proc shows its processes here, under their own numbers.
    #[serde(skip)]
    pub is_visible: bool,
    /// Its machine and namespaces.
    #[serde(skip)]
    pub whereabouts: Whereabouts,
}

impl Side {
    /// Returns which of its CPUs share a core, as far as it tells.
    pub fn topology(&self) -> Topology {
        serde_json::from_value(self.machine["topology"].clone()).unwrap_or_default()
    }

    /// Returns why /proc does not show its processes here.
    fn unseen(&self, name: &str) -> String {
        let place = if self.is_here { "in another pid namespace" } else { "on another machine" };
        format!("the {name} is {place}")
    }
}

/// Both sides of a run that has a command on either.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sides {
    /// The address on which the server listens and the load finds it.
    pub server_address: IpAddr,
    /// Whether both are in one network namespace.
    pub over_loopback: bool,
    /// Whether both are on one machine.
    pub one_machine: bool,
    /// Whether the programs lie in another folder on the sides that have a command.
    #[serde(default)]
    pub has_remote_bin: bool,
    /// The server's.
    pub server: Side,
    /// The load's; with several loads, the first one's.
    pub load: Side,
    /// Those of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_loads: Vec<Side>,
}

impl Sides {
    /// Returns where the traffic of a run went, in words, from its manifest's `sides`.
    pub fn traffic(sides: Option<&Self>) -> String {
        const OVER_LOOPBACK: &str = "over loopback, both sides on one machine";
        let Some(sides) = sides else { return OVER_LOOPBACK.to_owned() };
        let address = sides.server_address;
        let network = if sides.over_loopback {
            OVER_LOOPBACK.to_owned()
        } else if sides.one_machine {
            format!("to {address}, not over loopback but between two networks of one machine")
        } else {
            format!("to {address}, from one machine to another")
        };
        let started = |side: &Side| match &side.command {
            Some(command) => format!("by `{command}`"),
            None => "without a command".to_owned(),
        };
        let server = started(&sides.server);
        match sides.loads().map(started).collect::<Vec<_>>().as_slice() {
            [load] => format!("{network}; server started {server}, load {load}"),
            loads => {
                let (count, loads) = (loads.len(), loads.iter().join(", "));
                format!("{network}; server started {server}, {count} loads {loads}")
            }
        }
    }

    /// Returns the places of all loads.
    pub fn loads(&self) -> impl Iterator<Item = &Side> {
        std::iter::once(&self.load).chain(&self.other_loads)
    }

    /// Returns all sides with their names.
    pub fn named(&self) -> impl Iterator<Item = (String, &Side)> {
        let count = 1 + self.other_loads.len();
        let name = move |index| match count {
            1 => "load".to_owned(),
            _ => format!("load {} of {count}", index + 1),
        };
        let loads = self.loads().enumerate().map(move |(index, side)| (name(index), side));
        std::iter::once(("server".to_owned(), &self.server)).chain(loads)
    }

    /// Returns whether all loads are on this machine, whose clock they share.
    pub fn are_loads_here(&self) -> bool {
        self.loads().all(|load| load.is_here)
    }

    /// Returns why walks through connection counts cannot be made: they read and watch the memory
    /// of this machine.
    pub fn no_walk(&self) -> Option<String> {
        let unseen = if !self.server.is_visible {
            self.server.unseen("server")
        } else if let Some(load) = self.loads().find(|load| !load.is_here) {
            load.unseen("load")
        } else {
            return None;
        };
        Some(format!("memory and walks through connection counts: {unseen}"))
    }

    /// Returns whether both sides are on this machine.
    pub fn are_here(&self) -> bool {
        self.server.is_here && self.are_loads_here()
    }

    /// Returns whether either side is on this machine.
    pub fn is_one_here(&self) -> bool {
        self.server.is_here || self.loads().any(|load| load.is_here)
    }

    /// Returns what is not measured of the server.
    pub fn not_measured_of_server(&self) -> Vec<String> {
        let mut lines = vec![
            "segments sent again, connections dropped at the accept queue: they are counted in a \
             network namespace that is the trial's own"
                .to_owned(),
        ];
        if !self.server.is_visible {
            lines.push(format!(
                "run delay, context switches, user and kernel CPU apart, events within io_uring: \
                 {}; its CPU time and system calls are self-reported",
                self.server.unseen("server")
            ));
        }
        lines.extend(self.no_walk());
        lines.extend(self.not_measured_of_machine(&self.server));
        lines
    }

    /// Returns what is not measured of a load.
    pub fn not_measured_of_load(&self, load: &Side) -> Vec<String> {
        let run_delay = || format!("run delay: {}", load.unseen("load"));
        let run_delay = (!load.is_visible).then(run_delay);
        run_delay.into_iter().chain(self.not_measured_of_machine(load)).collect()
    }

    fn not_measured_of_machine(&self, side: &Side) -> Option<String> {
        let line = if self.are_here() {
            return None;
        } else if side.is_here {
            "CPU of the machine: the other side's work is not in it"
        } else {
            "CPU of the machine, stolen time, how many connections it has room for, and what else \
             `ringmark doctor` says there; it is not pinned but by its command (`taskset`)"
        };
        Some(line.to_owned())
    }
}
