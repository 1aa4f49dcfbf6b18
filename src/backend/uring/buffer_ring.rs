//! Provided buffers: memory that the kernel picks from when data arrives, so that a connection that waits holds none.

use crate::sys::AnonymousMemory;
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The buffer group of the loop; it has only one.
pub const GROUP: u16 = 0;

/// A ring of buffers that are given to the kernel and come back one by one with completions.
///
/// A buffer is either the kernel's (it may write to it at any time that a receive runs) or ours (from the
/// completion that names it until [`BufferRing::give_back`]). That is tracked, so that no use of it by us can
/// overlap with the kernel's.
///
/// It must be dropped after the ring that it is registered with: from then on no request can write here.
/// Receives into these buffers run only inside of this thread's own `io_uring_enter` (DEFER_TASKRUN), so
/// once the ring is gone, none runs.
pub struct BufferRing {
    memory: AnonymousMemory,
    count: u16,
    buffer_bytes: usize,
    buffers_offset: usize,
    tail: u16,
    ours: Vec<bool>,
    ours_count: usize,
}

impl BufferRing {
    /// Makes `count` buffers (a power of two, at most 32,768) and registers them as [`GROUP`]
    /// (IORING_REGISTER_PBUF_RING, kernel 5.19).
    pub fn new(submitter: &Submitter<'_>, count: u16, buffer_bytes: usize) -> io::Result<Self> {
        debug_assert!(count.is_power_of_two());
        let entries_bytes = usize::from(count) * size_of::<BufRingEntry>();
        let buffers_offset = entries_bytes.next_multiple_of(4096);
        let bytes = buffers_offset + usize::from(count) * buffer_bytes;
        let memory = AnonymousMemory::new(bytes).map_err(|error| {
            let text = format!("{bytes} bytes for provided buffers: {error}; lower buffers or buffer_bytes");
            io::Error::new(error.kind(), text)
        })?;
        let address = memory.start().as_ptr().expose_provenance() as u64;
        // SAFETY: the memory is mapped, page-aligned as the call asks, long enough for `count` entries, and
        // outlives the registration because this is dropped after the ring.
        unsafe { submitter.register_buf_ring_with_flags(address, count, GROUP, 0)? };
        let mut ring = Self {
            memory,
            count,
            buffer_bytes,
            buffers_offset,
            tail: 0,
            ours: vec![true; usize::from(count)],
            ours_count: usize::from(count),
        };
        for id in 0..count {
            ring.give_back(id);
        }
        Ok(ring)
    }

    /// All of its memory in bytes; resident only as far as it was used.
    pub fn bytes(&self) -> usize {
        self.memory.length()
    }

    /// How many buffers are left for the kernel to pick.
    pub fn available(&self) -> usize {
        usize::from(self.count) - self.ours_count
    }

    /// Notes that a completion named this buffer: it is ours until it is given back.
    ///
    /// # Panics
    /// When it was ours already, or is none of the ring's: then the kernel and we disagree about who may write.
    pub fn take(&mut self, id: u16) {
        assert!(!std::mem::replace(&mut self.ours[usize::from(id)], true), "buffer {id} came twice");
        self.ours_count += 1;
    }

    /// The first `length` bytes of a buffer that is ours.
    ///
    /// # Panics
    /// When it is not ours, or not that long.
    pub fn contents(&self, id: u16, length: usize) -> &[u8] {
        assert!(self.ours[usize::from(id)] && length <= self.buffer_bytes, "buffer {id} is not ours");
        // SAFETY: the range lies within the mapping. The buffer is ours, so the kernel does not write to it;
        // nothing of ours writes to buffers at all.
        unsafe { std::slice::from_raw_parts(self.address(id).as_ptr(), length) }
    }

    /// Gives a buffer of ours to the kernel.
    ///
    /// # Panics
    /// When it is not ours.
    pub fn give_back(&mut self, id: u16) {
        assert!(std::mem::replace(&mut self.ours[usize::from(id)], false), "buffer {id} is not ours");
        self.ours_count -= 1;
        let entries = self.memory.start().cast::<BufRingEntry>();
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, and the mapping starts with as many entries. The kernel reads an
        // entry only once the tail has passed it, and the setters leave alone the tail, which overlays the
        // first entry's reserved field.
        unsafe {
            let entry = entries.add(slot).as_mut();
            entry.set_addr(self.address(id).as_ptr().expose_provenance() as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies within the first entry, aligned to its two bytes; only this thread writes
        // it, and the kernel reads it with acquire semantics.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn address(&self, id: u16) -> NonNull<u8> {
        let offset = self.buffers_offset + usize::from(id) * self.buffer_bytes;
        // SAFETY: every id is below `count`, checked against `ours` by all callers, and the mapping holds
        // `count` buffers from `buffers_offset` on.
        unsafe { self.memory.start().add(offset) }
    }
}

/// Whether the kernel registers buffer rings at all.
pub fn probe(uring: &Submitter<'_>) -> io::Result<()> {
    BufferRing::new(uring, 1, 4096)?;
    uring.unregister_buf_ring(GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::IoUring;

    fn ring(count: u16) -> Option<(IoUring, BufferRing)> {
        let uring = match IoUring::new(4) {
            Ok(uring) => uring,
            Err(error) => {
                eprintln!("skipped: io_uring_setup: {error}");
                return None;
            }
        };
        let buffers = BufferRing::new(&uring.submitter(), count, 64).expect("registers");
        Some((uring, buffers))
    }

    #[test]
    fn knows_whose_each_buffer_is() {
        let Some((_uring, mut buffers)) = ring(4) else { return };
        assert_eq!(buffers.available(), 4);
        for id in 0..4 {
            buffers.take(id);
        }
        assert_eq!(buffers.available(), 0);
        assert_eq!(buffers.contents(3, 64), [0; 64]);
        buffers.give_back(3);
        assert_eq!(buffers.available(), 1);
    }

    #[test]
    #[should_panic(expected = "not ours")]
    fn a_buffer_of_the_kernels_cannot_be_read() {
        let Some((_uring, buffers)) = ring(4) else { panic!("not ours, and no ring") };
        let _ = buffers.contents(0, 1);
    }

    #[test]
    #[should_panic(expected = "not ours")]
    fn a_buffer_cannot_be_given_back_twice() {
        let Some((_uring, mut buffers)) = ring(4) else { panic!("not ours, and no ring") };
        buffers.give_back(0);
    }
}
