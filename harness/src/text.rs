//! Numbers, shares and lists as people read them.

use std::borrow::Borrow;
use std::fmt::Display;

/// A whole number as people write it: without the decimals that a small one would have.
pub fn count(value: u64) -> String {
    if value < 100 { value.to_string() } else { number(value as f64) }
}

/// A number with as many digits as it carries: three significant ones, thousands apart.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 100.0 {
        let digits = format!("{magnitude:.0}");
        let mut grouped = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index) % 3 == 0 {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        return if value < 0.0 { format!("-{grouped}") } else { grouped };
    }
    match magnitude {
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The same with three significant digits of small numbers too, so that ratios of what is shown are
/// those beside it.
pub fn significant(value: f64) -> String {
    let magnitude = value.abs();
    if !(1e-9..1.0).contains(&magnitude) {
        return number(value);
    }
    let decimals = (2 - magnitude.log10().floor() as i32).max(2) as usize;
    format!("{value:.decimals$}")
}

/// A percentage that is the end of an interval, which carries no more digits than these.
pub fn percent(value: f64) -> String {
    if value.abs() < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// `a`, `a and b`, `a, b and c`.
pub fn list<S: Display + Borrow<str>>(items: &[S]) -> String {
    match items {
        [] => String::new(),
        [one] => one.to_string(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Names as they are typed, in a list.
pub fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    list(&names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>())
}

/// Without a fraction, and without a sign before zero.
pub fn whole(bytes: f64) -> String {
    format!("{:.0}", bytes.round() + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (1234567.8, "1,234,568"),
            (-4096.0, "-4,096"),
            (100.4, "100"),
            (12.34, "12.3"),
            (1.234, "1.23"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn small_numbers_keep_three_digits_where_they_are_divided() {
        for (value, text) in [
            (0.0, "0.00"),
            (0.0471, "0.0471"),
            (0.000_347_2, "0.000347"),
            (0.234, "0.234"),
            (12.34, "12.3"),
        ] {
            assert_eq!(significant(value), text);
        }
    }

    #[test]
    fn percentages_and_lists_read_well() {
        let percents = [0.04, 9.94, 9.96, 12.6, 98.6].map(percent);
        assert_eq!(percents, ["0.0", "9.9", "10", "13", "99"]);
        assert_eq!(
            [&["a"][..], &["a", "b"], &["a", "b", "c"]].map(|of| names(of.iter().copied())),
            ["`a`", "`a` and `b`", "`a`, `b` and `c`"]
        );
    }
}
