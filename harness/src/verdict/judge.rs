//! The verdicts of all comparisons of one metric in one run.

use super::contrast::{Contrast, is_alike, p_value};
use crate::matrix::BLOCKS_FOR_VERDICT;
use crate::rows::{Bounds, ComparisonRow, Verdict};
use crate::statistics::{Differences, Interval, adjusted, threshold};

/// The share of shown differences that may be none (the false discovery rate of a family).
const LEVEL: f64 = 0.05;

/// A baseline whose readings differ with a smaller chance than this has failed its check. One of a
/// hundred runs has a figure of which some check fails without a cause.
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

impl Comparison {
    /// Returns whether its blocks may have a verdict.
    fn is_tested(&self) -> bool {
        self.withheld.is_none() && self.contrast.blocks() >= BLOCKS_FOR_VERDICT
    }
}

/// Returns the p-values of those that may have a verdict.
fn tested(family: &[Comparison]) -> Vec<f64> {
    family.iter().filter(|one| one.is_tested()).filter_map(|one| one.row.p_value).collect()
}

/// Judges the comparisons of a metric, which are one family.
pub fn judge(compared: Vec<Comparison>, margin_percent: f64) -> Vec<ComparisonRow> {
    let tested = tested(&compared);
    let family = Family { threshold: threshold(&tested, LEVEL), margin_percent };
    let mut adjusted = adjusted(&tested).into_iter();
    let judged = compared.into_iter().map(|one| {
        let p_adjusted = if one.is_tested() { adjusted.next() } else { None };
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
        let Contrast { logs, means, .. } = &contrast;
        row.p_adjusted = p_adjusted;
        row.margin_percent = Some(self.margin_percent);
        let detectable = means.detectable(self.threshold).map(f64::exp_m1);
        row.detectable_percent = detectable.map(|factor| 100.0 * factor);
        row.verdict = self.verdict(means, logs);
        let spare = means.spare(|rest| self.verdict(rest, rest) == row.verdict);
        row.blocks_to_spare = (row.verdict != Verdict::NotResolved).then_some(spare as u32);
        row
    }

    /// Returns what ratios show. The rest of a family is taken as it is.
    fn verdict(&self, means: &Differences, logs: &Differences) -> Verdict {
        if p_value(means, logs).is_some_and(|p_value| p_value <= self.threshold) {
            return if logs.hodges_lehmann() < 0.0 { Verdict::Lower } else { Verdict::Higher };
        }
        if is_alike(means, logs, (self.margin_percent / 100.0).ln_1p()) {
            return Verdict::Alike;
        }
        Verdict::NotResolved
    }
}

/// Judges the baseline's readings against each other, all workloads of a metric together.
pub fn judge_checks(checks: Vec<Comparison>) -> Vec<ComparisonRow> {
    let mut adjusted = adjusted(&tested(&checks)).into_iter();
    let judged = checks.into_iter().map(|one| {
        let is_tested = one.is_tested();
        let Comparison { mut row, withheld, .. } = one;
        row.verdict = withheld.unwrap_or(row.verdict);
        if is_tested {
            row.p_adjusted = row.p_value.and_then(|_| adjusted.next());
            let is_passed = row.p_adjusted.is_some_and(|p_value| p_value >= CHECK_LEVEL);
            row.verdict = if is_passed { Verdict::CheckPassed } else { Verdict::CheckFailed };
        }
        row
    });
    judged.collect()
}

impl ComparisonRow {
    /// Returns the row of a contrast, without its verdict.
    pub fn of(contrast: &Contrast, names: Names<'_>) -> Self {
        let Contrast { logs, means, amounts, medians, .. } = contrast;
        let blocks = contrast.blocks();
        let is_interval = blocks >= BLOCKS_FOR_VERDICT;
        let bounds = |values: &Differences| {
            let interval = values.rank_interval(0.95).filter(|_| is_interval);
            interval.unwrap_or_else(|| values.range())
        };
        let (ratio, amount) = (bounds(logs), bounds(amounts));
        let mean = means.t_interval(0.95);
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
            mean_ratio: means.mean().exp(),
            mean_ratio_low: mean.map(|interval| interval.low.exp()),
            mean_ratio_high: mean.map(|interval| interval.high.exp()),
            difference: amounts.hodges_lehmann(),
            difference_low: amount.low,
            difference_high: amount.high,
            blocks: blocks as u32,
            rounds: (logs.count() > blocks).then_some(logs.count() as u32),
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

#[cfg(test)]
mod tests {
    use super::super::contrast::BlockValues;
    use super::*;

    /// Two arms of which one is so many times the other in each block.
    fn comparison(ratios: &[f64]) -> Comparison {
        let blocks: Vec<BlockValues<'_>> = (ratios.iter().zip(1..))
            .map(|(ratio, set)| BlockValues {
                set,
                values: [("a", 100.0 * ratio), ("b", 100.0)].into(),
            })
            .collect();
        let contrast = Contrast::of(&blocks, "a", "b").expect("blocks");
        let names = Names { workload: "w", metric: "m", arm: "a", backend: "a", baseline: "b" };
        Comparison { row: ComparisonRow::of(&contrast, names), contrast, withheld: None }
    }

    const SIX: [f64; 6] = [1.05, 1.06, 1.07, 1.08, 1.09, 1.1];
    const NONE: [f64; 6] = [0.9, 0.95, 0.99, 1.02, 1.06, 1.1];

    fn verdicts(all: Vec<Comparison>) -> Vec<Verdict> {
        judge(all, 3.0).into_iter().map(|row| row.verdict).collect()
    }

    #[test]
    fn what_one_comparison_shows_many_may_not() {
        // Six of six: the signed ranks give 0.03.
        assert_eq!(verdicts(vec![comparison(&SIX)]), [Verdict::Higher]);
        let with_others = (0..9).map(|_| comparison(&NONE)).chain([comparison(&SIX)]);
        let found = judge(with_others.collect(), 3.0);
        assert!(found.iter().all(|row| row.verdict == Verdict::NotResolved), "{found:?}");
        let adjusted = found[9].p_adjusted.expect("tested");
        assert!((adjusted - 0.3125).abs() < 1e-9, "{adjusted}");
        // As many that differ hold each other up.
        let alike = (0..10).map(|_| comparison(&SIX)).collect();
        assert_eq!(verdicts(alike), [Verdict::Higher; 10]);
    }

    #[test]
    fn alike_takes_both_intervals_within_the_margin() {
        let near = [0.99, 0.995, 1.0, 1.002, 1.005, 1.01, 0.998, 1.001];
        assert_eq!(verdicts(vec![comparison(&near)]), [Verdict::Alike]);
        let wide = near.map(|ratio: f64| ratio.powi(8));
        assert_eq!(verdicts(vec![comparison(&wide)]), [Verdict::NotResolved]);
        let judged = judge(vec![comparison(&wide)], 3.0);
        assert!(judged[0].detectable_percent.expect("judged") > 3.0, "{judged:?}");
    }

    #[test]
    fn what_is_withheld_is_no_part_of_the_family() {
        let mut withheld = comparison(&NONE);
        withheld.withheld = Some(Verdict::SharedCpu);
        let few = comparison(&NONE[..5]);
        let found = judge(vec![withheld, few, comparison(&SIX)], 3.0);
        assert_eq!(
            found.iter().map(|row| row.verdict).collect::<Vec<_>>(),
            [Verdict::SharedCpu, Verdict::FewBlocks, Verdict::Higher]
        );
        assert_eq!((found[0].p_adjusted, found[1].p_adjusted), (None, None));
    }
}
