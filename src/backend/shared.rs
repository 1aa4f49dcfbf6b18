//! One epoll on which all workers wait: whoever is free serves the next connection, whoever has
//! accepted it.
//!
//! # Why two workers never serve one connection
//! A connection is registered for one event (EPOLLONESHOT, epoll_ctl(2)). Who is told of it is the
//! only one who knows, serves it, and then registers it anew, which looks at its state again: so
//! nothing that came meanwhile is missed. The price of the technique is an `epoll_ctl` for each
//! turn. A connection is closed only by who serves it, so that no event is left that could
//! name a later owner of its descriptor. Listeners are registered in the same way.
//!
//! # Why a registration is removed before its connection is closed
//! A wait holds a file for the moment in which it looks at its state, even if the file's one event
//! was taken already (`epi_fget` in the kernel's eventpoll.c, since 6.10). A close() in that moment
//! is not the last: the kernel leaves the rest of it to the waiting worker, for its return from the
//! wait. A worker that then found nothing sleeps on, and the peer does not hear of the end until
//! something else wakes it. The removal waits until nobody looks.
//!
//! # Locks
//! Each connection has a lock of its own, which is taken for a turn and is free whenever it is
//! taken: events alone keep workers apart. It waits in one case: a descriptor that was just closed
//! is opened again before its last turn is over.
//!
//! # Who takes how much
//! By default a wait takes one event (`events_per_wait`), so that whoever is free has the next. A
//! worker that takes more serves them one after the other, while others may sleep.
//!
//! # The end
//! The stop signal is registered for as long as it lasts, so that every worker hears of it. The
//! last to leave [drains](crate::drain) all connections, and closes the listeners: before that, an
//! event of another worker may still name them.

mod places;

use crate::backend::readiness::{ACCEPTS, RECEIVE_BYTES, SENDS_PER_TURN, epoll};
use crate::connection::{self, Unsent};
use crate::contract::{Backend, BackendFacts, Facts, Knob, Knobs, Needs, Unsupported, WorkerTask};
use crate::counters::Counters;
use crate::drain::{self, Owed};
use crate::error::{interrupted, named, would_block};
use crate::listener::{self, AcceptPause, Accepted, Listener};
use crate::service::Conversation;
use crate::stop::Stop;
use crate::sys;
use crate::work::{WORK_NS, Work};
use places::{Places, lock};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A worker of those that share an epoll.
pub struct EpollShared<C: Conversation> {
    common: Arc<Common<C>>,
    listeners: Vec<Listener>,
    accepts_per_turn: usize,
    events_per_wait: usize,
    receive_bytes: usize,
    work: Work,
    terms: C::Terms,
}

/// All that the workers share.
struct Common<C> {
    epoll: OwnedFd,
    connections: Places<Served<C>>,
    /// How many connections were closed.
    closed: AtomicU64,
    /// Accepting rests. It is looked at without the lock, since it hardly ever does.
    rests: AtomicBool,
    crew: Mutex<Crew>,
}

/// The workers that are there, and what they do together.
#[derive(Default)]
struct Crew {
    present: usize,
    /// The listeners of all, once they are waited for.
    listeners: Vec<Listener>,
    rest: AcceptPause,
    /// Listeners that were reported, and are not waited for before the rest is over.
    unarmed: Vec<RawFd>,
}

/// A connection.
struct Served<C> {
    fd: OwnedFd,
    unsent: Unsent,
    conversation: C,
    /// It waits for space.
    full: bool,
    /// Its peer has sent its end.
    ended: bool,
}

impl<C: Conversation> Served<C> {
    fn new(fd: OwnedFd) -> Self {
        let (unsent, conversation) = (Unsent::default(), C::default());
        Self { fd, unsent, conversation, full: false, ended: false }
    }

    fn owed_bytes(&self) -> u64 {
        self.unsent.len() as u64 + self.conversation.owed_bytes()
    }
}

/// The end of a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The connection waits for this.
    WaitFor(u32),
    /// It is closed.
    Close,
}

const INPUT: u32 = libc::EPOLLIN as u32;
const OUTPUT: u32 = libc::EPOLLOUT as u32;
const ONCE: u32 = libc::EPOLLONESHOT as u32;
const END_OR_INPUT: u32 = INPUT | (libc::EPOLLHUP | libc::EPOLLERR) as u32;

/// Marks the event of a listener; its descriptor is in the lower half.
const LISTENER: u64 = 1 << 32;
/// Marks the stop signal.
const STOP: u64 = 1 << 33;

const EVENTS_PER_WAIT: Knob = Knob::number(
    "events_per_wait",
    1,
    1..=65_536,
    "events taken by one epoll_wait at most; a worker serves all that it takes before another may",
);

impl<C> Backend for EpollShared<C>
where
    C: Conversation + Send + 'static,
{
    type Conversation = C;

    const FACTS: BackendFacts = BackendFacts {
        name: "epoll-shared",
        summary: "all workers wait on one epoll (EPOLLONESHOT), one receive buffer a worker, sent \
                  at once, then registered again",
        shares_files: true,
        only_registers: true,
        needs: Needs { linux: "3.2", default_container: true, limits: "fs.epoll.max_user_watches" },
        knobs: &[RECEIVE_BYTES, ACCEPTS, EVENTS_PER_WAIT, WORK_NS],
        ..BackendFacts::DEFAULT
    };

    fn probe(_knobs: &Knobs, _workers: u16) -> Result<(), Unsupported> {
        epoll::probe()
    }

    fn new(task: WorkerTask<'_, C::Terms>) -> io::Result<Self> {
        let WorkerTask { listeners, knobs, service: terms, team } = task;
        let common = team.shared(Common::new)?;
        common.crew().present += 1;
        Ok(Self {
            common,
            listeners,
            accepts_per_turn: knobs.size(ACCEPTS.name),
            events_per_wait: knobs.size(EVENTS_PER_WAIT.name),
            receive_bytes: knobs.size(RECEIVE_BYTES.name),
            work: Work::of(knobs),
            terms,
        })
    }

    fn in_force(&self) -> Facts {
        Facts::from_iter([("trigger".to_owned(), "level, once".into())])
    }

    fn run(mut self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        let common = Arc::clone(&self.common);
        let member = Member(&common);
        let served = self.join(counters, stop).and_then(|()| self.serve_until_stop(counters));
        // The last to leave may have failed; the connections are those of all.
        let drained = drain::drain(member.leave(), self.terms, stop.drain_time(), counters);
        served.and(drained)
    }
}

/// A worker of those that are present. One that panics leaves too.
struct Member<'a, C>(&'a Common<C>);

impl<C> Member<'_, C> {
    /// Leaves; the last one gets all connections.
    fn leave(self) -> Vec<Owed<C>> {
        let left = self.0.leave();
        std::mem::forget(self);
        left
    }
}

impl<C> Drop for Member<'_, C> {
    fn drop(&mut self) {
        drop(self.0.leave());
    }
}

impl<C> Common<C> {
    fn crew(&self) -> MutexGuard<'_, Crew> {
        // No worker panics while it holds the lock.
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker leaves; the last one gets all connections.
    fn leave(&self) -> Vec<Owed<C>> {
        let mut crew = self.crew();
        crew.present -= 1;
        if crew.present > 0 {
            return Vec::new();
        }
        crew.listeners.clear();
        let owed = |served: Served<C>| {
            let Served { fd, mut unsent, conversation, .. } = served;
            Owed { fd, unsent: unsent.take(), conversation }
        };
        self.connections.take_all().map(owed).collect()
    }
}

impl<C: Conversation> Common<C> {
    fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: sys::epoll_create()?,
            connections: Places::new()?,
            closed: AtomicU64::new(0),
            rests: AtomicBool::new(false),
            crew: Mutex::default(),
        })
    }

    fn control(
        &self,
        counters: &Counters,
        operation: libc::c_int,
        fd: RawFd,
        events: u32,
        mark: u64,
    ) -> io::Result<()> {
        sys::epoll_ctl(counters, self.epoll.as_raw_fd(), operation, fd, events, mark | fd as u64)
    }

    /// Waits for a listener's connections again.
    fn listen(&self, counters: &Counters, listener: RawFd) -> io::Result<()> {
        self.control(counters, libc::EPOLL_CTL_MOD, listener, INPUT | ONCE, LISTENER)
            .map_err(named("epoll_ctl"))
    }

    /// Accepting in vain rests, since `closed` connections were closed. This listener is not waited
    /// for meanwhile; connections wait in its queue.
    fn rest(&self, closed: u64, listener: RawFd) {
        let mut crew = self.crew();
        crew.rest.begin(closed);
        crew.unarmed.push(listener);
        self.rests.store(true, SeqCst);
    }

    /// Whether accepting rests. Then who began that listens again when it is over, to this listener
    /// too.
    fn joins_rest(&self, listener: RawFd) -> bool {
        if !self.rests.load(SeqCst) {
            return false;
        }
        let mut crew = self.crew();
        let rests = crew.rest.left().is_some();
        crew.unarmed.extend(rests.then_some(listener));
        rests
    }

    /// Ends a rest that is over. How long the wait for events may last, in ms: -1 is for ever.
    fn end_rest(&self, counters: &Counters) -> io::Result<libc::c_int> {
        if !self.rests.load(SeqCst) {
            return Ok(-1);
        }
        let mut crew = self.crew();
        if crew.rest.is_over(self.closed.load(SeqCst)) {
            self.rests.store(false, SeqCst);
            crew.unarmed.drain(..).try_for_each(|listener| self.listen(counters, listener))?;
        }
        Ok(crew.rest.timeout_ms())
    }

    /// Takes a connection, for whoever hears of its input.
    fn open(&self, counters: &Counters, socket: OwnedFd) {
        let fd = socket.as_raw_fd();
        let refused = match self.connections.place(fd) {
            Some(place) => {
                *lock(place) = Some(Served::new(socket));
                // Out of memory or of epoll watches: it is refused, and the others go on.
                let added = self.control(counters, libc::EPOLL_CTL_ADD, fd, INPUT | ONCE, 0);
                added.err().and_then(|_| lock(place).take()).map(|served| served.fd)
            }
            None => Some(socket),
        };
        if let Some(socket) = refused {
            self.close(counters, socket);
        }
    }

    fn close(&self, counters: &Counters, socket: OwnedFd) {
        // It fails for one that could not be registered.
        let _ = self.control(counters, libc::EPOLL_CTL_DEL, socket.as_raw_fd(), 0, 0);
        sys::close(counters, socket);
        counters.closed.add(1);
        self.closed.fetch_add(1, SeqCst);
    }
}

impl<C: Conversation> EpollShared<C> {
    /// Waits for the stop signal and the worker's listeners, and gives these to the crew.
    fn join(&mut self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        let common = &*self.common;
        let add = |fd, events, mark| {
            let added = common.control(counters, libc::EPOLL_CTL_ADD, fd, events, mark);
            added.map_err(named("epoll_ctl"))
        };
        // The first to come registers it for all.
        add(stop.fd(), INPUT, STOP).or_else(|error| match error.kind() {
            ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })?;
        for listener in self.listeners.drain(..) {
            add(listener.as_raw_fd(), INPUT | ONCE, LISTENER)?;
            common.crew().listeners.push(listener);
        }
        Ok(())
    }

    fn serve_until_stop(&self, counters: &Counters) -> io::Result<()> {
        let common = &*self.common;
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; self.events_per_wait];
        let mut buffer = vec![0; self.receive_bytes];
        loop {
            let timeout_ms = common.end_rest(counters)?;
            let ready =
                sys::epoll_wait(counters, common.epoll.as_raw_fd(), &mut events, timeout_ms)?;
            let mut stopped = false;
            for &libc::epoll_event { events, u64: data } in &events[..ready] {
                match data {
                    _ if data & STOP != 0 => stopped = true,
                    _ if data & LISTENER != 0 => self.accept(counters, data as u32 as RawFd)?,
                    _ => self.take_turn(counters, data as RawFd, events, &mut buffer),
                }
            }
            if stopped {
                return Ok(());
            }
        }
    }

    fn accept(&self, counters: &Counters, listener: RawFd) -> io::Result<()> {
        let common = &*self.common;
        // From before accepting, so that what is closed between a failure and the rest ends that.
        let closed = common.closed.load(SeqCst);
        if common.joins_rest(listener) {
            return Ok(());
        }
        for _ in 0..self.accepts_per_turn {
            match listener::accept(counters, listener, sys::accept4)? {
                Accepted::Connection(socket) => common.open(counters, socket),
                Accepted::Drained => break,
                Accepted::Paused => {
                    common.rest(closed, listener);
                    return Ok(());
                }
            }
        }
        if common.listen(counters, listener).is_err() {
            common.rest(closed, listener);
        }
        Ok(())
    }

    /// Serves a connection that has been reported, and waits for it again.
    fn take_turn(&self, counters: &Counters, fd: RawFd, events: u32, buffer: &mut [u8]) {
        let common = &*self.common;
        let Some(place) = common.connections.place(fd) else { return };
        let mut guard = lock(place);
        let Some(served) = &mut *guard else { return };
        let turn = self.serve(counters, served, events & END_OR_INPUT != 0, buffer);
        if let Turn::WaitFor(wanted) = turn {
            // The next to be told of it must find it unlocked.
            drop(guard);
            if common.control(counters, libc::EPOLL_CTL_MOD, fd, wanted | ONCE, 0).is_ok() {
                return;
            }
            // It would never be served again, and nobody else knows of it.
            guard = lock(place);
        }
        if let Some(served) = guard.take() {
            counters.bytes_abandoned.add(served.owed_bytes());
            common.close(counters, served.fd);
        }
    }

    /// Sends what is owed, or receives once and answers.
    fn serve(
        &self,
        counters: &Counters,
        served: &mut Served<C>,
        has_input: bool,
        buffer: &mut [u8],
    ) -> Turn {
        let fd = served.fd.as_raw_fd();
        if !served.unsent.is_empty() {
            return match served.unsent.flush(counters, fd) {
                Err(_) => Turn::Close,
                Ok(()) if served.unsent.is_empty() => Turn::WaitFor(INPUT),
                Ok(()) => Turn::WaitFor(OUTPUT),
            };
        }
        if !C::ECHOES && served.conversation.owed_bytes() > 0 {
            let turn = self.reply(counters, served);
            let looks_for_end = has_input && C::never_rests(self.terms) && !served.ended;
            if turn == Turn::Close || turn == Turn::WaitFor(INPUT) || !looks_for_end {
                return turn;
            }
        }
        let received = match sys::recv(counters, fd, buffer, 0) {
            Ok(0) => return self.ended(served),
            Ok(received) => received,
            Err(error) if would_block(&error) => {
                counters.would_block.add(1);
                return Turn::WaitFor(self.next(served));
            }
            Err(error) if interrupted(&error) => return Turn::WaitFor(self.next(served)),
            Err(_) => return Turn::Close,
        };
        counters.bytes_received.add(received as u64);
        self.work.perform(counters);
        let bytes = &buffer[..received];
        if !C::ECHOES {
            if served.conversation.receive(self.terms, counters, bytes).is_err() {
                counters.mismatches.add(1);
                return Turn::Close;
            }
            return self.reply(counters, served);
        }
        if served.unsent.send_or_keep(counters, fd, bytes).is_err() {
            counters.bytes_abandoned.add(received as u64);
            return Turn::Close;
        }
        if served.unsent.is_empty() {
            return Turn::WaitFor(INPUT);
        }
        counters.backpressure_pauses.add(1);
        Turn::WaitFor(OUTPUT)
    }

    /// Sends what a conversation owes, as far as the socket takes it and the turn lasts.
    fn reply(&self, counters: &Counters, served: &mut Served<C>) -> Turn {
        for _ in 0..SENDS_PER_TURN {
            let owed = served.conversation.owed(self.terms);
            if owed.is_empty() {
                served.full = false;
                return if served.ended { Turn::Close } else { Turn::WaitFor(INPUT) };
            }
            let Ok(sent) = connection::send(counters, served.fd.as_raw_fd(), owed) else {
                return Turn::Close;
            };
            served.conversation.sent(self.terms, sent);
            if sent < owed.len() {
                let was_full = std::mem::replace(&mut served.full, true);
                counters.backpressure_pauses.add(u64::from(!was_full));
                break;
            }
        }
        Turn::WaitFor(self.next(served))
    }

    /// The peer has sent its end: its connection is closed once nothing is owed.
    fn ended(&self, served: &mut Served<C>) -> Turn {
        served.conversation.end();
        served.ended = true;
        if served.owed_bytes() == 0 { Turn::Close } else { Turn::WaitFor(OUTPUT) }
    }

    /// The condition that a connection waits for next: space if it owes something, and then input
    /// too where a conversation never rests. It is the peer's end.
    fn next(&self, served: &Served<C>) -> u32 {
        match served.owed_bytes() {
            0 => INPUT,
            _ if C::never_rests(self.terms) && !served.ended => INPUT | OUTPUT,
            _ => OUTPUT,
        }
    }
}
