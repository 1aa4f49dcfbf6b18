//! Counts the system calls of another process by the kernel's own tracepoints.
//!
//! One counter on `raw_syscalls:sys_enter` counts all of them, one on `syscalls:sys_enter_<name>` each call
//! of [`Call::ALL`]. They are opened on a process that has one thread and are inherited by the threads that
//! it starts, which the sums keep when they end (perf_event_open(2), `inherit`). A counted call costs some
//! 0.1 to 0.3 µs, so that a trial that counts measures nothing else.

use std::io;
use std::path::Path;
use std::ptr;
use std::thread;

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};
use ringmark::sys::Call;

use super::{Unavailable, procfs};

/// Where tracefs is mounted, if it is: by itself, or by debugfs.
const MOUNT_POINTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Open counters on one process.
pub struct SyscallCounters {
    total: Counter,
    calls: Vec<(Call, Option<Counter>)>,
}

/// System calls entered since the counters were attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyscallReading {
    /// All calls, named or not.
    pub total: u64,
    calls: [Option<u64>; Call::ALL.len()],
}

impl SyscallCounters {
    /// Opens the counters on a process that has a single thread, and on all threads that it will start. It may
    /// be blocked in a system call: only calls that begin from now on are counted.
    pub fn attach(pid: u32) -> Result<Self, Unavailable> {
        let threads = procfs::read(format!("/proc/{pid}/status"))
            .and_then(|status| procfs::number(&status, "Threads"))
            .map_err(|error| Unavailable::new(error.to_string()))?;
        if threads != 1 {
            return Err(Unavailable::new(format!(
                "process {pid} has {threads} threads already, and counters follow only threads that start after them: \
                 attach while the server waits in --hold"
            )));
        }
        Self::open(pid, true)
    }

    /// Opens the counters on a process's main thread alone.
    pub fn attach_to_main_thread(pid: u32) -> Result<Self, Unavailable> {
        Self::open(pid, false)
    }

    fn open(pid: u32, inherit: bool) -> Result<Self, Unavailable> {
        let ids = Ids::read()?;
        let open = |id| open(pid, id, inherit).map_err(|error| refused(&error));
        let calls = Call::ALL.into_iter().zip(ids.calls);
        Ok(Self {
            calls: calls
                .map(|(call, id)| Ok((call, id.map(open).transpose()?)))
                .collect::<Result<_, Unavailable>>()?,
            total: open(ids.total)?,
        })
    }

    /// The calls that this kernel has no tracepoint for. They are counted in the total only.
    pub fn unavailable(&self) -> impl Iterator<Item = Call> {
        self.calls.iter().filter(|(_, counter)| counter.is_none()).map(|&(call, _)| call)
    }

    /// Reads every counter, at any moment. The total is read last: the named calls never exceed it.
    pub fn read(&mut self) -> io::Result<SyscallReading> {
        let mut calls = [None; Call::ALL.len()];
        for (call, counter) in &mut self.calls {
            calls[*call as usize] = counter.as_mut().map(Counter::read).transpose()?;
        }
        Ok(SyscallReading { total: self.total.read()?, calls })
    }
}

impl SyscallReading {
    /// How often this call was made; none if the kernel has no tracepoint for it.
    pub fn of(&self, call: Call) -> Option<u64> {
        self.calls[call as usize]
    }

    /// The calls that have no counter of their own.
    pub fn other(&self) -> u64 {
        self.total.saturating_sub(self.calls.iter().flatten().sum())
    }

    /// What was called since an earlier reading of the same counters.
    pub fn since(&self, earlier: &Self) -> Self {
        let calls = std::array::from_fn(|call| {
            self.calls[call].zip(earlier.calls[call]).map(|(now, then)| now - then)
        });
        Self { total: self.total - earlier.total, calls }
    }
}

fn open(pid: u32, id: u64, inherit: bool) -> io::Result<Counter> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // A tracepoint fires in the kernel: excluding the kernel would exclude every event.
    Builder::new(Tracepoint::with_id(id))
        .observe_pid(pid)
        .any_cpu()
        .inherit(inherit)
        .exclude_kernel(false)
        .enabled(true)
        .build()
}

fn refused(error: &io::Error) -> Unavailable {
    let paranoid = procfs::read("/proc/sys/kernel/perf_event_paranoid");
    let paranoid = paranoid.as_deref().map_or("unreadable", str::trim);
    Unavailable::new(match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => format!(
            "perf_event_open was refused ({error}; kernel.perf_event_paranoid is {paranoid}): run as root, or \
             `sysctl kernel.perf_event_paranoid=1`, or allow it in the container's seccomp profile"
        ),
        Some(libc::ENOSYS) => "this kernel has no perf_event_open (CONFIG_PERF_EVENTS)".to_owned(),
        Some(libc::EMFILE) => {
            format!("{} counters need as many descriptors: raise `ulimit -n`", Call::ALL.len() + 1)
        }
        _ => format!("perf_event_open failed: {error}"),
    })
}

/// The numbers by which perf_event_open knows the tracepoints; they differ from boot to boot.
struct Ids {
    total: u64,
    calls: [Option<u64>; Call::ALL.len()],
}

impl Ids {
    fn read() -> Result<Self, Unavailable> {
        match MOUNT_POINTS.map(Path::new).into_iter().find(|tracefs| tracefs.join("events").exists()) {
            Some(tracefs) => Self::read_from(tracefs),
            None => thread::scope(|scope| {
                let mounted = scope.spawn(|| {
                    mount_privately()?;
                    Self::read_from(Path::new(MOUNT_POINTS[0]))
                });
                mounted.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }),
        }
    }

    fn read_from(tracefs: &Path) -> Result<Self, Unavailable> {
        let id = |event: &str| -> io::Result<u64> {
            let text = procfs::read(tracefs.join("events").join(event).join("id"))?;
            text.trim().parse().map_err(io::Error::other)
        };
        let total = id("raw_syscalls/sys_enter").map_err(|error| {
            Unavailable::new(match error.kind() {
                io::ErrorKind::NotFound => {
                    "this kernel has no system call tracepoints (CONFIG_FTRACE_SYSCALLS)".to_owned()
                }
                _ => format!("{error}: run as root"),
            })
        })?;
        Ok(Self {
            total,
            calls: Call::ALL.map(|call| id(&format!("syscalls/sys_enter_{}", call.name())).ok()),
        })
    }
}

/// Mounts tracefs where only the calling thread sees it. The mount goes when the thread ends, and the host
/// keeps none.
fn mount_privately() -> Result<(), Unavailable> {
    let target =
        std::ffi::CString::new(MOUNT_POINTS[0]).map_err(|error| Unavailable::new(error.to_string()))?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: unshare takes no pointers and moves only this thread into a copy of the mounts. The strings are
    // NUL-terminated and live through the calls; mount(2) takes null for a source, type or data that it does
    // not use.
    let mounted = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), private, ptr::null()) == 0
            && libc::mount(c"tracefs".as_ptr(), target.as_ptr(), c"tracefs".as_ptr(), 0, ptr::null()) == 0
    };
    if mounted {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(Unavailable::new(match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => format!(
            "tracefs is not mounted, and mounting it needs root ({error}): run as root, or \
             `mount -t tracefs tracefs {}` beforehand",
            MOUNT_POINTS[0]
        ),
        Some(libc::ENOENT | libc::ENODEV) => {
            format!("this kernel has no tracefs ({error}; CONFIG_FTRACE): no tracepoints to count by")
        }
        _ => format!("tracefs could not be mounted: {error}"),
    }))
}

#[cfg(test)]
mod tests;
