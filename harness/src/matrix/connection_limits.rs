//! How many connections fit into files, ports and memory.

use ringmark::backend;

use crate::load::{CONNECTIONS_PER_SOURCE, OTHER_FILES, SOURCES_MAX};

/// Source addresses on loopback.
pub const SOURCES: u64 = SOURCES_MAX as u64;

/// Connections that the load gives to a source.
pub const PORTS_A_SOURCE: u64 = CONNECTIONS_PER_SOURCE as u64;

/// connect() looks for long once half of the ports are taken.
pub const PORTS_WANTED: u64 = 2 * PORTS_A_SOURCE;

/// Both ends of an idle loopback connection take this in the kernel, at the least of a backend that
/// waits for them: 8.1 KB with epoll, 8.7 KB with a receive under way (REPORT.md).
const KERNEL_BYTES: u64 = 8_800;

/// Returns what a connection takes at the least, given the bytes of it in a table of the server's.
pub fn bytes_per_connection(table_bytes: u64) -> u64 {
    KERNEL_BYTES + table_bytes
}

/// Returns the most bytes that a connection takes in the tables of these backends.
pub fn table_bytes<'a>(backends: impl IntoIterator<Item = &'a str>) -> u64 {
    let entries = backends.into_iter().filter_map(|name| backend::find(name).ok());
    entries.map(|entry| entry.table_bytes_per_connection as u64).max().unwrap_or(0)
}

/// Memory that must stay free while connections are opened. With less the kernel would reclaim what
/// is in use, and then kill.
pub const RESERVE_BYTES: u64 = 1 << 30;

/// The reserve is this share of the memory, if there is little.
const RESERVE_SHARE: f64 = 0.05;

/// Returns the reserve of the memory that is available before there are connections.
pub fn reserve_bytes(available_bytes: u64) -> u64 {
    RESERVE_BYTES.min((available_bytes as f64 * RESERVE_SHARE) as u64)
}

/// Returns how many connections a thread of the load can hold; a worker of the server can hold a
/// few more.
pub fn connections_per_thread(files: u64) -> u64 {
    files.saturating_sub(OTHER_FILES)
}

/// Returns how many connections can go to one port of the server.
pub fn connections_per_port(ports: u64) -> u64 {
    // The load spreads by a number of connections, not by what ports there are: with fewer than
    // that number, the first source runs out.
    if ports >= PORTS_A_SOURCE { SOURCES * PORTS_A_SOURCE } else { ports }
}

/// A limit on connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    /// The most that fit.
    pub connections: u64,
    /// By what, and what to do about it.
    pub reason: String,
}

/// The limits on connections here; none if one is not known.
#[derive(Clone, Debug, Default)]
pub struct ConnectionLimits {
    /// RLIMIT_NOFILE, of each table of files.
    pub open_files: Option<u64>,
    /// Files that the load's threads open beside their connections. It is given if all threads of a
    /// process share one table, because they are refused one of their own.
    pub shared_with: Option<u64>,
    /// `fs.file-max` less what is open: files of the whole machine.
    pub files_of_machine: Option<u64>,
    /// The first and the last port that connect() takes.
    pub ports: Option<(u64, u64)>,
    /// Memory that is available and allowed.
    pub memory_bytes: Option<u64>,
}

impl ConnectionLimits {
    /// Returns the same if this much memory is available.
    pub fn with_available(&self, bytes: u64) -> Self {
        Self { memory_bytes: self.memory_bytes.map(|before| before.min(bytes)), ..self.clone() }
    }

    /// Returns every known limit of a server with so many workers and ports. Each worker has a
    /// table of files of its own, where that is permitted, and opens `own` beside its connections.
    /// The load takes as many threads as it needs, each with a table of its own, where that is
    /// permitted.
    pub fn for_server(
        &self,
        workers: u64,
        ports: u64,
        own: u64,
        table_bytes: u64,
    ) -> Vec<ConnectionLimit> {
        let files = match self.shared_with {
            Some(others) => self.open_files(
                1,
                own.max(others),
                "for all threads of a process, as unshare(2) is refused): raise `ulimit -Hn`, or \
                 allow it",
            ),
            None => self.open_files(
                workers,
                own,
                &format!("for each of {workers} workers): raise `ulimit -Hn`, or `workers`"),
            ),
        };
        self.with(files, self.ports(ports, PORTS_OF_SERVER), bytes_per_connection(table_bytes))
    }

    /// Returns the same of a server whose workers share a table of files by design.
    pub fn for_shared_files(&self, workers: u64, ports: u64, own: u64) -> Vec<ConnectionLimit> {
        let own = (own * workers).max(self.shared_with.unwrap_or(0));
        let whose = "for all workers, which share a table): raise `ulimit -Hn`";
        let files = self.open_files(1, own, whose);
        self.with(files, self.ports(ports, PORTS_OF_SERVER), bytes_per_connection(0))
    }

    /// Returns the same of an external server: one process, with one table of files and one port
    /// whatever its workers.
    pub fn for_external(&self, own: u64) -> Vec<ConnectionLimit> {
        let files = self.open_files(1, own, "for all of a process): raise `ulimit -Hn`");
        let ports = self.ports(1, "net.ipv4.ip_local_port_range");
        self.with(files, ports, bytes_per_connection(0))
    }

    fn open_files(&self, tables: u64, own: u64, whose: &str) -> Option<ConnectionLimit> {
        let files = self.open_files?;
        Some(ConnectionLimit {
            connections: files.saturating_sub(own).saturating_mul(tables),
            reason: format!("open files (RLIMIT_NOFILE {files}, {whose}"),
        })
    }

    fn ports(&self, ports: u64, raise: &str) -> Option<ConnectionLimit> {
        let (first, last) = self.ports.filter(|(first, last)| first <= last)?;
        Some(ConnectionLimit {
            connections: connections_per_port(last - first + 1).saturating_mul(ports),
            reason: format!(
                "local ports ({first} to {last}, {SOURCES} source addresses, {ports} ports of the \
                 server): raise {raise}"
            ),
        })
    }

    /// Adds the limits that do not depend on the server's files and ports.
    fn with(
        &self,
        open_files: Option<ConnectionLimit>,
        ports: Option<ConnectionLimit>,
        bytes_each: u64,
    ) -> Vec<ConnectionLimit> {
        let files_of_machine = self.files_of_machine.map(|files| ConnectionLimit {
            connections: files / 2,
            reason: format!(
                "files of the whole machine ({files} left, two for each): raise fs.file-max"
            ),
        });
        let memory = self.memory_bytes.map(|bytes| ConnectionLimit {
            connections: (bytes - reserve_bytes(bytes)) / bytes_each,
            reason: format!(
                "memory ({} MiB, of which {} stay free, for {bytes_each} bytes each at the least): \
                 free some",
                bytes >> 20,
                reserve_bytes(bytes) >> 20
            ),
        });
        [open_files, files_of_machine, ports, memory].into_iter().flatten().collect()
    }
}

/// How a server's connections get more ports.
const PORTS_OF_SERVER: &str = "`workers` or `ports`, or net.ipv4.ip_local_port_range";

/// Descriptors that a worker opens or inherits beside its connections: the standard ones, a
/// listener, rings, the stop signal.
pub const OWN_DESCRIPTORS: usize = 16;

/// Returns the same of a worker with several ports, and with some to spare in a table of direct
/// descriptors.
pub fn own_descriptors(workers: u16, ports: u16) -> u64 {
    2 * OWN_DESCRIPTORS as u64 + u64::from(ports.div_ceil(workers.max(1)))
}
