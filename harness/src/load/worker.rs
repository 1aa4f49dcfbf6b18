//! A thread of the load: its own file table, its CPU, its connections and one loop over them.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::fault::Fault;
use super::flight::{Flight, Stamp};
use super::latency::{self, Latencies};
use super::pace::{Budget, Gap, Moment, Window};
use super::plan::{Plan, share};
use super::process::{Timer, monotonic_ns};
use super::schedule::{OpenLoop, Place, Schedule};
use crate::instruments::affinity;

/// How much one read takes at most, in bytes.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Events taken from the kernel at once.
pub(super) const EVENTS: usize = 1024;

/// How long a thread waits before it looks whether the run was ended or has stalled.
const TICK: Duration = Duration::from_millis(50);

/// The event of an open loop's timer; connections have the tokens below.
const TIMER: Token = Token(usize::MAX);

/// Messages that an open loop sends before it looks for what has come back. One that is behind its schedule has always
/// more to send.
const SENDS_PER_TURN: usize = 32;

/// A send is late from so long after it was due on: well beyond what waking up takes.
const LATE_NS: u64 = 1_000_000;

/// What the threads share: all is read often and written rarely, but for `echoes`, which is written by
/// its thread alone and read by the warm-up.
#[derive(Debug)]
pub struct Shared {
    pub plan: Plan,
    pub window: Window,
    /// Connections that stand or have stood, for messages.
    pub connected: AtomicU64,
    /// Echoes of each thread in this run.
    pub echoes: Box<[Counter]>,
}

/// A counter on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counter(pub AtomicU64);

/// What one thread has measured in one run.
#[derive(Debug)]
pub struct Tally {
    /// In a closed loop, of the echoes that came back within the window, and only the latency. In an open one, of
    /// the messages that were due within it, whenever they came back: the slowest are not to be left out.
    pub latencies: Latencies,
    /// Echoes that came back within the window.
    pub echoes: u64,
    /// Echoes before the window.
    pub warmup_echoes: u64,
    /// Messages due within the window that were sent late.
    pub late_sends: u64,
    /// Messages due within the window that were sent after its end.
    pub unsent: u64,
    /// When the last echo came back.
    pub last_ns: u64,
    /// The longest time within the window that the thread did not look at its clock.
    pub longest_gap_ns: u64,
    /// Of the connections that were opened within the window in place of others, how long that took.
    pub connect_ns: Option<Histogram<u64>>,
    /// The thread.
    pub thread: usize,
    /// Echoes within the window in the place of each of its active connections.
    pub echoes_by_place: Vec<u64>,
    /// Connections that the thread has opened from its start on.
    pub opened: u64,
}

/// One thread's connections. Connection `number` belongs to thread `number % threads`, as its
/// `number / threads`th; the active ones are those with the lowest numbers, hence the first here too.
pub struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) thread: usize,
    pub(super) poll: Poll,
    /// Connections that should stand in all threads together.
    pub(super) asked: usize,
    pub(super) sockets: Vec<TcpStream>,
    pub(super) flights: Vec<Flight>,
    /// Connections that are being opened in place of others, and since when.
    pub(super) replacing: HashMap<usize, u64>,
    /// Connections that were opened.
    pub(super) opened: u64,
    /// Wakes the poll when the next message of an open loop is due.
    timer: Option<Timer>,
    buffer: Box<[u8]>,
}

impl Worker {
    /// Makes the calling thread a worker: gives it a file table and, if asked, a CPU of its own.
    pub fn new(shared: Arc<Shared>, thread: usize) -> Result<Self> {
        ringmark::sys::unshare_files()
            .context("unshare(CLONE_FILES): a thread needs a file table of its own")?;
        let cpus = &shared.plan.cpus;
        if !cpus.is_empty() {
            let cpu = cpus[thread % cpus.len()];
            affinity::pin(&[cpu])
                .with_context(|| format!("--cpus: this process may not run on CPU {cpu}"))?;
        }
        let poll = Poll::new().context("epoll_create1")?;
        let timer = shared.plan.open.map(|_| Timer::new()).transpose().context("timerfd_create")?;
        if let Some(timer) = &timer {
            // Each expiry is an edge of its own, whether the one before was read or not.
            poll.registry()
                .register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)
                .context("epoll_ctl")?;
        }
        Ok(Self {
            poll,
            asked: 0,
            sockets: Vec::new(),
            flights: Vec::new(),
            replacing: HashMap::new(),
            opened: 0,
            timer,
            buffer: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            thread,
            shared,
        })
    }

    /// The number among all threads of this thread's connection `index`.
    pub(super) fn number(&self, index: usize) -> usize {
        index * self.shared.plan.threads + self.thread
    }

    /// How many of `total` things that are dealt over all threads are this one's.
    fn own(&self, total: usize) -> usize {
        share(total as u64, self.shared.plan.threads, self.thread) as usize
    }

    /// Opens or closes connections until `total` stand in all threads together; how long the opening of each took,
    /// in ns.
    pub fn set_connections(&mut self, total: usize) -> Result<Histogram<u64>> {
        self.asked = total;
        let connections = self.own(total);
        // Pops, so that the most recently opened closes first. SO_LINGER makes it a reset.
        while self.sockets.len() > connections {
            self.sockets.pop();
            self.shared.connected.fetch_sub(1, Relaxed);
        }
        self.flights.truncate(connections);
        self.open(connections)
    }

    /// Makes the first `active` connections of all threads those that send, each with bytes of its own.
    fn activate(&mut self, active: usize) {
        let own = self.own(active);
        for index in self.flights.len()..own {
            let stream = self.shared.plan.seed.wrapping_add(self.number(index) as u64);
            self.flights.push(Flight::new(stream, self.shared.plan.churn.unwrap_or(u64::MAX)));
        }
    }

    /// Sends what `budget` allows on the first `active` connections of all threads, until the window
    /// ends, and returns when all that was sent is back. An open loop's schedule begins at `start_ns`.
    pub fn run(
        &mut self,
        budget: Budget,
        active: usize,
        open: Option<OpenLoop>,
        start_ns: u64,
    ) -> Result<Tally> {
        let mut tally = Tally {
            latencies: Latencies::new()?,
            echoes: 0,
            warmup_echoes: 0,
            late_sends: 0,
            unsent: 0,
            last_ns: 0,
            longest_gap_ns: 0,
            connect_ns: self.shared.plan.churn.map(|_| latency::histogram()).transpose()?,
            thread: self.thread,
            echoes_by_place: Vec::new(),
            opened: 0,
        };
        self.activate(active);
        let mut pacer = open.map(|open| self.pacer(open, budget, active, start_ns));
        let mut in_flight = 0;
        for index in 0..self.flights.len() {
            self.flights[index].echoes = 0;
            self.flights[index].quota =
                if open.is_some() { 0 } else { budget.of(self.number(index), active) };
            let now_ns = monotonic_ns();
            in_flight += self.begin(index, now_ns);
            self.send(index)?;
        }
        let (mut echoes, mut moved_ns) = (0, monotonic_ns());
        let mut events = Events::with_capacity(EVENTS);
        let mut gap = Gap::since(moved_ns);
        loop {
            let mut wait = TICK;
            if let Some(pacer) = &mut pacer {
                in_flight += self.send_due(pacer, &mut tally)?;
                wait = self.time_to(pacer)?;
            }
            // In a closed loop a connection begins as soon as it may, so nothing in flight, and none to come,
            // means done.
            let end_ns = self.shared.window.end_ns();
            if in_flight == 0
                && self.replacing.is_empty()
                && pacer.as_ref().is_none_or(|pacer| pacer.schedule.is_over(end_ns))
            {
                tally.echoes_by_place = self.flights.iter().map(|flight| flight.echoes).collect();
                tally.opened = self.opened;
                tally.longest_gap_ns = gap.longest_ns();
                return Ok(tally);
            }
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome.context("epoll_wait")?,
            }
            let (mut moved, mut completed) = (false, 0);
            for event in events.iter().filter(|event| event.token() != TIMER) {
                let served = self.serve(event, open.is_some(), &mut tally)?;
                moved |= served.moved;
                completed += served.completed;
                in_flight = in_flight + served.begun - served.completed;
                if let Some(pacer) = &mut pacer {
                    // A batch of events takes longer than the next message should wait.
                    in_flight += self.send_due(pacer, &mut tally)?;
                }
            }
            echoes += completed as u64;
            self.shared.echoes[self.thread].0.store(echoes, Relaxed);
            let now_ns = if completed > 0 { tally.last_ns } else { monotonic_ns() };
            gap.look(&self.shared.window, now_ns);
            if moved || (in_flight == 0 && self.replacing.is_empty()) {
                moved_ns = now_ns;
            }
            self.check_stall(now_ns, moved_ns, in_flight)?;
        }
    }

    fn pacer(&self, open: OpenLoop, budget: Budget, active: usize, start_ns: u64) -> Pacer {
        let Plan { threads, seed, .. } = self.shared.plan;
        let own = self.flights.len();
        let messages = (0..own)
            .map(|index| budget.of(self.number(index), active))
            .fold(0, |sum: u64, of_one| sum.saturating_add(of_one));
        let place = Place { thread: self.thread, threads, active, own };
        Pacer { schedule: Schedule::new(open, seed, start_ns, messages, place), armed_for_ns: None }
    }

    /// Sends the messages that are due, but not so many that what has come back must wait; returns how many were begun.
    fn send_due(&mut self, pacer: &mut Pacer, tally: &mut Tally) -> Result<usize> {
        let mut begun = 0;
        while begun < SENDS_PER_TURN {
            let (now_ns, end_ns) = (monotonic_ns(), self.shared.window.end_ns());
            let Some(message) = pacer.schedule.take(now_ns, end_ns) else { return Ok(begun) };
            let stamp = Stamp { due_ns: message.due_ns, sent_ns: now_ns };
            self.flights[message.index].begin(1, self.shared.plan.message_bytes, stamp);
            if self.shared.window.moment(message.due_ns) == Moment::Within {
                tally.late_sends += u64::from(now_ns - message.due_ns > LATE_NS);
                tally.unsent += u64::from(now_ns >= end_ns);
            }
            begun += 1;
            self.send(message.index)?;
        }
        Ok(begun)
    }

    /// How long to wait for events before the next message is due; sets the timer if that is worth it.
    fn time_to(&self, pacer: &mut Pacer) -> Result<Duration> {
        let (Some(due_ns), Some(timer)) = (pacer.schedule.next_ns(), &self.timer) else { return Ok(TICK) };
        let left = Duration::from_nanos(due_ns.saturating_sub(monotonic_ns()));
        if left.is_zero() {
            return Ok(Duration::ZERO);
        }
        // One that ends a tick is looked for then.
        if left < TICK && pacer.armed_for_ns != Some(due_ns) {
            timer.set(left).context("timerfd_settime")?;
            pacer.armed_for_ns = Some(due_ns);
        }
        Ok(TICK)
    }

    /// Takes what has come on one connection, and answers it.
    fn serve(&mut self, event: &Event, is_open: bool, tally: &mut Tally) -> Result<Served> {
        let index = event.token().0;
        let mut served = Served::default();
        if !self.replacing.is_empty()
            && let Some(since_ns) = self.replacing.remove(&index)
        {
            return self.replaced(event, index, since_ns, tally);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            if index >= self.flights.len() {
                self.serve_idle(index)?;
                return Ok(served);
            }
            let mut now_ns = 0;
            // A short read leaves nothing behind, except an end or an error that the event told of.
            let to_the_end = event.is_read_closed() || event.is_error();
            loop {
                let length = match self.sockets[index].read(&mut self.buffer) {
                    Ok(0) => return Err(self.ended(index, None)),
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(self.ended(index, Some(error))),
                };
                served.moved = true;
                match self.receive(index, length, is_open, tally) {
                    Ok(0) => {}
                    Ok(completed) => {
                        now_ns = tally.last_ns;
                        served.completed += completed;
                    }
                    Err(fault) => return Err(self.fault(index, fault)),
                }
                if length < self.buffer.len() && !to_the_end {
                    break;
                }
            }
            if served.completed > 0 {
                served.begun = self.begin(index, now_ns);
                if self.flights[index].is_spent() {
                    self.replace(index)?;
                    return Ok(served);
                }
            }
        }
        if index < self.flights.len() {
            served.moved |= self.send(index)?;
        }
        Ok(served)
    }

    /// Verifies `length` bytes of the buffer and records how long the messages that they complete were away;
    /// returns how many those are.
    fn receive(
        &mut self,
        index: usize,
        length: usize,
        is_open: bool,
        tally: &mut Tally,
    ) -> Result<usize, Fault> {
        let Shared { plan, window, .. } = &*self.shared;
        // Read once for all that one receive completes, and only if it completes any.
        let mut back = None;
        let Tally { latencies, echoes, warmup_echoes, last_ns, .. } = tally;
        let completed = self.flights[index].receive(&self.buffer[..length], plan.message_bytes, |stamp| {
            let (now_ns, moment) = *back.get_or_insert_with(|| {
                let now_ns = monotonic_ns();
                (now_ns, window.moment(now_ns))
            });
            match moment {
                Moment::Before => *warmup_echoes += 1,
                Moment::Within => *echoes += 1,
                Moment::After => {}
            }
            *last_ns = now_ns;
            if !is_open && moment == Moment::Within {
                latencies.latency_ns.saturating_record(now_ns - stamp.due_ns);
            }
            if is_open && window.moment(stamp.due_ns) == Moment::Within {
                latencies.record(stamp, now_ns);
            }
        })?;
        if let Some((_, Moment::Within)) = back {
            self.flights[index].echoes += completed as u64;
        }
        Ok(completed)
    }

    /// Begins as many messages as a closed loop's connection may; returns how many.
    pub(super) fn begin(&mut self, index: usize, now_ns: u64) -> usize {
        let plan = &self.shared.plan;
        let flight = &mut self.flights[index];
        let room = plan.pipeline.saturating_sub(flight.in_flight());
        let room = usize::try_from(flight.left).unwrap_or(usize::MAX).min(room);
        let granted = self.shared.window.grant(&mut flight.quota, room, now_ns);
        flight.left -= granted as u64;
        flight.begin(granted, plan.message_bytes, Stamp::on_time(now_ns));
        granted
    }

    /// Writes what the socket takes of the messages begun: all of them in one call if they fit into the
    /// pattern's longest slice. Returns whether anything moved.
    pub(super) fn send(&mut self, index: usize) -> Result<bool> {
        let mut moved = false;
        loop {
            let bytes = self.flights[index].unsent();
            if bytes.is_empty() {
                return Ok(moved);
            }
            match self.sockets[index].write(bytes) {
                Ok(length) => {
                    moved |= length > 0;
                    self.flights[index].sent(length);
                    // The socket is full; the event that it has room again will come.
                    if length < bytes.len() {
                        return Ok(moved);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(moved),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.ended(index, Some(error))),
            }
        }
    }

    /// Nothing may come on a connection that has nothing in flight.
    pub(super) fn serve_idle(&mut self, index: usize) -> Result<()> {
        let offset = self.flights.get(index).map_or(0, Flight::received);
        let fault = match self.sockets[index].read(&mut self.buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => Fault::Ended { offset, owed_bytes: 0, error: Some(error) },
            Ok(0) => Fault::Ended { offset, owed_bytes: 0, error: None },
            Ok(bytes) => Fault::Beyond { offset, bytes },
        };
        Err(self.fault(index, fault))
    }

    fn ended(&self, index: usize, error: Option<io::Error>) -> anyhow::Error {
        self.fault(index, self.flights[index].ended(self.shared.plan.message_bytes, error))
    }

    fn fault(&self, index: usize, fault: Fault) -> anyhow::Error {
        let number = self.number(index);
        anyhow::Error::new(fault)
            .context(format!("connection {number} to {}", self.shared.plan.target(number)))
    }

    /// Fails when nothing has moved for too long. Once the window has ended, the outstanding echoes have
    /// that long in all.
    fn check_stall(&self, now_ns: u64, moved_ns: u64, in_flight: usize) -> Result<()> {
        let Shared { plan, window, .. } = &*self.shared;
        let since_ns = moved_ns.min(window.end_ns());
        let is_idle = in_flight == 0 && self.replacing.is_empty();
        if is_idle || now_ns < since_ns.saturating_add(plan.stall_after.as_nanos() as u64) {
            return Ok(());
        }
        if in_flight == 0 {
            let first = self.number(self.replacing.keys().copied().min().unwrap_or_default());
            bail!(
                "stalled for {:?}: connections being opened {}, first connection {first} to {}: is the server's \
                 accept queue full, or the server gone?",
                plan.stall_after,
                self.replacing.len(),
                plan.target(first),
            );
        }
        let waiting = || (0..self.flights.len()).filter(|&index| self.flights[index].in_flight() > 0);
        let first = self.number(waiting().next().unwrap_or_default());
        bail!(
            "stalled for {:?}: echoes owed {in_flight}, on connections {}, first connection {first} to {}: the \
             server lost bytes, is stuck or is gone",
            plan.stall_after,
            waiting().count(),
            plan.target(first),
        )
    }
}

/// Where an open loop stands.
struct Pacer {
    schedule: Schedule,
    /// What the timer was last set for.
    armed_for_ns: Option<u64>,
}

/// What one event led to.
#[derive(Default)]
pub(super) struct Served {
    /// Messages that came back whole.
    pub completed: usize,
    /// Messages begun in their place.
    pub begun: usize,
    /// Whether any byte moved, or a connection.
    pub moved: bool,
}
