//! When a warm-up may end.

use std::time::Duration;

/// How long one window is.
pub const WINDOW: Duration = Duration::from_millis(50);

/// Windows that have to agree.
const WINDOWS: usize = 4;

/// How far the highest rate may lie above the lowest.
const SPREAD: f64 = 1.10;

/// The rates of the last windows.
#[derive(Debug, Default)]
pub struct Settling {
    rates_per_s: [f64; WINDOWS],
    seen: usize,
}

impl Settling {
    /// Takes the rate of one more window; returns whether the last four lie within 10 % of each
    /// other.
    pub fn push(&mut self, rate_per_s: f64) -> bool {
        self.rates_per_s[self.seen % WINDOWS] = rate_per_s;
        self.seen += 1;
        let lowest = self.rates_per_s.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = self.rates_per_s.iter().copied().fold(0.0, f64::max);
        self.seen >= WINDOWS && lowest > 0.0 && highest <= lowest * SPREAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settles_after(rates: &[f64]) -> Option<usize> {
        let mut settling = Settling::default();
        rates.iter().position(|&rate| settling.push(rate)).map(|index| index + 1)
    }

    #[test]
    fn settles_when_four_windows_agree() {
        assert_eq!(settles_after(&[100.0; 3]), None);
        assert_eq!(settles_after(&[100.0; 4]), Some(4));
        assert_eq!(settles_after(&[100.0, 109.0, 101.0, 105.0]), Some(4));
        assert_eq!(settles_after(&[10.0, 50.0, 90.0, 100.0, 101.0, 99.0, 102.0]), Some(7));
        assert_eq!(settles_after(&[100.0, 120.0, 100.0, 120.0, 100.0, 120.0]), None);
        assert_eq!(settles_after(&[0.0; 10]), None, "silence has not settled");
    }
}
