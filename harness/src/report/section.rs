//! A piece of the report: tables and notes that are written once, and shown as Markdown or as HTML.

use super::markup::{blocks, inline};
use super::table::Table;

pub struct Section {
    /// The name in markers.
    pub name: &'static str,
    /// The title, which a document does not show.
    pub title: &'static str,
    /// Empty if the run has nothing for it.
    pub body: Body,
}

/// The title of the trials that do not count, or not in all.
pub const GATES_TITLE: &str =
    "Trials that were rejected, unsupported, client-limited, or carry a remark";

enum Part {
    Table(Table),
    /// The title of the next table.
    Heading(String),
    /// Paragraphs and lists in Markdown, with their line breaks.
    Notes(String),
}

impl Part {
    fn markdown(&self) -> String {
        match self {
            Self::Table(table) => table.markdown(),
            Self::Heading(text) => format!("{text}\n\n"),
            Self::Notes(text) => text.clone(),
        }
    }
}

/// Tables and notes, in order.
#[derive(Default)]
pub struct Body(Vec<Part>);

impl Body {
    /// Adds a table, unless it has only its heading.
    pub fn table(mut self, table: Table) -> Self {
        if !table.is_empty() {
            self.0.push(Part::Table(table));
        }
        self
    }

    /// Adds the title of the next table.
    pub fn heading(mut self, text: &str) -> Self {
        self.0.push(Part::Heading(text.to_owned()));
        self
    }

    /// Adds paragraphs and lists, if there are any.
    pub fn notes(mut self, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.is_empty() {
            self.0.push(Part::Notes(text));
        }
        self
    }

    /// Adds a list after an empty line, if it has items.
    pub fn list(self, items: &str) -> Self {
        if items.is_empty() { self } else { self.notes(format!("\n{items}")) }
    }

    /// Adds another's parts, an empty line between.
    pub fn then(mut self, other: Self) -> Self {
        if !self.is_empty() && !other.is_empty() {
            self = self.notes("\n");
        }
        self.0.extend(other.0);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns Markdown. It ends with a line break, unless it is empty.
    pub fn markdown(&self) -> String {
        self.0.iter().map(Part::markdown).collect()
    }

    /// Returns HTML. The label says to a screen reader what the tables are of.
    pub fn html(&self, label: &str) -> String {
        let mut label = label;
        let mut html = String::new();
        for part in &self.0 {
            html += &match part {
                Part::Table(table) => table.html(label),
                Part::Heading(text) => {
                    label = text;
                    format!("<h3>{}</h3>\n", inline(text))
                }
                Part::Notes(text) => blocks(text),
            };
        }
        html
    }
}

impl From<Table> for Body {
    fn from(table: Table) -> Self {
        Self::default().table(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_files_say_is_no_html() {
        let text = "- `a<b>` is **\"x\" & 'y'**, `c\n\nA \u{1b}[1m line\n";
        let html = "<ul>\n<li><code>a&lt;b&gt;</code> is <strong>&quot;x&quot; &amp; \
        &#39;y&#39;</strong>, `c</li>\n\
                    </ul>\n<p>A \u{fffd}[1m line</p>\n";
        assert_eq!(Body::default().notes(text).html("x"), html);
    }

    #[test]
    fn the_same_parts_are_markdown_and_html() {
        let mut table = Table::new(1, &["name", "n"]);
        table.push(vec!["a".to_owned(), "1".to_owned()]);
        let body = Body::default()
            .heading("Over it")
            .table(table)
            .then(Body::default().notes("Under it.\n"));
        assert_eq!(
            body.markdown(),
            "Over it\n\n| name |   n |\n|------|----:|\n| a    |   1 |\n\nUnder it.\n"
        );
        let html = body.html("x");
        assert!(
            html.starts_with("<h3>Over it</h3>\n") && html.contains("aria-label=\"Over it\""),
            "{html}"
        );
        assert!(html.ends_with("<p>Under it.</p>\n"), "{html}");
        assert!(Body::default().table(Table::new(1, &["name"])).is_empty());
    }
}
