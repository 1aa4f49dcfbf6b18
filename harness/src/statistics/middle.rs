//! The middle of values, and how far it is known.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

use super::interval::Interval;

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
    Interval::between_ranks(sorted, rank)
}

/// The mean for ratios; none if there are no values or one is not above zero.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    let usable = !values.is_empty() && values.iter().all(|&value| value > 0.0);
    usable.then(|| (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp())
}

/// The 95 % interval of the ratio of two geometric means, of `b` to `a`, of samples that are no
/// pairs and may scatter differently: Welch's t on the logarithms (B. L. Welch, "The Generalization
/// of 'Student's' Problem when Several Different Population Variances are Involved", Biometrika 34,
/// 1947). None below two values in one of them, or if one is not above zero.
pub fn welch_interval(a: &[f64], b: &[f64]) -> Option<Interval> {
    let ((mean_a, squared_a), (mean_b, squared_b)) = (log_mean(a)?, log_mean(b)?);
    let share = |squared: f64, values: &[f64]| squared.powi(2) / (values.len() - 1) as f64;
    let freedom = (squared_a + squared_b).powi(2) / (share(squared_a, a) + share(squared_b, b));
    // Without scatter the degrees of freedom are undefined and irrelevant.
    let freedom = if freedom.is_finite() { freedom } else { 1.0 };
    let quantile = StudentsT::new(0.0, 1.0, freedom).ok()?.inverse_cdf(0.975);
    let half = quantile * (squared_a + squared_b).sqrt();
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::super::close::close;
    use super::*;

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
    fn the_interval_of_two_samples_agrees_with_scipy() {
        // scipy 1.17.1: numpy.exp of stats.ttest_ind(numpy.log(b), numpy.log(a),
        // equal_var=False).confidence_interval(0.95).
        let ten = [0.81, 0.79, 0.93, 0.88, 0.75, 0.84, 0.90, 0.78, 0.83, 0.86];
        let twelve = [1.02, 0.97, 1.10, 0.99, 1.21, 1.05, 0.94, 1.13, 1.08, 1.00, 0.96, 1.17];
        let more = ten.map(|value| value * 1.25);
        for (a, b, low, high) in [
            (&ten[..], &more[..], 1.1731121, 1.3319273),
            (&ten[..], &twelve[..], 1.1745699, 1.3413178),
            (&[1.0, 2.0, 4.0], &ten, 0.0751616, 2.3206534),
        ] {
            let found = welch_interval(a, b).unwrap();
            assert!(
                (found.low - low).abs() < 1e-6 && (found.high - high).abs() < 1e-6,
                "{found:?}"
            );
            let back = welch_interval(b, a).unwrap();
            close(back.low, 1.0 / found.high);
            close(back.high, 1.0 / found.low);
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
        close(low.ln(), -12.706204736174694);
        close(high.ln(), 12.706204736174694);
        for (a, b) in
            [(&[2.0][..], &[2.0, 3.0][..]), (&[2.0, 3.0], &[]), (&[1.0, 0.0], &[1.0, 2.0])]
        {
            assert_eq!(welch_interval(a, b), None);
        }
    }

    #[test]
    fn the_middle_by_hand() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
        close(geometric_mean(&[0.5, 2.0]).unwrap(), 1.0);
        close(geometric_mean(&[1.0, 10.0, 100.0]).unwrap(), 10.0);
        assert_eq!(geometric_mean(&[]), None);
        assert_eq!(geometric_mean(&[1.0, 0.0]), None);
    }
}
