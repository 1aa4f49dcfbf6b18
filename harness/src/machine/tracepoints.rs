//! Counts what another process does in the kernel, by the kernel's own tracepoints.
//!
//! There are two groups: a [`Syscall`] is entered, and a [`RingEvent`] happens within io_uring. The
//! counters are opened on a process that has one thread. The threads that it starts inherit them,
//! also those that the kernel starts for it (SQPOLL and io-wq). The sums keep the counts of threads
//! that have ended (perf_event_open(2), `inherit`). A counted event costs some 0.1 to 0.3 µs, so a
//! trial that counts measures nothing else.

mod counters;
mod ring_event;
mod syscall;
#[cfg(test)]
mod tests;
mod tracefs;

pub use counters::{Reading, TracepointCounters};
pub use ring_event::RingEvent;
pub use syscall::Syscall;
