//! A robust line through points, the middle of values, differences within blocks, many tests at a
//! time.

#[cfg(test)]
mod close;
mod differences;
mod family;
mod interval;
mod middle;
#[cfg(test)]
pub mod normal;
mod slope;

pub use self::differences::Differences;
pub use self::family::{adjusted, threshold};
pub use self::interval::Interval;
pub use self::middle::{geometric_mean, median, median_interval, welch_interval};
pub use self::slope::{TheilSen, slope_range};

/// `part` as a percentage of `whole`; none if there is no whole.
pub fn percent_of(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| 100.0 * part / whole)
}
