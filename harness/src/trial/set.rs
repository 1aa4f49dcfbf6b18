//! Runs the trials of a set, whatever their task.

use super::context::TrialContext;
use super::task::{Task, Trial};
use super::{instructions, interleaved};
use crate::rows::Outcome;

/// Runs the trials of a block together.
pub fn run_set(trials: &[Trial], context: &TrialContext) -> Vec<Outcome> {
    match trials.first().map(|trial| &trial.task) {
        Some(Task::Instructions(..)) => instructions::count_set(trials, context),
        _ => interleaved::play_set(trials, context),
    }
}
