//! The location of differences within blocks, by two tests. Student's t assumes that they are
//! normal; the signed ranks assume no more than symmetry and heed no outlier.

use std::cell::OnceCell;
use std::sync::LazyLock;

use statrs::distribution::{ContinuousCDF as _, Normal, StudentsT};

use super::interval::Interval;

/// The chance with which [`Differences::detectable`] is found.
const POWER: f64 = 0.8;

/// The signed ranks of so many differences are counted exactly: a 64-bit float holds each count of
/// their 2⁴⁰ signs.
const EXACT: usize = 40;

/// Differences, one a block: of logarithms, or in a unit.
#[derive(Clone, Debug)]
pub struct Differences {
    /// In ascending order.
    values: Vec<f64>,
    /// See [`Self::averages`]; the ranks alone need them.
    averages: OnceCell<Vec<f64>>,
}

impl Differences {
    /// Takes differences that are numbers; none without one.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        if values.is_empty() {
            return None;
        }
        values.sort_unstable_by(f64::total_cmp);
        Some(Self { values, averages: OnceCell::new() })
    }

    /// Returns the means of all pairs of values, each with itself too (Walsh averages), in
    /// ascending order.
    fn averages(&self) -> &[f64] {
        self.averages.get_or_init(|| {
            let pairs = self.values.iter().enumerate();
            let pairs =
                pairs.flat_map(|(index, a)| self.values[index..].iter().map(move |b| (a, b)));
            let mut averages: Vec<f64> = pairs.map(|(a, b)| f64::midpoint(*a, *b)).collect();
            averages.sort_unstable_by(f64::total_cmp);
            averages
        })
    }

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// Returns the smallest and the largest.
    pub fn range(&self) -> Interval {
        Interval { low: self.values[0], high: self.values[self.count() - 1] }
    }

    /// Returns the mean.
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.count() as f64
    }

    /// Returns the standard deviation; none of one value.
    pub fn deviation(&self) -> Option<f64> {
        let freedom = self.count().checked_sub(1).filter(|freedom| *freedom > 0)?;
        let mean = self.mean();
        let squares = self.values.iter().map(|value| (value - mean).powi(2));
        Some((squares.sum::<f64>() / freedom as f64).sqrt())
    }

    fn error_of_mean(&self) -> Option<f64> {
        Some(self.deviation()? / (self.count() as f64).sqrt())
    }

    fn student(&self) -> Option<StudentsT> {
        StudentsT::new(0.0, 1.0, self.count().checked_sub(1)? as f64).ok()
    }

    /// Returns the interval of the mean by Student's t; none of one value.
    pub fn t_interval(&self, confidence: f64) -> Option<Interval> {
        let quantile = self.student()?.inverse_cdf(f64::midpoint(1.0, confidence));
        let (mean, half) = (self.mean(), quantile * self.error_of_mean()?);
        Some(Interval { low: mean - half, high: mean + half })
    }

    /// Returns the chance of a mean as far from zero if the true one is zero, by Student's t.
    pub fn t_p_value(&self) -> Option<f64> {
        let (mean, error) = (self.mean(), self.error_of_mean()?);
        if error == 0.0 {
            return Some(if mean == 0.0 { 1.0 } else { 0.0 });
        }
        Some(2.0 * self.student()?.sf((mean / error).abs()))
    }

    /// Returns the median of the Walsh averages (J. L. Hodges and E. L. Lehmann, "Estimates of
    /// Location Based on Rank Tests", Annals of Mathematical Statistics 34, 1963).
    pub fn hodges_lehmann(&self) -> f64 {
        let averages = self.averages();
        let middle = averages.len() / 2;
        match averages.len() % 2 {
            1 => averages[middle],
            _ => f64::midpoint(averages[middle - 1], averages[middle]),
        }
    }

    /// Returns the interval around it: the values that the signed ranks do not exclude. None if the
    /// values are too few: below six for 95 %.
    pub fn rank_interval(&self, confidence: f64) -> Option<Interval> {
        let tail = (1.0 - confidence) / 2.0;
        let averages = self.averages();
        let all = averages.len();
        // The chance of that many averages above zero, or fewer, grows with their number.
        let (mut low, mut high) = (0, all / 2 + 1);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.chance_of_at_most(middle as f64) <= tail {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let rank = low.checked_sub(1)?;
        Some(Interval { low: averages[rank], high: averages[all - 1 - rank] })
    }

    /// Returns the chance of signed ranks as one-sided if the differences are symmetric about zero
    /// (F. Wilcoxon, "Individual Comparisons by Ranking Methods", Biometrics Bulletin 1, 1945). An
    /// average of zero counts half.
    pub fn rank_p_value(&self) -> f64 {
        let averages = self.averages();
        let below = averages.partition_point(|average| *average < 0.0) as f64;
        let above = averages.iter().rev().take_while(|average| **average > 0.0).count() as f64;
        let halves = (averages.len() as f64 - below - above) / 2.0;
        (2.0 * self.chance_of_at_most(below.min(above) + halves)).min(1.0)
    }

    /// Returns the chance that at most so many averages lie above zero if the differences are
    /// symmetric about zero: exact for up to [`EXACT`] of them, else by the normal approximation,
    /// corrected for continuity.
    fn chance_of_at_most(&self, count: f64) -> f64 {
        let n = self.count();
        if n <= EXACT {
            return SIGNED_RANKS[n][count.floor() as usize];
        }
        let n = n as f64;
        let (mean, variance) = (n * (n + 1.0) / 4.0, n * (n + 1.0) * (2.0 * n + 1.0) / 24.0);
        Normal::standard().cdf((count + 0.5 - mean) / variance.sqrt())
    }

    /// Returns the difference from zero that as many values, as far from each other, would have
    /// shown in 80 % of all cases, by Student's t at this level; none of one value.
    pub fn detectable(&self, level: f64) -> Option<f64> {
        let student = self.student()?;
        let quantiles = student.inverse_cdf(1.0 - level / 2.0) + student.inverse_cdf(POWER);
        Some(quantiles * self.error_of_mean()?)
    }

    /// Returns how many of them may be left out, whichever these are, so that the rest still
    /// `shows` the same: those at one end or the other, which count most.
    pub fn spare(&self, shows: impl Fn(&Self) -> bool) -> usize {
        let holds = |rest: &[f64]| Self::of(rest.iter().copied()).is_some_and(|rest| shows(&rest));
        let numbers: Vec<usize> = (1..self.count()).collect();
        numbers.partition_point(|&left_out| {
            holds(&self.values[left_out..]) && holds(&self.values[..self.count() - left_out])
        })
    }
}

/// By number of differences: the chances that the ranks of those above zero come to at most 0, 1, 2
/// and so on, if each is as likely to lie above as below.
static SIGNED_RANKS: LazyLock<Vec<Vec<f64>>> = LazyLock::new(|| {
    let mut ways = vec![1.0];
    let mut chances = vec![vec![1.0]];
    for n in 1..=EXACT {
        let mut next = ways.clone();
        next.resize(ways.len() + n, 0.0);
        ways.iter().enumerate().for_each(|(sum, count)| next[sum + n] += count);
        ways = next;
        let all = 2.0_f64.powi(n as i32);
        let below = ways.iter().scan(0.0, |below, count| {
            *below += count;
            Some(*below / all)
        });
        chances.push(below.collect());
    }
    chances
});

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::super::close::close;
    use super::super::normal::normal;
    use super::*;

    fn of(values: &[f64]) -> Differences {
        Differences::of(values.iter().copied()).unwrap()
    }

    /// scipy 1.17.1: stats.t.interval, stats.ttest_1samp and stats.wilcoxon (exact, or approximate
    /// with its correction for 60 values); the median and the order statistics of the Walsh
    /// averages by numpy.
    #[test]
    fn both_tests_agree_with_scipy() {
        let ratios = [0.81, 0.79, 0.93, 0.88, 0.75, 0.84, 0.90, 0.78, 0.83, 0.86];
        let ten = of(&ratios.map(f64::ln));
        close(ten.mean(), -0.17998572316604042);
        let t = ten.t_interval(0.95).unwrap();
        assert!((t.low + 0.22832034120748618).abs() < 1e-8, "{t:?}");
        assert!((t.high + 0.13165110512459466).abs() < 1e-8, "{t:?}");
        assert!((ten.t_p_value().unwrap() / 1.4622210202779092e-05 - 1.0).abs() < 1e-6);
        close(ten.hodges_lehmann(), -0.18034148266813566);
        close(ten.rank_p_value(), 0.001953125);
        let ranks = ten.rank_interval(0.95).unwrap();
        close(ranks.low, -0.23101772979827934);
        close(ranks.high, -0.12809170269620496);
        assert!((ten.detectable(0.05).unwrap() - 0.06720995917000915).abs() < 1e-8);

        let many: Vec<f64> =
            (0..60).map(|i| f64::from((7 * i * i + 3 * i) % 101 - 45) / 100.0).collect();
        let many = of(&many);
        assert!((many.t_p_value().unwrap() - 0.7162683579006855).abs() < 1e-6);
        close(many.hodges_lehmann(), 0.015);
        assert!((many.rank_p_value() - 0.7210327629298774).abs() < 1e-3);
        let ranks = many.rank_interval(0.95).unwrap();
        assert!((ranks.low + 0.075).abs() < 0.006 && (ranks.high - 0.095).abs() < 0.006);
    }

    #[test]
    fn few_values_have_no_interval_of_ranks() {
        let six = of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(six.rank_interval(0.95), Some(Interval { low: 1.0, high: 6.0 }));
        close(six.rank_p_value(), 0.03125);
        let five = of(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(five.rank_interval(0.95), None);
        close(five.rank_p_value(), 0.0625);
        let one = of(&[0.5]);
        assert_eq!(
            (one.t_interval(0.95), one.t_p_value(), one.detectable(0.05)),
            (None, None, None)
        );
        assert!(Differences::of([f64::NAN]).is_none());
    }

    #[test]
    fn values_without_scatter_are_what_they_are() {
        let same = of(&[0.1; 8]);
        assert!(same.t_p_value().unwrap() < 1e-9);
        close(same.rank_p_value(), 2.0 / 256.0);
        let none = of(&[0.0; 8]);
        assert_eq!((none.t_p_value(), none.rank_p_value()), (Some(1.0), 1.0));
    }

    /// Exchanging what is subtracted from what changes the sign and nothing else.
    #[test]
    fn both_tests_are_symmetric() {
        let values = [0.03, -0.01, 0.05, 0.02, -0.04, 0.06, 0.012, 0.045];
        let (one, other) = (of(&values), of(&values.map(|value| -value)));
        close(one.t_p_value().unwrap(), other.t_p_value().unwrap());
        close(one.rank_p_value(), other.rank_p_value());
        close(one.hodges_lehmann(), -other.hodges_lehmann());
        close(one.rank_interval(0.95).unwrap().low, -other.rank_interval(0.95).unwrap().high);
    }

    #[test]
    fn what_is_detectable_is_found_in_four_of_five_cases_and_nothing_in_one_of_twenty() {
        let mut random = StdRng::seed_from_u64(7);
        let mut share = |difference: f64| {
            let shown = (0..2000).filter(|_| {
                let values = (0..15).map(|_| difference + normal(&mut random));
                let found = Differences::of(values).unwrap();
                found.t_p_value().unwrap().max(found.rank_p_value()) <= 0.05
            });
            shown.count() as f64 / 2000.0
        };
        let scatter = Differences::of((0..15).map(f64::from)).unwrap();
        let of_unit_scatter = scatter.detectable(0.05).unwrap() / scatter.deviation().unwrap();
        // Both tests together find a little less than one of them.
        assert!((0.72..0.84).contains(&share(of_unit_scatter)));
        assert!(share(0.0) <= 0.055);
    }

    #[test]
    fn those_that_count_most_are_left_out_first() {
        let found = of(&[0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17, -0.05, 0.18]);
        let is_above = |rest: &Differences| rest.rank_p_value() <= 0.05 && rest.mean() > 0.0;
        assert!(is_above(&found));
        // One of seven values may lie below zero, if it has the least rank; none of six.
        assert_eq!(found.spare(is_above), 3);
        assert_eq!(found.spare(|_| false), 0);
        assert_eq!(found.spare(|_| true), 9);
    }
}
