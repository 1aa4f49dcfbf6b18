//! Ever more connections of which few or none are active: how fast they open, whether those that
//! rest cost the others anything, and whether all of them are alive.
//!
//! Two loads share the server. The *crowd* holds the connections that rest, and the other, begun
//! anew for every measurement, has those that are active: what it measures is then its own doing
//! alone, however many threads the crowd needs for its files. At the end every connection of the
//! crowd, which then is all of them, sends one message and gets it back.
//!
//! The counts only rise, and so does the time, in which a machine drifts by more than a crowd
//! costs. So a second server of the same kind runs beside, without a crowd, and every load is
//! measured on both, one right after the other, the first of them in turn: only their ratio tells
//! what the crowd costs. At a count at which all are active it shows the noise.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ringmark::backend;
use ringmark::protocol::ServerCounters;

use super::context::TrialContext;
use super::evidence::Evidence;
use super::ramp::{self, Ramp, available_bytes};
use super::site::Site;
use super::task::Trial;
use super::window::{Clocks, Window};
use super::{columns, fit, gates, in_force};
use crate::load::result::{Arrival, LoadEvent};
use crate::machine::cpu::MachineCpu;
use crate::matrix::Scale;
use crate::programs::client::Client;
use crate::rows::{ALONE, CROWDED, Outcome, ScaleRow, Status, TrialRow};
use crate::statistics::percent_of;

/// How long it may take until every connection has made an echo.
const ALL_TIME: Duration = Duration::from_secs(600);

/// Memory that may be missing after the server has ended without a note: other programs, and the
/// kernel's caches, take some meanwhile.
const MISSING_BYTES: u64 = 200 << 20;

/// Until many connections that are active at once have made two echoes each.
const CLOSED_WARMUP_MAX: Duration = Duration::from_secs(5);

/// Other programs may take this share of the machine's time.
const OTHERS_PERCENT: f64 = 5.0;

/// Measures one trial of the pass.
pub fn measure(
    trial: &Trial,
    context: &TrialContext,
    scale: &Scale,
    outcome: &mut Outcome,
) -> Result<(Status, String)> {
    let (counts, skipped) = match fit::limit(trial, context, scale.most())? {
        Some(limit) => (scale.up_to(limit.connections as usize), Some(limit.reason)),
        None => (scale.connections.clone(), None),
    };
    // With fewer there would be none to be idle.
    let counts: Vec<usize> = counts.into_iter().filter(|&count| count >= scale.active).collect();
    let Some(&most) = counts.last() else {
        return Ok((Status::Skipped, skipped.unwrap_or_default()));
    };
    let before_bytes = available_bytes()?;
    outcome.scale.push(step(&outcome.row, "before", before_bytes));
    // In the same network, if neither has one of its own.
    let beside = TrialContext { first_port: context.first_port + context.ports, ..context.clone() };
    let mut walk = Walk::begin(trial, context, &beside, scale, most, outcome)?;
    let network_before = walk.crowded.network()?;
    let echoes = walk.alone.is_some();
    for &count in &counts {
        walk.open(count)?;
        walk.outcome.row.connections_per_s = Some(walk.opened as f64 / walk.opening_s);
        walk.rest(count)?;
        if echoes {
            for active in scale.active_of(count, count == most) {
                walk.loads(count, active)?;
            }
        }
    }
    walk.open(most)?;
    let stood = walk.crowded.server.counters()?.of_loop("open");
    walk.outcome.row.connections = Some(stood);
    if echoes {
        walk.all(most)?;
    }
    let network = walk.crowded.network_since(network_before)?;
    walk.open(0)?;
    let counters = walk.end()?;
    let after_bytes = ramp::released(most)?;
    outcome.scale.push(step(&outcome.row, "after", after_bytes));
    let mut notes: Vec<String> = skipped.into_iter().collect();
    notes.extend(missing(before_bytes.saturating_sub(after_bytes)));
    notes.extend(turned_away(&outcome.scale));
    notes.extend(context.placement.note());
    let row = &mut outcome.row;
    row.retransmitted_segments = network.map(|network| network.retransmitted_segments);
    row.shared_cpu = context.placement.shared_cpu;
    row.shared_core = context.placement.shared_core;
    Ok(gates::judge(&Evidence {
        connections: (most as u64, stood),
        network,
        counters,
        not_in_force: in_force::missing(&row.knobs, &row.in_force),
        notes,
        ..Evidence::default()
    }))
}

/// Says how much memory was not available again.
fn missing(bytes: u64) -> Option<String> {
    (bytes > MISSING_BYTES)
        .then(|| format!("{} MiB were not available again after the server had ended", bytes >> 20))
}

/// Says how many loads gave no figures.
fn turned_away(steps: &[ScaleRow]) -> Option<String> {
    let loads: Vec<_> = steps.iter().filter(|step| step.step == "load").collect();
    let unusable = loads.iter().filter(|load| !load.status.is_usable()).count();
    (unusable > 0).then(|| format!("{unusable} of {} loads were rejected", loads.len()))
}

/// Returns the row of a step in which nothing was sent.
fn step(trial: &TrialRow, step: &str, available_bytes: u64) -> ScaleRow {
    ScaleRow {
        run_id: trial.run_id,
        arm: trial.arm.clone(),
        backend: trial.backend.clone(),
        step: step.to_owned(),
        machine_available_bytes: available_bytes,
        status: Status::Ok,
        ..ScaleRow::default()
    }
}

/// The steps of one trial.
struct Walk<'a> {
    context: &'a TrialContext,
    scale: &'a Scale,
    outcome: &'a mut Outcome,
    crowded: Site<'a>,
    /// None if the servers do not echo.
    alone: Option<Site<'a>>,
    crowd: Client,
    ramp: Ramp,
    /// Connections opened so far, and how long that took.
    opened: usize,
    opening_s: f64,
}

impl<'a> Walk<'a> {
    /// Starts the servers and the crowd.
    fn begin(
        trial: &'a Trial,
        context: &'a TrialContext,
        beside: &'a TrialContext,
        scale: &'a Scale,
        most: usize,
        outcome: &'a mut Outcome,
    ) -> Result<Self> {
        let row = &mut outcome.row;
        let crowded = Site::start(trial, context, row, |_| {})?;
        let alone = if backend::find(&trial.arm.backend).is_ok_and(|entry| entry.echoes) {
            Some(Site::start(trial, beside, row, |_| {})?)
        } else {
            None
        };
        let crowd = crowded.load(most, &[])?;
        let ramp = Ramp::begin()?;
        Ok(Self { context, scale, outcome, crowded, alone, crowd, ramp, opened: 0, opening_s: 0.0 })
    }

    /// Ends the crowd and the servers.
    fn end(self) -> Result<ServerCounters> {
        self.crowd.quit()?;
        self.alone.map(|site| site.server.stop()).transpose()?;
        self.crowded.stop(&mut self.outcome.row)
    }

    /// Opens or closes connections of the crowd until `target` stand.
    fn open(&mut self, target: usize) -> Result<()> {
        let opens = self.crowd.connections() < target;
        let Outcome { row, scale: rows, .. } = &mut *self.outcome;
        self.ramp.to(target, None, &mut self.crowded.server, &mut self.crowd, |change| {
            if opens {
                self.opened += change.changed;
                self.opening_s += change.duration_s;
            }
            rows.push(ScaleRow {
                connections: change.connections as u64,
                duration_s: Some(change.duration_s),
                connections_per_s: Some(change.changed as f64 / change.duration_s),
                connect_p50_us: change.connect_us.p50,
                connect_p99_us: change.connect_us.p99,
                connect_max_us: change.connect_us.max,
                ..step(row, if opens { "open" } else { "close" }, change.available_bytes)
            });
        })
    }

    /// Measures what the server does when nobody sends.
    fn rest(&mut self, connections: usize) -> Result<()> {
        let server = &mut self.crowded.server;
        let before = Clocks::begin(server, &self.crowd)?;
        std::thread::sleep(self.scale.duration.get());
        let after = Clocks::end(server, &self.crowd, &before)?;
        let duration_s = after.read_at.ns_since(&before.read_at) as f64 / 1e9;
        let cpu_ns = (after.server_cpu_ns - before.server_cpu_ns) as f64;
        let percent = |ns: f64| percent_of(ns, duration_s * 1e9);
        let tasks = before.server_tasks.as_ref().zip(after.server_tasks.as_ref());
        let wakeups = tasks.map(|(before, after)| {
            after.context_switches.saturating_sub(before.context_switches) as f64
        });
        let pressure = after.pressure_since(&before);
        self.outcome.scale.push(ScaleRow {
            connections: connections as u64,
            duration_s: Some(duration_s),
            server_cpu_percent: percent(cpu_ns),
            wakeups_per_s: wakeups.map(|count| count / duration_s),
            machine_iowait_percent: after
                .machine_since(&before)
                .ok()
                .and_then(|machine| machine.iowait_percent()),
            cpu_pressure_percent: pressure.and_then(|of| percent(of.cpu_us as f64 * 1e3)),
            io_pressure_percent: pressure.and_then(|of| percent(of.io_us as f64 * 1e3)),
            ..step(&self.outcome.row, "rest", available_bytes()?)
        });
        Ok(())
    }

    /// Measures both loads at one count, several times each, on both servers.
    fn loads(&mut self, count: usize, active: usize) -> Result<()> {
        // The active ones are part of the count.
        self.open(count - active)?;
        for repeat in 1..=self.scale.repeats {
            let in_turn = if repeat % 2 == 1 { [CROWDED, ALONE] } else { [ALONE, CROWDED] };
            for arrival in [Arrival::Closed, Arrival::Poisson] {
                for server in in_turn {
                    let row = ScaleRow {
                        connections: count as u64,
                        server: server.to_owned(),
                        repeat: Some(repeat),
                        ..self.load(server, active, arrival)?
                    };
                    self.outcome.scale.push(row);
                }
            }
        }
        Ok(())
    }

    /// Measures one load on one of the servers, with connections of its own.
    fn load(&mut self, server: &str, active: usize, arrival: Arrival) -> Result<ScaleRow> {
        let Self { context, scale, crowded, alone, crowd, ramp, outcome, .. } = self;
        let (site, mut crowd) = match alone {
            Some(alone) if server == ALONE => (alone, None),
            _ => (crowded, Some(crowd)),
        };
        let idle = crowd.as_ref().map_or(0, |crowd| crowd.connections());
        // A closed loop's ends when it has settled.
        let is_closed = arrival == Arrival::Closed;
        let least = if is_closed { CLOSED_WARMUP_MAX } else { Duration::ZERO };
        let warmup_max = scale.warmup_max.get().max(least);
        let mut load = site.load(active, &arguments(scale, arrival, warmup_max))?;
        let network_before = site.network()?;
        ramp.to(active, crowd.as_deref_mut(), &mut site.server, &mut load, |_| {})?;
        let counters_before = site.server.counters()?;
        let window =
            Window::measure(&mut site.server, &mut load, scale.duration.get(), warmup_max)?;
        let not_of_window = window.flaws(context);
        let counters = site.server.counters()?;
        let network = site.network_since(network_before)?;
        load.quit()?;
        site.server.await_open(crowd)?;

        let result = &window.result;
        let machine = window.machine();
        let mut evidence = Evidence {
            connections: ((idle + active) as u64, counters.of_loop("open")),
            steal_percent: machine.as_ref().ok().and_then(MachineCpu::steal_percent),
            network,
            not_of_window,
            io_workers: window.io_workers().unwrap_or(counters.kernel_threads.io_wq),
            ..Evidence::of_load(result)
        };
        let cpus = context.placement.cpus()?.cpus().len() as f64;
        let both_ns = window.server_cpu_ns() + result.client_cpu_ns;
        let other_cpu_percent = machine.as_ref().ok().and_then(|machine| {
            let others_ns = machine.busy_ns.saturating_sub(both_ns);
            percent_of(others_ns as f64, result.duration_s * 1e9 * cpus)
        });
        evidence.notes.extend(machine.err().map(|why| why.to_string()));
        let (mut status, mut reason) = gates::judge(&evidence);
        // The run delay of workers that share a CPU tells nothing of others.
        if let Some(percent) = other_cpu_percent.filter(|&percent| percent > OTHERS_PERCENT) {
            status = Status::Rejected;
            // To the kernel's tick, which is 2.5 % of two CPUs' 200 ms.
            reason = format!(
                "others took {percent:.0} % of the CPUs' time (bound: {OTHERS_PERCENT} %); {reason}"
            );
        }
        let arrival = arrival.name().to_owned();
        let mut measured = TrialRow { arrival, status, reason, ..outcome.row.clone() };
        columns::fill(&mut measured, result);
        measured.server_cpu_ns_per_echo = window.per_echo(window.server_cpu_ns());
        fill_counters(&mut measured, &counters_before, &counters);
        Ok(ScaleRow {
            step: "load".to_owned(),
            server_cpu_percent: window.percent(window.server_cpu_ns() as f64),
            other_cpu_percent,
            machine_available_bytes: available_bytes()?,
            ..ScaleRow::of_load(measured)
        })
    }

    /// Has every connection send one message and get it back.
    fn all(&mut self, count: usize) -> Result<()> {
        let Self { crowded, crowd, ramp, outcome, .. } = self;
        let server = &mut crowded.server;
        ramp.check_echo(count)?;
        let counters_before = server.counters()?;
        let before = Clocks::begin(server, crowd)?;
        let event = server.blaming(|_| crowd.command("echo 1", ALL_TIME))?;
        let after = Clocks::end(server, crowd, &before)?;
        let LoadEvent::Echoed(result) = event else {
            bail!("expected the load's echoes, got {event:?}")
        };
        let counters = server.counters()?;
        ensure!(
            result.echoes == count as u64,
            "of {count} connections {} got their message back",
            result.echoes
        );
        let window = Window { before, after, result, turns: None };
        let mut measured = TrialRow { status: Status::Ok, ..outcome.row.clone() };
        columns::fill(&mut measured, &window.result);
        measured.owed = None;
        measured.server_cpu_ns_per_echo = window.per_echo(window.server_cpu_ns());
        fill_counters(&mut measured, &counters_before, &counters);
        outcome.row.echoes = measured.echoes;
        outcome.row.active_connections = Some(count as u64);
        outcome.scale.push(ScaleRow {
            step: "all".to_owned(),
            connections: counters.of_loop("open"),
            machine_available_bytes: available_bytes()?,
            ..ScaleRow::of_load(measured)
        });
        Ok(())
    }
}

/// Returns what a load is told beside its connections.
fn arguments(scale: &Scale, arrival: Arrival, warmup_max: Duration) -> Vec<String> {
    let mut arguments = vec![
        format!("--duration={}", scale.duration),
        format!("--warmup-max={}", humantime::format_duration(warmup_max)),
    ];
    if arrival != Arrival::Closed {
        arguments.push(format!("--rate={}", scale.rate_per_s));
        arguments.push(format!("--arrival={}", arrival.name()));
    }
    arguments
}

/// Fills what the server counted over the echoes that it sent, the warm-up's too.
fn fill_counters(row: &mut TrialRow, before: &ServerCounters, after: &ServerCounters) {
    let calls = |counters: &ServerCounters| counters.calls.values().sum::<u64>();
    let echoes = (after.of_loop("bytes_sent") - before.of_loop("bytes_sent")) / row.message_bytes;
    if echoes > 0 {
        row.syscalls_per_echo = Some((calls(after) - calls(before)) as f64 / echoes as f64);
    }
    row.events_per_wait = after.events_per_wait_since(before);
}
