//! Which CPUs the server and the client of a run are pinned to.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use ringmark::cpus::CpuList;
use serde::{Deserialize, Serialize};

/// Which CPUs the two sides are pinned to, so that neither takes the other's time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The server's CPUs; empty: not pinned from here.
    #[serde(rename = "server_cpus")]
    pub server: String,
    /// The client's CPUs; empty: not pinned from here.
    #[serde(rename = "client_cpus")]
    pub client: String,
    /// Threads of the client: one for each of its CPUs.
    pub client_threads: usize,
    /// Whether the two sides, or the workers among themselves, have to share a CPU, or are not
    /// known not to.
    pub shared_cpu: bool,
    /// Whether two of these CPUs are hyperthreads of one core, which slow each other down; null if
    /// that is not known.
    #[serde(default)]
    pub shared_core: Option<bool>,
    /// Over how many packages these CPUs are spread; null if that is not known.
    #[serde(default)]
    pub packages: Option<usize>,
    /// How many CPUs the server has, if it is on another machine, so that it is not pinned from
    /// here, and tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_cpus_elsewhere: Option<usize>,
}

impl Placement {
    /// What to mind of figures that were taken on hyperthreads of one core.
    pub fn note(&self) -> Option<String> {
        (self.shared_core == Some(true)).then(|| {
            "shared-core: two of its CPUs are hyperthreads of one core, and slow each other down".to_owned()
        })
    }

    /// Whether both sides have one CPU together.
    pub fn is_one_cpu(&self) -> bool {
        self.server == self.client
            && self.server.parse::<CpuList>().is_ok_and(|list| list.set().cpus().len() == 1)
    }

    /// Whether both sides are pinned, and the client to CPUs of its own.
    pub fn is_client_apart(&self) -> bool {
        let both = self.server.parse::<CpuList>().ok().zip(self.client.parse::<CpuList>().ok());
        both.is_some_and(|(server, client)| {
            !client.cpus().iter().any(|cpu| server.cpus().contains(cpu))
        })
    }

    /// How many CPUs the server has, if that is known.
    pub fn server_cpus(&self) -> Option<usize> {
        let pinned = || self.server.parse::<CpuList>().ok().map(|list| list.set().cpus().len());
        self.server_cpus_elsewhere.or_else(pinned)
    }

    /// The CPUs of both sides; all that are allowed if one is not pinned.
    pub fn cpus(&self) -> Result<CpuList> {
        if self.server.is_empty() || self.client.is_empty() {
            return allowed();
        }
        Ok([self.server.as_str(), self.client.as_str()].join(",").parse::<CpuList>()?.set())
    }

    /// How many of the CPUs are left by both sides.
    pub fn free_of(&self, cpus: &BTreeSet<usize>) -> u64 {
        let of_side = |list: &String| {
            list.parse().map(|list: CpuList| list.cpus().to_vec()).unwrap_or_default()
        };
        let taken = [&self.server, &self.client].map(of_side).concat();
        cpus.iter().filter(|cpu| !taken.contains(cpu)).count() as u64
    }

    /// How many CPUs of a server that is not to be seen are left by its workers for kernel threads,
    /// which inherit their pinning.
    pub fn left_by(&self, workers: u16) -> u64 {
        let cpus = self.server_cpus_elsewhere.unwrap_or_default();
        cpus.saturating_sub(workers.into()) as u64
    }
}

fn allowed() -> Result<CpuList> {
    CpuList::allowed().context("CPUs that this process may use")
}
