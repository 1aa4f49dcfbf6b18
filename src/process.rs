//! The process of a server: its limits, its threads, its signals, its standard streams.

use crate::error::{check, check_size, interrupted, named, owned};
use crate::rights::{effective_capabilities, is_in_first_user_namespace};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Gives the calling thread a file table of its own: a copy of what was open, and a limit of its
/// own.
pub fn unshare_files() -> io::Result<()> {
    // SAFETY: takes no pointer; descriptors keep their numbers in the copied table.
    check(unsafe { libc::unshare(libc::CLONE_FILES) })
        .map(drop)
        .map_err(named("unshare(CLONE_FILES)"))
}

/// The soft limit of open files.
pub fn open_files_limit() -> io::Result<u64> {
    change_open_files_limit(|limit| limit.rlim_cur)
}

/// Raises the soft limit of open files to the hard one, and says what it is now.
pub fn raise_open_files_limit() -> io::Result<u64> {
    change_open_files_limit(|limit| limit.rlim_max)
}

/// Lowers the soft limit of open files, which all threads of the process share, to `files` if it is
/// above that.
pub fn lower_open_files_limit(files: u64) -> io::Result<u64> {
    change_open_files_limit(|limit| limit.rlim_cur.min(files))
}

/// Sets the soft limit of open files to what `wanted` makes of both, and says what it is now.
fn change_open_files_limit(wanted: impl FnOnce(&libc::rlimit) -> u64) -> io::Result<u64> {
    let mut limit = limit_of(libc::RLIMIT_NOFILE)?;
    let wanted = wanted(&limit);
    if wanted != limit.rlim_cur {
        limit.rlim_cur = wanted;
        // SAFETY: the kernel reads `limit`.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })
            .map_err(named("setrlimit(RLIMIT_NOFILE)"))?;
    }
    Ok(wanted)
}

/// The type of a limit's number in the C library.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// Returns the soft and the hard limit of a resource (getrlimit(2)).
pub fn limit_of(resource: Resource) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills in `limit`.
    check(unsafe { libc::getrlimit(resource, &mut limit) }).map_err(named("getrlimit"))?;
    Ok(limit)
}

/// Bytes of memory that this user may lock in all of its processes, if that is limited for this
/// one. The kernel exempts who has CAP_IPC_LOCK in the first user namespace.
pub fn locked_memory_limit() -> Option<u64> {
    const CAP_IPC_LOCK: u32 = 14;
    let limit = limit_of(libc::RLIMIT_MEMLOCK).ok()?.rlim_cur;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = effective_capabilities(&status).unwrap_or(0);
    let users = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let exempt = is_in_first_user_namespace(&users) && effective & 1 << CAP_IPC_LOCK != 0;
    (limit != libc::RLIM_INFINITY && !exempt).then_some(limit)
}

static STDOUT_IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether this process was started without a stdout. By the time of `main` that no longer shows:
/// std has opened /dev/null in its place, so that no other file gets its number.
pub fn stdout_is_closed() -> bool {
    STDOUT_IS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look_at_stdout() {
    // SAFETY: takes no pointer.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    let is_closed = flags < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EBADF);
    STDOUT_IS_CLOSED.store(is_closed, Ordering::Relaxed);
}

// SAFETY: the section is a list of functions that the C library calls before `main`. This one needs
// nothing that is set up later: it makes one system call and stores a flag.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STDOUT: extern "C" fn() = look_at_stdout;

/// The names of this process's threads (proc_pid_task(5)), those among them that the kernel made.
pub fn thread_names() -> Vec<String> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let name = |task: io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(name).map(|name| name.trim_end().to_owned()).collect()
}

/// A set of these signals.
pub(crate) fn signal_set(signals: &[libc::c_int]) -> io::Result<libc::sigset_t> {
    // SAFETY: an all-zero sigset_t is a valid value, and sigemptyset sets it up anyway.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a signal set that we own.
    check(unsafe { libc::sigemptyset(&mut set) })?;
    for &signal in signals {
        // SAFETY: as above.
        check(unsafe { libc::sigaddset(&mut set, signal) })?;
    }
    Ok(set)
}

/// Blocks or unblocks signals in the calling thread, and so in all threads that it starts later.
pub(crate) fn change_mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the kernel reads `set`; the old set is not asked for.
    match unsafe { libc::pthread_sigmask(how, set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(named("pthread_sigmask")(io::Error::from_raw_os_error(error))),
    }
}

/// Has these signals do what they do by default, and blocks none of them: whoever has started this
/// process may have left them ignored or blocked, and both are inherited (signal(7)). For the first
/// thread, before it starts others.
pub fn restore_signals(signals: &[libc::c_int]) -> io::Result<()> {
    for &signal in signals {
        // SAFETY: no handler of ours is replaced, because none is set up yet.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(named("signal")(io::Error::last_os_error()));
        }
    }
    change_mask(libc::SIG_UNBLOCK, &signal_set(signals)?)
}

/// Blocks no signal in the calling thread.
pub fn unblock_all_signals() -> io::Result<()> {
    change_mask(libc::SIG_SETMASK, &signal_set(&[])?)
}

/// A set of signals that the main thread takes one at a time; blocked in every thread that it
/// starts.
pub struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Blocks the signals in the calling thread, and so in all threads that it starts later.
    pub fn block(signals: &[libc::c_int]) -> io::Result<Self> {
        let set = signal_set(signals)?;
        change_mask(libc::SIG_BLOCK, &set)?;
        Ok(Self { set })
    }

    /// Opens a descriptor to take them from. A thread with a file table of its own that began
    /// before has no copy of it.
    pub fn open(&self) -> io::Result<SignalFd> {
        // SAFETY: the kernel reads `set`, which is a valid one. The call returns a new descriptor.
        let fd = unsafe { owned(libc::signalfd(-1, &self.set, libc::SFD_CLOEXEC)) };
        Ok(SignalFd(fd.map_err(named("signalfd"))?))
    }
}

/// The descriptor that blocked signals are taken from (signalfd(2)).
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Waits for the next signal and takes it; none when stdin can be read first, if that is waited
    /// for too.
    pub fn wait(&self, stdin: bool) -> io::Result<Option<libc::c_int>> {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // A negative descriptor is left out (poll(2)).
        let mut entries =
            [entry(self.0.as_raw_fd()), entry(if stdin { libc::STDIN_FILENO } else { -1 })];
        loop {
            // SAFETY: pointer and length are those of one exclusive array.
            let ready =
                unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, -1) };
            match check(ready) {
                Err(error) if interrupted(&error) => continue,
                ready => ready?,
            };
            if entries[0].revents == 0 {
                return Ok(None);
            }
            let mut taken = MaybeUninit::<libc::signalfd_siginfo>::uninit();
            let length = size_of_val(&taken);
            // SAFETY: the kernel writes at most `length` bytes into `taken`, which is that long.
            match check_size(unsafe {
                libc::read(self.0.as_raw_fd(), taken.as_mut_ptr().cast(), length)
            }) {
                Err(error) if interrupted(&error) => continue,
                read => read?,
            };
            // SAFETY: a read from a signalfd fills whole structures, and as many as fit: one.
            return Ok(Some(unsafe { taken.assume_init() }.ssi_signo.cast_signed()));
        }
    }
}

/// read(2) from stdin, past the buffer that std has for it. A signal that breaks it off is nothing.
pub fn read_stdin(buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the kernel writes at most the length of this exclusive slice.
        match check_size(unsafe {
            libc::read(libc::STDIN_FILENO, buffer.as_mut_ptr().cast(), buffer.len())
        }) {
            Err(error) if interrupted(&error) => {}
            read => return read,
        }
    }
}

/// Returns the CPU time of this process in ns, user and kernel, from its start. Threads that have
/// ended, SQPOLL threads and io-wq workers are in it. Interrupts that hit it are in it too, unless
/// the kernel has CONFIG_IRQ_TIME_ACCOUNTING.
pub fn cpu_ns() -> io::Result<u64> {
    read_clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Returns the same of another process (clock_getcpuclockid(3)).
pub fn cpu_ns_of(pid: u32) -> io::Result<u64> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let mut clock = 0;
    // SAFETY: the out-pointer is to a local that lives through the call.
    match unsafe { libc::clock_getcpuclockid(pid, &mut clock) } {
        0 => read_clock(clock),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn read_clock(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the out-pointer is to a local that lives through the call.
    check(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

/// Sends this process a signal: how a worker that ended wakes the main thread.
pub fn signal_self(signal: libc::c_int) {
    // SAFETY: takes no pointer; a signal to oneself cannot fail for a valid number.
    unsafe { libc::kill(libc::getpid(), signal) };
}
