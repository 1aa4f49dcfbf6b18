//! Parts that several kinds of pictures share.

use crate::matrix::Workload;
use crate::report::chart::axis::Axis;
use crate::report::chart::lines::{Across, LEFT, RIGHT};
use crate::report::chart::{Canvas, Chart};
use crate::report::query::absences;
use crate::results::Run;
use crate::rows::Pass;
use crate::statistics::{Interval, median, median_interval};

/// Pictures of one kind, or why there are none.
pub type Found = Result<Vec<Chart>, String>;

/// More rows than this are a picture for each workload.
pub const MOST_ROWS: usize = 36;

/// Why there is nothing of a pass.
pub fn nothing_of(run: &Run, pass: Pass) -> String {
    let name = pass.name();
    if run.trials.iter().any(|row| row.pass == Some(pass)) {
        format!("no figures of the {name} pass may be used; the reasons stand under its gates")
    } else {
        format!("the run has no {name} pass")
    }
}

/// Returns the open loops in groups of those that differ in nothing but their rates, or why there
/// is none.
fn loops_by_rate(run: &Run) -> Result<Vec<Vec<&Workload>>, String> {
    let shape = |workload: &Workload| Workload {
        name: String::new(),
        question: String::new(),
        rate_per_s: None,
        sweep_of: None,
        ..workload.clone()
    };
    let mut groups: Vec<Vec<&Workload>> = Vec::new();
    for workload in run.matrix.workloads.iter().filter(|workload| workload.rate_per_s.is_some()) {
        match groups.iter_mut().find(|group| shape(group[0]) == shape(workload)) {
            Some(group) => group.push(workload),
            None => groups.push(vec![workload]),
        }
    }
    groups.retain(|group| group.len() > 1);
    if groups.is_empty() {
        return Err("the run has no open loop at several rates".to_owned());
    }
    Ok(groups)
}

/// Draws each of these groups, or says why there is nothing to draw.
pub fn of_loops_by_rate(run: &Run, draw: impl Fn(&Run, &[&Workload]) -> Option<Chart>) -> Found {
    let groups = loops_by_rate(run)?;
    let charts: Vec<Chart> = groups.iter().filter_map(|group| draw(run, group)).collect();
    if charts.is_empty() { Err(nothing_of(run, Pass::Latency)) } else { Ok(charts) }
}

/// Returns the name of the workload that was swept, or of the first of the group.
pub fn name_of_loops<'a>(group: &[&'a Workload]) -> &'a str {
    group[0].sweep_of.as_deref().unwrap_or(&group[0].name)
}

/// Returns the axis of the group's rates.
pub fn across_rates(group: &[&Workload]) -> Option<Across> {
    let rates = group.iter().filter_map(|workload| workload.rate());
    Some(Across {
        title: "messages per second, offered".to_owned(),
        axis: Axis::fitting(rates, LEFT + 12.0, RIGHT - 12.0)?,
        ticks: None,
        has_places: true,
    })
}

/// Says which arms are missing in these workloads, and why; of all workloads without a name.
pub fn say_missing(canvas: &mut Canvas, run: &Run, pass: Pass, workloads: &[&str]) {
    let mut missing: Vec<(Vec<String>, String)> = Vec::new();
    for absence in absences(run, pass) {
        if !workloads.is_empty() && !absence.workloads().any(|name| workloads.contains(&name)) {
            continue;
        }
        let (arm, why) = (absence.arm().to_owned(), absence.why());
        match missing.iter_mut().find(|(_, of)| *of == why) {
            Some((arms, _)) => arms.push(arm),
            None => missing.push((vec![arm], why)),
        }
    }
    for (arms, why) in missing {
        canvas.note(&format!("Missing: {} {why}.", arms.join(", ")));
    }
}

/// A median over blocks.
pub struct Median {
    pub value: f64,
    pub interval: Option<Interval>,
}

impl Median {
    /// With its 95 % interval; of values that are too few for that, their range.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        let value = median(&mut values)?;
        let range = || Interval::range(&values).filter(|_| values.len() > 1);
        Some(Self { value, interval: median_interval(&values).or_else(range) })
    }
}

/// The meaning of the whiskers of such medians.
pub const SPREAD: &str =
    "Whiskers: 95 % interval of the median over the blocks; below six blocks, their range.";
