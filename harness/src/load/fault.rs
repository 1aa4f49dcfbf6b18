//! What can be wrong with what a server sends back, and what it means.

use std::{fmt, io};

use ringmark::echo::{MAX_SLICE, Mismatch, PERIOD, Stream};

/// A connection on which the server broke the echo protocol.
#[derive(Debug)]
pub enum Fault {
    /// A byte differs from the one that was sent.
    Wrong { offset: u64, expected: u8, found: u8, cause: Cause },
    /// More bytes came back than had been sent.
    Beyond { offset: u64, bytes: usize },
    /// The server closed its side (`error` is None) or the connection failed.
    Ended { offset: u64, owed_bytes: u64, error: Option<io::Error> },
}

/// What a wrong byte comes from, as far as the bytes that follow it show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The stream goes on this many bytes later.
    Lost(usize),
    /// The stream goes on this many bytes earlier.
    Repeated(usize),
    /// The bytes lie elsewhere in the pattern, where another connection's stream may be.
    Crossed,
    /// The bytes are in no stream.
    Altered,
    /// Too few bytes followed.
    Unclear,
}

/// Bytes that are compared to find a cause: few enough for a short message, enough to be unique.
const SAMPLE: usize = MAX_SLICE - PERIOD + 1;
const SAMPLE_MIN: usize = 6;

impl Fault {
    /// Judges a mismatch in `bytes`, which began at stream `offset`, where `stream` stood.
    ///
    /// `sent_ahead` and `kept_behind` are how many bytes beyond and before this place the server
    /// can have had in its hands.
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
        match stream.peek(MAX_SLICE).windows(sample.len()).position(|window| window == sample) {
            None => Self::Altered,
            Some(later) => {
                let earlier = PERIOD - later;
                let lost = later as u64 <= ahead;
                let repeated = earlier as u64 <= behind;
                match (lost, repeated) {
                    (false, false) => Self::Crossed,
                    (true, true) if earlier < later => Self::Repeated(earlier),
                    (true, _) => Self::Lost(later),
                    (false, true) => Self::Repeated(earlier),
                }
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong { offset, expected, found, cause } => {
                write!(
                    f,
                    "stream offset {offset}: expected byte {expected:#04x}, found {found:#04x}: {cause}"
                )
            }
            Self::Beyond { offset, bytes } => write!(
                f,
                "stream offset {offset}: expected nothing more, found bytes beyond those sent ({bytes} or \
                 more): the server repeated bytes or crossed connections"
            ),
            Self::Ended { offset, owed_bytes, error } => {
                write!(f, "stream offset {offset}: expected ")?;
                match owed_bytes {
                    0 => write!(f, "the connection to stay open, found ")?,
                    owed => write!(f, "{owed} more bytes, found ")?,
                }
                match error {
                    None => write!(f, "an early end: the server closed the connection")?,
                    Some(error) => write!(f, "`{error}`: the server reset the connection or died")?,
                }
                if *owed_bytes > 0 { write!(f, " and lost what it owed") } else { Ok(()) }
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(bytes) => {
                write!(f, "the stream goes on {bytes} B later: the server lost them")
            }
            Self::Repeated(bytes) => {
                write!(f, "the stream goes on {bytes} B earlier: the server repeated them")
            }
            Self::Crossed => {
                write!(f, "the bytes are from elsewhere: the server crossed connections")
            }
            Self::Altered => write!(f, "the bytes are in no stream: the server altered them"),
            Self::Unclear => {
                write!(f, "too few bytes followed to tell lost, repeated and crossed apart")
            }
        }
    }
}

impl std::error::Error for Fault {}

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
