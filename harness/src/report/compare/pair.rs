//! Two runs, and what is asked of them.

use crate::matrix::Workload;
use crate::results::Run;
use crate::statistics::Interval;
use crate::verdict::instructions::ArmCounts;
use crate::verdict::memory;
use crate::verdict::metric::Metric;

/// Two runs.
pub struct Pair {
    /// The reference, A.
    pub a: Run,
    /// The run to judge, B.
    pub b: Run,
}

impl Pair {
    /// Returns both runs.
    pub fn runs(&self) -> [&Run; 2] {
        [&self.a, &self.b]
    }

    /// Returns the arms of both runs, in the order of A's matrix.
    pub fn arms(&self) -> Vec<String> {
        let others = arms(&self.b);
        arms(&self.a).into_iter().filter(|arm| others.contains(arm)).collect()
    }

    /// Returns the instructions of an arm on a kernel, if both runs counted the same work.
    pub fn counts(
        &self,
        workload: &Workload,
        kernel: &str,
        arm: &str,
    ) -> [Option<ArmCounts<'_>>; 2] {
        let is_same = self.b.matrix.workloads.contains(workload);
        self.runs().map(|run| {
            let rows = Some(&run.instructions).filter(|_| is_same)?;
            ArmCounts::of(rows, &workload.name, kernel, arm)
        })
    }

    /// Returns the baseline, if it is the same in both.
    pub fn baseline(&self) -> Option<&str> {
        let baseline = self.a.matrix.baseline.as_str();
        (baseline == self.b.matrix.baseline).then_some(baseline)
    }
}

/// The figures that a user asks for; all of them if none is named.
pub struct Asked<'a> {
    /// The names of metrics.
    pub metrics: &'a [String],
    /// The names of arms.
    pub arms: &'a [String],
}

impl Asked<'_> {
    pub fn has_metric(&self, metric: &Metric) -> bool {
        self.metrics.is_empty() || self.metrics.iter().any(|of| of == metric.name)
    }

    pub fn has_arm(&self, arm: &str) -> bool {
        self.arms.is_empty() || self.arms.iter().any(|of| of == arm)
    }
}

/// Returns the arms of a run, in the order of its matrix.
pub fn arms(run: &Run) -> Vec<String> {
    run.matrix.arms().collect()
}

/// Returns the workloads of a run, likewise.
pub fn workloads(run: &Run) -> Vec<String> {
    run.matrix.workloads.iter().map(|workload| workload.name.clone()).collect()
}

/// Whether calls for an echo are a matter of the server alone: with more than one message on the
/// way, how many a wait brings is a matter of luck.
pub fn is_exact(workload: &Workload) -> bool {
    workload.connections == 1 && workload.pipeline.get() == 1
}

/// A slope over that of `null`, with its interval.
pub fn slope(run: &Run, arm: &str, object: &str, state: &str) -> Option<(f64, Interval)> {
    let row = memory::slope(&run.memory, arm, object, state)?;
    Some((row.over_null_bytes_per_connection?, row.interval_over_null()?))
}
