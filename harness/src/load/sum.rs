//! Several windows of one load as one result.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::latency::{self, LatencyUs};
use super::limits::OFFERED_SHARE;
use super::part::{PartEffort, log, parse};
use super::result::{LoadResult, OpenResult};
use crate::statistics::median;

/// Returns the sum of a load's windows: histograms are merged, amounts added. Echoes are all
/// of the turns, before and after the windows too. Service time and send lag are the medians of the
/// windows' percentiles.
pub fn sum(results: &[LoadResult]) -> Result<LoadResult> {
    ensure!(!results.is_empty(), "it had no turn");
    let duration_s = total(results, |result| result.duration_s);
    let count = |value: fn(&LoadResult) -> u64| results.iter().map(value).sum::<u64>();
    let mut latencies_ns = latency::histogram();
    for text in results.iter().filter_map(|result| result.histogram_log.as_deref()) {
        latencies_ns += parse(text)?;
    }
    let owes = results.iter().any(|result| result.saturated.is_some_and(|by| by.owed > 0));
    let mut sum = LoadResult {
        duration_s,
        warmup_s: total(results, |result| result.warmup_s),
        warmup_echoes: count(|result| result.warmup_echoes),
        echoes: count(|result| result.echoes_in_all),
        echoes_in_all: count(|result| result.echoes_in_all),
        bytes: count(|result| result.bytes),
        achieved_per_s: total(results, |result| result.echoes as f64) / duration_s,
        // Messages that are owed are longer than any percentile that lies among them.
        latency_us: if owes { LatencyUs::default() } else { LatencyUs::of(&latencies_ns) },
        open: open(results, duration_s),
        cpu_in_all_ns: results.iter().map(|result| result.cpu_in_all_ns).sum(),
        client_cpu_ns: count(|result| result.client_cpu_ns),
        client_cpu_ratio: total(results, |result| result.client_cpu_ratio * result.duration_s)
            / duration_s,
        interrupted: results.iter().any(|result| result.interrupted),
        saturated: None,
        window_start_ns: None,
        window_end_ns: None,
        began_apart_ns: results.iter().filter_map(|result| result.began_apart_ns).max(),
        parts: parts(results),
        longest_gap_ns: results.iter().filter_map(|result| result.longest_gap_ns).max(),
        longest_gap_of: results
            .iter()
            .max_by_key(|result| result.longest_gap_ns)
            .and_then(|result| result.longest_gap_of.clone()),
        histogram_log: Some(log(&latencies_ns, Duration::from_secs_f64(duration_s))?),
        ..results[0].clone()
    };
    let offered_per_s = sum.open.as_ref().map_or(0.0, |open| open.offered_per_s);
    if owes || sum.achieved_per_s < OFFERED_SHARE * offered_per_s {
        let worst = results.iter().filter_map(|result| result.saturated);
        sum.saturated = worst.max_by_key(|saturated| saturated.owed);
    }
    Ok(sum)
}

/// Returns what each part did in all windows.
fn parts(results: &[LoadResult]) -> Vec<PartEffort> {
    let count = results.iter().map(|result| result.parts.len()).min().unwrap_or(0);
    let of_part = |index: usize| {
        PartEffort::sum(&results.iter().map(|result| &result.parts[index]).collect::<Vec<_>>())
    };
    (0..count).map(of_part).collect()
}

fn total(results: &[LoadResult], value: impl Fn(&LoadResult) -> f64) -> f64 {
    results.iter().map(value).sum()
}

fn open(results: &[LoadResult], duration_s: f64) -> Option<OpenResult> {
    let all: Vec<&OpenResult> = results.iter().filter_map(|result| result.open.as_ref()).collect();
    let middle = |value: &dyn Fn(&OpenResult) -> Option<f64>| {
        median(&mut all.iter().filter_map(|open| value(open)).collect::<Vec<_>>())
    };
    let offered = total(results, |result| {
        result.open.as_ref().map_or(0.0, |open| open.offered_per_s) * result.duration_s
    });
    Some(OpenResult {
        rate_per_s: all.first()?.rate_per_s,
        offered_per_s: offered / duration_s,
        late_sends: all.iter().map(|open| open.late_sends).sum(),
        unsent: all.iter().map(|open| open.unsent).sum(),
        service_us: LatencyUs {
            p50: middle(&|open| open.service_us.p50),
            p99: middle(&|open| open.service_us.p99),
            ..LatencyUs::default()
        },
        send_lag_us: LatencyUs {
            p50: middle(&|open| open.send_lag_us.p50),
            p99: middle(&|open| open.send_lag_us.p99),
            ..LatencyUs::default()
        },
    })
}
