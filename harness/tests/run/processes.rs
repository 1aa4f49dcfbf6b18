//! Runs that have not ended, and what /proc says of them and of the processes that they start.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A run that has not ended; it is killed when the test ends.
pub struct Running(Option<Child>);

impl Running {
    /// Starts a command whose output only its end shows.
    pub fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(command.spawn().unwrap()))
    }

    pub fn pid(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    pub fn signal(&self, number: libc::c_int) {
        signal(self.pid(), number);
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    pub fn end(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A process: its number, and when it began, because numbers are used again.
#[derive(Debug, PartialEq)]
pub struct Process(pub u32, String);

impl Process {
    pub fn runs(&self) -> bool {
        stat(self.0).is_some_and(|fields| fields[19] == self.1 && fields[0] != "Z")
    }
}

/// Processes that are killed when the test ends, if they still run.
#[derive(Debug)]
pub struct Children<const N: usize>(pub [Process; N]);

impl<const N: usize> Children<N> {
    pub fn are_gone(&self) -> bool {
        !self.0.iter().any(Process::runs)
    }
}

impl<const N: usize> Drop for Children<N> {
    fn drop(&mut self) {
        for child in self.0.iter().filter(|child| child.runs()) {
            // SAFETY: takes no pointer. The number was just found to be still that of the process.
            unsafe { libc::kill(child.0 as libc::pid_t, libc::SIGKILL) };
        }
    }
}

/// Sends a signal to a process that was just found to run.
pub fn signal(pid: u32, number: libc::c_int) {
    // SAFETY: takes no pointer. The process is a child that is not reaped yet, or is below one.
    assert_eq!(unsafe { libc::kill(pid as libc::pid_t, number) }, 0);
}

/// Returns the fields of /proc/PID/stat from the state on, which is field 3 (proc_pid_stat(5)).
pub fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

pub fn arguments(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

pub fn children_of(parent: u32) -> Vec<Process> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        match stat(pid) {
            Some(fields) if fields[1] == parent.to_string() => {
                children.push(Process(pid, fields[19].clone()));
            }
            _ => {}
        }
    }
    children
}

/// Returns the children whose program has this name, and is `ringmark load` where that is asked
/// for.
pub fn children_named(parent: u32, name: &str) -> Vec<Process> {
    let mut children = children_of(parent);
    children.retain(|child| {
        let words = arguments(child.0);
        let program = words[0].rsplit('/').next().unwrap_or_default();
        program == name || words.get(1).is_some_and(|first| format!("{program} {first}") == name)
    });
    children
}

#[track_caller]
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        sleep(Duration::from_millis(5));
    }
}

/// Waits until something holds.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}
