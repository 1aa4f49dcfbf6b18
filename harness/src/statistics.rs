//! A robust line through points, a mean of ratios with its interval, shares of a whole.

/// An interval from `low` to `high`, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// From the smallest value to the largest; none if there are none.
    pub fn range(values: &[f64]) -> Option<Self> {
        let low = values.iter().copied().reduce(f64::min)?;
        Some(Self { low, high: values.iter().copied().reduce(f64::max)? })
    }

    /// Returns whether a value lies outside.
    pub fn excludes(&self, value: f64) -> bool {
        self.low > value || self.high < value
    }

    /// Returns whether both intervals share no value.
    pub fn is_apart_from(&self, other: &Self) -> bool {
        self.high < other.low || self.low > other.high
    }

    /// Returns the distance between the ends.
    pub fn width(&self) -> f64 {
        self.high - self.low
    }

    /// Returns how far the farther end lies from 1, as a logarithm; both ends are above zero.
    pub fn log_factor(&self) -> f64 {
        self.low.ln().abs().max(self.high.ln().abs())
    }

    /// Returns every difference of a value in this interval and one in the other.
    pub fn minus(&self, other: &Self) -> Self {
        Self { low: self.low - other.high, high: self.high - other.low }
    }

    /// Returns every quotient of a value in this interval and one in the other; all are above zero.
    pub fn over(&self, other: &Self) -> Self {
        Self { low: self.low / other.high, high: self.high / other.low }
    }
}

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

/// Returns the interval between the values of this rank, counted from 1, from below and from above.
fn between_ranks(sorted: &[f64], rank: usize) -> Option<Interval> {
    (rank >= 1).then(|| Interval { low: sorted[rank - 1], high: sorted[sorted.len() - rank] })
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
    between_ranks(sorted_slopes, rank)
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

/// Sorts the values and returns their median; none if there are none.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The 95 % interval of the median of sorted values: from one of them to the one as far from the
/// other end, because how many lie below the true median is a matter of coins. None below six.
pub fn median_interval(sorted: &[f64]) -> Option<Interval> {
    let n = sorted.len();
    // The logarithm of the chance that exactly `below` of them lie below.
    let mut chance = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    let mut rank = 0;
    for below in 0..n {
        sum += chance.exp();
        if sum > 0.025 {
            break;
        }
        rank = below + 1;
        chance += ((n - below) as f64 / rank as f64).ln();
    }
    between_ranks(sorted, rank)
}

/// The mean for ratios; none if there are no values or one is not above zero.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    let usable = !values.is_empty() && values.iter().all(|&value| value > 0.0);
    usable.then(|| (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp())
}

/// The 97.5 % points of Student's t distribution for 1 to 30 degrees of freedom (NIST/SEMATECH
/// e-Handbook of Statistical Methods, table 1.3.6.7.2, column 0.975).
const T_975: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// The 95 % interval of the geometric mean of ratios, by Student's t on their logarithms; none
/// below two values or if one is not above zero. Above 30 degrees of freedom the point of 30 is
/// used, which makes the interval up to 4 % too wide and never too narrow.
pub fn geometric_interval(values: &[f64]) -> Option<Interval> {
    let (mean, squared_error) = log_mean(values)?;
    let half = t_975(values.len() - 1)? * squared_error.sqrt();
    Some(Interval { low: (mean - half).exp(), high: (mean + half).exp() })
}

/// The 95 % interval of the ratio of two geometric means, of `b` to `a`, of samples that are no
/// pairs and may scatter differently: Welch's t on the logarithms (B. L. Welch, "The Generalization
/// of 'Student's' Problem when Several Different Population Variances are Involved", Biometrika 34,
/// 1947). None below two values in one of them, or if one is not above zero. The degrees of freedom
/// are rounded down, which makes the interval a little too wide and never too narrow.
pub fn welch_interval(a: &[f64], b: &[f64]) -> Option<Interval> {
    let ((mean_a, squared_a), (mean_b, squared_b)) = (log_mean(a)?, log_mean(b)?);
    let share = |squared: f64, values: &[f64]| squared.powi(2) / (values.len() - 1) as f64;
    let freedom = (squared_a + squared_b).powi(2) / (share(squared_a, a) + share(squared_b, b));
    // Without scatter the degrees of freedom are undefined and irrelevant. Rounding may put the
    // least possible value a little below a whole number.
    let freedom = if freedom.is_finite() { (freedom + 1e-9).floor() as usize } else { 1 };
    let half = t_975(freedom)? * (squared_a + squared_b).sqrt();
    let difference = mean_b - mean_a;
    Some(Interval { low: (difference - half).exp(), high: (difference + half).exp() })
}

/// The mean of the logarithms, and the square of its standard error.
fn log_mean(values: &[f64]) -> Option<(f64, f64)> {
    let mean = geometric_mean(values)?.ln();
    let freedom = values.len().checked_sub(1).filter(|freedom| *freedom > 0)?;
    let variance =
        values.iter().map(|value| (value.ln() - mean).powi(2)).sum::<f64>() / freedom as f64;
    Some((mean, variance / values.len() as f64))
}

fn t_975(freedom: usize) -> Option<f64> {
    T_975.get(freedom.min(T_975.len()).checked_sub(1)?).copied()
}

/// `part` as a percentage of `whole`; none if there is no whole.
pub fn percent_of(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| 100.0 * part / whole)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{a} is not {b}");
    }

    /// The ranks of W. J. Conover's table of the binomial distribution at one half.
    #[test]
    fn a_median_lies_between_order_statistics() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        for (n, bounds) in [
            (5, None),
            (6, Some(Interval { low: 1.0, high: 6.0 })),
            (10, Some(Interval { low: 2.0, high: 9.0 })),
            (12, Some(Interval { low: 3.0, high: 10.0 })),
            (25, Some(Interval { low: 8.0, high: 18.0 })),
            (1000, Some(Interval { low: 469.0, high: 532.0 })),
        ] {
            assert_eq!(median_interval(&values[..n]), bounds, "{n}");
        }
    }

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

    #[test]
    fn the_interval_of_ratios_agrees_with_scipy() {
        // scipy 1.17.1: numpy.exp(stats.t.interval(0.95, n - 1, numpy.mean(l), stats.sem(l))) of
        // the logarithms l. The table has three decimals, so the ends agree to that.
        let ten = [0.81, 0.79, 0.93, 0.88, 0.75, 0.84, 0.90, 0.78, 0.83, 0.86];
        let many: Vec<f64> = (0..40).map(|n| 1.0 + f64::from(n % 7) / 20.0).collect();
        for (ratios, mean, low, high, tolerance) in [
            (&ten[..], 0.8352821, 0.7958693, 0.8766468, 1e-4),
            (&ten[..3], 0.8411337, 0.6761833, 1.0463226, 1e-4),
            (&many, 1.1395302, 1.1082108, 1.1717347, 1e-3),
        ] {
            let near = |a: f64, b: f64| assert!((a - b).abs() < tolerance, "{a} is not {b}");
            near(geometric_mean(ratios).unwrap(), mean);
            let Interval { low: found_low, high: found_high } = geometric_interval(ratios).unwrap();
            near(found_low, low);
            near(found_high, high);
        }
    }

    #[test]
    fn the_interval_of_two_samples_agrees_with_scipy() {
        // scipy 1.17.1: numpy.exp of stats.ttest_ind(numpy.log(b), numpy.log(a),
        // equal_var=False).confidence_interval(0.95).
        let ten = [0.81, 0.79, 0.93, 0.88, 0.75, 0.84, 0.90, 0.78, 0.83, 0.86];
        let twelve = [1.02, 0.97, 1.10, 0.99, 1.21, 1.05, 0.94, 1.13, 1.08, 1.00, 0.96, 1.17];
        // As scattered as the others: 18 degrees of freedom, which the table has.
        let more = ten.map(|value| value * 1.25);
        let Interval { low, high } = welch_interval(&ten, &more).unwrap();
        assert!((low - 1.1731121).abs() < 1e-4 && (high - 1.3319273).abs() < 1e-4, "{low} {high}");
        // 19.99994 and 2.011, which are rounded down: a little wider, never narrower.
        for (a, b, low, high, excess) in [
            (&ten[..], &twelve[..], 1.1745699, 1.3413178, 1e-3),
            (&[1.0, 2.0, 4.0], &ten, 0.0751616, 2.3206534, 1e-2),
        ] {
            let Interval { low: found_low, high: found_high } = welch_interval(a, b).unwrap();
            let is_wider = |ours: f64, theirs: f64| (1.0..1.0 + excess).contains(&(ours / theirs));
            assert!(
                is_wider(low, found_low) && is_wider(found_high, high),
                "{found_low} {found_high}"
            );
            let Interval { low: back_low, high: back_high } = welch_interval(b, a).unwrap();
            close(back_low, 1.0 / found_high);
            close(back_high, 1.0 / found_low);
        }
    }

    #[test]
    fn two_samples_without_scatter_or_too_small() {
        let Interval { low, high } = welch_interval(&[2.0, 2.0], &[3.0, 3.0, 3.0]).unwrap();
        close(low, 1.5);
        close(high, 1.5);
        // Only one scatters: logarithms -1 and 1, one degree of freedom.
        let e = std::f64::consts::E;
        let Interval { low, high } = welch_interval(&[1.0; 5], &[1.0 / e, e]).unwrap();
        close(low.ln(), -12.706);
        close(high.ln(), 12.706);
        for (a, b) in
            [(&[2.0][..], &[2.0, 3.0][..]), (&[2.0, 3.0], &[]), (&[1.0, 0.0], &[1.0, 2.0])]
        {
            assert_eq!(welch_interval(a, b), None);
        }
    }

    #[test]
    fn the_interval_by_hand_and_where_there_is_none() {
        // Logarithms -1 and 1: mean 0, standard error 1, one degree of freedom.
        let e = std::f64::consts::E;
        let Interval { low, high } = geometric_interval(&[1.0 / e, e]).unwrap();
        close(low.ln(), -12.706);
        close(high.ln(), 12.706);
        let Interval { low, high } = geometric_interval(&[2.0, 2.0, 2.0]).unwrap();
        close(low, 2.0);
        close(high, 2.0);
        assert_eq!(geometric_interval(&[2.0]), None);
        assert_eq!(geometric_interval(&[]), None);
        assert_eq!(geometric_interval(&[1.0, 0.0]), None);
    }

    #[test]
    fn means_and_percentages() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
        close(geometric_mean(&[0.5, 2.0]).unwrap(), 1.0);
        close(geometric_mean(&[1.0, 10.0, 100.0]).unwrap(), 10.0);
        assert_eq!(geometric_mean(&[]), None);
        assert_eq!(geometric_mean(&[1.0, 0.0]), None);
        assert_eq!(percent_of(1.0, 8.0), Some(12.5));
        assert_eq!(percent_of(0.0, 0.0), None);
    }
}
