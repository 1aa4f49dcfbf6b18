//! HTML from text, and from the Markdown of sections.

/// Returns text that a browser shows as it is.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // XML knows no others.
            '\n' | '\t' => escaped.push(letter),
            _ if letter.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// Returns a line of Markdown as HTML. Sections use only code and strong words.
pub fn inline(text: &str) -> String {
    paired(&paired(&escape(text), "`", "code"), "**", "strong")
}

/// Makes an element of the text between two marks. A mark without a partner stays.
fn paired(text: &str, mark: &str, element: &str) -> String {
    let pieces: Vec<&str> = text.split(mark).collect();
    let mut html = pieces[0].to_owned();
    for (index, piece) in pieces.iter().enumerate().skip(1) {
        html += &match (index % 2 == 1, index + 1 == pieces.len()) {
            (true, true) => mark.to_owned(),
            (true, false) => format!("<{element}>"),
            (false, _) => format!("</{element}>"),
        };
        html += piece;
    }
    html
}

/// Returns paragraphs and lists of Markdown as HTML.
pub fn blocks(text: &str) -> String {
    let mut html = String::new();
    let mut is_list = false;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let item = line.strip_prefix("- ");
        if item.is_some() != is_list {
            html += if is_list { "</ul>\n" } else { "<ul>\n" };
            is_list = !is_list;
        }
        html += &match item {
            Some(item) => format!("<li>{}</li>\n", inline(item)),
            None => format!("<p>{}</p>\n", inline(line)),
        };
    }
    html + if is_list { "</ul>\n" } else { "" }
}
