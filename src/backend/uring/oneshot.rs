//! `uring-oneshot`: the naive port of a readiness server. A receive is asked for, its completion
//! brings one send, the send's completion brings the next receive; each connection has a buffer of
//! its own.
//!
//! So an echo takes two turns of the loop. With `link=on` it takes one: the send and the receive
//! behind it are queued together, linked, so that the receive begins when the send has succeeded,
//! and the send has a completion only if it fails. The kernel then waits for a peer that does not
//! read.
//!
//! A connection is not read while anything is owed on it, so it never holds more than its buffer.

use super::core::Core;
use super::handler::{Accept, Handler};
use super::memory::AnonymousMemory;
use super::request::{Request, Socket};
use super::ring::{Completion, Ring};
use super::setup::{self, Setup};
use super::token::{GENERATION_MASK, RequestKind, Token};
use crate::connection;
use crate::contract::{BackendFacts, Facts, Knob, Knobs, Unsupported};
use crate::drain::Owed;
use crate::ports::LISTENERS_OF_URING;
use crate::service::Conversation;
use crate::sys;
use crate::work::WORK_NS;
use crate::zero_copy::{self, ZERO_COPY};
use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::Fd;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;

/// A receive and a send at a time.
pub struct Oneshot<C: Conversation> {
    /// By fd: the kernel gives the lowest free number, so this stays dense.
    connections: Vec<Buffered<C>>,
    buffers: Buffers,
    link: bool,
    /// Whether a conversation's bytes are sent without a copy.
    zero_copy: bool,
    terms: C::Terms,
}

#[derive(Default)]
struct Buffered<C> {
    generation: u32,
    /// The part of the buffer that is owed; in a conversation, what is being sent.
    start: u32,
    end: u32,
    open: bool,
    /// A receive is under way, beside a send where a conversation never rests.
    receiving: bool,
    /// A conversation's send is under way.
    sending: bool,
    /// It is closed once nothing is under way.
    over: bool,
    conversation: C,
}

/// A buffer for each connection. They are made in chunks that never move, because receives are
/// under way into them, and stay with their index when a connection ends.
struct Buffers {
    chunks: Vec<AnonymousMemory>,
    bytes_each: usize,
}

/// Buffers of a chunk.
const CHUNK: usize = 256;

impl Buffers {
    fn reserve(&mut self, index: u32) -> io::Result<()> {
        while self.chunks.len() * CHUNK <= index as usize {
            self.chunks.push(AnonymousMemory::new(CHUNK * self.bytes_each)?);
        }
        Ok(())
    }

    fn start(&self, index: u32) -> NonNull<u8> {
        let chunk = &self.chunks[index as usize / CHUNK];
        // SAFETY: a chunk holds CHUNK buffers, and the place in it is below that.
        unsafe { chunk.start().add(index as usize % CHUNK * self.bytes_each) }
    }

    /// A part of a buffer that nothing is received into.
    ///
    /// # Safety
    /// No receive into this buffer may be under way for as long as the slice is used.
    unsafe fn contents(&self, index: u32, start: u32, end: u32) -> &[u8] {
        assert!(start <= end && end as usize <= self.bytes_each);
        // SAFETY: the range lies within the buffer, checked above; only receives write to it.
        unsafe {
            std::slice::from_raw_parts(
                self.start(index).add(start as usize).as_ptr(),
                (end - start) as usize,
            )
        }
    }
}

impl<C: Conversation> Handler for Oneshot<C> {
    type Conversation = C;

    const FACTS: BackendFacts = BackendFacts {
        name: "uring-oneshot",
        summary: "the naive port: a receive for each message, a buffer for each connection",
        needs: setup::needs("6.1"),
        knobs: &[
            Knob::word(
                "link",
                &["off", "on"],
                "whether the next receive is queued with the send, linked to it, instead of after \
                 it",
            ),
            setup::TASK_RUN,
            setup::SQ_ENTRIES,
            setup::CQ_ENTRIES,
            setup::REGISTERED_RING,
            setup::NO_IOWAIT,
            setup::BUSY_POLL_US,
            setup::MIN_WAIT_US,
            setup::MIN_WAIT_EVENTS,
            Knob::number(
                "receive_bytes",
                4096,
                64..=1_048_576,
                "receive buffer of a connection, in bytes",
            ),
            LISTENERS_OF_URING,
            ZERO_COPY,
            WORK_NS,
        ],
        ..BackendFacts::DEFAULT
    };
    const ACCEPT: Accept = Accept::Once;
    const OPERATIONS: &'static [(&'static str, u8)] = &[];

    fn setup(knobs: &Knobs) -> Setup {
        let setup = Setup::of(knobs);
        if is_linked(knobs) { setup.with_room_for(LINKED) } else { setup }
    }

    fn probe(_ring: &mut Ring, knobs: &Knobs) -> Result<(), Unsupported> {
        zero_copy::probe_ring(knobs)
    }

    fn new(_ring: &Ring, knobs: &Knobs, _listeners: usize, terms: C::Terms) -> io::Result<Self> {
        Ok(Self {
            connections: connection::table()?,
            buffers: Buffers { chunks: Vec::new(), bytes_each: knobs.size("receive_bytes") },
            link: is_linked(knobs),
            zero_copy: !C::ECHOES && zero_copy::is_on(knobs),
            terms,
        })
    }

    fn in_force(&self) -> Facts {
        Facts::new()
    }

    fn admit(&mut self, index: u32) {
        let slot = index as usize;
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, Buffered::default);
        }
        let generation = (self.connections[slot].generation + 1) & GENERATION_MASK;
        self.connections[slot] = Buffered { generation, open: true, ..Buffered::default() };
    }

    fn serve(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        if self.buffers.reserve(index).is_err() {
            // Out of memory: this connection is refused, the others go on.
            return self.close(core, index);
        }
        self.receive(core, index)
    }

    fn received(
        &mut self,
        core: &mut Core,
        token: Token,
        completion: &Completion,
    ) -> io::Result<()> {
        if self.is_late(core, token) {
            return Ok(());
        }
        self.received(core, token.index, completion.result)
    }

    fn completed(
        &mut self,
        core: &mut Core,
        token: Token,
        completion: &Completion,
    ) -> io::Result<()> {
        let index = token.index;
        if self.is_late(core, token) {
            return Ok(());
        }
        match token.kind {
            RequestKind::Send => self.linked_send_failed(core, index, completion.result),
            _ => self.sent(core, index, completion.result),
        }
    }

    fn turned(&mut self, _core: &mut Core) -> io::Result<()> {
        Ok(())
    }

    fn must_not_wait(&mut self, _core: &mut Core) -> io::Result<bool> {
        Ok(false)
    }

    fn take_owed(&mut self, _core: &mut Core) -> io::Result<Vec<Owed<C>>> {
        let mut owed = Vec::new();
        for index in 0..self.connections.len() as u32 {
            let connection = &mut self.connections[index as usize];
            if std::mem::take(&mut connection.open) {
                let (start, end) = (connection.start, connection.end);
                let conversation = std::mem::take(&mut connection.conversation);
                let unsent = if !C::ECHOES || start == end {
                    Vec::new()
                } else {
                    // SAFETY: every request has ended.
                    unsafe { self.buffers.contents(index, start, end) }.to_vec()
                };
                // SAFETY: an open slot owns its descriptor, no request refers to it any more, and
                // the slot owns it no longer.
                owed.push(Owed { fd: unsafe { sys::own(index as RawFd) }, unsent, conversation });
            }
        }
        Ok(owed)
    }
}

/// Requests that must be submitted together: a send, and the receive that is linked to it.
const LINKED: u32 = 2;

fn is_linked(knobs: &Knobs) -> bool {
    knobs.word("link") == "on"
}

impl<C: Conversation> Oneshot<C> {
    /// Whether a completion belongs to a connection that had the index before.
    fn is_late(&self, core: &Core, token: Token) -> bool {
        let connection = &self.connections[token.index as usize];
        let late = connection.generation != token.generation || !connection.open;
        if late {
            core.came_late(token);
        }
        late
    }

    fn token(&self, kind: RequestKind, index: u32) -> Token {
        Token { kind, generation: self.connections[index as usize].generation, index }
    }

    fn receive(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        let bytes = self.buffers.bytes_each as u32;
        let entry =
            opcode::Recv::new(Fd(index as RawFd), self.buffers.start(index).as_ptr(), bytes)
                .build();
        // SAFETY: the buffer stays where it is until the loop has ended, and nothing else uses it
        // while nothing is owed from it: it is read only from this receive's completion on, until
        // the next receive, or, when one is linked behind a send, by that send alone.
        unsafe { core.push(self.token(RequestKind::Receive, index), entry)? };
        if !C::ECHOES {
            self.connections[index as usize].receiving = true;
        }
        Ok(())
    }

    /// Sends what is owed. MSG_WAITALL: the kernel goes on until all is sent, because a link goes
    /// on only then.
    fn send(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        let connection = &self.connections[index as usize];
        let (start, end) = (connection.start, connection.end);
        let address = self.buffers.start(index);
        // SAFETY: what is owed lies within the buffer.
        let address = unsafe { address.add(start as usize) };
        self.send_from(core, index, address.as_ptr(), end - start)
    }

    /// The same from an address.
    fn send_from(
        &mut self,
        core: &mut Core,
        index: u32,
        address: *const u8,
        length: u32,
    ) -> io::Result<()> {
        let entry = opcode::Send::new(Fd(index as RawFd), address, length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        let last = self.connections[index as usize].conversation.owed_bytes() == u64::from(length);
        if !self.link || !C::ECHOES && (C::never_rests(self.terms) || !last) {
            // SAFETY: nothing is received into the buffer until the send has completed, and a
            // conversation's bytes live as long as the process.
            unsafe { core.push(self.token(RequestKind::PatientSend, index), entry)? };
            return Ok(());
        }
        // Counted now, because no completion will say when; a failed send takes it back.
        core.counters.bytes_sent.add(u64::from(length));
        let entry = entry.flags(Flags::SKIP_SUCCESS | Flags::IO_LINK);
        // A link ends with the batch that is submitted: both must be in the queue together.
        core.make_room(LINKED)?;
        // SAFETY: the receive behind it begins when it has ended.
        unsafe { core.push(self.token(RequestKind::Send, index), entry)? };
        self.receive(core, index)
    }

    fn received(&mut self, core: &mut Core, index: u32, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        if !C::ECHOES {
            return self.take_in(core, index, result);
        }
        // It has begun, so a send that it was linked to has taken everything.
        connection.start = connection.end;
        match result {
            1.. => {
                (connection.start, connection.end) = (0, result as u32);
                core.counters.bytes_received.add(result as u64);
                core.work.perform(core.counters);
                if core.stopping { Ok(()) } else { self.send(core, index) }
            }
            _ if -result == libc::ECANCELED && core.stopping => Ok(()),
            // The end, or a reset.
            _ => self.close(core, index),
        }
    }

    /// A send with a receive linked behind it that did not take everything: `result` is how much.
    /// The receive is cancelled, and nothing else tells of that: what follows a failed request with
    /// IOSQE_CQE_SKIP_SUCCESS in a link has no completion, whatever its own flags (Linux commit
    /// 04c76b41ca97, since 5.17).
    fn linked_send_failed(&mut self, core: &mut Core, index: u32, result: i32) -> io::Result<()> {
        core.ended()?;
        let connection = &self.connections[index as usize];
        core.counters.bytes_sent.take_back(u64::from(connection.end - connection.start));
        if !C::ECHOES {
            self.connections[index as usize].receiving = false;
        }
        self.sent(core, index, result)
    }

    fn sent(&mut self, core: &mut Core, index: u32, result: i32) -> io::Result<()> {
        if !C::ECHOES {
            return self.replied(core, index, result);
        }
        let connection = &mut self.connections[index as usize];
        if result < 0 && !(core.stopping && -result == libc::ECANCELED) {
            core.counters.bytes_abandoned.add(u64::from(connection.end - connection.start));
            return self.close(core, index);
        }
        let sent = result.max(0) as u32;
        core.counters.bytes_sent.add(u64::from(sent));
        connection.start += sent;
        if core.stopping {
            return Ok(());
        }
        if connection.start < connection.end {
            core.counters.short_sends.add(1);
            return self.send(core, index);
        }
        self.receive(core, index)
    }

    /// A conversation's receive has completed.
    fn take_in(&mut self, core: &mut Core, index: u32, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.receiving = false;
        if !C::never_rests(self.terms) {
            // It has begun, as above.
            let sent = connection.end - connection.start;
            connection.conversation.sent(self.terms, sent as usize);
            connection.start = connection.end;
            connection.sending = false;
        }
        match result {
            1.. => {
                core.counters.bytes_received.add(result as u64);
                // SAFETY: the receive has ended, and the next begins below.
                let bytes = unsafe { self.buffers.contents(index, 0, result as u32) };
                if connection.conversation.receive(self.terms, core.counters, bytes).is_err() {
                    core.counters.mismatches.add(1);
                    connection.over = true;
                }
                core.work.perform(core.counters);
            }
            _ if -result == libc::ECANCELED && core.stopping => {}
            0 if C::never_rests(self.terms) => {
                connection.conversation.end();
                connection.over = connection.conversation.owed_bytes() == 0;
            }
            // The end, or a reset.
            _ => connection.over = true,
        }
        self.go_on(core, index, result > 0)
    }

    /// A conversation's send has completed.
    fn replied(&mut self, core: &mut Core, index: u32, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.sending = false;
        let length = connection.end - connection.start;
        connection.start = connection.end;
        if result < 0 {
            connection.over |= !(core.stopping && -result == libc::ECANCELED);
        } else {
            core.counters.bytes_sent.add(result as u64);
            core.counters.short_sends.add(u64::from((result as u32) < length));
            connection.conversation.sent(self.terms, result as usize);
        }
        self.go_on(core, index, true)
    }

    /// Does what a conversation needs next. `receives` says whether its peer may send more.
    fn go_on(&mut self, core: &mut Core, index: u32, receives: bool) -> io::Result<()> {
        if core.stopping {
            return Ok(());
        }
        let connection = &mut self.connections[index as usize];
        if connection.over {
            let is_under_way = connection.receiving || connection.sending;
            return if is_under_way { Ok(()) } else { self.close(core, index) };
        }
        let owed = connection.conversation.owed(self.terms);
        if !owed.is_empty() && !connection.sending {
            (connection.start, connection.end) = (0, owed.len() as u32);
            connection.sending = true;
            if self.zero_copy {
                let token = self.token(RequestKind::ZeroCopySend, index);
                core.request(token, Request::send_zero_copy(Socket::File(index), owed))?;
            } else {
                self.send_from(core, index, owed.as_ptr(), owed.len() as u32)?;
            }
        }
        let connection = &self.connections[index as usize];
        let is_free = !connection.sending || C::never_rests(self.terms);
        if receives && is_free && !connection.receiving {
            self.receive(core, index)
        } else {
            Ok(())
        }
    }

    fn close(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        core.counters.closed.add(1);
        let conversation = std::mem::take(&mut self.connections[index as usize].conversation);
        core.counters.bytes_abandoned.add(conversation.owed_bytes());
        let token = self.token(RequestKind::Close, index);
        self.connections[index as usize].open = false;
        core.request(token, Request::close(Socket::File(index)))
    }
}
