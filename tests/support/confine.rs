//! Takes rights from the process that a command starts, as sandboxes, containers' engines and other
//! users' shells do. Tests of the server and of the harness include this file.
#![allow(dead_code, reason = "each test program uses a part of this")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The numbers of two capabilities (capability.h).
pub const CAP_IPC_LOCK: libc::c_int = 14;
pub const CAP_SYS_ADMIN: libc::c_int = 21;

/// Flags of clone(2) that ask for a namespace: CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS,
/// CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET.
const NEW_NAMESPACES: u32 = 0x7E02_0000;

/// Offsets in struct seccomp_data (seccomp(2)): the call's number, and the lower half of its first
/// argument.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

/// Instructions of classic BPF.
const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JUMP_IF_ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

fn step(code: u32, operand: u32, on_true: usize, on_false: usize) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: on_true as u8, jf: on_false as u8, k: operand }
}

fn fail_with(errno: i32) -> libc::sock_filter {
    step(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0)
}

fn allow() -> libc::sock_filter {
    step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0)
}

/// Makes these calls fail with `errno` in the command's process and in all that it starts.
pub fn refuse(command: &mut Command, calls: &[libc::c_long], errno: i32) {
    let mut filter = vec![step(LOAD, NUMBER, 0, 0)];
    for (index, call) in calls.iter().enumerate() {
        filter.push(step(JUMP_IF_EQUAL, *call as u32, calls.len() - index, 0));
    }
    filter.extend([allow(), fail_with(errno)]);
    install(command, filter);
}

/// Makes every way to a namespace of one's own fail: clone(2) by its flags, and clone3(2), whose
/// flags a filter cannot read, as if the kernel had none.
pub fn refuse_namespaces(command: &mut Command) {
    let filter = vec![
        step(LOAD, NUMBER, 0, 0),
        step(JUMP_IF_EQUAL, libc::SYS_clone3 as u32, 4, 0),
        step(JUMP_IF_EQUAL, libc::SYS_clone as u32, 0, 4),
        step(LOAD, FIRST_ARGUMENT, 0, 0),
        step(JUMP_IF_ANY_BIT, NEW_NAMESPACES, 0, 2),
        fail_with(libc::EPERM),
        fail_with(libc::ENOSYS),
        allow(),
    ];
    install(command, filter);
}

fn install(command: &mut Command, mut filter: Vec<libc::sock_filter>) {
    before_exec(command, move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: prctl(2) reads the program and the filter, which live across both calls and
        // whose length is the one given.
        unsafe {
            checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            checked(libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ))
        }
    });
}

/// Limits the files that the command's process may open.
pub fn limit_open_files(command: &mut Command, files: u64) {
    let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
    // SAFETY: setrlimit(2) reads the limit, which the closure owns.
    before_exec(command, move || checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }));
}

/// Limits the memory that the command's process may lock, as for a user without CAP_IPC_LOCK.
pub fn limit_locked_memory(command: &mut Command, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    before_exec(command, move || {
        // Fails without CAP_SETPCAP. Who lacks that has no CAP_IPC_LOCK to lose.
        let _ = drop_own_capability(CAP_IPC_LOCK);
        // SAFETY: setrlimit(2) reads the limit, which the closure owns.
        checked(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) })
    });
}

/// Takes a capability from the command's process, if it has any.
pub fn drop_capability(command: &mut Command, capability: libc::c_int) {
    before_exec(command, move || {
        // Fails for whoever is not root and has no capability to lose.
        let _ = drop_own_capability(capability);
        Ok(())
    });
}

/// Root does not have after exec what the bounding set lacks (capabilities(7)).
fn drop_own_capability(capability: libc::c_int) -> io::Result<()> {
    // SAFETY: this operation of prctl(2) takes no pointer.
    checked(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })
}

/// Makes the command's process, which is root's, one of a user that needs no name.
pub fn become_user(command: &mut Command, id: u32) {
    // SAFETY: setgroups(2) reads no groups; the other calls take no pointer.
    before_exec(command, move || unsafe {
        checked(libc::setgroups(0, std::ptr::null()))?;
        checked(libc::setgid(id))?;
        checked(libc::setuid(id))
    });
}

/// Tells whether the test may do everything.
pub fn is_root() -> bool {
    // SAFETY: takes no pointer, and never fails.
    unsafe { libc::geteuid() == 0 }
}

/// Converts what a system call returned.
pub fn checked(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the command's process do this between fork and exec: `action` makes system calls only, and
/// allocates nothing.
pub fn before_exec(
    command: &mut Command,
    action: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: all callers pass plain system calls on what their closure owns; an io::Error from
    // errno does not allocate.
    unsafe { command.pre_exec(action) };
}
