//! Our servers beside those that are not ours, in the order of what an echo costs them.

use itertools::{Itertools as _, iproduct};

use super::query::{self, ArmTrials, absent, comparison, counted_trial, in_complete_blocks, noise};
use super::section::Body;
use super::table::{Column, Table, cell};
use crate::matrix::Arm;
use crate::results::Run;
use crate::rows::{Pass, Verdict};
use crate::statistics::Interval;
use crate::text::significant;
use crate::verdict::blocks::blocks_with;
use crate::verdict::metric::CPU;

/// An arm of a workload, by its ratio to the baseline.
struct Competitor<'a> {
    arm: &'a Arm,
    ratio: f64,
    /// The interval of the ratio; for the baseline, the noise.
    interval: Interval,
    /// True if the verdict says that it differs from the baseline. The baseline does not.
    differs: bool,
}

impl<'a> Competitor<'a> {
    /// Returns an arm that is compared.
    fn new(run: &Run, workload: &str, arm: &'a Arm) -> Option<Self> {
        let (name, baseline) = (arm.name(), &run.matrix.baseline);
        if name == *baseline {
            let noise = noise(run, workload, &CPU);
            let interval = noise.map_or(Interval { low: 1.0, high: 1.0 }, |noise| Interval {
                low: noise.low.min(1.0),
                high: noise.high.max(1.0),
            });
            return Some(Self { arm, ratio: 1.0, interval, differs: false });
        }
        let row = comparison(run, workload, &CPU, &name, baseline)?;
        let differs = match row.verdict {
            Verdict::Lower | Verdict::Higher => true,
            Verdict::NoDifferenceShown => false,
            // Without a verdict the range is what there is.
            _ => row.interval().excludes(1.0),
        };
        Some(Self { arm, ratio: row.ratio, interval: row.interval(), differs })
    }

    /// Returns whether nothing shows that one of the two costs less: their intervals overlap.
    /// Between an arm and the baseline the verdict decides.
    fn ties_with(&self, other: &Self, baseline: &str) -> bool {
        match (self.arm.name() == baseline, other.arm.name() == baseline) {
            (true, _) => !other.differs,
            (_, true) => !self.differs,
            _ => !self.interval.is_apart_from(&other.interval),
        }
    }
}

/// Returns every arm of a workload that is compared, by its ratio; nothing if none is.
fn competitors<'a>(run: &'a Run, workload: &str) -> Vec<Competitor<'a>> {
    let arms = run.matrix.backends.iter();
    let competitors = arms
        .filter_map(|arm| Competitor::new(run, workload, arm))
        .sorted_by(|a, b| a.ratio.total_cmp(&b.ratio))
        .collect_vec();
    if competitors.len() < 2 { Vec::new() } else { competitors }
}

/// Returns the place of each. Those that tie with the first of a place share it.
fn places(competitors: &[Competitor], baseline: &str) -> Vec<String> {
    let mut first = 0;
    let firsts = (0..competitors.len())
        .map(|index| {
            if !competitors[first].ties_with(&competitors[index], baseline) {
                first = index;
            }
            first
        })
        .collect_vec();
    let counts = firsts.iter().counts();
    let places = firsts
        .iter()
        .map(|first| format!("{}{}", if counts[first] > 1 { "=" } else { "" }, first + 1));
    places.collect()
}

/// A row of the table.
struct Ranked<'a> {
    place: String,
    arm: &'a Arm,
    /// In the blocks that the arm's ratio is made of.
    trials: ArmTrials<'a>,
}

impl Ranked<'_> {
    /// Writes which version of an external server ran.
    fn version(&self) -> String {
        let backend = &self.arm.backend;
        if self.trials.run.matrix.external(backend).is_none() {
            return "ours".to_owned();
        }
        let version = self.trials.run.manifest["externals"][backend].as_str();
        format!("external: {}", version.unwrap_or("unknown"))
    }

    fn calls(&self) -> String {
        let trial = counted_trial(self.trials.run, self.trials.workload, &self.trials.arm);
        cell(trial.and_then(|row| row.syscalls_per_echo), significant)
    }
}

/// Shows the arms of each workload, and what is missing; nothing for a matrix of our servers alone.
pub fn table(run: &Run) -> Body {
    if run.matrix.externals.is_empty() {
        return Body::default();
    }
    let against =
        format!("CPU/echo against {} ({})", run.matrix.baseline, query::bounds(run, &CPU));
    let columns: [Column<Ranked>; 9] = [
        ("workload", |row| row.trials.workload.to_owned()),
        ("place", |row| row.place.clone()),
        ("arm", |row| row.trials.arm.clone()),
        ("version", Ranked::version),
        (&against, |row| row.trials.against_baseline(&CPU)),
        ("server ns/echo", |row| row.trials.median(|trial| trial.server_cpu_ns_per_echo)),
        ("p99 µs", |row| row.trials.median(|trial| trial.latency_p99_us)),
        ("calls/echo", Ranked::calls),
        ("client-limited", |row| row.trials.client_limited()),
    ];
    let mut rows = Vec::new();
    for workload in &run.matrix.workloads {
        let competitors = competitors(run, &workload.name);
        let places = places(&competitors, &run.matrix.baseline);
        for (place, Competitor { arm, .. }) in places.into_iter().zip(competitors) {
            let blocks = blocks_with(&run.trials, &workload.name, &CPU);
            let trials = ArmTrials::of_blocks(run, &workload.name, arm.name(), &blocks);
            rows.push(Ranked { place, arm, trials });
        }
    }
    let table = Table::of(&rows, 5, &columns);
    let absent = absent(run, Pass::Latency);
    if table.is_empty() {
        return Body::default().list(&absent);
    }
    let note = "\n`=`: shares its place with others, whose intervals overlap with that of the \
                first of them, or of which the verdict shows no difference from the baseline. An \
                external server has buffers and options of its own choice. Below 10 blocks there \
                is no verdict, and the order is that of this run alone.\n";
    Body::from(table).notes(note).list(&unranked(run)).list(&absent)
}

/// Lists arms that have usable trials, but no CPU in them to be ranked by.
fn unranked(run: &Run) -> String {
    let mut lines = String::new();
    for (workload, arm) in iproduct!(&run.matrix.workloads, &run.matrix.backends) {
        let (workload, arm) = (&workload.name, arm.name());
        let rows = in_complete_blocks(run, workload, &arm);
        if let Some(first) = rows.first()
            && rows.iter().all(|row| row.server_cpu_ns_per_echo.is_none())
        {
            lines += &format!("- `{arm}` has no place in {workload}: {}\n", first.reason);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ties_with_the_first_of_a_place_shares_it() {
        let names = ["a", "b", "c", "d", "e", "f"];
        let arms = names.map(|name| Arm { backend: name.to_owned(), ..Arm::default() });
        let values = [
            (0.80, 0.70, 0.90, true),
            (0.85, 0.82, 0.97, true),
            // Overlaps with b but not with a.
            (0.95, 0.92, 0.98, true),
            (1.0, 0.95, 1.05, false),
            (1.01, 0.90, 1.12, false),
            (2.0, 1.9, 2.1, true),
        ];
        let competitors = arms
            .iter()
            .zip(values)
            .map(|(arm, (ratio, low, high, differs))| Competitor {
                arm,
                ratio,
                interval: Interval { low, high },
                differs,
            })
            .collect_vec();
        assert_eq!(places(&competitors, "d"), ["=1", "=1", "3", "=4", "=4", "6"]);
    }
}
