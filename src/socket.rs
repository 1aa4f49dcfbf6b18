//! Listening sockets: the calls that set them up.

use crate::error::{check, named, owned};
use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// A TCP socket for addresses of this kind: close-on-exec and non-blocking.
pub fn tcp_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    stream_socket(if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })
}

/// A Unix stream socket (unix(7)): close-on-exec and non-blocking.
pub fn unix_socket() -> io::Result<OwnedFd> {
    stream_socket(libc::AF_UNIX)
}

fn stream_socket(family: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointer, and returns a new descriptor.
    unsafe { owned(libc::socket(family, kind, 0)) }.map_err(named("socket"))
}

/// bind(2).
pub fn bind(fd: RawFd, address: SocketAddr) -> io::Result<()> {
    let result = match address {
        SocketAddr::V4(address) => {
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            let length = size_of_val(&address) as libc::socklen_t;
            // SAFETY: the kernel reads `length` bytes of `address`, which is that long.
            unsafe { libc::bind(fd, ptr::from_ref(&address).cast(), length) }
        }
        SocketAddr::V6(address) => {
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            let length = size_of_val(&address) as libc::socklen_t;
            // SAFETY: as above.
            unsafe { libc::bind(fd, ptr::from_ref(&address).cast(), length) }
        }
    };
    check(result).map(drop).map_err(named("bind"))
}

/// bind(2) to a path, which makes a file of it.
///
/// # Errors
/// Those of bind(2), and EINVAL for a path that `sun_path` does not hold with its zero.
pub fn bind_path(fd: RawFd, path: &Path) -> io::Result<()> {
    let path = path.as_os_str().as_bytes();
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; size_of::<libc::sockaddr_un>() - size_of::<libc::sa_family_t>()],
    };
    if path.len() >= address.sun_path.len() {
        return Err(named("bind")(io::Error::from_raw_os_error(libc::EINVAL)));
    }
    for (place, byte) in address.sun_path.iter_mut().zip(path) {
        *place = *byte as libc::c_char;
    }
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `address`, which is that long.
    check(unsafe { libc::bind(fd, ptr::from_ref(&address).cast(), length) })
        .map(drop)
        .map_err(named("bind"))
}

/// listen(2) with an accept queue of this length.
pub fn listen(fd: RawFd, backlog: libc::c_int) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::listen(fd, backlog) }).map(drop).map_err(named("listen"))
}

/// SO_REUSEADDR.
pub fn set_reuse_address(fd: RawFd) -> io::Result<()> {
    switch_on(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR).map_err(named("setsockopt(SO_REUSEADDR)"))
}

/// SO_REUSEPORT (Linux 3.9): other listeners of this user that have it may be bound to the same
/// port, and the kernel spreads connections over them by their addresses.
pub fn set_reuse_port(fd: RawFd) -> io::Result<()> {
    switch_on(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT).map_err(named("setsockopt(SO_REUSEPORT)"))
}

/// SO_OOBINLINE: TCP's urgent byte is a byte of the stream like any other. Sockets accepted from a
/// listener inherit it.
pub fn set_urgent_inline(fd: RawFd) -> io::Result<()> {
    switch_on(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE).map_err(named("setsockopt(SO_OOBINLINE)"))
}

/// TCP_NODELAY; sockets accepted from a listener inherit it.
pub fn set_nodelay(fd: RawFd) -> io::Result<()> {
    switch_on(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY).map_err(named("setsockopt(TCP_NODELAY)"))
}

/// SO_ZEROCOPY: sends may ask for MSG_ZEROCOPY. Sockets accepted from a listener inherit it.
pub fn set_zero_copy(fd: RawFd) -> io::Result<()> {
    switch_on(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY).map_err(named("setsockopt(SO_ZEROCOPY)"))
}

/// setsockopt(2) of an option that is on or off.
fn switch_on(fd: RawFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `on`, which is that long.
    check(unsafe { libc::setsockopt(fd, level, option, ptr::from_ref(&on).cast(), length) })
        .map(drop)
}

/// The number of a network interface (if_nametoindex(3)); none if there is no such one.
pub fn interface_number(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with a zero, and is only read.
    let number = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (number != 0).then_some(number)
}
