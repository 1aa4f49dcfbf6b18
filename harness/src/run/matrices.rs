//! `ringmark run --list` and `--print`: the matrices that are part of the program.

use anyhow::{Result, anyhow};

use super::course::time_left;
use super::planner::Planner;
use crate::matrix::{Matrix, NamedMatrix, built_in};
use crate::terminal;
use crate::text::wrapped;
use crate::verdict::sweep;

/// The widest line.
const WIDTH: usize = 80;

/// Prints the name of each matrix, how long it takes, and its question.
pub fn list() -> Result<()> {
    let mut text = String::new();
    for matrix in built_in::ALL {
        let NamedMatrix { name, matrix, .. } = NamedMatrix::built_in(matrix)?;
        let question = matrix.question.clone();
        let head = format!("{name:<13}{:>6}  ", time_of(matrix)?);
        text += &wrapped(&question, &head, head.len(), WIDTH);
    }
    text += "\n`ringmark run NAME` runs one. `ringmark run --print NAME > mine.toml` begins one of \
             your own.\nTimes are without those of trials that the gates reject.\n";
    terminal::say(&text)
}

/// Says how long a matrix takes.
fn time_of(matrix: Matrix) -> Result<String> {
    // Any capacity will do: all rates take the same time.
    let matrix = sweep::with_capacities(&matrix, |_| Ok(100_000.0))?;
    let seconds = time_left(&Planner::new(matrix, None, 0), &[]).as_secs();
    Ok(if seconds < 90 { format!("{seconds} s") } else { format!("{} min", seconds.div_ceil(60)) })
}

/// Prints the text of a matrix.
pub fn print(name: &str) -> Result<()> {
    let matrix = built_in::find(name).ok_or_else(|| anyhow!(built_in::unknown(name)))?;
    terminal::say(matrix.text)
}
