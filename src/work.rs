//! The application's work: a busy wait of known length for each piece of input, the same in every
//! backend.
//!
//! At 0 a backend is measured alone. Above, it shows at how much work per request the difference
//! between two backends drowns, and whether the measuring detects a handicap of known size.

use crate::contract::{Knob, Knobs};
use crate::counters::Counters;
use std::time::{Duration, Instant};

/// The knob of every backend that echoes.
pub const WORK_NS: Knob = Knob::number(
    "work_ns",
    0,
    0..=1_000_000_000,
    "busy wait for each piece of input before it is sent back, in nanoseconds: the application's \
     work",
);

/// How much work a piece of input makes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    time_ns: u64,
}

impl Work {
    /// As [`WORK_NS`] is set.
    pub fn of(knobs: &Knobs) -> Self {
        Self { time_ns: knobs.get(WORK_NS.name) }
    }

    /// Does it, and counts how long it took. If the clock is read by a system call (no TSC or
    /// pvclock), that call is made too.
    #[inline]
    pub fn perform(self, counters: &Counters) {
        if self.time_ns > 0 {
            let begun = Instant::now();
            let time = Duration::from_nanos(self.time_ns);
            let mut worked = Duration::ZERO;
            while worked < time {
                std::hint::spin_loop();
                worked = begun.elapsed();
            }
            counters.worked_ns.add(worked.as_nanos() as u64);
        }
    }
}
