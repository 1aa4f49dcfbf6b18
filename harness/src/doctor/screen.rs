//! Prints the lines as an aligned table for a terminal.

use super::lines::{CheckStatus, DoctorLine};
use crate::text::wrapped;

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
        text += &wrapped(&result.found, &head, head.len(), WIDTH);
        if !below.is_empty() {
            text += &wrapped(&below, &" ".repeat(INDENT), INDENT, WIDTH);
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
