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

use super::gates::{self, Evidence, Offered};
use super::latency::{
    Clocks, Window, client_limits, load_notes, network, network_since, owed, window,
};
use super::ramp::{self, Ramp, available_bytes};
use super::{Trial, TrialContext};
use crate::load::result::{Arrival, LoadEvent, LoadResult};
use crate::machine::cpu::MachineCpuDifference;
use crate::machine::network_namespace::NetworkNamespace;
use crate::matrix::Scale;
use crate::programs::client::Load;
use crate::programs::counters::ServerCounters;
use crate::programs::server::Server;
use crate::rows::{ALONE, CROWDED, Outcome, ScaleRow, Status, TrialRow};
use crate::statistics::percent_of;

/// How long it may take until every connection has made an echo.
const ALL_TIME: Duration = Duration::from_secs(600);

/// What may be missing after the server has ended without a word: what other programs, and the
/// kernel's caches, take meanwhile.
const MISSING_BYTES: u64 = 200 << 20;

/// Until many connections that are active at once have made two echoes each.
const CLOSED_WARMUP_MAX: Duration = Duration::from_secs(5);

/// Other programs may take this share of the machine's time.
const OTHERS_PERCENT: f64 = 5.0;

/// A server where it runs.
struct Site {
    namespace: Option<NetworkNamespace>,
    server: Server,
}

/// The steps of one trial.
struct Walk<'a> {
    trial: &'a Trial,
    context: &'a TrialContext,
    scale: &'a Scale,
    crowded: Site,
    /// None if the servers do not echo.
    alone: Option<Site>,
    crowd: Load,
    ramp: Ramp,
    /// Opened so far, and how long that took.
    opened: (usize, f64),
}

pub fn measure(
    trial: &Trial,
    context: &TrialContext,
    scale: &Scale,
    outcome: &mut Outcome,
) -> Result<(Status, String)> {
    let (counts, skipped) =
        match trial.room(context, scale.connections.last().copied().unwrap_or_default())? {
            Some((room, reason)) => (scale.up_to(room), Some(reason)),
            None => (scale.connections.clone(), None),
        };
    // With fewer there would be none to be idle.
    let counts: Vec<usize> = counts.into_iter().filter(|&count| count >= scale.active).collect();
    let Some(&most) = counts.last() else {
        return Ok((Status::Skipped, skipped.unwrap_or_default()));
    };
    let Outcome { row, scale: rows, .. } = outcome;
    let mut push = |step: ScaleRow| rows.push(step);
    let before_bytes = available_bytes()?;
    push(trial.step("before", before_bytes));

    let mut site = |context: &TrialContext| -> Result<Site> {
        let namespace = trial.namespace(context, row);
        let server = trial.server(context, namespace.as_ref(), row, |_| {})?;
        Ok(Site { namespace, server })
    };
    let echoes = backend::find(&trial.arm.backend).is_ok_and(|entry| entry.echoes);
    let mut crowded = site(context)?;
    // In the same network, if neither has one of its own.
    let beside = TrialContext { first_port: context.first_port + context.ports, ..context.clone() };
    let alone = echoes.then(|| site(&beside)).transpose()?;
    let network_before = network(&mut crowded.server, crowded.namespace.as_ref())?;
    let crowd = trial.load(context, crowded.namespace.as_ref(), &crowded.server, row, most, &[])?;
    let ramp = Ramp::begin()?;
    let mut walk = Walk { trial, context, scale, crowded, alone, crowd, ramp, opened: (0, 0.0) };
    for &count in &counts {
        walk.open(count, &mut push)?;
        row.connections_per_s = Some(walk.opened.0 as f64 / walk.opened.1);
        push(walk.rest(count)?);
        if echoes {
            for active in scale.active_of(count, count == most) {
                walk.loads(count, active, row, &mut push)?;
            }
        }
    }
    walk.open(most, &mut push)?;
    let counters_open = walk.crowded.server.counters()?;
    row.connections = Some(counters_open.of_loop("open"));
    if echoes {
        let all = walk.all(most)?;
        row.echoes = all.echoes;
        row.active_connections = Some(most as u64);
        push(all);
    }
    let Site { namespace, server } = &mut walk.crowded;
    let network = network_since(server, namespace.as_ref(), network_before)?;
    walk.open(0, &mut push)?;
    let Walk { crowded: Site { namespace, server }, alone, crowd, .. } = walk;
    crowd.quit()?;
    alone.map(|site| site.server.stop()).transpose()?;
    let counters = trial.stop(server, row)?;
    drop(namespace);
    let after_bytes = ramp::released()?;
    push(trial.step("after", after_bytes));
    let mut notes: Vec<String> = skipped.into_iter().collect();
    let missing = before_bytes.saturating_sub(after_bytes);
    if missing > MISSING_BYTES {
        notes.push(format!(
            "{} MiB were not available again after the server had ended",
            missing >> 20
        ));
    }
    let loads = || rows.iter().filter(|row| row.step == "load");
    let unusable = loads().filter(|row| !row.status.is_usable()).count();
    if unusable > 0 {
        notes.push(format!("{unusable} of {} loads were turned away", loads().count()));
    }

    row.retransmitted_segments = network.map(|network| network.retransmitted_segments);
    row.shared_cpu = context.placement.shared_cpu;
    row.shared_core = context.placement.shared_core;
    notes.extend(context.placement.note());
    let (status, reason) = gates::judge(&Evidence {
        connections: (most as u64, counters_open.of_loop("open")),
        network,
        counters,
        not_in_force: gates::not_in_force(&row.knobs, &row.in_force),
        notes,
        ..Evidence::default()
    });
    Ok((status, reason))
}

impl Trial {
    fn step(&self, step: &str, available_bytes: u64) -> ScaleRow {
        ScaleRow {
            run_id: self.run_id,
            arm: self.role.clone(),
            backend: self.arm.backend.clone(),
            step: step.to_owned(),
            machine_available_bytes: available_bytes,
            status: Status::Ok,
            ..ScaleRow::default()
        }
    }

    /// A step in which connections sent; `counters` are the server's before and after.
    fn echoed(
        &self,
        step: &str,
        result: &LoadResult,
        server_cpu_ns: u64,
        counters: [&ServerCounters; 2],
        available_bytes: u64,
    ) -> ScaleRow {
        let [before, after] = counters;
        let per_echo =
            |amount: u64| (result.echoes > 0).then(|| amount as f64 / result.echoes as f64);
        ScaleRow {
            active_connections: result.active_connections as u64,
            duration_s: Some(result.duration_s),
            achieved_per_s: Some(result.achieved_per_s),
            echoes: Some(result.echoes),
            latency_p50_us: result.latency_us.p50,
            latency_p99_us: result.latency_us.p99,
            latency_p999_us: result.latency_us.p999,
            latency_max_us: result.latency_us.max,
            server_cpu_ns_per_echo: per_echo(server_cpu_ns),
            client_cpu_ns_per_echo: per_echo(result.client_cpu_ns),
            syscalls_per_echo: calls_per_echo(before, after, result.message_bytes),
            events_per_wait: after.events_per_wait_since(before),
            ..self.step(step, available_bytes)
        }
    }
}

impl Walk<'_> {
    /// Opens or closes connections of the crowd until `target` stand.
    fn open(&mut self, target: usize, push: &mut dyn FnMut(ScaleRow)) -> Result<()> {
        let Self { trial, crowded: Site { server, .. }, crowd, ramp, opened, .. } = self;
        let opens = crowd.connections() < target;
        ramp.to(target, 0, server, crowd, |step| {
            if opens {
                *opened = (opened.0 + step.changed, opened.1 + step.duration_s);
            }
            push(ScaleRow {
                connections: step.connections as u64,
                duration_s: Some(step.duration_s),
                connections_per_s: Some(step.changed as f64 / step.duration_s),
                connect_p50_us: step.connect_us.p50,
                connect_p99_us: step.connect_us.p99,
                connect_max_us: step.connect_us.max,
                ..trial.step(if opens { "open" } else { "close" }, step.available_bytes)
            });
        })
    }

    /// What the server does when nobody sends.
    fn rest(&mut self, connections: usize) -> Result<ScaleRow> {
        let server = &mut self.crowded.server;
        let before = Clocks::begin(server, &self.crowd)?;
        std::thread::sleep(self.scale.duration);
        let after = Clocks::end(server, &self.crowd, &before)?;
        let duration_s = after.read_at.ns_since(&before.read_at) as f64 / 1e9;
        let cpu_ns = (after.server_cpu_ns - before.server_cpu_ns) as f64;
        Ok(ScaleRow {
            connections: connections as u64,
            duration_s: Some(duration_s),
            server_cpu_percent: percent_of(cpu_ns, duration_s * 1e9),
            ..self.trial.step("rest", available_bytes()?)
        })
    }

    /// Both loads at one count, several times each, on both servers.
    fn loads(
        &mut self,
        count: usize,
        active: usize,
        row: &TrialRow,
        push: &mut dyn FnMut(ScaleRow),
    ) -> Result<()> {
        // The active ones are part of the count.
        self.open(count - active, push)?;
        for repeat in 1..=self.scale.repeats {
            let in_turn = if repeat % 2 == 1 { [CROWDED, ALONE] } else { [ALONE, CROWDED] };
            for arrival in [Arrival::Closed, Arrival::Poisson] {
                for server in in_turn {
                    push(ScaleRow {
                        connections: count as u64,
                        server: server.to_owned(),
                        repeat: Some(repeat),
                        ..self.load(server, count - active, active, arrival, row)?
                    });
                }
            }
        }
        Ok(())
    }

    /// One load on one of the servers, with connections of its own.
    fn load(
        &mut self,
        server: &str,
        crowd: usize,
        active: usize,
        arrival: Arrival,
        row: &TrialRow,
    ) -> Result<ScaleRow> {
        let Self { trial, context, scale, crowded, alone, ramp, .. } = self;
        let (Site { namespace, server }, idle) = match alone {
            Some(alone) if server == ALONE => (alone, 0),
            _ => (crowded, crowd),
        };
        // A closed loop's ends when it has settled.
        let warmup_max = if arrival == Arrival::Closed {
            CLOSED_WARMUP_MAX.max(scale.warmup_max)
        } else {
            scale.warmup_max
        };
        let mut more = vec![
            format!("--duration={}", humantime::format_duration(scale.duration)),
            format!("--warmup-max={}", humantime::format_duration(warmup_max)),
        ];
        if arrival != Arrival::Closed {
            more.extend([
                format!("--rate={}", scale.rate_per_s),
                format!("--arrival={}", arrival.name()),
            ]);
        }
        let mut load = trial.load(context, namespace.as_ref(), server, row, active, &more)?;
        let network_before = network(server, namespace.as_ref())?;
        ramp.to(active, idle, server, &mut load, |_| {})?;
        let counters_before = server.counters()?;
        let window = window(server, &mut load, scale.duration, warmup_max)?;
        let not_of_window = window.not_of_it(context);
        let Window { before, after, result } = window;
        let counters = server.counters()?;
        let network = network_since(server, namespace.as_ref(), network_before)?;
        load.quit()?;
        server.await_open(idle as u64)?;

        let server_cpu_ns = after.server_cpu_ns - before.server_cpu_ns;
        let machine = after.machine_since(&before);
        let both_ns = server_cpu_ns + result.client_cpu_ns;
        let capacity_ns = result.duration_s * 1e9 * context.placement.cpus()?.cpus().len() as f64;
        let other_cpu_percent = (machine.as_ref().ok()).and_then(|machine| {
            percent_of(machine.busy_ns.saturating_sub(both_ns) as f64, capacity_ns)
        });
        let (mut status, mut reason) = gates::judge(&Evidence {
            connections: ((idle + active) as u64, counters.of_loop("open")),
            echoes: Some(result.echoes),
            offered: result.open.as_ref().map(|open| Offered {
                per_s: open.offered_per_s,
                achieved_per_s: result.achieved_per_s,
                unsent_per_s: open.unsent as f64 / result.duration_s,
            }),
            client_cpu_percent: Some(result.client_cpu_ratio * 100.0),
            steal_percent: machine.as_ref().ok().and_then(MachineCpuDifference::steal_percent),
            network,
            not_of_window,
            io_workers: after.io_workers().unwrap_or(counters.kernel_threads.io_wq),
            owed: owed(&result),
            client_limits: client_limits(&result),
            notes: load_notes(&result).into_iter().chain(machine.err()).collect(),
            ..Evidence::default()
        });
        // Of workers that share a CPU the waiting for it tells nothing.
        if let Some(percent) = other_cpu_percent.filter(|&percent| percent > OTHERS_PERCENT) {
            status = Status::Rejected;
            // To the kernel's tick, which is 2.5 % of two CPUs' 200 ms.
            reason = format!(
                "others took {percent:.0} % of the CPUs' time (bound: {OTHERS_PERCENT} %); {reason}"
            );
        }
        let service = result.open.as_ref().map(|open| open.service_us.clone()).unwrap_or_default();
        let calls = [&counters_before, &counters];
        Ok(ScaleRow {
            arrival: arrival.name().to_owned(),
            offered_per_s: result.open.as_ref().map(|open| open.offered_per_s),
            owed: Some(result.saturated.map_or(0, |saturated| saturated.owed)),
            service_p50_us: service.p50,
            service_p99_us: service.p99,
            server_cpu_percent: percent_of(server_cpu_ns as f64, result.duration_s * 1e9),
            other_cpu_percent,
            status,
            reason,
            ..trial.echoed("load", &result, server_cpu_ns, calls, available_bytes()?)
        })
    }

    /// Every connection sends one message and gets it back.
    fn all(&mut self, count: usize) -> Result<ScaleRow> {
        let Self { crowded: Site { server, .. }, crowd, ramp, .. } = self;
        ramp.check_echo(count)?;
        let counters_before = server.counters()?;
        let before = Clocks::begin(server, crowd)?;
        let event = crowd.command("echo 1", ALL_TIME).map_err(|error| server.blame(error))?;
        let after = Clocks::end(server, crowd, &before)?;
        let LoadEvent::Echoed(result) = event else {
            bail!("the load should have echoed, but says {event:?}")
        };
        let counters = server.counters()?;
        ensure!(
            result.echoes == count as u64,
            "of {count} connections {} got their message back",
            result.echoes
        );
        let server_cpu_ns = after.server_cpu_ns - before.server_cpu_ns;
        let calls = [&counters_before, &counters];
        Ok(ScaleRow {
            connections: counters.of_loop("open"),
            arrival: Arrival::Closed.name().to_owned(),
            ..self.trial.echoed("all", &result, server_cpu_ns, calls, available_bytes()?)
        })
    }
}

/// Calls of the server's workers over the echoes that it sent, the warm-up's too.
fn calls_per_echo(
    before: &ServerCounters,
    after: &ServerCounters,
    message_bytes: u64,
) -> Option<f64> {
    let calls = |counters: &ServerCounters| counters.calls.values().sum::<u64>();
    let sent = |counters: &ServerCounters| counters.of_loop("bytes_sent");
    let echoes = (sent(after) - sent(before)) / message_bytes;
    (echoes > 0).then(|| (calls(after) - calls(before)) as f64 / echoes as f64)
}
