//! Two arms under a workload by one metric: their ratio and their difference in each block.

use std::collections::BTreeMap;

use super::readings;
use crate::statistics::{Differences, Interval, median};

/// The values of a block.
#[derive(Clone, Debug, Default)]
pub struct BlockValues<'a> {
    /// The set of processes that it is of. Blocks of fresh trials are each of their own.
    pub set: u32,
    /// The values by role, all of them above zero.
    pub values: BTreeMap<&'a str, f64>,
}

/// Two arms within blocks.
pub struct Contrast {
    /// The logarithms of the ratios, of the geometric means of all readings of each.
    pub logs: Differences,
    /// Their means over the blocks of each set: processes that happen to be fast count once.
    pub means: Differences,
    /// The arm less that mean.
    pub amounts: Differences,
    /// The medians of the other and of the arm over the blocks.
    pub medians: [f64; 2],
}

impl Contrast {
    /// Returns an arm against another; none if no block has both.
    pub fn of(blocks: &[BlockValues<'_>], arm: &str, other: &str) -> Option<Self> {
        let pair = |block: &BlockValues<'_>| {
            Some((block.set, mean_log(block, other)?, mean_log(block, arm)?.exp()))
        };
        let pairs = blocks.iter().filter_map(pair);
        Self::of_pairs(pairs.collect())
    }

    /// Returns the second half of the baseline's readings against the first.
    pub fn of_readings(blocks: &[BlockValues<'_>], baseline: &str) -> Option<Self> {
        let pair = |block: &BlockValues<'_>| {
            let mut logs: Vec<(usize, f64)> = block
                .values
                .iter()
                .filter_map(|(role, value)| Some((readings::number(role, baseline)?, value.ln())))
                .collect();
            logs.sort_unstable_by_key(|(number, _)| *number);
            let logs: Vec<f64> = logs.into_iter().map(|(_, log)| log).collect();
            let (first, second) = logs.split_at(logs.len() / 2);
            Some((block.set, mean(first)?, mean(second)?.exp()))
        };
        Self::of_pairs(blocks.iter().filter_map(pair).collect())
    }

    /// Takes the set, the logarithm of what is compared with, and the arm's value, of each block.
    fn of_pairs(pairs: Vec<(u32, f64, f64)>) -> Option<Self> {
        let log = |(_, other, arm): &(u32, f64, f64)| arm.ln() - other;
        let mut sets: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for pair in &pairs {
            sets.entry(pair.0).or_default().push(log(pair));
        }
        let others = pairs.iter().map(|(_, other, _)| other.exp());
        Some(Self {
            logs: Differences::of(pairs.iter().map(log))?,
            means: Differences::of(sets.values().filter_map(|logs| mean(logs)))?,
            amounts: Differences::of(pairs.iter().map(|(_, other, arm)| arm - other.exp()))?,
            medians: [
                median(&mut others.collect::<Vec<_>>())?,
                median(&mut pairs.iter().map(|(_, _, arm)| *arm).collect::<Vec<_>>())?,
            ],
        })
    }

    /// Returns how many blocks have both; of an interleaved workload, how many sets.
    pub fn blocks(&self) -> usize {
        self.means.count()
    }

    /// Returns the larger p-value of both tests that the ratio is 1; none of one block.
    pub fn p_value(&self) -> Option<f64> {
        p_value(&self.means, &self.logs)
    }

    /// Returns the standard deviation of a block's ratio, as a factor less 1.
    pub fn block_sd(&self) -> Option<f64> {
        Some(self.logs.deviation()?.exp_m1())
    }

    /// Returns how far the ends of the wider interval lie from its middle, as a factor less 1.
    pub fn half_width(&self) -> Option<f64> {
        let intervals = [self.means.t_interval(0.95)?, self.logs.rank_interval(0.95)?];
        let widest = intervals.iter().map(Interval::width).fold(0.0, f64::max);
        Some((widest / 2.0).exp_m1())
    }
}

/// Returns the ratio of an arm to the geometric mean of all readings of another in a block.
pub fn ratio_in_block(block: &BlockValues<'_>, arm: &str, other: &str) -> Option<f64> {
    Some((mean_log(block, arm)? - mean_log(block, other)?).exp())
}

/// Returns the larger p-value of both tests: of Student's t on the means of sets, and of the signed
/// ranks of all blocks.
pub fn p_value(means: &Differences, logs: &Differences) -> Option<f64> {
    Some(means.t_p_value()?.max(logs.rank_p_value()))
}

/// Returns whether the ratio is 1 within a margin, given as a logarithm: whether both 90 %
/// intervals lie within it, which is two one-sided tests at 5 % (D. J. Schuirmann, "A Comparison of
/// the Two One-Sided Tests Procedure and the Power Approach", Journal of Pharmacokinetics and
/// Biopharmaceutics 15, 1987).
pub fn is_alike(means: &Differences, logs: &Differences, margin: f64) -> bool {
    let lies_within = |interval: Option<Interval>| {
        interval.is_some_and(|interval| -margin < interval.low && interval.high < margin)
    };
    lies_within(means.t_interval(0.9)) && lies_within(logs.rank_interval(0.9))
}

/// Returns the mean of the logarithms of all readings of an arm in a block.
fn mean_log(block: &BlockValues<'_>, arm: &str) -> Option<f64> {
    let readings = block.values.iter().filter(|(role, _)| readings::number(role, arm).is_some());
    mean(&readings.map(|(_, value)| value.ln()).collect::<Vec<_>>())
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
