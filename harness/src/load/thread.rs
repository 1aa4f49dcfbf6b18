//! A thread of the load: its file table, its CPU, and its connections one by one.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use anyhow::{Context, Error, Result};
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use ringmark::cpus;
use ringmark::service::Service;
use socket2::Socket;

use super::fault::Fault;
use super::in_flight::{InFlight, Timestamps};
use super::pace::{Phase, share};
use super::process::{Timer, monotonic_ns};
use super::shared::Shared;
use super::under_way::UnderWay;

/// How much one read takes at most, in bytes.
pub const RECEIVE_BYTES: usize = 64 * 1024;

/// Events taken from the kernel at once.
pub const EVENTS: usize = 1024;

/// The event of an open loop's timer; connections have the tokens below.
pub const TIMER: Token = Token(usize::MAX);

/// A thread's connections. With `threads` in all parts of the load together, connection `number`
/// belongs to thread `number % threads` of these, as its `number / threads`th. The active ones have
/// the lowest numbers, so they are the first here too.
pub struct LoadThread {
    pub shared: Arc<Shared>,
    pub thread: usize,
    pub poll: Poll,
    /// Connections that should stand in all threads together.
    pub asked: usize,
    pub sockets: Vec<Socket>,
    /// One for each active connection.
    pub in_flight: Vec<InFlight>,
    /// Active connections of a stream that can go on without an event.
    pub ready: VecDeque<usize>,
    /// Connections that are being opened, and since when.
    pub opening: HashMap<usize, u64>,
    /// Connections opened so far.
    pub opened: u64,
    /// Wakes the poll when the next message of an open loop is due.
    pub timer: Option<Timer>,
    pub buffer: Box<[u8]>,
}

impl LoadThread {
    /// Gives the calling thread a file table of its own if that is allowed, and a CPU if asked.
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
            in_flight: Vec::new(),
            ready: VecDeque::new(),
            opening: HashMap::new(),
            opened: 0,
            timer,
            buffer: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            thread,
            shared,
        })
    }

    /// Returns the number of this thread's connection `index` among those of all threads and parts.
    pub fn number(&self, index: usize) -> usize {
        let plan = &self.shared.plan;
        index * plan.threads_of_all() + plan.among_all(self.thread)
    }

    /// Returns this thread's share of `total` things that are dealt over the threads of all parts.
    pub fn own(&self, total: usize) -> usize {
        let plan = &self.shared.plan;
        share(total as u64, plan.threads_of_all(), plan.among_all(self.thread)) as usize
    }

    /// Begins as many messages as a closed loop's connection may.
    pub fn begin(&mut self, index: usize, run: &mut UnderWay, now_ns: u64) {
        let plan = &self.shared.plan;
        let in_flight = &mut self.in_flight[index];
        let room = plan.pipeline.saturating_sub(in_flight.count());
        let room = usize::try_from(in_flight.left).unwrap_or(usize::MAX).min(room);
        let granted = self.shared.window.grant(&mut in_flight.quota, room, now_ns);
        in_flight.left -= granted as u64;
        in_flight.begin(granted, &plan.message, Timestamps::on_time(now_ns));
        run.begun += granted as u64;
    }

    /// Writes the bytes of messages begun that the socket takes: all in one call if they fit into
    /// the pattern's longest slice. Returns whether the socket takes no more for now: then an event
    /// will come.
    pub fn send(&mut self, index: usize, run: &mut UnderWay) -> Result<bool> {
        let message = self.shared.plan.message;
        loop {
            let bytes = self.in_flight[index].unsent(&message);
            let asked = bytes.len();
            if asked == 0 {
                return Ok(false);
            }
            match self.sockets[index].send_with_flags(bytes, libc::MSG_NOSIGNAL) {
                Ok(length) => {
                    run.moved |= length > 0;
                    self.sent(index, length, run);
                    if length < asked {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.ended(index, Some(error))),
            }
        }
    }

    /// Notes what the socket has taken. Messages of a sink may be over with it.
    fn sent(&mut self, index: usize, length: usize, run: &mut UnderWay) {
        let Shared { plan, window, .. } = &*self.shared;
        let in_flight = &mut self.in_flight[index];
        let over = in_flight.sent(length, &plan.message, |timestamps| {
            run.pass_over(window, timestamps);
        });
        if over > 0 {
            let now_ns = monotonic_ns();
            let phase = window.phase(now_ns);
            run.count(over as u64, (now_ns, phase));
            in_flight.echoes += if phase == Phase::Within { over as u64 } else { 0 };
        }
    }

    /// Takes the event of a connection that has nothing in flight: nothing may come on it.
    pub fn serve_idle(&mut self, index: usize) -> Result<()> {
        let offset = self.in_flight.get(index).map_or(0, InFlight::received);
        let fault = match self.sockets[index].read(&mut self.buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => Fault::Ended { offset, owed_bytes: 0, error: Some(error) },
            Ok(0) => Fault::Ended { offset, owed_bytes: 0, error: None },
            Ok(bytes) => Fault::Beyond { offset, bytes },
        };
        Err(self.fault(index, fault))
    }

    /// Says that connection `index` ended too early.
    pub fn ended(&self, index: usize, error: Option<io::Error>) -> Error {
        self.fault(index, self.in_flight[index].ended(&self.shared.plan.message, error))
    }

    /// Says on which connection the fault was found.
    pub fn fault(&self, index: usize, fault: Fault) -> Error {
        let number = self.number(index);
        let target = self.shared.plan.target(number);
        self.of_service(Error::new(fault).context(format!("connection {number} to {target}")))
    }

    /// Says with an error which service the server must offer, unless it is an echo.
    pub fn of_service(&self, error: Error) -> Error {
        match self.shared.plan.message.service() {
            Service::Echo => error,
            service => error.context(format!("the server must serve `{service}`")),
        }
    }
}
