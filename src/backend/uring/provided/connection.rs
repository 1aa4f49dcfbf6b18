//! The state of a connection.

use super::segments::Segments;
use super::techniques::Technique;
use crate::backend::uring::{
    buffer_ring::{BufferRing, Piece},
    ring::Completion,
    token::{GENERATION_MASK, Token},
};
use crate::counters::Counters;
use crate::service::Conversation;

#[derive(Default)]
pub struct Connection<C> {
    pub generation: u32,
    /// The last of the segments to be sent; in a conversation, which has none, the bytes of the
    /// send in flight.
    pub tail: u32,
    /// How many there are.
    pub length: u32,
    /// How many of them the send in flight has, from the first on; 1 for a patient send.
    pub sending: u16,
    /// Those that hold, a bit for each [`State`].
    pub states: u16,
    /// Bytes that are owed to a peer that does not read.
    pub blocked: Option<Box<Blocked>>,
    pub conversation: C,
}

/// The next step of a connection.
pub enum NextStep {
    /// Its input is armed, and what it owes is under way.
    Nothing,
    /// The same, but for the send.
    Send,
    /// It is to be looked at closely.
    Other,
}

/// A condition of a connection.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
pub enum State {
    /// The slot has an owner.
    Open = 1 << 0,
    /// A receive is under way.
    Receiving = 1 << 1,
    /// A poll is under way: for input, or to watch for what a receive may never tell of.
    Polling = 1 << 2,
    /// The poll has reported input that no receive has looked for yet.
    Readable = 1 << 3,
    /// A cancellation of the receive, or the poll, is under way.
    Cancelling = 1 << 4,
    /// Its receive waits for a buffer.
    Starved = 1 << 5,
    /// The peer has sent its end.
    Ended = 1 << 6,
    /// The connection is broken; what is owed is lost.
    Failed = 1 << 7,
    /// The poll has reported the peer's end or an error: receives follow until one finds it.
    Cut = 1 << 8,
}

impl<C: Conversation> Connection<C> {
    pub fn is(&self, state: State) -> bool {
        self.states & state as u16 != 0
    }

    pub fn set(&mut self, state: State) {
        self.states |= state as u16;
    }

    pub fn clear(&mut self, state: State) {
        self.states &= !(state as u16);
    }

    /// A receive had its last completion.
    pub fn receive_ended<T: Technique>(&mut self) {
        self.clear(State::Receiving);
        if !T::POLL {
            self.clear(State::Cancelling);
        }
    }

    /// Appends what a receive has filled to what the connection is owed; false if it picked no
    /// buffer.
    #[inline]
    pub fn enqueue<T: Technique>(
        &mut self,
        buffers: &mut BufferRing,
        segments: &mut Segments,
        completion: &Completion,
    ) -> bool {
        take_pieces::<T>(buffers, completion, |_, piece| {
            self.tail = match self.length {
                0 => segments.add(piece),
                _ => segments.add_behind(self.tail, piece),
            };
            self.length += 1;
        })
    }

    /// Hands what a receive has filled to the conversation; false if it picked no buffer.
    pub fn take_in<T: Technique>(
        &mut self,
        buffers: &mut BufferRing,
        terms: C::Terms,
        counters: &Counters,
        completion: &Completion,
    ) -> bool {
        let mut is_right = true;
        let has_buffer = take_pieces::<T>(buffers, completion, |buffers, piece| {
            let bytes = buffers.contents(piece);
            is_right = is_right && self.conversation.receive(terms, counters, bytes).is_ok();
            buffers.give_back(piece);
        });
        if !is_right {
            counters.mismatches.add(1);
            self.set(State::Failed);
        }
        has_buffer
    }

    /// Whether it owes more than the send in flight has.
    pub fn has_more(&self, terms: C::Terms) -> bool {
        if C::ECHOES {
            return self.length > self.sending.into();
        }
        C::never_rests(terms) || self.conversation.owed_bytes() > self.tail.into()
    }

    /// Takes the first segment off the queue and gives its piece back.
    #[inline]
    pub fn dequeue(&mut self, buffers: &mut BufferRing, segments: &mut Segments) {
        let piece = segments.remove_first(self.tail);
        self.length -= 1;
        buffers.give_back(piece);
    }

    /// How many pieces queue on it; in a conversation, responses. A conversation that never rests
    /// always owes one.
    #[inline]
    pub fn queued(&self, terms: C::Terms) -> u32 {
        if C::ECHOES {
            return self.length;
        }
        self.conversation.owed_responses(terms).try_into().unwrap_or(u32::MAX)
    }

    /// Returns its next step, if no more than `limit` pieces may queue on it.
    #[inline]
    pub fn need<T: Technique>(&self, limit: u32, terms: C::Terms) -> NextStep {
        let armed = if T::POLL { State::Polling } else { State::Receiving };
        // A watch asks for nothing.
        let watch = if T::POLL { 0 } else { State::Polling as u16 };
        if self.states & !watch != State::Open as u16 | armed as u16
            || self.blocked.is_some()
            || self.queued(terms) > limit
        {
            NextStep::Other
        } else if self.sending > 0 || self.queued(terms) == 0 {
            NextStep::Nothing
        } else {
            NextStep::Send
        }
    }

    /// Whether nothing more is received from it.
    pub fn is_over(&self) -> bool {
        self.is(State::Ended) || self.is(State::Failed)
    }
}

#[derive(Default)]
pub struct Blocked {
    /// In flight, so it must not move or change: a boxed slice has no room to.
    pub sending: Box<[u8]>,
    pub sent: usize,
    /// Input that arrived since, up to the end of the receive.
    pub waiting: Vec<u8>,
}

/// Takes what a receive has filled, piece by piece; false if it picked no buffer.
#[inline(always)]
pub fn take_pieces<T: Technique>(
    buffers: &mut BufferRing,
    completion: &Completion,
    mut each: impl FnMut(&mut BufferRing, Piece),
) -> bool {
    let Some(first) = completion.buffer() else { return false };
    let length = completion.result.max(0) as u32;
    if T::BUNDLE && length > 0 {
        buffers.take_bundle(first, length, each);
    } else {
        let piece = buffers.take(first, length, completion.buffer_more());
        each(buffers, piece);
    }
    true
}

/// Gives the slot at `index` to a new connection.
pub fn admit<C: Conversation>(connections: &mut Vec<Connection<C>>, index: u32) {
    let slot = index as usize;
    if slot >= connections.len() {
        connections.resize_with(slot + 1, Connection::default);
    }
    let generation = (connections[slot].generation + 1) & GENERATION_MASK;
    connections[slot] =
        Connection { generation, states: State::Open as u16, ..Connection::default() };
}

/// Whether a completion belongs to a connection that had the index before.
pub fn is_late<C: Conversation>(connection: &Connection<C>, token: Token) -> bool {
    connection.generation != token.generation || !connection.is(State::Open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::uring::token::RequestKind;
    use crate::service::Echo;

    #[test]
    fn only_the_connection_itself_is_in_time() {
        let token = Token { kind: RequestKind::Receive, generation: 2, index: 0 };
        let connection =
            |generation, states| Connection::<Echo> { generation, states, ..Connection::default() };
        let open = State::Open as u16;
        assert!(!is_late(&connection(2, open), token));
        assert!(is_late(&connection(3, open), token), "the next owner of the index");
        assert!(is_late(&connection(2, !open), token), "closed");
    }

    #[test]
    fn an_index_that_is_used_again_has_another_generation() {
        let mut connections: Vec<Connection<Echo>> = Vec::new();
        let mut seen = Vec::new();
        for _ in 0..3 {
            admit(&mut connections, 5);
            seen.push(connections[5].generation);
            connections[5].clear(State::Open);
        }
        assert_eq!(seen, [1, 2, 3]);
        connections[5].generation = GENERATION_MASK;
        admit(&mut connections, 5);
        assert_eq!(connections[5].generation, 0, "it has the bits that a token has");
    }

    #[test]
    fn states_do_not_touch_each_other() {
        use State::{Cancelling, Cut, Ended, Failed, Open, Polling, Readable, Receiving, Starved};
        let all = [Open, Receiving, Polling, Readable, Cancelling, Starved, Ended, Failed, Cut];
        let mut connection = Connection::<Echo>::default();
        for (count, state) in all.into_iter().enumerate() {
            assert!(!connection.is(state), "{state:?}");
            connection.set(state);
            assert!(connection.is(state), "{state:?}");
            assert_eq!(
                connection.states.count_ones() as usize,
                count + 1,
                "{state:?} alone was set"
            );
        }
        for (count, state) in all.into_iter().enumerate() {
            connection.clear(state);
            assert!(!connection.is(state), "{state:?}");
            assert_eq!(
                connection.states.count_ones() as usize,
                all.len() - count - 1,
                "{state:?} alone was cleared"
            );
        }
    }

    #[test]
    fn idle_connections_are_small() {
        assert_eq!(size_of::<Connection<Echo>>(), 24);
    }
}
