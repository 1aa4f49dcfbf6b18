//! Arms against the baseline and against the arm that each stands on: ratios within blocks, and
//! what a connection costs over `null`.

use std::collections::{BTreeMap, BTreeSet};

use crate::matrix::{BLOCKS_FOR_VERDICT, Matrix};
use crate::rows::{
    Bounds, ComparisonRow, KERNEL_SUM, MemoryRow, NEVER_USED, NOT_RUN, Pass, Status, TrialRow,
    USED_THEN_IDLE, USER_SUM, Verdict,
};
use crate::statistics::{geometric_interval, geometric_mean, median};

/// What the arm of the baseline's second reading is called.
pub fn again(baseline: &str) -> String {
    format!("{baseline} (again)")
}

/// A column of `trials.csv` that is compared.
pub struct Metric {
    /// The column.
    pub name: &'static str,
    /// The pass that measures it.
    pub pass: Pass,
    /// The figure.
    pub value: fn(&TrialRow) -> Option<f64>,
    /// Whether it stands when the client was the bottleneck.
    stands_when_client_limited: bool,
    /// The verdict on an arm that is better by it; none of what is good or bad only by what follows
    /// from it.
    pub better: Option<Verdict>,
}

/// All of them.
pub const METRICS: [Metric; 8] = [
    Metric {
        name: "server_cpu_ns_per_echo",
        pass: Pass::Latency,
        value: |row| row.server_cpu_ns_per_echo,
        stands_when_client_limited: true,
        better: Some(Verdict::Lower),
    },
    Metric {
        name: "achieved_per_s",
        pass: Pass::Latency,
        value: |row| row.achieved_per_s,
        stands_when_client_limited: false,
        better: Some(Verdict::Higher),
    },
    Metric {
        name: "latency_p50_us",
        pass: Pass::Latency,
        value: |row| row.latency_p50_us,
        stands_when_client_limited: false,
        better: Some(Verdict::Lower),
    },
    Metric {
        name: "latency_p99_us",
        pass: Pass::Latency,
        value: |row| row.latency_p99_us,
        stands_when_client_limited: false,
        better: Some(Verdict::Lower),
    },
    Metric {
        name: "latency_p999_us",
        pass: Pass::Latency,
        value: |row| row.latency_p999_us,
        stands_when_client_limited: false,
        better: Some(Verdict::Lower),
    },
    Metric {
        name: "service_p99_us",
        pass: Pass::Latency,
        value: |row| row.service_p99_us,
        stands_when_client_limited: false,
        better: Some(Verdict::Lower),
    },
    Metric {
        name: "context_switches_per_echo",
        pass: Pass::Latency,
        value: |row| row.context_switches_per_echo,
        stands_when_client_limited: true,
        better: None,
    },
    Metric {
        name: "syscalls_per_echo",
        pass: Pass::Syscalls,
        value: |row| row.syscalls_per_echo,
        stands_when_client_limited: true,
        better: Some(Verdict::Lower),
    },
];

/// The sums of memory that are compared, with the names of what they come to over `null`.
pub const MEMORY_SUMS: [(&str, &str); 2] = [
    (KERNEL_SUM, "memory_kernel_bytes_per_connection_over_null"),
    (USER_SUM, "memory_user_bytes_per_connection_over_null"),
];

/// The client's own part of a latency in an open loop, at the same percentile or the nearest that
/// there is: how late it sent.
fn send_lag(metric: &str) -> Option<fn(&TrialRow) -> Option<f64>> {
    match metric {
        "latency_p50_us" => Some(|row| row.send_lag_p50_us),
        "latency_p99_us" | "latency_p999_us" => Some(|row| row.send_lag_p99_us),
        _ => None,
    }
}

/// If the client's lag in sending accounts for more than this share of a difference in latency, the
/// difference is not the servers' alone.
const SEND_LAG_SHARE: f64 = 0.1;

/// An arm that stood in none of this many blocks or more is left out instead of taking them all
/// out: it has no figures in any block, so leaving it out is no choice of blocks.
const BLOCKS_TO_GIVE_UP: usize = 3;

/// The same of one whose trials all failed: no gate turned it away, which another hour might not.
const FAILED_BLOCKS_TO_GIVE_UP: usize = 2;

/// The trials of a block that counts, by arm.
pub type Block<'a> = BTreeMap<&'a str, &'a TrialRow>;

/// Whether an arm has no figures under a workload: it is unsupported, or never stood.
pub fn is_given_up(rows: &[TrialRow], pass: Pass, workload: &str, arm: &str) -> bool {
    let is_of_arm =
        |row: &&TrialRow| row.pass == Some(pass) && row.workload == workload && row.arm == arm;
    let tried = || rows.iter().filter(is_of_arm).filter(|row| row.status != Status::Unsupported);
    let blocks: BTreeSet<u32> = tried().map(|row| row.block).collect();
    let enough = match tried().all(|row| row.status == Status::Failed) {
        true => FAILED_BLOCKS_TO_GIVE_UP,
        false => BLOCKS_TO_GIVE_UP,
    };
    // One that stands nowhere, and is tried no more, costs the others no block.
    let mut everywhere = rows.iter().filter(|row| row.arm == arm);
    if everywhere.clone().any(|row| row.reason.starts_with(NOT_RUN))
        && !everywhere.any(|row| row.status.is_usable())
    {
        return true;
    }
    !tried().any(|row| row.status.is_usable()) && (blocks.is_empty() || blocks.len() >= enough)
}

/// The blocks of a workload that count: those in which every arm has a trial that stands, its last
/// one if it was run again. A trial that was turned away, whatever its own figures, takes its whole
/// block out, or the choice of blocks would depend on the results. Arms that are unsupported, or
/// that never stood, have no figures and are left out.
pub fn complete_blocks<'a>(rows: &'a [TrialRow], pass: Pass, workload: &str) -> Vec<Block<'a>> {
    let mut blocks: BTreeMap<u32, Block<'a>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.pass == Some(pass) && row.workload == workload) {
        blocks.entry(row.block).or_default().insert(&row.arm, row);
    }
    let all: BTreeSet<&str> = blocks.values().flat_map(BTreeMap::keys).copied().collect();
    let arms: BTreeSet<&str> =
        all.into_iter().filter(|arm| !is_given_up(rows, pass, workload, arm)).collect();
    let complete = |block: Block<'a>| -> Option<Block<'a>> {
        arms.iter()
            .map(|&arm| {
                block
                    .get(arm)
                    .filter(|row| row.status.is_usable())
                    .map(|&row| (row.arm.as_str(), row))
            })
            .collect()
    };
    let blocks: Vec<Block<'a>> = blocks.into_values().collect();
    if arms.is_empty() { Vec::new() } else { blocks.into_iter().filter_map(complete).collect() }
}

/// Whether a client that was the limit leaves nothing of a figure. For the same reason as a
/// rejected trial takes out its block, a client that was the limit in one block takes out all: what
/// is left would be the blocks in which the faster backend happened to be slow.
pub fn is_spoilt_by_client(rows: &[TrialRow], workload: &str, metric: &Metric) -> bool {
    let limited = |row: &TrialRow| {
        row.workload == workload
            && row.pass == Some(metric.pass)
            && row.status == Status::ClientLimited
    };
    !metric.stands_when_client_limited && rows.iter().any(limited)
}

/// The blocks of a workload in which every arm has this figure, and may be compared by it. An arm
/// that has it in no block takes none of the others out; nor does one that lacks it in a block
/// because messages were still owed, and that is left out itself: its other blocks are those in
/// which it happened to be fast.
pub fn blocks_with<'a>(rows: &'a [TrialRow], workload: &str, metric: &Metric) -> Vec<Block<'a>> {
    if is_spoilt_by_client(rows, workload, metric) {
        return Vec::new();
    }
    let mut blocks = complete_blocks(rows, metric.pass, workload);
    let has = |arm: &str, block: &Block<'_>| {
        block.get(arm).is_some_and(|row| (metric.value)(row).is_some())
    };
    let lacks = |row: &TrialRow| row.is_saturated() && (metric.value)(row).is_none();
    let saturated: BTreeSet<&str> = blocks
        .iter()
        .flat_map(|block| block.iter().filter(|(_, row)| lacks(row)).map(|(arm, _)| *arm))
        .collect();
    blocks.iter_mut().for_each(|block| block.retain(|arm, _| !saturated.contains(arm)));
    let all = blocks.iter().flat_map(BTreeMap::keys).copied();
    let without: BTreeSet<&str> =
        all.filter(|arm| !blocks.iter().any(|block| has(arm, block))).collect();
    blocks.retain(|block| block.keys().all(|arm| without.contains(arm) || has(arm, block)));
    blocks
}

/// What a ratio with these bounds shows, beside those of a server to itself.
pub fn judge(ratio: f64, (bounds, low, high): Spread, noise: Option<Spread>) -> Verdict {
    let Some((_, noise_low, noise_high)) = noise.filter(|_| bounds == Bounds::Interval95) else {
        return if bounds == Bounds::Range { Verdict::Range } else { Verdict::NoNoise };
    };
    // Whichever way two readings of one server lie apart, as large a difference either way is
    // noise.
    let is_beyond_noise = ratio.ln().abs() > noise_low.ln().abs().max(noise_high.ln().abs());
    match is_beyond_noise {
        true if high < 1.0 => Verdict::Lower,
        true if low > 1.0 => Verdict::Higher,
        _ => Verdict::NoDifferenceShown,
    }
}

/// Every comparison of the matrix that the rows allow.
pub fn compare(rows: &[TrialRow], memory: &[MemoryRow], matrix: &Matrix) -> Vec<ComparisonRow> {
    let mut comparisons = Vec::new();
    let mut workloads: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| row.pass != Some(Pass::Memory)) {
        if !workloads.contains(&row.workload.as_str()) {
            workloads.push(&row.workload);
        }
    }
    let pairs = matrix.comparisons();
    for workload in workloads {
        for metric in &METRICS {
            compare_one(rows, workload, metric, matrix, &pairs, &mut comparisons);
        }
    }
    compare_memory(memory, &pairs, &mut comparisons);
    comparisons
}

fn compare_one(
    rows: &[TrialRow],
    workload: &str,
    metric: &Metric,
    matrix: &Matrix,
    pairs: &[(String, String)],
    comparisons: &mut Vec<ComparisonRow>,
) {
    let blocks = blocks_with(rows, workload, metric);
    type Value = fn(&TrialRow) -> Option<f64>;
    let values_of = |value: Value, arm: &str| -> Vec<Option<f64>> {
        blocks.iter().map(|arms| arms.get(arm).and_then(|row| value(row))).collect()
    };
    let ratios_of = |value: Value, arm: &str, baseline: &str| -> Vec<f64> {
        let pairs = values_of(value, arm).into_iter().zip(values_of(value, baseline));
        pairs
            .filter_map(|(arm, baseline)| Some(arm? / baseline?))
            .filter(|ratio| ratio.is_finite())
            .collect()
    };
    let median_of = |value: Value, arm: &str| {
        median(&mut values_of(value, arm).into_iter().flatten().collect::<Vec<_>>())
    };
    let ratios = |arm: &str, baseline: &str| ratios_of(metric.value, arm, baseline);
    // Whether the client's lag in sending differs for certain, and in the direction and by enough
    // to account for a part of the difference in latency.
    let is_of_the_client = |arm: &str, baseline: &str| -> Option<bool> {
        let lag = send_lag(metric.name)?;
        let (low, high) = geometric_interval(&ratios_of(lag, arm, baseline))?;
        let difference = |value: Value| Some(median_of(value, arm)? - median_of(value, baseline)?);
        let share = difference(lag)? / difference(metric.value)?;
        Some((low > 1.0 || high < 1.0) && share > SEND_LAG_SHARE)
    };
    let noise = spread(&ratios(&again(&matrix.baseline), &matrix.baseline));
    for (arm, baseline) in pairs {
        let Some(row) = blocks.iter().find_map(|arms| arms.get(arm.as_str())) else { continue };
        let ratios = ratios(arm, baseline);
        let (Some(ratio), Some((bounds, low, high)), Some(baseline_median), Some(arm_median)) = (
            geometric_mean(&ratios),
            spread(&ratios),
            median_of(metric.value, baseline),
            median_of(metric.value, arm),
        ) else {
            continue;
        };
        let withheld = [arm, baseline].into_iter().find_map(|arm| {
            blocks
                .iter()
                .filter_map(|arms| arms.get(arm.as_str()))
                .find_map(|row| matrix.no_verdict(row))
        });
        let verdict = match (metric.pass, withheld) {
            (Pass::Syscalls, _) => Verdict::Counted,
            (_, Some(withheld)) => withheld,
            _ => match judge(ratio, (bounds, low, high), noise) {
                Verdict::Lower | Verdict::Higher
                    if is_of_the_client(arm, baseline) == Some(true) =>
                {
                    Verdict::SendLag
                }
                said => said,
            },
        };
        comparisons.push(ComparisonRow {
            workload: workload.to_owned(),
            metric: metric.name.to_owned(),
            arm: arm.clone(),
            backend: row.backend.clone(),
            baseline: baseline.clone(),
            baseline_median,
            arm_median,
            ratio,
            bounds,
            ratio_low: low,
            ratio_high: high,
            blocks: ratios.len() as u32,
            noise_low: noise.map(|(_, low, _)| low),
            noise_high: noise.map(|(.., high)| high),
            verdict,
        });
    }
}

/// How far the ends of the widest interval of CPU per echo against the baseline lie from their
/// ratio, in percent of it; none below [`BLOCKS_FOR_VERDICT`] blocks.
pub fn precision_percent(rows: &[TrialRow], workload: &str, matrix: &Matrix) -> Option<f64> {
    let pairs: Vec<_> = matrix
        .comparisons()
        .into_iter()
        .filter(|(_, baseline)| *baseline == matrix.baseline)
        .collect();
    let mut comparisons = Vec::new();
    compare_one(rows, workload, &METRICS[0], matrix, &pairs, &mut comparisons);
    if comparisons.is_empty() || comparisons.iter().any(|row| row.bounds != Bounds::Interval95) {
        return None;
    }
    let width =
        |row: &ComparisonRow| (row.ratio_high / row.ratio).max(row.ratio / row.ratio_low) - 1.0;
    comparisons.iter().map(|row| 100.0 * width(row)).reduce(f64::max)
}

/// Whether a workload's intervals are as narrow as the matrix asks for, so that it may end early.
pub fn is_precise(rows: &[TrialRow], workload: &str, matrix: &Matrix) -> bool {
    let asked = matrix.latency.as_ref().and_then(|latency| latency.precision_percent);
    asked.is_some_and(|asked| {
        precision_percent(rows, workload, matrix).is_some_and(|reached| reached <= asked)
    })
}

/// What the bounds of a ratio are, and where they lie.
pub type Spread = (Bounds, f64, f64);

/// What ratios of blocks allow to state, and its bounds.
pub fn spread(ratios: &[f64]) -> Option<Spread> {
    if ratios.len() >= BLOCKS_FOR_VERDICT {
        return geometric_interval(ratios).map(|(low, high)| (Bounds::Interval95, low, high));
    }
    let low = ratios.iter().copied().reduce(f64::min)?;
    Some((Bounds::Range, low, ratios.iter().copied().reduce(f64::max)?))
}

/// Fills in what each slope is over that of `null`, never used, for the same object. An object that
/// `null` has none of costs it nothing. Without a usable `null` there is no floor, and nothing but
/// a server's own pages, which need none, is filled in.
pub fn subtract_null(rows: &mut [MemoryRow]) {
    let is_floor = |row: &&MemoryRow| {
        row.backend == "null" && row.state == NEVER_USED && row.status == Status::Ok
    };
    let slope = |row: &MemoryRow| (row.bytes_per_connection, row.low, row.high);
    let floor: BTreeMap<String, _> =
        rows.iter().filter(is_floor).map(|row| (row.object.clone(), slope(row))).collect();
    for row in rows.iter_mut().filter(|row| row.space == "user" || !floor.is_empty()) {
        let none = (0.0, Some(0.0), Some(0.0));
        let (under, under_low, under_high) = match row.space.as_str() {
            "user" => none,
            _ => floor.get(&row.object).copied().unwrap_or(none),
        };
        row.over_null_bytes_per_connection = Some(row.bytes_per_connection - under);
        row.over_null_low = row.low.zip(under_high).map(|(low, under)| low - under);
        row.over_null_high = row.high.zip(under_low).map(|(high, under)| high - under);
    }
}

/// What each arm adds to two bare endpoints against what the other adds. One walk is one
/// comparison; what it resolves is the interval of each slope, so there is none without.
fn compare_memory(
    memory: &[MemoryRow],
    pairs: &[(String, String)],
    comparisons: &mut Vec<ComparisonRow>,
) {
    for (object, metric) in MEMORY_SUMS {
        for state in [NEVER_USED, USED_THEN_IDLE] {
            for (arm, baseline) in pairs {
                let slope = |arm: &String| {
                    memory
                        .iter()
                        .filter(|row| {
                            row.status == Status::Ok && row.object == object && row.state == state
                        })
                        .find(|row| row.arm == *arm)
                        .and_then(|row| {
                            Some((row, row.over_null_low.and(row.over_null_bytes_per_connection)?))
                        })
                };
                let (Some((row, arm_bytes)), Some((_, baseline_bytes))) =
                    (slope(arm), slope(baseline))
                else {
                    continue;
                };
                if baseline_bytes <= 0.0 {
                    continue;
                }
                let ratio = arm_bytes / baseline_bytes;
                comparisons.push(ComparisonRow {
                    workload: format!("memory {state}"),
                    metric: metric.to_owned(),
                    arm: arm.clone(),
                    backend: row.backend.clone(),
                    baseline: baseline.clone(),
                    baseline_median: baseline_bytes,
                    arm_median: arm_bytes,
                    ratio,
                    bounds: Bounds::Range,
                    ratio_low: ratio,
                    ratio_high: ratio,
                    blocks: 1,
                    noise_low: None,
                    noise_high: None,
                    verdict: Verdict::OneWalk,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // Where there is no difference, there is none to account for.
        assert_eq!(p99([50.0, 20.0], [100.0, 100.0]), Some(Verdict::NoDifferenceShown));

        let rows = open_loop([50.0, 20.0], [200.0, 100.0]);
        // Of the median's 50 µs the lag's median takes 6.
        assert_eq!(verdict(&rows, "latency_p50_us"), Some(Verdict::SendLag));
        // What the lag is no part of.
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
        METRICS.iter().find(|metric| metric.name == "latency_p99_us").expect("a metric")
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
