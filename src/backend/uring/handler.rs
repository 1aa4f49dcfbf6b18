//! The boundary between the loop and the io_uring backends.

use super::core::Core;
use super::ring::{Completion, Ring};
use super::setup::Setup;
use super::token::Token;
use crate::contract::{BackendFacts, Facts, Knobs, Unsupported};
use crate::drain::Owed;
use crate::service::Conversation;
use std::io;

/// The way of an io_uring backend to serve its connections.
pub trait Handler: Sized {
    /// The conversations that it is compiled for.
    type Conversation: Conversation;

    /// `Backend::FACTS`, but for the ring.
    const FACTS: BackendFacts;
    /// How connections are accepted.
    const ACCEPT: Accept;
    /// Operations that it needs beside those of the loop, with their names.
    const OPERATIONS: &'static [(&'static str, u8)];

    /// The ring that it wants.
    fn setup(knobs: &Knobs) -> Setup {
        Setup::of(knobs)
    }

    /// Bytes that it locks beside the ring, at least, where the kernel counts them.
    fn locked_bytes(_knobs: &Knobs) -> u64 {
        0
    }

    /// Whether the kernel has what it needs beside the ring, and if not, exactly why.
    fn probe(ring: &mut Ring, knobs: &Knobs) -> Result<(), Unsupported>;

    /// Sets up beside `listeners` listening sockets.
    fn new(
        ring: &Ring,
        knobs: &Knobs,
        listeners: usize,
        terms: <Self::Conversation as Conversation>::Terms,
    ) -> io::Result<Self>;

    /// Returns what the kernel granted.
    fn in_force(&self) -> Facts;

    /// The size of the table of direct descriptors, if connections are such.
    fn direct_files(&self) -> Option<u32> {
        None
    }

    /// Gives a slot to a connection that was accepted.
    fn admit(&mut self, index: u32);

    /// Begins to serve it, unless the loop is stopping.
    fn serve(&mut self, core: &mut Core, index: u32) -> io::Result<()>;

    /// A receive completed.
    fn received(
        &mut self,
        core: &mut Core,
        token: Token,
        completion: &Completion,
    ) -> io::Result<()>;

    /// Another request of the handler's completed.
    fn completed(
        &mut self,
        core: &mut Core,
        token: Token,
        completion: &Completion,
    ) -> io::Result<()>;

    /// All completions of a turn have been handed on.
    fn turned(&mut self, core: &mut Core) -> io::Result<()>;

    /// Whether there is something to do that no completion will tell of: then the next turn does
    /// not wait.
    fn must_not_wait(&mut self, core: &mut Core) -> io::Result<bool>;

    /// Gives up all connections, after every request has ended, with what they are owed.
    fn take_owed(&mut self, core: &mut Core) -> io::Result<Vec<Owed<Self::Conversation>>>;
}

/// How connections are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// A request for each.
    Once,
    /// One request for all.
    Multishot,
    /// One request for all, into the ring's table of direct descriptors.
    ///
    /// A multishot request that finds the table full drops the connection that it has just accepted
    /// (`io_accept` in the kernel's net.c installs the file last), and nothing but the completion
    /// queue bounds how many it accepts before they are [heard of](most_unheard). So where the
    /// table has no room for as many, a request for each takes over, made only while there is room.
    MultishotDirect,
}
