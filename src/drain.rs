//! The end of every backend: what was read is sent, then the connections are closed so that nothing
//! owed is lost.
//!
//! A close() with unread input resets the connection, and the reset destroys what the peer has not
//! read yet. So each connection gets what it is owed, then the end of the stream, then its input is
//! thrown away until the peer closes too. This happens after the measuring and is the same for all,
//! by poll(2).

use crate::counters::Counters;
use crate::error::would_block;
use crate::service::Conversation;
use crate::sys;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A connection at the moment of the stop signal.
pub struct Owed<C> {
    /// The socket.
    pub fd: OwnedFd,
    /// Bytes that were read from it and not yet sent back.
    pub unsent: Vec<u8>,
    /// Its conversation.
    pub conversation: C,
}

/// Sends to one connection, and receives from it, before the others get their turn and the deadline
/// is looked at.
const CALLS_PER_TURN: usize = 16;

struct Draining<C: Conversation> {
    connection: Owed<C>,
    sent: usize,
    terms: C::Terms,
}

impl<C: Conversation> Draining<C> {
    fn owed(&self) -> &[u8] {
        match &self.connection.unsent[self.sent..] {
            [] => self.connection.conversation.owed(self.terms),
            unsent => unsent,
        }
    }

    fn owed_bytes(&self) -> u64 {
        let unsent = self.connection.unsent.len() - self.sent;
        unsent as u64 + self.connection.conversation.owed_bytes()
    }

    fn sent(&mut self, length: usize) {
        if self.sent < self.connection.unsent.len() {
            self.sent += length;
        } else {
            self.connection.conversation.sent(self.terms, length);
        }
    }

    /// Goes as far as the socket allows; true once the connection may be closed.
    fn advance(&mut self, counters: &Counters, scratch: &mut [u8]) -> bool {
        let fd = self.connection.fd.as_raw_fd();
        for _ in 0..CALLS_PER_TURN {
            if self.owed().is_empty() {
                break;
            }
            match sys::send(counters, fd, self.owed(), libc::MSG_DONTWAIT) {
                Ok(sent) => {
                    counters.bytes_sent.add(sent as u64);
                    self.sent(sent);
                    if self.owed().is_empty() && sys::shutdown_write(counters, fd).is_err() {
                        return true;
                    }
                }
                Err(error) => return !would_block(&error),
            }
        }
        if !self.owed().is_empty() {
            return false;
        }
        for _ in 0..CALLS_PER_TURN {
            match sys::recv(counters, fd, scratch, libc::MSG_DONTWAIT) {
                Ok(0) => return true,
                Ok(received) => counters.bytes_discarded.add(received as u64),
                Err(error) => return !would_block(&error),
            }
        }
        false
    }
}

/// Sends what is owed, and closes each connection when its peer has, or when `time` is over.
pub fn drain<C: Conversation>(
    connections: Vec<Owed<C>>,
    terms: C::Terms,
    time: Duration,
    counters: &Counters,
) -> io::Result<()> {
    let deadline = Instant::now() + time;
    let mut scratch = vec![0; 64 * 1024];
    let mut draining: Vec<Draining<C>> = connections
        .into_iter()
        .map(|mut connection| {
            connection.conversation.end();
            let draining = Draining { connection, sent: 0, terms };
            if draining.owed().is_empty() {
                // The peer may be gone already; the first advance() notices.
                let _ = sys::shutdown_write(counters, draining.connection.fd.as_raw_fd());
            }
            draining
        })
        .collect();
    let mut polled: Vec<libc::pollfd> = Vec::new();
    loop {
        let mut index = 0;
        while index < draining.len() {
            let ready = polled.get(index).is_none_or(|entry| entry.revents != 0);
            if ready && draining[index].advance(counters, &mut scratch) {
                close(draining.swap_remove(index), counters);
                if index < polled.len() {
                    polled.swap_remove(index);
                }
            } else {
                index += 1;
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if draining.is_empty() || left.is_zero() {
            break;
        }
        polled.clear();
        polled.extend(draining.iter().map(|draining| libc::pollfd {
            fd: draining.connection.fd.as_raw_fd(),
            events: if draining.owed().is_empty() { libc::POLLIN } else { libc::POLLOUT },
            revents: 0,
        }));
        let timeout_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
        sys::poll(counters, &mut polled, timeout_ms)?;
    }
    for draining in draining {
        close(draining, counters);
    }
    Ok(())
}

fn close<C: Conversation>(draining: Draining<C>, counters: &Counters) {
    counters.bytes_abandoned.add(draining.owed_bytes());
    sys::close(counters, draining.connection.fd);
    counters.closed.add(1);
}
