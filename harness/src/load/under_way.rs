//! A run of one thread that is under way.

use super::in_flight::Timestamps;
use super::pace::{MeasuringWindow, Phase};
use super::shared::ThreadResult;

/// A run of one thread that is under way.
#[derive(Default)]
pub struct UnderWay {
    pub result: ThreadResult,
    /// Messages begun.
    pub begun: u64,
    /// Messages that are over: back whole, or taken whole by a sink's socket. A source's come
    /// without having begun.
    pub completed: u64,
    /// Sources of which more is wanted.
    pub sources: usize,
    /// Whether any byte moved, or a connection, since that was looked at.
    pub moved: bool,
}

impl UnderWay {
    /// Returns how many messages are on their way.
    pub fn outstanding(&self) -> u64 {
        self.begun.saturating_sub(self.completed)
    }

    /// Counts messages that are over at an instant in that phase.
    pub fn count(&mut self, messages: u64, (now_ns, phase): (u64, Phase)) {
        match phase {
            Phase::Before => self.result.warmup_echoes += messages,
            Phase::Within => self.result.echoes += messages,
            Phase::After => {}
        }
        self.completed += messages;
        self.result.last_ns = now_ns;
    }

    /// Notes when an answer came to a message that is in the figures.
    pub fn record(&mut self, window: &MeasuringWindow, timestamps: Timestamps, now_ns: u64) {
        if window.phase(timestamps.due_ns) == Phase::Within {
            self.result.latencies.record(timestamps, now_ns);
        }
    }

    /// Notes that a message without an answer is over.
    pub fn pass_over(&mut self, window: &MeasuringWindow, timestamps: Timestamps) {
        self.result.due += u64::from(window.phase(timestamps.due_ns) == Phase::Within);
    }
}
