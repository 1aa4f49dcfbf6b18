//! Opening connections: many at once, but not more than a server's accept queue bears.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Token};
use socket2::{Domain, Socket, Type};

use super::latency;
use super::process::{bind_address_no_port, monotonic_ns};
use super::worker::{EVENTS, Worker};

/// Connections that one thread has under way at once.
const UNDER_WAY: usize = 256;

/// How long one wait for progress lasts.
const TICK: Duration = Duration::from_millis(100);

impl Worker {
    /// Opens connections until this thread has `count`; how long each took, from before connect() until the event
    /// that it stands is taken, in ns.
    pub(super) fn open(&mut self, count: usize) -> Result<Histogram<u64>> {
        let mut events = Events::with_capacity(EVENTS);
        let mut under_way = HashMap::with_capacity(UNDER_WAY);
        let mut connect_ns = latency::histogram()?;
        let mut progress = Instant::now();
        while self.sockets.len() < count || !under_way.is_empty() {
            while self.sockets.len() < count && under_way.len() < UNDER_WAY {
                let index = self.sockets.len();
                let (socket, since_ns) = self.start(index).map_err(|error| self.explain(index, &error))?;
                self.sockets.push(socket);
                under_way.insert(index, since_ns);
            }
            match self.poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome.context("epoll_wait")?,
            }
            for event in &events {
                let index = event.token().0;
                if let Some(since_ns) = under_way.remove(&index) {
                    self.opened += 1;
                    // The first event of a connecting socket comes when it has connected or failed.
                    if let Some(error) = self.sockets[index].take_error().context("SO_ERROR")? {
                        return Err(self.explain(index, &error));
                    }
                    self.shared.connected.fetch_add(1, Relaxed);
                    connect_ns.saturating_record(monotonic_ns() - since_ns);
                    progress = Instant::now();
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    // No echo is owed while connections open, so nothing may come; an end may share
                    // its edge with the event of having connected.
                    self.serve_idle(index)?;
                }
            }
            if progress.elapsed() > self.shared.plan.connect_stall_after
                && let Some(&index) = under_way.keys().min()
            {
                return Err(self.explain(index, &io::Error::from_raw_os_error(libc::ETIMEDOUT)));
            }
        }
        Ok(connect_ns)
    }

    /// Begins to connect this thread's connection `index`; says when connect() was called.
    pub(super) fn start(&self, index: usize) -> io::Result<(TcpStream, u64)> {
        let number = self.number(index);
        let target = self.shared.plan.target(number);
        let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), None)?;
        socket.set_tcp_nodelay(true)?;
        // close() resets: every echo owed has been verified by then, and no TIME_WAIT is left to take
        // ports from the next run.
        socket.set_linger(Some(Duration::ZERO))?;
        if let Some(source) = self.shared.plan.source(number) {
            bind_address_no_port(&socket)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        let since_ns = monotonic_ns();
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        // Both at once and once for all: an edge-triggered write event comes only after a full socket.
        let interests = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(index), interests)?;
        Ok((stream, since_ns))
    }

    /// Says which connection failed, how far the opening had come, and the likely cause.
    pub(super) fn explain(&self, index: usize, error: &io::Error) -> Error {
        let plan = &self.shared.plan;
        let cause = match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => "nothing listens there; start ringmark-server first".to_owned(),
            Some(libc::ETIMEDOUT) => format!(
                "no connection made progress for {:?}; is the server out of files, its accept queue full, or a firewall dropping?",
                plan.connect_stall_after
            ),
            Some(libc::ECONNRESET) => "the server closes new connections; is it out of files?".to_owned(),
            Some(libc::EADDRNOTAVAIL) => {
                "no source port is free; pass more --ports or --source-addresses".to_owned()
            }
            Some(libc::EMFILE | libc::ENFILE) => {
                format!("the file table is full; pass --threads {} or more", plan.threads + 1)
            }
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => {
                "no route there; is the address right, and is `lo` up in this network namespace?".to_owned()
            }
            _ => "see connect(2) for its causes".to_owned(),
        };
        let text = error.to_string();
        let reason = text.split(" (os error").next().unwrap_or(&text);
        let connected = self.shared.connected.load(Relaxed);
        let target = plan.target(self.number(index));
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) if connected == 0 => anyhow!("connect {target}: {reason}: {cause}"),
            errno => anyhow!(
                "connect {target}: {reason}: {cause} ({connected} of {} are connected, errno {})",
                self.asked,
                errno.unwrap_or_default()
            ),
        }
    }
}
