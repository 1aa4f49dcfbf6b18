//! The lines as an aligned table for a terminal.

use super::judge::{Line, Status};

/// No line is wider.
const WIDTH: usize = 110;

/// What stands below a line is set in by this.
const INDENT: usize = 4;

/// The whole screen.
pub fn print(lines: &[Line]) -> String {
    let width = |of: &dyn Fn(&Line) -> usize| lines.iter().map(of).max().unwrap_or_default();
    let name_width = width(&|line| line.check.name().chars().count());
    let status_width = width(&|line| line.status.name().len());
    let mut text = String::new();
    for line in lines {
        let head =
            format!("{:<name_width$}  {:<status_width$}  ", line.check.name(), line.status.name());
        let below: Vec<_> =
            [&line.cost, &line.advice].into_iter().flatten().map(String::as_str).collect();
        let below = below.join("; ");
        // What fits beside the finding stands there.
        let whole = match below.is_empty() {
            true => line.found.clone(),
            false => format!("{}; {below}", line.found),
        };
        if head.chars().count() + whole.chars().count() <= WIDTH {
            text += &format!("{head}{whole}\n");
        } else {
            // A finding that is too long goes on where it began.
            text += &(wrapped(&line.found, &head, head.chars().count()) + "\n");
            if !below.is_empty() {
                text += &(wrapped(&below, &" ".repeat(INDENT), INDENT) + "\n");
            }
        }
    }
    let count = |status| lines.iter().filter(|line| line.status == status).count();
    text + &format!(
        "{} ok, {} limit results, {} missing\n",
        count(Status::Ok),
        count(Status::LimitsResults),
        count(Status::Missing)
    )
}

/// The words after `head`, and on further lines set in by `indent`. What stands in backquotes is to
/// be copied, and so stays whole.
fn wrapped(words: &str, head: &str, indent: usize) -> String {
    let mut text = head.to_owned();
    let mut column = head.chars().count();
    let mut is_quoted = false;
    let unbroken = words.split(|c: char| {
        is_quoted ^= c == '`';
        c == ' ' && !is_quoted
    });
    for (index, word) in unbroken.enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > WIDTH {
            text.push('\n');
            text += &" ".repeat(indent);
            column = indent;
        } else if index > 0 {
            text.push(' ');
            column += 1;
        }
        text += word;
        column += length;
    }
    text
}
