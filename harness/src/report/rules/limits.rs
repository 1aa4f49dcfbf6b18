//! What an arm carries at a latency objective, and what a connection that rests takes.

use itertools::Itertools as _;

use super::series::Series;
use super::{Kind, Rule, others, sentence};
use crate::matrix::Workload;
use crate::report::tables::in_complete_blocks;
use crate::results::Run;
use crate::rows::{Bounds, KERNEL_SUM, NEVER_USED, USED_THEN_IDLE};
use crate::statistics::Interval;
use crate::text::{names, number, whole};
use crate::verdict::estimate::Estimate;
use crate::verdict::memory::slope;
use crate::verdict::metric::{self, Metric};
use crate::verdict::sweep;

/// Up to which rate of a sweep an arm keeps the objective, as in `capacity.csv`, where there are
/// intervals up to it.
pub fn capacities(run: &Run, all: &[Series]) -> Vec<Rule> {
    let sweeps = run.capacities.iter().map(|row| &row.sweep).unique();
    sweeps.filter_map(|sweep| capacity(run, all, sweep)).collect()
}

/// Mean and interval over the blocks of the 99th percentile, in µs, and how many they are. None of
/// what gets no verdict.
fn p99_us(run: &Run, workload: &str, arm: &str) -> Option<(Estimate, usize)> {
    let rows = in_complete_blocks(run, workload, arm);
    let p99_us = sweep::p99_us(&rows)?;
    let has_verdict = p99_us.bounds == Bounds::Interval95
        && !rows.iter().any(|row| run.matrix.no_verdict(row).is_some());
    has_verdict.then_some((p99_us, rows.len()))
}

fn capacity(run: &Run, all: &[Series], sweep: &str) -> Option<Rule> {
    let is_of_sweep = |workload: &&Workload| workload.sweep_of.as_deref() == Some(sweep);
    let series = all.iter().find(|series| series.workloads.iter().any(&is_of_sweep))?;
    let loops: Vec<&Workload> = run.matrix.workloads.iter().filter(is_of_sweep).collect();
    let mut kept: Vec<(&Workload, Vec<&str>)> = Vec::new();
    let mut evidence = Vec::new();
    let of_sweep = || run.capacities.iter().filter(|row| row.sweep == sweep);
    for row in of_sweep() {
        let is_kept = |workload: &&&Workload| workload.rate() <= row.kept_per_s;
        let has_interval = |workload: &&Workload| p99_us(run, &workload.name, &row.arm).is_some();
        let Some(&last) = loops.iter().take_while(is_kept).last() else { continue };
        if !loops.iter().take_while(is_kept).all(has_interval) {
            continue;
        }
        // What the next rate shows too: to miss the objective is something else than not to be
        // shown to keep it.
        let from_last = loops.iter().skip_while(|workload| workload.name != last.name).take(2);
        let readings: Vec<String> = from_last
            .filter_map(|workload| {
                let (Estimate { mean, interval, .. }, blocks) =
                    p99_us(run, &workload.name, &row.arm)?;
                let rate = number(workload.rate().unwrap_or_default());
                let [mean, low, high] =
                    [mean, interval.low, interval.high].map(|us| number(us / 1000.0));
                Some(format!("{mean} ms ({low}–{high}) at {rate}/s, {blocks} blocks"))
            })
            .collect();
        evidence.push(format!("`{}` {}", row.arm, readings.join(", ")));
        match kept.iter_mut().find(|(of, _)| of.name == last.name) {
            Some((_, arms)) => arms.push(&row.arm),
            None => kept.push((last, vec![&row.arm])),
        }
    }
    kept.sort_by(|(a, _), (b, _)| {
        b.rate_per_s.partial_cmp(&a.rate_per_s).unwrap_or(std::cmp::Ordering::Equal)
    });
    let objective = number(of_sweep().next()?.objective_p99_us / 1000.0);
    let clause = |(index, (last, arms)): (usize, &(&Workload, Vec<&str>))| {
        let what = match (index, arms.len()) {
            (0, 1) => format!(" is shown to keep p99 ≤ {objective} ms"),
            (0, _) => format!(" are shown to keep p99 ≤ {objective} ms"),
            _ => String::new(),
        };
        let is_highest = loops.last().is_some_and(|highest| highest.name == last.name);
        let end = if is_highest { ", the highest rate offered" } else { "" };
        format!(
            "{}{what} up to {}/s{end}",
            names(arms.iter().copied()),
            number(last.rate().unwrap_or_default())
        )
    };
    let clauses: Vec<String> = kept.iter().enumerate().map(clause).collect();
    let points: Vec<usize> = (0..series.workloads.len()).collect();
    (!clauses.is_empty()).then(|| Rule {
        subject: series.shape(&points),
        statement: sentence(&clauses.join("; ")),
        evidence: format!("Mean p99 of the blocks with 95 % interval: {}.", evidence.join("; ")),
        covers: kept.iter().map(|(_, arms)| arms.len() * loops.len()).sum(),
        kind: Kind::Capacity,
    })
}

/// What a connection of an arm takes more than one of the baseline, in bytes, with its interval.
#[derive(Clone)]
struct MemoryDifference {
    arm: String,
    bytes: f64,
    interval: Interval,
}

impl MemoryDifference {
    fn is_shown(&self) -> bool {
        self.interval.excludes(0.0)
    }
}

/// Of all arms whose slopes have an interval.
fn differences(run: &Run, object: &str, state: &str) -> Vec<MemoryDifference> {
    let slope = |arm: &str| {
        let row = slope(&run.memory, arm, object, state)?;
        Some((row.bytes_per_connection, row.interval()?))
    };
    let Some((base, of_base)) = slope(&run.matrix.baseline) else { return Vec::new() };
    let excess = |arm: String| {
        let (bytes, interval) = slope(&arm)?;
        Some(MemoryDifference { arm, bytes: bytes - base, interval: interval.minus(&of_base) })
    };
    others(run).filter_map(excess).collect()
}

/// The memory of which an idle connection of the arm is shown to take another amount than one of
/// the baseline, and whether it takes less.
pub fn memory_that_differs(run: &Run, arm: &str) -> Vec<(&'static str, bool)> {
    let differs = |metric: &Metric| {
        let all = differences(run, metric.object()?, USED_THEN_IDLE);
        let found = all.into_iter().find(|found| found.arm == arm && found.is_shown())?;
        Some((metric.words.noun, found.interval.high < 0.0))
    };
    metric::OF_WALKS.iter().filter_map(differs).collect()
}

/// For the kernel's memory and the server's own.
pub fn memory(run: &Run) -> Vec<Rule> {
    metric::OF_WALKS.iter().filter_map(|metric| memory_of(run, metric.object()?)).collect()
}

fn memory_of(run: &Run, object: &str) -> Option<Rule> {
    let states = [(USED_THEN_IDLE, "after it was used"), (NEVER_USED, "never used")];
    let (mut found, state) = states.into_iter().find_map(|(state, words)| {
        let found = differences(run, object, state);
        (!found.is_empty()).then_some((found, words))
    })?;
    found.sort_by(|a, b| a.bytes.total_cmp(&b.bytes));
    let baseline = &run.matrix.baseline;
    // Arms that are not told apart from the first of a group are of it.
    let mut groups: Vec<Vec<MemoryDifference>> = Vec::new();
    for excess in found.iter().filter(|excess| excess.is_shown()) {
        match groups.last_mut() {
            Some(group)
                if excess.interval.low <= group[0].interval.high
                    && excess.interval.low.signum() == group[0].interval.low.signum() =>
            {
                group.push(excess.clone());
            }
            _ => groups.push(vec![excess.clone()]),
        }
    }
    let (noun, share) = match object == KERNEL_SUM {
        true => ("kernel memory", "kernel memory"),
        false => ("the server's own memory", "of the server's own memory"),
    };
    let clause = |(index, group): (usize, &Vec<MemoryDifference>)| {
        let low = group.iter().map(|excess| excess.interval.low).fold(f64::INFINITY, f64::min);
        let high =
            group.iter().map(|excess| excess.interval.high).fold(f64::NEG_INFINITY, f64::max);
        let (least, most) = if low > 0.0 { (low, high) } else { (-high, -low) };
        let range = |write: &dyn Fn(f64) -> String| match (write(least), write(most)) {
            (least, most) if least == most => least,
            (least, most) => format!("{least}–{most}"),
        };
        let more = if low > 0.0 { "more" } else { "less" };
        let of_what =
            if index == 0 { format!(" {share} than `{baseline}`") } else { String::new() };
        let mebibytes = |bytes: f64| number(1e6 * bytes / f64::from(1 << 20));
        let verb = if group.len() == 1 { "takes" } else { "take" };
        format!(
            "{} {verb} {} bytes {more}{of_what}, {} MiB for a million of them",
            names(group.iter().map(|excess| excess.arm.as_str())),
            range(&whole),
            range(&mebibytes)
        )
    };
    let mut clauses: Vec<String> = groups.iter().enumerate().map(clause).collect();
    let alike: Vec<&str> = found
        .iter()
        .filter(|excess| !excess.is_shown())
        .map(|excess| excess.arm.as_str())
        .collect();
    if !alike.is_empty() {
        let to =
            if clauses.is_empty() { format!(" in {noun} to `{baseline}`") } else { String::new() };
        clauses.push(format!("no difference{to} is shown for {}", names(alike)));
    }
    let bytes = |excess: &MemoryDifference| {
        format!(
            "`{}` {} ({} to {})",
            excess.arm,
            whole(excess.bytes),
            whole(excess.interval.low),
            whole(excess.interval.high)
        )
    };
    Some(Rule {
        subject: format!("An idle connection, {state}"),
        statement: sentence(&clauses.join("; ")),
        evidence: format!(
            "Slope over connections less that of `{baseline}`, bytes with 95 % interval: {}.",
            found.iter().map(bytes).collect::<Vec<_>>().join("; ")
        ),
        covers: found.len(),
        kind: Kind::Memory,
    })
}
