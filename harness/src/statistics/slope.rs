//! A robust line through points.

use super::interval::Interval;
use super::middle::median;

/// The 97.5 % point of the normal distribution.
const Z_975: f64 = 1.959_963_984_540_054;

/// A line through points by Theil and Sen: the median of the slopes of all pairs. Up to 29 % of the
/// points may be arbitrarily wrong before it is (P. K. Sen, "Estimates of the Regression
/// Coefficient Based on Kendall's Tau", JASA 63, 1968).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TheilSen {
    /// The median of the pairwise slopes.
    pub slope: f64,
    /// The 95 % interval of the slope; none when the points are too few to bound it.
    pub slope_interval: Option<Interval>,
    /// The median of `y - slope * x`.
    pub intercept: f64,
}

impl TheilSen {
    /// Fits a line through (x, y) points; none unless two of them differ in x.
    ///
    /// The interval lies between two order statistics of the pairwise slopes, chosen by the
    /// distribution of Kendall's S: the exact one for up to [`EXACT_POINTS`] points of different x,
    /// else the normal approximation of its variance, corrected for repeated x (Sen, equation 2.6),
    /// and rounded outwards.
    pub fn fit(points: &[(f64, f64)]) -> Option<Self> {
        let mut slopes = pairwise_slopes(points);
        let slope = median(&mut slopes)?;
        let mut residuals: Vec<f64> = points.iter().map(|(x, y)| y - slope * x).collect();
        let intercept = median(&mut residuals)?;
        Some(Self { slope, slope_interval: slope_interval(&slopes, points), intercept })
    }
}

fn pairwise_slopes(points: &[(f64, f64)]) -> Vec<f64> {
    let pairs = points
        .iter()
        .enumerate()
        .flat_map(|(index, a)| points[index + 1..].iter().map(move |b| (a, b)));
    pairs.filter(|(a, b)| a.0 != b.0).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0)).collect()
}

/// The least and the greatest slope of two of the points, which are a bound where they are too few
/// for an interval; none below three slopes.
pub fn slope_range(points: &[(f64, f64)]) -> Option<Interval> {
    let slopes = pairwise_slopes(points);
    Interval::range(&slopes).filter(|_| slopes.len() > 2)
}

fn slope_interval(sorted_slopes: &[f64], points: &[(f64, f64)]) -> Option<Interval> {
    let mut xs: Vec<f64> = points.iter().map(|point| point.0).collect();
    xs.sort_unstable_by(f64::total_cmp);
    let is_tied = xs.windows(2).any(|pair| pair[0] == pair[1]);
    let rank = if is_tied || points.len() > EXACT_POINTS {
        normal_rank(sorted_slopes.len(), &xs)
    } else {
        exact_rank(points.len())
    };
    Interval::between_ranks(sorted_slopes, rank)
}

/// The permutations of so many points can be counted in 64 bits.
const EXACT_POINTS: usize = 20;

/// The largest rank between which and the same from above the slope lies with 95 %; 0 if there is
/// none. Without a slope every order of `n` values is as likely, and the number of pairs that fall
/// instead of rising is that of the inversions of a permutation.
fn exact_rank(n: usize) -> usize {
    // How many permutations have 0, 1, 2 … inversions: those of one more value have up to as many
    // more as it passes.
    let mut counts = vec![1_u64];
    for values in 2..=n {
        let mut next = vec![0; counts.len() + values - 1];
        for (inversions, count) in counts.iter().enumerate() {
            (0..values).for_each(|more| next[inversions + more] += count);
        }
        counts = next;
    }
    let all = counts.iter().sum::<u64>() as f64;
    let mut below = 0;
    counts
        .iter()
        .take_while(|&&count| {
            below += count;
            below as f64 / all <= 0.025
        })
        .count()
}

fn normal_rank(slopes: usize, sorted_xs: &[f64]) -> usize {
    let kendall = |n: usize| (n * n.saturating_sub(1) * (2 * n + 5)) as f64 / 18.0;
    let ties: f64 = sorted_xs.chunk_by(|a, b| a == b).map(|tied| kendall(tied.len())).sum();
    let spread = Z_975 * (kendall(sorted_xs.len()) - ties).sqrt();
    ((slopes as f64 - spread) / 2.0).floor().max(0.0) as usize
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::super::close::close;
    use super::*;

    #[test]
    fn an_exact_line_is_found_exactly_in_spite_of_outliers() {
        let mut points: Vec<(f64, f64)> =
            (0..10).map(|x| (f64::from(x), 5.0 + 3.0 * f64::from(x))).collect();
        points[2].1 = 1000.0;
        points[7].1 = -50.0;
        let line = TheilSen::fit(&points).unwrap();
        close(line.slope, 3.0);
        close(line.intercept, 5.0);
        let Interval { low, high } = line.slope_interval.unwrap();
        assert!(low <= 3.0 && 3.0 <= high && low < high, "{low} {high}");
    }

    #[test]
    fn a_small_case_by_hand() {
        // Slopes: 1, 2, 3 (neighbours in x: 1 and 3, over both: 2). Residuals at slope 2: 0, -1, 0.
        let line = TheilSen::fit(&[(0.0, 0.0), (1.0, 1.0), (2.0, 4.0)]).unwrap();
        assert_eq!(line, TheilSen { slope: 2.0, slope_interval: None, intercept: 0.0 });
    }

    #[test]
    fn few_points_have_the_exact_interval() {
        // By hand: of 5! = 120 orders 1 has no inversion, 4 have one; of 6! = 720 it is 1, 5 and
        // 14. Kendall's table (Rank Correlation Methods, appendix 1) has P(S >= 10) = 0.0083 for n
        // = 5, and 0.0083 for S >= 13, n = 6.
        assert_eq!([1, 2, 3, 4, 5, 6].map(exact_rank), [0, 0, 0, 0, 1, 2]);
        let line = |n: u32| {
            TheilSen::fit(&(0..n).map(|x| (f64::from(x), f64::from(x * x))).collect::<Vec<_>>())
        };
        assert_eq!(line(4).unwrap().slope_interval, None);
        // The slopes of x² between i and j are i + j: 1 to 7.
        assert_eq!(line(5).unwrap().slope_interval, Some(Interval { low: 1.0, high: 7.0 }));
        // 20! fits into 64 bits, and the approximation is near by then.
        let many: Vec<f64> = (0..20).map(f64::from).collect();
        assert!(exact_rank(20).abs_diff(normal_rank(190, &many)) <= 1);
    }

    #[test]
    fn no_line_without_two_places() {
        assert_eq!(TheilSen::fit(&[]), None);
        assert_eq!(TheilSen::fit(&[(1.0, 1.0)]), None);
        assert_eq!(TheilSen::fit(&[(1.0, 1.0), (1.0, 2.0)]), None);
    }

    #[test]
    fn agrees_with_scipy() {
        // scipy 1.17.1: theilslopes(y, x, 0.95, method='joint') on these points, half of which
        // share their x. (Where rounding outwards and scipy's rounding to the nearest rank differ,
        // ours is the wider one; here they agree.)
        let xs = [0, 1000, 2000, 3000, 4000, 5000, 5000, 4000, 3000, 2000, 1000, 0, 6000];
        let ys = [
            120, 3720123, 7440300, 11160250, 14880900, 18600777, 18600801, 14881500, 11161000,
            7440999, 3722000, 1900, 22321111,
        ];
        let points: Vec<(f64, f64)> =
            xs.into_iter().zip(ys).map(|(x, y)| (f64::from(x), f64::from(y))).collect();
        let line = TheilSen::fit(&points).unwrap();
        close(line.slope, 3720.0401666666667);
        close(line.intercept, 739.3333333339542);
        let Interval { low, high } = line.slope_interval.unwrap();
        close(low, 3719.8222);
        close(high, 3720.2505);
    }
}
