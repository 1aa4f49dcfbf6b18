//! The backends that receive into provided buffers and send the echo straight from the buffer that it
//! came in.
//!
//! # One system call an echo
//! The loop submits the sends of a batch and waits for the next batch in the same `io_uring_enter`.
//! With MSG_DONTWAIT a send completes while it is submitted, whatever comes of it; with MSG_WAITALL
//! one that takes only a part counts as failed; with CQE_SKIP_SUCCESS only a failed one has a
//! completion. So once a send is [decided](super::ring::Ring::decided) and all completions are
//! taken, it has succeeded if it has none. A send's own completion does not end the wait, and a
//! failed send does not wait for input that may never come.
//!
//! Where something is to follow a send, another buffer, the close, a receive that waits for a
//! buffer, the loop only submits, does that, and waits after it. A submission thread cannot be told
//! to submit at once: there a fence, a request that does nothing, is queued behind the send, and
//! its completion ends the wait.
//!
//! # Order and bounds
//! A connection has one send in flight at most, or its bytes could be reordered. What arrives
//! meanwhile queues in its buffers; past a limit its receive is cancelled until the queue is down
//! to half. A peer that does not read makes a send fail with EAGAIN: then what it is owed moves to
//! the heap, its buffers go back to the ring, so that slow readers cannot starve the others of
//! buffers, and it is not read until it has taken everything.
//!
//! A receive that finds no buffer ends (ENOBUFS). Its connection goes to the end of a queue and is
//! armed again when a buffer is back; arming it at once would only fail again. Only as many are
//! armed at a time as there are buffers for all that each may take at once: else the first takes
//! those of the others, ends before they do, and so stands before them in the queue again, for
//! ever.
//!
//! # Poll, then receive
//! A multishot poll reports each arrival of data once. The receive that follows does not wait: it
//! may find that an earlier one has taken all (EAGAIN). After one that says that the socket has
//! more, or fills its buffer, the next follows at once; otherwise the next report is waited for.
//!
//! # Bundles
//! A receive fills as many buffers as there are bytes for, and one completion names the first. A
//! send of several buffers takes them from a group of its own, lent for that send. One buffer is
//! sent as elsewhere, so small messages cost what they cost without bundles.
//!
//! A multishot receive of bundles goes on for as long as there are bytes and buffers, before its
//! first completion is seen: 256 buffers at a time, 32 times. From kernel 6.17 on it is told to
//! take as many bytes in one go as `buffers_per_connection` allows.
//!
//! # Kernels that do not bound what a receive takes
//! Before 6.17 a receive of bundles takes all that is in the ring of buffers, before 6.8 any
//! multishot receive does. There the ring holds only as many buffers [as there are
//! connections](Growth::Connected), 96 at least: that bounds what one connection can take beyond
//! `buffers_per_connection`.

use super::buffer_ring::{self, BufferRing, Growth, Piece, SendGroups};
use super::core::Core;
use super::direct;
use super::handler::{Accept, Handler};
use super::locked::whole_pages;
use super::request::{Request, Socket};
use super::ring::{self, Completion, Ring, Setup};
use super::token::{GENERATION_MASK, Kind, Token};
use crate::call::Call;
use crate::connection;
use crate::contract::{Facts, Knob, Knobs, Needs, Unsupported};
use crate::drain::Owed;
use crate::kernel::{self, Version};
use crate::work::WORK_NS;
use crate::{process, sys};
use io_uring::opcode;
use io_uring::squeue::Flags;
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

/// See [the top](self#one-system-call-an-echo).
const SEND: libc::c_int = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT;

/// The kernel's name for what a multishot receive that takes a buffer at a time takes in one go.
const MULTISHOT_MAX_RETRY: usize = 32;

/// A table of direct descriptors has no more than this, even where files are not limited: 8 bytes
/// each.
const DIRECT_MOST: usize = 65_536;

/// What one of these backends does differently from another.
pub trait Technique {
    /// [`Handler::NAME`].
    const NAME: &'static str;
    /// [`Handler::SUMMARY`].
    const SUMMARY: &'static str;
    /// [`Handler::NEEDS`].
    const NEEDS: Needs;
    /// [`Handler::KNOBS`].
    const KNOBS: &'static [Knob] = KNOBS;
    /// Connections are direct descriptors.
    const DIRECT: bool = false;
    /// Input is polled for, then received.
    const POLL: bool = false;
    /// Receives and sends take several buffers.
    const BUNDLE: bool = false;
    /// The ring has a submission thread.
    const SUBMISSION_THREAD: bool = false;
    /// From which kernel on there is a bound to what a receive takes in one go. A multishot one
    /// that takes a buffer at a time has one since MULTISHOT_MAX_RETRY came into the kernel's
    /// net.c; one of bundles is told it.
    const BOUNDED: Version = if Self::BUNDLE {
        (6, 17)
    } else if Self::POLL {
        (0, 0)
    } else {
        (6, 8)
    };
    /// [`Handler::OPERATIONS`]. IORING_OP_SEND_ZC came with multishot receives (kernel 6.0), which
    /// have no probe.
    const OPERATIONS: &'static [(&'static str, u8)] = &[("SEND_ZC", opcode::SendZc::CODE)];
}

const BUFFERS_PER_CONNECTION: Knob = Knob::number(
    "buffers_per_connection",
    64,
    1..=32_768,
    "buffers, or pieces of them, that may queue on a connection before its receive is paused",
);

const KNOBS: &[Knob] = &[
    ring::TASK_RUN,
    ring::SQ_ENTRIES,
    ring::CQ_ENTRIES,
    ring::REGISTERED_RING,
    ring::MIN_WAIT_US,
    ring::MIN_WAIT_EVENTS,
    buffer_ring::BUFFERS,
    buffer_ring::BUFFER_BYTES,
    buffer_ring::INCREMENTAL,
    BUFFERS_PER_CONNECTION,
    WORK_NS,
];

/// `uring-multishot`.
pub struct Multishot;

impl Technique for Multishot {
    const NAME: &'static str = "uring-multishot";
    const SUMMARY: &'static str =
        "multishot accept and receive, provided buffers sent back in place, DEFER_TASKRUN";
    const NEEDS: Needs = Needs {
        linux: "6.1",
        default_container: false,
        limits: "io_uring not disabled, RLIMIT_MEMLOCK for each ring",
    };
}

/// `uring-multishot-direct`.
pub struct Direct;

impl Technique for Direct {
    const NAME: &'static str = "uring-multishot-direct";
    const SUMMARY: &'static str = "as uring-multishot, with direct descriptors instead of files";
    const NEEDS: Needs = Needs {
        linux: "6.13",
        default_container: false,
        limits: "io_uring not disabled, RLIMIT_MEMLOCK for each ring; as many direct descriptors as RLIMIT_NOFILE",
    };
    const DIRECT: bool = true;
    const OPERATIONS: &'static [(&'static str, u8)] =
        &[("SEND_ZC", opcode::SendZc::CODE), ("FIXED_FD_INSTALL", opcode::FixedFdInstall::CODE)];
}

/// `uring-poll-multishot`.
pub struct PollMultishot;

impl Technique for PollMultishot {
    const NAME: &'static str = "uring-poll-multishot";
    const SUMMARY: &'static str = "multishot poll, then a receive into a provided buffer: an idle connection holds the least memory";
    const NEEDS: Needs = Needs {
        linux: "6.1",
        default_container: false,
        limits: "io_uring not disabled, RLIMIT_MEMLOCK for each ring",
    };
    const POLL: bool = true;
}

/// `uring-bundle`.
pub struct Bundle;

impl Technique for Bundle {
    const NAME: &'static str = "uring-bundle";
    const SUMMARY: &'static str = "as uring-multishot, but one completion and one send for several buffers: large and pipelined messages";
    const NEEDS: Needs = Needs {
        linux: "6.10",
        default_container: false,
        limits: "io_uring not disabled, RLIMIT_MEMLOCK for each ring",
    };
    const KNOBS: &'static [Knob] = &[
        ring::TASK_RUN,
        ring::SQ_ENTRIES,
        ring::CQ_ENTRIES,
        ring::REGISTERED_RING,
        ring::MIN_WAIT_US,
        ring::MIN_WAIT_EVENTS,
        buffer_ring::BUFFERS,
        buffer_ring::BUFFER_BYTES,
        BUFFERS_PER_CONNECTION,
        WORK_NS,
    ];
    const BUNDLE: bool = true;
}

/// `uring-sqpoll`.
pub struct SubmissionThread;

impl Technique for SubmissionThread {
    const NAME: &'static str = "uring-sqpoll";
    const SUMMARY: &'static str =
        "as uring-multishot, but a thread of the kernel's submits; its CPU time is the server's";
    const NEEDS: Needs = Needs {
        linux: "6.0",
        default_container: false,
        limits: "io_uring not disabled, RLIMIT_MEMLOCK for each ring; a CPU for the submission thread beside the worker's",
    };
    const KNOBS: &'static [Knob] = &[
        ring::SQ_IDLE_MS,
        ring::SQ_CPU,
        ring::SQ_ENTRIES,
        ring::CQ_ENTRIES,
        ring::REGISTERED_RING,
        ring::MIN_WAIT_US,
        ring::MIN_WAIT_EVENTS,
        buffer_ring::BUFFERS,
        buffer_ring::BUFFER_BYTES,
        buffer_ring::INCREMENTAL,
        BUFFERS_PER_CONNECTION,
        WORK_NS,
    ];
    const SUBMISSION_THREAD: bool = true;
}

/// Connections that receive into provided buffers.
pub struct Provided<T: Technique> {
    buffers: BufferRing,
    groups: Option<SendGroups>,
    /// By index: the descriptor or the direct descriptor. The kernel gives low numbers, so this
    /// stays dense.
    connections: Vec<Connection>,
    /// Pieces of buffers that are owed, linked to a queue for each connection.
    segments: Segments,
    /// Connections whose receive found no buffer, longest wait first.
    starved: VecDeque<(u32, u32)>,
    sends: Sends,
    /// Buffers that one receive may take in one go, before another's turn.
    buffers_at_once: usize,
    /// A receive waits for a buffer, or something may be to follow a send that is not decided.
    may_be_followed: bool,
    buffers_per_connection: u32,
    buffer_bytes: u32,
    /// The same in bytes, where the kernel is told it.
    bytes_at_once: Option<u32>,
    direct_files: u32,
    technique: PhantomData<T>,
}

#[derive(Default)]
struct Connection {
    generation: u32,
    /// The last of the segments to be sent.
    tail: u32,
    /// How many there are.
    length: u32,
    /// How many of them the send in flight has, from the first on; 1 for a patient send.
    sending: u16,
    /// Those that hold, a bit for each [`State`].
    states: u8,
    /// What a peer that does not read is owed.
    blocked: Option<Box<Blocked>>,
}

/// What a connection needs next.
enum Need {
    /// Its input is armed, and what it owes is under way.
    Nothing,
    /// The same, but for the send.
    Send,
    /// It is to be looked at closely.
    Other,
}

/// What may be true of a connection.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum State {
    /// The slot has an owner.
    Open = 1 << 0,
    /// A receive is under way.
    Receiving = 1 << 1,
    /// A poll is under way.
    Polling = 1 << 2,
    /// The poll has reported input that no receive has looked for yet.
    Readable = 1 << 3,
    /// A cancellation of the receive, or the poll, is under way.
    Cancelling = 1 << 4,
    /// Its receive waits for a buffer.
    Starved = 1 << 5,
    /// The peer has sent its end.
    Ended = 1 << 6,
    /// The connection is broken; what is owed is lost.
    Failed = 1 << 7,
}

impl Connection {
    fn is(&self, state: State) -> bool {
        self.states & state as u8 != 0
    }

    fn set(&mut self, state: State) {
        self.states |= state as u8;
    }

    fn clear(&mut self, state: State) {
        self.states &= !(state as u8);
    }

    /// A receive had its last completion.
    fn receive_ended<T: Technique>(&mut self) {
        self.clear(State::Receiving);
        if !T::POLL {
            self.clear(State::Cancelling);
        }
    }

    /// Appends what a receive has filled to what the connection is owed; false if it picked no
    /// buffer.
    #[inline]
    fn enqueue<T: Technique>(
        &mut self,
        buffers: &mut BufferRing,
        segments: &mut Segments,
        completion: &Completion,
    ) -> bool {
        if let Some(blocked) = &mut self.blocked {
            return blocked.keep::<T>(buffers, completion);
        }
        take_pieces::<T>(buffers, completion, |_, piece| {
            self.tail = match self.length {
                0 => segments.add(piece),
                _ => segments.add_behind(self.tail, piece),
            };
            self.length += 1;
        })
    }

    /// Takes the first segment off the queue and gives its piece back.
    #[inline]
    fn dequeue(&mut self, buffers: &mut BufferRing, segments: &mut Segments) {
        let piece = segments.remove_first(self.tail);
        self.length -= 1;
        buffers.give_back(piece);
    }

    /// What it needs, if no more than `limit` pieces may queue on it.
    #[inline]
    fn need<T: Technique>(&self, limit: u32) -> Need {
        let armed = if T::POLL { State::Polling } else { State::Receiving };
        if self.states != State::Open as u8 | armed as u8
            || self.blocked.is_some()
            || self.length > limit
        {
            Need::Other
        } else if self.sending > 0 || self.length == 0 {
            Need::Nothing
        } else {
            Need::Send
        }
    }

    /// Whether nothing more is received from it.
    fn is_over(&self) -> bool {
        self.is(State::Ended) || self.is(State::Failed)
    }
}

#[derive(Default)]
struct Blocked {
    /// In flight, so it must not move or change: a boxed slice has no room to.
    sending: Box<[u8]>,
    sent: usize,
    /// Arrived since.
    waiting: Vec<u8>,
}

impl Blocked {
    /// Copies out what a receive has filled; false if it picked no buffer.
    #[cold]
    fn keep<T: Technique>(&mut self, buffers: &mut BufferRing, completion: &Completion) -> bool {
        take_pieces::<T>(buffers, completion, |buffers, piece| {
            self.waiting.extend_from_slice(buffers.contents(piece));
            buffers.give_back(piece);
        })
    }
}

/// A send that has a completion only if it fails.
#[derive(Clone, Copy)]
struct Sending {
    number: u64,
    index: u32,
    group: Option<u16>,
}

/// Sends that are not decided yet, in their order. A plain queue, of which most turns take all that
/// it has and look at each once more.
#[derive(Default)]
struct Sends {
    sends: Vec<Sending>,
    /// How many of them are decided.
    decided: usize,
}

/// Sends that are taken and not forgotten before it is worth while to move the others.
const TIDY_FROM: usize = 64;

impl Sends {
    fn push(&mut self, sending: Sending) {
        self.sends.push(sending);
    }

    /// Whether their numbers are below this one.
    #[inline]
    fn are_all_below(&self, number: u64) -> bool {
        self.sends.last().is_none_or(|sending| sending.number < number)
    }

    fn undecided(&self) -> &[Sending] {
        &self.sends[self.decided..]
    }

    /// Whether there is one, and the first has a number below this.
    #[inline]
    fn first_is_below(&self, number: u64) -> bool {
        self.sends.get(self.decided).is_some_and(|sending| sending.number < number)
    }

    /// Takes the first, of one at least.
    #[inline]
    fn pop(&mut self) -> Sending {
        let first = self.sends[self.decided];
        self.decided += 1;
        if self.decided == self.sends.len() {
            self.sends.clear();
            self.decided = 0;
        }
        first
    }

    /// Forgets those that were taken, once they are many and the better part.
    fn tidy(&mut self) {
        if self.decided > TIDY_FROM && 2 * self.decided >= self.sends.len() {
            self.sends.drain(..self.decided);
            self.decided = 0;
        }
    }

    /// Takes out the one of this connection.
    fn remove(&mut self, index: u32) -> Option<Sending> {
        let place = self.undecided().iter().position(|sending| sending.index == index)?;
        Some(self.sends.remove(self.decided + place))
    }
}

/// The links of all queues. Each is a circle: the first segment comes behind the last.
#[derive(Default)]
struct Segments {
    segments: Vec<Segment>,
    /// The first of those that are in no queue, each of which names the next; behind the last
    /// stands the one that is made next.
    free: u32,
}

#[derive(Clone, Copy)]
struct Segment {
    piece: Piece,
    next: u32,
}

impl Segments {
    /// Begins a queue with a piece, and returns its last, which is its only one.
    #[inline]
    fn add(&mut self, piece: Piece) -> u32 {
        let next = self.free;
        self.put(Segment { piece, next })
    }

    /// Puts a piece behind the last of a queue, and returns the new last.
    #[inline]
    fn add_behind(&mut self, last: u32, piece: Piece) -> u32 {
        let next = std::mem::replace(&mut self.segments[last as usize].next, self.free);
        self.put(Segment { piece, next })
    }

    /// Writes the free segment, and returns which that was.
    #[inline]
    fn put(&mut self, segment: Segment) -> u32 {
        let id = self.free;
        match self.segments.get_mut(id as usize) {
            Some(free) => self.free = std::mem::replace(free, segment).next,
            None => self.make(segment),
        }
        id
    }

    #[cold]
    fn make(&mut self, segment: Segment) {
        self.segments.push(segment);
        self.free = self.segments.len() as u32;
    }

    /// Takes the first piece off a queue that is not empty.
    fn remove_first(&mut self, last: u32) -> Piece {
        let id = self.segments[last as usize].next;
        let first = &mut self.segments[id as usize];
        let Segment { piece, next } = *first;
        first.next = self.free;
        self.free = id;
        if id != last {
            self.segments[last as usize].next = next;
        }
        piece
    }

    /// The first piece of a queue that is not empty.
    fn first(&self, last: u32) -> Piece {
        self.segments[self.segments[last as usize].next as usize].piece
    }

    /// The first `count` pieces of a queue that has as many.
    fn queue(&self, last: u32, count: u32) -> impl Iterator<Item = Piece> {
        let mut at = last;
        (0..count).map(move |_| {
            at = self.segments[at as usize].next;
            self.segments[at as usize].piece
        })
    }
}

impl<T: Technique> Handler for Provided<T> {
    const NAME: &'static str = T::NAME;
    const SUMMARY: &'static str = T::SUMMARY;
    const KERNEL_THREAD: bool = T::SUBMISSION_THREAD;
    const NEEDS: Needs = T::NEEDS;
    const KNOBS: &'static [Knob] = T::KNOBS;
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
        buffer_ring::probe(ring, is_incremental::<T>(knobs))
    }

    fn new(ring: &Ring, knobs: &Knobs, listeners: usize) -> io::Result<Self> {
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
            connections: connection::table()?,
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
            bytes_at_once: (T::BUNDLE && bounded)
                .then(|| (buffers_per_connection * buffer_bytes).try_into().unwrap_or(u32::MAX)),
            buffers_per_connection: buffers_per_connection as u32,
            buffer_bytes: buffer_bytes as u32,
            direct_files,
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
        admit(&mut self.connections, index);
    }

    fn serve(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        self.buffers.connected(core.counters.accepted.get() - core.counters.closed.get());
        if T::POLL { self.poll(core, index) } else { self.receive(core, index) }
    }

    #[inline(always)]
    fn received(
        &mut self,
        core: &mut Core,
        token: Token,
        completion: &Completion,
    ) -> io::Result<()> {
        let Token { index, .. } = token;
        let Self { connections, buffers, segments, buffers_per_connection, .. } = self;
        let connection = &mut connections[index as usize];
        if completion.result <= 0 || is_late(connection, token) {
            return self.received_nothing(core, token, completion);
        }
        // All that is done here with the connection is done at one place, because finding it takes
        // about as long.
        if !connection.enqueue::<T>(buffers, segments, completion) {
            return Err(io::Error::other("a receive that names no buffer"));
        }
        if !completion.more() {
            let paused = connection.is(State::Cancelling);
            core.counters.rearms.add(u64::from(!T::POLL && !paused));
            connection.receive_ended::<T>();
        }
        let length = completion.result as u32;
        // A buffer that is full may have left something; an incremental one may have been short.
        if T::POLL && (length == self.buffer_bytes || completion.sock_nonempty()) {
            connection.set(State::Readable);
        }
        core.counters.bytes_received.add(u64::from(length));
        core.work.perform();
        let need = connection.need::<T>(*buffers_per_connection);
        if matches!(need, Need::Nothing) {
            // What has just come waits for a send. One that is decided ends this turn, and is
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
            Kind::Poll => self.polled(core, token.index, completion),
            Kind::Send => self.send_failed(core, token.index, completion.result),
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

    fn take_owed(&mut self, core: &mut Core) -> io::Result<Vec<Owed>> {
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
                self.connections[index as usize].clear(State::Open);
                // SAFETY: an open slot owns its descriptor, or had it made above, no request refers
                // to it any more, and the slot owns it no longer.
                Owed { fd: unsafe { sys::own(fd) }, unsent }
            })
            .collect())
    }
}

fn is_incremental<T: Technique>(knobs: &Knobs) -> bool {
    !T::BUNDLE && knobs.word("incremental") == "on"
}

/// Takes what a receive has filled, piece by piece; false if it picked no buffer.
#[inline(always)]
fn take_pieces<T: Technique>(
    buffers: &mut BufferRing,
    completion: &Completion,
    mut each: impl FnMut(&mut BufferRing, Piece),
) -> bool {
    let Some(first) = completion.buffer() else { return false };
    let length = completion.result.max(0) as u32;
    if T::BUNDLE && length > 0 {
        buffers.take_bundle(first, length, each);
    } else {
        let piece = buffers.take(first, length, completion.buffer_more());
        each(buffers, piece);
    }
    true
}

/// Gives the slot at `index` to a new connection.
fn admit(connections: &mut Vec<Connection>, index: u32) {
    let slot = index as usize;
    if slot >= connections.len() {
        connections.resize_with(slot + 1, Connection::default);
    }
    let generation = (connections[slot].generation + 1) & GENERATION_MASK;
    connections[slot] =
        Connection { generation, states: State::Open as u8, ..Connection::default() };
}

/// Whether a completion belongs to a connection that had the index before.
fn is_late(connection: &Connection, token: Token) -> bool {
    connection.generation != token.generation || !connection.is(State::Open)
}

// Requests.
impl<T: Technique> Provided<T> {
    fn token(&self, kind: Kind, index: u32) -> Token {
        Token { kind, generation: self.connections[index as usize].generation, index }
    }

    fn socket(index: u32) -> Socket {
        if T::DIRECT { Socket::Direct(index) } else { Socket::File(index) }
    }

    fn poll(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        self.connections[index as usize].set(State::Polling);
        core.request(self.token(Kind::Poll, index), Request::poll_multishot(Self::socket(index)))
    }

    fn receive(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        if self.buffers.available() == 0 {
            // The kernel would refuse at once, even while nothing has arrived.
            self.starve(index);
            return Ok(());
        }
        self.connections[index as usize].set(State::Receiving);
        let socket = Self::socket(index);
        let request = if T::POLL {
            Request::receive_now(socket)
        } else if T::BUNDLE {
            Request::receive_bundles(socket, self.bytes_at_once)
        } else {
            Request::receive_multishot(socket)
        };
        core.request(self.token(Kind::Receive, index), request)
    }

    /// Takes back the request that brings input, the receive or the poll.
    fn cancel_input(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        let armed =
            if T::POLL { connection.is(State::Polling) } else { connection.is(State::Receiving) };
        if !armed || connection.is(State::Cancelling) {
            return Ok(());
        }
        connection.set(State::Cancelling);
        let target = self.token(if T::POLL { Kind::Poll } else { Kind::Receive }, index);
        core.request(self.token(Kind::Cancel, index), Request::cancel(target))
    }

    /// Sends what the connection owes next, if anything and if no send is in flight.
    fn send(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        let connection = &self.connections[index as usize];
        if connection.sending > 0 || connection.is(State::Failed) || core.stopping {
            return Ok(());
        }
        if let Some(blocked) = &connection.blocked {
            let socket = Self::socket(index);
            // No hurry now: the kernel waits for space.
            let bytes = &blocked.sending[blocked.sent..];
            // What is more than a request can say is sent after it.
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let entry = opcode::Send::new(socket.fd(), bytes.as_ptr(), length)
                .flags(libc::MSG_NOSIGNAL)
                .build();
            self.connections[index as usize].sending = 1;
            // SAFETY: the bytes are a boxed slice's, which is dropped only after the send's
            // completion.
            unsafe {
                core.push(self.token(Kind::PatientSend, index), entry.flags(socket.flags()))?
            };
            return Ok(());
        }
        if connection.length == 0 { Ok(()) } else { self.send_from_buffers(core, index) }
    }

    /// Sends a buffer, or a bundle of them, of a connection that owes some, and has no send in
    /// flight.
    #[inline(always)]
    fn send_from_buffers(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        let socket = Self::socket(index).fd();
        let (entry, segments, bytes, group) = match self.lend_group(core, index)? {
            None => {
                let tail = self.connections[index as usize].tail;
                let bytes = self.buffers.contents(self.segments.first(tail));
                let length = bytes.len() as u32;
                (
                    opcode::Send::new(socket, bytes.as_ptr(), length).flags(SEND).build(),
                    1,
                    length.into(),
                    None,
                )
            }
            Some(group) => {
                let (segments, bytes) = self.fill(group, index);
                let entry =
                    opcode::SendBundle::new(socket, SendGroups::group(group)).flags(SEND).build();
                (entry, segments, bytes, Some(group))
            }
        };
        // Counted now, because no completion will say when; a failed send takes it back.
        core.counters.bytes_sent.add(bytes);
        let connection = &mut self.connections[index as usize];
        connection.sending = segments;
        self.may_be_followed |= connection.length > segments.into();
        let token = Token { kind: Kind::Send, generation: connection.generation, index };
        // SAFETY: the bytes are in pieces of buffers that stay ours until the send is decided. So
        // does the group that it takes them from.
        let number = unsafe {
            core.push(token, entry.flags(Flags::SKIP_SUCCESS | Self::socket(index).flags()))?
        };
        self.sends.push(Sending { number, index, group });
        Ok(())
    }

    /// A group for what the connection owes, if that is more than a buffer and one can be had.
    #[inline]
    fn lend_group(&mut self, core: &Core, index: u32) -> io::Result<Option<u16>> {
        if !T::BUNDLE || self.connections[index as usize].length < 2 {
            return Ok(None);
        }
        let Some(groups) = &mut self.groups else { return Ok(None) };
        groups.lend(&core.ring.submitter(), core.counters)
    }

    /// Puts what the connection owes into a group: how many segments, and bytes.
    fn fill(&mut self, group: u16, index: u32) -> (u16, u64) {
        let Some(groups) = &mut self.groups else { return (0, 0) };
        let Connection { tail, length, .. } = self.connections[index as usize];
        let (mut segments, mut bytes) = (0, 0);
        for piece in self.segments.queue(tail, length).take(buffer_ring::BUNDLE_MOST) {
            let contents = self.buffers.contents(piece);
            // SAFETY: the piece stays ours until the send is decided.
            unsafe { groups.put(group, contents) };
            bytes += contents.len() as u64;
            segments += 1;
        }
        groups.publish(group);
        (segments, bytes)
    }

    fn close(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        core.counters.closed.add(1);
        let token = self.token(Kind::Close, index);
        self.connections[index as usize].clear(State::Open);
        core.request(token, Request::close(Self::socket(index)))
    }

    /// Makes regular descriptors of direct ones, because the drain knows no other.
    fn install(&mut self, core: &mut Core, open: &[(u32, RawFd)]) -> io::Result<Vec<(u32, RawFd)>> {
        for &(index, _) in open {
            core.request(Token::of(Kind::Install, index), Request::install(index))?;
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

// Completions.
impl<T: Technique> Provided<T> {
    fn polled(&mut self, core: &mut Core, index: u32, completion: &Completion) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        if completion.result > 0 {
            connection.set(State::Readable);
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

    /// A receive that has ended without bytes, or whose connection has.
    #[cold]
    fn received_nothing(
        &mut self,
        core: &mut Core,
        token: Token,
        completion: &Completion,
    ) -> io::Result<()> {
        let index = token.index;
        self.discard(completion);
        let connection = &mut self.connections[index as usize];
        if is_late(connection, token) {
            core.came_late(token);
            return Ok(());
        }
        if !completion.more() {
            connection.receive_ended::<T>();
        }
        match -completion.result {
            0 => connection.set(State::Ended),
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

    /// A send whose failure would be known by now: it has taken everything.
    fn send_succeeded(&mut self, core: &mut Core, sending: Sending) -> io::Result<()> {
        if T::BUNDLE
            && let (Some(group), Some(groups)) = (sending.group, &mut self.groups)
        {
            groups.take_back(group);
        }
        let Self { connections, buffers, segments, buffers_per_connection, .. } = self;
        let connection = &mut connections[sending.index as usize];
        let sent = std::mem::take(&mut connection.sending);
        // A failure of this connection's own may have come between, and taken all that it owes
        // away.
        if T::BUNDLE {
            (0..sent).for_each(|_| connection.dequeue(buffers, segments));
        } else if sent > 0 {
            connection.dequeue(buffers, segments);
        }
        let need = connection.need::<T>(*buffers_per_connection);
        self.supply(core, sending.index, need)
    }

    /// A send that the socket did not take, or only a part of it: then `result` is how much.
    fn send_failed(&mut self, core: &mut Core, index: u32, result: i32) -> io::Result<()> {
        // Its completion may come before the queue's head is seen to have passed it.
        if let Some(sending) = self.sends.remove(index)
            && let (Some(group), Some(groups)) = (sending.group, &mut self.groups)
        {
            groups.renew(&core.ring.submitter(), core.counters, group)?;
        }
        let sent = result.max(0) as usize;
        core.counters.bytes_sent.take_back((self.bytes_in_flight(index) - sent) as u64);
        let connection = &mut self.connections[index as usize];
        connection.sending = 0;
        if result >= 0 {
            core.counters.short_sends.add(1);
            self.block(core, index, sent)?;
        } else if -result == libc::EAGAIN {
            core.counters.would_block.add(1);
            self.block(core, index, 0)?;
        } else {
            connection.set(State::Failed);
        }
        self.advance(core, index)
    }

    fn bytes_in_flight(&self, index: u32) -> usize {
        let Connection { tail, sending, .. } = self.connections[index as usize];
        let pieces = self.segments.queue(tail, sending.into());
        pieces.map(|piece| (piece.end - piece.start) as usize).sum()
    }

    fn sent_patiently(&mut self, core: &mut Core, index: u32, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.sending = 0;
        match (result, &mut connection.blocked) {
            (0.., Some(blocked)) => {
                core.counters.bytes_sent.add(result as u64);
                blocked.sent += result as usize;
                if blocked.sent < blocked.sending.len() {
                    core.counters.short_sends.add(1);
                } else if blocked.waiting.is_empty() {
                    connection.blocked = None;
                } else {
                    blocked.sending = std::mem::take(&mut blocked.waiting).into_boxed_slice();
                    blocked.sent = 0;
                }
            }
            // Only the stop cancels sends; what is owed stays owed, and the drain sends it.
            _ if -result == libc::ECANCELED && core.stopping => {}
            _ => connection.set(State::Failed),
        }
        self.advance(core, index)
    }

    /// The peer does not read: what it is owed, but for the first `sent` bytes, moves to the heap,
    /// and its input waits.
    fn block(&mut self, core: &mut Core, index: u32, sent: usize) -> io::Result<()> {
        let sending = self.take_queue(index, sent).into_boxed_slice();
        self.connections[index as usize].blocked =
            Some(Box::new(Blocked { sending, ..Blocked::default() }));
        core.counters.backpressure_pauses.add(1);
        // A poll may stay: what it reports waits until the peer has taken everything.
        if T::POLL { Ok(()) } else { self.cancel_input(core, index) }
    }

    /// Copies out all that is queued but for the first `sent` bytes, and gives the buffers back.
    fn take_queue(&mut self, index: u32, sent: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut skip = sent;
        let Self { connections, buffers, segments, .. } = self;
        let connection = &mut connections[index as usize];
        while connection.length > 0 {
            let contents = buffers.contents(segments.first(connection.tail));
            let skipped = skip.min(contents.len());
            bytes.extend_from_slice(&contents[skipped..]);
            skip -= skipped;
            connection.dequeue(buffers, segments);
        }
        bytes
    }

    /// Everything that a connection is owed, taken away from it. Only while no send is in flight.
    fn take_unsent(&mut self, index: u32) -> Vec<u8> {
        match self.connections[index as usize].blocked.take() {
            None => self.take_queue(index, 0),
            Some(blocked) => [&blocked.sending[blocked.sent..], &blocked.waiting].concat(),
        }
    }

    /// Does what a connection needs next: send, pause or resume its input, or close.
    fn advance(&mut self, core: &mut Core, index: u32) -> io::Result<()> {
        let need = self.connections[index as usize].need::<T>(self.buffers_per_connection);
        self.supply(core, index, need)
    }

    /// The same where what it needs is known.
    #[inline(always)]
    fn supply(&mut self, core: &mut Core, index: u32, need: Need) -> io::Result<()> {
        match need {
            Need::Nothing => Ok(()),
            _ if core.stopping => Ok(()),
            Need::Send => self.send_from_buffers(core, index),
            Need::Other => self.advance_otherwise(core, index),
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
        self.send(core, index)?;
        let limit = self.buffers_per_connection;
        let connection = &mut self.connections[index as usize];
        if connection.is(State::Receiving) {
            if !T::POLL && connection.length > limit && !connection.is(State::Cancelling) {
                core.counters.backpressure_pauses.add(1);
                return self.cancel_input(core, index);
            }
        } else if !connection.is_over() {
            let wanted = !T::POLL || connection.is(State::Readable);
            let allowed = !connection.is(State::Starved)
                && connection.blocked.is_none()
                && connection.length <= limit / 2;
            if wanted && allowed {
                connection.clear(State::Readable);
                return self.receive(core, index);
            }
        } else if connection.sending == 0 {
            if connection.is(State::Polling) {
                return self.cancel_input(core, index);
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
            connection.length > connection.sending.into() || connection.is_over() || !waits
        };
        let sends = self.sends.undecided();
        self.may_be_followed = !self.starved.is_empty() || sends.iter().any(follows);
        self.may_be_followed && !sends.is_empty()
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
    fn feed_the_starved(&mut self, core: &mut Core) -> io::Result<()> {
        let available = self.buffers.available();
        let most = if available == 0 { 0 } else { (available / self.buffers_at_once).max(1) };
        for _ in 0..self.starved.len().min(most) {
            let Some((index, generation)) = self.starved.pop_front() else { break };
            let connection = &mut self.connections[index as usize];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_connection_itself_is_in_time() {
        let token = Token { kind: Kind::Receive, generation: 2, index: 0 };
        let connection =
            |generation, states| Connection { generation, states, ..Connection::default() };
        let open = State::Open as u8;
        assert!(!is_late(&connection(2, open), token));
        assert!(is_late(&connection(3, open), token), "the next owner of the index");
        assert!(is_late(&connection(2, !open), token), "closed");
    }

    #[test]
    fn an_index_that_is_used_again_has_another_generation() {
        let mut connections: Vec<Connection> = Vec::new();
        let mut seen = Vec::new();
        for _ in 0..3 {
            admit(&mut connections, 5);
            seen.push(connections[5].generation);
            connections[5].clear(State::Open);
        }
        assert_eq!(seen, [1, 2, 3]);
        connections[5].generation = GENERATION_MASK;
        admit(&mut connections, 5);
        assert_eq!(connections[5].generation, 0, "it has the bits that a token has");
    }

    #[test]
    fn queues_keep_their_order() {
        let piece = |buffer| Piece { buffer, start: 0, end: 1 };
        let mut segments = Segments::default();
        let mut lasts = [None, None];
        // Two queues in each other's way, in segments that are used again.
        for round in 0..3 {
            for buffer in 0..10 {
                let last = &mut lasts[usize::from(buffer % 2)];
                *last = Some(match *last {
                    None => segments.add(piece(buffer)),
                    Some(last) => segments.add_behind(last, piece(buffer)),
                });
            }
            for (queue, last) in lasts.iter_mut().enumerate() {
                let last = last.take().expect("it has pieces");
                let all: Vec<u16> = segments.queue(last, 5).map(|piece| piece.buffer).collect();
                for (left, buffer) in all.iter().enumerate() {
                    assert_eq!(*buffer as usize, queue + 2 * left, "round {round}");
                    assert_eq!(segments.first(last), piece(*buffer));
                    assert_eq!(segments.remove_first(last), piece(*buffer));
                }
            }
            assert_eq!(segments.segments.len(), 10);
        }
    }

    #[test]
    fn states_do_not_touch_each_other() {
        use State::{Cancelling, Ended, Failed, Open, Polling, Readable, Receiving, Starved};
        let all = [Open, Receiving, Polling, Readable, Cancelling, Starved, Ended, Failed];
        let mut connection = Connection::default();
        for (count, state) in all.into_iter().enumerate() {
            assert!(!connection.is(state), "{state:?}");
            connection.set(state);
            assert!(connection.is(state), "{state:?}");
            assert_eq!(
                connection.states.count_ones() as usize,
                count + 1,
                "{state:?} alone was set"
            );
        }
        for (count, state) in all.into_iter().enumerate() {
            connection.clear(state);
            assert!(!connection.is(state), "{state:?}");
            assert_eq!(
                connection.states.count_zeros() as usize,
                count + 1,
                "{state:?} alone was cleared"
            );
        }
    }

    #[test]
    fn idle_connections_are_small() {
        assert_eq!(size_of::<Connection>(), 24);
    }
}
