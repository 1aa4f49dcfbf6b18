//! Prints the lines as an aligned table for a terminal.

use super::lines::{CheckStatus, DoctorLine};

/// The widest line.
const WIDTH: usize = 100;

/// The indentation of the rest of an entry.
const INDENT: usize = 4;

/// Prints the whole screen.
pub fn print(lines: &[DoctorLine]) -> String {
    let name_width = lines.iter().map(|line| line.name.len()).max().unwrap_or_default();
    let status_width =
        lines.iter().map(|line| line.result.status.name().len()).max().unwrap_or_default();
    let mut text = String::new();
    for DoctorLine { name, result } in lines {
        let head = format!("{name:<name_width$}  {:<status_width$}  ", result.status.name());
        let below: Vec<_> =
            [&result.cost, &result.advice].into_iter().flatten().map(String::as_str).collect();
        let below = below.join("; ");
        let separator = if below.is_empty() { "" } else { "; " };
        let whole = format!("{head}{}{separator}{below}\n", result.found);
        if whole.chars().count() <= WIDTH + 1 {
            text += &whole;
            continue;
        }
        // A finding that is too long goes on where it began.
        text += &wrapped(&result.found, &head, head.len());
        if !below.is_empty() {
            text += &wrapped(&below, &" ".repeat(INDENT), INDENT);
        }
    }
    let count = |status| lines.iter().filter(|line| line.result.status == status).count();
    text + &format!(
        "{} ok, {} limit results, {} missing\n",
        count(CheckStatus::Ok),
        count(CheckStatus::LimitsResults),
        count(CheckStatus::Missing)
    )
}

/// Wraps the words after `head`, and indents further lines by `indent`. A command in backquotes is
/// to be copied, and so stays whole.
fn wrapped(words: &str, head: &str, indent: usize) -> String {
    let mut text = head.to_owned();
    let mut column = head.len();
    let mut is_quoted = false;
    let unbroken = words.split(|c: char| {
        is_quoted ^= c == '`';
        c == ' ' && !is_quoted
    });
    for (index, word) in unbroken.enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > WIDTH {
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
