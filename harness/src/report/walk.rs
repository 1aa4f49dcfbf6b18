//! The questions that tables, charts and sentences ask of a walk through connection counts.

use crate::results::Run;
use crate::rows::{ALONE, CROWDED, Pass, ScaleRow, TrialRow};
use crate::verdict::estimate::Estimate;

/// Returns where an arm stands in the matrix. The floor stands in none and comes last.
pub fn place(run: &Run, arm: &str) -> usize {
    let backends = &run.matrix.backends;
    backends.iter().position(|other| other.name() == arm).unwrap_or(backends.len())
}

/// Returns the trials of the pass in the order of the matrix, the floor at the end.
pub fn trials(run: &Run) -> Vec<&TrialRow> {
    let mut rows: Vec<_> = run.trials.iter().filter(|row| row.pass == Some(Pass::Scale)).collect();
    rows.sort_by_key(|row| place(run, &row.arm));
    rows
}

/// Returns the steps of that name in a trial, in their order.
pub fn steps<'a>(
    run: &'a Run,
    trial: &TrialRow,
    step: &'static str,
) -> impl Iterator<Item = &'a ScaleRow> {
    let run_id = trial.run_id;
    run.scale.iter().filter(move |row| row.run_id == run_id && row.step == step)
}

/// Returns the steps that led beyond every earlier count. The others open again what had made room
/// for active connections.
pub fn opened<'a>(run: &'a Run, trial: &TrialRow) -> Vec<&'a ScaleRow> {
    let mut most = 0;
    let mut opened: Vec<&ScaleRow> = Vec::new();
    for row in steps(run, trial, "open") {
        if row.connections > most {
            most = row.connections;
            opened.push(row);
        }
    }
    opened
}

/// Returns how many connections a step opened or closed.
pub fn changed(row: &ScaleRow) -> f64 {
    row.connections_per_s.unwrap_or_default() * row.duration_s.unwrap_or_default()
}

/// Returns what a load with a crowd beside it has over one without: the mean over the repeats in
/// which both servers' figures may be used.
pub fn crowding(
    rows: &[&ScaleRow],
    may_be_used: fn(&ScaleRow) -> bool,
    value: fn(&ScaleRow) -> Option<f64>,
) -> Option<Estimate> {
    let figure = |server: &str, repeat: Option<u32>| {
        rows.iter()
            .find(|row| row.server == server && row.repeat == repeat && may_be_used(row))
            .and_then(|row| value(row))
    };
    let repeats = rows.iter().filter(|row| row.server == CROWDED).map(|row| row.repeat);
    let ratios: Vec<f64> = repeats
        .filter_map(|repeat| Some(figure(CROWDED, repeat)? / figure(ALONE, repeat)?))
        .filter(|ratio| ratio.is_finite())
        .collect();
    Estimate::of(&ratios)
}
