//! Listening sockets, with the same options for every backend.

use crate::counters::Counters;
use crate::sys;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// The accept queue that every backend asks for; net.core.somaxconn may cut it.
pub const BACKLOG: i32 = 4096;

/// Opens a listener: SO_REUSEADDR, TCP_NODELAY (which accepted sockets inherit), non-blocking, [`BACKLOG`].
/// Socket buffers keep the kernel's defaults and its autotuning.
///
/// Call it on the worker's thread, after it has a file table of its own: a listener that an older table
/// still holds would go on accepting after the worker has closed its copy.
pub fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| explain(address, &error))?;
    sys::listen(listener.as_raw_fd(), BACKLOG)?;
    sys::set_nodelay(listener.as_raw_fd())?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn explain(address: SocketAddr, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another process listens there, or an ended io_uring server is still being torn down; \
             give --listen another port or wait a moment"
        }
        io::ErrorKind::AddrNotAvailable => ": no interface of this host has that address",
        io::ErrorKind::PermissionDenied => ": ports below net.ipv4.ip_unprivileged_port_start need root",
        _ if error.raw_os_error() == Some(libc::EMFILE) => {
            ": a worker may open no more files; give fewer --ports or more --workers, or raise `ulimit -n`"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("listen on {address}: {error}{hint}"))
}

/// Connections that a readiness loop accepts before the others get their turn.
pub const ACCEPTS_PER_TURN: usize = 256;

/// Whether an error of accept means that files or memory ran out: the connection stays in the queue, and
/// trying again at once would spin (accept(2), ERRORS).
pub fn exhausted(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
}

/// Whether an error of accept means that the listener itself cannot be used: trying again would only repeat it.
pub fn unusable(errno: i32) -> bool {
    matches!(errno, libc::EBADF | libc::EFAULT | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP)
}

/// How long accepting rests after files or memory ran out, unless a connection closes before.
const REST: Duration = Duration::from_secs(1);

/// A rest from accepting, so that a full table does not spin: connections wait in the queue meanwhile.
#[derive(Default)]
pub struct Rest {
    since: Option<(Instant, u64)>,
}

impl Rest {
    /// Begins, if it has not, when this many connections have been `closed` so far.
    pub fn begin(&mut self, closed: u64) {
        self.since.get_or_insert((Instant::now(), closed));
    }

    /// What is left of it; none when there is no rest.
    pub fn left(&self) -> Option<Duration> {
        self.since.map(|(begun, _)| REST.saturating_sub(begun.elapsed()))
    }

    /// True once when it is over: its time has passed, or a connection was closed and its file is free.
    pub fn is_over(&mut self, closed: u64) -> bool {
        let over = self.since.is_some_and(|(begun, before)| begun.elapsed() >= REST || closed > before);
        if over {
            self.since = None;
        }
        over
    }
}

/// What came of one try to accept.
pub enum Accepted {
    /// A connection.
    Connection(OwnedFd),
    /// The queue is empty.
    Drained,
    /// Files or memory ran out; accepting must pause.
    Exhausted,
}

/// Makes `call` until it accepts a connection or there is nothing to accept. Other errors belong to a
/// connection that died in the queue (accept(2), "Error handling"): the next one is tried.
pub fn accept(
    counters: &Counters,
    listener: RawFd,
    call: fn(&Counters, RawFd) -> io::Result<OwnedFd>,
) -> io::Result<Accepted> {
    loop {
        let error = match call(counters, listener) {
            Ok(fd) => {
                counters.accepted.add(1);
                return Ok(Accepted::Connection(fd));
            }
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EAGAIN) => return Ok(Accepted::Drained),
            Some(errno) if exhausted(errno) => {
                counters.accept_pauses.add(1);
                return Ok(Accepted::Exhausted);
            }
            Some(errno) if unusable(errno) => return Err(error),
            _ => {}
        }
    }
}
