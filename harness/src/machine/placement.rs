//! Says which CPUs the server and the client of a run are pinned to.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use ringmark::cpus::CpuList;
use serde::{Deserialize, Serialize};

/// The CPUs that server and client are pinned to, so that neither takes the other's time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The server's CPUs; empty if it is not pinned from here.
    #[serde(rename = "server_cpus")]
    pub server: String,
    /// The client's CPUs; empty if it is not pinned from here.
    #[serde(rename = "client_cpus")]
    pub client: String,
    /// The client's threads, of each load if there are several: one for each of its CPUs.
    pub client_threads: usize,
    /// With several loads: the CPUs of each, which are those of the client together; empty if they
    /// are not pinned from here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<String>,
    /// Whether two loads share a CPU, or may do so for all that is known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub loads_share_cpu: bool,
    /// Whether the server shares a CPU with a load, or two of its workers share one, or may do so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub server_shares_cpu: bool,
    /// Whether server and client, two loads or two workers share a CPU, or may do so for all that
    /// is known.
    pub shared_cpu: bool,
    /// Whether two of these CPUs are hyperthreads of one core, which slow each other down; null if
    /// unknown.
    #[serde(default)]
    pub shared_core: Option<bool>,
    /// The number of packages over which these CPUs are spread; null if unknown.
    #[serde(default)]
    pub packages: Option<usize>,
    /// The number of the server's CPUs, as it tells, if it is on another machine and so not pinned
    /// from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_cpus_elsewhere: Option<usize>,
}

impl Placement {
    /// Says what is wrong with figures that were taken on hyperthreads of one core.
    pub fn note(&self) -> Option<String> {
        (self.shared_core == Some(true)).then(|| {
            "shared-core: two of its CPUs are hyperthreads of one core, and slow each other down"
                .to_owned()
        })
    }

    /// Tells whether server and client have one CPU together.
    pub fn is_one_cpu(&self) -> bool {
        self.server == self.client && cpus_of(&self.server).is_some_and(|cpus| cpus.len() == 1)
    }

    /// Tells whether both are pinned, and the client to CPUs of its own, as is each load.
    pub fn is_client_apart(&self) -> bool {
        let both = cpus_of(&self.server).zip(cpus_of(&self.client));
        !self.loads_share_cpu
            && both.is_some_and(|(server, client)| !client.iter().any(|cpu| server.contains(cpu)))
    }

    /// Returns the CPUs of a load; empty if it is not pinned from here.
    pub fn of_load(&self, index: usize) -> &str {
        self.loads.get(index).unwrap_or(&self.client)
    }

    /// Returns the number of the server's CPUs, if that is known.
    pub fn server_cpus(&self) -> Option<usize> {
        self.server_cpus_elsewhere.or_else(|| cpus_of(&self.server).map(|cpus| cpus.len()))
    }

    /// Returns the CPUs of server and client; all that are allowed if one is not pinned.
    pub fn cpus(&self) -> Result<CpuList> {
        if self.server.is_empty() || self.client.is_empty() {
            return CpuList::allowed().context("CPUs that this process may use");
        }
        Ok([self.server.as_str(), self.client.as_str()].join(",").parse::<CpuList>()?.set())
    }

    /// Counts those of the CPUs that neither server nor client is pinned to.
    pub fn free_of(&self, cpus: &BTreeSet<usize>) -> u64 {
        let taken: Vec<usize> = [&self.server, &self.client]
            .into_iter()
            .filter_map(|list| cpus_of(list))
            .flatten()
            .collect();
        cpus.iter().filter(|cpu| !taken.contains(cpu)).count() as u64
    }

    /// Counts the CPUs of a server elsewhere that its workers leave for kernel threads, which
    /// inherit their pinning.
    pub fn left_by(&self, workers: u16) -> u64 {
        let cpus = self.server_cpus_elsewhere.unwrap_or_default();
        cpus.saturating_sub(workers.into()) as u64
    }
}

/// Returns the CPUs of a list; none if it is empty.
fn cpus_of(list: &str) -> Option<Vec<usize>> {
    list.parse().ok().map(|list: CpuList| list.cpus().to_vec())
}
