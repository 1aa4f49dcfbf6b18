//! The verdicts of all comparisons of one metric in one run.

use super::contrast::{Contrast, is_alike, p_value};
use crate::matrix::BLOCKS_FOR_VERDICT;
use crate::rows::{Bounds, ComparisonRow, Verdict};
use crate::statistics::{Differences, Interval, adjusted, threshold};

/// The share of shown differences that may be none (the false discovery rate of a family).
const LEVEL: f64 = 0.05;

/// A baseline whose readings differ with a smaller chance than this has failed its check. One of a
/// hundred workloads fails without a cause.
const CHECK_LEVEL: f64 = 0.01;

/// A comparison without its verdict.
pub struct Comparison {
    /// The two arms in their blocks.
    pub contrast: Contrast,
    /// The row, whose verdict is still to come.
    pub row: ComparisonRow,
    /// Why there is none, whatever the blocks say.
    pub withheld: Option<Verdict>,
}

/// Judges the comparisons of a metric, which are one family.
pub fn judge(compared: Vec<Comparison>, margin_percent: f64) -> Vec<ComparisonRow> {
    let is_tested =
        |one: &Comparison| one.withheld.is_none() && one.contrast.blocks() >= BLOCKS_FOR_VERDICT;
    let tested: Vec<f64> =
        compared.iter().filter(|one| is_tested(one)).filter_map(|one| one.row.p_value).collect();
    let family = Family { threshold: threshold(&tested, LEVEL), margin_percent };
    let mut adjusted = adjusted(&tested).into_iter();
    let judged = compared.into_iter().map(|one| {
        let p_adjusted = if is_tested(&one) { adjusted.next() } else { None };
        family.judge(one, p_adjusted)
    });
    judged.collect()
}

/// The facts that the comparisons of a family share.
struct Family {
    /// The largest p-value that is shown.
    threshold: f64,
    margin_percent: f64,
}

impl Family {
    fn judge(&self, one: Comparison, p_adjusted: Option<f64>) -> ComparisonRow {
        let Comparison { contrast, mut row, withheld } = one;
        if let Some(withheld) = withheld {
            row.verdict = withheld;
            return row;
        }
        if p_adjusted.is_none() {
            return row;
        }
        let logs = &contrast.logs;
        row.p_adjusted = p_adjusted;
        row.margin_percent = Some(self.margin_percent);
        let detectable = logs.detectable(self.threshold).map(f64::exp_m1);
        row.detectable_percent = detectable.map(|factor| 100.0 * factor);
        row.verdict = self.verdict(logs);
        let spare = logs.spare(|rest| self.verdict(rest) == row.verdict);
        row.blocks_to_spare = (row.verdict != Verdict::NotResolved).then_some(spare as u32);
        row
    }

    /// Returns what ratios show. The rest of a family is taken as it is.
    fn verdict(&self, logs: &Differences) -> Verdict {
        if p_value(logs).is_some_and(|p_value| p_value <= self.threshold) {
            return if logs.hodges_lehmann() < 0.0 { Verdict::Lower } else { Verdict::Higher };
        }
        if is_alike(logs, (self.margin_percent / 100.0).ln_1p()) {
            return Verdict::Alike;
        }
        Verdict::NotResolved
    }
}

/// Returns the verdict on the baseline's readings against each other.
pub fn check(contrast: &Contrast) -> Verdict {
    match contrast.p_value() {
        _ if contrast.blocks() < BLOCKS_FOR_VERDICT => Verdict::FewBlocks,
        Some(p_value) if p_value >= CHECK_LEVEL => Verdict::CheckPassed,
        _ => Verdict::CheckFailed,
    }
}

impl ComparisonRow {
    /// Returns the row of a contrast, without its verdict.
    pub fn of(contrast: &Contrast, names: Names<'_>) -> Self {
        let Contrast { logs, amounts, medians } = contrast;
        let blocks = logs.count();
        let is_interval = blocks >= BLOCKS_FOR_VERDICT;
        let bounds = |values: &Differences| {
            let interval = values.rank_interval(0.95).filter(|_| is_interval);
            interval.unwrap_or_else(|| values.range())
        };
        let (ratio, amount) = (bounds(logs), bounds(amounts));
        let mean = logs.t_interval(0.95);
        Self {
            workload: names.workload.to_owned(),
            metric: names.metric.to_owned(),
            arm: names.arm.to_owned(),
            backend: names.backend.to_owned(),
            baseline: names.baseline.to_owned(),
            baseline_median: medians[0],
            arm_median: medians[1],
            ratio: logs.hodges_lehmann().exp(),
            bounds: if is_interval { Bounds::Interval95 } else { Bounds::Range },
            ratio_low: ratio.low.exp(),
            ratio_high: ratio.high.exp(),
            mean_ratio: logs.mean().exp(),
            mean_ratio_low: mean.map(|interval| interval.low.exp()),
            mean_ratio_high: mean.map(|interval| interval.high.exp()),
            difference: amounts.hodges_lehmann(),
            difference_low: amount.low,
            difference_high: amount.high,
            blocks: blocks as u32,
            block_sd_percent: contrast.block_sd().map(|sd| 100.0 * sd),
            p_value: contrast.p_value(),
            p_adjusted: None,
            margin_percent: None,
            detectable_percent: None,
            blocks_to_spare: None,
            verdict: Verdict::FewBlocks,
        }
    }

    /// Returns the interval of the ratio.
    pub fn interval(&self) -> Interval {
        Interval { low: self.ratio_low, high: self.ratio_high }
    }
}

/// The names in a comparison.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// The workload.
    pub workload: &'a str,
    /// The metric.
    pub metric: &'a str,
    /// The arm.
    pub arm: &'a str,
    /// Its backend.
    pub backend: &'a str,
    /// The arm that it is compared with.
    pub baseline: &'a str,
}
