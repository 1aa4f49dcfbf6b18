//! Direct descriptors: whether the kernel lets go of one that is closed.
//!
//! Before Linux 6.13 the files that were removed from a ring's table were let go in the order of
//! their removal, and none while a request that was older than its removal was under way on any
//! other (`io_rsrc_node` in the kernel's rsrc.c). A server that waits for input on all its
//! connections would close one, and its peer would not hear of it until the oldest connection left.
//! No flag tells of that, so it is tried.

use super::request::{Request, Socket};
use super::ring::Ring;
use super::setup::Want;
use super::token::{RequestKind, Token};
use crate::contract::Unsupported;
use crate::counters::Counters;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long the end of a closed connection may take to be heard of. It is there at once, or not at
/// all.
const PATIENCE: Duration = Duration::from_millis(200);

/// Whether a ring has a table of direct descriptors, and lets go of one that is closed.
pub fn probe(ring: &mut Ring) -> Result<(), Unsupported> {
    ring.submitter().register_files_sparse(2).map_err(|error| Unsupported {
        reason: format!("io_uring_register(FILES2): {error}; sparse tables need Linux 5.19"),
    })?;
    match lets_go(ring) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Unsupported {
            reason:
                "a direct descriptor that is closed stays open while an older request waits on \
                     another, so that its peer is not told; needs Linux 6.13"
                    .to_owned(),
        }),
        Err(error) => Err(Unsupported { reason: format!("direct descriptors: {error}") }),
    }
}

/// Waits for input on one, closes the other, and sees whether its peer hears of that.
fn lets_go(ring: &mut Ring) -> io::Result<bool> {
    const IDLE: u32 = 0;
    const CLOSED: u32 = 1;
    let counters = Counters::default();
    let (idle, _peer_of_idle) = UnixStream::pair()?;
    let (closed, mut peer) = UnixStream::pair()?;
    ring.submitter().register_files_update(IDLE, &[idle.as_raw_fd(), closed.as_raw_fd()])?;
    // From here on the table alone holds them.
    drop((idle, closed));
    let requests = [
        (RequestKind::Poll, Request::poll_multishot(Socket::Direct(IDLE))),
        (RequestKind::Close, Request::close(Socket::Direct(CLOSED))),
    ];
    for (kind, request) in requests {
        // SAFETY: the requests have no address.
        unsafe { ring.push(&counters, &request.entry().user_data(Token::of(kind, 0).encode()))? };
    }
    while !ring.is_decided() {
        ring.turn(&counters, Want::Just(0), None)?;
    }
    peer.set_read_timeout(Some(PATIENCE))?;
    loop {
        match peer.read(&mut [0]) {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            // The kernel's own work for the ring breaks it off, and does so once.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::uring::setup::Setup;
    use crate::kernel;

    /// The trial agrees with the versions of kernels.
    #[test]
    fn kernels_let_go_since_6_13() {
        let mut ring = match Ring::probe(Setup::for_test(), &[]) {
            Ok(ring) => ring,
            Err(refused) => return eprintln!("skipped: {refused}"),
        };
        match probe(&mut ring) {
            Ok(()) => assert!(kernel::version() >= (6, 13)),
            Err(refused) => assert!(kernel::version() < (6, 13), "{refused}"),
        }
    }
}
