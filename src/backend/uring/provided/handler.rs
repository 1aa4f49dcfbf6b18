//! The calls of the loop, and the next step of a connection.

use super::connection::{self, NextStep, State, is_late};
use super::connections::Provided;
use super::segments::Segments;
use super::sends::{Sending, Sends};
use super::techniques::Technique;
use crate::backend::uring::{
    buffer_ring::{self, BufferRing, Growth},
    core::Core,
    direct,
    handler::{Accept, Handler},
    locked::whole_pages,
    request::Request,
    ring::{Completion, Ring},
    send_groups::SendGroups,
    setup::Setup,
    token::{RequestKind, Token},
};
use crate::call::Call;
use crate::connection::table;
use crate::contract::{BackendFacts, Facts, Knobs, Unsupported};
use crate::drain::Owed;
use crate::service::Conversation;
use crate::{kernel, process, sys, zero_copy};
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::RawFd;

/// Groups that bundled sends borrow. A send holds one from its submission to the end of the turn;
/// one that finds none sends a single buffer.
const SEND_GROUPS: u16 = 64;

/// Descriptors of a worker that are no connections: standard streams, stop signal, ring, and some
/// to spare.
const OTHER_FILES: usize = 32;

/// The kernel's name for what a multishot receive that takes a buffer at a time takes in one go.
const MULTISHOT_MAX_RETRY: usize = 32;

/// A table of direct descriptors has no more than this, even where files are not limited: 8 bytes
/// each.
const DIRECT_MOST: usize = 65_536;

impl<T: Technique, C: Conversation> Handler for Provided<T, C> {
    type Conversation = C;

    const FACTS: BackendFacts = BackendFacts { kernel_thread: T::SUBMISSION_THREAD, ..T::FACTS };
    const ACCEPT: Accept = if T::DIRECT { Accept::MultishotDirect } else { Accept::Multishot };
    const OPERATIONS: &'static [(&'static str, u8)] = T::OPERATIONS;

    fn setup(knobs: &Knobs) -> Setup {
        if T::SUBMISSION_THREAD { Setup::with_submission_thread(knobs) } else { Setup::of(knobs) }
    }

    /// The ring of buffers: 16 bytes for each. The buffers are not locked.
    fn locked_bytes(knobs: &Knobs) -> u64 {
        whole_pages(16 * knobs.get("buffers").next_power_of_two())
    }

    fn probe(ring: &mut Ring, knobs: &Knobs) -> Result<(), Unsupported> {
        if T::BUNDLE && !ring.has_bundles() {
            let reason = "IORING_FEAT_RECVSEND_BUNDLE is not there; needs Linux 6.10".to_owned();
            return Err(Unsupported { reason });
        }
        if T::DIRECT {
            direct::probe(ring)?;
        }
        zero_copy::probe_ring(knobs)?;
        buffer_ring::probe(ring, is_incremental::<T>(knobs))
    }

    fn new(ring: &Ring, knobs: &Knobs, listeners: usize, terms: C::Terms) -> io::Result<Self> {
        let submitter = ring.submitter();
        let count = knobs.size("buffers").next_power_of_two();
        let buffer_bytes = knobs.size("buffer_bytes");
        let incremental = is_incremental::<T>(knobs);
        let kernel = kernel::version();
        let bounded = kernel >= T::BOUNDED;
        let growth = Growth::of(kernel, T::BOUNDED, ring.completes_in_bursts());
        let buffers_per_connection = knobs.size("buffers_per_connection");
        // SAFETY: the loop frees it when every request has ended. Each completion of a receive is
        // handed on once, and what it filled is taken then; it is given back unsent, or after its
        // send is decided.
        let buffers = unsafe {
            BufferRing::new(&submitter, count as u16, buffer_bytes, incremental, growth)?
        };
        let mut direct_files = 0;
        if T::DIRECT {
            // The drain needs a file for each of them.
            let files = process::open_files_limit()? as usize;
            direct_files =
                files.saturating_sub(listeners + OTHER_FILES).clamp(1, DIRECT_MOST) as u32;
            submitter.register_files_sparse(direct_files)?;
        }
        Ok(Self {
            buffers,
            groups: T::BUNDLE.then(|| SendGroups::new(SEND_GROUPS)),
            connections: table()?,
            segments: Segments::default(),
            starved: VecDeque::new(),
            sends: Sends::default(),
            may_be_followed: false,
            buffers_at_once: match bounded {
                true if T::BUNDLE => buffers_per_connection,
                true if T::POLL => 1,
                true => MULTISHOT_MAX_RETRY,
                false => usize::MAX,
            },
            bytes_at_once: (T::BUNDLE && bounded && C::ECHOES)
                .then(|| (buffers_per_connection * buffer_bytes).try_into().unwrap_or(u32::MAX)),
            buffers_per_connection: buffers_per_connection as u32,
            buffer_bytes: buffer_bytes as u32,
            direct_files,
            terms,
            zero_copy: !C::ECHOES && zero_copy::is_on(knobs),
            technique: PhantomData,
        })
    }

    fn in_force(&self) -> Facts {
        let bytes = self.buffers.bytes() + self.groups.as_ref().map_or(0, SendGroups::bytes);
        let mut facts = Facts::from_iter([
            ("buffers".to_owned(), self.buffers.count().into()),
            ("buffers_bytes".to_owned(), bytes.into()),
        ]);
        if T::DIRECT {
            facts.insert("direct_files".to_owned(), self.direct_files.into());
        }
        facts
    }

    fn direct_files(&self) -> Option<u32> {
        T::DIRECT.then_some(self.direct_files)
    }

    fn admit(&mut self, index: u32) {
        connection::admit(&mut self.connections, index);
    }

    fn serve(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        self.buffers.connected(core.counters.accepted.get() - core.counters.closed.get());
        if T::POLL {
            return self.poll(core, index);
        }
        if !C::ECHOES || core.is_unix {
            self.watch(core, index)?;
        }
        self.receive(core, index)
    }

    #[inline(always)]
    fn received(
        &mut self,
        core: &mut Core,
        token: Token,
        completion: &Completion,
    ) -> io::Result<()> {
        let Token { index, .. } = token;
        let Self { connections, buffers, segments, buffers_per_connection, terms, .. } = self;
        let connection = &mut connections[index as usize];
        if completion.result <= 0 || is_late(connection, token) {
            return self.received_nothing(core, token, completion);
        }
        // All that is done here with the connection is done at one place, because finding it takes
        // about as long.
        let has_buffer = if C::ECHOES {
            connection.enqueue::<T>(buffers, segments, completion)
        } else {
            connection.take_in::<T>(buffers, *terms, core.counters, completion)
        };
        if !has_buffer {
            return Err(io::Error::other("a receive that names no buffer"));
        }
        if !completion.more() {
            let paused = connection.is(State::Cancelling);
            core.counters.rearms.add(u64::from(!T::POLL && !paused));
            connection.receive_ended::<T>();
        }
        let length = completion.result as u32;
        // A buffer that is full may have left something; an incremental one may have been short.
        if T::POLL
            && (length == self.buffer_bytes
                || completion.sock_nonempty()
                || connection.is(State::Cut))
        {
            connection.set(State::Readable);
        }
        core.counters.bytes_received.add(u64::from(length));
        core.work.perform(core.counters);
        let need = connection.need::<T>(*buffers_per_connection, *terms);
        if matches!(need, NextStep::Nothing) {
            // The new input waits for a send. A send that is decided ends this turn, and is
            // followed then.
            self.may_be_followed |= !self.sends.are_all_below(core.decided());
            return Ok(());
        }
        self.supply(core, index, need)
    }

    fn completed(
        &mut self,
        core: &mut Core,
        token: Token,
        completion: &Completion,
    ) -> io::Result<()> {
        if is_late(&self.connections[token.index as usize], token) {
            core.came_late(token);
            return Ok(());
        }
        match token.kind {
            RequestKind::Poll => self.polled(core, token.index, completion),
            RequestKind::Send => self.send_failed(core, token.index, completion.result),
            _ => self.sent_patiently(core, token.index, completion.result),
        }
    }

    #[inline(always)]
    fn turned(&mut self, core: &mut Core) -> io::Result<()> {
        while self.sends.first_is_below(core.decided()) {
            let sending = self.sends.pop();
            self.send_succeeded(core, sending)?;
        }
        self.sends.tidy();
        if self.starved.is_empty() { Ok(()) } else { self.feed_the_starved(core) }
    }

    #[inline]
    fn must_not_wait(&mut self, core: &mut Core) -> io::Result<bool> {
        if !self.may_be_followed {
            return Ok(false);
        }
        // The last turn may have fed connections that have nothing to say, and the next in the
        // queue must not wait for them.
        if !self.starved.is_empty() && self.buffers.available() > 0 {
            return Ok(true);
        }
        if !self.something_follows_a_send() {
            return Ok(false);
        }
        if !T::SUBMISSION_THREAD {
            return Ok(true);
        }
        core.fence()?;
        Ok(false)
    }

    fn take_owed(&mut self, core: &mut Core) -> io::Result<Vec<Owed<C>>> {
        let open = (0..self.connections.len() as u32)
            .filter(|&index| self.connections[index as usize].is(State::Open));
        let mut owed: Vec<(u32, RawFd)> = open.map(|index| (index, index as RawFd)).collect();
        if T::DIRECT {
            owed = self.install(core, &owed)?;
        }
        Ok(owed
            .into_iter()
            .map(|(index, fd)| {
                let unsent = self.take_unsent(index);
                let connection = self.at(index);
                connection.clear(State::Open);
                let conversation = std::mem::take(&mut connection.conversation);
                // SAFETY: an open slot owns its descriptor, or had it made above, no request refers
                // to it any more, and the slot owns it no longer.
                Owed { fd: unsafe { sys::own(fd) }, unsent, conversation }
            })
            .collect())
    }
}

fn is_incremental<T: Technique>(knobs: &Knobs) -> bool {
    !T::BUNDLE && knobs.word("incremental") == "on"
}

impl<T: Technique, C: Conversation> Provided<T, C> {
    /// Does what a connection needs next: send, pause or resume its input, or close.
    pub fn advance(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        let need =
            self.connections[index as usize].need::<T>(self.buffers_per_connection, self.terms);
        self.supply(core, index, need)
    }

    /// The same where what it needs is known.
    #[inline(always)]
    pub fn supply(&mut self, core: &mut Core, index: u32, need: NextStep) -> io::Result<()> {
        match need {
            NextStep::Nothing => Ok(()),
            _ if core.stopping => Ok(()),
            NextStep::Send => self.send_from_buffers(core, index),
            NextStep::Other => self.advance_otherwise(core, index),
        }
    }

    /// The same for one that may need anything.
    #[inline(never)]
    fn advance_otherwise(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        self.may_be_followed = true;
        if self.connections[index as usize].is(State::Failed) {
            self.cancel_input(core, index)?;
            if self.connections[index as usize].sending == 0 {
                core.counters.bytes_abandoned.add(self.take_unsent(index).len() as u64);
            }
        }
        let connection = self.at(index);
        if connection.blocked.is_some() && connection.length > 0 && !connection.is(State::Receiving)
        {
            self.keep_behind_blocked(index);
        }
        self.send(core, index)?;
        let (limit, terms) = (self.buffers_per_connection, self.terms);
        let connection = self.at(index);
        let queued = connection.queued(terms);
        if connection.is(State::Receiving) {
            if !T::POLL && queued > limit && !connection.is(State::Cancelling) {
                core.counters.backpressure_pauses.add(1);
                return self.cancel_input(core, index);
            }
        } else if !connection.is_over() {
            let wanted = !T::POLL || connection.is(State::Readable);
            // One that never rests always owes something, and gets nothing but its peer's end.
            let allowed = !connection.is(State::Starved)
                && (connection.blocked.is_none() && queued <= limit / 2 || C::never_rests(terms));
            if wanted && allowed {
                connection.clear(State::Readable);
                return self.receive(core, index);
            }
        } else if connection.sending == 0 {
            if connection.is(State::Polling) {
                return if T::POLL {
                    self.cancel_input(core, index)
                } else {
                    self.cancel_watch(core, index)
                };
            }
            return self.close(core, index);
        }
        Ok(())
    }

    /// Whether the loop has more to do once the queued sends are done, without any input from
    /// outside.
    fn something_follows_a_send(&mut self) -> bool {
        let follows = |sending: &Sending| {
            let connection = &self.connections[sending.index as usize];
            // A receive completes by itself, and a poll that is armed reports what arrives.
            let polling =
                T::POLL && connection.is(State::Polling) && !connection.is(State::Readable);
            let waits = connection.is(State::Receiving) || polling;
            connection.has_more(self.terms) || connection.is_over() || !waits
        };
        let sends = self.sends.undecided();
        self.may_be_followed = !self.starved.is_empty() || sends.iter().any(follows);
        self.may_be_followed && !sends.is_empty()
    }

    fn close(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        core.counters.closed.add(1);
        let conversation = std::mem::take(&mut self.at(index).conversation);
        core.counters.bytes_abandoned.add(conversation.owed_bytes());
        let token = self.token(RequestKind::Close, index);
        self.at(index).clear(State::Open);
        core.request(token, Request::close(Self::socket(index)))
    }

    /// Makes regular descriptors of direct ones, because the drain knows no other.
    fn install(&mut self, core: &mut Core, open: &[(u32, RawFd)]) -> io::Result<Vec<(u32, RawFd)>> {
        for &(index, _) in open {
            core.request(Token::of(RequestKind::Install, index), Request::install(index))?;
        }
        let mut installed = Vec::with_capacity(open.len());
        let mut failed = None;
        core.finish_requests(|token, completion| match completion.result {
            fd @ 0.. => installed.push((token.index, fd)),
            error => failed = Some(io::Error::from_raw_os_error(-error)),
        })?;
        // The table's own references would keep the connections open.
        core.counters.count(Call::IoUringRegister);
        core.ring.submitter().unregister_files()?;
        match failed {
            Some(error) => Err(io::Error::new(
                error.kind(),
                format!("a file for a direct descriptor: {error}"),
            )),
            None => Ok(installed),
        }
    }
}
