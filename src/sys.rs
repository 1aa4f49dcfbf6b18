//! The system calls of a worker's loop, and the calls that set up the objects that it waits on.
//!
//! A call of the loop takes the worker's [`Counters`] and is counted just before it is made, as the
//! kernel's `sys_enter` tracepoint does. So both counts agree to the call.

use crate::call::Call;
use crate::counters::Counters;
use crate::error::{check, check_size, interrupted, named, owned, would_block};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

/// An epoll instance, close-on-exec.
pub fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer, and returns a new descriptor.
    unsafe { owned(libc::epoll_create1(libc::EPOLL_CLOEXEC)) }.map_err(named("epoll_create1"))
}

/// epoll_ctl(2).
pub fn epoll_ctl(
    counters: &Counters,
    epoll: RawFd,
    operation: libc::c_int,
    fd: RawFd,
    events: u32,
    data: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    counters.count(Call::EpollCtl);
    // SAFETY: `event` lives until the call returns, and the kernel copies it.
    check(unsafe { libc::epoll_ctl(epoll, operation, fd, &mut event) }).map(drop)
}

/// An epoll instance's busy polling, in force from its next wait on (ioctl_eventpoll(2), since
/// Linux 6.9): sets what `wanted` says and returns what the kernel then has.
pub fn set_busy_poll(epoll: RawFd, wanted: libc::epoll_params) -> io::Result<libc::epoll_params> {
    let mut params = wanted;
    // SAFETY: the kernel reads a structure of this type.
    check(unsafe { libc::ioctl(epoll, libc::EPIOCSPARAMS, ptr::from_ref(&params)) })?;
    // SAFETY: the kernel writes a structure of this type.
    check(unsafe { libc::ioctl(epoll, libc::EPIOCGPARAMS, ptr::from_mut(&mut params)) })?;
    Ok(params)
}

/// Returns how many events a wait has found. A signal counts as no event.
fn waited(counters: &Counters, result: libc::c_int) -> io::Result<usize> {
    match check(result) {
        Ok(ready) => {
            counters.events.add(ready as u64);
            if ready == 0 {
                counters.timeouts.add(1);
            }
            Ok(ready as usize)
        }
        Err(error) if interrupted(&error) => {
            counters.interrupts.add(1);
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

/// epoll_wait(2): how many events of `events` were filled in. A signal counts as no event.
pub fn epoll_wait(
    counters: &Counters,
    epoll: RawFd,
    events: &mut [libc::epoll_event],
    timeout_ms: libc::c_int,
) -> io::Result<usize> {
    let room = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
    counters.count(Call::WAIT_FOR_EPOLL);
    // SAFETY: the kernel writes at most `room` events, and the slice holds as many.
    waited(counters, unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), room, timeout_ms) })
}

/// poll(2): how many entries have events. A signal counts as no event, and leaves the entries as
/// they were.
pub fn poll(
    counters: &Counters,
    entries: &mut [libc::pollfd],
    timeout_ms: libc::c_int,
) -> io::Result<usize> {
    counters.count(Call::WAIT_FOR_POLL);
    // SAFETY: pointer and length are those of one exclusive slice.
    waited(counters, unsafe {
        libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, timeout_ms)
    })
}

/// The sets of select(2): a bit for each descriptor from 0 to 1023, in the layout of `fd_set`.
pub type FdSet = [libc::c_ulong; size_of::<libc::fd_set>() / size_of::<libc::c_ulong>()];

/// select(2) on the descriptors below `end`: how many bits are set in both sets together when it
/// returns. A signal counts as no event, and leaves the sets as they were.
///
/// Made as pselect(2) without a signal mask: that is the system call that glibc's select() makes
/// too (2.36 does), and not every architecture has the older one.
pub fn select(
    counters: &Counters,
    end: usize,
    readable: &mut FdSet,
    writable: &mut FdSet,
    timeout_ms: libc::c_int,
) -> io::Result<usize> {
    let end = end.min(libc::FD_SETSIZE) as libc::c_int;
    let timeout = libc::timespec {
        tv_sec: libc::time_t::from(timeout_ms / 1000),
        tv_nsec: libc::c_long::from(timeout_ms % 1000) * 1_000_000,
    };
    let timeout = if timeout_ms < 0 { ptr::null() } else { ptr::from_ref(&timeout) };
    counters.count(Call::Pselect6);
    // SAFETY: both sets are as long as an fd_set, and no bit from FD_SETSIZE on is asked for. The
    // time-out lives until the call returns; a null pointer stands for no set, no time-out or no
    // signal mask.
    waited(counters, unsafe {
        libc::pselect(
            end,
            ptr::from_mut(readable).cast(),
            ptr::from_mut(writable).cast(),
            ptr::null_mut(),
            timeout,
            ptr::null(),
        )
    })
}

/// recv(2).
pub fn recv(
    counters: &Counters,
    fd: RawFd,
    buffer: &mut [u8],
    flags: libc::c_int,
) -> io::Result<usize> {
    counters.count(Call::Recvfrom);
    // SAFETY: the kernel writes at most the length of this exclusive slice.
    check_size(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) })
}

/// send(2) with MSG_NOSIGNAL, so that a peer that went away is an error and not a SIGPIPE.
pub fn send(counters: &Counters, fd: RawFd, bytes: &[u8], flags: libc::c_int) -> io::Result<usize> {
    counters.count(Call::Sendto);
    // SAFETY: the kernel reads at most the length of this slice.
    check_size(unsafe {
        libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags | libc::MSG_NOSIGNAL)
    })
}

/// Takes one entry of a socket's error queue (recvmsg(2), MSG_ERRQUEUE); none: it is empty, or the
/// entry is none of IP.
pub fn receive_error(
    counters: &Counters,
    fd: RawFd,
) -> io::Result<Option<libc::sock_extended_err>> {
    // Room for an entry and the address of its sender, which the kernel puts behind it.
    let mut control = [0_u64; 16];
    // SAFETY: an all-zero msghdr is a valid value of that plain structure.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    counters.count(Call::Recvmsg);
    // SAFETY: the message has no data and no address, and `control` is as long as it says.
    let received = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_ERRQUEUE) };
    match check_size(received) {
        Err(error) if would_block(&error) => return Ok(None),
        outcome => outcome?,
    };
    // SAFETY: the kernel has written `msg_controllen` bytes of control messages.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: it is null, or points to a header within `control`.
    let Some(found) = (unsafe { header.as_ref() }) else { return Ok(None) };
    let is_of_ip = matches!(
        (found.cmsg_level, found.cmsg_type),
        (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)
    );
    // SAFETY: such a message holds a sock_extended_err, which may not be aligned.
    Ok(is_of_ip.then(|| unsafe {
        libc::CMSG_DATA(header).cast::<libc::sock_extended_err>().read_unaligned()
    }))
}

/// accept(2), as the document calls it: the peer's address is asked for, the socket is blocking.
pub fn accept(counters: &Counters, listener: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero sockaddr_storage is a valid value of that plain structure.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&address) as libc::socklen_t;
    counters.count(Call::Accept);
    // SAFETY: the kernel writes at most `length` bytes into `address`, which is that long. The call
    // returns a new descriptor.
    unsafe { owned(libc::accept(listener, ptr::from_mut(&mut address).cast(), &mut length)) }
}

/// accept4(2): a non-blocking, close-on-exec socket.
pub fn accept4(counters: &Counters, listener: RawFd) -> io::Result<OwnedFd> {
    accept4_with(counters, listener, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
}

/// accept4(2): a blocking, close-on-exec socket, whatever the listener is.
pub fn accept4_blocking(counters: &Counters, listener: RawFd) -> io::Result<OwnedFd> {
    accept4_with(counters, listener, libc::SOCK_CLOEXEC)
}

fn accept4_with(counters: &Counters, listener: RawFd, flags: libc::c_int) -> io::Result<OwnedFd> {
    counters.count(Call::Accept4);
    // SAFETY: null pointers say that the peer's address is not wanted. The call returns a new
    // descriptor.
    unsafe { owned(libc::accept4(listener, ptr::null_mut(), ptr::null_mut(), flags)) }
}

/// fcntl(F_SETFL, O_NONBLOCK), as the document makes a socket non-blocking.
pub fn set_nonblocking(counters: &Counters, fd: RawFd) -> io::Result<()> {
    counters.count(Call::Fcntl);
    // SAFETY: takes no pointer.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// close(2), and nothing else: dropping an [`OwnedFd`] also asks for its flags in a build with
/// debug assertions. Errors say nothing that could be acted on: the descriptor is gone either way
/// (close(2), NOTES).
pub fn close(counters: &Counters, fd: OwnedFd) {
    counters.count(Call::Close);
    // SAFETY: the descriptor was owned, and its ownership ends here.
    unsafe { libc::close(fd.into_raw_fd()) };
}

/// Takes back the ownership of a descriptor whose number a table kept.
///
/// # Safety
/// `fd` must be open, and no other owner of it may exist.
pub unsafe fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// shutdown(2) of the sending side: the peer reads what was sent, and then the end.
pub fn shutdown_write(counters: &Counters, fd: RawFd) -> io::Result<()> {
    counters.count(Call::Shutdown);
    // SAFETY: takes no pointer.
    check(unsafe { libc::shutdown(fd, libc::SHUT_WR) }).map(drop)
}

/// How long an io_uring_enter may wait.
pub struct EnterBounds {
    /// From then on it returns with whatever is there (ETIME if that is nothing).
    pub timeout: Duration,
    /// From then on one completion is enough; 0: from the beginning it takes as many as are wanted
    /// (6.12).
    pub min_wait_us: u32,
}

/// io_uring_enter(2). `fd` is the ring's descriptor or, with REGISTERED_RING, its index; `bounds`
/// go with EXT_ARG.
#[inline]
pub fn io_uring_enter(
    counters: &Counters,
    fd: RawFd,
    queued: u32,
    want: u32,
    flags: u32,
    bounds: Option<EnterBounds>,
) -> io::Result<()> {
    /// `struct io_uring_getevents_arg`.
    #[repr(C)]
    struct Argument {
        sigmask: u64,
        sigmask_size: u32,
        min_wait_us: u32,
        timeout: u64,
    }
    counters.count(Call::IoUringEnter);
    let (timeout, argument);
    let (pointer, size) = match bounds {
        None => (ptr::null(), 0),
        Some(bounds) => {
            // `struct __kernel_timespec`: seconds and nanoseconds.
            timeout = [bounds.timeout.as_secs() as i64, i64::from(bounds.timeout.subsec_nanos())];
            let timeout = timeout.as_ptr().expose_provenance() as u64;
            argument =
                Argument { sigmask: 0, sigmask_size: 0, min_wait_us: bounds.min_wait_us, timeout };
            (ptr::from_ref(&argument), size_of::<Argument>())
        }
    };
    // SAFETY: the kernel reads `argument` and the time that it points to, both of which live until
    // the call returns. The caller who queued a request has promised that its memory is valid.
    let result =
        unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, queued, want, flags, pointer, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// Registers a ring with the calling thread (IORING_REGISTER_RING_FDS, kernel 5.18): its index for
/// enters with REGISTERED_RING. The registration keeps the ring alive until it is taken back or the
/// thread ends.
pub fn register_ring_fd(ring: RawFd) -> io::Result<u32> {
    let mut update = RingUpdate { offset: u32::MAX, reserved: 0, data: ring as u64 };
    let argument = ptr::from_mut(&mut update);
    // SAFETY: the kernel reads one update and writes the index that it chose into its offset.
    let done =
        unsafe { libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_RING_FDS, argument, 1) };
    if done == 1 { Ok(update.offset) } else { Err(io::Error::last_os_error()) }
}

/// Takes the registration back.
pub fn unregister_ring_fd(ring: RawFd, index: u32) {
    let mut update = RingUpdate { offset: index, reserved: 0, data: 0 };
    let argument = ptr::from_mut(&mut update);
    // SAFETY: the kernel reads one update. It can fail only for an index that is not registered.
    unsafe { libc::syscall(libc::SYS_io_uring_register, ring, UNREGISTER_RING_FDS, argument, 1) };
}

/// An eventfd, close-on-exec and non-blocking.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer, and returns a new descriptor.
    unsafe { owned(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }
        .map_err(named("eventfd"))
}

/// Adds one to an eventfd: from then on it polls readable, because nobody reads it.
pub fn eventfd_signal(fd: &OwnedFd) -> io::Result<()> {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: the kernel reads the eight bytes of `one`.
    check_size(unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) }).map(drop)
}

/// [`eventfd_signal`] by a thread of a worker.
pub fn eventfd_wake(counters: &Counters, fd: &OwnedFd) -> io::Result<()> {
    counters.count(Call::Write);
    eventfd_signal(fd)
}

/// Sets an eventfd back to zero: it polls readable no longer.
pub fn eventfd_clear(counters: &Counters, fd: &OwnedFd) -> io::Result<()> {
    let mut count = [0_u8; 8];
    counters.count(Call::Read);
    // SAFETY: the kernel writes the eight bytes of `count`.
    check_size(unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) })
        .map(drop)
}
