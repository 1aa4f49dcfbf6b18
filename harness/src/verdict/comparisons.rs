//! Arms against the baseline and against the arm that each stands on: ratios within blocks.

use itertools::Itertools as _;

use super::blocks::{Block, blocks_with};
use super::estimate::Estimate;
use super::memory;
use super::metric::{self, Metric};
use crate::matrix::Matrix;
use crate::rows::{Bounds, ComparisonRow, MemoryRow, Pass, TrialRow, Verdict};
use crate::statistics::{Interval, geometric_interval, median};

/// Returns the name of the arm of the baseline's second reading.
pub fn again(baseline: &str) -> String {
    format!("{baseline} (again)")
}

/// If the client's lag in sending accounts for more than this share of a difference in latency, the
/// difference is not the servers' alone.
const SEND_LAG_SHARE: f64 = 0.1;

/// Returns every comparison of the matrix that the rows allow.
pub fn compare(rows: &[TrialRow], memory: &[MemoryRow], matrix: &Matrix) -> Vec<ComparisonRow> {
    let workloads =
        rows.iter().filter(|row| row.pass != Some(Pass::Memory)).map(|row| &row.workload).unique();
    let mut comparisons: Vec<ComparisonRow> = workloads
        .cartesian_product(&metric::OF_TRIALS)
        .flat_map(|(workload, metric)| {
            Sample::new(rows, workload, metric, matrix).compare(&matrix.comparisons())
        })
        .collect();
    comparisons.extend(memory::compare(memory, &matrix.comparisons()));
    comparisons
}

/// The readings of one figure under one workload.
struct Sample<'a> {
    workload: &'a str,
    metric: &'a Metric,
    matrix: &'a Matrix,
    blocks: Vec<Block<'a>>,
}

impl<'a> Sample<'a> {
    fn new(
        rows: &'a [TrialRow],
        workload: &'a str,
        metric: &'a Metric,
        matrix: &'a Matrix,
    ) -> Self {
        Self { workload, metric, matrix, blocks: blocks_with(rows, workload, metric) }
    }

    fn rows(&self, arm: &str) -> impl Iterator<Item = &'a TrialRow> {
        self.blocks.iter().filter_map(move |block| block.get(arm).copied())
    }

    fn ratios(
        &self,
        column: impl Fn(&TrialRow) -> Option<f64>,
        arm: &str,
        baseline: &str,
    ) -> Vec<f64> {
        let value = |block: &Block<'_>, arm| column(block.get(arm)?);
        let ratio = |block: &Block<'_>| Some(value(block, arm)? / value(block, baseline)?);
        self.blocks.iter().filter_map(ratio).filter(|ratio| ratio.is_finite()).collect()
    }

    fn median(&self, column: impl Fn(&TrialRow) -> Option<f64>, arm: &str) -> Option<f64> {
        median(&mut self.rows(arm).filter_map(column).collect::<Vec<_>>())
    }

    fn own_ratios(&self, arm: &str, baseline: &str) -> Vec<f64> {
        self.ratios(|row| self.metric.value(row), arm, baseline)
    }

    fn compare(&self, pairs: &[(String, String)]) -> Vec<ComparisonRow> {
        let baseline = &self.matrix.baseline;
        let noise = Estimate::of(&self.own_ratios(&again(baseline), baseline));
        let noise = noise.map(|noise| noise.interval);
        pairs.iter().filter_map(|(arm, baseline)| self.compare_pair(arm, baseline, noise)).collect()
    }

    fn compare_pair(
        &self,
        arm: &str,
        baseline: &str,
        noise: Option<Interval>,
    ) -> Option<ComparisonRow> {
        let ratios = self.own_ratios(arm, baseline);
        let ratio = Estimate::of(&ratios)?;
        Some(ComparisonRow {
            workload: self.workload.to_owned(),
            metric: self.metric.name.to_owned(),
            arm: arm.to_owned(),
            backend: self.rows(arm).next()?.backend.clone(),
            baseline: baseline.to_owned(),
            baseline_median: self.median(|row| self.metric.value(row), baseline)?,
            arm_median: self.median(|row| self.metric.value(row), arm)?,
            ratio: ratio.mean,
            bounds: ratio.bounds,
            ratio_low: ratio.interval.low,
            ratio_high: ratio.interval.high,
            blocks: ratios.len() as u32,
            noise_low: noise.map(|noise| noise.low),
            noise_high: noise.map(|noise| noise.high),
            verdict: self.verdict(arm, baseline, &ratio, noise.as_ref()),
        })
    }

    fn verdict(
        &self,
        arm: &str,
        baseline: &str,
        ratio: &Estimate,
        noise: Option<&Interval>,
    ) -> Verdict {
        if self.metric.pass() == Pass::Syscalls {
            return Verdict::Counted;
        }
        let mut rows = self.rows(arm).chain(self.rows(baseline));
        if let Some(withheld) = rows.find_map(|row| self.matrix.no_verdict(row)) {
            return withheld;
        }
        let verdict = ratio.verdict(noise);
        let is_shown = matches!(verdict, Verdict::Lower | Verdict::Higher);
        if is_shown && self.is_of_the_client(arm, baseline) == Some(true) {
            return Verdict::SendLag;
        }
        verdict
    }

    /// Returns whether the client's lag in sending differs for certain, in the direction of the
    /// difference in latency, and accounts for a part of it.
    fn is_of_the_client(&self, arm: &str, baseline: &str) -> Option<bool> {
        let lag = self.metric.send_lag()?;
        let interval = geometric_interval(&self.ratios(lag, arm, baseline))?;
        let of_lag = self.median(lag, arm)? - self.median(lag, baseline)?;
        let value = |row: &TrialRow| self.metric.value(row);
        let difference = self.median(value, arm)? - self.median(value, baseline)?;
        Some(interval.excludes(1.0) && of_lag / difference > SEND_LAG_SHARE)
    }
}

/// Returns how far the ends of the widest interval of CPU per echo against the baseline lie from
/// their ratio, in percent of it; none below [`BLOCKS_FOR_VERDICT`] blocks.
pub fn precision_percent(rows: &[TrialRow], workload: &str, matrix: &Matrix) -> Option<f64> {
    let mut pairs = matrix.comparisons();
    pairs.retain(|(_, baseline)| *baseline == matrix.baseline);
    let comparisons = Sample::new(rows, workload, &metric::CPU, matrix).compare(&pairs);
    if comparisons.is_empty() || comparisons.iter().any(|row| row.bounds != Bounds::Interval95) {
        return None;
    }
    let width =
        |row: &ComparisonRow| (row.ratio_high / row.ratio).max(row.ratio / row.ratio_low) - 1.0;
    comparisons.iter().map(|row| 100.0 * width(row)).reduce(f64::max)
}

/// Returns whether a workload's intervals are as narrow as the matrix asks for, so that it may end
/// early.
pub fn is_precise(rows: &[TrialRow], workload: &str, matrix: &Matrix) -> bool {
    let asked = matrix.latency.as_ref().and_then(|latency| latency.precision_percent);
    let reached = || precision_percent(rows, workload, matrix);
    asked.is_some_and(|asked| reached().is_some_and(|reached| reached <= asked))
}

#[cfg(test)]
mod tests {
    use super::super::blocks::complete_blocks;
    use super::super::memory::subtract_null;
    use super::*;
    use crate::rows::{KERNEL_SUM, NEVER_USED, Status};

    fn row(block: u32, arm: &str, cpu: f64, status: Status) -> TrialRow {
        TrialRow {
            pass: Some(Pass::Latency),
            workload: "w".to_owned(),
            block,
            arm: arm.to_owned(),
            server_cpu_ns_per_echo: Some(cpu),
            achieved_per_s: Some(1e9 / cpu),
            status,
            ..TrialRow::default()
        }
    }

    fn block(number: u32, base: f64, again: f64, other: f64, status: Status) -> [TrialRow; 3] {
        [
            row(number, "epoll-et", base, Status::Ok),
            row(number, "epoll-et (again)", again, Status::Ok),
            row(number, "epoll-document", other, status),
        ]
    }

    fn matrix() -> Matrix {
        let text = r#"
            question = "q"
            baseline = "epoll-et"
            backends = [
                { backend = "epoll-document" },
                { backend = "epoll-et", over = "epoll-document" },
                { backend = "uring-multishot", over = "epoll-document" },
            ]
        "#;
        toml::from_str(text).expect("a matrix")
    }

    fn of(rows: &[TrialRow], metric: &str, arm: &str, baseline: &str) -> Option<ComparisonRow> {
        let mut all = compare(rows, &[], &matrix()).into_iter();
        all.find(|row| row.metric == metric && row.arm == arm && row.baseline == baseline)
    }

    fn cpu(rows: &[TrialRow]) -> Option<ComparisonRow> {
        of(rows, "server_cpu_ns_per_echo", "epoll-document", "epoll-et")
    }

    #[test]
    fn ratios_are_taken_inside_of_blocks() {
        // The machine is twice as slow in the second block; the ratio is 2 in one and 8 in the
        // other.
        let rows =
            [block(1, 100.0, 110.0, 200.0, Status::Ok), block(2, 200.0, 190.0, 1600.0, Status::Ok)]
                .concat();
        let found = cpu(&rows).expect("compared");
        assert!((found.ratio - 4.0).abs() < 1e-9, "{found:?}");
        assert_eq!((found.bounds, found.ratio_low, found.ratio_high), (Bounds::Range, 2.0, 8.0));
        assert_eq!((found.blocks, found.noise_low, found.noise_high), (2, Some(0.95), Some(1.1)));
        assert_eq!(found.verdict, Verdict::Range);
    }

    #[test]
    fn an_arm_that_has_a_figure_in_no_block_leaves_the_others_theirs() {
        let mut rows =
            [block(1, 100.0, 100.0, 200.0, Status::Ok), block(2, 100.0, 100.0, 200.0, Status::Ok)]
                .concat();
        for number in [1, 2] {
            let mut uring = row(number, "uring-multishot", 1.0, Status::Ok);
            uring.server_cpu_ns_per_echo = None;
            rows.push(uring);
        }
        assert_eq!(cpu(&rows).expect("compared").blocks, 2);
        // One that has it in some blocks takes the others out: which they are may be no accident.
        rows.last_mut().expect("there is one").server_cpu_ns_per_echo = Some(100.0);
        assert_eq!(cpu(&rows).expect("compared").blocks, 1);
    }

    /// Blocks in which the arm takes `ratio` times the CPU of the baseline, give or take 1 %, and
    /// the baseline's second reading `again` times, give or take 1 %.
    fn blocks(count: u32, ratio: f64, again: f64) -> Vec<TrialRow> {
        let wobble = |number: u32, step: u32| 0.99 + 0.02 * f64::from(number * step % 5) / 4.0;
        let of = |number| {
            let base = 100.0 + f64::from(number);
            block(
                number,
                base,
                base * again * wobble(number, 1),
                base * ratio * wobble(number, 2),
                Status::Ok,
            )
        };
        (1..=count).flat_map(of).collect()
    }

    #[test]
    fn a_verdict_takes_ten_blocks_an_interval_without_1_and_a_difference_beyond_the_noise() {
        let verdict =
            |count, ratio, again| cpu(&blocks(count, ratio, again)).expect("compared").verdict;
        assert_eq!(verdict(9, 2.0, 1.0), Verdict::Range);
        assert_eq!(verdict(10, 2.0, 1.0), Verdict::Higher);
        assert_eq!(verdict(10, 0.5, 1.0), Verdict::Lower);
        assert_eq!(verdict(10, 1.0, 1.0), Verdict::NoDifferenceShown);
        // The interval excludes 1, but identical servers lie as far apart, this way or the other.
        assert_eq!(verdict(10, 1.04, 1.05), Verdict::NoDifferenceShown);
        assert_eq!(verdict(10, 1.04, 0.95), Verdict::NoDifferenceShown);
        assert_eq!(verdict(10, 1.04, 1.0), Verdict::Higher);
    }

    #[test]
    fn from_ten_blocks_on_the_bounds_are_the_t_interval() {
        // The ratios and scipy's interval of them are those of the test in statistics.rs.
        let ratios = [0.81, 0.79, 0.93, 0.88, 0.75, 0.84, 0.90, 0.78, 0.83, 0.86];
        let of = |(index, ratio): (usize, f64)| {
            let base = 1000.0 * (index + 1) as f64;
            block(index as u32 + 1, base, base, base * ratio, Status::Ok)
        };
        let rows: Vec<_> = ratios.into_iter().enumerate().flat_map(of).collect();
        let found = cpu(&rows).expect("compared");
        assert_eq!((found.bounds, found.blocks), (Bounds::Interval95, 10));
        assert!((found.ratio_low - 0.7958693).abs() < 1e-4, "{found:?}");
        assert!((found.ratio_high - 0.8766468).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn precision_is_that_of_the_widest_interval() {
        let ratios = [0.81, 0.79, 0.93, 0.88, 0.75, 0.84, 0.90, 0.78, 0.83, 0.86];
        let of = |(index, ratio): (usize, f64)| {
            let mut rows =
                block(index as u32 + 1, 100.0, 100.0, 100.0 * ratio, Status::Ok).to_vec();
            // This one is always the same: its interval has no width.
            rows.push(row(index as u32 + 1, "uring-multishot", 70.0, Status::Ok));
            rows
        };
        let rows: Vec<_> = ratios.into_iter().enumerate().flat_map(of).collect();
        // The interval of these ratios is known: 0.8353 (0.7959 to 0.8766).
        let found = precision_percent(&rows, "w", &matrix()).expect("ten blocks");
        assert!((found - 100.0 * (0.8766468 / 0.8352821 - 1.0)).abs() < 0.02, "{found}");
        assert_eq!(precision_percent(&rows[..36], "w", &matrix()), None, "nine blocks");
    }

    #[test]
    fn without_the_second_reading_there_is_no_verdict() {
        let mut rows = blocks(10, 2.0, 1.0);
        rows.retain(|row| !row.arm.ends_with("(again)"));
        assert_eq!(cpu(&rows).expect("compared").verdict, Verdict::NoNoise);
    }

    #[test]
    fn a_shared_cpu_gives_figures_and_no_verdict() {
        let mut rows = blocks(10, 2.0, 1.0);
        for row in rows.iter_mut().filter(|row| row.arm == "epoll-document") {
            row.shared_cpu = true;
        }
        let found = cpu(&rows).expect("compared");
        assert_eq!(found.verdict, Verdict::SharedCpu);
        assert!((found.ratio - 2.0).abs() < 0.02, "{found:?}");
        // Nor has what is compared with it.
        let over =
            of(&rows, "server_cpu_ns_per_echo", "epoll-et", "epoll-document").expect("compared");
        assert_eq!(over.verdict, Verdict::SharedCpu);
    }

    #[test]
    fn a_shared_core_gives_a_verdict_only_where_that_is_asked_for() {
        let mut rows = blocks(10, 2.0, 1.0);
        for row in &mut rows {
            row.shared_core = Some(true);
        }
        let found = cpu(&rows).expect("compared");
        assert_eq!(found.verdict, Verdict::SharedCore);
        assert!((found.ratio - 2.0).abs() < 0.02, "{found:?}");
        assert_eq!(found.verdict.words(), "shared-core, no verdict");
        let asked = Matrix { hyperthreads: true, ..matrix() };
        assert_eq!(compare(&rows, &[], &asked)[0].verdict, Verdict::Higher);
        for core in [None, Some(false)] {
            rows.iter_mut().for_each(|row| row.shared_core = core);
            assert_eq!(cpu(&rows).expect("compared").verdict, Verdict::Higher, "{core:?}");
        }
    }

    /// Ten blocks of an open loop: the p99 of the arm and of the baseline, of both the lag and the
    /// latency, in µs, give or take 1 % from block to block. The p50 is half of it, of the lag a
    /// fifth.
    fn open_loop(lag: [f64; 2], latency: [f64; 2]) -> Vec<TrialRow> {
        let of = |number: u32| {
            let row = |arm: &str, index: usize, step: u32| {
                let wobble = 0.99 + 0.02 * f64::from(number * step % 5) / 4.0;
                TrialRow {
                    latency_p50_us: Some(latency[index] / 2.0 * wobble),
                    latency_p99_us: Some(latency[index] * wobble),
                    service_p99_us: Some((latency[index] - lag[index]) * wobble),
                    send_lag_p50_us: Some(lag[index] / 5.0 * wobble),
                    send_lag_p99_us: Some(lag[index] * wobble),
                    ..row(number, arm, 100.0 * (index + 1) as f64, Status::Ok)
                }
            };
            [row("epoll-document", 0, 2), row("epoll-et", 1, 3), row("epoll-et (again)", 1, 1)]
        };
        (1..=10).flat_map(of).collect()
    }

    #[test]
    fn a_latency_that_differs_as_the_client_lags_gets_no_verdict() {
        let verdict = |rows: &[TrialRow], metric| {
            of(rows, metric, "epoll-document", "epoll-et").map(|row| row.verdict)
        };
        let p99 = |lag, latency| verdict(&open_loop(lag, latency), "latency_p99_us");
        assert_eq!(p99([20.0, 20.0], [200.0, 100.0]), Some(Verdict::Higher));
        // 30 of 100 µs, and 30 of 400 µs.
        assert_eq!(p99([50.0, 20.0], [200.0, 100.0]), Some(Verdict::SendLag));
        assert_eq!(p99([20.0, 50.0], [100.0, 200.0]), Some(Verdict::SendLag));
        assert_eq!(p99([50.0, 20.0], [500.0, 100.0]), Some(Verdict::Higher));
        // Without the greater lag it would be lower still.
        assert_eq!(p99([50.0, 20.0], [100.0, 200.0]), Some(Verdict::Lower));
        // Lags that differ by no more than they do from block to block.
        assert_eq!(p99([20.0, 20.05], [100.0, 100.1]), Some(Verdict::NoDifferenceShown));
        // Without a difference there is none to account for.
        assert_eq!(p99([50.0, 20.0], [100.0, 100.0]), Some(Verdict::NoDifferenceShown));

        let rows = open_loop([50.0, 20.0], [200.0, 100.0]);
        // The lag's median takes 6 µs of the median's 50.
        assert_eq!(verdict(&rows, "latency_p50_us"), Some(Verdict::SendLag));
        // The lag is no part of these.
        assert_eq!(verdict(&rows, "service_p99_us"), Some(Verdict::Higher));
        assert_eq!(verdict(&rows, "server_cpu_ns_per_echo"), Some(Verdict::Lower));
        // Rows of a closed loop, or from before there was a column for it.
        let without = |row| TrialRow { send_lag_p50_us: None, send_lag_p99_us: None, ..row };
        let rows: Vec<_> = rows.into_iter().map(without).collect();
        assert_eq!(verdict(&rows, "latency_p99_us"), Some(Verdict::Higher));
    }

    #[test]
    fn an_arm_that_was_owed_messages_in_one_block_has_no_verdict_on_what_lies_among_them() {
        let verdict = |rows: &[TrialRow], metric| {
            of(rows, metric, "epoll-document", "epoll-et").map(|row| row.verdict)
        };
        let mut rows = open_loop([20.0, 20.0], [200.0, 100.0]);
        let owing = rows.iter_mut().find(|row| row.arm == "epoll-document").expect("a row");
        (owing.owed, owing.latency_p99_us) = (Some(400), None);
        assert_eq!(
            verdict(&rows, "latency_p99_us"),
            None,
            "nine blocks in which it happened to be fast"
        );
        assert_eq!(verdict(&rows, "latency_p50_us"), Some(Verdict::Higher), "the median is exact");
        assert_eq!(verdict(&rows, "server_cpu_ns_per_echo"), Some(Verdict::Lower));
        // The others lose no block by it.
        let noise = |rows: &[TrialRow]| blocks_with(rows, "w", p99()).len();
        assert_eq!(noise(&rows), 10);
    }

    fn p99() -> &'static Metric {
        &metric::P99
    }

    #[test]
    fn an_arm_is_compared_with_what_it_stands_on_in_the_same_blocks() {
        let mut rows = blocks(10, 4.0, 1.0);
        rows.extend(
            (1..=10).map(|number| {
                row(number, "uring-multishot", 100.0 + f64::from(number), Status::Ok)
            }),
        );
        let metric = "server_cpu_ns_per_echo";
        let over = of(&rows, metric, "uring-multishot", "epoll-document").expect("compared");
        let against = of(&rows, metric, "uring-multishot", "epoll-et").expect("compared");
        assert!(
            (over.ratio - 0.25).abs() < 0.005 && (against.ratio - 1.0).abs() < 1e-9,
            "{over:?} {against:?}"
        );
        assert_eq!((over.verdict, against.verdict), (Verdict::Lower, Verdict::NoDifferenceShown));
        // The noise is that of the baseline in both.
        assert_eq!((over.noise_low, over.noise_high), (against.noise_low, against.noise_high));
        let baseline = of(&rows, metric, "epoll-et", "epoll-document").expect("compared");
        assert_eq!(baseline.verdict, Verdict::Lower);
    }

    #[test]
    fn a_rejected_trial_takes_its_block_out() {
        let rows = [
            block(1, 100.0, 100.0, 200.0, Status::Ok),
            block(2, 100.0, 100.0, 900.0, Status::Rejected),
        ]
        .concat();
        let found = cpu(&rows).expect("compared");
        assert_eq!((found.ratio, found.blocks), (2.0, 1));
        let rows = block(1, 100.0, 100.0, 200.0, Status::Failed);
        assert_eq!(cpu(&rows), None);
        // So does one that did not come to run.
        let rows = [
            &block(1, 100.0, 100.0, 200.0, Status::Ok)[..],
            &block(2, 100.0, 100.0, 0.0, Status::Ok)[..2],
        ];
        assert_eq!(cpu(&rows.concat()).expect("compared").blocks, 1);
    }

    #[test]
    fn an_arm_that_never_stands_is_left_out_and_one_that_is_unsupported_at_once() {
        let count = |rows: &[TrialRow]| complete_blocks(rows, Pass::Latency, "w").len();
        let never =
            |status| (1..=3).flat_map(move |number| block(number, 100.0, 100.0, 200.0, status));
        let rejected: Vec<_> = never(Status::Rejected).collect();
        assert_eq!(count(&rejected[..6]), 0, "two blocks may be chance");
        assert_eq!(count(&rejected), 3);
        assert_eq!(cpu(&rejected), None);
        let unsupported: Vec<_> = never(Status::Unsupported).collect();
        assert_eq!((count(&unsupported[..3]), count(&unsupported)), (1, 3));
        // Once it has stood, a block without it is one that lost it.
        let sometimes: Vec<_> =
            never(Status::Rejected).chain(block(4, 100.0, 100.0, 200.0, Status::Ok)).collect();
        assert_eq!(count(&sometimes), 1);
    }

    #[test]
    fn a_trial_that_was_run_again_stands_in_for_the_first() {
        let mut rows = block(1, 100.0, 100.0, 900.0, Status::Rejected).to_vec();
        rows.push(row(1, "epoll-document", 200.0, Status::Ok));
        assert_eq!(cpu(&rows).expect("compared").ratio, 2.0);
        rows.push(row(1, "epoll-document", 200.0, Status::Rejected));
        assert_eq!(cpu(&rows), None, "the last one decides");
    }

    #[test]
    fn a_busy_client_spoils_throughput_but_not_cpu() {
        let rows = block(1, 100.0, 100.0, 200.0, Status::ClientLimited);
        assert!(cpu(&rows).is_some());
        let all = compare(&rows, &[], &matrix());
        assert!(all.iter().all(|row| row.metric != "achieved_per_s"), "{all:?}");
    }

    #[test]
    fn null_is_the_floor() {
        let memory = |backend: &str, object: &str, slope: f64| MemoryRow {
            run_id: 1,
            arm: backend.to_owned(),
            backend: backend.to_owned(),
            state: NEVER_USED.to_owned(),
            space: "kernel".to_owned(),
            object: object.to_owned(),
            aliases: String::new(),
            bytes_per_connection: slope,
            low: None,
            high: None,
            intercept_bytes: 0.0,
            down_bytes_per_connection: None,
            over_null_bytes_per_connection: None,
            over_null_low: None,
            over_null_high: None,
            status: Status::Ok,
        };
        let mut rows = [memory("epoll-et", "TCP", 4736.0), memory("epoll-et", "epi", 128.0)];
        subtract_null(&mut rows);
        assert_eq!(rows[0].over_null_bytes_per_connection, None, "no floor, no difference");
        let mut rows = [rows[0].clone(), rows[1].clone(), memory("null", "TCP", 4700.0)];
        subtract_null(&mut rows);
        let over: Vec<_> = rows.iter().map(|row| row.over_null_bytes_per_connection).collect();
        assert_eq!(over, [Some(36.0), Some(128.0), Some(0.0)]);

        let interval = |low: f64, high: f64| (Some(low), Some(high));
        let sum = |backend: &str, slope: f64| {
            let (low, high) = interval(slope - 1.0, slope + 1.0);
            MemoryRow { low, high, ..memory(backend, KERNEL_SUM, slope) }
        };
        let mut rows =
            [sum("null", 8000.0), sum("epoll-et", 8200.0), sum("epoll-document", 8300.0)];
        subtract_null(&mut rows);
        let all = compare(&[], &rows, &matrix());
        let ratios: Vec<_> =
            all.iter().map(|row| (row.arm.as_str(), row.baseline.as_str(), row.ratio)).collect();
        let (document, edge) = ("epoll-document", "epoll-et");
        assert_eq!(ratios, [(document, edge, 1.5), (edge, document, 200.0 / 300.0)]);
        assert!(all.iter().all(|row| row.verdict == Verdict::OneWalk));
    }
}
