//! How a ring is set up, and why that may be refused.

use super::locked::{LockedMemory, whole_pages};
use crate::contract::{Knob, Knobs, Needs, Unsupported};
use crate::process;
use crate::sys::EnterBounds;
use std::io;
use std::time::Duration;

/// The requirements of every backend on a ring, which needs this kernel.
pub const fn needs(linux: &'static str) -> Needs {
    Needs {
        linux,
        default_container: false,
        limits: "io_uring not disabled, RLIMIT_MEMLOCK for each ring",
    }
}

pub const TASK_RUN: Knob = Knob::word(
    "task_run",
    &["defer", "coop", "default"],
    "when completions are made: in the loop's own waits only (DEFER_TASKRUN), at its next system \
     call of any kind (COOP_TASKRUN), or at once, by interrupting it",
);

pub const SQ_ENTRIES: Knob = Knob::number(
    "sq_entries",
    256,
    1..=32_768,
    "submission queue, in requests, rounded up to a power of two",
);

pub const CQ_ENTRIES: Knob = Knob::number(
    "cq_entries",
    4096,
    2..=65_536,
    "completion queue, in completions, at least sq_entries, rounded up to a power of two",
);

pub const REGISTERED_RING: Knob = Knob::word(
    "registered_ring",
    &["on", "off"],
    "whether the ring's descriptor is registered with its thread, so that no enter looks it up",
);

pub const NO_IOWAIT: Knob = Knob::word(
    "no_iowait",
    &["off", "on"],
    "whether a CPU that idles while the loop waits counts as idle, not as waiting for I/O \
     (ENTER_NO_IOWAIT, Linux 6.15)",
);

pub const BUSY_POLL_US: Knob = Knob::number(
    "busy_poll_us",
    0,
    0..=1_000_000,
    "microseconds that a wait polls the network device before it sleeps (REGISTER_NAPI, Linux \
     6.9); 0 is off; no effect on loopback, which has no NAPI device to poll",
);

pub const MIN_WAIT_US: Knob = Knob::number(
    "min_wait_us",
    0,
    0..=1_000_000,
    "microseconds for which a wait goes on until min_wait_events are there, although there is one, \
     be it the stop signal; 0: it does not",
);

pub const MIN_WAIT_EVENTS: Knob = Knob::number(
    "min_wait_events",
    32,
    1..=65_536,
    "completions that end a wait before min_wait_us are over; also how many of them the kernel \
     makes at once, from 20 on (task_run=defer)",
);

pub const SQ_IDLE_MS: Knob = Knob::number(
    "sq_idle_ms",
    10,
    1..=60_000,
    "milliseconds without a request after which the submission thread sleeps and must be woken",
);

pub const SQ_CPU: Knob = Knob::number(
    "sq_cpu",
    0,
    0..=4096,
    "CPU of the submission thread, counted from 1; 0: wherever the worker may run",
);

/// A wait of min_wait_us without any other bound would end by time-out again and again while
/// nothing happens (`io_cqring_min_timer_wakeup` in the kernel's io_uring.c): it gets one that
/// hardly ever comes.
const LONG: Duration = Duration::from_secs(3600);

/// How many completions a turn waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// So many.
    Just(usize),
    /// One, or more of them as min_wait_us and min_wait_events say.
    Batch,
}

/// How a ring is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    pub sq_entries: u32,
    pub cq_entries: u32,
    pub task_run: &'static str,
    pub registered: bool,
    pub no_iowait: bool,
    pub busy_poll_us: u32,
    pub min_wait_us: u32,
    pub min_wait_events: usize,
    /// Idle time in milliseconds, and the CPU, of a submission thread.
    pub submission_thread: Option<(u32, Option<u32>)>,
    /// The memory that all workers lock beside their rings.
    pub beside: LockedMemory,
}

impl Setup {
    /// A ring whose requests are submitted by the loop.
    pub fn of(knobs: &Knobs) -> Self {
        Self { task_run: knobs.word("task_run"), ..Self::common(knobs) }
    }

    /// A ring with a submission thread. It refuses DEFER_TASKRUN and COOP_TASKRUN with EINVAL
    /// (io_uring_setup(2)): completions are made by that thread.
    pub fn with_submission_thread(knobs: &Knobs) -> Self {
        let cpu = knobs.get("sq_cpu").checked_sub(1).map(|cpu| cpu as u32);
        let submission_thread = Some((knobs.get("sq_idle_ms") as u32, cpu));
        Self { task_run: "default", submission_thread, ..Self::common(knobs) }
    }

    /// The same with a submission queue for `count` requests at least.
    pub fn with_room_for(self, count: u32) -> Self {
        Self {
            sq_entries: self.sq_entries.max(count),
            cq_entries: self.cq_entries.max(count),
            ..self
        }
    }

    /// The same for one of so many workers, each of which locks `bytes` beside its ring.
    pub fn for_workers(self, workers: u16, bytes: u64) -> Self {
        Self { beside: LockedMemory { bytes_each: bytes, workers: workers.into() }, ..self }
    }

    /// The same without a registration of the ring.
    pub fn unregistered(self) -> Self {
        Self { registered: false, ..self }
    }

    /// The memory that the workers lock, by the layout of a ring: 64 bytes for a request and, in an
    /// area with the heads and tails, 4 more for it and 16 for a completion (io_uring_setup(2)).
    pub fn need(&self) -> LockedMemory {
        const HEADS_AND_TAILS: u64 = 320;
        let requests = u64::from(self.sq_entries.next_power_of_two());
        let completions = u64::from(self.cq_entries.next_power_of_two()).max(requests);
        let ring = whole_pages(64 * requests)
            + whole_pages(HEADS_AND_TAILS + 16 * completions + 4 * requests);
        LockedMemory { bytes_each: ring + self.beside.bytes_each, ..self.beside }
    }

    /// A small ring.
    #[cfg(test)]
    pub fn for_test() -> Self {
        Self { sq_entries: 4, cq_entries: 8, task_run: "defer", ..Self::default() }
    }

    /// How many completions to ask the kernel for, and for how long.
    #[inline]
    pub fn wait(&self, want: Want, timeout: Option<Duration>) -> (usize, Option<EnterBounds>) {
        let bounded = |timeout| EnterBounds { timeout, min_wait_us: 0 };
        match want {
            Want::Just(0) => (0, None),
            Want::Just(count) => (count, timeout.map(bounded)),
            Want::Batch if self.min_wait_us == 0 => (1, timeout.map(bounded)),
            Want::Batch => {
                // The kernel would wait for min_wait_us even where the time-out is over before.
                let timeout = timeout.unwrap_or(LONG);
                let most = u32::try_from(timeout.as_micros()).unwrap_or(u32::MAX);
                let bounds = EnterBounds { timeout, min_wait_us: self.min_wait_us.min(most) };
                (self.min_wait_events, Some(bounds))
            }
        }
    }

    fn common(knobs: &Knobs) -> Self {
        let sq_entries = knobs.get("sq_entries") as u32;
        Self {
            sq_entries,
            cq_entries: (knobs.get("cq_entries") as u32).max(sq_entries),
            registered: knobs.word("registered_ring") == "on",
            no_iowait: knobs.word("no_iowait") == "on",
            busy_poll_us: knobs.get(BUSY_POLL_US.name) as u32,
            min_wait_us: knobs.get("min_wait_us") as u32,
            min_wait_events: knobs.size("min_wait_events"),
            ..Self::default()
        }
    }
}

/// Why what is registered with a ring was refused, and what to do about it.
pub fn explain_set_up(error: &io::Error, setup: &Setup) -> Unsupported {
    Unsupported {
        reason: match error.raw_os_error() {
            Some(libc::ENOMEM) => {
                format!(
                    "io_uring_register: ENOMEM: {}",
                    setup.need().explain(process::locked_memory_limit())
                )
            }
            Some(_) => format!("io_uring_register: {error}"),
            // It names the call itself.
            None => error.to_string(),
        },
    }
}

/// Why `io_uring_setup` was refused, and what to do about it (io_uring_setup(2), ERRORS).
pub fn explain(error: &io::Error, setup: &Setup) -> Unsupported {
    let Some(errno) = error.raw_os_error() else {
        // It names the call itself.
        return Unsupported { reason: error.to_string() };
    };
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.as_deref().map(str::trim).unwrap_or("absent");
    // SINGLE_ISSUER is the youngest flag without DEFER_TASKRUN: COOP_TASKRUN has been there since
    // 5.19.
    let (flags, linux) = match setup.task_run {
        "defer" => ("SINGLE_ISSUER or DEFER_TASKRUN", "6.1"),
        _ => ("SINGLE_ISSUER", "6.0"),
    };
    let (name, hint) = match errno {
        libc::EPERM => (
            "EPERM",
            match disabled {
                "2" => "kernel.io_uring_disabled=2; `sysctl kernel.io_uring_disabled=0` allows it"
                    .to_owned(),
                "1" => "kernel.io_uring_disabled=1; run as root, or join the group \
                        kernel.io_uring_group"
                    .to_owned(),
                value => format!(
                    "kernel.io_uring_disabled is {value}, so a seccomp filter refuses it, as \
                     container \
                     runtimes' default profiles do: `docker run --security-opt seccomp=unconfined`"
                ),
            },
        ),
        libc::ENOSYS => {
            let hint = format!(
                "the kernel has no io_uring, or a seccomp filter hides it; needs Linux {linux}"
            );
            ("ENOSYS", hint)
        }
        libc::EINVAL => (
            "EINVAL",
            match setup.submission_thread {
                Some((_, Some(cpu))) => format!(
                    "CPU {cpu} is not online or not in this process's cpuset, see sq_cpu, or \
                     {flags} is not known to this kernel; needs Linux {linux}"
                ),
                _ => format!("{flags} is not known to this kernel; needs Linux {linux}"),
            },
        ),
        libc::ENOMEM => ("ENOMEM", setup.need().explain(process::locked_memory_limit())),
        libc::EMFILE | libc::ENFILE => {
            ("EMFILE", "no file descriptor is free; see `ulimit -n`".to_owned())
        }
        _ => ("error", error.to_string()),
    };
    Unsupported { reason: format!("io_uring_setup: {name}: {hint}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_batch_is_waited_for_longer() {
        let setup = Setup { min_wait_us: 1000, min_wait_events: 32, ..Setup::default() };
        let wait = |want, timeout: Option<u64>| {
            let (count, bounds) = setup.wait(want, timeout.map(Duration::from_micros));
            (count, bounds.map(|bounds| (bounds.timeout, bounds.min_wait_us)))
        };
        let micros = Duration::from_micros;
        assert_eq!(wait(Want::Batch, None), (32, Some((LONG, 1000))));
        assert_eq!(wait(Want::Batch, Some(5000)), (32, Some((micros(5000), 1000))));
        assert_eq!(
            wait(Want::Batch, Some(70)),
            (32, Some((micros(70), 70))),
            "never beyond the time-out"
        );
        assert_eq!(wait(Want::Just(1), None), (1, None));
        assert_eq!(wait(Want::Just(7), Some(70)), (7, Some((micros(70), 0))));
        assert_eq!(wait(Want::Just(0), Some(70)), (0, None));

        let setup = Setup { min_wait_events: 32, ..Setup::default() };
        assert_eq!(setup.wait(Want::Batch, None).0, 1, "no min_wait_us, no batch");
    }

    #[test]
    fn names_the_flags_that_were_asked_for() {
        let refused =
            |errno, setup: Setup| explain(&io::Error::from_raw_os_error(errno), &setup).reason;
        let of = |task_run| Setup { task_run, ..Setup::default() };
        for errno in [libc::EINVAL, libc::ENOSYS] {
            assert!(refused(errno, of("defer")).ends_with("needs Linux 6.1"));
            for task_run in ["coop", "default"] {
                let reason = refused(errno, of(task_run));
                assert!(
                    reason.ends_with("needs Linux 6.0") && !reason.contains("DEFER"),
                    "{reason}"
                );
            }
        }
        let on = |cpu| Setup { submission_thread: Some((10, cpu)), ..of("default") };
        let reason = refused(libc::EINVAL, on(Some(7)));
        assert!(reason.contains("CPU 7 ") && reason.ends_with("needs Linux 6.0"), "{reason}");
        assert!(!refused(libc::EINVAL, on(None)).contains("CPU"));
    }
}
