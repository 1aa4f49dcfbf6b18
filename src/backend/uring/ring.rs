//! One ring: submission, and the one system call of the loop.

use super::request::Request;
use super::setup::{self, Setup, Want};
use crate::contract::{Facts, Unsupported};
use crate::counters::Counters;
use crate::sys::{self, EnterBounds};
use io_uring::types::Napi;
use io_uring::{EnterFlags, IoUring, Submitter, cqueue, squeue};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// An enter that waits for nothing.
const NOW: (usize, Option<EnterBounds>) = (0, None);

/// A completion, copied out of the queue.
#[derive(Clone, Copy)]
pub struct Completion {
    /// The token of its request.
    pub user_data: u64,
    /// The result that the system call of the same name would have, or the negative errno.
    pub result: i32,
    flags: u32,
}

impl From<cqueue::Entry> for Completion {
    #[inline]
    fn from(entry: cqueue::Entry) -> Self {
        Self { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() }
    }
}

impl Completion {
    /// Whether the request goes on, and more completions will come.
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that it used.
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// Whether the kernel goes on filling that buffer (incremental buffers).
    pub fn buffer_more(&self) -> bool {
        cqueue::buffer_more(self.flags)
    }

    /// Whether it tells that the kernel has let go of the bytes of a send without a copy, and then
    /// whether it had copied them all the same.
    pub fn let_go(&self) -> Option<bool> {
        // IORING_NOTIF_USAGE_ZC_COPIED, the highest bit (io_uring.h).
        cqueue::notif(self.flags).then_some(self.result < 0)
    }

    /// Returns the error of a completion whose number names no request.
    #[cold]
    pub fn of_no_request(&self) -> io::Error {
        io::Error::other(format!("a completion of no request: {:#x}", self.user_data))
    }

    /// Whether the socket had more to receive.
    pub fn sock_nonempty(&self) -> bool {
        cqueue::sock_nonempty(self.flags)
    }
}

/// A ring that is used by the thread that made it.
pub struct Ring {
    uring: IoUring,
    setup: Setup,
    /// Its index among the thread's registered rings.
    registered: Option<u32>,
    /// The ring's name in enters: that index, or the descriptor.
    enter_fd: RawFd,
    /// The flag in enters that says which of both it is.
    enter_flags: EnterFlags,
    /// Requests queued so far.
    pushed: u64,
    /// How many of them are decided: see [`Ring::decided`].
    decided: u64,
    /// Completions of this turn that did not fit into the queue together.
    collected: Vec<Completion>,
}

impl Ring {
    /// SINGLE_ISSUER (kernel 6.0), and by default DEFER_TASKRUN (6.1): completions are made while
    /// this thread waits for them, in one batch, instead of interrupting it. SUBMIT_ALL (5.18): a
    /// bad request does not hold up the ones behind it.
    pub fn new(setup: Setup) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_submit_all().setup_cqsize(setup.cq_entries);
        match setup.task_run {
            "defer" => builder.setup_defer_taskrun(),
            "coop" => builder.setup_coop_taskrun(),
            _ => &mut builder,
        };
        if let Some((idle_ms, cpu)) = setup.submission_thread {
            builder.setup_sqpoll(idle_ms);
            if let Some(cpu) = cpu {
                builder.setup_sqpoll_cpu(cpu);
            }
        }
        let uring = setup.need().patiently(|| builder.build(setup.sq_entries))?;
        let enter_fd = uring.as_raw_fd();
        let enter_flags = if setup.no_iowait { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() };
        let mut ring = Self {
            uring,
            setup,
            registered: None,
            enter_fd,
            enter_flags,
            pushed: 0,
            decided: 0,
            collected: Vec::new(),
        };
        if setup.registered {
            let registered = sys::register_ring_fd(ring.uring.as_raw_fd());
            let registered = registered.map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("io_uring_register(RING_FDS): {error}; see registered_ring"),
                )
            });
            let index = registered?;
            ring.registered = Some(index);
            ring.enter_fd = index as RawFd;
            ring.enter_flags |= EnterFlags::REGISTERED_RING;
        }
        if ring.has_submission_thread() {
            ring.wait_for_submission_thread()?;
        }
        ring.busy_poll()?;
        Ok(ring)
    }

    /// Asks for busy polling, unless for none. The time in force is then that which the kernel has
    /// taken over.
    fn busy_poll(&mut self) -> io::Result<()> {
        if self.setup.busy_poll_us == 0 {
            return Ok(());
        }
        let wanted = self.setup.busy_poll_us;
        // The second registration brings back the settings of the first.
        for _ in 0..2 {
            let mut napi = Napi::new().set_busy_poll_timeout(wanted);
            self.submitter().register_napi(&mut napi).map_err(|error| {
                let cause = match error.raw_os_error() {
                    Some(libc::EINVAL) => {
                        " (the kernel is older than 6.9, or was built without \
                         CONFIG_NET_RX_BUSY_POLL)"
                    }
                    _ => "",
                };
                io::Error::new(
                    error.kind(),
                    format!("io_uring_register(NAPI): {error}{cause}; leave out busy_poll_us"),
                )
            })?;
            self.setup.busy_poll_us = napi.busy_poll_timeout();
        }
        Ok(())
    }

    /// From then on the thread has its own name, and requests need not wait for it to begin.
    fn wait_for_submission_thread(&mut self) -> io::Result<()> {
        let counters = Counters::default();
        // SAFETY: the request has no address.
        unsafe { self.push(&counters, &Request::nothing().entry())? };
        while self.turn(&counters, Want::Just(1), None)? == 0 {}
        let _of_the_request = self.take();
        Ok(())
    }

    /// Whether the kernel gives us such a ring, and has the operations `needed`, by name and code.
    pub fn probe(setup: Setup, needed: &[(&str, u8)]) -> Result<Self, Unsupported> {
        let ring = Self::new(setup).map_err(|error| setup::explain(&error, &setup))?;
        let mut known = io_uring::Probe::new();
        ring.submitter().register_probe(&mut known).map_err(|error| Unsupported {
            reason: format!("io_uring_register(PROBE): {error}"),
        })?;
        if let Some((name, _)) = needed.iter().find(|(_, code)| !known.is_supported(*code)) {
            return Err(Unsupported {
                reason: format!(
                    "IORING_OP_{name} is not there: the kernel is older, or a restriction hides it"
                ),
            });
        }
        if setup.min_wait_us > 0 && !ring.uring.params().is_feature_min_timeout() {
            return Err(Unsupported {
                reason: "min_wait_us: IORING_FEAT_MIN_TIMEOUT is not there; needs Linux 6.12"
                    .to_owned(),
            });
        }
        if setup.no_iowait && !ring.uring.params().is_feature_no_iowait() {
            return Err(Unsupported {
                reason: "no_iowait: IORING_FEAT_NO_IOWAIT is not there; needs Linux 6.15"
                    .to_owned(),
            });
        }
        Ok(ring)
    }

    /// Whether receives and sends may be bundled (kernel 6.10).
    pub fn has_bundles(&self) -> bool {
        self.uring.params().is_feature_recvsend_bundle()
    }

    /// How it was set up.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The completion queue, in completions.
    pub fn cq_entries(&self) -> u32 {
        self.uring.params().cq_entries()
    }

    /// Whether completions are made only while the loop is in an enter (DEFER_TASKRUN).
    pub fn completes_in_enters(&self) -> bool {
        self.setup.task_run == "defer"
    }

    /// Whether it asks for more completions at once than the kernel makes by itself.
    pub fn completes_in_bursts(&self) -> bool {
        !self.has_submission_thread() && (!self.completes_in_enters() || self.setup.min_wait_us > 0)
    }

    /// For registrations.
    pub fn submitter(&self) -> Submitter<'_> {
        self.uring.submitter()
    }

    /// Whether requests are submitted by a thread of the kernel's.
    pub fn has_submission_thread(&self) -> bool {
        self.setup.submission_thread.is_some()
    }

    /// The flags that were granted, and the sizes.
    pub fn in_force(&self) -> Facts {
        let params = self.uring.params();
        let features = [
            ("nodrop", params.is_feature_nodrop()),
            ("fast_poll", params.is_feature_fast_poll()),
            ("ext_arg", params.is_feature_ext_arg()),
            ("cqe_skip", params.is_feature_skip_cqe_on_success()),
            ("recvsend_bundle", params.is_feature_recvsend_bundle()),
            ("min_timeout", params.is_feature_min_timeout()),
            ("no_iowait", params.is_feature_no_iowait()),
        ];
        let features: Vec<&str> =
            features.iter().filter(|(_, granted)| *granted).map(|(name, _)| *name).collect();
        let task_run = match self.setup.task_run {
            "defer" => "|DEFER_TASKRUN",
            "coop" => "|COOP_TASKRUN",
            _ => "",
        };
        let poll = match self.setup.submission_thread {
            None => "",
            Some((_, None)) => "|SQPOLL",
            Some((_, Some(_))) => "|SQPOLL|SQ_AFF",
        };
        // An SQE has 64 bytes, its slot in the index array 4, a CQE 16 (io_uring_setup(2)).
        let ring_bytes =
            u64::from(params.sq_entries()) * (64 + 4) + u64::from(params.cq_entries()) * 16;
        let mut facts = Facts::from_iter([
            ("setup".to_owned(), format!("SINGLE_ISSUER|SUBMIT_ALL|CQSIZE{task_run}{poll}").into()),
            ("features".to_owned(), features.into()),
            ("registered_ring".to_owned(), self.registered.is_some().into()),
            ("no_iowait".to_owned(), self.setup.no_iowait.into()),
            ("busy_poll_us".to_owned(), self.setup.busy_poll_us.into()),
            ("sq_entries".to_owned(), params.sq_entries().into()),
            ("cq_entries".to_owned(), params.cq_entries().into()),
            ("ring_bytes".to_owned(), ring_bytes.into()),
        ]);
        if self.has_submission_thread() {
            facts.insert("kernel_thread".to_owned(), "sqpoll".into());
        }
        facts
    }

    /// Queues a request; submits the queue first if it is full. Returns its number, counted from 0.
    ///
    /// # Safety
    /// Memory that the request points to must stay valid and, if the kernel writes to it,
    /// untouched, until the request's last completion was taken, or, if it has none, until it is
    /// [decided](Ring::decided).
    #[inline]
    pub unsafe fn push(&mut self, counters: &Counters, entry: &squeue::Entry) -> io::Result<u64> {
        // SAFETY: the caller's promise.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.make_room(counters, 1)?;
        }
        self.pushed += 1;
        Ok(self.pushed - 1)
    }

    /// Submits what is queued, or waits for the thread that does, until `count` more requests fit
    /// into the queue.
    pub fn make_room(&mut self, counters: &Counters, count: u32) -> io::Result<()> {
        loop {
            let queue = self.uring.submission();
            if queue.capacity() - queue.len() >= count as usize {
                return Ok(());
            }
            drop(queue);
            if self.has_submission_thread() {
                let wakeup = self.wakeup(counters);
                self.enter_now(counters, EnterFlags::SQ_WAIT | wakeup)?;
            } else {
                self.enter_now(counters, EnterFlags::GETEVENTS)?;
            }
        }
    }

    /// Requests with a lower number have been submitted, and what they completed while that was
    /// done is among the completions of the last turn. Once those are taken, a request that
    /// completes inline and skips the completion of its success has succeeded if it had none.
    ///
    /// Without a submission thread that is what the return from io_uring_enter means. With one, the
    /// queue's head says it: the thread moves the head only after it has posted the inline
    /// completions of the batch (`io_submit_sqes` in the kernel's io_uring.c), and the head is read
    /// here before the completions are.
    pub fn decided(&self) -> u64 {
        self.decided
    }

    /// Whether all requests are decided.
    pub fn is_decided(&self) -> bool {
        self.decided == self.pushed
    }

    /// Submits all that is queued, and waits until as many completions are there as `want` says, a
    /// signal comes or `timeout` is over. Returns how many are to be [taken](Self::take) before
    /// those that were [collected](Self::take_collected).
    ///
    /// Inlined, as the steps of it are, because a loop with one connection makes a turn for each
    /// echo.
    #[inline(always)]
    pub fn turn(
        &mut self,
        counters: &Counters,
        want: Want,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        if self.has_submission_thread() {
            self.turn_of_thread(counters, want, timeout)?;
        } else {
            self.enter(counters, EnterFlags::GETEVENTS, self.setup.wait(want, timeout))?;
        }
        if self.look(counters) {
            self.collect(counters)?;
            return Ok(0);
        }
        let ready = self.uring.completion().len();
        counters.events.add(ready as u64);
        Ok(ready)
    }

    /// Takes a completion out of the queue.
    #[inline]
    pub fn take(&mut self) -> Option<Completion> {
        self.uring.completion().next().map(Completion::from)
    }

    /// Whether there are other completions of this turn.
    #[inline]
    pub fn has_collected(&self) -> bool {
        !self.collected.is_empty()
    }

    /// The other completions of this turn.
    pub fn take_collected(&mut self) -> Vec<Completion> {
        std::mem::take(&mut self.collected)
    }

    /// Sees what is decided, and whether the turn has more completions than are in the queue: those
    /// that did not fit wait in the kernel (IORING_FEAT_NODROP), or requests wait here that it did
    /// not take, because memory is short or a signal came first.
    #[inline]
    fn look(&mut self, counters: &Counters) -> bool {
        // Before the completions: those of decided requests are in the queue by then, or the flag
        // is set.
        let (queued, overflow) = {
            let queue = self.uring.submission();
            (queue.len(), queue.cq_overflow())
        };
        self.decided = self.pushed - queued as u64;
        if overflow {
            counters.cq_overflows.add(1);
        }
        overflow || queued > 0 && !self.has_submission_thread()
    }

    /// Takes all completions of a turn that has more than are in the queue. None is handed on
    /// before the last is here: what they bring about may complete at once, again and again, and
    /// the turn would never end.
    #[cold]
    fn collect(&mut self, counters: &Counters) -> io::Result<()> {
        let mut unfinished = true;
        while unfinished {
            self.collected.extend(self.uring.completion().map(Completion::from));
            self.enter_now(counters, EnterFlags::GETEVENTS)?;
            unfinished = self.look(counters);
        }
        self.collected.extend(self.uring.completion().map(Completion::from));
        counters.events.add(self.collected.len() as u64);
        Ok(())
    }

    /// Wakes the submission thread if it sleeps, and waits if there is no completion yet.
    fn turn_of_thread(
        &mut self,
        counters: &Counters,
        want: Want,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let wakeup = self.wakeup(counters);
        if self.uring.completion().is_empty() && want != Want::Just(0) {
            self.enter(counters, EnterFlags::GETEVENTS | wakeup, self.setup.wait(want, timeout))
        } else if wakeup.is_empty() {
            Ok(())
        } else {
            self.enter_now(counters, wakeup)
        }
    }

    /// SQ_WAKEUP if the submission thread sleeps.
    fn wakeup(&mut self, counters: &Counters) -> EnterFlags {
        if self.uring.submission().need_wakeup() {
            counters.submission_wakeups.add(1);
            EnterFlags::SQ_WAKEUP
        } else {
            EnterFlags::empty()
        }
    }

    /// Every enter of a ring without a submission thread carries GETEVENTS: under DEFER_TASKRUN
    /// only such an enter runs what is pending, and a loop that only submitted would never hear of
    /// anything new.
    #[inline(always)]
    fn enter(
        &mut self,
        counters: &Counters,
        flags: EnterFlags,
        (want, bounds): (usize, Option<EnterBounds>),
    ) -> io::Result<()> {
        let queued = self.uring.submission().len() as u32;
        let flags = flags | self.enter_flags;
        let fd = self.enter_fd;
        let result = match bounds {
            None => sys::io_uring_enter(counters, fd, queued, want as u32, flags.bits(), None),
            Some(_) => {
                let flags = flags | EnterFlags::EXT_ARG;
                sys::io_uring_enter(counters, fd, queued, want as u32, flags.bits(), bounds)
            }
        };
        result.or_else(|error| Self::entered_in_vain(counters, error))
    }

    /// Submits, or does what the flags say, and waits for nothing.
    #[cold]
    fn enter_now(&mut self, counters: &Counters, flags: EnterFlags) -> io::Result<()> {
        self.enter(counters, flags, NOW)
    }

    /// Tells apart what an enter may fail with in any case.
    #[cold]
    fn entered_in_vain(counters: &Counters, error: io::Error) -> io::Result<()> {
        match error.raw_os_error() {
            Some(libc::ETIME) => counters.timeouts.add(1),
            Some(libc::EINTR) => counters.interrupts.add(1),
            // The completion queue is full, or memory is short: take what is there, and try again.
            Some(libc::EBUSY | libc::EAGAIN) => {}
            _ => return Err(error),
        }
        Ok(())
    }
}

impl Drop for Ring {
    /// A registered ring lives on after its descriptor is closed, until its thread ends. This is
    /// not counted, as in no backend what frees the means of waiting is.
    fn drop(&mut self) {
        if let Some(index) = self.registered {
            sys::unregister_ring_fd(self.uring.as_raw_fd(), index);
        }
    }
}
