//! Which blocks of a workload count.

use std::collections::{BTreeMap, BTreeSet};

use super::contrast::BlockValues;
use super::metric::Metric;
use crate::matrix::BLOCKS_FOR_VERDICT;
use crate::rows::{NOT_RUN, Pass, Status, TrialRow, WindowRow};

/// An arm that stood in none of this many blocks or more is left out instead of taking them all
/// out: it has no figures in any block, so leaving it out is no choice of blocks.
const BLOCKS_TO_GIVE_UP: usize = 3;

/// The same for an arm whose trials all failed: no gate rejected it, so a quieter hour will not
/// help.
const FAILED_BLOCKS_TO_GIVE_UP: usize = 2;

/// An arm that stands in fewer of four blocks than this is left out too. It would take out most
/// blocks of all others, and its own would be those in which it happened to be undisturbed.
const BLOCKS_OF_FOUR: usize = 3;

/// The trials of a block that counts, by arm.
pub type Block<'a> = BTreeMap<&'a str, &'a TrialRow>;

/// Returns the values of a column in each block.
pub fn values<'a>(
    blocks: &[Block<'a>],
    column: impl Fn(&TrialRow) -> Option<f64>,
) -> Vec<BlockValues<'a>> {
    let values = blocks.iter().zip(1..).map(|(block, set)| {
        let known = block.iter().filter_map(|(role, row)| Some((*role, column(row)?)));
        BlockValues { set, values: known.filter(|(_, value)| *value > 0.0).collect() }
    });
    values.collect()
}

/// Returns the values of a figure in each round of the interleaved sets that are these blocks.
pub fn rounds<'a>(
    blocks: &[Block<'a>],
    windows: &'a [WindowRow],
    metric: &Metric,
) -> Vec<BlockValues<'a>> {
    let Some(value) = metric.value_of_turn() else { return Vec::new() };
    let trials: BTreeSet<u32> =
        blocks.iter().flat_map(BTreeMap::values).map(|row| row.run_id).collect();
    let mut rounds: BTreeMap<(u32, u32), BlockValues<'a>> = BTreeMap::new();
    for window in windows.iter().filter(|window| trials.contains(&window.run_id)) {
        if let Some(value) = value(window).filter(|value| *value > 0.0) {
            let round = rounds.entry((window.set, window.round)).or_default();
            round.set = window.set;
            round.values.insert(&window.arm, value);
        }
    }
    rounds.into_values().collect()
}

/// Returns the trials of an arm under a workload, in the order in which they ran.
fn of_arm<'a>(
    rows: &'a [TrialRow],
    pass: Pass,
    workload: &str,
    arm: &str,
) -> impl Iterator<Item = &'a TrialRow> {
    rows.iter()
        .filter(move |row| row.pass == Some(pass) && row.workload == workload && row.arm == arm)
}

/// Whether an arm has no figures under a workload: it is unsupported, or never stood.
pub fn is_given_up(rows: &[TrialRow], pass: Pass, workload: &str, arm: &str) -> bool {
    let tried =
        || of_arm(rows, pass, workload, arm).filter(|row| row.status != Status::Unsupported);
    let blocks: BTreeSet<u32> = tried().map(|row| row.block).collect();
    let enough = match tried().all(|row| row.status == Status::Failed) {
        true => FAILED_BLOCKS_TO_GIVE_UP,
        false => BLOCKS_TO_GIVE_UP,
    };
    // One that stands nowhere, and is tried no more, costs the others no block.
    let mut everywhere = rows.iter().filter(|row| row.arm == arm);
    if everywhere.clone().any(|row| row.reason.starts_with(NOT_RUN))
        && !everywhere.any(|row| row.status.is_usable())
    {
        return true;
    }
    !tried().any(|row| row.status.is_usable()) && (blocks.is_empty() || blocks.len() >= enough)
}

/// Whether an arm stands too seldom under a workload to have figures. Few blocks may be chance.
pub fn is_seldom(rows: &[TrialRow], pass: Pass, workload: &str, arm: &str) -> bool {
    let trials = of_arm(rows, pass, workload, arm);
    // The last one of a block counts.
    let blocks: BTreeMap<u32, bool> =
        trials.map(|row| (row.block, row.status.is_usable())).collect();
    let stood = blocks.values().filter(|stood| **stood).count();
    blocks.len() >= BLOCKS_FOR_VERDICT && 4 * stood < BLOCKS_OF_FOUR * blocks.len()
}

/// The blocks of a workload that count: those in which every arm has a trial that stands, its last
/// one if it was run again. A rejected trial, whatever its own figures, takes its whole
/// block out, or the choice of blocks would depend on the results. Arms that are unsupported, never
/// stood, or stood in fewer than three of four blocks are left out.
pub fn complete_blocks<'a>(rows: &'a [TrialRow], pass: Pass, workload: &str) -> Vec<Block<'a>> {
    let mut blocks: BTreeMap<u32, Block<'a>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.pass == Some(pass) && row.workload == workload) {
        blocks.entry(row.block).or_default().insert(&row.arm, row);
    }
    let all: BTreeSet<&str> = blocks.values().flat_map(BTreeMap::keys).copied().collect();
    let is_out =
        |arm: &str| is_given_up(rows, pass, workload, arm) || is_seldom(rows, pass, workload, arm);
    let arms: BTreeSet<&str> = all.into_iter().filter(|arm| !is_out(arm)).collect();
    let complete = |block: Block<'a>| -> Option<Block<'a>> {
        arms.iter()
            .map(|&arm| {
                block
                    .get(arm)
                    .filter(|row| row.status.is_usable())
                    .map(|&row| (row.arm.as_str(), row))
            })
            .collect()
    };
    let blocks: Vec<Block<'a>> = blocks.into_values().collect();
    if arms.is_empty() { Vec::new() } else { blocks.into_iter().filter_map(complete).collect() }
}

/// Whether a client that was the limit leaves nothing of a figure. For the same reason as a
/// rejected trial takes out its block, a client that was the limit in one block takes out all: what
/// is left would be the blocks in which the faster backend happened to be slow.
pub fn is_spoilt_by_client(rows: &[TrialRow], workload: &str, metric: &Metric) -> bool {
    let limited = |row: &TrialRow| {
        row.workload == workload
            && row.pass == Some(metric.pass())
            && row.status == Status::ClientLimited
    };
    !metric.stands_when_client_limited && rows.iter().any(limited)
}

/// The blocks of a workload in which every arm has this figure, and may be compared by it. An arm
/// that has it in no block takes none of the others out; nor does one that lacks it in a block
/// because messages were still owed, and that is left out itself: its other blocks are those in
/// which it happened to be fast.
pub fn blocks_with<'a>(rows: &'a [TrialRow], workload: &str, metric: &Metric) -> Vec<Block<'a>> {
    if is_spoilt_by_client(rows, workload, metric) {
        return Vec::new();
    }
    let mut blocks = complete_blocks(rows, metric.pass(), workload);
    let has = |arm: &str, block: &Block<'_>| {
        block.get(arm).is_some_and(|row| metric.value(row).is_some())
    };
    let lacks = |row: &TrialRow| row.is_saturated() && metric.value(row).is_none();
    let saturated: BTreeSet<&str> = blocks
        .iter()
        .flat_map(|block| block.iter().filter(|(_, row)| lacks(row)).map(|(arm, _)| *arm))
        .collect();
    blocks.iter_mut().for_each(|block| block.retain(|arm, _| !saturated.contains(arm)));
    let all = blocks.iter().flat_map(BTreeMap::keys).copied();
    let without: BTreeSet<&str> =
        all.filter(|arm| !blocks.iter().any(|block| has(arm, block))).collect();
    blocks.retain(|block| block.keys().all(|arm| without.contains(arm) || has(arm, block)));
    blocks
}
