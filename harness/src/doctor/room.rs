//! How many connections fit into files, ports and memory.

use super::facts::Facts;
use crate::load::{CONNECTIONS_PER_SOURCE, OTHER_FILES, SOURCES_MAX};
use crate::trial::OWN_DESCRIPTORS;

/// Source addresses on loopback.
pub const SOURCES: u64 = SOURCES_MAX as u64;

/// Connections that the load gives to a source.
pub const PORTS_A_SOURCE: u64 = CONNECTIONS_PER_SOURCE as u64;

/// connect() looks for long once half of the ports are taken.
pub const PORTS_WANTED: u64 = 2 * PORTS_A_SOURCE;

/// What both ends of an idle loopback connection take in the kernel, at the least of a backend that waits for
/// them: 8.1 KB with epoll, 8.7 KB with a receive under way (REPORT.md).
const KERNEL_BYTES: u64 = 8_800;

/// What the document's server has for each in its table.
const DOCUMENT_BYTES: u64 = 1_024;

/// What one connection takes, at the least.
pub fn bytes_per_connection(is_document: bool) -> u64 {
    KERNEL_BYTES + if is_document { DOCUMENT_BYTES } else { 0 }
}

/// What is available and allowed.
pub fn memory_bytes(facts: &Facts) -> Option<u64> {
    facts.memory_available_bytes.into_iter().chain(facts.memory_bound_bytes).min()
}

/// What a thread of the load can hold; a worker of the server a few more.
pub fn connections_per_thread(files: u64) -> u64 {
    files.saturating_sub(OTHER_FILES)
}

/// What can go to one port of the server.
pub fn connections_per_port(ports: u64) -> u64 {
    // The load spreads by a number of connections, not by what ports there are: with fewer than that
    // number, the first source runs out.
    if ports >= PORTS_A_SOURCE { SOURCES * PORTS_A_SOURCE } else { ports }
}

/// A bound on connections.
pub struct Bound {
    /// The most that fit.
    pub connections: u64,
    /// By what, and what to do about it.
    pub reason: String,
}

/// Every bound that is known, of a server with `workers` workers, a port each, and a load with `threads`
/// threads.
pub fn bounds(facts: &Facts, workers: u64, threads: u64, is_document: bool) -> Vec<Bound> {
    let files = facts.open_files_hard.map(|files| Bound {
        connections: (connections_per_thread(files).saturating_mul(threads))
            .min(files.saturating_sub(OWN_DESCRIPTORS as u64).saturating_mul(workers)),
        reason: format!(
            "open files (RLIMIT_NOFILE {files}; threads: server {workers}, load {threads}): raise `ulimit -Hn`"
        ),
    });
    let ports = facts.ports.filter(|(first, last)| first <= last).map(|(first, last)| Bound {
        connections: connections_per_port(last - first + 1).saturating_mul(workers),
        reason: format!(
            "local ports ({first} to {last}, {SOURCES} source addresses, {workers} ports of the server): \
             raise `workers`, or net.ipv4.ip_local_port_range"
        ),
    });
    let memory = memory_bytes(facts).map(|bytes| Bound {
        connections: bytes / bytes_per_connection(is_document),
        reason: format!(
            "memory ({} MiB for {} bytes each at the least): free some",
            bytes >> 20,
            bytes_per_connection(is_document)
        ),
    });
    [files, ports, memory].into_iter().flatten().collect()
}
