//! The floor that memory is measured against: a server that accepts and holds, and never reads.
//!
//! Nothing in the kernel watches its connections, so what they cost is what two TCP endpoints cost.
//! To see that a peer has left it asks poll(2) about all of them once a second, which leaves
//! nothing behind.

use crate::contract::{Backend, BackendFacts, Knobs, Needs, Unsupported, WorkerTask};
use crate::counters::Counters;
use crate::drain::{self, Owed};
use crate::listener::{self, ACCEPTS_PER_TURN, AcceptPause, Accepted, Listener};
use crate::service::Conversation;
use crate::stop::Stop;
use crate::sys;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Accepts and holds.
pub struct Null<C: Conversation> {
    listeners: Vec<Listener>,
    connections: Vec<OwnedFd>,
    terms: C::Terms,
}

impl<C: Conversation> Backend for Null<C> {
    type Conversation = C;

    const FACTS: BackendFacts = BackendFacts {
        name: "null",
        summary: "accepts and holds, never reads: the floor that memory is measured against",
        echoes: false,
        needs: Needs { linux: "3.2", default_container: true, limits: "none" },
        ..BackendFacts::DEFAULT
    };

    fn probe(_knobs: &Knobs, _workers: u16) -> Result<(), Unsupported> {
        Ok(())
    }

    fn new(task: WorkerTask<'_, C::Terms>) -> io::Result<Self> {
        Ok(Self { listeners: task.listeners, connections: Vec::new(), terms: task.service })
    }

    fn run(mut self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        let mut waited_for = vec![readable(stop.fd())];
        waited_for.extend(self.listeners.iter().map(|listener| readable(listener.as_raw_fd())));
        let mut rest = AcceptPause::default();
        let mut last_sweep = Instant::now();
        loop {
            // While accepting rests, a listener would wake the loop at once and for ever.
            let watched =
                if rest.left().is_some() { &mut waited_for[..1] } else { &mut waited_for[..] };
            sys::poll(counters, watched, SWEEP_INTERVAL.as_millis() as i32)?;
            if waited_for[0].revents != 0 {
                break;
            }
            if last_sweep.elapsed() >= SWEEP_INTERVAL {
                self.release_the_left(counters)?;
                last_sweep = Instant::now();
            }
            if (rest.left().is_none() || rest.is_over(counters.closed.get()))
                && self.accept_all(counters)?
            {
                rest.begin(counters.closed.get());
            }
        }
        drop(self.listeners);
        let held = self.connections.into_iter();
        let owed =
            held.map(|fd| Owed { fd, unsent: Vec::new(), conversation: C::default() }).collect();
        drain::drain(owed, self.terms, stop.drain_time(), counters)
    }
}

impl<C: Conversation> Null<C> {
    /// Accepts what is there, or so many for now; true when accepting must rest.
    fn accept_all(&mut self, counters: &Counters) -> io::Result<bool> {
        for listener in &self.listeners {
            for _ in 0..ACCEPTS_PER_TURN {
                match listener::accept(counters, listener.as_raw_fd(), sys::accept4)? {
                    Accepted::Connection(fd) => self.connections.push(fd),
                    Accepted::Drained => break,
                    Accepted::Paused => return Ok(true),
                }
            }
        }
        Ok(false)
    }

    /// Closes the connections that their peers have closed or reset.
    fn release_the_left(&mut self, counters: &Counters) -> io::Result<()> {
        let mut polled: Vec<libc::pollfd> = self
            .connections
            .iter()
            .map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 })
            .collect();
        sys::poll(counters, &mut polled, 0)?;
        for index in (0..polled.len()).rev() {
            if polled[index].revents != 0 {
                sys::close(counters, self.connections.swap_remove(index));
                counters.closed.add(1);
            }
        }
        Ok(())
    }
}

fn readable(fd: i32) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}
