//! How many connections fit into files, ports and memory.

use ringmark::backend;

use crate::load::{CONNECTIONS_PER_SOURCE, OTHER_FILES, SOURCES_MAX};

/// Source addresses on loopback.
pub const SOURCES: u64 = SOURCES_MAX as u64;

/// Connections that the load gives to a source.
pub const PORTS_A_SOURCE: u64 = CONNECTIONS_PER_SOURCE as u64;

/// connect() looks for long once half of the ports are taken.
pub const PORTS_WANTED: u64 = 2 * PORTS_A_SOURCE;

/// What both ends of an idle loopback connection take in the kernel, at the least of a backend that
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

/// What must stay free while connections are opened: less would have the kernel reclaim what is in
/// use, and then kill.
pub const RESERVE_BYTES: u64 = 1 << 30;

/// Where there is little memory, the reserve is this share of it.
const RESERVE_SHARE: f64 = 0.05;

/// Of so much memory that is available before there are connections.
pub fn reserve_bytes(available_bytes: u64) -> u64 {
    RESERVE_BYTES.min((available_bytes as f64 * RESERVE_SHARE) as u64)
}

/// What a thread of the load can hold; a worker of the server a few more.
pub fn connections_per_thread(files: u64) -> u64 {
    files.saturating_sub(OTHER_FILES)
}

/// What can go to one port of the server.
pub fn connections_per_port(ports: u64) -> u64 {
    // The load spreads by a number of connections, not by what ports there are: with fewer than
    // that number, the first source runs out.
    if ports >= PORTS_A_SOURCE { SOURCES * PORTS_A_SOURCE } else { ports }
}

/// A bound on connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    /// The most that fit.
    pub connections: u64,
    /// By what, and what to do about it.
    pub reason: String,
}

/// What bounds connections here; none where it is not known.
#[derive(Clone, Debug, Default)]
pub struct ConnectionLimits {
    /// RLIMIT_NOFILE, of each table of files.
    pub open_files: Option<u64>,
    /// Files that the load's threads open beside their connections, where all threads of a process
    /// share one table, because they are refused one of their own.
    pub shared_with: Option<u64>,
    /// `fs.file-max` less what is open: files of the whole machine.
    pub files_of_machine: Option<u64>,
    /// The first and the last port that connect() takes.
    pub ports: Option<(u64, u64)>,
    /// What is available and allowed.
    pub memory_bytes: Option<u64>,
}

impl ConnectionLimits {
    /// The same when so much memory is available.
    pub fn with_available(&self, bytes: u64) -> Self {
        Self { memory_bytes: self.memory_bytes.map(|before| before.min(bytes)), ..self.clone() }
    }

    /// Every bound that is known, of a server with so many workers and ports, each of which opens
    /// `own` files beside its connections. The load takes as many threads as it needs, each with a
    /// table of files of its own, where that is permitted.
    pub fn for_server(
        &self,
        workers: u64,
        ports: u64,
        own: u64,
        table_bytes: u64,
    ) -> Vec<ConnectionLimit> {
        let each = bytes_per_connection(table_bytes);
        let of_tables = format!("for each of {workers} workers): raise `ulimit -Hn`, or `workers`");
        let shared = "for all threads of a process, as unshare(2) is refused): raise `ulimit -Hn`, or allow it";
        let (tables, of_tables, own) = match self.shared_with {
            Some(others) => (1, shared, own.max(others)),
            None => (workers, &*of_tables, own),
        };
        self.within((tables, of_tables), (ports, "`workers` or `ports`, or "), own, each)
    }

    /// The same of a server that is not ours: one process, with one table of files and one port
    /// whatever its workers.
    pub fn for_external(&self, own: u64) -> Vec<ConnectionLimit> {
        let of_tables = "for all of a process): raise `ulimit -Hn`";
        self.within((1, of_tables), (1, ""), own, bytes_per_connection(0))
    }

    fn within(
        &self,
        (tables, of_tables): (u64, &str),
        (ports, or_ports): (u64, &str),
        own: u64,
        each: u64,
    ) -> Vec<ConnectionLimit> {
        let open_files = self.open_files.map(|files| ConnectionLimit {
            connections: files.saturating_sub(own).saturating_mul(tables),
            reason: format!("open files (RLIMIT_NOFILE {files}, {of_tables}"),
        });
        let files_of_machine = self.files_of_machine.map(|files| ConnectionLimit {
            connections: files / 2,
            reason: format!(
                "files of the whole machine ({files} left, two for each): raise fs.file-max"
            ),
        });
        let ports_bound = self.ports.filter(|(first, last)| first <= last).map(|(first, last)| ConnectionLimit {
            connections: connections_per_port(last - first + 1).saturating_mul(ports),
            reason: format!(
                "local ports ({first} to {last}, {SOURCES} source addresses, {ports} ports of the server): raise \
                 {or_ports}net.ipv4.ip_local_port_range"
            ),
        });
        let memory = self.memory_bytes.map(|bytes| ConnectionLimit {
            connections: (bytes - reserve_bytes(bytes)) / each,
            reason: format!(
                "memory ({} MiB, of which {} stay free, for {each} bytes each at the least): free some",
                bytes >> 20,
                reserve_bytes(bytes) >> 20
            ),
        });
        [open_files, files_of_machine, ports_bound, memory].into_iter().flatten().collect()
    }
}

/// Descriptors that a worker opens or inherits beside its connections: the standard ones, a
/// listener, rings, the stop signal.
pub const OWN_DESCRIPTORS: usize = 16;

/// The same of a worker with several ports, and with room to spare in a table of direct
/// descriptors.
pub fn own_descriptors(workers: u16, ports: u16) -> u64 {
    2 * OWN_DESCRIPTORS as u64 + u64::from(ports.div_ceil(workers.max(1)))
}
