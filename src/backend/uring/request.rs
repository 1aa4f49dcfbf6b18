//! Requests that point to no memory of ours, so that queueing them is safe. Those that do point to some, sends
//! and receives without provided buffers, are built where it is known how long that memory stays.

use super::buffer_ring::GROUP;
use super::token::Token;
use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed};
use std::os::fd::RawFd;
use std::ptr;

/// A request without an address.
pub struct Request(Entry);

/// A connection's socket.
#[derive(Clone, Copy, Debug)]
pub enum Socket {
    /// By its descriptor.
    File(u32),
    /// By its direct descriptor.
    Direct(u32),
}

impl Socket {
    /// What stands in a request's place for a descriptor. A direct one also wants [`Socket::flags`].
    pub fn fd(self) -> Fd {
        let (Socket::File(index) | Socket::Direct(index)) = self;
        Fd(index as RawFd)
    }

    /// FIXED_FILE for a direct descriptor.
    pub fn flags(self) -> Flags {
        match self {
            Socket::File(_) => Flags::empty(),
            Socket::Direct(_) => Flags::FIXED_FILE,
        }
    }
}

impl Request {
    /// For the queue.
    pub fn entry(self) -> Entry {
        self.0
    }

    /// Accepts one connection, as a file or as a direct descriptor.
    pub fn accept(listener: RawFd, direct: bool) -> Self {
        // No address: the peer's is not wanted.
        let accept = opcode::Accept::new(Fd(listener), ptr::null_mut(), ptr::null_mut());
        Self(if direct {
            accept.file_index(Some(DestinationSlot::auto_target())).build()
        } else {
            accept.flags(libc::SOCK_CLOEXEC).build()
        })
    }

    /// Accepts connections until it fails or is cancelled.
    pub fn accept_multishot(listener: RawFd, direct: bool) -> Self {
        let accept = opcode::AcceptMulti::new(Fd(listener));
        Self(if direct {
            accept.allocate_file_index(true).build()
        } else {
            accept.flags(libc::SOCK_CLOEXEC).build()
        })
    }

    /// Reports once that a file is readable.
    pub fn poll(fd: RawFd) -> Self {
        Self(opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).build())
    }

    /// Reports each arrival of input, and the peer's end.
    pub fn poll_multishot(socket: Socket) -> Self {
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        Self(opcode::PollAdd::new(socket.fd(), events).multi(true).build().flags(socket.flags()))
    }

    /// Receives what is there into a provided buffer, without waiting.
    pub fn receive_now(socket: Socket) -> Self {
        // No address: the buffer is picked from the group.
        let receive = opcode::Recv::new(socket.fd(), ptr::null_mut(), 0).buf_group(GROUP);
        Self(receive.flags(libc::MSG_DONTWAIT).build().flags(Flags::BUFFER_SELECT | socket.flags()))
    }

    /// Receives into provided buffers until it fails or is cancelled.
    pub fn receive_multishot(socket: Socket) -> Self {
        Self(opcode::RecvMulti::new(socket.fd(), GROUP).build().flags(socket.flags()))
    }

    /// The same, several buffers at a time (kernel 6.10).
    pub fn receive_bundles(socket: Socket) -> Self {
        Self(opcode::RecvMultiBundle::new(socket.fd(), GROUP).build().flags(socket.flags()))
    }

    /// Cancels the request with this token.
    pub fn cancel(target: Token) -> Self {
        Self(opcode::AsyncCancel::new(target.encode()).build())
    }

    /// Cancels every request.
    pub fn cancel_all() -> Self {
        Self(opcode::AsyncCancel2::new(CancelBuilder::any()).build())
    }

    /// Closes a connection; completes only if that fails.
    pub fn close(socket: Socket) -> Self {
        let close = match socket {
            Socket::File(index) => opcode::Close::new(Fd(index as RawFd)).build(),
            Socket::Direct(index) => opcode::Close::new(Fixed(index)).build(),
        };
        Self(close.flags(Flags::SKIP_SUCCESS))
    }

    /// Makes a file of a direct descriptor, and completes with it (kernel 6.8).
    pub fn install(direct: u32) -> Self {
        Self(opcode::FixedFdInstall::new(Fixed(direct), 0).build())
    }

    /// Does nothing.
    pub fn nothing() -> Self {
        Self(opcode::Nop::new().build())
    }
}
