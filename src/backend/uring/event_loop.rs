//! The completion loop.

use super::core::Core;
use super::handler::{Accept, Handler};
use super::request::Request;
use super::ring::{Completion, Ring};
use super::setup::{self, Setup, Want};
use super::token::{RequestKind, Token};
use crate::contract::{Backend, BackendFacts, Facts, Knobs, Unsupported, WorkerTask};
use crate::counters::Counters;
use crate::drain::{self, Owed};
use crate::listener::{self, AcceptPause, Failures, Listener, Remedy};
use crate::process;
use crate::service::Conversation;
use crate::stop::Stop;
use crate::work::Work;
use crate::zero_copy;
use io_uring::opcode;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// How long a cancellation may take to be heard of before it is asked for again.
const CANCEL_PATIENCE: Duration = Duration::from_millis(100);

/// How many connections multishot requests may have accepted that the loop has not heard of, and
/// will accept before a cancellation stops them.
///
/// The kernel ends such a request when its completion does not fit into the queue
/// (`io_req_post_cqe`), so that there are as many as the queue has entries, one more for each
/// request, and on older kernels those that it gathers before it puts them there (16,
/// `submit_state.cqes`). If completions are made while the loop takes others, and not only when it
/// enters, it submits the cancellation later: then the queue may fill a second time.
fn most_unheard(cq_entries: u32, listeners: usize, made_in_enters: bool) -> u64 {
    const GATHERED: u64 = 16;
    let fillings = if made_in_enters { 1 } else { 2 };
    fillings * u64::from(cq_entries) + listeners as u64 + GATHERED
}

fn margin(ring: &Ring, listeners: &[Listener]) -> u64 {
    most_unheard(ring.cq_entries(), listeners.len(), ring.completes_in_enters())
}

/// An io_uring backend.
pub struct Uring<H: Handler> {
    ring: Ring,
    handler: H,
    listeners: Vec<Listener>,
    work: Work,
    terms: TermsOf<H>,
}

type TermsOf<H> = <<H as Handler>::Conversation as Conversation>::Terms;

impl<H: Handler> Backend for Uring<H> {
    type Conversation = H::Conversation;

    const FACTS: BackendFacts = BackendFacts { uses_ring: true, ..H::FACTS };

    fn locked_bytes(knobs: &Knobs) -> u64 {
        setup_for::<H>(knobs, 1).need().bytes_each
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
        needed.extend(H::OPERATIONS);
        let setup = setup_for::<H>(knobs, workers);
        let mut ring = Ring::probe(setup, &needed)?;
        H::probe(&mut ring, knobs)?;
        drop(ring);
        probe_memory::<H>(setup, knobs, workers)
    }

    fn new(task: WorkerTask<'_, TermsOf<H>>) -> io::Result<Self> {
        let WorkerTask { listeners, knobs, service: terms, .. } = task;
        let setup = setup_for::<H>(knobs, 1);
        let in_words = |refused: Unsupported| io::Error::other(refused.reason);
        let ring = Ring::new(setup).map_err(|error| in_words(setup::explain(&error, &setup)))?;
        let handler = set_up::<H>(&ring, setup, knobs, listeners.len(), terms).map_err(in_words)?;
        Ok(Self { ring, handler, listeners, work: Work::of(knobs), terms })
    }

    fn in_force(&self) -> Facts {
        let mut facts = self.ring.in_force();
        facts.extend(self.handler.in_force());
        if H::ACCEPT == Accept::MultishotDirect {
            let above = margin(&self.ring, &self.listeners);
            facts.insert("accept_multishot_above".to_owned(), above.into());
        }
        facts
    }

    fn run(self, counters: &Counters, stop: &Stop) -> io::Result<()> {
        let Self { ring, handler, listeners, work, terms } = self;
        // Requests point to it, so a failure must not free it.
        let mut handler = ManuallyDrop::new(handler);
        let margin = margin(&ring, &listeners);
        let core = Core {
            ring,
            counters,
            work,
            is_unix: listeners.iter().any(|listener| listener.address().path().is_some()),
            in_flight: 0,
            fenced: false,
            stopping: false,
        };
        let server = Loop {
            core,
            handler: &mut *handler,
            listeners,
            resting: Vec::new(),
            rest: AcceptPause::default(),
            failures: Failures::default(),
            accepting_once: 0,
            margin,
            near_full: false,
        };
        let owed = server.run(stop)?;
        // Every request has ended.
        drop(ManuallyDrop::into_inner(handler));
        drain::drain(owed, terms, stop.drain_time(), counters)
    }
}

/// The ring of a handler, one of so many workers.
fn setup_for<H: Handler>(knobs: &Knobs, workers: u16) -> Setup {
    H::setup(knobs).for_workers(workers, H::locked_bytes(knobs))
}

/// [`Handler::new`], with its errors in words.
fn set_up<H: Handler>(
    ring: &Ring,
    setup: Setup,
    knobs: &Knobs,
    listeners: usize,
    terms: TermsOf<H>,
) -> Result<H, Unsupported> {
    setup
        .need()
        .patiently(|| H::new(ring, knobs, listeners, terms))
        .map_err(|error| setup::explain_set_up(&error, &setup))
}

/// Whether the memory that all workers lock may be locked, where that is limited: they are set up
/// one beside the other, because no rule says what a kernel counts, or what other processes of the
/// user have locked.
fn probe_memory<H: Handler>(setup: Setup, knobs: &Knobs, workers: u16) -> Result<(), Unsupported> {
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
        let ring = Ring::new(setup).map_err(|error| setup::explain(&error, &setup))?;
        let handler = set_up::<H>(&ring, setup, knobs, LISTENERS, TermsOf::<H>::default())?;
        held.push((ring, handler));
    }
    Ok(())
}

struct Loop<'a, H: Handler> {
    core: Core<'a>,
    handler: &'a mut H,
    listeners: Vec<Listener>,
    /// Listeners that accept nothing until the rest is over.
    resting: Vec<u32>,
    rest: AcceptPause,
    failures: Failures,
    /// Requests for one connection each that are under way.
    accepting_once: u64,
    /// The table of direct descriptors must have more room than this for a multishot request.
    margin: u64,
    /// It has not.
    near_full: bool,
}

impl<H: Handler> Loop<'_, H> {
    /// Serves until `stop`; what is owed then.
    fn run(mut self, stop: &Stop) -> io::Result<Vec<Owed<H::Conversation>>> {
        self.core.request(Token::of(RequestKind::Stop, 0), Request::poll(stop.fd()))?;
        for index in 0..self.listeners.len() {
            self.accept(index as u32)?;
        }
        while let Some((want, timeout)) = self.next_wait()? {
            self.turn(want, timeout)?;
            if !self.resting.is_empty() && self.rest.is_over(self.core.counters.closed.get()) {
                for index in std::mem::take(&mut self.resting) {
                    self.accept(index)?;
                }
            }
        }
        // From here on nothing is accepted, and what is in the queue is refused.
        self.listeners.clear();
        self.handler.take_owed(&mut self.core)
    }

    /// Returns how much the next turn is to wait for, and how long; none once the loop has stopped
    /// and every request has ended.
    #[inline]
    fn next_wait(&mut self) -> io::Result<Option<(Want, Option<Duration>)>> {
        if self.core.stopping {
            return self.next_wait_of_stop();
        }
        let want = match self.handler.must_not_wait(&mut self.core)? {
            true => Want::Just(0),
            // The work behind the fence must not wait for others.
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
        self.core.request(Token::of(RequestKind::Cancel, 0), Request::cancel_all())?;
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
        self.handler.turned(&mut self.core)
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
            && let Some(token) = Token::decode_if(RequestKind::Receive, completion.user_data)
        {
            return self.handler.received(&mut self.core, token, completion);
        }
        self.hand_on_any(completion)
    }

    #[inline(never)]
    fn hand_on_any(&mut self, completion: &Completion) -> io::Result<()> {
        let token = self.core.token_of(completion)?;
        match token.kind {
            RequestKind::Receive => self.handler.received(&mut self.core, token, completion)?,
            RequestKind::ZeroCopySend => match completion.let_go() {
                // It may come after the connection was closed.
                Some(copied) => zero_copy::note(self.core.counters, 1, copied),
                None => self.handler.completed(&mut self.core, token, completion)?,
            },
            RequestKind::Poll
            | RequestKind::Send
            | RequestKind::PatientSend
            | RequestKind::Install => {
                self.handler.completed(&mut self.core, token, completion)?;
            }
            RequestKind::Stop if completion.result >= 0 => self.core.stopping = true,
            RequestKind::Accept | RequestKind::AcceptOnce => self.accepted(token, completion)?,
            RequestKind::Fence => self.core.fenced = false,
            RequestKind::Stop | RequestKind::Close => {
                return Err(io::Error::from_raw_os_error(-completion.result));
            }
            // A cancellation that finds nothing came after the end of what it was to cancel.
            RequestKind::Cancel => {}
        }
        Ok(())
    }

    fn accept(&mut self, index: u32) -> io::Result<()> {
        let listener = self.listeners[index as usize].as_raw_fd();
        let (kind, request) = match H::ACCEPT {
            Accept::Once => (RequestKind::AcceptOnce, Request::accept(listener, false)),
            Accept::Multishot => (RequestKind::Accept, Request::accept_multishot(listener, false)),
            Accept::MultishotDirect if self.room() > self.margin => {
                self.near_full = false;
                (RequestKind::Accept, Request::accept_multishot(listener, true))
            }
            Accept::MultishotDirect if self.room() > self.accepting_once => {
                (RequestKind::AcceptOnce, Request::accept(listener, true))
            }
            Accept::MultishotDirect => {
                self.pause_accepting(index);
                return Ok(());
            }
        };
        self.accepting_once += u64::from(kind == RequestKind::AcceptOnce);
        self.core.request(Token::of(kind, index), request)
    }

    fn accepted(&mut self, token: Token, completion: &Completion) -> io::Result<()> {
        let Core { counters, stopping, .. } = self.core;
        self.accepting_once -= u64::from(token.kind == RequestKind::AcceptOnce);
        if completion.result >= 0 {
            counters.accepted.add(1);
            self.failures.over();
            let index = completion.result as u32;
            self.handler.admit(index);
            if !stopping {
                self.handler.serve(&mut self.core, index)?;
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
        let by_the_kernel = token.kind == RequestKind::Accept && errno != libc::ECANCELED;
        counters.rearms.add(u64::from(by_the_kernel));
        self.accept(token.index)
    }

    /// Stops accepting until a connection has closed or a second has passed, so that it does not
    /// spin in vain.
    fn pause_accepting(&mut self, listener: u32) {
        self.core.counters.accept_pauses.add(1);
        self.resting.push(listener);
        self.rest.begin(self.core.counters.closed.get());
    }

    /// Direct descriptors that are free.
    fn room(&self) -> u64 {
        let counters = self.core.counters;
        let open = counters.accepted.get() - counters.closed.get();
        u64::from(self.handler.direct_files().unwrap_or(u32::MAX)).saturating_sub(open)
    }

    /// Takes the multishot requests back when the table of direct descriptors is nearly full.
    fn stay_within_the_table(&mut self) -> io::Result<()> {
        if H::ACCEPT != Accept::MultishotDirect || self.near_full || self.room() > self.margin {
            return Ok(());
        }
        self.near_full = true;
        for index in 0..self.listeners.len() as u32 {
            let accept = Token::of(RequestKind::Accept, index);
            self.core.request(Token::of(RequestKind::Cancel, index), Request::cancel(accept))?;
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
