//! A run in its course: trial after trial, each with its rows.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use indicatif::ProgressBar;

use super::failures::hopeless;
use super::planner::Planner;
use super::stop::StopSignals;
use super::watch::Watch;
use crate::machine::files;
use crate::results::{Manifest, Results};
use crate::rows::{Outcome, TrialRow};
use crate::terminal;
use crate::trial::{self, Trial, TrialContext};

/// How the trials of a run came to an end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// There are no more.
    Complete,
    /// The person wants no more of them.
    AfterTrial,
    /// Nor the one that was under way.
    AtOnce,
}

/// A run in its course.
pub struct Course {
    pub planner: Planner,
    pub manifest: Manifest,
    pub results: Results,
    pub context: TrialContext,
    pub watch: Watch,
    pub stop: StopSignals,
    pub bar: ProgressBar,
}

impl Course {
    /// Runs these trials, and then block after block.
    pub fn measure(&mut self, mut trials: Vec<Trial>) -> Result<RunEnd> {
        while !self.stop.after_trial() {
            if trials.is_empty() {
                let Some(block) = self.planner.next(self.results.measured())? else {
                    return Ok(RunEnd::Complete);
                };
                trials = block;
                self.manifest.order.extend(trials.iter().map(Trial::order_line));
                self.manifest.expanded = self.planner.expanded().cloned();
                self.results.write_manifest(&self.manifest)?;
            }
            let time = time_left(&self.planner, &trials);
            self.bar.set_length(self.bar.position() + time.as_millis() as u64);
            if self.bar.is_hidden() {
                // The rows are what a run is for: what cannot be said is an error at its end.
                let _ = say_block(&trials, time);
            }
            for together in in_sets(std::mem::take(&mut trials)) {
                if !self.run(&together)? {
                    return Ok(RunEnd::AtOnce);
                }
                if self.stop.after_trial() {
                    break;
                }
            }
        }
        Ok(RunEnd::AfterTrial)
    }

    /// Runs trials together, one if they take no turns, and writes their rows. Returns false if
    /// they were interrupted.
    fn run(&mut self, trials: &[Trial]) -> Result<bool> {
        let Some(Trial { task, role, .. }) = trials.first() else { return Ok(true) };
        let who = if trials.len() > 1 { "all arms in turn" } else { role };
        self.bar.set_message(format!("{} {}: {who}", task.pass().name(), task.name()));
        self.watch.look()?;
        let outcomes = match trials {
            [trial] if !task.is_of_a_set() => {
                vec![self.given_up(trial).unwrap_or_else(|| trial.run(&self.context))]
            }
            set => self.run_set(set),
        };
        self.bar.inc(task.estimate_block(trials.len()).as_millis() as u64);
        if self.stop.at_once() {
            return Ok(false);
        }
        // A program may have been replaced since; then it is not known what was measured.
        self.watch.look()?;
        for outcome in outcomes {
            self.results.add(outcome)?;
        }
        Ok(true)
    }

    /// Runs the trials of a set, without the arms that have been given up.
    fn run_set(&self, set: &[Trial]) -> Vec<Outcome> {
        let given_up: Vec<Option<Outcome>> = set.iter().map(|one| self.given_up(one)).collect();
        let hopeful: Vec<Trial> = set
            .iter()
            .zip(&given_up)
            .filter(|(_, given_up)| given_up.is_none())
            .map(|(trial, _)| trial.clone())
            .collect();
        let mut outcomes = trial::run_set(&hopeful, &self.context).into_iter();
        given_up.into_iter().filter_map(|given_up| given_up.or_else(|| outcomes.next())).collect()
    }

    /// Returns the outcome of a trial that would fail as all of its arm did.
    fn given_up(&self, trial: &Trial) -> Option<Outcome> {
        let reason = hopeless(self.results.trials(), trial)?;
        Some(trial.not_run(&self.context, reason))
    }

    /// Writes what is made of all trials, and returns these. From then on the run is no longer
    /// under way.
    pub fn conclude(mut self, end: RunEnd) -> Result<Vec<TrialRow>> {
        self.results.finish(self.planner.matrix())?;
        if end == RunEnd::Complete {
            self.manifest.finished_utc = Some(files::utc(SystemTime::now()));
            self.results.write_manifest(&self.manifest)?;
            self.results.remove_journal()?;
        }
        Ok(self.results.close())
    }
}

/// Says which block begins, where no bar is to be seen: a pipe or a log gets a line for each.
fn say_block(trials: &[Trial], left: Duration) -> Result<()> {
    let Some(Trial { task, block, .. }) = trials.first() else { return Ok(()) };
    terminal::say(&format!(
        "{} {} block {block}: {} trials, about {:.1} min to go\n",
        task.pass().name(),
        task.name(),
        trials.len(),
        left.as_secs_f64() / 60.0
    ))
}

/// Returns the trials one by one, or those of a set together.
fn in_sets(trials: Vec<Trial>) -> Vec<Vec<Trial>> {
    if trials.iter().all(|trial| trial.task.is_of_a_set()) {
        return vec![trials];
    }
    trials.into_iter().map(|trial| vec![trial]).collect()
}

/// Estimates how long these trials of a block take, and the blocks that are ahead as far as that is
/// known.
pub fn time_left(planner: &Planner, trials: &[Trial]) -> Duration {
    let these = trials.first().map(|trial| trial.task.estimate_block(trials.len()));
    let ahead = planner.ahead().map(|(task, trials)| task.estimate_block(trials));
    these.into_iter().chain(ahead).sum()
}
