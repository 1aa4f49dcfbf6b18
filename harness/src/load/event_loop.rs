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
use super::schedule::{OpenLoop, Schedule};
use super::shared::{RunOrder, Shared, ThreadResult};
use super::stream::Rest;
use super::thread::{EVENTS, LoadThread, RECEIVE_BYTES, TIMER};
use super::under_way::UnderWay;

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
        let mut run = UnderWay::default();
        run.result.thread = self.thread;
        run.result.connect_ns = self.shared.plan.churn.map(|_| latency::histogram());
        self.reopen_owing()?;
        self.activate(order.active);
        let mut pacer = order.open.map(|open| self.pacer(open, order));
        self.begin_all(order, &mut run)?;
        let mut pulse = Pulse::since(monotonic_ns());
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let mut wait = TICK;
            if let Some(pacer) = &mut pacer {
                self.send_due(pacer, &mut run)?;
                wait = self.time_to(pacer)?;
            }
            let end_ns = self.shared.window.end_ns();
            let is_all_sent =
                pacer.as_ref().is_none_or(|pacer| pacer.schedule.next_ns(end_ns).is_none());
            let rest = self.rest(&run)?;
            wait = wait.min(rest.wait());
            if is_all_sent && rest == Rest::Done
                || pulse.quiet.moved_ns() >= self.shared.window.give_up_ns()
            {
                // A sink's last messages may be over since the last look.
                self.shared.progress[self.thread].echoes.store(run.completed, Relaxed);
                self.take_stock(&mut run.result, monotonic_ns());
                run.result.longest_gap_ns = pulse.gap.longest_ns();
                return Ok(run.result);
            }
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome.context("epoll_wait")?,
            }
            let before = run.completed;
            for event in events.iter().filter(|event| event.token() != TIMER) {
                self.serve(event, &mut run)?;
                if let Some(pacer) = &mut pacer {
                    // A batch of events takes longer than the next message should wait.
                    self.send_due(pacer, &mut run)?;
                }
            }
            self.go_on(&mut run)?;
            let now_ns = if run.completed > before { run.result.last_ns } else { monotonic_ns() };
            self.watch(&mut pulse, &mut run, now_ns)?;
        }
    }

    /// Makes the first `active` connections of all threads those that send, each with bytes of its
    /// own.
    fn activate(&mut self, active: usize) {
        let plan = &self.shared.plan;
        for index in self.in_flight.len()..self.own(active) {
            let number = plan.seed.wrapping_add(self.number(index) as u64);
            let most = plan.churn.unwrap_or(u64::MAX);
            self.in_flight.push(InFlight::new(&plan.message, number, most));
        }
    }

    /// Begins the first messages of a closed loop.
    fn begin_all(&mut self, order: RunOrder, run: &mut UnderWay) -> Result<()> {
        for index in 0..self.in_flight.len() {
            let quota = order.budget.of(self.number(index), order.active);
            self.in_flight[index].echoes = 0;
            self.in_flight[index].quota = if order.open.is_some() { 0 } else { quota };
            if self.shared.plan.message.is_answered() {
                self.begin(index, run, monotonic_ns());
                self.send(index, run)?;
            } else {
                self.begin_stream(index, run);
            }
        }
        Ok(())
    }

    /// Notes what a batch of events has brought; fails when nothing has moved for too long.
    fn watch(&self, pulse: &mut Pulse, run: &mut UnderWay, now_ns: u64) -> Result<()> {
        let progress = &self.shared.progress[self.thread];
        progress.echoes.store(run.completed, Relaxed);
        pulse.gap.look(&self.shared.window, now_ns);
        if std::mem::take(&mut run.moved) {
            progress.moved_ns.store(now_ns, Relaxed);
            pulse.moved_ns = now_ns;
        } else if self.rest(run)? == Rest::Done {
            // Nothing is there that could move.
            pulse.quiet = StallClock::since(now_ns);
        } else if now_ns.saturating_sub(pulse.moved_ns) >= TICK.as_nanos() as u64 {
            pulse.moved_ns = pulse.moved_ns.max(self.shared.moved_ns());
        }
        let quiet_ns = pulse.quiet.look(now_ns, pulse.moved_ns);
        if quiet_ns >= self.shared.plan.stall_after.as_nanos() as u64 {
            return Err(self.stalled(run));
        }
        Ok(())
    }

    /// Notes the connections' echoes, and what is still owed.
    fn take_stock(&self, result: &mut ThreadResult, now_ns: u64) {
        let message = &self.shared.plan.message;
        result.echoes_by_place = self.in_flight.iter().map(|of_one| of_one.echoes).collect();
        result.opened = self.opened;
        result.owed.connections = self.opening.len() as u64;
        result.owed.unanswered = self.opening.len() as u64;
        for in_flight in self.in_flight.iter().filter(|of_one| of_one.count() > 0) {
            result.owed.messages += in_flight.count() as u64;
            result.owed.bytes += in_flight.missing_bytes(message);
            result.owed.connections += 1;
            let is_unanswered = message.is_answered() && in_flight.received() == 0;
            result.owed.unanswered += u64::from(is_unanswered);
            for timestamps in in_flight.timestamps() {
                let is_due = self.shared.window.phase(timestamps.due_ns) == Phase::Within;
                match message.is_answered() {
                    true if is_due => result.latencies.owe(timestamps, now_ns),
                    true => {}
                    false => result.due += u64::from(is_due),
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
        let share = plan.share_of(self.thread, active);
        let seed = plan.seed.wrapping_add(runs_before << 48);
        let schedule = Schedule::new(open, seed, start_ns, messages, share);
        Pacer { schedule, armed_for_ns: None }
    }

    /// Sends the messages that are due, but not so many that what has come back must wait.
    fn send_due(&mut self, pacer: &mut Pacer, run: &mut UnderWay) -> Result<()> {
        for _ in 0..SENDS_PER_TURN {
            let (now_ns, end_ns) = (monotonic_ns(), self.shared.window.end_ns());
            let Some(due) = pacer.schedule.take(now_ns, end_ns) else { return Ok(()) };
            let timestamps = Timestamps { due_ns: due.due_ns, sent_ns: now_ns };
            run.result.last_due_ns = due.due_ns;
            self.in_flight[due.index].begin(1, &self.shared.plan.message, timestamps);
            run.begun += 1;
            if self.shared.window.phase(due.due_ns) == Phase::Within {
                run.result.late_sends += u64::from(now_ns - due.due_ns > LATE_NS);
                run.result.unsent += u64::from(now_ns >= end_ns);
            }
            self.send(due.index, run)?;
        }
        Ok(())
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
    fn serve(&mut self, event: &Event, run: &mut UnderWay) -> Result<()> {
        let index = event.token().0;
        if !self.opening.is_empty()
            && let Some(since_ns) = self.opening.remove(&index)
        {
            return self.replaced(event, index, since_ns, run);
        }
        let is_active = index < self.in_flight.len();
        let message = self.shared.plan.message;
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            if !is_active {
                return self.serve_idle(index);
            }
            // A short read leaves nothing behind, except an end or an error that the event told of.
            let to_the_end = event.is_read_closed() || event.is_error();
            if message.is_source() {
                return self.pull(index, to_the_end, run);
            }
            if self.read(index, to_the_end, run)? {
                self.begin(index, run, run.result.last_ns);
                if self.in_flight[index].is_spent() {
                    return self.replace(index);
                }
            }
        }
        match is_active {
            true if message.is_sink() => self.push(index, run),
            true => self.send(index, run).map(drop),
            false => Ok(()),
        }
    }

    /// Reads until a read is short, or `to_the_end`. Returns whether messages are back.
    fn read(&mut self, index: usize, to_the_end: bool, run: &mut UnderWay) -> Result<bool> {
        let before = run.completed;
        while let Some(length) = self.read_once(index, RECEIVE_BYTES, run)? {
            if length < RECEIVE_BYTES && !to_the_end {
                break;
            }
        }
        Ok(run.completed > before)
    }

    /// Reads at most so many bytes, and takes them in; none: nothing is there for now.
    pub fn read_once(
        &mut self,
        index: usize,
        most: usize,
        run: &mut UnderWay,
    ) -> Result<Option<usize>> {
        loop {
            match self.sockets[index].read(&mut self.buffer[..most]) {
                Ok(0) => return Err(self.ended(index, None)),
                Ok(length) => {
                    run.moved = true;
                    self.receive(index, length, run).map_err(|fault| self.fault(index, fault))?;
                    return Ok(Some(length));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.ended(index, Some(error))),
            }
        }
    }

    /// Verifies `length` bytes of the buffer and records how long the messages that they complete
    /// were away.
    fn receive(&mut self, index: usize, length: usize, run: &mut UnderWay) -> Result<(), Fault> {
        let Shared { plan, window, .. } = &*self.shared;
        // Read once for all that one receive completes, and only if it completes any.
        let mut back = None;
        let at = |back: &mut Option<(u64, Phase)>| {
            *back.get_or_insert_with(|| {
                let now_ns = monotonic_ns();
                (now_ns, window.phase(now_ns))
            })
        };
        let in_flight = &mut self.in_flight[index];
        let bytes = &self.buffer[..length];
        let completed = in_flight.receive(bytes, &plan.message, |timestamps| {
            run.record(window, timestamps, at(&mut back).0);
        })?;
        if completed > 0 {
            let at = at(&mut back);
            run.count(completed as u64, at);
            in_flight.echoes += if at.1 == Phase::Within { completed as u64 } else { 0 };
        }
        Ok(())
    }

    /// Says that nothing has moved for too long, and why that may be.
    fn stalled(&self, run: &UnderWay) -> Error {
        let plan = &self.shared.plan;
        let stall = format!("stalled for {:?}", plan.stall_after);
        let named = |first: Option<usize>| {
            first.map_or(String::new(), |first| {
                let number = self.number(first);
                format!(", first connection {number} to {}", plan.target(number))
            })
        };
        if run.sources == 0 && run.outstanding() == 0 && !self.opening.is_empty() {
            let first = named(self.opening.keys().copied().min());
            return anyhow!(
                "{stall}: connections being opened {}{first}: is the server's accept queue full \
                 ({ACCEPT_QUEUE}), or the server gone?",
                self.opening.len(),
            );
        }
        let is_waiting = |&index: &usize| match plan.message.is_answered() {
            true => self.in_flight[index].count() > 0,
            false => true,
        };
        let waiting: Vec<usize> = (0..self.in_flight.len()).filter(is_waiting).collect();
        let (count, first) = (waiting.len(), named(waiting.first().copied()));
        if plan.message.is_source() {
            let error = anyhow!("{stall}: nothing came on connections {count}{first}");
            return self.of_service(error);
        }
        if plan.message.is_sink() {
            let error = anyhow!("{stall}: the server takes nothing on connections {count}{first}");
            return self.of_service(error);
        }
        let unanswered =
            waiting.iter().filter(|&&index| self.in_flight[index].received() == 0).count();
        self.of_service(anyhow!(
            "{stall}: echoes owed {}, on connections {count}{first}: {}",
            run.outstanding(),
            why_owed(count, unanswered),
        ))
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
    /// When anything moved last, as far as the thread knows.
    moved_ns: u64,
    quiet: StallClock,
    gap: LongestGap,
}

impl Pulse {
    fn since(now_ns: u64) -> Self {
        Self { moved_ns: now_ns, quiet: StallClock::since(now_ns), gap: LongestGap::since(now_ns) }
    }
}
