//! Input: polls, receives, and the wait for a buffer.

use super::connection::{State, is_late, take_pieces};
use super::connections::Provided;
use super::techniques::Technique;
use crate::backend::uring::{
    core::Core,
    request::Request,
    ring::Completion,
    token::{RequestKind, Token},
};
use crate::service::Conversation;
use std::io;

impl<T: Technique, C: Conversation> Provided<T, C> {
    pub fn poll(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        self.at(index).set(State::Polling);
        core.request(
            self.token(RequestKind::Poll, index),
            Request::poll_multishot(Self::socket(index)),
        )
    }

    pub fn receive(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        if self.buffers.available() == 0 {
            // The kernel would refuse at once, even while nothing has arrived.
            self.starve(index);
            return Ok(());
        }
        self.at(index).set(State::Receiving);
        let socket = Self::socket(index);
        let request = if T::POLL || self.connections[index as usize].is(State::Cut) {
            Request::receive_now(socket)
        } else if T::BUNDLE {
            Request::receive_bundles(socket, self.bytes_at_once)
        } else {
            Request::receive_multishot(socket)
        };
        core.request(self.token(RequestKind::Receive, index), request)
    }

    /// Takes back the request that brings input, the receive or the poll.
    pub fn cancel_input(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        let connection = self.at(index);
        let armed =
            if T::POLL { connection.is(State::Polling) } else { connection.is(State::Receiving) };
        if !armed || connection.is(State::Cancelling) {
            return Ok(());
        }
        connection.set(State::Cancelling);
        let target =
            self.token(if T::POLL { RequestKind::Poll } else { RequestKind::Receive }, index);
        core.request(self.token(RequestKind::Cancel, index), Request::cancel(target))
    }

    pub fn polled(
        &mut self,
        core: &mut Core,
        index: u32,
        completion: &Completion,
    ) -> io::Result<()> {
        if !T::POLL {
            return self.watched(core, index, completion);
        }
        let connection = self.at(index);
        if completion.result > 0 {
            connection.set(State::Readable);
            let ends = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
            if completion.result & i32::from(ends) != 0 {
                connection.set(State::Cut);
            }
        }
        if !completion.more() {
            connection.clear(State::Polling);
            let wanted =
                !connection.is(State::Cancelling) && !connection.is_over() && !core.stopping;
            connection.clear(State::Cancelling);
            if wanted {
                core.counters.rearms.add(1);
                self.poll(core, index)?;
            }
        }
        self.advance(core, index)
    }

    /// Watches for what a receive may never tell of, a reset or a Unix socket's end: see "Ends" in
    /// the root of these files.
    pub fn watch(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        self.at(index).set(State::Polling);
        let socket = Self::socket(index);
        let request =
            if core.is_unix { Request::poll_end(socket) } else { Request::poll_broken(socket) };
        core.request(self.token(RequestKind::Poll, index), request)
    }

    /// The watch has ended: what is left is received, up to the error.
    fn watched(&mut self, core: &mut Core, index: u32, completion: &Completion) -> io::Result<()> {
        let connection = self.at(index);
        connection.clear(State::Polling);
        if completion.result > 0 && !core.stopping {
            connection.set(State::Cut);
            self.cancel_input(core, index)?;
        } else if !connection.is(State::Receiving) {
            connection.clear(State::Cancelling);
        }
        self.advance(core, index)
    }

    /// Takes back the watch of a connection on which nothing else is under way.
    pub fn cancel_watch(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        if self.at(index).is(State::Cancelling) {
            return Ok(());
        }
        self.at(index).set(State::Cancelling);
        let target = self.token(RequestKind::Poll, index);
        core.request(self.token(RequestKind::Cancel, index), Request::cancel(target))
    }

    /// A receive that has ended without bytes, or whose connection has.
    #[cold]
    pub fn received_nothing(
        &mut self,
        core: &mut Core,
        token: Token,
        completion: &Completion,
    ) -> io::Result<()> {
        let index = token.index;
        self.discard(completion);
        let connection = self.at(index);
        if is_late(connection, token) {
            core.came_late(token);
            return Ok(());
        }
        if !completion.more() {
            connection.receive_ended::<T>();
        }
        match -completion.result {
            0 => {
                connection.set(State::Ended);
                connection.conversation.end();
            }
            libc::ECANCELED => {}
            libc::ENOBUFS => {
                core.counters.no_buffers.add(1);
                self.buffers.begin_more();
                self.starve(index);
            }
            // Only the receive that follows a poll does not wait.
            libc::EAGAIN if T::POLL => core.counters.would_block.add(1),
            _ => connection.set(State::Failed),
        }
        self.advance(core, index)
    }

    /// Gives back what a receive has filled, or the buffer that it picked for nothing.
    fn discard(&mut self, completion: &Completion) {
        take_pieces::<T>(&mut self.buffers, completion, |buffers, piece| buffers.give_back(piece));
    }

    fn starve(&mut self, index: u32) {
        self.may_be_followed = true;
        let connection = &mut self.connections[index as usize];
        connection.set(State::Starved);
        connection.set(State::Readable);
        self.starved.push_back((index, connection.generation));
    }

    /// Arms the receives that found no buffer, as far as the buffers that are back are enough for
    /// them.
    pub fn feed_the_starved(&mut self, core: &mut Core) -> io::Result<()> {
        let available = self.buffers.available();
        let most = if available == 0 { 0 } else { (available / self.buffers_at_once).max(1) };
        for _ in 0..self.starved.len().min(most) {
            let Some((index, generation)) = self.starved.pop_front() else { break };
            let connection = self.at(index);
            if connection.is(State::Open)
                && connection.generation == generation
                && connection.is(State::Starved)
            {
                connection.clear(State::Starved);
                self.advance(core, index)?;
            }
        }
        Ok(())
    }
}
