//! Instructions of all arms under one workload, in one boot of a kernel.

use std::collections::VecDeque;

use itertools::Itertools as _;

use super::context::TrialContext;
use super::run::failure;
use super::task::{Task, Trial};
use crate::count::{Count, CountOutcome, refusal};
use crate::matrix::{Instructions, Workload};
use crate::rows::{FunctionRow, InstructionRow, Outcome, Status};

/// Counts the trials of a block together. Whatever goes wrong stands in the rows.
pub fn count_set(trials: &[Trial], context: &TrialContext) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = trials.iter().map(|trial| trial.begun(context)).collect();
    let mut counts = Vec::new();
    let mut counted = Vec::new();
    for (trial, outcome) in trials.iter().zip(&mut outcomes) {
        let Task::Instructions(workload, instructions) = &trial.task else { continue };
        // A guest has one CPU and a server one worker, whatever the run has.
        (outcome.row.workers, outcome.row.network_namespace) = (1, "in a guest".to_owned());
        let of_trial = counts_of(trial, workload, instructions);
        match of_trial.iter().find_map(refusal) {
            Some(reason) => {
                (outcome.row.status, outcome.row.reason) = (Status::Unsupported, reason.to_owned());
            }
            None => {
                counts.extend(of_trial);
                counted.push((trial, outcome));
            }
        }
    }
    let Some((first, _)) = counted.first() else { return outcomes };
    let counted_by = match &context.counter {
        Err(reason) => Err((Status::Unsupported, reason.clone())),
        Ok(counter) => {
            let (kernel, boot) = counter.kernel_of(first.block);
            let results = counter.count(kernel, counts, &context.interruptions);
            results
                .map(|results| (VecDeque::from(results), boot))
                .map_err(|error| failure(&error, context))
        }
    };
    match counted_by {
        Ok((mut results, boot)) => {
            for (trial, outcome) in counted {
                let Task::Instructions(_, instructions) = &trial.task else { continue };
                let of_trial = results.drain(..(instructions.seeds as usize).min(results.len()));
                take(of_trial.collect(), boot, outcome);
            }
        }
        Err((status, reason)) => {
            for (_, outcome) in counted {
                (outcome.row.status, outcome.row.reason) = (status, reason.clone());
            }
        }
    }
    outcomes
}

/// Returns the counts of a trial: one for each seed.
fn counts_of(trial: &Trial, workload: &Workload, instructions: &Instructions) -> Vec<Count> {
    let count = |seed| Count {
        arm: trial.arm.clone(),
        workload: workload.clone(),
        seed,
        echoes: instructions.echoes,
    };
    (1..=instructions.seeds).map(count).collect()
}

/// Takes what came of the counts of a trial, or the first reason why there is nothing.
fn take(counted: Vec<CountOutcome>, boot: u32, outcome: &mut Outcome) {
    let row = &mut outcome.row;
    if let Some(failed) = counted.iter().find(|count| count.status != Status::Ok) {
        (row.status, row.reason) = (failed.status, failed.reason.clone());
        return;
    }
    (row.status, row.reason) = (Status::Ok, String::new());
    let (run_id, workload) = (row.run_id, row.workload.clone());
    let (arm, backend) = (row.arm.clone(), row.backend.clone());
    for (seed, count) in (1..).zip(counted) {
        outcome.instructions.extend(count.rows.into_iter().map(|row| InstructionRow {
            run_id,
            boot,
            workload: workload.clone(),
            arm: arm.clone(),
            backend: backend.clone(),
            ..row
        }));
        // One count says which functions it is.
        if (boot, seed) == (1, 1) {
            outcome.functions.extend(count.functions.into_iter().map(|row| FunctionRow {
                run_id,
                workload: workload.clone(),
                arm: arm.clone(),
                ..row
            }));
        }
    }
    let windows = outcome.instructions.iter().map(|row| (row.seed, row.window, row.echoes));
    row.echoes = Some(windows.unique().map(|(.., echoes)| echoes).sum());
}
