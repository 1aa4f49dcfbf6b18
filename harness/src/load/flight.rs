//! The messages of one active connection that are on their way.

use ringmark::echo::Stream;

use super::fault::Fault;

/// What a server may still hold of bytes it has already returned once: a small buffer.
const KEPT_BYTES: u64 = 4096;

/// The state of one active connection. The times at which its messages began lie outside, in a ring of
/// `pipeline` stamps, so that they can stand together for all connections.
#[derive(Debug)]
pub struct Flight {
    outgoing: Stream,
    incoming: Stream,
    /// Bytes that came back, all verified: the stream offset.
    received: u64,
    /// Bytes of the oldest message that are among them.
    partial: u64,
    /// Bytes of messages begun that the socket has not taken yet.
    unsent: u64,
    /// Messages that may still begin in this run.
    pub quota: u64,
    /// Where in the ring the oldest message stands.
    oldest: u32,
    in_flight: u32,
}

impl Flight {
    pub fn new(stream: u64) -> Self {
        let start = Stream::new(stream);
        Self {
            outgoing: start,
            incoming: start,
            received: 0,
            partial: 0,
            unsent: 0,
            quota: 0,
            oldest: 0,
            in_flight: 0,
        }
    }

    /// Messages begun that are not back yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight as usize
    }

    /// Bytes that came back: where the stream stands.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes sent that are not back yet.
    fn owed_bytes(&self, message_bytes: u64) -> u64 {
        u64::from(self.in_flight) * message_bytes - self.partial - self.unsent
    }

    /// Begins `count` messages at `now_ns`; the caller has checked that the ring has room.
    pub fn begin(&mut self, ring: &mut [u64], count: usize, message_bytes: u64, now_ns: u64) {
        for _ in 0..count {
            let mut slot = self.oldest as usize + self.in_flight as usize;
            if slot >= ring.len() {
                slot -= ring.len();
            }
            ring[slot] = now_ns;
            self.in_flight += 1;
        }
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

    /// Verifies bytes that came back and returns how many messages they complete. Each is to be taken
    /// off with [`Flight::complete`].
    pub fn receive(&mut self, bytes: &[u8], message_bytes: u64) -> Result<usize, Fault> {
        let owed = self.owed_bytes(message_bytes);
        let ours = &bytes[..bytes.len().min(usize::try_from(owed).unwrap_or(usize::MAX))];
        let before = self.incoming;
        if let Err(mismatch) = self.incoming.verify(ours) {
            let kept = (u64::from(self.in_flight) * message_bytes).max(KEPT_BYTES);
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
        let completed = self.partial / message_bytes;
        self.partial -= completed * message_bytes;
        // What completes leaves the count of messages at once, so that `owed_bytes` stays true.
        self.in_flight -= completed as u32;
        Ok(completed as usize)
    }

    /// Takes off the oldest message, which [`Flight::receive`] has found complete, and returns when it
    /// began.
    pub fn complete(&mut self, ring: &[u64]) -> u64 {
        let began_ns = ring[self.oldest as usize];
        self.oldest += 1;
        if self.oldest as usize == ring.len() {
            self.oldest = 0;
        }
        began_ns
    }

    /// The connection came to an end too early.
    pub fn ended(&self, message_bytes: u64, error: Option<std::io::Error>) -> Fault {
        let owed_bytes = self.owed_bytes(message_bytes) + self.unsent;
        Fault::Ended { offset: self.received, owed_bytes, error }
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

    #[test]
    fn times_come_back_in_order_round_the_ring() {
        let mut ring = [0; 3];
        let mut flight = Flight::new(1);
        flight.begin(&mut ring, 3, MESSAGE, 10);
        for turn in 0..10 {
            let bytes = send(&mut flight);
            let (first, rest) = bytes.split_at(150);
            assert_eq!(flight.receive(first, MESSAGE).unwrap(), 1);
            assert_eq!(flight.complete(&ring), 10 + turn);
            assert_eq!(flight.receive(rest, MESSAGE).unwrap(), 2);
            assert_eq!(flight.complete(&ring), 10 + turn);
            assert_eq!(flight.complete(&ring), 10 + turn);
            assert_eq!(flight.in_flight(), 0);
            flight.begin(&mut ring, 3, MESSAGE, 11 + turn);
        }
    }

    #[test]
    fn bytes_that_were_not_sent_cannot_come_back() {
        let mut ring = [0; 2];
        let mut flight = Flight::new(1);
        flight.begin(&mut ring, 2, MESSAGE, 0);
        let bytes = flight.unsent()[..150].to_vec();
        flight.sent(120);
        let fault = flight.receive(&bytes, MESSAGE).unwrap_err();
        assert!(matches!(fault, Fault::Beyond { offset: 120, bytes: 30 }), "{fault:?}");
    }

    #[test]
    fn an_early_end_says_what_is_owed() {
        let mut ring = [0; 2];
        let mut flight = Flight::new(1);
        flight.begin(&mut ring, 2, MESSAGE, 0);
        let bytes = send(&mut flight);
        flight.receive(&bytes[..130], MESSAGE).unwrap();
        let fault = flight.ended(MESSAGE, None);
        assert!(matches!(fault, Fault::Ended { offset: 130, owed_bytes: 70, .. }), "{fault:?}");
    }
}
