//! The loop of a thread over its connections.

use std::io::{self, Read as _};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use hdrhistogram::Histogram;
use mio::Events;
use mio::event::Event;

use super::fault::Fault;
use super::in_flight::{InFlight, Timestamps};
use super::latency;
use super::outstanding::{ACCEPT_QUEUE, why_owed};
use super::pace::{LongestGap, Phase, StallClock};
use super::process::monotonic_ns;
use super::schedule::{OpenLoop, Schedule, ThreadShare};
use super::shared::{RunOrder, Shared, ThreadResult};
use super::thread::{EVENTS, LoadThread, TIMER};

/// How long a thread waits before it looks whether the run was ended or has stalled.
const TICK: Duration = Duration::from_millis(50);

/// Messages that an open loop sends before it looks for what has come back. A loop that is behind
/// its schedule has always more to send.
const SENDS_PER_TURN: usize = 32;

/// A send is late from so long after it was due on: well beyond the time that waking up takes.
const LATE_NS: u64 = 1_000_000;

impl LoadThread {
    /// Opens or closes connections until `total` stand in all threads together. Returns how long
    /// the opening of each took, in ns.
    pub fn set_connections(&mut self, total: usize) -> Result<Histogram<u64>> {
        self.asked = total;
        self.reopen_owing()?;
        let connections = self.own(total);
        // Pops, so that the most recently opened closes first. SO_LINGER makes it a reset.
        while self.sockets.len() > connections {
            self.sockets.pop();
            self.shared.connected.fetch_sub(1, Relaxed);
        }
        self.in_flight.truncate(connections);
        self.open(connections)
    }

    /// Carries out a run, until the window ends and all that was sent is back, or has been owed for
    /// too long.
    pub fn run(&mut self, order: RunOrder) -> Result<ThreadResult> {
        let connect_ns = self.shared.plan.churn.map(|_| latency::histogram());
        let mut result =
            ThreadResult { thread: self.thread, connect_ns, ..ThreadResult::default() };
        self.reopen_owing()?;
        self.activate(order.active);
        let mut pacer = order.open.map(|open| self.pacer(open, order));
        let mut outstanding = self.begin_all(order)?;
        let mut pulse = Pulse::since(monotonic_ns());
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let mut wait = TICK;
            if let Some(pacer) = &mut pacer {
                outstanding += self.send_due(pacer, &mut result)?;
                wait = self.time_to(pacer)?;
            }
            // In a closed loop a connection begins as soon as it may, so nothing in flight, and
            // none to come, means done.
            let end_ns = self.shared.window.end_ns();
            let is_all_sent =
                pacer.as_ref().is_none_or(|pacer| pacer.schedule.next_ns(end_ns).is_none());
            let is_over = is_all_sent && outstanding == 0 && self.opening.is_empty();
            if is_over || pulse.quiet.moved_ns() >= self.shared.window.give_up_ns() {
                self.take_stock(&mut result, monotonic_ns());
                result.longest_gap_ns = pulse.gap.longest_ns();
                return Ok(result);
            }
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome.context("epoll_wait")?,
            }
            let mut batch = Served::default();
            for event in events.iter().filter(|event| event.token() != TIMER) {
                let served = self.serve(event, &mut result)?;
                batch.moved |= served.moved;
                batch.completed += served.completed;
                outstanding = outstanding + served.begun - served.completed;
                if let Some(pacer) = &mut pacer {
                    // A batch of events takes longer than the next message should wait.
                    outstanding += self.send_due(pacer, &mut result)?;
                }
            }
            let now_ns = if batch.completed > 0 { result.last_ns } else { monotonic_ns() };
            self.watch(&mut pulse, &batch, now_ns, outstanding)?;
        }
    }

    /// Makes the first `active` connections of all threads those that send, each with bytes of its
    /// own.
    fn activate(&mut self, active: usize) {
        for index in self.in_flight.len()..self.own(active) {
            let stream = self.shared.plan.seed.wrapping_add(self.number(index) as u64);
            self.in_flight.push(InFlight::new(stream, self.shared.plan.churn.unwrap_or(u64::MAX)));
        }
    }

    /// Begins the first messages of a closed loop; returns how many.
    fn begin_all(&mut self, order: RunOrder) -> Result<usize> {
        let mut begun = 0;
        for index in 0..self.in_flight.len() {
            let quota = order.budget.of(self.number(index), order.active);
            self.in_flight[index].echoes = 0;
            self.in_flight[index].quota = if order.open.is_some() { 0 } else { quota };
            begun += self.begin(index, monotonic_ns());
            self.send(index)?;
        }
        Ok(begun)
    }

    /// Notes what a batch of events has brought; fails when nothing has moved for too long.
    fn watch(
        &self,
        pulse: &mut Pulse,
        batch: &Served,
        now_ns: u64,
        outstanding: usize,
    ) -> Result<()> {
        let progress = &self.shared.progress[self.thread];
        pulse.echoes += batch.completed as u64;
        progress.echoes.store(pulse.echoes, Relaxed);
        pulse.gap.look(&self.shared.window, now_ns);
        if batch.moved {
            progress.moved_ns.store(now_ns, Relaxed);
            pulse.moved_ns = now_ns;
        } else if outstanding == 0 && self.opening.is_empty() {
            // Nothing is there that could move.
            pulse.quiet = StallClock::since(now_ns);
        } else if now_ns.saturating_sub(pulse.moved_ns) >= TICK.as_nanos() as u64 {
            pulse.moved_ns = pulse.moved_ns.max(self.shared.moved_ns());
        }
        let quiet_ns = pulse.quiet.look(now_ns, pulse.moved_ns);
        if quiet_ns >= self.shared.plan.stall_after.as_nanos() as u64 {
            return Err(self.stalled(outstanding));
        }
        Ok(())
    }

    /// Notes the connections' echoes, and what is still owed.
    fn take_stock(&self, result: &mut ThreadResult, now_ns: u64) {
        result.echoes_by_place = self.in_flight.iter().map(|of_one| of_one.echoes).collect();
        result.opened = self.opened;
        result.owed.connections = self.opening.len() as u64;
        result.owed.unanswered = self.opening.len() as u64;
        for in_flight in self.in_flight.iter().filter(|of_one| of_one.count() > 0) {
            result.owed.messages += in_flight.count() as u64;
            result.owed.bytes += in_flight.missing_bytes(self.shared.plan.message_bytes);
            result.owed.connections += 1;
            result.owed.unanswered += u64::from(in_flight.received() == 0);
            for timestamps in in_flight.timestamps() {
                if self.shared.window.phase(timestamps.due_ns) == Phase::Within {
                    result.latencies.owe(timestamps, now_ns);
                }
            }
        }
    }

    fn pacer(&self, open: OpenLoop, order: RunOrder) -> Pacer {
        let RunOrder { budget, active, start_ns, runs_before, .. } = order;
        let (own, plan) = (self.in_flight.len(), &self.shared.plan);
        let messages = (0..own)
            .map(|index| budget.of(self.number(index), active))
            .fold(0, u64::saturating_add);
        let share = ThreadShare { thread: self.thread, threads: plan.threads, active, own };
        let seed = plan.seed.wrapping_add(runs_before << 48);
        let schedule = Schedule::new(open, seed, start_ns, messages, share);
        Pacer { schedule, armed_for_ns: None }
    }

    /// Sends the messages that are due, but not so many that what has come back must wait. Returns
    /// how many were begun.
    fn send_due(&mut self, pacer: &mut Pacer, result: &mut ThreadResult) -> Result<usize> {
        let mut begun = 0;
        while begun < SENDS_PER_TURN {
            let (now_ns, end_ns) = (monotonic_ns(), self.shared.window.end_ns());
            let Some(message) = pacer.schedule.take(now_ns, end_ns) else { return Ok(begun) };
            let timestamps = Timestamps { due_ns: message.due_ns, sent_ns: now_ns };
            result.last_due_ns = message.due_ns;
            self.in_flight[message.index].begin(1, self.shared.plan.message_bytes, timestamps);
            if self.shared.window.phase(message.due_ns) == Phase::Within {
                result.late_sends += u64::from(now_ns - message.due_ns > LATE_NS);
                result.unsent += u64::from(now_ns >= end_ns);
            }
            begun += 1;
            self.send(message.index)?;
        }
        Ok(begun)
    }

    /// Returns how long to wait for events before the next message is due, and sets the timer if
    /// that is sooner than a tick.
    fn time_to(&self, pacer: &mut Pacer) -> Result<Duration> {
        let due_ns = pacer.schedule.next_ns(self.shared.window.end_ns());
        let (Some(due_ns), Some(timer)) = (due_ns, &self.timer) else { return Ok(TICK) };
        let left = Duration::from_nanos(due_ns.saturating_sub(monotonic_ns()));
        if left.is_zero() {
            return Ok(Duration::ZERO);
        }
        if left < TICK && pacer.armed_for_ns != Some(due_ns) {
            timer.set(left).context("timerfd_settime")?;
            pacer.armed_for_ns = Some(due_ns);
        }
        Ok(TICK)
    }

    /// Takes what has come on one connection, and answers it.
    fn serve(&mut self, event: &Event, result: &mut ThreadResult) -> Result<Served> {
        let index = event.token().0;
        if !self.opening.is_empty()
            && let Some(since_ns) = self.opening.remove(&index)
        {
            let begun = self.replaced(event, index, since_ns, result)?;
            return Ok(Served { completed: 0, begun, moved: true });
        }
        let is_active = index < self.in_flight.len();
        let mut served = Served::default();
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            if !is_active {
                self.serve_idle(index)?;
                return Ok(served);
            }
            // A short read leaves nothing behind, except an end or an error that the event told of.
            let to_the_end = event.is_read_closed() || event.is_error();
            self.read(index, to_the_end, &mut served, result)?;
            if served.completed > 0 {
                served.begun = self.begin(index, result.last_ns);
                if self.in_flight[index].is_spent() {
                    self.replace(index)?;
                    return Ok(served);
                }
            }
        }
        if is_active {
            served.moved |= self.send(index)?;
        }
        Ok(served)
    }

    /// Reads until a read is short, or `to_the_end`.
    fn read(
        &mut self,
        index: usize,
        to_the_end: bool,
        served: &mut Served,
        result: &mut ThreadResult,
    ) -> Result<()> {
        loop {
            let length = match self.sockets[index].read(&mut self.buffer) {
                Ok(0) => return Err(self.ended(index, None)),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.ended(index, Some(error))),
            };
            served.moved = true;
            served.completed +=
                self.receive(index, length, result).map_err(|fault| self.fault(index, fault))?;
            if length < self.buffer.len() && !to_the_end {
                return Ok(());
            }
        }
    }

    /// Verifies `length` bytes of the buffer and records how long the messages that they complete
    /// were away; returns how many those are.
    fn receive(
        &mut self,
        index: usize,
        length: usize,
        result: &mut ThreadResult,
    ) -> Result<usize, Fault> {
        let Shared { plan, window, .. } = &*self.shared;
        // Read once for all that one receive completes, and only if it completes any.
        let mut back = None;
        let ThreadResult { latencies, echoes, warmup_echoes, last_ns, .. } = result;
        let in_flight = &mut self.in_flight[index];
        let bytes = &self.buffer[..length];
        let completed = in_flight.receive(bytes, plan.message_bytes, |timestamps| {
            let (now_ns, phase) = *back.get_or_insert_with(|| {
                let now_ns = monotonic_ns();
                (now_ns, window.phase(now_ns))
            });
            match phase {
                Phase::Before => *warmup_echoes += 1,
                Phase::Within => *echoes += 1,
                Phase::After => {}
            }
            *last_ns = now_ns;
            if window.phase(timestamps.due_ns) == Phase::Within {
                latencies.record(timestamps, now_ns);
            }
        })?;
        if let Some((_, Phase::Within)) = back {
            in_flight.echoes += completed as u64;
        }
        Ok(completed)
    }

    /// Says that nothing has moved for too long, and why that may be.
    fn stalled(&self, outstanding: usize) -> Error {
        let plan = &self.shared.plan;
        let stall = format!("stalled for {:?}", plan.stall_after);
        if outstanding == 0 {
            let first = self.opening.keys().copied().min().map_or(String::new(), |first| {
                let first = self.number(first);
                format!(", first connection {first} to {}", plan.target(first))
            });
            return anyhow!(
                "{stall}: connections being opened {}{first}: is the server's accept queue full \
                 ({ACCEPT_QUEUE}), or the server gone?",
                self.opening.len(),
            );
        }
        let waiting: Vec<usize> =
            (0..self.in_flight.len()).filter(|&index| self.in_flight[index].count() > 0).collect();
        let unanswered =
            waiting.iter().filter(|&&index| self.in_flight[index].received() == 0).count();
        let first = waiting.first().map_or(String::new(), |&first| {
            let first = self.number(first);
            format!(", first connection {first} to {}", plan.target(first))
        });
        anyhow!(
            "{stall}: echoes owed {outstanding}, on connections {}{first}: {}",
            waiting.len(),
            why_owed(waiting.len(), unanswered),
        )
    }
}

/// The state of an open loop.
struct Pacer {
    schedule: Schedule,
    /// The due time that the timer was last set for.
    armed_for_ns: Option<u64>,
}

/// Whether a thread makes progress.
struct Pulse {
    echoes: u64,
    /// When anything moved last, as far as the thread knows.
    moved_ns: u64,
    quiet: StallClock,
    gap: LongestGap,
}

impl Pulse {
    fn since(now_ns: u64) -> Self {
        Self {
            echoes: 0,
            moved_ns: now_ns,
            quiet: StallClock::since(now_ns),
            gap: LongestGap::since(now_ns),
        }
    }
}

/// The outcome of one or more events.
#[derive(Default)]
struct Served {
    /// Messages that came back whole.
    completed: usize,
    /// Messages begun in their place.
    begun: usize,
    /// Whether any byte moved, or a connection.
    moved: bool,
}
