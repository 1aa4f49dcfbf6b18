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

#[cfg(test)]
mod tests {
    use super::*;

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
