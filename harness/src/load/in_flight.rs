//! The messages of one active connection that are on their way.

use std::collections::VecDeque;

use ringmark::echo::Stream;

use super::fault::Fault;
use super::message::Message;

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
    /// The connection's number, which greets a server that converses.
    greeting: [u8; 8],
    /// How many bytes of it the socket has not taken yet.
    ungreeted: usize,
    /// One for each message begun that is not over yet, oldest first.
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
    /// Whether its stream waits for its turn.
    pub is_ready: bool,
}

impl InFlight {
    /// Returns connection `number`, which carries at most `most` messages.
    pub fn new(message: &Message, number: u64, most: u64) -> Self {
        let [outgoing, incoming] = message.streams(number);
        Self {
            outgoing,
            incoming,
            greeting: number.to_le_bytes(),
            ungreeted: message.greeting_bytes(),
            timestamps: VecDeque::new(),
            received: 0,
            partial: 0,
            unsent: 0,
            quota: 0,
            left: most,
            echoes: 0,
            replaced: 0,
            is_ready: false,
        }
    }

    /// Whether all messages that the connection may carry are back.
    pub fn is_spent(&self) -> bool {
        self.left == 0 && self.timestamps.is_empty()
    }

    /// Puts another connection in place of this one, and forgets what this one owes.
    pub fn renew(&mut self, message: &Message, number: u64, most: u64) {
        let (quota, echoes, replaced) = (self.quota, self.echoes, self.replaced + 1);
        let is_ready = self.is_ready;
        *self = Self { quota, echoes, replaced, is_ready, ..Self::new(message, number, most) };
    }

    /// Returns those of the messages that are not over yet.
    pub fn timestamps(&self) -> impl Iterator<Item = Timestamps> {
        self.timestamps.iter().copied()
    }

    /// Returns how many messages begun are not over yet.
    pub fn count(&self) -> usize {
        self.timestamps.len()
    }

    /// Returns the bytes that are missing of the messages begun: those that are to come, or for a
    /// sink those that are to go.
    pub fn missing_bytes(&self, message: &Message) -> u64 {
        if message.is_sink() {
            return self.unsent;
        }
        // A source owes one more, always.
        let count = if message.is_source() { 1 } else { self.timestamps.len() as u64 };
        count * message.response_bytes - self.partial
    }

    /// Returns how many bytes may come now, for what was sent.
    fn receivable(&self, message: &Message) -> u64 {
        if message.is_echo() {
            return self.missing_bytes(message) - self.unsent;
        }
        if message.is_source() {
            return u64::MAX;
        }
        self.sent_whole(message) * message.response_bytes - self.partial
    }

    /// Returns how many of the messages in flight the socket has taken whole.
    fn sent_whole(&self, message: &Message) -> u64 {
        self.timestamps.len() as u64 - self.unsent.div_ceil(message.request_bytes)
    }

    /// Returns how many bytes came back: the stream offset.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Returns how many bytes a source may still send in this run.
    pub fn wanted(&self, message: &Message) -> u64 {
        self.quota.saturating_mul(message.response_bytes).saturating_sub(self.partial)
    }

    /// Begins `count` messages.
    pub fn begin(&mut self, count: usize, message: &Message, timestamps: Timestamps) {
        self.timestamps.extend(std::iter::repeat_n(timestamps, count));
        self.unsent += count as u64 * message.request_bytes;
    }

    /// Returns the bytes that the socket should take next; none when it has taken all.
    pub fn unsent(&self, message: &Message) -> &[u8] {
        if self.ungreeted > 0 {
            return &self.greeting[self.greeting.len() - self.ungreeted..];
        }
        message.next(self.outgoing, self.unsent)
    }

    /// Notes that the socket has taken `length` bytes of them, and hands over the timestamps of the
    /// messages of a sink that this completes; returns how many those are.
    pub fn sent(
        &mut self,
        length: usize,
        message: &Message,
        completed: impl FnMut(Timestamps),
    ) -> usize {
        if self.ungreeted > 0 {
            self.ungreeted -= length;
            return 0;
        }
        self.outgoing.advance(length);
        self.unsent -= length as u64;
        if !message.is_sink() {
            return 0;
        }
        let count = self.sent_whole(message) as usize;
        self.timestamps.drain(..count).for_each(completed);
        count
    }

    /// Verifies bytes that came and hands over the timestamps of the messages that they complete,
    /// if these have any; returns how many messages those are.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        message: &Message,
        mut completed: impl FnMut(Timestamps),
    ) -> Result<usize, Fault> {
        let owed = self.receivable(message);
        let ours = &bytes[..bytes.len().min(usize::try_from(owed).unwrap_or(usize::MAX))];
        let before = self.incoming;
        if let Err(mismatch) = self.incoming.verify(ours) {
            let in_flight = self.timestamps.len() as u64 * message.response_bytes;
            let kept = in_flight.max(message.response_bytes).max(KEPT_BYTES);
            return Err(Fault::wrong(mismatch, bytes, before, self.received, owed, kept));
        }
        self.received += ours.len() as u64;
        if ours.len() < bytes.len() {
            return Err(Fault::Beyond { offset: self.received, bytes: bytes.len() - ours.len() });
        }
        self.partial += ours.len() as u64;
        if self.partial < message.response_bytes {
            return Ok(0);
        }
        let count = self.partial / message.response_bytes;
        self.partial %= message.response_bytes;
        if message.is_source() {
            self.quota = self.quota.saturating_sub(count);
        } else {
            self.timestamps.drain(..count as usize).for_each(&mut completed);
        }
        Ok(count as usize)
    }

    /// Returns the fault of a connection that ended too early.
    pub fn ended(&self, message: &Message, error: Option<std::io::Error>) -> Fault {
        Fault::Ended { offset: self.received, owed_bytes: self.missing_bytes(message), error }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use ringmark::service::ServiceName;

    use super::*;

    /// An echo of 100 bytes.
    fn echo() -> Message {
        Message::of(ServiceName::Echo, Some(100.try_into().unwrap()), None, None).unwrap()
    }

    fn conversation(request_bytes: u32, response_bytes: u32) -> Message {
        let size = |bytes: u32| (bytes > 0).then_some(bytes);
        let name = match (request_bytes, response_bytes) {
            (_, 0) => ServiceName::Sink,
            (0, _) => ServiceName::Source,
            _ => ServiceName::Exchange,
        };
        Message::of(name, None, size(request_bytes), size(response_bytes)).unwrap()
    }

    /// Sends all that is unsent and returns it.
    fn send(in_flight: &mut InFlight, message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !in_flight.unsent(message).is_empty() {
            let length = in_flight.unsent(message).len();
            bytes.extend_from_slice(in_flight.unsent(message));
            in_flight.sent(length, message, |_| {});
        }
        bytes
    }

    fn at(ns: u64) -> Timestamps {
        Timestamps { due_ns: ns, sent_ns: ns + 1 }
    }

    #[test]
    fn stamps_come_back_in_order() {
        let mut in_flight = InFlight::new(&echo(), 1, u64::MAX);
        in_flight.begin(3, &echo(), at(10));
        for turn in 0..10 {
            let bytes = send(&mut in_flight, &echo());
            let (first, rest) = bytes.split_at(150);
            let mut seen = Vec::new();
            assert_eq!(in_flight.receive(first, &echo(), |stamp| seen.push(stamp)).unwrap(), 1);
            assert_eq!(in_flight.receive(rest, &echo(), |stamp| seen.push(stamp)).unwrap(), 2);
            assert_eq!(seen, [at(10 + 2 * turn), at(10 + 2 * turn), at(10 + 2 * turn)]);
            assert_eq!(in_flight.count(), 0);
            in_flight.begin(3, &echo(), at(12 + 2 * turn));
        }
    }

    #[test]
    fn bytes_that_were_not_sent_cannot_come_back() {
        let mut in_flight = InFlight::new(&echo(), 1, u64::MAX);
        in_flight.begin(2, &echo(), at(0));
        let bytes = in_flight.unsent(&echo())[..150].to_vec();
        in_flight.sent(120, &echo(), |_| {});
        let fault = in_flight.receive(&bytes, &echo(), |_| {}).unwrap_err();
        assert!(matches!(fault, Fault::Beyond { offset: 120, bytes: 30 }), "{fault:?}");
    }

    #[test]
    fn a_place_is_taken_over_by_another_stream() {
        let mut in_flight = InFlight::new(&echo(), 1, 2);
        in_flight.quota = 7;
        in_flight.begin(2, &echo(), at(0));
        in_flight.left = 0;
        assert!(!in_flight.is_spent(), "both are away");
        let first = send(&mut in_flight, &echo());
        in_flight.receive(&first[..150], &echo(), |_| {}).unwrap();
        assert!(!in_flight.is_spent());
        in_flight.receive(&first[150..], &echo(), |_| {}).unwrap();
        assert!(in_flight.is_spent());
        in_flight.renew(&echo(), 2, 3);
        assert_eq!((in_flight.left, in_flight.quota, in_flight.received()), (3, 7, 0));
        in_flight.begin(1, &echo(), at(1));
        let second = send(&mut in_flight, &echo());
        assert_eq!(second, Stream::new(2).peek(100));
        // The new connection may not bring the bytes of the old one.
        assert!(matches!(
            in_flight.receive(&first[..100], &echo(), |_| {}),
            Err(Fault::Wrong { offset: 0, .. })
        ));
    }

    #[test]
    fn what_a_connection_owed_is_forgotten_with_it() {
        let mut in_flight = InFlight::new(&echo(), 1, u64::MAX);
        in_flight.begin(2, &echo(), at(0));
        let first = in_flight.unsent(&echo())[..130].to_vec();
        in_flight.sent(150, &echo(), |_| {});
        in_flight.receive(&first, &echo(), |_| {}).unwrap();
        assert_eq!((in_flight.missing_bytes(&echo()), in_flight.timestamps().count()), (70, 1));
        in_flight.renew(&echo(), 2, u64::MAX);
        assert_eq!(
            (in_flight.missing_bytes(&echo()), in_flight.count(), in_flight.received()),
            (0, 0, 0)
        );
        in_flight.begin(1, &echo(), at(1));
        let second = send(&mut in_flight, &echo());
        assert_eq!(in_flight.receive(&second, &echo(), |_| {}).unwrap(), 1);
    }

    #[test]
    fn a_response_may_come_for_each_request_that_has_gone_and_not_before() {
        let message = conversation(100, 7);
        let number = 0x0102_0304;
        let mut in_flight = InFlight::new(&message, number, u64::MAX);
        in_flight.begin(2, &message, at(0));
        assert_eq!(in_flight.unsent(&message), [4, 3, 2, 1, 0, 0, 0, 0]);
        in_flight.sent(3, &message, |_| {});
        assert_eq!(in_flight.unsent(&message), [1, 0, 0, 0, 0]);
        in_flight.sent(5, &message, |_| {});
        let [requests, responses] = message.streams(number);
        assert_eq!(in_flight.unsent(&message), requests.peek(200));
        in_flight.sent(199, &message, |_| {});
        let bytes = responses.peek(14);
        assert_eq!(in_flight.receive(&bytes[..7], &message, |_| {}).unwrap(), 1);
        assert_eq!(in_flight.missing_bytes(&message), 7);
        let early = in_flight.receive(&bytes[7..8], &message, |_| {}).unwrap_err();
        assert!(matches!(early, Fault::Beyond { offset: 7, bytes: 1 }), "{early:?}");
        in_flight.sent(1, &message, |_| {});
        assert_eq!(in_flight.receive(&bytes[7..], &message, |_| {}).unwrap(), 1);
        let request = requests.peek(7);
        in_flight.begin(1, &message, at(1));
        send(&mut in_flight, &message);
        let crossed = in_flight.receive(request, &message, |_| {}).unwrap_err();
        assert!(matches!(crossed, Fault::Wrong { offset: 14, .. }), "{crossed:?}");
    }

    #[test]
    fn a_sinks_message_is_over_when_the_socket_has_taken_it() {
        let message = conversation(100_000, 0);
        let mut in_flight = InFlight::new(&message, 1, u64::MAX);
        in_flight.begin(3, &message, at(0));
        in_flight.sent(8, &message, |_| {});
        assert_eq!(in_flight.unsent(&message).len(), 100_000, "one write is one request");
        assert_eq!(in_flight.sent(99_999, &message, |_| {}), 0);
        assert_eq!(in_flight.sent(1, &message, |_| {}), 1);
        assert_eq!((in_flight.count(), in_flight.missing_bytes(&message)), (2, 200_000));
        let answered = in_flight.receive(&[1], &message, |_| {}).unwrap_err();
        assert!(matches!(answered, Fault::Beyond { offset: 0, bytes: 1 }), "{answered:?}");
    }

    #[test]
    fn a_sources_messages_come_by_themselves_until_no_more_are_wanted() {
        let message = conversation(0, 1000);
        let mut in_flight = InFlight::new(&message, 1, u64::MAX);
        in_flight.quota = 3;
        assert_eq!(send(&mut in_flight, &message).len(), 8);
        let [_, responses] = message.streams(1);
        let bytes = responses.peek(3000);
        assert_eq!(in_flight.receive(&bytes[..2500], &message, |_| {}).unwrap(), 2);
        assert_eq!((in_flight.quota, in_flight.wanted(&message)), (1, 500));
        assert_eq!(in_flight.receive(&bytes[2500..], &message, |_| {}).unwrap(), 1);
        assert_eq!(in_flight.wanted(&message), 0);
    }

    #[test]
    fn an_early_end_says_what_is_owed() {
        let mut in_flight = InFlight::new(&echo(), 1, u64::MAX);
        in_flight.begin(2, &echo(), at(0));
        let bytes = send(&mut in_flight, &echo());
        in_flight.receive(&bytes[..130], &echo(), |_| {}).unwrap();
        let fault = in_flight.ended(&echo(), None);
        assert!(matches!(fault, Fault::Ended { offset: 130, owed_bytes: 70, .. }), "{fault:?}");
    }
}
