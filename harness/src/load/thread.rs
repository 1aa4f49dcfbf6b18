//! A thread of the load: its file table, its CPU, and its connections one by one.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use anyhow::{Context, Error, Result};
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use ringmark::cpus;

use super::fault::Fault;
use super::in_flight::{InFlight, Timestamps};
use super::pace::share;
use super::process::Timer;
use super::shared::Shared;

/// How much one read takes at most, in bytes.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Events taken from the kernel at once.
pub const EVENTS: usize = 1024;

/// The event of an open loop's timer; connections have the tokens below.
pub const TIMER: Token = Token(usize::MAX);

/// A thread's connections. Connection `number` belongs to thread `number % threads`, as its
/// `number / threads`th. The active ones have the lowest numbers, so they are the first here too.
pub struct LoadThread {
    pub shared: Arc<Shared>,
    pub thread: usize,
    pub poll: Poll,
    /// Connections that should stand in all threads together.
    pub asked: usize,
    pub sockets: Vec<TcpStream>,
    /// One for each active connection.
    pub in_flight: Vec<InFlight>,
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
            opening: HashMap::new(),
            opened: 0,
            timer,
            buffer: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            thread,
            shared,
        })
    }

    /// Returns the number among all threads of this thread's connection `index`.
    pub fn number(&self, index: usize) -> usize {
        index * self.shared.plan.threads + self.thread
    }

    /// Returns this thread's share of `total` things that are dealt over all threads.
    pub fn own(&self, total: usize) -> usize {
        share(total as u64, self.shared.plan.threads, self.thread) as usize
    }

    /// Begins as many messages as a closed loop's connection may; returns how many.
    pub fn begin(&mut self, index: usize, now_ns: u64) -> usize {
        let plan = &self.shared.plan;
        let in_flight = &mut self.in_flight[index];
        let room = plan.pipeline.saturating_sub(in_flight.count());
        let room = usize::try_from(in_flight.left).unwrap_or(usize::MAX).min(room);
        let granted = self.shared.window.grant(&mut in_flight.quota, room, now_ns);
        in_flight.left -= granted as u64;
        in_flight.begin(granted, plan.message_bytes, Timestamps::on_time(now_ns));
        granted
    }

    /// Writes the bytes of messages begun that the socket takes: all in one call if they fit into
    /// the pattern's longest slice. Returns whether anything moved.
    pub fn send(&mut self, index: usize) -> Result<bool> {
        let mut moved = false;
        loop {
            let bytes = self.in_flight[index].unsent();
            if bytes.is_empty() {
                return Ok(moved);
            }
            match self.sockets[index].write(bytes) {
                Ok(length) => {
                    moved |= length > 0;
                    self.in_flight[index].sent(length);
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
        self.fault(index, self.in_flight[index].ended(self.shared.plan.message_bytes, error))
    }

    /// Says on which connection the fault was found.
    pub fn fault(&self, index: usize, fault: Fault) -> Error {
        let number = self.number(index);
        let target = self.shared.plan.target(number);
        Error::new(fault).context(format!("connection {number} to {target}"))
    }
}
