//! Counters of a worker, which it keeps itself.
//!
//! Each counter has one writer, its worker; any thread may read. Plain relaxed loads and stores are
//! enough and cost what an ordinary increment costs. A worker that has threads of its own gives
//! each a [`Share`] to write.

use crate::call::Call;
use std::collections::HashMap;
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A number that one thread writes and any thread reads.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`. Only the owning worker may call this.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Makes it this. Only the owning worker may call this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Takes back a part of what was added too early. Only the owning worker may call this.
    pub fn take_back(&self, amount: u64) {
        self.add(amount.wrapping_neg());
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters of one worker, on cache lines of their own.
        #[derive(Default)]
        #[repr(align(128))]
        pub struct Counters {
            calls: [Counter; Call::ALL.len()],
            $($(#[doc = $doc])+ pub $name: Counter,)+
            /// The errno of the last of [`Counters::accept_errors`]; 0 without one.
            pub last_accept_errno: Counter,
            shares: OnceLock<Arc<Mutex<Shares>>>,
        }

        /// The names of the loop counters, in their order.
        pub const LOOP_COUNTERS: &[&str] = &[$(stringify!($name),)+];

        impl Counters {
            fn loop_values(&self) -> [u64; LOOP_COUNTERS.len()] {
                [$(self.$name.get(),)+]
            }
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Connections closed.
    closed,
    /// Bytes read from connections and owed back.
    bytes_received,
    /// Bytes sent back.
    bytes_sent,
    /// Bytes owed to a peer that reset its connection or did not take them before the drain's
    /// deadline. At rest, received = sent + abandoned.
    bytes_abandoned,
    /// Bytes read and thrown away after the stop signal; they are in no other count.
    bytes_discarded,
    /// Requests that were received whole, where the service has requests.
    requests,
    /// Connections that were closed because a byte was not what the client had to send.
    mismatches,
    /// Time of the application's work (`work_ns`), in ns, from one reading of the clock to another:
    /// what reading it costs before and after is not in it.
    worked_ns,
    /// Readiness events (epoll, poll, select) or completions (io_uring) that the kernel handed
    /// over.
    events,
    /// Waits that ended with nothing, by time-out.
    timeouts,
    /// Waits that a signal broke off; in a thread for each connection, receives and sends, which
    /// wait too.
    interrupts,
    /// Receives and sends that found the socket not ready (EAGAIN).
    would_block,
    /// Sends that took only a part.
    short_sends,
    /// Sends without a copy (`zero_copy`) of which the kernel has let go.
    zero_copies,
    /// Those of them that it copied all the same.
    zero_copies_copied,
    /// Times that a connection's input was paused because too much was owed to its peer.
    backpressure_pauses,
    /// Times that accepting was paused: files, memory or threads ran out (EMFILE, ENFILE, ENOBUFS,
    /// ENOMEM; EAGAIN when a thread is made), or accept failed in a way that trying again at once
    /// would repeat.
    accept_pauses,
    /// Errors of accept, whether it was tried again at once or paused; an empty queue (EAGAIN) is
    /// none.
    accept_errors,
    /// Multishot requests that the kernel ended and that were armed again.
    rearms,
    /// Receives that found no provided buffer (ENOBUFS).
    no_buffers,
    /// Completions that did not fit into the completion queue and waited in the kernel.
    cq_overflows,
    /// Times that a sleeping submission thread was woken.
    submission_wakeups,
    /// Completions that came after their connection was closed. A loop that counts its requests
    /// rightly has none.
    late,
}

impl Counters {
    /// Counts one system call; to be called just before it is made.
    #[inline]
    pub fn count(&self, call: Call) {
        self.calls[call as usize].add(1);
    }

    /// How often `call` was made.
    pub fn calls(&self, call: Call) -> u64 {
        self.calls[call as usize].get()
    }

    /// Counters for one more thread of this worker.
    pub fn share(&self) -> Share {
        let shares = Arc::clone(self.shares.get_or_init(Arc::default));
        let own = Arc::<Counters>::default();
        lock(&shares).live.insert(Arc::as_ptr(&own).addr(), Arc::clone(&own));
        Share { shares, own }
    }
}

/// The counters of a thread that works for a worker beside it: one writer here too. They are part
/// of what the worker's [`Sum`] says, and stay in it when the thread has ended and they are
/// dropped.
pub struct Share {
    shares: Arc<Mutex<Shares>>,
    own: Arc<Counters>,
}

impl Deref for Share {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        &self.own
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = lock(&self.shares);
        shares.live.remove(&Arc::as_ptr(&self.own).addr());
        shares.ended.add(&self.own);
    }
}

/// Nothing panics while it holds the lock.
fn lock(shares: &Mutex<Shares>) -> MutexGuard<'_, Shares> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The counters of a worker's other threads, under one lock. So a reader finds each thread once:
/// among the living or in the sum.
#[derive(Default)]
struct Shares {
    /// By their address.
    live: HashMap<usize, Arc<Counters>>,
    ended: Sum,
}

/// A sum over workers and their threads.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sum {
    calls: [u64; Call::ALL.len()],
    loops: [u64; LOOP_COUNTERS.len()],
    accept_errno: u64,
}

impl Sum {
    /// Sums what all workers have counted, and their other threads.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a Counters>) -> Self {
        let mut sum = Self::default();
        for worker in workers {
            sum.add(worker);
            sum.accept_errno = worker.last_accept_errno.get().max(sum.accept_errno);
            if let Some(shares) = worker.shares.get() {
                let Shares { live, ended } = &*lock(shares);
                live.values().for_each(|share| sum.add(share));
                sum.add_values(ended.calls, ended.loops);
            }
        }
        sum
    }

    /// Every call, and how often it was made.
    pub fn calls(&self) -> impl Iterator<Item = (Call, u64)> {
        Call::ALL.into_iter().zip(self.calls)
    }

    /// The loop counters by name.
    pub fn loops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        LOOP_COUNTERS.iter().copied().zip(self.loops)
    }

    /// The last error of accept, if it has failed.
    pub fn accept_error(&self) -> Option<io::Error> {
        (self.accept_errno > 0).then(|| io::Error::from_raw_os_error(self.accept_errno as i32))
    }

    /// Adds what the owner of `counters` has counted itself.
    fn add(&mut self, counters: &Counters) {
        let calls = counters.calls.iter().map(Counter::get);
        self.add_values(calls, counters.loop_values());
    }

    fn add_values(
        &mut self,
        calls: impl IntoIterator<Item = u64>,
        loops: impl IntoIterator<Item = u64>,
    ) {
        self.calls.iter_mut().zip(calls).for_each(|(sum, value)| *sum += value);
        self.loops.iter_mut().zip(loops).for_each(|(sum, value)| *sum += value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_count_while_they_live_and_after() {
        let worker = Counters::default();
        worker.accepted.add(2);
        let (first, second) = (worker.share(), worker.share());
        first.count(Call::Recvfrom);
        second.count(Call::Recvfrom);
        second.closed.add(1);
        let living = Sum::of([&worker]);
        let received = living.calls().find(|(call, _)| *call == Call::Recvfrom);
        assert_eq!(received, Some((Call::Recvfrom, 2)));
        assert_eq!(living.loops().find(|(name, _)| *name == "closed"), Some(("closed", 1)));
        drop(second);
        assert_eq!(Sum::of([&worker]), living);
        drop(first);
        assert_eq!(Sum::of([&worker]), living);
        assert!(worker.shares.get().is_some_and(|shares| lock(shares).live.is_empty()));
    }
}
