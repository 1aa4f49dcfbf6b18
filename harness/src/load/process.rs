//! What the load asks of the kernel for its own process and threads, each call made and checked in
//! one place.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;
use std::{io, ptr};

use socket2::Socket;

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// CLOCK_MONOTONIC in ns, which all processes of a machine share; it stands still while the machine
/// sleeps.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes `time`. The call cannot fail: the clock exists and the pointer is
    // valid.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A timer that becomes readable, and so wakes a poll, to the precision of the kernel's clock: the
/// time-out of epoll_wait(2) is in whole milliseconds, and any sleep has a slack of 50 µs by
/// default (prctl(2), PR_SET_TIMERSLACK).
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// Not set (timerfd_create(2)).
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let fd = unsafe {
            libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC)
        };
        check(fd)?;
        // SAFETY: the call has just returned this descriptor, so nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Expires after `delay`, which is not zero, and makes it not readable until then.
    pub fn set(&self, delay: Duration) -> io::Result<()> {
        let value = libc::timespec {
            tv_sec: libc::time_t::try_from(delay.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: delay.subsec_nanos().into(),
        };
        let time = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: value,
        };
        // SAFETY: the kernel reads `time`, which lives through the call; null says that the old
        // value is not wanted.
        check(unsafe { libc::timerfd_settime(self.0.as_raw_fd(), 0, &time, ptr::null_mut()) })
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// Leaves the choice of the source port to connect(), which may then use one that other
/// destinations use too (IP_BIND_ADDRESS_NO_PORT, ip(7), Linux 4.2).
pub fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` is live, its size is the one given, and the kernel only reads it.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    })
}
