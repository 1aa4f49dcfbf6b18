//! System calls by name, and the events within io_uring, over a fixed number of echoes between two
//! moments of rest.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringmark::backend;
use ringmark::call::Call;

use super::clock::{self, OfLoad};
use super::gates::{self, Evidence};
use super::{Trial, TrialContext, UNSEEN, miscounted};
use crate::load::result::LoadEvent;
use crate::machine::Unavailable;
use crate::machine::tracepoints::{Counters, Reading, RingEvent, Syscall, Tracepoint};
use crate::matrix::Workload;
use crate::programs::counters::ServerCounters;
use crate::programs::server::Server;
use crate::rows::{EventRow, Outcome, Status, SyscallRow};

/// Calls that come from the allocator and the runtime, which the server's own counters do not see.
const NOT_SELF_COUNTED: [Call; 3] = [Call::Mmap, Call::Munmap, Call::Futex];

/// More calls without a name than this, for each echo, would be calls that the server does not
/// count.
const OTHER_PER_ECHO: f64 = 0.01;

/// How long a server may take to come to rest. An SQPOLL thread polls on for as long as
/// sq_thread_idle says (io_uring_setup(2)), 1 s if nothing is given.
const REST_TIME: Duration = Duration::from_secs(5);

/// A server that is not to be seen rests if its counters stand still for so long.
const UNSEEN_REST: Duration = Duration::from_millis(20);

/// How long the echoes may take, beside the time in which an open loop sends them.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn measure(
    trial: &Trial,
    context: &TrialContext,
    workload: &Workload,
    echoes: u64,
    outcome: &mut Outcome,
) -> Result<(Status, String)> {
    let row = &mut outcome.row;
    let is_open = workload.rate_per_s.is_some();
    let namespace = trial.namespace(context, row);
    let is_external = context.external(&trial.arm.backend).is_some();
    let uses_ring = backend::find(&trial.arm.backend).is_ok_and(|entry| entry.uses_ring);
    let mut tracepoints = Traced::none("the server did not hold", uses_ring);
    let mut server = trial.server(context, namespace.as_ref(), row, |pid| {
        tracepoints = match pid {
            Some(pid) => Traced::attach(pid, uses_ring, !is_external),
            None => Traced::none(UNSEEN, uses_ring),
        };
    })?;
    if let (true, Err(unavailable)) = (is_external, &tracepoints.calls) {
        let reason =
            format!("it has no counters of its own, and there are no others: {unavailable}");
        return Ok((Status::Unsupported, reason));
    }
    let each = (echoes / workload.connections as u64).max(1);
    let all = each * workload.connections as u64;
    let more = if is_open { vec![format!("--echoes={all}")] } else { Vec::new() };
    let mut load =
        trial.load(context, namespace.as_ref(), &server, row, workload.connections, &more)?;
    load.set_connections(workload.connections).map_err(|error| server.blame(error))?;
    server.await_open(workload.connections as u64)?;
    // Everything is touched once, so that growth of tables and buffers is not counted.
    let LoadEvent::Echoed(_) =
        load.command("echo 1", Duration::from_secs(60)).map_err(|error| server.blame(error))?
    else {
        bail!("no echo came back")
    };

    let before = server.blaming(|server| Rest::find(server, &mut tracepoints))?;
    let patience = PATIENCE
        + Duration::from_secs_f64(workload.rate_per_s.map_or(0.0, |rate| all as f64 / rate));
    let mut event = load
        .command(&if is_open { "run".to_owned() } else { format!("echo {each}") }, patience)
        .map_err(|error| server.blame(error))?;
    while let LoadEvent::Measuring | LoadEvent::Measured = event {
        event = load.next(patience).map_err(|error| server.blame(error))?;
    }
    let (LoadEvent::Echoed(result) | LoadEvent::Result(result)) = event else {
        bail!("no result came back")
    };
    let after = server.blaming(|server| Rest::find(server, &mut tracepoints))?;
    let stood = after.own.of_loop("open");
    let io_workers = match server.tasks()? {
        Some(tasks) => tasks.io_workers,
        None => after.own.kernel_threads.io_wq,
    };
    load.quit()?;
    let counters = trial.stop(server, row)?;

    ensure!(result.echoes == all, "{} echoes came back", result.echoes);
    row.connections = Some(stood);
    row.active_connections = Some(result.active_connections as u64);
    row.echoes = Some(result.echoes);
    let echoes = result.echoes as f64;
    let own = |call: Call| after.own.of_call(call.name()) - before.own.of_call(call.name());
    let mut counts: Vec<(&str, u64)> = Vec::new();
    let mut disagreements = Vec::new();
    let source;
    match (&tracepoints.calls, &before.traced.calls, &after.traced.calls) {
        (Ok(counters), Some(first), Some(last)) => {
            let missing: Vec<&str> = counters.all.unavailable().map(Syscall::name).collect();
            row.syscalls_source = match missing[..] {
                _ if is_external => {
                    "tracepoints: not checked against counters of its own, of which it has none"
                        .to_owned()
                }
                [] => "tracepoints".to_owned(),
                _ => {
                    format!("tracepoints, but self-reported for want of one: {}", missing.join(" "))
                }
            };
            source = "tracepoints";
            let traced = last.since(first);
            for call in Call::ALL {
                let own = own(call);
                let traced = traced.of(call);
                if is_external {
                    // Without a tracepoint of its own it is among the others.
                    counts.extend(traced.map(|calls| (call.name(), calls)));
                    continue;
                }
                counts.push((call.name(), traced.unwrap_or(own)));
                if traced.is_some_and(|traced| traced != own) && !NOT_SELF_COUNTED.contains(&call) {
                    disagreements.push(format!(
                        "{} {}≠{own}",
                        call.name(),
                        traced.unwrap_or_default()
                    ));
                }
            }
            counts.push(("other", traced.other()));
            if !is_external && traced.other() as f64 > OTHER_PER_ECHO * echoes {
                disagreements.push(format!("{} calls of no name that is counted", traced.other()));
            }
        }
        (tracepoints, ..) => {
            let reason =
                tracepoints.as_ref().err().map(|error| error.reason.as_str()).unwrap_or("not read");
            row.syscalls_source = format!("self-reported: {reason}");
            source = "self-reported";
            counts.extend(Call::ALL.into_iter().map(|call| (call.name(), own(call))));
        }
    }
    row.syscalls_per_echo =
        Some(counts.iter().map(|(_, calls)| calls).sum::<u64>() as f64 / echoes);
    row.events_per_wait = after.own.events_per_wait_since(&before.own);
    outcome.syscalls = counts
        .into_iter()
        .filter(|(_, calls)| *calls > 0)
        .map(|(syscall, calls)| SyscallRow {
            run_id: trial.run_id,
            workload: workload.name.clone(),
            arm: trial.role.clone(),
            backend: trial.arm.backend.clone(),
            syscall: syscall.to_owned(),
            calls,
            calls_per_echo: calls as f64 / echoes,
            source: source.to_owned(),
        })
        .collect();
    if let Some(counters) = &tracepoints.ring {
        outcome.events = event_rows(trial, workload, counters, (&before, &after), echoes);
    }
    if !disagreements.is_empty() {
        let reason = format!(
            "tracepoints and the server's own counters differ: {}",
            disagreements.join(", ")
        );
        return Ok((Status::Rejected, reason));
    }
    if let Some(reason) = miscounted(result.churn.as_ref(), &after.own) {
        return Ok((Status::Rejected, reason));
    }
    let evidence = Evidence {
        connections: (workload.connections as u64, stood),
        io_workers,
        counters,
        not_of_window: clock::load_gap(OfLoad::of(&result)).into_iter().collect(),
        not_in_force: gates::not_in_force(&row.knobs, &row.in_force),
        ..Evidence::default()
    };
    Ok(gates::judge(&evidence))
}

/// Counts the calls of the server's workers: those of all its threads and of the processes that it
/// forks, of one of ours less those of the main thread, which does nothing for the connections but
/// tell how they fare.
struct WorkerCounters {
    all: Counters<Syscall>,
    main: Option<Counters<Syscall>>,
}

impl WorkerCounters {
    fn attach(pid: u32, main_is_idle: bool) -> Result<Self, Unavailable> {
        // All first: the main thread may still be on its way to where it holds, and is never to
        // have more than all.
        let all = Counters::attach(pid)?;
        let main = main_is_idle.then(|| Counters::attach_to_main_thread(pid)).transpose()?;
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
struct Traced {
    calls: Result<WorkerCounters, Unavailable>,
    /// Of a server that uses io_uring. The main thread, which may have tried a ring, does nothing
    /// on one later.
    ring: Option<Result<Counters<RingEvent>, Unavailable>>,
}

impl Traced {
    fn none(reason: &str, uses_ring: bool) -> Self {
        let none = || Unavailable::new(reason);
        Self { calls: Err(none()), ring: uses_ring.then(|| Err(none())) }
    }

    fn attach(pid: u32, uses_ring: bool, main_is_idle: bool) -> Self {
        Self {
            calls: WorkerCounters::attach(pid, main_is_idle),
            ring: uses_ring.then(|| Counters::attach(pid)),
        }
    }

    fn read(&mut self) -> Result<TracedReading> {
        let calls = self.calls.as_mut().ok().map(WorkerCounters::read).transpose();
        let ring =
            self.ring.as_mut().and_then(|ring| ring.as_mut().ok()).map(Counters::read).transpose();
        Ok(TracedReading {
            calls: calls.context("read the tracepoints")?,
            ring: ring.context("read the tracepoints of io_uring")?,
        })
    }
}

/// What they say, as far as there are any.
struct TracedReading {
    calls: Option<Reading<Syscall>>,
    ring: Option<Reading<RingEvent>>,
}

impl TracedReading {
    /// Whether no call was made since an earlier reading, and nothing happened on a ring.
    fn is_still_since(&self, earlier: &Self) -> bool {
        fn is_same<T: Tracepoint>(
            now: &Option<Reading<T>>,
            then: &Option<Reading<T>>,
            of: T,
        ) -> bool {
            now.as_ref().map(|reading| reading.of(of))
                == then.as_ref().map(|reading| reading.of(of))
        }
        Syscall::all().all(|call| is_same(&self.calls, &earlier.calls, call))
            && RingEvent::ALL.into_iter().all(|event| is_same(&self.ring, &earlier.ring, event))
    }
}

/// The counts at a moment when no worker is making calls, and nothing happens on a ring.
struct Rest {
    own: ServerCounters,
    traced: TracedReading,
}

impl Rest {
    /// Reads the tracepoints, the server's counters, and the tracepoints again, until no worker has
    /// done anything in between and all threads sleep: then both counts are of the same moment. Of
    /// a server that is not to be seen its own counters tell whether it rests, a while apart.
    fn find(server: &mut Server, tracepoints: &mut Traced) -> Result<Self> {
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
            let still = traced.is_still_since(&first);
            if asleep && still && again.is_still_since(&own) {
                return Ok(Self { own, traced });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!(
            "the server did not come to rest: its threads went on making calls with no echo under way"
        )
    }
}

/// A row for each event, with a count, or with the reason why it has none.
fn event_rows(
    trial: &Trial,
    workload: &Workload,
    counters: &Result<Counters<RingEvent>, Unavailable>,
    (before, after): (&Rest, &Rest),
    echoes: f64,
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
    let row = |event: RingEvent| {
        let count = match &since {
            Ok(since) => since.of(event).ok_or("this kernel has no such tracepoint"),
            Err(why) => Err(why.as_str()),
        };
        EventRow {
            run_id: trial.run_id,
            workload: workload.name.clone(),
            arm: trial.role.clone(),
            backend: trial.arm.backend.clone(),
            event: event.name().to_owned(),
            count: count.ok(),
            count_per_echo: count.ok().map(|count| count as f64 / echoes),
            source: count
                .map_or_else(|why| format!("unavailable: {why}"), |_| "tracepoints".to_owned()),
        }
    };
    RingEvent::ALL.into_iter().map(row).collect()
}

/// Between two moments of rest a server takes every completion that the kernel makes. Those that
/// found the queue full are not among the others on every kernel.
fn disagreement(since: &Reading<RingEvent>, taken: u64) -> Option<String> {
    let made = since.of(RingEvent::Complete)?;
    let overflowed = since.of(RingEvent::CqeOverflow).unwrap_or_default();
    let agrees = taken == made || taken == made + overflowed;
    (!agrees).then(|| {
        format!(
            "the kernel made {made} completions and {overflowed} that overflowed, the server took {taken}"
        )
    })
}
