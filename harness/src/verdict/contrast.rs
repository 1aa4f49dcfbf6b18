//! Two arms under a workload by one metric: their ratio and their difference in each block.

use std::collections::{BTreeMap, BTreeSet};

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
    /// How many contrasts it was chosen from, as the one with the smallest p-value.
    pub chosen_of: usize,
}

impl Contrast {
    /// Returns an arm against another; none if no block has both.
    pub fn of(blocks: &[BlockValues<'_>], arm: &str, other: &str) -> Option<Self> {
        let pair = |block: &BlockValues<'_>| {
            Some((block.set, log_of(block, other)?, log_of(block, arm)?.exp()))
        };
        let pairs = blocks.iter().filter_map(pair);
        Self::of_pairs(pairs.collect())
    }

    /// Returns the baseline against itself: of more than two readings, the one that differs most
    /// from the mean of the others. None is told apart by its name.
    pub fn of_readings(blocks: &[BlockValues<'_>], baseline: &str) -> Option<Self> {
        let numbers = |block: &BlockValues<'_>| -> Vec<usize> {
            block.values.keys().filter_map(|role| readings::number(role, baseline)).collect()
        };
        let numbers: BTreeSet<usize> = blocks.iter().flat_map(numbers).collect();
        // Two readings have one ratio, and its inverse: that of the second is taken.
        let chosen = if numbers.len() == 2 { 1 } else { numbers.len() };
        let against_the_others = |number: &usize| {
            let pair = |block: &BlockValues<'_>| {
                let mean_of = |is_it: bool| {
                    let is_taken = |found| (found == *number) == is_it;
                    mean_log(block, |role| readings::number(role, baseline).is_some_and(is_taken))
                };
                Some((block.set, mean_of(false)?, mean_of(true)?.exp()))
            };
            let contrast = Self::of_pairs(blocks.iter().filter_map(pair).collect())?;
            Some(Self { chosen_of: chosen, ..contrast })
        };
        let contrasts = numbers.iter().rev().take(chosen).filter_map(against_the_others);
        let p_value = |contrast: &Self| p_value(&contrast.means, &contrast.logs).unwrap_or(1.0);
        contrasts.min_by(|a, b| p_value(a).total_cmp(&p_value(b)))
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
            chosen_of: 1,
        })
    }

    /// Returns how many blocks have both; of an interleaved workload, how many sets.
    pub fn blocks(&self) -> usize {
        self.means.count()
    }

    /// Returns the larger p-value of both tests that the ratio is 1, times the contrasts that this
    /// one was chosen from (C. E. Bonferroni, 1936); none of one block.
    pub fn p_value(&self) -> Option<f64> {
        let p_value = p_value(&self.means, &self.logs)?;
        Some((p_value * self.chosen_of as f64).min(1.0))
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
    Some((log_of(block, arm)? - log_of(block, other)?).exp())
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
fn log_of(block: &BlockValues<'_>, arm: &str) -> Option<f64> {
    mean_log(block, |role| readings::number(role, arm).is_some())
}

/// Returns the mean of the logarithms of some roles of a block.
fn mean_log(block: &BlockValues<'_>, is_taken: impl Fn(&str) -> bool) -> Option<f64> {
    let taken = block.values.iter().filter(|(role, _)| is_taken(role));
    mean(&taken.map(|(_, value)| value.ln()).collect::<Vec<_>>())
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::statistics::normal::normal;

    fn roles(count: usize) -> Vec<String> {
        (1..=count).map(|number| readings::reading("b", number)).collect()
    }

    /// Readings of a baseline, each near 100.
    fn readings(random: &mut StdRng, roles: &[String], blocks: u32) -> Vec<Vec<f64>> {
        let mut block = || roles.iter().map(|_| 100.0 * (0.02 * normal(random)).exp()).collect();
        (0..blocks).map(|_| block()).collect()
    }

    fn check(roles: &[String], blocks: &[Vec<f64>]) -> Contrast {
        let named = |(values, set): (&Vec<f64>, u32)| BlockValues {
            set,
            values: roles.iter().map(String::as_str).zip(values.iter().copied()).collect(),
        };
        let blocks: Vec<BlockValues<'_>> = blocks.iter().zip(1..).map(named).collect();
        Contrast::of_readings(&blocks, "b").expect("readings")
    }

    #[test]
    fn no_reading_is_told_apart_by_its_name() {
        let mut random = StdRng::seed_from_u64(7);
        for count in 2..7 {
            let mut roles = roles(count);
            let blocks = readings(&mut random, &roles, 8);
            let before = check(&roles, &blocks).p_value();
            for _ in 0..count {
                roles.rotate_left(1);
                assert_eq!(check(&roles, &blocks).p_value(), before, "{count} readings");
            }
        }
    }

    #[test]
    fn one_reading_that_differs_is_found_and_alike_ones_are_not() {
        let mut random = StdRng::seed_from_u64(11);
        for count in 2..7 {
            let roles = roles(count);
            let shown = |blocks: &Vec<Vec<f64>>| {
                check(&roles, blocks).p_value().is_some_and(|p_value| p_value < 0.05)
            };
            let mut runs: Vec<_> = (0..400).map(|_| readings(&mut random, &roles, 10)).collect();
            let without = runs.iter().filter(|blocks| shown(blocks)).count();
            assert!(without < 30, "{without} of 400 with {count} readings");
            runs.iter_mut().flatten().for_each(|block| block[count / 2] *= 1.05);
            let with = runs.iter().filter(|blocks| shown(blocks)).count();
            assert!(with > 380, "{with} of 400 with {count} readings");
        }
    }
}
