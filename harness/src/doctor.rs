//! `ringmark doctor` says what this machine can measure, and how well; a run says the same before
//! it begins.
//!
//! [`findings`] tries and reads. [`checks`] judges the findings without looking at the machine, and
//! makes a line of each check. [`screen`] prints the lines, and [`before_run`] picks those that
//! bear on a matrix.

mod before_run;
mod capacity;
mod checks;
mod demand;
mod findings;
mod kernel;
mod lines;
mod locked;
mod noise;
mod screen;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Result, bail};
use ringmark::protocol::FORMAT_VERSION;
use serde_json::json;

use crate::machine::Machine;
use crate::terminal;

pub use before_run::{Examination, examine};

/// How long all CPUs are kept busy to see who else wants them. The kernel counts in ticks of mostly
/// 10 ms.
const SPIN_TIME: Duration = Duration::from_secs(1);

/// Says what this machine can measure, and how well.
///
/// It tries each instrument, and keeps all CPUs busy for a second to see who else wants them. Each
/// line that is not ok says what that costs and what to do. It fails only if nothing at all can be
/// measured.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  ringmark doctor
  ringmark doctor --json | jq '.lines[] | select(.status != \"ok\")'")]
pub struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the screen.
pub fn run(options: Options) -> Result<()> {
    let findings = findings::Findings::read(&Machine::read(), SPIN_TIME);
    let lines = checks::lines(&findings);
    let impossible = findings.impossible();
    if options.json {
        let json = json!({
            "format": "ringmark-doctor",
            "format_version": FORMAT_VERSION,
            "impossible": impossible,
            "lines": lines,
        });
        terminal::say(&(serde_json::to_string_pretty(&json)? + "\n"))?;
    } else {
        terminal::say(&screen::print(&lines))?;
    }
    impossible.map_or(Ok(()), |why| bail!(why))
}
