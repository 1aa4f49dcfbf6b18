//! The choices for each shape of service: where the baseline is enough, where another is better,
//! where it is a trade.

use itertools::Itertools as _;

use super::limits;
use super::rule::{LOADS, Rule, RuleKind, judged, sentence};
use super::series::Series;
use crate::report::query::{in_groups, others, ratio};
use crate::results::Run;
use crate::rows::{ComparisonRow, Verdict};
use crate::text::{list, percent, quoted_list};
use crate::verdict::metric::{CPU, Metric};
use crate::verdict::resolution::resolution_percent;

/// A workload: the index of its series, and its place in it.
type SeriesPoint = (usize, usize);

/// The verdicts on an arm under one workload.
struct ArmVerdicts<'a> {
    arm: String,
    point: SeriesPoint,
    rows: Vec<(&'static Metric, &'a ComparisonRow)>,
    /// The memory of an idle connection that differs from the baseline's, and whether it is less.
    memory: Vec<(&'static str, bool)>,
}

impl ArmVerdicts<'_> {
    /// Returns in what it is better under load, or worse.
    fn under_load(&self, better: bool) -> impl Iterator<Item = &'static str> {
        self.differing()
            .filter(move |(metric, row)| (metric.better == Some(row.verdict)) == better)
            .map(|(metric, _)| metric.words.noun)
    }

    fn differing(&self) -> impl Iterator<Item = &(&'static Metric, &ComparisonRow)> {
        self.rows.iter().filter(|(_, row)| row.verdict != Verdict::NoDifferenceShown)
    }

    fn is_better_under_load(&self) -> bool {
        self.under_load(true).next().is_some()
    }

    /// Returns in what it is better, or worse, the memory of an idle connection too.
    fn nouns(&self, better: bool) -> Vec<&'static str> {
        let of_memory = self.memory.iter().filter(|(_, is_less)| *is_less == better);
        self.under_load(better).chain(of_memory.map(|(noun, _)| *noun)).collect()
    }
}

/// Makes the rules. Every shape that was judged is in one or more.
pub fn rules(run: &Run, all: &[Series]) -> Vec<Rule> {
    let judged = all_judged(run, all);
    // Memory alone is no reason: what it differs by has rules of its own.
    let better = judged.iter().filter(|arm| arm.is_better_under_load());
    // Arms that are better in the same, and worse in the same, at the same workloads.
    let by_arm = in_groups(better.map(|arm| ((&arm.arm, arm.nouns(true), arm.nouns(false)), arm)));
    let choices = in_groups(by_arm.into_iter().map(|((_, better, worse), found)| {
        let points = found.iter().map(|arm| arm.point).collect_vec();
        ((better, worse, points), found)
    }));
    (choices.into_iter())
        .map(|((better, worse, points), found)| {
            better_or_trade(run, all, &better, &worse, &points, &found.concat())
        })
        .chain(enough(run, all, &judged))
        .collect()
}

/// Returns every arm at every workload where its CPU has a verdict.
fn all_judged<'a>(run: &'a Run, all: &[Series]) -> Vec<ArmVerdicts<'a>> {
    let mut found = Vec::new();
    for (index, series) in all.iter().enumerate() {
        for (at, workload) in series.workloads.iter().enumerate() {
            for arm in others(run).filter(|arm| judged(run, workload, &CPU, arm).is_some()) {
                let rows = LOADS
                    .iter()
                    .filter_map(|metric| Some((*metric, judged(run, workload, metric, &arm)?)));
                found.push(ArmVerdicts {
                    rows: rows.collect(),
                    point: (index, at),
                    memory: limits::memory_that_differs(run, &arm),
                    arm,
                });
            }
        }
    }
    found
}

/// Returns the shapes of these workloads, one for each series.
fn shapes(all: &[Series], points: &[SeriesPoint]) -> String {
    let of_series = |(index, series): (usize, &Series)| {
        let own = points.iter().filter(|(of, _)| *of == index).map(|(_, at)| *at).collect_vec();
        (!own.is_empty()).then(|| series.shape(&own))
    };
    all.iter().enumerate().filter_map(of_series).join("; or ")
}

fn better_or_trade(
    run: &Run,
    all: &[Series],
    better: &[&str],
    worse: &[&str],
    points: &[SeriesPoint],
    found: &[&ArmVerdicts],
) -> Rule {
    let arms = found.iter().map(|arm| arm.arm.as_str()).unique().collect_vec();
    let baseline = &run.matrix.baseline;
    let (is, choice) =
        if arms.len() == 1 { ("is", "a better choice") } else { ("are", "better choices") };
    let (arms, better) = (quoted_list(arms), list(better));
    let statement = if worse.is_empty() {
        // If the client was the limit, throughput and latency could not be better.
        let is_all = found.iter().all(|arm| arm.rows.len() == arm.under_load(true).count());
        let rest = if is_all {
            "which is all that could be compared"
        } else {
            "and worse in nothing that could be compared"
        };
        format!("{arms} {is} {choice} than `{baseline}`: shown to be better in {better}, {rest}")
    } else {
        let worse = list(worse);
        format!(
            "{arms} in place of `{baseline}` {is} a trade: better in {better}, worse in {worse}"
        )
    };
    let mut ratios = found.iter().map(|arm| {
        let (index, at) = arm.point;
        let mut ratios =
            arm.differing().map(|(metric, row)| format!("{} {}", metric.words.noun, ratio(row)));
        let shape = if points.len() > 1 { all[index].shape(&[at]) + ": " } else { String::new() };
        format!("{shape}`{}` {}", arm.arm, ratios.join(", "))
    });
    Rule {
        subject: shapes(all, points),
        statement: sentence(&statement),
        evidence: format!("Ratio with 95 % interval: {}.", ratios.join("; ")),
        covers: found.len(),
        kind: RuleKind::Other,
    }
}

/// Says where nobody is shown to be better than the baseline.
fn enough(run: &Run, all: &[Series], judged: &[ArmVerdicts]) -> Option<Rule> {
    let by_point = in_groups(judged.iter().map(|arm| (arm.point, arm)))
        .into_iter()
        .filter(|(_, arms)| !arms.iter().any(|arm| arm.is_better_under_load()))
        .collect_vec();
    let at_points = || by_point.iter().flat_map(|(_, arms)| arms);
    let arms = at_points().map(|arm| arm.arm.as_str()).unique().collect_vec();
    let nobody = match arms.len() {
        0 => return None,
        1 => format!("{} is not", quoted_list(arms)),
        2 => format!("neither `{}` nor `{}` is", arms[0], arms[1]),
        // More are listed where they differ.
        3..=4 => format!("none of {} is", quoted_list(arms)),
        count => format!("none of the {count} others that have a verdict is"),
    };
    let mut evidence = by_point.iter().map(|((index, at), arms)| {
        let mut compared = LOADS.iter().filter_map(|metric| {
            let rows = arms.iter().flat_map(|arm| &arm.rows).filter(|(own, _)| own == metric);
            let widest = rows.filter_map(|(_, row)| resolution_percent(row)).reduce(f64::max)?;
            Some(format!("{} ({} %)", metric.words.noun, percent(widest)))
        });
        format!("{}: {}", all[*index].shape(&[*at]), compared.join(", "))
    });
    Some(Rule {
        subject: shapes(all, &by_point.iter().map(|(point, _)| *point).collect_vec()),
        statement: sentence(&format!(
            "`{}` is enough: {nobody} shown to be better in CPU, throughput or latency, as far as \
             they could be compared",
            run.matrix.baseline
        )),
        evidence: format!(
            "Compared, and in brackets the difference beyond which one would have been shown: {}.",
            evidence.join("; ")
        ),
        covers: at_points().count(),
        kind: RuleKind::Other,
    })
}
