//! The tables of a walk through connection counts.

use super::table::{MISSING, Table, number};
use crate::measurement::{MemoryRow, Pass, ScaleRow, Status, TrialRow};
use crate::results::Run;
use crate::statistics::median;
use crate::trial::memory_states::{KERNEL_SUM, NEVER_USED, UNEXPLAINED, USED_SUM, USED_THEN_IDLE};

/// Steps of opening up to this share of the largest count are the first ones, and those beyond the rest the last.
const FIRST_SHARE: f64 = 0.2;

/// The trials of the pass, in the order of the matrix, the floor at the end.
fn trials(run: &Run) -> Vec<&TrialRow> {
    let names: Vec<_> = run.matrix.backends.iter().map(|contender| contender.arm()).collect();
    let mut rows: Vec<_> = run.trials.iter().filter(|row| row.pass == Some(Pass::Scale)).collect();
    rows.sort_by_key(|row| names.iter().position(|name| *name == row.arm).unwrap_or(names.len()));
    rows
}

fn steps<'a>(run: &'a Run, trial: &TrialRow, step: &'static str) -> impl Iterator<Item = &'a ScaleRow> {
    let run_id = trial.run_id;
    run.scale.iter().filter(move |row| row.run_id == run_id && row.step == step)
}

fn cell(value: Option<f64>) -> String {
    value.map_or(MISSING.to_owned(), number)
}

/// Of connections; without the decimals that a small number would have.
fn count(value: u64) -> String {
    if value < 100 { value.to_string() } else { number(value as f64) }
}

fn mebibytes(bytes: f64) -> String {
    number(bytes / f64::from(1 << 20))
}

/// How fast connections open and close, and what is left of them afterwards.
pub fn opening(run: &Run) -> String {
    let mut table = Table::new(
        1,
        &[
            "arm",
            "connections",
            "opened /s",
            "first fifth /s",
            "last fifth /s",
            "connect p50 µs",
            "p99 µs",
            "closed /s",
            "all echoed once, in s",
            "available before MiB",
            "with all open",
            "after",
        ],
    );
    for trial in trials(run) {
        let most = steps(run, trial, "open").map(|row| row.connections).max().unwrap_or_default();
        let rate = |from: f64, to: f64| {
            let within = |row: &&ScaleRow| {
                let share = row.connections as f64 / most as f64;
                from < share && share <= to
            };
            let opened = steps(run, trial, "open").filter(within).filter_map(|row| row.connections_per_s);
            median(&mut opened.collect::<Vec<_>>())
        };
        let at_most = |value: fn(&ScaleRow) -> Option<f64>| {
            let of_last = steps(run, trial, "open").filter(|row| row.connections == most);
            of_last.filter_map(value).last()
        };
        let seconds =
            |rows: &mut dyn Iterator<Item = &ScaleRow>| rows.filter_map(|row| row.duration_s).sum::<f64>();
        // The steps that end the walk.
        let closing = steps(run, trial, "close").collect::<Vec<_>>();
        let last_rise = closing.windows(2).rposition(|pair| pair[0].connections < pair[1].connections);
        let last = &closing[last_rise.map_or(0, |place| place + 1)..];
        let closed = seconds(&mut last.iter().copied());
        let bytes = |step| {
            let row = steps(run, trial, step).last();
            row.map_or(MISSING.to_owned(), |row| mebibytes(row.machine_available_bytes as f64))
        };
        table.push(vec![
            trial.arm.clone(),
            count(most),
            cell(trial.connections_per_s),
            cell(rate(0.0, FIRST_SHARE)),
            cell(rate(1.0 - FIRST_SHARE, 1.0)),
            cell(at_most(|row| row.connect_p50_us)),
            cell(at_most(|row| row.connect_p99_us)),
            cell((closed > 0.0).then(|| most as f64 / closed)),
            cell(steps(run, trial, "all").last().and_then(|row| row.duration_s)),
            bytes("before"),
            bytes("open"),
            bytes("after"),
        ]);
    }
    table.render() + &absent(run)
}

fn absent(run: &Run) -> String {
    let unusable = trials(run).into_iter().filter(|row| !row.status.is_usable());
    let line = |row: &TrialRow| format!("- {MISSING} `{}`: {}: {}\n", row.arm, row.status.word(), row.reason);
    let lines: String = unusable.map(line).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// Median of the repeats, and their range.
fn median_and_range(mut values: Vec<f64>) -> String {
    let Some(middle) = median(&mut values) else { return MISSING.to_owned() };
    match values[..] {
        [least, .., most] => format!("{} ({}–{})", number(middle), number(least), number(most)),
        _ => number(middle),
    }
}

/// One figure of a load, arm by arm, against how many connections stand beside it and how many are active.
fn against_connections(
    run: &Run,
    title: &str,
    is_wanted: impl Fn(&ScaleRow) -> bool,
    value: impl Fn(&[&ScaleRow]) -> String,
) -> String {
    let mut columns: Vec<(u64, u64)> = run
        .scale
        .iter()
        .filter(|row| is_wanted(row))
        .map(|row| (row.connections, row.active_connections))
        .collect();
    columns.sort_unstable();
    columns.dedup();
    let heading: Vec<String> = columns
        .iter()
        .map(|&(connections, active)| match active {
            0 => count(connections),
            _ => format!("{} ({} active)", count(connections), count(active)),
        })
        .collect();
    let heading: Vec<&str> = std::iter::once("arm").chain(heading.iter().map(String::as_str)).collect();
    let mut table = Table::new(1, &heading);
    for trial in trials(run) {
        let of_arm = || run.scale.iter().filter(|row| row.run_id == trial.run_id && is_wanted(row));
        if of_arm().next().is_none() {
            continue;
        }
        let mut cells = vec![trial.arm.clone()];
        cells.extend(columns.iter().map(|&column| {
            let rows: Vec<_> = of_arm()
                .filter(|row| (row.connections, row.active_connections) == column && row.status.is_usable())
                .collect();
            if rows.is_empty() { MISSING.to_owned() } else { value(&rows) }
        }));
        table.push(cells);
    }
    let table = table.render();
    if table.is_empty() { table } else { format!("{title}\n\n{table}\n") }
}

/// What a load costs beside ever more connections that are idle.
pub fn loads(run: &Run) -> String {
    let is_load = |arrival: &'static str| move |row: &ScaleRow| row.step == "load" && row.arrival == arrival;
    let of = |value: fn(&ScaleRow) -> Option<f64>| {
        move |rows: &[&ScaleRow]| median_and_range(rows.iter().filter_map(|row| value(row)).collect())
    };
    let in_time = |value: fn(&ScaleRow) -> Option<f64>| {
        move |rows: &[&ScaleRow]| {
            let ok = rows.iter().filter(|row| row.status == Status::Ok);
            median_and_range(ok.filter_map(|row| value(row)).collect())
        }
    };
    let rate = run.matrix.scale.as_ref().map_or(MISSING.to_owned(), |scale| number(scale.rate_per_s));
    let open = format!("Open loop, {rate} messages a second in all");
    let text = against_connections(
        run,
        &format!("{open}: server CPU, ns per echo"),
        is_load("poisson"),
        of(|row| row.server_cpu_ns_per_echo),
    ) + &against_connections(
        run,
        &format!("{open}: median latency, µs"),
        is_load("poisson"),
        in_time(|row| row.latency_p50_us),
    ) + &against_connections(
        run,
        &format!("{open}: p99 latency, µs"),
        is_load("poisson"),
        in_time(|row| row.latency_p99_us),
    ) + &against_connections(
        run,
        &format!("{open}: system calls per echo, by the server's own counters"),
        is_load("poisson"),
        of(|row| row.syscalls_per_echo),
    ) + &against_connections(
        run,
        "Closed loop, one message in flight on each active connection: server CPU, ns per echo",
        is_load("closed"),
        of(|row| row.server_cpu_ns_per_echo),
    ) + &against_connections(
        run,
        "The same: echoes a second",
        is_load("closed"),
        of(|row| row.achieved_per_s),
    ) + &against_connections(
        run,
        "Nobody sends: the server's CPU, percent of one",
        |row| row.step == "rest",
        of(|row| row.server_cpu_percent),
    );
    text.trim_end_matches('\n').to_owned() + if text.is_empty() { "" } else { "\n" }
}

/// Where the machine's pages went, connection by connection, and what is not accounted for.
pub fn account(run: &Run) -> String {
    let rows = |state: &'static str| {
        run.memory.iter().filter(move |row| row.state == state && row.status == Status::Ok)
    };
    let mut arms: Vec<(&str, &'static str)> = Vec::new();
    for state in [NEVER_USED, USED_THEN_IDLE] {
        for row in rows(state).filter(|row| row.object == USED_SUM) {
            arms.push((&row.arm, state));
        }
    }
    let mut table = Table::new(
        2,
        &[
            "arm",
            "state",
            "pages in use, all",
            "slab pages",
            "anonymous pages",
            "page tables",
            "page cache",
            "vmalloc",
            "unexplained",
            "of all",
            "objects in slabs",
            "lost between objects",
        ],
    );
    for (arm, state) in arms {
        let slope = |object: &str| {
            let found = rows(state).find(|row: &&MemoryRow| row.arm == arm && row.object == object);
            found.map(|row| row.bytes_per_connection)
        };
        // What hardly changed has no row.
        let or_none = |object: &str| slope(object).map_or("0".to_owned(), super::tables::whole);
        let (used, rest) = (slope(USED_SUM), slope(UNEXPLAINED));
        let lost = slope("slab pages")
            .zip(slope(KERNEL_SUM))
            .map(|(pages, objects)| pages - (objects - slope("server's page tables").unwrap_or_default()));
        table.push(vec![
            arm.to_owned(),
            state.to_owned(),
            or_none(USED_SUM),
            or_none("slab pages"),
            or_none("anonymous pages"),
            or_none("page tables"),
            or_none("page cache"),
            or_none("vmalloc"),
            or_none(UNEXPLAINED),
            used.zip(rest).map_or(MISSING.to_owned(), |(used, rest)| format!("{:.1} %", 100.0 * rest / used)),
            or_none(KERNEL_SUM),
            lost.map_or(MISSING.to_owned(), super::tables::whole),
        ]);
    }
    table.render()
}
