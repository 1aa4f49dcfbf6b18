//! System calls for the clock, a timer, and two of sockets that no crate has.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use socket2::Socket;

/// Returns CLOCK_MONOTONIC in ns. All processes of a machine share that clock; it stands still
/// while the machine sleeps.
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A timer that becomes readable, and so wakes a poll, to the precision of the kernel's clock.
///
/// The time-out of epoll_wait(2) is in whole milliseconds, and any sleep has a slack of 50 µs by
/// default (prctl(2), PR_SET_TIMERSLACK).
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// Makes a timer that is not set (timerfd_create(2)).
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// Lets it expire after `delay`, which is not zero; until then it is not readable.
    pub fn set(&self, delay: Duration) -> io::Result<()> {
        let it_value = Timespec::try_from(delay).map_err(io::Error::other)?;
        let time = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &time)?;
        Ok(())
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Leaves the choice of the source port to connect(), which may then use one that other
/// destinations use too (IP_BIND_ADDRESS_NO_PORT, ip(7), Linux 4.2).
pub fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` is live, its size is the one given, and the kernel only reads it.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns how many bytes the peer's kernel has not acknowledged yet (SIOCOUTQ, tcp(7)).
pub fn unacknowledged_bytes(socket: &impl AsRawFd) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int, and `bytes` is one that lives until the call returns.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if outcome == 0 { Ok(bytes as u32) } else { Err(io::Error::last_os_error()) }
}
