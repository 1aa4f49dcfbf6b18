//! An arm against the baseline, over a series of workloads.

use itertools::Itertools as _;

use super::rule::{Rule, RuleKind, judged, sentence};
use super::series::Series;
use crate::report::query::{in_groups, noise, others, range, ratio};
use crate::results::Run;
use crate::rows::{ComparisonRow, Verdict};
use crate::statistics::Interval;
use crate::text::{list, percent, quoted_list, significant};
use crate::verdict::metric::{Metric, Words};
use crate::verdict::resolution::resolution_percent;

/// The least ratio that is written as a number of times.
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

    /// Returns the interval from the lowest end to the highest.
    fn bounds(&self, points: &[usize]) -> Interval {
        Interval {
            low: self.at(points).map(|row| row.ratio_low).fold(f64::INFINITY, f64::min),
            high: self.at(points).map(|row| row.ratio_high).fold(0.0, f64::max),
        }
    }

    /// Writes how far it lies from the baseline: one range, or where it changes steadily from one
    /// end of the points to the other, and for certain, that of either end.
    fn amount(&self, points: &[usize], unit: &str, write: fn(f64) -> String) -> String {
        let range = |points: &[usize]| {
            let Interval { low, high } = self.bounds(points);
            // The lesser difference first, whichever way it goes.
            let ends = if high < 1.0 { [high, low] } else { [low, high] };
            let [least, most] = ends.map(write);
            format!("{}{unit}", if least == most { least } else { format!("{least}–{most}") })
        };
        let &[first, .., last] = points else { return range(points) };
        let ratios = self.at(points).map(|row| row.ratio).collect_vec();
        let (at_first, at_last) = (self.bounds(&[first]), self.bounds(&[last]));
        let is_larger = at_first.high < at_last.low;
        let is_steady = (is_larger && ratios.is_sorted())
            || (at_first.low > at_last.high && ratios.is_sorted_by(|a, b| a >= b));
        if !is_steady {
            return range(points);
        }
        let way = if is_larger == (at_first.low > 1.0) { "rising" } else { "falling" };
        format!("{}, {way} to {},", range(&[first]), range(&[last]))
    }
}

/// Makes a rule for the arms that have the same verdicts all along a series. Those that never
/// differ have one only if `says_none`.
pub fn rules(run: &Run, series: &Series, metric: &Metric, says_none: bool) -> Vec<Rule> {
    let arms = others(run).map(|name| ArmRows {
        rows: (series.workloads.iter())
            .map(|workload| judged(run, workload, metric, &name))
            .collect(),
        name,
    });
    let is_said = |arm: &ArmRows| {
        let mut rows = arm.rows.iter().flatten();
        rows.any(|row| says_none || row.verdict != Verdict::NoDifferenceShown)
    };
    in_groups(arms.filter(is_said).map(|arm| (arm.verdicts(), arm)))
        .into_iter()
        .map(|(verdicts, arms)| rule(run, series, metric, &verdicts, &arms))
        .collect()
}

fn rule(
    run: &Run,
    series: &Series,
    metric: &Metric,
    verdicts: &[Option<Verdict>],
    arms: &[ArmRows],
) -> Rule {
    let judged = verdicts.iter().enumerate().filter_map(|(at, verdict)| Some(((*verdict)?, at)));
    let all = judged.clone().map(|(_, at)| at).collect_vec();
    let by_verdict = in_groups(judged);
    let clauses = by_verdict.iter().enumerate().map(|(index, (verdict, points))| {
        let baseline = &run.matrix.baseline;
        let clause = Clause { metric, arms, points, baseline, is_first: index == 0 };
        // A verdict that holds at all points is said of the shape.
        let place = if by_verdict.len() > 1 { series.place(points) } else { String::new() };
        match verdict {
            Verdict::NoDifferenceShown => clause.none(&place),
            _ => clause.difference(*verdict == Verdict::Lower) + &place,
        }
    });
    Rule {
        subject: series.shape(&all),
        statement: sentence(&clauses.collect_vec().join("; ")),
        evidence: evidence(run, series, metric, arms, &all),
        covers: arms.len() * all.len(),
        kind: RuleKind::Other,
    }
}

/// One verdict on the arms, at the points of the series that have it. Only the first clause of a
/// sentence names the metric.
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
        let widest = percent(rows.filter_map(resolution_percent).fold(0.0, f64::max));
        let said = if self.is_first {
            format!(
                "no difference in {} to `{}` is shown for {}",
                self.metric.words.noun,
                self.baseline,
                quoted_list(self.arms.iter().map(|arm| arm.name.as_str()))
            )
        } else {
            "no difference is shown".to_owned()
        };
        format!("{said}{place} (one beyond {widest} % would have been shown)")
    }

    fn difference(&self, is_less: bool) -> String {
        let Words { noun, less, .. } = &self.metric.words;
        let (times, shares): (Vec<&ArmRows>, Vec<&ArmRows>) = (self.arms.iter())
            .sorted_by(|a, b| a.bounds(self.points).low.total_cmp(&b.bounds(self.points).low))
            .partition(|arm| arm.bounds(self.points).high >= TIMES);
        let mut parts = Vec::new();
        if !shares.is_empty() {
            let amounts = self.amounts(&shares, " %", |ratio| percent(100.0 * (ratio - 1.0).abs()));
            let more = if is_less { *less } else { "more" };
            let than = format!(" {noun} than `{}`", self.baseline);
            parts.push(format!("{amounts} {more}{}", if self.is_first { &than } else { "" }));
        }
        if !times.is_empty() {
            let amounts = self.amounts(&times, " times", significant);
            parts.push(if self.is_first {
                format!("{amounts} the {noun} of `{}`", self.baseline)
            } else {
                format!("{amounts} as much")
            });
        }
        parts.join(", and ")
    }

    fn amounts(&self, arms: &[&ArmRows], unit: &str, write: fn(f64) -> String) -> String {
        let amounts = arms.iter().enumerate().map(|(index, arm)| {
            let amount = arm.amount(self.points, unit, write);
            let verb = if index == 0 { self.metric.words.verb } else { "" };
            let gap = if index == 0 { " " } else { "" };
            format!("`{}`{gap}{verb} {amount}", arm.name)
        });
        list(&amounts.collect_vec())
    }
}

/// Returns the ratios with their intervals, workload by workload.
fn evidence(
    run: &Run,
    series: &Series,
    metric: &Metric,
    arms: &[ArmRows],
    points: &[usize],
) -> String {
    let mut by_point = points.iter().map(|&at| {
        let rows = (arms.iter())
            .filter_map(|arm| arm.rows[at])
            .sorted_by(|a, b| a.ratio.total_cmp(&b.ratio))
            .collect_vec();
        let ratios = rows.iter().map(|row| {
            let [arm, baseline] = [row.arm_median, row.baseline_median].map(significant);
            format!("`{}` {}, {arm} against {baseline} {}", row.arm, ratio(row), metric.words.unit)
        });
        let place = match series.place(&[at]) {
            place if place.is_empty() => String::new(),
            place => format!("{}: ", place.trim_start()),
        };
        let noise = noise(run, &series.workloads[at].name, metric)
            .map_or_else(String::new, |noise| format!("; noise {}", range(&noise)));
        let blocks = rows.first().map_or(0, |row| row.blocks);
        format!("{place}{}{noise}; {blocks} blocks", ratios.collect_vec().join("; "))
    });
    format!("Ratio with 95 % interval, medians: {}.", by_point.join(" | "))
}
