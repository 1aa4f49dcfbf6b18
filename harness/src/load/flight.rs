//! The messages of one active connection that are on their way.

use std::collections::VecDeque;

use ringmark::echo::Stream;

use super::fault::Fault;

/// What a server may still hold of bytes it has already returned once: a small buffer.
const KEPT_BYTES: u64 = 4096;

/// When a message was to be sent, and when it was: the same in a closed loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub due_ns: u64,
    pub sent_ns: u64,
}

impl Stamp {
    /// Of a message that was due when it was sent.
    pub fn on_time(now_ns: u64) -> Self {
        Self { due_ns: now_ns, sent_ns: now_ns }
    }
}

/// The state of one active connection.
#[derive(Debug)]
pub struct Flight {
    outgoing: Stream,
    incoming: Stream,
    /// Of the messages begun that are not back yet, oldest first.
    stamps: VecDeque<Stamp>,
    /// Bytes that came back, all verified: the stream offset.
    received: u64,
    /// Bytes of the oldest message that are among them.
    partial: u64,
    /// Bytes of messages begun that the socket has not taken yet.
    unsent: u64,
    /// Messages that may still begin in this run.
    pub quota: u64,
    /// Messages that may still begin on this connection.
    pub left: u64,
    /// Echoes within the window; of all connections that stood in this place.
    pub echoes: u64,
}

impl Flight {
    /// A connection that carries at most `most` messages.
    pub fn new(stream: u64, most: u64) -> Self {
        let start = Stream::new(stream);
        Self {
            outgoing: start,
            incoming: start,
            stamps: VecDeque::new(),
            received: 0,
            partial: 0,
            unsent: 0,
            quota: 0,
            left: most,
            echoes: 0,
        }
    }

    /// Whether all messages that the connection may carry are back.
    pub fn is_spent(&self) -> bool {
        self.left == 0 && self.stamps.is_empty()
    }

    /// Another connection takes the place of this one; what it owes never comes.
    pub fn renew(&mut self, stream: u64, most: u64) {
        let (quota, echoes) = (self.quota, self.echoes);
        *self = Self { quota, echoes, ..Self::new(stream, most) };
    }

    /// Of the messages that are not back yet.
    pub fn stamps(&self) -> impl Iterator<Item = Stamp> {
        self.stamps.iter().copied()
    }

    /// Bytes of the messages begun that are not back yet.
    pub fn missing_bytes(&self, message_bytes: u64) -> u64 {
        self.owed_bytes(message_bytes) + self.unsent
    }

    /// Messages begun that are not back yet.
    pub fn in_flight(&self) -> usize {
        self.stamps.len()
    }

    /// Bytes that came back: where the stream stands.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes sent that are not back yet.
    fn owed_bytes(&self, message_bytes: u64) -> u64 {
        self.stamps.len() as u64 * message_bytes - self.partial - self.unsent
    }

    /// Begins `count` messages.
    pub fn begin(&mut self, count: usize, message_bytes: u64, stamp: Stamp) {
        self.stamps.extend(std::iter::repeat_n(stamp, count));
        self.unsent += count as u64 * message_bytes;
    }

    /// What the socket should take next; empty when all has been taken.
    pub fn unsent(&self) -> &'static [u8] {
        self.outgoing.peek(usize::try_from(self.unsent).unwrap_or(usize::MAX))
    }

    /// The socket has taken `length` bytes of it.
    pub fn sent(&mut self, length: usize) {
        self.outgoing.advance(length);
        self.unsent -= length as u64;
    }

    /// Verifies bytes that came back and hands over the stamps of the messages that they complete;
    /// returns how many those are.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        message_bytes: u64,
        mut completed: impl FnMut(Stamp),
    ) -> Result<usize, Fault> {
        let owed = self.owed_bytes(message_bytes);
        let ours = &bytes[..bytes.len().min(usize::try_from(owed).unwrap_or(usize::MAX))];
        let before = self.incoming;
        if let Err(mismatch) = self.incoming.verify(ours) {
            let kept = (self.stamps.len() as u64 * message_bytes).max(KEPT_BYTES);
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
        self.stamps.drain(..count).for_each(&mut completed);
        Ok(count)
    }

    /// The connection came to an end too early.
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
    fn send(flight: &mut Flight) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !flight.unsent().is_empty() {
            bytes.extend_from_slice(flight.unsent());
            flight.sent(flight.unsent().len());
        }
        bytes
    }

    fn at(ns: u64) -> Stamp {
        Stamp { due_ns: ns, sent_ns: ns + 1 }
    }

    #[test]
    fn stamps_come_back_in_order() {
        let mut flight = Flight::new(1, u64::MAX);
        flight.begin(3, MESSAGE, at(10));
        for turn in 0..10 {
            let bytes = send(&mut flight);
            let (first, rest) = bytes.split_at(150);
            let mut seen = Vec::new();
            assert_eq!(flight.receive(first, MESSAGE, |stamp| seen.push(stamp)).unwrap(), 1);
            assert_eq!(flight.receive(rest, MESSAGE, |stamp| seen.push(stamp)).unwrap(), 2);
            assert_eq!(seen, [at(10 + 2 * turn), at(10 + 2 * turn), at(10 + 2 * turn)]);
            assert_eq!(flight.in_flight(), 0);
            flight.begin(3, MESSAGE, at(12 + 2 * turn));
        }
    }

    #[test]
    fn bytes_that_were_not_sent_cannot_come_back() {
        let mut flight = Flight::new(1, u64::MAX);
        flight.begin(2, MESSAGE, at(0));
        let bytes = flight.unsent()[..150].to_vec();
        flight.sent(120);
        let fault = flight.receive(&bytes, MESSAGE, |_| {}).unwrap_err();
        assert!(matches!(fault, Fault::Beyond { offset: 120, bytes: 30 }), "{fault:?}");
    }

    #[test]
    fn a_place_is_taken_over_by_another_stream() {
        let mut flight = Flight::new(1, 2);
        flight.quota = 7;
        flight.begin(2, MESSAGE, at(0));
        flight.left = 0;
        assert!(!flight.is_spent(), "both are away");
        let first = send(&mut flight);
        flight.receive(&first[..150], MESSAGE, |_| {}).unwrap();
        assert!(!flight.is_spent());
        flight.receive(&first[150..], MESSAGE, |_| {}).unwrap();
        assert!(flight.is_spent());
        flight.renew(2, 3);
        assert_eq!((flight.left, flight.quota, flight.received()), (3, 7, 0));
        flight.begin(1, MESSAGE, at(1));
        let second = send(&mut flight);
        assert_eq!(second, Stream::new(2).peek(100));
        // What the old connection carried is nothing that the new one may bring.
        assert!(matches!(
            flight.receive(&first[..100], MESSAGE, |_| {}),
            Err(Fault::Wrong { offset: 0, .. })
        ));
    }

    #[test]
    fn what_a_connection_owed_is_forgotten_with_it() {
        let mut flight = Flight::new(1, u64::MAX);
        flight.begin(2, MESSAGE, at(0));
        let first = flight.unsent()[..130].to_vec();
        flight.sent(150);
        flight.receive(&first, MESSAGE, |_| {}).unwrap();
        assert_eq!((flight.missing_bytes(MESSAGE), flight.stamps().count()), (70, 1));
        flight.renew(2, u64::MAX);
        assert_eq!(
            (flight.missing_bytes(MESSAGE), flight.in_flight(), flight.received()),
            (0, 0, 0)
        );
        flight.begin(1, MESSAGE, at(1));
        let second = send(&mut flight);
        assert_eq!(flight.receive(&second, MESSAGE, |_| {}).unwrap(), 1);
    }

    #[test]
    fn an_early_end_says_what_is_owed() {
        let mut flight = Flight::new(1, u64::MAX);
        flight.begin(2, MESSAGE, at(0));
        let bytes = send(&mut flight);
        flight.receive(&bytes[..130], MESSAGE, |_| {}).unwrap();
        let fault = flight.ended(MESSAGE, None);
        assert!(matches!(fault, Fault::Ended { offset: 130, owed_bytes: 70, .. }), "{fault:?}");
    }
}
