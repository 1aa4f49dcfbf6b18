//! A ring of buffer descriptions, shared with the kernel.

use super::memory::AnonymousMemory;
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// A ring of buffer descriptions that the kernel reads from, registered as a buffer group.
pub struct Entries {
    pub memory: AnonymousMemory,
    count: u16,
    pub tail: u16,
}

impl Entries {
    /// Registers `count` entries (a power of two, at most 32,768) as `group`
    /// (IORING_REGISTER_PBUF_RING, kernel 5.19).
    pub fn register(
        submitter: &Submitter<'_>,
        group: u16,
        count: u16,
        flags: u16,
    ) -> io::Result<Self> {
        debug_assert!(count.is_power_of_two());
        let bytes = usize::from(count) * size_of::<BufRingEntry>();
        let entries = Self { memory: AnonymousMemory::new(bytes)?, count, tail: 0 };
        entries.register_again(submitter, group, flags)?;
        Ok(entries)
    }

    pub fn register_again(
        &self,
        submitter: &Submitter<'_>,
        group: u16,
        flags: u16,
    ) -> io::Result<()> {
        let address = self.memory.start().as_ptr().expose_provenance() as u64;
        // SAFETY: the memory is mapped, page-aligned as the call asks, and long enough for `count`
        // entries. The kernel pins its pages for as long as they are registered, so that they may
        // be unmapped here before.
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, group, flags) }
    }

    pub fn mask(&self) -> u16 {
        self.count - 1
    }

    /// Writes the entry behind the last; the kernel sees it after [`Self::publish`].
    pub fn put(&mut self, address: NonNull<u8>, length: u32, id: u16) {
        let slot = usize::from(self.tail & self.mask());
        let entries = self.memory.start().cast::<BufRingEntry>();
        // SAFETY: `slot` is below `count`, and the mapping holds as many entries. The kernel reads
        // an entry only once the tail has passed it, and the setters leave alone the tail, which
        // overlays the first entry's reserved field.
        unsafe {
            let entry = entries.add(slot).as_mut();
            entry.set_addr(address.as_ptr().expose_provenance() as u64);
            entry.set_len(length);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Returns the buffer that was put at this place last.
    pub fn id(&self, slot: u16) -> u16 {
        let slot = usize::from(slot & self.mask());
        // SAFETY: `slot` is below `count`, and the mapping, which began as zeros, holds as many
        // entries. The kernel only reads them.
        unsafe { self.memory.start().cast::<BufRingEntry>().add(slot).as_ref() }.bid()
    }

    pub fn publish(&mut self) {
        let entries = self.memory.start().cast::<BufRingEntry>();
        // SAFETY: the tail lies within the first entry, aligned to its two bytes; only this thread
        // writes it, and the kernel reads it with acquire semantics.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
