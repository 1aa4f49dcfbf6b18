//! The system calls of the servers, each made and checked in one place.

/// A system call that the servers make or that a reader would ask about. The harness opens one
/// tracepoint counter for each, under the kernel's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub enum Call {
    EpollWait,
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
    Select,
    Futex,
    Mmap,
    Munmap,
    RtSigtimedwait,
}

impl Call {
    /// Every call, in the order of the columns.
    pub const ALL: [Call; 23] = [
        Call::EpollWait,
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
        Call::Select,
        Call::Futex,
        Call::Mmap,
        Call::Munmap,
        Call::RtSigtimedwait,
    ];

    /// The kernel's name: `sys_enter_<name>` is its tracepoint.
    pub const fn name(self) -> &'static str {
        match self {
            Call::EpollWait => "epoll_wait",
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
            Call::Select => "select",
            Call::Futex => "futex",
            Call::Mmap => "mmap",
            Call::Munmap => "munmap",
            Call::RtSigtimedwait => "rt_sigtimedwait",
        }
    }
}
