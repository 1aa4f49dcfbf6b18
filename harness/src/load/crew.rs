//! All threads of the load, driven from the main one: connections up and down, and runs.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use ringmark::cpus::{self, CpuList};

use super::latency::Latencies;
use super::pace::{Budget, Window};
use super::plan::Plan;
use super::process::monotonic_ns;
use super::result::{Arrival, ChurnResult, LatencyUs, LoadEvent, LoadResult, OpenResult};
use super::schedule::OpenLoop;
use super::warmup::{self, Settling};
use super::worker::{Owed, Progress, Shared, Tally, Worker};
use super::{fairness, latency};

/// What a thread is told to do. It rests between orders.
#[derive(Clone, Copy)]
enum Order {
    Connections(usize),
    Run { budget: Budget, active: usize, open: Option<OpenLoop>, start_ns: u64 },
}

/// What a thread has to say once it has carried out its order.
pub enum Answer {
    /// Its connections stand; how long the opening of each took, in ns.
    Stand(Histogram<u64>),
    /// Its run is over.
    Ran(Box<Tally>),
}

/// What reaches the main thread, in one queue so that it can wait for all at once.
pub enum Message {
    /// A thread has carried out its order.
    Done(Result<Answer>),
    /// SIGINT.
    Interrupted,
    /// A line of stdin.
    Line(String),
    /// The end of stdin.
    Eof,
}

/// What was waited for.
enum Woken {
    Done(Answer),
    Interrupted,
    Timeout,
}

pub struct Crew {
    shared: Arc<Shared>,
    orders: Vec<Sender<Order>>,
    threads: Vec<JoinHandle<()>>,
    messages: Receiver<Message>,
    /// Lines of stdin that came while something else was waited for.
    waiting: VecDeque<Message>,
    connections: usize,
    cpus: usize,
}

impl Crew {
    /// Starts the threads. `sender` feeds `messages`.
    pub fn start(
        plan: Plan,
        sender: &Sender<Message>,
        messages: Receiver<Message>,
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
        let progress = (0..plan.threads).map(|_| Progress::default()).collect();
        let (window, connected) = (Window::new(plan.drain_max), AtomicU64::new(0));
        let shared = Arc::new(Shared { plan, window, connected, progress });
        let (mut orders, mut threads) = (Vec::new(), Vec::new());
        for thread in 0..shared.plan.threads {
            let (order, inbox) = mpsc::channel();
            let (shared, sender) = (shared.clone(), sender.clone());
            let handle = std::thread::Builder::new()
                .name(format!("load-{thread}"))
                .spawn(move || work(shared, thread, &inbox, &sender))
                .context("starting a thread")?;
            orders.push(order);
            threads.push(handle);
        }
        let waiting = VecDeque::new();
        Ok(Self { shared, orders, threads, messages, waiting, connections: 0, cpus })
    }

    /// The next line of stdin; None at its end.
    pub fn next_line(&mut self) -> Result<Option<String>> {
        loop {
            let message = match self.waiting.pop_front() {
                Some(message) => message,
                None => self.messages.recv()?,
            };
            match message {
                Message::Line(line) => return Ok(Some(line)),
                Message::Eof => return Ok(None),
                Message::Interrupted => bail!("interrupted"),
                Message::Done(outcome) => drop(outcome?),
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
        self.tell(Order::Connections(connections));
        let mut connect_ns = latency::histogram()?;
        for _ in 0..self.threads.len() {
            match self.wait(None)? {
                Woken::Done(Answer::Stand(part)) => latency::merge(&mut connect_ns, &part)?,
                Woken::Done(Answer::Ran(_)) => {
                    bail!("a thread of the load ran where it should connect; this is a bug")
                }
                Woken::Interrupted | Woken::Timeout => bail!(
                    "interrupted after {} of {connections} connections",
                    self.shared.connected.load(Relaxed)
                ),
            }
        }
        self.connections = connections;
        Ok(LoadEvent::Connections {
            connections,
            connect_s: start.elapsed().as_secs_f64(),
            opened: connect_ns.len(),
            connect_us: LatencyUs::of(&connect_ns),
        })
    }

    /// Makes one run: sends what `budget` allows, by the schedule of `open` if it is given, reports
    /// the ends of the window to `report`, and returns when every echo is back. Only timed runs
    /// warm up.
    pub fn run(
        &mut self,
        budget: Budget,
        open: Option<OpenLoop>,
        report: &mut dyn FnMut(LoadEvent) -> Result<()>,
    ) -> Result<LoadResult> {
        ensure!(self.connections > 0, "no connection stands; send `connections N` first");
        let shared = self.shared.clone();
        let active = self.connections.min(shared.plan.active);
        for of_thread in &shared.progress {
            of_thread.echoes.store(0, Relaxed);
        }
        let mut run = Run::default();
        let timed = match budget {
            Budget::Timed(duration) => Some(duration),
            _ => None,
        };
        let warmup_start_ns = monotonic_ns();
        if timed.is_some() {
            shared.window.set(u64::MAX, u64::MAX);
            self.tell(Order::Run { budget, active, open, start_ns: warmup_start_ns });
            self.warm_up(open.is_none().then_some(active), &mut run)?;
        }
        let cpu_before_ns = ringmark::process::cpu_ns().context("process CPU clock")?;
        let (wall, start_ns) = (SystemTime::now(), monotonic_ns());
        let planned_end_ns = match timed {
            _ if run.interrupted => start_ns,
            Some(duration) => start_ns.saturating_add(duration.as_nanos() as u64),
            None => u64::MAX,
        };
        shared.window.set(start_ns, planned_end_ns);
        report(LoadEvent::Measuring)?;
        if timed.is_none() {
            self.tell(Order::Run { budget, active, open, start_ns });
        }
        let until = timed.map(|_| {
            Instant::now() + Duration::from_nanos(planned_end_ns.saturating_sub(monotonic_ns()))
        });
        self.collect(&mut run, until)?;
        let client_cpu_ns =
            ringmark::process::cpu_ns().context("process CPU clock")? - cpu_before_ns;
        // The CPU of what came after the window is in that clock too.
        let late_ns = monotonic_ns().saturating_sub(shared.window.end_ns());
        report(LoadEvent::Measured)?;
        self.collect(&mut run, None)?;

        run.times = Times {
            warmup_s: if timed.is_some() { (start_ns - warmup_start_ns) as f64 / 1e9 } else { 0.0 },
            start_ns,
            // A fixed number of echoes ends with its last one.
            end_ns: if timed.is_some() {
                shared.window.end_ns()
            } else {
                run.last_ns().unwrap_or(start_ns)
            },
            ended_ns: monotonic_ns(),
            late_ns,
        };
        self.result(&run, active, timed.is_some(), open, client_cpu_ns, wall)
    }

    /// What the run has come to.
    fn result(
        &self,
        run: &Run,
        active: usize,
        is_timed: bool,
        open: Option<OpenLoop>,
        client_cpu_ns: u64,
        wall: SystemTime,
    ) -> Result<LoadResult> {
        let plan = &self.shared.plan;
        let Times { start_ns, end_ns, warmup_s, late_ns, .. } = run.times;
        let mut latencies = Latencies::new()?;
        for tally in &run.tallies {
            latencies.add(&tally.latencies)?;
        }
        let window_ns = end_ns.saturating_sub(start_ns).max(1);
        let duration_s = window_ns as f64 / 1e9;
        let histogram_log = match &plan.histogram {
            Some(_) => {
                Some(latency::log(&latencies.latency_ns, wall, Duration::from_nanos(window_ns))?)
            }
            None => None,
        };
        let echoes = run.sum(|tally| tally.echoes);
        let fairness = match (is_timed, open) {
            (true, None) => fairness::of(&run.echoes_by_connection(active), plan.ports),
            _ => None,
        };
        let open = open.map(|open| OpenResult {
            rate_per_s: open.rate_per_s,
            offered_per_s: match is_timed {
                true => latencies.latency_ns.len() as f64 / duration_s,
                // A number that is given is offered until the last one is due, whenever it comes
                // back.
                false => {
                    latencies.latency_ns.len() as f64 / (run.asked_s() + 1.0 / open.rate_per_s)
                }
            },
            late_sends: run.sum(|tally| tally.late_sends),
            unsent: run.sum(|tally| tally.unsent),
            service_us: latencies.service_us(),
            send_lag_us: LatencyUs::of(&latencies.send_lag_ns),
        });
        let mut result = LoadResult {
            connections: self.connections,
            active_connections: active,
            message_bytes: plan.message_bytes,
            pipeline_depth: plan.pipeline,
            arrival: plan
                .open
                .filter(|_| open.is_some())
                .map_or(Arrival::Closed, |open| open.arrival),
            duration_s,
            warmup_s,
            warmup_echoes: run.sum(|tally| tally.warmup_echoes),
            echoes,
            bytes: echoes * plan.message_bytes,
            achieved_per_s: echoes as f64 / duration_s,
            latency_us: latencies.latency_us(),
            open,
            churn: self.churn(run, duration_s)?,
            fairness,
            client_cpu_ns,
            client_cpu_ratio: client_cpu_ns as f64 / (window_ns as f64 * self.cpus as f64),
            threads: plan.threads,
            file_table: plan.file_tables.words(),
            seed: plan.seed,
            interrupted: run.interrupted,
            saturated: None,
            window_start_ns: Some(start_ns),
            window_end_ns: Some(end_ns),
            longest_gap_ns: run
                .tallies
                .iter()
                .map(|tally| tally.longest_gap_ns)
                .max()
                .max(Some(late_ns)),
            histogram_log,
        };
        result.saturated = result.saturation(run.owed(), run.drained_s(is_timed));
        Ok(result)
    }

    /// What has been measured of connections that replaced others.
    fn churn(&self, run: &Run, duration_s: f64) -> Result<Option<ChurnResult>> {
        let Some(echoes_each) = self.shared.plan.churn else { return Ok(None) };
        let mut connect_ns = latency::histogram()?;
        for part in run.tallies.iter().filter_map(|tally| tally.connect_ns.as_ref()) {
            latency::merge(&mut connect_ns, part)?;
        }
        Ok(Some(ChurnResult {
            echoes_each,
            opened: connect_ns.len(),
            connections_per_s: connect_ns.len() as f64 / duration_s,
            connect_us: LatencyUs::of(&connect_ns),
            opened_in_all: run.sum(|tally| tally.opened),
        }))
    }

    /// Resets all connections and ends the threads.
    pub fn quit(self) {
        drop(self.orders);
        for thread in self.threads {
            // A panic has been reported as a message already.
            let _ = thread.join();
        }
    }

    /// Waits for the longest warm-up, or in a closed loop, of so many active connections, until the
    /// rate has settled and each has made two echoes on average: the first are all begun at once.
    /// An open loop's rate is given.
    fn warm_up(&mut self, closed: Option<usize>, run: &mut Run) -> Result<()> {
        let deadline = Instant::now() + self.shared.plan.warmup_max;
        let mut settling = Settling::default();
        let (mut since, mut before) = (Instant::now(), self.shared.echoes());
        loop {
            let next = (since + warmup::WINDOW).min(deadline);
            match self.wait(Some(next))? {
                Woken::Done(answer) => run.add(answer)?,
                Woken::Interrupted => {
                    run.interrupted = true;
                    return Ok(());
                }
                Woken::Timeout => {
                    let (now, count) = (Instant::now(), self.shared.echoes());
                    let rate_per_s = (count - before) as f64 / (now - since).as_secs_f64();
                    let is_settled = settling.push(rate_per_s)
                        && closed.is_some_and(|active| count >= 2 * active as u64);
                    if now >= deadline || is_settled {
                        return Ok(());
                    }
                    (since, before) = (now, count);
                }
            }
        }
    }

    /// Gathers what the threads have measured, until all have answered or until `until`. SIGINT
    /// ends the window, or what comes after it.
    fn collect(&mut self, run: &mut Run, until: Option<Instant>) -> Result<()> {
        while run.tallies.len() < self.threads.len() {
            match self.wait(until)? {
                Woken::Done(answer) => run.add(answer)?,
                Woken::Timeout => break,
                Woken::Interrupted => {
                    let (window, now_ns) = (&self.shared.window, monotonic_ns());
                    run.interrupted = true;
                    if now_ns >= window.end_ns() {
                        window.give_up_at_once();
                    } else {
                        window.set(window.start_ns(), now_ns);
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn tell(&self, order: Order) {
        for inbox in &self.orders {
            // A thread that has ended has left the reason in `messages`.
            let _ = inbox.send(order);
        }
    }

    /// Waits for a thread, SIGINT or `until`, and keeps lines of stdin for later.
    fn wait(&mut self, until: Option<Instant>) -> Result<Woken> {
        loop {
            let message = match until {
                None => self.messages.recv()?,
                Some(until) => {
                    match self
                        .messages
                        .recv_timeout(until.saturating_duration_since(Instant::now()))
                    {
                        Err(RecvTimeoutError::Timeout) => return Ok(Woken::Timeout),
                        message => message?,
                    }
                }
            };
            match message {
                Message::Done(outcome) => return outcome.map(Woken::Done),
                Message::Interrupted => return Ok(Woken::Interrupted),
                line => self.waiting.push_back(line),
            }
        }
    }
}

/// What has been gathered of one run.
#[derive(Default)]
struct Run {
    #[expect(clippy::vec_box, reason = "they come in boxes")]
    tallies: Vec<Box<Tally>>,
    interrupted: bool,
    times: Times,
}

/// When what happened, by CLOCK_MONOTONIC.
#[derive(Clone, Copy, Default)]
struct Times {
    warmup_s: f64,
    /// The window.
    start_ns: u64,
    end_ns: u64,
    /// Nothing more was waited for.
    ended_ns: u64,
    /// How long after the window's end the CPU clock was read.
    late_ns: u64,
}

impl Run {
    fn add(&mut self, answer: Answer) -> Result<()> {
        let Answer::Ran(tally) = answer else {
            bail!("a thread of the load connected where it should run; this is a bug")
        };
        self.tallies.push(tally);
        Ok(())
    }

    fn sum(&self, of: fn(&Tally) -> u64) -> u64 {
        self.tallies.iter().map(|tally| of(tally)).sum()
    }

    /// When the last echo came back.
    fn last_ns(&self) -> Option<u64> {
        self.tallies.iter().map(|tally| tally.last_ns).max().filter(|&last_ns| last_ns > 0)
    }

    /// From the window's start until the last message of an open loop was due.
    fn asked_s(&self) -> f64 {
        let last_due_ns =
            self.tallies.iter().map(|tally| tally.last_due_ns).max().unwrap_or_default();
        last_due_ns.saturating_sub(self.times.start_ns) as f64 / 1e9
    }

    fn owed(&self) -> Owed {
        Owed {
            messages: self.sum(|tally| tally.owed.messages),
            bytes: self.sum(|tally| tally.owed.bytes),
            connections: self.sum(|tally| tally.owed.connections),
            unanswered: self.sum(|tally| tally.owed.unanswered),
        }
    }

    /// How long was waited for what came back, or was to come, after all was sent.
    fn drained_s(&self, is_timed: bool) -> f64 {
        let Times { start_ns, end_ns, ended_ns, .. } = self.times;
        match is_timed {
            true => ended_ns.saturating_sub(end_ns) as f64 / 1e9,
            false => end_ns.saturating_sub(start_ns) as f64 / 1e9 - self.asked_s(),
        }
    }

    /// Of each of the `active` connections, by its number.
    fn echoes_by_connection(&self, active: usize) -> Vec<u64> {
        let mut echoes = vec![0; active];
        for tally in &self.tallies {
            let own = echoes.iter_mut().skip(tally.thread).step_by(self.tallies.len());
            own.zip(&tally.echoes_by_place).for_each(|(echoes, &of_place)| *echoes = of_place);
        }
        echoes
    }
}

/// The life of a thread: orders, each answered, until no more can come.
fn work(shared: Arc<Shared>, thread: usize, orders: &Receiver<Order>, answers: &Sender<Message>) {
    let live = || {
        let mut worker = Worker::new(shared, thread)?;
        while let Ok(order) = orders.recv() {
            let outcome = match order {
                Order::Connections(total) => worker.set_connections(total).map(Answer::Stand),
                Order::Run { budget, active, open, start_ns } => worker
                    .run(budget, active, open, start_ns)
                    .map(|tally| Answer::Ran(Box::new(tally))),
            };
            // The main thread listens as long as it gives orders.
            let _ = answers.send(Message::Done(Ok(outcome?)));
        }
        Ok(())
    };
    let outcome = catch_unwind(AssertUnwindSafe(live));
    if let Err(error) =
        outcome.unwrap_or_else(|_| Err(anyhow!("a thread of the load panicked; this is a bug")))
    {
        let _ = answers.send(Message::Done(Err(error)));
    }
}
