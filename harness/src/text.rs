//! Numbers, shares and lists as people read them.

use std::borrow::Borrow;
use std::fmt::Display;

/// Writes a whole number, its thousands apart.
pub fn grouped(value: u64) -> String {
    if value < 100 { value.to_string() } else { significant(value as f64) }
}

/// Writes three significant digits, thousands apart, and at most two decimals.
pub fn significant(value: f64) -> String {
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

/// Writes three significant digits of small numbers too. Quotients of the shown numbers then fit
/// the ratio beside them.
pub fn three_digits(value: f64) -> String {
    let magnitude = value.abs();
    if !(1e-9..1.0).contains(&magnitude) {
        return significant(value);
    }
    let decimals = (2 - magnitude.log10().floor() as i32).max(2) as usize;
    format!("{value:.decimals$}")
}

/// Writes a list: `a`, `a and b`, `a, b and c`.
pub fn list<S: Display + Borrow<str>>(items: &[S]) -> String {
    match items {
        [] => String::new(),
        [one] => one.to_string(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Writes a list of names as they are typed, in backticks.
pub fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    list(&names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>())
}

/// Writes a number without a fraction, and without a sign before zero.
pub fn integer(bytes: f64) -> String {
    format!("{:.0}", bytes.round() + 0.0)
}

/// Wraps the words after `head` at `width` columns, and indents further lines by `indent`. A
/// command in backquotes is to be copied, and so stays whole.
pub fn wrapped(words: &str, head: &str, indent: usize, width: usize) -> String {
    let mut text = head.to_owned();
    let mut column = head.chars().count();
    let mut is_quoted = false;
    let unbroken = words.split(|c: char| {
        is_quoted ^= c == '`';
        c == ' ' && !is_quoted
    });
    for (index, word) in unbroken.enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > width {
            text += &format!("\n{:indent$}", "");
            column = indent;
        } else if index > 0 {
            text.push(' ');
            column += 1;
        }
        text += word;
        column += length;
    }
    text + "\n"
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
            assert_eq!(significant(value), text);
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
            assert_eq!(three_digits(value), text);
        }
    }

    #[test]
    fn lists_read_well() {
        assert_eq!(
            [&["a"][..], &["a", "b"], &["a", "b", "c"]].map(|of| quoted_list(of.iter().copied())),
            ["`a`", "`a` and `b`", "`a`, `b` and `c`"]
        );
    }
}
