//! For tests: values that scatter as measured ones do.

use rand::RngExt as _;
use rand::rngs::StdRng;

/// A normal value, by the sum of twelve others.
pub fn normal(random: &mut StdRng) -> f64 {
    (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
}
