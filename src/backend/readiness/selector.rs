//! A way to wait for many descriptors.

use crate::contract::{BackendFacts, Facts, Knobs, Unsupported};
use crate::counters::Counters;
use std::io;
use std::os::fd::RawFd;

/// The condition for which a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Input, or a connection to accept.
    Input,
    /// Space for output.
    Output,
    /// Input, the peer's end, or space for output.
    Either,
}

/// A descriptor that a wait has reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The descriptor.
    pub fd: RawFd,
    /// Nothing but space for output is there, and it may have been waited for together with input.
    pub only_space: bool,
    /// The peer has sent its end or an urgent mark, or the connection is broken: a short receive
    /// does not mean that nothing follows.
    pub cut: bool,
    /// Its error queue may hold something.
    pub failed: bool,
}

impl Ready {
    /// A level-triggered descriptor: what it was waited for is there, whatever that is.
    pub fn level(fd: RawFd) -> Self {
        Self { fd, only_space: false, cut: false, failed: false }
    }
}

/// A way to wait for many descriptors. Its descriptors are level-triggered, but for the connections
/// of an [edge-triggered](Selector::EDGE_TRIGGERED) one.
pub trait Selector: Sized {
    /// `Backend::FACTS` of the loop over it.
    const FACTS: BackendFacts;
    /// Whether a connection is registered once and reported when something arrives, instead of
    /// being reported for as long as something is there.
    const EDGE_TRIGGERED: bool = false;

    /// `Backend::probe`.
    fn probe(_knobs: &Knobs) -> Result<(), Unsupported> {
        Ok(())
    }

    /// Sets up, with no descriptor.
    fn new(knobs: &Knobs) -> io::Result<Self>;

    /// Whether it can wait for this descriptor at all.
    fn admit(&self, _fd: RawFd) -> io::Result<()> {
        Ok(())
    }

    /// Returns what the kernel granted, beside the trigger.
    fn in_force(&self) -> Facts {
        Facts::new()
    }

    /// Waits for the stop signal, or a listener's connections.
    fn add_level(&mut self, counters: &Counters, fd: RawFd) -> io::Result<()>;

    /// Waits for a listener's connections.
    fn add_listener(&mut self, counters: &Counters, fd: RawFd) -> io::Result<()> {
        self.add_level(counters, fd)
    }

    /// Waits for a connection's input; for all that happens to it if edge-triggered.
    fn add_connection(&mut self, counters: &Counters, fd: RawFd) -> io::Result<()>;

    /// Waits for something else than before on a level-triggered connection.
    fn change(&mut self, counters: &Counters, fd: RawFd, interest: Interest) -> io::Result<()>;

    /// Waits for a descriptor no longer.
    fn remove(&mut self, counters: &Counters, fd: RawFd) -> io::Result<()>;

    /// Told of a connection that is about to be closed.
    fn closing(&mut self, fd: RawFd);

    /// Waits until something is ready, or the time is over; -1 is for ever. Says how many
    /// [`Selector::ready`] there are.
    fn wait(&mut self, counters: &Counters, timeout_ms: i32) -> io::Result<usize>;

    /// The descriptor at this place of what the last wait has reported.
    fn ready(&self, index: usize) -> Ready;

    /// Whether the one at this place, which was waited for either, has input or its peer's end.
    fn has_input(&self, index: usize) -> bool;
}
