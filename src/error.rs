//! Errors of system calls: checked, told apart, and explained by the limit that probably causes
//! them.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Returns the result of a call that returns a negative number for an error.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes the descriptor that a call has returned.
///
/// # Safety
/// A result that is not negative must be a new descriptor, which nothing else owns.
pub(crate) unsafe fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns the result of a call that returns a size.
pub(crate) fn check_size(result: libc::ssize_t) -> io::Result<usize> {
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

/// Makes an error say which call has failed, and what to do about it. Its kind stays the same.
pub fn named(call: &str) -> impl FnOnce(io::Error) -> io::Error + '_ {
    move |error| {
        let advice = error.raw_os_error().map_or("", advice);
        io::Error::new(error.kind(), format!("{call}: {error}{advice}"))
    }
}

/// The limit that is likely to be behind an error, if it is one, and how to raise it; to be put
/// behind the error.
pub fn advice(errno: i32) -> &'static str {
    match errno {
        libc::EMFILE => {
            ": no more files may be open; raise `ulimit -n`, or give fewer --ports, or more \
             --workers if each has a table of files of its own"
        }
        libc::ENFILE => ": the machine may have no more files open; raise `sysctl fs.file-max`",
        libc::ENOMEM => {
            ": memory ran out, or a limit of it: `ulimit -v`, a cgroup's memory.max, \
             vm.max_map_count"
        }
        libc::ENOBUFS => ": the kernel has no memory left for it",
        libc::ENOSPC => ": epoll may watch no more; raise `sysctl fs.epoll.max_user_watches`",
        _ => "",
    }
}

/// Why a thread could not be started.
pub fn of_thread(error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            ": no more threads may be; raise `ulimit -u`, a cgroup's pids.max, or `sysctl \
             kernel.threads-max`"
        }
        Some(errno) => advice(errno),
        None => "",
    };
    format!("pthread_create: {error}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_and_the_limit_are_named() {
        let error = named("eventfd")(io::Error::from_raw_os_error(libc::EMFILE));
        let text = error.to_string();
        assert!(
            text.starts_with("eventfd: Too many open files") && text.contains("ulimit -n"),
            "{text}"
        );
        let error = named("unshare")(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(error.to_string(), "unshare: Operation not permitted (os error 1)");
        let text = of_thread(&io::Error::from_raw_os_error(libc::EAGAIN));
        assert!(text.starts_with("pthread_create: ") && text.contains("ulimit -u"), "{text}");
    }
}
