//! Charts of ever more connections: the load beside them, and the rate at which they open.

use super::kit::{Found, nothing_of, say_missing};
use crate::report::chart::Canvas;
use crate::report::chart::axis::Axis;
use crate::report::chart::lines::{self, Across, LEFT, Line, Panel, Point, RIGHT};
use crate::report::colours::look;
use crate::report::walk;
use crate::results::Run;
use crate::rows::{ALONE, Pass, ScaleRow, Status, TrialRow};
use crate::statistics::{Interval, median};
use crate::text::{grouped, significant};

/// The trials that stand.
fn usable(run: &Run) -> Vec<&TrialRow> {
    walk::trials(run).into_iter().filter(|row| row.status.is_usable()).collect()
}

/// An open loop beside connections that are idle.
pub fn costs(run: &Run) -> Found {
    let (Some(matrix), trials) = (&run.matrix.scale, usable(run)) else {
        return Err(nothing_of(run, Pass::Scale));
    };
    let is_wanted = |row: &&ScaleRow| {
        row.step == "load"
            && row.arrival == "poisson"
            && row.active_connections == matrix.active as u64
            && row.server != ALONE
    };
    let panel = |title: &str, value: fn(&ScaleRow) -> Option<f64>| {
        let points = |trial: &TrialRow| {
            let rows = run.scale.iter().filter(|row| row.run_id == trial.run_id);
            points(rows.filter(is_wanted), value)
        };
        panel(run, &trials, title, points)
    };
    let panels = [
        panel("server CPU, ns per echo", |row| row.server_cpu_ns_per_echo),
        panel("p99 from when a message was due, µs", |row| {
            row.latency_p99_us.filter(|_| row.status == Status::Ok)
        }),
    ];
    let beside = panel_of_crowds(run, &trials, matrix.active as u64);
    let [cpu, p99] = panels;
    // Runs of earlier versions had no second server.
    let panels: Vec<Panel> =
        if beside.lines.is_empty() { vec![cpu, p99] } else { vec![cpu, beside, p99] };
    let xs = panels
        .iter()
        .flat_map(|panel| &panel.lines)
        .flat_map(|line| &line.points)
        .map(|point| point.x);
    let Some(axis) = Axis::fitting(xs, LEFT + 12.0, RIGHT - 12.0) else {
        return Err(nothing_of(run, Pass::Scale));
    };
    let mut canvas = Canvas::new(
        "cost-by-connections",
        "What does a load cost beside ever more connections that are idle?",
    );
    let across =
        Across { title: "connections that stand".to_owned(), axis, ticks: None, has_places: true };
    lines::draw(&mut canvas, &across, &panels);
    let repeats = match matrix.repeats {
        1 => "One repeat in one walk, without a range".to_owned(),
        repeats => format!(
            "Whiskers: the range of {repeats} repeats in one walk, of ratios from ten repeats on \
             the 95 % interval"
        ),
    };
    canvas.note(&format!(
        "{} messages a second on {} of them. {repeats}; a walk is one server.",
        significant(matrix.rate_per_s.get()),
        grouped(matrix.active as u64)
    ));
    say_missing(&mut canvas, run, Pass::Scale, &[]);
    Ok(vec![canvas.finish()])
}

fn panel(
    run: &Run,
    trials: &[&TrialRow],
    title: &str,
    points: impl Fn(&TrialRow) -> Vec<Point>,
) -> Panel {
    let line = |trial: &&TrialRow| Line {
        label: trial.arm.clone(),
        look: look(run, &trial.arm),
        points: points(trial),
    };
    let lines = trials.iter().map(line).filter(|line| !line.points.is_empty());
    Panel { title: title.to_owned(), lines: lines.collect(), goal: None, is_ratio: false }
}

fn panel_of_crowds(run: &Run, trials: &[&TrialRow], active: u64) -> Panel {
    let title = "over a server without idle ones, in turn";
    panel(run, trials, title, |trial| crowding_of(run, trial, active))
}

/// Returns the median of a figure at each number of connections, with the range of its repeats.
fn points<'a>(
    rows: impl Iterator<Item = &'a ScaleRow>,
    value: fn(&ScaleRow) -> Option<f64>,
) -> Vec<Point> {
    let mut by_count: Vec<(u64, Vec<f64>)> = Vec::new();
    for row in rows.filter(|row| row.status.is_usable()) {
        let Some(value) = value(row).filter(|value| value.is_finite()) else { continue };
        match by_count.iter_mut().find(|(connections, _)| *connections == row.connections) {
            Some((_, values)) => values.push(value),
            None => by_count.push((row.connections, vec![value])),
        }
    }
    let point = |(connections, mut values): (u64, Vec<f64>)| {
        let y = median(&mut values)?;
        let bounds = Interval::range(&values).filter(|_| values.len() > 1);
        Some(Point { x: connections as f64, y, bounds, is_marked: true, is_ringed: false })
    };
    by_count.into_iter().filter_map(point).collect()
}

/// Returns the cost of the crowd at each count, as a ratio with its bounds.
fn crowding_of(run: &Run, trial: &TrialRow, active: u64) -> Vec<Point> {
    let rows: Vec<&ScaleRow> = run
        .scale
        .iter()
        .filter(|row| row.run_id == trial.run_id && row.step == "load" && row.arrival == "poisson")
        .filter(|row| row.active_connections == active)
        .collect();
    let mut counts: Vec<u64> = rows.iter().map(|row| row.connections).collect();
    counts.sort_unstable();
    counts.dedup();
    let point = |connections: u64| {
        let rows: Vec<&ScaleRow> =
            rows.iter().copied().filter(|row| row.connections == connections).collect();
        let ratio =
            walk::crowding(&rows, |row| row.status.is_usable(), |row| row.server_cpu_ns_per_echo)?;
        Some(Point {
            x: connections as f64,
            y: ratio.mean,
            // One repeat has no range.
            bounds: Some(ratio.interval).filter(|of| of.low < of.high),
            is_marked: true,
            is_ringed: false,
        })
    };
    counts.into_iter().filter_map(point).collect()
}

/// One step of so many has a mark.
const MARKED_STEPS: usize = 4;

/// Connections that open, per second, step by step.
pub fn opening(run: &Run) -> Found {
    let line = |(index, trial): (usize, &&TrialRow)| {
        let steps = walk::opened(run, trial);
        let largest = steps.iter().map(|row| walk::changed(row)).fold(0.0, f64::max);
        // In small steps connections do not wait for each other.
        let points = steps.iter().filter(|row| walk::changed(row) > largest / 2.0).enumerate();
        // The walks lie close: a mark at every step would cover the others'.
        let points = points.filter_map(|(step, row)| {
            Some(Point {
                x: row.connections as f64,
                y: row.connections_per_s?,
                bounds: None,
                is_marked: (step + index) % MARKED_STEPS == 0,
                is_ringed: false,
            })
        });
        Line { label: trial.arm.clone(), look: look(run, &trial.arm), points: points.collect() }
    };
    let lines: Vec<Line> =
        usable(run).iter().enumerate().map(line).filter(|line| line.points.len() > 1).collect();
    let xs: Vec<f64> = lines.iter().flat_map(|line| &line.points).map(|point| point.x).collect();
    if xs.is_empty() {
        return Err(match usable(run).is_empty() {
            true => nothing_of(run, Pass::Scale),
            false => "the walks open their connections in too few steps".to_owned(),
        });
    }
    let mut canvas = Canvas::new("opening", "How fast do connections open as they become more?");
    let across = Across {
        title: "connections that stand".to_owned(),
        axis: Axis::from_zero(xs, LEFT, RIGHT),
        ticks: None,
        has_places: false,
    };
    let panel = Panel {
        title: "connections opened per second".to_owned(),
        lines,
        goal: None,
        is_ratio: false,
    };
    lines::draw(&mut canvas, &across, &[panel]);
    canvas.note(
        "A line goes through the steps of one walk, and some have a mark: the rate until \
                 the server had the last. Steps of less than half the size of the largest are left \
                 out. No interval.",
    );
    say_missing(&mut canvas, run, Pass::Scale, &[]);
    Ok(vec![canvas.finish()])
}
