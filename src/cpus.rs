//! Lists of CPUs as people write them, the same for every program of the suite.

use crate::error::check;
use std::io;

/// Reads a list as taskset(1) writes it, `0,2-3`, in the order given.
///
/// # Errors
/// One line that names the part which is no CPU number below `limit` and no range of such numbers.
pub fn parse(list: &str, limit: usize) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
            (Ok(first), Ok(last)) if first <= last && last < limit => cpus.extend(first..=last),
            _ => {
                return Err(format!(
                    "'{part}' is neither a CPU number below {limit} nor a range like 0-3"
                ));
            }
        }
    }
    Ok(cpus)
}

/// Lets the calling thread run on one CPU only.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: `cpu` lies within the set, checked above.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: 0 is the calling thread, and the set is as long as said.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) }).map(drop)
}
