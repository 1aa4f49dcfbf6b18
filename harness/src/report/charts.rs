//! What is drawn of a run. A picture that a run has nothing for is not drawn, and the page says
//! why.

mod connections;
mod counts;
mod cpu;
mod latency;

use std::path::Path;

use super::chart::{Canvas, Chart};
use super::query::absences;
use crate::results::Run;
use crate::rows::Pass;
use crate::statistics::{Interval, median, median_interval};

/// The pictures of a run.
pub struct Gallery {
    pub charts: Vec<Chart>,
    /// What is not drawn, and why.
    pub absent: Vec<(&'static str, String)>,
}

/// Pictures of one kind, or why there are none.
type Found = Result<Vec<Chart>, String>;

/// Draws everything that the run has figures for.
pub fn all(run: &Run, folder: &Path) -> Gallery {
    let kinds: [(&str, Found); 9] = [
        ("Latency against the offered rate", latency::by_rate(run)),
        ("CPU per echo against the baseline", cpu::ratios(run, &cpu::CPU)),
        ("99th percentile against the baseline", cpu::ratios(run, &cpu::P99)),
        ("CPU per echo", cpu::absolute(run)),
        ("Latency by percentile", latency::by_percentile(run, folder)),
        ("System calls per echo", counts::syscalls(run)),
        ("Memory per connection", counts::memory(run)),
        ("Cost against the number of connections", connections::costs(run)),
        ("Opening rate", connections::opening(run)),
    ];
    let mut gallery = Gallery { charts: Vec::new(), absent: Vec::new() };
    for (kind, found) in kinds {
        match found {
            Ok(charts) => gallery.charts.extend(charts),
            Err(why) => gallery.absent.push((kind, why)),
        }
    }
    gallery
}

/// More rows than this are a picture for each workload.
const MOST_ROWS: usize = 36;

/// Why there is nothing of a pass.
fn nothing_of(run: &Run, pass: Pass) -> String {
    let name = pass.name();
    match run.trials.iter().any(|row| row.pass == Some(pass)) {
        true => {
            format!("no figures of the {name} pass may be used; the reasons stand under its gates")
        }
        false => format!("the run has no {name} pass"),
    }
}

/// Says which arms are missing in these workloads, and why; of all workloads without a name.
fn say_missing(canvas: &mut Canvas, run: &Run, pass: Pass, workloads: &[&str]) {
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
struct Median {
    value: f64,
    interval: Option<Interval>,
}

impl Median {
    /// With its 95 % interval; of values that are too few for that, their range.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        let value = median(&mut values)?;
        let range = || Interval::range(&values).filter(|_| values.len() > 1);
        Some(Self { value, interval: median_interval(&values).or_else(range) })
    }
}

/// What the whiskers of such medians are.
const SPREAD: &str =
    "Whiskers: 95 % interval of the median over the blocks; below six blocks, their range.";
