//! A thread of the load: its own file table, its CPU, its connections and one loop over them.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Poll};

use super::fault::Fault;
use super::flight::Flight;
use super::pace::{Budget, Clock, Moment, Window};
use super::plan::{Plan, share};
use super::{latency, process};

/// How much one read takes at most, in bytes.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Events taken from the kernel at once.
pub(super) const EVENTS: usize = 1024;

/// How long a thread waits before it looks whether the run was ended or has stalled.
const TICK: Duration = Duration::from_millis(50);

/// What the threads share: all is read often and written rarely, but for `echoes`, which is written by
/// its thread alone and read by the warm-up.
#[derive(Debug)]
pub struct Shared {
    pub plan: Plan,
    pub clock: Clock,
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
    /// Latencies of the echoes within the window, in ns.
    pub latency_ns: Histogram<u64>,
    /// Echoes before the window.
    pub warmup_echoes: u64,
    /// When the last echo came back.
    pub last_ns: u64,
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
    flights: Vec<Flight>,
    /// `pipeline` stamps for each flight.
    rings: Vec<u64>,
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
            process::pin(&[cpu]).with_context(|| format!("--cpus: this process may not run on CPU {cpu}"))?;
        }
        Ok(Self {
            poll: Poll::new().context("epoll_create1")?,
            asked: 0,
            sockets: Vec::new(),
            flights: Vec::new(),
            rings: Vec::new(),
            buffer: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            thread,
            shared,
        })
    }

    /// The number among all threads of this thread's connection `index`.
    pub(super) fn number(&self, index: usize) -> usize {
        index * self.shared.plan.threads + self.thread
    }

    /// Opens or closes connections until `total` stand in all threads together.
    pub fn set_connections(&mut self, total: usize) -> Result<()> {
        self.asked = total;
        let plan = &self.shared.plan;
        let ours = |of: usize| share(of as u64, plan.threads, self.thread) as usize;
        let (connections, active) = (ours(total), ours(total.min(plan.active)));
        let pipeline = plan.pipeline;
        if connections <= self.sockets.len() {
            // Pops, so that the most recently opened closes first. SO_LINGER makes it a reset.
            while self.sockets.len() > connections {
                self.sockets.pop();
                self.shared.connected.fetch_sub(1, Relaxed);
            }
        } else {
            self.open(connections)?;
        }
        self.flights.truncate(active);
        for index in self.flights.len()..active {
            let stream = self.shared.plan.seed.wrapping_add(self.number(index) as u64);
            self.flights.push(Flight::new(stream));
        }
        self.rings.resize(active * pipeline, 0);
        Ok(())
    }

    /// Sends what `budget` allows on the first `active` connections of all threads, until the window
    /// ends, and returns when all that was sent is back.
    pub fn run(&mut self, budget: Budget, active: usize) -> Result<Tally> {
        let mut tally = Tally { latency_ns: latency::histogram()?, warmup_echoes: 0, last_ns: 0 };
        let mut in_flight = 0;
        for index in 0..self.flights.len() {
            self.flights[index].quota = budget.of(self.number(index), active);
            let now_ns = self.shared.clock.now_ns();
            in_flight += self.begin(index, now_ns);
            self.send(index)?;
        }
        let (mut echoes, mut moved_ns) = (0, self.shared.clock.now_ns());
        let mut events = Events::with_capacity(EVENTS);
        // In a closed loop a connection begins as soon as it may, so nothing in flight means done.
        while in_flight > 0 {
            match self.poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome.context("epoll_wait")?,
            }
            let (mut moved, mut completed) = (false, 0);
            for event in &events {
                let served = self.serve(event, &mut tally)?;
                moved |= served.moved;
                completed += served.completed;
                in_flight = in_flight + served.begun - served.completed;
            }
            echoes += completed as u64;
            self.shared.echoes[self.thread].0.store(echoes, Relaxed);
            let now_ns = if completed > 0 { tally.last_ns } else { self.shared.clock.now_ns() };
            if moved {
                moved_ns = now_ns;
            }
            self.check_stall(now_ns, moved_ns, in_flight)?;
        }
        Ok(tally)
    }

    /// Takes what has come on one connection, and answers it.
    fn serve(&mut self, event: &Event, tally: &mut Tally) -> Result<Served> {
        let index = event.token().0;
        let mut served = Served::default();
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
                let message_bytes = self.shared.plan.message_bytes;
                match self.flights[index].receive(&self.buffer[..length], message_bytes) {
                    Ok(0) => {}
                    Ok(completed) => {
                        now_ns = self.shared.clock.now_ns();
                        self.record(index, completed, now_ns, tally);
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
            }
        }
        if index < self.flights.len() {
            served.moved |= self.send(index)?;
        }
        Ok(served)
    }

    /// Takes `completed` messages off a connection and records how long they were away.
    fn record(&mut self, index: usize, completed: usize, now_ns: u64, tally: &mut Tally) {
        let pipeline = self.shared.plan.pipeline;
        let ring = &self.rings[index * pipeline..][..pipeline];
        let flight = &mut self.flights[index];
        let moment = self.shared.window.moment(now_ns);
        for _ in 0..completed {
            let began_ns = flight.complete(ring);
            if moment == Moment::Within {
                tally.latency_ns.saturating_record(now_ns - began_ns);
            }
        }
        if moment == Moment::Before {
            tally.warmup_echoes += completed as u64;
        }
        tally.last_ns = now_ns;
    }

    /// Begins as many messages as the connection may; returns how many.
    fn begin(&mut self, index: usize, now_ns: u64) -> usize {
        let plan = &self.shared.plan;
        let flight = &mut self.flights[index];
        let room = plan.pipeline - flight.in_flight();
        let granted = self.shared.window.grant(&mut flight.quota, room, now_ns);
        let ring = &mut self.rings[index * plan.pipeline..][..plan.pipeline];
        flight.begin(ring, granted, plan.message_bytes, now_ns);
        granted
    }

    /// Writes what the socket takes of the messages begun: all of them in one call if they fit into the
    /// pattern's longest slice. Returns whether anything moved.
    fn send(&mut self, index: usize) -> Result<bool> {
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
        if in_flight == 0 || now_ns < since_ns.saturating_add(plan.stall_after.as_nanos() as u64) {
            return Ok(());
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

/// What one event led to.
#[derive(Default)]
struct Served {
    /// Messages that came back whole.
    completed: usize,
    /// Messages begun in their place.
    begun: usize,
    /// Whether any byte moved.
    moved: bool,
}
