//! What to choose for each shape of service: where the baseline is enough, where another is better,
//! where it is a trade.

use super::limits;
use super::rule::{Kind, LOADS, Rule, judged, sentence};
use super::series::Series;
use crate::report::query::{others, ratio};
use crate::results::Run;
use crate::rows::{ComparisonRow, Verdict};
use crate::text::{list, names, percent};
use crate::verdict::metric::{CPU, Metric};
use crate::verdict::resolution::resolution_percent;

/// Where a workload stands: its series, and its place in it.
type Point = (usize, usize);

/// An arm under one workload, metric by metric.
struct Standing<'a> {
    arm: String,
    point: Point,
    rows: Vec<(&'static Metric, &'a ComparisonRow)>,
    /// The memory of an idle connection that differs from the baseline's, and whether it is less.
    memory: Vec<(&'static str, bool)>,
}

impl Standing<'_> {
    /// In what it is better under load, or worse.
    fn under_load(&self, better: bool) -> impl Iterator<Item = &'static str> {
        let is_wanted = move |(metric, row): &&(&'static Metric, &ComparisonRow)| {
            row.verdict != Verdict::NoDifferenceShown
                && (metric.better == Some(row.verdict)) == better
        };
        self.rows.iter().filter(is_wanted).map(|(metric, _)| metric.words.noun)
    }

    /// In what it is better, or worse, the memory of an idle connection too.
    fn is(&self, better: bool) -> Vec<&'static str> {
        let of_memory = self.memory.iter().filter(|(_, is_less)| *is_less == better);
        self.under_load(better).chain(of_memory.map(|(noun, _)| *noun)).collect()
    }
}

/// Every shape that was judged is in one rule or more.
pub fn rules(run: &Run, all: &[Series]) -> Vec<Rule> {
    let standings = standings(run, all);
    let mut rules = Vec::new();
    // Arms that are better in the same, and worse in the same, at the same workloads.
    type Kind = (Vec<&'static str>, Vec<&'static str>);
    let mut kinds: Vec<(String, Kind, Vec<&Standing>)> = Vec::new();
    // Memory alone is no reason: what it differs by has rules of its own.
    for standing in standings.iter().filter(|standing| standing.under_load(true).next().is_some()) {
        let kind = (standing.is(true), standing.is(false));
        match kinds.iter_mut().find(|(arm, of, _)| *arm == standing.arm && *of == kind) {
            Some((.., found)) => found.push(standing),
            None => kinds.push((standing.arm.clone(), kind, vec![standing])),
        }
    }
    let points =
        |of: &[&Standing]| of.iter().map(|standing| standing.point).collect::<Vec<Point>>();
    let mut merged: Vec<(Kind, Vec<Point>, Vec<&Standing>)> = Vec::new();
    for (_, kind, found) in kinds {
        match merged.iter_mut().find(|(of, at, _)| *of == kind && *at == points(&found)) {
            Some((.., all)) => all.extend(found),
            None => merged.push((kind, points(&found), found)),
        }
    }
    for ((better, worse), points, found) in merged {
        rules.push(better_or_trade(run, all, &better, &worse, &points, &found));
    }
    rules.extend(enough(run, all, &standings));
    rules
}

fn standings<'a>(run: &'a Run, all: &[Series]) -> Vec<Standing<'a>> {
    let mut found = Vec::new();
    for (index, series) in all.iter().enumerate() {
        for (at, workload) in series.workloads.iter().enumerate() {
            for arm in others(run) {
                // What has no verdict on its CPU is not judged at all.
                if judged(run, workload, &CPU, &arm).is_none() {
                    continue;
                }
                let rows = LOADS
                    .iter()
                    .filter_map(|metric| Some((*metric, judged(run, workload, metric, &arm)?)));
                found.push(Standing {
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

/// The shapes of these workloads, one for each series.
fn shapes(all: &[Series], points: &[Point]) -> String {
    let of_series = |(index, series): (usize, &Series)| {
        let own: Vec<usize> =
            points.iter().filter(|(of, _)| *of == index).map(|(_, at)| *at).collect();
        (!own.is_empty()).then(|| series.shape(&own))
    };
    all.iter().enumerate().filter_map(of_series).collect::<Vec<_>>().join("; or ")
}

fn better_or_trade(
    run: &Run,
    all: &[Series],
    better: &[&str],
    worse: &[&str],
    points: &[Point],
    found: &[&Standing],
) -> Rule {
    let mut arms: Vec<&str> = Vec::new();
    for standing in found {
        if !arms.contains(&standing.arm.as_str()) {
            arms.push(&standing.arm);
        }
    }
    let baseline = &run.matrix.baseline;
    let in_words =
        |nouns: &[&str]| list(&nouns.iter().map(|noun| (*noun).to_owned()).collect::<Vec<_>>());
    let (is, choice) = match arms.len() {
        1 => ("is", "a better choice"),
        _ => ("are", "better choices"),
    };
    let statement = match worse {
        [] => {
            // Where the client was the limit, throughput and latency could not be.
            let is_all = found
                .iter()
                .all(|standing| standing.rows.len() == standing.under_load(true).count());
            let rest = match is_all {
                true => "which is all that could be compared",
                false => "and worse in nothing that could be compared",
            };
            format!(
                "{} {is} {choice} than `{baseline}`: shown to be better in {}, {rest}",
                names(arms),
                in_words(better)
            )
        }
        worse => format!(
            "{} in place of `{baseline}` {is} a trade: better in {}, worse in {}",
            names(arms),
            in_words(better),
            in_words(worse)
        ),
    };
    let ratios = |standing: &&Standing| {
        let (index, at) = standing.point;
        let differing =
            standing.rows.iter().filter(|(_, row)| row.verdict != Verdict::NoDifferenceShown);
        let ratios: Vec<String> = differing
            .map(|(metric, row)| format!("{} {}", metric.words.noun, ratio(row)))
            .collect();
        let shape = if points.len() > 1 { all[index].shape(&[at]) + ": " } else { String::new() };
        format!("{shape}`{}` {}", standing.arm, ratios.join(", "))
    };
    Rule {
        subject: shapes(all, points),
        statement: sentence(&statement),
        evidence: format!(
            "Ratio with 95 % interval: {}.",
            found.iter().map(ratios).collect::<Vec<_>>().join("; ")
        ),
        covers: found.len(),
        kind: Kind::Other,
    }
}

/// Where nobody is shown to be better than the baseline.
fn enough(run: &Run, all: &[Series], standings: &[Standing]) -> Option<Rule> {
    let of = |point: Point| standings.iter().filter(move |standing| standing.point == point);
    let mut points: Vec<Point> = Vec::new();
    for standing in standings {
        let is_new = points.last() != Some(&standing.point);
        if is_new && of(standing.point).all(|standing| standing.under_load(true).next().is_none()) {
            points.push(standing.point);
        }
    }
    let mut arms: Vec<&str> = Vec::new();
    for standing in points.iter().flat_map(|&point| of(point)) {
        if !arms.contains(&standing.arm.as_str()) {
            arms.push(&standing.arm);
        }
    }
    let nobody = match arms.len() {
        0 => return None,
        1 => format!("{} is not", names(arms)),
        2 => format!("neither `{}` nor `{}` is", arms[0], arms[1]),
        // More are listed where they differ.
        3..=4 => format!("none of {} is", names(arms)),
        count => format!("none of the {count} others that have a verdict is"),
    };
    let evidence = |&(index, at): &Point| {
        let compared = LOADS.iter().filter_map(|metric| {
            let rows = of((index, at))
                .flat_map(|of| of.rows.iter())
                .filter(|(own, _)| own.name == metric.name);
            let widest = rows.filter_map(|(_, row)| resolution_percent(row)).reduce(f64::max)?;
            Some(format!("{} ({} %)", metric.words.noun, percent(widest)))
        });
        format!("{}: {}", all[index].shape(&[at]), compared.collect::<Vec<_>>().join(", "))
    };
    Some(Rule {
        subject: shapes(all, &points),
        statement: sentence(&format!(
            "`{}` is enough: {nobody} shown to be better in CPU, throughput or latency, as far as they could be compared",
            run.matrix.baseline
        )),
        evidence: format!(
            "Compared, and in brackets the difference beyond which one would have been shown: {}.",
            points.iter().map(evidence).collect::<Vec<_>>().join("; ")
        ),
        covers: points.iter().map(|&point| of(point).count()).sum(),
        kind: Kind::Other,
    })
}
