//! Everything that a connection can cost: kernel objects, page tables, and the server's own pages.
//!
//! Both ends of a loopback connection live in one kernel, and the kernel's objects are the
//! machine's, not the server's: what a connection costs is the slope over a number of connections,
//! not one reading. The files are opened once and read again in place, because opening them would
//! itself make kernel objects.

mod slabs;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, thread};

use serde::Serialize;

use super::memory::slabs::Slabs;
use super::network::SocketReading;
use super::{Unavailable, procfs};

pub use crate::machine::memory::slabs::Slab;

/// Between two readings that must agree: longer than the grace period of RCU (some 20 ms on an idle
/// machine), after which the kernel frees sockets, epoll items and files that were closed.
const SETTLING_INTERVAL: Duration = Duration::from_millis(50);

/// How many readings in a row must agree; a single agreement may lie before the end of a grace
/// period.
const AGREEING_READINGS: u32 = 3;

/// What readings that agree may differ by: less than one process that comes or goes.
const AGREEMENT_BYTES: u64 = 16 * 1024;

/// Reads the memory of the machine and of one process.
pub struct MemoryInstrument {
    slabs: Result<Slabs, Unavailable>,
    meminfo: File,
    status: File,
    smaps_rollup: File,
    sockstat: File,
}

/// One reading. Objects and `machine` are of the whole machine, the rest is of the process.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryReading {
    /// Kernel caches that hold objects, by name; none if they cannot be read. A cache that is not
    /// listed is empty.
    pub slabs: Option<Vec<Slab>>,
    /// Whether the caches were shrunk just before, without which each count is too high by the free
    /// objects in the slabs that the CPUs keep: tens to some hundreds.
    pub shrunk: bool,
    /// Whether this is the last of several readings that agreed; false for a single one.
    pub settled: bool,
    /// The process's page tables (`VmPTE`).
    pub page_tables_bytes: u64,
    /// The process's pages.
    pub user: UserMemory,
    /// Pages that TCP has reserved for queued data, on the whole machine.
    pub tcp_memory_pages: u64,
    /// The machine's own account.
    pub machine: MachineMemory,
}

/// From /proc/PID/smaps_rollup.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct UserMemory {
    /// All resident pages.
    pub rss_bytes: u64,
    /// Resident pages, shared ones divided among those who share.
    pub pss_bytes: u64,
    /// Pages that nobody shares, clean and dirty.
    pub private_bytes: u64,
    /// Pages without a file.
    pub anonymous_bytes: u64,
}

/// From /proc/meminfo.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MachineMemory {
    /// `MemAvailable`.
    pub available_bytes: u64,
    /// `MemTotal` less `MemFree`: pages that are used for anything. It tells more of sockets than
    /// what is available, because the kernel takes their inodes and dentries for memory that it
    /// could reclaim.
    pub used_bytes: u64,
    /// `Slab`: pages of all caches, their free objects included.
    pub slab_bytes: u64,
    /// `PageTables`, of all processes.
    pub page_tables_bytes: u64,
    /// `AnonPages`, of all processes.
    pub anonymous_bytes: u64,
    /// `Cached`, `Buffers` and `SwapCached`.
    pub page_cache_bytes: u64,
    /// `VmallocUsed`, kernel stacks among it where they are mapped so (CONFIG_VMAP_STACK).
    pub vmalloc_bytes: u64,
    /// `Percpu`.
    pub percpu_bytes: u64,
}

impl MachineMemory {
    fn parse(meminfo: &str) -> io::Result<Self> {
        let of = |name| procfs::kibibytes(meminfo, name);
        Ok(Self {
            available_bytes: of("MemAvailable")?,
            used_bytes: of("MemTotal")? - of("MemFree")?,
            slab_bytes: of("Slab")?,
            page_tables_bytes: of("PageTables")?,
            anonymous_bytes: of("AnonPages")?,
            page_cache_bytes: of("Cached")? + of("Buffers")? + of("SwapCached")?,
            vmalloc_bytes: of("VmallocUsed")?,
            percpu_bytes: of("Percpu")?,
        })
    }

    /// Used pages that no other figure here tells the use of: the kernel's own data, pages that the
    /// CPUs keep for themselves, and what drivers and rings have taken page by page.
    pub fn unexplained_bytes(&self) -> u64 {
        let explained = self.slab_bytes
            + self.page_tables_bytes
            + self.anonymous_bytes
            + self.page_cache_bytes
            + self.vmalloc_bytes
            + self.percpu_bytes;
        self.used_bytes.saturating_sub(explained)
    }
}

impl MemoryReading {
    /// The kernel's objects but those of file systems, and the process's page tables; none without
    /// slabs.
    pub fn kernel_bytes(&self) -> Option<u64> {
        let slabs = self.slabs.as_ref()?;
        let objects: u64 = slabs.iter().filter(|slab| !slab.filesystem).map(Slab::bytes).sum();
        Some(objects + self.page_tables_bytes)
    }

    fn agrees_with(&self, other: &Self) -> bool {
        let bytes = |reading: &Self| {
            reading.kernel_bytes().unwrap_or_default() + reading.user.private_bytes
        };
        bytes(self).abs_diff(bytes(other)) <= AGREEMENT_BYTES
    }
}

impl MemoryInstrument {
    /// Opens everything that is read. The process must have done its exec: its memory is the one
    /// that it has now.
    pub fn new(pid: u32) -> io::Result<Self> {
        let process = Path::new("/proc").join(pid.to_string());
        Ok(Self {
            slabs: Slabs::open(),
            meminfo: open(Path::new("/proc/meminfo"))?,
            status: open(&process.join("status"))?,
            smaps_rollup: open(&process.join("smaps_rollup"))?,
            sockstat: open(&process.join("net/sockstat"))?,
        })
    }

    /// Why the kernel's objects cannot be read, if so.
    pub fn slabs_unavailable(&self) -> Option<&Unavailable> {
        self.slabs.as_ref().err()
    }

    /// Reads once.
    pub fn read(&self) -> io::Result<MemoryReading> {
        let shrunk = self.slabs.as_ref().is_ok_and(Slabs::shrink);
        let slabs = self.slabs.as_ref().ok().map(Slabs::read).transpose()?;
        let smaps = read(&self.smaps_rollup)?;
        let of_process = |name| procfs::kibibytes(&smaps, name);
        Ok(MemoryReading {
            slabs,
            shrunk,
            settled: false,
            page_tables_bytes: procfs::kibibytes(&read(&self.status)?, "VmPTE")?,
            user: UserMemory {
                rss_bytes: of_process("Rss")?,
                pss_bytes: of_process("Pss")?,
                private_bytes: of_process("Private_Clean")? + of_process("Private_Dirty")?,
                anonymous_bytes: of_process("Anonymous")?,
            },
            tcp_memory_pages: SocketReading::parse(&read(&self.sockstat)?)?.memory_pages,
            machine: MachineMemory::parse(&read(&self.meminfo)?)?,
        })
    }

    /// Reads until three readings in a row, 50 ms apart, agree within 16 KiB, but no longer than
    /// `limit`.
    pub fn settle(&self, limit: Duration) -> io::Result<MemoryReading> {
        let deadline = Instant::now() + limit;
        let mut last = self.read()?;
        let mut agreeing = 1;
        while agreeing < AGREEING_READINGS && Instant::now() < deadline {
            thread::sleep(SETTLING_INTERVAL);
            let next = self.read()?;
            agreeing = if next.agrees_with(&last) { agreeing + 1 } else { 1 };
            last = next;
        }
        last.settled = agreeing == AGREEING_READINGS;
        Ok(last)
    }
}

/// Whether the kernel's objects can be read, and if so, whether exactly: with the caches shrunk
/// before.
pub fn try_slabs() -> Result<bool, Unavailable> {
    Slabs::open().map(|slabs| slabs.shrinks())
}

fn open(path: &Path) -> io::Result<File> {
    File::open(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display()))
    })
}

/// The whole file from its beginning, generated anew. A file of /proc returns some pages at a time.
fn read(file: &File) -> io::Result<String> {
    let mut text = vec![0; 64 * 1024];
    let mut length = 0;
    loop {
        match file.read_at(&mut text[length..], length as u64)? {
            0 => break,
            more => length += more,
        }
        if length == text.len() {
            text.resize(2 * length, 0);
        }
    }
    text.truncate(length);
    String::from_utf8(text).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
