//! The tables of trials and workloads. Everything here comes from a run's files, and the same files
//! give the same text.

use std::collections::BTreeSet;

use itertools::Itertools as _;
use ringmark::service::Service;

use super::query::{self, ArmTrials, absent, in_groups};
use super::section::Body;
use super::table::{Column, MISSING, Table, cell};
use crate::matrix::Workload;
use crate::results::Run;
use crate::rows::{Bounds, CapacityRow, EventRow, Pass, Status, SyscallRow, TrialRow};
use crate::statistics::median;
use crate::text::significant;
use crate::verdict::metric::{self, Metric};
use crate::verdict::{blocks, comparisons};

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// Calls that are made more seldom for an echo are not shown; syscalls.csv has all.
const SHOWN_CALLS: f64 = 0.005;

pub fn questions(run: &Run) -> Body {
    let columns: [Column<Workload>; 5] = [
        ("workload", |workload| workload.name.clone()),
        ("connections", |workload| match workload.idle_connections {
            0 => workload.connections.to_string(),
            idle => format!("{}, and {} idle", workload.connections, significant(idle as f64)),
        }),
        ("message", describe_message),
        ("load", query::describe_load),
        ("question", |workload| workload.question.clone()),
    ];
    Table::of(&run.matrix.workloads, 5, &columns).into()
}

fn describe_message(workload: &Workload) -> String {
    match workload.service() {
        Service::Echo => format!("{} B", workload.message_bytes()),
        service => service.to_string(),
    }
}

/// A trial in which calls were counted.
struct Counted<'a> {
    run: &'a Run,
    trial: &'a TrialRow,
}

impl<'a> Counted<'a> {
    /// Returns one trial of each arm.
    fn all(run: &'a Run) -> Vec<Self> {
        let arms = ArmTrials::of_pass(run, Pass::Syscalls);
        arms.iter().filter_map(|arm| Some(Self { run, trial: arm.counted()? })).collect()
    }

    fn is_usable(&self) -> bool {
        self.trial.status == Status::Ok
    }

    fn calls_by_name(&self) -> String {
        if !self.is_usable() {
            return MISSING.to_owned();
        }
        let by_count = |a: &&SyscallRow, b: &&SyscallRow| {
            b.calls.cmp(&a.calls).then_with(|| a.syscall.cmp(&b.syscall))
        };
        (self.run.syscalls.iter())
            .filter(|row| row.run_id == self.trial.run_id)
            .sorted_by(by_count)
            .filter(|row| row.calls_per_echo >= SHOWN_CALLS)
            .map(|row| format!("{} {}", row.syscall, significant(row.calls_per_echo)))
            .join(", ")
    }

    fn figure(&self, value: Option<f64>) -> String {
        cell(value.filter(|_| self.is_usable()), significant)
    }

    fn events(&self) -> Vec<&'a EventRow> {
        self.run.events.iter().filter(|row| row.run_id == self.trial.run_id).collect()
    }
}

pub fn syscalls(run: &Run) -> Body {
    let columns: [Column<Counted>; 6] = [
        ("workload", |counted| counted.trial.workload.clone()),
        ("arm", |counted| counted.trial.arm.clone()),
        ("calls by name", Counted::calls_by_name),
        ("source", |counted| {
            counted.trial.syscalls_source.split(':').next().unwrap_or_default().to_owned()
        }),
        ("calls per echo", |counted| counted.figure(counted.trial.syscalls_per_echo)),
        ("events per wait", |counted| counted.figure(counted.trial.events_per_wait)),
    ];
    Body::from(Table::of(&Counted::all(run), 4, &columns)).list(&absent(run, Pass::Syscalls))
}

/// Shows a column for each event. The table of calls says which arms could not be counted.
pub fn events(run: &Run) -> Body {
    let names = run.events.iter().map(|row| row.event.as_str()).unique().collect_vec();
    let mut heading = vec!["workload", "arm"];
    heading.extend(names.iter().map(|name| name.trim_start_matches("io_uring_")));
    let mut table = Table::new(2, &heading);
    let mut reasons: Vec<String> = Vec::new();
    for counted in Counted::all(run).iter().filter(|counted| counted.is_usable()) {
        let events = counted.events();
        if events.is_empty() {
            continue;
        }
        let mut cells = vec![counted.trial.workload.clone(), counted.trial.arm.clone()];
        cells.extend(names.iter().map(|name| {
            let event = events.iter().find(|row| row.event == *name);
            match event.and_then(|row| row.count_per_echo) {
                // An event that never happened differs from one that hardly did.
                Some(0.0) => "0".to_owned(),
                value => cell(value, significant),
            }
        }));
        table.push(cells);
        let uncounted = events.iter().filter(|row| row.count.is_none());
        reasons.extend(
            uncounted.map(|row| format!("- `{}` has no events: {}\n", row.arm, row.source)),
        );
    }
    if table.is_empty() {
        return Body::default();
    }
    let note = "\nOf an SQPOLL thread `task_work_run` counts the turns of its polling, with work \
                or without.\n";
    Body::from(table).notes(note).list(&reasons.into_iter().unique().collect::<String>())
}

/// A column that stands for arms of any run.
type TrialsColumn<'a> = (&'a str, fn(&ArmTrials) -> String);

const WORKLOAD: TrialsColumn = ("workload", |row| row.workload.to_owned());
const ARM: TrialsColumn = ("arm", |row| row.arm.clone());
const ACHIEVED: fn(&ArmTrials) -> String = |row| row.median(|trial| trial.achieved_per_s);
const P50: TrialsColumn = ("p50 µs", |row| row.median(|trial| trial.latency_p50_us));
const P99: TrialsColumn = ("p99 µs", |row| row.median(|trial| trial.latency_p99_us));
const P999: TrialsColumn = ("p99.9 µs", |row| row.median(|trial| trial.latency_p999_us));
const CLIENT_CPU: TrialsColumn =
    ("client CPU %", |row| row.median(|trial| trial.client_cpu_percent));
const CLIENT_LIMITED: TrialsColumn = ("client-limited", |row| row.client_limited());
const BLOCKS: TrialsColumn = ("blocks", |row| row.blocks());

/// Returns the arms of the latency pass. Every column is over the same blocks as the ratio.
fn latency_trials(run: &Run) -> impl Iterator<Item = ArmTrials<'_>> {
    (ArmTrials::of_pass(run, Pass::Latency).into_iter())
        .map(|row| ArmTrials::in_complete_blocks(run, row.workload, row.arm))
}

/// Returns the same of some workloads.
fn latency_trials_of(run: &Run, is_one: fn(&Workload) -> bool) -> Vec<ArmTrials<'_>> {
    let ours = run.matrix.workloads.iter().filter(|workload| is_one(workload));
    let names: BTreeSet<&str> = ours.map(|workload| workload.name.as_str()).collect();
    latency_trials(run).filter(|row| names.contains(row.workload)).collect()
}

fn is_closed(workload: &Workload) -> bool {
    workload.rate_per_s.is_none() && !workload.is_stream()
}

fn is_open(workload: &Workload) -> bool {
    workload.rate_per_s.is_some() && !workload.is_stream()
}

fn against_baseline(run: &Run, metric: &Metric) -> String {
    format!("against {} ({})", run.matrix.baseline, query::bounds(run, metric))
}

/// Shows what is read off clocks. Figures that the kernel samples at its tick are in trials.csv.
pub fn cpu(run: &Run) -> Body {
    let against = against_baseline(run, &metric::CPU);
    let columns: [Column<ArmTrials>; 7] = [
        WORKLOAD,
        ARM,
        ("server ns/echo", |row| row.median(|trial| trial.server_cpu_ns_per_echo)),
        (&against, |row| row.against_baseline(&metric::CPU)),
        ("client ns/echo", |row| row.median(|trial| trial.client_cpu_ns_per_echo)),
        ("switches/echo", |row| row.median(|trial| trial.context_switches_per_echo)),
        BLOCKS,
    ];
    Body::from(Table::of(&latency_trials(run).collect_vec(), 2, &columns))
        .list(&absent(run, Pass::Latency))
        .list(&endings(run))
}

/// Shows also where the client was the limit, and marks it. Only the others are compared.
pub fn closed_loop(run: &Run) -> Body {
    let against = format!("echoes/s {}", against_baseline(run, &metric::THROUGHPUT));
    let columns: [Column<ArmTrials>; 9] = [
        WORKLOAD,
        ARM,
        ("echoes/s", ACHIEVED),
        (&against, |row| row.against_baseline(&metric::THROUGHPUT)),
        P50,
        P99,
        P999,
        CLIENT_CPU,
        CLIENT_LIMITED,
    ];
    Table::of(&latency_trials_of(run, is_closed), 2, &columns).into()
}

pub fn open_loop(run: &Run) -> Body {
    let against = format!("p99 {}", against_baseline(run, &metric::P99));
    let columns: [Column<ArmTrials>; 13] = [
        WORKLOAD,
        ARM,
        ("offered/s", |row| row.median(|trial| trial.offered_per_s)),
        ("back in time/s", ACHIEVED),
        P50,
        P99,
        P999,
        (&against, |row| row.against_baseline(&metric::P99)),
        ("service p99 µs", |row| row.median(|trial| trial.service_p99_us)),
        ("send lag p50 µs", |row| row.median(|trial| trial.send_lag_p50_us)),
        ("send lag p99 µs", |row| row.median(|trial| trial.send_lag_p99_us)),
        CLIENT_CPU,
        CLIENT_LIMITED,
    ];
    Table::of(&latency_trials_of(run, is_open), 2, &columns).into()
}

/// Shows what goes one way, and what a MiB of it costs.
pub fn streams(run: &Run) -> Body {
    let rate = format!("messages/s {}", against_baseline(run, &metric::THROUGHPUT));
    let cpu = format!("CPU {}", against_baseline(run, &metric::CPU));
    let columns: [Column<ArmTrials>; 10] = [
        WORKLOAD,
        ARM,
        ("messages/s", ACHIEVED),
        ("MiB/s", |row| row.median(|trial| trial.bytes_per_s.map(|bytes| bytes / MIB))),
        (&rate, |row| row.against_baseline(&metric::THROUGHPUT)),
        ("server µs/MiB", |row| {
            row.median(|trial| trial.server_cpu_ns_per_mib.map(|ns| ns / 1e3))
        }),
        (&cpu, |row| row.against_baseline(&metric::CPU)),
        CLIENT_CPU,
        CLIENT_LIMITED,
        BLOCKS,
    ];
    Table::of(&latency_trials_of(run, Workload::is_stream), 2, &columns).into()
}

pub fn churn(run: &Run) -> Body {
    let columns: [Column<ArmTrials>; 7] = [
        WORKLOAD,
        ARM,
        ("connections/s", |row| row.median(|trial| trial.connections_per_s)),
        ("connect p50 µs", |row| row.median(|trial| trial.connect_p50_us)),
        ("connect p99 µs", |row| row.median(|trial| trial.connect_p99_us)),
        ("server ns/connection", |row| row.median(|trial| trial.server_cpu_ns_per_connection)),
        BLOCKS,
    ];
    let mut rows = latency_trials_of(run, is_closed);
    rows.retain(|row| row.trials.iter().any(|trial| trial.connections_per_s.is_some()));
    Table::of(&rows, 2, &columns).into()
}

/// Shows medians over the blocks. A single connection has no other to be unfair to.
pub fn fairness(run: &Run) -> Body {
    let columns: [Column<ArmTrials>; 8] = [
        WORKLOAD,
        ARM,
        ("connections", |row| fairness_index(row, |trial| trial.fairness_connections)),
        ("slowest", |row| row.median(|trial| trial.slowest_connection_over_mean)),
        ("fastest", |row| row.median(|trial| trial.fastest_connection_over_mean)),
        ("workers", |row| {
            fairness_index(row, |trial| trial.fairness_workers.filter(|_| trial.workers > 1))
        }),
        ("busiest worker's connections %", |row| row.median(|trial| trial.busiest_worker_percent)),
        BLOCKS,
    ];
    let mut rows = latency_trials_of(run, is_closed);
    rows.retain(|row| {
        row.trials
            .iter()
            .any(|trial| trial.fairness_connections.is_some() && trial.active_connections > Some(1))
    });
    Table::of(&rows, 2, &columns).into()
}

/// Writes four decimals: two would show an index of 0.996 as even.
fn fairness_index(row: &ArmTrials, value: fn(&TrialRow) -> Option<f64>) -> String {
    let mut values = row.trials.iter().filter_map(|trial| value(trial)).collect_vec();
    cell(median(&mut values), |index| format!("{index:.4}"))
}

pub fn capacity(run: &Run) -> Body {
    let is_short = run.capacities.iter().any(|row| row.bounds == Some(Bounds::Range));
    let p99 = if is_short {
        "p99 ms there (95 % interval, or range below 10 blocks)"
    } else {
        "p99 ms there (95 % interval)"
    };
    let columns: [Column<CapacityRow>; 8] = [
        ("sweep", |row| row.sweep.clone()),
        ("arm", |row| row.arm.clone()),
        ("objective", |row| format!("p99 ≤ {} ms", significant(row.objective_p99_us / 1000.0))),
        ("kept up to /s", |row| cell(row.kept_per_s, significant)),
        (p99, |row| milliseconds([row.kept_p99_us, row.kept_p99_low_us, row.kept_p99_high_us])),
        ("not shown to be kept at /s", |row| cell(row.missed_per_s, significant)),
        (p99, |row| {
            milliseconds([row.missed_p99_us, row.missed_p99_low_us, row.missed_p99_high_us])
        }),
        ("because", |row| row.missed_because.clone()),
    ];
    let table = Table::of(&run.capacities, 2, &columns);
    if table.is_empty() {
        return Body::default();
    }
    Body::from(table).notes(
        "\nA rate is kept where p99 with the upper end of its bounds is within the objective, \
         there and at every lower rate.\n",
    )
}

/// Writes a mean and its bounds, in µs, as milliseconds.
fn milliseconds(mean_low_high: [Option<f64>; 3]) -> String {
    match mean_low_high.map(|us| us.map(|us| significant(us / 1000.0))) {
        [Some(mean), Some(low), Some(high)] => format!("{mean} ({low}–{high})"),
        _ => MISSING.to_owned(),
    }
}

/// Says why each workload ended after as many blocks as it did, where the matrix lets it end early.
fn endings(run: &Run) -> String {
    let asked = run.matrix.latency.as_ref().and_then(|latency| latency.precision_percent);
    let Some(asked) = asked else { return String::new() };
    let mut lines = String::new();
    for Workload { name, .. } in &run.matrix.workloads {
        let blocks = blocks::complete_blocks(&run.trials, Pass::Latency, name).len();
        let asked_for = significant(asked);
        let why = match comparisons::precision_percent(run.measured(), name, &run.matrix) {
            Some(reached) if reached <= asked => {
                format!("every interval is within {asked_for} % of its ratio, which was asked for")
            }
            Some(reached) => format!(
                "the bound; the widest interval is {} %, and {asked_for} % was asked for",
                significant(reached)
            ),
            None => "too few for intervals".to_owned(),
        };
        lines += &format!("- `{name}` has {blocks} blocks: {why}\n");
    }
    lines
}

/// Shows trials of one arm with one reason in one row.
pub fn gates(run: &Run) -> Body {
    let columns: [Column<Vec<&TrialRow>>; 6] = [
        ("trials", |trials| trials.iter().map(|row| row.run_id).join(", ")),
        ("pass", |trials| trials[0].pass.map_or("", Pass::name).to_owned()),
        ("workload", |trials| trials[0].workload.clone()),
        ("arm", |trials| trials[0].arm.clone()),
        ("status", |trials| trials[0].status.word().to_owned()),
        ("reason", |trials| trials[0].reason.clone()),
    ];
    let remarkable = run.trials.iter().filter(|row| is_remarkable(row));
    let kinds = in_groups(
        remarkable.map(|row| ((row.pass, row.status, &row.workload, &row.arm, &row.reason), row)),
    );
    let kinds = kinds.into_iter().map(|(_, trials)| trials).collect_vec();
    let table = Table::of(&kinds, 6, &columns);
    let limited = run.trials.iter().filter(|row| row.status == Status::ClientLimited).count();
    let unsettled = run.trials.iter().filter(|row| row.warmup_settled == Some(false)).count();
    let mut notes = Vec::new();
    if table.is_empty() && !run.trials.is_empty() {
        notes.push("No trial was rejected.".to_owned());
    }
    if limited > 0 {
        notes.push(format!(
            "{limited} of {} trials were client-limited: their CPU per echo is used, their \
             throughput and latency are shown but not compared.",
            run.trials.len()
        ));
    }
    if unsettled > 0 {
        let trials = if unsettled == 1 { "trial" } else { "trials" };
        notes.push(format!(
            "In {unsettled} {trials} the rate had not settled when the longest warm-up was over."
        ));
    }
    if notes.is_empty() {
        return table.into();
    }
    let gap = if table.is_empty() { "" } else { "\n" };
    Body::from(table).notes(format!("{gap}{}\n", notes.join(" ")))
}

/// Returns whether a trial was not used or carries a remark. With several reasons, the
/// client's limit is never the first.
fn is_remarkable(row: &TrialRow) -> bool {
    match row.status {
        Status::Ok => !row.reason.is_empty(),
        Status::ClientLimited => !row.reason.starts_with("client-limited"),
        _ => true,
    }
}
