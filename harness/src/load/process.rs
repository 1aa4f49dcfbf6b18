//! What the load asks of the kernel for its own process and threads, each call made and checked in
//! one place.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::Socket;

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Confines the calling thread, and the threads that it starts later, to `cpus`
/// (sched_setaffinity(2)).
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: `cpu` was just found to lie within the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is live, its size is the one given, and the kernel only reads it.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) })
}

/// CPU that all threads of this process have used, user and system, in ns (clock_gettime(2)).
pub fn cpu_ns() -> io::Result<u64> {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the kernel fills `time` when it returns 0, which `check` makes sure of before it is read.
    let time = unsafe {
        check(libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, time.as_mut_ptr()))?;
        time.assume_init()
    };
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_nanos() as u64)
}

/// Leaves the choice of the source port to connect(), which may then use one that other destinations
/// use too (IP_BIND_ADDRESS_NO_PORT, ip(7), Linux 4.2).
pub fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` is live, its size is the one given, and the kernel only reads it.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    })
}
