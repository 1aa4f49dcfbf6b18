//! Faults in the bytes that a server sends back, and their likely causes.

use std::io;

use ringmark::echo::{MAX_SLICE, Mismatch, PERIOD, Stream};

/// A connection on which the server broke the echo protocol.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A byte differs from the one that was sent.
    #[error("stream offset {offset}: expected byte {expected:#04x}, found {found:#04x}: {cause}")]
    Wrong { offset: u64, expected: u8, found: u8, cause: Cause },
    /// More bytes came than were owed.
    #[error(
        "stream offset {offset}: expected nothing more, found bytes beyond those owed ({bytes} or \
         more): the server repeated bytes, crossed connections, or answered before it was asked"
    )]
    Beyond { offset: u64, bytes: usize },
    /// The server closed its side (`error` is None) or the connection failed.
    #[error("stream offset {offset}: {}", describe_end(*owed_bytes, error.as_ref()))]
    Ended { offset: u64, owed_bytes: u64, error: Option<io::Error> },
}

fn describe_end(owed_bytes: u64, error: Option<&io::Error>) -> String {
    let expected = match owed_bytes {
        0 => "the connection to stay open".to_owned(),
        owed => format!("{owed} more bytes"),
    };
    let found = match error {
        None => "an early end: the server closed the connection".to_owned(),
        Some(error) => format!("`{error}`: the server reset the connection or died"),
    };
    let lost = if owed_bytes > 0 { " and lost what it owed" } else { "" };
    format!("expected {expected}, found {found}{lost}")
}

/// The cause of a wrong byte, as far as the bytes that follow it show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error("the stream goes on {0} B later: the server lost them")]
    Lost(usize),
    #[error("the stream goes on {0} B earlier: the server repeated them")]
    Repeated(usize),
    /// The bytes lie elsewhere in the pattern, where another connection's stream may be.
    #[error("the bytes are from elsewhere: the server crossed connections")]
    Crossed,
    #[error("the bytes are in no stream: the server altered them")]
    Altered,
    #[error("too few bytes followed to tell lost, repeated and crossed apart")]
    Unclear,
}

/// Bytes that are compared to find a cause: few enough for a short message, enough to be unique.
const SAMPLE: usize = MAX_SLICE - PERIOD + 1;
const SAMPLE_MIN: usize = 6;

impl Fault {
    /// Judges a mismatch in `bytes`, which began at stream `offset`, where `stream` stood.
    ///
    /// The server can have held `sent_ahead` bytes beyond that place, and `kept_behind` before it.
    pub fn wrong(
        mismatch: Mismatch,
        bytes: &[u8],
        mut stream: Stream,
        offset: u64,
        sent_ahead: u64,
        kept_behind: u64,
    ) -> Self {
        stream.advance(mismatch.offset);
        let ahead = sent_ahead.saturating_sub(mismatch.offset as u64);
        let offset = offset + mismatch.offset as u64;
        let cause = Cause::of(&bytes[mismatch.offset..], stream, ahead, kept_behind.min(offset));
        Self::Wrong { offset, expected: mismatch.expected, found: mismatch.found, cause }
    }
}

impl Cause {
    fn of(found: &[u8], stream: Stream, ahead: u64, behind: u64) -> Self {
        let sample = &found[..found.len().min(SAMPLE)];
        if sample.len() < SAMPLE_MIN {
            return Self::Unclear;
        }
        let pattern = stream.peek(MAX_SLICE);
        let Some(later) = pattern.windows(sample.len()).position(|window| window == sample) else {
            return Self::Altered;
        };
        let earlier = PERIOD - later;
        match (later as u64 <= ahead, earlier as u64 <= behind) {
            (false, false) => Self::Crossed,
            (true, true) if earlier < later => Self::Repeated(earlier),
            (true, _) => Self::Lost(later),
            (false, true) => Self::Repeated(earlier),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(connection: u64, offset: usize) -> Stream {
        let mut stream = Stream::new(connection);
        stream.advance(offset);
        stream
    }

    #[test]
    fn causes_are_told_apart() {
        let here = at(1, 1000);
        let cause = |found: &[u8]| Cause::of(found, here, 500, 500);
        assert_eq!(cause(at(1, 1001).peek(40)), Cause::Lost(1));
        assert_eq!(cause(at(1, 1500).peek(40)), Cause::Lost(500));
        assert_eq!(cause(at(1, 999).peek(40)), Cause::Repeated(1));
        assert_eq!(cause(at(1, 500).peek(40)), Cause::Repeated(500));
        assert_eq!(cause(at(1, 3000).peek(40)), Cause::Crossed);
        assert_eq!(cause(at(2, 1000).peek(40)), Cause::Crossed);
        let mut flipped = here.peek(40).to_vec();
        flipped[0] ^= 1;
        assert_eq!(cause(&flipped), Cause::Altered);
        assert_eq!(cause(&flipped[..3]), Cause::Unclear);
    }

    #[test]
    fn the_offset_is_that_of_the_wrong_byte() {
        let mut bytes = at(1, 0).peek(100).to_vec();
        bytes.remove(70);
        let mismatch = Stream::new(1).verify(&bytes).expect_err("a byte is missing");
        let fault = Fault::wrong(mismatch, &bytes, Stream::new(1), 0, 100, 100);
        let line = fault.to_string();
        assert!(line.starts_with("stream offset 70: "), "{line}");
        assert!(line.ends_with("1 B later: the server lost them"), "{line}");
    }
}
