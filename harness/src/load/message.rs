//! One message of a load, by the service that it speaks.
//!
//! The message of an echo is sent and comes back; that of an exchange is a request with its
//! response. A sink's is a request, which is over when the socket has taken it. A source's is a
//! response, which nobody has to ask for. These two are streams: nothing comes back, so they have
//! no latency.

use anyhow::{Error, Result, bail};
use ringmark::echo::{Pattern, Stream};
use ringmark::service::{GREETING_BYTES, Service, ServiceName, Sizes, streams};

use super::limits::MessageBytes;

/// The sizes and the service of every message of a load.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    service: Service,
    /// Bytes that the load sends for it.
    pub request_bytes: u64,
    /// Bytes that come to the load for it.
    pub response_bytes: u64,
    /// The bytes of requests, for slices as long as one write.
    pattern: Pattern,
}

impl Message {
    /// Returns the message of a service, with the size of an echo or those of a conversation.
    ///
    /// # Errors
    /// A size is missing, of no use to the service, or out of its limits.
    pub fn of(
        name: ServiceName,
        message_bytes: Option<MessageBytes>,
        request_bytes: Option<u32>,
        response_bytes: Option<u32>,
    ) -> Result<Self> {
        let service = Service::of(name, request_bytes, response_bytes).map_err(Error::msg)?;
        let (request_bytes, response_bytes) = match (service, message_bytes) {
            (Service::Echo, Some(bytes)) => (bytes.get(), bytes.get()),
            (Service::Echo, None) => bail!("the service echo needs --message-bytes"),
            (_, Some(_)) => bail!("the service {name} has no use for --message-bytes"),
            (Service::Conversation(Sizes { request_bytes, response_bytes }), None) => {
                (request_bytes.into(), response_bytes.into())
            }
        };
        // An echo writes as it always did: a slice of the pattern at a time.
        let longest = if service == Service::Echo { 0 } else { request_bytes as usize };
        Ok(Self { service, request_bytes, response_bytes, pattern: Pattern::new(longest) })
    }

    /// Returns its service.
    pub fn service(&self) -> Service {
        self.service
    }

    /// Returns the bytes that both sides send for it; an echo's count once.
    pub fn bytes(&self) -> u64 {
        if self.is_echo() { self.request_bytes } else { self.request_bytes + self.response_bytes }
    }

    /// Whether what comes back is what was sent.
    pub fn is_echo(&self) -> bool {
        self.service == Service::Echo
    }

    /// Whether something comes back for what was sent. Only then there is a latency.
    pub fn is_answered(&self) -> bool {
        self.request_bytes > 0 && self.response_bytes > 0
    }

    /// Whether the load only sends.
    pub fn is_sink(&self) -> bool {
        self.response_bytes == 0
    }

    /// Whether the load only receives.
    pub fn is_source(&self) -> bool {
        self.request_bytes == 0
    }

    /// Returns the bytes that connection `number` sends, and those that must come.
    pub fn streams(&self, number: u64) -> [Stream; 2] {
        if self.is_echo() { [Stream::new(number); 2] } else { streams(number) }
    }

    /// Returns how many bytes of a greeting precede all others.
    pub fn greeting_bytes(&self) -> usize {
        if self.is_echo() { 0 } else { GREETING_BYTES }
    }

    /// Returns the next bytes of a stream: at most so many, or as many as one write takes.
    pub fn next(&self, stream: Stream, length: u64) -> &'static [u8] {
        self.pattern.next(stream, usize::try_from(length).unwrap_or(usize::MAX))
    }
}
