//! State that the threads of a load share, and the result of each.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use hdrhistogram::Histogram;

use super::latency::Latencies;
use super::outstanding::Outstanding;
use super::pace::{Budget, MeasuringWindow};
use super::plan::LoadPlan;
use super::schedule::OpenLoop;

/// State that the threads share. All is read often and written rarely, except `progress`: each
/// thread writes its own.
#[derive(Debug)]
pub struct Shared {
    pub plan: LoadPlan,
    pub window: MeasuringWindow,
    /// Connections that stand or have stood, for messages.
    pub connected: AtomicU64,
    /// One for each thread.
    pub progress: Box<[ThreadProgress]>,
}

impl Shared {
    pub fn new(plan: LoadPlan) -> Self {
        Self {
            window: MeasuringWindow::new(plan.drain_max),
            connected: AtomicU64::new(0),
            progress: (0..plan.threads).map(|_| ThreadProgress::default()).collect(),
            plan,
        }
    }

    /// Counts the echoes of a run from 0 on.
    pub fn forget_echoes(&self) {
        self.progress.iter().for_each(|of_thread| of_thread.echoes.store(0, Relaxed));
    }

    /// Returns the echoes of this run so far.
    pub fn echoes(&self) -> u64 {
        self.progress.iter().map(|of_thread| of_thread.echoes.load(Relaxed)).sum()
    }

    /// Returns when anything moved last on any thread's connections.
    pub fn moved_ns(&self) -> u64 {
        let moved_ns = self.progress.iter().map(|of_thread| of_thread.moved_ns.load(Relaxed));
        moved_ns.max().unwrap_or_default()
    }
}

/// How far a thread has come, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ThreadProgress {
    /// Its echoes in this run.
    pub echoes: AtomicU64,
    /// When anything moved on its connections.
    pub moved_ns: AtomicU64,
}

/// An order to all threads to send.
#[derive(Clone, Copy)]
pub struct RunOrder {
    pub budget: Budget,
    /// The first so many connections of all threads send.
    pub active: usize,
    /// None: a closed loop.
    pub open: Option<OpenLoop>,
    /// When an open loop's schedule begins.
    pub start_ns: u64,
    /// The runs of this load before: each has a schedule of its own.
    pub runs_before: u64,
}

/// The result of one thread in one run.
#[derive(Debug, Default)]
pub struct ThreadResult {
    /// Messages that were due within the window, whenever they came back, or how long they were
    /// owed. In a closed loop a message is due when it begins.
    pub latencies: Latencies,
    /// Messages of a stream that were due within the window. They have no latency.
    pub due: u64,
    /// Echoes that came back within the window, or messages of a stream that went or came.
    pub echoes: u64,
    /// Echoes before the window.
    pub warmup_echoes: u64,
    /// Messages due within the window that were sent late.
    pub late_sends: u64,
    /// Messages due within the window that were sent after its end.
    pub unsent: u64,
    /// When the last message of an open loop was due.
    pub last_due_ns: u64,
    /// When the last echo came back.
    pub last_ns: u64,
    /// Messages that were still owed when the thread no longer waited.
    pub owed: Outstanding,
    /// The longest time within the window that the thread did not look at its clock.
    pub longest_gap_ns: u64,
    /// With churn: how long it took to open each connection within the window.
    pub connect_ns: Option<Histogram<u64>>,
    pub thread: usize,
    /// Echoes within the window in the place of each of its active connections.
    pub echoes_by_place: Vec<u64>,
    /// Connections that the thread has opened from its start on.
    pub opened: u64,
}
