//! The services of a server: an echo, and conversations of two sizes.
//!
//! An *echo* sends back what it receives, and knows nothing else. The others are *conversations* of
//! two sizes: for each request of `request_bytes` the server sends a response of `response_bytes`.
//! There are no headers, because both sides know the sizes. Without responses it is a *sink*;
//! without requests it is a *source*, which sends one response after the other, a write for each,
//! until its client ends its direction.
//!
//! A conversation begins with a greeting: eight bytes, the number of the connection, least
//! significant first. Requests are the bytes of [`Stream`] `2 * number`, responses those of
//! `2 * number + 1`. So each side compares every byte that it receives. A byte that crossed over
//! from another connection, or from the other direction, shows.

use crate::counters::Counters;
use crate::echo::{MAX_SLICE, Mismatch, Pattern, Stream};
use std::fmt;

/// The longest request or response, in bytes.
pub const SIZE_MOST: u32 = 16 << 20;

/// Bytes of a greeting.
pub const GREETING_BYTES: usize = 8;

/// The service of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// It sends back what it receives.
    #[default]
    Echo,
    /// It receives requests and sends responses of these sizes.
    Conversation(Sizes),
}

/// The sizes of a conversation. One of them at least is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of a request; 0 makes a source.
    pub request_bytes: u32,
    /// Bytes of a response; 0 makes a sink.
    pub response_bytes: u32,
}

/// A service by name, as people choose it.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ServiceName {
    /// Sends back what it receives
    #[default]
    Echo,
    /// Sends a response of --response-bytes for each request of --request-bytes
    Exchange,
    /// Receives requests of --request-bytes, and sends nothing
    Sink,
    /// Sends writes of --response-bytes until its client ends
    Source,
}

impl Service {
    /// The service of this name with these sizes.
    ///
    /// # Errors
    /// One line, if a size is missing, too large, 0 on both sides, or of no use to the service.
    pub fn of(
        name: ServiceName,
        request_bytes: Option<u32>,
        response_bytes: Option<u32>,
    ) -> Result<Self, String> {
        let (takes_requests, takes_responses) = match name {
            ServiceName::Echo => (false, false),
            ServiceName::Exchange => (true, true),
            ServiceName::Sink => (true, false),
            ServiceName::Source => (false, true),
        };
        let size = |option: &str, size: Option<u32>, is_taken: bool| match (size, is_taken) {
            (None, true) => Err(format!("the service {name} needs {option}")),
            (Some(_), false) => Err(format!("the service {name} has no use for {option}")),
            (Some(bytes), _) if bytes > SIZE_MOST => {
                Err(format!("{option} {bytes}: the most is {SIZE_MOST} (16 MiB)"))
            }
            (size, _) => Ok(size.unwrap_or(0)),
        };
        let sizes = Sizes {
            request_bytes: size("--request-bytes", request_bytes, takes_requests)?,
            response_bytes: size("--response-bytes", response_bytes, takes_responses)?,
        };
        match sizes {
            _ if name.is_echo() => Ok(Self::Echo),
            Sizes { request_bytes: 0, response_bytes: 0 } => {
                Err("both sizes are 0: nothing would ever be sent".to_owned())
            }
            Sizes { request_bytes: 0, .. } if name == ServiceName::Exchange => {
                Err("--request-bytes 0: without requests it is --service source".to_owned())
            }
            Sizes { response_bytes: 0, .. } if name == ServiceName::Exchange => {
                Err("--response-bytes 0: without responses it is --service sink".to_owned())
            }
            sizes => Ok(Self::Conversation(sizes)),
        }
    }
}

impl ServiceName {
    /// Whether it is an echo.
    pub fn is_echo(&self) -> bool {
        *self == Self::Echo
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Echo => "echo",
            Self::Exchange => "exchange",
            Self::Sink => "sink",
            Self::Source => "source",
        })
    }
}

impl fmt::Display for Service {
    /// As its options would be written, without their dashes.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo => formatter.write_str("echo"),
            Self::Conversation(Sizes { request_bytes, response_bytes: 0 }) => {
                write!(formatter, "sink request_bytes={request_bytes}")
            }
            Self::Conversation(Sizes { request_bytes: 0, response_bytes }) => {
                write!(formatter, "source response_bytes={response_bytes}")
            }
            Self::Conversation(Sizes { request_bytes, response_bytes }) => write!(
                formatter,
                "exchange request_bytes={request_bytes} response_bytes={response_bytes}"
            ),
        }
    }
}

/// The server's side of one connection's conversation. A backend has one for each connection, and
/// is compiled once for [`Echo`], which needs none, and once for [`Exchange`].
pub trait Conversation: Default {
    /// Whether what is received is sent back, and nothing else.
    const ECHOES: bool;

    /// The sizes of all conversations of a server.
    type Terms: Copy + Default;

    /// Takes in what was received.
    ///
    /// # Errors
    /// It is not what the client must send; the connection is of no use then.
    fn receive(
        &mut self,
        terms: Self::Terms,
        counters: &Counters,
        bytes: &[u8],
    ) -> Result<(), Mismatch>;

    /// Returns what one send is to take next; nothing if nothing is owed.
    fn owed(&self, terms: Self::Terms) -> &'static [u8];

    /// Notes how much of that was sent.
    fn sent(&mut self, terms: Self::Terms, length: usize);

    /// Returns how many bytes are owed in all.
    fn owed_bytes(&self) -> u64;

    /// Returns how many responses are owed, the one under way included.
    fn owed_responses(&self, terms: Self::Terms) -> u64;

    /// The client, or the server, will end: nothing is begun any more that nobody has asked for.
    fn end(&mut self);

    /// Whether the client's end is looked for even while something is owed, because something
    /// always is.
    fn never_rests(terms: Self::Terms) -> bool;
}

/// The conversation of an echo.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Conversation for Echo {
    const ECHOES: bool = true;
    type Terms = ();

    #[inline(always)]
    fn receive(&mut self, (): (), _counters: &Counters, _bytes: &[u8]) -> Result<(), Mismatch> {
        Ok(())
    }

    #[inline(always)]
    fn owed(&self, (): ()) -> &'static [u8] {
        &[]
    }

    #[inline(always)]
    fn sent(&mut self, (): (), _length: usize) {}

    #[inline(always)]
    fn owed_bytes(&self) -> u64 {
        0
    }

    #[inline(always)]
    fn owed_responses(&self, (): ()) -> u64 {
        0
    }

    #[inline(always)]
    fn end(&mut self) {}

    #[inline(always)]
    fn never_rests((): ()) -> bool {
        false
    }
}

/// The sizes of all conversations of a server, and the bytes of their responses.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    sizes: Sizes,
    pattern: Pattern,
    /// The most that one send takes.
    write: usize,
}

impl Default for Terms {
    /// Those of a sink: for a backend that is only probed.
    fn default() -> Self {
        Self::new(Sizes { request_bytes: 1, response_bytes: 0 })
    }
}

impl Terms {
    /// Those of conversations of these sizes.
    pub fn new(sizes: Sizes) -> Self {
        let response = sizes.response_bytes as usize;
        let write = if sizes.request_bytes == 0 { response } else { response.max(MAX_SLICE) };
        Self { sizes, pattern: Pattern::new(write), write }
    }
}

/// A conversation of requests and responses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exchange {
    /// The number of the connection, as far as it was greeted.
    number: u64,
    greeted: u8,
    ended: bool,
    /// Bytes that were received of the request under way.
    taken: u32,
    requests: Option<Stream>,
    responses: Option<Stream>,
    owed: u64,
}

impl Exchange {
    /// Takes in the greeting; returns what follows it.
    #[cold]
    fn greet<'a>(&mut self, terms: Terms, bytes: &'a [u8]) -> &'a [u8] {
        let missing = GREETING_BYTES - usize::from(self.greeted);
        let (greeting, rest) = bytes.split_at(missing.min(bytes.len()));
        for byte in greeting {
            self.number |= u64::from(*byte) << (8 * self.greeted);
            self.greeted += 1;
        }
        if usize::from(self.greeted) == GREETING_BYTES {
            let [requests, responses] = streams(self.number);
            (self.requests, self.responses) = (Some(requests), Some(responses));
            if terms.sizes.request_bytes == 0 {
                self.owed = terms.sizes.response_bytes.into();
            }
        }
        rest
    }
}

/// Returns the streams of a connection's requests and responses.
pub fn streams(number: u64) -> [Stream; 2] {
    let requests = number.wrapping_mul(2);
    [Stream::new(requests), Stream::new(requests.wrapping_add(1))]
}

impl Conversation for Exchange {
    const ECHOES: bool = false;
    type Terms = Terms;

    fn receive(
        &mut self,
        terms: Terms,
        counters: &Counters,
        mut bytes: &[u8],
    ) -> Result<(), Mismatch> {
        let Sizes { request_bytes, response_bytes } = terms.sizes;
        if self.requests.is_none() {
            bytes = self.greet(terms, bytes);
        }
        let (Some(requests), [first, ..]) = (&mut self.requests, bytes) else { return Ok(()) };
        if request_bytes == 0 {
            // A source takes no more than its greeting.
            return Err(Mismatch { offset: 0, expected: 0, found: *first });
        }
        requests.verify(bytes)?;
        let taken = u64::from(self.taken) + bytes.len() as u64;
        let complete = taken / u64::from(request_bytes);
        self.taken = (taken % u64::from(request_bytes)) as u32;
        self.owed += complete * u64::from(response_bytes);
        counters.requests.add(complete);
        Ok(())
    }

    fn owed(&self, terms: Terms) -> &'static [u8] {
        let Some(responses) = self.responses else { return &[] };
        let length = usize::try_from(self.owed).unwrap_or(usize::MAX);
        terms.pattern.next(responses, length.min(terms.write))
    }

    fn sent(&mut self, terms: Terms, length: usize) {
        if let Some(responses) = &mut self.responses {
            responses.advance(length);
        }
        self.owed -= length as u64;
        if self.owed == 0 && terms.sizes.request_bytes == 0 && !self.ended {
            self.owed = terms.sizes.response_bytes.into();
        }
    }

    fn owed_bytes(&self) -> u64 {
        self.owed
    }

    fn owed_responses(&self, terms: Terms) -> u64 {
        self.owed.div_ceil(u64::from(terms.sizes.response_bytes).max(1))
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn never_rests(terms: Terms) -> bool {
        terms.sizes.request_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: u64 = 0x0102_0304_0506_0708;

    fn slice(mut stream: Stream, skip: usize, length: usize) -> Vec<u8> {
        stream.advance(skip);
        Pattern::new(length).next(stream, length).to_vec()
    }

    fn terms(request_bytes: u32, response_bytes: u32) -> Terms {
        Terms::new(Sizes { request_bytes, response_bytes })
    }

    fn greeted(terms: Terms, counters: &Counters) -> Exchange {
        let mut conversation = Exchange::default();
        conversation.receive(terms, counters, &NUMBER.to_le_bytes()).expect("a greeting");
        conversation
    }

    #[test]
    fn a_response_is_owed_for_each_whole_request_in_any_split() {
        let [requests, responses] = streams(NUMBER);
        let sent = [&NUMBER.to_le_bytes()[..], &slice(requests, 0, 300)].concat();
        for split in 1..=sent.len() {
            let (terms, counters) = (terms(100, 7), Counters::default());
            let mut conversation = Exchange::default();
            let mut owed = 0;
            for (index, chunk) in sent.chunks(split).enumerate() {
                conversation.receive(terms, &counters, chunk).expect("what must come");
                let taken = ((index + 1) * split).min(sent.len()).saturating_sub(GREETING_BYTES);
                owed = (taken / 100) as u64 * 7;
                assert_eq!(conversation.owed_bytes(), owed, "split {split}");
            }
            assert_eq!((owed, counters.requests.get()), (21, 3));
            assert_eq!(conversation.owed_responses(terms), 3);
            assert_eq!(conversation.owed(terms), slice(responses, 0, 21));
            conversation.sent(terms, 5);
            assert_eq!(conversation.owed(terms), slice(responses, 5, 16));
            conversation.sent(terms, 16);
            assert!(conversation.owed(terms).is_empty());
        }
    }

    #[test]
    fn a_source_writes_until_the_end_and_ends_with_a_whole_write() {
        let (terms, counters) = (terms(0, 70_000), Counters::default());
        let mut conversation = Exchange::default();
        assert!(conversation.owed(terms).is_empty(), "before the greeting");
        conversation.receive(terms, &counters, &[0; 7]).expect("a part of it");
        assert!(conversation.owed(terms).is_empty(), "before all of the greeting");
        let mut conversation = greeted(terms, &counters);
        for _ in 0..3 {
            assert_eq!(conversation.owed(terms).len(), 70_000);
            conversation.sent(terms, 69_999);
            assert_eq!(conversation.owed(terms).len(), 1);
            conversation.sent(terms, 1);
        }
        conversation.end();
        conversation.sent(terms, 70_000);
        assert!(conversation.owed(terms).is_empty());
        assert!(conversation.receive(terms, &counters, &[1]).is_err(), "more than a greeting");
    }

    #[test]
    fn a_wrong_byte_shows_wherever_it_stands() {
        let [requests, responses] = streams(NUMBER);
        let (terms, counters) = (terms(64, 64), Counters::default());
        let mut wrong = slice(requests, 0, 64);
        wrong[63] ^= 1;
        let refused = greeted(terms, &counters).receive(terms, &counters, &wrong);
        assert_eq!(refused.expect_err("a wrong byte").offset, 63);
        let other_direction = slice(responses, 0, 64);
        assert!(greeted(terms, &counters).receive(terms, &counters, &other_direction).is_err());
        let [other_connection, _] = streams(NUMBER + 1);
        let crossed = slice(other_connection, 0, 64);
        assert!(greeted(terms, &counters).receive(terms, &counters, &crossed).is_err());
    }

    #[test]
    fn sizes_are_checked() {
        use ServiceName::{Echo, Exchange, Sink, Source};
        let accepted =
            |name, request, response| Service::of(name, request, response).expect("fits");
        assert_eq!(accepted(Echo, None, None), Service::Echo);
        let sizes = |request_bytes, response_bytes| {
            Service::Conversation(Sizes { request_bytes, response_bytes })
        };
        assert_eq!(accepted(Exchange, Some(64), Some(SIZE_MOST)), sizes(64, SIZE_MOST));
        assert_eq!(accepted(Sink, Some(1), None), sizes(1, 0));
        assert_eq!(accepted(Source, None, Some(1)), sizes(0, 1));
        for (name, request, response, words) in [
            (Echo, Some(64), None, "has no use for --request-bytes"),
            (Exchange, Some(64), None, "needs --response-bytes"),
            (Exchange, Some(0), Some(0), "both sizes are 0"),
            (Exchange, Some(0), Some(1), "--service source"),
            (Exchange, Some(1), Some(0), "--service sink"),
            (Sink, Some(0), None, "both sizes are 0"),
            (Sink, Some(64), Some(64), "has no use for --response-bytes"),
            (Source, None, None, "needs --response-bytes"),
            (Source, None, Some(SIZE_MOST + 1), "the most is 16777216"),
        ] {
            let refused = Service::of(name, request, response).expect_err(words);
            assert!(refused.contains(words), "{refused}");
        }
    }
}
