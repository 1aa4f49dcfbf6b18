//! The echo protocol (RFC 862): bytes come back as they went.
//!
//! Because there is no framing, any echo client or server can stand on either side. The client
//! knows what must come back without storing it: connection `c`'s byte at stream offset `k` is
//! `pattern[(start(c) + k) mod PERIOD]`. The period is prime, so it shares no factor with any
//! buffer or message size: a lost, repeated or reordered run of bytes shifts what follows to bytes
//! that do not match, and a different start per connection shows bytes that crossed over from
//! another one.

use std::sync::OnceLock;

/// Length of the repeating pattern in bytes: the largest prime below 2^16.
pub const PERIOD: usize = 65_521;

/// The longest slice that [`Stream::next`] hands out, in bytes.
pub const MAX_SLICE: usize = 65_536;

/// The pattern, long enough that a slice of [`MAX_SLICE`] can start at any phase of it.
fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| repeated(MAX_SLICE))
}

/// The pattern, long enough that a slice of `longest` bytes can start at any phase of it.
fn repeated(longest: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes: Vec<u8> = (0..PERIOD)
        .map(|_| {
            state = splitmix64(state);
            (state >> 56) as u8
        })
        .collect();
    bytes.reserve_exact(longest);
    while bytes.len() < PERIOD + longest {
        let more = (PERIOD + longest - bytes.len()).min(PERIOD);
        bytes.extend_from_within(bytes.len() - PERIOD..bytes.len() - PERIOD + more);
    }
    bytes
}

/// The bytes of all streams, for slices of up to a given length. It lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    bytes: &'static [u8],
}

impl Pattern {
    /// Makes one for slices of up to `longest` bytes, of which [`MAX_SLICE`] need no memory.
    pub fn new(longest: usize) -> Self {
        let bytes = if longest <= MAX_SLICE { pattern() } else { repeated(longest).leak() };
        Self { bytes }
    }

    /// The next `length` bytes of a stream, or as many as a slice has at most.
    #[inline]
    pub fn next(self, stream: Stream, length: usize) -> &'static [u8] {
        let phase = stream.phase as usize;
        &self.bytes[phase..phase + length.min(self.bytes.len() - PERIOD)]
    }
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014): enough to look random to a stream comparison.
fn splitmix64(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A position in one connection's endless byte stream: one for what is sent, one for what must
/// return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    phase: u32,
}

/// A byte that did not come back as it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Offset of the first wrong byte in the slice that was checked.
    pub offset: usize,
    /// The byte that was sent.
    pub expected: u8,
    /// The byte that came back.
    pub found: u8,
}

impl Stream {
    /// The start of connection `connection`'s stream.
    pub fn new(connection: u64) -> Self {
        Self { phase: (splitmix64(connection) % PERIOD as u64) as u32 }
    }

    /// The next `length` bytes, or [`MAX_SLICE`] of them if that is less; does not advance.
    pub fn peek(&self, length: usize) -> &'static [u8] {
        let phase = self.phase as usize;
        &pattern()[phase..phase + length.min(MAX_SLICE)]
    }

    /// Moves on by `length` bytes.
    pub fn advance(&mut self, length: usize) {
        self.phase = ((self.phase as usize + length) % PERIOD) as u32;
    }

    /// Compares every byte of `bytes` with what must come next, and moves on past them if they
    /// match.
    pub fn verify(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        let mut checked = 0;
        for chunk in bytes.chunks(MAX_SLICE) {
            let expected = self.peek(chunk.len());
            if chunk != expected {
                let offset = chunk.iter().zip(expected).take_while(|(a, b)| a == b).count();
                return Err(Mismatch {
                    offset: checked + offset,
                    expected: expected[offset],
                    found: chunk[offset],
                });
            }
            self.advance(chunk.len());
            checked += chunk.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(connection: u64, skip: usize, length: usize) -> Vec<u8> {
        let mut stream = Stream::new(connection);
        stream.advance(skip);
        let mut out = Vec::new();
        while out.len() < length {
            let slice = stream.peek(length - out.len());
            out.extend_from_slice(slice);
            stream.advance(slice.len());
        }
        out
    }

    #[test]
    fn own_bytes_verify_in_any_split() {
        let sent = bytes(7, 0, 3 * PERIOD + 17);
        for split in [1, 63, 1024, 4096, PERIOD, MAX_SLICE, 200_000] {
            let mut expect = Stream::new(7);
            for chunk in sent.chunks(split) {
                expect.verify(chunk).expect("what was sent verifies");
            }
        }
    }

    #[test]
    fn a_longer_slice_has_the_same_bytes() {
        let mut stream = Stream::new(11);
        stream.advance(PERIOD - 1);
        let longest = 3 * MAX_SLICE + 5;
        let slice = Pattern::new(longest).next(stream, usize::MAX);
        assert_eq!(slice.len(), longest);
        assert_eq!(slice, bytes(11, PERIOD - 1, longest));
        assert_eq!(Pattern::new(10).next(stream, 10), stream.peek(10));
    }

    #[test]
    fn any_fault_shows() {
        let sent = bytes(3, 0, 10_000);
        let check = |received: &[u8]| Stream::new(3).verify(received);
        let mut flipped = sent.clone();
        flipped[5000] ^= 1;
        assert_eq!(check(&flipped).expect_err("flipped bit").offset, 5000);
        for fault in [1, 64, 1024, 4096] {
            let lost = [&sent[..2000], &sent[2000 + fault..]].concat();
            assert!(check(&lost).is_err(), "lost {fault}");
            let repeated = [&sent[..2000 + fault], &sent[2000..]].concat();
            assert!(check(&repeated).is_err(), "repeated {fault}");
        }
        let swapped = [&sent[..1024], &sent[2048..3072], &sent[1024..2048]].concat();
        assert!(check(&swapped).is_err(), "reordered");
        assert!(check(&bytes(4, 0, 64)).is_err(), "another connection's bytes");
    }
}
