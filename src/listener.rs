//! Listening sockets, with the same options for every backend, and what an error of accept asks
//! for.

use crate::address::Address;
use crate::counters::Counters;
use crate::error;
use crate::socket;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The accept queue that every backend asks for; net.core.somaxconn may cut it.
pub const BACKLOG: i32 = 4096;

/// How a worker comes to its listener on an address.
#[derive(Clone, Debug)]
pub enum Listening {
    /// It opens one, which has the address to itself.
    Alone(Address),
    /// It opens one beside those of the other workers.
    Beside(SocketAddr),
    /// All workers have this one, which was opened before they began.
    Shared(RawFd, SocketAddr),
}

/// A listening socket, non-blocking, with an accept queue of [`BACKLOG`]. Dropping it closes it,
/// and removes the file that is a Unix socket's address.
pub struct Listener {
    socket: OwnedFd,
    address: Address,
    /// The file that was made, by which it is told from another of the same path.
    inode: Option<u64>,
}

impl Listener {
    /// Returns the listener of a worker, on whose thread it must be called. `has_own_table` says
    /// whether that thread has a file table of its own.
    ///
    /// # Safety
    /// A shared listener is still open where it was opened, and nothing else in a table of the
    /// worker's own refers to it.
    pub unsafe fn of_worker(listening: &Listening, has_own_table: bool) -> io::Result<Self> {
        match *listening {
            Listening::Alone(ref address) => Self::open(address),
            Listening::Beside(address) => Self::open_tcp(address, true)
                .map_err(|error| explain(&Address::Ip(address), &error)),
            Listening::Shared(fd, address) => {
                let socket = if has_own_table {
                    // SAFETY: the table was copied while `fd` was open, and the caller says that
                    // this copy has no other owner.
                    unsafe { OwnedFd::from_raw_fd(fd) }
                } else {
                    // SAFETY: the caller says that it is open.
                    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?
                };
                Ok(Self { socket, address: address.into(), inode: None })
            }
        }
    }

    /// Opens a listener. Over TCP it has SO_REUSEADDR, and accepted sockets inherit TCP_NODELAY and
    /// SO_OOBINLINE: so urgent data is echoed in its place by all backends. Socket buffers keep the
    /// kernel's defaults and its autotuning.
    ///
    /// Call it on the worker's thread, after it has a file table of its own: a listener that an
    /// older table still holds would go on accepting after the worker has closed its copy.
    pub fn open(address: &Address) -> io::Result<Self> {
        let open = || match address {
            Address::Ip(address) => Self::open_tcp(*address, false),
            Address::Unix(path) => Self::open_unix(path),
        };
        open().map_err(|error| explain(address, &error))
    }

    fn open_tcp(address: SocketAddr, is_beside_others: bool) -> io::Result<Self> {
        let socket = socket::tcp_socket(address)?;
        let fd = socket.as_raw_fd();
        socket::set_reuse_address(fd)?;
        if is_beside_others {
            socket::set_reuse_port(fd)?;
        }
        socket::set_nodelay(fd)?;
        socket::set_urgent_inline(fd)?;
        socket::bind(fd, address)?;
        socket::listen(fd, BACKLOG)?;
        let socket = TcpListener::from(socket);
        let address = socket.local_addr()?.into();
        Ok(Self { socket: socket.into(), address, inode: None })
    }

    fn open_unix(path: &Path) -> io::Result<Self> {
        let socket = socket::unix_socket()?;
        socket::bind_path(socket.as_raw_fd(), path)?;
        let inode = Some(fs::symlink_metadata(path)?.ino());
        let listener = Self { socket, address: Address::Unix(path.to_owned()), inode };
        socket::listen(listener.as_raw_fd(), BACKLOG)?;
        Ok(listener)
    }

    /// Returns where it listens, a port of 0 resolved.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = self.address.path()
            && fs::symlink_metadata(path).is_ok_and(|file| Some(file.ino()) == self.inode)
        {
            // A file that stays is found by the next server, which says what to do.
            let _ = fs::remove_file(path);
        }
    }
}

/// Says which address it was, and what to do.
pub fn explain(address: &Address, error: &io::Error) -> io::Error {
    let hint = match address {
        Address::Ip(address) => hint_on_ip(*address, error.kind()),
        Address::Unix(path) => hint_on_path(path, error.kind()),
    };
    io::Error::new(error.kind(), format!("listen on {address}: {error}{hint}"))
}

fn hint_on_ip(address: SocketAddr, kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => {
            ": another process listens there, or an ended io_uring server is still being torn \
             down; give --listen another port or wait a moment"
        }
        io::ErrorKind::AddrNotAvailable => ": no interface of this host has that address",
        io::ErrorKind::PermissionDenied => {
            ": ports below net.ipv4.ip_unprivileged_port_start need root"
        }
        io::ErrorKind::InvalidInput if address.is_ipv6() => {
            ": a link-local address needs its interface, as in [fe80::1%eth0]:8888"
        }
        io::ErrorKind::Unsupported if address.is_ipv6() => ": this kernel has no IPv6",
        _ => "",
    }
}

fn hint_on_path(path: &Path, kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => {
            let is_socket =
                fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
            let answer = UnixStream::connect(path).err().map(|error| error.kind());
            match answer {
                _ if !is_socket => ": a file that is no socket is there; give another path",
                Some(io::ErrorKind::ConnectionRefused) => {
                    ": a server that has ended left it there; remove the file"
                }
                _ => {
                    ": another process listens there, or an ended io_uring server is still being \
                     torn down; give another path or wait a moment"
                }
            }
        }
        io::ErrorKind::NotFound => ": there is no such folder; make it first",
        io::ErrorKind::PermissionDenied => ": this user may not make files in that folder",
        _ => "",
    }
}

/// Connections that a loop accepts before the others get their turn.
pub const ACCEPTS_PER_TURN: usize = 256;

/// The answer to an error of accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The queue is empty: wait for a connection.
    Wait,
    /// It belonged to a connection that died in the queue: try the next one.
    Retry,
    /// The connection may still be in the queue, so that trying again at once would spin: rest.
    Rest,
    /// The listener itself cannot be used: end the worker, in words.
    End,
}

/// Sorts the errors of accept (accept(2), ERRORS and "Error handling"). Others, such as EPERM of a
/// firewall or a security module, may come again for as long as the connection is in the queue.
pub fn remedy(errno: i32) -> Remedy {
    match errno {
        libc::EAGAIN => Remedy::Wait,
        libc::EINTR | libc::ECONNABORTED => Remedy::Retry,
        // Errors that are pending on the new socket.
        libc::ENETDOWN
        | libc::EPROTO
        | libc::ENOPROTOOPT
        | libc::EHOSTDOWN
        | libc::ENONET
        | libc::EHOSTUNREACH
        | libc::EOPNOTSUPP
        | libc::ENETUNREACH
        | libc::ETIMEDOUT
        | libc::ECONNRESET => Remedy::Retry,
        libc::EBADF | libc::EFAULT | libc::EINVAL | libc::ENOTSOCK => Remedy::End,
        _ => Remedy::Rest,
    }
}

/// Errors one after the other that are retried at once; more of them are no connections that died.
const RETRIES: u32 = 16;

/// Errors of accept since the last connection, or since the queue was empty.
#[derive(Default)]
pub struct Failures(u32);

impl Failures {
    /// Counts an error, and says what it asks for. A retry that does not end becomes a rest.
    pub fn note(&mut self, counters: &Counters, errno: i32) -> Remedy {
        let remedy = remedy(errno);
        if remedy == Remedy::Wait {
            self.over();
            return remedy;
        }
        counters.accept_errors.add(1);
        counters.last_accept_errno.set(errno.unsigned_abs().into());
        self.0 += 1;
        if remedy == Remedy::Retry && self.0 > RETRIES {
            self.over();
            return Remedy::Rest;
        }
        remedy
    }

    /// A connection was accepted, or nothing is there to be accepted.
    pub fn over(&mut self) {
        self.0 = 0;
    }
}

/// Names the call of an error that ends the worker.
pub fn unusable(errno: i32) -> io::Error {
    error::named("accept: the listener cannot be used")(io::Error::from_raw_os_error(errno))
}

/// How long accepting rests after it has failed, unless a connection closes before.
const REST: Duration = Duration::from_secs(1);

/// A rest from accepting, so that a full table does not spin: connections wait in the queue
/// meanwhile.
#[derive(Default)]
pub struct AcceptPause {
    since: Option<(Instant, u64)>,
}

impl AcceptPause {
    /// Begins, if it has not, when this many connections have been `closed` so far.
    pub fn begin(&mut self, closed: u64) {
        self.since.get_or_insert((Instant::now(), closed));
    }

    /// Returns the time that is left of it; none when there is no rest.
    pub fn left(&self) -> Option<Duration> {
        self.since.map(|(begun, _)| REST.saturating_sub(begun.elapsed()))
    }

    /// Returns how long a wait for events may last, in ms: until it is over, or for ever (-1).
    pub fn timeout_ms(&self) -> i32 {
        // A millisecond more, or the wait could end just before the rest does.
        self.left().map_or(-1, |left| left.as_millis() as i32 + 1)
    }

    /// True once when it is over: its time has passed, or a connection was closed and its file is
    /// free.
    pub fn is_over(&mut self, closed: u64) -> bool {
        let over =
            self.since.is_some_and(|(begun, before)| begun.elapsed() >= REST || closed > before);
        if over {
            self.since = None;
        }
        over
    }
}

/// The outcome of one try to accept.
pub enum Accepted {
    /// A connection.
    Connection(OwnedFd),
    /// The queue is empty.
    Drained,
    /// Accepting must [pause](AcceptPause).
    Paused,
}

/// Makes `call` until it accepts a connection, there is nothing to accept, or accepting must rest.
///
/// # Errors
/// Only where the listener itself cannot be used.
pub fn accept(
    counters: &Counters,
    listener: RawFd,
    call: fn(&Counters, RawFd) -> io::Result<OwnedFd>,
) -> io::Result<Accepted> {
    let mut failures = Failures::default();
    loop {
        let errno = match call(counters, listener) {
            Ok(fd) => {
                counters.accepted.add(1);
                return Ok(Accepted::Connection(fd));
            }
            Err(error) => error.raw_os_error().unwrap_or(0),
        };
        match failures.note(counters, errno) {
            Remedy::Wait => return Ok(Accepted::Drained),
            Remedy::Retry => {}
            Remedy::Rest => {
                counters.accept_pauses.add(1);
                return Ok(Accepted::Paused);
            }
            Remedy::End => return Err(unusable(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number that Linux has for an error: none is retried for ever, and none is lost.
    #[test]
    fn no_error_is_retried_for_ever() {
        for errno in 1..=133 {
            let counters = Counters::default();
            let mut failures = Failures::default();
            let remedies: Vec<Remedy> = (0..100).map(|_| failures.note(&counters, errno)).collect();
            let retries = remedies.iter().take_while(|remedy| **remedy == Remedy::Retry).count();
            assert!(retries <= RETRIES as usize, "{errno}: {retries} retries in a row");
            let errors = if errno == libc::EAGAIN { 0 } else { 100 };
            assert_eq!(counters.accept_errors.get(), errors, "{errno}");
        }
    }

    /// By accept(2): those to be retried like EAGAIN, those of files and memory, and those of the
    /// call itself.
    #[test]
    fn errors_are_sorted_as_the_manual_says() {
        let retried = [
            libc::ENETDOWN,
            libc::EPROTO,
            libc::ENOPROTOOPT,
            libc::EHOSTDOWN,
            libc::ENONET,
            libc::EHOSTUNREACH,
            libc::EOPNOTSUPP,
            libc::ENETUNREACH,
            libc::ECONNABORTED,
        ];
        let rests =
            [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EPERM, libc::EACCES];
        let ends = [libc::EBADF, libc::EFAULT, libc::EINVAL, libc::ENOTSOCK];
        assert_eq!(remedy(libc::EAGAIN), Remedy::Wait);
        assert!(retried.iter().all(|errno| remedy(*errno) == Remedy::Retry));
        assert!(rests.iter().all(|errno| remedy(*errno) == Remedy::Rest));
        assert!(ends.iter().all(|errno| remedy(*errno) == Remedy::End));
    }

    #[test]
    fn a_connection_ends_a_row_of_failures() {
        let counters = Counters::default();
        let mut failures = Failures::default();
        for _ in 0..10 * RETRIES {
            assert_eq!(failures.note(&counters, libc::ECONNABORTED), Remedy::Retry);
            failures.over();
        }
    }
}
