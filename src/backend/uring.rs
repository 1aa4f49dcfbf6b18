//! The completion loop: multishot accept, multishot receive into provided buffers, and the echo sent
//! straight from the buffer that it came in.
//!
//! # One system call an echo
//! The loop submits the sends of a batch and waits for the next batch in the same `io_uring_enter`. With
//! MSG_DONTWAIT a send completes while it is submitted, whatever comes of it; with MSG_WAITALL one that
//! takes only a part counts as failed; with CQE_SKIP_SUCCESS only a failed one has a completion. So once
//! the enter has returned and all completions are taken, every send of the batch without one has
//! succeeded. A send's own completion does not end the wait, and a failed send does not wait for input
//! that may never come.
//!
//! Where something is to follow a send, another buffer, the close, a receive that waits for a buffer,
//! the loop only submits, does that, and waits after it.
//!
//! # Order and bounds
//! A connection has one send in flight at most, or its bytes could be reordered. What arrives meanwhile
//! queues in its buffers; past a limit its receive is cancelled until the queue is down to half. A peer
//! that does not read makes a send fail with EAGAIN: then what it is owed moves to the heap, its buffers go
//! back to the ring, so that slow readers cannot starve the others of buffers, and it is not read until it
//! has taken everything.
//!
//! Each buffer is sent by itself. A message that is larger than a buffer takes several sends, one after the
//! other: buffers that fit the messages are part of the set-up, and `buffer_bytes` sets them.
//!
//! A receive that finds no buffer ends (ENOBUFS). Its connection goes to the end of a queue and is armed
//! again when a buffer is back; arming it at once would only fail again.
//!
//! # Why a late completion cannot touch the wrong connection
//! A descriptor is closed only after every request on it has had its last completion, so there is none left
//! to come when the number is used again. Should the kernel ever prove that wrong, the generation in
//! the token differs, and the completion only returns its buffer.

pub mod buffer_ring;
pub mod ring;
pub mod token;

use super::{Backend, Facts, Knob, Knobs, Unsupported};
use crate::counters::Counters;
use crate::drain::{self, Owed};
use crate::listener::{self, Rest};
use crate::stop::Stop;
use crate::sys;
use buffer_ring::BufferRing;
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{opcode, squeue};
use ring::{Completion, Ring};
use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;
use token::{GENERATION_MASK, Kind, Token};

/// How long a cancellation may take to be heard of before it is asked for again.
const CANCEL_PATIENCE: Duration = Duration::from_millis(100);

/// No buffer: the end of a queue.
const NONE: u16 = u16::MAX;

/// Multishot requests and provided buffers.
pub struct UringMultishot {
    // Dropped before the buffers that its requests point into.
    ring: Ring,
    buffers: BufferRing,
    /// By buffer id: what of it is still to be sent, and which buffer follows in the connection's queue.
    queued: Vec<QueuedBuffer>,
    listeners: Vec<TcpListener>,
    /// Listeners that accept nothing until files are free again.
    exhausted: Vec<u32>,
    rest: Rest,
    /// By fd: the kernel gives the lowest free number, so this stays dense.
    connections: Vec<Connection>,
    /// Connections whose receive found no buffer, longest wait first.
    starved: VecDeque<(u32, u32)>,
    /// Requests that have not had their last completion.
    in_flight: usize,
    /// Connections whose send goes with the next turn, and whose send went with this one.
    sends: Vec<u32>,
    sends_of_this_turn: Vec<u32>,
    buffers_per_connection: u16,
    stopping: bool,
}

#[derive(Clone, Copy, Default)]
struct QueuedBuffer {
    start: u32,
    end: u32,
    next: u16,
}

#[derive(Default)]
struct Connection {
    generation: u32,
    /// The queue of buffers to be sent.
    head: u16,
    tail: u16,
    length: u16,
    open: bool,
    receiving: bool,
    /// A cancellation of the receive is under way.
    cancelling: bool,
    starved: bool,
    sending: bool,
    /// The peer has sent its end.
    ended: bool,
    /// The connection is broken; what is owed is lost.
    failed: bool,
    /// What a peer that does not read is owed.
    blocked: Option<Box<Blocked>>,
}

#[derive(Default)]
struct Blocked {
    /// In flight, so it must not move or change: a boxed slice has no room to.
    sending: Box<[u8]>,
    sent: usize,
    /// Arrived since.
    waiting: Vec<u8>,
}

impl Backend for UringMultishot {
    const NAME: &'static str = "uring-multishot";
    const SUMMARY: &'static str =
        "multishot accept and receive, provided buffers sent back in place, DEFER_TASKRUN";
    const KNOBS: &'static [Knob] = &[
        Knob {
            name: "sq_entries",
            default: 256,
            range: 1..=32_768,
            meaning: "submission queue, in requests, rounded up to a power of two",
        },
        Knob {
            name: "cq_entries",
            default: 4096,
            range: 2..=65_536,
            meaning: "completion queue, in completions, at least sq_entries, rounded up to a power of two",
        },
        Knob {
            name: "buffers",
            default: 1024,
            range: 1..=32_768,
            meaning: "provided buffers of a worker, rounded up to a power of two",
        },
        Knob { name: "buffer_bytes", default: 4096, range: 64..=1_048_576, meaning: "size of one of them" },
        Knob {
            name: "buffers_per_connection",
            default: 64,
            range: 1..=32_768,
            meaning: "buffers that may queue on a connection before its receive is paused",
        },
    ];

    fn probe(knobs: &Knobs) -> Result<(), Unsupported> {
        let (sq_entries, cq_entries) = ring_sizes(knobs);
        let ring = Ring::probe(sq_entries, cq_entries)?;
        buffer_ring::probe(&ring.submitter()).map_err(|error| Unsupported {
            reason: format!("io_uring_register(PBUF_RING): {error}; provided buffer rings need Linux 5.19"),
        })
    }

    fn new(listeners: Vec<TcpListener>, knobs: &Knobs) -> io::Result<Self> {
        let (sq_entries, cq_entries) = ring_sizes(knobs);
        let ring = Ring::new(sq_entries, cq_entries)?;
        let count = knobs.size("buffers").next_power_of_two();
        let buffers = BufferRing::new(&ring.submitter(), count as u16, knobs.size("buffer_bytes"))?;
        Ok(Self {
            ring,
            buffers,
            queued: vec![QueuedBuffer::default(); count],
            exhausted: Vec::new(),
            rest: Rest::default(),
            listeners,
            connections: Vec::new(),
            starved: VecDeque::new(),
            in_flight: 0,
            sends: Vec::new(),
            sends_of_this_turn: Vec::new(),
            buffers_per_connection: knobs.get("buffers_per_connection") as u16,
            stopping: false,
        })
    }

    fn in_force(&self) -> Facts {
        let mut facts = self.ring.in_force();
        facts.insert("buffers".to_owned(), self.queued.len().into());
        facts.insert("buffers_bytes".to_owned(), self.buffers.bytes().into());
        facts
    }

    fn run(mut self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        self.wait_for_stop(counters, stop)?;
        for index in 0..self.listeners.len() {
            self.accept(counters, index as u32)?;
        }
        let mut completions = Vec::new();
        while !self.stopping {
            let want = usize::from(!self.something_follows_a_send() && !self.can_feed());
            self.turn(counters, want, self.rest.left(), &mut completions)?;
            self.feed_the_starved(counters)?;
            if self.rest.is_over(counters) {
                for index in std::mem::take(&mut self.exhausted) {
                    self.accept(counters, index)?;
                }
            }
        }
        self.stop(counters, stop)
    }
}

fn ring_sizes(knobs: &Knobs) -> (u32, u32) {
    let sq_entries = knobs.get("sq_entries") as u32;
    (sq_entries, (knobs.get("cq_entries") as u32).max(sq_entries))
}

// Requests.
impl UringMultishot {
    fn push(&mut self, counters: &Counters, token: Token, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: of the requests made below only sends point to memory: to a provided buffer that is ours
        // until the send's completion, or to a boxed slice that is dropped only after it.
        unsafe { self.ring.push(counters, &entry.user_data(token.encode()))? };
        if token.kind.completes_always() {
            self.in_flight += 1;
        }
        Ok(())
    }

    fn wait_for_stop(&mut self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        let entry = opcode::PollAdd::new(Fd(stop.fd()), libc::POLLIN as u32).build();
        self.push(counters, Token::of(Kind::Stop, 0), entry)
    }

    fn accept(&mut self, counters: &Counters, index: u32) -> io::Result<()> {
        let listener = Fd(self.listeners[index as usize].as_raw_fd());
        let entry = opcode::AcceptMulti::new(listener).flags(libc::SOCK_CLOEXEC).build();
        self.push(counters, Token::of(Kind::Accept, index), entry)
    }

    fn token(&self, kind: Kind, index: u32) -> Token {
        Token { kind, generation: self.connections[index as usize].generation, index }
    }

    fn receive(&mut self, counters: &Counters, index: u32) -> io::Result<()> {
        if self.buffers.available() == 0 {
            // The kernel would refuse at once, even while nothing has arrived.
            self.starve(index);
            return Ok(());
        }
        self.connections[index as usize].receiving = true;
        let entry = opcode::RecvMulti::new(Fd(index as RawFd), buffer_ring::GROUP).build();
        self.push(counters, self.token(Kind::Receive, index), entry)
    }

    fn cancel_receive(&mut self, counters: &Counters, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        if !connection.receiving || connection.cancelling {
            return Ok(());
        }
        connection.cancelling = true;
        let target = self.token(Kind::Receive, index).encode();
        let entry = opcode::AsyncCancel::new(target).build();
        self.push(counters, self.token(Kind::Cancel, index), entry)
    }

    /// Sends what the connection owes next, if anything and if no send is in flight.
    fn send(&mut self, counters: &Counters, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        if connection.sending || connection.failed || self.stopping {
            return Ok(());
        }
        let (kind, bytes, flags): (_, &[u8], _) = if let Some(blocked) = &connection.blocked {
            // No hurry now: the kernel waits for space and goes on until all is sent.
            (Kind::PatientSend, &blocked.sending[blocked.sent..], libc::MSG_WAITALL)
        } else if connection.length > 0 {
            let QueuedBuffer { start, end, .. } = self.queued[usize::from(connection.head)];
            let bytes = &self.buffers.contents(connection.head, end as usize)[start as usize..];
            self.sends.push(index);
            // Counted now, because no completion will say when; a failed send takes it back.
            counters.bytes_sent.add(bytes.len() as u64);
            (Kind::Send, bytes, libc::MSG_WAITALL | libc::MSG_DONTWAIT)
        } else {
            return Ok(());
        };
        connection.sending = true;
        let mut entry = opcode::Send::new(Fd(index as RawFd), bytes.as_ptr(), bytes.len() as u32)
            .flags(flags | libc::MSG_NOSIGNAL)
            .build();
        if kind == Kind::Send {
            entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        }
        self.push(counters, self.token(kind, index), entry)
    }

    fn close(&mut self, counters: &Counters, index: u32) -> io::Result<()> {
        self.connections[index as usize].open = false;
        counters.closed.add(1);
        let entry = opcode::Close::new(Fd(index as RawFd)).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(counters, self.token(Kind::Close, index), entry)
    }
}

// Completions.
impl UringMultishot {
    /// Submits, waits for `want` completions and handles what came.
    fn turn(
        &mut self,
        counters: &Counters,
        want: usize,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        std::mem::swap(&mut self.sends, &mut self.sends_of_this_turn);
        self.ring.turn(counters, want, timeout, completions)?;
        for completion in completions.drain(..) {
            self.complete(counters, &completion)?;
        }
        let mut sends = std::mem::take(&mut self.sends_of_this_turn);
        for index in sends.drain(..) {
            self.sent_unless_failed(counters, index)?;
        }
        self.sends_of_this_turn = sends;
        Ok(())
    }

    /// Whether the loop has more to do once the queued sends are done, without any input from outside.
    fn something_follows_a_send(&self) -> bool {
        let follows = |&index: &u32| {
            let connection = &self.connections[index as usize];
            connection.length > 1 || !connection.receiving
        };
        !self.sends.is_empty() && (!self.starved.is_empty() || self.sends.iter().any(follows))
    }

    fn complete(&mut self, counters: &Counters, completion: &Completion) -> io::Result<()> {
        let Some(token) = Token::decode(completion.user_data) else {
            return Err(io::Error::other(format!("a completion of no request: {:#x}", completion.user_data)));
        };
        if token.kind.completes_always() && !completion.more() {
            self.in_flight -= 1;
        }
        match token.kind {
            Kind::Stop => self.stopping = true,
            Kind::Accept => self.accepted(counters, token.index, completion)?,
            Kind::Receive => self.received(counters, token, completion)?,
            Kind::Send => self.send_failed(counters, token, completion.result)?,
            Kind::PatientSend => self.sent_patiently(counters, token, completion.result)?,
            // A cancellation that finds nothing came after the end of what it was to cancel.
            Kind::Cancel => {}
            Kind::Close => return Err(io::Error::from_raw_os_error(-completion.result)),
        }
        Ok(())
    }

    fn accepted(&mut self, counters: &Counters, listener: u32, completion: &Completion) -> io::Result<()> {
        if completion.result >= 0 {
            self.open(counters, completion.result as u32)?;
        }
        if completion.more() || self.stopping {
            return Ok(());
        }
        if listener::exhausted(-completion.result) {
            counters.accept_pauses.add(1);
            self.exhausted.push(listener);
            self.rest.begin(counters);
            return Ok(());
        }
        if listener::unusable(-completion.result) {
            return Err(io::Error::from_raw_os_error(-completion.result));
        }
        counters.rearms.add(1);
        self.accept(counters, listener)
    }

    fn open(&mut self, counters: &Counters, index: u32) -> io::Result<()> {
        counters.accepted.add(1);
        let slot = index as usize;
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, Connection::default);
        }
        let generation = (self.connections[slot].generation + 1) & GENERATION_MASK;
        self.connections[slot] =
            Connection { generation, head: NONE, tail: NONE, open: true, ..Connection::default() };
        if self.stopping {
            return Ok(());
        }
        self.receive(counters, index)
    }

    fn is_late(&self, token: Token) -> bool {
        let connection = &self.connections[token.index as usize];
        let late = connection.generation != token.generation || !connection.open;
        debug_assert!(!late, "{token:?} completed after its connection was closed");
        late
    }

    fn received(&mut self, counters: &Counters, token: Token, completion: &Completion) -> io::Result<()> {
        let buffer = completion.buffer();
        if let Some(buffer) = buffer {
            self.buffers.take(buffer);
        }
        if self.is_late(token) {
            buffer.into_iter().for_each(|buffer| self.buffers.give_back(buffer));
            return Ok(());
        }
        let index = token.index;
        let connection = &mut self.connections[index as usize];
        let paused = connection.cancelling;
        if !completion.more() {
            connection.receiving = false;
            connection.cancelling = false;
        }
        match (completion.result, buffer) {
            (length @ 1.., Some(buffer)) => {
                counters.bytes_received.add(length as u64);
                self.enqueue(index, buffer, length as u32);
                if !completion.more() && !paused {
                    counters.rearms.add(1);
                }
            }
            (result, buffer) => {
                buffer.into_iter().for_each(|buffer| self.buffers.give_back(buffer));
                match -result {
                    0 => connection.ended = true,
                    libc::ECANCELED => {}
                    libc::ENOBUFS => {
                        counters.no_buffers.add(1);
                        self.starve(index);
                    }
                    _ => connection.failed = true,
                }
            }
        }
        self.advance(counters, index)
    }

    /// Appends a buffer to what the connection is owed.
    fn enqueue(&mut self, index: u32, buffer: u16, length: u32) {
        let connection = &mut self.connections[index as usize];
        if let Some(blocked) = &mut connection.blocked {
            blocked.waiting.extend_from_slice(self.buffers.contents(buffer, length as usize));
            self.buffers.give_back(buffer);
            return;
        }
        self.queued[usize::from(buffer)] = QueuedBuffer { start: 0, end: length, next: NONE };
        if connection.length == 0 {
            connection.head = buffer;
        } else {
            self.queued[usize::from(connection.tail)].next = buffer;
        }
        connection.tail = buffer;
        connection.length += 1;
    }

    /// Takes the first buffer off the queue and gives it back.
    fn dequeue(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        let buffer = connection.head;
        connection.head = self.queued[usize::from(buffer)].next;
        connection.length -= 1;
        self.buffers.give_back(buffer);
    }

    /// A send of the turn that had no completion has sent all of its buffer.
    fn sent_unless_failed(&mut self, counters: &Counters, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        if !connection.sending || connection.blocked.is_some() {
            return Ok(());
        }
        connection.sending = false;
        self.dequeue(index);
        self.advance(counters, index)
    }

    /// A send that the socket did not take, or only a part of it: then `result` is how much.
    fn send_failed(&mut self, counters: &Counters, token: Token, result: i32) -> io::Result<()> {
        if self.is_late(token) {
            return Ok(());
        }
        let index = token.index;
        let connection = &mut self.connections[index as usize];
        connection.sending = false;
        let queued = &mut self.queued[usize::from(connection.head)];
        queued.start += result.max(0) as u32;
        counters.bytes_sent.take_back(u64::from(queued.end - queued.start));
        if result >= 0 {
            counters.short_sends.add(1);
            self.block(counters, index)?;
        } else if -result == libc::EAGAIN {
            counters.would_block.add(1);
            self.block(counters, index)?;
        } else {
            connection.failed = true;
        }
        self.advance(counters, index)
    }

    fn sent_patiently(&mut self, counters: &Counters, token: Token, result: i32) -> io::Result<()> {
        if self.is_late(token) {
            return Ok(());
        }
        let connection = &mut self.connections[token.index as usize];
        connection.sending = false;
        match (result, &mut connection.blocked) {
            (0.., Some(blocked)) => {
                counters.bytes_sent.add(result as u64);
                blocked.sent += result as usize;
                if blocked.sent < blocked.sending.len() {
                    counters.short_sends.add(1);
                } else if blocked.waiting.is_empty() {
                    connection.blocked = None;
                } else {
                    blocked.sending = std::mem::take(&mut blocked.waiting).into_boxed_slice();
                    blocked.sent = 0;
                }
            }
            // Only the stop cancels sends; what is owed stays owed, and the drain sends it.
            _ if -result == libc::ECANCELED && self.stopping => {}
            _ => connection.failed = true,
        }
        self.advance(counters, token.index)
    }

    /// The peer does not read: what it is owed moves to the heap, and its input waits.
    fn block(&mut self, counters: &Counters, index: u32) -> io::Result<()> {
        let sending = self.take_queue(index).into_boxed_slice();
        self.connections[index as usize].blocked = Some(Box::new(Blocked { sending, ..Blocked::default() }));
        counters.backpressure_pauses.add(1);
        self.cancel_receive(counters, index)
    }

    /// Copies out all that is queued and gives the buffers back.
    fn take_queue(&mut self, index: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.connections[index as usize].length > 0 {
            let head = self.connections[index as usize].head;
            let QueuedBuffer { start, end, .. } = self.queued[usize::from(head)];
            bytes.extend_from_slice(&self.buffers.contents(head, end as usize)[start as usize..]);
            self.dequeue(index);
        }
        bytes
    }

    /// Does what a connection needs next: send, pause or resume its input, or close.
    fn advance(&mut self, counters: &Counters, index: u32) -> io::Result<()> {
        if self.stopping {
            return Ok(());
        }
        if self.connections[index as usize].failed {
            self.cancel_receive(counters, index)?;
            if !self.connections[index as usize].sending {
                counters.bytes_abandoned.add(self.take_owed(index).len() as u64);
            }
        }
        self.send(counters, index)?;
        let limit = self.buffers_per_connection;
        let connection = &self.connections[index as usize];
        if connection.receiving {
            if connection.length > limit && !connection.cancelling {
                counters.backpressure_pauses.add(1);
                return self.cancel_receive(counters, index);
            }
        } else if !connection.ended && !connection.failed {
            if !connection.starved && connection.blocked.is_none() && connection.length <= limit / 2 {
                return self.receive(counters, index);
            }
        } else if !connection.sending {
            return self.close(counters, index);
        }
        Ok(())
    }

    /// Everything that a connection is owed, taken away from it. Only while no send is in flight.
    fn take_owed(&mut self, index: u32) -> Vec<u8> {
        match self.connections[index as usize].blocked.take() {
            None => self.take_queue(index),
            Some(blocked) => [&blocked.sending[blocked.sent..], &blocked.waiting].concat(),
        }
    }

    /// Whether a receive waits for a buffer, and one is there: the last turn may have fed connections that
    /// have nothing to say, and the next in the queue must not wait for them.
    fn can_feed(&self) -> bool {
        !self.starved.is_empty() && self.buffers.available() > 0
    }

    fn starve(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        connection.starved = true;
        self.starved.push_back((index, connection.generation));
    }

    /// Arms the receives that found no buffer, one for each buffer that is back at most.
    fn feed_the_starved(&mut self, counters: &Counters) -> io::Result<()> {
        for _ in 0..self.starved.len().min(self.buffers.available()) {
            let Some((index, generation)) = self.starved.pop_front() else { break };
            let connection = &mut self.connections[index as usize];
            if connection.open && connection.generation == generation && connection.starved {
                connection.starved = false;
                self.advance(counters, index)?;
            }
        }
        Ok(())
    }

    /// Takes back every request, then hands the connections to the drain.
    fn stop(mut self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        self.stopping = true;
        let mut completions = Vec::new();
        while self.in_flight > 0 || !self.ring.is_empty() {
            let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            self.push(counters, Token::of(Kind::Cancel, 0), entry)?;
            self.turn(counters, self.in_flight, Some(CANCEL_PATIENCE), &mut completions)?;
        }
        let mut owed = Vec::new();
        for index in 0..self.connections.len() as u32 {
            if self.connections[index as usize].open {
                let unsent = self.take_owed(index);
                // SAFETY: an open slot owns its descriptor, no request refers to it any more, and the slots
                // are dropped below.
                owed.push(Owed { fd: unsafe { sys::own(index as RawFd) }, unsent });
            }
        }
        drop(self);
        drain::drain(owed, stop.drain_time(), counters)
    }
}
