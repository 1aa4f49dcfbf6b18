//! The system calls of the servers, each made and checked in one place.
//!
//! A call that a worker makes takes the worker's [`Counters`] and is counted just before it is
//! made, as the kernel's `sys_enter` tracepoint does, so that both counts agree to the call.

use crate::counters::Counters;
use crate::refusal::named;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A system call that the servers make or that a reader would ask about. The harness opens one
/// tracepoint counter for each, under the kernel's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub enum Call {
    EpollWait,
    EpollPwait,
    EpollCtl,
    IoUringEnter,
    IoUringRegister,
    Recvfrom,
    Sendto,
    Read,
    Write,
    Readv,
    Writev,
    Recvmsg,
    Sendmsg,
    Accept,
    Accept4,
    Close,
    Shutdown,
    Fcntl,
    Poll,
    Ppoll,
    Pselect6,
    Futex,
    Mmap,
    Munmap,
}

impl Call {
    /// The call that the C library's epoll_wait() makes. glibc makes the newer one only where the
    /// kernel lacks the older, as on aarch64; musl makes the newer one everywhere.
    pub const WAIT_FOR_EPOLL: Call = if cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        Call::EpollWait
    } else {
        Call::EpollPwait
    };

    /// The call that the C library's poll() makes: the newer one where the kernel lacks the older,
    /// as on aarch64.
    pub const WAIT_FOR_POLL: Call =
        if cfg!(target_arch = "x86_64") { Call::Poll } else { Call::Ppoll };

    /// Every call, in the order of the columns.
    pub const ALL: [Call; 24] = [
        Call::EpollWait,
        Call::EpollPwait,
        Call::EpollCtl,
        Call::IoUringEnter,
        Call::IoUringRegister,
        Call::Recvfrom,
        Call::Sendto,
        Call::Read,
        Call::Write,
        Call::Readv,
        Call::Writev,
        Call::Recvmsg,
        Call::Sendmsg,
        Call::Accept,
        Call::Accept4,
        Call::Close,
        Call::Shutdown,
        Call::Fcntl,
        Call::Poll,
        Call::Ppoll,
        Call::Pselect6,
        Call::Futex,
        Call::Mmap,
        Call::Munmap,
    ];

    /// The kernel's name: `sys_enter_<name>` is its tracepoint.
    pub const fn name(self) -> &'static str {
        match self {
            Call::EpollWait => "epoll_wait",
            Call::EpollPwait => "epoll_pwait",
            Call::EpollCtl => "epoll_ctl",
            Call::IoUringEnter => "io_uring_enter",
            Call::IoUringRegister => "io_uring_register",
            Call::Recvfrom => "recvfrom",
            Call::Sendto => "sendto",
            Call::Read => "read",
            Call::Write => "write",
            Call::Readv => "readv",
            Call::Writev => "writev",
            Call::Recvmsg => "recvmsg",
            Call::Sendmsg => "sendmsg",
            Call::Accept => "accept",
            Call::Accept4 => "accept4",
            Call::Close => "close",
            Call::Shutdown => "shutdown",
            Call::Fcntl => "fcntl",
            Call::Poll => "poll",
            Call::Ppoll => "ppoll",
            Call::Pselect6 => "pselect6",
            Call::Futex => "futex",
            Call::Mmap => "mmap",
            Call::Munmap => "munmap",
        }
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Whether the error only says that the socket is not ready.
pub fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Whether a signal broke off the call before it did anything.
pub fn interrupted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

/// An epoll instance, close-on-exec.
pub fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
        .map_err(named("epoll_create1"))?;
    // SAFETY: the call has just returned this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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

/// What a wait for events has returned: how many there are. A signal counts as no event.
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

/// What select(2) works on: a bit for each descriptor from 0 to 1023, in the layout of `fd_set`.
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

/// accept(2), as the document calls it: the peer's address is asked for, the socket is blocking.
pub fn accept(counters: &Counters, listener: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero sockaddr_storage is a valid value of that plain structure.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&address) as libc::socklen_t;
    counters.count(Call::Accept);
    // SAFETY: the kernel writes at most `length` bytes into `address`, which is that long.
    let fd =
        check(unsafe { libc::accept(listener, ptr::from_mut(&mut address).cast(), &mut length) })?;
    // SAFETY: the call has just returned this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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
    // SAFETY: null pointers say that the peer's address is not wanted.
    let fd = check(unsafe { libc::accept4(listener, ptr::null_mut(), ptr::null_mut(), flags) })?;
    // SAFETY: the call has just returned this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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

/// A TCP socket for addresses of this kind: close-on-exec and non-blocking.
pub fn tcp_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::socket(family, kind, 0) }).map_err(named("socket"))?;
    // SAFETY: the call has just returned this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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

/// listen(2) with an accept queue of this length.
pub fn listen(fd: RawFd, backlog: libc::c_int) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::listen(fd, backlog) }).map(drop).map_err(named("listen"))
}

/// SO_REUSEADDR.
pub fn set_reuse_address(fd: RawFd) -> io::Result<()> {
    switch_on(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR).map_err(named("setsockopt(SO_REUSEADDR)"))
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
    // the call returns. What queued requests point to is the promise of whoever queued them.
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
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
        .map_err(named("eventfd"))?;
    // SAFETY: the call has just returned this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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

/// Gives the calling thread a file table of its own: a copy of what was open, and a limit of its
/// own.
pub fn unshare_files() -> io::Result<()> {
    // SAFETY: takes no pointer; descriptors keep their numbers in the copied table.
    check(unsafe { libc::unshare(libc::CLONE_FILES) })
        .map(drop)
        .map_err(named("unshare(CLONE_FILES)"))
}

/// Lets the calling thread run on one CPU only.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: `cpu` lies within the set, checked above.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: 0 is the calling thread, and the set is as long as said.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) }).map(drop)
}

/// The first two numbers of a kernel's release.
pub type Version = (u32, u32);

/// The running kernel's; zeros if its release does not begin with two.
pub fn kernel_version() -> Version {
    // SAFETY: an all-zero utsname is a valid value of that plain structure.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in `names`, and can fail only for a bad address.
    unsafe { libc::uname(&mut names) };
    // SAFETY: the release ends with a zero within its array, whether the kernel wrote it or it was
    // zero before.
    let release = unsafe { CStr::from_ptr(names.release.as_ptr()) };
    parse_version(&release.to_string_lossy()).unwrap_or_default()
}

/// The version in a release such as `6.18.44-cloud`, or `6.1-rc3`.
pub fn parse_version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The soft limit of open files.
pub fn open_files_limit() -> io::Result<u64> {
    change_open_files_limit(|limit| limit.rlim_cur)
}

/// Raises the soft limit of open files to the hard one, and says what it is now.
pub fn raise_open_files_limit() -> io::Result<u64> {
    change_open_files_limit(|limit| limit.rlim_max)
}

/// Lowers the soft limit of open files, which all threads of the process share, to `files` if it is
/// above that.
pub fn lower_open_files_limit(files: u64) -> io::Result<u64> {
    change_open_files_limit(|limit| limit.rlim_cur.min(files))
}

/// Sets the soft limit of open files to what `wanted` makes of both, and says what it is now.
fn change_open_files_limit(wanted: impl FnOnce(&libc::rlimit) -> u64) -> io::Result<u64> {
    let mut limit = limit_of(libc::RLIMIT_NOFILE)?;
    let wanted = wanted(&limit);
    if wanted != limit.rlim_cur {
        limit.rlim_cur = wanted;
        // SAFETY: the kernel reads `limit`.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })
            .map_err(named("setrlimit(RLIMIT_NOFILE)"))?;
    }
    Ok(wanted)
}

/// The type of a limit's number in the C library.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// The soft and hard limit of one kind.
fn limit_of(resource: Resource) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills in `limit`.
    check(unsafe { libc::getrlimit(resource, &mut limit) }).map_err(named("getrlimit"))?;
    Ok(limit)
}

/// Bytes of memory that this user may lock in all of its processes, if that is limited for this
/// one. The kernel exempts who has CAP_IPC_LOCK in the first user namespace.
pub fn locked_memory_limit() -> Option<u64> {
    const CAP_IPC_LOCK: u32 = 14;
    let limit = limit_of(libc::RLIMIT_MEMLOCK).ok()?.rlim_cur;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective =
        effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // In any other namespace there are fewer users, or they have other numbers outside.
    let users = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let in_first_namespace = users.split_whitespace().eq(["0", "0", "4294967295"]);
    let exempt = in_first_namespace && effective & 1 << CAP_IPC_LOCK != 0;
    (limit != libc::RLIM_INFINITY && !exempt).then_some(limit)
}

static STDOUT_IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether this process was started without a stdout. By the time of `main` that no longer shows:
/// std has opened /dev/null in its place, so that no other file gets its number.
pub fn stdout_is_closed() -> bool {
    STDOUT_IS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look_at_stdout() {
    // SAFETY: takes no pointer.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    let is_closed = flags < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EBADF);
    STDOUT_IS_CLOSED.store(is_closed, Ordering::Relaxed);
}

// SAFETY: the section is a list of functions that the C library calls before `main`. This one needs
// nothing that is set up later: it makes one system call and stores a flag.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STDOUT: extern "C" fn() = look_at_stdout;

/// The names of this process's threads (proc_pid_task(5)), those among them that the kernel made.
pub fn thread_names() -> Vec<String> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let name = |task: io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(name).map(|name| name.trim_end().to_owned()).collect()
}

/// A set of these signals.
fn signal_set(signals: &[libc::c_int]) -> io::Result<libc::sigset_t> {
    // SAFETY: an all-zero sigset_t is a valid value, and sigemptyset sets it up anyway.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a signal set that we own.
    check(unsafe { libc::sigemptyset(&mut set) })?;
    for &signal in signals {
        // SAFETY: as above.
        check(unsafe { libc::sigaddset(&mut set, signal) })?;
    }
    Ok(set)
}

/// Blocks or unblocks signals in the calling thread, and so in all threads that it starts later.
fn change_mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the kernel reads `set`; the old set is not asked for.
    match unsafe { libc::pthread_sigmask(how, set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(named("pthread_sigmask")(io::Error::from_raw_os_error(error))),
    }
}

/// Has these signals do what they do by default, and blocks none of them: whoever has started this
/// process may have left them ignored or blocked, and both are inherited (signal(7)). For the first
/// thread, before it starts others.
pub fn restore_signals(signals: &[libc::c_int]) -> io::Result<()> {
    for &signal in signals {
        // SAFETY: no handler of ours is replaced, because none is set up yet.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(named("signal")(io::Error::last_os_error()));
        }
    }
    change_mask(libc::SIG_UNBLOCK, &signal_set(signals)?)
}

/// A set of signals that the main thread takes one at a time; blocked in every thread that it
/// starts.
pub struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Blocks the signals in the calling thread, and so in all threads that it starts later.
    pub fn block(signals: &[libc::c_int]) -> io::Result<Self> {
        let set = signal_set(signals)?;
        change_mask(libc::SIG_BLOCK, &set)?;
        Ok(Self { set })
    }

    /// Opens a descriptor to take them from. A thread with a file table of its own that began
    /// before has no copy of it.
    pub fn open(&self) -> io::Result<SignalFd> {
        // SAFETY: the kernel reads `set`, which is a valid one.
        let fd = check(unsafe { libc::signalfd(-1, &self.set, libc::SFD_CLOEXEC) })
            .map_err(named("signalfd"))?;
        // SAFETY: the call has just returned this descriptor, so nothing else owns it.
        Ok(SignalFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

/// Where blocked signals are taken from (signalfd(2)).
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Waits for the next signal and takes it; none when stdin can be read first, if that is waited
    /// for too.
    pub fn wait(&self, stdin: bool) -> io::Result<Option<libc::c_int>> {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // A negative descriptor is left out (poll(2)).
        let mut entries =
            [entry(self.0.as_raw_fd()), entry(if stdin { libc::STDIN_FILENO } else { -1 })];
        loop {
            // SAFETY: pointer and length are those of one exclusive array.
            let ready =
                unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, -1) };
            match check(ready) {
                Err(error) if interrupted(&error) => continue,
                ready => ready?,
            };
            if entries[0].revents == 0 {
                return Ok(None);
            }
            let mut taken = MaybeUninit::<libc::signalfd_siginfo>::uninit();
            let length = size_of_val(&taken);
            // SAFETY: the kernel writes at most `length` bytes into `taken`, which is that long.
            match check_size(unsafe {
                libc::read(self.0.as_raw_fd(), taken.as_mut_ptr().cast(), length)
            }) {
                Err(error) if interrupted(&error) => continue,
                read => read?,
            };
            // SAFETY: a read from a signalfd fills whole structures, and as many as fit: one.
            return Ok(Some(unsafe { taken.assume_init() }.ssi_signo.cast_signed()));
        }
    }
}

/// read(2) from stdin, past the buffer that std has for it. A signal that breaks it off is nothing.
pub fn read_stdin(buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the kernel writes at most the length of this exclusive slice.
        match check_size(unsafe {
            libc::read(libc::STDIN_FILENO, buffer.as_mut_ptr().cast(), buffer.len())
        }) {
            Err(error) if interrupted(&error) => {}
            read => return read,
        }
    }
}

/// CPU time of this process, user and kernel, from its start, threads that have ended and those
/// that the kernel made for its rings included (clock_gettime(2)).
pub fn process_cpu_ns() -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the out-pointer is to a local that lives through the call.
    check(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) })?;
    Ok(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

/// Sends this process a signal: how a worker that ended wakes the main thread.
pub fn signal_self(signal: libc::c_int) {
    // SAFETY: takes no pointer; a signal to oneself cannot fail for a valid number.
    unsafe { libc::kill(libc::getpid(), signal) };
}

/// Sent to one thread to make its blocking call return EINTR. Where nothing waits for it, it does
/// nothing: it is ignored by default. Urgent data sends it only to the owner of a socket, and no
/// socket here has one (F_SETOWN).
const INTERRUPTION: libc::c_int = libc::SIGURG;

/// Lets [`interrupt`] break off blocking calls, in all threads that the calling one starts from now
/// on: a handler that does nothing, without SA_RESTART, for a signal that may have been blocked
/// when this process was started.
pub fn allow_interruptions() -> io::Result<()> {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: an all-zero sigaction is a valid value of that plain structure, with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the kernel reads `action`, whose handler takes one argument as its flags of 0 say,
    // and which touches nothing, so that it may run at any moment.
    check(unsafe { libc::sigaction(INTERRUPTION, &action, ptr::null_mut()) })
        .map_err(named("sigaction"))?;
    change_mask(libc::SIG_UNBLOCK, &signal_set(&[INTERRUPTION])?)
}

/// Starts a detached thread with a stack of `stack_bytes`, guard page and the C library's own part
/// included.
///
/// `std::thread` is for threads of which there are few: it gives each a second stack for signals,
/// so that half as many fit into the mappings that a process may have (vm.max_map_count), and where
/// that one cannot be mapped it ends the process instead of returning the error.
///
/// # Errors
/// EAGAIN when threads, memory or mappings ran out; EINVAL for a stack that is too small
/// (pthread_create(3)). Then `body` is dropped.
pub fn spawn_detached<F: FnOnce() + Send + 'static>(
    name: &'static CStr,
    stack_bytes: usize,
    body: F,
) -> io::Result<()> {
    extern "C" fn run<F: FnOnce()>(task: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: this is the pointer that spawn_detached has made of a Box of this type, and has
        // given up.
        let (name, body) = *unsafe { Box::from_raw(task.cast::<(&'static CStr, F)>()) };
        // SAFETY: the name ends with a zero. One that is too long is an error, and the thread has
        // none.
        unsafe { libc::pthread_setname_np(libc::pthread_self(), name.as_ptr()) };
        // A panic cannot leave this function: it ends the process, with its message.
        body();
        ptr::null_mut()
    }
    let failed_with = |error: libc::c_int| match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    };
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: it sets up the attributes, which are destroyed below and not moved until then.
    failed_with(unsafe { libc::pthread_attr_init(attributes) })?;
    let task = Box::into_raw(Box::new((name, body)));
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the attributes are set up. `run` takes what `task` points to, which may go to another
    // thread and borrows nothing; it takes it once, because one thread at most is made.
    let result = unsafe {
        failed_with(libc::pthread_attr_setstacksize(attributes, stack_bytes))
            .and_then(|()| {
                failed_with(libc::pthread_attr_setdetachstate(
                    attributes,
                    libc::PTHREAD_CREATE_DETACHED,
                ))
            })
            .and_then(|()| {
                failed_with(libc::pthread_create(
                    thread.as_mut_ptr(),
                    attributes,
                    run::<F>,
                    task.cast(),
                ))
            })
    };
    // SAFETY: they were set up above, and a thread does not need them any more.
    unsafe { libc::pthread_attr_destroy(attributes) };
    if result.is_err() {
        // SAFETY: there is no thread that could take it.
        drop(unsafe { Box::from_raw(task) });
    }
    result
}

/// The kernel's number of the calling thread.
pub fn thread_id() -> libc::pid_t {
    // SAFETY: takes no pointer, and cannot fail.
    unsafe { libc::gettid() }
}

/// Breaks off the blocking call that a thread of this process is in. It does nothing to a thread
/// that is not in one yet, so it must be repeated until it has been heard.
pub fn interrupt(thread: libc::pid_t) {
    // SAFETY: takes no pointer. A thread that has ended is an error that needs no answer.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, INTERRUPTION) };
}

/// Anonymous zeroed memory, page-aligned, not resident until touched; unmapped on drop. The kernel
/// does not set aside what may never be touched (MAP_NORESERVE), unless it is told to do so always
/// (vm.overcommit_memory=2).
pub struct AnonymousMemory {
    start: NonNull<u8>,
    length: usize,
}

impl AnonymousMemory {
    /// Maps `length` bytes.
    pub fn new(length: usize) -> io::Result<Self> {
        // SAFETY: asks for new memory at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { start, length }),
            _ => Err(named("mmap")(io::Error::last_os_error())),
        }
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }
}

impl Drop for AnonymousMemory {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours alone, and whoever pointed into it was dropped before it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_two_numbers() {
        for (release, version) in [
            ("6.18.44-fc-v769", Some((6, 18))),
            ("6.1.0-56-cloud-amd64", Some((6, 1))),
            ("7.0-rc3", Some((7, 0))),
            ("5.14.0-427.el9.x86_64", Some((5, 14))),
            ("unknown", None),
        ] {
            assert_eq!(parse_version(release), version, "{release}");
        }
        assert!(kernel_version() >= (3, 2));
    }
}
