//! All threads of the load, driven from the main one: connections up and down, and runs.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use ringmark::cpus::{self, CpuList};

use super::latency;
use super::pace::Budget;
use super::part::log;
use super::plan::LoadPlan;
use super::process::monotonic_ns;
use super::result::{LatencyUs, LoadEvent, LoadResult};
use super::schedule::OpenLoop;
use super::shared::{RunOrder, Shared, ThreadResult};
use super::thread::LoadThread;
use super::totals::{Parts, RunTotals};
use super::warmup::{self, Settling};

/// An order to a thread, which rests between orders.
#[derive(Clone, Copy)]
enum ThreadCommand {
    Connections(usize),
    Run(RunOrder),
}

/// All that reaches the main thread, in one queue so that it can wait for all at once.
pub enum MainEvent {
    /// A thread's connections stand; how long the opening of each took, in ns.
    Stand(Histogram<u64>),
    /// A thread's run is over.
    Ran(Box<ThreadResult>),
    /// A thread has ended.
    Failed(Error),
    /// SIGINT.
    Interrupted,
    /// A line of stdin.
    Line(String),
    /// The end of stdin.
    Eof,
}

/// The word for which a part of a load waits after its warm-up.
pub const MEASURE: &str = "measure";

const CONNECTED: &str = "a thread of the load connected where it should run; this is a bug";

pub struct ThreadPool {
    shared: Arc<Shared>,
    commands: Vec<Sender<ThreadCommand>>,
    threads: Vec<JoinHandle<()>>,
    events: Receiver<MainEvent>,
    /// Lines of stdin that came while the main thread waited for something else.
    later: VecDeque<MainEvent>,
    connections: usize,
    cpus: usize,
    /// The runs so far.
    runs: u64,
}

impl ThreadPool {
    /// Starts the threads. `sender` feeds `events`.
    pub fn start(
        plan: LoadPlan,
        sender: &Sender<MainEvent>,
        events: Receiver<MainEvent>,
    ) -> Result<Self> {
        if !plan.cpus.is_empty() {
            cpus::pin(&plan.cpus).with_context(|| {
                format!(
                    "--cpus: this process may not run on any of {:?}; see `taskset -p $$`",
                    plan.cpus
                )
            })?;
        }
        let cpus = CpuList::allowed().context("sched_getaffinity")?.cpus().len().min(plan.threads);
        let shared = Arc::new(Shared::new(plan));
        let (mut commands, mut threads) = (Vec::new(), Vec::new());
        for thread in 0..shared.plan.threads {
            let (command, inbox) = mpsc::channel();
            let (shared, sender) = (shared.clone(), sender.clone());
            let handle = std::thread::Builder::new()
                .name(format!("load-{thread}"))
                .spawn(move || work(shared, thread, &inbox, &sender))
                .context("starting a thread")?;
            commands.push(command);
            threads.push(handle);
        }
        let later = VecDeque::new();
        Ok(Self { shared, commands, threads, events, later, connections: 0, cpus, runs: 0 })
    }

    /// Returns whether this is a part of a load.
    pub fn is_part(&self) -> bool {
        self.shared.plan.part.has_others()
    }

    /// Returns what was kept for later, or what comes next.
    fn next_event(&mut self) -> Result<MainEvent> {
        Ok(self.later.pop_front().map_or_else(|| self.events.recv(), Ok)?)
    }

    /// Returns the next line of stdin; None at its end.
    pub fn next_line(&mut self) -> Result<Option<String>> {
        loop {
            match self.next_event()? {
                MainEvent::Line(line) => return Ok(Some(line)),
                MainEvent::Eof => return Ok(None),
                MainEvent::Interrupted => bail!("interrupted"),
                MainEvent::Failed(error) => return Err(error),
                MainEvent::Stand(_) | MainEvent::Ran(_) => {}
            }
        }
    }

    /// Opens or closes connections until `connections` stand.
    pub fn set_connections(&mut self, connections: usize) -> Result<LoadEvent> {
        let most = self.shared.plan.connections;
        ensure!(
            connections <= most,
            "connections {connections}: more than the {most} of --connections"
        );
        let start = Instant::now();
        self.tell(ThreadCommand::Connections(connections));
        let mut connect_ns = latency::histogram();
        for _ in 0..self.threads.len() {
            match self.wait(None)? {
                Some(MainEvent::Stand(part)) => connect_ns += part,
                Some(MainEvent::Interrupted) => bail!(
                    "interrupted after {} of {connections} connections",
                    self.shared.connected.load(Relaxed)
                ),
                _ => bail!("a thread of the load ran where it should connect; this is a bug"),
            }
        }
        self.connections = connections;
        Ok(LoadEvent::Connections {
            connections,
            connect_s: start.elapsed().as_secs_f64(),
            opened: connect_ns.len(),
            connect_us: LatencyUs::of(&connect_ns),
            connect_log: self.is_part().then(|| log(&connect_ns, start.elapsed())).transpose()?,
        })
    }

    /// Makes the run that the options ask for. With a barrier it waits after its warm-up for the
    /// word that the other parts of the load have come so far.
    pub fn run_as_planned(
        &mut self,
        has_barrier: bool,
        report: &mut dyn FnMut(LoadEvent) -> Result<()>,
    ) -> Result<LoadResult> {
        self.run(self.shared.plan.budget, self.shared.plan.open, has_barrier, report)
    }

    /// Makes one run: sends what `budget` allows, by the schedule of `open` if it is given. Tells
    /// `report` when the window begins and ends, and returns when every echo is back. Only timed
    /// runs warm up.
    pub fn run(
        &mut self,
        budget: Budget,
        open: Option<OpenLoop>,
        has_barrier: bool,
        report: &mut dyn FnMut(LoadEvent) -> Result<()>,
    ) -> Result<LoadResult> {
        ensure!(self.connections > 0, "no connection stands; send `connections N` first");
        let shared = self.shared.clone();
        let active = self.connections.min(shared.plan.active);
        let own_active = shared.plan.own(active);
        shared.forget_echoes();
        let (mut parts, timed, mut interrupted) = (Vec::new(), budget.duration(), false);
        let (warmup_start_ns, cpu_begun_ns) = (monotonic_ns(), cpu_ns()?);
        let runs_before = self.runs;
        self.runs += 1;
        let order = RunOrder { budget, active, open, start_ns: warmup_start_ns, runs_before };
        if timed.is_some() {
            shared.window.set(u64::MAX, u64::MAX);
            self.tell(ThreadCommand::Run(order));
            interrupted = self.warm_up(open.is_none().then_some(own_active), &mut parts)?;
        }
        if has_barrier && !interrupted {
            report(LoadEvent::Warm)?;
            interrupted = self.await_others(&mut parts)?;
        }
        let cpu_before_ns = cpu_ns()?;
        let (wall_start, start_ns) = (SystemTime::now(), monotonic_ns());
        let planned_end_ns = match timed {
            _ if interrupted => start_ns,
            Some(duration) => start_ns.saturating_add(duration.as_nanos() as u64),
            None => u64::MAX,
        };
        shared.window.set(start_ns, planned_end_ns);
        report(LoadEvent::Measuring)?;
        if timed.is_none() {
            self.tell(ThreadCommand::Run(RunOrder { start_ns, ..order }));
        }
        let until = timed.map(|_| {
            Instant::now() + Duration::from_nanos(planned_end_ns.saturating_sub(monotonic_ns()))
        });
        interrupted |= self.collect(&mut parts, until)?;
        let cpu_after_ns = cpu_ns()?;
        let late_ns = monotonic_ns().saturating_sub(shared.window.end_ns());
        report(LoadEvent::Measured)?;
        interrupted |= self.collect(&mut parts, None)?;
        let end_ns = match timed {
            Some(_) => shared.window.end_ns(),
            None => end_of_last(&parts).unwrap_or(start_ns),
        };
        let totals = RunTotals {
            connections: shared.plan.own(self.connections),
            active: own_active,
            cpus: self.cpus,
            open,
            warmup_s: timed.map(|_| (start_ns - warmup_start_ns) as f64 / 1e9),
            wall_start,
            start_ns,
            end_ns,
            ended_ns: monotonic_ns(),
            client_cpu_ns: cpu_after_ns - cpu_before_ns,
            cpu_in_all_ns: cpu_ns()? - cpu_begun_ns,
            late_ns,
            echoes_in_all: shared.echoes(),
            parts,
            interrupted,
        };
        totals.result(&shared.plan)
    }

    /// Resets all connections and ends the threads.
    pub fn quit(self) {
        drop(self.commands);
        for thread in self.threads {
            // A panic has been reported as an event already.
            let _ = thread.join();
        }
    }

    /// Waits for the longest warm-up. A closed loop's, of so many active connections, ends when the
    /// rate has settled and each has made two echoes on average: the first are all begun at once.
    /// Returns whether SIGINT came.
    fn warm_up(&mut self, closed: Option<usize>, parts: &mut Parts) -> Result<bool> {
        let deadline = Instant::now() + self.shared.plan.warmup_max;
        let mut settling = Settling::default();
        let (mut since, mut before) = (Instant::now(), self.shared.echoes());
        loop {
            let next = (since + warmup::WINDOW).min(deadline);
            match self.wait(Some(next))? {
                Some(MainEvent::Ran(part)) => parts.push(part),
                Some(MainEvent::Interrupted) => return Ok(true),
                Some(_) => bail!(CONNECTED),
                None => {
                    let (now, count) = (Instant::now(), self.shared.echoes());
                    let rate_per_s = (count - before) as f64 / (now - since).as_secs_f64();
                    let is_settled = settling.push(rate_per_s)
                        && closed.is_some_and(|active| count >= 2 * active as u64);
                    if now >= deadline || is_settled {
                        return Ok(false);
                    }
                    (since, before) = (now, count);
                }
            }
        }
    }

    /// Waits for the word that all parts of the load have warmed up; the threads go on meanwhile.
    /// Returns whether SIGINT came.
    fn await_others(&mut self, parts: &mut Parts) -> Result<bool> {
        loop {
            match self.next_event()? {
                MainEvent::Line(line) if line.trim() == MEASURE => return Ok(false),
                MainEvent::Line(line) => bail!("command `{line}`: `{MEASURE}` is due"),
                MainEvent::Eof => bail!("the commands ended where `{MEASURE}` was due"),
                MainEvent::Interrupted => return Ok(true),
                MainEvent::Failed(error) => return Err(error),
                MainEvent::Ran(part) => parts.push(part),
                MainEvent::Stand(_) => bail!(CONNECTED),
            }
        }
    }

    /// Gathers the threads' results, until all have answered or until `until`. SIGINT ends the
    /// window, or the wait after it. Returns whether it came.
    fn collect(&mut self, parts: &mut Parts, until: Option<Instant>) -> Result<bool> {
        let mut interrupted = false;
        while parts.len() < self.threads.len() {
            match self.wait(until)? {
                Some(MainEvent::Ran(part)) => parts.push(part),
                None => break,
                Some(MainEvent::Interrupted) => {
                    let (window, now_ns) = (&self.shared.window, monotonic_ns());
                    interrupted = true;
                    if now_ns >= window.end_ns() {
                        window.give_up_at_once();
                    } else {
                        window.set(window.start_ns(), now_ns);
                        break;
                    }
                }
                Some(_) => bail!(CONNECTED),
            }
        }
        Ok(interrupted)
    }

    fn tell(&self, command: ThreadCommand) {
        for inbox in &self.commands {
            // A thread that has ended has left the reason in `events`.
            let _ = inbox.send(command);
        }
    }

    /// Waits for a thread, SIGINT or `until` (None), and keeps lines of stdin for later.
    fn wait(&mut self, until: Option<Instant>) -> Result<Option<MainEvent>> {
        loop {
            let event = match until {
                None => self.events.recv()?,
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    match self.events.recv_timeout(left) {
                        Err(RecvTimeoutError::Timeout) => return Ok(None),
                        event => event?,
                    }
                }
            };
            match event {
                MainEvent::Failed(error) => return Err(error),
                MainEvent::Line(_) | MainEvent::Eof => self.later.push_back(event),
                event => return Ok(Some(event)),
            }
        }
    }
}

/// Reads the CPU clock of this process.
fn cpu_ns() -> Result<u64> {
    ringmark::process::cpu_ns().context("process CPU clock")
}

/// Returns when the last echo came back, with which a fixed number of them ends.
fn end_of_last(parts: &Parts) -> Option<u64> {
    parts.iter().map(|part| part.last_ns).max().filter(|&last_ns| last_ns > 0)
}

/// Lives a thread's life, and reports how it ended if by an error or a panic.
fn work(
    shared: Arc<Shared>,
    thread: usize,
    commands: &Receiver<ThreadCommand>,
    events: &Sender<MainEvent>,
) {
    let outcome = catch_unwind(AssertUnwindSafe(|| live(shared, thread, commands, events)));
    let outcome =
        outcome.unwrap_or_else(|_| Err(anyhow!("a thread of the load panicked; this is a bug")));
    if let Err(error) = outcome {
        let _ = events.send(MainEvent::Failed(error));
    }
}

/// Carries out commands and answers each, until no more can come.
fn live(
    shared: Arc<Shared>,
    thread: usize,
    commands: &Receiver<ThreadCommand>,
    events: &Sender<MainEvent>,
) -> Result<()> {
    let mut thread = LoadThread::new(shared, thread)?;
    while let Ok(command) = commands.recv() {
        let answer = match command {
            ThreadCommand::Connections(total) => MainEvent::Stand(thread.set_connections(total)?),
            ThreadCommand::Run(order) => MainEvent::Ran(Box::new(thread.run(order)?)),
        };
        // The main thread listens as long as it gives commands.
        let _ = events.send(answer);
    }
    Ok(())
}
