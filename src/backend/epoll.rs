//! The tuned epoll reactor.
//!
//! A connection is registered once, edge-triggered, for input, output and the peer's end; no `epoll_ctl`
//! follows until it is closed. It is read into one buffer per worker and answered at once. Asking for
//! EPOLLOUT as well is free for messages that the send buffer takes easily: TCP reports space only where
//! it was short (SOCK_NOSPACE), so there is no wake-up for it but the one at registration.
//!
//! A receive that fills less than the buffer has drained the socket (epoll(7), "Do I need to continuously
//! read/write a file descriptor until EAGAIN …?"), so an echo takes one wait, one recv and one send. TCP's
//! urgent mark cuts a receive short too: urgent data is no part of the echo protocol, and what follows it may
//! wait for the next input.

use super::{Backend, Facts, Knob, Knobs, Needs, Unsupported};
use crate::connection::Unsent;
use crate::counters::Counters;
use crate::drain::{self, Owed};
use crate::listener::{self, Accepted, Rest};
use crate::stop::Stop;
use crate::sys;
use crate::work::{WORK_NS, Work};
use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

const CONNECTION_EVENTS: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;

/// Set in `epoll_event.data` for a listener; the rest is its index. Without it: a connection's fd.
const LISTENER: u64 = 1 << 32;
const STOP: u64 = 1 << 33;

/// Receives from one connection before the others get their turn.
const RECEIVES_PER_TURN: usize = 16;

/// Connections accepted before the others get their turn.
const ACCEPTS_PER_TURN: usize = 256;

/// Edge-triggered epoll.
pub struct EpollEdge {
    epoll: OwnedFd,
    listeners: Vec<TcpListener>,
    /// While it lasts, no listener is in the epoll set.
    rest: Rest,
    /// By fd: the kernel gives the lowest free number, so this stays dense.
    connections: Vec<Connection>,
    /// Connections that may have more input, but whose turn was over: no edge will come for it.
    unfinished: VecDeque<RawFd>,
    work: Work,
    events: Vec<libc::epoll_event>,
    buffer: Vec<u8>,
}

#[derive(Default)]
struct Connection {
    unsent: Unsent,
    open: bool,
    /// In the queue of that name.
    unfinished: bool,
    /// The peer has sent its end, so a short receive does not mean that nothing follows.
    ended: bool,
}

impl Backend for EpollEdge {
    const NAME: &'static str = "epoll-et";
    const SUMMARY: &'static str =
        "edge-triggered, registered once, one receive buffer a worker, sent at once";
    const NEEDS: Needs = Needs { linux: "3.2", default_container: true, limits: "fs.epoll.max_user_watches" };
    const KNOBS: &'static [Knob] = &[
        Knob::number("receive_bytes", 65_536, 64..=16_777_216, "receive buffer of a worker, in bytes"),
        Knob::number("events_per_wait", 1024, 1..=65_536, "events taken by one epoll_wait at most"),
        WORK_NS,
    ];

    fn probe(_knobs: &Knobs) -> Result<(), Unsupported> {
        match sys::epoll_create() {
            Ok(_) => Ok(()),
            Err(error) => Err(Unsupported { reason: format!("epoll_create1: {error}") }),
        }
    }

    fn new(listeners: Vec<TcpListener>, knobs: &Knobs) -> io::Result<Self> {
        Ok(Self {
            epoll: sys::epoll_create()?,
            listeners,
            rest: Rest::default(),
            connections: Vec::new(),
            unfinished: VecDeque::new(),
            work: Work::of(knobs),
            events: vec![libc::epoll_event { events: 0, u64: 0 }; knobs.size("events_per_wait")],
            buffer: vec![0; knobs.size("receive_bytes")],
        })
    }

    fn in_force(&self) -> Facts {
        Facts::from_iter([("trigger".to_owned(), "edge".into())])
    }

    fn run(mut self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        let epoll = self.epoll.as_raw_fd();
        sys::epoll_ctl(counters, epoll, libc::EPOLL_CTL_ADD, stop.fd(), libc::EPOLLIN as u32, STOP)?;
        self.listen(counters)?;
        let mut events = std::mem::take(&mut self.events);
        loop {
            let timeout_ms = match (self.unfinished.is_empty(), self.rest.left()) {
                (false, _) => 0,
                (true, None) => -1,
                // A millisecond more, or the wait could end just before the rest does.
                (true, Some(left)) => left.as_millis() as i32 + 1,
            };
            let ready = sys::epoll_wait(counters, epoll, &mut events, timeout_ms)?;
            let mut stopped = false;
            for event in &events[..ready] {
                let libc::epoll_event { events: ready, u64: data } = *event;
                match data {
                    STOP => stopped = true,
                    _ if data & LISTENER != 0 => self.accept(counters, (data - LISTENER) as usize)?,
                    _ => self.ready(counters, data as RawFd, ready),
                }
            }
            if stopped {
                return self.stop(counters, stop);
            }
            for _ in 0..self.unfinished.len() {
                if let Some(fd) = self.unfinished.pop_front() {
                    self.connections[fd as usize].unfinished = false;
                    self.serve(counters, fd);
                }
            }
            if self.rest.is_over(counters) {
                self.listen(counters)?;
            }
        }
    }
}

impl EpollEdge {
    /// Waits for connections, level-triggered: a queue that is not emptied reports again.
    fn listen(&mut self, counters: &Counters) -> io::Result<()> {
        for (index, listener) in self.listeners.iter().enumerate() {
            let (epoll, fd) = (self.epoll.as_raw_fd(), listener.as_raw_fd());
            let data = LISTENER | index as u64;
            sys::epoll_ctl(counters, epoll, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN as u32, data)?;
        }
        Ok(())
    }

    /// Stops waiting for connections, so that a full table does not spin; they wait in the queue.
    fn pause_listening(&mut self, counters: &Counters) -> io::Result<()> {
        for listener in &self.listeners {
            let (epoll, fd) = (self.epoll.as_raw_fd(), listener.as_raw_fd());
            sys::epoll_ctl(counters, epoll, libc::EPOLL_CTL_DEL, fd, 0, 0)?;
        }
        self.rest.begin(counters);
        Ok(())
    }

    fn accept(&mut self, counters: &Counters, index: usize) -> io::Result<()> {
        if self.rest.left().is_some() {
            return Ok(());
        }
        for _ in 0..ACCEPTS_PER_TURN {
            let listener = self.listeners[index].as_raw_fd();
            match listener::accept(counters, listener, sys::accept4)? {
                Accepted::Connection(fd) => self.open(counters, fd),
                Accepted::Drained => break,
                Accepted::Exhausted => return self.pause_listening(counters),
            }
        }
        Ok(())
    }

    fn open(&mut self, counters: &Counters, socket: OwnedFd) {
        let fd = socket.as_raw_fd();
        let epoll = self.epoll.as_raw_fd();
        let added = sys::epoll_ctl(counters, epoll, libc::EPOLL_CTL_ADD, fd, CONNECTION_EVENTS, fd as u64);
        if added.is_err() {
            // Out of memory or of epoll watches: this connection is refused, the others go on.
            sys::close(counters, socket);
            counters.closed.add(1);
            return;
        }
        let index = socket.into_raw_fd() as usize;
        if index >= self.connections.len() {
            self.connections.resize_with(index + 1, Connection::default);
        }
        self.connections[index] = Connection { open: true, ..Connection::default() };
    }

    fn ready(&mut self, counters: &Counters, fd: RawFd, events: u32) {
        let connection = &mut self.connections[fd as usize];
        if events & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0 {
            connection.ended = true;
        }
        // Space for output matters only to a connection that owes something, and it owes nothing while it
        // waits for input: then there is nothing to do but to receive.
        if events & !(libc::EPOLLOUT as u32) != 0 || !connection.unsent.is_empty() {
            self.serve(counters, fd);
        }
    }

    /// Sends what is owed, then receives and sends until there is no input or the peer takes no more.
    fn serve(&mut self, counters: &Counters, fd: RawFd) {
        let connection = &mut self.connections[fd as usize];
        if !connection.open {
            return;
        }
        if !connection.unsent.is_empty() {
            match connection.unsent.flush(counters, fd) {
                Ok(()) if connection.unsent.is_empty() => {}
                Ok(()) => return,
                Err(_) => return self.close(counters, fd),
            }
        }
        for _ in 0..RECEIVES_PER_TURN {
            let received = match sys::recv(counters, fd, &mut self.buffer, 0) {
                Ok(0) => return self.close(counters, fd),
                Ok(received) => received,
                Err(error) if sys::would_block(&error) => {
                    counters.would_block.add(1);
                    return;
                }
                Err(error) if sys::interrupted(&error) => continue,
                Err(_) => return self.close(counters, fd),
            };
            counters.bytes_received.add(received as u64);
            self.work.perform();
            if connection.unsent.send_or_keep(counters, fd, &self.buffer[..received]).is_err() {
                counters.bytes_abandoned.add(received as u64);
                return self.close(counters, fd);
            }
            if !connection.unsent.is_empty() {
                counters.backpressure_pauses.add(1);
                return;
            }
            if received < self.buffer.len() && !connection.ended {
                return;
            }
        }
        // Once: an edge may have come while its turn was waited for.
        if !connection.unfinished {
            connection.unfinished = true;
            self.unfinished.push_back(fd);
        }
    }

    fn close(&mut self, counters: &Counters, fd: RawFd) {
        let connection = std::mem::take(&mut self.connections[fd as usize]);
        counters.bytes_abandoned.add(connection.unsent.len() as u64);
        if connection.unfinished {
            self.unfinished.retain(|&other| other != fd);
        }
        // SAFETY: the slot was open, so it owned this fd, and it is empty now. Closing it also takes it
        // out of the epoll set, since no other descriptor refers to the socket (epoll(7)).
        sys::close(counters, unsafe { sys::own(fd) });
        counters.closed.add(1);
    }

    fn stop(self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        drop((self.listeners, self.epoll));
        let owed = self
            .connections
            .into_iter()
            .enumerate()
            .filter(|(_, connection)| connection.open)
            .map(|(fd, mut connection)| Owed {
                // SAFETY: an open slot owns its fd, and the slots are used up here.
                fd: unsafe { sys::own(fd as RawFd) },
                unsent: connection.unsent.take(),
            })
            .collect();
        drain::drain(owed, stop.drain_time(), counters)
    }
}
