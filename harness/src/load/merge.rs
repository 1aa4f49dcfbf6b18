//! The parts of a load as one result: samples are put together, amounts added, and nothing is
//! averaged.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::fairness;
use super::latency::{self, Latencies, LatencyUs};
use super::outstanding::Outstanding;
use super::part::{PartSamples, log, parse};
use super::result::{LoadResult, OpenResult};

/// Returns the result of the whole load, whose parts these are in their order. If they have one
/// clock, its window is from when the last part's began to when the last one's ended.
///
/// # Errors
/// When a part has no samples: it was not made as a part.
pub fn merge(parts: &[LoadResult], is_one_clock: bool) -> Result<LoadResult> {
    let samples = parts.iter().map(|part| part.samples.as_deref().context("a part has no samples"));
    let samples = samples.collect::<Result<Vec<&PartSamples>>>()?;
    ensure!(!samples.is_empty(), "a load has no parts");
    let mut latencies = Latencies::default();
    for (of_part, number) in samples.iter().zip(1..) {
        let of_part = of_part.latencies().with_context(|| format!("samples of part {number}"))?;
        latencies.add(&of_part);
    }
    let duration_s = most(parts, |part| part.duration_s);
    let window = Duration::from_secs_f64(duration_s);
    let count = |value: fn(&LoadResult) -> u64| parts.iter().map(value).sum::<u64>();
    let echoes = count(|part| part.echoes);
    let shared_table = parts.iter().map(|part| &part.file_table).find(|words| *words != "own");
    let of_window = |end: fn(&LoadResult) -> Option<u64>| match is_one_clock {
        true => parts.iter().filter_map(end).max(),
        false => end(&parts[0]),
    };
    let has_log = parts.iter().any(|part| part.histogram_log.is_some());
    let mut whole = LoadResult {
        connections: parts.iter().map(|part| part.connections).sum(),
        active_connections: parts.iter().map(|part| part.active_connections).sum(),
        duration_s,
        warmup_s: most(parts, |part| part.warmup_s),
        warmup_echoes: count(|part| part.warmup_echoes),
        echoes,
        echoes_in_all: count(|part| part.echoes_in_all),
        bytes: count(|part| part.bytes),
        achieved_per_s: echoes as f64 / duration_s,
        latency_us: latencies.latency_us(),
        open: open(parts, &latencies),
        fairness: of_all_connections(&samples).and_then(|all| fairness::of(&all, samples[0].ports)),
        cpu_in_all_ns: parts.iter().map(|part| part.cpu_in_all_ns).sum(),
        client_cpu_ns: count(|part| part.client_cpu_ns),
        // The busiest part limits the whole.
        client_cpu_ratio: most(parts, |part| part.client_cpu_ratio),
        threads: parts.iter().map(|part| part.threads).sum(),
        interrupted: parts.iter().any(|part| part.interrupted),
        window_start_ns: of_window(|part| part.window_start_ns),
        window_end_ns: of_window(|part| part.window_end_ns),
        longest_gap_ns: parts.iter().filter_map(|part| part.longest_gap_ns).max(),
        histogram_log: has_log.then(|| log(&latencies.latency_ns, window)).transpose()?,
        samples: None,
        ..parts[0].clone()
    };
    if let Some(words) = shared_table {
        whole.file_table = words.clone();
    }
    if let Some(churn) = &mut whole.churn {
        let logs = samples.iter().filter_map(|of_part| of_part.connect.clone());
        let of_parts = || parts.iter().filter_map(|part| part.churn.as_ref());
        churn.opened = of_parts().map(|churn| churn.opened).sum();
        churn.opened_in_all = of_parts().map(|churn| churn.opened_in_all).sum();
        churn.connections_per_s = churn.opened as f64 / duration_s;
        churn.connect_us = connect_us(&logs.collect::<Vec<String>>())?;
    }
    let (owed, drained_s) = owed(parts);
    whole.saturated = whole.saturation(owed, drained_s);
    Ok(whole)
}

/// Returns the figures of the times that connections of all parts took to open, from their logs.
pub fn connect_us(logs: &[String]) -> Result<LatencyUs> {
    let mut connect_ns = latency::histogram();
    for text in logs {
        connect_ns += parse(text)?;
    }
    Ok(LatencyUs::of(&connect_ns))
}

fn most(parts: &[LoadResult], value: impl Fn(&LoadResult) -> f64) -> f64 {
    parts.iter().map(value).fold(0.0, f64::max)
}

fn open(parts: &[LoadResult], latencies: &Latencies) -> Option<OpenResult> {
    let all: Vec<&OpenResult> = parts.iter().filter_map(|part| part.open.as_ref()).collect();
    Some(OpenResult {
        // Each was given the rate of the whole.
        rate_per_s: all.first()?.rate_per_s,
        offered_per_s: all.iter().map(|open| open.offered_per_s).sum(),
        late_sends: all.iter().map(|open| open.late_sends).sum(),
        unsent: all.iter().map(|open| open.unsent).sum(),
        service_us: latencies.service_us(),
        send_lag_us: LatencyUs::of(&latencies.send_lag_ns),
    })
}

/// Returns the echoes of each active connection of the whole, by its number: connections are dealt
/// over the threads of all parts in turn.
fn of_all_connections(samples: &[&PartSamples]) -> Option<Vec<u64>> {
    let mut of_parts = samples
        .iter()
        .map(|part| Some(part.echoes_by_connection.as_deref()?.chunks(part.threads.max(1))))
        .collect::<Option<Vec<_>>>()?;
    let mut all = Vec::new();
    loop {
        let before = all.len();
        of_parts.iter_mut().for_each(|chunks| all.extend_from_slice(chunks.next().unwrap_or(&[])));
        if all.len() == before {
            return Some(all);
        }
    }
}

/// Returns what was owed to all parts, and how long any of them waited for it.
fn owed(parts: &[LoadResult]) -> (Outstanding, f64) {
    let mut owed = Outstanding::default();
    let mut drained_s = 0.0_f64;
    for saturated in parts.iter().filter_map(|part| part.saturated) {
        owed.messages += saturated.owed;
        owed.bytes += saturated.owed_bytes;
        owed.connections += saturated.owed_connections;
        owed.unanswered += saturated.unanswered_connections;
        drained_s = drained_s.max(saturated.drained_s);
    }
    (owed, drained_s)
}

#[cfg(test)]
mod tests {
    use super::super::in_flight::Timestamps;
    use super::*;

    #[test]
    fn connections_of_all_parts_are_in_the_order_of_their_numbers() {
        // Seven connections over two parts of two threads: numbers 0 1 | 2 3 | 4 5 | 6.
        let part = |echoes: &[u64]| {
            let mut samples = PartSamples::of(&Latencies::default(), Duration::from_secs(1))
                .expect("an empty histogram has a log");
            (samples.threads, samples.echoes_by_connection) = (2, Some(echoes.to_vec()));
            samples
        };
        let (first, second) = (part(&[0, 1, 4, 5]), part(&[2, 3, 6]));
        assert_eq!(of_all_connections(&[&first, &second]), Some(vec![0, 1, 2, 3, 4, 5, 6]));
    }

    /// The figures of three parts, and those of the same samples in one.
    #[test]
    fn merged_figures_are_those_of_all_samples_together() {
        let part = |samples: &[(u64, u64)], owed: &[u64]| {
            let mut latencies = Latencies::default();
            for &(sent_ns, back_ns) in samples {
                latencies.record(Timestamps { due_ns: 0, sent_ns }, back_ns);
            }
            for &now_ns in owed {
                latencies.owe(Timestamps { due_ns: 0, sent_ns: 5 }, now_ns);
            }
            latencies
        };
        let all: Vec<(u64, u64)> =
            (1..=9000).map(|turn| (turn * 7 % 1000, 1000 + turn * turn % 777_777)).collect();
        let owed = [900_000_u64, 950_000];
        let whole = part(&all, &owed);
        let parts = [
            part(&all[..100], &owed[..1]),
            part(&all[100..8000], &[]),
            part(&all[8000..], &owed[1..]),
        ];
        let second = Duration::from_secs(1);
        let results = parts.map(|latencies| {
            let mut result: LoadResult = serde_json::from_value(serde_json::json!({
                "connections": 1, "active_connections": 1, "message_bytes": 64,
                "pipeline_depth": 1, "arrival": "poisson", "duration_s": 1.0, "warmup_s": 0.0,
                "warmup_echoes": 0, "echoes": 10, "bytes": 640, "achieved_per_s": 10.0,
                "latency_us": {}, "churn": null, "fairness": null, "client_cpu_ns": 7,
                "client_cpu_ratio": 0.5, "threads": 1, "seed": 1, "interrupted": false,
                "open": {"rate_per_s": 30.0, "offered_per_s": 10.0, "late_sends": 1, "unsent": 2,
                         "service_us": {}, "send_lag_us": {}},
            }))
            .expect("a result");
            result.samples = Some(Box::new(PartSamples::of(&latencies, second).expect("a log")));
            result
        });
        let merged = merge(&results, false).expect("they are parts");
        let open = merged.open.expect("an open loop");
        assert_eq!(merged.latency_us, whole.latency_us());
        assert!(merged.latency_us.p99.is_some() && merged.latency_us.max.is_none());
        assert_eq!(open.service_us, whole.service_us());
        assert_eq!(open.send_lag_us, LatencyUs::of(&whole.send_lag_ns));
        assert_eq!((open.rate_per_s, open.offered_per_s, open.unsent), (30.0, 30.0, 6));
        assert_eq!((merged.echoes, merged.achieved_per_s, merged.client_cpu_ns), (30, 30.0, 21));
        assert_eq!((merged.threads, merged.client_cpu_ratio), (3, 0.5));
    }
}
