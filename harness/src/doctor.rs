//! `ringmark doctor`: what this machine can measure, and how well; and the same before a run.
//!
//! [`facts`] tries and reads, [`judge`] makes lines of it without looking at the machine,
//! [`screen`] prints them, and [`before_run`] picks those that bear on a matrix.

mod before_run;
mod facts;
mod judge;
mod locked;
mod screen;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use self::facts::Facts;
use crate::machine::Machine;
use crate::matrix::Matrix;
use crate::matrix::connection_limits::ConnectionLimits;
use crate::results::sides::Sides;

pub use crate::doctor::judge::Line;

/// How long all CPUs are kept busy to see who else wants them. The kernel counts in ticks of mostly
/// 10 ms.
const SPIN_TIME: Duration = Duration::from_secs(1);

/// The same before a run, where each trial is watched anyway.
const SPIN_TIME_BEFORE_RUN: Duration = Duration::from_millis(300);

/// Says what this machine can measure, and how well.
///
/// It tries each instrument, and keeps all CPUs busy for a second to see who else wants them. What
/// is not ok comes with what it costs and what to do. It fails only if nothing at all can be
/// measured.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  ringmark doctor\n  ringmark doctor --json | jq '.lines[] | select(.status != \"ok\")'"
)]
pub struct Options {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Prints the screen.
pub fn run(options: Options) -> Result<()> {
    let facts = Facts::read(&Machine::read(), SPIN_TIME);
    let lines = judge::lines(&facts);
    let impossible = judge::impossible(&facts);
    let text = match options.json {
        true => {
            serde_json::to_string_pretty(&json!({ "impossible": impossible, "lines": lines }))?
                + "\n"
        }
        false => screen::print(&lines),
    };
    crate::terminal::say(&text)?;
    match impossible {
        Some(why) => bail!(why),
        None => Ok(()),
    }
}

/// What is known of the machine before a run.
pub struct Examination {
    /// How many connections it has room for.
    pub connection_limits: ConnectionLimits,
    /// The same in words, if the matrix asks for many.
    walks: Vec<String>,
    /// Every line, for the manifest.
    pub lines: Vec<Line>,
    /// What is to be said before anything is measured.
    pub warnings: Vec<String>,
}

/// Examines the machine for a matrix, and refuses what cannot be measured here. Of a side that is
/// on another machine it knows nothing, and then refuses nothing for its sake either: that side
/// does, in its trials.
pub fn examine(machine: &Machine, matrix: &Matrix, sides: Option<&Sides>) -> Result<Examination> {
    let facts = Facts::read(machine, SPIN_TIME_BEFORE_RUN);
    let lines = judge::lines(&facts);
    let connection_limits = facts.connection_limits();
    let is_commanded = sides.is_some();
    if sides.is_some_and(|sides| !sides.are_here()) {
        before_run::refuse_baseline(matrix, is_commanded)?;
        let warnings = before_run::unsupported_externals(matrix, is_commanded);
        return Ok(Examination { connection_limits, walks: Vec::new(), lines, warnings });
    }
    before_run::refuse(&facts, matrix, is_commanded, before_run::ask_kernel)?;
    let warnings =
        before_run::warnings(&lines, &facts, matrix, is_commanded, before_run::ask_kernel);
    let walks = before_run::walks(&connection_limits, matrix);
    Ok(Examination { connection_limits, walks, lines, warnings })
}

impl Examination {
    /// Says it.
    pub fn say(&self) -> Result<()> {
        let mut text = String::new();
        if !self.warnings.is_empty() {
            text += "This machine limits the results; `ringmark doctor` says what to do:\n";
        }
        for warning in &self.warnings {
            text += &format!("  {warning}\n");
        }
        for line in &self.walks {
            text += &format!("{line}\n");
        }
        crate::terminal::say(&text)
    }
}
