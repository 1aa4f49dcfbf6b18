//! Many tests at a time: how often one of them would show what is not there.

/// Returns p-values adjusted for all of them: those up to a level have, among all that they show,
/// at most that share shown wrongly (Y. Benjamini and Y. Hochberg, "Controlling the False Discovery
/// Rate", JRSS B 57, 1995). Their order stays.
pub fn adjusted(p_values: &[f64]) -> Vec<f64> {
    let count = p_values.len() as f64;
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut smallest = 1.0_f64;
    for (place, index) in order.into_iter().enumerate().rev() {
        smallest = smallest.min(p_values[index] * count / (place + 1) as f64);
        adjusted[index] = smallest;
    }
    adjusted
}

/// Returns the largest p-value that is shown at a level beside those of the same family; if none
/// is, the one that would be.
pub fn threshold(p_values: &[f64], level: f64) -> f64 {
    let shown = adjusted(p_values).iter().filter(|p_value| **p_value <= level).count();
    level * shown.max(1) as f64 / p_values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_values_are_adjusted_as_by_scipy() {
        // scipy 1.17.1: stats.false_discovery_control.
        let p_values = [0.042, 0.001, 0.008, 0.039, 0.041, 0.06, 0.205, 0.074];
        let expected = [0.0672, 0.008, 0.032, 0.0672, 0.0672, 0.08, 0.205, 0.592 / 7.0];
        for (found, expected) in adjusted(&p_values).into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert!(adjusted(&[]).is_empty());
    }

    #[test]
    fn the_threshold_parts_those_that_are_shown() {
        let p_values = [0.042, 0.001, 0.008, 0.039, 0.041, 0.06, 0.205, 0.074];
        assert!((threshold(&p_values, 0.05) - 0.05 * 2.0 / 8.0).abs() < 1e-12);
        assert!((threshold(&[0.9, 0.8], 0.05) - 0.025).abs() < 1e-12);
    }
}
