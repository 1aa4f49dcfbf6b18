//! The readiness loop over a [`Selector`].

use super::batch::Batch;
use super::selector::{Interest, Ready, Selector};
use crate::connection::{self, Unsent};
use crate::contract::{Backend, BackendFacts, Facts, Knob, Knobs, Unsupported, WorkerTask};
use crate::counters::Counters;
use crate::drain::{self, Owed};
use crate::error::{interrupted, would_block};
use crate::listener::{self, ACCEPTS_PER_TURN, AcceptPause, Accepted, Listener};
use crate::service::Conversation;
use crate::socket;
use crate::stop::Stop;
use crate::sys;
use crate::work::Work;
use crate::zero_copy;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

/// A knob that all backends of this loop have.
pub const ACCEPTS: Knob = Knob::number(
    "accepts_per_turn",
    ACCEPTS_PER_TURN as u64,
    1..=65_536,
    "connections accepted before the others get their turn, or until accept4 finds none; 1 saves \
     that last call, since the next wait reports who is left",
);

/// Receives from an edge-triggered connection before the others get their turn.
pub const RECEIVES_PER_TURN: usize = 16;

/// Sends of a conversation before the others get their turn.
pub const SENDS_PER_TURN: usize = 16;

/// A worker on one of the selectors.
pub struct Readiness<S, C: Conversation> {
    selector: S,
    listeners: Vec<Listener>,
    accepts_per_turn: usize,
    /// While it lasts, no listener is waited for.
    rest: AcceptPause,
    /// By fd: the kernel gives the lowest free number, so this stays dense.
    slots: Vec<Slot<C>>,
    terms: C::Terms,
    /// Whether a conversation's bytes are sent without a copy.
    zero_copy: bool,
    /// Connections that may have more input, but whose turn was over: no edge will come for it.
    unfinished: VecDeque<RawFd>,
    work: Work,
    batch: Batch,
}

/// The role of a descriptor in the loop.
#[derive(Default)]
enum Slot<C> {
    #[default]
    Free,
    Stop,
    Listener,
    Connection(Polled<C>),
}

#[derive(Default)]
struct Polled<C> {
    unsent: Unsent,
    conversation: C,
    /// In the queue of that name.
    unfinished: bool,
    /// An end or an urgent mark was reported, and the socket has not been found empty since.
    cut: bool,
    /// Its conversation waits for space.
    full: bool,
}

impl<C: Conversation> Polled<C> {
    fn owes(&self) -> bool {
        !self.unsent.is_empty() || self.conversation.owed_bytes() > 0
    }
}

impl<S: Selector, C: Conversation> Backend for Readiness<S, C> {
    type Conversation = C;

    const FACTS: BackendFacts = S::FACTS;

    fn probe(knobs: &Knobs, _workers: u16) -> Result<(), Unsupported> {
        S::probe(knobs)
    }

    fn new(task: WorkerTask<'_, C::Terms>) -> io::Result<Self> {
        let WorkerTask { listeners, knobs, service: terms, .. } = task;
        let selector = S::new(knobs)?;
        listeners.iter().try_for_each(|listener| selector.admit(listener.as_raw_fd()))?;
        let zero_copy = !C::ECHOES && zero_copy::is_on(knobs);
        if zero_copy {
            listeners
                .iter()
                .try_for_each(|listener| socket::set_zero_copy(listener.as_raw_fd()))?;
        }
        Ok(Self {
            selector,
            listeners,
            accepts_per_turn: knobs.size(ACCEPTS.name),
            rest: AcceptPause::default(),
            slots: connection::table()?,
            terms,
            zero_copy,
            unfinished: VecDeque::new(),
            work: Work::of(knobs),
            batch: Batch::of(knobs),
        })
    }

    fn in_force(&self) -> Facts {
        let trigger = if S::EDGE_TRIGGERED { "edge" } else { "level" };
        let mut facts = Facts::from_iter([("trigger".to_owned(), trigger.into())]);
        facts.extend(self.selector.in_force());
        facts
    }

    fn run(mut self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        self.selector.add_level(counters, stop.fd())?;
        *self.slot(stop.fd()) = Slot::Stop;
        for index in 0..self.listeners.len() {
            *self.slot(self.listeners[index].as_raw_fd()) = Slot::Listener;
        }
        self.listen(counters)?;
        loop {
            let timeout_ms = if self.unfinished.is_empty() { self.rest.timeout_ms() } else { 0 };
            let mut stopped = false;
            for index in 0..self.selector.wait(counters, timeout_ms)? {
                let ready = self.selector.ready(index);
                self.hear(counters, ready);
                match &mut self.slots[ready.fd as usize] {
                    Slot::Connection(connection) => {
                        connection.cut |= ready.cut;
                        if C::never_rests(self.terms) && connection.owes() {
                            connection.cut |= self.selector.has_input(index);
                        }
                        // Space for output matters only to a connection that owes something, and it
                        // owes nothing while it waits for input: then there is nothing to do but to
                        // receive.
                        if !ready.only_space || connection.owes() {
                            self.serve(counters, ready.fd);
                        }
                    }
                    Slot::Listener => self.accept(counters, ready.fd)?,
                    Slot::Stop => stopped = true,
                    Slot::Free => {}
                }
            }
            self.send_held(counters);
            if stopped {
                return self.stop(counters, stop);
            }
            for _ in 0..self.unfinished.len() {
                if let Some(fd) = self.unfinished.pop_front() {
                    if let Slot::Connection(connection) = &mut self.slots[fd as usize] {
                        connection.unfinished = false;
                    }
                    self.serve(counters, fd);
                }
            }
            self.send_held(counters);
            if self.rest.is_over(counters.closed.get()) {
                self.listen(counters)?;
            }
        }
    }
}

impl<S: Selector, C: Conversation> Readiness<S, C> {
    /// Takes what the kernel tells of sends without a copy.
    #[inline(always)]
    fn hear(&self, counters: &Counters, ready: Ready) {
        if !C::ECHOES && self.zero_copy && ready.failed {
            // A broken connection is found so by the next receive or send.
            let _ = zero_copy::take_notifications(counters, ready.fd);
        }
    }

    fn slot(&mut self, fd: RawFd) -> &mut Slot<C> {
        let index = fd as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        &mut self.slots[index]
    }

    /// Waits for connections.
    fn listen(&mut self, counters: &Counters) -> io::Result<()> {
        self.listeners
            .iter()
            .try_for_each(|listener| self.selector.add_listener(counters, listener.as_raw_fd()))
    }

    /// Stops waiting for connections, so that accepting in vain does not spin; they wait in the
    /// queue.
    fn pause_listening(&mut self, counters: &Counters) -> io::Result<()> {
        for listener in &self.listeners {
            self.selector.remove(counters, listener.as_raw_fd())?;
        }
        self.rest.begin(counters.closed.get());
        Ok(())
    }

    fn accept(&mut self, counters: &Counters, listener: RawFd) -> io::Result<()> {
        if self.rest.left().is_some() {
            return Ok(());
        }
        for _ in 0..self.accepts_per_turn {
            match listener::accept(counters, listener, sys::accept4)? {
                Accepted::Connection(socket) => self.open(counters, socket),
                Accepted::Drained => break,
                Accepted::Paused => return self.pause_listening(counters),
            }
        }
        Ok(())
    }

    fn open(&mut self, counters: &Counters, socket: OwnedFd) {
        if self.selector.add_connection(counters, socket.as_raw_fd()).is_err() {
            // Out of memory or of epoll watches: this connection is refused, the others go on.
            sys::close(counters, socket);
            counters.closed.add(1);
            return;
        }
        *self.slot(socket.into_raw_fd()) = Slot::Connection(Polled::default());
    }

    /// Sends what is owed, or receives and answers until there is no input, the peer takes no more,
    /// or its turn is over.
    fn serve(&mut self, counters: &Counters, fd: RawFd) {
        let Slot::Connection(connection) = &mut self.slots[fd as usize] else { return };
        if !connection.unsent.is_empty() {
            if connection.unsent.flush(counters, fd).is_err() {
                return self.close(counters, fd);
            }
            if !connection.unsent.is_empty() {
                return;
            }
            if !S::EDGE_TRIGGERED {
                // The next wait reports input that has come meanwhile.
                return self.wait_for(counters, fd, Interest::Input);
            }
        }
        let mut cut = connection.cut;
        if !C::ECHOES && connection.conversation.owed_bytes() > 0 {
            let is_done = self.reply(counters, fd);
            let looks_for_end = cut && C::never_rests(self.terms);
            if !is_done && !looks_for_end {
                return;
            }
            if is_done && !S::EDGE_TRIGGERED {
                return self.wait_for(counters, fd, Interest::Input);
            }
            cut = true;
        }
        for _ in 0..if S::EDGE_TRIGGERED { RECEIVES_PER_TURN } else { 1 } {
            let received = match sys::recv(counters, fd, self.batch.room(), 0) {
                Ok(0) => return self.ended(counters, fd),
                Ok(received) => received,
                Err(error) if would_block(&error) => {
                    counters.would_block.add(1);
                    if let Slot::Connection(connection) = &mut self.slots[fd as usize] {
                        connection.cut = false;
                    }
                    return;
                }
                Err(error) if interrupted(&error) => continue,
                Err(_) => return self.close(counters, fd),
            };
            counters.bytes_received.add(received as u64);
            self.work.perform(counters);
            let drained = received < self.batch.receive_bytes() && !cut;
            if !C::ECHOES && !self.take_in(counters, fd, received) {
                return;
            }
            if drained && self.batch.holds_back() {
                if self.batch.hold(fd, if C::ECHOES { received } else { 0 }) {
                    self.send_held(counters);
                }
                return;
            }
            if !self.answer(counters, fd, self.batch.received(received)) || drained {
                return;
            }
        }
        if S::EDGE_TRIGGERED {
            self.resume_later(fd);
        }
    }

    /// Sends the held answers, in the order in which they were received.
    fn send_held(&mut self, counters: &Counters) {
        let mut index = 0;
        while let Some((fd, place)) = self.batch.held(index) {
            self.answer(counters, fd, place);
            index += 1;
        }
        self.batch.clear();
    }

    /// Sends what lies in the buffer to a connection that owes nothing. Whether more may be
    /// received from it.
    fn answer(&mut self, counters: &Counters, fd: RawFd, place: Range<usize>) -> bool {
        if !C::ECHOES {
            return self.reply(counters, fd);
        }
        let Slot::Connection(connection) = &mut self.slots[fd as usize] else { return false };
        let bytes = self.batch.bytes(place);
        if connection.unsent.send_or_keep(counters, fd, bytes).is_err() {
            counters.bytes_abandoned.add(bytes.len() as u64);
            self.close(counters, fd);
            return false;
        }
        if connection.unsent.is_empty() {
            return true;
        }
        counters.backpressure_pauses.add(1);
        if !S::EDGE_TRIGGERED {
            self.wait_for(counters, fd, Interest::Output);
        }
        false
    }

    /// Hands what lies in the buffer to its conversation; false if that ends it.
    fn take_in(&mut self, counters: &Counters, fd: RawFd, received: usize) -> bool {
        let Slot::Connection(connection) = &mut self.slots[fd as usize] else { return false };
        let bytes = self.batch.bytes(self.batch.received(received));
        let is_right = connection.conversation.receive(self.terms, counters, bytes).is_ok();
        if !is_right {
            counters.mismatches.add(1);
            self.close(counters, fd);
        }
        is_right
    }

    /// Sends what a conversation owes, as far as the socket takes it and its turn lasts. Whether
    /// that is all, so that more may be received from it.
    fn reply(&mut self, counters: &Counters, fd: RawFd) -> bool {
        let Slot::Connection(connection) = &mut self.slots[fd as usize] else { return false };
        for _ in 0..SENDS_PER_TURN {
            let owed = connection.conversation.owed(self.terms);
            if owed.is_empty() {
                connection.full = false;
                return true;
            }
            let outcome = if self.zero_copy {
                zero_copy::send(counters, fd, owed)
            } else {
                sys::send(counters, fd, owed, 0)
            };
            let Ok(sent) = connection::sent(counters, owed.len(), outcome) else {
                self.close(counters, fd);
                return false;
            };
            connection.conversation.sent(self.terms, sent);
            if sent < owed.len() {
                counters.backpressure_pauses.add(u64::from(!connection.full));
                self.wait_for_space(counters, fd);
                return false;
            }
        }
        if S::EDGE_TRIGGERED {
            self.resume_later(fd);
        } else {
            self.wait_for_space(counters, fd);
        }
        false
    }

    /// Waits for space, and for input too where a conversation never rests: it is the peer's end.
    fn wait_for_space(&mut self, counters: &Counters, fd: RawFd) {
        let Slot::Connection(connection) = &mut self.slots[fd as usize] else { return };
        let looks_for_end = C::never_rests(self.terms) && !connection.cut;
        if !std::mem::replace(&mut connection.full, true) && !S::EDGE_TRIGGERED {
            let interest = if looks_for_end { Interest::Either } else { Interest::Output };
            self.wait_for(counters, fd, interest);
        }
    }

    /// The peer has sent its end: its connection is closed once nothing is owed.
    fn ended(&mut self, counters: &Counters, fd: RawFd) {
        let Slot::Connection(connection) = &mut self.slots[fd as usize] else { return };
        connection.conversation.end();
        connection.cut = false;
        if !connection.owes() {
            return self.close(counters, fd);
        }
        // Its end would be reported for ever.
        if connection.full && !S::EDGE_TRIGGERED {
            self.wait_for(counters, fd, Interest::Output);
        }
    }

    /// Has a connection served again without an event: an edge may have come while its turn was
    /// waited for.
    fn resume_later(&mut self, fd: RawFd) {
        if let Slot::Connection(connection) = &mut self.slots[fd as usize]
            && !std::mem::replace(&mut connection.unfinished, true)
        {
            self.unfinished.push_back(fd);
        }
    }

    /// Waits for something else; a connection for which that fails would never be served again.
    fn wait_for(&mut self, counters: &Counters, fd: RawFd, interest: Interest) {
        if self.selector.change(counters, fd, interest).is_err() {
            self.close(counters, fd);
        }
    }

    fn close(&mut self, counters: &Counters, fd: RawFd) {
        let Slot::Connection(connection) = std::mem::take(&mut self.slots[fd as usize]) else {
            return;
        };
        let owed = connection.unsent.len() as u64 + connection.conversation.owed_bytes();
        counters.bytes_abandoned.add(owed);
        if connection.unfinished {
            self.unfinished.retain(|&other| other != fd);
        }
        self.selector.closing(fd);
        // SAFETY: the slot held a connection, so it owned this fd, and it is free now.
        sys::close(counters, unsafe { sys::own(fd) });
        counters.closed.add(1);
    }

    fn stop(self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        drop((self.listeners, self.selector));
        let owed = self
            .slots
            .into_iter()
            .enumerate()
            .filter_map(|(fd, slot)| match slot {
                Slot::Connection(mut connection) => Some(Owed {
                    // SAFETY: the slot of a connection owns its fd, and the slots are used up here.
                    fd: unsafe { sys::own(fd as RawFd) },
                    unsent: connection.unsent.take(),
                    conversation: connection.conversation,
                }),
                Slot::Free | Slot::Stop | Slot::Listener => None,
            })
            .collect();
        drain::drain(owed, self.terms, stop.drain_time(), counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Echo;

    #[test]
    fn idle_connections_are_small() {
        assert_eq!(size_of::<Slot<Echo>>(), 16);
    }
}
