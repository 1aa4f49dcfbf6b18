//! Computes how much memory the io_uring servers lock. Since Linux 6.14 rings and rings of buffers
//! count towards RLIMIT_MEMLOCK, for all processes of a user together, as rings did before 5.12
//! (`io_create_region` in the kernel's io_uring/memmap.c).

use std::collections::BTreeMap;

use ringmark::backend::{self, Knobs};

use crate::matrix::Matrix;
use crate::text::grouped;

/// The first kernel that counts again, and the first that did not.
const COUNTED_FROM: (u32, u32) = (6, 14);
const NOT_COUNTED_FROM: (u32, u32) = (5, 12);

/// Tells whether a kernel counts rings.
pub fn are_counted(version: (u32, u32)) -> bool {
    !(NOT_COUNTED_FROM..COUNTED_FROM).contains(&version)
}

/// Returns the bytes that a worker of a backend locks with these settings.
fn worker_bytes(name: &str, settings: &[String]) -> u64 {
    let knobs = backend::find(name).and_then(|entry| Ok((entry, Knobs::parse(entry, settings)?)));
    knobs.map_or(0, |(entry, knobs)| (entry.locked_bytes)(&knobs))
}

/// Returns the most that a worker locks whose backend has its default settings.
pub fn most_bytes() -> u64 {
    backend::ALL.iter().map(|entry| worker_bytes(entry.name, &[])).max().unwrap_or_default()
}

/// Lists the arms whose workers lock more than the limit allows.
pub fn exceeding(limit: u64, matrix: &Matrix) -> Vec<String> {
    let workers = matrix.workloads.iter().filter_map(|workload| workload.workers);
    let workers = u64::from(workers.chain([matrix.workers]).max().unwrap_or_default());
    let mut arms: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for arm in &matrix.backends {
        let bytes = worker_bytes(&arm.backend, &arm.set);
        if workers * bytes > limit {
            arms.entry(bytes).or_default().push(arm.name());
        }
    }
    let line = |(bytes, arms): (u64, Vec<String>)| {
        format!(
            "locked memory: {} with {workers} workers needs {} KiB, and `ulimit -l` is {} KiB: \
             `unsupported` with so many",
            arms.join(", "),
            grouped((workers * bytes) >> 10),
            grouped(limit >> 10)
        )
    };
    arms.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_locks_what_its_queues_take() {
        let bytes = |name, settings: &[&str]| {
            worker_bytes(
                name,
                &settings.iter().map(|&setting| setting.to_owned()).collect::<Vec<_>>(),
            ) >> 10
        };
        // Linux 6.18 refuses less.
        for (name, settings, kib) in [
            ("uring-oneshot", &[][..], 84),
            ("uring-multishot", &[], 116),
            ("uring-sqpoll", &[], 116),
            ("uring-multishot", &["cq_entries=8192"], 180),
            ("uring-multishot", &["buffers=64"], 88),
            ("uring-multishot", &["buffers=4096"], 148),
            ("epoll-et", &[], 0),
            ("no-such", &[], 0),
        ] {
            assert_eq!(bytes(name, settings), kib, "{name} {settings:?}");
        }
        assert_eq!(most_bytes(), 116 << 10);
        assert!(
            are_counted((6, 18))
                && are_counted((5, 10))
                && !are_counted((6, 13))
                && !are_counted((5, 12))
        );
    }
}
