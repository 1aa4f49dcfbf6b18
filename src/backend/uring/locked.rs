//! Locked memory. Since Linux 6.14 rings and rings of buffers count towards RLIMIT_MEMLOCK again,
//! as rings did before 5.12, for all processes of a user together (`io_create_region` in the
//! kernel's memmap.c).

use crate::process;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How long memory may take to come that an ended server, or the probe, had locked: a ring gives it
/// back a little after it is closed.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pages are locked whole; those of other sizes are larger.
const PAGE_BYTES: u64 = 4096;

/// The memory that the workers of a server lock.
#[derive(Clone, Copy, Debug, Default)]
pub struct LockedMemory {
    /// Bytes of each.
    pub bytes_each: u64,
    /// How many there are.
    pub workers: u64,
}

impl LockedMemory {
    /// Bytes of all.
    fn bytes(self) -> u64 {
        self.bytes_each.saturating_mul(self.workers)
    }

    /// Calls `make` until it does not fail for want of memory, or no more will come.
    pub fn patiently<T>(self, mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let begun = Instant::now();
        loop {
            match make() {
                Err(error)
                    if error.kind() == io::ErrorKind::OutOfMemory
                        && self.may_come(begun.elapsed()) =>
                {
                    thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }

    fn may_come(self, waited: Duration) -> bool {
        waited < PATIENCE
            && process::locked_memory_limit().is_some_and(|limit| self.bytes() <= limit)
    }

    /// Says in words that ENOMEM is this limit, if there is one, and how to raise it.
    pub fn explain(self, limit: Option<u64>) -> String {
        let Some(limit) = limit else {
            return "the kernel has no memory for it; a cgroup's memory.max may be the limit"
                .to_owned();
        };
        let kib = |bytes: u64| bytes.div_ceil(1024);
        let workers = if self.workers == 1 {
            "1 worker needs"
        } else {
            &format!("{} workers need", self.workers)
        };
        let others = if self.bytes() > limit {
            ""
        } else {
            ", of which other processes of this user hold a part"
        };
        format!(
            "locked memory ran out: RLIMIT_MEMLOCK (`ulimit -l`) is {} KiB{others}, and {workers} \
             {} KiB ({} KiB each); raise it as root: `ulimit -l unlimited`, memlock in \
             /etc/security/limits.conf, LimitMEMLOCK= of systemd, or --ulimit memlock=-1 of a \
             container; fewer --workers need less, and so do smaller queues (sq_entries, \
             cq_entries), but these change what is measured",
            kib(limit),
            kib(self.bytes()),
            kib(self.bytes_each),
        )
    }
}

/// The bytes that an area takes.
pub fn whole_pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_named_first() {
        let need = LockedMemory { bytes_each: 100 << 10, workers: 96 };
        let text = need.explain(Some(8 << 20));
        let first = text.find("`ulimit -l`").expect("the limit");
        assert!(first < text.find("sq_entries").expect("the queues"), "{text}");
        for word in ["is 8192 KiB,", "96 workers need 9600 KiB", "100 KiB each", "limits.conf"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        let shared = LockedMemory { workers: 1, ..need }.explain(Some(128 << 10));
        assert!(shared.contains("other processes of this user"), "{shared}");
        assert!(!need.explain(None).contains("ulimit"));
    }

    #[test]
    fn only_memory_is_waited_for() {
        let need = LockedMemory::default();
        let mut calls = 0;
        let mut refuse = |errno| {
            let make = || {
                calls += 1;
                Err::<(), _>(io::Error::from_raw_os_error(errno))
            };
            need.patiently(make).expect_err("it is refused").raw_os_error()
        };
        assert_eq!(refuse(libc::EPERM), Some(libc::EPERM));
        assert_eq!(calls, 1);
        assert!(
            !LockedMemory { bytes_each: u64::MAX, workers: 2 }.may_come(Duration::ZERO),
            "more than any limit"
        );
    }
}
