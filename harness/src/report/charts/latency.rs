//! How long messages take: against the rate, and by percentile.

use std::path::Path;

use hdrhistogram::Histogram;

use super::kit::{
    Found, Median, SPREAD, across_rates, name_of_loops, nothing_of, of_loops_by_rate, say_missing,
};
use crate::load::latency::{carries, histogram, merge, read_log};
use crate::matrix::{Arm, Workload};
use crate::report::chart::axis::Axis;
use crate::report::chart::lines::{self, Across, LEFT, Line, Panel, Point, RIGHT};
use crate::report::chart::{Canvas, Chart};
use crate::report::colours::look;
use crate::report::query::in_complete_blocks;
use crate::results::{Run, histogram_file};
use crate::rows::{Pass, Status, TrialRow};
use crate::text::significant;
use crate::verdict::blocks::complete_blocks;

type Percentile = fn(&TrialRow) -> Option<f64>;

/// Open loops that differ in nothing but their rates.
pub fn by_rate(run: &Run) -> Found {
    of_loops_by_rate(run, of_group)
}

fn of_group(run: &Run, group: &[&Workload]) -> Option<Chart> {
    let name = name_of_loops(group);
    let mut canvas = Canvas::new(
        &format!("latency-by-rate-{name}"),
        &format!("How does latency grow with the rate? {name}"),
    );
    let objective = run.matrix.latency.as_ref().and_then(|latency| latency.objective_p99_us);
    let percentiles: [(&str, Percentile); 3] = [
        ("p50", |row| row.latency_p50_us),
        ("p99", |row| row.latency_p99_us),
        ("p99.9", |row| row.latency_p999_us),
    ];
    let panel = |(name, value): (&str, Percentile)| Panel {
        title: format!("{name} from when a message was due, µs"),
        lines: run
            .matrix
            .backends
            .iter()
            .map(|contender| line(run, group, contender, value))
            .collect(),
        goal: objective
            .filter(|_| name == "p99")
            .map(|goal| (goal, format!("objective: {} ms", significant(goal / 1000.0)))),
        is_ratio: false,
    };
    let panels = percentiles.map(panel);
    let points = || panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points);
    points().next()?;
    let across = across_rates(group)?;
    lines::draw(&mut canvas, &across, &panels);
    canvas.note(SPREAD);
    if points().any(|point| point.is_ringed) {
        canvas.note("Ringed: the client was the limit in some block, and latency may be its own.");
    }
    let names: Vec<&str> = group.iter().map(|workload| workload.name.as_str()).collect();
    say_missing(&mut canvas, run, Pass::Latency, &names);
    say_without_blocks(&mut canvas, run, &names);
    Some(canvas.finish())
}

fn line(run: &Run, group: &[&Workload], contender: &Arm, value: Percentile) -> Line {
    let arm = contender.name();
    let point = |workload: &&Workload| {
        let rows = in_complete_blocks(run, &workload.name, &arm);
        let median = Median::of(rows.iter().filter_map(|row| value(row)).collect())?;
        Some(Point {
            x: workload.rate()?,
            y: median.value,
            bounds: median.interval,
            is_marked: true,
            is_ringed: rows.iter().any(|row| row.status == Status::ClientLimited),
        })
    };
    let mut points: Vec<Point> = group.iter().filter_map(point).collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    Line { look: look(run, &arm), label: arm, points }
}

/// Says which workloads have no block that counts.
fn say_without_blocks(canvas: &mut Canvas, run: &Run, workloads: &[&str]) {
    let is_empty = |name: &&&str| complete_blocks(&run.trials, Pass::Latency, name).is_empty();
    let names: Vec<&str> = workloads.iter().filter(is_empty).copied().collect();
    if !names.is_empty() {
        canvas.note(&format!("No block passed the gates: {}.", names.join(", ")));
    }
}

/// Arms in one panel, the baseline among them: more lines are not told apart.
const MOST_LINES: usize = 5;

/// Steps for each nine.
const STEPS: i32 = 8;

/// The marks of a line: the quotient of all messages and those that took longer, and the
/// percentile.
const MARKED: [(f64, &str); 6] =
    [(2.0, "50"), (10.0, "90"), (100.0, "99"), (1e3, "99.9"), (1e4, "99.99"), (1e5, "99.999")];

/// The histograms of an arm's blocks, merged: percentiles themselves have no mean.
pub fn by_percentile(run: &Run, folder: &Path) -> Found {
    let names = run.matrix.workloads.iter().map(|workload| workload.name.as_str());
    let of_pass = |name: &str| {
        run.trials.iter().any(|row| {
            row.pass == Some(Pass::Latency) && row.workload == name && row.status.is_usable()
        })
    };
    let workloads: Vec<&str> = names.filter(|name| of_pass(name)).collect();
    if workloads.is_empty() {
        return Err(nothing_of(run, Pass::Latency));
    }
    let charts: Vec<Chart> =
        workloads.iter().filter_map(|workload| of_workload(run, folder, workload)).collect();
    if charts.is_empty() {
        return Err("the run's folder has no histograms of blocks that count".to_owned());
    }
    Ok(charts)
}

/// An arm's histograms, merged, and those that could not be read.
struct Merged {
    arm: String,
    latency_ns: Histogram<u64>,
    blocks: usize,
    missing: Vec<String>,
}

fn of_workload(run: &Run, folder: &Path, workload: &str) -> Option<Chart> {
    let arms: Vec<Merged> = run
        .matrix
        .backends
        .iter()
        .filter_map(|contender| merged(run, folder, workload, contender))
        .collect();
    let line_of = |merged: &Merged| line_by_percentile(run, merged);
    let is_baseline = |merged: &&Merged| merged.arm == run.matrix.baseline;
    let baseline = arms.iter().find(is_baseline);
    let drawn: Vec<&Merged> = arms.iter().filter(|merged| !merged.latency_ns.is_empty()).collect();
    let groups: Vec<Vec<&Merged>> = if drawn.len() <= MOST_LINES {
        vec![drawn]
    } else {
        let others: Vec<&Merged> =
            drawn.into_iter().filter(|merged| !is_baseline(merged)).collect();
        let groups = others.chunks(MOST_LINES - 1);
        groups.map(|group| baseline.into_iter().chain(group.iter().copied()).collect()).collect()
    };
    let panels: Vec<Panel> = groups
        .iter()
        .map(|group| Panel {
            title: "latency, µs".to_owned(),
            lines: group.iter().map(|merged| line_of(merged)).collect(),
            goal: None,
            is_ratio: false,
        })
        .collect();
    let most = panels
        .iter()
        .flat_map(|panel| &panel.lines)
        .flat_map(|line| &line.points)
        .map(|point| point.x)
        .reduce(f64::max)?;
    let mut canvas = Canvas::new(
        &format!("latency-by-percentile-{workload}"),
        &format!("How long do the slowest messages take? {workload}"),
    );
    let across = Across {
        title: "percentile: % of the messages took no longer".to_owned(),
        axis: Axis::log(1.0, most, LEFT, RIGHT),
        ticks: Some(
            MARKED
                .iter()
                .filter(|(x, _)| *x <= most)
                .map(|(x, name)| (*x, (*name).to_owned()))
                .collect(),
        ),
        has_places: false,
    };
    lines::draw(&mut canvas, &across, &panels);
    let blocks = arms.iter().map(|merged| merged.blocks).max().unwrap_or_default();
    canvas.note(&format!(
        "The histograms of {blocks} blocks together, up to the last percentile that so many \
         messages carry; no interval."
    ));
    for Merged { arm, missing, .. } in arms.iter().filter(|merged| !merged.missing.is_empty()) {
        canvas.note(&format!(
            "Of {arm} {} histograms could not be read: {}.",
            missing.len(),
            missing[0]
        ));
    }
    say_missing(&mut canvas, run, Pass::Latency, &[workload]);
    Some(canvas.finish())
}

/// None for an arm without a block that counts.
fn merged(run: &Run, folder: &Path, workload: &str, contender: &Arm) -> Option<Merged> {
    let arm = contender.name();
    let rows = in_complete_blocks(run, workload, &arm);
    let mut merged = Merged { latency_ns: histogram(), blocks: 0, missing: Vec::new(), arm };
    for row in &rows {
        let file = histogram_file(row.run_id, workload, &merged.arm);
        let read = read_log(&folder.join("histograms").join(&file));
        match read.and_then(|of_trial| merge(&mut merged.latency_ns, &of_trial)) {
            Ok(()) => merged.blocks += 1,
            Err(error) => merged.missing.push(format!("{file}: {}", error.root_cause())),
        }
    }
    (!rows.is_empty()).then_some(merged)
}

fn line_by_percentile(run: &Run, merged: &Merged) -> Line {
    let steps = (0..STEPS * MARKED.len() as i32)
        .map(|step| 10_f64.powf(f64::from(step) / f64::from(STEPS)));
    let mut xs: Vec<(f64, bool)> =
        steps.map(|x| (x, false)).chain(MARKED.iter().map(|(x, _)| (*x, true))).collect();
    xs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let quantile = |x: f64| 1.0 - 1.0 / x;
    let samples = merged.latency_ns.len();
    let points =
        xs.into_iter().filter(|(x, _)| carries(samples, quantile(*x))).map(|(x, is_marked)| {
            Point {
                x,
                y: merged.latency_ns.value_at_quantile(quantile(x)) as f64 / 1e3,
                bounds: None,
                is_marked,
                is_ringed: false,
            }
        });
    Line { label: merged.arm.clone(), look: look(run, &merged.arm), points: points.collect() }
}
