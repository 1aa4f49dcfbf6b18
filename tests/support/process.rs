//! Facts of another process, as /proc tells them.

use std::fs;

/// The threads of a process. Empty when it has ended.
pub fn threads(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Those threads of a server that are workers: each is named `worker-` and its number.
pub fn workers(pid: u32) -> Vec<u32> {
    let is_worker = |thread: &u32| {
        let name =
            fs::read_to_string(format!("/proc/{pid}/task/{thread}/comm")).unwrap_or_default();
        name.starts_with("worker-")
    };
    let mut workers: Vec<u32> = threads(pid).into_iter().filter(is_worker).collect();
    workers.sort_unstable();
    workers
}

/// The open files of one thread: every worker has a table of its own.
pub fn fd_count(pid: u32, thread: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task/{thread}/fd")).map_or(0, Iterator::count)
}

/// Returns the open files of a process's main thread: a path each, or a kind such as `socket:` with
/// a number.
pub fn open_files(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.map(|target| target.to_string_lossy().into_owned()).collect()
}

/// The name of a process, as far as the kernel keeps it: 15 bytes.
pub fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// The state letter of a process as in proc_pid_stat(5): `S` asleep, `T` stopped.
pub fn state(pid: u32) -> char {
    stat_fields(pid).first().and_then(|field| field.chars().next()).unwrap_or('?')
}

/// The state letters of all threads of a process.
pub fn states(pid: u32) -> String {
    let path = |thread| format!("/proc/{pid}/task/{thread}/stat");
    threads(pid)
        .into_iter()
        .filter_map(|thread| fields_of(&path(thread)).first()?.chars().next())
        .collect()
}

/// Whether a thread of a process runs, or waits for nothing but a CPU.
pub fn has_runnable_thread(pid: u32) -> bool {
    let path = |thread| format!("/proc/{pid}/task/{thread}/stat");
    threads(pid)
        .into_iter()
        .any(|thread| fields_of(&path(thread)).first().is_some_and(|state| state == "R"))
}

/// User and system time that a process has used so far, in clock ticks.
pub fn cpu_ticks(pid: u32) -> u64 {
    let fields = stat_fields(pid);
    let ticks =
        |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    // utime and stime are fields 14 and 15 of the whole line; the state is field 3.
    ticks(11) + ticks(12)
}

/// User and system time that a process has used so far, threads that have ended included.
pub fn cpu_ns(pid: u32) -> u64 {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: both out-pointers are to locals that live through the calls; the second call takes
    // what the first gave.
    let read = unsafe {
        libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) == 0
            && libc::clock_gettime(clock, &mut time) == 0
    };
    assert!(read, "the CPU clock of process {pid}");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a VmRSS line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") * 1024
}

fn stat_fields(pid: u32) -> Vec<String> {
    fields_of(&format!("/proc/{pid}/stat"))
}

/// The fields of a `stat` file from the state on; the name before it may hold anything.
pub fn fields_of(path: &str) -> Vec<String> {
    let stat = fs::read_to_string(path).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after_name.split(' ').map(str::to_owned).collect()
}
