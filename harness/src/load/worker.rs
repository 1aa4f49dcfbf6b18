//! A thread of the load: its own file table, its CPU, its connections and one loop over them.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use ringmark::cpus;

use super::fault::Fault;
use super::flight::{Flight, Stamp};
use super::latency::{self, Latencies};
use super::open::UNDER_WAY;
use super::pace::{Budget, Gap, Moment, Quiet, Window};
use super::plan::{Plan, share};
use super::process::{Timer, monotonic_ns};
use super::schedule::{OpenLoop, Place, Schedule};

/// How much one read takes at most, in bytes.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Events taken from the kernel at once.
pub(super) const EVENTS: usize = 1024;

/// How long a thread waits before it looks whether the run was ended or has stalled.
const TICK: Duration = Duration::from_millis(50);

/// The event of an open loop's timer; connections have the tokens below.
const TIMER: Token = Token(usize::MAX);

/// Messages that an open loop sends before it looks for what has come back. One that is behind its
/// schedule has always more to send.
const SENDS_PER_TURN: usize = 32;

/// A send is late from so long after it was due on: well beyond what waking up takes.
const LATE_NS: u64 = 1_000_000;

/// What the threads share: all is read often and written rarely, but for `progress`, of which each
/// is written by its thread alone.
#[derive(Debug)]
pub struct Shared {
    pub plan: Plan,
    pub window: Window,
    /// Connections that stand or have stood, for messages.
    pub connected: AtomicU64,
    /// Of each thread.
    pub progress: Box<[Progress]>,
}

impl Shared {
    /// Echoes of this run so far.
    pub fn echoes(&self) -> u64 {
        self.progress.iter().map(|of_thread| of_thread.echoes.load(Relaxed)).sum()
    }

    /// When anything moved last on any thread's connections.
    fn moved_ns(&self) -> u64 {
        self.progress
            .iter()
            .map(|of_thread| of_thread.moved_ns.load(Relaxed))
            .max()
            .unwrap_or_default()
    }
}

/// What a thread has done, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Progress {
    /// Its echoes in this run.
    pub echoes: AtomicU64,
    /// When anything moved on its connections.
    pub moved_ns: AtomicU64,
}

/// What one thread has measured in one run.
#[derive(Debug)]
pub struct Tally {
    /// Of the messages that were due within the window, whenever they came back, or how long they
    /// were owed: the slowest are not to be left out. In a closed loop a message is due when it
    /// begins.
    pub latencies: Latencies,
    /// Echoes that came back within the window.
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
    /// What was still owed when it gave up waiting.
    pub owed: Owed,
    /// The longest time within the window that the thread did not look at its clock.
    pub longest_gap_ns: u64,
    /// Of the connections that were opened within the window in place of others, how long that
    /// took.
    pub connect_ns: Option<Histogram<u64>>,
    /// The thread.
    pub thread: usize,
    /// Echoes within the window in the place of each of its active connections.
    pub echoes_by_place: Vec<u64>,
    /// Connections that the thread has opened from its start on.
    pub opened: u64,
}

/// What a server still owes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owed {
    pub messages: u64,
    pub bytes: u64,
    /// Connections on which it owes something, or that it has not taken yet.
    pub connections: u64,
    /// Those of them on which no byte ever came back.
    pub unanswered: u64,
}

/// One thread's connections. Connection `number` belongs to thread `number % threads`, as its
/// `number / threads`th; the active ones are those with the lowest numbers, hence the first here
/// too.
pub struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) thread: usize,
    pub(super) poll: Poll,
    /// Connections that should stand in all threads together.
    pub(super) asked: usize,
    pub(super) sockets: Vec<TcpStream>,
    pub(super) flights: Vec<Flight>,
    /// Connections that are being opened, and since when.
    pub(super) under_way: HashMap<usize, u64>,
    /// Connections that were opened.
    pub(super) opened: u64,
    /// Wakes the poll when the next message of an open loop is due.
    timer: Option<Timer>,
    buffer: Box<[u8]>,
}

impl Worker {
    /// Makes the calling thread a worker: gives it a file table of its own if that is allowed, and
    /// a CPU if asked.
    pub fn new(shared: Arc<Shared>, thread: usize) -> Result<Self> {
        if shared.plan.file_tables.are_own() {
            ringmark::process::unshare_files().context("unshare(CLONE_FILES)")?;
        }
        let cpus = &shared.plan.cpus;
        if !cpus.is_empty() {
            let cpu = cpus[thread % cpus.len()];
            cpus::pin(&[cpu])
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
            under_way: HashMap::new(),
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

    /// Opens or closes connections until `total` stand in all threads together; how long the
    /// opening of each took, in ns.
    pub fn set_connections(&mut self, total: usize) -> Result<Histogram<u64>> {
        self.asked = total;
        self.reopen_owing()?;
        let connections = self.own(total);
        // Pops, so that the most recently opened closes first. SO_LINGER makes it a reset.
        while self.sockets.len() > connections {
            self.sockets.pop();
            self.shared.connected.fetch_sub(1, Relaxed);
        }
        self.flights.truncate(connections);
        self.open(connections)
    }

    /// Makes the first `active` connections of all threads those that send, each with bytes of its
    /// own.
    fn activate(&mut self, active: usize) {
        let own = self.own(active);
        for index in self.flights.len()..own {
            let stream = self.shared.plan.seed.wrapping_add(self.number(index) as u64);
            self.flights.push(Flight::new(stream, self.shared.plan.churn.unwrap_or(u64::MAX)));
        }
    }

    /// Sends what `budget` allows on the first `active` connections of all threads, until the
    /// window ends, and returns when all that was sent is back, or has been owed for too long. An
    /// open loop's schedule begins at `start_ns`.
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
            last_due_ns: 0,
            last_ns: 0,
            owed: Owed::default(),
            longest_gap_ns: 0,
            connect_ns: self.shared.plan.churn.map(|_| latency::histogram()).transpose()?,
            thread: self.thread,
            echoes_by_place: Vec::new(),
            opened: 0,
        };
        self.reopen_owing()?;
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
        let now_ns = monotonic_ns();
        let (mut echoes, mut moved_ns, mut quiet, mut gap) =
            (0, now_ns, Quiet::since(now_ns), Gap::since(now_ns));
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let mut wait = TICK;
            if let Some(pacer) = &mut pacer {
                in_flight += self.send_due(pacer, &mut tally)?;
                wait = self.time_to(pacer)?;
            }
            // In a closed loop a connection begins as soon as it may, so nothing in flight, and
            // none to come, means done.
            let end_ns = self.shared.window.end_ns();
            let is_idle = in_flight == 0 && self.under_way.is_empty();
            let is_over =
                pacer.as_ref().is_none_or(|pacer| pacer.schedule.next_ns(end_ns).is_none());
            if is_idle && is_over || self.is_given_up(quiet.moved_ns()) {
                self.take_stock(&mut tally, monotonic_ns());
                tally.longest_gap_ns = gap.longest_ns();
                return Ok(tally);
            }
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome.context("epoll_wait")?,
            }
            let (mut moved, mut completed) = (false, 0);
            for event in events.iter().filter(|event| event.token() != TIMER) {
                let served = self.serve(event, &mut tally)?;
                moved |= served.moved;
                completed += served.completed;
                in_flight = in_flight + served.begun - served.completed;
                if let Some(pacer) = &mut pacer {
                    // A batch of events takes longer than the next message should wait.
                    in_flight += self.send_due(pacer, &mut tally)?;
                }
            }
            echoes += completed as u64;
            let progress = &self.shared.progress[self.thread];
            progress.echoes.store(echoes, Relaxed);
            let now_ns = if completed > 0 { tally.last_ns } else { monotonic_ns() };
            gap.look(&self.shared.window, now_ns);
            if moved {
                progress.moved_ns.store(now_ns, Relaxed);
                moved_ns = now_ns;
            } else if in_flight == 0 && self.under_way.is_empty() {
                // Nothing is there that could move.
                quiet = Quiet::since(now_ns);
            } else if now_ns.saturating_sub(moved_ns) >= TICK.as_nanos() as u64 {
                moved_ns = moved_ns.max(self.shared.moved_ns());
            }
            if quiet.look(now_ns, moved_ns) >= self.shared.plan.stall_after.as_nanos() as u64 {
                return Err(self.stalled(in_flight));
            }
        }
    }

    /// Whether what is owed has been waited for long enough, although something has still moved
    /// after that: a server on which nothing moves has stalled.
    fn is_given_up(&self, moved_ns: u64) -> bool {
        moved_ns >= self.shared.window.give_up_ns()
    }

    /// Writes down what the run has come to, and what is still owed.
    fn take_stock(&self, tally: &mut Tally, now_ns: u64) {
        tally.echoes_by_place = self.flights.iter().map(|flight| flight.echoes).collect();
        tally.opened = self.opened;
        tally.owed.connections = self.under_way.len() as u64;
        tally.owed.unanswered = self.under_way.len() as u64;
        for flight in self.flights.iter().filter(|flight| flight.in_flight() > 0) {
            tally.owed.messages += flight.in_flight() as u64;
            tally.owed.bytes += flight.missing_bytes(self.shared.plan.message_bytes);
            tally.owed.connections += 1;
            tally.owed.unanswered += u64::from(flight.received() == 0);
            for stamp in flight.stamps() {
                if self.shared.window.moment(stamp.due_ns) == Moment::Within {
                    tally.latencies.owe(stamp, now_ns);
                }
            }
        }
    }

    /// Opens a connection anew in place of each on which the run before has left something owed,
    /// which would come back in this one.
    fn reopen_owing(&mut self) -> Result<()> {
        for index in 0..self.flights.len() {
            if self.flights[index].in_flight() > 0 {
                self.replace(index)?;
            }
            if self.under_way.len() >= UNDER_WAY {
                self.open(self.sockets.len())?;
            }
        }
        self.open(self.sockets.len()).map(drop)
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

    /// Sends the messages that are due, but not so many that what has come back must wait; returns
    /// how many were begun.
    fn send_due(&mut self, pacer: &mut Pacer, tally: &mut Tally) -> Result<usize> {
        let mut begun = 0;
        while begun < SENDS_PER_TURN {
            let (now_ns, end_ns) = (monotonic_ns(), self.shared.window.end_ns());
            let Some(message) = pacer.schedule.take(now_ns, end_ns) else { return Ok(begun) };
            let stamp = Stamp { due_ns: message.due_ns, sent_ns: now_ns };
            tally.last_due_ns = message.due_ns;
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

    /// How long to wait for events before the next message is due, if one will be sent; sets the
    /// timer if that is worth it.
    fn time_to(&self, pacer: &mut Pacer) -> Result<Duration> {
        let due_ns = pacer.schedule.next_ns(self.shared.window.end_ns());
        let (Some(due_ns), Some(timer)) = (due_ns, &self.timer) else { return Ok(TICK) };
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
    fn serve(&mut self, event: &Event, tally: &mut Tally) -> Result<Served> {
        let index = event.token().0;
        let mut served = Served::default();
        if !self.under_way.is_empty()
            && let Some(since_ns) = self.under_way.remove(&index)
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
                match self.receive(index, length, tally) {
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

    /// Verifies `length` bytes of the buffer and records how long the messages that they complete
    /// were away; returns how many those are.
    fn receive(&mut self, index: usize, length: usize, tally: &mut Tally) -> Result<usize, Fault> {
        let Shared { plan, window, .. } = &*self.shared;
        // Read once for all that one receive completes, and only if it completes any.
        let mut back = None;
        let Tally { latencies, echoes, warmup_echoes, last_ns, .. } = tally;
        let completed =
            self.flights[index].receive(&self.buffer[..length], plan.message_bytes, |stamp| {
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
                if window.moment(stamp.due_ns) == Moment::Within {
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

    /// Writes what the socket takes of the messages begun: all of them in one call if they fit into
    /// the pattern's longest slice. Returns whether anything moved.
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

    /// What to say when nothing has moved for too long.
    fn stalled(&self, in_flight: usize) -> anyhow::Error {
        let plan = &self.shared.plan;
        let stall = format!("stalled for {:?}", plan.stall_after);
        if in_flight == 0 {
            let first = self.number(self.under_way.keys().copied().min().unwrap_or_default());
            return anyhow!(
                "{stall}: connections being opened {}, first connection {first} to {}: is the server's \
                 accept queue full ({QUEUE}), or the server gone?",
                self.under_way.len(),
                plan.target(first),
            );
        }
        let waiting =
            || (0..self.flights.len()).filter(|&index| self.flights[index].in_flight() > 0);
        let unanswered = waiting().filter(|&index| self.flights[index].received() == 0).count();
        let first = self.number(waiting().next().unwrap_or_default());
        anyhow!(
            "{stall}: echoes owed {in_flight}, on connections {}, first connection {first} to {}: {}",
            waiting().count(),
            plan.target(first),
            why_owed(waiting().count(), unanswered),
        )
    }
}

/// What bounds a server's accept queue.
pub(super) const QUEUE: &str = "listen()'s backlog and net.core.somaxconn bound it";

/// The likely cause of echoes that are owed on so many connections, on some of which no echo ever
/// came: the kernel opens a connection before the server accepts it.
fn why_owed(connections: usize, unanswered: usize) -> String {
    let lost = "the server lost bytes, is stuck or is gone";
    let never = format!(
        "does the server not accept, for a full accept queue ({QUEUE}) or for want of files (its `ulimit -n`), or never \
         answer?"
    );
    match unanswered {
        0 => lost.to_owned(),
        all if all == connections => format!("no echo ever came on them: {never}"),
        some => format!("no echo ever came on {some} of them: {never} On the others {lost}"),
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
