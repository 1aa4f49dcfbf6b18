//! A rule, and what all rules ask of a run.

use crate::matrix::Workload;
use crate::report::query::comparison;
use crate::results::Run;
use crate::rows::{ComparisonRow, Verdict};
use crate::verdict::metric::{CPU, Metric, P50, P99, P999, THROUGHPUT};

/// A sentence that a person decides by, and what it stands on.
pub struct Rule {
    /// The shape of service that it is for, in words.
    pub subject: String,
    /// One sentence.
    pub statement: String,
    /// The figures behind it.
    pub evidence: String,
    /// The number of arms and workloads that it holds for.
    pub covers: usize,
    /// Which question it may answer.
    pub kind: RuleKind,
}

/// The questions that a rule may answer.
#[derive(Clone, Copy, PartialEq)]
pub enum RuleKind {
    Capacity,
    Memory,
    Crowd,
    Other,
}

/// The metrics by which a service judges a server under load.
pub const LOADS: [&Metric; 5] = [&CPU, &THROUGHPUT, &P50, &P99, &P999];

/// Returns the arm against the baseline, if that has a verdict. An open loop returns what it is
/// offered, so its throughput says nothing of a server.
pub fn judged<'a>(
    run: &'a Run,
    workload: &Workload,
    metric: &Metric,
    arm: &str,
) -> Option<&'a ComparisonRow> {
    if *metric == THROUGHPUT && workload.rate_per_s.is_some() {
        return None;
    }
    comparison(run, &workload.name, metric, arm, &run.matrix.baseline).filter(|row| {
        matches!(row.verdict, Verdict::Lower | Verdict::Higher | Verdict::NoDifferenceShown)
    })
}

/// Makes a sentence of clauses.
pub fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
