//! Streams: messages that go or come one after the other, with nothing to wait for but room.
//!
//! A connection goes on as long as its socket lets it, but not so long that the others wait. Then
//! it stands in line for its next turn.

use std::time::Duration;

use anyhow::{Context, Result};

use super::process::{monotonic_ns, unacknowledged_bytes};
use super::thread::{LoadThread, RECEIVE_BYTES};
use super::under_way::UnderWay;

/// Writes, or reads, of one connection in a turn.
const CALLS_PER_TURN: usize = 16;

/// Whether a thread is done with a run, and how it waits if not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing is on its way, and nothing will be unless it is due.
    Done,
    /// A stream can go on at once.
    Ready,
    /// The kernel of the server's machine has not acknowledged all that was sent to a sink. No
    /// event tells when.
    Unacknowledged,
    /// Events will come.
    Waits,
}

impl Rest {
    /// Returns how long to wait for events at most.
    pub fn wait(self) -> Duration {
        match self {
            Self::Ready => Duration::ZERO,
            Self::Unacknowledged => Duration::from_millis(1),
            Self::Done | Self::Waits => Duration::MAX,
        }
    }
}

impl LoadThread {
    /// Returns whether the run is done. In a closed loop a connection begins as soon as it may.
    pub fn rest(&self, run: &UnderWay) -> Result<Rest> {
        if !self.ready.is_empty() {
            return Ok(Rest::Ready);
        }
        let wants_more = run.sources > 0 && monotonic_ns() < self.shared.window.end_ns();
        if run.outstanding() > 0 || !self.opening.is_empty() || wants_more {
            return Ok(Rest::Waits);
        }
        if self.shared.plan.message.is_sink() {
            // A reset would take what was not acknowledged away.
            for socket in &self.sockets[..self.in_flight.len()] {
                if unacknowledged_bytes(socket).context("SIOCOUTQ")? > 0 {
                    return Ok(Rest::Unacknowledged);
                }
            }
        }
        Ok(Rest::Done)
    }

    /// Begins the stream of a connection, if it has one in this run.
    pub fn begin_stream(&mut self, index: usize, run: &mut UnderWay) {
        if self.in_flight[index].quota == 0 {
            return;
        }
        run.sources += usize::from(self.shared.plan.message.is_source());
        self.get_ready(index);
    }

    /// Lets a stream take its next turn.
    fn get_ready(&mut self, index: usize) {
        if !std::mem::replace(&mut self.in_flight[index].is_ready, true) {
            self.ready.push_back(index);
        }
    }

    /// Gives each stream that stands in line its turn.
    pub fn go_on(&mut self, run: &mut UnderWay) -> Result<()> {
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { break };
            self.in_flight[index].is_ready = false;
            if self.shared.plan.message.is_source() {
                self.pull(index, true, run)?;
            } else {
                self.push(index, run)?;
            }
        }
        Ok(())
    }

    /// Writes to a sink, a message with each write.
    pub fn push(&mut self, index: usize, run: &mut UnderWay) -> Result<()> {
        for _ in 0..CALLS_PER_TURN {
            self.begin(index, run, monotonic_ns());
            let is_full = self.send(index, run)?;
            if is_full || self.in_flight[index].quota == 0 {
                return Ok(());
            }
            if monotonic_ns() >= self.shared.window.end_ns() {
                return Ok(());
            }
        }
        self.get_ready(index);
        Ok(())
    }

    /// Reads from a source until a read is short or `to_the_end`, but no more than is wanted.
    pub fn pull(&mut self, index: usize, to_the_end: bool, run: &mut UnderWay) -> Result<()> {
        self.send(index, run)?;
        for _ in 0..CALLS_PER_TURN {
            let wanted = self.in_flight[index].wanted(&self.shared.plan.message);
            if wanted == 0 || monotonic_ns() >= self.shared.window.end_ns() {
                return Ok(());
            }
            let most = RECEIVE_BYTES.min(usize::try_from(wanted).unwrap_or(usize::MAX));
            let Some(length) = self.read_once(index, most, run)? else { return Ok(()) };
            if self.in_flight[index].quota == 0 {
                run.sources -= 1;
                return Ok(());
            }
            if length < most && !to_the_end {
                return Ok(());
            }
        }
        self.get_ready(index);
        Ok(())
    }
}
