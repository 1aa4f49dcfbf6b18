//! Sends without a copy: the kernel sends from the server's own memory, and says later when it has
//! let go of it, and whether it copied all the same (msg_zerocopy.rst in the kernel's
//! documentation; io_uring_prep_send_zc(3)).
//!
//! Only the bytes of a conversation can be sent so, since they live as long as the process. An
//! echo's lie in buffers that the next message needs. On loopback the kernel copies all, because
//! the receiver would hold the sender's memory for as long as it likes.

use crate::contract::{Knob, Knobs, Unsupported};
use crate::counters::Counters;
use crate::kernel;
use crate::sys;
use std::io;
use std::os::fd::RawFd;

/// The knob of the backends that can.
pub const ZERO_COPY: Knob = Knob::word(
    "zero_copy",
    &["off", "on"],
    "whether responses are sent without a copy (SEND_ZC, Linux 6.2, or MSG_ZEROCOPY); not for an \
     echo, and not over a Unix socket",
);

/// The first kernel that tells of SEND_ZC whether it copied (IORING_SEND_ZC_REPORT_USAGE).
const REPORTS: kernel::Version = (6, 2);

/// SO_EE_ORIGIN_ZEROCOPY and SO_EE_CODE_ZEROCOPY_COPIED (linux/errqueue.h).
const ORIGIN_ZEROCOPY: u8 = 5;
const CODE_COPIED: u8 = 1;

/// Whether it is asked for.
pub fn is_on(knobs: &Knobs) -> bool {
    knobs.has(ZERO_COPY.name) && knobs.word(ZERO_COPY.name) == "on"
}

/// Whether this kernel tells of a ring's sends without a copy what became of them.
pub fn probe_ring(knobs: &Knobs) -> Result<(), Unsupported> {
    if is_on(knobs) && kernel::version() < REPORTS {
        let reason = "zero_copy: SEND_ZC does not say whether it copied; needs Linux 6.2";
        return Err(Unsupported { reason: reason.to_owned() });
    }
    Ok(())
}

/// Counts sends of which the kernel has let go.
pub fn note(counters: &Counters, sends: u64, copied: bool) {
    counters.zero_copies.add(sends);
    counters.zero_copies_copied.add(if copied { sends } else { 0 });
}

/// Sends once, without a copy unless the kernel has no memory left to remember such sends by.
pub fn send(counters: &Counters, fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    match sys::send(counters, fd, bytes, libc::MSG_ZEROCOPY) {
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
            take_notifications(counters, fd)?;
            sys::send(counters, fd, bytes, 0)
        }
        outcome => outcome,
    }
}

/// Takes what the kernel tells of a socket's sends: ranges of their numbers.
pub fn take_notifications(counters: &Counters, fd: RawFd) -> io::Result<()> {
    while let Some(told) = sys::receive_error(counters, fd)? {
        if told.ee_origin == ORIGIN_ZEROCOPY {
            let sends = u64::from(told.ee_data.wrapping_sub(told.ee_info)) + 1;
            note(counters, sends, told.ee_code & CODE_COPIED != 0);
        }
    }
    Ok(())
}
