//! Reads everything that a connection can cost: kernel objects, page tables, the server's own
//! pages.
//!
//! Both ends of a loopback connection live in one kernel, and the kernel's objects are the
//! machine's, not the server's. One reading therefore says nothing: a connection costs the slope
//! over a number of connections.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, thread};

use super::meminfo::{MachineMemory, Meminfo};
use super::network::tcp_memory_pages;
use super::procfs::{self, ProcFile};
use super::slabs::{Slab, Slabs};
use super::unavailable::Unavailable;

/// The time between two readings that must agree. It is longer than the grace period of RCU (some
/// 20 ms on an idle machine), after which the kernel frees closed sockets, epoll items and files.
const SETTLING_INTERVAL: Duration = Duration::from_millis(50);

/// How many readings in a row must agree; a single agreement may lie before the end of a grace
/// period.
const AGREEING_READINGS: u32 = 3;

/// The difference of readings that agree: less than one process that comes or goes.
const AGREEMENT_BYTES: u64 = 16 * 1024;

/// Reads the memory of the machine and of one process.
pub struct MemoryInstrument {
    slabs: Result<Slabs, Unavailable>,
    meminfo: ProcFile,
    status: ProcFile,
    smaps_rollup: ProcFile,
    sockstat: ProcFile,
}

/// One reading. Objects and `machine` are of the whole machine, the rest is of the process.
#[derive(Clone, Debug)]
pub struct MemoryReading {
    /// Kernel caches that hold objects, by name; none if they cannot be read. A cache that is not
    /// listed is empty.
    pub slabs: Option<Vec<Slab>>,
    /// Whether this is the last of several readings that agreed; false for a single one.
    pub settled: bool,
    /// The process's page tables (`VmPTE`).
    pub page_tables_bytes: u64,
    /// The process's pages that nobody shares, clean and dirty (/proc/PID/smaps_rollup).
    pub private_bytes: u64,
    /// Pages that TCP has reserved for queued data, on the whole machine.
    pub tcp_memory_pages: u64,
    /// The machine's own account.
    pub machine: MachineMemory,
}

impl MemoryReading {
    /// Returns the bytes of the kernel's objects, without those of file systems, and of the
    /// process's page tables; none without slabs.
    pub fn kernel_bytes(&self) -> Option<u64> {
        let slabs = self.slabs.as_ref()?;
        let objects: u64 = slabs.iter().filter(|slab| !slab.filesystem).map(Slab::bytes).sum();
        Some(objects + self.page_tables_bytes)
    }

    fn agrees_with(&self, other: &Self) -> bool {
        let bytes =
            |reading: &Self| reading.kernel_bytes().unwrap_or_default() + reading.private_bytes;
        bytes(self).abs_diff(bytes(other)) <= AGREEMENT_BYTES
    }
}

impl MemoryInstrument {
    /// Opens all files. The process must have done its exec, so that its memory is the one that it
    /// has now.
    pub fn new(pid: u32) -> io::Result<Self> {
        let process = Path::new("/proc").join(pid.to_string());
        Ok(Self {
            slabs: Slabs::open(),
            meminfo: ProcFile::open("/proc/meminfo")?,
            status: ProcFile::open(process.join("status"))?,
            smaps_rollup: ProcFile::open(process.join("smaps_rollup"))?,
            sockstat: ProcFile::open(process.join("net/sockstat"))?,
        })
    }

    /// Returns why the kernel's objects cannot be read, if so.
    pub fn slabs_unavailable(&self) -> Option<&Unavailable> {
        self.slabs.as_ref().err()
    }

    /// Reads once.
    pub fn read(&self) -> io::Result<MemoryReading> {
        let slabs = self.slabs.as_ref().ok().map(Slabs::shrink_and_read).transpose()?;
        let smaps = self.smaps_rollup.read()?;
        Ok(MemoryReading {
            slabs,
            settled: false,
            page_tables_bytes: procfs::kibibytes(&self.status.read()?, "VmPTE")?,
            private_bytes: procfs::kibibytes(&smaps, "Private_Clean")?
                + procfs::kibibytes(&smaps, "Private_Dirty")?,
            tcp_memory_pages: tcp_memory_pages(&self.sockstat.read()?)?,
            machine: Meminfo(self.meminfo.read()?).account()?,
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

#[cfg(test)]
mod tests;
