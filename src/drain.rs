//! The end of every backend: what was read is sent, then the connections are closed so that nothing
//! owed is lost.
//!
//! A close() with unread input resets the connection, and the reset destroys what the peer has not
//! read yet. So each connection gets what it is owed, then the end of the stream, then its input is
//! thrown away until the peer closes too. This happens after the measuring and is the same for all,
//! by poll(2).

use crate::counters::Counters;
use crate::error::would_block;
use crate::sys;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A connection at the moment of the stop signal.
pub struct Owed {
    /// The socket.
    pub fd: OwnedFd,
    /// Bytes that were read from it and not yet sent back.
    pub unsent: Vec<u8>,
}

/// Receives from one connection before the others get their turn and the deadline is looked at.
const RECEIVES_PER_TURN: usize = 16;

struct Draining {
    fd: OwnedFd,
    unsent: Vec<u8>,
    sent: usize,
}

impl Draining {
    fn owed(&self) -> &[u8] {
        &self.unsent[self.sent..]
    }

    /// Goes as far as the socket allows; true once the connection may be closed.
    fn advance(&mut self, counters: &Counters, scratch: &mut [u8]) -> bool {
        let fd = self.fd.as_raw_fd();
        while !self.owed().is_empty() {
            match sys::send(counters, fd, self.owed(), libc::MSG_DONTWAIT) {
                Ok(sent) => {
                    counters.bytes_sent.add(sent as u64);
                    self.sent += sent;
                    if self.owed().is_empty() && sys::shutdown_write(counters, fd).is_err() {
                        return true;
                    }
                }
                Err(error) => return !would_block(&error),
            }
        }
        for _ in 0..RECEIVES_PER_TURN {
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
pub fn drain(connections: Vec<Owed>, time: Duration, counters: &Counters) -> io::Result<()> {
    let deadline = Instant::now() + time;
    let mut scratch = vec![0; 64 * 1024];
    let mut draining: Vec<Draining> = connections
        .into_iter()
        .map(|Owed { fd, unsent }| {
            if unsent.is_empty() {
                // The peer may be gone already; the first advance() notices.
                let _ = sys::shutdown_write(counters, fd.as_raw_fd());
            }
            Draining { fd, unsent, sent: 0 }
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
        polled.extend(draining.iter().map(|connection| libc::pollfd {
            fd: connection.fd.as_raw_fd(),
            events: if connection.owed().is_empty() { libc::POLLIN } else { libc::POLLOUT },
            revents: 0,
        }));
        let timeout_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
        sys::poll(counters, &mut polled, timeout_ms)?;
    }
    for connection in draining {
        close(connection, counters);
    }
    Ok(())
}

fn close(connection: Draining, counters: &Counters) {
    counters.bytes_abandoned.add(connection.owed().len() as u64);
    sys::close(counters, connection.fd);
    counters.closed.add(1);
}
