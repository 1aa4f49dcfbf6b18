//! Output: sends straight from the buffers, bundles of them, and what a peer that does not read is
//! owed.

use super::connection::{Blocked, Connection, State};
use super::connections::Provided;
use super::sends::Sending;
use super::techniques::Technique;
use crate::backend::uring::{
    core::Core,
    request::Request,
    send_groups::{BUNDLE_MOST, SendGroups},
    token::{RequestKind, Token},
};
use crate::service::Conversation;
use io_uring::opcode;
use io_uring::squeue::Flags;
use std::io;

/// How a buffer is sent: see "One system call an echo" in the root of these files.
const SEND: libc::c_int = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT;

impl<T: Technique, C: Conversation> Provided<T, C> {
    /// Sends what the connection owes next, if anything and if no send is in flight.
    pub fn send(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        let connection = &self.connections[index as usize];
        if connection.sending > 0 || connection.is(State::Failed) || core.stopping {
            return Ok(());
        }
        if !C::ECHOES {
            return self.send_reply(core, index);
        }
        if let Some(blocked) = &connection.blocked {
            let socket = Self::socket(index);
            // No hurry now: the kernel waits for space.
            let bytes = &blocked.sending[blocked.sent..];
            // Bytes beyond what a request can name are sent after it.
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let entry = opcode::Send::new(socket.fd(), bytes.as_ptr(), length)
                .flags(libc::MSG_NOSIGNAL)
                .build();
            self.at(index).sending = 1;
            // SAFETY: the bytes are a boxed slice's, which is dropped only after the send's
            // completion.
            unsafe {
                core.push(self.token(RequestKind::PatientSend, index), entry.flags(socket.flags()))?
            };
            return Ok(());
        }
        if connection.length == 0 { Ok(()) } else { self.send_from_buffers(core, index) }
    }

    /// Sends a buffer, or a bundle of them, of a connection that owes some, and has no send in
    /// flight.
    #[inline(always)]
    pub fn send_from_buffers(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        if !C::ECHOES {
            return self.send_reply(core, index);
        }
        let socket = Self::socket(index).fd();
        let (entry, segments, bytes, group) = match self.lend_group(core, index)? {
            None => {
                let tail = self.connections[index as usize].tail;
                let bytes = self.buffers.contents(self.segments.first(tail));
                let length = bytes.len() as u32;
                (
                    opcode::Send::new(socket, bytes.as_ptr(), length).flags(SEND).build(),
                    1,
                    length.into(),
                    None,
                )
            }
            Some(group) => {
                let (segments, bytes) = self.fill(group, index);
                let entry =
                    opcode::SendBundle::new(socket, SendGroups::group(group)).flags(SEND).build();
                (entry, segments, bytes, Some(group))
            }
        };
        // Counted now, because no completion will say when; a failed send takes it back.
        core.counters.bytes_sent.add(bytes);
        let connection = &mut self.connections[index as usize];
        connection.sending = segments;
        self.may_be_followed |= connection.length > segments.into();
        let token = Token { kind: RequestKind::Send, generation: connection.generation, index };
        // SAFETY: the bytes are in pieces of buffers that stay ours until the send is decided. So
        // does the group that it takes them from.
        let number = unsafe {
            core.push(token, entry.flags(Flags::SKIP_SUCCESS | Self::socket(index).flags()))?
        };
        self.sends.push(Sending { number, index, group });
        Ok(())
    }

    /// Sends what a conversation owes, patiently if the peer was found not to read.
    fn send_reply(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        let socket = Self::socket(index);
        let terms = self.terms;
        let connection = self.at(index);
        let bytes = connection.conversation.owed(terms);
        if bytes.is_empty() {
            return Ok(());
        }
        let length = bytes.len() as u32;
        (connection.tail, connection.sending) = (length, 1);
        let is_patient = connection.blocked.is_some();
        if self.zero_copy {
            let token = self.token(RequestKind::ZeroCopySend, index);
            return core.request(token, Request::send_zero_copy(socket, bytes));
        }
        let send = opcode::Send::new(socket.fd(), bytes.as_ptr(), length);
        if is_patient {
            let entry = send.flags(libc::MSG_NOSIGNAL).build().flags(socket.flags());
            // SAFETY: the bytes live as long as the process.
            unsafe { core.push(self.token(RequestKind::PatientSend, index), entry)? };
            return Ok(());
        }
        // As above.
        core.counters.bytes_sent.add(length.into());
        self.may_be_followed |= self.at(index).has_more(terms);
        let entry = send.flags(SEND).build().flags(Flags::SKIP_SUCCESS | socket.flags());
        // SAFETY: as above.
        let number = unsafe { core.push(self.token(RequestKind::Send, index), entry)? };
        self.sends.push(Sending { number, index, group: None });
        Ok(())
    }

    /// A group for what the connection owes, if that is more than a buffer and one can be had.
    #[inline]
    fn lend_group(&mut self, core: &Core, index: u32) -> io::Result<Option<u16>> {
        if !T::BUNDLE || self.connections[index as usize].length < 2 {
            return Ok(None);
        }
        let Some(groups) = &mut self.groups else { return Ok(None) };
        groups.lend(&core.ring.submitter(), core.counters)
    }

    /// Puts what the connection owes into a group: how many segments, and bytes.
    fn fill(&mut self, group: u16, index: u32) -> (u16, u64) {
        let Some(groups) = &mut self.groups else { return (0, 0) };
        let Connection { tail, length, .. } = &self.connections[index as usize];
        let (mut segments, mut bytes) = (0, 0);
        for piece in self.segments.queue(*tail, *length).take(BUNDLE_MOST) {
            let contents = self.buffers.contents(piece);
            // SAFETY: the piece stays ours until the send is decided.
            unsafe { groups.put(group, contents) };
            bytes += contents.len() as u64;
            segments += 1;
        }
        groups.publish(group);
        (segments, bytes)
    }

    /// A send whose failure would be known by now: it has taken everything.
    pub fn send_succeeded(&mut self, core: &mut Core, sending: Sending) -> io::Result<()> {
        if T::BUNDLE
            && let (Some(group), Some(groups)) = (sending.group, &mut self.groups)
        {
            groups.take_back(group);
        }
        let Self { connections, buffers, segments, buffers_per_connection, terms, .. } = self;
        let connection = &mut connections[sending.index as usize];
        let sent = std::mem::take(&mut connection.sending);
        if !C::ECHOES && sent > 0 {
            connection.conversation.sent(*terms, connection.tail as usize);
        }
        // A failure of this connection's own may have come between, and taken all that it owes
        // away.
        if !C::ECHOES {
            // Its buffers are back.
        } else if T::BUNDLE {
            (0..sent).for_each(|_| connection.dequeue(buffers, segments));
        } else if sent > 0 {
            connection.dequeue(buffers, segments);
        }
        let need = connection.need::<T>(*buffers_per_connection, *terms);
        self.supply(core, sending.index, need)
    }

    /// A send that the socket did not take, or only a part of it: then `result` is how much.
    pub fn send_failed(&mut self, core: &mut Core, index: u32, result: i32) -> io::Result<()> {
        // Its completion may come before the queue's head is seen to have passed it.
        if let Some(sending) = self.sends.remove(index)
            && let (Some(group), Some(groups)) = (sending.group, &mut self.groups)
        {
            groups.renew(&core.ring.submitter(), core.counters, group)?;
        }
        let sent = result.max(0) as usize;
        core.counters.bytes_sent.take_back((self.bytes_in_flight(index) - sent) as u64);
        let terms = self.terms;
        let connection = self.at(index);
        connection.sending = 0;
        connection.conversation.sent(terms, sent);
        if result >= 0 {
            core.counters.short_sends.add(1);
            self.block(core, index, sent)?;
        } else if -result == libc::EAGAIN {
            core.counters.would_block.add(1);
            self.block(core, index, 0)?;
        } else {
            connection.set(State::Failed);
        }
        self.advance(core, index)
    }

    fn bytes_in_flight(&self, index: u32) -> usize {
        let Connection { tail, sending, .. } = &self.connections[index as usize];
        if !C::ECHOES {
            return *tail as usize;
        }
        let pieces = self.segments.queue(*tail, (*sending).into());
        pieces.map(|piece| (piece.end - piece.start) as usize).sum()
    }

    pub fn sent_patiently(&mut self, core: &mut Core, index: u32, result: i32) -> io::Result<()> {
        let terms = self.terms;
        let connection = self.at(index);
        connection.sending = 0;
        match (result, &mut connection.blocked) {
            // One without a copy waits although nothing is blocked.
            (0.., _) if !C::ECHOES => {
                core.counters.bytes_sent.add(result as u64);
                connection.conversation.sent(terms, result as usize);
                if (result as u32) < connection.tail {
                    core.counters.short_sends.add(1);
                } else {
                    connection.blocked = None;
                }
            }
            (0.., Some(blocked)) => {
                core.counters.bytes_sent.add(result as u64);
                blocked.sent += result as usize;
                if blocked.sent < blocked.sending.len() {
                    core.counters.short_sends.add(1);
                } else if blocked.waiting.is_empty() {
                    connection.blocked = None;
                } else {
                    blocked.sending = std::mem::take(&mut blocked.waiting).into_boxed_slice();
                    blocked.sent = 0;
                }
            }
            // Only the stop cancels sends; what is owed stays owed, and the drain sends it.
            _ if -result == libc::ECANCELED && core.stopping => {}
            _ => connection.set(State::Failed),
        }
        self.advance(core, index)
    }

    /// The peer does not read: what it is owed, but for the first `sent` bytes, moves to the heap,
    /// and its input waits.
    fn block(&mut self, core: &mut Core, index: u32, sent: usize) -> io::Result<()> {
        let sending = self.take_queue(index, sent).into_boxed_slice();
        self.at(index).blocked = Some(Box::new(Blocked { sending, ..Blocked::default() }));
        core.counters.backpressure_pauses.add(1);
        // A poll may stay: what it reports waits until the peer has taken everything. And a
        // conversation that never rests gets nothing but its peer's end.
        if T::POLL || C::never_rests(self.terms) { Ok(()) } else { self.cancel_input(core, index) }
    }

    /// Moves what a receive brought while it was being cancelled behind what a peer that does not
    /// read is owed. Only the end of the receive allows that: one that got its buffers back would
    /// go on, for as long as a submission thread does not see that it is cancelled.
    pub fn keep_behind_blocked(&mut self, index: u32) {
        let late = self.take_queue(index, 0);
        if let Some(blocked) = &mut self.at(index).blocked {
            blocked.waiting.extend_from_slice(&late);
        }
    }

    /// Copies out all that is queued but for the first `sent` bytes, and gives the buffers back.
    fn take_queue(&mut self, index: u32, sent: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut skip = sent;
        let Self { connections, buffers, segments, .. } = self;
        let connection = &mut connections[index as usize];
        while connection.length > 0 {
            let contents = buffers.contents(segments.first(connection.tail));
            let skipped = skip.min(contents.len());
            bytes.extend_from_slice(&contents[skipped..]);
            skip -= skipped;
            connection.dequeue(buffers, segments);
        }
        bytes
    }

    /// Everything that a connection is owed, taken away from it. Only while no send is in flight.
    pub fn take_unsent(&mut self, index: u32) -> Vec<u8> {
        let queued = self.take_queue(index, 0);
        match self.at(index).blocked.take() {
            None => queued,
            Some(blocked) => [&blocked.sending[blocked.sent..], &blocked.waiting, &queued].concat(),
        }
    }
}
