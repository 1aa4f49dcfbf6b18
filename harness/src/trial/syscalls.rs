//! System calls by name, and the events within io_uring, over a fixed number of echoes between two
//! moments of rest.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringmark::backend;
use ringmark::call::Call;
use ringmark::protocol::ServerCounters;

use super::clock::{self, LoadWindow};
use super::context::TrialContext;
use super::counted_load::{CountedLoad, REST_TIME};
use super::evidence::Evidence;
use super::site::{Site, UNSEEN, miscounted};
use super::task::Trial;
use super::{gates, in_force};
use crate::load::result::LoadResult;
use crate::machine::Unavailable;
use crate::machine::tracepoints::{Reading, RingEvent, Syscall, TracepointCounters};
use crate::matrix::Workload;
use crate::programs::server::Server;
use crate::rows::{EventRow, Outcome, Status, SyscallRow, TrialRow};

/// Calls that come from the allocator and the runtime, which the server's own counters do not see.
const NOT_SELF_COUNTED: [Call; 3] = [Call::Mmap, Call::Munmap, Call::Futex];

/// More calls without a name than this, for each echo, would be calls that the server does not
/// count.
const OTHER_PER_ECHO: f64 = 0.01;

/// A server that is not to be seen rests if its counters stand still for so long.
const UNSEEN_REST: Duration = Duration::from_millis(20);

/// Measures one trial of the pass.
pub fn measure(
    trial: &Trial,
    context: &TrialContext,
    workload: &Workload,
    echoes: u64,
    outcome: &mut Outcome,
) -> Result<(Status, String)> {
    let is_external = context.external(&trial.arm.backend).is_some();
    let uses_ring = backend::find(&trial.arm.backend).is_ok_and(|entry| entry.uses_ring);
    let mut tracepoints = Tracepoints::none("the server did not hold", uses_ring);
    let mut site = Site::start(trial, context, &mut outcome.row, |pid| {
        tracepoints = match pid {
            Some(pid) => Tracepoints::attach(pid, uses_ring, !is_external),
            None => Tracepoints::none(UNSEEN, uses_ring),
        };
    })?;
    if let (true, Err(unavailable)) = (is_external, &tracepoints.calls) {
        let reason =
            format!("it has no counters of its own, and there are no others: {unavailable}");
        return Ok((Status::Unsupported, reason));
    }
    let span = Span::read(&mut site, workload, echoes, &mut tracepoints)?;
    let Span { before, after, result, io_workers } = &span;
    let row = &mut outcome.row;
    let counters = site.stop(row)?;

    let echoes = result.echoes;
    let stood = after.own.of_loop("open");
    row.connections = Some(stood);
    row.active_connections = Some(result.active_connections as u64);
    row.echoes = Some(echoes);
    row.events_per_wait = after.own.events_per_wait_since(&before.own);
    let counts = Counts::of(&tracepoints, &span, is_external);
    counts.record(outcome, echoes as f64);
    if let Some(counters) = &tracepoints.ring {
        outcome.events = event_rows(&outcome.row, counters, &span);
    }
    if !counts.differences.is_empty() {
        let differences = counts.differences.join(", ");
        let reason = format!("tracepoints and the server's own counters differ: {differences}");
        return Ok((Status::Rejected, reason));
    }
    if let Some(reason) = miscounted(result, &before.own, &after.own) {
        return Ok((Status::Rejected, reason));
    }
    Ok(gates::judge(&Evidence {
        connections: (workload.connections as u64, stood),
        io_workers: *io_workers,
        counters,
        not_of_window: clock::load_gap(LoadWindow::of(result).as_ref()).into_iter().collect(),
        not_in_force: in_force::missing(&outcome.row.knobs, &outcome.row.in_force),
        ..Evidence::default()
    }))
}

/// Two moments of rest, and the echoes between them.
struct Span {
    before: AtRest,
    after: AtRest,
    result: LoadResult,
    io_workers: u64,
}

impl Span {
    /// Lets the load make so many echoes in all.
    fn read(
        site: &mut Site,
        workload: &Workload,
        echoes: u64,
        tracepoints: &mut Tracepoints,
    ) -> Result<Self> {
        let mut load = CountedLoad::open(site, workload, echoes)?;
        let server = &mut site.server;
        let before = server.blaming(|server| AtRest::find(server, tracepoints))?;
        let result = load.measure(server)?;
        let after = server.blaming(|server| AtRest::find(server, tracepoints))?;
        let io_workers = match server.tasks()? {
            Some(tasks) => tasks.io_workers,
            None => after.own.kernel_threads.io_wq,
        };
        load.quit()?;
        Ok(Self { before, after, result, io_workers })
    }
}

/// Calls by name between two moments of rest.
struct Counts {
    calls: Vec<(&'static str, u64)>,
    /// Who counted them, in a word and in all words.
    source: &'static str,
    source_in_words: String,
    /// Differences between the tracepoints and the server's own counters.
    differences: Vec<String>,
}

impl Counts {
    /// Takes the tracepoints' counts, and where there are none the server's own.
    fn of(tracepoints: &Tracepoints, span: &Span, is_external: bool) -> Self {
        let Span { before, after, result, .. } = span;
        let own = |call: Call| after.own.of_call(call.name()) - before.own.of_call(call.name());
        let (counters, traced) =
            match (&tracepoints.calls, &before.traced.calls, &after.traced.calls) {
                (Ok(counters), Some(first), Some(last)) => (counters, last.since(first)),
                (calls, ..) => {
                    let reason = calls.as_ref().err().map_or("not read", |why| &why.reason);
                    return Self {
                        calls: Call::ALL.map(|call| (call.name(), own(call))).to_vec(),
                        source: "self-reported",
                        source_in_words: format!("self-reported: {reason}"),
                        differences: Vec::new(),
                    };
                }
            };
        let missing: Vec<&str> = counters.all.unavailable().map(Syscall::name).collect();
        let source_in_words = if is_external {
            "tracepoints: not checked against counters of its own, of which it has none".to_owned()
        } else if missing.is_empty() {
            "tracepoints".to_owned()
        } else {
            format!("tracepoints, but self-reported for want of one: {}", missing.join(" "))
        };
        let (mut calls, mut differences) = (Vec::new(), Vec::new());
        for call in Call::ALL {
            let (name, own, traced) = (call.name(), own(call), traced.of(call));
            // An external server's call without a tracepoint of its own is among the others.
            calls.extend(traced.or((!is_external).then_some(own)).map(|calls| (name, calls)));
            let differing = traced.filter(|&traced| traced != own && !is_external);
            if let Some(traced) = differing.filter(|_| !NOT_SELF_COUNTED.contains(&call)) {
                differences.push(format!("{name} {traced}≠{own}"));
            }
        }
        calls.push(("other", traced.other()));
        if !is_external && traced.other() as f64 > OTHER_PER_ECHO * result.echoes as f64 {
            differences.push(format!("{} calls of no name that is counted", traced.other()));
        }
        Self { calls, source: "tracepoints", source_in_words, differences }
    }

    /// Writes them to the trial's rows.
    fn record(&self, outcome: &mut Outcome, echoes: f64) {
        let row = &mut outcome.row;
        row.syscalls_source = self.source_in_words.clone();
        let all: u64 = self.calls.iter().map(|(_, calls)| calls).sum();
        row.syscalls_per_echo = Some(all as f64 / echoes);
        let made = self.calls.iter().filter(|(_, calls)| *calls > 0);
        outcome.syscalls = made
            .map(|&(syscall, calls)| SyscallRow {
                run_id: row.run_id,
                workload: row.workload.clone(),
                arm: row.arm.clone(),
                backend: row.backend.clone(),
                syscall: syscall.to_owned(),
                calls,
                calls_per_echo: calls as f64 / echoes,
                source: self.source.to_owned(),
            })
            .collect();
    }
}

/// Counts the calls of the server's workers: those of all its threads and of the processes that it
/// forks. In a server of ours the main thread's are subtracted: it does nothing for the connections
/// but tell how they fare.
struct WorkerCounters {
    all: TracepointCounters<Syscall>,
    main: Option<TracepointCounters<Syscall>>,
}

impl WorkerCounters {
    fn attach(pid: u32, main_is_idle: bool) -> Result<Self, Unavailable> {
        // All first: the main thread may still be on its way to where it holds, and is never to
        // have more than all.
        let all = TracepointCounters::attach(pid)?;
        let main =
            main_is_idle.then(|| TracepointCounters::attach_to_main_thread(pid)).transpose()?;
        Ok(Self { all, main })
    }

    /// Reads both while the main thread makes no call, which it mostly does not.
    fn read(&mut self) -> std::io::Result<Reading<Syscall>> {
        let Some(main_thread) = &mut self.main else { return self.all.read() };
        let mut main = main_thread.read()?;
        loop {
            let all = self.all.read()?;
            let again = main_thread.read()?;
            if again == main {
                return Ok(all.since(&main));
            }
            main = again;
        }
    }
}

/// The counters that are open on a server from outside.
struct Tracepoints {
    calls: Result<WorkerCounters, Unavailable>,
    /// None if the server does not use io_uring. The main thread, which may have tried a ring, does
    /// nothing on one later.
    ring: Option<Result<TracepointCounters<RingEvent>, Unavailable>>,
}

impl Tracepoints {
    fn none(reason: &str, uses_ring: bool) -> Self {
        Self {
            calls: Err(Unavailable::new(reason)),
            ring: uses_ring.then(|| Err(Unavailable::new(reason))),
        }
    }

    fn attach(pid: u32, uses_ring: bool, main_is_idle: bool) -> Self {
        Self {
            calls: WorkerCounters::attach(pid, main_is_idle),
            ring: uses_ring.then(|| TracepointCounters::attach(pid)),
        }
    }

    fn read(&mut self) -> Result<TracepointReading> {
        let calls = self.calls.as_mut().ok().map(WorkerCounters::read).transpose();
        let ring = self
            .ring
            .as_mut()
            .and_then(|ring| ring.as_mut().ok())
            .map(TracepointCounters::read)
            .transpose();
        Ok(TracepointReading {
            calls: calls.context("read the tracepoints")?,
            ring: ring.context("read the tracepoints of io_uring")?,
        })
    }
}

/// The counts of those that are open.
#[derive(PartialEq)]
struct TracepointReading {
    calls: Option<Reading<Syscall>>,
    ring: Option<Reading<RingEvent>>,
}

/// The counts at a moment when no worker is making calls, and nothing happens on a ring.
struct AtRest {
    own: ServerCounters,
    traced: TracepointReading,
}

impl AtRest {
    /// Reads the tracepoints, the server's counters, and the tracepoints again, until no worker has
    /// done anything in between and all threads sleep: then both counts are of the same moment. A
    /// server that is not to be seen rests if its own counters, read twice, stand still.
    fn find(server: &mut Server, tracepoints: &mut Tracepoints) -> Result<Self> {
        let deadline = Instant::now() + REST_TIME;
        while Instant::now() < deadline {
            let first = tracepoints.read()?;
            let own = server.counters()?;
            let asleep = match server.tasks()? {
                Some(tasks) => tasks.all_sleeping,
                None => {
                    std::thread::sleep(UNSEEN_REST);
                    true
                }
            };
            let again = server.counters()?;
            let traced = tracepoints.read()?;
            if asleep && traced == first && again.is_still_since(&own) {
                return Ok(Self { own, traced });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!(
            "the server did not come to rest: its threads went on making calls with no echo under \
             way"
        )
    }
}

/// Returns a row for each event, with a count, or with the reason why it has none.
fn event_rows(
    row: &TrialRow,
    counters: &Result<TracepointCounters<RingEvent>, Unavailable>,
    Span { before, after, result, .. }: &Span,
) -> Vec<EventRow> {
    let since = match (counters, &before.traced.ring, &after.traced.ring) {
        (Err(why), ..) => Err(why.reason.clone()),
        (Ok(_), Some(first), Some(last)) => {
            let since = last.since(first);
            let taken = after.own.of_loop("events") - before.own.of_loop("events");
            disagreement(&since, taken).map_or(Ok(since), Err)
        }
        _ => Err("not read".to_owned()),
    };
    let rows = RingEvent::ALL.into_iter().map(|event| {
        let count = match &since {
            Ok(since) => since.of(event).ok_or("this kernel has no such tracepoint"),
            Err(why) => Err(why.as_str()),
        };
        EventRow {
            run_id: row.run_id,
            workload: row.workload.clone(),
            arm: row.arm.clone(),
            backend: row.backend.clone(),
            event: event.name().to_owned(),
            count: count.ok(),
            count_per_echo: count.ok().map(|count| count as f64 / result.echoes as f64),
            source: count
                .map_or_else(|why| format!("unavailable: {why}"), |_| "tracepoints".to_owned()),
        }
    });
    rows.collect()
}

/// Says that the server did not take every completion that the kernel made between two moments of
/// rest. Those that found the queue full are not among the others on every kernel.
fn disagreement(since: &Reading<RingEvent>, taken: u64) -> Option<String> {
    let made = since.of(RingEvent::Complete)?;
    let overflowed = since.of(RingEvent::CqeOverflow).unwrap_or_default();
    let agrees = taken == made || taken == made + overflowed;
    (!agrees).then(|| {
        format!(
            "the kernel made {made} completions and {overflowed} that overflowed, the server took \
             {taken}"
        )
    })
}
