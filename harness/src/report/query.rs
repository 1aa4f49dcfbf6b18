//! The questions that tables, charts and sentences ask of a run, and their answers in writing.

use itertools::{Itertools as _, iproduct};
use serde_json::Value;

use super::table::MISSING;
use crate::load::limits::Churn;
use crate::machine::path::PathKind;
use crate::matrix::Workload;
use crate::results::Run;
use crate::rows::{Bounds, ComparisonRow, Pass, Status, TrialRow, Verdict};
use crate::statistics::median;
use crate::text::{grouped, significant};
use crate::verdict::blocks::{Block, complete_blocks, is_seldom};
use crate::verdict::metric::Metric;
use crate::verdict::readings::reading;

/// Fewer bytes per connection than this are not shown; memory.csv has all.
pub const SHOWN_BYTES: f64 = 8.0;

pub fn text_at<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or("unknown")
}

/// Groups values by key. The groups stand in the order of their first values.
pub fn in_groups<K: PartialEq, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut groups: Vec<(K, Vec<V>)> = Vec::new();
    for (key, value) in pairs {
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, values)) => values.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups
}

/// Describes what decides when messages are sent, and what else a workload asks for.
pub fn describe_load(workload: &Workload) -> String {
    let mut words = match workload.rate() {
        None if workload.is_stream() => "a stream".to_owned(),
        None => format!("closed loop, {} in flight", workload.pipeline),
        Some(rate) => format!("open loop, {}, {}/s", workload.arrival().name(), significant(rate)),
    };
    for (value, before, after) in [
        (workload.churn.map(Churn::get), "echoes per connection: ", ""),
        (workload.work_ns, "", " ns of work"),
        (workload.workers.map(u64::from), "", " workers"),
    ] {
        if let Some(value) = value {
            words += &format!(", {before}{}{after}", grouped(value));
        }
    }
    if workload.path != PathKind::Loopback {
        words += &format!(", over {}", workload.path.name());
    }
    if let Some(mtu) = workload.mtu {
        words += &format!(", MTU {}", grouped(mtu.into()));
    }
    if let Some(congestion) = &workload.congestion {
        words += &format!(", {congestion}");
    }
    if let Some(quota) = workload.cpu_quota {
        words += &format!(", {quota} of a CPU");
    }
    if let Some(close) = workload.close {
        words += &format!(", closed by {}", close.name());
    }
    words + if workload.idle_spinner { ", no CPU halts" } else { "" }
}

/// Returns the arms in the order of the matrix, the baseline's second reading after its first.
pub fn arms(run: &Run) -> Vec<String> {
    let baseline = &run.matrix.baseline;
    let mut arms: Vec<String> = run.matrix.arms().collect();
    if let Some(at) = arms.iter().position(|arm| arm == baseline) {
        arms.insert(at + 1, reading(baseline, 2));
    }
    arms
}

/// Trials of an arm under a workload.
pub struct ArmTrials<'a> {
    pub run: &'a Run,
    pub workload: &'a str,
    pub arm: String,
    pub trials: Vec<&'a TrialRow>,
}

impl<'a> ArmTrials<'a> {
    /// Returns every trial of a pass, by workload and arm.
    pub fn of_pass(run: &'a Run, pass: Pass) -> Vec<Self> {
        let rows: Vec<_> = run.trials.iter().filter(|row| row.pass == Some(pass)).collect();
        let workloads = rows.iter().map(|row| row.workload.as_str()).unique();
        iproduct!(workloads, arms(run))
            .map(|(workload, arm)| {
                let is_of_arm = |row: &&&TrialRow| row.workload == workload && row.arm == arm;
                let trials = rows.iter().filter(is_of_arm).copied().collect();
                Self { run, workload, arm, trials }
            })
            .filter(|arm| !arm.trials.is_empty())
            .collect()
    }

    /// Returns the trials of the blocks that count.
    pub fn in_complete_blocks(run: &'a Run, workload: &'a str, arm: String) -> Self {
        let blocks = complete_blocks(&run.trials, Pass::Latency, workload);
        Self::of_blocks(run, workload, arm, &blocks)
    }

    pub fn of_blocks(run: &'a Run, workload: &'a str, arm: String, blocks: &[Block<'a>]) -> Self {
        let trials = blocks.iter().filter_map(|block| block.get(&*arm).copied()).collect();
        Self { run, workload, arm, trials }
    }

    /// Writes the median of a figure.
    pub fn median(&self, value: fn(&TrialRow) -> Option<f64>) -> String {
        let usable = self.trials.iter().filter(|row| row.status.is_usable());
        match median(&mut usable.filter_map(|row| row.latency_or_beyond(value)).collect_vec()) {
            None => MISSING.to_owned(),
            Some(f64::INFINITY) => "saturated".to_owned(),
            Some(median) => significant(median),
        }
    }

    pub fn against(&self, metric: &Metric, other: &str) -> String {
        comparison(self.run, self.workload, metric, &self.arm, other)
            .map_or(MISSING.to_owned(), ratio)
    }

    /// Writes the ratio to the baseline; for the baseline's second reading, whether they agree.
    pub fn against_baseline(&self, metric: &Metric) -> String {
        let baseline = &self.run.matrix.baseline;
        if self.arm == *baseline {
            return "1 (baseline)".to_owned();
        }
        self.against(metric, baseline)
    }

    /// Writes in how many of the trials the client was the limit.
    pub fn client_limited(&self) -> String {
        let limited = self.trials.iter().filter(|row| row.status == Status::ClientLimited).count();
        format!("{limited} of {}", self.trials.len())
    }

    pub fn blocks(&self) -> String {
        self.trials.len().to_string()
    }

    /// Returns the first trial whose calls may be used, or the last one.
    pub fn counted(&self) -> Option<&'a TrialRow> {
        self.trials.iter().find(|row| row.status == Status::Ok).or(self.trials.last()).copied()
    }
}

/// Returns the arm's trials in blocks that count: those that ratios are over.
pub fn in_complete_blocks<'a>(run: &'a Run, workload: &str, arm: &str) -> Vec<&'a TrialRow> {
    let blocks = complete_blocks(&run.trials, Pass::Latency, workload);
    blocks.iter().filter_map(|block| block.get(arm).copied()).collect()
}

/// Returns the trial in which an arm's calls under a workload were counted.
pub fn counted_trial<'a>(run: &'a Run, workload: &str, arm: &str) -> Option<&'a TrialRow> {
    run.trials.iter().find(|row| {
        row.pass == Some(Pass::Syscalls)
            && row.workload == workload
            && row.arm == arm
            && row.status == Status::Ok
    })
}

/// The trials of an arm that has no figures in a pass, with one kind of reason.
pub struct Absence<'a>(Vec<&'a TrialRow>);

impl<'a> Absence<'a> {
    pub fn arm(&self) -> &'a str {
        &self.0[0].arm
    }

    pub fn workloads(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(|row| row.workload.as_str()).unique()
    }

    /// Returns the workloads, and the reason.
    pub fn why(&self) -> String {
        let TrialRow { status, reason, .. } = self.0[0];
        let times = match self.0.len() {
            // An unsupported arm is so in every trial.
            trials if trials > 1 && *status != Status::Unsupported => format!(" ({trials} trials)"),
            _ => String::new(),
        };
        format!("in {}: {}{times}: {reason}", self.workloads().join(", "), status.word())
    }
}

/// Returns one absence for each arm without figures in a pass and kind of reason. Reasons that
/// differ in their numbers alone are of one kind, and the first stands for all.
pub fn absences(run: &Run, pass: Pass) -> Vec<Absence<'_>> {
    let (usable, unusable): (Vec<&TrialRow>, Vec<&TrialRow>) = (run.trials.iter())
        .filter(|row| row.pass == Some(pass))
        .partition(|row| row.status.is_usable());
    let has_figures = |row: &TrialRow| {
        usable.iter().any(|other| other.workload == row.workload && other.arm == row.arm)
            && !is_seldom(&run.trials, pass, &row.workload, &row.arm)
    };
    let absent = unusable.into_iter().filter(|row| !has_figures(row)).map(|row| {
        let kind = row.reason.replace(|letter: char| letter.is_ascii_digit(), "");
        ((&row.arm, row.status, kind), row)
    });
    in_groups(absent).into_iter().map(|(_, trials)| Absence(trials)).collect()
}

/// Returns the same as lines of a list.
pub fn absent(run: &Run, pass: Pass) -> String {
    let line =
        |absence: &Absence| format!("- `{}` has no figures {}\n", absence.arm(), absence.why());
    absences(run, pass).iter().map(line).collect()
}

pub fn comparison<'a>(
    run: &'a Run,
    workload: &str,
    metric: &Metric,
    arm: &str,
    baseline: &str,
) -> Option<&'a ComparisonRow> {
    of_metric(run, metric)
        .find(|row| row.workload == workload && row.arm == arm && row.baseline == baseline)
}

fn of_metric<'a>(run: &'a Run, metric: &Metric) -> impl Iterator<Item = &'a ComparisonRow> {
    run.comparisons.iter().filter(|row| row.metric == metric.name)
}

/// Writes a ratio, its interval, and the verdict if there is one.
pub fn ratio(row: &ComparisonRow) -> String {
    let verdict = match row.verdict {
        Verdict::FewBlocks | Verdict::Counted | Verdict::OneWalk => None,
        verdict => Some(verdict),
    };
    ratio_of_bounds(row.ratio, row.ratio_low, row.ratio_high, verdict)
}

pub fn ratio_of_bounds(ratio: f64, low: f64, high: f64, verdict: Option<Verdict>) -> String {
    let words = verdict.map_or(String::new(), |verdict| format!(" {}", verdict.words()));
    bounded(ratio, low, high, 2) + &words
}

/// Writes a ratio and its bounds, with so many decimals. One block has no bounds.
pub fn bounded(ratio: f64, low: f64, high: f64, decimals: usize) -> String {
    if low == high {
        return format!("{ratio:.decimals$}");
    }
    format!("{ratio:.decimals$} ({low:.decimals$}–{high:.decimals$})")
}

/// Returns how many decimals ratios need whose bounds lie so near to each other.
pub fn decimals(low: f64, high: f64) -> usize {
    if high / low < 1.1 { 3 } else { 2 }
}

/// Returns what stands in brackets after the ratios of a metric.
pub fn bounds(run: &Run, metric: &Metric) -> &'static str {
    let has = |bounds| of_metric(run, metric).any(|row| row.bounds == bounds);
    match (has(Bounds::Range), has(Bounds::Interval95)) {
        (true, true) => "95 % interval, or range below six blocks",
        (false, true) => "95 % interval",
        _ => "range",
    }
}
