//! A table, as Markdown that also reads well on a terminal, or as HTML.

use super::section::{escape, inline};

/// Stands where there is no figure.
pub const MISSING: &str = "–";

/// More letters than this are wrapped where there is no room.
const LONG: usize = 40;

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

    /// Whether it has only its heading.
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// In a box of its own that scrolls, because a table may be wider than a telephone.
    pub fn html(&self, label: &str) -> String {
        let row = |row: &Vec<String>, element: &str, scope: &str| {
            let cell = |(column, cell): (usize, &String)| {
                let class = match (column < self.text_columns, cell.chars().count() > LONG) {
                    (true, false) => "",
                    (false, false) => " class=\"number\"",
                    (true, true) => " class=\"long\"",
                    (false, true) => " class=\"number long\"",
                };
                format!("<{element}{scope}{class}>{}</{element}>", inline(cell))
            };
            format!("<tr>{}</tr>\n", row.iter().enumerate().map(cell).collect::<String>())
        };
        format!(
            "<div class=\"scrolls\" role=\"region\" tabindex=\"0\" aria-label=\"{}\"><table>\n<thead>{}</thead>\n\
             <tbody>\n{}</tbody>\n</table></div>\n",
            escape(label),
            row(&self.rows[0], "th", " scope=\"col\"").trim_end(),
            self.rows[1..].iter().map(|cells| row(cells, "td", "")).collect::<String>()
        )
    }

    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let columns = self.rows[0].len();
        // A bar would begin another cell.
        let in_cell = |cell: &String| cell.replace('|', "\\|").replace('\n', " ");
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(in_cell).collect()).collect();
        let width = |column: usize| {
            rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in rows.iter().enumerate() {
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

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(1, &["name", "n"]);
        assert!(table.is_empty());
        table.push(vec!["a".to_owned(), "1,000".to_owned()]);
        assert_eq!(table.markdown(), "| name |     n |\n|------|------:|\n| a    | 1,000 |\n");
        table.push(vec!["a|b".to_owned(), "1".to_owned()]);
        assert!(table.markdown().ends_with("| a\\|b |     1 |\n"), "{}", table.markdown());
    }
}
