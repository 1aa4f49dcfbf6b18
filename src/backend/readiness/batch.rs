//! The receive buffer of a worker, in which the answers that are held back wait for the end of a
//! batch.
//!
//! The held answers stand in it one behind the other, in the order in which they were received, and
//! a receive takes what comes after them. Every receive has room for [`RECEIVE_BYTES`], as without
//! held answers: the buffer is twice as long, and full once more than one half is held.

use crate::contract::{Knob, Knobs};
use std::ops::Range;
use std::os::fd::RawFd;

/// A knob that all backends of this loop have.
pub const RECEIVE_BYTES: Knob =
    Knob::number("receive_bytes", 65_536, 64..=16_777_216, "receive buffer of a worker, in bytes");

/// A knob that all backends of this loop have.
pub const SEND: Knob = Knob::word(
    "send",
    &[AT_ONCE, AFTER_BATCH],
    "when an answer is sent: before the next connection is served, or after all that one wait has \
     reported, so that a \
     client is woken once for many answers; two receive buffers are held back at most",
);

const AT_ONCE: &str = "at-once";
const AFTER_BATCH: &str = "after-batch";

/// The buffer of a worker.
pub struct Batch {
    bytes: Vec<u8>,
    receive_bytes: usize,
    holds_back: bool,
    /// Whose answers are held, and where each ends.
    held: Vec<(RawFd, usize)>,
}

impl Batch {
    /// As [`RECEIVE_BYTES`] and [`SEND`] are set.
    pub fn of(knobs: &Knobs) -> Self {
        Self::new(knobs.size(RECEIVE_BYTES.name), knobs.word(SEND.name) == AFTER_BATCH)
    }

    fn new(receive_bytes: usize, holds_back: bool) -> Self {
        // Memory that no receive reaches is never resident.
        let length = if holds_back { 2 * receive_bytes } else { receive_bytes };
        Self { bytes: vec![0; length], receive_bytes, holds_back, held: Vec::new() }
    }

    /// Whether answers wait for the end of a batch.
    pub fn holds_back(&self) -> bool {
        self.holds_back
    }

    /// How much one receive takes at most.
    pub fn receive_bytes(&self) -> usize {
        self.receive_bytes
    }

    /// Returns the room for the next receive.
    pub fn room(&mut self) -> &mut [u8] {
        let start = self.held_bytes();
        &mut self.bytes[start..start + self.receive_bytes]
    }

    /// The place of the last receive, of so many bytes.
    pub fn received(&self, length: usize) -> Range<usize> {
        let start = self.held_bytes();
        start..start + length
    }

    /// The bytes of a place.
    pub fn bytes(&self, place: Range<usize>) -> &[u8] {
        &self.bytes[place]
    }

    /// Holds the last receive, of so many bytes, as the answer to a connection that has none here
    /// yet. Whether there is no room for another receive then.
    pub fn hold(&mut self, fd: RawFd, length: usize) -> bool {
        debug_assert!(
            self.held.iter().all(|&(other, _)| other != fd),
            "read on before its answer was sent"
        );
        self.held.push((fd, self.held_bytes() + length));
        self.held_bytes() > self.receive_bytes
    }

    /// The answer at this place of those held, and whose it is.
    pub fn held(&self, index: usize) -> Option<(RawFd, Range<usize>)> {
        let &(fd, end) = self.held.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.held[before].1);
        Some((fd, start..end))
    }

    /// Forgets those held: all have been sent.
    pub fn clear(&mut self) {
        self.held.clear();
    }

    fn held_bytes(&self) -> usize {
        self.held.last().map_or(0, |&(_, end)| end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_answers_stay_as_they_were_received_until_it_is_full() {
        let mut batch = Batch::new(64, true);
        let receive = |batch: &mut Batch, length: u8| {
            let room = batch.room();
            assert_eq!(room.len(), 64);
            room[..length.into()].fill(length);
            batch.hold(length.into(), length.into())
        };
        assert_eq!([1, 63, 62].map(|length| receive(&mut batch, length)), [false, false, true]);
        for (index, length) in [1, 63, 62].into_iter().enumerate() {
            let (fd, place) = batch.held(index).expect("is held");
            assert_eq!(
                (fd, batch.bytes(place)),
                (length.into(), vec![length; length.into()].as_slice())
            );
        }
        assert!(batch.held(3).is_none());
        batch.clear();
        assert!(batch.held(0).is_none());
        assert!(!receive(&mut batch, 9));
    }
}
