//! `comparisons.csv` and `capacity.csv`: what follows from all trials.

use serde::{Serialize, Serializer};

/// The kind of a ratio's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bounds {
    /// The smallest and the largest ratio of a block: below ten blocks.
    Range,
    /// The 95 % interval of the geometric mean, by Student's t on the logarithms of the blocks'
    /// ratios.
    Interval95,
}

/// The outcome of a comparison. The words fit every metric: of CPU and latency `lower` is better,
/// of throughput `higher`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The arm's figure is lower: the interval lies below 1, and the ratio below the noise.
    Lower,
    /// It is higher: the interval lies above 1, and the ratio above the noise.
    Higher,
    /// Neither.
    NoDifferenceShown,
    /// Fewer than ten blocks count.
    Range,
    /// The baseline's second reading is missing, so that a difference has nothing to exceed.
    NoNoise,
    /// The client's own lag in sending differs between the two, by enough to account for a tenth or
    /// more of the difference in latency.
    SendLag,
    /// One of the two had to share a CPU.
    SharedCpu,
    /// One of the two had CPUs that are hyperthreads of one core.
    SharedCore,
    /// The calls of one trial of each, which are a count.
    Counted,
    /// One walk of each; the interval of each slope stands in memory.csv.
    OneWalk,
}

impl Verdict {
    /// Returns its words in `comparisons.csv`.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Lower => "lower",
            Verdict::Higher => "higher",
            Verdict::NoDifferenceShown => "no difference shown",
            Verdict::Range => "range, no verdict",
            Verdict::SendLag => "send lag differs, no verdict",
            Verdict::NoNoise => "no noise measured, no verdict",
            Verdict::SharedCpu => "shared-cpu, no verdict",
            Verdict::SharedCore => "shared-core, no verdict",
            Verdict::Counted => "counted",
            Verdict::OneWalk => "one walk; the interval of each slope stands in memory.csv",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.words())
    }
}

/// A row of `comparisons.csv`: an arm against the baseline, or against the arm that it is over in
/// the matrix.
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
    /// Geometric mean over the blocks of arm / baseline.
    pub ratio: f64,
    /// `range`: the smallest and the largest ratio of a block; `interval95`, from ten blocks on:
    /// the 95 % interval by Student's t on the logarithms of the blocks' ratios.
    pub bounds: Bounds,
    /// The lower bound.
    pub ratio_low: f64,
    /// The upper bound.
    pub ratio_high: f64,
    /// How many blocks count: those in which no trial of this workload was rejected, additional
    /// ones included. An arm that stood in none of three blocks or more has no figures and takes
    /// none out.
    pub blocks: u32,
    /// The noise: the same lower bound of the matrix's baseline to itself, in the same blocks.
    pub noise_low: Option<f64>,
    /// The upper one.
    pub noise_high: Option<f64>,
    /// `lower` or `higher` than the baseline: the interval excludes 1, and the ratio lies beyond
    /// the noise. Else `no difference shown`, or why there is no verdict.
    pub verdict: Verdict,
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
