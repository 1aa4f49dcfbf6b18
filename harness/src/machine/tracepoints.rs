//! Counts what another process does in the kernel, by the kernel's own tracepoints.
//!
//! There are two groups: a [`Syscall`] is entered, and a [`RingEvent`] happens within io_uring. The
//! counters are opened on a process that has one thread and are inherited by the threads that it
//! starts, those of the kernel's for it included (SQPOLL and io-wq). The sums keep what threads had
//! counted that have ended (perf_event_open(2), `inherit`). A counted event costs some 0.1 to 0.3
//! µs, so that a trial that counts measures nothing else.

mod ring_event;
mod syscall;

use std::path::Path;
use std::{io, ptr, thread};

use perf_event::{Builder, Counter};

use super::rights::{COUNT, MOUNT, Need, READ, Rights, group};
use super::{Unavailable, procfs};

pub use crate::machine::tracepoints::ring_event::RingEvent;
pub use crate::machine::tracepoints::syscall::Syscall;

/// Where tracefs is mounted, if it is: by itself, or by debugfs.
const MOUNT_POINTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// A tracepoint of a group.
pub trait Tracepoint: Copy + PartialEq + 'static {
    /// What the kernel lacks that has none of the group, with its option.
    const GROUP: &'static str;
    /// The one that the others are judged by: without it none is counted.
    const NEEDED: Self;

    /// All of the group, in the order in which they are read.
    fn all() -> impl Iterator<Item = Self>;

    /// Where it is under `events`.
    fn path(self) -> String;
}

/// Open counters on one process, one for each tracepoint of a group.
pub struct Counters<T> {
    counters: Vec<(T, Option<Counter>)>,
}

/// Events since the counters were attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<T> {
    counts: Vec<(T, Option<u64>)>,
}

impl<T: Tracepoint> Counters<T> {
    /// Opens the counters on a process that has a single thread, and on all threads that it will
    /// start. It may be blocked in a system call: only what begins from now on is counted.
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
        let ids = ids::<T>()?;
        let count = ids.iter().filter(|(_, id)| id.is_some()).count();
        let open = |id| {
            open(pid, id, inherit).map_err(|error| match error.raw_os_error() {
                Some(libc::EMFILE) => Unavailable::new(format!(
                    "{count} counters need as many descriptors: raise `ulimit -n`"
                )),
                _ => refused(&error),
            })
        };
        let counters =
            ids.into_iter().map(|(tracepoint, id)| Ok((tracepoint, id.map(open).transpose()?)));
        Ok(Self { counters: counters.collect::<Result<_, Unavailable>>()? })
    }

    /// The tracepoints that this kernel does not have.
    pub fn unavailable(&self) -> impl Iterator<Item = T> {
        self.counters
            .iter()
            .filter(|(_, counter)| counter.is_none())
            .map(|&(tracepoint, _)| tracepoint)
    }

    /// Reads every counter, at any moment, one after the other.
    pub fn read(&mut self) -> io::Result<Reading<T>> {
        let read = |(tracepoint, counter): &mut (T, Option<Counter>)| {
            Ok((*tracepoint, counter.as_mut().map(Counter::read).transpose()?))
        };
        Ok(Reading { counts: self.counters.iter_mut().map(read).collect::<io::Result<_>>()? })
    }
}

impl<T: Tracepoint> Reading<T> {
    /// How often it happened; none if the kernel has no such tracepoint.
    pub fn of(&self, tracepoint: impl Into<T>) -> Option<u64> {
        let wanted = tracepoint.into();
        self.counts.iter().find(|(tracepoint, _)| *tracepoint == wanted)?.1
    }

    /// What happened since an earlier reading of the same counters.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts.clone();
        for ((_, count), (_, then)) in counts.iter_mut().zip(&earlier.counts) {
            *count = count.zip(*then).map(|(now, then)| now - then);
        }
        Self { counts }
    }
}

fn open(pid: u32, id: u64, inherit: bool) -> io::Result<Counter> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // A tracepoint fires in the kernel: excluding the kernel would exclude every event.
    Builder::new(perf_event::events::Tracepoint::with_id(id))
        .observe_pid(pid)
        .any_cpu()
        .inherit(inherit)
        .exclude_kernel(false)
        .enabled(true)
        .build()
}

/// Why perf_event_open(2) did not count.
pub(super) fn refused(error: &io::Error) -> Unavailable {
    let rights = Rights::read();
    let paranoid = paranoid();
    let level = paranoid.map_or("unreadable".to_owned(), |level| level.to_string());
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Unavailable::new(format!(
            "perf_event_open was refused ({error}; kernel.perf_event_paranoid is {level})"
        ))
        .advising(match rights.is_users() && !lets_everybody(paranoid) {
            true => format!("{}, or have root set `{LESS_PARANOID}`", rights.how_to_get(COUNT)),
            false => rights.how_to_get(COUNT),
        }),
        Some(libc::ENOSYS) => {
            Unavailable::new("this kernel has no perf_event_open (CONFIG_PERF_EVENTS)")
        }
        _ => Unavailable::new(format!("perf_event_open failed: {error}")),
    }
}

/// What lets everybody count what the kernel does for processes of their own.
const LESS_PARANOID: &str = "sysctl -w kernel.perf_event_paranoid=1";

fn paranoid() -> Option<i32> {
    procfs::read("/proc/sys/kernel/perf_event_paranoid").ok()?.trim().parse().ok()
}

fn lets_everybody(paranoid: Option<i32>) -> bool {
    paranoid.is_some_and(|level| level <= 1)
}

/// The numbers by which perf_event_open knows the tracepoints, where the kernel has them; they
/// differ from boot to boot.
fn ids<T: Tracepoint>() -> Result<Vec<(T, Option<u64>)>, Unavailable> {
    let [by_itself, by_debugfs] = MOUNT_POINTS.map(Path::new);
    let is_there = |tracefs: &Path| tracefs.join("events").try_exists();
    let ids = match (is_there(by_itself), is_there(by_debugfs)) {
        (Ok(true), _) => ids_in::<T>(by_itself),
        // Only what is mounted there lets nobody look into it.
        (Err(error), _) if error.kind() == io::ErrorKind::PermissionDenied => Err(unreadable()),
        (_, Ok(true)) => ids_in::<T>(by_debugfs),
        _ => thread::scope(|scope| {
            let mounted = scope.spawn(|| {
                mount_privately()?;
                ids_in::<T>(by_itself)
            });
            mounted.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }),
    }?;
    Ok(T::all().zip(ids).collect())
}

fn ids_in<T: Tracepoint>(tracefs: &Path) -> Result<Vec<Option<u64>>, Unavailable> {
    let id = |tracepoint: T| -> io::Result<u64> {
        let text = procfs::read(tracefs.join("events").join(tracepoint.path()).join("id"))?;
        text.trim().parse().map_err(io::Error::other)
    };
    id(T::NEEDED).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unavailable::new(format!("this kernel has no {}", T::GROUP)),
        io::ErrorKind::PermissionDenied => unreadable(),
        _ => Unavailable::new(error.to_string()),
    })?;
    Ok(T::all().map(|tracepoint| id(tracepoint).ok()).collect())
}

/// Of tracefs, which is mounted for others.
fn unreadable() -> Unavailable {
    Unavailable::new(format!("{} is not for this user to read", MOUNT_POINTS[0]))
        .advising(have_root_mount(READ, "-o remount,"))
}

/// What to do where tracefs is not to be had without `need`: root can give it to a group of users.
fn have_root_mount(need: Need, options: &str) -> String {
    let rights = Rights::read();
    if !rights.is_users() {
        return rights.how_to_get(need);
    }
    let (mount, group) = (MOUNT_POINTS[0], group());
    let and = match lets_everybody(paranoid()) || rights.has(COUNT) {
        true => String::new(),
        false => format!(" and `{LESS_PARANOID}`"),
    };
    format!(
        "{}, or have root do `mount {options}mode=750,gid={group} {mount}`{and}",
        rights.how_to_get(need)
    )
}

/// Mounts tracefs where only the calling thread sees it. The mount goes when the thread ends, and
/// the host keeps none.
fn mount_privately() -> Result<(), Unavailable> {
    let target = std::ffi::CString::new(MOUNT_POINTS[0])
        .map_err(|error| Unavailable::new(error.to_string()))?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: unshare takes no pointers and moves only this thread into a copy of the mounts. The
    // strings are NUL-terminated and live through the calls; mount(2) takes null for a source, type
    // or data that it does not use.
    let mounted = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), private, ptr::null()) == 0
            && libc::mount(
                c"tracefs".as_ptr(),
                target.as_ptr(),
                c"tracefs".as_ptr(),
                0,
                ptr::null(),
            ) == 0
    };
    if mounted {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Unavailable::new(format!(
            "tracefs is not mounted, and mounting it needs {} ({error})",
            MOUNT.capability
        ))
        .advising(have_root_mount(MOUNT, "-t tracefs tracefs -o ")),
        Some(libc::ENOENT | libc::ENODEV) => Unavailable::new(format!(
            "this kernel has no tracefs ({error}; CONFIG_FTRACE): no tracepoints to count by"
        )),
        _ => Unavailable::new(format!("tracefs could not be mounted: {error}")),
    })
}

#[cfg(test)]
mod tests;
