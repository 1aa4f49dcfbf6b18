//! The request and the connection of a completion, packed into the 64 bits of `user_data`.

/// The purpose of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestKind {
    /// Multishot accept; the index is the listener's, here and below.
    Accept,
    /// Accept of one connection.
    AcceptOnce,
    /// Receive; the index is the connection's, here and below.
    Receive,
    /// Multishot poll for input.
    Poll,
    /// Send that completes while it is submitted; only a failed or short one has a completion.
    Send,
    /// Send that waits until the peer takes it.
    PatientSend,
    /// Send without a copy: its first completion says what was sent, its last that the kernel has
    /// let go of the bytes.
    ZeroCopySend,
    /// Close; completes only when it fails.
    Close,
    /// Cancellation of other requests.
    Cancel,
    /// A regular descriptor for a direct one.
    Install,
    /// Does nothing, after everything that was queued before it.
    Fence,
    /// The stop signal.
    Stop,
}

impl RequestKind {
    /// Whether the request has a last completion whatever comes of it; the others have one only if
    /// they fail.
    pub fn completes_always(self) -> bool {
        !matches!(self, RequestKind::Send | RequestKind::Close)
    }
}

const KINDS: [RequestKind; 12] = [
    RequestKind::Accept,
    RequestKind::AcceptOnce,
    RequestKind::Receive,
    RequestKind::Poll,
    RequestKind::Send,
    RequestKind::PatientSend,
    RequestKind::ZeroCopySend,
    RequestKind::Close,
    RequestKind::Cancel,
    RequestKind::Install,
    RequestKind::Fence,
    RequestKind::Stop,
];

/// RequestKind (8 bits), generation (24 bits), index (32 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The purpose of the request.
    pub kind: RequestKind,
    /// Which owner of the index it belongs to, modulo 2^24: a completion that comes late must not
    /// touch a connection that got the same descriptor since.
    pub generation: u32,
    /// Which listener or connection.
    pub index: u32,
}

/// The bits that a generation has.
pub const GENERATION_MASK: u32 = 0x00ff_ffff;

impl Token {
    /// A token of a kind that needs no generation.
    pub fn of(kind: RequestKind, index: u32) -> Self {
        Self { kind, generation: 0, index }
    }

    /// The `user_data` of a request.
    #[inline]
    pub fn encode(self) -> u64 {
        debug_assert!(self.generation <= GENERATION_MASK);
        (self.kind as u64) << 56 | u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The token in the `user_data` of a completion; `None` if no request of ours carried it.
    #[inline]
    pub fn decode(user_data: u64) -> Option<Self> {
        let kind = *KINDS.get((user_data >> 56) as usize)?;
        Some(Self::of_kind(kind, user_data))
    }

    /// The token in the `user_data` of a completion, if it is of this kind.
    #[inline]
    pub fn decode_if(kind: RequestKind, user_data: u64) -> Option<Self> {
        (user_data >> 56 == kind as u64).then(|| Self::of_kind(kind, user_data))
    }

    #[inline]
    fn of_kind(kind: RequestKind, user_data: u64) -> Self {
        Self {
            kind,
            generation: (user_data >> 32) as u32 & GENERATION_MASK,
            index: user_data as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decodes_what_was_encoded(
            kind in 0..KINDS.len(),
            generation in 0..=GENERATION_MASK,
            index: u32,
        ) {
            let token = Token { kind: KINDS[kind], generation, index };
            prop_assert_eq!(KINDS[kind] as usize, kind);
            prop_assert_eq!(Token::decode(token.encode()), Some(token));
            for other in KINDS {
                let found = Token::decode_if(other, token.encode());
                prop_assert_eq!(found, (other == token.kind).then_some(token));
            }
        }
    }

    #[test]
    fn refuses_what_it_never_encoded() {
        assert_eq!(Token::decode(u64::MAX), None);
    }
}
