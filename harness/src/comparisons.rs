//! Backends against the baseline: ratios within blocks, and what a connection costs over `null`.

use std::collections::BTreeMap;

use crate::measurement::{ComparisonRow, MemoryRow, Pass, Status, TrialRow};
use crate::statistics::{geometric_mean, median};
use crate::trial::memory_states::NEVER_USED;

/// What the arm of the baseline's second reading is called.
pub fn again(baseline: &str) -> String {
    format!("{baseline} (again)")
}

/// A column of `trials.csv` that is compared.
struct Metric {
    name: &'static str,
    pass: Pass,
    value: fn(&TrialRow) -> Option<f64>,
    /// Whether it stands when the client was the bottleneck.
    stands_when_client_limited: bool,
}

const METRICS: [Metric; 6] = [
    Metric {
        name: "server_cpu_ns_per_echo",
        pass: Pass::Latency,
        value: |row| row.server_cpu_ns_per_echo,
        stands_when_client_limited: true,
    },
    Metric {
        name: "achieved_per_s",
        pass: Pass::Latency,
        value: |row| row.achieved_per_s,
        stands_when_client_limited: false,
    },
    Metric {
        name: "latency_p50_us",
        pass: Pass::Latency,
        value: |row| row.latency_p50_us,
        stands_when_client_limited: false,
    },
    Metric {
        name: "latency_p99_us",
        pass: Pass::Latency,
        value: |row| row.latency_p99_us,
        stands_when_client_limited: false,
    },
    Metric {
        name: "context_switches_per_echo",
        pass: Pass::Latency,
        value: |row| row.context_switches_per_echo,
        stands_when_client_limited: true,
    },
    Metric {
        name: "syscalls_per_echo",
        pass: Pass::Syscalls,
        value: |row| row.syscalls_per_echo,
        stands_when_client_limited: true,
    },
];

/// Every comparison that the rows allow.
pub fn compare(rows: &[TrialRow], memory: &[MemoryRow], baseline: &str) -> Vec<ComparisonRow> {
    let mut comparisons = Vec::new();
    let mut workloads: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| row.pass != Some(Pass::Memory)) {
        if !workloads.contains(&row.workload.as_str()) {
            workloads.push(&row.workload);
        }
    }
    for workload in workloads {
        for metric in &METRICS {
            compare_one(rows, workload, metric, baseline, &mut comparisons);
        }
    }
    compare_memory(memory, baseline, &mut comparisons);
    comparisons
}

/// The value of every arm, by block, of the blocks that count: a trial that was turned away, whatever its
/// own figures, takes its whole block out, or the choice of blocks would depend on the results. For the same
/// reason a client that was the limit in one block takes out all: what is left would be the blocks in which
/// the faster backend happened to be slow.
fn blocks<'a>(rows: &'a [TrialRow], workload: &str, metric: &Metric) -> Vec<BTreeMap<&'a str, f64>> {
    let of_metric = |row: &&TrialRow| row.workload == workload && row.pass == Some(metric.pass);
    let limited = rows.iter().filter(of_metric).any(|row| row.status == Status::ClientLimited);
    if limited && !metric.stands_when_client_limited {
        return Vec::new();
    }
    let mut blocks: BTreeMap<u32, Option<BTreeMap<&str, f64>>> = BTreeMap::new();
    for row in rows.iter().filter(of_metric) {
        let block = blocks.entry(row.block).or_insert_with(|| Some(BTreeMap::new()));
        let stands = match row.status {
            Status::Ok | Status::ClientLimited => true,
            // It has no figures in any block, so leaving it out is no choice.
            Status::Unsupported => continue,
            Status::Rejected | Status::Failed => false,
        };
        match (stands, (metric.value)(row), block.as_mut()) {
            (true, Some(value), Some(arms)) => {
                arms.insert(&row.arm, value);
            }
            _ => *block = None,
        }
    }
    blocks.into_values().flatten().collect()
}

/// CPU per echo of every arm in the blocks that count.
pub fn cpu_blocks<'a>(rows: &'a [TrialRow], workload: &str) -> Vec<BTreeMap<&'a str, f64>> {
    blocks(rows, workload, &METRICS[0])
}

fn compare_one(
    rows: &[TrialRow],
    workload: &str,
    metric: &Metric,
    baseline: &str,
    comparisons: &mut Vec<ComparisonRow>,
) {
    let blocks = blocks(rows, workload, metric);
    let ratios = |arm: &str| -> Vec<f64> {
        let ratio = |arms: &BTreeMap<&str, f64>| Some(arms.get(arm)? / arms.get(baseline)?);
        blocks.iter().filter_map(ratio).filter(|ratio| ratio.is_finite()).collect()
    };
    let median_of =
        |arm: &str| median(&mut blocks.iter().filter_map(|arms| arms.get(arm).copied()).collect::<Vec<_>>());
    let noise = ratios(&again(baseline));
    let mut arms: Vec<&str> = Vec::new();
    for arm in
        blocks.iter().flat_map(BTreeMap::keys).filter(|arm| **arm != baseline && **arm != again(baseline))
    {
        if !arms.contains(arm) {
            arms.push(arm);
        }
    }
    for arm in arms {
        let ratios = ratios(arm);
        let (Some(ratio), Some(baseline_median), Some(backend_median)) =
            (geometric_mean(&ratios), median_of(baseline), median_of(arm))
        else {
            continue;
        };
        let count = ratios.len() as u32;
        comparisons.push(ComparisonRow {
            workload: workload.to_owned(),
            metric: metric.name.to_owned(),
            backend: arm.to_owned(),
            baseline: baseline.to_owned(),
            baseline_median,
            backend_median,
            ratio,
            ratio_low: low(&ratios),
            ratio_high: high(&ratios),
            blocks: count,
            noise_low: (!noise.is_empty()).then(|| low(&noise)),
            noise_high: (!noise.is_empty()).then(|| high(&noise)),
            verdict: match metric.pass {
                Pass::Syscalls => "counted".to_owned(),
                _ => format!("range of {count} blocks, no verdict"),
            },
        });
    }
}

fn low(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn high(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Fills in what each slope is over that of `null`, never used, for the same object. An object that `null`
/// has none of costs it nothing. Without a usable `null` there is no floor, and nothing is filled in.
pub fn subtract_null(rows: &mut [MemoryRow]) {
    let is_floor =
        |row: &&MemoryRow| row.backend == "null" && row.state == NEVER_USED && row.status == Status::Ok;
    let slope = |row: &MemoryRow| (row.bytes_per_connection, row.low, row.high);
    let floor: BTreeMap<String, _> =
        rows.iter().filter(is_floor).map(|row| (row.object.clone(), slope(row))).collect();
    if floor.is_empty() {
        return;
    }
    for row in rows {
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

/// What each backend adds to two bare endpoints against what the baseline adds. One walk is one
/// comparison; what it resolves is the interval of each slope, so there is none without.
fn compare_memory(memory: &[MemoryRow], baseline: &str, comparisons: &mut Vec<ComparisonRow>) {
    use crate::trial::memory_states::{KERNEL_SUM, USED_THEN_IDLE, USER_SUM};
    for (object, name) in
        [(KERNEL_SUM, "memory_kernel_bytes_per_connection"), (USER_SUM, "memory_user_bytes_per_connection")]
    {
        for state in [NEVER_USED, USED_THEN_IDLE] {
            let usable =
                |row: &&MemoryRow| row.object == object && row.state == state && row.status == Status::Ok;
            let of_state = || memory.iter().filter(usable);
            let resolved = |row: &MemoryRow| row.over_null_low.and(row.over_null_bytes_per_connection);
            let base = of_state().find(|row| row.backend == baseline).and_then(resolved);
            let Some(base) = base.filter(|&bytes| bytes > 0.0) else { continue };
            for row in of_state().filter(|row| row.backend != baseline && row.backend != "null") {
                let Some(over_null) = resolved(row) else { continue };
                let ratio = over_null / base;
                comparisons.push(ComparisonRow {
                    workload: format!("memory {state}"),
                    metric: format!("{name}_over_null"),
                    backend: row.backend.clone(),
                    baseline: baseline.to_owned(),
                    baseline_median: base,
                    backend_median: over_null,
                    ratio,
                    ratio_low: ratio,
                    ratio_high: ratio,
                    blocks: 1,
                    noise_low: None,
                    noise_high: None,
                    verdict: "one walk; the interval of each slope stands in memory.csv".to_owned(),
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

    fn cpu(rows: &[TrialRow]) -> Option<ComparisonRow> {
        let all = compare(rows, &[], "epoll-et");
        all.into_iter().find(|row| row.metric == "server_cpu_ns_per_echo" && row.backend == "epoll-document")
    }

    #[test]
    fn ratios_are_taken_inside_of_blocks() {
        // The machine is twice as slow in the second block; the ratio is 2 in one and 8 in the other.
        let rows =
            [block(1, 100.0, 110.0, 200.0, Status::Ok), block(2, 200.0, 190.0, 1600.0, Status::Ok)].concat();
        let found = cpu(&rows).expect("compared");
        assert!((found.ratio - 4.0).abs() < 1e-9, "{found:?}");
        assert_eq!((found.ratio_low, found.ratio_high, found.blocks), (2.0, 8.0, 2));
        assert_eq!((found.noise_low, found.noise_high), (Some(0.95), Some(1.1)));
        assert!(found.verdict.contains("no verdict"));
    }

    #[test]
    fn a_rejected_trial_takes_its_block_out() {
        let rows =
            [block(1, 100.0, 100.0, 200.0, Status::Ok), block(2, 100.0, 100.0, 900.0, Status::Rejected)]
                .concat();
        let found = cpu(&rows).expect("compared");
        assert_eq!((found.ratio, found.blocks), (2.0, 1));
        let rows = block(1, 100.0, 100.0, 200.0, Status::Failed);
        assert_eq!(cpu(&rows), None);
    }

    #[test]
    fn a_busy_client_spoils_throughput_but_not_cpu() {
        let rows = block(1, 100.0, 100.0, 200.0, Status::ClientLimited);
        assert!(cpu(&rows).is_some());
        let all = compare(&rows, &[], "epoll-et");
        assert!(all.iter().all(|row| row.metric != "achieved_per_s"), "{all:?}");
    }

    #[test]
    fn null_is_the_floor() {
        let memory = |backend: &str, object: &str, slope: f64| MemoryRow {
            run_id: 1,
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
    }
}
