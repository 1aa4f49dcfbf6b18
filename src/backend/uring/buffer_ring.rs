//! Provided buffers: memory that the kernel picks from when data arrives, so that a connection that
//! waits holds none.

use super::memory::AnonymousMemory;
use super::request::GROUP;
use super::ring::Ring;
use super::{entries::Entries, setup};
use crate::contract::{Knob, Unsupported};
use crate::kernel::Version;
use io_uring::Submitter;
use io_uring::types::IOU_PBUF_RING_INC;
use std::io;
use std::ptr::NonNull;

/// `buffers`.
pub const BUFFERS: Knob = Knob::number(
    "buffers",
    2048,
    1..=32_768,
    "provided buffers of a worker, rounded up to a power of two; two for each busy connection are \
     always enough, and those beyond 96 take memory only once they were needed",
);

/// `buffer_bytes`.
pub const BUFFER_BYTES: Knob =
    Knob::number("buffer_bytes", 4096, 64..=1_048_576, "size of a provided buffer");

/// `incremental`.
pub const INCREMENTAL: Knob = Knob::word(
    "incremental",
    &["off", "on"],
    "whether one buffer takes several receives, one behind the other, until it is full (kernel \
     6.12)",
);

/// Buffers that are in the ring from the start. An enter makes the completions of 40 receives at
/// most (twice IO_LOCAL_TW_DEFAULT_MAX of the kernel's io_uring.c), while those of 40 before them
/// are being sent. Kernels without that bound ask for another [growth](Growth).
const FIRST: u16 = 96;

/// The condition on which more buffers are put into the ring. One connection can take all that are
/// in it in one go if the kernel does not bound that. All connections may want one in one go if the
/// kernel makes all completions at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// When hardly any are left.
    Used,
    /// The same, and so that there are two for each connection.
    UsedOrConnected,
    /// Only so that there are two for each connection: else a connection could have the ring grow,
    /// and take all that is in it.
    Connected,
}

impl Growth {
    /// Returns the one that fits a kernel of this version. `bounded` is from which on it bounds
    /// what a receive of the kind takes in one go; `in_bursts` says that the ring asks for all
    /// completions at once.
    pub fn of(kernel: Version, bounded: Version, in_bursts: bool) -> Self {
        // IO_LOCAL_TW_DEFAULT_MAX.
        const BOUNDS_COMPLETIONS: Version = (6, 13);
        if kernel < bounded {
            Growth::Connected
        } else if in_bursts || kernel < BOUNDS_COMPLETIONS {
            Growth::UsedOrConnected
        } else {
            Growth::Used
        }
    }
}

/// A ring of buffers that are given to the kernel and come back one by one with completions.
///
/// A buffer is the kernel's, which may write to it at any time that a receive runs, or ours, from
/// the completion that names it until all of its pieces are given back. An incremental buffer is
/// both: ours is what completions have said to be filled, the kernel's is the rest. The ring tracks
/// both, so that no use of it by us can overlap with the kernel's.
///
/// The kernel picks from the ring in turn, so that each buffer in it becomes resident, however few
/// are in use at a time. So only a few are in it at first, and twice as many whenever hardly any of
/// them are left.
pub struct BufferRing {
    entries: Entries,
    memory: AnonymousMemory,
    buffer_bytes: usize,
    incremental: bool,
    growth: Growth,
    states: Vec<BufferState>,
    kernels: usize,
    /// With so few of them left, more are begun.
    few: usize,
    /// Buffers that have ever been in the ring: the first so many.
    begun: u16,
}

#[derive(Clone, Copy, Default)]
struct BufferState {
    /// Bytes from the start that are ours.
    filled: u32,
    /// Pieces of them that are in use.
    pieces: u32,
    /// Whether the kernel may write behind them.
    kernels: bool,
    /// Its place among the entries of the ring.
    slot: u16,
}

/// A part of a buffer that a receive has filled, ours until it is given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The buffer.
    pub buffer: u16,
    /// The first byte, counted within the buffer.
    pub start: u32,
    /// The byte behind the last.
    pub end: u32,
}

/// A piece that is not ours was to be used. In a function of its own, and by number: who only hands
/// a piece on need not put it into memory for this.
#[cold]
fn not_ours(buffer: u16) -> ! {
    panic!("a piece of buffer {buffer} is not ours")
}

impl BufferRing {
    /// Makes `count` buffers (a power of two, at most 32,768) and registers them as [`GROUP`].
    ///
    /// # Safety
    /// When it is dropped, no receive that picks from this group may be under way. Until then
    /// [`Self::take`] and [`Self::take_bundle`] must be told of what completions of such receives
    /// say, of each once, and a piece must be given back only when no request reads it.
    pub unsafe fn new(
        submitter: &Submitter<'_>,
        count: u16,
        buffer_bytes: usize,
        incremental: bool,
        growth: Growth,
    ) -> io::Result<Self> {
        let bytes = usize::from(count) * buffer_bytes;
        let memory = AnonymousMemory::new(bytes).map_err(|error| {
            let text = format!(
                "{bytes} bytes for provided buffers: {error}; lower buffers or buffer_bytes"
            );
            io::Error::new(error.kind(), text)
        })?;
        let flags = if incremental { IOU_PBUF_RING_INC as u16 } else { 0 };
        let mut ring = Self {
            entries: Entries::register(submitter, GROUP, count, flags)?,
            memory,
            buffer_bytes,
            incremental,
            growth,
            states: vec![BufferState::default(); usize::from(count)],
            kernels: 0,
            few: 0,
            begun: 0,
        };
        ring.begin(FIRST);
        Ok(ring)
    }

    /// How many buffers there are.
    pub fn count(&self) -> usize {
        self.states.len()
    }

    /// All of its memory in bytes; resident only as far as it was used.
    pub fn bytes(&self) -> usize {
        self.memory.length() + self.entries.memory.length()
    }

    /// How many buffers are left for the kernel to pick; none only if all are in use.
    pub fn available(&self) -> usize {
        self.kernels
    }

    /// Notes that a completion named this buffer and filled `length` more bytes of it. If the
    /// kernel is done with it (`more` is false), it is given back with its last piece.
    ///
    /// # Panics
    /// When it was not the kernel's, or is not that long: then the kernel and we disagree about who
    /// may write.
    #[inline]
    pub fn take(&mut self, id: u16, length: u32, more: bool) -> Piece {
        let state = &mut self.states[usize::from(id)];
        assert!(state.kernels, "a buffer came twice");
        let start = state.filled;
        state.filled += length;
        state.pieces += 1;
        assert!(state.filled as usize <= self.buffer_bytes, "a buffer was filled beyond its end");
        if !(self.incremental && more) {
            state.kernels = false;
            self.kernels -= 1;
            if self.kernels <= self.few {
                self.begin_more();
            }
        }
        Piece { buffer: id, start, end: start + length }
    }

    /// The pieces of `length` bytes that one receive has filled, from this buffer on in the order
    /// of the ring. All but the last are full.
    pub fn take_bundle(&mut self, first: u16, length: u32, mut each: impl FnMut(&mut Self, Piece)) {
        let mut left = length;
        let mut slot = self.states[usize::from(first)].slot;
        loop {
            let id = self.entries.id(slot);
            let filled = left.min(self.buffer_bytes as u32);
            slot = (slot + 1) & self.entries.mask();
            let piece = self.take(id, filled, false);
            each(self, piece);
            left -= filled;
            if left == 0 {
                return;
            }
        }
    }

    /// The bytes of a piece.
    ///
    /// # Panics
    /// When it is not ours.
    #[inline]
    pub fn contents(&self, piece: Piece) -> &[u8] {
        let state = &self.states[usize::from(piece.buffer)];
        if state.pieces == 0 || piece.start > piece.end || piece.end > state.filled {
            not_ours(piece.buffer);
        }
        let length = (piece.end - piece.start) as usize;
        // SAFETY: the range lies within what is filled of the buffer, which lies within the
        // mapping. The kernel writes only behind it, or not at all; nothing of ours writes to
        // buffers.
        unsafe {
            std::slice::from_raw_parts(
                self.address(piece.buffer).add(piece.start as usize).as_ptr(),
                length,
            )
        }
    }

    /// Gives a piece back. With the last of its buffer, the buffer goes to the kernel.
    ///
    /// # Panics
    /// When it is not ours.
    #[inline]
    pub fn give_back(&mut self, piece: Piece) {
        let state = &mut self.states[usize::from(piece.buffer)];
        if state.pieces == 0 {
            not_ours(piece.buffer);
        }
        state.pieces -= 1;
        if state.pieces == 0 && !state.kernels {
            self.offer(piece.buffer);
        }
    }

    /// Doubles the buffers that are in use, where the kernel found none: it may pick many before we
    /// see the first.
    #[cold]
    pub fn begin_more(&mut self) {
        if self.growth != Growth::Connected {
            self.begin(self.begun);
        }
    }

    /// Notes how many connections there are. Each may have one buffer that is being sent while it
    /// fills the next.
    pub fn connected(&mut self, connections: u64) {
        if self.growth != Growth::Used {
            let wanted = u16::try_from(2 * connections).unwrap_or(u16::MAX);
            self.begin(wanted.saturating_sub(self.begun));
        }
    }

    /// Puts more buffers into the ring, as far as there are any that were never in it.
    fn begin(&mut self, more: u16) {
        let begun = self.count().min(usize::from(self.begun) + usize::from(more)) as u16;
        for id in self.begun..begun {
            self.offer(id);
        }
        self.begun = begun;
        self.few = usize::from(begun) / 8;
    }

    fn offer(&mut self, id: u16) {
        let slot = self.entries.tail & self.entries.mask();
        self.states[usize::from(id)] = BufferState { filled: 0, pieces: 0, kernels: true, slot };
        self.kernels += 1;
        let address = self.address(id);
        self.entries.put(address, self.buffer_bytes as u32, id);
        self.entries.publish();
    }

    fn address(&self, id: u16) -> NonNull<u8> {
        // SAFETY: every id is an index of `states`, checked by all callers, and the mapping holds
        // as many buffers.
        unsafe { self.memory.start().add(usize::from(id) * self.buffer_bytes) }
    }
}

/// Whether the kernel registers buffer rings at all, and of that kind.
pub fn probe(ring: &Ring, incremental: bool) -> Result<(), Unsupported> {
    let uring = ring.submitter();
    // SAFETY: nothing receives.
    let make = || unsafe { BufferRing::new(&uring, 1, 4096, incremental, Growth::Used) };
    let done = ring.setup().need().patiently(make).and_then(|_| uring.unregister_buf_ring(GROUP));
    done.map_err(|error| {
        if error.kind() == io::ErrorKind::OutOfMemory {
            return setup::explain_set_up(&error, ring.setup());
        }
        let needed = if incremental {
            "incremental provided buffers need Linux 6.12"
        } else {
            "provided buffer rings need Linux 5.19"
        };
        Unsupported { reason: format!("io_uring_register(PBUF_RING): {error}; {needed}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::IoUring;

    fn ring(count: u16, incremental: bool) -> Option<(IoUring, BufferRing)> {
        growing_ring(count, incremental, Growth::Used)
    }

    fn growing_ring(
        count: u16,
        incremental: bool,
        growth: Growth,
    ) -> Option<(IoUring, BufferRing)> {
        let uring = match IoUring::new(4) {
            Ok(uring) => uring,
            Err(error) => {
                eprintln!("skipped: io_uring_setup: {error}");
                return None;
            }
        };
        // SAFETY: nothing receives: what the tests take are zeros.
        let buffers =
            unsafe { BufferRing::new(&uring.submitter(), count, 64, incremental, growth) };
        if incremental && buffers.is_err() {
            eprintln!("skipped: incremental buffers need Linux 6.12");
            return None;
        }
        Some((uring, buffers.expect("registers")))
    }

    #[test]
    fn knows_whose_each_buffer_is() {
        let Some((_uring, mut buffers)) = ring(4, false) else { return };
        assert_eq!(buffers.available(), 4);
        let pieces: Vec<Piece> = (0..4).map(|id| buffers.take(id, 64, false)).collect();
        assert_eq!(buffers.available(), 0);
        assert_eq!(buffers.contents(pieces[3]), [0; 64]);
        buffers.give_back(pieces[3]);
        assert_eq!(buffers.available(), 1);
    }

    #[test]
    fn as_many_buffers_are_begun_as_are_needed() {
        let Some((_uring, mut buffers)) = ring(256, false) else { return };
        let first = usize::from(FIRST);
        for id in (0..FIRST).cycle().take(10 * first) {
            let pieces = [id, (id + 1) % FIRST].map(|id| buffers.take(id, 64, false));
            pieces.into_iter().for_each(|piece| buffers.give_back(piece));
        }
        assert_eq!(buffers.available(), first, "two at a time need no more");

        let mut pieces = Vec::new();
        for id in 0..256 {
            assert!(buffers.available() > 0, "none is left after {id}");
            pieces.push(buffers.take(id, 64, false));
        }
        assert_eq!(buffers.available(), 0);
        pieces.into_iter().for_each(|piece| buffers.give_back(piece));
        assert_eq!(buffers.available(), 256);
    }

    #[test]
    fn what_kernels_do_not_bound_is_bounded_by_what_is_in_the_ring() {
        let of = |kernel| [(6, 8), (6, 17)].map(|bounded| Growth::of(kernel, bounded, false));
        assert_eq!(of((5, 19)), [Growth::Connected; 2]);
        assert_eq!(of((6, 1)), [Growth::Connected; 2]);
        assert_eq!(of((6, 12)), [Growth::UsedOrConnected, Growth::Connected]);
        assert_eq!(of((6, 16)), [Growth::Used, Growth::Connected]);
        assert_eq!(of((6, 18)), [Growth::Used; 2]);
        assert_eq!(of((7, 0)), [Growth::Used; 2]);
        assert_eq!(Growth::of((7, 0), (6, 8), true), Growth::UsedOrConnected);
        assert_eq!(Growth::of((6, 1), (6, 8), true), Growth::Connected);
    }

    #[test]
    fn one_connection_does_not_have_the_ring_grow_where_it_could_take_all() {
        for (growth, begun) in
            [(Growth::Used, 256), (Growth::UsedOrConnected, 256), (Growth::Connected, FIRST)]
        {
            let Some((_uring, mut buffers)) = growing_ring(256, false, growth) else { return };
            buffers.connected(1);
            let mut taken = 0;
            while buffers.available() > 0 {
                buffers.take(taken, 64, false);
                taken += 1;
            }
            buffers.begin_more();
            assert_eq!((taken, buffers.begun), (begun, begun), "{growth:?}");
        }
    }

    #[test]
    fn all_connections_find_a_buffer_where_they_may_want_one_at_once() {
        for (growth, begun) in
            [(Growth::Used, FIRST), (Growth::UsedOrConnected, 200), (Growth::Connected, 200)]
        {
            let Some((_uring, mut buffers)) = growing_ring(256, false, growth) else { return };
            (1..=100).for_each(|connections| buffers.connected(connections));
            buffers.connected(3);
            assert_eq!(buffers.available(), usize::from(begun), "{growth:?}");
        }
        let Some((_uring, mut buffers)) = growing_ring(256, false, Growth::Connected) else {
            return;
        };
        buffers.connected(100_000);
        assert_eq!(buffers.available(), 256, "there are no more");
    }

    #[test]
    fn an_incremental_buffer_returns_with_its_last_piece() {
        let Some((_uring, mut buffers)) = ring(2, true) else { return };
        let first = buffers.take(0, 10, true);
        let second = buffers.take(0, 54, false);
        assert_eq!((first.start, first.end, second.start, second.end), (0, 10, 10, 64));
        assert_eq!(buffers.available(), 1);
        buffers.give_back(second);
        assert_eq!(buffers.available(), 1);
        buffers.give_back(first);
        assert_eq!(buffers.available(), 2);
        // All pieces are back, and the kernel is not done with it: it stays the kernel's.
        let third = buffers.take(1, 5, true);
        buffers.give_back(third);
        assert_eq!(buffers.take(1, 5, true).start, 5);
    }

    /// Kernels differ in whether the end of a stream names the buffer that it did not use, and in
    /// whether they go on filling that one.
    #[test]
    fn a_receive_of_nothing_loses_no_buffer() {
        for (incremental, more) in [(false, false), (false, true), (true, false), (true, true)] {
            let Some((_uring, mut buffers)) = ring(2, incremental) else { continue };
            for _ in 0..5 {
                let nothing = buffers.take(0, 0, more);
                assert!(buffers.contents(nothing).is_empty());
                buffers.give_back(nothing);
                assert_eq!(buffers.available(), 2);
            }
            // Beside a piece of the same buffer that is in use.
            let piece = buffers.take(0, 10, true);
            if incremental {
                let nothing = buffers.take(0, 0, more);
                buffers.give_back(nothing);
                assert_eq!(buffers.available(), if more { 2 } else { 1 });
            }
            assert_eq!(buffers.contents(piece).len(), 10);
            buffers.give_back(piece);
            assert_eq!(buffers.available(), 2);
            let next = buffers.take(0, 64 - 10, false);
            assert_eq!(next.start, if incremental && more { 10 } else { 0 });
            buffers.give_back(next);
            assert_eq!(buffers.available(), 2);
        }
    }

    #[test]
    fn a_bundle_follows_the_order_of_the_ring() {
        let Some((_uring, mut buffers)) = ring(4, false) else { return };
        let first: Vec<Piece> = (0..4).map(|id| buffers.take(id, 64, false)).collect();
        for id in [2, 0, 3, 1] {
            buffers.give_back(first[id]);
        }
        let mut ids = Vec::new();
        buffers.take_bundle(0, 64 + 64 + 1, |_, piece| ids.push((piece.buffer, piece.end)));
        assert_eq!(ids, [(0, 64), (3, 64), (1, 1)]);
        assert_eq!(buffers.available(), 1);
    }

    #[test]
    #[should_panic(expected = "not ours")]
    fn a_buffer_of_the_kernels_cannot_be_read() {
        let Some((_uring, buffers)) = ring(4, false) else { panic!("not ours, and no ring") };
        let _ = buffers.contents(Piece { buffer: 0, start: 0, end: 1 });
    }

    #[test]
    #[should_panic(expected = "not ours")]
    fn a_buffer_cannot_be_given_back_twice() {
        let Some((_uring, mut buffers)) = ring(4, false) else { panic!("not ours, and no ring") };
        buffers.give_back(Piece::default());
    }

    #[test]
    #[should_panic(expected = "came twice")]
    fn a_buffer_of_ours_cannot_come_again() {
        let Some((_uring, mut buffers)) = ring(4, false) else { panic!("came twice, and no ring") };
        buffers.take(0, 1, false);
        buffers.take(0, 1, false);
    }
}
