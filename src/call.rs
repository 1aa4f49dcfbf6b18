//! The system calls that are counted.

macro_rules! calls {
    ($($call:ident = $name:literal,)+) => {
        /// A system call that the servers make, or that a reader would ask about. The harness opens
        /// one tracepoint counter for each, under the kernel's name for it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        #[expect(missing_docs, reason = "the names are the kernel's")]
        pub enum Call {
            $($call,)+
        }

        impl Call {
            /// Every call, in the order of the columns.
            pub const ALL: [Call; [$($name),+].len()] = [$(Call::$call),+];

            /// The kernel's name: `sys_enter_<name>` is its tracepoint.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Call::$call => $name,)+
                }
            }
        }
    };
}

calls! {
    EpollWait = "epoll_wait",
    EpollPwait = "epoll_pwait",
    EpollCtl = "epoll_ctl",
    IoUringEnter = "io_uring_enter",
    IoUringRegister = "io_uring_register",
    Recvfrom = "recvfrom",
    Sendto = "sendto",
    Read = "read",
    Write = "write",
    Readv = "readv",
    Writev = "writev",
    Recvmsg = "recvmsg",
    Sendmsg = "sendmsg",
    Accept = "accept",
    Accept4 = "accept4",
    Close = "close",
    Shutdown = "shutdown",
    Fcntl = "fcntl",
    Poll = "poll",
    Ppoll = "ppoll",
    Pselect6 = "pselect6",
    Futex = "futex",
    Mmap = "mmap",
    Munmap = "munmap",
}

impl Call {
    /// The call that the C library's epoll_wait() makes. glibc makes the newer one only if the
    /// kernel lacks the older, as on aarch64. musl makes the newer one everywhere.
    pub const WAIT_FOR_EPOLL: Call = if cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        Call::EpollWait
    } else {
        Call::EpollPwait
    };

    /// The call that the C library's poll() makes: the newer one if the kernel lacks the older, as
    /// on aarch64.
    pub const WAIT_FOR_POLL: Call =
        if cfg!(target_arch = "x86_64") { Call::Poll } else { Call::Ppoll };
}
