//! Latency, throughput and CPU over a window of time.

use anyhow::Result;
use ringmark::protocol::ServerCounters;
use ringmark::service::ServiceName;

use super::context::TrialContext;
use super::evidence::{Evidence, Sharing};
use super::gates;
use super::ramp::Ramp;
use super::site::{Site, counters_after, miscounted};
use super::task::Trial;
use super::window::{Sums, Window};
use super::{columns, in_force};
use crate::load::limits::{MeasuringTime, WaitingTime};
use crate::load::result::LoadResult;
use crate::machine::cpu::{MachineCpu, Tasks};
use crate::machine::network::NetworkReading;
use crate::matrix::{Latency, Workload};
use crate::programs::client::Client;
use crate::programs::idle_spinner::IdleSpinner;
use crate::rows::{Outcome, Status, TrialRow};
use crate::statistics::percent_of;
use crate::verdict::noise::RUN_DELAY_PERCENT;

/// The server's main thread, which only waits to be told something.
const MAIN_THREAD: u64 = 1;

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// The source of a server's CPU time.
const PROCESS_CLOCK: &str = "process clock";
const SELF_REPORTED: &str = "self-reported";

/// Measures one trial of the latency or the capacity pass.
pub fn measure(
    trial: &Trial,
    context: &TrialContext,
    workload: &Workload,
    latency: &Latency,
    outcome: &mut Outcome,
) -> Result<(Status, String)> {
    let mut site = Site::start(trial, context, &mut outcome.row, |_| {})?;
    let readings = Readings::take(&mut site, context, workload, latency, outcome)?;
    judge(site, &readings, workload, latency, &mut outcome.row)
}

/// Ends the server, fills the row, and lets the gates judge it.
pub fn judge(
    site: Site<'_>,
    readings: &Readings<'_>,
    workload: &Workload,
    latency: &Latency,
    row: &mut TrialRow,
) -> Result<(Status, String)> {
    let counters = site.stop(row)?;
    if let Some(reason) = copied_all_the_same(&counters) {
        return Ok((Status::Unsupported, reason));
    }
    readings.fill(row, workload, latency);
    row.events_per_wait = counters.events_per_wait_since(&readings.counters_before);
    let sharing = readings.sharing();
    row.shared_cpu = sharing.is_shared_cpu();
    row.shared_core = readings.context.placement.shared_core;
    let result = &readings.window.result;
    let (before, at_rest) = (&readings.counters_before, &readings.at_rest);
    if let Some(reason) = miscounted(result, before, at_rest) {
        return Ok((Status::Rejected, reason));
    }
    let evidence = readings.evidence(row, sharing);
    Ok(gates::judge(&Evidence {
        connections: (workload.all_connections() as u64, readings.stood()),
        counters,
        ..evidence
    }))
}

/// Says that sends without a copy were none: their cost is then that of a copy and of the
/// notifications besides, which says nothing of a network card.
fn copied_all_the_same(counters: &ServerCounters) -> Option<String> {
    let [sends, copied] = ["zero_copies", "zero_copies_copied"].map(|name| counters.of_loop(name));
    (copied > 0).then(|| {
        format!(
            "zero_copy: the kernel copied {copied} of {sends} sends all the same, as it does on \
             loopback and between devices of one machine: use two machines"
        )
    })
}

/// All that was read in a trial.
pub struct Readings<'a> {
    context: &'a TrialContext,
    window: Window,
    counters_before: ServerCounters,
    /// The server's counters once it has taken note of every connection.
    at_rest: ServerCounters,
    network: Option<NetworkReading>,
    /// How many ports the server has that are one worker's alone.
    dealt_ports: usize,
    sums: Sums,
    /// CPU time of the machine, if a side is here and that is known.
    machine: Option<MachineCpu>,
    /// Why it is not known.
    machine_unread: Option<String>,
}

impl<'a> Readings<'a> {
    /// Lets the load run, and takes them.
    fn take(
        site: &mut Site,
        context: &'a TrialContext,
        workload: &Workload,
        latency: &Latency,
        outcome: &mut Outcome,
    ) -> Result<Self> {
        let network_before = site.network()?;
        let mut idle = idle_connections(site, workload.idle_connections)?;
        let more = load_options(&latency.duration, &latency.warmup_max);
        let mut load = site.open_load(workload.connections, idle.as_mut(), &more)?;
        outcome.row.idle_spinner = workload.idle_spinner;
        let spinner = idle_spinner(context, workload)?;
        let server = &mut site.server;
        let counters_before = server.counters()?;
        let mut window =
            Window::measure(server, &mut load, latency.duration.get(), latency.warmup_max.get())?;
        // One that had died in between would have left the CPUs to halt.
        spinner.map(IdleSpinner::end).transpose()?;
        let in_all = workload.all_connections() as u64;
        let at_rest = counters_after(server, in_all, &window.result, &counters_before)?;
        let dealt_ports = server.dealt_ports();
        let network = site.network_since(network_before)?;
        outcome.histogram = window.result.histogram_log.take();
        load.quit()?;
        idle.map(Client::quit).transpose()?;
        Ok(Self::of(context, window, counters_before, at_rest, network, dealt_ports))
    }

    /// Returns the figures that follow from what was read.
    pub fn of(
        context: &'a TrialContext,
        window: Window,
        counters_before: ServerCounters,
        at_rest: ServerCounters,
        network: Option<NetworkReading>,
        dealt_ports: usize,
    ) -> Self {
        // Steal of this machine is that of the trial only if a side is here.
        let is_one_here = context.sides().is_none_or(|sides| sides.is_one_here());
        let (machine, machine_unread) = match window.machine() {
            _ if !is_one_here => (None, None),
            Ok(machine) => (Some(machine), None),
            Err(why) => (None, Some(why.to_string())),
        };
        let sums = window.sums();
        Self {
            context,
            window,
            counters_before,
            at_rest,
            network,
            dealt_ports,
            sums,
            machine,
            machine_unread,
        }
    }

    /// Returns the connections that stood.
    fn stood(&self) -> u64 {
        self.at_rest.of_loop("open")
    }

    /// Returns an amount of the server's processes over the echoes.
    fn of_server(&self, amount: u64) -> Option<f64> {
        self.window.per_echo(amount).filter(|_| self.sums.are_whole)
    }

    /// Fills the row.
    fn fill(&self, row: &mut TrialRow, workload: &Workload, latency: &Latency) {
        let result = &self.window.result;
        columns::fill(row, result);
        row.connections = Some(self.stood());
        // An open loop's rate is given from the beginning.
        row.warmup_settled =
            Some(result.open.is_some() || result.warmup_s < latency.warmup_max.get().as_secs_f64());
        // If each worker has a port to itself.
        row.fairness_workers = (result.fairness.as_ref())
            .filter(|_| self.dealt_ports == usize::from(self.context.workers))
            .map(|fairness| fairness.ports);
        let accepted = &self.at_rest.accepted_by_worker;
        row.busiest_worker_percent = accepted
            .iter()
            .max()
            .map(|most| 100.0 * *most as f64 / accepted.iter().sum::<u64>().max(1) as f64);
        self.fill_server_cpu(row);
        row.worked_ns_per_echo = self.worked_ns_per_echo(workload);
        // The time of this machine's CPUs is that of the trial only if both sides are here.
        let is_both_here = self.context.sides().is_none_or(|sides| sides.are_here());
        // Others take turns with it, and are in the machine's time.
        let is_alone = self.window.turns.is_none();
        if let Some(machine) = self.machine.filter(|_| is_both_here && is_alone) {
            let Window { before, after, .. } = &self.window;
            row.machine_iowait_percent = machine.iowait_percent();
            let pressure = after.pressure_since(before);
            let percent = |us: u64| self.window.percent(us as f64 * 1e3);
            row.cpu_pressure_percent = pressure.and_then(|pressure| percent(pressure.cpu_us));
            row.io_pressure_percent = pressure.and_then(|pressure| percent(pressure.io_us));
            if !workload.idle_spinner {
                row.machine_cpu_ns_per_echo = self.window.per_echo(machine.busy_ns);
            }
            row.machine_softirq_ns_per_echo =
                machine.softirq_ns().and_then(|ns| self.window.per_echo(ns));
        }
        row.client_run_delay_percent =
            self.window.run_delay_percent(self.window.run_delays().client_ns(), result.threads);
        row.steal_percent = self.machine.and_then(|machine| machine.steal_percent());
        row.retransmitted_segments = self.network.map(|network| network.retransmitted_segments);
    }

    /// Returns how long the server worked for an echo, by its own count.
    fn worked_ns_per_echo(&self, workload: &Workload) -> Option<f64> {
        let since = |name: &str| {
            self.at_rest.of_loop(name).saturating_sub(self.counters_before.of_loop(name)) as f64
        };
        let echoes = match workload.service {
            ServiceName::Echo => since("bytes_received") / workload.message_bytes() as f64,
            _ => self.window.result.echoes_in_all as f64,
        };
        let worked_ns = since("worked_ns");
        (worked_ns > 0.0 && echoes > 0.0).then(|| worked_ns / echoes)
    }

    /// Fills what the server's processes used.
    fn fill_server_cpu(&self, row: &mut TrialRow) {
        let window = &self.window;
        let Window { before, after, result, .. } = window;
        let cpu_ns = window.server_cpu_ns();
        row.server_cpu_ns_per_echo = self.of_server(cpu_ns);
        let messages_per_mib = MIB / result.message_bytes as f64;
        row.server_cpu_ns_per_mib = row.server_cpu_ns_per_echo.map(|ns| ns * messages_per_mib);
        row.server_cpu_ns_per_connection = (result.churn.as_ref())
            .filter(|churn| churn.opened > 0 && self.sums.are_whole)
            .map(|churn| cpu_ns as f64 / churn.opened as f64);
        let is_seen = before.server_tasks.is_some() && after.server_tasks.is_some();
        row.server_cpu_source = if is_seen { PROCESS_CLOCK } else { SELF_REPORTED }.to_owned();
        let ticks = before.server_ticks.as_ref().zip(after.server_ticks.as_ref());
        let division = ticks.and_then(|(before, after)| after.user_share_since(before));
        if let Some((ticks, user_share)) = division.filter(|_| self.sums.are_whole) {
            let all = row.server_cpu_ns_per_echo;
            row.server_cpu_user_ns_per_echo = all.map(|all| all * user_share);
            row.server_cpu_kernel_ns_per_echo = all.map(|all| all * (1.0 - user_share));
            row.server_cpu_division_ticks = Some(ticks);
        }
        let tasks = before.server_tasks.as_ref().zip(after.server_tasks.as_ref());
        row.context_switches_per_echo = tasks.and_then(|(before, after)| {
            self.of_server(after.context_switches.saturating_sub(before.context_switches))
        });
        row.throttled_percent = after
            .throttled_since(before)
            .and_then(|throttled| window.percent(throttled.as_nanos() as f64));
        row.server_run_delay_percent =
            window.run_delay_percent(window.run_delays().server_ns, self.context.workers.into());
    }

    /// Returns which threads have no CPU each.
    fn sharing(&self) -> Sharing {
        let TrialContext { placement, workers, .. } = self.context;
        let tasks: Option<&Tasks> = self.window.after.server_tasks.as_ref();
        Sharing {
            by_placement: placement.shared_cpu,
            server_is_apart: !placement.server_shares_cpu,
            client_is_apart: placement.is_client_apart(),
            is_accounted: placement.is_one_cpu()
                && *workers == 1
                && self.window.result.threads == 1,
            kernel_thread: match tasks {
                Some(tasks) => tasks.sqpoll_threads > placement.free_of(&tasks.sqpoll_cpus),
                None => self.at_rest.kernel_threads.sqpoll > placement.left_by(*workers),
            },
            siblings: tasks.is_some_and(|tasks| tasks.count > u64::from(*workers) + MAIN_THREAD),
        }
    }

    /// Returns what the gates look at, but for the connections and the counters.
    fn evidence(&self, row: &TrialRow, sharing: Sharing) -> Evidence {
        let window = &self.window;
        let result = &window.result;
        // One thread of each on one CPU: what one waits beyond what the other runs, something else
        // ran.
        let beyond = |delay: Option<f64>, other_cpu_ns: u64| {
            if !sharing.is_accounted {
                return delay;
            }
            Some((delay? - window.percent(other_cpu_ns as f64)?).max(0.0))
        };
        // If the load has more threads than CPUs, nobody else took the time that they waited for
        // each other.
        let client_delay = beyond(row.client_run_delay_percent, window.server_cpu_ns());
        let cpus = self.context.placement.client_threads * self.context.loads();
        let own_delay = own_delay_percent(result, cpus).min(client_delay.unwrap_or(0.0));
        // A server that has used up its time waits for a CPU, and nothing else runs there.
        let server_delay = beyond(row.server_run_delay_percent, result.client_cpu_ns)
            .filter(|_| row.cpu_quota_percent.is_none());
        let mut evidence = Evidence {
            steal_percent: row.steal_percent,
            server_run_delay_percent: server_delay,
            client_run_delay_percent: client_delay.map(|delay| delay - own_delay),
            is_throttled: row.throttled_percent > Some(0.0),
            network: self.network,
            io_workers: window.io_workers().unwrap_or(self.at_rest.kernel_threads.io_wq),
            sharing,
            not_of_window: window.flaws(self.context),
            not_in_force: in_force::missing(&row.knobs, &row.in_force),
            ..Evidence::of_load(result)
        };
        if own_delay > RUN_DELAY_PERCENT {
            evidence.client_limits.push(format!(
                "client-limited: the load has {} threads on {cpus} CPUs, and each waited for the \
                 others up to {own_delay:.1} % of the time; more files for each thread \
                 (`ulimit -n`) take fewer threads",
                result.threads
            ));
        }
        evidence
            .notes
            .splice(..0, self.sums.note.clone().into_iter().chain(self.context.placement.note()));
        evidence.notes.extend(self.machine_unread.clone());
        evidence
    }
}

/// Returns the options of a load that measures a window.
pub fn load_options(duration: &MeasuringTime, warmup_max: &WaitingTime) -> [String; 3] {
    [
        format!("--duration={duration}"),
        format!("--warmup-max={warmup_max}"),
        // The load may be on another machine: what it has recorded comes with its result.
        "--histogram=-".to_owned(),
    ]
}

/// Keeps the CPUs awake, if the workload asks for that.
pub fn idle_spinner(context: &TrialContext, workload: &Workload) -> Result<Option<IdleSpinner>> {
    if !workload.idle_spinner {
        return Ok(None);
    }
    IdleSpinner::start(&context.placement.cpus()?, &context.interruptions).map(Some)
}

/// Opens the connections that never send.
pub fn idle_connections(site: &mut Site, connections: usize) -> Result<Option<Client>> {
    if connections == 0 {
        return Ok(None);
    }
    let mut load = site.load(connections, &[])?;
    Ramp::begin()?.to(connections, None, &mut site.server, &mut load, |_| {})?;
    Ok(Some(load))
}

/// Returns what the threads of a load can have waited for each other, in percent of the window and
/// as a mean over them, when they are more than its CPUs: on one CPU each waits at most as long as
/// the others run.
fn own_delay_percent(result: &LoadResult, cpus: usize) -> f64 {
    let others = result.threads.div_ceil(cpus.max(1)).saturating_sub(1) as f64;
    let ns = result.client_cpu_ns as f64 * others / result.threads as f64;
    percent_of(ns, result.duration_s * 1e9).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::evidence::tests::load_result;
    use super::*;

    #[test]
    fn threads_that_are_more_than_the_cpus_wait_for_each_other() {
        let second = 1_000_000_000;
        // Each of two waits while the other runs, and they run all the time.
        assert_eq!(own_delay_percent(&load_result(2, second), 1), 50.0);
        assert_eq!(own_delay_percent(&load_result(2, second / 2), 1), 25.0);
        assert_eq!(own_delay_percent(&load_result(4, 2 * second), 2), 50.0);
        for (threads, cpus) in [(1, 1), (2, 2), (2, 3), (1, 0)] {
            assert_eq!(
                own_delay_percent(&load_result(threads, second), cpus),
                0.0,
                "{threads} threads on {cpus}"
            );
        }
    }
}
