//! Opening connections: many at once, but not more than a server's accept queue bears.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use hdrhistogram::Histogram;
use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use ringmark::address::Address;
use socket2::{Domain, SockAddr, Socket, Type};

use super::address::without_number;
use super::latency;
use super::outstanding::ACCEPT_QUEUE;
use super::plan::{LoadPlan, is_spreadable};
use super::process::{bind_address_no_port, monotonic_ns};
use super::result::Close;
use super::thread::{EVENTS, LoadThread};

/// The most connections that one thread opens at once.
pub const OPENING_MAX: usize = 256;

/// How long one wait for progress lasts.
const TICK: Duration = Duration::from_millis(100);

impl LoadThread {
    /// Opens connections until this thread has `count` and all of them stand.
    ///
    /// Returns how long each took in ns: from before connect() until the event that it stands is
    /// taken.
    pub fn open(&mut self, count: usize) -> Result<Histogram<u64>> {
        let mut events = Events::with_capacity(EVENTS);
        let mut connect_ns = latency::histogram();
        let mut progress = Instant::now();
        while self.sockets.len() < count || !self.opening.is_empty() {
            while self.sockets.len() < count && self.opening.len() < OPENING_MAX {
                let index = self.sockets.len();
                let socket = self.start(index)?;
                self.sockets.push(socket);
            }
            match self.poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome.context("epoll_wait")?,
            }
            for event in &events {
                let index = event.token().0;
                if let Some(since_ns) = self.opening.remove(&index) {
                    let now_ns = self.finish_opening(index)?;
                    connect_ns.saturating_record(now_ns - since_ns);
                    progress = Instant::now();
                }
                let is_source =
                    self.shared.plan.message.is_source() && index < self.in_flight.len();
                let has_come = event.is_readable() || event.is_read_closed() || event.is_error();
                if has_come && !is_source {
                    // No echo is owed while connections open, so nothing may come. An end may share
                    // its edge with the event of having connected.
                    self.serve_idle(index)?;
                }
            }
            if progress.elapsed() > self.shared.plan.connect_stall_after
                && let Some(&index) = self.opening.keys().min()
            {
                return Err(self.explain(index, &io::Error::from_raw_os_error(libc::ETIMEDOUT)));
            }
        }
        Ok(connect_ns)
    }

    /// Begins to connect this thread's connection `index`.
    pub fn start(&mut self, index: usize) -> Result<Socket> {
        let (socket, since_ns) =
            self.connect(index).map_err(|error| self.explain(index, &error))?;
        self.opening.insert(index, since_ns);
        Ok(socket)
    }

    /// Calls connect(), and says when.
    fn connect(&self, index: usize) -> io::Result<(Socket, u64)> {
        let number = self.number(index);
        let (socket, since_ns) = match self.shared.plan.target(number) {
            Address::Ip(target) => self.connect_tcp(index, target)?,
            Address::Unix(path) => self.connect_unix(&path)?,
        };
        // Both at once and once for all: an edge-triggered write event comes only after a full
        // socket.
        let interests = Interest::READABLE | Interest::WRITABLE;
        let mut source = SourceFd(&socket.as_raw_fd());
        self.poll.registry().register(&mut source, Token(index), interests)?;
        Ok((socket, since_ns))
    }

    /// Begins to connect over TCP.
    fn connect_tcp(&self, index: usize, target: SocketAddr) -> io::Result<(Socket, u64)> {
        let plan = &self.shared.plan;
        let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), None)?;
        socket.set_tcp_nodelay(true)?;
        if plan.close == Close::Reset {
            // close() resets: every echo owed has been verified by then, and no TIME_WAIT is left
            // to take ports from the next run.
            socket.set_linger(Some(Duration::ZERO))?;
        }
        let replaced = self.in_flight.get(index).map_or(0, |of_one| of_one.replaced);
        if let Some(source) = plan.source(self.number(index), replaced) {
            bind_address_no_port(&socket)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        let since_ns = monotonic_ns();
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok((socket, since_ns)),
        }
    }

    /// Connects to a Unix socket. While its queue is full a socket that does not block is refused,
    /// and nothing says when there is room (connect(2), EAGAIN): so this one blocks.
    fn connect_unix(&self, path: &Path) -> io::Result<(Socket, u64)> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_write_timeout(Some(self.shared.plan.connect_stall_after))?;
        let since_ns = monotonic_ns();
        socket.connect(&SockAddr::unix(path)?)?;
        socket.set_nonblocking(true)?;
        Ok((socket, since_ns))
    }

    /// Takes the first event of connection `index`, which comes when it has connected or failed;
    /// returns the time.
    pub fn finish_opening(&mut self, index: usize) -> Result<u64> {
        if let Some(error) = self.sockets[index].take_error().context("SO_ERROR")? {
            return Err(self.explain(index, &error));
        }
        self.opened += 1;
        self.shared.connected.fetch_add(1, Relaxed);
        Ok(monotonic_ns())
    }

    /// Says which connection failed, how many had been opened, and the likely cause.
    fn explain(&self, index: usize, error: &io::Error) -> Error {
        let target = self.shared.plan.target(self.number(index));
        let reason = without_number(error);
        let connected = self.shared.connected.load(Relaxed) as usize + self.just_connected();
        let cause = cause(error.raw_os_error(), &self.shared.plan, &target, connected);
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ENOENT) if connected == 0 => {
                anyhow!("connect {target}: {reason}: {cause}")
            }
            errno => anyhow!(
                "connect {target}: {reason}: {cause} ({connected} of {} are connected, errno {})",
                self.asked,
                errno.unwrap_or_default()
            ),
        }
    }

    /// Returns how many connections of this thread stand although the event that says so has not
    /// been taken yet.
    fn just_connected(&self) -> usize {
        let sockets = self.opening.keys().filter_map(|&index| self.sockets.get(index));
        sockets.filter(|socket| socket.peer_addr().is_ok()).count()
    }
}

/// Returns why connect() or a call before it fails, and what to do.
fn cause(errno: Option<i32>, plan: &LoadPlan, target: &Address, connected: usize) -> String {
    let is_ipv6 = target.ip().is_some_and(|address| address.is_ipv6());
    let is_unix = target.path().is_some();
    let text = match errno {
        Some(libc::ENOENT) if is_unix => {
            "there is no such file; start ringmark-server first, with --listen and this address"
        }
        Some(libc::ECONNREFUSED) if is_unix => {
            "nothing listens there: its server has ended, or the file is no socket"
        }
        Some(libc::EPROTOTYPE) => "the socket there is no stream socket",
        Some(libc::EAGAIN) if is_unix => {
            return format!(
                "no connection made progress for {:?}; is the server out of files (its `ulimit \
                 -n`), or its accept queue full ({ACCEPT_QUEUE})?",
                plan.connect_stall_after
            );
        }
        Some(libc::ECONNREFUSED) if connected == 0 => {
            "nothing listens there; start ringmark-server first"
        }
        Some(libc::ECONNREFUSED) => "nothing listens there any more; has the server ended?",
        Some(libc::ETIMEDOUT) => {
            return format!(
                "no connection made progress for {:?}; is the server out of files (its `ulimit \
                 -n`), its accept queue full ({ACCEPT_QUEUE}), or a firewall dropping?",
                plan.connect_stall_after
            );
        }
        Some(libc::ECONNRESET) => {
            "the server closes new connections; is it out of files (its `ulimit -n`)?"
        }
        Some(libc::EADDRNOTAVAIL) if connected == 0 && is_ipv6 => {
            "no address of this machine reaches it; is IPv6 switched off \
             (net.ipv6.conf.all.disable_ipv6), or no source port free?"
        }
        Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::EAGAIN) => {
            return no_port(plan, target);
        }
        Some(libc::EMFILE) if plan.file_tables.are_own() => {
            return format!(
                "the file table is full; pass --threads {} or more, or raise `ulimit -n`",
                plan.threads + 1
            );
        }
        Some(libc::EMFILE) => "the file table of this process is full; raise `ulimit -n`",
        Some(libc::ENFILE) => {
            "the machine has no file left; raise fs.file-max, or end the programs that hold them"
        }
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            "the kernel has no memory for one more; see net.ipv4.tcp_mem, the memory limit of the \
             control group, and `dmesg`"
        }
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => {
            "no route there; is the address right, and is `lo` up in this network namespace?"
        }
        Some(libc::EINVAL) if is_ipv6 => {
            "a link-local address needs its scope; write [fe80::1%eth0]:8888"
        }
        Some(libc::EAFNOSUPPORT) => {
            "this kernel has no sockets of that kind; was it built without IPv6?"
        }
        Some(libc::EACCES) if is_unix => "this user may not write to that file",
        Some(libc::EPERM | libc::EACCES) => {
            "a firewall or a security module of this machine forbids it"
        }
        _ => "see connect(2) for its causes",
    };
    text.to_owned()
}

/// Says what to do when no source port is free for one more connection to a port of the target.
fn no_port(plan: &LoadPlan, target: &Address) -> String {
    // The setting holds for IPv6 too.
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.map_or_else(
        |_| "unknown".to_owned(),
        |range| range.split_whitespace().collect::<Vec<_>>().join(" to "),
    );
    let more = if is_spreadable(target) {
        "more --ports of the server, or more --source-addresses"
    } else {
        "more --ports of the server"
    };
    let fewer = match plan.close {
        Close::Fin => "pass --close reset, which leaves no TIME_WAIT",
        Close::Reset => "ask for fewer connections",
    };
    format!(
        "no source port is free (net.ipv4.ip_local_port_range is {range}); pass {more}, widen that \
         range, or {fewer}"
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::load::options::parse;

    #[test]
    fn the_advice_works_where_it_is_given() {
        let arguments =
            ["load", "--connect=127.0.0.1:8888", "--connections=9", "--message-bytes=1"];
        let mut plan = LoadPlan::new(&parse(arguments)).unwrap();
        plan.file_tables.refused = None;
        let at = |address: &str| -> Address { address.parse().unwrap() };
        let advice_on =
            |errno, address: &str, connected| cause(Some(errno), &plan, &at(address), connected);
        for errno in [libc::EADDRNOTAVAIL, libc::EADDRINUSE, libc::EAGAIN] {
            assert!(advice_on(errno, "127.0.0.1:1", 5).contains("--source-addresses"));
            for address in ["10.0.0.1:1", "[::1]:1", "[fd00::1]:1"] {
                let advice = advice_on(errno, address, 5);
                assert!(!advice.contains("--source-addresses"), "{advice}");
                for part in ["--ports", "net.ipv4.ip_local_port_range is ", "fewer connections"] {
                    assert!(advice.contains(part), "`{part}` is not in: {advice}");
                }
            }
        }
        for (errno, address, connected, words) in [
            (libc::EADDRNOTAVAIL, "[::1]:1", 0, "disable_ipv6"),
            (libc::ECONNREFUSED, "10.0.0.1:1", 0, "start ringmark-server first"),
            (libc::ECONNREFUSED, "10.0.0.1:1", 3, "has the server ended"),
            (libc::EMFILE, "10.0.0.1:1", 3, "--threads 2"),
            (libc::ENFILE, "10.0.0.1:1", 3, "fs.file-max"),
            (libc::ENOBUFS, "10.0.0.1:1", 3, "tcp_mem"),
            (libc::ETIMEDOUT, "10.0.0.1:1", 3, "net.core.somaxconn"),
            (libc::ENETUNREACH, "10.0.0.1:1", 0, "no route"),
            (libc::EINVAL, "[fe80::1]:1", 0, "%eth0"),
            (libc::EPERM, "10.0.0.1:1", 0, "firewall"),
            (libc::ENOENT, "unix:/a", 0, "start ringmark-server first"),
            (libc::ECONNREFUSED, "unix:/a", 3, "its server has ended"),
            (libc::EAGAIN, "unix:/a", 3, "accept queue"),
            (libc::EACCES, "unix:/a", 0, "may not write"),
        ] {
            let advice = advice_on(errno, address, connected);
            assert!(advice.contains(words), "`{words}` is not in: {advice}");
        }
        plan.file_tables.refused = Some("no".to_owned());
        assert!(!cause(Some(libc::EMFILE), &plan, &at("10.0.0.1:1"), 1).contains("--threads"));
    }
}
