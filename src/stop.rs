//! The stop signal: one eventfd that every loop waits for beside its sockets.

use crate::sys;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Tells all workers to stop, and how long they may take to finish what they owe.
pub struct Stop {
    eventfd: OwnedFd,
    drain_time: Duration,
}

impl Stop {
    /// Not yet given.
    pub fn new(drain_time: Duration) -> io::Result<Self> {
        Ok(Self { eventfd: sys::eventfd()?, drain_time })
    }

    /// Gives the signal. The eventfd stays readable from then on, for every waiter.
    pub fn give(&self) -> io::Result<()> {
        sys::eventfd_signal(&self.eventfd)
    }

    /// The descriptor that polls readable once the signal is given. A worker's own file table,
    /// copied from the main thread's, holds it under the same number.
    pub fn fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// How long a worker may go on after the signal to send what it owes and to see its peers
    /// leave.
    pub fn drain_time(&self) -> Duration {
        self.drain_time
    }
}
