//! A table, as Markdown that also reads well on a terminal, or as HTML.

use super::markup::{escape, inline};

/// The text in place of a figure that is missing.
pub const MISSING: &str = "–";

/// The longest cell, in letters, that is never wrapped.
const LONG: usize = 40;

/// Writes a figure, if there is one.
pub fn cell(value: Option<f64>, write: impl Fn(f64) -> String) -> String {
    value.map_or(MISSING.to_owned(), write)
}

/// A heading, and the cell that a row has under it.
pub type Column<'a, R> = (&'a str, fn(&R) -> String);

/// A cell of a table.
#[derive(Default)]
pub struct Cell {
    /// The text, in Markdown.
    pub text: String,
    /// The class by which the page colours it.
    pub class: &'static str,
    /// More about it, which the page shows beside it.
    pub hover: String,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

/// Rows of text under a heading.
pub struct Table {
    rows: Vec<Vec<Cell>>,
    /// The number of columns from the left that are text. The others are numbers, to the right.
    text_columns: usize,
}

impl Table {
    pub fn new(text_columns: usize, heading: &[impl AsRef<str>]) -> Self {
        let heading = heading.iter().map(|title| title.as_ref().to_owned().into()).collect();
        Self { rows: vec![heading], text_columns }
    }

    /// Makes a row of each item, column by column.
    pub fn of<R>(items: &[R], text_columns: usize, columns: &[Column<R>]) -> Self {
        let mut table =
            Self::new(text_columns, &columns.iter().map(|(title, _)| *title).collect::<Vec<_>>());
        for item in items {
            table.push(columns.iter().map(|(_, cell)| cell(item)).collect());
        }
        table
    }

    pub fn push(&mut self, row: Vec<String>) {
        self.push_cells(row.into_iter().map(Cell::from).collect());
    }

    pub fn push_cells(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.rows[0].len());
        self.rows.push(row);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// Returns the table in a box of its own that scrolls: a table may be wider than a telephone.
    pub fn html(&self, label: &str) -> String {
        format!(
            "<div class=\"scrolls\" role=\"region\" tabindex=\"0\" aria-label=\"{}\"><table>\n\
             <thead>{}</thead>\n<tbody>\n{}</tbody>\n</table></div>\n",
            escape(label),
            self.html_row(&self.rows[0], "th", " scope=\"col\"").trim_end(),
            self.rows[1..].iter().map(|row| self.html_row(row, "td", "")).collect::<String>()
        )
    }

    fn html_row(&self, row: &[Cell], element: &str, scope: &str) -> String {
        let cells = row.iter().enumerate().map(|(column, Cell { text, class, hover })| {
            let kind = if column < self.text_columns { "" } else { "number" };
            let length = if text.chars().count() > LONG { "long" } else { "" };
            let classes = [kind, length, *class].into_iter().filter(|class| !class.is_empty());
            let attribute = |name: &str, value: &str| match value {
                "" => String::new(),
                value => format!(" {name}=\"{}\"", escape(value)),
            };
            let class = attribute("class", &classes.collect::<Vec<_>>().join(" "));
            let title = attribute("title", hover);
            format!("<{element}{scope}{class}{title}>{}</{element}>", inline(text))
        });
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    }

    pub fn markdown(&self) -> String {
        // A bar would begin another cell.
        let escaped = |cell: &Cell| cell.text.replace('|', "\\|").replace('\n', " ");
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(escaped).collect()).collect();
        let widths: Vec<usize> = (0..rows[0].len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).fold(3, usize::max))
            .collect();
        let mut lines = rows.iter().map(|row| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if column < self.text_columns {
                    format!("| {cell:<width$} ")
                } else {
                    format!("| {cell:>width$} ")
                }
            });
            cells.collect::<String>() + "|\n"
        });
        let heading = lines.next().unwrap_or_default();
        let rule = widths.iter().enumerate().map(|(column, width)| {
            format!(
                "|-{}{}",
                "-".repeat(*width),
                if column < self.text_columns { '-' } else { ':' }
            )
        });
        format!("{heading}{}|\n{}", rule.collect::<String>(), lines.collect::<String>())
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
