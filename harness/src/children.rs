//! The programs of a trial, each spoken to by lines: the server, the load, and, where a workload
//! asks for it, one that keeps the CPUs from halting.

mod external;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ringmark::backend;
use ringmark::sys::Call;
use serde::Deserialize;

use crate::external::{External, supervisor, visible};
use crate::instruments::affinity::CpuList;
use crate::instruments::cpu::Tasks;
use crate::instruments::idle_spinner;
use crate::instruments::network_namespace::NetworkNamespace;
use crate::instruments::process_tree::Tree;
use crate::load::result::{LatencyUs, LoadEvent};
use crate::sides::{Sides, Way, Whereabouts};
pub use external::version;

/// How long a program may take to answer what it should answer at once.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// How long a program that has closed its pipes may take to end, and its last words to come.
const LAST_WORDS_TIME: Duration = Duration::from_secs(2);

/// How long after its connections broke a server that died may take to be gone.
const DEATH_TIME: Duration = Duration::from_millis(200);

/// Before what a server said at its end.
const UNDER_LOAD: &str = "under load";

/// How long a server may take to notice that the client has reset connections.
const RESET_TIME: Duration = Duration::from_secs(2);

/// How long what was killed may take to be gone: a server of a million connections closes them
/// first.
const END_TIME: Duration = Duration::from_secs(20);

/// How long the port of an io_uring server that was killed may stay taken: the kernel tears its
/// rings down after it has ended.
const PORT_TIME: Duration = Duration::from_secs(5);

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
struct Program {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
    interruptions: Interruptions,
    /// Whether it ends others, and then itself, once its stdin ends; killed, it could not.
    ends_with_stdin: bool,
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

impl Program {
    fn start(
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
    fn note_suspended(&mut self) {
        // What a supervisor watches is no child of this process.
        let is_told = || self.lines.try_iter().any(|line| line == supervisor::SUSPENDED);
        let suspended =
            if self.ends_with_stdin { is_told() } else { was_suspended(self.child.id()) };
        if suspended {
            self.interruptions.note_suspended(self.name);
        }
    }

    fn say(&mut self, line: &str) -> Result<()> {
        self.note_suspended();
        let name = self.name;
        let stdin =
            self.stdin.as_mut().with_context(|| format!("the {name} takes no more commands"))?;
        if writeln!(stdin, "{line}").is_err() {
            return Err(self.ended());
        }
        Ok(())
    }

    fn hear(&mut self, time: Duration) -> Result<String> {
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
    fn ended(&mut self) -> anyhow::Error {
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

    fn wait(&mut self, time: Duration) -> Result<ExitStatus> {
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
    fn signal_group(&mut self, signal: libc::c_int) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SAFETY: takes no pointer. The leader is not reaped yet, so the number is still that
            // of its group.
            unsafe { libc::kill(-(self.child.id() as libc::pid_t), signal) };
        }
    }

    /// Ends it within `time`, or returns the processes that are left.
    fn end(&mut self, time: Duration) -> Vec<u32> {
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

impl Drop for Program {
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
    let mut program = Program::start("program", command, None, &Interruptions::default())?;
    program.hear(ANSWER_TIME)
}

/// What a server says.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum ServerEvent {
    Held(Whereabouts),
    Ready { knobs: serde_json::Value, in_force: serde_json::Value, addresses: Vec<SocketAddr> },
    Unsupported { reason: String },
    Counters(ServerCounters),
    End(ServerCounters),
}

/// The server's own counters, all workers summed. What never happened is not in the maps of calls.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ServerCounters {
    /// System calls by name.
    pub calls: BTreeMap<String, u64>,
    /// What the loops did; which names there are is the backend's affair.
    #[serde(rename = "loop")]
    pub loops: BTreeMap<String, u64>,
    /// CPU time of its process, threads that have ended included.
    pub cpu_ns: Option<u64>,
    /// How accept failed in it last, if it did.
    #[serde(default)]
    pub accept_error: Option<String>,
    /// Threads that io_uring has made in it.
    #[serde(default)]
    pub kernel_threads: KernelThreads,
    /// Whether they are of a server that is not ours and has none: then there is `open`, as it is
    /// seen from outside, and a 0 of anything else says nothing.
    #[serde(skip)]
    pub is_from_outside: bool,
}

/// Threads that io_uring has made in a server, by its own account.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct KernelThreads {
    /// io-wq workers.
    pub io_wq: u64,
    /// SQPOLL threads.
    pub sqpoll: u64,
}

impl ServerCounters {
    /// Whether its workers have done nothing since an earlier reading.
    pub fn is_still_since(&self, earlier: &Self) -> bool {
        (&self.calls, &self.loops) == (&earlier.calls, &earlier.loops)
    }

    /// A loop counter, 0 if this server has none of that name.
    pub fn of_loop(&self, name: &str) -> u64 {
        self.loops.get(name).copied().unwrap_or(0)
    }

    /// How often a call was made.
    pub fn of_call(&self, name: &str) -> u64 {
        self.calls.get(name).copied().unwrap_or(0)
    }

    /// Events for each of the calls that wait for them, since an earlier reading; none if there was
    /// no such wait or no event, as with a thread for each connection.
    pub fn events_per_wait_since(&self, earlier: &Self) -> Option<f64> {
        let waits =
            |counters: &Self| WAITS.map(|call| counters.of_call(call.name())).iter().sum::<u64>();
        let waits = waits(self) - waits(earlier);
        let events = self.of_loop("events") - earlier.of_loop("events");
        (waits > 0 && events > 0).then(|| events as f64 / waits as f64)
    }
}

/// The calls that wait for events.
const WAITS: [Call; 6] = [
    Call::EpollWait,
    Call::EpollPwait,
    Call::IoUringEnter,
    Call::Poll,
    Call::Ppoll,
    Call::Pselect6,
];

/// The kernel refuses the backend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RefusedByKernel(String);

/// The measured server.
pub struct Server {
    program: Program,
    pid: Option<u32>,
    /// Whether it is not ours: then the program is its supervisor.
    is_external: bool,
    /// Its knobs, as JSON.
    pub knobs: String,
    /// What is in force in it, as JSON.
    pub in_force: String,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
}

/// How to start a server.
pub struct ServerPlan<'a> {
    /// The server, if it is not ours; what follows is then of no use to it but for the workers and
    /// the CPUs.
    pub external: Option<&'a External>,
    /// The program.
    pub binary: &'a Path,
    /// The backend.
    pub backend: &'a str,
    /// Its `--set`s.
    pub settings: &'a [String],
    /// Worker threads.
    pub workers: u16,
    /// The first of its ports, where others cannot have taken it.
    pub first_port: u16,
    /// Ports, dealt to them in turn.
    pub ports: u16,
    /// CPUs to pin them to; empty: none.
    pub cpus: &'a str,
    /// Where it is started, if the run has a command for either side.
    pub sides: Option<&'a Sides>,
}

impl Server {
    /// Starts it, calls `held` while it waits in `--hold`, and lets it go on until it is ready.
    /// `held` gets its number, if it is to be seen here.
    pub fn start(
        plan: &ServerPlan<'_>,
        namespace: Option<&NetworkNamespace>,
        interruptions: &Interruptions,
        mut held: impl FnMut(Option<u32>),
    ) -> Result<Self> {
        if let Some(external) = plan.external {
            return external::start(external, plan, namespace, interruptions, held);
        }
        let deadline = Instant::now() + PORT_TIME;
        loop {
            match Self::start_once(plan, namespace, interruptions, &mut held) {
                // Where the command leads it there is no fresh namespace in which all ports are
                // free.
                Err(error)
                    if plan.sides.is_some()
                        && format!("{error:#}").contains("Address already in use")
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(100));
                }
                outcome => return outcome,
            }
        }
    }

    fn start_once(
        plan: &ServerPlan<'_>,
        namespace: Option<&NetworkNamespace>,
        interruptions: &Interruptions,
        held: &mut dyn FnMut(Option<u32>),
    ) -> Result<Self> {
        let here = Way::default();
        let way = plan.sides.map_or(&here, |sides| &sides.server.way);
        let mut command = way.command(plan.binary);
        command.args(["--hold", "--backend", plan.backend, "--workers", &plan.workers.to_string()]);
        // A namespace of its own has every port free, and where a command leads the ports are known
        // beforehand. In the host's network the server takes free ones, and says which: others may
        // be looking for some too.
        let is_own = namespace.is_some() || plan.sides.is_some();
        let port = if is_own { plan.first_port } else { 0 };
        let address = plan.sides.map_or(Ipv4Addr::LOCALHOST.into(), |sides| sides.server_address);
        command.args(["--listen", &SocketAddr::new(address, port).to_string()]);
        command.args(["--ports", &plan.ports.to_string()]);
        if !plan.cpus.is_empty() {
            command.args(["--cpus", plan.cpus]);
        }
        command.args(plan.settings.iter().flat_map(|setting| ["--set", setting]));
        let start = || -> Result<_> {
            let mut program = Program::start("server", command, namespace, interruptions)?;
            match parse(&program.hear(ANSWER_TIME)?)? {
                ServerEvent::Held(whereabouts) => {
                    plan.sides.inspect(|sides| sides.server.note(&whereabouts));
                    Ok((program, whereabouts.pid_here()))
                }
                other => bail!("the server should say that it is held, but says {other:?}"),
            }
        };
        let (mut program, pid) = start().map_err(|error| way.blame(error))?;
        held(pid);
        program.say("")?;
        let line = program.hear(ANSWER_TIME)?;
        match parse(&line)? {
            ServerEvent::Ready { knobs, in_force, addresses } => {
                let (knobs, in_force) = (knobs.to_string(), in_force.to_string());
                ensure!(
                    are_consecutive(&addresses),
                    "the server's ports do not follow one another: {addresses:?}"
                );
                Ok(Self { program, pid, is_external: false, knobs, in_force, addresses })
            }
            ServerEvent::Unsupported { reason } => bail!(RefusedByKernel(reason)),
            other => bail!("the server should say that it is ready, but says {other:?}"),
        }
    }

    /// Its process, if it is to be seen here. What was started may be another one, which has
    /// started this.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Whether it is not ours, and tells nothing of itself.
    pub fn is_external(&self) -> bool {
        self.is_external
    }

    /// Its process, and those that it has started, if it is to be seen here.
    pub fn processes(&self) -> std::io::Result<Option<Tree>> {
        let tree = |pid| match self.is_external {
            true => Tree::read(pid, self.program.child.id()),
            false => Ok(Tree::alone(pid)),
        };
        self.pid.map(tree).transpose()
    }

    /// The tasks of all of them.
    pub fn tasks(&self) -> std::io::Result<Option<Tasks>> {
        self.processes()?.map(|processes| processes.sum(Tasks::read)).transpose()
    }

    /// Its counters now.
    pub fn counters(&mut self) -> Result<ServerCounters> {
        if self.is_external() {
            return self.counters_from_outside();
        }
        self.program.say("counters")?;
        match parse(&self.program.hear(ANSWER_TIME)?)? {
            ServerEvent::Counters(counters) => Ok(counters),
            other => bail!("the server should give its counters, but says {other:?}"),
        }
    }

    /// If the server has ended, that, in its own words; else what went wrong with the other side.
    pub fn blame(&mut self, error: anyhow::Error) -> anyhow::Error {
        // Its last words are said once.
        if error.to_string() == UNDER_LOAD {
            return error;
        }
        match self.program.wait(DEATH_TIME) {
            Ok(_) => self.program.ended().context(UNDER_LOAD),
            _ => error,
        }
    }

    /// What comes of a look at it. If that fails because it has ended, the error is its end.
    pub fn blaming<T>(&mut self, look: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        look(self).map_err(|error| self.blame(error))
    }

    /// Waits until the server itself counts `connections`.
    pub fn await_open(&mut self, connections: u64) -> Result<()> {
        let deadline = Instant::now() + ANSWER_TIME;
        loop {
            let open = self.counters()?.of_loop("open");
            if open == connections {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the server holds {open} connections where the client holds {connections}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its counters once it holds `open` connections and has accepted `accepted`, or what they are
    /// when it has not come to that in time: of connections that were reset it learns a little
    /// later.
    pub fn counters_after_churn(&mut self, open: u64, accepted: u64) -> Result<ServerCounters> {
        let deadline = Instant::now() + RESET_TIME;
        loop {
            let counters = self.counters()?;
            let is_done = counters.of_loop("open") == open
                && (counters.is_from_outside || counters.of_loop("accepted") == accepted);
            if is_done || Instant::now() >= deadline {
                return Ok(counters);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it in order.
    pub fn stop(mut self) -> Result<ServerCounters> {
        if self.is_external() {
            return self.stop_external();
        }
        self.program.say("stop")?;
        let counters = match parse(&self.program.hear(ANSWER_TIME)?)? {
            ServerEvent::End(counters) => counters,
            other => bail!("the server should end, but says {other:?}"),
        };
        match self.program.wait(ANSWER_TIME)? {
            status if status.success() => Ok(counters),
            _ => Err(self.program.ended()),
        }
    }
}

/// The first port of the servers.
pub const FIRST_PORT: u16 = backend::document::SERVER_PORT;

/// Whether the load, which is told the first port and their number, finds all of them.
fn are_consecutive(addresses: &[SocketAddr]) -> bool {
    addresses.windows(2).all(|pair| pair[0].port().checked_add(1) == Some(pair[1].port()))
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

fn parse(line: &str) -> Result<ServerEvent> {
    serde_json::from_str(line)
        .with_context(|| format!("the server said what cannot be understood: {line}"))
}

/// The program that keeps CPUs from halting. It is none of the server's and the load's, so that its
/// CPU is not theirs.
pub struct IdleSpinner {
    program: Program,
}

impl IdleSpinner {
    /// Starts it, and returns once a thread spins on each of the CPUs.
    pub fn start(cpus: &CpuList, interruptions: &Interruptions) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.args([idle_spinner::VERB, "--cpus", &cpus.to_string()]);
        let mut program = Program::start("idle spinner", command, None, interruptions)?;
        match program.hear(ANSWER_TIME)?.as_str() {
            idle_spinner::READY => Ok(Self { program }),
            other => bail!("the idle spinner should say that it spins, but says {other:?}"),
        }
    }

    /// Ends it in order.
    pub fn end(mut self) -> Result<()> {
        self.program.stdin = None;
        match self.program.wait(ANSWER_TIME)? {
            status if status.success() => Ok(()),
            _ => Err(self.program.ended()),
        }
    }
}

/// The load, waiting for commands.
pub struct Load {
    program: Program,
    pid: Option<u32>,
    connections: usize,
    /// What to say when it reaches no server.
    hint: Option<String>,
}

impl Load {
    /// Starts it with the given arguments besides those of the dialogue.
    pub fn start<S: AsRef<OsStr>>(
        arguments: impl IntoIterator<Item = S>,
        sides: Option<&Sides>,
        namespace: Option<&NetworkNamespace>,
        interruptions: &Interruptions,
    ) -> Result<Self> {
        let here = Way::default();
        let way = sides.map_or(&here, |sides| &sides.load.way);
        let mut command = way.command(&std::env::current_exe().context("find this program")?);
        command.args(["load", "--json", "--commands"]).args(arguments);
        let start = || -> Result<_> {
            let mut program = Program::start("load", command, namespace, interruptions)?;
            match parse_load(&program.hear(ANSWER_TIME)?)? {
                LoadEvent::Started(whereabouts) => {
                    sides.inspect(|sides| sides.load.note(&whereabouts));
                    Ok((program, whereabouts.pid_here()))
                }
                other => bail!("the load should say that it has started, but says {other:?}"),
            }
        };
        let (program, pid) = start().map_err(|error| way.blame(error))?;
        let hint = sides.map(|Sides { server_address, .. }| {
            format!(
                "--server-address {server_address} must be an address of the server's side that the load's side reaches"
            )
        });
        Ok(Self { program, pid, connections: 0, hint })
    }

    /// Its process, if it is to be seen here.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Gives a command that is answered by one line, within `time`.
    pub fn command(&mut self, line: &str, time: Duration) -> Result<LoadEvent> {
        self.program.say(line)?;
        self.next(time)
    }

    /// The next line.
    pub fn next(&mut self, time: Duration) -> Result<LoadEvent> {
        parse_load(&self.program.hear(time)?)
    }

    /// Connections that stand.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Opens or closes connections until `count` stand; how long the opening of each took.
    pub fn set_connections(&mut self, count: usize) -> Result<LatencyUs> {
        let event = self.command(&format!("connections {count}"), Duration::from_secs(120));
        let event = match self.hint.clone().filter(|_| self.connections == 0) {
            Some(hint) => event.context(hint),
            None => event,
        };
        match event? {
            LoadEvent::Connections { connections, connect_us, .. } if connections == count => {
                self.connections = count;
                Ok(connect_us)
            }
            other => bail!("the load should hold {count} connections, but says {other:?}"),
        }
    }

    /// Ends it in order.
    pub fn quit(mut self) -> Result<()> {
        self.program.say("quit")?;
        self.program.stdin = None;
        match self.program.wait(ANSWER_TIME)? {
            status if status.success() => Ok(()),
            _ => Err(self.program.ended()),
        }
    }
}

fn parse_load(line: &str) -> Result<LoadEvent> {
    serde_json::from_str(line)
        .with_context(|| format!("the load said what cannot be understood: {line}"))
}
