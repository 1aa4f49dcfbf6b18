//! Which trials a run makes, and in which order. The matrix, the seed and the rows so far decide,
//! and nothing else, so that an interrupted run resumes as it would have gone on.

use std::collections::VecDeque;

use anyhow::Result;
use itertools::Itertools as _;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use ringmark::backend;

use crate::matrix::{Arm, Latency, Matrix, Workload};
use crate::rows::{Pass, Status, TrialRow};
use crate::trial::{Task, Trial};
use crate::verdict::measured::Measured;
use crate::verdict::{blocks, comparisons, readings, sweep};

/// Deals a run's trials block by block: all arms of a workload once, in an order of their own.
pub struct Planner {
    matrix: Matrix,
    /// The matrix with the rates of its sweeps, if they are known from elsewhere.
    given: Option<Matrix>,
    /// Whether `matrix` has got such rates.
    has_rates: bool,
    random: StdRng,
    /// Blocks to be dealt, by number.
    ahead: VecDeque<(u32, Task)>,
    /// How many trials were dealt.
    count: u32,
    /// The trials that were dealt last: a block, or those of it that were run again.
    last: Vec<Trial>,
    /// How often trials of the block may still be run again.
    tries: u32,
    /// The place in the block of the trial that was dealt last.
    order: u32,
}

/// A rejected trial is retried this often at the end of its block, where its neighbours still are.
/// If that does not help, the block is lost.
const TRIES: u32 = 2;

/// A workload whose blocks lost trials to the gates gets up to this share of its blocks in
/// addition, rounded up: enough for a busy moment, and an end for a machine that is never quiet.
const ADDITIONAL_SHARE: f64 = 0.25;

/// Closed-loop trials of the baseline from which the rates of a sweep follow: enough for a median.
const CAPACITY_TRIALS: u32 = 3;

/// No arm stands farther than half of so many trials from a reading of the baseline.
const ARMS_BETWEEN_READINGS: usize = 4;

/// Returns how often the baseline runs in a block of so many arms, itself included: before, after
/// and between every four others.
fn readings_of_baseline(arms: usize) -> usize {
    arms.saturating_sub(1).div_ceil(ARMS_BETWEEN_READINGS).max(1) + 1
}

/// Puts the baseline's readings before, after and evenly between the other arms.
fn spread(arms: Vec<(String, Arm)>, baseline: &str) -> Vec<(String, Arm)> {
    let is_reading = |(role, _): &(String, Arm)| readings::number(role, baseline).is_some();
    let (readings, others): (Vec<_>, Vec<_>) = arms.into_iter().partition(is_reading);
    let gaps = readings.len().saturating_sub(1).max(1);
    let end = |place: usize| (others.len() * place).div_ceil(gaps).min(others.len());
    let mut spread = Vec::new();
    for (place, reading) in readings.into_iter().enumerate() {
        spread.push(reading);
        spread.extend_from_slice(&others[end(place)..end(place + 1)]);
    }
    spread
}

impl Planner {
    /// Plans a run; `given` is the matrix with the rates of its sweeps, if an earlier run found
    /// them.
    pub fn new(matrix: Matrix, given: Option<Matrix>, seed: u64) -> Self {
        let ahead = planned(&matrix);
        Self {
            matrix,
            given,
            has_rates: false,
            random: StdRng::seed_from_u64(seed),
            ahead,
            count: 0,
            last: Vec::new(),
            tries: 0,
            order: 0,
        }
    }

    /// Returns the matrix, in which sweeps have got their rates as soon as these are known.
    pub fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// Returns the matrix if it has got rates, or is to get given ones.
    pub fn expanded(&self) -> Option<&Matrix> {
        if self.has_rates { Some(&self.matrix) } else { self.given.as_ref() }
    }

    /// Returns how many trials were dealt.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Returns the blocks that are ahead as far as that is known, each with its number of trials.
    pub fn ahead(&self) -> impl Iterator<Item = (&Task, usize)> {
        self.ahead.iter().map(|(_, task)| (task, self.arms(task.pass()).len()))
    }

    /// Returns the next block, or those of the last one that are to be run again, now that there
    /// are these rows; none when the run is complete.
    ///
    /// # Errors
    /// When the baseline gave no capacity from which the rates of a sweep could follow.
    pub fn next(&mut self, measured: Measured<'_>) -> Result<Option<Vec<Trial>>> {
        let rows = measured.trials;
        self.last = self.retries(rows);
        if !self.last.is_empty() {
            return Ok(Some(self.last.clone()));
        }
        loop {
            while let Some((number, task)) = self.ahead.pop_front() {
                if !self.is_done(&task, measured) {
                    self.last = self.block(number, task);
                    return Ok(Some(self.last.clone()));
                }
            }
            self.ahead = self.additional(measured);
            if !self.ahead.is_empty() {
                continue;
            }
            if sweep::unknown(&self.matrix).next().is_none() {
                return Ok(None);
            }
            let expanded = match self.given.take() {
                Some(given) => given,
                None => sweep::expanded(&self.matrix, rows)?,
            };
            self.expand(expanded);
        }
    }

    fn expand(&mut self, expanded: Matrix) {
        (self.matrix, self.has_rates) = (expanded, true);
        self.ahead = planned(&self.matrix);
    }

    /// Returns all that would be dealt if no trial was rejected and no workload ended early. Sweeps
    /// whose rates are not given have no trials.
    pub fn undisturbed(mut self) -> Vec<Trial> {
        let mut trials = Vec::new();
        loop {
            while let Some((number, task)) = self.ahead.pop_front() {
                trials.extend(self.block(number, task));
            }
            match self.given.take() {
                Some(given) => self.expand(given),
                None => return trials,
            }
        }
    }

    /// Returns the arms of a block of that pass with their roles, in the order of the matrix.
    fn arms(&self, pass: Pass) -> Vec<(String, Arm)> {
        let baseline = &self.matrix.baseline;
        let mut arms: Vec<_> =
            self.matrix.backends.iter().map(|arm| (arm.name(), arm.clone())).collect();
        match pass {
            Pass::Syscalls | Pass::Hardware | Pass::Instructions => {}
            Pass::Memory | Pass::Scale => {
                let floor = Arm { backend: backend::FLOOR.to_owned(), ..Arm::default() };
                arms.push((floor.name(), floor));
            }
            Pass::Capacity => arms.retain(|(name, _)| name == baseline),
            Pass::Latency => {
                let arm = arms.iter().find(|(name, _)| name == baseline).cloned();
                let more = 2..=readings_of_baseline(arms.len());
                arms.extend(
                    arm.into_iter()
                        .cartesian_product(more)
                        .map(|((_, arm), number)| (readings::reading(baseline, number), arm)),
                );
            }
        }
        arms
    }

    /// Returns the rejected trials of the last block, to be run once more; all of them if they take
    /// turns.
    fn retries(&mut self, rows: &[TrialRow]) -> Vec<Trial> {
        let Some(tries) = self.tries.checked_sub(1) else { return Vec::new() };
        self.tries = tries;
        let mut trials = std::mem::take(&mut self.last);
        let is_rejected = |Trial { run_id, task, role, .. }: &Trial| {
            let row = rows.iter().rev().find(|row| row.run_id == *run_id);
            row.is_some_and(|row| row.status == Status::Rejected)
                && !blocks::is_given_up(rows, task.pass(), task.name(), role)
        };
        let are_together = trials.iter().all(|trial| trial.task.is_of_a_set());
        if !are_together || !trials.iter().any(is_rejected) {
            trials.retain(is_rejected);
        }
        for trial in &mut trials {
            (self.count, self.order) = (self.count + 1, self.order + 1);
            (trial.run_id, trial.order) = (self.count, self.order);
        }
        trials
    }

    fn block(&mut self, number: u32, task: Task) -> Vec<Trial> {
        self.tries = if task.pass().is_tried_again() { TRIES } else { 0 };
        let mut arms = self.arms(task.pass());
        // A boot counts what another boot counted only if it does the same in the same order.
        if task.pass() != Pass::Instructions {
            arms.shuffle(&mut self.random);
        }
        if task.pass() == Pass::Latency {
            arms = spread(arms, &self.matrix.baseline);
        }
        self.order = arms.len() as u32;
        let trials = arms.into_iter().zip(1..).map(|((role, arm), order)| {
            self.count += 1;
            Trial { run_id: self.count, block: number, order, role, arm, task: task.clone() }
        });
        trials.collect()
    }

    /// Returns whether a workload needs no more blocks although the matrix allows them.
    fn is_done(&self, task: &Task, measured: Measured<'_>) -> bool {
        task.pass() == Pass::Latency && comparisons::is_precise(measured, task.name(), &self.matrix)
    }

    /// Returns one more block of each workload that has fewer than it should and may have more.
    fn additional(&self, measured: Measured<'_>) -> VecDeque<(u32, Task)> {
        let rows = measured.trials;
        let mut more = VecDeque::new();
        for pass in self.matrix.passes() {
            for task in tasks(&self.matrix, pass) {
                let (planned, additional) = block_counts(&task);
                let own: Vec<_> = rows
                    .iter()
                    .filter(|row| row.pass == Some(pass) && row.workload == task.name())
                    .collect();
                // A workload that is unsupported stays so.
                if own.iter().all(|row| row.status == Status::Unsupported) {
                    continue;
                }
                let last = own.iter().map(|row| row.block).max().unwrap_or_default();
                let complete = blocks::complete_blocks(rows, pass, task.name()).len() as u32;
                if complete < planned
                    && last < planned + additional
                    && !self.is_done(&task, measured)
                {
                    more.push_back((last + 1, task));
                }
            }
        }
        more
    }
}

/// Returns what each workload is in a pass.
fn tasks(matrix: &Matrix, pass: Pass) -> Vec<Task> {
    let Matrix { workloads, syscalls, hardware, instructions, memory, scale, latency, .. } = matrix;
    match pass {
        Pass::Memory => memory.iter().cloned().map(Task::Memory).collect(),
        Pass::Scale => scale.iter().cloned().map(Task::Scale).collect(),
        Pass::Syscalls => {
            let all = workloads.iter().cloned().zip(syscalls.iter().cycle());
            all.map(|(workload, syscalls)| Task::Syscalls(workload, syscalls.echoes)).collect()
        }
        Pass::Hardware => {
            let all = workloads.iter().cloned().zip(hardware.iter().cycle());
            all.map(|(workload, hardware)| Task::Hardware(workload, hardware.echoes)).collect()
        }
        Pass::Instructions => {
            let all = workloads.iter().cloned().zip(instructions.iter().cycle().cloned());
            all.map(|(workload, instructions)| Task::Instructions(workload, instructions)).collect()
        }
        Pass::Capacity => {
            let unknown = sweep::unknown(matrix).cloned().zip(latency.iter().cycle().cloned());
            unknown.map(|(workload, latency)| Task::Capacity(workload, latency)).collect()
        }
        Pass::Latency => {
            let all = workloads.iter().cloned().zip(latency.iter().cycle().cloned());
            let task = |(workload, latency): (Workload, Latency)| {
                if workload.may_take_turns() && latency.interleaved.is_some() {
                    Task::Interleaved(workload, latency)
                } else {
                    Task::Latency(workload, latency)
                }
            };
            all.map(task).collect()
        }
    }
}

/// Returns how many blocks of a workload shall count in a pass, and how many more may be run to get
/// there. A walk takes minutes and gives no ratio within its block, so it is not repeated.
fn block_counts(task: &Task) -> (u32, u32) {
    let planned = match task {
        Task::Capacity(..) => CAPACITY_TRIALS,
        Task::Latency(_, latency) => latency.blocks,
        Task::Interleaved(_, latency) => latency.interleaved.as_ref().map_or(1, |turns| turns.sets),
        Task::Instructions(_, instructions) => instructions.blocks(),
        Task::Syscalls(..) | Task::Hardware(..) | Task::Memory(_) | Task::Scale(_) => 1,
    };
    let additional = (f64::from(planned) * ADDITIONAL_SHARE).ceil() as u32;
    (planned, if task.pass().is_tried_again() { additional } else { 0 })
}

/// Returns the blocks that a matrix asks for, in the order in which they run: one of each workload
/// in turn. While the rates of its sweeps are not known, these are the ones that find them.
fn planned(matrix: &Matrix) -> VecDeque<(u32, Task)> {
    let mut planned = VecDeque::new();
    for pass in matrix.passes() {
        let tasks = tasks(matrix, pass);
        let most = tasks.iter().map(|task| block_counts(task).0).max().unwrap_or_default();
        for number in 1..=most {
            let wanted = tasks.iter().filter(|task| number <= block_counts(task).0);
            planned.extend(wanted.map(|task| (number, task.clone())));
        }
    }
    planned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick() -> Matrix {
        toml::from_str(
            r#"
            question = "q"
            baseline = "epoll-et"
            backends = [
                { backend = "epoll-document" },
                { backend = "epoll-et" },
                { backend = "uring-multishot" },
            ]
            [latency]
            blocks = 3
            duration = "800ms"
            warmup_max = "500ms"
            [syscalls]
            echoes = 10000
            [memory]
            question = "q"
            connections = [1024, 2048]
            message_bytes = 64
            [[workload]]
            name = "one"
            question = "q"
            connections = 1
            message_bytes = 64
            [[workload]]
            name = "many"
            question = "q"
            connections = 64
            message_bytes = 64
            "#,
        )
        .expect("is good")
    }

    /// Arms by place, and the places of the baseline.
    fn order(arms: usize, seed: u64) -> (Vec<String>, Vec<usize>) {
        let backends = (0..arms).map(|arm| format!("{{ backend = \"b{arm}\" }}")).join(", ");
        let text = format!(
            "question = \"q\"\nbaseline = \"b0\"\nbackends = [{backends}]\n\
             [latency]\nblocks = 1\nduration = \"1s\"\nwarmup_max = \"0s\"\n\
             [[workload]]\nname = \"w\"\nquestion = \"q\"\nconnections = 1\n\
             message_bytes = 1\n"
        );
        let matrix: Matrix = toml::from_str(&text).expect("a matrix");
        let trials = Planner::new(matrix, None, seed).undisturbed();
        let roles = trials.into_iter().map(|trial| trial.role).collect_vec();
        let is_reading = |role: &String| readings::number(role, "b0").is_some();
        let places = roles.iter().positions(is_reading).collect_vec();
        (roles, places)
    }

    #[test]
    fn no_arm_stands_farther_than_two_trials_from_the_baseline() {
        for arms in 1..24 {
            let (roles, places) = order(arms, arms as u64);
            let is_near = |place: usize| places.iter().any(|own| own.abs_diff(place) <= 2);
            assert!((0..roles.len()).all(is_near), "{roles:?}");
            assert!(places.len() >= 2 && places[0] == 0, "{roles:?}");
            assert_eq!(places.last(), Some(&(roles.len() - 1)), "{roles:?}");
            assert_eq!(roles.iter().unique().count(), roles.len());
        }
        assert_ne!(order(9, 1).0, order(9, 2).0, "shuffled");
    }

    /// Returns the row of a trial. `lost` names those that are rejected: workload, block and arm.
    fn row(trial: &Trial, lost: &[(&str, u32, &str)]) -> TrialRow {
        let is_lost = lost.contains(&(trial.task.name(), trial.block, &trial.role));
        TrialRow {
            run_id: trial.run_id,
            pass: Some(trial.task.pass()),
            workload: trial.task.name().to_owned(),
            block: trial.block,
            order: trial.order,
            arm: trial.role.clone(),
            achieved_per_s: Some(100_000.0),
            server_cpu_ns_per_echo: Some(1000.0),
            latency_p99_us: Some(100.0),
            status: if is_lost { Status::Rejected } else { Status::Ok },
            ..TrialRow::default()
        }
    }

    /// All rows of a run.
    fn rows(matrix: &Matrix, seed: u64, lost: &[(&str, u32, &str)]) -> Vec<TrialRow> {
        let mut planner = Planner::new(matrix.clone(), None, seed);
        let mut rows: Vec<TrialRow> = Vec::new();
        while let Some(trials) = planner.next(Measured::of(&rows)).expect("a capacity") {
            rows.extend(trials.iter().map(|trial| row(trial, lost)));
            assert_eq!(rows.len(), planner.count());
        }
        assert!(
            rows.iter().zip(1..).all(|(row, number)| row.run_id == number),
            "numbered in their order"
        );
        rows
    }

    const ARMS: [&str; 4] = ["epoll-document", "epoll-et", "epoll-et (again)", "uring-multishot"];

    #[test]
    fn every_block_holds_every_arm_once_in_an_order_of_its_own() {
        let matrix = quick();
        let all = rows(&matrix, 7, &[]);
        let arms = |pass, block, workload: &str| -> Vec<&str> {
            let is_of_block = |row: &&TrialRow| {
                row.pass == Some(pass) && row.block == block && row.workload == workload
            };
            all.iter().filter(is_of_block).map(|row| row.arm.as_str()).collect()
        };
        let mut orders = Vec::new();
        for block in 1..=matrix.latency.as_ref().expect("given").blocks {
            for workload in &matrix.workloads {
                let mut arms = arms(Pass::Latency, block, &workload.name);
                orders.push(arms.clone());
                arms.sort_unstable();
                assert_eq!(arms, ARMS);
            }
        }
        orders.dedup();
        assert!(orders.len() > 1, "shuffled");
        assert!(arms(Pass::Memory, 1, "memory").contains(&"null"));
        assert_eq!(rows(&matrix, 7, &[]), all, "the seed repeats the order");
        assert_ne!(rows(&matrix, 8, &[]), all);
    }

    /// The blocks of a workload in the latency pass, with how many trials each has.
    fn blocks(rows: &[TrialRow], workload: &str) -> Vec<(u32, usize)> {
        let of_workload: Vec<_> = rows
            .iter()
            .filter(|row| row.pass == Some(Pass::Latency) && row.workload == workload)
            .collect();
        let runs = of_workload.chunk_by(|a, b| a.block == b.block);
        runs.map(|block| (block[0].block, block.len())).collect()
    }

    #[test]
    fn a_trial_that_is_turned_away_is_run_again_at_the_end_of_its_block() {
        let mut matrix = quick();
        matrix.latency.as_mut().expect("given").blocks = 10;
        matrix.workloads.truncate(2);
        let names: Vec<_> = matrix.workloads.iter().map(|workload| workload.name.clone()).collect();
        let all = rows(&matrix, 7, &[(&names[1], 3, ARMS[0]), (&names[1], 8, ARMS[3])]);
        // Twice, and as it is lost all the same, there are other blocks for it, at the end.
        let expected: Vec<(u32, usize)> =
            (1..=12).map(|block| (block, if block == 3 || block == 8 { 6 } else { 4 })).collect();
        assert_eq!(blocks(&all, &names[1]), expected);
        assert_eq!(blocks(&all, &names[0]).len(), 10);
        let again: Vec<_> = all
            .iter()
            .filter(|row| row.workload == names[1] && row.block == 3 && row.arm == ARMS[0])
            .map(|row| row.order)
            .collect();
        assert_eq!(again[1..], [5, 6]);
        assert_eq!(blocks::complete_blocks(&all, Pass::Latency, &names[1]).len(), 10);
    }

    #[test]
    fn on_a_machine_that_is_never_quiet_it_ends_after_a_quarter_more() {
        let mut matrix = quick();
        matrix.latency.as_mut().expect("given").blocks = 10;
        matrix.workloads.truncate(1);
        let name = matrix.workloads[0].name.clone();
        let lost: Vec<_> =
            (2..=20).map(|block| (name.as_str(), block, ARMS[block as usize % 4])).collect();
        assert_eq!(blocks(&rows(&matrix, 7, &lost), &name).len(), 13);
        // One arm that stands too seldom costs the others nothing.
        let lost: Vec<_> = (8..=20).map(|block| (name.as_str(), block, ARMS[1])).collect();
        assert_eq!(blocks(&rows(&matrix, 7, &lost), &name).len(), 10);
        // An arm that never stands is given up, and costs no more tries.
        let lost: Vec<_> = (1..=20).map(|block| (name.as_str(), block, ARMS[0])).collect();
        let trials: Vec<usize> =
            blocks(&rows(&matrix, 7, &lost), &name).iter().map(|(_, trials)| *trials).collect();
        assert_eq!(trials, [6, 6, 4, 4, 4, 4, 4, 4, 4, 4]);
    }

    #[test]
    fn what_is_unsupported_is_not_tried_again() {
        let mut planner = Planner::new(quick(), None, 7);
        let mut rows: Vec<TrialRow> = Vec::new();
        while let Some(trials) = planner.next(Measured::of(&rows)).expect("no sweep") {
            let unsupported = |trial| TrialRow { status: Status::Unsupported, ..row(trial, &[]) };
            rows.extend(trials.iter().map(unsupported));
        }
        assert_eq!(rows.len(), Planner::new(quick(), None, 7).undisturbed().len());
    }

    #[test]
    fn a_workload_ends_when_it_is_precise_enough() {
        let mut matrix = quick();
        let latency = matrix.latency.as_mut().expect("given");
        (latency.blocks, latency.precision_percent) = (30, Some(2.0));
        // All readings are alike here: the intervals have no width.
        let all = rows(&matrix, 7, &[]);
        assert!(matrix.workloads.iter().all(|workload| blocks(&all, &workload.name).len() == 10));
    }

    #[test]
    fn the_rates_of_a_sweep_come_from_the_baselines_capacity() {
        let mut matrix = quick();
        matrix.workloads.truncate(1);
        (matrix.workloads[0].sweep, matrix.memory) = (vec![0.1, 0.5], None);
        let name = matrix.workloads[0].name.clone();
        let all = rows(&matrix, 7, &[]);
        let capacity = |row: &&TrialRow| row.pass == Some(Pass::Capacity);
        assert_eq!(
            all.iter().filter(capacity).map(|row| row.arm.as_str()).collect::<Vec<_>>(),
            ["epoll-et"; 3]
        );
        for rate in ["10000", "50000"] {
            assert_eq!(blocks(&all, &format!("{name}@{rate}")).len(), 3);
        }
        assert!(blocks(&all, &name).is_empty());

        let mut planner = Planner::new(matrix, None, 7);
        let mut rows: Vec<TrialRow> = Vec::new();
        let error = loop {
            match planner.next(Measured::of(&rows)) {
                Ok(trials) => rows.extend(trials.expect("an error").iter().map(|trial| TrialRow {
                    status: Status::Failed,
                    reason: "it did not start".to_owned(),
                    ..row(trial, &[])
                })),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("no rates") && error.contains("it did not start"), "{error}");
    }

    #[test]
    fn a_quarter_of_the_blocks_may_be_run_again() {
        let mut matrix = quick();
        for (planned, additional) in [(1, 1), (3, 1), (4, 1), (10, 3), (1000, 250)] {
            matrix.latency.as_mut().expect("given").blocks = planned;
            let counts = tasks(&matrix, Pass::Latency).iter().map(block_counts).collect_vec();
            assert!(counts.iter().all(|counts| *counts == (planned, additional)));
        }
        assert_eq!(block_counts(&tasks(&matrix, Pass::Syscalls)[0]), (1, 1));
        assert_eq!(block_counts(&tasks(&matrix, Pass::Memory)[0]), (1, 0));
    }
}
