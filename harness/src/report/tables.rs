//! What is shown of a run. Everything here comes from its files, and the same files give the same text.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Section;
use super::table::{Table, number};
use crate::comparisons;
use crate::measurement::{ComparisonRow, MemoryRow, Pass, Status, TrialRow};
use crate::results::Run;
use crate::statistics::median;
use crate::trial::memory_states::{KERNEL_SUM, MACHINE_SUM, NEVER_USED, USED_THEN_IDLE, USER_SUM};

/// Over this many bytes a connection an object has a row of its own; all are in memory.csv.
const SHOWN_BYTES: f64 = 8.0;

/// Every section, in the order of the terminal.
pub fn all(run: &Run, folder: &str) -> Vec<Section> {
    vec![
        Section { name: "run", title: "The run", text: about(run, folder) },
        Section { name: "questions", title: "What each workload answers", text: questions(run) },
        Section { name: "syscalls", title: "System calls per echo, counted", text: syscalls(run) },
        Section {
            name: "cpu",
            title: "Server CPU per echo, and against the baseline in the same block",
            text: cpu(run),
        },
        Section {
            name: "latency",
            title: "Closed loop: capacity, and latency at that capacity",
            text: latency(run),
        },
        Section {
            name: "memory",
            title: "Bytes per idle connection over two bare TCP endpoints",
            text: memory(run),
        },
        Section {
            name: "gates",
            title: "Trials that were turned away, limited, or have something to mind",
            text: gates(run),
        },
    ]
}

fn text_of<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or("unknown")
}

fn about(run: &Run, folder: &str) -> String {
    let manifest = &run.manifest;
    let count = |wanted: Status| run.trials.iter().filter(|row| row.status == wanted).count();
    let statuses = [Status::Ok, Status::ClientLimited, Status::Rejected, Status::Unsupported, Status::Failed];
    let counts: Vec<String> = statuses
        .into_iter()
        .filter(|&status| count(status) > 0)
        .map(|status| format!("{} {}", count(status), status.word()))
        .collect();
    let first = run.trials.first();
    let cpus = |cpus: &str| if cpus.is_empty() { "not pinned".to_owned() } else { format!("on CPU {cpus}") };
    let placement = first.map_or_else(String::new, |row| {
        let namespace = match row.network_namespace.as_str() {
            "fresh" => "a fresh network namespace for each trial",
            other => other,
        };
        format!("server {}, client {}, {namespace}", cpus(&row.server_cpus), cpus(&row.client_cpus))
    });
    let finished = match manifest["finished_utc"].as_str() {
        Some(time) => format!("finished {time}"),
        None => "broken off: what follows is of the trials before".to_owned(),
    };
    let dirty =
        if manifest["machine"]["git_dirty"] == Value::Bool(true) { ", with local changes" } else { "" };
    let fresh = first.is_some_and(|row| row.network_namespace == "fresh");
    let sysctls = if fresh { "new_namespace_network_sysctls" } else { "network_sysctls" };
    let congestion = text_of(manifest, &format!("/machine/{sysctls}/net.ipv4.tcp_congestion_control"));
    let profile = match text_of(manifest, "/build_profile") {
        "release" => "",
        _ => ", **not a release build: its figures are of no use**",
    };
    format!(
        "- Run: `{folder}`, begun {}, {finished}\n\
         - Machine: {} ({}), Linux {}, {} memory, idle driver {}, TCP congestion control {congestion}\n\
         - Source: revision {}{dirty}, {}{profile}\n\
         - Placement: {placement}\n\
         - Trials: {} of {} planned: {}\n",
        text_of(manifest, "/machine/read_at"),
        text_of(manifest, "/machine/description"),
        text_of(manifest, "/machine/cpu_model"),
        text_of(manifest, "/machine/kernel_release"),
        manifest["machine"]["memory_total_bytes"]
            .as_u64()
            .map_or("unknown".to_owned(), |bytes| format!("{:.0} GiB", bytes as f64 / f64::from(1 << 30))),
        text_of(manifest, "/machine/idle_driver"),
        text_of(manifest, "/machine/git_revision").get(..12).unwrap_or("unknown"),
        text_of(manifest, "/machine/rustc"),
        run.trials.len(),
        manifest["order"].as_array().map_or(0, Vec::len),
        counts.join(", "),
    )
}

fn questions(run: &Run) -> String {
    let mut table = Table::new(5, &["workload", "connections", "message", "pipeline", "question"]);
    let workloads = run.manifest["matrix"]["workload"].as_array().into_iter().flatten();
    for workload in workloads {
        let plain = |name: &str| workload[name].as_u64().unwrap_or_default().to_string();
        table.push(vec![
            text_of(workload, "/name").to_owned(),
            plain("connections"),
            format!("{} B", plain("message_bytes")),
            plain("pipeline"),
            text_of(workload, "/question").to_owned(),
        ]);
    }
    table.render()
}

/// The rows of a pass, by workload and arm, both in the order of the matrix.
fn by_arm(run: &Run, pass: Pass) -> Vec<(&str, &str, Vec<&TrialRow>)> {
    let of_pass = || run.trials.iter().filter(move |row| row.pass == Some(pass));
    let mut workloads: Vec<&str> = Vec::new();
    for row in of_pass() {
        if !workloads.contains(&row.workload.as_str()) {
            workloads.push(&row.workload);
        }
    }
    let arms: BTreeSet<&str> = of_pass().map(|row| row.arm.as_str()).collect();
    let mut found = Vec::new();
    for workload in workloads {
        for arm in &arms {
            let rows: Vec<_> = of_pass().filter(|row| row.workload == workload && row.arm == *arm).collect();
            if !rows.is_empty() {
                found.push((workload, *arm, rows));
            }
        }
    }
    found
}

/// Trials whose CPU per echo may be used.
const USABLE: [Status; 2] = [Status::Ok, Status::ClientLimited];

/// The rows of the blocks in which no trial of the workload was turned away: those that ratios are over.
fn in_complete_blocks<'a>(run: &Run, workload: &str, rows: Vec<&'a TrialRow>) -> Vec<&'a TrialRow> {
    let of_block = |block: u32| {
        let timed =
            run.trials.iter().filter(move |row| row.pass == Some(Pass::Latency) && row.block == block);
        timed.filter(move |row| row.workload == workload && row.status != Status::Unsupported)
    };
    let is_complete = |block| of_block(block).all(|row| USABLE.contains(&row.status));
    rows.into_iter().filter(|row| is_complete(row.block)).collect()
}

fn median_of(rows: &[&TrialRow], usable: &[Status], value: fn(&TrialRow) -> Option<f64>) -> String {
    let mut values: Vec<f64> =
        rows.iter().filter(|row| usable.contains(&row.status)).filter_map(|row| value(row)).collect();
    median(&mut values).map_or("-".to_owned(), number)
}

fn syscalls(run: &Run) -> String {
    let mut table = Table::new(
        4,
        &["workload", "backend", "calls by name", "source", "calls per echo", "events per wait"],
    );
    for (workload, arm, rows) in by_arm(run, Pass::Syscalls) {
        let Some(row) = rows.first() else { continue };
        let mut calls: Vec<_> = run.syscalls.iter().filter(|call| call.run_id == row.run_id).collect();
        calls.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.syscall.cmp(&b.syscall)));
        // What makes less than a hundredth of a call is in syscalls.csv.
        let named: Vec<String> = calls
            .iter()
            .filter(|call| call.calls_per_echo >= 0.005)
            .map(|call| format!("{} {}", call.syscall, number(call.calls_per_echo)))
            .collect();
        let usable = row.status == Status::Ok;
        let shown = |value: Option<f64>| value.filter(|_| usable).map_or("-".to_owned(), number);
        table.push(vec![
            workload.to_owned(),
            arm.to_owned(),
            if usable { named.join(", ") } else { format!("{}: {}", row.status.word(), row.reason) },
            row.syscalls_source.split(':').next().unwrap_or_default().to_owned(),
            shown(row.syscalls_per_echo),
            shown(row.events_per_wait),
        ]);
    }
    table.render()
}

fn comparison<'a>(run: &'a Run, workload: &str, metric: &str, backend: &str) -> Option<&'a ComparisonRow> {
    run.comparisons
        .iter()
        .find(|row| row.workload == workload && row.metric == metric && row.backend == backend)
}

fn range(ratio: f64, low: f64, high: f64) -> String {
    format!("{ratio:.2} ({low:.2}–{high:.2})")
}

fn ratio_of(run: &Run, workload: &str, metric: &str, arm: &str, baseline: &str) -> String {
    if arm == baseline {
        return "1 (baseline)".to_owned();
    }
    if arm == comparisons::again(baseline) {
        let noise = run.comparisons.iter().find(|row| row.workload == workload && row.metric == metric);
        let range = noise.and_then(|row| Some((row.noise_low?, row.noise_high?)));
        return range.map_or("-".to_owned(), |(low, high)| format!("noise: {low:.2}–{high:.2}"));
    }
    comparison(run, workload, metric, arm)
        .map_or("-".to_owned(), |row| range(row.ratio, row.ratio_low, row.ratio_high))
}

fn cpu(run: &Run) -> String {
    let baseline = text_of(&run.manifest, "/matrix/baseline");
    let against = format!("against {baseline} (range)");
    let heading = [
        "workload",
        "backend",
        "server ns/echo",
        &against,
        "client ns/echo",
        "machine ns/echo",
        "switches/echo",
        "blocks",
    ];
    let mut table = Table::new(2, &heading);
    for (workload, arm, rows) in by_arm(run, Pass::Latency) {
        // The same blocks for every arm and every column: those that the ratio is over.
        let blocks = comparisons::cpu_blocks(&run.trials, workload);
        let cpu = median(&mut blocks.iter().filter_map(|arms| arms.get(arm).copied()).collect::<Vec<_>>());
        let rows = in_complete_blocks(run, workload, rows);
        table.push(vec![
            workload.to_owned(),
            arm.to_owned(),
            cpu.map_or("-".to_owned(), number),
            ratio_of(run, workload, "server_cpu_ns_per_echo", arm, baseline),
            median_of(&rows, &USABLE, |row| row.client_cpu_ns_per_echo),
            median_of(&rows, &USABLE, |row| row.machine_cpu_ns_per_echo),
            median_of(&rows, &USABLE, |row| row.context_switches_per_echo),
            blocks.iter().filter(|arms| arms.contains_key(arm)).count().to_string(),
        ]);
    }
    table.render()
}

fn latency(run: &Run) -> String {
    let baseline = text_of(&run.manifest, "/matrix/baseline");
    let against = format!("echoes/s against {baseline}");
    let heading = [
        "workload",
        "backend",
        "echoes/s",
        &against,
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "client CPU %",
        "client-limited",
    ];
    let mut table = Table::new(2, &heading);
    for (workload, arm, rows) in by_arm(run, Pass::Latency) {
        // Shown even where the client was the limit, and marked so; compared only where it was not.
        let rows = in_complete_blocks(run, workload, rows);
        let limited = rows.iter().filter(|row| row.status == Status::ClientLimited).count();
        table.push(vec![
            workload.to_owned(),
            arm.to_owned(),
            median_of(&rows, &USABLE, |row| row.achieved_per_s),
            ratio_of(run, workload, "achieved_per_s", arm, baseline),
            median_of(&rows, &USABLE, |row| row.latency_p50_us),
            median_of(&rows, &USABLE, |row| row.latency_p99_us),
            median_of(&rows, &USABLE, |row| row.latency_p999_us),
            median_of(&rows, &USABLE, |row| row.client_cpu_percent),
            format!("{limited} of {}", rows.len()),
        ]);
    }
    table.render()
}

/// Object by backend: what a connection costs over `null`, in each state, and the sums. `MemAvailable` is not
/// shown: at a few thousand connections the rest of the machine moves it more than they do.
fn memory(run: &Run) -> String {
    let mut columns: Vec<(&str, &str)> = Vec::new();
    let usable = || run.memory.iter().filter(|row| row.status == Status::Ok);
    for row in usable() {
        if row.backend != "null" && !columns.contains(&(&row.backend, &row.state)) {
            columns.push((&row.backend, &row.state));
        }
    }
    let of_state = |state: &str| if state == NEVER_USED { 0 } else { 1 };
    columns.sort_by_key(|&(backend, state)| (of_state(state), backend));
    let find = |(backend, state): (&str, &str), object: &str| {
        usable().find(|row| row.backend == backend && row.state == state && row.object == object)
    };

    let heading: Vec<String> = columns
        .iter()
        .map(|(backend, state)| format!("{backend}{}", if *state == USED_THEN_IDLE { ", used" } else { "" }))
        .collect();
    let heading: Vec<&str> =
        [&["object", "two bare endpoints"][..], &heading.iter().map(String::as_str).collect::<Vec<_>>()]
            .concat();
    let mut table = Table::new(1, &heading);
    let floor = |object: &str| find(("null", NEVER_USED), object).map(|row| row.bytes_per_connection);
    let sums = [KERNEL_SUM, USER_SUM, MACHINE_SUM];
    let mut objects: BTreeMap<(u8, &str), &MemoryRow> = BTreeMap::new();
    for row in usable().filter(|row| !sums.contains(&row.object.as_str())) {
        let noteworthy = row.bytes_per_connection.abs() >= SHOWN_BYTES && row.space != "machine";
        if noteworthy {
            objects.entry((u8::from(row.space != "kernel"), &row.object)).or_insert(row);
        }
    }
    let plain = |value: Option<f64>| value.map_or("-".to_owned(), whole);
    let has_floor = floor(KERNEL_SUM).is_some();
    // A kernel object without a row is one that hardly changed: it costs nothing, less what `null` has of it.
    let cell = |column, object: &str| match find(column, object) {
        Some(row) => plain(row.over_null_bytes_per_connection),
        None if has_floor => plain(Some(-floor(object).unwrap_or_default())),
        None => "-".to_owned(),
    };
    for (_, object) in objects.keys() {
        let bare = if has_floor { Some(floor(object).unwrap_or_default()) } else { None };
        let mut cells = vec![(*object).to_owned(), plain(bare)];
        cells.extend(columns.iter().map(|&column| cell(column, object)));
        table.push(cells);
    }
    let interval =
        |row: &MemoryRow| match (row.over_null_low, row.over_null_bytes_per_connection, row.over_null_high) {
            (Some(low), Some(over), Some(high)) => {
                format!("**{}** ({} to {})", whole(over), whole(low), whole(high))
            }
            (_, over, _) => plain(over),
        };
    for object in [KERNEL_SUM, USER_SUM] {
        let bare = if object == USER_SUM { "-".to_owned() } else { plain(floor(object)) };
        let mut cells = vec![format!("**{object}**"), bare];
        cells.extend(columns.iter().map(|&column| find(column, object).map_or("-".to_owned(), interval)));
        if columns.iter().any(|&column| find(column, object).is_some()) {
            table.push(cells);
        }
    }
    table.render()
}

/// Without a fraction, and without a sign before zero.
fn whole(bytes: f64) -> String {
    format!("{:.0}", bytes.round() + 0.0)
}

fn gates(run: &Run) -> String {
    let mut table = Table::new(6, &["trial", "pass", "workload", "backend", "status", "reason"]);
    let limited = run.trials.iter().filter(|row| row.status == Status::ClientLimited).count();
    for row in &run.trials {
        match row.status {
            Status::Ok if row.reason.is_empty() => {}
            // The first of several reasons is not that the client was the limit.
            Status::ClientLimited if row.reason.starts_with("client-limited") => {}
            status => table.push(vec![
                row.run_id.to_string(),
                row.pass.map_or("", Pass::name).to_owned(),
                row.workload.clone(),
                row.arm.clone(),
                status.word().to_owned(),
                row.reason.clone(),
            ]),
        }
    }
    let rows = table.render();
    let limits = format!(
        "{limited} of {} trials were client-limited: their CPU per echo is used, their throughput and latency are \
         shown but not compared.\n",
        run.trials.len()
    );
    let unsettled = run.trials.iter().filter(|row| row.warmup_settled == Some(false)).count();
    let limits = format!(
        "{limits}In {unsettled} trials the rate had not settled when the longest warm-up was over.\n"
    );
    if rows.is_empty() { format!("No trial was turned away. {limits}") } else { format!("{rows}\n{limits}") }
}
