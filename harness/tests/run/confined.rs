//! A process with fewer rights than the test: what containers' engines and other users' shells
//! start.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::Place;

/// Who owns nothing and may nothing.
pub const NOBODY: u32 = 65_534;

/// What the default profile of Docker and of Podman refuses to processes without CAP_SYS_ADMIN, of
/// what ringmark calls (github.com/moby/profiles, seccomp/default.json).
const REFUSED_IN_CONTAINERS: [libc::c_long; 9] = [
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_perf_event_open,
    libc::SYS_bpf,
];

/// CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID,
/// CLONE_NEWNET.
const NEW_NAMESPACES: u32 = 0x7E02_0000;

/// Where seccomp_data has the number of the call, and the lower half of its first argument
/// (seccomp(2)).
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

fn instruction(code: u32, operand: u32, on_true: usize, on_false: usize) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: on_true as u8, jf: on_false as u8, k: operand }
}

fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn jump_if_equal(to: libc::c_long, on_true: usize, on_false: usize) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, to as u32, on_true, on_false)
}

fn answer(action: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}

/// Makes these calls fail with EPERM in the command's process and in all that it starts.
pub fn refuse(command: &mut Command, calls: &[libc::c_long]) {
    let refusal = |index: usize| jump_if_equal(calls[index], calls.len() - index, 0);
    let mut filter = vec![load(NUMBER)];
    filter.extend((0..calls.len()).map(refusal));
    filter.extend([
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ]);
    install(command, filter);
}

/// Makes the command's process one of a container, as far as its calls go.
pub fn confine(command: &mut Command) {
    refuse(command, &REFUSED_IN_CONTAINERS);
    // A process in a namespace of its own is refused; clone3, whose flags a filter cannot read, is
    // said to be missing.
    install(
        command,
        vec![
            load(NUMBER),
            jump_if_equal(libc::SYS_clone3, 4, 0),
            jump_if_equal(libc::SYS_clone, 0, 4),
            load(FIRST_ARGUMENT),
            instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, NEW_NAMESPACES, 0, 2),
            answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
            answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
            answer(libc::SECCOMP_RET_ALLOW),
        ],
    );
}

fn install(command: &mut Command, mut filter: Vec<libc::sock_filter>) {
    // SAFETY: between fork and exec only prctl(2) is called, with a program that the closure owns
    // and whose length is the one given; an io::Error from errno does not allocate.
    unsafe {
        command.pre_exec(move || {
            let program =
                libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            checked(libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ))
        });
    }
}

/// Makes the command's process one of nobody's, if this is root's.
pub fn become_nobody(command: &mut Command) {
    if is_root() {
        become_user(command, NOBODY);
    }
}

/// Makes the command's process, which is root's, one of a user that needs no name.
pub fn become_user(command: &mut Command, id: u32) {
    // SAFETY: between fork and exec three plain system calls are made; setgroups reads no groups.
    unsafe {
        command.pre_exec(move || {
            checked(libc::setgroups(0, std::ptr::null()))?;
            checked(libc::setgid(id))?;
            checked(libc::setuid(id))
        });
    }
}

/// Takes a capability from root's process.
pub fn drop_capability(command: &mut Command, capability: libc::c_ulong) {
    // SAFETY: between fork and exec one plain system call is made, which takes no pointer. What the
    // bounding set lacks, root does not have after exec (capabilities(7)).
    unsafe {
        command.pre_exec(move || checked(libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0)))
    };
}

fn checked(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bounds the memory that the command's process may lock, if it has no capability to do so all the
/// same.
pub fn limit_locked_memory(command: &mut Command, bytes: u64) {
    // SAFETY: between fork and exec one plain system call is made, which reads a local.
    unsafe {
        command.pre_exec(move || {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            checked(libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit))
        });
    }
}

/// Whether the test may do everything.
pub fn is_root() -> bool {
    // SAFETY: takes no pointer, and never fails.
    unsafe { libc::geteuid() == 0 }
}

/// A place that is nobody's, with programs that nobody can start.
pub struct Commons {
    pub place: Place,
}

impl Commons {
    pub fn with(matrix: &str) -> Self {
        let place = Place::with(matrix);
        let folder = place.path("");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let built = Path::new(env!("CARGO_BIN_EXE_ringmark"));
        for name in ["ringmark", "ringmark-server"] {
            fs::copy(built.with_file_name(name), folder.join(name)).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        if is_root() {
            chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self { place }
    }

    /// One of its programs.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.place.path(program));
        command.current_dir(self.place.path(""));
        command
    }

    /// The same as nobody, by the rules of a container.
    pub fn confined(&self, program: &str) -> Command {
        let mut command = self.command(program);
        become_nobody(&mut command);
        confine(&mut command);
        command
    }
}
