//! The columns that a load's result decides, in whichever file they stand.

use crate::load::result::LoadResult;
use crate::rows::TrialRow;

/// Fills those of a trial's row.
pub fn fill(row: &mut TrialRow, result: &LoadResult) {
    row.active_connections = Some(result.active_connections as u64);
    row.owed = Some(result.saturated.map_or(0, |saturated| saturated.owed));
    row.achieved_per_s = Some(result.achieved_per_s);
    row.echoes = Some(result.echoes);
    row.bytes_per_s = (result.duration_s > 0.0).then(|| result.bytes as f64 / result.duration_s);
    row.duration_s = Some(result.duration_s);
    row.warmup_s = Some(result.warmup_s);
    row.warmup_echoes = Some(result.warmup_echoes);
    row.latency_mean_us = result.latency_us.mean;
    row.latency_p50_us = result.latency_us.p50;
    row.latency_p90_us = result.latency_us.p90;
    row.latency_p99_us = result.latency_us.p99;
    row.latency_p999_us = result.latency_us.p999;
    row.latency_max_us = result.latency_us.max;
    if let Some(open) = &result.open {
        row.offered_per_s = Some(open.offered_per_s);
        row.late_sends = Some(open.late_sends);
        row.unsent = Some(open.unsent);
        row.service_p50_us = open.service_us.p50;
        row.service_p99_us = open.service_us.p99;
        row.send_lag_p50_us = open.send_lag_us.p50;
        row.send_lag_p99_us = open.send_lag_us.p99;
    }
    if let Some(churn) = &result.churn {
        row.connections_per_s = Some(churn.connections_per_s);
        row.connect_p50_us = churn.connect_us.p50;
        row.connect_p99_us = churn.connect_us.p99;
    }
    if let Some(fairness) = &result.fairness {
        row.fairness_connections = Some(fairness.connections);
        row.slowest_connection_over_mean = Some(fairness.slowest_over_mean);
        row.fastest_connection_over_mean = Some(fairness.fastest_over_mean);
    }
    if result.echoes > 0 {
        row.client_cpu_ns_per_echo = Some(result.client_cpu_ns as f64 / result.echoes as f64);
    }
    row.client_cpu_percent = Some(result.client_cpu_ratio * 100.0);
}
