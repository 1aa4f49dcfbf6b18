//! Judges the arms of a run by a bound: no arm may be worse than the baseline by more.

use anyhow::Result;
use itertools::{Itertools as _, iproduct};

use super::query::{arms, comparison};
use crate::results::Run;
use crate::rows::{ComparisonRow, Pass, Verdict};
use crate::statistics::Interval;
use crate::status::ExitStatus;
use crate::text::significant;
use crate::verdict::metric::{self, Metric};
use crate::verdict::readings;

/// The side of a bound on which a comparison stands.
enum Standing {
    /// The whole interval is within.
    Within,
    /// The whole interval is beyond.
    Beyond,
    /// Neither is shown, for this reason.
    Open(String),
}

/// Says that no arm is worse than the baseline by more than this.
///
/// # Errors
/// [`ExitStatus::Slower`] where one is; [`ExitStatus::NotComparable`] where none is shown to be,
/// and not all are shown not to be.
pub fn judge(run: &Run, metrics: &[&Metric], most_percent: f64) -> Result<String> {
    let baseline = &run.matrix.baseline;
    let is_other = |arm: &String| readings::number(arm, baseline).is_none();
    let others = arms(run).into_iter().filter(is_other).collect_vec();
    let (mut within, mut beyond) = (0, Vec::new());
    // A part is not judged as the whole.
    let mut open: Vec<String> = run.state.caveat().map(str::to_owned).into_iter().collect();
    open.extend(run.gap().map(|gap| format!("the run is not whole: {gap}")));
    let places = metrics.iter().flat_map(|metric| {
        iproduct!(workloads(run, metric), &others).map(move |(name, arm)| (metric, name, arm))
    });
    for (metric, name, arm) in places {
        let what = format!("{} of `{arm}` in {name}", metric.name);
        let Some(row) = comparison(run, name, metric, arm, baseline) else {
            open.push(format!("{what}: no figures"));
            continue;
        };
        match standing(&run.comparisons, row, metric, most_percent) {
            Standing::Within => within += 1,
            Standing::Beyond => {
                beyond.push(format!("{what}: {} times `{baseline}`", significant(row.ratio)));
            }
            Standing::Open(why) => open.push(format!("{what}: {why}")),
        }
    }
    let rest =
        if open.is_empty() { String::new() } else { format!("; not judged: {}", open.join("; ")) };
    if !beyond.is_empty() {
        return Err(ExitStatus::Slower.error(format!(
            "worse than `{baseline}` by more than {most_percent} %: {}{rest}",
            beyond.join("; ")
        )));
    }
    if within == 0 || !open.is_empty() {
        return Err(ExitStatus::NotComparable.error(format!(
            "nothing is shown to be worse than `{baseline}` by more than {most_percent} %, and not \
             all is shown not to be{rest}"
        )));
    }
    Ok(format!(
        "No arm is worse than `{baseline}` by more than {most_percent} %, in {within} of {within} \
         figures\n"
    ))
}

/// Returns the workloads that a metric is asked of: those of the matrix, or the walks and kernels
/// that have it.
fn workloads<'a>(run: &'a Run, metric: &Metric) -> Vec<&'a str> {
    match metric.pass() {
        Pass::Latency | Pass::Syscalls => {
            run.matrix.workloads.iter().map(|workload| workload.name.as_str()).collect()
        }
        _ => {
            let rows = run.comparisons.iter().filter(|row| row.metric == metric.name);
            rows.map(|row| row.workload.as_str()).unique().collect()
        }
    }
}

fn standing(
    all: &[ComparisonRow],
    row: &ComparisonRow,
    metric: &Metric,
    most_percent: f64,
) -> Standing {
    if !row.verdict.is_judged() {
        return Standing::Open(row.verdict.words().to_owned());
    }
    let disagree = all.iter().any(|check| {
        check.workload == row.workload
            && check.metric == row.metric
            && check.verdict == Verdict::CheckFailed
    });
    if disagree {
        return Standing::Open("the baseline's own readings disagree".to_owned());
    }
    let ratio = Interval { low: row.ratio_low, high: row.ratio_high };
    of_cost(metric::cost(metric.better, ratio), most_percent)
}

/// Holds the interval of what something costs over the baseline against the bound.
fn of_cost(cost: Interval, most_percent: f64) -> Standing {
    let most = 1.0 + most_percent / 100.0;
    if cost.low > most {
        Standing::Beyond
    } else if cost.high <= most {
        Standing::Within
    } else {
        let percent = |bound: f64| significant(100.0 * (bound - 1.0));
        Standing::Open(format!("between {} and {} % worse", percent(cost.low), percent(cost.high)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_interval_decides() {
        for (low, high, expected) in
            [(0.9, 1.1, "within"), (1.05, 1.2, "open"), (0.9, 1.11, "open"), (1.11, 1.2, "beyond")]
        {
            let standing = match of_cost(Interval { low, high }, 10.0) {
                Standing::Within => "within",
                Standing::Beyond => "beyond",
                Standing::Open(why) => {
                    assert!(why.ends_with(" % worse"), "{why}");
                    "open"
                }
            };
            assert_eq!(standing, expected, "{low} {high}");
        }
    }
}
