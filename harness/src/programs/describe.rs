//! Asks a side where and what it is, by a verb of `ringmark` there.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use ringmark::whereabouts::{FileStamp, Whereabouts};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command_prefix::CommandPrefix;
use super::process::{ANSWER_TIME, Interruptions, Process};
use crate::machine::Machine;
use crate::machine::program_file::ProgramFile;
use crate::results::sides::Side;
use crate::terminal;

/// The verb, which is not for people.
const VERB: &str = "describe-side";

/// Prints where and what a side is
#[derive(clap::Args, Debug)]
pub struct Options {
    /// The server's program there
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
}

/// Prints one line of JSON.
pub fn run(options: &Options) -> Result<()> {
    let description = Description::read(options.server.as_deref())?;
    terminal::print_line(&serde_json::to_string(&description)?)
}

fn unix_s() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// A side's account of itself.
#[derive(Serialize, Deserialize)]
pub struct Description {
    ringmark: String,
    pub whereabouts: Whereabouts,
    machine: Value,
    /// The program that is started there in trials.
    pub program: ProgramFile,
    /// The stamp of its file, before it was read.
    pub stamp: Option<FileStamp>,
    /// Its time of day, in s.
    unix_s: f64,
    /// How far its clock is ahead of the clock here, in s.
    #[serde(skip)]
    pub ahead_s: f64,
}

impl Description {
    fn read(server: Option<&Path>) -> Result<Self> {
        let whereabouts = Whereabouts::of_this_process();
        Ok(Self {
            ringmark: env!("CARGO_PKG_VERSION").to_owned(),
            stamp: server.map_or_else(|| whereabouts.program.clone(), FileStamp::of),
            whereabouts,
            machine: serde_json::to_value(Machine::read())?,
            unix_s: unix_s(),
            ahead_s: 0.0,
            program: server.map_or_else(ProgramFile::of_this, ProgramFile::of_server)?,
        })
    }

    /// Asks the side behind a prefix, where `server` is started if it is given.
    pub fn ask(prefix: &CommandPrefix, server: Option<&Path>) -> Result<Self> {
        if prefix.is_empty() {
            return Self::read(server);
        }
        Self::ask_there(prefix, server).map_err(|error| prefix.blame(error))
    }

    fn ask_there(prefix: &CommandPrefix, server: Option<&Path>) -> Result<Self> {
        let mut command = prefix.command(&std::env::current_exe().context("find this program")?);
        command.arg(VERB);
        if let Some(server) = server {
            command.arg(format!("--server={}", prefix.path(server).display()));
        }
        let asked_s = unix_s();
        let mut description: Self =
            Process::start("command", command, None, &Interruptions::default())
                .and_then(|mut process| process.hear_json(ANSWER_TIME))
                .map_err(|error| {
                    anyhow!(
                        "{error:#}; it must start what follows it, find it there (see \
                         --remote-bin), and pass stdin and stdout on"
                    )
                })?;
        // It answered in between.
        let [too_early_s, too_late_s] = [asked_s, unix_s()].map(|at| description.unix_s - at);
        description.ahead_s =
            0.0_f64.clamp(too_late_s.min(too_early_s), too_early_s.max(too_late_s));
        let own = env!("CARGO_PKG_VERSION");
        if description.ringmark == own {
            return Ok(description);
        }
        let there = description.ringmark;
        Err(anyhow!("ringmark there is version {there}, here {own}: copy this one there"))
    }

    /// Returns what a manifest says of this side, seen from `here`.
    pub fn side(&self, prefix: &CommandPrefix, here: &Whereabouts) -> Side {
        Side {
            command: (!prefix.is_empty()).then(|| prefix.redacted()),
            cpus: self.machine["cpus_allowed"].as_str().and_then(|cpus| cpus.parse().ok()),
            is_here: self.whereabouts.is_on_machine_of(here),
            is_visible: self.whereabouts.sees_processes_of(here),
            whereabouts: self.whereabouts.clone(),
            machine: self.machine.clone(),
            program: Some(self.program.clone()),
            ..Side::default()
        }
    }
}
