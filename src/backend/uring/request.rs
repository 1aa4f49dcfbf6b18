//! Requests that point to no memory of ours, or to some that lives as long as the process, so that
//! queueing them is safe. Those that point to other memory, sends and receives without provided
//! buffers, are built where it is known how long that memory stays.

use super::token::Token;
use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed};
use std::os::fd::RawFd;
use std::ptr;

/// The buffer group that receives pick from.
pub const GROUP: u16 = 0;

/// IORING_SEND_ZC_REPORT_USAGE (io_uring.h).
const REPORT_USAGE: u16 = 1 << 3;

/// A request without an address that could become stale.
pub struct Request(Entry);

/// Sets the length that a request names, for which some have no argument.
fn set_length(entry: &mut Entry, length: u32) {
    /// `struct io_uring_sqe` up to its `len`.
    #[repr(C)]
    struct Head {
        before: [u32; 6],
        length: u32,
    }
    const { assert!(size_of::<Entry>() == 64 && align_of::<Entry>() >= align_of::<Head>()) };
    // SAFETY: an entry is the kernel's structure of 64 bytes, in which any value of the length is
    // valid, and it is ours alone here.
    unsafe { (*ptr::from_mut(entry).cast::<Head>()).length = length };
}

/// A connection's socket.
#[derive(Clone, Copy, Debug)]
pub enum Socket {
    /// By its descriptor.
    File(u32),
    /// By its direct descriptor.
    Direct(u32),
}

impl Socket {
    /// Returns the descriptor for a request. A direct one also wants
    /// [`Socket::flags`].
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

    /// Reports once that the peer has sent its end, or that the connection is broken.
    pub fn poll_end(socket: Socket) -> Self {
        let poll = opcode::PollAdd::new(socket.fd(), libc::POLLRDHUP as u32);
        Self(poll.build().flags(socket.flags()))
    }

    /// Reports once that a connection is broken, and nothing else.
    pub fn poll_broken(socket: Socket) -> Self {
        Self(opcode::PollAdd::new(socket.fd(), 0).build().flags(socket.flags()))
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

    /// The same, several buffers at a time (kernel 6.10), and of those no more bytes in one go than
    /// `most` (kernel 6.17), if that is given.
    pub fn receive_bundles(socket: Socket, most: Option<u32>) -> Self {
        let mut entry =
            opcode::RecvMultiBundle::new(socket.fd(), GROUP).build().flags(socket.flags());
        if let Some(most) = most {
            set_length(&mut entry, most);
        }
        Self(entry)
    }

    /// Sends bytes that live as long as the process without a copy, and reports whether the kernel
    /// copied them all the same.
    pub fn send_zero_copy(socket: Socket, bytes: &'static [u8]) -> Self {
        // Bytes beyond what a request can name are sent after it.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let send = opcode::SendZc::new(socket.fd(), bytes.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL)
            .zc_flags(REPORT_USAGE);
        Self(send.build().flags(socket.flags()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_stands_where_the_kernel_looks_for_it() {
        let written = |entry: Entry| format!("{entry:?}");
        let plain = opcode::Send::new(Fd(7), ptr::null(), 0).build();
        let mut longer = opcode::Send::new(Fd(7), ptr::null(), 0).build();
        set_length(&mut longer, 0x1234);
        let built = opcode::Send::new(Fd(7), ptr::null(), 0x1234).build();
        let bytes = |entry: &Entry| {
            // SAFETY: an entry has 64 bytes, all of which were written when it was built.
            unsafe { *ptr::from_ref(entry).cast::<[u8; 64]>() }
        };
        assert_eq!(bytes(&longer), bytes(&built), "{}", written(plain));
    }
}
