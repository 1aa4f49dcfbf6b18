//! The messages of one active connection that are on their way.

use std::collections::VecDeque;

use ringmark::echo::Stream;

use super::fault::Fault;

/// Bytes that a server may still hold although it has returned them once: a small buffer.
const KEPT_BYTES: u64 = 4096;

/// When a message was due, and when it was sent: the same instant in a closed loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    pub due_ns: u64,
    pub sent_ns: u64,
}

impl Timestamps {
    /// Returns those of a message that is sent when it is due.
    pub fn on_time(now_ns: u64) -> Self {
        Self { due_ns: now_ns, sent_ns: now_ns }
    }
}

/// The state of one active connection.
#[derive(Debug)]
pub struct InFlight {
    outgoing: Stream,
    incoming: Stream,
    /// One for each message begun that is not back yet, oldest first.
    timestamps: VecDeque<Timestamps>,
    /// Bytes that came back, all verified: the stream offset.
    received: u64,
    /// How many of them belong to the oldest message in flight.
    partial: u64,
    /// Bytes of messages begun that the socket has not taken yet.
    unsent: u64,
    /// Messages that may still begin in this run.
    pub quota: u64,
    /// Messages that may still begin on this connection.
    pub left: u64,
    /// Echoes within the window, of all connections that stood in this place.
    pub echoes: u64,
    /// Connections that stood in this place before.
    pub replaced: usize,
}

impl InFlight {
    /// Returns a connection that carries at most `most` messages.
    pub fn new(stream: u64, most: u64) -> Self {
        let start = Stream::new(stream);
        Self {
            outgoing: start,
            incoming: start,
            timestamps: VecDeque::new(),
            received: 0,
            partial: 0,
            unsent: 0,
            quota: 0,
            left: most,
            echoes: 0,
            replaced: 0,
        }
    }

    /// Whether all messages that the connection may carry are back.
    pub fn is_spent(&self) -> bool {
        self.left == 0 && self.timestamps.is_empty()
    }

    /// Puts another connection in place of this one, and forgets what this one owes.
    pub fn renew(&mut self, stream: u64, most: u64) {
        let (quota, echoes, replaced) = (self.quota, self.echoes, self.replaced + 1);
        *self = Self { quota, echoes, replaced, ..Self::new(stream, most) };
    }

    /// Returns those of the messages that are not back yet.
    pub fn timestamps(&self) -> impl Iterator<Item = Timestamps> {
        self.timestamps.iter().copied()
    }

    /// Returns how many messages begun are not back yet.
    pub fn count(&self) -> usize {
        self.timestamps.len()
    }

    /// Returns the bytes of the messages begun that are not back yet.
    pub fn missing_bytes(&self, message_bytes: u64) -> u64 {
        self.timestamps.len() as u64 * message_bytes - self.partial
    }

    /// Returns how many bytes came back: the stream offset.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Begins `count` messages.
    pub fn begin(&mut self, count: usize, message_bytes: u64, timestamps: Timestamps) {
        self.timestamps.extend(std::iter::repeat_n(timestamps, count));
        self.unsent += count as u64 * message_bytes;
    }

    /// Returns the bytes that the socket should take next; none when it has taken all.
    pub fn unsent(&self) -> &'static [u8] {
        self.outgoing.peek(usize::try_from(self.unsent).unwrap_or(usize::MAX))
    }

    /// Notes that the socket has taken `length` bytes of them.
    pub fn sent(&mut self, length: usize) {
        self.outgoing.advance(length);
        self.unsent -= length as u64;
    }

    /// Verifies bytes that came back and hands over the timestamps of the messages that they
    /// complete; returns how many those are.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        message_bytes: u64,
        mut completed: impl FnMut(Timestamps),
    ) -> Result<usize, Fault> {
        let owed = self.missing_bytes(message_bytes) - self.unsent;
        let ours = &bytes[..bytes.len().min(usize::try_from(owed).unwrap_or(usize::MAX))];
        let before = self.incoming;
        if let Err(mismatch) = self.incoming.verify(ours) {
            let kept = (self.timestamps.len() as u64 * message_bytes).max(KEPT_BYTES);
            return Err(Fault::wrong(mismatch, bytes, before, self.received, owed, kept));
        }
        self.received += ours.len() as u64;
        if ours.len() < bytes.len() {
            return Err(Fault::Beyond { offset: self.received, bytes: bytes.len() - ours.len() });
        }
        self.partial += ours.len() as u64;
        if self.partial < message_bytes {
            return Ok(0);
        }
        let count = (self.partial / message_bytes) as usize;
        self.partial %= message_bytes;
        self.timestamps.drain(..count).for_each(&mut completed);
        Ok(count)
    }

    /// Returns the fault of a connection that ended too early.
    pub fn ended(&self, message_bytes: u64, error: Option<std::io::Error>) -> Fault {
        Fault::Ended { offset: self.received, owed_bytes: self.missing_bytes(message_bytes), error }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const MESSAGE: u64 = 100;

    /// Sends all that is unsent and returns it.
    fn send(in_flight: &mut InFlight) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !in_flight.unsent().is_empty() {
            bytes.extend_from_slice(in_flight.unsent());
            in_flight.sent(in_flight.unsent().len());
        }
        bytes
    }

    fn at(ns: u64) -> Timestamps {
        Timestamps { due_ns: ns, sent_ns: ns + 1 }
    }

    #[test]
    fn stamps_come_back_in_order() {
        let mut in_flight = InFlight::new(1, u64::MAX);
        in_flight.begin(3, MESSAGE, at(10));
        for turn in 0..10 {
            let bytes = send(&mut in_flight);
            let (first, rest) = bytes.split_at(150);
            let mut seen = Vec::new();
            assert_eq!(in_flight.receive(first, MESSAGE, |stamp| seen.push(stamp)).unwrap(), 1);
            assert_eq!(in_flight.receive(rest, MESSAGE, |stamp| seen.push(stamp)).unwrap(), 2);
            assert_eq!(seen, [at(10 + 2 * turn), at(10 + 2 * turn), at(10 + 2 * turn)]);
            assert_eq!(in_flight.count(), 0);
            in_flight.begin(3, MESSAGE, at(12 + 2 * turn));
        }
    }

    #[test]
    fn bytes_that_were_not_sent_cannot_come_back() {
        let mut in_flight = InFlight::new(1, u64::MAX);
        in_flight.begin(2, MESSAGE, at(0));
        let bytes = in_flight.unsent()[..150].to_vec();
        in_flight.sent(120);
        let fault = in_flight.receive(&bytes, MESSAGE, |_| {}).unwrap_err();
        assert!(matches!(fault, Fault::Beyond { offset: 120, bytes: 30 }), "{fault:?}");
    }

    #[test]
    fn a_place_is_taken_over_by_another_stream() {
        let mut in_flight = InFlight::new(1, 2);
        in_flight.quota = 7;
        in_flight.begin(2, MESSAGE, at(0));
        in_flight.left = 0;
        assert!(!in_flight.is_spent(), "both are away");
        let first = send(&mut in_flight);
        in_flight.receive(&first[..150], MESSAGE, |_| {}).unwrap();
        assert!(!in_flight.is_spent());
        in_flight.receive(&first[150..], MESSAGE, |_| {}).unwrap();
        assert!(in_flight.is_spent());
        in_flight.renew(2, 3);
        assert_eq!((in_flight.left, in_flight.quota, in_flight.received()), (3, 7, 0));
        in_flight.begin(1, MESSAGE, at(1));
        let second = send(&mut in_flight);
        assert_eq!(second, Stream::new(2).peek(100));
        // The new connection may not bring the bytes of the old one.
        assert!(matches!(
            in_flight.receive(&first[..100], MESSAGE, |_| {}),
            Err(Fault::Wrong { offset: 0, .. })
        ));
    }

    #[test]
    fn what_a_connection_owed_is_forgotten_with_it() {
        let mut in_flight = InFlight::new(1, u64::MAX);
        in_flight.begin(2, MESSAGE, at(0));
        let first = in_flight.unsent()[..130].to_vec();
        in_flight.sent(150);
        in_flight.receive(&first, MESSAGE, |_| {}).unwrap();
        assert_eq!((in_flight.missing_bytes(MESSAGE), in_flight.timestamps().count()), (70, 1));
        in_flight.renew(2, u64::MAX);
        assert_eq!(
            (in_flight.missing_bytes(MESSAGE), in_flight.count(), in_flight.received()),
            (0, 0, 0)
        );
        in_flight.begin(1, MESSAGE, at(1));
        let second = send(&mut in_flight);
        assert_eq!(in_flight.receive(&second, MESSAGE, |_| {}).unwrap(), 1);
    }

    #[test]
    fn an_early_end_says_what_is_owed() {
        let mut in_flight = InFlight::new(1, u64::MAX);
        in_flight.begin(2, MESSAGE, at(0));
        let bytes = send(&mut in_flight);
        in_flight.receive(&bytes[..130], MESSAGE, |_| {}).unwrap();
        let fault = in_flight.ended(MESSAGE, None);
        assert!(matches!(fault, Fault::Ended { offset: 130, owed_bytes: 70, .. }), "{fault:?}");
    }
}
