//! A mean over blocks with its interval, and what a ratio shows beside the noise.

use crate::matrix::BLOCKS_FOR_VERDICT;
use crate::rows::{Bounds, ComparisonRow, Verdict};
use crate::statistics::{Interval, geometric_interval, geometric_mean};

/// A geometric mean over blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The kind of the interval.
    pub bounds: Bounds,
    /// The interval around the mean.
    pub interval: Interval,
}

impl Estimate {
    /// Returns the mean of ratios or of times; none if there are none or one is not above zero.
    /// Below [`BLOCKS_FOR_VERDICT`] blocks the interval is their range.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mean = geometric_mean(values)?;
        let (bounds, interval) = if values.len() >= BLOCKS_FOR_VERDICT {
            (Bounds::Interval95, geometric_interval(values)?)
        } else {
            (Bounds::Range, Interval::range(values)?)
        };
        Some(Self { mean, bounds, interval })
    }

    /// Returns one reading, whose interval is itself.
    pub fn exact(mean: f64) -> Self {
        Self { mean, bounds: Bounds::Range, interval: Interval { low: mean, high: mean } }
    }

    /// Returns what a ratio shows, beside the noise: the interval of the ratio of a server to
    /// itself. Whichever way two readings of one server lie apart, as large a difference either way
    /// is noise.
    pub fn verdict(&self, noise: Option<&Interval>) -> Verdict {
        if self.bounds == Bounds::Range {
            return Verdict::Range;
        }
        match noise {
            None => Verdict::NoNoise,
            Some(noise) if self.mean.ln().abs() <= noise.log_factor() => Verdict::NoDifferenceShown,
            Some(_) if self.interval.high < 1.0 => Verdict::Lower,
            Some(_) if self.interval.low > 1.0 => Verdict::Higher,
            Some(_) => Verdict::NoDifferenceShown,
        }
    }
}

impl ComparisonRow {
    /// Returns the interval of the ratio.
    pub fn interval(&self) -> Interval {
        Interval { low: self.ratio_low, high: self.ratio_high }
    }

    /// Returns the interval of the baseline's ratio to itself.
    pub fn noise(&self) -> Option<Interval> {
        Some(Interval { low: self.noise_low?, high: self.noise_high? })
    }
}
