//! A calibration: how far one server lies from itself here, and how many blocks it takes to detect
//! a handicap of known size.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::blocks::complete_blocks;
use super::comparisons;
use super::metric::{self, Metric};
use crate::machine::Machine;
use crate::matrix::{Arm, BLOCKS_FOR_VERDICT, Matrix};
use crate::rows::{Bounds, ComparisonRow, Pass, TrialRow, Verdict};
use crate::statistics::Interval;

/// `calibration.json`. Runs that follow it on the same machine carry it in their manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// When it began, UTC.
    pub begun_utc: String,
    /// The folder of its trials.
    pub folder: String,
    /// As in the manifest of a run: what it holds for.
    pub machine: String,
    /// The same.
    pub kernel_release: Option<String>,
    /// The workload.
    pub workload: String,
    /// How long it took from its first block on.
    pub minutes: f64,
    /// Blocks that count.
    pub blocks: usize,
    /// For each metric.
    pub metrics: Vec<Resolution>,
}

/// The resolution in one column of `trials.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    /// The column.
    pub metric: String,
    /// The smallest difference that gets a verdict with all blocks, in percent: as large as the
    /// interval of a server against itself is wide to either side, and as the noise beside it. None
    /// below ten blocks.
    pub resolution_percent: Option<f64>,
    /// Servers that do so much more work for each echo.
    pub handicaps: Vec<Handicap>,
}

/// An arm that busy-waits a little for each echo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handicap {
    /// The busy wait for each echo; 0: one more reading of the same server.
    pub work_ns: u64,
    /// The busy wait in percent of the server's CPU for an echo.
    pub percent_of_echo: f64,
    /// The ratio over all blocks.
    pub ratio: f64,
    /// The lower end.
    pub ratio_low: f64,
    /// The upper end.
    pub ratio_high: f64,
    /// In the words of `comparisons.csv`.
    pub verdict: String,
    /// From this number of blocks on it was told apart, and never again not; none if it is not with
    /// all of them.
    pub detected_from_blocks: Option<usize>,
    /// The blocks in groups of ten, each by itself: in how many it was told apart.
    pub detected_groups: usize,
    /// How many such groups there are.
    pub groups: usize,
}

/// The arm of a handicap.
pub fn arm_with_work(backend: &str, work_ns: u64) -> Arm {
    Arm { backend: backend.to_owned(), set: vec![format!("work_ns={work_ns}")], ..Arm::default() }
}

/// The busy wait of a handicap.
fn work_ns(arm: &Arm) -> Option<u64> {
    let [setting] = &arm.set[..] else { return None };
    setting.strip_prefix("work_ns=")?.parse().ok()
}

/// The comparisons of a calibration, of more and more of its blocks.
struct BlockGrowth {
    all: Vec<ComparisonRow>,
    /// From [`BLOCKS_FOR_VERDICT`] blocks on: how many, and what they show.
    growing: Vec<(usize, Vec<ComparisonRow>)>,
    /// Groups of ten blocks each.
    groups: Vec<Vec<ComparisonRow>>,
}

impl BlockGrowth {
    fn new(rows: &[TrialRow], matrix: &Matrix) -> Self {
        let workload = matrix.workloads.first().map_or("", |workload| &workload.name);
        let blocks: Vec<u32> = complete_blocks(rows, Pass::Latency, workload)
            .iter()
            .filter_map(|block| block.values().next().map(|row| row.block))
            .collect();
        let compare = |wanted: &[u32]| -> Vec<ComparisonRow> {
            let is_wanted =
                |row: &&TrialRow| row.pass == Some(Pass::Latency) && wanted.contains(&row.block);
            let rows: Vec<TrialRow> = rows.iter().filter(is_wanted).cloned().collect();
            comparisons::compare(&rows, &[], matrix)
        };
        Self {
            all: compare(&blocks),
            growing: (BLOCKS_FOR_VERDICT..=blocks.len())
                .map(|count| (count, compare(&blocks[..count])))
                .collect(),
            groups: blocks.chunks_exact(BLOCKS_FOR_VERDICT).map(compare).collect(),
        }
    }

    fn handicap(&self, metric: &str, work_ns: u64, arm: &str) -> Option<Handicap> {
        let row = find(&self.all, metric, arm)?;
        let since_last_miss =
            self.growing.iter().rev().take_while(|(_, rows)| is_detected(rows, metric, arm));
        let cpu = self.all.iter().find(|row| row.metric == metric::CPU.name)?.baseline_median;
        Some(Handicap {
            work_ns,
            percent_of_echo: 100.0 * work_ns as f64 / cpu,
            ratio: row.ratio,
            ratio_low: row.ratio_low,
            ratio_high: row.ratio_high,
            verdict: row.verdict.words().to_owned(),
            detected_from_blocks: since_last_miss.last().map(|(count, _)| *count),
            detected_groups: (self.groups.iter())
                .filter(|rows| is_detected(rows, metric, arm))
                .count(),
            groups: self.groups.len(),
        })
    }
}

fn find<'a>(rows: &'a [ComparisonRow], metric: &str, arm: &str) -> Option<&'a ComparisonRow> {
    rows.iter().find(|row| row.metric == metric && row.arm == arm)
}

fn is_detected(rows: &[ComparisonRow], metric: &str, arm: &str) -> bool {
    find(rows, metric, arm)
        .is_some_and(|row| matches!(row.verdict, Verdict::Higher | Verdict::Lower))
}

/// Returns what the handicaps of the matrix show of CPU and of the tail.
pub fn resolutions(rows: &[TrialRow], matrix: &Matrix) -> Vec<Resolution> {
    let handicaps: Vec<(u64, String)> = (matrix.backends.iter())
        .filter_map(|contender| Some((work_ns(contender)?, contender.name())))
        .collect();
    let growth = BlockGrowth::new(rows, matrix);
    let resolution = |metric: &Metric| {
        let same = handicaps.iter().find(|(work_ns, _)| *work_ns == 0);
        let same = same.and_then(|(_, arm)| find(&growth.all, metric.name, arm));
        Resolution {
            metric: metric.name.to_owned(),
            resolution_percent: same.and_then(resolution_percent),
            handicaps: (handicaps.iter())
                .filter_map(|(work_ns, arm)| growth.handicap(metric.name, *work_ns, arm))
                .collect(),
        }
    };
    [metric::CPU, metric::P99].iter().map(resolution).collect()
}

/// Returns the difference in percent that a ratio needs for a verdict, if its interval is as wide
/// as this one and the noise as large; none without an interval.
pub fn resolution_percent(same: &ComparisonRow) -> Option<f64> {
    let noise = same.noise().filter(|_| same.bounds == Bounds::Interval95)?;
    Some(resolvable_percent(&same.interval(), &noise))
}

/// Returns the same of an interval of a ratio and one of the noise.
pub fn resolvable_percent(ratio: &Interval, noise: &Interval) -> f64 {
    let width = (ratio.high / ratio.low).ln() / 2.0;
    100.0 * (width.max(noise.log_factor()).exp() - 1.0)
}

impl Calibration {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} blocks of {} in {:.1} min, {}\n",
            self.blocks, self.workload, self.minutes, self.machine
        );
        for metric in &self.metrics {
            text += &match metric.resolution_percent {
                Some(percent) => format!(
                    "\n{}: a difference of {percent:.1} % or more gets a verdict here in so many \
                    blocks\n",
                    metric.metric
                ),
                None => format!(
                    "\n{}: no verdict here: fewer than {BLOCKS_FOR_VERDICT} blocks count, or the \
                    client was the limit\n",
                    metric.metric
                ),
            };
            for handicap in &metric.handicaps {
                let Handicap {
                    work_ns,
                    percent_of_echo,
                    ratio,
                    ratio_low,
                    ratio_high,
                    verdict,
                    ..
                } = handicap;
                let what = match work_ns {
                    0 => "the same server".to_owned(),
                    _ => format!("{percent_of_echo:.1} % more CPU ({work_ns} ns)"),
                };
                let from = match handicap.detected_from_blocks {
                    Some(blocks) => format!("told apart from {blocks} blocks on"),
                    None => "not told apart".to_owned(),
                };
                text += &format!(
                    "  {what:<26} {ratio:.3} ({ratio_low:.3}–{ratio_high:.3}) {verdict}; {from}; \
                     in {} of {} groups of ten blocks\n",
                    handicap.detected_groups, handicap.groups
                );
            }
        }
        text
    }

    /// The newest one of this machine and kernel in the folders beside a run's.
    pub fn newest(results: &Path, machine: &Machine) -> Option<Self> {
        let is_of_here = |found: &Self| {
            found.machine == machine.description && found.kernel_release == machine.kernel_release
        };
        let folders = std::fs::read_dir(results).ok()?;
        let found = folders.filter_map(|entry| read(&entry.ok()?.path().join(FILE)));
        found.filter(is_of_here).max_by(|a, b| a.begun_utc.cmp(&b.begun_utc))
    }
}

/// Its name in its folder.
pub const FILE: &str = "calibration.json";

fn read(path: &Path) -> Option<Calibration> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Status;

    fn matrix() -> Matrix {
        toml::from_str(
            r#"
            question = "q"
            baseline = "epoll-et"
            backends = [
                { backend = "epoll-et" },
                { backend = "epoll-et", set = ["work_ns=0"] },
                { backend = "epoll-et", set = ["work_ns=100"] },
                { backend = "epoll-et", set = ["work_ns=1000"] },
            ]
            [[workload]]
            name = "w"
            question = "q"
            connections = 1
            message_bytes = 1
            "#,
        )
        .expect("a matrix")
    }

    /// Blocks in which readings differ by up to 3 % to either side, out of step with each other.
    fn rows(blocks: u32) -> Vec<TrialRow> {
        let mut rows = Vec::new();
        for block in 1..=blocks {
            let arms = [
                ("epoll-et", 1.0),
                ("epoll-et (again)", 1.0),
                ("epoll-et work_ns=0", 1.0),
                ("epoll-et work_ns=100", 1.02),
                ("epoll-et work_ns=1000", 1.2),
            ];
            for (step, (arm, factor)) in arms.into_iter().enumerate() {
                let wobble = 0.97 + 0.06 * f64::from((block * (step as u32 + 2)) % 11) / 10.0;
                rows.push(TrialRow {
                    pass: Some(Pass::Latency),
                    workload: "w".to_owned(),
                    block,
                    arm: arm.to_owned(),
                    server_cpu_ns_per_echo: Some(5000.0 * factor * wobble),
                    status: Status::Ok,
                    ..TrialRow::default()
                });
            }
        }
        rows
    }

    fn cpu(blocks: u32) -> Resolution {
        resolutions(&rows(blocks), &matrix()).remove(0)
    }

    #[test]
    fn a_large_handicap_is_told_apart_at_once_and_the_same_server_never() {
        let found = cpu(44);
        let [same, small, large] = &found.handicaps[..] else { panic!("{found:?}") };
        assert_eq!(
            (same.detected_from_blocks, same.verdict.as_str()),
            (None, "no difference shown")
        );
        assert_eq!(
            (large.detected_from_blocks, large.detected_groups, large.groups),
            (Some(10), 4, 4)
        );
        assert!((large.ratio - 1.2).abs() < 0.01 && large.verdict == "higher", "{large:?}");
        assert_eq!([same.work_ns, small.work_ns, large.work_ns], [0, 100, 1000]);
        assert!((large.percent_of_echo - 20.0).abs() < 0.5, "{large:?}");
        let resolution = found.resolution_percent.expect("blocks enough");
        assert!((0.3..2.0).contains(&resolution), "{resolution}");
        assert!(small.detected_from_blocks.is_some_and(|blocks| blocks > 10), "{small:?}");
    }

    #[test]
    fn more_blocks_resolve_less() {
        let [few, many] =
            [11, 44].map(|blocks| cpu(blocks).resolution_percent.expect("blocks enough"));
        assert!(many < few, "{many} {few}");
        let none = cpu(9);
        assert_eq!(none.resolution_percent, None);
        assert!(none.handicaps.iter().all(|handicap| handicap.groups == 0));
    }
}
