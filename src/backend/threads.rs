//! A thread for each connection: it blocks in recv(2), then in send(2), and needs nobody to tell it
//! what is ready.
//!
//! The worker's own thread only accepts, and waits with poll(2) for its listeners. Each connection
//! costs a stack, of which little is touched, and a receive buffer; each is counted by [a
//! share](Counters::share) of the worker's counters. A thread ends with its connection, and nothing
//! of it stays. A stack takes two mappings of the 65,530 that a process has by default
//! (vm.max_map_count), so there is room for some 32,000 threads; a connection whose thread cannot
//! be made is refused, and accepting rests.
//!
//! # The end
//! A thread that blocks must be told to stop without any harm to what is on its way: shutdown(2) of
//! the reading side would wake it, but then input that comes later resets the connection. So a
//! signal breaks off the call it is in, and it hands over its connection, with the rest of what it
//! owes. The signal does nothing to a thread that has looked at the flag and is not in its call
//! yet; that is why it is repeated until every thread has handed over. The [drain](crate::drain) of
//! all backends does the rest.

mod detached;

use crate::contract::{Backend, BackendFacts, Knob, Knobs, Needs, Unsupported, WorkerTask};
use crate::counters::{Counters, Share};
use crate::drain::{self, Owed};
use crate::error::{interrupted, would_block};
use crate::listener::{self, ACCEPTS_PER_TURN, AcceptPause, Accepted, Listener};
use crate::ports::LISTENERS_OF_POLL;
use crate::service::Conversation;
use crate::stop::Stop;
use crate::sys;
use crate::work::{WORK_NS, Work};
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a thread may take to hand over its connection before the signal is repeated.
const PATIENCE: Duration = Duration::from_millis(5);

/// A thread for each connection.
pub struct Threads<C: Conversation> {
    listeners: Vec<Listener>,
    stack_bytes: usize,
    receive_bytes: usize,
    work: Work,
    terms: C::Terms,
    threads: Arc<ConnectionThreads<C>>,
}

/// The connection threads of a worker.
struct ConnectionThreads<C> {
    stopping: AtomicBool,
    /// Ends a wait of the worker: a connection was closed while accepting rests.
    wake: OwnedFd,
    registry: Mutex<Registry<C>>,
    all_gone: Condvar,
}

struct Registry<C> {
    /// Those that have begun, for signals to them.
    threads: HashSet<libc::pid_t>,
    /// Those that were made and have not ended.
    present: usize,
    /// Connections that their threads have closed.
    closed: u64,
    /// The worker rests from accepting, and wants to be woken when a connection is closed.
    resting: bool,
    handed_over: Vec<Owed<C>>,
}

impl<C> Default for Registry<C> {
    fn default() -> Self {
        let (threads, handed_over) = (HashSet::new(), Vec::new());
        Self { threads, present: 0, closed: 0, resting: false, handed_over }
    }
}

impl<C> Backend for Threads<C>
where
    C: Conversation + Send + 'static,
    C::Terms: Send,
{
    type Conversation = C;

    const FACTS: BackendFacts = BackendFacts {
        name: "threads",
        summary: "a blocking thread for each connection: recv, then send",
        needs: Needs {
            linux: "3.2",
            default_container: true,
            limits: "threads: kernel.threads-max, vm.max_map_count",
        },
        knobs: &[
            Knob::number(
                "receive_bytes",
                4096,
                64..=16_777_216,
                "receive buffer of each connection, in bytes",
            ),
            // The signal's frame has to fit: with the registers of some CPUs it takes 11 KiB.
            Knob::number(
                "stack_bytes",
                65_536,
                32_768..=67_108_864,
                "stack of each connection's thread, in bytes; only what is touched takes memory",
            ),
            LISTENERS_OF_POLL,
            WORK_NS,
        ],
        ..BackendFacts::DEFAULT
    };

    fn probe(_knobs: &Knobs, _workers: u16) -> Result<(), Unsupported> {
        Ok(())
    }

    fn new(task: WorkerTask<'_, C::Terms>) -> io::Result<Self> {
        let WorkerTask { listeners, knobs, service: terms, .. } = task;
        detached::allow_interruptions()?;
        let threads = ConnectionThreads {
            stopping: AtomicBool::new(false),
            wake: sys::eventfd()?,
            registry: Mutex::default(),
            all_gone: Condvar::new(),
        };
        let (stack_bytes, receive_bytes) = (knobs.size("stack_bytes"), knobs.size("receive_bytes"));
        Ok(Self {
            listeners,
            stack_bytes,
            receive_bytes,
            work: Work::of(knobs),
            terms,
            threads: Arc::new(threads),
        })
    }

    fn run(self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        let served = {
            // However the accepting ends, no thread goes on without it.
            let _stop = StopOnDrop(&self.threads);
            self.accept_until_stop(counters, stop)
        };
        drop(self.listeners);
        let handed_over = std::mem::take(&mut self.threads.registry().handed_over);
        served?;
        drain::drain(handed_over, self.terms, stop.drain_time(), counters)
    }
}

impl<C> Threads<C>
where
    C: Conversation + Send + 'static,
    C::Terms: Send,
{
    fn accept_until_stop(&self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        let own = [self.threads.wake.as_raw_fd(), stop.fd()];
        let waited_for =
            own.into_iter().chain(self.listeners.iter().map(|listener| listener.as_raw_fd()));
        let mut entries: Vec<_> =
            waited_for.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
        let mut rest = AcceptPause::default();
        loop {
            // A connection that is closed after this look wakes the wait, if there is a rest.
            if rest.is_over(self.threads.look(rest.left().is_some())) {
                continue;
            }
            // While accepting rests, a listener would wake the loop at once and for ever.
            let watched = if rest.left().is_some() { &mut entries[..2] } else { &mut entries[1..] };
            if sys::poll(counters, watched, rest.timeout_ms())? == 0 {
                continue;
            }
            if entries[1].revents != 0 {
                return Ok(());
            }
            if rest.left().is_some() {
                // It can only fail because it is zero, when there is nothing to do.
                let _ = sys::eventfd_clear(counters, &self.threads.wake);
                continue;
            }
            // From before accepting, so that what is closed between a failure and the rest ends
            // that rest.
            let closed = self.threads.look(false);
            for listener in entries[2..].iter().filter(|entry| entry.revents != 0) {
                if !self.accept(counters, listener.fd)? {
                    rest.begin(closed);
                    break;
                }
            }
        }
    }

    /// Accepts what is there; false when accepting must rest.
    fn accept(&self, counters: &Counters, listener: RawFd) -> io::Result<bool> {
        for _ in 0..ACCEPTS_PER_TURN {
            let socket = match listener::accept(counters, listener, sys::accept4_blocking)? {
                Accepted::Connection(socket) => socket,
                Accepted::Drained => break,
                Accepted::Paused => return Ok(false),
            };
            let thread = ConnectionThread::new(&self.threads, counters.share(), socket);
            let (receive_bytes, work, terms) = (self.receive_bytes, self.work, self.terms);
            let serve = move || thread.serve(receive_bytes, work, terms);
            // A connection whose thread cannot be made is refused: it is dropped with what the
            // thread was to do.
            if detached::spawn(c"connection", self.stack_bytes, serve).is_err() {
                counters.accept_pauses.add(1);
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl<C> ConnectionThreads<C> {
    fn registry(&self) -> MutexGuard<'_, Registry<C>> {
        // No thread panics while it holds the lock.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections were closed so far; those that follow wake the worker if it is
    /// `resting`.
    fn look(&self, resting: bool) -> u64 {
        let mut registry = self.registry();
        registry.resting = resting;
        registry.closed
    }
}

/// A connection and its place among the threads. Dropping it closes the connection if it was not
/// handed over, even if its thread could not be made.
struct ConnectionThread<C> {
    threads: Arc<ConnectionThreads<C>>,
    counters: Share,
    socket: Option<OwnedFd>,
    /// Its thread, once that has begun.
    thread: Option<libc::pid_t>,
}

impl<C> ConnectionThread<C> {
    fn new(threads: &Arc<ConnectionThreads<C>>, counters: Share, socket: OwnedFd) -> Self {
        threads.registry().present += 1;
        Self { threads: Arc::clone(threads), counters, socket: Some(socket), thread: None }
    }
}

impl<C: Conversation> ConnectionThread<C> {
    /// Serves the connection on its thread.
    fn serve(mut self, receive_bytes: usize, work: Work, terms: C::Terms) {
        let thread = detached::thread_id();
        self.thread = Some(thread);
        self.threads.registry().threads.insert(thread);
        let Some(fd) = self.socket.as_ref().map(AsRawFd::as_raw_fd) else { return };
        let mut conversation = C::default();
        let ended = self.converse(fd, &mut conversation, &mut vec![0; receive_bytes], work, terms);
        if let Some(unsent) = ended
            && let Some(fd) = self.socket.take()
        {
            self.threads.registry().handed_over.push(Owed { fd, unsent, conversation });
        }
    }

    /// Receives and sends until the connection ends, or all are to stop: then it returns what is
    /// owed beside what the conversation owes.
    fn converse(
        &self,
        fd: RawFd,
        conversation: &mut C,
        buffer: &mut [u8],
        work: Work,
        terms: C::Terms,
    ) -> Option<Vec<u8>> {
        let counters = &*self.counters;
        while !self.is_stopping() {
            let received = match sys::recv(counters, fd, buffer, 0) {
                Ok(0) => return None,
                Ok(received) => received,
                Err(error) if interrupted(&error) => {
                    counters.interrupts.add(1);
                    continue;
                }
                Err(_) => return None,
            };
            counters.bytes_received.add(received as u64);
            if conversation.receive(terms, counters, &buffer[..received]).is_err() {
                counters.mismatches.add(1);
                return None;
            }
            work.perform(counters);
            if C::ECHOES {
                let mut owed = &buffer[..received];
                while !owed.is_empty() {
                    match self.send(fd, owed) {
                        Sent::Bytes(sent) => owed = &owed[sent..],
                        Sent::Stopped => return Some(owed.to_vec()),
                        Sent::Failed => {
                            counters.bytes_abandoned.add(owed.len() as u64);
                            return None;
                        }
                    }
                }
            } else {
                match self.reply(fd, conversation, buffer, terms) {
                    Sent::Bytes(_) => {}
                    Sent::Stopped => return Some(Vec::new()),
                    Sent::Failed => {
                        counters.bytes_abandoned.add(conversation.owed_bytes());
                        return None;
                    }
                }
            }
        }
        Some(Vec::new())
    }

    fn is_stopping(&self) -> bool {
        self.threads.stopping.load(Relaxed)
    }

    /// Sends once.
    fn send(&self, fd: RawFd, owed: &[u8]) -> Sent {
        let counters = &*self.counters;
        match sys::send(counters, fd, owed, 0) {
            Ok(sent) => {
                counters.bytes_sent.add(sent as u64);
                if sent < owed.len() {
                    counters.short_sends.add(1);
                }
                Sent::Bytes(sent)
            }
            Err(error) if interrupted(&error) => {
                counters.interrupts.add(1);
                if self.is_stopping() { Sent::Stopped } else { Sent::Bytes(0) }
            }
            Err(_) => Sent::Failed,
        }
    }

    /// Sends all that a conversation owes. One that never rests looks for its peer's end every
    /// [`LOOK_BYTES`].
    fn reply(&self, fd: RawFd, conversation: &mut C, buffer: &mut [u8], terms: C::Terms) -> Sent {
        let mut since_look = 0;
        loop {
            let owed = conversation.owed(terms);
            if owed.is_empty() {
                return Sent::Bytes(0);
            }
            match self.send(fd, owed) {
                Sent::Bytes(sent) => {
                    conversation.sent(terms, sent);
                    since_look += sent;
                }
                failed => return failed,
            }
            if self.is_stopping() {
                return Sent::Stopped;
            }
            if C::never_rests(terms) && since_look >= LOOK_BYTES {
                since_look = 0;
                match sys::recv(&self.counters, fd, buffer, libc::MSG_DONTWAIT) {
                    Ok(0) => conversation.end(),
                    Err(error) if would_block(&error) || interrupted(&error) => {}
                    Ok(_) => {
                        self.counters.mismatches.add(1);
                        return Sent::Failed;
                    }
                    Err(_) => return Sent::Failed,
                }
            }
        }
    }
}

/// The outcome of a send.
enum Sent {
    /// So many bytes were taken.
    Bytes(usize),
    /// The server stops.
    Stopped,
    /// The connection is broken.
    Failed,
}

/// Bytes that a conversation which never rests sends between two looks for its peer's end.
const LOOK_BYTES: usize = 1 << 20;

impl<C> Drop for ConnectionThread<C> {
    fn drop(&mut self) {
        let closes = self.socket.take().map(|socket| {
            sys::close(&self.counters, socket);
            self.counters.closed.add(1);
        });
        let mut registry = self.threads.registry();
        if let Some(thread) = self.thread {
            registry.threads.remove(&thread);
            // A connection that was refused makes no room.
            if closes.is_some() {
                registry.closed += 1;
                if registry.resting {
                    // It can only fail because the count is at its end: then the worker is being
                    // woken.
                    let _ = sys::eventfd_wake(&self.counters, &self.threads.wake);
                }
            }
        }
        registry.present -= 1;
        if registry.present == 0 {
            self.threads.all_gone.notify_one();
        }
    }
}

/// Makes all connection threads hand over their connections when it is dropped, and waits for that.
struct StopOnDrop<'a, C>(&'a ConnectionThreads<C>);

impl<C> Drop for StopOnDrop<'_, C> {
    fn drop(&mut self) {
        let threads = self.0;
        threads.stopping.store(true, Relaxed);
        let mut registry = threads.registry();
        while registry.present > 0 {
            registry.threads.iter().for_each(|&thread| detached::interrupt(thread));
            let waited = threads.all_gone.wait_timeout(registry, PATIENCE);
            registry = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
