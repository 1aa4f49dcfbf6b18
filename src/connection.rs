//! The memory that a loop keeps for each connection.

use crate::counters::Counters;
use crate::error::would_block;
use crate::process;
use crate::sys;
use std::io;
use std::os::fd::RawFd;

/// Connections that a [`table`] has room for at most, even where files are not limited.
const TABLE_MOST: usize = 65_536;

/// A table of connections by descriptor, with room for as many as the worker may open. A table that
/// grows moves, and leaves behind the memory that it had. Room that was never touched takes none.
pub fn table<T>() -> io::Result<Vec<T>> {
    let files = usize::try_from(process::open_files_limit()?).unwrap_or(TABLE_MOST);
    Ok(Vec::with_capacity(files.min(TABLE_MOST)))
}

/// Bytes that were read but that the peer did not take yet. Bounded by one receive buffer, because
/// a connection that owes something is not read.
#[derive(Default)]
pub struct Unsent {
    #[expect(
        clippy::box_collection,
        reason = "a connection that owes nothing, as most do, costs one word"
    )]
    bytes: Option<Box<Vec<u8>>>,
}

impl Unsent {
    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_none()
    }

    /// How many bytes are owed.
    pub fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, |bytes| bytes.len())
    }

    /// Takes out all that is owed.
    pub fn take(&mut self) -> Vec<u8> {
        self.bytes.take().map_or_else(Vec::new, |bytes| *bytes)
    }

    /// Sends `bytes`, which were just received while nothing was owed, and keeps what the socket
    /// does not take.
    pub fn send_or_keep(&mut self, counters: &Counters, fd: RawFd, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(self.is_empty(), "a connection that owes something must not be read");
        let sent = send(counters, fd, bytes)?;
        if sent < bytes.len() {
            self.bytes = Some(Box::new(bytes[sent..].to_vec()));
        }
        Ok(())
    }

    /// Sends what is owed, as far as the socket takes it.
    pub fn flush(&mut self, counters: &Counters, fd: RawFd) -> io::Result<()> {
        if let Some(bytes) = &mut self.bytes {
            let sent = send(counters, fd, bytes)?;
            if sent == bytes.len() {
                self.bytes = None;
            } else {
                bytes.drain(..sent);
            }
        }
        Ok(())
    }
}

/// Sends once. A socket that takes only a part is full (epoll(7), "how to use EPOLLET"), so there
/// is no second try; one that takes nothing has sent 0.
pub fn send(counters: &Counters, fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    sent(counters, bytes.len(), sys::send(counters, fd, bytes, 0))
}

/// Counts what came of a send that was asked for so many bytes.
pub fn sent(counters: &Counters, asked: usize, outcome: io::Result<usize>) -> io::Result<usize> {
    match outcome {
        Ok(sent) => {
            counters.bytes_sent.add(sent as u64);
            if sent < asked {
                counters.short_sends.add(1);
            }
            Ok(sent)
        }
        Err(error) if would_block(&error) => {
            counters.would_block.add(1);
            Ok(0)
        }
        Err(error) => Err(error),
    }
}
