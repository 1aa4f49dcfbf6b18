//! One server process: started on free ports, asked by signals, reaped whatever happens.

use super::confine::{before_exec, checked};
use super::{Client, PATIENCE, SERVER, eventually, eventually_by_steps, process};
use ringmark::address::Address;
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A running server that is ready. Dropping it kills and reaps it.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
    complaints: Option<JoinHandle<String>>,
    readings: Cell<usize>,
    /// The addresses on which it listens, in the order that it says.
    pub addresses: Vec<Address>,
    /// The line that it printed when it was ready.
    pub ready: Value,
}

/// The counts of a server so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// System calls by the kernel's name, all workers together.
    pub calls: BTreeMap<String, u64>,
    /// The counts of the loops.
    pub in_loop: BTreeMap<String, u64>,
    /// Connections that each worker has accepted, if there are several.
    pub accepted_by_worker: Vec<u64>,
}

/// How a server ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// The last line, if there was one.
    pub counters: Option<Counters>,
    /// All that it wrote to stderr.
    pub complaints: String,
}

/// The command that starts `backend` on free ports of the loopback.
pub fn command(backend: &str, arguments: &[&str]) -> Command {
    command_at("127.0.0.1:0", backend, arguments)
}

/// The same at another address.
pub fn command_at(address: &str, backend: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(&*SERVER);
    command.args(["--backend", backend, "--listen", address]).args(arguments);
    command
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub fn start(backend: &str, arguments: &[&str]) -> Self {
        Self::spawn(command(backend, arguments))
    }

    /// Starts a server by a command that was made ready elsewhere, and waits until it is ready.
    pub fn spawn(command: Command) -> Self {
        Self::launch(command).ready()
    }

    /// Starts a server, ready or not.
    pub fn launch(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        before_exec(&mut command, || {
            // SAFETY: this operation of prctl(2) takes no pointer.
            checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
        });
        let mut child = command.spawn().expect("the server starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut stderr = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let complaints = thread::spawn(move || {
            let mut text = Vec::new();
            // The lines before an error still tell more than the error.
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self {
            child,
            lines,
            complaints: Some(complaints),
            readings: Cell::new(0),
            addresses: Vec::new(),
            ready: Value::Null,
        }
    }

    /// The event of a server that was started with `--hold`, before it waits for a line.
    pub fn held(&self) -> Value {
        self.line("held")
    }

    /// Writes a line to its stdin: `--hold` waits for one, and obeys those that follow.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("a line is written");
    }

    /// Ends its stdin.
    pub fn abandon(&mut self) {
        self.child.stdin = None;
    }

    /// The counters that a line asked for, and the CPU time that the server says it has used.
    pub fn told_counters(&self) -> (Counters, u64) {
        let line = self.line("counters");
        (Counters::from_line(&line), line["cpu_ns"].as_u64().expect("a CPU time"))
    }

    /// The CPU time that it has used so far.
    pub fn cpu_ns(&self) -> u64 {
        process::cpu_ns(self.pid())
    }

    /// Waits until it is ready.
    pub fn ready(self) -> Self {
        self.ready_or_refused().unwrap_or_else(|reason| panic!("unsupported: {reason}"))
    }

    /// Waits until it is ready, or says why it cannot serve here with what it was told.
    pub fn ready_or_refused(mut self) -> Result<Self, String> {
        let line = self.any_line("ready");
        if line["event"] == "unsupported" {
            return Err(line["reason"].as_str().expect("a reason").to_owned());
        }
        assert_eq!(line["event"], "ready", "{line}");
        self.ready = line;
        self.addresses = self.ready["addresses"]
            .as_array()
            .expect("addresses in the ready line")
            .iter()
            .map(|address| address.as_str().and_then(|text| text.parse().ok()).expect("an address"))
            .collect();
        assert_eq!(self.ready["pid"], self.pid(), "the pid in the ready line");
        Ok(self)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns its first address.
    pub fn address(&self) -> &Address {
        &self.addresses[0]
    }

    /// A new connection to its first port.
    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// Asks for the counters so far.
    pub fn counters(&self) -> Counters {
        self.signal(libc::SIGUSR1);
        self.readings.set(self.readings.get() + 1);
        Counters::from_line(&self.line("counters"))
    }

    /// Asks for the counters many times at once. Signals that come together count as one, so it
    /// takes what lines there are; one that comes later still is a reading that is a little old.
    pub fn storm(&self, signals: usize) {
        (0..signals).for_each(|_| self.signal(libc::SIGUSR1));
        self.line("counters");
        while self.lines.recv_timeout(Duration::from_millis(20)).is_ok() {}
    }

    /// How often it has been asked for its counters.
    pub fn readings(&self) -> usize {
        self.readings.get()
    }

    /// Waits until a counter of the loop has reached a value.
    pub fn wait_for(&self, name: &str, value: u64) {
        eventually(
            &format!("`{name}` is {value}"),
            || self.counters().of(name),
            |found| *found == value,
        );
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) touches no memory; the child is not reaped before `self` ends, so the id
        // is its own.
        let result = unsafe { libc::kill(self.pid() as i32, signal) };
        assert_eq!(result, 0, "kill: {}", std::io::Error::last_os_error());
    }

    /// Stops the whole process; [`Self::resume`] lets it go on. A wait that was under way is
    /// interrupted by this: epoll_wait(2) fails with EINTR after SIGSTOP and SIGCONT even where
    /// nothing handles them, see signal(7).
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
        eventually(
            "all its threads are stopped",
            || process::states(self.pid()),
            |states| states.chars().all(|state| state == 'T'),
        );
    }

    /// Lets a stopped process go on.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
        eventually("the server runs again", || process::state(self.pid()), |state| *state != 'T');
    }

    /// Waits until it sleeps.
    pub fn wait_until_asleep(&self) {
        let is_server = || process::name(self.pid()) == "ringmark-server";
        eventually(
            "the server sleeps",
            || is_server() && process::state(self.pid()) == 'S',
            |asleep| *asleep,
        );
    }

    /// How many threads it has.
    pub fn thread_count(&self) -> usize {
        process::threads(self.pid()).len()
    }

    /// Open files of its main thread and its workers. Threads that the kernel makes for io_uring
    /// share the table of the worker that they are for.
    pub fn fd_count(&self) -> usize {
        process::fd_count(self.pid(), self.pid()) + self.worker_fd_counts().iter().sum::<usize>()
    }

    /// Returns the open files of its main thread, as proc_pid_fd(5) names them.
    pub fn open_files(&self) -> Vec<String> {
        process::open_files(self.pid())
    }

    /// Open files of each worker, in the order of the workers' threads.
    pub fn worker_fd_counts(&self) -> Vec<usize> {
        process::workers(self.pid())
            .iter()
            .map(|thread| process::fd_count(self.pid(), *thread))
            .collect()
    }

    /// Its resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        process::resident_bytes(self.pid())
    }

    /// Waits until it rests: in a tenth of a second hardly a call and hardly any CPU time, and at
    /// its end no thread that would run if it had a CPU. A loop that spins never gets there, and
    /// one that still moves bytes is waited for.
    pub fn wait_until_quiet(&self) {
        let read = || (self.counters().calls.values().sum::<u64>(), process::cpu_ticks(self.pid()));
        eventually_by_steps(
            "calls and CPU ticks in a tenth of a second are few",
            || self.bytes_moved(),
            || {
                let before = read();
                thread::sleep(Duration::from_millis(100));
                let runnable = process::has_runnable_thread(self.pid());
                let after = read();
                (after.0 - before.0, after.1 - before.1, runnable)
            },
            |(calls, ticks, runnable)| *calls <= 4 && *ticks <= 4 && !runnable,
        );
    }

    /// Bytes that it has received and sent so far.
    pub fn bytes_moved(&self) -> u64 {
        let counters = self.counters();
        counters.of("bytes_received") + counters.of("bytes_sent")
    }

    /// Asks it to end and waits until it has.
    pub fn terminate(self) -> Ended {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    /// Waits until it has ended.
    pub fn wait(mut self) -> Ended {
        let status = eventually(
            "the server has ended",
            || self.child.try_wait().expect("the child can be waited for"),
            Option::is_some,
        );
        let complaints =
            self.complaints.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        let counters = self.lines.iter().last().map(|line| {
            let line: Value = serde_json::from_str(&line).expect("JSON on stdout");
            assert_eq!(line["event"], "end", "the last line: {line}");
            Counters::from_line(&line)
        });
        Ended { status: status.expect("it has ended"), counters, complaints }
    }

    /// Asks it to end and checks that it does so in order and that its books balance.
    pub fn finish(self) -> Counters {
        self.terminate().in_order()
    }

    fn line(&self, event: &str) -> Value {
        let line = self.any_line(event);
        assert_eq!(line["event"], event, "{line}");
        line
    }

    /// The next line, whatever event it tells of; `event` is what is waited for.
    fn any_line(&self, event: &str) -> Value {
        let line = self
            .lines
            .recv_timeout(*PATIENCE)
            .unwrap_or_else(|error| panic!("no `{event}` line: {error}"));
        serde_json::from_str(&line).expect("JSON on stdout")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The child may have been reaped by `wait`; kill and wait then do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let started = Instant::now();
            while self.complaints.as_ref().is_some_and(|reader| !reader.is_finished()) {
                if started.elapsed() > Duration::from_secs(1) {
                    return;
                }
                thread::sleep(Duration::from_millis(2));
            }
            if let Some(text) = self.complaints.take().and_then(|reader| reader.join().ok()) {
                eprintln!("the server's stderr: {text:?}");
            }
        }
    }
}

impl Counters {
    fn from_line(line: &Value) -> Self {
        let section = |name: &str| {
            let counts =
                line[name].as_object().unwrap_or_else(|| panic!("`{name}` missing in {line}"));
            counts
                .iter()
                .map(|(name, value)| (name.clone(), value.as_u64().expect("a count")))
                .collect()
        };
        let by_worker = line["accepted_by_worker"].as_array().into_iter().flatten();
        let accepted_by_worker = by_worker.filter_map(Value::as_u64).collect();
        Self { calls: section("calls"), in_loop: section("loop"), accepted_by_worker }
    }

    /// A counter of the loop.
    pub fn of(&self, name: &str) -> u64 {
        *self
            .in_loop
            .get(name)
            .unwrap_or_else(|| panic!("no counter `{name}` in {:?}", self.in_loop))
    }

    /// The calls that were made since `before`, without those that were not made at all.
    pub fn calls_since(&self, before: &Self) -> BTreeMap<String, u64> {
        let since = |name: &String| before.calls.get(name).copied().unwrap_or(0);
        self.calls
            .iter()
            .map(|(name, count)| (name.clone(), count - since(name)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

impl Ended {
    /// Checks that an echo ended as [`Self::well`] says, and that the books of its last line
    /// balance.
    pub fn in_order(self) -> Counters {
        let counters = self.well();
        let (sent, abandoned) = (counters.of("bytes_sent"), counters.of("bytes_abandoned"));
        assert_eq!(
            counters.of("bytes_received"),
            sent + abandoned,
            "bytes in and out: {counters:?}"
        );
        counters
    }

    /// Checks that it ended with status 0, all connections closed, and without a panic.
    pub fn well(self) -> Counters {
        assert!(self.status.success(), "{}: {}", self.status, self.complaints);
        assert!(!self.complaints.contains("panicked"), "{}", self.complaints);
        let counters = self.counters.expect("a last line");
        assert_eq!(
            counters.of("accepted"),
            counters.of("closed"),
            "accepted and closed at the end"
        );
        assert_eq!(counters.of("open"), 0, "open at the end");
        counters
    }
}
