//! For tests: numbers that are the same but for rounding.

/// Checks that two numbers agree to nine digits.
#[track_caller]
pub fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{a} is not {b}");
}
