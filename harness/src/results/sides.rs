//! Where the server and the load of a run were, as its manifest tells.

use std::net::IpAddr;

use ringmark::cpus::CpuList;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::machine::program_file::Program;
use crate::machine::topology::Topology;

/// One side of a run that has a command on either.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Side {
    /// What its program was started by, as far as that says nothing of anyone; null: nothing.
    pub command: Option<String>,
    /// What is not measured of it, and why.
    pub not_measured: Vec<String>,
    /// The machine, as it describes itself.
    pub machine: Value,
    /// The program that ran.
    pub program: Option<Program>,
    /// The CPUs on which its program may run, if they are known.
    #[serde(skip)]
    pub cpus: Option<CpuList>,
    /// Whether it is on this machine.
    #[serde(skip)]
    pub is_here: bool,
    /// Whether /proc shows its processes here, under the numbers that they know themselves by.
    #[serde(skip)]
    pub is_visible: bool,
}

impl Side {
    /// Which of its CPUs share a core, as far as it tells.
    pub fn topology(&self) -> Topology {
        serde_json::from_value(self.machine["topology"].clone()).unwrap_or_default()
    }

    /// Why its processes are not seen.
    fn unseen(&self, name: &str) -> String {
        match self.is_here {
            true => format!("the {name} is in another pid namespace"),
            false => format!("the {name} is on another machine"),
        }
    }
}

/// Both sides of a run that has a command on either.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sides {
    /// Where the server listens and the load finds it.
    pub server_address: IpAddr,
    /// Whether both are in one network namespace.
    pub over_loopback: bool,
    /// Whether both are on one machine.
    pub one_machine: bool,
    /// Whether the programs lie in another folder on the sides that have a command. Which one is
    /// not told.
    #[serde(default)]
    pub has_remote_bin: bool,
    /// The server's.
    pub server: Side,
    /// The load's.
    pub load: Side,
}

impl Sides {
    /// Where the traffic of a run went, in words, from what its manifest has under `sides`.
    pub fn traffic(sides: Option<&Self>) -> String {
        let Some(Self { server_address, over_loopback, one_machine, server, load, .. }) = sides
        else {
            return "over loopback, both sides on one machine".to_owned();
        };
        let by = |side: &Side| match &side.command {
            Some(command) => format!("by `{command}`"),
            None => "without a command".to_owned(),
        };
        let network = match (over_loopback, one_machine) {
            (true, _) => "over loopback, both sides on one machine".to_owned(),
            (false, true) => {
                format!(
                    "to {server_address}, not over loopback but between two networks of one machine"
                )
            }
            (false, false) => format!("to {server_address}, from one machine to another"),
        };
        format!("{network}; server started {}, load {}", by(server), by(load))
    }

    /// Why walks through connection counts, which read and watch the memory of this machine, cannot
    /// be made.
    pub fn no_walk(&self) -> Option<String> {
        let Self { server, load, .. } = self;
        let unseen = match (server.is_visible, load.is_here) {
            (true, true) => return None,
            (false, _) => server.unseen("server"),
            (true, false) => load.unseen("load"),
        };
        Some(format!("memory and walks through connection counts: {unseen}"))
    }

    /// Whether both sides are on this machine.
    pub fn are_here(&self) -> bool {
        self.server.is_here && self.load.is_here
    }

    /// Whether one of them is.
    pub fn is_one_here(&self) -> bool {
        self.server.is_here || self.load.is_here
    }

    pub fn not_measured_of_server(&self) -> Vec<String> {
        let mut lines = vec![
            "segments sent again, connections dropped at the accept queue: they are counted in a network namespace \
             that is the trial's own"
                .to_owned(),
        ];
        let server = &self.server;
        if !server.is_visible {
            lines.push(format!(
                "run delay, context switches, user and kernel CPU apart, events within io_uring: {}; its CPU time and \
                 system calls are self-reported",
                server.unseen("server")
            ));
        }
        lines.extend(self.no_walk());
        lines.extend(self.machine_of(server));
        lines
    }

    pub fn not_measured_of_load(&self) -> Vec<String> {
        let load = &self.load;
        let run_delay = || format!("run delay: {}", load.unseen("load"));
        (!load.is_visible).then(run_delay).into_iter().chain(self.machine_of(load)).collect()
    }

    /// What of the machine of a side is not measured.
    fn machine_of(&self, side: &Side) -> Option<String> {
        if self.are_here() {
            return None;
        }
        Some(match side.is_here {
            true => "CPU of the machine: the other side's work is not in it".to_owned(),
            false => {
                "CPU of the machine, stolen time, how many connections it has room for, and what else `ringmark doctor` \
                 says there; it is not pinned but by its command (`taskset`)"
                    .to_owned()
            }
        })
    }
}
