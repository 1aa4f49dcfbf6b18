//! Servers under strace(1), which sees every system call and can make one fail.

use std::fs;
use std::process::{Command, Stdio};

/// Starts as the tracer's parent: what strace is told to run stays our child, and signals and the
/// exit status are its own. strace itself goes when the server goes.
const STRACE: [&str; 4] = ["strace", "--daemonize=grandchild", "-f", "-qq"];

/// `command` under strace with these options.
pub fn under_strace(options: &[&str], command: &Command) -> Command {
    let [program, flags @ ..] = STRACE;
    let mut strace = Command::new(program);
    strace.args(flags).args(options).arg(command.get_program()).args(command.get_args());
    strace
}

/// Why strace cannot be used here, if it cannot.
pub fn why_no_strace() -> Option<String> {
    let options = ["-o", "/dev/null", "-e", "inject=chdir:error=EPERM"];
    match under_strace(&options, &Command::new("true")).stdin(Stdio::null()).output() {
        Err(error) => Some(format!("strace: {error}")),
        Ok(output) if output.status.success() && output.stderr.is_empty() => None,
        Ok(output) => Some(format!(
            "strace: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// A log in the build's scratch directory that goes away with its owner.
pub struct LogFile {
    pub path: String,
}

impl LogFile {
    /// Not there yet; no other may have the name.
    pub fn new(name: &str) -> Self {
        Self {
            path: format!("{}/strace-{name}-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id()),
        }
    }

    /// Returns the text that strace has written.
    pub fn read(&self) -> String {
        fs::read_to_string(&self.path).expect("strace has written its log")
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        // It may not exist, when strace did not start.
        let _ = fs::remove_file(&self.path);
    }
}
