#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use super::process::{END_TIME, Interruptions, Process};

fn sleep(seconds: &str) -> Command {
    let mut command = Command::new("sleep");
    command.arg(seconds);
    command
}

#[test]
fn what_does_not_end_is_left_and_named() {
    let mut program =
        Process::start("program", sleep("600"), None, &Interruptions::default()).unwrap();
    let pid = program.child.id();
    // As long as one is traced by another process than its parent, its parent does not see its end
    // (ptrace(2)).
    let mut tracer = sleep("30");
    // SAFETY: ptrace is a single system call, safe between fork and exec; PTRACE_SEIZE takes no
    // pointer but null.
    unsafe {
        tracer.pre_exec(move || {
            let null = std::ptr::null_mut::<libc::c_void>();
            match libc::ptrace(libc::PTRACE_SEIZE, pid as libc::pid_t, null, null) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let mut tracer = match tracer.spawn() {
        // Not every machine lets one trace its siblings (Yama's ptrace_scope).
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => return,
        tracer => tracer.unwrap(),
    };
    assert_eq!(program.end(Duration::from_millis(50)), [pid]);
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    assert_eq!(program.end(END_TIME), [0; 0]);
}
