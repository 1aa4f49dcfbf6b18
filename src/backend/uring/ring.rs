//! One ring: set-up and why it may be refused, submission, and the one system call of the loop.

use crate::backend::Unsupported;
use crate::counters::Counters;
use crate::sys::{self, Call};
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Submitter, cqueue, opcode, squeue};
use std::io;
use std::time::Duration;

/// IORING_ENTER_GETEVENTS. Every enter carries it: under DEFER_TASKRUN only such an enter runs what is
/// pending, and a loop that only submitted would never hear of anything new.
const GETEVENTS: u32 = 1;

/// A completion, copied out of the queue.
pub struct Completion {
    /// Of the request that it belongs to.
    pub user_data: u64,
    /// What the system call of the same name would return, or the negative errno.
    pub result: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

impl Completion {
    /// Whether the request goes on, and more completions will come.
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that it used.
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// A ring that is used by the thread that made it, and runs its task work only inside of its own waits.
pub struct Ring {
    uring: IoUring,
}

impl Ring {
    /// SINGLE_ISSUER and DEFER_TASKRUN (kernel 6.1): completions are made while this thread waits for
    /// them, in one batch, instead of interrupting it. SUBMIT_ALL (5.18): a bad request does not hold up
    /// the ones behind it.
    pub fn new(sq_entries: u32, cq_entries: u32) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(cq_entries)
            .build(sq_entries)?;
        Ok(Self { uring })
    }

    /// Whether the kernel gives us such a ring, and has the operations that the loop needs.
    pub fn probe(sq_entries: u32, cq_entries: u32) -> Result<Self, Unsupported> {
        let ring = Self::new(sq_entries, cq_entries).map_err(|error| explain(&error))?;
        let mut known = io_uring::Probe::new();
        ring.submitter()
            .register_probe(&mut known)
            .map_err(|error| Unsupported { reason: format!("io_uring_register(PROBE): {error}") })?;
        let needed = [
            ("ACCEPT", opcode::AcceptMulti::CODE),
            ("RECV", opcode::RecvMulti::CODE),
            ("SEND", opcode::Send::CODE),
            ("CLOSE", opcode::Close::CODE),
            ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
            ("POLL_ADD", opcode::PollAdd::CODE),
        ];
        match needed.iter().find(|(_, code)| !known.is_supported(*code)) {
            Some((name, _)) => Err(Unsupported {
                reason: format!(
                    "IORING_OP_{name} is not allowed on this kernel; it needs Linux 6.1 or newer"
                ),
            }),
            None => Ok(ring),
        }
    }

    /// For registrations.
    pub fn submitter(&self) -> Submitter<'_> {
        self.uring.submitter()
    }

    /// The flags that were granted, and the sizes.
    pub fn in_force(&self) -> crate::backend::Facts {
        let params = self.uring.params();
        let features = [
            ("nodrop", params.is_feature_nodrop()),
            ("fast_poll", params.is_feature_fast_poll()),
            ("ext_arg", params.is_feature_ext_arg()),
            ("cqe_skip", params.is_feature_skip_cqe_on_success()),
        ];
        let features: Vec<&str> =
            features.iter().filter(|(_, granted)| *granted).map(|(name, _)| *name).collect();
        // An SQE has 64 bytes, its slot in the index array 4, a CQE 16 (io_uring_setup(2)).
        let ring_bytes = u64::from(params.sq_entries()) * (64 + 4) + u64::from(params.cq_entries()) * 16;
        crate::backend::Facts::from_iter([
            ("setup".to_owned(), "SINGLE_ISSUER|DEFER_TASKRUN|SUBMIT_ALL|CQSIZE".into()),
            ("features".to_owned(), features.into()),
            ("sq_entries".to_owned(), params.sq_entries().into()),
            ("cq_entries".to_owned(), params.cq_entries().into()),
            ("ring_bytes".to_owned(), ring_bytes.into()),
        ])
    }

    /// Queues a request; submits the queue first if it is full.
    ///
    /// # Safety
    /// Memory that the request points to must stay valid and, if the kernel writes to it, untouched,
    /// until the request's last completion was taken.
    pub unsafe fn push(&mut self, counters: &Counters, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the caller's promise.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.enter(counters, 0, None)?;
        }
    }

    /// Submits all that is queued, waits until `want` completions are there, a signal comes or `timeout` is
    /// over, and moves all completions into `taken`.
    pub fn turn(
        &mut self,
        counters: &Counters,
        want: usize,
        timeout: Option<Duration>,
        taken: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.enter(counters, want, timeout)?;
        self.take_completions(counters, taken)?;
        // The kernel takes fewer requests than are queued when memory is short or a signal came first.
        while !self.uring.submission().is_empty() {
            self.enter(counters, 0, None)?;
            self.take_completions(counters, taken)?;
        }
        counters.events.add(taken.len() as u64);
        Ok(())
    }

    /// Whether nothing is queued.
    pub fn is_empty(&mut self) -> bool {
        self.uring.submission().is_empty()
    }

    fn enter(&mut self, counters: &Counters, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        counters.count(Call::IoUringEnter);
        let result = match timeout.filter(|_| want > 0) {
            None => {
                let queued = self.uring.submission().len() as u32;
                // SAFETY: there is no argument to point to anything.
                unsafe {
                    self.uring.submitter().enter::<libc::sigset_t>(queued, want as u32, GETEVENTS, None)
                }
            }
            Some(timeout) => {
                let timeout = Timespec::from(timeout);
                self.uring.submitter().submit_with_args(want, &SubmitArgs::new().timespec(&timeout))
            }
        };
        match result {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => counters.timeouts.add(1),
            Err(error) if sys::interrupted(&error) => counters.interrupts.add(1),
            // The completion queue is full, or memory is short: take what is there, and try again.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Those in the queue, and those that did not fit into it and wait in the kernel (IORING_FEAT_NODROP).
    fn take_completions(&mut self, counters: &Counters, taken: &mut Vec<Completion>) -> io::Result<()> {
        loop {
            taken.extend(self.uring.completion().map(|entry| Completion {
                user_data: entry.user_data(),
                result: entry.result(),
                flags: entry.flags(),
            }));
            if !self.uring.submission().cq_overflow() {
                break;
            }
            counters.cq_overflows.add(1);
            self.enter(counters, 0, None)?;
        }
        Ok(())
    }
}

/// Why `io_uring_setup` was refused, and what to do about it (io_uring_setup(2), ERRORS).
fn explain(error: &io::Error) -> Unsupported {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.as_deref().map(str::trim).unwrap_or("absent");
    let (name, hint) = match error.raw_os_error() {
        Some(libc::EPERM) => (
            "EPERM",
            match disabled {
                "2" => "kernel.io_uring_disabled=2; `sysctl kernel.io_uring_disabled=0` allows it".to_owned(),
                "1" => "kernel.io_uring_disabled=1; run as root, or join the group kernel.io_uring_group"
                    .to_owned(),
                value => format!(
                    "kernel.io_uring_disabled is {value}, so a seccomp filter refuses it, as container \
                     runtimes' default profiles do; run with one that allows io_uring"
                ),
            },
        ),
        Some(libc::ENOSYS) => {
            ("ENOSYS", "the kernel has no io_uring, or a seccomp filter hides it; needs Linux 6.1".to_owned())
        }
        Some(libc::EINVAL) => (
            "EINVAL",
            "SINGLE_ISSUER or DEFER_TASKRUN is not known to this kernel; needs Linux 6.1".to_owned(),
        ),
        Some(libc::ENOMEM) => (
            "ENOMEM",
            "the ring does not fit into memory or RLIMIT_MEMLOCK; lower sq_entries and cq_entries".to_owned(),
        ),
        Some(libc::EMFILE | libc::ENFILE) => {
            ("EMFILE", "no file descriptor is free; see `ulimit -n`".to_owned())
        }
        _ => ("error", error.to_string()),
    };
    Unsupported { reason: format!("io_uring_setup: {name}: {hint}") }
}
