//! A mean over blocks with its interval.

use crate::matrix::BLOCKS_FOR_VERDICT;
use crate::rows::{Bounds, Verdict};
use crate::statistics::{Differences, Interval, geometric_mean};

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
            (Bounds::Interval95, Self::t_interval(values)?)
        } else {
            (Bounds::Range, Interval::range(values)?)
        };
        Some(Self { mean, bounds, interval })
    }

    fn t_interval(values: &[f64]) -> Option<Interval> {
        let logs = Differences::of(values.iter().map(|value| value.ln()))?;
        logs.t_interval(0.95).map(Interval::exp)
    }

    /// Returns what a ratio shows by its interval alone.
    pub fn verdict(&self) -> Verdict {
        match (self.bounds, self.interval) {
            (Bounds::Range, _) => Verdict::FewBlocks,
            (_, interval) if interval.high < 1.0 => Verdict::Lower,
            (_, interval) if interval.low > 1.0 => Verdict::Higher,
            _ => Verdict::NotResolved,
        }
    }

    /// Returns one reading, whose interval is itself.
    pub fn exact(mean: f64) -> Self {
        Self { mean, bounds: Bounds::Range, interval: Interval { low: mean, high: mean } }
    }
}
