//! Arms against the baseline and against the arm that each stands on: ratios within blocks.

use itertools::Itertools as _;

use super::blocks::{Block, blocks_with, complete_blocks, rounds, values};
use super::contrast::{BlockValues, Contrast};
use super::judge::{self, Comparison, Names};
use super::measured::Measured;
use super::metric::{self, Metric};
use super::{instructions, memory, readings};
use crate::matrix::{BLOCKS_FOR_VERDICT, Matrix};
use crate::rows::{ComparisonRow, Pass, TrialRow, Verdict};
use crate::statistics::Differences;

/// If the client's lag in sending accounts for more than this share of a difference in latency, the
/// difference is not the servers' alone.
const SEND_LAG_SHARE: f64 = 0.1;

/// The standard deviation of the baseline's readings of CPU within their blocks, as a logarithm,
/// above which the machine was restless. On a quiet one it is 0.01 to 0.02.
const RESTLESS_SD: f64 = 0.15;

/// Returns every comparison of the matrix that the rows allow.
pub fn compare(measured: Measured<'_>, matrix: &Matrix) -> Vec<ComparisonRow> {
    let workloads: Vec<&String> = measured
        .trials
        .iter()
        .filter(|row| row.pass != Some(Pass::Memory))
        .map(|row| &row.workload)
        .unique()
        .collect();
    let checked =
        metric::OF_TRIALS.iter().map(|metric| Checked::new(measured, &workloads, metric, matrix));
    let checked: Vec<Checked> = checked.collect();
    let of_cpu = checked.iter().filter(|of_metric| *of_metric.metric == metric::CPU);
    let restless: Vec<&str> = of_cpu.flat_map(Checked::restless).collect();
    let mut comparisons: Vec<ComparisonRow> =
        checked.iter().flat_map(|of_metric| of_metric.compared(&restless)).collect();
    comparisons.extend(memory::compare(measured.memory, &matrix.comparisons()));
    comparisons.extend(instructions::compare(measured.instructions, &matrix.comparisons()));
    comparisons
}

/// A metric with the checks of the baseline under each workload.
struct Checked<'a> {
    metric: &'a Metric,
    matrix: &'a Matrix,
    samples: Vec<Sample<'a>>,
    checks: Vec<ComparisonRow>,
}

impl<'a> Checked<'a> {
    fn new(
        measured: Measured<'a>,
        workloads: &[&'a String],
        metric: &'a Metric,
        matrix: &'a Matrix,
    ) -> Self {
        let sample = |workload: &&'a String| Sample::new(measured, workload, metric, matrix);
        let samples: Vec<Sample> = workloads.iter().map(sample).collect();
        let checks = judge::judge_checks(samples.iter().filter_map(Sample::check).collect());
        Self { metric, matrix, samples, checks }
    }

    /// Returns whether the baseline's readings of this figure differ from each other.
    fn is_failed(&self, workload: &str) -> bool {
        let of_workload = self.checks.iter().find(|row| row.workload == workload);
        of_workload.is_some_and(|row| row.verdict == Verdict::CheckFailed)
    }

    /// Returns the workloads under which the baseline's readings differ, or scatter, too much.
    fn restless(&self) -> impl Iterator<Item = &'a str> {
        let scatters = |sample: &&Sample| {
            // Whole sets count: the scatter of their turns evens out over many.
            let scatter = scatter(&sample.values, &self.matrix.baseline);
            scatter.is_some_and(|scatter| scatter > RESTLESS_SD)
        };
        let is_restless =
            move |sample: &&Sample<'a>| self.is_failed(sample.workload) || scatters(sample);
        self.samples.iter().filter(is_restless).map(|sample| sample.workload)
    }

    /// Returns the checks, and every comparison of the metric.
    fn compared(&self, restless: &[&str]) -> Vec<ComparisonRow> {
        let compared = self.samples.iter().flat_map(|sample| {
            sample.compared(restless.contains(&sample.workload) || self.is_failed(sample.workload))
        });
        let margin_percent = self.metric.margin_percent(&self.matrix.margins);
        let judged = judge::judge(compared.collect(), margin_percent);
        self.checks.iter().cloned().chain(judged).collect()
    }
}

/// The readings of one figure under one workload.
struct Sample<'a> {
    workload: &'a str,
    metric: &'a Metric,
    matrix: &'a Matrix,
    blocks: Vec<Block<'a>>,
    values: Vec<BlockValues<'a>>,
    /// The values of the rounds of interleaved sets, if the workload has such.
    rounds: Vec<BlockValues<'a>>,
}

impl<'a> Sample<'a> {
    fn new(
        measured: Measured<'a>,
        workload: &'a str,
        metric: &'a Metric,
        matrix: &'a Matrix,
    ) -> Self {
        let blocks = blocks_with(measured.trials, workload, metric);
        let (values, rounds) =
            (values(&blocks, |row| metric.value(row)), rounds(&blocks, measured.windows, metric));
        Self { workload, metric, matrix, blocks, values, rounds }
    }

    /// Returns an arm against another within rounds, or within blocks if they share no round.
    fn contrast(&self, arm: &str, other: &str) -> Option<Contrast> {
        let within_rounds = Contrast::of(&self.rounds, arm, other);
        within_rounds.or_else(|| Contrast::of(&self.values, arm, other))
    }

    /// Returns the values in which the baseline's readings are compared.
    fn of_readings(&self) -> &[BlockValues<'a>] {
        if self.rounds.is_empty() { &self.values } else { &self.rounds }
    }

    fn rows(&self, arm: &str) -> impl Iterator<Item = &'a TrialRow> {
        self.blocks.iter().filter_map(move |block| block.get(arm).copied())
    }

    /// Returns the baseline's readings against each other.
    fn check(&self) -> Option<Comparison> {
        if self.metric.pass() == Pass::Syscalls {
            return None;
        }
        let baseline = &self.matrix.baseline;
        let contrast = Contrast::of_readings(self.of_readings(), baseline)?;
        let again = readings::reading(baseline, 2);
        let names = Names { arm: &again, ..self.names(baseline, baseline)? };
        let withheld = self.rows(baseline).find_map(|row| self.matrix.no_verdict(row));
        Some(Comparison { row: ComparisonRow::of(&contrast, names), contrast, withheld })
    }

    fn compared(&self, is_restless: bool) -> Vec<Comparison> {
        let pairs = self.matrix.comparisons();
        let compared = pairs.iter().filter_map(|(arm, baseline)| {
            let contrast = self.contrast(arm, baseline)?;
            let names = self.names(arm, baseline)?;
            let withheld = self.withheld(arm, baseline, &contrast, is_restless);
            Some(Comparison { row: ComparisonRow::of(&contrast, names), contrast, withheld })
        });
        compared.collect()
    }

    fn names<'n>(&'n self, arm: &'n str, baseline: &'n str) -> Option<Names<'n>> {
        let backend = &self.rows(arm).next()?.backend;
        Some(Names { workload: self.workload, metric: self.metric.name, arm, backend, baseline })
    }

    /// Says why there is no verdict, whatever the blocks say.
    fn withheld(
        &self,
        arm: &str,
        baseline: &str,
        contrast: &Contrast,
        is_restless: bool,
    ) -> Option<Verdict> {
        if self.metric.pass() == Pass::Syscalls {
            return Some(Verdict::Counted);
        }
        let mut rows = self.rows(arm).chain(self.rows(baseline));
        if let Some(withheld) = rows.find_map(|row| self.matrix.no_verdict(row)) {
            return Some(withheld);
        }
        if contrast.blocks() < BLOCKS_FOR_VERDICT {
            return Some(Verdict::FewBlocks);
        }
        if is_restless {
            return Some(Verdict::Restless);
        }
        (self.is_of_the_client(arm, baseline) == Some(true)).then_some(Verdict::SendLag)
    }

    /// Returns whether the client's lag in sending differs for certain, in the direction of the
    /// difference in latency, and accounts for a part of it.
    fn is_of_the_client(&self, arm: &str, baseline: &str) -> Option<bool> {
        let lag = self.metric.send_lag()?;
        let lags = Contrast::of(&values(&self.blocks, lag), arm, baseline)?;
        let interval = lags.logs.t_interval(0.95)?;
        let of_figure = Contrast::of(&self.values, arm, baseline)?;
        let difference = |[baseline, arm]: [f64; 2]| arm - baseline;
        let (of_lag, difference) = (difference(lags.medians), difference(of_figure.medians));
        Some(interval.excludes(0.0) && of_lag / difference > SEND_LAG_SHARE)
    }
}

/// Returns the standard deviation of the baseline's readings within their blocks, as a logarithm.
fn scatter(blocks: &[BlockValues<'_>], baseline: &str) -> Option<f64> {
    let (mut squares, mut freedom) = (0.0, 0);
    for block in blocks {
        let readings =
            block.values.iter().filter(|(role, _)| readings::number(role, baseline).is_some());
        let Some(logs) = Differences::of(readings.map(|(_, value)| value.ln())) else { continue };
        let Some(deviation) = logs.deviation() else { continue };
        squares += deviation.powi(2) * (logs.count() - 1) as f64;
        freedom += logs.count() - 1;
    }
    (freedom > 0).then(|| (squares / freedom as f64).sqrt())
}

/// Returns how far the ends of the widest interval of CPU per echo against the baseline lie from
/// its middle, in percent; none below [`BLOCKS_FOR_VERDICT`] blocks.
pub fn precision_percent(measured: Measured<'_>, workload: &str, matrix: &Matrix) -> Option<f64> {
    let sample = Sample::new(measured, workload, &metric::CPU, matrix);
    let pairs = matrix.comparisons().into_iter().filter(|(_, over)| *over == matrix.baseline);
    let widths = pairs.filter_map(|(arm, baseline)| {
        let contrast = sample.contrast(&arm, &baseline)?;
        Some(contrast.half_width().filter(|_| contrast.blocks() >= BLOCKS_FOR_VERDICT))
    });
    let widths: Option<Vec<f64>> = widths.collect();
    widths?.into_iter().map(|width| 100.0 * width).reduce(f64::max)
}

/// A workload does not end earlier: few blocks may be near each other by chance.
const BLOCKS_FOR_PRECISION: usize = 10;

/// Returns whether a workload's intervals are as narrow as the matrix asks for, so that it may end
/// early.
pub fn is_precise(measured: Measured<'_>, workload: &str, matrix: &Matrix) -> bool {
    let asked = matrix.latency.as_ref().and_then(|latency| latency.precision_percent);
    let blocks = complete_blocks(measured.trials, Pass::Latency, workload).len();
    let reached = || precision_percent(measured, workload, matrix);
    blocks >= BLOCKS_FOR_PRECISION
        && asked.is_some_and(|asked| reached().is_some_and(|reached| reached <= asked))
}

#[cfg(test)]
mod tests;
