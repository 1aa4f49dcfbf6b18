//! The figures of two runs side by side: by themselves, and relative to the baseline that both runs
//! have.
//!
//! The blocks of two runs are no pairs: they ran at different times. What two runs of one server
//! differ by is more than its scatter within a run, because the machine drifts. So a difference by
//! itself has an interval and no verdict. What gets one is the difference of differences: in each
//! run the ratios to the baseline within its blocks, which the drift is not in, and then what lies
//! between these.

use super::{Pair, obstacles};
use crate::matrix::{Arm, BLOCKS_FOR_VERDICT, Workload};
use crate::report::tables::{comparison, counted_trial};
use crate::results::Run;
use crate::rows::{Bounds, MemoryRow, NEVER_USED, Pass, Status, USED_THEN_IDLE, Verdict};
use crate::statistics::{geometric_mean, median, welch_interval};
use crate::verdict::comparisons::{
    MEMORY_SUMS, METRICS, Metric, Spread, again, blocks_with, judge,
};

/// B over A.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// The ratio.
    pub ratio: f64,
    /// Its bounds: the 95 % interval, or below ten blocks the range.
    pub spread: Spread,
    /// What it shows.
    pub verdict: Verdict,
}

/// One figure of both runs.
#[derive(Debug)]
pub struct Figure {
    /// The workload.
    pub workload: String,
    /// The arm.
    pub arm: String,
    /// What is compared, as in `comparisons.csv`.
    pub metric: &'static str,
    /// The geometric mean over the blocks that count, so that B over A is the ratio; or the one
    /// reading.
    pub means: [f64; 2],
    /// How many blocks count.
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
    /// The ratio that tells of the servers: relative to the baseline; of calls and memory, which no
    /// moment is in, the one between the runs.
    pub fn telling(&self) -> Option<Compared> {
        let is_timed = METRICS.iter().any(|of| of.name == self.metric && of.pass != Pass::Syscalls);
        self.relative.or(self.between_runs.filter(|_| !is_timed))
    }

    /// The same where it lies beyond what its bounds allow for, or the noise.
    pub fn change(&self) -> Option<Compared> {
        self.telling().filter(|Compared { spread: (_, low, high), verdict, .. }| match verdict {
            Verdict::Lower | Verdict::Higher => true,
            Verdict::Range => *low > 1.0 || *high < 1.0,
            Verdict::Counted => self.is_exact && (*low > 1.0 || *high < 1.0),
            _ => false,
        })
    }
}

/// So many calls or switches for each echo, or bytes for each connection, are too near zero for a
/// ratio: one of such figures says how the smallest of them came out.
const NEAR_ZERO: [(&str, f64); 2] = [("_per_echo", 0.01), ("_bytes_per_connection_over_null", 1.0)];

/// Whether a ratio of these figures of a metric says anything.
fn has_ratio(metric: &str, figures: [f64; 2]) -> bool {
    let least = NEAR_ZERO
        .iter()
        .find(|(ending, _)| metric.ends_with(ending))
        .map_or(0.0, |(_, least)| *least);
    figures.iter().all(|figure| *figure > 0.0 && *figure >= least)
}

/// All that both runs have, and why the rest is left out.
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
        for metric in
            METRICS.iter().filter(|metric| obstacles::was_measured(pair, workload, metric.pass))
        {
            if let Some(reason) = obstacles::metric(pair, workload, metric) {
                refuse(reason);
                continue;
            }
            for arm in arms_of_both(pair) {
                match obstacles::arm(pair, workload, metric.pass, &arm) {
                    Some(reason) => refuse(reason),
                    None if metric.pass == Pass::Syscalls => {
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
            for arm in arms_of_both(pair) {
                figures.extend(memory(pair, &arm));
            }
        }
    }
    obstacles::walks(pair).into_iter().for_each(refuse);
    (figures, refused)
}

/// In the order of A's matrix.
pub fn arms_of_both(pair: &Pair) -> Vec<String> {
    let of = |run: &Run| run.matrix.backends.iter().map(Arm::name).collect::<Vec<_>>();
    let others = of(&pair.b);
    of(&pair.a).into_iter().filter(|arm| others.contains(arm)).collect()
}

/// The ratio of the geometric means of samples that are no pairs, and its bounds.
fn unpaired(a: &[f64], b: &[f64]) -> Option<(f64, Spread)> {
    let ratio = Some(geometric_mean(b)? / geometric_mean(a)?).filter(|ratio| ratio.is_finite())?;
    if a.len().min(b.len()) >= BLOCKS_FOR_VERDICT {
        let (low, high) = welch_interval(a, b)?;
        return Some((ratio, (Bounds::Interval95, low, high)));
    }
    let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    Some((ratio, (Bounds::Range, least(b) / most(a), most(b) / least(a))))
}

fn timed(pair: &Pair, workload: &Workload, metric: &Metric, arm: &str) -> Option<Figure> {
    let name = &workload.name;
    let blocks = [&pair.a, &pair.b].map(|run| blocks_with(&run.trials, name, metric));
    let values = |arm: &str| -> [Vec<f64>; 2] {
        [0, 1].map(|run| {
            let rows = blocks[run].iter().filter_map(|block| block.get(arm));
            rows.filter_map(|row| (metric.value)(row)).collect()
        })
    };
    let own = values(arm);
    // A figure without a geometric mean has no ratio either.
    let mean = |values: &[f64]| geometric_mean(values).or_else(|| median(&mut values.to_vec()));
    let means = [mean(&own[0])?, mean(&own[1])?];
    let has_ratio = has_ratio(metric.name, means);
    // How far two runs of one server lie apart is not known from these two.
    let between_runs = unpaired(&own[0], &own[1]).filter(|_| has_ratio).map(|(ratio, spread)| {
        let verdict = judge(ratio, spread, None);
        Compared { ratio, spread, verdict }
    });
    let relative =
        pair.baseline().filter(|baseline| *baseline != arm && has_ratio).and_then(|baseline| {
            let base = values(baseline);
            // A baseline near zero makes no ratio either.
            if !self::has_ratio(metric.name, [geometric_mean(&base[0])?, geometric_mean(&base[1])?])
            {
                return None;
            }
            let to_baseline = |of: &[Vec<f64>; 2]| -> [Vec<f64>; 2] {
                let ratios = |run: usize| {
                    of[run].iter().zip(&base[run]).map(|(own, base)| own / base).collect()
                };
                [ratios(0), ratios(1)]
            };
            let [a, b] = to_baseline(&own);
            let (ratio, spread) = unpaired(&a, &b)?;
            // The baseline's second reading stands in both: how far it moves relative to the first
            // is noise.
            let [a, b] = to_baseline(&values(&again(baseline)));
            let noise = unpaired(&a, &b).map(|(_, spread)| spread);
            let said_of =
                |run: &Run| Some(comparison(run, name, metric.name, arm, baseline)?.verdict);
            let said = [said_of(&pair.a), said_of(&pair.b)];
            let verdict = [Verdict::SharedCpu, Verdict::SharedCore, Verdict::SendLag]
                .into_iter()
                .find(|verdict| said.contains(&Some(*verdict)))
                .unwrap_or_else(|| judge(ratio, spread, noise));
            Some(Compared { ratio, spread, verdict })
        });
    Some(Figure {
        workload: name.clone(),
        arm: arm.to_owned(),
        metric: metric.name,
        means,
        blocks: [own[0].len(), own[1].len()],
        between_runs,
        relative,
        is_exact: false,
        better: metric.better,
    })
}

/// One trial of each, which is a count.
fn counted(pair: &Pair, workload: &Workload, metric: &Metric, arm: &str) -> Option<Figure> {
    let calls = |run| counted_trial(run, &workload.name, arm).and_then(metric.value);
    let means = [calls(&pair.a)?, calls(&pair.b)?];
    let ratio = means[1] / means[0];
    let compared =
        Compared { ratio, spread: (Bounds::Range, ratio, ratio), verdict: Verdict::Counted };
    Some(Figure {
        workload: workload.name.clone(),
        arm: arm.to_owned(),
        metric: metric.name,
        means,
        blocks: [1, 1],
        between_runs: has_ratio(metric.name, means).then_some(compared),
        relative: None,
        is_exact: is_exact(workload),
        better: metric.better,
    })
}

/// Whether calls for an echo are a matter of the server alone: with more than one message on the
/// way, how many a wait brings is a matter of luck.
pub fn is_exact(workload: &Workload) -> bool {
    workload.connections == 1 && workload.pipeline == 1
}

/// The workload of `memory.csv`'s figures, as in `comparisons.csv`.
pub fn memory_workload(state: &str) -> String {
    format!("memory {state}")
}

/// The states of a connection in which memory is compared.
pub const STATES: [&str; 2] = [NEVER_USED, USED_THEN_IDLE];

/// A slope with the ends of its interval.
pub fn slope(run: &Run, arm: &str, object: &str, state: &str) -> Option<(f64, f64, f64)> {
    let is_wanted = |row: &&MemoryRow| {
        row.status == Status::Ok && row.arm == arm && row.object == object && row.state == state
    };
    let row = run.memory.iter().find(is_wanted)?;
    Some((row.over_null_bytes_per_connection?, row.over_null_low?, row.over_null_high?))
}

fn memory(pair: &Pair, arm: &str) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (object, metric) in MEMORY_SUMS {
        for state in STATES {
            let slope = |run| slope(run, arm, object, state);
            let (Some(a), Some(b)) = (slope(&pair.a), slope(&pair.b)) else { continue };
            figures.push(Figure {
                workload: memory_workload(state),
                arm: arm.to_owned(),
                metric,
                means: [a.0, b.0],
                blocks: [1, 1],
                between_runs: slopes(a, b).filter(|_| has_ratio(metric, [a.0, b.0])),
                relative: None,
                is_exact: false,
                better: Some(Verdict::Lower),
            });
        }
    }
    figures
}

/// Slopes with the ends of their intervals, which are all the noise that there is. The ratio's
/// interval is from one's end to the other's opposite end: wider than 95 % would need. None where a
/// slope is not told apart from zero.
fn slopes(
    (a, a_low, a_high): (f64, f64, f64),
    (b, b_low, b_high): (f64, f64, f64),
) -> Option<Compared> {
    let ratio = b / a;
    let spread = (Bounds::Interval95, b_low / a_high, b_high / a_low);
    let verdict = judge(ratio, spread, Some((Bounds::Interval95, 1.0, 1.0)));
    (a_low > 0.0 && b_low > 0.0).then_some(Compared { ratio, spread, verdict })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;
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
            .find(|figure| figure.arm == arm && figure.metric == metric)
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
        assert!((between.ratio - 1.4).abs() < 0.01, "{found:?}");
        assert!(between.spread.1 > 1.38 && between.spread.2 < 1.42, "{found:?}");
        assert_eq!(between.verdict, Verdict::NoNoise);
        assert!((relative.ratio - 1.0).abs() < 0.01, "{found:?}");
        assert_eq!(relative.verdict, Verdict::NoDifferenceShown);
    }

    #[test]
    fn what_an_arm_alone_takes_more_gets_one() {
        for (ratio, verdict) in [(1.2, Verdict::Higher), (0.8, Verdict::Lower)] {
            let found = cpu(run(10, 1.0, 1.0), run(10, 0.7, ratio), "epoll-lt");
            let relative = found.relative.expect("both");
            assert!((relative.ratio - ratio).abs() < 0.02, "{found:?}");
            assert_eq!((relative.verdict, relative.spread.0), (verdict, Bounds::Interval95));
            let baseline = cpu(run(10, 1.0, 1.0), run(10, 0.7, ratio), "epoll-et");
            assert_eq!(baseline.relative, None);
        }
    }

    #[test]
    fn below_ten_blocks_there_is_a_range_and_no_verdict() {
        for (a, b) in [(9, 12), (12, 9)] {
            let found = cpu(run(a, 1.0, 1.0), run(b, 1.0, 2.0), "epoll-lt");
            let relative = found.relative.expect("both");
            assert_eq!((relative.verdict, relative.spread.0), (Verdict::Range, Bounds::Range));
            assert!(relative.spread.1 < 2.0 && 2.0 < relative.spread.2, "{found:?}");
        }
    }

    #[test]
    fn the_ends_of_a_range_are_the_farthest_blocks() {
        let found = unpaired(&[1.0, 2.0], &[3.0, 4.0]).expect("above zero");
        assert_eq!(found.1, (Bounds::Range, 1.5, 4.0));
        assert!((found.0 - (12.0_f64 / 2.0).sqrt()).abs() < 1e-12);
        assert_eq!(unpaired(&[0.0], &[1.0]), None);
    }

    #[test]
    fn calls_are_counted_and_have_no_interval() {
        let found = figure(run(10, 1.0, 1.0), run(10, 1.0, 2.0), "epoll-lt", "syscalls_per_echo");
        let compared = found.between_runs.expect("both");
        assert_eq!(
            (compared.ratio, compared.verdict, found.is_exact),
            (2.0, Verdict::Counted, true)
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
            assert!((compared.ratio - 1.0).abs() < 1e-12, "{compared:?}");
            assert!(!matches!(compared.verdict, Verdict::Lower | Verdict::Higher), "{compared:?}");
        }
    }

    #[test]
    fn slopes_differ_where_their_intervals_lie_apart() {
        let verdict = |a, b| slopes(a, b).map(|compared| compared.verdict);
        let base = (200.0, 190.0, 210.0);
        assert_eq!(verdict(base, (300.0, 211.0, 400.0)), Some(Verdict::Higher));
        assert_eq!(verdict(base, (300.0, 209.0, 400.0)), Some(Verdict::NoDifferenceShown));
        assert_eq!(verdict(base, (100.0, 50.0, 189.0)), Some(Verdict::Lower));
        assert_eq!(verdict(base, base), Some(Verdict::NoDifferenceShown));
        assert_eq!(verdict((5.0, -1.0, 11.0), base), None);
    }
}
