//! The load that an arm carries at a latency objective, and the memory that a resting connection
//! takes.

use itertools::Itertools as _;

use super::rule::{Rule, RuleKind, sentence};
use super::series::Series;
use crate::matrix::Workload;
use crate::report::query::{in_complete_blocks, in_groups, others};
use crate::results::Run;
use crate::rows::{Bounds, KERNEL_SUM, NEVER_USED, USED_THEN_IDLE};
use crate::statistics::Interval;
use crate::text::{integer, quoted_list, significant};
use crate::verdict::estimate::Estimate;
use crate::verdict::memory::slope;
use crate::verdict::metric::{self, Metric};
use crate::verdict::sweep;

/// Says up to which rate of a sweep each arm keeps the objective, as in `capacity.csv`. Every rate
/// up to it has an interval.
pub fn capacities(run: &Run, all: &[Series]) -> Vec<Rule> {
    let sweeps = run.capacities.iter().map(|row| &row.sweep).unique();
    sweeps.filter_map(|sweep| capacity(run, all, sweep)).collect()
}

/// Returns the mean p99 over the blocks in µs, and the number of blocks; none without a verdict.
fn p99_us(run: &Run, workload: &str, arm: &str) -> Option<(Estimate, usize)> {
    let rows = in_complete_blocks(run, workload, arm);
    let p99_us = sweep::p99_us(&rows)?;
    let has_verdict = p99_us.bounds == Bounds::Interval95
        && !rows.iter().any(|row| run.matrix.no_verdict(row).is_some());
    has_verdict.then_some((p99_us, rows.len()))
}

fn capacity(run: &Run, all: &[Series], sweep: &str) -> Option<Rule> {
    let is_of_sweep = |workload: &Workload| workload.sweep_of.as_deref() == Some(sweep);
    let series =
        all.iter().find(|series| series.workloads.iter().any(|workload| is_of_sweep(workload)))?;
    let rates: Vec<&Workload> =
        run.matrix.workloads.iter().filter(|workload| is_of_sweep(workload)).collect();
    let rows = run.capacities.iter().filter(|row| row.sweep == sweep).collect_vec();
    let objective = significant(rows.first()?.objective_p99_us / 1000.0);
    let with_intervals = rows.iter().filter_map(|row| {
        let kept = rates.iter().take_while(|workload| workload.rate() <= row.kept_per_s);
        let kept = kept.collect_vec();
        let has_interval = |workload: &&&Workload| p99_us(run, &workload.name, &row.arm).is_some();
        kept.iter().all(has_interval).then_some((kept.len().checked_sub(1)?, row.arm.as_str()))
    });
    let with_intervals = with_intervals.collect_vec();
    // The next rate is shown too: to miss the objective is something else than not to be shown to
    // keep it.
    let mut evidence = with_intervals.iter().map(|&(last, arm)| {
        let mut readings = rates[last..].iter().take(2).filter_map(|rate| reading(run, rate, arm));
        format!("`{arm}` {}", readings.join(", "))
    });
    let evidence = evidence.join("; ");
    let kept = in_groups(with_intervals)
        .into_iter()
        .sorted_by(|(a, _), (b, _)| {
            let [a, b] = [a, b].map(|at| rates[*at].rate().unwrap_or_default());
            b.total_cmp(&a)
        })
        .collect_vec();
    let clauses = kept.iter().enumerate().map(|(index, (last, arms))| {
        let said = match (index, arms.len()) {
            (0, 1) => format!(" is shown to keep p99 ≤ {objective} ms"),
            (0, _) => format!(" are shown to keep p99 ≤ {objective} ms"),
            _ => String::new(),
        };
        let end = if last + 1 == rates.len() { ", the highest rate offered" } else { "" };
        let rate = significant(rates[*last].rate().unwrap_or_default());
        format!("{}{said} up to {rate}/s{end}", quoted_list(arms.iter().copied()))
    });
    let clauses = clauses.collect_vec();
    (!clauses.is_empty()).then(|| Rule {
        subject: series.shape(&(0..series.workloads.len()).collect_vec()),
        statement: sentence(&clauses.join("; ")),
        evidence: format!("Mean p99 of the blocks with 95 % interval: {evidence}."),
        covers: kept.iter().map(|(_, arms)| arms.len() * rates.len()).sum(),
        kind: RuleKind::Capacity,
    })
}

fn reading(run: &Run, workload: &Workload, arm: &str) -> Option<String> {
    let (Estimate { mean, interval, .. }, blocks) = p99_us(run, &workload.name, arm)?;
    let rate = significant(workload.rate().unwrap_or_default());
    let [mean, low, high] = [mean, interval.low, interval.high].map(|us| significant(us / 1000.0));
    Some(format!("{mean} ms ({low}–{high}) at {rate}/s, {blocks} blocks"))
}

/// The bytes by which a connection of an arm takes more than one of the baseline.
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

/// Returns the differences of all arms whose slopes have an interval.
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

/// Returns the kinds of memory of which an idle connection of the arm is shown to take another
/// amount than one of the baseline, and whether it takes less.
pub fn memory_that_differs(run: &Run, arm: &str) -> Vec<(&'static str, bool)> {
    let differs = |metric: &Metric| {
        let all = differences(run, metric.object()?, USED_THEN_IDLE);
        let found = all.into_iter().find(|found| found.arm == arm && found.is_shown())?;
        Some((metric.words.noun, found.interval.high < 0.0))
    };
    metric::OF_WALKS.iter().filter_map(differs).collect()
}

/// Makes the rules on the kernel's memory and on the server's own.
pub fn memory(run: &Run) -> Vec<Rule> {
    metric::OF_WALKS.iter().filter_map(|metric| memory_of(run, metric.object()?)).collect()
}

fn memory_of(run: &Run, object: &str) -> Option<Rule> {
    let states = [(USED_THEN_IDLE, "after it was used"), (NEVER_USED, "never used")];
    let (found, state) = states.into_iter().find_map(|(state, words)| {
        let found = differences(run, object, state);
        (!found.is_empty()).then_some((found, words))
    })?;
    let found = found.into_iter().sorted_by(|a, b| a.bytes.total_cmp(&b.bytes)).collect_vec();
    let (shown, alike): (Vec<_>, Vec<_>) = found.iter().partition(|found| found.is_shown());
    // Arms that are not told apart from the first of a group are of it.
    let mut groups: Vec<Vec<&MemoryDifference>> = Vec::new();
    for difference in shown {
        match groups.last_mut() {
            Some(group)
                if difference.interval.low <= group[0].interval.high
                    && difference.interval.low.signum() == group[0].interval.low.signum() =>
            {
                group.push(difference);
            }
            _ => groups.push(vec![difference]),
        }
    }
    let baseline = &run.matrix.baseline;
    let (noun, share) = if object == KERNEL_SUM {
        ("kernel memory", "kernel memory")
    } else {
        ("the server's own memory", "of the server's own memory")
    };
    let mut clauses = (groups.iter().enumerate())
        .map(|(index, group)| {
            let than = format!(" {share} than `{baseline}`");
            memory_clause(group, if index == 0 { &than } else { "" })
        })
        .collect_vec();
    if !alike.is_empty() {
        let to =
            if clauses.is_empty() { format!(" in {noun} to `{baseline}`") } else { String::new() };
        let arms = quoted_list(alike.iter().map(|found| found.arm.as_str()));
        clauses.push(format!("no difference{to} is shown for {arms}"));
    }
    let mut bytes = found.iter().map(|MemoryDifference { arm, bytes, interval }| {
        let [bytes, low, high] = [*bytes, interval.low, interval.high].map(integer);
        format!("`{arm}` {bytes} ({low} to {high})")
    });
    Some(Rule {
        subject: format!("An idle connection, {state}"),
        statement: sentence(&clauses.join("; ")),
        evidence: format!(
            "Slope over connections less that of `{baseline}`, bytes with 95 % interval: {}.",
            bytes.join("; ")
        ),
        covers: found.len(),
        kind: RuleKind::Memory,
    })
}

fn memory_clause(group: &[&MemoryDifference], than: &str) -> String {
    let low = group.iter().map(|found| found.interval.low).fold(f64::INFINITY, f64::min);
    let high = group.iter().map(|found| found.interval.high).fold(f64::NEG_INFINITY, f64::max);
    let (ends, more) = if low > 0.0 { ([low, high], "more") } else { ([-high, -low], "less") };
    let [bytes, mebibytes] =
        [ends.map(integer), ends.map(|bytes| significant(1e6 * bytes / f64::from(1 << 20)))]
            .map(|[least, most]| if least == most { least } else { format!("{least}–{most}") });
    let verb = if group.len() == 1 { "takes" } else { "take" };
    let arms = quoted_list(group.iter().map(|found| found.arm.as_str()));
    format!("{arms} {verb} {bytes} bytes {more}{than}, {mebibytes} MiB for a million of them")
}
