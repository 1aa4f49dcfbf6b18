//! The completion loop, shared by all io_uring backends: it accepts, submits, waits, hands
//! completions on, and stops. What happens on a connection is the `Rung`'s, and each rung of the
//! ladder changes one thing:
//!
//! | backend | input | output | on |
//! |---|---|---|---|
//! | `uring-oneshot` | a receive for each message, into the connection's own buffer | a send from it | |
//! | `uring-multishot` | one multishot receive, into [provided buffers](buffer_ring) | a send for each buffer | |
//! | `uring-multishot-direct` | the same | the same | direct descriptors |
//! | `uring-poll-multishot` | one multishot poll, then a receive into a provided buffer | the same | |
//! | `uring-bundle` | one multishot receive of bundles of buffers | one send for a bundle of buffers | |
//! | `uring-sqpoll` | as `uring-multishot` | as `uring-multishot` | a ring with a submission thread |
//!
//! # Why a late completion cannot touch the wrong connection
//! A descriptor is closed only after every request on it has had its last completion, so there is
//! none left to come when the number is used again. Should the kernel ever prove that wrong, the
//! generation in the [token](token) differs, and the completion only returns its buffer and is
//! counted (`late`).
//!
//! # Why the kernel cannot use memory that is not ours any more
//! All that requests point to is the rung's: receives write to it, sends read it. A request that is
//! under way is counted in `in_flight`, because it has a last completion, or it is a send that is
//! not decided yet (`Ring::decided`). The loop ends in order only when there is neither, and only
//! then is the rung freed. A loop that fails, or panics, leaves it where it is, because closing a
//! ring does not wait for its requests. Its process is about to end anyway.
//!
//! # Urgent data
//! A receive stops in front of TCP's urgent mark, and one that begins there while a signal or work
//! of io_uring is pending for its thread is told that nothing has come (`tcp_recvmsg_locked` in the
//! kernel's tcp.c). A multishot request then waits for more input, so that what follows the mark
//! waits too. With DEFER_TASKRUN, the default, only a signal that stops the process is ever
//! pending. With a submission thread, or another task_run, the input itself is such work. Nothing
//! here can see it, so that `uring-sqpoll` alone may leave what follows urgent data unanswered.

pub mod buffer_ring;
mod direct;
mod locked;
mod memory;
mod oneshot;
mod provided;
mod request;
mod ring;
pub mod token;

// Nobody else may make requests: which are under way is known here only.
pub(super) use oneshot::Oneshot;
pub(super) use provided::{Bundle, Direct, Multishot, PollMultishot, Provided, SubmissionThread};

use crate::contract::{Backend, Facts, Knob, Knobs, Needs, Unsupported};
use crate::counters::Counters;
use crate::drain::{self, Owed};
use crate::listener::{self, Failures, Remedy, Rest};
use crate::process;
use crate::stop::Stop;
use crate::work::Work;
use io_uring::{opcode, squeue};
use request::Request;
use ring::{Completion, Ring, Setup, Want};
use std::io;
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::time::Duration;
use token::{Kind, Token};

/// How long a cancellation may take to be heard of before it is asked for again.
const CANCEL_PATIENCE: Duration = Duration::from_millis(100);

/// What happens on the connections of an io_uring backend.
pub(super) trait Rung: Sized {
    /// [`Backend::NAME`].
    const NAME: &'static str;
    /// [`Backend::SUMMARY`].
    const SUMMARY: &'static str;
    /// [`Backend::NEEDS`].
    const NEEDS: Needs;
    /// [`Backend::KNOBS`].
    const KNOBS: &'static [Knob];
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
    fn new(ring: &Ring, knobs: &Knobs, listeners: usize) -> io::Result<Self>;

    /// What the kernel granted.
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

    /// Another request of the rung's completed.
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
    fn take_owed(&mut self, core: &mut Core) -> io::Result<Vec<Owed>>;
}

/// How connections are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accept {
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

/// How many connections multishot requests may have accepted that the loop has not heard of, and
/// will accept before a cancellation stops them.
///
/// The kernel ends such a request when its completion does not fit into the queue
/// (`io_req_post_cqe`), so that there are as many as the queue has entries, one more for each
/// request, and on older kernels those that it gathers before it puts them there (16,
/// `submit_state.cqes`). Where completions are made while the loop takes others, and not only when
/// it enters, whereby it submits the cancellation first, the queue may fill a second time.
fn most_unheard(cq_entries: u32, listeners: usize, made_in_enters: bool) -> u64 {
    const GATHERED: u64 = 16;
    let fillings = if made_in_enters { 1 } else { 2 };
    fillings * u64::from(cq_entries) + listeners as u64 + GATHERED
}

fn margin(ring: &Ring, listeners: &[TcpListener]) -> u64 {
    most_unheard(ring.cq_entries(), listeners.len(), ring.completes_in_enters())
}

/// An io_uring backend.
pub(super) struct Uring<R: Rung> {
    ring: Ring,
    rung: R,
    listeners: Vec<TcpListener>,
    work: Work,
}

impl<R: Rung> Backend for Uring<R> {
    const NAME: &'static str = R::NAME;
    const SUMMARY: &'static str = R::SUMMARY;
    const NEEDS: Needs = R::NEEDS;
    const KNOBS: &'static [Knob] = R::KNOBS;

    fn locked_bytes(knobs: &Knobs) -> u64 {
        setup_for::<R>(knobs, 1).need().bytes_each
    }

    fn probe(knobs: &Knobs, workers: u16) -> Result<(), Unsupported> {
        let mut needed = vec![
            ("ACCEPT", opcode::Accept::CODE),
            ("RECV", opcode::Recv::CODE),
            ("SEND", opcode::Send::CODE),
            ("CLOSE", opcode::Close::CODE),
            ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
            ("POLL_ADD", opcode::PollAdd::CODE),
        ];
        needed.extend(R::OPERATIONS);
        let setup = setup_for::<R>(knobs, workers);
        let mut ring = Ring::probe(setup, &needed)?;
        R::probe(&mut ring, knobs)?;
        drop(ring);
        probe_memory::<R>(setup, knobs, workers)
    }

    fn new(listeners: Vec<TcpListener>, knobs: &Knobs) -> io::Result<Self> {
        let setup = setup_for::<R>(knobs, 1);
        let in_words = |refused: Unsupported| io::Error::other(refused.reason);
        let ring = Ring::new(setup).map_err(|error| in_words(ring::explain(&error, &setup)))?;
        let rung = set_up::<R>(&ring, setup, knobs, listeners.len()).map_err(in_words)?;
        Ok(Self { ring, rung, listeners, work: Work::of(knobs) })
    }

    fn in_force(&self) -> Facts {
        let mut facts = self.ring.in_force();
        facts.extend(self.rung.in_force());
        if R::ACCEPT == Accept::MultishotDirect {
            let above = margin(&self.ring, &self.listeners);
            facts.insert("accept_multishot_above".to_owned(), above.into());
        }
        facts
    }

    fn run(self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        let Self { ring, rung, listeners, work } = self;
        // What requests point to; a failure must not free it.
        let mut rung = ManuallyDrop::new(rung);
        let margin = margin(&ring, &listeners);
        let core = Core {
            ring,
            counters,
            work,
            listeners,
            resting: Vec::new(),
            in_flight: 0,
            fenced: false,
            stopping: false,
        };
        let server = Loop {
            core,
            rung: &mut *rung,
            rest: Rest::default(),
            failures: Failures::default(),
            accepting_once: 0,
            margin,
            near_full: false,
        };
        let owed = server.run(stop)?;
        // Every request has ended.
        drop(ManuallyDrop::into_inner(rung));
        drain::drain(owed, stop.drain_time(), counters)
    }
}

/// The ring of a rung, one of so many workers.
fn setup_for<R: Rung>(knobs: &Knobs, workers: u16) -> Setup {
    R::setup(knobs).for_workers(workers, R::locked_bytes(knobs))
}

/// [`Rung::new`], with its errors in words.
fn set_up<R: Rung>(
    ring: &Ring,
    setup: Setup,
    knobs: &Knobs,
    listeners: usize,
) -> Result<R, Unsupported> {
    setup
        .need()
        .patiently(|| R::new(ring, knobs, listeners))
        .map_err(|error| ring::explain_set_up(&error, &setup))
}

/// Whether the memory that all workers lock may be locked, where that is limited: they are set up
/// one beside the other, because no rule says what a kernel counts, or what other processes of the
/// user have locked.
fn probe_memory<R: Rung>(setup: Setup, knobs: &Knobs, workers: u16) -> Result<(), Unsupported> {
    // A table of direct descriptors is not locked memory, and may be large: it is made as small as
    // can be.
    const LISTENERS: usize = i32::MAX as usize;
    if process::locked_memory_limit().is_none() {
        return Ok(());
    }
    // A thread may register 16 rings only.
    let setup = setup.unregistered();
    let mut held = Vec::new();
    for _ in 0..workers {
        let ring = Ring::new(setup).map_err(|error| ring::explain(&error, &setup))?;
        let rung = set_up::<R>(&ring, setup, knobs, LISTENERS)?;
        held.push((ring, rung));
    }
    Ok(())
}

/// What a rung works with.
pub(super) struct Core<'a> {
    ring: Ring,
    /// The worker's counters.
    pub counters: &'a Counters,
    /// The application's work.
    pub work: Work,
    /// Every request has been, or is being, taken back.
    pub stopping: bool,
    listeners: Vec<TcpListener>,
    /// Listeners that accept nothing until the rest is over.
    resting: Vec<u32>,
    /// Requests that have not had their last completion.
    in_flight: usize,
    /// A fence is among them.
    fenced: bool,
}

impl Core<'_> {
    /// Queues a request; its number is [`Ring::push`]'s.
    ///
    /// # Safety
    /// As for [`Ring::push`].
    #[inline]
    pub unsafe fn push(&mut self, token: Token, entry: squeue::Entry) -> io::Result<u64> {
        // SAFETY: the caller's promise.
        let number = unsafe { self.ring.push(self.counters, &entry.user_data(token.encode()))? };
        if token.kind.completes_always() {
            self.in_flight += 1;
        }
        Ok(number)
    }

    /// Notes the end of a request: its last completion, or that of the one that it was linked to,
    /// which tells of both.
    #[inline]
    pub fn ended(&mut self) -> io::Result<()> {
        self.in_flight = self.in_flight.checked_sub(1).ok_or_else(|| {
            // Then what is in flight is not known, and memory that the kernel uses could be freed.
            io::Error::other("a completion too many: every request had ended")
        })?;
        Ok(())
    }

    /// Queues a request that points to no memory.
    pub fn request(&mut self, token: Token, request: Request) -> io::Result<()> {
        // SAFETY: it has no address.
        unsafe { self.push(token, request.entry()) }.map(drop)
    }

    /// Submits what is queued unless `count` more requests fit into the queue.
    pub fn make_room(&mut self, count: u32) -> io::Result<()> {
        self.ring.make_room(self.counters, count)
    }

    /// Notes a completion that came after its connection was closed, which the count of requests
    /// rules out.
    #[cold]
    pub fn came_late(&self, token: Token) {
        debug_assert!(false, "{token:?} completed after its connection was closed");
        self.counters.late.add(1);
    }

    /// Requests with a lower number are [decided](Ring::decided).
    pub fn decided(&self) -> u64 {
        self.ring.decided()
    }

    /// Has a completion come after what is queued was submitted, which ends the next wait. It may
    /// come before all of that is known to be decided: then there must be another.
    pub fn fence(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.fenced, true) {
            self.request(Token::of(Kind::Fence, 0), Request::nothing())?;
        }
        Ok(())
    }

    /// For registrations.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Submits what is queued, waits until all requests have ended and hands what they completed
    /// with to `each`.
    pub fn finish_requests(&mut self, mut each: impl FnMut(Token, &Completion)) -> io::Result<()> {
        while self.in_flight > 0 || !self.ring.is_decided() {
            let ready = self.ring.turn(self.counters, Want::Just(self.in_flight), None)?;
            let mut completions: Vec<Completion> =
                (0..ready).map_while(|_| self.ring.take()).collect();
            completions.extend(self.ring.take_collected());
            for completion in completions {
                each(self.token_of(&completion)?, &completion);
            }
        }
        Ok(())
    }

    /// The token of a completion; notes the end of its request.
    #[inline]
    fn token_of(&mut self, completion: &Completion) -> io::Result<Token> {
        let token =
            Token::decode(completion.user_data).ok_or_else(|| completion.of_no_request())?;
        if !completion.more() && token.kind.completes_always() {
            self.ended()?;
        }
        Ok(token)
    }
}

struct Loop<'a, R: Rung> {
    core: Core<'a>,
    rung: &'a mut R,
    rest: Rest,
    failures: Failures,
    /// Requests for one connection each that are under way.
    accepting_once: u64,
    /// The table of direct descriptors must have more room than this for a multishot request.
    margin: u64,
    /// It has not.
    near_full: bool,
}

impl<R: Rung> Loop<'_, R> {
    /// Serves until `stop`; what is owed then.
    fn run(mut self, stop: &Stop) -> io::Result<Vec<Owed>> {
        self.core.request(Token::of(Kind::Stop, 0), Request::poll(stop.fd()))?;
        for index in 0..self.core.listeners.len() {
            self.accept(index as u32)?;
        }
        while let Some((want, timeout)) = self.next_wait()? {
            self.turn(want, timeout)?;
            if !self.core.resting.is_empty() && self.rest.is_over(self.core.counters.closed.get()) {
                for index in std::mem::take(&mut self.core.resting) {
                    self.accept(index)?;
                }
            }
        }
        // From here on nothing is accepted, and what is in the queue is refused.
        self.core.listeners.clear();
        self.rung.take_owed(&mut self.core)
    }

    /// What the next turn is to wait for, and how long; none once the loop has stopped and every
    /// request has ended.
    #[inline]
    fn next_wait(&mut self) -> io::Result<Option<(Want, Option<Duration>)>> {
        if self.core.stopping {
            return self.next_wait_of_stop();
        }
        let want = match self.rung.must_not_wait(&mut self.core)? {
            true => Want::Just(0),
            // What stands behind the fence must not wait for others.
            false if self.core.fenced => Want::Just(1),
            false => Want::Batch,
        };
        Ok(Some((want, self.rest.left())))
    }

    #[cold]
    fn next_wait_of_stop(&mut self) -> io::Result<Option<(Want, Option<Duration>)>> {
        if self.core.in_flight == 0 && self.core.ring.is_decided() {
            return Ok(None);
        }
        self.core.request(Token::of(Kind::Cancel, 0), Request::cancel_all())?;
        Ok(Some((Want::Just(self.core.in_flight), Some(CANCEL_PATIENCE))))
    }

    /// Submits, waits for what `want` says and hands on what came.
    #[inline]
    fn turn(&mut self, want: Want, timeout: Option<Duration>) -> io::Result<()> {
        let ready = self.core.ring.turn(self.core.counters, want, timeout)?;
        // Not those that come meanwhile: others wait for their turn.
        for _ in 0..ready {
            let Some(completion) = self.core.ring.take() else { break };
            self.hand_on(&completion)?;
        }
        if self.core.ring.has_collected() {
            self.hand_on_collected()?;
        }
        self.rung.turned(&mut self.core)
    }

    #[cold]
    fn hand_on_collected(&mut self) -> io::Result<()> {
        for completion in self.core.ring.take_collected() {
            self.hand_on_any(&completion)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn hand_on(&mut self, completion: &Completion) -> io::Result<()> {
        // The most frequent by far. Its request goes on, so that nothing is to be noted of that.
        if completion.more()
            && let Some(token) = Token::decode_if(Kind::Receive, completion.user_data)
        {
            return self.rung.received(&mut self.core, token, completion);
        }
        self.hand_on_any(completion)
    }

    #[inline(never)]
    fn hand_on_any(&mut self, completion: &Completion) -> io::Result<()> {
        let token = self.core.token_of(completion)?;
        match token.kind {
            Kind::Receive => self.rung.received(&mut self.core, token, completion)?,
            Kind::Poll | Kind::Send | Kind::PatientSend | Kind::Install => {
                self.rung.completed(&mut self.core, token, completion)?;
            }
            Kind::Stop if completion.result >= 0 => self.core.stopping = true,
            Kind::Accept | Kind::AcceptOnce => self.accepted(token, completion)?,
            Kind::Fence => self.core.fenced = false,
            Kind::Stop | Kind::Close => {
                return Err(io::Error::from_raw_os_error(-completion.result));
            }
            // A cancellation that finds nothing came after the end of what it was to cancel.
            Kind::Cancel => {}
        }
        Ok(())
    }

    fn accept(&mut self, index: u32) -> io::Result<()> {
        let listener = self.core.listeners[index as usize].as_raw_fd();
        let (kind, request) = match R::ACCEPT {
            Accept::Once => (Kind::AcceptOnce, Request::accept(listener, false)),
            Accept::Multishot => (Kind::Accept, Request::accept_multishot(listener, false)),
            Accept::MultishotDirect if self.room() > self.margin => {
                self.near_full = false;
                (Kind::Accept, Request::accept_multishot(listener, true))
            }
            Accept::MultishotDirect if self.room() > self.accepting_once => {
                (Kind::AcceptOnce, Request::accept(listener, true))
            }
            Accept::MultishotDirect => {
                self.pause_accepting(index);
                return Ok(());
            }
        };
        self.accepting_once += u64::from(kind == Kind::AcceptOnce);
        self.core.request(Token::of(kind, index), request)
    }

    fn accepted(&mut self, token: Token, completion: &Completion) -> io::Result<()> {
        let Core { counters, stopping, .. } = self.core;
        self.accepting_once -= u64::from(token.kind == Kind::AcceptOnce);
        if completion.result >= 0 {
            counters.accepted.add(1);
            self.failures.over();
            let index = completion.result as u32;
            self.rung.admit(index);
            if !stopping {
                self.rung.serve(&mut self.core, index)?;
            }
        }
        if stopping {
            return Ok(());
        }
        if completion.more() {
            return self.stay_within_the_table();
        }
        let errno = if completion.result < 0 { -completion.result } else { 0 };
        // Before the stop, only a table that is nearly full has the loop cancel a request.
        if errno != 0 && errno != libc::ECANCELED {
            match self.failures.note(counters, errno) {
                Remedy::Retry => {}
                // A request waits by itself, and fails so only where memory is short.
                Remedy::Wait | Remedy::Rest => {
                    self.pause_accepting(token.index);
                    return Ok(());
                }
                Remedy::End => return Err(listener::unusable(errno)),
            }
        }
        let by_the_kernel = token.kind == Kind::Accept && errno != libc::ECANCELED;
        counters.rearms.add(u64::from(by_the_kernel));
        self.accept(token.index)
    }

    /// Stops accepting until a connection has closed or a second has passed, so that it does not
    /// spin in vain.
    fn pause_accepting(&mut self, listener: u32) {
        self.core.counters.accept_pauses.add(1);
        self.core.resting.push(listener);
        self.rest.begin(self.core.counters.closed.get());
    }

    /// Direct descriptors that are free.
    fn room(&self) -> u64 {
        let counters = self.core.counters;
        let open = counters.accepted.get() - counters.closed.get();
        u64::from(self.rung.direct_files().unwrap_or(u32::MAX)).saturating_sub(open)
    }

    /// Takes the multishot requests back when the table of direct descriptors is nearly full.
    fn stay_within_the_table(&mut self) -> io::Result<()> {
        if R::ACCEPT != Accept::MultishotDirect || self.near_full || self.room() > self.margin {
            return Ok(());
        }
        self.near_full = true;
        for index in 0..self.core.listeners.len() as u32 {
            let accept = Token::of(Kind::Accept, index);
            self.core.request(Token::of(Kind::Cancel, index), Request::cancel(accept))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_heard_of_is_bounded_by_the_completion_queue() {
        assert_eq!(most_unheard(4096, 1, true), 4096 + 1 + 16);
        assert_eq!(most_unheard(65_536, 3, true), 65_536 + 3 + 16);
        assert_eq!(most_unheard(1024, 1, false), 2 * 1024 + 1 + 16);
    }
}
