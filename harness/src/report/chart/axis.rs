//! From values to places, and the round numbers between.

/// A linear or a logarithmic axis.
#[derive(Clone, Debug)]
pub struct Axis {
    low: f64,
    pub high: f64,
    is_log: bool,
    /// The places at which the two ends are drawn.
    pub from: f64,
    pub to: f64,
}

/// Beyond this quotient of the largest and the smallest value an axis is logarithmic.
const LOG_FROM: f64 = 8.0;

/// Below this quotient a logarithmic axis has the round numbers of a linear one.
const LINEAR_TICKS_BELOW: f64 = 4.0;

impl Axis {
    /// From 0 to a little beyond the largest value.
    pub fn from_zero(values: impl IntoIterator<Item = f64>, from: f64, to: f64) -> Self {
        let high = values.into_iter().filter(|value| value.is_finite()).fold(0.0, f64::max);
        Self { low: 0.0, high: if high > 0.0 { high * 1.02 } else { 1.0 }, is_log: false, from, to }
    }

    /// Places 1, 2 … beside each other.
    pub fn of_places(count: usize, from: f64, to: f64) -> Self {
        Self { low: 0.5, high: count as f64 + 0.5, is_log: false, from, to }
    }

    /// Logarithmic if the values ask for it, else from 0. None without a value above 0.
    pub fn fitting(values: impl IntoIterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let (low, high) = ends(values)?;
        Some(if high / low >= LOG_FROM {
            Self::log(low, high, from, to)
        } else {
            Self::from_zero([high], from, to)
        })
    }

    /// Logarithmic, however near the values are to each other. None without a value above 0.
    pub fn of_ratios(values: impl IntoIterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let (low, high) = ends(values)?;
        Some(Self::log(low, high, from, to))
    }

    /// Logarithmic, a little wider than the values.
    pub fn log(low: f64, high: f64, from: f64, to: f64) -> Self {
        let room = (high / low).powf(0.06).max(1.005);
        Self { low: low / room, high: high * room, is_log: true, from, to }
    }

    /// Returns the place of a value; values beyond the ends are drawn at the ends.
    pub fn at(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Whether the value can stand on it.
    pub fn holds(&self, value: f64) -> bool {
        if self.is_log { is_drawable(value) } else { value.is_finite() && value >= 0.0 }
    }

    /// Round numbers, of the form 1, 2 or 5 times a power of ten.
    pub fn ticks(&self) -> Vec<f64> {
        let Self { low, high, is_log, .. } = *self;
        if !is_log || high / low < LINEAR_TICKS_BELOW {
            let step = round_step((high - low) / if is_log { 6.0 } else { 4.0 });
            let first = (low / step - 1e-9).ceil();
            let count = ((high / step + 1e-9).floor() - first).clamp(0.0, 20.0) as usize;
            return (0..=count).map(|index| (first + index as f64) * step).collect();
        }
        let decades = (high / low).log10();
        let digits: &[f64] = match decades {
            ..2.2 => &[1.0, 2.0, 5.0],
            ..3.2 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let every = (decades / 6.0).ceil().max(1.0) as i32;
        let powers = (low.log10().floor() as i32..=high.log10().ceil() as i32)
            .filter(|power| power % every == 0);
        let ticks =
            powers.flat_map(|power| digits.iter().map(move |digit| digit * 10_f64.powi(power)));
        ticks.filter(|tick| (low..=high).contains(tick)).collect()
    }
}

/// Returns the least and the largest value above 0.
fn ends(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let values: Vec<f64> = values.into_iter().filter(|value| is_drawable(*value)).collect();
    let low = values.iter().copied().reduce(f64::min)?;
    Some((low, values.iter().copied().reduce(f64::max)?))
}

/// Whether a value can stand on any axis.
pub fn is_drawable(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

/// The next of 1, 2 and 5 times a power of ten that is not less.
fn round_step(least: f64) -> f64 {
    let unit = 10_f64.powf(least.log10().floor());
    let digits = [1.0, 2.0, 5.0, 10.0];
    digits
        .into_iter()
        .map(|digit| digit * unit)
        .find(|step| *step >= least * (1.0 - 1e-9))
        .unwrap_or(unit * 10.0)
}

/// A round number, as short as it goes.
pub fn label(value: f64) -> String {
    let plain = |value: f64| {
        let text = format!("{value:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value.abs() {
        1e6.. => plain(value / 1e6) + "M",
        1e4.. => plain(value / 1e3) + "k",
        1e3.. => crate::text::significant(value),
        _ => plain(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        for (axis, ticks) in [
            (Axis::from_zero([8.7], 0.0, 1.0), &["0", "5"][..]),
            (Axis::from_zero([11_349.0], 0.0, 1.0), &["0", "5,000", "10k"]),
            (Axis::log(8.0, 400.0, 0.0, 1.0), &["10", "20", "50", "100", "200", "500"]),
            (Axis::log(0.97, 1.53, 0.0, 1.0), &["1", "1.2", "1.4"]),
            (Axis::log(1e3, 1e6, 0.0, 1.0), &["1,000", "10k", "100k", "1M"]),
            (Axis::from_zero([], 0.0, 1.0), &["0", "0.5", "1"]),
        ] {
            let labels: Vec<String> = axis.ticks().into_iter().map(label).collect();
            assert_eq!(labels, ticks, "{axis:?}");
            assert!(
                axis.ticks().iter().all(|&tick| (0.0..=1.0).contains(&axis.at(tick))),
                "{axis:?}"
            );
        }
    }

    #[test]
    fn whatever_a_value_is_its_place_is_on_the_axis() {
        for axis in [Axis::from_zero([3.0], 10.0, 20.0), Axis::log(1.0, 1.0, 20.0, 10.0)] {
            for value in [-1.0, 0.0, 1e-300, 1.0, 1e300, f64::INFINITY] {
                assert!((10.0..=20.0).contains(&axis.at(value)), "{value} on {axis:?}");
            }
        }
        assert!(Axis::fitting([f64::NAN, 0.0], 0.0, 1.0).is_none());
    }
}
