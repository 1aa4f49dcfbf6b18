//! What a worker did, counted by itself.
//!
//! Each counter has one writer, its worker; any thread may read. Plain relaxed loads and stores
//! are enough and cost what an ordinary increment costs.

use crate::sys::Call;
use serde_json::{Map, Value};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that one thread writes and any thread reads.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`. Only the owning worker may call this.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
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
    /// Bytes owed to a peer that reset its connection or did not take them before the drain's deadline.
    /// At rest, received = sent + abandoned.
    bytes_abandoned,
    /// Bytes read and thrown away after the stop signal; they are in no other count.
    bytes_discarded,
    /// Readiness events (epoll) or completions (io_uring) that the kernel handed over.
    events,
    /// Waits that ended with nothing, by time-out.
    timeouts,
    /// Waits that a signal broke off.
    interrupts,
    /// Receives and sends that found the socket not ready (EAGAIN).
    would_block,
    /// Sends that took only a part.
    short_sends,
    /// Times that a connection's input was paused because too much was owed to its peer.
    backpressure_pauses,
    /// Times that accepting was paused because files or memory ran out (EMFILE, ENFILE, ENOBUFS, ENOMEM).
    accept_pauses,
    /// Multishot requests that the kernel ended and that were armed again.
    rearms,
    /// Receives that found no provided buffer (ENOBUFS).
    no_buffers,
    /// Completions that did not fit into the completion queue and waited in the kernel.
    cq_overflows,
    /// Times that a sleeping submission thread was woken.
    submission_wakeups,
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
}

/// The sum over all workers as the `calls` and `loop` fields of a JSON line. Calls that were never made are left out.
pub fn to_json<'a>(workers: impl IntoIterator<Item = &'a Counters>) -> Map<String, Value> {
    let mut calls = [0_u64; Call::ALL.len()];
    let mut loops = [0_u64; LOOP_COUNTERS.len()];
    for worker in workers {
        for call in Call::ALL {
            calls[call as usize] += worker.calls(call);
        }
        for (sum, value) in loops.iter_mut().zip(worker.loop_values()) {
            *sum += value;
        }
    }
    let calls: Map<String, Value> = Call::ALL
        .iter()
        .filter(|&&call| calls[call as usize] > 0)
        .map(|&call| (call.name().to_owned(), calls[call as usize].into()))
        .collect();
    let mut loops: Map<String, Value> =
        LOOP_COUNTERS.iter().zip(loops).map(|(name, value)| ((*name).to_owned(), value.into())).collect();
    let count = |name: &str| loops.get(name).and_then(Value::as_u64).unwrap_or(0);
    let open = count("accepted").saturating_sub(count("closed"));
    loops.insert("open".to_owned(), open.into());
    Map::from_iter([("calls".to_owned(), Value::Object(calls)), ("loop".to_owned(), Value::Object(loops))])
}
