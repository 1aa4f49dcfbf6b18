//! A Markdown table that also reads well on a terminal.

/// Stands where there is no figure.
pub const MISSING: &str = "–";

/// Rows of text under a heading.
pub struct Table {
    rows: Vec<Vec<String>>,
    /// How many columns from the left are text; the others are numbers and stand to the right.
    text_columns: usize,
}

impl Table {
    pub fn new(text_columns: usize, heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()], text_columns }
    }

    pub fn push(&mut self, row: Vec<String>) {
        debug_assert_eq!(row.len(), self.rows[0].len());
        self.rows.push(row);
    }

    /// The table, or nothing if it has only its heading.
    pub fn render(&self) -> String {
        if self.rows.len() < 2 {
            return String::new();
        }
        let columns = self.rows[0].len();
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let padding = " ".repeat(width - cell.chars().count());
                text += &match column < self.text_columns {
                    true => format!("| {cell}{padding} "),
                    false => format!("| {padding}{cell} "),
                };
            }
            text += "|\n";
            if index == 0 {
                for (column, &width) in widths.iter().enumerate() {
                    let end = if column < self.text_columns { '-' } else { ':' };
                    text += &format!("|{}{end}", "-".repeat(width + 1));
                }
                text += "|\n";
            }
        }
        text
    }
}

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

/// A percentage that is the end of an interval, which carries no more digits than these.
pub fn percent(value: f64) -> String {
    if value.abs() < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// `a`, `a and b`, `a, b and c`.
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Names as they are typed, in a list.
pub fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    list(&names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases =
            [(1234567.8, "1,234,568"), (-4096.0, "-4,096"), (100.4, "100"), (12.34, "12.3"), (1.234, "1.23")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
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

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(1, &["name", "n"]);
        assert_eq!(table.render(), "");
        table.push(vec!["a".to_owned(), "1,000".to_owned()]);
        assert_eq!(table.render(), "| name |     n |\n|------|------:|\n| a    | 1,000 |\n");
    }
}
