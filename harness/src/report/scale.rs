//! The tables of a walk through connection counts.

use itertools::Itertools as _;

use super::section::Body;
use super::table::{Column, MISSING, Table, cell};
use super::walk::{changed, crowding, opened, steps, trials};
use crate::results::Run;
use crate::rows::{ALONE, Bounds, CROWDED, ScaleRow, Status, TrialRow};
use crate::statistics::{Interval, median};
use crate::text::{grouped, significant};
use crate::verdict::estimate::Estimate;

/// The first steps of opening reach this share of the largest count. The last steps lie beyond the
/// rest.
const FIRST_SHARE: f64 = 0.2;

/// A trial that opened and closed connections.
struct Opening<'a> {
    run: &'a Run,
    trial: &'a TrialRow,
    opened: Vec<&'a ScaleRow>,
}

impl<'a> Opening<'a> {
    fn most(&self) -> u64 {
        self.opened.last().map_or(0, |row| row.connections)
    }

    /// Returns the median rate of the steps between two shares of the largest count.
    fn rate(&self, from: f64, to: f64) -> Option<f64> {
        let is_within = |row: &&&ScaleRow| {
            let share = row.connections as f64 / self.most() as f64;
            from < share && share <= to
        };
        let rows = self.opened.iter().filter(is_within);
        median(&mut rows.filter_map(|row| row.connections_per_s).collect_vec())
    }

    /// Returns the last full step. In a small one connections do not wait for each other.
    fn last_full(&self) -> Option<&'a ScaleRow> {
        let largest = self.opened.iter().map(|row| changed(row)).fold(0.0, f64::max);
        self.opened.iter().rev().find(|row| changed(row) > largest / 2.0).copied()
    }

    /// Returns the rate of closing after the last opening of all.
    fn closed_per_s(&self) -> Option<f64> {
        let rows =
            (self.run.scale.iter()).filter(|row| row.run_id == self.trial.run_id).collect_vec();
        let whole =
            rows.iter().rposition(|row| row.step == "open" && row.connections == self.most());
        let (closed, seconds) = (rows.iter().skip(whole.unwrap_or(0)))
            .filter(|row| row.step == "close")
            .filter_map(|row| row.connections_per_s.zip(row.duration_s))
            .fold((0.0, 0.0), |(closed, seconds), (per_s, duration_s)| {
                (closed + per_s * duration_s, seconds + duration_s)
            });
        (seconds > 0.0).then(|| closed / seconds)
    }

    fn last(&self, step: &'static str) -> Option<&'a ScaleRow> {
        steps(self.run, self.trial, step).last()
    }

    fn available_mebibytes(&self, step: &'static str) -> String {
        let bytes = self.last(step).map(|row| row.machine_available_bytes as f64);
        cell(bytes, |bytes| significant(bytes / f64::from(1 << 20)))
    }
}

/// Shows how fast connections open and close, and how much memory stays available.
pub fn opening(run: &Run) -> Body {
    let columns: [Column<Opening>; 12] = [
        ("arm", |of| of.trial.arm.clone()),
        ("connections", |of| grouped(of.most())),
        ("opened /s", |of| cell(of.trial.connections_per_s, significant)),
        ("first fifth /s", |of| cell(of.rate(0.0, FIRST_SHARE), significant)),
        ("last fifth /s", |of| cell(of.rate(1.0 - FIRST_SHARE, 1.0), significant)),
        ("connect p50 µs", |of| {
            cell(of.last_full().and_then(|row| row.connect_p50_us), significant)
        }),
        ("p99 µs", |of| cell(of.last_full().and_then(|row| row.connect_p99_us), significant)),
        ("closed /s", |of| cell(of.closed_per_s(), significant)),
        ("all echoed once, in s", |of| {
            cell(of.last("all").and_then(|row| row.duration_s), significant)
        }),
        ("available before MiB", |of| of.available_mebibytes("before")),
        ("with all open", |of| of.available_mebibytes("open")),
        ("after", |of| of.available_mebibytes("after")),
    ];
    let rows = trials(run)
        .into_iter()
        .map(|trial| Opening { run, trial, opened: opened(run, trial) })
        .collect_vec();
    let unusable = rows.iter().map(|of| of.trial).filter(|row| !row.status.is_usable());
    let lines = unusable.map(|row| {
        format!("- `{}` has no figures: {}: {}\n", row.arm, row.status.word(), row.reason)
    });
    Body::from(Table::of(&rows, 1, &columns)).list(&lines.collect::<String>())
}

type Value = fn(&ScaleRow) -> Option<f64>;
type Condition = fn(&ScaleRow) -> bool;
type CellWriter = fn(&[&ScaleRow]) -> String;

const CPU: Value = |row| row.server_cpu_ns_per_echo;
const P50: Value = |row| row.latency_p50_us;
const IS_USABLE: Condition = |row| row.status.is_usable();
const IS_OK: Condition = |row| row.status == Status::Ok;

/// Writes the median of the repeats, and their range.
fn median_cell(rows: &[&ScaleRow], may_be_used: Condition, value: Value) -> String {
    let usable = rows.iter().filter(|row| may_be_used(row));
    let mut values = usable.filter_map(|row| value(row)).collect_vec();
    let middle = cell(median(&mut values), significant);
    match values[..] {
        [least, .., most] => format!("{middle} ({}–{})", significant(least), significant(most)),
        _ => middle,
    }
}

/// Writes what a load with a crowd beside it has over one without.
fn crowding_cell(rows: &[&ScaleRow], may_be_used: Condition, value: Value) -> String {
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

const CPU_OVER_ALONE: CellWriter = |rows| crowding_cell(rows, IS_USABLE, CPU);
const P50_OVER_ALONE: CellWriter = |rows| crowding_cell(rows, IS_OK, P50);

/// Shows one figure of a load, arm by arm, against how many connections stand beside it and how
/// many are active.
fn load_table(run: &Run, title: &str, is_wanted: Condition, write: CellWriter) -> Body {
    let counts = |row: &ScaleRow| (row.connections, row.active_connections);
    let wanted = run.scale.iter().filter(|row| is_wanted(row)).collect_vec();
    let columns = wanted.iter().map(|row| counts(row)).sorted_unstable().dedup().collect_vec();
    let mut heading = vec!["arm".to_owned()];
    heading.extend(columns.iter().map(|&(connections, active)| match active {
        0 => grouped(connections),
        _ => format!("{} ({} active)", grouped(connections), grouped(active)),
    }));
    let mut table = Table::new(1, &heading);
    for trial in trials(run).into_iter().filter(|trial| trial.status.is_usable()) {
        let rows = wanted.iter().filter(|row| row.run_id == trial.run_id).collect_vec();
        if rows.is_empty() {
            continue;
        }
        let mut cells = vec![trial.arm.clone()];
        cells.extend(columns.iter().map(|&column| {
            let is_of_cell = |row: &&&&ScaleRow| counts(row) == column && row.status.is_usable();
            let rows = rows.iter().filter(is_of_cell).map(|row| **row).collect_vec();
            if rows.is_empty() { MISSING.to_owned() } else { write(&rows) }
        }));
        table.push(cells);
    }
    if table.is_empty() { Body::default() } else { Body::default().heading(title).table(table) }
}

/// A load on a server, with a crowd or none beside it.
const OPEN: Condition = |row| row.step == "load" && row.arrival == "poisson" && row.server != ALONE;
const CLOSED: Condition =
    |row| row.step == "load" && row.arrival == "closed" && row.server != ALONE;
/// A load on one of two servers, of which only one has a crowd.
const OPEN_PAIR: Condition =
    |row| row.step == "load" && row.arrival == "poisson" && !row.server.is_empty();
const CLOSED_PAIR: Condition =
    |row| row.step == "load" && row.arrival == "closed" && !row.server.is_empty();

/// Shows what a load costs beside the largest crowd, over the same without it.
pub fn crowd(run: &Run) -> Body {
    let columns: [(&str, Condition, CellWriter); 3] = [
        ("closed: CPU", CLOSED_PAIR, CPU_OVER_ALONE),
        ("open: CPU", OPEN_PAIR, CPU_OVER_ALONE),
        ("open: p50", OPEN_PAIR, P50_OVER_ALONE),
    ];
    let idle = |row: &ScaleRow| row.connections.saturating_sub(row.active_connections);
    let pairs = run.scale.iter().filter(|row| CLOSED_PAIR(row) || OPEN_PAIR(row)).collect_vec();
    let Some(most) = pairs.iter().map(|row| idle(row)).max() else { return Body::default() };
    let titles = columns.iter().map(|&(title, ..)| title);
    let heading = [format!("beside {} idle connections", grouped(most))];
    let heading = heading.into_iter().chain(titles.map(str::to_owned)).collect_vec();
    let mut table = Table::new(1, &heading);
    for trial in trials(run).into_iter().filter(|trial| trial.status.is_usable()) {
        let is_of_trial = |row: &&&ScaleRow| row.run_id == trial.run_id && idle(row) == most;
        let of_trial = pairs.iter().filter(is_of_trial).copied().collect_vec();
        // The floor's server does not echo.
        if of_trial.is_empty() {
            continue;
        }
        let cells = columns.iter().map(|&(_, is_wanted, write)| {
            write(&of_trial.iter().copied().filter(|row| is_wanted(row)).collect_vec())
        });
        table.push([trial.arm.clone()].into_iter().chain(cells).collect());
    }
    if table.is_empty() { Body::default() } else { Body::from(table) }
}

/// Shows what a load costs beside ever more connections that are idle.
pub fn loads(run: &Run) -> Body {
    let rate = cell(run.matrix.scale.as_ref().map(|scale| scale.rate_per_s.get()), significant);
    let open = format!("Open loop, {rate} messages a second in all:");
    let closed = "Closed loop, one message in flight on each active connection:";
    let over_alone = "with a crowd, over a second server's without one, measured in turn";
    let cpu_over_alone = format!("server CPU per echo {over_alone}");
    let tables: [(String, Condition, CellWriter); 10] = [
        (format!("{open} {cpu_over_alone}"), OPEN_PAIR, CPU_OVER_ALONE),
        (format!("{open} median latency {over_alone}"), OPEN_PAIR, P50_OVER_ALONE),
        (format!("{closed} {cpu_over_alone}"), CLOSED_PAIR, CPU_OVER_ALONE),
        (format!("{open} server CPU, ns per echo"), OPEN, |rows| median_cell(rows, IS_USABLE, CPU)),
        (format!("{open} median latency, µs"), OPEN, |rows| median_cell(rows, IS_OK, P50)),
        (format!("{open} p99 latency, µs"), OPEN, |rows| {
            median_cell(rows, IS_OK, |row| row.latency_p99_us)
        }),
        (format!("{open} system calls per echo, by the server's own counters"), OPEN, |rows| {
            median_cell(rows, IS_USABLE, |row| row.syscalls_per_echo)
        }),
        (format!("{closed} server CPU, ns per echo"), CLOSED, |rows| {
            median_cell(rows, IS_USABLE, CPU)
        }),
        (
            "The same: echoes a second, where the client was not the limit".to_owned(),
            CLOSED,
            |rows| median_cell(rows, IS_OK, |row| row.achieved_per_s),
        ),
        (
            "Nobody sends: the server's CPU, percent of one".to_owned(),
            |row| row.step == "rest",
            |rows| median_cell(rows, IS_USABLE, |row| row.server_cpu_percent),
        ),
    ];
    tables.iter().fold(Body::default(), |body, (title, is_wanted, write)| {
        body.then(load_table(run, title, *is_wanted, *write))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Pass;

    #[test]
    fn the_largest_crowd_is_shown_arm_by_arm() {
        let matrix = toml::from_str(include_str!("../../matrix/crowd.toml")).expect("a matrix");
        let trial = |run_id, arm: &str| TrialRow {
            run_id,
            arm: arm.to_owned(),
            pass: Some(Pass::Scale),
            status: Status::Ok,
            ..TrialRow::default()
        };
        let load = |server: &str, idle: u64, arrival: &str, cpu| ScaleRow {
            run_id: 1,
            step: "load".to_owned(),
            connections: idle + 8,
            active_connections: 8,
            server: server.to_owned(),
            arrival: arrival.to_owned(),
            repeat: Some(1),
            server_cpu_ns_per_echo: Some(cpu),
            status: Status::Ok,
            ..ScaleRow::default()
        };
        let trials = vec![trial(1, "epoll-et"), trial(2, "null")];
        let scale = vec![
            load(CROWDED, 0, "closed", 900.0),
            load(ALONE, 0, "closed", 300.0),
            load(CROWDED, 400, "closed", 800.0),
            load(ALONE, 400, "closed", 400.0),
            load(CROWDED, 400, "poisson", 150.0),
            load(ALONE, 400, "poisson", 100.0),
        ];
        let run = Run { scale, ..Run::of(matrix, trials, Vec::new()) };
        let shown = crowd(&run).markdown();
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect_vec();
        let rows = shown.lines().map(cells).collect_vec();
        assert_eq!(rows[0][1], "beside 400 idle connections", "{shown}");
        assert_eq!(rows[2][1..5], ["epoll-et", "2.00", "1.50", MISSING], "{shown}");
        assert_eq!(rows.len(), 3, "the floor has no row: {shown}");
    }

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
            crowding_cell(&rows, IS_USABLE, CPU)
        };
        assert_eq!(shown(&rows), "**1.10** (1.10 to 1.10)");
        // Without one of a pair the other does not count, and five are too few for an interval.
        rows[0].status = Status::Rejected;
        assert_eq!(shown(&rows[..12]), "1.10 (1.10–1.10)");
        assert_eq!(shown(&rows[..2]), MISSING);
        assert_eq!(shown(&rows[2..4]), "1.10", "one repeat has no range");
        rows[3].server_cpu_ns_per_echo = Some(0.0);
        assert_eq!(shown(&rows[2..4]), MISSING, "there is no ratio to nothing");
    }
}
