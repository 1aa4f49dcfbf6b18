//! Reads /proc/meminfo (proc_meminfo(5)).

use std::io;

use super::procfs;

/// The text of /proc/meminfo.
pub struct Meminfo(pub String);

impl Meminfo {
    /// Reads the file.
    pub fn read() -> io::Result<Self> {
        procfs::read("/proc/meminfo").map(Self)
    }

    /// Returns the bytes of one line, such as `MemAvailable`.
    pub fn bytes(&self, name: &str) -> io::Result<u64> {
        procfs::kibibytes(&self.0, name)
    }

    /// Returns the machine's own account of its memory.
    pub fn account(&self) -> io::Result<MachineMemory> {
        Ok(MachineMemory {
            available_bytes: self.bytes("MemAvailable")?,
            used_bytes: self.bytes("MemTotal")? - self.bytes("MemFree")?,
            slab_bytes: self.bytes("Slab")?,
            page_tables_bytes: self.bytes("PageTables")?,
            anonymous_bytes: self.bytes("AnonPages")?,
            page_cache_bytes: self.bytes("Cached")?
                + self.bytes("Buffers")?
                + self.bytes("SwapCached")?,
            vmalloc_bytes: self.bytes("VmallocUsed")?,
            percpu_bytes: self.bytes("Percpu")?,
        })
    }
}

/// The machine's own account of its memory.
#[derive(Clone, Copy, Debug)]
pub struct MachineMemory {
    /// `MemAvailable`.
    pub available_bytes: u64,
    /// `MemTotal` less `MemFree`: pages that are used for anything. It tells more of sockets than
    /// `MemAvailable`, because the kernel takes their inodes and dentries for reclaimable memory.
    pub used_bytes: u64,
    /// `Slab`: pages of all caches, with their free objects.
    pub slab_bytes: u64,
    /// `PageTables`, of all processes.
    pub page_tables_bytes: u64,
    /// `AnonPages`, of all processes.
    pub anonymous_bytes: u64,
    /// `Cached`, `Buffers` and `SwapCached`.
    pub page_cache_bytes: u64,
    /// `VmallocUsed`, with kernel stacks where they are mapped so (CONFIG_VMAP_STACK).
    pub vmalloc_bytes: u64,
    /// `Percpu`.
    pub percpu_bytes: u64,
}

impl MachineMemory {
    /// Returns the used pages that no other figure here explains: the kernel's own data, pages that
    /// the CPUs keep, and pages that drivers and rings have taken one by one.
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
