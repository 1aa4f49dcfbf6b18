//! CPU per echo over the baseline's, against the rate: where one way of waiting overtakes another.

use super::kit::{Found, across_rates, name_of_loops, of_loops_by_rate, say_missing};
use crate::matrix::{Arm, Workload};
use crate::report::chart::lines::{self, Line, Panel, Point};
use crate::report::chart::{Canvas, Chart};
use crate::report::colours::look;
use crate::report::query::comparison;
use crate::results::Run;
use crate::rows::{Pass, Verdict};
use crate::verdict::metric::{self, Metric};

/// An arm that reaches this ratio at some rate would press the others together.
const RATIO_MAX: f64 = 1.5;

/// Draws each group of open loops that differ in nothing but their rates.
pub fn by_rate(run: &Run) -> Found {
    of_loops_by_rate(run, of_group)
}

fn of_group(run: &Run, group: &[&Workload]) -> Option<Chart> {
    let (baseline, name) = (&run.matrix.baseline, name_of_loops(group));
    let lines = |metric: &Metric| -> Vec<Line> {
        let others = run.matrix.backends.iter().filter(|arm| arm.name() != *baseline);
        others.map(|arm| line(run, group, arm, metric)).collect()
    };
    let (mut shown, far): (Vec<Line>, Vec<Line>) =
        lines(&metric::CPU).into_iter().partition(is_near);
    shown.retain(|line| !line.points.is_empty());
    let is_shown = |line: &Line| shown.iter().any(|other| other.label == line.label);
    let both = lines(&metric::BOTH_CPU).into_iter().filter(is_shown).collect();
    let panel = |title: &str, lines: Vec<Line>| Panel {
        title: title.to_owned(),
        lines,
        goal: Some((1.0, baseline.clone())),
        is_ratio: true,
    };
    let mut canvas = Canvas::new(
        &format!("cpu-ratio-by-rate-{name}"),
        &format!("From which rate on does each take less CPU than {baseline}? {name}"),
    );
    let across = across_rates(group)?;
    shown.first()?;
    let panels =
        [panel("server CPU per echo, ratio", shown), panel("server and client, ratio", both)];
    lines::draw(&mut canvas, &across, &panels);
    canvas.note("Whiskers: 95 % interval. Ringed: neither a difference nor likeness is shown.");
    if !far.is_empty() {
        let names: Vec<&str> = far.iter().map(|line| line.label.as_str()).collect();
        canvas.note(&format!("Left out, beyond {RATIO_MAX} somewhere: {}.", names.join(", ")));
    }
    let names: Vec<&str> = group.iter().map(|workload| workload.name.as_str()).collect();
    say_missing(&mut canvas, run, Pass::Latency, &names);
    Some(canvas.finish())
}

fn line(run: &Run, group: &[&Workload], arm: &Arm, metric: &Metric) -> Line {
    let label = arm.name();
    let point = |workload: &&Workload| {
        let row = comparison(run, &workload.name, metric, &label, &run.matrix.baseline)?;
        Some(Point {
            x: workload.rate()?,
            y: row.ratio,
            bounds: Some(row.interval()),
            is_marked: true,
            is_ringed: !(row.verdict.is_difference() || row.verdict == Verdict::Alike),
        })
    };
    let mut points: Vec<Point> = group.iter().filter_map(point).collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    Line { look: look(run, &label), label, points }
}

fn is_near(line: &Line) -> bool {
    line.points.iter().all(|point| (1.0 / RATIO_MAX..=RATIO_MAX).contains(&point.y))
}
