//! The document's reactor, faithfully: Chinese notes on network programming that build an epoll
//! reactor with a table of event blocks, meant for a million connections.
//!
//! # What stays, because it is what is measured
//! Level triggering; blocks of 1024 events that never move, found by a linear walk; an event with
//! its own 1024-byte buffer for every descriptor (1,056 bytes, fields in the document's order); for
//! every message recv, DEL, ADD(OUT), wait, send, DEL, ADD(IN); one accept for a wake; accept() and
//! then fcntl(); the wait of at most 1000 ms. Its last, full listing governs where its listings
//! differ.
//!
//! # Faults of the document, each corrected here
//! The document's code cannot serve more than one connection.
//!
//! 1. `find_event_byfd` indexes a block with `blkid % 1024` instead of `fd % 1024`.
//! 2. `accept_cb` looks up the event of the listening descriptor instead of the accepted one's.
//! 3. `recv_cb` (first listing) closes without `event_del`, and `send_cb` closes before it, so that
//!    the next owner of the descriptor is modified instead of added.
//! 4. `reactor_addlistener` indexes the first block with the descriptor, beyond its end from 1024
//!    on.
//! 5. A partial send drops the rest; EAGAIN and EINTR close the connection.
//! 6. `send` without MSG_NOSIGNAL: a client that leaves with unread data kills the server by
//!    SIGPIPE.
//! 7. `reactor_destory` frees a block and then reads its link.
//! 8. `bind` is unchecked: when it fails, `listen` takes a random port.
//! 9. `event_add` sets `status` before `epoll_ctl` has succeeded; a failing `fcntl` or add leaks
//!    the descriptor.
//! 10. A failing `event_alloc` makes `find_event_byfd` loop for ever; the block's malloc is checked
//!     through the wrong pointer.
//! 11. EMFILE on accept spins; EPOLLERR and EPOLLHUP alone are never dispatched.
//! 12. There is no way out of `reactor_run`, and `main`'s closing loop never runs (its counter is
//!     at the end already). `buffer[len] = '\0'` at 1024 bytes writes into `length`. The test for
//!     EPOLLOUT after the callback for EPOLLIN reads the event that the callback has changed. The
//!     port is a signed short.
//!
//! # Deviations
//! - No `printf` for each message, and no terminating zero in the buffer, which nobody reads.
//! - Listeners, their backlog (the document's is 20) and TCP_NODELAY are those of every backend;
//!   ports are [`PORT_COUNT`] only if `--ports` says so.
//! - The stop signal is one more event in the table. After it the shared [drain](crate::drain)
//!   takes over.
//! - While descriptors are out, or accept fails in another way that would repeat, the listeners are
//!   deleted from the epoll set until a connection closes or a second has passed.
//! - Blocks are allocated zeroed instead of allocated and then set to zero; see [`event_table`].
//! - With `--set lookup=index`, and only then, a block is found in an array of all blocks instead
//!   of by walking to it. Blocks and events are the same, and stay where they are.
//! - Conversations stand in an array beside the table, by descriptor. A response is sent from where
//!   it lies, and several writes of a source have a DEL and an ADD between them, as all of the
//!   document's sends have.
//! - Several workers run a reactor each, as the document suggests under the advantages of the
//!   pattern.

pub mod callbacks;
pub mod event_table;
pub mod reactor;

use super::readiness;
use crate::contract::{Backend, BackendFacts, Facts, Knob, Knobs, Needs, Unsupported, WorkerTask};
use crate::counters::Counters;
use crate::drain::{self, Owed};
use crate::error::named;
use crate::listener::{AcceptPause, Listener};
use crate::service::Conversation;
use crate::stop::Stop;
use crate::sys;
use crate::work::{WORK_NS, Work};
use event_table::{BUFFER_LENGTH, Event, EventTable, Lookup, MAX_EPOLL_EVENTS};
use reactor::Reactor;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The first port (`SERVER_PORT`).
pub const SERVER_PORT: u16 = 8888;

/// How many ports a server for a million connections opens (`PORT_COUNT` in the text; the full
/// listing says 1).
pub const PORT_COUNT: u16 = 100;

/// `lookup`.
const LOOKUP: Knob = Knob::word(
    "lookup",
    &["walk", "index"],
    "how the event of a descriptor is found: along the links of the blocks, or in an array of the \
     blocks, which the document does not have",
);

/// The document's reactor.
pub struct EpollDocument<C: Conversation> {
    epfd: OwnedFd,
    table: EventTable,
    listeners: Vec<Listener>,
    work: Work,
    terms: C::Terms,
}

impl<C: Conversation> Backend for EpollDocument<C> {
    type Conversation = C;

    const FACTS: BackendFacts = BackendFacts {
        name: "epoll-document",
        summary: "the document's reactor: level-triggered, blocks of events, DEL and ADD around \
                  every recv and send",
        table_bytes_per_connection: size_of::<Event>(),
        needs: Needs { linux: "3.2", default_container: true, limits: "fs.epoll.max_user_watches" },
        knobs: &[LOOKUP, WORK_NS],
        ..BackendFacts::DEFAULT
    };

    fn probe(_knobs: &Knobs, _workers: u16) -> Result<(), Unsupported> {
        readiness::epoll::probe()
    }

    fn new(task: WorkerTask<'_, C::Terms>) -> io::Result<Self> {
        let WorkerTask { listeners, knobs, service: terms, .. } = task;
        let lookup = if knobs.word(LOOKUP.name) == "index" { Lookup::Index } else { Lookup::Walk };
        Ok(Self {
            epfd: sys::epoll_create()?,
            table: EventTable::new(lookup).map_err(named("the table of events"))?,
            listeners,
            work: Work::of(knobs),
            terms,
        })
    }

    fn in_force(&self) -> Facts {
        let lookup = match self.table.lookup() {
            Lookup::Walk => "walk",
            Lookup::Index => "index",
        };
        Facts::from_iter([
            ("trigger".to_owned(), "level".into()),
            ("event_bytes".to_owned(), size_of::<Event>().into()),
            ("events_per_block".to_owned(), MAX_EPOLL_EVENTS.into()),
            ("lookup".to_owned(), lookup.into()),
            ("receive_bytes".to_owned(), BUFFER_LENGTH.into()),
        ])
    }

    fn run(self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        let listeners =
            self.listeners.iter().map(|listener| listener.as_raw_fd()).collect::<Vec<_>>();
        let mut reactor = Reactor {
            epfd: self.epfd,
            table: self.table,
            conversations: Vec::<C>::new(),
            terms: self.terms,
            counters,
            listeners: listeners.clone(),
            rest: AcceptPause::default(),
            work: self.work,
            stopping: false,
            failure: None,
        };
        let r = &raw mut reactor;
        // SAFETY: `reactor` stays in its place until these calls have returned, and is used only
        // through `r`.
        unsafe {
            Reactor::add_listener(r, stop.fd(), callbacks::stop_cb::<C>)?;
            for &fd in &listeners {
                Reactor::add_listener(r, fd, callbacks::accept_cb::<C>)?;
            }
            Reactor::run(r)?;
        }
        let registered: Vec<(RawFd, Vec<u8>)> = reactor
            .registered()
            .filter(|(fd, _)| *fd != stop.fd() && !listeners.contains(fd))
            .map(|(fd, unsent)| (fd, unsent.to_vec()))
            .collect();
        let owed = registered
            .into_iter()
            .map(|(fd, unsent)| Owed {
                // SAFETY: the table owned the descriptors of its connections, and is dropped with
                // the reactor.
                fd: unsafe { sys::own(fd) },
                unsent,
                conversation: std::mem::take(reactor.conversation(fd)),
            })
            .collect();
        drop((reactor, self.listeners));
        drain::drain(owed, self.terms, stop.drain_time(), counters)
    }
}
