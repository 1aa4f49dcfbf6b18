//! A process with fewer rights than the test: what containers' engines and other users' shells
//! start.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use crate::Place;
use crate::confine::{become_user, is_root, refuse, refuse_namespaces};

/// Who owns nothing and may nothing.
pub const NOBODY: u32 = 65_534;

/// Calls of ringmark that the default profile of Docker and of Podman refuses to processes without
/// CAP_SYS_ADMIN (github.com/moby/profiles, seccomp/default.json).
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

/// Makes the command's process one of a container, as far as its calls go.
pub fn confine(command: &mut Command) {
    refuse(command, &REFUSED_IN_CONTAINERS, libc::EPERM);
    refuse_namespaces(command);
}

/// Makes the command's process one of nobody's, if this is root's.
pub fn become_nobody(command: &mut Command) {
    if is_root() {
        become_user(command, NOBODY);
    }
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
        place.copy_programs();
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
