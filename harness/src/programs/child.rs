//! Child processes: they end with their parent, and it knows whether one was suspended.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getppid, kill_process_group,
    set_parent_process_death_signal, waitid,
};

/// The event that `ringmark supervise` prints once its server was suspended.
pub const SUSPENDED: &str = "ringmark supervise: the server was suspended";

/// Has the kernel kill a program when the thread that starts it ends (PR_SET_PDEATHSIG).
pub fn end_with_parent(command: &mut Command) {
    let parent = i32::try_from(std::process::id()).ok().and_then(Pid::from_raw);
    let prepare = move || -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before that.
        if getppid() == parent { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // SAFETY: prctl and getppid are single system calls, safe between fork and exec; an io::Error
    // from an errno does not allocate.
    unsafe { command.pre_exec(prepare) };
}

/// Returns whether a child that lives was stopped by a signal, or continued after that, since this
/// was asked last.
pub fn was_suspended(child: &Child) -> bool {
    let states = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
    matches!(waitid(WaitId::Pid(Pid::from_child(child)), states), Ok(Some(_)))
}

/// Signals all processes of a child's group, which is its own. The child must not be reaped yet:
/// the number is the group's until then.
pub fn signal_group(child: &Child, signal: Signal) {
    // All of them may have ended meanwhile.
    let _ = kill_process_group(Pid::from_child(child), signal);
}
