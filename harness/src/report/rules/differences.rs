//! What an arm takes against the baseline, over a series of workloads.

use super::rule::{Kind, Rule, judged, sentence};
use super::series::Series;
use crate::report::query::{noise, others, ratio};
use crate::results::Run;
use crate::rows::{ComparisonRow, Verdict};
use crate::statistics::Interval;
use crate::text::{list, names, number, percent};
use crate::verdict::metric::{Metric, Words};
use crate::verdict::resolution::resolution_percent;

/// From this ratio on people say how many times.
const TIMES: f64 = 2.0;

/// An arm with what was shown of it at each workload of a series, where there is a verdict.
struct ArmRows<'a> {
    name: String,
    rows: Vec<Option<&'a ComparisonRow>>,
}

impl ArmRows<'_> {
    fn verdicts(&self) -> Vec<Option<Verdict>> {
        self.rows.iter().map(|row| row.map(|row| row.verdict)).collect()
    }

    fn at<'a>(&'a self, points: &'a [usize]) -> impl Iterator<Item = &'a ComparisonRow> + 'a {
        points.iter().filter_map(|&at| self.rows[at])
    }

    /// From the lowest end of an interval to the highest.
    fn bounds(&self, points: &[usize]) -> (f64, f64) {
        let low = self.at(points).map(|row| row.ratio_low).fold(f64::INFINITY, f64::min);
        (low, self.at(points).map(|row| row.ratio_high).fold(0.0, f64::max))
    }

    /// How far it lies from the baseline: one range, or where it changes steadily from one end of
    /// the points to the other, and for certain, that of either end.
    fn amount(&self, points: &[usize], unit: &str, write: &dyn Fn(f64) -> String) -> String {
        let range = |points: &[usize]| {
            let (low, high) = self.bounds(points);
            // The lesser difference first, whichever way it goes.
            let (least, most) =
                if high < 1.0 { (write(high), write(low)) } else { (write(low), write(high)) };
            format!("{}{unit}", if least == most { least } else { format!("{least}–{most}") })
        };
        let ratios: Vec<f64> = self.at(points).map(|row| row.ratio).collect();
        let &[first, .., last] = points else { return range(points) };
        let ((low, high), (last_low, last_high)) = (self.bounds(&[first]), self.bounds(&[last]));
        let steadily = (high < last_low && ratios.is_sorted())
            || (low > last_high && ratios.is_sorted_by(|a, b| a >= b));
        if !steadily {
            return range(points);
        }
        let rises = (high < last_low) == (low > 1.0);
        format!(
            "{}, {} to {},",
            range(&[first]),
            if rises { "rising" } else { "falling" },
            range(&[last])
        )
    }
}

/// A rule for the arms that have the same verdicts all along a series. Those that never differ have
/// one only if `says_none`.
pub fn rules(run: &Run, series: &Series, metric: &Metric, says_none: bool) -> Vec<Rule> {
    let mut groups: Vec<Vec<ArmRows>> = Vec::new();
    for name in others(run) {
        let judge = |workload| judged(run, workload, metric, &name);
        let arm = ArmRows {
            rows: series.workloads.iter().map(|workload| judge(workload)).collect(),
            name,
        };
        let is_shown =
            |row: &&ComparisonRow| says_none || row.verdict != Verdict::NoDifferenceShown;
        if !arm.rows.iter().flatten().any(is_shown) {
            continue;
        }
        match groups.iter_mut().find(|group| group[0].verdicts() == arm.verdicts()) {
            Some(group) => group.push(arm),
            None => groups.push(vec![arm]),
        }
    }
    groups.iter().map(|arms| rule(run, series, metric, arms)).collect()
}

fn rule(run: &Run, series: &Series, metric: &Metric, arms: &[ArmRows]) -> Rule {
    let verdicts = arms[0].verdicts();
    let points_of = |is_wanted: &dyn Fn(Verdict) -> bool| -> Vec<usize> {
        let of = |at: &usize| verdicts[*at].is_some_and(is_wanted);
        (0..verdicts.len()).filter(of).collect()
    };
    let mut said: Vec<Verdict> = Vec::new();
    for verdict in verdicts.iter().flatten() {
        if !said.contains(verdict) {
            said.push(*verdict);
        }
    }
    let baseline = &run.matrix.baseline;
    let clauses: Vec<String> = said
        .iter()
        .enumerate()
        .map(|(index, &verdict)| {
            let points = points_of(&|of| of == verdict);
            let clause = Clause { metric, arms, points: &points, baseline, is_first: index == 0 };
            // What holds all along is said of the shape.
            let place = if said.len() > 1 { series.place(&points) } else { String::new() };
            match verdict {
                Verdict::NoDifferenceShown => clause.none(&place),
                _ => clause.difference(verdict == Verdict::Lower) + &place,
            }
        })
        .collect();
    let all = points_of(&|_| true);
    Rule {
        subject: series.shape(&all),
        statement: sentence(&clauses.join("; ")),
        evidence: evidence(run, series, metric, arms, &all),
        covers: arms.len() * all.len(),
        kind: Kind::Other,
    }
}

/// What one verdict says of the arms, at the points of the series that have it. The first clause of
/// a sentence says of what.
struct Clause<'a> {
    metric: &'a Metric,
    arms: &'a [ArmRows<'a>],
    points: &'a [usize],
    baseline: &'a str,
    is_first: bool,
}

impl Clause<'_> {
    fn none(&self, place: &str) -> String {
        let rows = self.arms.iter().flat_map(|arm| arm.at(self.points));
        let widest = rows.filter_map(resolution_percent).fold(0.0, f64::max);
        let of_what = match self.is_first {
            true => {
                let arms = names(self.arms.iter().map(|arm| arm.name.as_str()));
                format!(
                    "no difference in {} to `{}` is shown for {arms}",
                    self.metric.words.noun, self.baseline
                )
            }
            false => "no difference is shown".to_owned(),
        };
        format!("{of_what}{place} (one beyond {} % would have been shown)", percent(widest))
    }

    fn difference(&self, is_less: bool) -> String {
        let Words { noun, verb, less, .. } = &self.metric.words;
        let mut arms: Vec<&ArmRows> = self.arms.iter().collect();
        arms.sort_by(|a, b| a.bounds(self.points).0.total_cmp(&b.bounds(self.points).0));
        let is_times = |arm: &&ArmRows| arm.bounds(self.points).1 >= TIMES;
        let (times, shares): (Vec<&ArmRows>, Vec<&ArmRows>) = arms.into_iter().partition(is_times);
        let amounts = |arms: &[&ArmRows], unit: &str, write: &dyn Fn(f64) -> String| {
            let amounts = arms.iter().enumerate().map(|(index, arm)| {
                let verb = if index == 0 { format!(" {verb}") } else { String::new() };
                format!("`{}`{verb} {}", arm.name, arm.amount(self.points, unit, write))
            });
            list(&amounts.collect::<Vec<_>>())
        };
        let more = if is_less { *less } else { "more" };
        let mut parts = Vec::new();
        if !shares.is_empty() {
            let share = |ratio: f64| percent(100.0 * (ratio - 1.0).abs());
            let than = if self.is_first {
                format!(" {noun} than `{}`", self.baseline)
            } else {
                String::new()
            };
            parts.push(format!("{} {more}{than}", amounts(&shares, " %", &share)));
        }
        if !times.is_empty() {
            let of = match self.is_first {
                true => format!("the {noun} of `{}`", self.baseline),
                false => "as much".to_owned(),
            };
            parts.push(format!("{} {of}", amounts(&times, " times", &number)));
        }
        parts.join(", and ")
    }
}

/// The ratios with their intervals, workload by workload.
fn evidence(
    run: &Run,
    series: &Series,
    metric: &Metric,
    arms: &[ArmRows],
    points: &[usize],
) -> String {
    let of_point = |&at: &usize| {
        let mut rows: Vec<_> = arms.iter().filter_map(|arm| arm.rows[at]).collect();
        rows.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
        let ratios: Vec<String> = rows
            .iter()
            .map(|row| {
                let medians =
                    format!("{} against {}", number(row.arm_median), number(row.baseline_median));
                format!("`{}` {}, {medians} {}", row.arm, ratio(row), metric.words.unit)
            })
            .collect();
        let place = match series.place(&[at]) {
            place if place.is_empty() => String::new(),
            place => format!("{}: ", place.trim_start()),
        };
        let blocks = rows.first().map_or(0, |row| row.blocks);
        let noise = noise(run, &series.workloads[at].name, metric)
            .map_or_else(String::new, |Interval { low, high }| {
                format!("; noise {low:.2}–{high:.2}")
            });
        format!("{place}{}{noise}; {blocks} blocks", ratios.join("; "))
    };
    format!(
        "Ratio with 95 % interval, medians: {}.",
        points.iter().map(of_point).collect::<Vec<_>>().join(" | ")
    )
}
