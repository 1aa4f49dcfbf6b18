//! A program that runs and speaks by lines.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Signal;
use serde::de::DeserializeOwned;

use super::child::{SUSPENDED, end_with_parent, signal_group, was_suspended};
use super::marks::Mark;
use crate::machine::network_namespace::NetworkNamespace;
use crate::machine::process_tree::Tree;
use crate::matrix::external::visible;

/// How long a program may take to answer what it should answer at once.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(20);

/// How long a program that has closed its pipes may take to end, and its last words to come.
pub(super) const LAST_WORDS_TIME: Duration = Duration::from_secs(2);

/// How long a server that died may take to be gone after its connections broke.
pub(super) const DEATH_TIME: Duration = Duration::from_millis(200);

/// How long a killed program may take to be gone: a server of a million connections closes them
/// first.
pub(super) const END_TIME: Duration = Duration::from_secs(20);

/// The signals that interrupt a trial.
#[derive(Clone, Debug, Default)]
pub struct Interruptions {
    wanted: Arc<AtomicBool>,
    suspended: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Interruptions {
    /// Ends every wait, as the second Ctrl-C wants.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Returns whether every wait shall end.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Fails if every wait shall end.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_wanted() { bail!("interrupted") } else { Ok(()) }
    }

    /// Keeps that a program was stopped by a signal, as SIGSTOP, so that time passed without it.
    pub fn note_suspended(&self, program: &'static str) {
        self.suspended.lock().unwrap_or_else(PoisonError::into_inner).insert(program);
    }

    /// Returns the programs that were stopped since this was asked last.
    pub fn take_suspended(&self) -> Vec<&'static str> {
        let mut suspended = self.suspended.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *suspended).into_iter().collect()
    }
}

/// The last words of a program that has ended.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LastWords(pub String);

/// Returns whether a program ended because its port was taken. A program has only words for that:
/// ours prints the kernel's "Address already in use", and so do most others.
pub fn is_port_taken(error: &anyhow::Error) -> bool {
    let words = error.downcast_ref::<LastWords>();
    words.is_some_and(|LastWords(words)| words.to_lowercase().contains("in use"))
}

/// A running program. Killed and reaped when dropped.
pub struct Process {
    name: &'static str,
    pub(super) child: Child,
    stdin: Option<ChildStdin>,
    pub(super) lines: Receiver<String>,
    pub(super) errors: Receiver<String>,
    pub(super) interruptions: Interruptions,
    /// Whether it ends others, and then itself, once its stdin ends; killed, it could not.
    pub(super) ends_with_stdin: bool,
}

impl Process {
    /// Starts a program.
    pub(super) fn start(
        name: &'static str,
        mut command: Command,
        namespace: Option<&NetworkNamespace>,
        interruptions: &Interruptions,
    ) -> Result<Self> {
        if let Some(namespace) = namespace {
            namespace.apply(&mut command);
        }
        // Out of the terminal's process group: Ctrl-C is for the harness, which ends its programs
        // itself.
        command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A harness that is killed takes its programs along.
        end_with_parent(&mut command);
        if let Some(mark) = Mark::of(name) {
            mark.set_in(&mut command);
        }
        let mut child = command.spawn().with_context(|| format!("start the {name}"))?;
        Ok(Self {
            name,
            lines: child.stdout.take().map_or_else(|| mpsc::channel().1, lines_of),
            errors: child.stderr.take().map_or_else(|| mpsc::channel().1, lines_of),
            stdin: child.stdin.take(),
            child,
            interruptions: interruptions.clone(),
            ends_with_stdin: false,
        })
    }

    /// Keeps whether it was stopped by a signal. A program that has ended tells no more.
    fn note_suspended(&mut self) {
        let is_suspended = if self.ends_with_stdin {
            // The server is the supervisor's child.
            self.lines.try_iter().any(|line| line == SUSPENDED)
        } else {
            was_suspended(&self.child)
        };
        if is_suspended {
            self.interruptions.note_suspended(self.name);
        }
    }

    /// Gives it a command.
    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        self.note_suspended();
        let name = self.name;
        let stdin =
            self.stdin.as_mut().with_context(|| format!("the {name} takes no more commands"))?;
        if writeln!(stdin, "{line}").is_err() {
            return Err(self.ended());
        }
        Ok(())
    }

    /// Waits for its next line.
    pub(super) fn hear(&mut self, time: Duration) -> Result<String> {
        let deadline = Instant::now() + time;
        loop {
            self.interruptions.check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(Duration::from_millis(100))) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    bail!("the {} did not answer within {} s", self.name, time.as_secs());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits for its next line, which is JSON.
    pub(super) fn hear_json<T: DeserializeOwned>(&mut self, time: Duration) -> Result<T> {
        let line = self.hear(time)?;
        serde_json::from_str(&line)
            .with_context(|| format!("unexpected output from the {}: {line}", self.name))
    }

    /// Returns why it is no longer there: its last words, or how it ended.
    pub(super) fn ended(&mut self) -> anyhow::Error {
        let status = self.wait(LAST_WORDS_TIME);
        // The pipe may be read later than the end is noticed, and is open as long as any process
        // holds it.
        let deadline = Instant::now() + LAST_WORDS_TIME;
        let mut words = None;
        while let Ok(line) =
            self.errors.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            // The first line of a panic says more than its advice at the end.
            let panicked =
                words.as_ref().is_some_and(|words: &String| words.contains("panicked at"));
            words = Some(line).filter(|line| !line.trim().is_empty() && !panicked).or(words);
        }
        match (words, status) {
            (Some(words), _) => LastWords(words).into(),
            (None, Ok(status)) => anyhow!("the {} ended without a word ({status})", self.name),
            (None, Err(error)) => error,
        }
    }

    /// Returns whether it has ended.
    pub(super) fn has_ended(&mut self) -> Result<bool> {
        let ended = self.child.try_wait();
        Ok(ended.with_context(|| format!("wait for the {}", self.name))?.is_some())
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self, time: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + time;
        loop {
            let ended = self.child.try_wait();
            if let Some(status) = ended.with_context(|| format!("wait for the {}", self.name))? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("the {} did not end within {} s", self.name, time.as_secs());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Gives it no more commands.
    pub(super) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has left in order, after it was told to or with the end of its stdin.
    pub(super) fn leave(mut self) -> Result<()> {
        self.close_stdin();
        if self.wait(ANSWER_TIME)?.success() { Ok(()) } else { Err(self.ended()) }
    }

    fn kill_group(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal_group(&self.child, Signal::KILL);
        }
    }

    /// Ends it within `time`, or returns the processes that are left.
    fn end(&mut self, time: Duration) -> Vec<u32> {
        self.note_suspended();
        // A command that runs as another user cannot be killed; it leaves with the end of its
        // stdin.
        self.close_stdin();
        if !self.ends_with_stdin {
            self.kill_group();
        }
        if self.wait(time).is_ok() {
            return Vec::new();
        }
        let pid = self.child.id();
        let mut left = Tree::read(pid, pid).map_or_else(|_| vec![pid], Tree::into_pids);
        if self.ends_with_stdin {
            left.retain(|&left| left != pid);
            self.kill_group();
        }
        left
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let left = self.end(END_TIME);
        if !left.is_empty() {
            let left: Vec<_> = left.iter().map(u32::to_string).collect();
            eprintln!(
                "ringmark: the {} was killed and has not ended within {} s: it may run as another \
                 user, or wait in the kernel; look at the processes that are left: ps -p {}",
                self.name,
                END_TIME.as_secs(),
                left.join(",")
            );
        }
    }
}

/// Reads the lines of a pipe on a thread, so that the program never waits for its reader.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(std::result::Result::ok) {
            if sender.send(visible(&String::from_utf8_lossy(&line))).is_err() {
                return;
            }
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

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
        // As long as one is traced by another process than its parent, its parent does not see its
        // end (ptrace(2)).
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
}
