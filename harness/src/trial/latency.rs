//! Latency, throughput and CPU over a window of time.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::clock::{self, Moment, OfLoad};
use super::gates::{self, Evidence, Offered, Sharing};
use super::ramp::Ramp;
use super::{Trial, TrialContext, miscounted};
use crate::load::drain_max;
use crate::load::result::{Limit, LoadEvent, LoadResult};
use crate::machine::cpu::{MachineCpu, MachineCpuDifference, ProcessTicks, Tasks, process_cpu_ns};
use crate::machine::network::{NetworkDifference, NetworkReading};
use crate::machine::network_namespace::NetworkNamespace;
use crate::machine::process_tree::Tree;
use crate::matrix::{Latency, Workload};
use crate::programs::client::Load;
use crate::programs::idle_spinner::IdleSpinner;
use crate::programs::server::Server;
use crate::rows::{Outcome, Status};
use crate::statistics::percent_of;

/// The server's main thread, which only waits to be told something.
const MAIN_THREAD: u64 = 1;

/// Where a server's CPU time comes from.
const PROCESS_CLOCK: &str = "process clock";
const SELF_REPORTED: &str = "self-reported";

/// The CPU clocks at one end of the window.
pub struct Clocks {
    /// None of a server that is not to be seen here.
    processes: Option<Tree>,
    pub server_cpu_ns: u64,
    /// Likewise.
    server: Option<(ProcessTicks, Tasks)>,
    /// Likewise.
    client_tasks: Option<Tasks>,
    /// Or why it cannot be read, as where /proc/stat is masked.
    pub machine: Result<MachineCpu, String>,
    /// When the server's CPU clock had been read.
    pub read_at: Moment,
}

impl Clocks {
    /// At the beginning of the window. The server's threads come first: one for each connection
    /// makes that long, on the client's CPU, and what the client waits meanwhile must not count as
    /// the window's.
    pub fn begin(server: &mut Server, load: &Load) -> Result<Self> {
        let processes = server.processes()?;
        let tasks = sum(processes.as_ref(), Tasks::read)?;
        let client_tasks = load.pid().map(Tasks::read).transpose()?;
        let machine = MachineCpu::read().map_err(|error| error.to_string());
        let ticks = sum(processes.as_ref(), ProcessTicks::read)?;
        let server_cpu_ns = server_cpu_ns(server, processes.as_ref())?;
        let read_at = Moment::now();
        Ok(Self {
            processes,
            server_cpu_ns,
            server: ticks.zip(tasks),
            client_tasks,
            machine,
            read_at,
        })
    }

    /// At its end, the other way round: of the processes that there were `before`, and then of what
    /// there is now.
    pub fn end(server: &mut Server, load: &Load, before: &Self) -> Result<Self> {
        let processes = before.processes.as_ref();
        let server_cpu_ns = server_cpu_ns(server, processes)?;
        let read_at = Moment::now();
        let ticks = sum(processes, ProcessTicks::read)?;
        let machine = MachineCpu::read().map_err(|error| error.to_string());
        let client_tasks = load.pid().map(Tasks::read).transpose()?;
        let tasks = sum(processes, Tasks::read)?;
        let processes = server.processes()?;
        Ok(Self {
            processes,
            server_cpu_ns,
            server: ticks.zip(tasks),
            client_tasks,
            machine,
            read_at,
        })
    }

    /// What the machine's CPUs did since an earlier moment, or why that is not known.
    pub fn machine_since(&self, before: &Self) -> Result<MachineCpuDifference, String> {
        match (&before.machine, &self.machine) {
            (Ok(before), Ok(after)) => Ok(after.since(before)),
            (Err(why), _) | (_, Err(why)) => {
                Err(format!("the machine's CPU and the hypervisor's share are not known: {why}"))
            }
        }
    }

    /// io-wq workers of a server that is to be seen.
    pub fn io_workers(&self) -> Option<u64> {
        self.server.as_ref().map(|(_, tasks)| tasks.io_workers)
    }

    /// What is to be minded about figures between an earlier moment and this one that are sums over
    /// processes; an error if they cannot be made.
    fn summed_since(&self, before: &Self) -> Result<Option<String>, String> {
        if self.processes != before.processes {
            return Err(
                "CPU and context switches are left out: processes of the server began or ended within the \
                        window, and what those had used cannot be read"
                    .to_owned(),
            );
        }
        let count = self.processes.as_ref().map_or(1, Tree::count);
        Ok((count > 1).then(|| {
            format!("CPU and context switches are those of the server's {count} processes")
        }))
    }
}

fn sum<T: std::ops::AddAssign>(
    processes: Option<&Tree>,
    read: impl Fn(u32) -> std::io::Result<T>,
) -> std::io::Result<Option<T>> {
    processes.map(|processes| processes.sum(read)).transpose()
}

/// By the clock of its processes; of one that is not to be seen here, by its own report, which is a
/// line's way away.
fn server_cpu_ns(server: &mut Server, processes: Option<&Tree>) -> Result<u64> {
    match sum(processes, process_cpu_ns)? {
        Some(ns) => Ok(ns),
        None => server.counters()?.cpu_ns.context("the server does not tell its CPU time"),
    }
}

/// A run of the load, and the clocks at both ends of its window.
pub struct Window {
    pub before: Clocks,
    pub after: Clocks,
    pub result: LoadResult,
}

impl Window {
    /// Why what was read at its ends is not of it.
    pub fn not_of_it(&self, context: &TrialContext) -> Vec<String> {
        let is_one_clock = context.sides().is_none_or(|sides| sides.load.is_here);
        clock::not_of_window(
            OfLoad::of(&self.result),
            &self.before.read_at,
            &self.after.read_at,
            is_one_clock,
        )
    }
}

/// Lets the load run.
pub fn window(
    server: &mut Server,
    load: &mut Load,
    duration: Duration,
    warmup_max: Duration,
) -> Result<Window> {
    let patience = warmup_max + Duration::from_secs(30);
    // It waits for what is owed, and that something moves or has stalled.
    let drain = drain_max(duration) + patience;
    server.blaming(|server| {
        let LoadEvent::Measuring = load.command("run", patience)? else {
            bail!("the load did not begin to measure")
        };
        let before = Clocks::begin(server, load)?;
        let LoadEvent::Measured = load.next(duration + patience)? else {
            bail!("the load did not end measuring")
        };
        let after = Clocks::end(server, load, &before)?;
        let LoadEvent::Result(result) = load.next(drain)? else { bail!("the load gave no result") };
        Ok(Window { before, after, result })
    })
}

/// What to mind about a load although nothing is wrong.
pub fn load_notes(result: &LoadResult) -> Vec<String> {
    let table = result.file_table.strip_prefix("shared: ");
    table.map(|why| format!("the load's threads share one file table: {why}")).into_iter().collect()
}

/// What a load was still owed when it waited no longer.
pub fn owed(result: &LoadResult) -> Option<String> {
    let saturated = result.saturated.filter(|saturated| saturated.owed_connections > 0)?;
    let p99 = result.latency_us.at_least.as_ref().and_then(|us| us.p99);
    let at_least = p99.map_or(String::new(), |us| format!(" (p99 is at least {us:.0} µs)"));
    Some(format!(
        "saturated: {} messages were still owed {:.1} s after the window; latencies that lie among them are left out{at_least}",
        saturated.owed, saturated.drained_s
    ))
}

/// Why a load was its own limit, beside its CPU and what it did not send.
pub fn client_limits(result: &LoadResult) -> Vec<String> {
    let is_own = result.saturated.is_some_and(|saturated| saturated.limit == Limit::Client);
    is_own
        .then(|| "client-limited: the load itself was behind what was asked of it".to_owned())
        .into_iter()
        .collect()
}

/// What the threads of a load can have waited for each other, in percent of the window and as a
/// mean over them, when they are more than its CPUs: on one CPU each waits at most as long as the
/// others run.
fn own_delay_percent(result: &LoadResult, cpus: usize) -> f64 {
    let others = result.threads.div_ceil(cpus.max(1)).saturating_sub(1) as f64;
    let ns = result.client_cpu_ns as f64 * others / result.threads as f64;
    percent_of(ns, result.duration_s * 1e9).unwrap_or_default()
}

/// What TCP has counted, if that is the trial's own.
pub fn network(
    server: &mut Server,
    namespace: Option<&NetworkNamespace>,
) -> Result<Option<NetworkReading>> {
    server
        .blaming(|server| Ok(namespace.and(server.pid()).map(NetworkReading::read).transpose()?))
}

/// What has happened in it since.
pub fn network_since(
    server: &mut Server,
    namespace: Option<&NetworkNamespace>,
    before: Option<NetworkReading>,
) -> Result<Option<NetworkDifference>> {
    Ok(network(server, namespace)?.zip(before).map(|(after, before)| after.since(&before)))
}

pub fn measure(
    trial: &Trial,
    context: &TrialContext,
    workload: &Workload,
    latency: &Latency,
    outcome: &mut Outcome,
) -> Result<(Status, String)> {
    let Outcome { row, histogram, .. } = outcome;
    let namespace = trial.namespace(context, row);
    let mut server = trial.server(context, namespace.as_ref(), row, |_| {})?;
    let network_before = network(&mut server, namespace.as_ref())?;
    let more = [
        format!("--duration={}", humantime::format_duration(latency.duration)),
        format!("--warmup-max={}", humantime::format_duration(latency.warmup_max)),
        // It may be on another machine: what it has recorded comes with its result.
        "--histogram=-".to_owned(),
    ];
    let all_connections = workload.all_connections() as u64;
    let mut idle = None;
    if workload.idle_connections > 0 {
        let mut load = trial.load(
            context,
            namespace.as_ref(),
            &server,
            row,
            workload.idle_connections,
            &[],
        )?;
        Ramp::begin()?.to(workload.idle_connections, 0, &mut server, &mut load, |_| {})?;
        idle = Some(load);
    }
    let mut load =
        trial.load(context, namespace.as_ref(), &server, row, workload.connections, &more)?;
    load.set_connections(workload.connections).map_err(|error| server.blame(error))?;
    server.await_open(all_connections)?;
    row.idle_spinner = workload.idle_spinner;
    let spinner = match workload.idle_spinner {
        true => Some(IdleSpinner::start(&context.placement.cpus()?, &context.interruptions)?),
        false => None,
    };
    let counters_before = server.counters()?;
    let window = window(&mut server, &mut load, latency.duration, latency.warmup_max)?;
    let not_of_window = window.not_of_it(context);
    let Window { before, after, mut result } = window;
    // One that had died in between would have left the CPUs to halt.
    spinner.map(IdleSpinner::end).transpose()?;
    let at_rest = match &result.churn {
        Some(churn) => server.counters_after_churn(all_connections, churn.opened_in_all)?,
        None => server.counters()?,
    };
    let stood = at_rest.of_loop("open");
    let network = network_since(&mut server, namespace.as_ref(), network_before)?;
    *histogram = result.histogram_log.take();
    let ports = server.addresses.len();
    load.quit()?;
    idle.map(Load::quit).transpose()?;
    let counters = trial.stop(server, row)?;

    let echoes = result.echoes as f64;
    let per_echo = |amount: u64| (echoes > 0.0).then(|| amount as f64 / echoes);
    let summed = after.summed_since(&before);
    let of_server = |amount: u64| per_echo(amount).filter(|_| summed.is_ok());
    // Where a side is on another machine, this one's time is not that of the trial, and steal is
    // only if a side is here.
    let (both_here, one_here) =
        context.sides().map_or((true, true), |sides| (sides.are_here(), sides.is_one_here()));
    let (machine, machine_unread) = match after.machine_since(&before) {
        _ if !one_here => (None, None),
        Ok(machine) => (Some(machine), None),
        Err(why) => (None, Some(why)),
    };
    // Of one thread: those that share the work share the delay.
    let run_delay_percent = |before: &Tasks, after: &Tasks, threads: usize| {
        let delay_ns = after.run_delay_ns.saturating_sub(before.run_delay_ns) as f64;
        percent_of(delay_ns, result.duration_s * 1e9 * threads as f64)
    };
    row.connections = Some(stood);
    row.active_connections = Some(result.active_connections as u64);
    row.owed = Some(result.saturated.map_or(0, |saturated| saturated.owed));
    row.achieved_per_s = Some(result.achieved_per_s);
    row.echoes = Some(result.echoes);
    row.duration_s = Some(result.duration_s);
    row.warmup_s = Some(result.warmup_s);
    // An open loop's rate is given from the beginning.
    row.warmup_settled =
        Some(result.open.is_some() || result.warmup_s < latency.warmup_max.as_secs_f64());
    row.warmup_echoes = Some(result.warmup_echoes);
    row.latency_p50_us = result.latency_us.p50;
    row.latency_p90_us = result.latency_us.p90;
    row.latency_p99_us = result.latency_us.p99;
    row.latency_p999_us = result.latency_us.p999;
    row.latency_max_us = result.latency_us.max;
    if let Some(open) = &result.open {
        row.offered_per_s = Some(open.offered_per_s);
        row.late_sends = Some(open.late_sends);
        row.unsent = Some(open.unsent);
        row.service_p50_us = open.service_us.p50;
        row.service_p99_us = open.service_us.p99;
        row.send_lag_p50_us = open.send_lag_us.p50;
        row.send_lag_p99_us = open.send_lag_us.p99;
    }
    let server_cpu_ns = after.server_cpu_ns.saturating_sub(before.server_cpu_ns);
    if let Some(churn) = &result.churn {
        row.connections_per_s = Some(churn.connections_per_s);
        row.connect_p50_us = churn.connect_us.p50;
        row.connect_p99_us = churn.connect_us.p99;
        row.server_cpu_ns_per_connection = (churn.opened > 0 && summed.is_ok())
            .then(|| server_cpu_ns as f64 / churn.opened as f64);
    }
    if let Some(fairness) = &result.fairness {
        row.fairness_connections = Some(fairness.connections);
        row.slowest_connection_over_mean = Some(fairness.slowest_over_mean);
        row.fastest_connection_over_mean = Some(fairness.fastest_over_mean);
        // If each worker has a port.
        row.fairness_workers = (ports == usize::from(context.workers)).then_some(fairness.ports);
    }
    row.server_cpu_ns_per_echo = of_server(server_cpu_ns);
    let server_tasks = before.server.as_ref().zip(after.server.as_ref());
    row.server_cpu_source =
        if server_tasks.is_some() { PROCESS_CLOCK } else { SELF_REPORTED }.to_owned();
    let division =
        server_tasks.and_then(|((before, _), (after, _))| after.user_share_since(before));
    if let Some((ticks, user_share)) = division.filter(|_| summed.is_ok()) {
        let part = |share: f64| row.server_cpu_ns_per_echo.map(|all| all * share);
        row.server_cpu_user_ns_per_echo = part(user_share);
        row.server_cpu_kernel_ns_per_echo = part(1.0 - user_share);
        row.server_cpu_division_ticks = Some(ticks);
    }
    row.client_cpu_ns_per_echo = per_echo(result.client_cpu_ns);
    let of_both = machine.filter(|_| both_here);
    row.machine_cpu_ns_per_echo =
        of_both.and_then(|machine| per_echo(machine.busy_ns)).filter(|_| !workload.idle_spinner);
    row.machine_softirq_ns_per_echo =
        of_both.and_then(|machine| machine.softirq_ns).and_then(per_echo);
    row.client_cpu_percent = Some(result.client_cpu_ratio * 100.0);
    row.context_switches_per_echo = server_tasks.and_then(|((_, before), (_, after))| {
        of_server(after.context_switches.saturating_sub(before.context_switches))
    });
    row.server_run_delay_percent = server_tasks.and_then(|((_, before), (_, after))| {
        run_delay_percent(before, after, usize::from(context.workers))
    });
    let client_tasks = before.client_tasks.as_ref().zip(after.client_tasks.as_ref());
    row.client_run_delay_percent =
        client_tasks.and_then(|(before, after)| run_delay_percent(before, after, result.threads));
    row.events_per_wait = counters.events_per_wait_since(&counters_before);
    row.steal_percent = machine.and_then(|machine| machine.steal_percent());
    row.retransmitted_segments = network.map(|network| network.retransmitted_segments);

    // One thread of each on one CPU: what one waits beyond what the other runs, something else ran.
    let is_accounted =
        context.placement.is_one_cpu() && context.workers == 1 && result.threads == 1;
    let beyond = |delay: Option<f64>, other_cpu_ns: u64| match is_accounted {
        true => Some((delay? - percent_of(other_cpu_ns as f64, result.duration_s * 1e9)?).max(0.0)),
        false => delay,
    };
    // What more threads of the load than it has CPUs waited for each other, no one else took.
    let client_delay = beyond(row.client_run_delay_percent, server_cpu_ns);
    let own_delay = own_delay_percent(&result, context.placement.client_threads)
        .min(client_delay.unwrap_or(0.0));
    let mut client_limits = client_limits(&result);
    if own_delay > gates::RUN_DELAY_PERCENT {
        client_limits.push(format!(
            "client-limited: the load has {} threads on {} CPUs, and each waited for the others up to {own_delay:.1} % of \
             the time; more files for each thread (`ulimit -n`) take fewer threads",
            result.threads, context.placement.client_threads
        ));
    }
    let sharing = Sharing {
        by_placement: context.placement.shared_cpu,
        client_is_apart: context.placement.is_client_apart(),
        is_accounted,
        kernel_thread: match &after.server {
            Some((_, tasks)) => {
                tasks.sqpoll_threads > context.placement.free_of(&tasks.sqpoll_cpus)
            }
            None => at_rest.kernel_threads.sqpoll > context.placement.left_by(context.workers),
        },
        siblings: (after.server.as_ref())
            .is_some_and(|(_, tasks)| tasks.count > u64::from(context.workers) + MAIN_THREAD),
    };
    row.shared_cpu = sharing.is_shared_cpu();
    row.shared_core = context.placement.shared_core;
    if let Some(reason) = miscounted(result.churn.as_ref(), &at_rest) {
        return Ok((Status::Rejected, reason));
    }
    Ok(gates::judge(&Evidence {
        connections: (all_connections, stood),
        echoes: Some(result.echoes),
        offered: result.open.as_ref().map(|open| Offered {
            per_s: open.offered_per_s,
            achieved_per_s: result.achieved_per_s,
            unsent_per_s: open.unsent as f64 / result.duration_s,
        }),
        client_cpu_percent: row.client_cpu_percent,
        steal_percent: row.steal_percent,
        server_run_delay_percent: beyond(row.server_run_delay_percent, result.client_cpu_ns),
        client_run_delay_percent: client_delay.map(|delay| delay - own_delay),
        network,
        io_workers: after.io_workers().unwrap_or(at_rest.kernel_threads.io_wq),
        counters,
        sharing,
        not_of_window,
        not_in_force: gates::not_in_force(&row.knobs, &row.in_force),
        owed: owed(&result),
        client_limits,
        notes: summed
            .unwrap_or_else(Some)
            .into_iter()
            .chain(context.placement.note())
            .chain(load_notes(&result))
            .chain(machine_unread)
            .collect(),
        ..Evidence::default()
    }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn result(threads: usize, client_cpu_ns: u64) -> LoadResult {
        serde_json::from_value(serde_json::json!({
            "connections": 1000, "active_connections": 1000, "message_bytes": 64, "pipeline_depth": 1,
            "arrival": "closed", "duration_s": 1.0, "warmup_s": 0.0, "warmup_echoes": 0, "echoes": 10, "bytes": 640,
            "achieved_per_s": 10.0, "latency_us": {}, "open": null, "churn": null, "fairness": null,
            "client_cpu_ns": client_cpu_ns, "client_cpu_ratio": 0.5, "threads": threads, "seed": 1, "interrupted": false,
        }))
        .unwrap()
    }

    #[test]
    fn threads_that_are_more_than_the_cpus_wait_for_each_other() {
        let second = 1_000_000_000;
        // Each of two waits while the other runs, and they run all the time.
        assert_eq!(own_delay_percent(&result(2, second), 1), 50.0);
        assert_eq!(own_delay_percent(&result(2, second / 2), 1), 25.0);
        assert_eq!(own_delay_percent(&result(4, 2 * second), 2), 50.0);
        for (threads, cpus) in [(1, 1), (2, 2), (2, 3), (1, 0)] {
            assert_eq!(
                own_delay_percent(&result(threads, second), cpus),
                0.0,
                "{threads} threads on {cpus}"
            );
        }
    }

    #[test]
    fn a_load_that_was_behind_limits_itself_and_a_server_that_was_does_not() {
        let mut result = result(1, 1);
        assert_eq!(
            (client_limits(&result).len(), owed(&result), load_notes(&result).len()),
            (0, None, 0)
        );
        let saturated = |limit: &str| {
            serde_json::from_value(serde_json::json!({
                "limit": limit, "drained_s": 20.0, "owed": 7, "owed_bytes": 448, "owed_connections": 2,
                "unanswered_connections": 0,
            }))
            .unwrap()
        };
        result.saturated = Some(saturated("server"));
        assert_eq!(client_limits(&result).len(), 0);
        let reason = owed(&result).unwrap();
        assert!(reason.starts_with("saturated: 7 messages were still owed 20.0 s"), "{reason}");
        result.saturated = Some(saturated("client"));
        assert!(client_limits(&result)[0].starts_with("client-limited: "));
        result.file_table = "shared: unshare(CLONE_FILES): no".to_owned();
        assert_eq!(
            load_notes(&result),
            ["the load's threads share one file table: unshare(CLONE_FILES): no"]
        );
    }
}
