//! Our servers beside those that are not ours, in the order of what an echo costs them.

use super::section::Body;
use super::table::{MISSING, Table};
use super::tables::{
    absent, bounds, comparison, counted_trial, in_complete_blocks, median_of, noise, ratio,
};
use crate::matrix::Arm;
use crate::results::Run;
use crate::rows::{Pass, Status, TrialRow, Verdict};
use crate::statistics::Interval;
use crate::text::number;
use crate::verdict::blocks::blocks_with;
use crate::verdict::metric::CPU;

/// An arm of a workload, by its ratio to the baseline.
struct Place<'a> {
    contender: &'a Arm,
    ratio: f64,
    /// Its interval; of the baseline, the noise.
    low: f64,
    high: f64,
    /// Whether it differs from the baseline by verdict; that one does not from itself.
    differs: bool,
}

impl Place<'_> {
    /// Whether nothing shows that one of the two costs less: their intervals overlap. Of an arm and
    /// the baseline the verdict says so.
    fn ties_with(&self, other: &Self, baseline: &str) -> bool {
        match (self.contender.name() == baseline, other.contender.name() == baseline) {
            (true, _) => !other.differs,
            (_, true) => !self.differs,
            _ => self.low <= other.high && other.low <= self.high,
        }
    }
}

/// A table for each workload in one, and what is missing in it; nothing for a matrix of our servers
/// alone.
pub fn tables(run: &Run) -> Body {
    if run.matrix.externals.is_empty() {
        return Body::default();
    }
    let baseline = &run.matrix.baseline;
    let against = format!("CPU/echo against {baseline} ({})", bounds(run, &CPU));
    let heading = [
        "workload",
        "place",
        "arm",
        "version",
        &against,
        "server ns/echo",
        "p99 µs",
        "calls/echo",
        "client-limited",
    ];
    let mut table = Table::new(5, &heading);
    for workload in &run.matrix.workloads {
        for (rank, Place { contender, .. }) in ranked(places(run, &workload.name), baseline) {
            let arm = contender.name();
            let rows = compared_rows(run, &workload.name, &arm);
            let limited = rows.iter().filter(|row| row.status == Status::ClientLimited).count();
            let compared = comparison(run, &workload.name, &CPU, &arm, baseline);
            let calls =
                counted_trial(run, &workload.name, &arm).and_then(|row| row.syscalls_per_echo);
            table.push(vec![
                workload.name.clone(),
                rank,
                arm,
                version(run, contender),
                compared.map_or("1 (baseline)".to_owned(), ratio),
                median_of(&rows, |row| row.server_cpu_ns_per_echo),
                median_of(&rows, |row| row.latency_p99_us),
                calls.map_or(MISSING.to_owned(), number),
                format!("{limited} of {}", rows.len()),
            ]);
        }
    }
    let note = "`=`: shares its place with others, whose intervals overlap with that of the first of them, or of \
                which the verdict shows no difference from the baseline. An external server has buffers and options \
                of its own choice. Below 10 blocks there is no verdict, and the order is that of this run alone.";
    let unranked = unranked(run);
    let missing = absent(run, Pass::Latency);
    match table.is_empty() {
        true => Body::default().notes(missing),
        false => Body::from(table).notes(format!("\n{note}\n{unranked}{missing}")),
    }
}

/// Of the blocks that the arm's ratio is made of.
fn compared_rows<'a>(run: &'a Run, workload: &str, arm: &str) -> Vec<&'a TrialRow> {
    let blocks = blocks_with(&run.trials, workload, &CPU);
    blocks.iter().filter_map(|block| block.get(arm).copied()).collect()
}

/// Every arm of a workload that is compared, by its ratio; nothing if none is.
fn places<'a>(run: &'a Run, workload: &str) -> Vec<Place<'a>> {
    let baseline = &run.matrix.baseline;
    let place = |contender: &'a Arm| {
        let arm = contender.name();
        if arm == *baseline {
            let own = Interval { low: 1.0, high: 1.0 };
            let Interval { low, high } = noise(run, workload, &CPU).unwrap_or(own);
            return Some(Place {
                contender,
                ratio: 1.0,
                low: low.min(1.0),
                high: high.max(1.0),
                differs: false,
            });
        }
        let row = comparison(run, workload, &CPU, &arm, baseline)?;
        let differs = match row.verdict {
            Verdict::Lower | Verdict::Higher => true,
            Verdict::NoDifferenceShown => false,
            // Without a verdict the range is what there is.
            _ => row.ratio_high < 1.0 || row.ratio_low > 1.0,
        };
        Some(Place {
            contender,
            ratio: row.ratio,
            low: row.ratio_low,
            high: row.ratio_high,
            differs,
        })
    };
    let mut places: Vec<_> = run.matrix.backends.iter().filter_map(place).collect();
    if places.len() < 2 {
        return Vec::new();
    }
    places.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
    places
}

/// Each with its place. Those that tie with the first of a place share it.
fn ranked<'a>(places: Vec<Place<'a>>, baseline: &str) -> Vec<(String, Place<'a>)> {
    let mut first = 0;
    let firsts: Vec<usize> = (0..places.len())
        .map(|index| {
            if !places[first].ties_with(&places[index], baseline) {
                first = index;
            }
            first
        })
        .collect();
    let is_shared = |first: usize| firsts.iter().filter(|&&other| other == first).count() > 1;
    let ranks = firsts
        .iter()
        .map(|&first| format!("{}{}", if is_shared(first) { "=" } else { "" }, first + 1));
    let ranks: Vec<String> = ranks.collect();
    ranks.into_iter().zip(places).collect()
}

/// Which version of an external server ran.
fn version(run: &Run, contender: &Arm) -> String {
    if run.matrix.external(&contender.backend).is_none() {
        return "ours".to_owned();
    }
    let version = run.manifest["externals"][&contender.backend].as_str();
    format!("external: {}", version.unwrap_or("unknown"))
}

/// Arms that have trials which stand, but no CPU in them to be ranked by.
fn unranked(run: &Run) -> String {
    let mut lines = String::new();
    for workload in &run.matrix.workloads {
        for contender in &run.matrix.backends {
            let arm = contender.name();
            let rows = in_complete_blocks(run, &workload.name, &arm);
            let reason = rows.first().map(|row| &row.reason);
            if let Some(reason) =
                reason.filter(|_| rows.iter().all(|row| row.server_cpu_ns_per_echo.is_none()))
            {
                lines += &format!("\n- `{arm}` has no place in {}: {reason}", workload.name);
            }
        }
    }
    if lines.is_empty() { lines } else { lines + "\n" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ties_with_the_first_of_a_place_shares_it() {
        let names = ["a", "b", "c", "d", "e", "f"];
        let contenders = names.map(|name| Arm { backend: name.to_owned(), ..Arm::default() });
        let values = [
            (0.80, 0.70, 0.90, true),
            (0.85, 0.82, 0.97, true),
            // Overlaps with b but not with a.
            (0.95, 0.92, 0.98, true),
            (1.0, 0.95, 1.05, false),
            (1.01, 0.90, 1.12, false),
            (2.0, 1.9, 2.1, true),
        ];
        let place = |(contender, (ratio, low, high, differs))| Place {
            contender,
            ratio,
            low,
            high,
            differs,
        };
        let places: Vec<_> = contenders.iter().zip(values).map(place).collect();
        let ranks: Vec<String> = ranked(places, "d").into_iter().map(|(rank, _)| rank).collect();
        assert_eq!(ranks, ["=1", "=1", "3", "=4", "=4", "6"]);
    }
}
