//! An interval of numbers.

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

    /// Returns the interval of the numbers whose logarithms lie in this one.
    pub fn exp(self) -> Self {
        Self { low: self.low.exp(), high: self.high.exp() }
    }

    /// Returns every difference of a value in this interval and one in the other.
    pub fn minus(&self, other: &Self) -> Self {
        Self { low: self.low - other.high, high: self.high - other.low }
    }

    /// Returns every quotient of a value in this interval and one in the other; all are above zero.
    pub fn over(&self, other: &Self) -> Self {
        Self { low: self.low / other.high, high: self.high / other.low }
    }

    /// Returns the interval between the values of this rank, counted from 1, from below and from
    /// above; none at rank 0.
    pub fn between_ranks(sorted: &[f64], rank: usize) -> Option<Self> {
        (rank >= 1).then(|| Self { low: sorted[rank - 1], high: sorted[sorted.len() - rank] })
    }
}
