//! The figures of two runs side by side: by themselves, and relative to the baseline that both runs
//! have.
//!
//! The blocks of two runs are no pairs: they ran at different times. The machine drifts, so two
//! runs of one server differ by more than its scatter within a run. A difference by itself
//! therefore has an interval and no verdict. The difference of differences gets one: the ratios to
//! the baseline within the blocks of each run have no drift in them, and the runs are compared by
//! these.

use itertools::iproduct;

use super::obstacles;
use super::pair::{Pair, is_exact, slope};
use crate::matrix::{BLOCKS_FOR_VERDICT, Workload};
use crate::report::query::{comparison, counted_trial};
use crate::results::Run;
use crate::rows::{Bounds, Pass, Verdict};
use crate::statistics::{Interval, geometric_mean, median, welch_interval};
use crate::verdict::blocks::{blocks_with, values as values_of_blocks};
use crate::verdict::contrast::ratio_in_block;
use crate::verdict::estimate::Estimate;
use crate::verdict::metric::{self, Metric};
use crate::verdict::{instructions, memory};

/// B over A.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// The ratio.
    pub ratio: Estimate,
    /// The verdict on it; none of times and rates between runs, which do not tell how far two runs
    /// of one server lie apart.
    pub verdict: Option<Verdict>,
}

/// One figure of both runs.
#[derive(Debug)]
pub struct Figure {
    /// The workload.
    pub workload: String,
    /// The arm.
    pub arm: String,
    /// The figure.
    pub metric: &'static Metric,
    /// The geometric mean over the blocks that count, so that B over A is the ratio; or the one
    /// reading.
    pub means: [f64; 2],
    /// The number of blocks that count.
    pub blocks: [usize; 2],
    /// By itself; none if one is too near zero for a ratio.
    pub between_runs: Option<Compared>,
    /// Relative to the baseline; none of the baseline, and of what is no matter of a moment: calls
    /// and memory.
    pub relative: Option<Compared>,
    /// Whether a count of calls depends on nothing but the server.
    pub is_exact: bool,
    /// The verdict if it is better in B.
    pub better: Option<Verdict>,
}

impl Figure {
    /// Returns the ratio that tells of the servers: for times and rates the one relative to the
    /// baseline, for calls and memory, which do not drift, the one between the runs.
    pub fn telling(&self) -> Option<Compared> {
        let is_timed = self.metric.pass() == Pass::Latency;
        self.relative.or(self.between_runs.filter(|_| !is_timed))
    }

    /// Returns that ratio if it lies beyond its interval or the noise.
    pub fn change(&self) -> Option<Compared> {
        self.telling().filter(
            |Compared { ratio: Estimate { interval, .. }, verdict }| match verdict {
                Some(Verdict::Lower | Verdict::Higher) => true,
                Some(Verdict::FewBlocks) => interval.excludes(1.0),
                Some(Verdict::Counted) => self.is_exact && interval.excludes(1.0),
                _ => false,
            },
        )
    }
}

/// Returns whether these figures are far enough from zero for a ratio.
fn has_ratio(metric: &Metric, figures: [f64; 2]) -> bool {
    figures.iter().all(|figure| *figure > 0.0 && *figure >= metric.least)
}

/// Returns every figure that both runs have, and the reasons why others are left out.
pub fn all(pair: &Pair) -> (Vec<Figure>, Vec<String>) {
    let (mut figures, mut refused) = (Vec::new(), Vec::new());
    let mut refuse = |reason: String| {
        if !refused.contains(&reason) {
            refused.push(reason);
        }
    };
    for workload in &pair.a.matrix.workloads {
        let Some(other) = pair.b.matrix.workloads.iter().find(|other| other.name == workload.name)
        else {
            continue;
        };
        if let Some(reason) = obstacles::workload(pair, workload, other) {
            refuse(reason);
            continue;
        }
        for metric in metric::OF_TRIALS
            .iter()
            .filter(|metric| obstacles::was_measured(pair, workload, metric.pass()))
        {
            if let Some(reason) = obstacles::metric(pair, workload, metric) {
                refuse(reason);
                continue;
            }
            for arm in pair.arms() {
                match obstacles::arm(pair, workload, metric.pass(), &arm) {
                    Some(reason) => refuse(reason),
                    None if metric.pass() == Pass::Syscalls => {
                        figures.extend(counted(pair, workload, metric, &arm));
                    }
                    None => figures.extend(timed(pair, workload, metric, &arm)),
                }
            }
        }
    }
    match obstacles::memory(pair) {
        Some(reason) => refuse(reason),
        None => {
            for arm in pair.arms() {
                figures.extend(of_memory(pair, &arm));
            }
        }
    }
    for arm in pair.arms() {
        figures.extend(of_instructions(pair, &arm));
    }
    obstacles::walks(pair).into_iter().for_each(refuse);
    (figures, refused)
}

/// The ratio of the geometric means of samples that are no pairs, and its bounds.
fn unpaired(a: &[f64], b: &[f64]) -> Option<Estimate> {
    let mean = Some(geometric_mean(b)? / geometric_mean(a)?).filter(|mean| mean.is_finite())?;
    let (bounds, interval) = if a.len().min(b.len()) >= BLOCKS_FOR_VERDICT {
        (Bounds::Interval95, welch_interval(a, b)?)
    } else {
        (Bounds::Range, Interval::range(b)?.over(&Interval::range(a)?))
    };
    Some(Estimate { mean, bounds, interval })
}

fn timed(pair: &Pair, workload: &Workload, metric: &'static Metric, arm: &str) -> Option<Figure> {
    let name = &workload.name;
    let blocks = pair.runs().map(|run| blocks_with(&run.trials, name, metric));
    let values = |arm: &str| -> [Vec<f64>; 2] {
        [0, 1].map(|run| {
            let rows = blocks[run].iter().filter_map(|block| block.get(arm));
            rows.filter_map(|row| metric.value(row)).collect()
        })
    };
    let own = values(arm);
    // A figure without a geometric mean has no ratio either.
    let mean = |values: &[f64]| geometric_mean(values).or_else(|| median(&mut values.to_vec()));
    let means = [mean(&own[0])?, mean(&own[1])?];
    let has_ratio = has_ratio(metric, means);
    let between_runs = unpaired(&own[0], &own[1]).filter(|_| has_ratio);
    let between_runs = between_runs.map(|ratio| Compared { ratio, verdict: None });
    let relative =
        pair.baseline().filter(|baseline| *baseline != arm && has_ratio).and_then(|baseline| {
            let base = values(baseline);
            // A baseline near zero makes no ratio either.
            if !self::has_ratio(metric, [geometric_mean(&base[0])?, geometric_mean(&base[1])?]) {
                return None;
            }
            let ratios = |run: usize| -> Vec<f64> {
                let values = values_of_blocks(&blocks[run], |row| metric.value(row));
                values.iter().filter_map(|block| ratio_in_block(block, arm, baseline)).collect()
            };
            let ratio = unpaired(&ratios(0), &ratios(1))?;
            let said_of = |run: &Run| Some(comparison(run, name, metric, arm, baseline)?.verdict);
            let said = [said_of(&pair.a), said_of(&pair.b)];
            let verdict =
                [Verdict::SharedCpu, Verdict::SharedCore, Verdict::Restless, Verdict::SendLag]
                    .into_iter()
                    .find(|verdict| said.contains(&Some(*verdict)))
                    .unwrap_or_else(|| ratio.verdict());
            Some(Compared { ratio, verdict: Some(verdict) })
        });
    Some(Figure {
        workload: name.clone(),
        arm: arm.to_owned(),
        metric,
        means,
        blocks: [own[0].len(), own[1].len()],
        between_runs,
        relative,
        is_exact: false,
        better: metric.better,
    })
}

/// One trial of each, which is a count.
fn counted(pair: &Pair, workload: &Workload, metric: &'static Metric, arm: &str) -> Option<Figure> {
    let calls = |run| counted_trial(run, &workload.name, arm).and_then(|row| metric.value(row));
    let means = [calls(&pair.a)?, calls(&pair.b)?];
    let ratio = means[1] / means[0];
    let compared = Compared { ratio: Estimate::exact(ratio), verdict: Some(Verdict::Counted) };
    Some(Figure {
        workload: workload.name.clone(),
        arm: arm.to_owned(),
        metric,
        means,
        blocks: [1, 1],
        between_runs: has_ratio(metric, means).then_some(compared),
        relative: None,
        is_exact: is_exact(workload),
        better: metric.better,
    })
}

/// The counts of each kernel that both have.
fn of_instructions(pair: &Pair, arm: &str) -> Vec<Figure> {
    let places = iproduct!(&pair.a.matrix.workloads, instructions::kernels(&pair.a.instructions));
    let figure = |(workload, kernel): (&Workload, &str)| {
        let [a, b] = pair.counts(workload, kernel, arm);
        let (a, b) = (a?, b?);
        let means = [a.server(), b.server()];
        let ratio = Estimate::exact(means[1] / means[0]);
        let compared = Compared { ratio, verdict: Some(Verdict::Counted) };
        Some(Figure {
            workload: instructions::workload_on(&workload.name, kernel),
            arm: arm.to_owned(),
            metric: &metric::INSTRUCTIONS,
            means,
            blocks: [a.counts(), b.counts()],
            between_runs: has_ratio(&metric::INSTRUCTIONS, means).then_some(compared),
            relative: None,
            is_exact: is_exact(workload),
            better: metric::INSTRUCTIONS.better,
        })
    };
    places.filter_map(figure).collect()
}

fn of_memory(pair: &Pair, arm: &str) -> Vec<Figure> {
    iproduct!(&metric::OF_WALKS, memory::STATES)
        .filter_map(|(metric, state)| {
            let [a, b] = pair.runs().map(|run| slope(run, arm, metric.object()?, state));
            let (a, b) = (a?, b?);
            let means = [a.0, b.0];
            Some(Figure {
                workload: memory::workload(state),
                arm: arm.to_owned(),
                metric,
                means,
                blocks: [1, 1],
                between_runs: slopes(means, [a.1, b.1]).filter(|_| has_ratio(metric, means)),
                relative: None,
                is_exact: false,
                better: metric.better,
            })
        })
        .collect()
}

/// Slopes with their intervals, which are all the noise that there is. The ratio's interval is from
/// one's end to the other's opposite end: wider than 95 % would need. None where a slope is not
/// told apart from zero.
fn slopes(means: [f64; 2], [a, b]: [Interval; 2]) -> Option<Compared> {
    let (mean, interval) = (means[1] / means[0], b.over(&a));
    let ratio = Estimate { mean, bounds: Bounds::Interval95, interval };
    let verdict = Some(ratio.verdict());
    (a.low > 0.0 && b.low > 0.0).then_some(Compared { ratio, verdict })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;
    use crate::rows::Status;
    use crate::rows::TrialRow;

    const MATRIX: &str = r#"
        question = "q"
        baseline = "epoll-et"
        backends = [{ backend = "epoll-et" }, { backend = "epoll-lt" }]
        [latency]
        blocks = 10
        duration = "1s"
        warmup_max = "1s"
        [[workload]]
        name = "w"
        question = "q"
        connections = 1
        message_bytes = 64
    "#;

    /// Blocks of a machine that is so fast, in which `epoll-lt` takes so many times the CPU of
    /// `epoll-et`, give or take 1 % from block to block.
    fn run(blocks: u32, machine: f64, ratio: f64) -> Run {
        let row = move |block: u32, arm: &str, factor: f64, step: u32| {
            let wobble = 0.99 + 0.02 * f64::from(block * step % 5) / 4.0;
            TrialRow {
                pass: Some(Pass::Latency),
                workload: "w".to_owned(),
                block,
                arm: arm.to_owned(),
                server_cpu_ns_per_echo: Some(5000.0 * machine * factor * wobble),
                status: Status::Ok,
                ..TrialRow::default()
            }
        };
        let of = |block| {
            [
                row(block, "epoll-et", 1.0, 1),
                row(block, "epoll-et (again)", 1.0, 3),
                row(block, "epoll-lt", ratio, 2),
            ]
        };
        let calls = |arm: &str, calls| TrialRow {
            pass: Some(Pass::Syscalls),
            syscalls_per_echo: Some(calls),
            ..row(1, arm, 1.0, 1)
        };
        let trials = (1..=blocks)
            .flat_map(of)
            .chain([calls("epoll-et", 3.0), calls("epoll-lt", 3.0 * ratio)]);
        Run::of(toml::from_str::<Matrix>(MATRIX).expect("a matrix"), trials.collect(), Vec::new())
    }

    fn figure(a: Run, b: Run, arm: &str, metric: &str) -> Figure {
        let (figures, refused) = all(&Pair { a, b });
        assert_eq!(refused, [""; 0]);
        figures
            .into_iter()
            .find(|figure| figure.arm == arm && figure.metric.name == metric)
            .expect("compared")
    }

    fn cpu(a: Run, b: Run, arm: &str) -> Figure {
        figure(a, b, arm, "server_cpu_ns_per_echo")
    }

    #[test]
    fn the_drift_of_the_machine_is_not_in_what_gets_a_verdict() {
        let found = cpu(run(12, 1.0, 1.0), run(10, 1.4, 1.0), "epoll-lt");
        assert_eq!(found.blocks, [12, 10]);
        let (between, relative) =
            (found.between_runs.expect("both"), found.relative.expect("both"));
        assert!((between.ratio.mean - 1.4).abs() < 0.01, "{found:?}");
        assert!(
            between.ratio.interval.low > 1.38 && between.ratio.interval.high < 1.42,
            "{found:?}"
        );
        assert_eq!(between.verdict, None);
        assert!((relative.ratio.mean - 1.0).abs() < 0.01, "{found:?}");
        assert_eq!(relative.verdict, Some(Verdict::NotResolved));
    }

    #[test]
    fn what_an_arm_alone_takes_more_gets_one() {
        for (ratio, verdict) in [(1.2, Verdict::Higher), (0.8, Verdict::Lower)] {
            let found = cpu(run(10, 1.0, 1.0), run(10, 0.7, ratio), "epoll-lt");
            let relative = found.relative.expect("both");
            assert!((relative.ratio.mean - ratio).abs() < 0.02, "{found:?}");
            let expected = (Some(verdict), Bounds::Interval95);
            assert_eq!((relative.verdict, relative.ratio.bounds), expected);
            let baseline = cpu(run(10, 1.0, 1.0), run(10, 0.7, ratio), "epoll-et");
            assert_eq!(baseline.relative, None);
        }
    }

    #[test]
    fn below_six_blocks_there_is_a_range_and_no_verdict() {
        for (a, b) in [(5, 12), (12, 5)] {
            let found = cpu(run(a, 1.0, 1.0), run(b, 1.0, 2.0), "epoll-lt");
            let relative = found.relative.expect("both");
            let expected = (Some(Verdict::FewBlocks), Bounds::Range);
            assert_eq!((relative.verdict, relative.ratio.bounds), expected);
            assert!(
                relative.ratio.interval.low < 2.0 && 2.0 < relative.ratio.interval.high,
                "{found:?}"
            );
        }
    }

    #[test]
    fn the_ends_of_a_range_are_the_farthest_blocks() {
        let found = unpaired(&[1.0, 2.0], &[3.0, 4.0]).expect("above zero");
        assert_eq!(found.bounds, Bounds::Range);
        assert_eq!(found.interval, Interval { low: 1.5, high: 4.0 });
        assert!((found.mean - (12.0_f64 / 2.0).sqrt()).abs() < 1e-12);
        assert_eq!(unpaired(&[0.0], &[1.0]), None);
    }

    #[test]
    fn calls_are_counted_and_have_no_interval() {
        let found = figure(run(10, 1.0, 1.0), run(10, 1.0, 2.0), "epoll-lt", "syscalls_per_echo");
        let compared = found.between_runs.expect("both");
        assert_eq!(
            (compared.ratio.mean, compared.verdict, found.is_exact),
            (2.0, Some(Verdict::Counted), true)
        );
        assert_eq!((found.means, found.relative), ([3.0, 6.0], None));
    }

    #[test]
    fn a_run_does_not_differ_from_itself() {
        let (figures, _) = all(&Pair { a: run(10, 1.0, 1.3), b: run(10, 1.0, 1.3) });
        assert_eq!(figures.len(), 4);
        for compared in
            figures.iter().flat_map(|figure| [figure.between_runs, figure.relative]).flatten()
        {
            assert!((compared.ratio.mean - 1.0).abs() < 1e-12, "{compared:?}");
            assert!(!compared.verdict.is_some_and(Verdict::is_difference), "{compared:?}");
        }
    }

    #[test]
    fn slopes_differ_where_their_intervals_lie_apart() {
        let verdict = |a: (f64, f64, f64), b: (f64, f64, f64)| {
            let interval = |(_, low, high)| Interval { low, high };
            slopes([a.0, b.0], [interval(a), interval(b)]).and_then(|compared| compared.verdict)
        };
        let base = (200.0, 190.0, 210.0);
        assert_eq!(verdict(base, (300.0, 211.0, 400.0)), Some(Verdict::Higher));
        assert_eq!(verdict(base, (300.0, 209.0, 400.0)), Some(Verdict::NotResolved));
        assert_eq!(verdict(base, (100.0, 50.0, 189.0)), Some(Verdict::Lower));
        assert_eq!(verdict(base, base), Some(Verdict::NotResolved));
        assert_eq!(verdict((5.0, -1.0, 11.0), base), None);
    }
}
