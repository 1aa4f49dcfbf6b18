//! The tables of a walk through connection counts.

use ringmark::backend;

use super::section::Body;
use super::table::{MISSING, Table};
use crate::results::Run;
use crate::rows::{
    ACTIVE, ALONE, Bounds, CROWDED, KERNEL_SUM, MemoryRow, NEVER_USED, PAGE_TABLES, Pass, ScaleRow,
    Status, TrialRow, UNEXPLAINED, USED_SUM, USED_THEN_IDLE, USER_SUM,
};
use crate::statistics::{Interval, median};
use crate::text::{count, list, number, whole};
use crate::verdict::estimate::Estimate;
use crate::verdict::slopes;

/// Steps of opening up to this share of the largest count are the first ones, and those beyond the
/// rest the last.
const FIRST_SHARE: f64 = 0.2;

/// Where an arm stands in the matrix; the floor stands in none and comes last.
fn place(run: &Run, arm: &str) -> usize {
    let backends = &run.matrix.backends;
    backends.iter().position(|contender| contender.name() == arm).unwrap_or(backends.len())
}

/// The trials of the pass, in the order of the matrix, the floor at the end.
pub fn trials(run: &Run) -> Vec<&TrialRow> {
    let mut rows: Vec<_> = run.trials.iter().filter(|row| row.pass == Some(Pass::Scale)).collect();
    rows.sort_by_key(|row| place(run, &row.arm));
    rows
}

/// The steps of that name in a trial, in their order.
pub fn steps<'a>(
    run: &'a Run,
    trial: &TrialRow,
    step: &'static str,
) -> impl Iterator<Item = &'a ScaleRow> {
    let run_id = trial.run_id;
    run.scale.iter().filter(move |row| row.run_id == run_id && row.step == step)
}

fn cell(value: Option<f64>) -> String {
    value.map_or(MISSING.to_owned(), number)
}

fn mebibytes(bytes: f64) -> String {
    number(bytes / f64::from(1 << 20))
}

/// The steps that led beyond every earlier count, without those that open again what had made room
/// for active ones.
pub fn opened<'a>(run: &'a Run, trial: &TrialRow) -> Vec<&'a ScaleRow> {
    let mut most = 0;
    let mut opened: Vec<&ScaleRow> = Vec::new();
    for row in steps(run, trial, "open") {
        if row.connections > most {
            most = row.connections;
            opened.push(row);
        }
    }
    opened
}

/// How many connections a step opened or closed.
pub fn changed(row: &ScaleRow) -> f64 {
    row.connections_per_s.unwrap_or_default() * row.duration_s.unwrap_or_default()
}

/// How fast connections open and close, and what is left of them afterwards.
pub fn opening(run: &Run) -> Body {
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
        let opened = opened(run, trial);
        let most = opened.last().map_or(0, |row| row.connections);
        let rate = |from: f64, to: f64| {
            let within = |row: &&&ScaleRow| {
                let share = row.connections as f64 / most as f64;
                from < share && share <= to
            };
            let rates = opened.iter().filter(within).filter_map(|row| row.connections_per_s);
            median(&mut rates.collect::<Vec<_>>())
        };
        // The last step may be a small one, in which connections do not wait for each other.
        let largest = opened.iter().map(|row| changed(row)).fold(0.0, f64::max);
        let last = opened.iter().rev().find(|row| changed(row) > largest / 2.0);
        let at_most = |value: fn(&ScaleRow) -> Option<f64>| last.and_then(|row| value(row));
        // Those that close what the last opening had made whole.
        let of_trial: Vec<_> = run.scale.iter().filter(|row| row.run_id == trial.run_id).collect();
        let whole = of_trial.iter().rposition(|row| row.step == "open" && row.connections == most);
        let closing = of_trial.iter().skip(whole.unwrap_or(0)).filter(|row| row.step == "close");
        let (closed, seconds) = closing
            .filter_map(|row| row.connections_per_s.zip(row.duration_s))
            .fold((0.0, 0.0), |(closed, seconds), (per_s, duration_s)| {
                (closed + per_s * duration_s, seconds + duration_s)
            });
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
            cell((seconds > 0.0).then(|| closed / seconds)),
            cell(steps(run, trial, "all").last().and_then(|row| row.duration_s)),
            bytes("before"),
            bytes("open"),
            bytes("after"),
        ]);
    }
    Body::from(table).notes(absent(run))
}

fn absent(run: &Run) -> String {
    let unusable = trials(run).into_iter().filter(|row| !row.status.is_usable());
    let line = |row: &TrialRow| {
        format!("- `{}` has no figures: {}: {}\n", row.arm, row.status.word(), row.reason)
    };
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

/// What a load with a crowd beside it has over one without: the mean over the repeats in which both
/// servers' figures may be used, and its interval, or its range if they are few.
pub fn crowding(
    rows: &[&ScaleRow],
    may_be_used: fn(&ScaleRow) -> bool,
    value: fn(&ScaleRow) -> Option<f64>,
) -> Option<Estimate> {
    let of = |server: &'static str, repeat: Option<u32>| {
        let mut of_server =
            rows.iter().filter(move |row| row.server == server && row.repeat == repeat);
        of_server.find(|row| may_be_used(row)).and_then(|row| value(row))
    };
    let repeats = rows.iter().filter(|row| row.server == CROWDED).map(|row| row.repeat);
    let ratio =
        |repeat| Some(of(CROWDED, repeat)? / of(ALONE, repeat)?).filter(|ratio| ratio.is_finite());
    let ratios: Vec<f64> = repeats.filter_map(ratio).collect();
    Estimate::of(&ratios)
}

fn crowded_over_alone(
    rows: &[&ScaleRow],
    may_be_used: fn(&ScaleRow) -> bool,
    value: fn(&ScaleRow) -> Option<f64>,
) -> String {
    let repeats = rows.iter().filter(|row| row.server == CROWDED).count();
    match crowding(rows, may_be_used, value) {
        None => MISSING.to_owned(),
        Some(Estimate { mean, .. }) if repeats == 1 => format!("{mean:.2}"),
        Some(Estimate { mean, bounds, interval: Interval { low, high } }) => match bounds {
            Bounds::Interval95 => format!("**{mean:.2}** ({low:.2} to {high:.2})"),
            Bounds::Range => format!("{mean:.2} ({low:.2}–{high:.2})"),
        },
    }
}

/// One figure of a load, arm by arm, against how many connections stand beside it and how many are
/// active.
fn against_connections(
    run: &Run,
    title: &str,
    is_wanted: impl Fn(&ScaleRow) -> bool,
    value: impl Fn(&[&ScaleRow]) -> String,
) -> Body {
    let column = |row: &ScaleRow| (row.connections, row.active_connections);
    let mut columns: Vec<_> = run.scale.iter().filter(|row| is_wanted(row)).map(column).collect();
    columns.sort_unstable();
    columns.dedup();
    let heading: Vec<String> = columns
        .iter()
        .map(|&(connections, active)| match active {
            0 => count(connections),
            _ => format!("{} ({} active)", count(connections), count(active)),
        })
        .collect();
    let heading: Vec<&str> =
        std::iter::once("arm").chain(heading.iter().map(String::as_str)).collect();
    let mut table = Table::new(1, &heading);
    for trial in trials(run) {
        let of_arm = || run.scale.iter().filter(|row| row.run_id == trial.run_id && is_wanted(row));
        if of_arm().next().is_none() || !trial.status.is_usable() {
            continue;
        }
        let mut cells = vec![trial.arm.clone()];
        cells.extend(columns.iter().map(|&wanted| {
            let rows: Vec<_> =
                of_arm().filter(|row| column(row) == wanted && row.status.is_usable()).collect();
            if rows.is_empty() { MISSING.to_owned() } else { value(&rows) }
        }));
        table.push(cells);
    }
    if table.is_empty() { Body::default() } else { Body::default().heading(title).table(table) }
}

/// What a load costs beside ever more connections that are idle.
pub fn loads(run: &Run) -> Body {
    let is_load = |arrival: &'static str| {
        move |row: &ScaleRow| row.step == "load" && row.arrival == arrival && row.server != ALONE
    };
    let of = |value: fn(&ScaleRow) -> Option<f64>| {
        move |rows: &[&ScaleRow]| {
            median_and_range(rows.iter().filter_map(|row| value(row)).collect())
        }
    };
    let in_time = |value: fn(&ScaleRow) -> Option<f64>| {
        move |rows: &[&ScaleRow]| {
            let ok = rows.iter().filter(|row| row.status == Status::Ok);
            median_and_range(ok.filter_map(|row| value(row)).collect())
        }
    };
    let rate = run
        .matrix
        .scale
        .as_ref()
        .map_or(MISSING.to_owned(), |scale| number(scale.rate_per_s.get()));
    let open = format!("Open loop, {rate} messages a second in all");
    let beside = |row: &ScaleRow| row.step == "load" && !row.server.is_empty();
    let over_alone = "with a crowd, over a second server's without one, measured in turn";
    let tables = [
        against_connections(
            run,
            &format!("{open}: server CPU per echo {over_alone}"),
            move |row| beside(row) && row.arrival == "poisson",
            |rows| {
                crowded_over_alone(
                    rows,
                    |row| row.status.is_usable(),
                    |row| row.server_cpu_ns_per_echo,
                )
            },
        ),
        against_connections(
            run,
            &format!("{open}: median latency {over_alone}"),
            move |row| beside(row) && row.arrival == "poisson",
            |rows| {
                crowded_over_alone(rows, |row| row.status == Status::Ok, |row| row.latency_p50_us)
            },
        ),
        against_connections(
            run,
            &format!(
                "Closed loop, one message in flight on each active connection: server CPU per echo {over_alone}"
            ),
            move |row| beside(row) && row.arrival == "closed",
            |rows| {
                crowded_over_alone(
                    rows,
                    |row| row.status.is_usable(),
                    |row| row.server_cpu_ns_per_echo,
                )
            },
        ),
        against_connections(
            run,
            &format!("{open}: server CPU, ns per echo"),
            is_load("poisson"),
            of(|row| row.server_cpu_ns_per_echo),
        ),
        against_connections(
            run,
            &format!("{open}: median latency, µs"),
            is_load("poisson"),
            in_time(|row| row.latency_p50_us),
        ),
        against_connections(
            run,
            &format!("{open}: p99 latency, µs"),
            is_load("poisson"),
            in_time(|row| row.latency_p99_us),
        ),
        against_connections(
            run,
            &format!("{open}: system calls per echo, by the server's own counters"),
            is_load("poisson"),
            of(|row| row.syscalls_per_echo),
        ),
        against_connections(
            run,
            "Closed loop, one message in flight on each active connection: server CPU, ns per echo",
            is_load("closed"),
            of(|row| row.server_cpu_ns_per_echo),
        ),
        against_connections(
            run,
            "The same: echoes a second, where the client was not the limit",
            is_load("closed"),
            in_time(|row| row.achieved_per_s),
        ),
        against_connections(
            run,
            "Nobody sends: the server's CPU, percent of one",
            |row| row.step == "rest",
            of(|row| row.server_cpu_percent),
        ),
    ];
    tables.into_iter().fold(Body::default(), Body::then)
}

/// The slope of an arm in a state, if its trial stands.
fn slope<'a>(run: &'a Run, arm: &str, state: &str, object: &str) -> Option<&'a MemoryRow> {
    let mut usable = run.memory.iter().filter(|row| row.status == Status::Ok);
    usable.find(|row| row.arm == arm && row.state == state && row.object == object)
}

/// The widest interval of the pages in use, over them.
const WIDEST_SHARE: f64 = 0.5;

/// Pages are read one after the other: so much may be below zero, and more is another program's
/// doing.
const NEGATIVE_SHARE: f64 = 0.05;

/// A walk whose pages are shown.
struct Pages<'a> {
    used: &'a MemoryRow,
    run: &'a Run,
}

impl Pages<'_> {
    fn bytes(&self, object: &str) -> Option<f64> {
        Some(slope(self.run, &self.used.arm, &self.used.state, object)?.bytes_per_connection)
    }

    /// Why what was read of the pages is not that of the connections.
    fn flaw(&self) -> Option<String> {
        let used = self.used.bytes_per_connection;
        let Some(kernel) = self.bytes(KERNEL_SUM) else {
            return Some(
                "without the kernel's objects it is not known whether the machine was at rest"
                    .to_owned(),
            );
        };
        let (Some(slab), Some(unexplained)) = (self.bytes("slab pages"), self.bytes(UNEXPLAINED))
        else {
            return Some(
                "memory.csv has no rows of slab pages, or none of what is unexplained".to_owned(),
            );
        };
        // The objects are in the pages of slabs, and these are pages in use.
        let ends = [kernel - self.bytes(PAGE_TABLES).unwrap_or_default(), slab, used];
        let is_less = |pair: &[f64]| pair[1] < (1.0 - NEGATIVE_SHARE) * pair[0];
        let width = slopes::bounds(self.used, &self.run.memory_points).map(|bounds| bounds.width());
        let is_wide = width.is_none_or(|width| width > WIDEST_SHARE * used);
        let disturbed = used <= 0.0
            || is_wide
            || ends.windows(2).any(is_less)
            || unexplained < -NEGATIVE_SHARE * used;
        disturbed.then(|| {
            "the machine's pages do not add up: something else took or gave memory".to_owned()
        })
    }

    fn cells(&self) -> Vec<String> {
        let plain = |value: Option<f64>| value.map_or(MISSING.to_owned(), whole);
        // What hardly changed has no row.
        let or_none = |object: &str| self.bytes(object).map_or("0".to_owned(), whole);
        let objects =
            self.bytes(KERNEL_SUM).map(|sum| sum - self.bytes(PAGE_TABLES).unwrap_or_default());
        let between = self.bytes("slab pages").zip(objects).map(|(pages, objects)| pages - objects);
        let used = self.used.bytes_per_connection;
        let share = self.bytes(UNEXPLAINED).map(|rest| format!("{:.1} %", 100.0 * rest / used));
        vec![
            self.used.arm.clone(),
            self.used.state.clone(),
            whole(used),
            or_none("slab pages"),
            plain(objects),
            plain(between),
            or_none("anonymous pages"),
            or_none("page tables"),
            or_none("page cache"),
            or_none("vmalloc"),
            or_none(UNEXPLAINED),
            share.unwrap_or(MISSING.to_owned()),
        ]
    }
}

/// Where the machine's pages went, connection by connection, and what is not accounted for.
pub fn account(run: &Run) -> Body {
    let mut table = Table::new(
        2,
        &[
            "arm",
            "state",
            "pages in use",
            "slab pages",
            "of which objects",
            "and between them",
            "anonymous pages",
            "page tables",
            "page cache",
            "vmalloc",
            "unexplained",
            "of all",
        ],
    );
    let is_shown = |row: &&MemoryRow| {
        row.object == USED_SUM && row.state != ACTIVE && row.status == Status::Ok
    };
    let mut rows: Vec<_> = run.memory.iter().filter(is_shown).collect();
    rows.sort_by_key(|row| (row.state != NEVER_USED, place(run, &row.arm)));
    let (mut shown, mut not_shown) = (Vec::new(), Vec::<(String, Vec<String>)>::new());
    for used in rows {
        let pages = Pages { used, run };
        match pages.flaw() {
            Some(why) => {
                let walk = format!("`{}` {}", used.arm, used.state);
                match not_shown.iter_mut().find(|(of, _)| *of == why) {
                    Some((_, walks)) => walks.push(walk),
                    None => not_shown.push((why, vec![walk])),
                }
            }
            None => {
                table.push(pages.cells());
                shown.push(used);
            }
        }
    }
    let line =
        |(why, walks): (String, Vec<String>)| format!("- No account of {}: {why}\n", list(&walks));
    let lines: String = not_shown.into_iter().map(line).collect();
    let lines = if lines.is_empty() || table.is_empty() { lines } else { format!("\n{lines}") };
    match table.is_empty() {
        true => Body::default().notes(lines),
        false => Body::from(table).notes(lines).notes(residuals(run, &shown)),
    }
}

/// How far the readings of the way up lie from their lines.
fn residuals(run: &Run, shown: &[&MemoryRow]) -> String {
    let most = |object: &str| {
        let rows = shown.iter().filter_map(|used| slope(run, &used.arm, &used.state, object));
        let distances = rows.flat_map(|row| {
            let from_line = |(connections, bytes): (f64, f64)| {
                (bytes - row.intercept_bytes - row.bytes_per_connection * connections).abs()
            };
            row.way_up(&run.memory_points).map(from_line)
        });
        distances.reduce(f64::max)
    };
    let (Some(objects), Some(pages)) = (most(KERNEL_SUM), most(USED_SUM)) else {
        return String::new();
    };
    format!(
        "\nOn the way up no reading of the kernel's objects lies farther from its line than {} MiB, none of the pages in \
         use farther than {} MiB.\n",
        mebibytes(objects),
        mebibytes(pages)
    )
}

/// How many connections that were used and rest fit into a server's memory, when the other ends are
/// elsewhere.
///
/// `null` shows two bare ends and the load's epoll registration of one of them. What such a
/// registration takes is what an epoll server adds to that.
pub fn fit(run: &Run) -> Body {
    let over = |arm: &str, object: &str| {
        slope(run, arm, USED_THEN_IDLE, object)?.over_null_bytes_per_connection
    };
    let arms: Vec<_> = run.matrix.backends.iter().map(|contender| contender.name()).collect();
    // The edge-triggered server, the last of them, is the first choice.
    let registering = backend::ALL.iter().rev().filter(|entry| entry.only_registers);
    let registration = registering.map(|entry| entry.name).find_map(|arm| over(arm, KERNEL_SUM));
    let floor =
        slope(run, backend::FLOOR, NEVER_USED, KERNEL_SUM).map(|row| row.bytes_per_connection);
    let Some(bare) =
        floor.zip(registration).map(|(floor, registration)| (floor - registration) / 2.0)
    else {
        return Body::default();
    };
    let mut table = Table::new(
        1,
        &[
            "arm",
            "a bare end",
            "to wait for it",
            "own memory",
            "together",
            "connections in 1 GiB",
            "against the baseline",
        ],
    );
    let together = |arm: &str| Some(bare + over(arm, KERNEL_SUM)? + over(arm, USER_SUM)?);
    for arm in &arms {
        let Some(sum) = together(arm).filter(|sum| *sum > 0.0) else { continue };
        let baseline = together(&run.matrix.baseline).filter(|baseline| *baseline > 0.0);
        let against = baseline.map(|baseline| format!("{:.2}", sum / baseline));
        table.push(vec![
            arm.clone(),
            whole(bare),
            over(arm, KERNEL_SUM).map_or(MISSING.to_owned(), whole),
            over(arm, USER_SUM).map_or(MISSING.to_owned(), whole),
            whole(sum),
            number(f64::from(1 << 30) / sum),
            against.unwrap_or(MISSING.to_owned()),
        ]);
    }
    if table.is_empty() { Body::default() } else { table.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_compared_with_none_repeat_by_repeat() {
        let row = |server: &str, repeat, cpu, status| ScaleRow {
            server: server.to_owned(),
            repeat: Some(repeat),
            server_cpu_ns_per_echo: Some(cpu),
            status,
            ..ScaleRow::default()
        };
        let mut rows: Vec<ScaleRow> = (1..=10)
            .flat_map(|repeat| {
                // The machine drifts by ten times what the crowd costs.
                let drift = f64::from(repeat);
                [
                    row(CROWDED, repeat, 1100.0 * drift, Status::Ok),
                    row(ALONE, repeat, 1000.0 * drift, Status::Ok),
                ]
            })
            .collect();
        let shown = |rows: &[ScaleRow]| {
            let rows: Vec<&ScaleRow> = rows.iter().collect();
            crowded_over_alone(
                &rows,
                |row| row.status.is_usable(),
                |row| row.server_cpu_ns_per_echo,
            )
        };
        assert_eq!(shown(&rows), "**1.10** (1.10 to 1.10)");
        // Without one of a pair the other does not count, and nine are too few for an interval.
        rows[0].status = Status::Rejected;
        assert_eq!(shown(&rows), "1.10 (1.10–1.10)");
        assert_eq!(shown(&rows[..2]), MISSING);
        assert_eq!(shown(&rows[2..4]), "1.10", "one repeat has no range");
        rows[3].server_cpu_ns_per_echo = Some(0.0);
        assert_eq!(shown(&rows[2..4]), MISSING, "there is no ratio to nothing");
    }
}
