//! A supervised process that speaks by lines.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::supervisor;
use crate::machine::network_namespace::NetworkNamespace;
use crate::machine::process_tree::Tree;
use crate::matrix::external::visible;

/// How long a program may take to answer what it should answer at once.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(20);

/// How long a program that has closed its pipes may take to end, and its last words to come.
pub(super) const LAST_WORDS_TIME: Duration = Duration::from_secs(2);

/// How long after its connections broke a server that died may take to be gone.
pub(super) const DEATH_TIME: Duration = Duration::from_millis(200);

/// How long what was killed may take to be gone: a server of a million connections closes them
/// first.
pub(super) const END_TIME: Duration = Duration::from_secs(20);

/// What comes between a trial and its end.
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

    /// Whether every wait shall end.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Keeps that a program was stopped by a signal, as SIGSTOP, so that time passed without it.
    pub fn note_suspended(&self, program: &'static str) {
        self.suspended.lock().unwrap_or_else(PoisonError::into_inner).insert(program);
    }

    /// The programs that were stopped since this was asked last.
    pub fn take_suspended(&self) -> Vec<&'static str> {
        let mut suspended = self.suspended.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *suspended).into_iter().collect()
    }
}

/// Whether a child that lives was stopped, or continued after that, since this was asked last.
pub fn was_suspended(child: u32) -> bool {
    // SAFETY: all zeros are a siginfo_t, to which the kernel writes during the call; only a child
    // of this process that is not reaped has the number, and no other state of it is taken than the
    // one that nobody else waits for.
    unsafe {
        let mut found: libc::siginfo_t = std::mem::zeroed();
        let states = libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG;
        libc::waitid(libc::P_PID, child, &mut found, states) == 0 && found.si_pid() != 0
    }
}

/// A program that ended because the person asked for it.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct WasInterrupted;

/// A running program. Killed and reaped when dropped.
pub struct Process {
    pub(super) name: &'static str,
    pub(super) child: Child,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) lines: Receiver<String>,
    pub(super) errors: Receiver<String>,
    pub(super) interruptions: Interruptions,
    /// Whether it ends others, and then itself, once its stdin ends; killed, it could not.
    pub(super) ends_with_stdin: bool,
}

impl Process {
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
        let mut child = command.spawn().with_context(|| format!("start the {name}"))?;
        let lines = child.stdout.take().map_or_else(|| mpsc::channel().1, lines_of);
        let errors = child.stderr.take().map_or_else(|| mpsc::channel().1, lines_of);
        let stdin = child.stdin.take();
        let interruptions = interruptions.clone();
        Ok(Self { name, child, stdin, lines, errors, interruptions, ends_with_stdin: false })
    }

    /// Keeps whether it was stopped by a signal. One that has ended does not tell any more.
    pub(super) fn note_suspended(&mut self) {
        // What a supervisor watches is no child of this process.
        let is_told = || self.lines.try_iter().any(|line| line == supervisor::SUSPENDED);
        let suspended =
            if self.ends_with_stdin { is_told() } else { was_suspended(self.child.id()) };
        if suspended {
            self.interruptions.note_suspended(self.name);
        }
    }

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

    pub(super) fn hear(&mut self, time: Duration) -> Result<String> {
        let deadline = Instant::now() + time;
        loop {
            if self.interruptions.is_wanted() {
                bail!(WasInterrupted);
            }
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

    /// Why the program is no longer there, in its own words if it left some.
    pub(super) fn ended(&mut self) -> anyhow::Error {
        let status = self.wait(LAST_WORDS_TIME);
        // The pipe may be read later than the end is noticed, and is open as long as anything holds
        // it.
        let deadline = Instant::now() + LAST_WORDS_TIME;
        let mut words = None;
        while let Ok(line) =
            self.errors.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            // What a panic says first is more than its advice at the end.
            let panicked =
                words.as_ref().is_some_and(|words: &String| words.contains("panicked at"));
            words = Some(line).filter(|line| !line.trim().is_empty() && !panicked).or(words);
        }
        match (words, status) {
            (Some(words), _) => anyhow!("{words}"),
            (None, Ok(status)) => anyhow!("the {} ended without a word ({status})", self.name),
            (None, Err(error)) => error,
        }
    }

    pub(super) fn wait(&mut self, time: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(status) =
                self.child.try_wait().with_context(|| format!("wait for the {}", self.name))?
            {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("the {} did not end within {} s", self.name, time.as_secs());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Signals all processes of its group, which is its own until it is reaped.
    pub(super) fn signal_group(&mut self, signal: libc::c_int) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SAFETY: takes no pointer. The leader is not reaped yet, so the number is still that
            // of its group.
            unsafe { libc::kill(-(self.child.id() as libc::pid_t), signal) };
        }
    }

    /// Ends it within `time`, or returns the processes that are left.
    pub(super) fn end(&mut self, time: Duration) -> Vec<u32> {
        self.note_suspended();
        // What cannot be killed, such as a command that runs as another user, leaves with the end
        // of its stdin.
        self.stdin = None;
        if !self.ends_with_stdin {
            self.signal_group(libc::SIGKILL);
        }
        if self.wait(time).is_ok() {
            return Vec::new();
        }
        let pid = self.child.id();
        let mut left = Tree::read(pid, pid).map_or_else(|_| vec![pid], Tree::into_pids);
        if self.ends_with_stdin {
            left.retain(|&left| left != pid);
            self.signal_group(libc::SIGKILL);
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
                "ringmark: the {} was killed and has not ended within {} s: it may run as another user, or wait in the \
                 kernel; look at the processes that are left: ps -p {}",
                self.name,
                END_TIME.as_secs(),
                left.join(",")
            );
        }
    }
}

/// The lines of a pipe, read on a thread so that the program never waits for its reader.
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

/// Has the kernel kill a program when the thread that starts it ends (PR_SET_PDEATHSIG).
pub fn end_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: prctl and getppid are single system calls, safe between fork and exec.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            if libc::getppid() as u32 != parent {
                return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// The line that a program prints before it ends.
pub fn line_of(command: Command) -> Result<String> {
    let mut program = Process::start("program", command, None, &Interruptions::default())?;
    program.hear(ANSWER_TIME)
}
