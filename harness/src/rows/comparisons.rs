//! `comparisons.csv` and `capacity.csv`: what follows from all trials.

use serde::Serialize;

use super::verdict::Verdict;

/// The kind of a ratio's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bounds {
    /// The smallest and the largest value of a block: below six blocks.
    Range,
    /// The 95 % interval.
    Interval95,
}

/// A row of `comparisons.csv`: an arm against the baseline, or against the arm that it is over in
/// the matrix. The row of `(again)` is the baseline's check: its second reading against its first,
/// or, of more, the reading that differs most against the mean of the others.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparisonRow {
    /// The workload.
    pub workload: String,
    /// The metric that is compared: a column of `trials.csv`.
    pub metric: String,
    /// The arm.
    pub arm: String,
    /// Its backend.
    pub backend: String,
    /// The arm that it is compared with.
    pub baseline: String,
    /// The median of that arm over the blocks that count.
    pub baseline_median: f64,
    /// The arm's median over the same blocks.
    pub arm_median: f64,
    /// The ratio of the arm to the other: the Hodges–Lehmann estimate of the logarithms of the
    /// blocks' ratios. A block's ratio is over the geometric mean of all its readings of the other.
    pub ratio: f64,
    /// `range`: the smallest and the largest ratio of a block; `interval95`, from six blocks on:
    /// the 95 % interval by the signed ranks.
    pub bounds: Bounds,
    /// The lower bound.
    pub ratio_low: f64,
    /// The upper bound.
    pub ratio_high: f64,
    /// The geometric mean of the blocks' ratios.
    pub mean_ratio: f64,
    /// The lower end of its 95 % interval by Student's t on the logarithms; empty below two blocks.
    pub mean_ratio_low: Option<f64>,
    /// The upper end.
    pub mean_ratio_high: Option<f64>,
    /// The arm less the other in the metric's unit: the Hodges–Lehmann estimate over the blocks.
    pub difference: f64,
    /// The lower bound of the difference, as of the ratio.
    pub difference_low: f64,
    /// The upper bound.
    pub difference_high: f64,
    /// How many blocks count: those in which no trial of this workload was rejected, additional
    /// ones included. An arm that stood in none of three blocks or more has no figures and takes
    /// none out. In an interleaved workload: how many sets.
    pub blocks: u32,
    /// How many rounds they have, if the figure is one of turns. Ranks are those of the rounds;
    /// Student's t takes the mean of each set.
    pub rounds: Option<u32>,
    /// The standard deviation of a block's ratio, in percent.
    pub block_sd_percent: Option<f64>,
    /// The larger p-value of both tests: Student's t and the signed ranks. A check of more than two
    /// readings has it times their number.
    pub p_value: Option<f64>,
    /// The same, adjusted for all comparisons of this metric in this run (Benjamini–Hochberg).
    pub p_adjusted: Option<f64>,
    /// The margin of `alike`.
    pub margin_percent: Option<f64>,
    /// The difference that this run would have shown in 80 % of all cases, at the level that its
    /// family asks for.
    pub detectable_percent: Option<f64>,
    /// How many blocks may be left out, whichever these are, so that the verdict stays.
    pub blocks_to_spare: Option<u32>,
    /// `lower` or `higher` than the other: the adjusted p-value is at most 0.05. `alike`: both 90 %
    /// intervals lie within the margin. Else `not resolved`, or why there is no verdict.
    pub verdict: Verdict,
}

impl ComparisonRow {
    /// Returns the row of two figures of which each was read once: a ratio without an interval. The
    /// names are those of the workload, the metric, the arm, its backend and the other arm.
    pub fn of_two(names: [&str; 5], [other, arm]: [f64; 2], verdict: Verdict) -> Self {
        let [workload, metric, name, backend, baseline] = names.map(str::to_owned);
        let (ratio, difference) = (arm / other, arm - other);
        Self {
            workload,
            metric,
            arm: name,
            backend,
            baseline,
            baseline_median: other,
            arm_median: arm,
            ratio,
            bounds: Bounds::Range,
            ratio_low: ratio,
            ratio_high: ratio,
            mean_ratio: ratio,
            mean_ratio_low: None,
            mean_ratio_high: None,
            difference,
            difference_low: difference,
            difference_high: difference,
            blocks: 1,
            rounds: None,
            block_sd_percent: None,
            p_value: None,
            p_adjusted: None,
            margin_percent: None,
            detectable_percent: None,
            blocks_to_spare: None,
            verdict,
        }
    }
}

/// A row of `capacity.csv`: what an arm carried in a sweep at the latency objective.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CapacityRow {
    /// The workload that was swept.
    pub sweep: String,
    /// The arm.
    pub arm: String,
    /// The 99th percentile of latency that is to be kept.
    pub objective_p99_us: f64,
    /// The highest rate that kept it, as did every lower one: over the blocks that count, the upper
    /// end of the bounds of the geometric mean does not exceed it. Empty if the lowest rate did not
    /// keep it.
    pub kept_per_s: Option<f64>,
    /// The mean there.
    pub kept_p99_us: Option<f64>,
    /// The lower end of its bounds.
    pub kept_p99_low_us: Option<f64>,
    /// The upper end.
    pub kept_p99_high_us: Option<f64>,
    /// The next rate, which is not shown to be kept; empty if all were.
    pub missed_per_s: Option<f64>,
    /// Its mean, if the sample carries one.
    pub missed_p99_us: Option<f64>,
    /// The lower end of its bounds.
    pub missed_p99_low_us: Option<f64>,
    /// The upper end.
    pub missed_p99_high_us: Option<f64>,
    /// The kind of all bounds: the 95 % interval, or the range of the blocks if one rate has fewer
    /// than ten.
    pub bounds: Option<Bounds>,
    /// Why it does not count as kept. `the client was the limit`: the bounds reach beyond the
    /// objective, but the client was too busy to tell whose doing that is.
    pub missed_because: String,
}
