//! What is shown of a run. Everything here comes from its files, and the same files give the same
//! text.

use std::collections::BTreeSet;

use ringmark::backend::FLOOR;
use serde_json::Value;

use super::section::{Body, Section};
use super::table::{MISSING, Table};
use super::{ladder, ranking, rules, scale};
use crate::load::limits::Churn;
use crate::matrix::{Arm, Workload};
use crate::results::Run;
use crate::results::sides::Sides;
use crate::rows::{
    ACTIVE, Bounds, ComparisonRow, KERNEL_SUM, MemoryRow, NEVER_USED, Pass, Status, TrialRow,
    USED_THEN_IDLE, USER_SUM, Verdict,
};
use crate::statistics::{Interval, median};
use crate::text::{count, number, whole};
use crate::verdict::metric::{self, Metric};
use crate::verdict::resolution::{Calibration, Resolution};
use crate::verdict::slopes::Flaw;
use crate::verdict::{blocks, comparisons};

/// Over this many bytes a connection an object has a row of its own; all are in memory.csv.
pub const SHOWN_BYTES: f64 = 8.0;

/// Over the trials that do not count, or not in all.
pub const GATES_TITLE: &str =
    "Trials that were rejected, unsupported, client-limited, or carry a remark";

/// Every section, in the order of the terminal.
pub(super) fn all(run: &Run, folder: &str) -> Vec<Section> {
    vec![
        Section { name: "rules", title: "What to decide by", body: rules::body(run) },
        Section { name: "run", title: "The run", body: Body::default().notes(about(run, folder)) },
        Section { name: "questions", title: "What each workload answers", body: questions(run) },
        Section { name: "syscalls", title: "System calls per echo, counted", body: syscalls(run) },
        Section {
            name: "events",
            title: "io_uring events per echo, by the kernel's tracepoints io_uring_*",
            body: events(run),
        },
        Section {
            name: "cpu",
            title: "Server CPU per echo, and against the baseline in the same block",
            body: cpu(run),
        },
        Section {
            name: "latency",
            title: "Closed loop: capacity, and latency at that capacity",
            body: closed_loop(run),
        },
        Section {
            name: "open-loop",
            title: "Open loop: latency at a given rate, from when a message was due",
            body: open_loop(run),
        },
        Section {
            name: "capacity",
            title: "Capacity at the latency objective",
            body: capacity(run),
        },
        Section {
            name: "churn",
            title: "Connections that are replaced all the time",
            body: churn(run),
        },
        Section {
            name: "fairness",
            title: "Fairness: echoes of each connection and worker over the mean, and Jain's index (1: all equal)",
            body: fairness(run),
        },
        Section {
            name: "memory",
            title: "Bytes per idle connection over two bare TCP endpoints",
            body: memory(run),
        },
        Section {
            name: "memory-account",
            title: "Where the machine's pages went, in bytes per connection, both ends and the load's own",
            body: scale::account(run),
        },
        Section {
            name: "memory-fit",
            title: "What a server needs for its ends alone, in bytes per connection that was used and rests",
            body: scale::fit(run),
        },
        Section {
            name: "scale-opening",
            title: "Opening and closing ever more connections",
            body: scale::opening(run),
        },
        Section {
            name: "scale-loads",
            title: "One load beside ever more connections that are idle",
            body: scale::loads(run),
        },
        Section {
            name: "ladder",
            title: "What each rung changes, and what that does",
            body: ladder::tables(run, folder),
        },
        Section {
            name: "ranking",
            title: "Our servers and others, by CPU per echo",
            body: ranking::tables(run),
        },
        Section { name: "gates", title: GATES_TITLE, body: gates(run) },
    ]
}

pub fn text_of<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or("unknown")
}

fn about(run: &Run, folder: &str) -> String {
    let manifest = &run.manifest;
    let count = |wanted: Status| run.trials.iter().filter(|row| row.status == wanted).count();
    let statuses = [
        Status::Ok,
        Status::ClientLimited,
        Status::Rejected,
        Status::Unsupported,
        Status::Skipped,
        Status::Failed,
    ];
    let counts: Vec<String> = statuses
        .into_iter()
        .filter(|&status| count(status) > 0)
        .map(|status| format!("{} {}", count(status), status.word()))
        .collect();
    let first = run.trials.first();
    // Of what runs here, if there is a command for either side.
    let (here, machine) =
        if run.sides.is_some() { (" from here", "`ringmark run` on") } else { ("", "Machine") };
    let cpus = |cpus: &str| match cpus.is_empty() {
        true => format!("not pinned{here}"),
        false => format!("on CPU {cpus}"),
    };
    let placement = first.map_or_else(
        || "not known".to_owned(),
        |row| {
            let namespace = match row.network_namespace.as_str() {
                "fresh" => "a fresh network namespace for each trial".to_owned(),
                other => match other.strip_prefix("host: ") {
                    Some(why) => {
                        format!("in the host's network, with whatever else is in it ({why})")
                    }
                    None => other.to_owned(),
                },
            };
            let core =
                match (manifest["placement"]["shared_core"].as_bool(), run.matrix.hyperthreads) {
                    (Some(true), false) => {
                        " (hyperthreads of one core: no verdict on what takes time)"
                    }
                    (Some(true), true) => " (hyperthreads of one core, as the matrix allows)",
                    _ => "",
                };
            format!(
                "server {}, client {}{core}, {namespace}",
                cpus(&row.server_cpus),
                cpus(&row.client_cpus)
            )
        },
    );
    let finished = match (run.state.caveat(), run.gap()) {
        (Some(caveat), _) => caveat.to_owned(),
        (None, gap) => {
            let gap = gap.map_or_else(String::new, |gap| format!(", but it is not whole: {gap}"));
            format!("finished {}{gap}", text_of(manifest, "/finished_utc"))
        }
    };
    let dirty = if manifest["machine"]["git_dirty"] == Value::Bool(true) {
        ", with local changes"
    } else {
        ""
    };
    let fresh = first.is_some_and(|row| row.network_namespace == "fresh");
    let profile = match text_of(manifest, "/build_profile") {
        "release" => "",
        _ => ", **not a release build: its figures are of no use**",
    };
    format!(
        "- Run: `{folder}`, begun {}, {finished}\n\
         - Traffic: {}\n\
         - {machine}: {} ({}), Linux {}, {} memory, idle driver {}{}\n\
         - Source: revision {}{dirty}, {}{profile}\n\
         - Placement: {placement}\n\
         - Trials: {}\n{}{}{}",
        text_of(manifest, "/machine/read_at"),
        run.traffic(),
        text_of(manifest, "/machine/description"),
        text_of(manifest, "/machine/cpu_model"),
        text_of(manifest, "/machine/kernel_release"),
        manifest["machine"]["memory_total_bytes"].as_u64().map_or(
            "unknown".to_owned(),
            |bytes| format!("{:.0} GiB", bytes as f64 / f64::from(1 << 30))
        ),
        text_of(manifest, "/machine/idle_driver"),
        if run.sides.is_some() { String::new() } else { congestion(&manifest["machine"], fresh) },
        revision(manifest),
        text_of(manifest, "/machine/rustc"),
        match counts.is_empty() {
            true => "none".to_owned(),
            false => format!("{}: {}", run.trials.len(), counts.join(", ")),
        },
        sides(run),
        calibration(manifest),
        history(manifest),
    )
}

/// How TCP paces itself on a machine, in its own network namespace or in a fresh one.
fn congestion(machine: &Value, fresh: bool) -> String {
    let sysctls = if fresh { "new_namespace_network_sysctls" } else { "network_sysctls" };
    let control = text_of(machine, &format!("/{sysctls}/net.ipv4.tcp_congestion_control"));
    format!(", TCP congestion control {control}")
}

/// What the sides say that a command started elsewhere; nothing of most runs.
fn sides(run: &Run) -> String {
    let Some(Sides { server, load, .. }) = &run.sides else { return String::new() };
    let mut text = String::new();
    for (name, side) in [("server", server), ("load", load)] {
        let of = |field: &str| side.machine[field].as_str().unwrap_or("unknown");
        text += &format!(
            "- The {name}'s machine: {} ({}), Linux {}, idle driver {}{}\n",
            of("description"),
            of("cpu_model"),
            of("kernel_release"),
            of("idle_driver"),
            congestion(&side.machine, false)
        );
        for line in &side.not_measured {
            text += &format!("- Not measured of the {name}: {line}\n");
        }
    }
    text
}

/// What the machine showed before the run, if that was looked for.
fn calibration(manifest: &Value) -> String {
    let Ok(found) = serde_json::from_value::<Calibration>(manifest["calibration"].clone()) else {
        return String::new();
    };
    let resolution = |metric: &Resolution| {
        let percent = metric.resolution_percent?;
        Some(format!("{} % in `{}`", number(percent), metric.metric))
    };
    let resolved: Vec<_> = found.metrics.iter().filter_map(resolution).collect();
    format!(
        "- Calibrated before (`{}`, {}): {} blocks resolved {}\n",
        found.folder,
        found.workload,
        found.blocks,
        if resolved.is_empty() { "nothing".to_owned() } else { resolved.join(" and ") },
    )
}

/// Which source the programs were built from.
fn revision(manifest: &Value) -> String {
    let short = |path: &str| manifest.pointer(path)?.as_str()?.get(..12).map(str::to_owned);
    let reason = || manifest.pointer("/machine/git_reason").and_then(Value::as_str);
    let own = short("/machine/git_revision").unwrap_or_else(|| {
        reason().map_or("unknown".to_owned(), |reason| format!("unknown ({reason})"))
    });
    match short("/programs/server/revision") {
        Some(of_server) if of_server != own => format!("{own}, the server's program {of_server}"),
        _ => own,
    }
}

/// What a run repeats, and how often it was broken off; nothing of most runs.
fn history(manifest: &Value) -> String {
    let differences = |of: &Value| {
        let of = of["differences"].as_array().into_iter().flatten();
        of.filter_map(Value::as_str).map(|difference| format!("; {difference}")).collect::<String>()
    };
    let mut text = String::new();
    let replays = &manifest["replays"];
    if replays.is_object() {
        let (folder, begun) = (text_of(replays, "/folder"), text_of(replays, "/begun_utc"));
        text += &format!("- It repeats {folder}, begun {begun}{}\n", differences(replays));
    }
    if let Some([.., last]) = manifest["resumed"].as_array().map(Vec::as_slice) {
        let resumed = manifest["resumed"].as_array().into_iter().flatten();
        text += &format!(
            "- It was broken off and gone on with {}, last at {} after {} trials{}\n",
            match resumed.clone().count() {
                1 => "once".to_owned(),
                count => format!("{count} times"),
            },
            text_of(last, "/at_utc"),
            last["after_trials"],
            // Of every time: the blocks before and after are of different origin.
            resumed.map(differences).collect::<String>(),
        );
    }
    text
}

fn questions(run: &Run) -> Body {
    let mut table = Table::new(5, &["workload", "connections", "message", "load", "question"]);
    for workload in &run.matrix.workloads {
        let idle = workload.idle_connections;
        table.push(vec![
            workload.name.clone(),
            workload.connections.to_string()
                + &if idle > 0 {
                    format!(", and {} idle", number(idle as f64))
                } else {
                    String::new()
                },
            format!("{} B", workload.message_bytes),
            load(workload),
            workload.question.clone(),
        ]);
    }
    table.into()
}

/// What decides when messages are sent, and what else a workload asks for.
pub fn load(workload: &Workload) -> String {
    let mut words = match workload.rate() {
        None => format!("closed loop, {} in flight", workload.pipeline),
        Some(rate) => format!("open loop, {}, {}/s", workload.arrival().name(), number(rate)),
    };
    for (value, before, after) in [
        (workload.churn.map(Churn::get), "echoes per connection: ", ""),
        (workload.work_ns, "", " ns of work"),
        (workload.workers.map(u64::from), "", " workers"),
    ] {
        if let Some(value) = value {
            words += &format!(", {before}{}{after}", count(value));
        }
    }
    words + if workload.idle_spinner { ", no CPU halts" } else { "" }
}

/// The arms in the order of the matrix, the baseline's second reading after its first.
pub fn arms(run: &Run) -> Vec<String> {
    let baseline = &run.matrix.baseline;
    let with_second = |arm: String| {
        let second = (arm == *baseline).then(|| comparisons::again(baseline));
        [Some(arm), second].into_iter().flatten()
    };
    run.matrix.backends.iter().map(Arm::name).flat_map(with_second).collect()
}

/// The rows of a pass, by workload and arm, both in the order of the matrix.
pub fn by_arm(run: &Run, pass: Pass) -> Vec<(&str, String, Vec<&TrialRow>)> {
    let of_pass = || run.trials.iter().filter(move |row| row.pass == Some(pass));
    let mut workloads: Vec<&str> = Vec::new();
    for row in of_pass() {
        if !workloads.contains(&row.workload.as_str()) {
            workloads.push(&row.workload);
        }
    }
    let mut found = Vec::new();
    for workload in workloads {
        for arm in arms(run) {
            let rows: Vec<_> =
                of_pass().filter(|row| row.workload == workload && row.arm == arm).collect();
            if !rows.is_empty() {
                found.push((workload, arm, rows));
            }
        }
    }
    found
}

/// The arm's rows of the blocks that count: those that ratios are over.
pub fn in_complete_blocks<'a>(run: &'a Run, workload: &str, arm: &str) -> Vec<&'a TrialRow> {
    let blocks = blocks::complete_blocks(&run.trials, Pass::Latency, workload);
    blocks.iter().filter_map(|block| block.get(arm).copied()).collect()
}

/// An arm that has no figures in a pass, for one kind of reason.
pub struct Absence<'a> {
    row: &'a TrialRow,
    pub workloads: Vec<&'a str>,
    trials: usize,
}

impl Absence<'_> {
    pub fn arm(&self) -> &str {
        &self.row.arm
    }

    /// Where, and why.
    pub fn why(&self) -> String {
        let Self { row, workloads, trials } = self;
        // What is unsupported is so in every trial.
        let counts = *trials > 1 && row.status != Status::Unsupported;
        let times = if counts { format!(" ({trials} trials)") } else { String::new() };
        format!("in {}: {}{times}: {}", workloads.join(", "), row.status.word(), row.reason)
    }
}

/// Which arms have no figures in a pass, and why: one for each arm and kind of reason. Reasons that
/// differ in their numbers alone are of one kind, and the first stands for all.
pub fn absences(run: &Run, pass: Pass) -> Vec<Absence<'_>> {
    let kind = |row: &TrialRow| {
        row.reason.split(|letter: char| letter.is_ascii_digit()).collect::<String>()
    };
    let mut absences: Vec<Absence> = Vec::new();
    for row in run.trials.iter().filter(|row| row.pass == Some(pass) && !row.status.is_usable()) {
        let of_arm = |other: &&TrialRow| {
            other.pass == Some(pass) && other.workload == row.workload && other.arm == row.arm
        };
        if run.trials.iter().filter(of_arm).any(|other| other.status.is_usable()) {
            continue;
        }
        let same = |found: &&mut Absence| {
            (&found.row.arm, found.row.status, kind(found.row)) == (&row.arm, row.status, kind(row))
        };
        match absences.iter_mut().find(same) {
            Some(absence) => {
                absence.trials += 1;
                if !absence.workloads.contains(&row.workload.as_str()) {
                    absence.workloads.push(&row.workload);
                }
            }
            None => absences.push(Absence { row, workloads: vec![&row.workload], trials: 1 }),
        }
    }
    absences
}

/// The same, a line for each.
pub fn absent(run: &Run, pass: Pass) -> String {
    let line =
        |absence: &Absence| format!("- `{}` has no figures {}\n", absence.arm(), absence.why());
    let lines: String = absences(run, pass).iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

pub fn median_of(rows: &[&TrialRow], value: fn(&TrialRow) -> Option<f64>) -> String {
    let mut values: Vec<f64> = rows
        .iter()
        .filter(|row| row.status.is_usable())
        .filter_map(|row| row.latency_or_beyond(value))
        .collect();
    match median(&mut values) {
        None => MISSING.to_owned(),
        Some(f64::INFINITY) => "saturated".to_owned(),
        Some(median) => number(median),
    }
}

fn syscalls(run: &Run) -> Body {
    let mut table = Table::new(
        4,
        &["workload", "arm", "calls by name", "source", "calls per echo", "events per wait"],
    );
    for (workload, arm, rows) in by_arm(run, Pass::Syscalls) {
        // The block that was run again, if one was.
        let Some(row) = counted(&rows) else { continue };
        let mut calls: Vec<_> =
            run.syscalls.iter().filter(|call| call.run_id == row.run_id).collect();
        calls.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.syscall.cmp(&b.syscall)));
        // What makes less than a hundredth of a call is in syscalls.csv.
        let named: Vec<String> = calls
            .iter()
            .filter(|call| call.calls_per_echo >= 0.005)
            .map(|call| format!("{} {}", call.syscall, number(call.calls_per_echo)))
            .collect();
        let usable = row.status == Status::Ok;
        let shown =
            |value: Option<f64>| value.filter(|_| usable).map_or(MISSING.to_owned(), number);
        table.push(vec![
            workload.to_owned(),
            arm,
            if usable { named.join(", ") } else { MISSING.to_owned() },
            row.syscalls_source.split(':').next().unwrap_or_default().to_owned(),
            shown(row.syscalls_per_echo),
            shown(row.events_per_wait),
        ]);
    }
    Body::from(table).notes(absent(run, Pass::Syscalls))
}

/// A column for each event; which arms could not be counted stands with the calls.
fn events(run: &Run) -> Body {
    let mut names: Vec<&str> = Vec::new();
    for row in &run.events {
        if !names.contains(&row.event.as_str()) {
            names.push(&row.event);
        }
    }
    let short = names.iter().map(|name| name.trim_start_matches("io_uring_"));
    let mut table =
        Table::new(2, &["workload", "arm"].into_iter().chain(short).collect::<Vec<_>>());
    let mut reasons: Vec<String> = Vec::new();
    for (workload, arm, rows) in by_arm(run, Pass::Syscalls) {
        let Some(trial) = counted(&rows).filter(|row| row.status == Status::Ok) else { continue };
        let of_trial: Vec<_> = run.events.iter().filter(|row| row.run_id == trial.run_id).collect();
        if of_trial.is_empty() {
            continue;
        }
        let cell = |name: &&str| {
            let per_echo =
                of_trial.iter().find(|row| row.event == **name).and_then(|row| row.count_per_echo);
            // What never happened is told from what hardly did.
            let shown = |value: f64| if value == 0.0 { "0".to_owned() } else { number(value) };
            per_echo.map_or(MISSING.to_owned(), shown)
        };
        table.push([workload.to_owned(), arm].into_iter().chain(names.iter().map(cell)).collect());
        for row in of_trial.iter().filter(|row| row.count.is_none()) {
            let reason = format!("- `{}` has no events: {}\n", row.arm, row.source);
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
    }
    if table.is_empty() {
        return Body::default();
    }
    let note = "Of an SQPOLL thread `task_work_run` counts the turns of its polling, with work or without.";
    let separated = if reasons.is_empty() { "" } else { "\n" };
    Body::from(table).notes(format!("\n{note}\n{separated}{}", reasons.concat()))
}

/// Of an arm's trials in one workload the first whose calls may be used, or else the last one.
fn counted<'a>(rows: &[&'a TrialRow]) -> Option<&'a TrialRow> {
    rows.iter().find(|row| row.status == Status::Ok).or(rows.last()).copied()
}

/// The trial in which an arm's calls under a workload were counted.
pub fn counted_trial<'a>(run: &'a Run, workload: &str, arm: &str) -> Option<&'a TrialRow> {
    let is_of_arm = |row: &&TrialRow| {
        row.pass == Some(Pass::Syscalls) && row.workload == workload && row.arm == arm
    };
    counted(&run.trials.iter().filter(is_of_arm).collect::<Vec<_>>())
        .filter(|row| row.status == Status::Ok)
}

pub fn comparison<'a>(
    run: &'a Run,
    workload: &str,
    metric: &Metric,
    arm: &str,
    baseline: &str,
) -> Option<&'a ComparisonRow> {
    let mut of_metric =
        run.comparisons.iter().filter(|row| row.workload == workload && row.metric == metric.name);
    of_metric.find(|row| row.arm == arm && row.baseline == baseline)
}

/// A ratio, its bounds, and what they show if there is a verdict.
pub fn ratio(row: &ComparisonRow) -> String {
    let said = match row.verdict {
        Verdict::Range | Verdict::Counted | Verdict::OneWalk => None,
        said => Some(said),
    };
    ratio_of_bounds(row.ratio, row.ratio_low, row.ratio_high, said)
}

/// The same of its parts.
pub fn ratio_of_bounds(ratio: f64, low: f64, high: f64, verdict: Option<Verdict>) -> String {
    let words = verdict.map_or(String::new(), |verdict| format!(" {}", verdict.words()));
    // Of one block there is no more.
    if low == high {
        return format!("{ratio:.2}{words}");
    }
    format!("{ratio:.2} ({low:.2}–{high:.2}){words}")
}

/// What stands in brackets after the ratios of a metric.
pub fn bounds(run: &Run, metric: &Metric) -> &'static str {
    let mut all =
        run.comparisons.iter().filter(|row| row.metric == metric.name).map(|row| row.bounds);
    match (
        all.clone().any(|bounds| bounds == Bounds::Range),
        all.any(|bounds| bounds == Bounds::Interval95),
    ) {
        (true, true) => "95 % interval, or range below 10 blocks",
        (false, true) => "95 % interval",
        _ => "range",
    }
}

/// How far the baseline's two readings lie apart.
pub fn noise(run: &Run, workload: &str, metric: &Metric) -> Option<Interval> {
    let mut of_metric =
        run.comparisons.iter().filter(|row| row.workload == workload && row.metric == metric.name);
    of_metric.find_map(ComparisonRow::noise)
}

fn ratio_of(run: &Run, workload: &str, metric: &Metric, arm: &str, baseline: &str) -> String {
    if arm == baseline {
        return "1 (baseline)".to_owned();
    }
    if arm == comparisons::again(baseline) {
        return noise(run, workload, metric).map_or(
            MISSING.to_owned(),
            |Interval { low, high }| {
                if low == high {
                    format!("noise: {low:.2}")
                } else {
                    format!("noise: {low:.2}–{high:.2}")
                }
            },
        );
    }
    comparison(run, workload, metric, arm, baseline).map_or(MISSING.to_owned(), ratio)
}

/// Why each workload ended after as many blocks as it did, where the matrix lets it end early.
fn endings(run: &Run) -> String {
    let Some(latency) = &run.matrix.latency else { return String::new() };
    let Some(asked) = latency.precision_percent else { return String::new() };
    let line = |workload: &Workload| {
        let blocks = blocks::complete_blocks(&run.trials, Pass::Latency, &workload.name).len();
        let why = match comparisons::precision_percent(&run.trials, &workload.name, &run.matrix) {
            Some(reached) if reached <= asked => {
                format!(
                    "every interval is within {} % of its ratio, which was asked for",
                    number(asked)
                )
            }
            Some(reached) => {
                format!(
                    "the bound; the widest interval is {} %, and {} % was asked for",
                    number(reached),
                    number(asked)
                )
            }
            None => "too few for intervals".to_owned(),
        };
        format!("- `{}` has {blocks} blocks: {why}\n", workload.name)
    };
    format!("\n{}", run.matrix.workloads.iter().map(line).collect::<String>())
}

fn cpu(run: &Run) -> Body {
    let baseline = run.matrix.baseline.as_str();
    let against = format!("against {baseline} ({})", bounds(run, &metric::CPU));
    // What is read off clocks alone: what the kernel samples at its tick is in trials.csv.
    let heading = [
        "workload",
        "arm",
        "server ns/echo",
        &against,
        "client ns/echo",
        "switches/echo",
        "blocks",
    ];
    let mut table = Table::new(2, &heading);
    for (workload, arm, _) in by_arm(run, Pass::Latency) {
        // The same blocks for every arm and every column: those that the ratio is over.
        let rows = in_complete_blocks(run, workload, &arm);
        table.push(vec![
            workload.to_owned(),
            arm.clone(),
            median_of(&rows, |row| row.server_cpu_ns_per_echo),
            ratio_of(run, workload, &metric::CPU, &arm, baseline),
            median_of(&rows, |row| row.client_cpu_ns_per_echo),
            median_of(&rows, |row| row.context_switches_per_echo),
            rows.len().to_string(),
        ]);
    }
    Body::from(table).notes(absent(run, Pass::Latency)).notes(endings(run))
}

/// The rows of the latency pass whose loop is open, or not, by workload and arm.
fn by_arm_and_loop(run: &Run, is_open: bool) -> impl Iterator<Item = (&str, String)> {
    let is_wanted = move |workload: &str| {
        let found = run.matrix.workloads.iter().find(|other| other.name == workload);
        found.is_some_and(|workload| workload.rate_per_s.is_some() == is_open)
    };
    by_arm(run, Pass::Latency)
        .into_iter()
        .filter(move |(workload, ..)| is_wanted(workload))
        .map(|(workload, arm, _)| (workload, arm))
}

fn closed_loop(run: &Run) -> Body {
    let baseline = run.matrix.baseline.as_str();
    let against = format!("echoes/s against {baseline} ({})", bounds(run, &metric::THROUGHPUT));
    let heading = [
        "workload",
        "arm",
        "echoes/s",
        &against,
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "client CPU %",
        "client-limited",
    ];
    let mut table = Table::new(2, &heading);
    for (workload, arm) in by_arm_and_loop(run, false) {
        // Shown even where the client was the limit, and marked so; compared only where it was not.
        let rows = in_complete_blocks(run, workload, &arm);
        let limited = rows.iter().filter(|row| row.status == Status::ClientLimited).count();
        table.push(vec![
            workload.to_owned(),
            arm.clone(),
            median_of(&rows, |row| row.achieved_per_s),
            ratio_of(run, workload, &metric::THROUGHPUT, &arm, baseline),
            median_of(&rows, |row| row.latency_p50_us),
            median_of(&rows, |row| row.latency_p99_us),
            median_of(&rows, |row| row.latency_p999_us),
            median_of(&rows, |row| row.client_cpu_percent),
            format!("{limited} of {}", rows.len()),
        ]);
    }
    table.into()
}

fn open_loop(run: &Run) -> Body {
    let baseline = run.matrix.baseline.as_str();
    let against = format!("p99 against {baseline} ({})", bounds(run, &metric::P99));
    let heading = [
        "workload",
        "arm",
        "offered/s",
        "back in time/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        &against,
        "service p99 µs",
        "send lag p50 µs",
        "send lag p99 µs",
        "client CPU %",
        "client-limited",
    ];
    let mut table = Table::new(2, &heading);
    for (workload, arm) in by_arm_and_loop(run, true) {
        let rows = in_complete_blocks(run, workload, &arm);
        let limited = rows.iter().filter(|row| row.status == Status::ClientLimited).count();
        table.push(vec![
            workload.to_owned(),
            arm.clone(),
            median_of(&rows, |row| row.offered_per_s),
            median_of(&rows, |row| row.achieved_per_s),
            median_of(&rows, |row| row.latency_p50_us),
            median_of(&rows, |row| row.latency_p99_us),
            median_of(&rows, |row| row.latency_p999_us),
            ratio_of(run, workload, &metric::P99, &arm, baseline),
            median_of(&rows, |row| row.service_p99_us),
            median_of(&rows, |row| row.send_lag_p50_us),
            median_of(&rows, |row| row.send_lag_p99_us),
            median_of(&rows, |row| row.client_cpu_percent),
            format!("{limited} of {}", rows.len()),
        ]);
    }
    table.into()
}

fn capacity(run: &Run) -> Body {
    let is_short = run.capacities.iter().any(|row| row.bounds == Some(Bounds::Range));
    let p99 = match is_short {
        true => "p99 ms there (95 % interval, or range below 10 blocks)",
        false => "p99 ms there (95 % interval)",
    };
    let heading = [
        "sweep",
        "arm",
        "objective",
        "kept up to /s",
        p99,
        "not shown to be kept at /s",
        p99,
        "because",
    ];
    let mut table = Table::new(2, &heading);
    let shown = |value: Option<f64>| value.map_or(MISSING.to_owned(), number);
    let p99 = |mean: Option<f64>, low: Option<f64>, high: Option<f64>| match (mean, low, high) {
        (Some(mean), Some(low), Some(high)) => {
            let [mean, low, high] = [mean, low, high].map(|us| number(us / 1000.0));
            format!("{mean} ({low}–{high})")
        }
        _ => MISSING.to_owned(),
    };
    for row in &run.capacities {
        table.push(vec![
            row.sweep.clone(),
            row.arm.clone(),
            format!("p99 ≤ {} ms", number(row.objective_p99_us / 1000.0)),
            shown(row.kept_per_s),
            p99(row.kept_p99_us, row.kept_p99_low_us, row.kept_p99_high_us),
            shown(row.missed_per_s),
            p99(row.missed_p99_us, row.missed_p99_low_us, row.missed_p99_high_us),
            row.missed_because.clone(),
        ]);
    }
    let note = "\nA rate is kept where p99 with the upper end of its bounds is within the objective, there and at every lower rate.\n";
    let is_empty = table.is_empty();
    Body::from(table).notes(if is_empty { "" } else { note })
}

fn churn(run: &Run) -> Body {
    let heading = [
        "workload",
        "arm",
        "connections/s",
        "connect p50 µs",
        "connect p99 µs",
        "server ns/connection",
        "blocks",
    ];
    let mut table = Table::new(2, &heading);
    for (workload, arm) in by_arm_and_loop(run, false) {
        let rows = in_complete_blocks(run, workload, &arm);
        if rows.iter().all(|row| row.connections_per_s.is_none()) {
            continue;
        }
        table.push(vec![
            workload.to_owned(),
            arm,
            median_of(&rows, |row| row.connections_per_s),
            median_of(&rows, |row| row.connect_p50_us),
            median_of(&rows, |row| row.connect_p99_us),
            median_of(&rows, |row| row.server_cpu_ns_per_connection),
            rows.len().to_string(),
        ]);
    }
    table.into()
}

/// Medians over the blocks, as everywhere; a single connection has nobody to be unfair to.
fn fairness(run: &Run) -> Body {
    let heading = ["workload", "arm", "connections", "slowest", "fastest", "workers", "blocks"];
    let mut table = Table::new(2, &heading);
    for (workload, arm) in by_arm_and_loop(run, false) {
        let rows = in_complete_blocks(run, workload, &arm);
        let is_shown = |row: &&TrialRow| {
            row.fairness_connections.is_some() && row.active_connections > Some(1)
        };
        if !rows.iter().any(is_shown) {
            continue;
        }
        // Two decimals would show an index of 0.996 as even.
        let index = |value: fn(&TrialRow) -> Option<f64>| {
            median(&mut rows.iter().filter_map(|row| value(row)).collect::<Vec<_>>())
                .map_or(MISSING.to_owned(), |index| format!("{index:.4}"))
        };
        table.push(vec![
            workload.to_owned(),
            arm,
            index(|row| row.fairness_connections),
            median_of(&rows, |row| row.slowest_connection_over_mean),
            median_of(&rows, |row| row.fastest_connection_over_mean),
            index(|row| row.fairness_workers.filter(|_| row.workers > 1)),
            rows.len().to_string(),
        ]);
    }
    table.into()
}

/// Object by arm: what a connection costs over `null`, in each state, and the sums. `MemAvailable`
/// is not shown: at a few thousand connections the rest of the machine moves it more than they do.
fn memory(run: &Run) -> Body {
    let mut columns: Vec<(&str, &str)> = Vec::new();
    let usable = || run.memory.iter().filter(|row| row.status == Status::Ok);
    for row in usable() {
        if row.arm != FLOOR && !columns.contains(&(&row.arm, &row.state)) {
            columns.push((&row.arm, &row.state));
        }
    }
    let states = [NEVER_USED, USED_THEN_IDLE, ACTIVE];
    let of_state = |state: &str| states.iter().position(|other| *other == state);
    let arms = arms(run);
    columns
        .sort_by_key(|&(arm, state)| (of_state(state), arms.iter().position(|other| other == arm)));
    let find = |(arm, state): (&str, &str), object: &str| {
        usable().find(|row| row.arm == arm && row.state == state && row.object == object)
    };

    let heading: Vec<String> = columns
        .iter()
        .map(|(arm, state)| match *state {
            USED_THEN_IDLE => format!("{arm}, used"),
            ACTIVE => format!("{arm}, active"),
            _ => (*arm).to_owned(),
        })
        .collect();
    let heading: Vec<&str> = [
        &["object", "two bare endpoints"][..],
        &heading.iter().map(String::as_str).collect::<Vec<_>>(),
    ]
    .concat();
    let mut table = Table::new(1, &heading);
    let floor =
        |object: &str| find((FLOOR, NEVER_USED), object).map(|row| row.bytes_per_connection);
    let stands = |column| {
        find(column, KERNEL_SUM).is_some_and(|row| row.over_null_bytes_per_connection.is_some())
    };
    let mut objects: BTreeSet<&str> = BTreeSet::new();
    if columns.iter().any(|&column| stands(column)) {
        let is_shown = |row: &&MemoryRow| {
            row.space == "kernel"
                && row.object != KERNEL_SUM
                && row.bytes_per_connection.abs() >= SHOWN_BYTES
        };
        objects.extend(usable().filter(is_shown).map(|row| row.object.as_str()));
    }
    let plain = |value: Option<f64>| value.map_or(MISSING.to_owned(), whole);
    // An object without a row is one that hardly changed: it costs nothing, less what `null` has of
    // it.
    let cell = |column, object: &str| match find(column, object) {
        _ if !stands(column) => MISSING.to_owned(),
        Some(row) => plain(row.over_null_bytes_per_connection),
        None => plain(Some(-floor(object).unwrap_or_default())),
    };
    for object in objects {
        let mut cells = vec![object.to_owned(), whole(floor(object).unwrap_or_default())];
        cells.extend(columns.iter().map(|&column| cell(column, object)));
        table.push(cells);
    }
    let interval = |row: &MemoryRow| match (
        row.over_null_low,
        row.over_null_bytes_per_connection,
        row.over_null_high,
    ) {
        (Some(low), Some(over), Some(high)) => {
            format!("**{}** ({} to {})", whole(over), whole(low), whole(high))
        }
        (_, over, _) => plain(over),
    };
    for object in [KERNEL_SUM, USER_SUM] {
        let bare = if object == USER_SUM { MISSING.to_owned() } else { plain(floor(object)) };
        let mut cells = vec![format!("**{object}**"), bare];
        cells.extend(
            columns.iter().map(|&column| find(column, object).map_or(MISSING.to_owned(), interval)),
        );
        if columns.iter().any(|&column| find(column, object).is_some()) {
            table.push(cells);
        }
    }
    Body::from(table).notes(absent(run, Pass::Memory)).notes(flaws(run))
}

/// Which slopes are not used although their trials stand, and why.
fn flaws(run: &Run) -> String {
    let line = |Flaw { arm, state, why }: &Flaw| {
        let state = if state.is_empty() { String::new() } else { format!(" {state}") };
        format!("- No figures of `{arm}`{state}: {why}\n")
    };
    let lines: String = run.flaws.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// Trials of one arm with one reason are one row.
fn gates(run: &Run) -> Body {
    let mut found: Vec<(&TrialRow, Vec<String>)> = Vec::new();
    for row in &run.trials {
        // The first of several reasons is not that the client was the limit.
        let is_only_limited =
            row.status == Status::ClientLimited && row.reason.starts_with("client-limited");
        if (row.status == Status::Ok && row.reason.is_empty()) || is_only_limited {
            continue;
        }
        let alike = |other: &TrialRow| {
            let what =
                |row: &TrialRow| (row.pass, row.status, row.workload.clone(), row.arm.clone());
            what(row) == what(other) && row.reason == other.reason
        };
        match found.iter_mut().find(|(other, _)| alike(other)) {
            Some((_, trials)) => trials.push(row.run_id.to_string()),
            None => found.push((row, vec![row.run_id.to_string()])),
        }
    }
    let mut table = Table::new(6, &["trials", "pass", "workload", "arm", "status", "reason"]);
    for (row, trials) in found {
        table.push(vec![
            trials.join(", "),
            row.pass.map_or("", Pass::name).to_owned(),
            row.workload.clone(),
            row.arm.clone(),
            row.status.word().to_owned(),
            row.reason.clone(),
        ]);
    }
    let limited = run.trials.iter().filter(|row| row.status == Status::ClientLimited).count();
    let unsettled = run.trials.iter().filter(|row| row.warmup_settled == Some(false)).count();
    let mut notes = Vec::new();
    if table.is_empty() && !run.trials.is_empty() {
        notes.push("No trial was turned away.".to_owned());
    }
    if limited > 0 {
        notes.push(format!(
            "{limited} of {} trials were client-limited: their CPU per echo is used, their throughput and latency are shown \
             but not compared.",
            run.trials.len()
        ));
    }
    if unsettled > 0 {
        let trials =
            if unsettled == 1 { "1 trial".to_owned() } else { format!("{unsettled} trials") };
        notes.push(format!(
            "In {trials} the rate had not settled when the longest warm-up was over."
        ));
    }
    let before = if table.is_empty() || notes.is_empty() { "" } else { "\n" };
    let after = if notes.is_empty() { "" } else { "\n" };
    Body::from(table).notes(format!("{before}{}{after}", notes.join(" ")))
}
