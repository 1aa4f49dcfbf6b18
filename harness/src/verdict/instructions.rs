//! Instructions of an arm under a workload on a kernel, and two arms in comparison.

use std::collections::BTreeMap;

use itertools::Itertools as _;
use ringmark::kernel::parse_version;

use super::metric::INSTRUCTIONS;
use crate::rows::{ComparisonRow, InstructionRow, Verdict};

/// Returns the workload of a comparison of counts, as in `comparisons.csv`.
pub fn workload_on(workload: &str, kernel: &str) -> String {
    format!("{workload} on {kernel}")
}

/// Returns the releases of the kernels, the oldest first.
pub fn kernels(rows: &[InstructionRow]) -> Vec<&str> {
    let releases = rows.iter().map(|row| row.kernel.as_str()).unique();
    releases.sorted_by_key(|release| parse_version(release)).collect()
}

/// The counts of an arm under a workload on a kernel, over all boots and seeds.
pub struct ArmCounts<'a> {
    rows: Vec<&'a InstructionRow>,
    /// The last window of each count, which has the most echoes.
    last: u32,
}

impl<'a> ArmCounts<'a> {
    /// Takes those of the rows; none if it was not counted.
    pub fn of(rows: &'a [InstructionRow], workload: &str, kernel: &str, arm: &str) -> Option<Self> {
        let is_of = |row: &&InstructionRow| {
            row.arm == arm && row.workload == workload && row.kernel == kernel
        };
        let rows = rows.iter().filter(is_of).collect_vec();
        let last = rows.iter().map(|row| row.window).max()?;
        Some(Self { rows, last })
    }

    /// Returns the instructions of an echo of one side in the last window: the mean over boots and
    /// seeds.
    pub fn mean(&self, side: &str, class: &str) -> f64 {
        let is_of = |row: &&&InstructionRow| {
            row.window == self.last && row.side == side && row.class == class
        };
        let figures = self.rows.iter().filter(is_of).map(|row| row.instructions_per_echo);
        let figures = figures.collect_vec();
        // A class that a count does not name has no instructions.
        figures.iter().sum::<f64>() / self.counts().max(1) as f64
    }

    /// Returns the server's instructions of an echo: the mean over boots and seeds.
    pub fn server(&self) -> f64 {
        self.mean("server", "user") + self.mean("server", "kernel")
    }

    /// Returns the events that a wait reported.
    pub fn events_per_wait(&self) -> Option<f64> {
        let last = self.rows.iter().filter(|row| row.window == self.last);
        last.filter_map(|row| row.events_per_wait).next()
    }

    /// Returns the classes of the server's functions in the kernel, each with its mean.
    pub fn classes(&self) -> Vec<(&'a str, f64)> {
        let is_class = |row: &&&InstructionRow| {
            row.side == "server" && !["user", "kernel"].contains(&row.class.as_str())
        };
        let names = self.rows.iter().filter(is_class).map(|row| row.class.as_str());
        names.sorted().dedup().map(|class| (class, self.mean("server", class))).collect()
    }

    /// Returns the difference between the largest and the smallest count of a window, over seeds
    /// and windows, in percent.
    pub fn spread_percent(&self) -> f64 {
        percent(self.sums().into_values())
    }

    /// Returns the same over boots of the same seed and window: it is 0, or the counts are not
    /// exact.
    pub fn spread_of_boots_percent(&self) -> f64 {
        let by_seed = self.sums().into_iter();
        let by_seed = by_seed.map(|((_, seed, window), sum)| ((seed, window), sum));
        let spreads = by_seed.into_group_map().into_values().map(|sums| percent(sums.into_iter()));
        spreads.fold(0.0, f64::max)
    }

    /// Returns how often it was booted.
    pub fn boots(&self) -> usize {
        self.rows.iter().map(|row| row.boot).unique().count()
    }

    /// Returns how many counts there are: boots by seeds.
    pub fn counts(&self) -> usize {
        self.rows.iter().map(|row| (row.boot, row.seed)).unique().count()
    }

    /// Returns the server's instructions of an echo by boot, seed and window.
    fn sums(&self) -> BTreeMap<(u32, u64, u32), f64> {
        let mut sums = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.side == "server") {
            if ["user", "kernel"].contains(&row.class.as_str()) {
                *sums.entry((row.boot, row.seed, row.window)).or_default() +=
                    row.instructions_per_echo;
            }
        }
        sums
    }

    /// Returns the ratio to another arm's in each count that both have.
    pub fn ratios(&self, other: &Self) -> Vec<f64> {
        let (sums, others) = (self.sums(), other.sums());
        let in_last = sums.iter().filter(|((.., window), _)| *window == self.last);
        in_last.filter_map(|(key, sum)| Some(sum / others.get(key)?)).collect()
    }
}

fn percent(figures: impl Iterator<Item = f64>) -> f64 {
    let ends = figures.minmax().into_option();
    ends.map_or(0.0, |(least, most)| 100.0 * (most / least - 1.0))
}

/// Returns what each arm takes against what the other takes, on each kernel.
pub fn compare(rows: &[InstructionRow], pairs: &[(String, String)]) -> Vec<ComparisonRow> {
    let places = rows.iter().map(|row| (row.workload.as_str(), row.kernel.as_str())).unique();
    let compared = places.cartesian_product(pairs).filter_map(|((workload, kernel), pair)| {
        let [arm, other] = [&pair.0, &pair.1].map(|arm| ArmCounts::of(rows, workload, kernel, arm));
        comparison(&workload_on(workload, kernel), pair, &arm?, &other?)
    });
    compared.collect()
}

fn comparison(
    workload: &str,
    (arm, baseline): &(String, String),
    counts: &ArmCounts<'_>,
    others: &ArmCounts<'_>,
) -> Option<ComparisonRow> {
    let ratios = counts.ratios(others);
    let (low, high) = ratios.iter().copied().minmax().into_option()?;
    let (count, other) = (counts.server(), others.server());
    let backend = &counts.rows.first()?.backend;
    let names = [workload, INSTRUCTIONS.name, arm, backend, baseline];
    Some(ComparisonRow {
        ratio_low: low,
        ratio_high: high,
        difference_low: other * (low - 1.0),
        difference_high: other * (high - 1.0),
        blocks: ratios.len() as u32,
        ..ComparisonRow::of_two(names, [other, count], Verdict::Counted)
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// The rows of a count: the server's user and kernel side, and a class of the latter.
    fn rows(arm: &str, boot: u32, seed: u64, [user, kernel]: [f64; 2]) -> Vec<InstructionRow> {
        let row = |window, class: &str, instructions_per_echo| InstructionRow {
            workload: "w".to_owned(),
            arm: arm.to_owned(),
            kernel: "6.1".to_owned(),
            boot,
            seed,
            window,
            side: "server".to_owned(),
            class: class.to_owned(),
            instructions_per_echo,
            ..InstructionRow::default()
        };
        [(1, user + 2.0), (2, user)]
            .into_iter()
            .flat_map(|(window, user)| [row(window, "user", user), row(window, "kernel", kernel)])
            .chain([row(2, "socket", kernel)])
            .collect()
    }

    #[test]
    fn the_last_window_counts_and_the_spread_is_over_all() {
        let all = [
            rows("a", 1, 1, [10.0, 90.0]),
            rows("a", 1, 2, [10.0, 94.0]),
            rows("a", 2, 1, [10.0, 90.0]),
            rows("a", 2, 2, [10.0, 94.0]),
            rows("b", 1, 1, [20.0, 180.0]),
            rows("b", 1, 2, [20.0, 180.0]),
        ]
        .concat();
        let counts = |arm| ArmCounts::of(&all, "w", "6.1", arm).unwrap();
        let a = counts("a");
        assert_eq!((a.server(), a.boots(), a.spread_of_boots_percent()), (102.0, 2, 0.0));
        assert_eq!(a.classes(), [("socket", 92.0)]);
        assert!((a.spread_percent() - 6.0).abs() < 1e-9, "{}", a.spread_percent());
        assert!(ArmCounts::of(&all, "w", "6.2", "a").is_none());
        let pairs = [("b".to_owned(), "a".to_owned())];
        let [row] = &compare(&all, &pairs)[..] else { panic!("one comparison") };
        assert_eq!((row.workload.as_str(), row.blocks), ("w on 6.1", 2));
        assert_eq!((row.ratio_low, row.ratio_high), (200.0 / 104.0, 2.0));
        assert!(row.ratio > row.ratio_low && row.ratio < row.ratio_high);
    }

    #[test]
    fn boots_that_differ_are_seen() {
        let all = [rows("a", 1, 1, [10.0, 90.0]), rows("a", 2, 1, [10.0, 91.0])].concat();
        let spread = ArmCounts::of(&all, "w", "6.1", "a").unwrap().spread_of_boots_percent();
        assert!(spread > 0.9 && spread < 1.1, "{spread}");
    }
}
