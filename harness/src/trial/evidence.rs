//! The figures of a trial that the gates look at.

use ringmark::protocol::ServerCounters;

use crate::load::limits::OFFERED_SHARE;
use crate::load::part::EDGE;
use crate::load::result::{Bottleneck, LoadResult};
use crate::machine::network::NetworkReading;

/// The messages of an open loop, by their fate.
#[derive(Clone, Copy, Debug)]
pub struct Offered {
    /// Due within the window.
    pub per_s: f64,
    /// Back within the window.
    pub achieved_per_s: f64,
    /// Due, but not even sent within the window.
    pub unsent_per_s: f64,
}

impl Offered {
    /// Says that the client did not send what was due.
    pub fn unsent_too_many(&self) -> Option<String> {
        let Self { per_s, unsent_per_s, .. } = self;
        let sent_per_s = per_s - unsent_per_s;
        (sent_per_s < OFFERED_SHARE * per_s).then(|| {
            format!(
                "client-limited: of {per_s:.0} messages a second that were due the client sent \
                 {sent_per_s:.0} in time"
            )
        })
    }

    /// Says that the server did not send back what was offered.
    pub fn unanswered_too_many(&self) -> Option<String> {
        let Self { per_s, achieved_per_s, .. } = self;
        (*achieved_per_s < OFFERED_SHARE * per_s).then(|| {
            format!(
                "saturated: of {per_s:.0} echoes a second that were offered {achieved_per_s:.0} \
                 came back in time; latency grows with the length of the window"
            )
        })
    }
}

/// Messages in flight in a closed loop, twice: a cross-check of the load by Little's law
/// (J. D. C. Little, "A Proof for the Queuing Formula: L = λW", Operations Research 9, 1961).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LittlesLaw {
    /// Connections times depth: each begins a message as soon as one is back.
    pub by_plan: f64,
    /// Echoes a second times their mean latency.
    pub by_figures: f64,
}

/// Below so many echoes for each message in flight, those at the ends of the window count for too
/// much.
const ECHOES_IN_FLIGHT: f64 = 50.0;

impl LittlesLaw {
    /// Returns both numbers of a closed loop on connections that stay; none if messages were owed,
    /// or were too few.
    pub fn of(result: &LoadResult) -> Option<Self> {
        let by_plan = (result.active_connections * result.pipeline_depth) as f64;
        let is_closed = result.open.is_none() && result.churn.is_none();
        let is_whole = result.saturated.is_none() && !result.interrupted;
        let are_enough = result.echoes as f64 >= ECHOES_IN_FLIGHT * by_plan;
        let mean_s = result.latency_us.mean.filter(|_| is_closed && is_whole && are_enough)? / 1e6;
        Some(Self { by_plan, by_figures: result.achieved_per_s * mean_s })
    }

    /// Returns how far the figures are off, in percent.
    pub fn off_percent(&self) -> f64 {
        100.0 * (self.by_figures / self.by_plan - 1.0)
    }
}

/// The figures that the gates look at.
#[derive(Default)]
pub struct Evidence {
    /// Connections asked for, and those that the server counted.
    pub connections: (u64, u64),
    /// Echoes within the window; none if the trial had no window.
    pub echoes: Option<u64>,
    /// The fate of the messages, if the loop was open.
    pub offered: Option<Offered>,
    /// The messages in flight by the rate and their mean latency, and those that there were, in a
    /// closed loop.
    pub in_flight: Option<LittlesLaw>,
    /// Whether connections were replaced.
    pub has_churn: bool,
    /// The client's CPU in percent of what it could use.
    pub client_cpu_percent: Option<f64>,
    /// The hypervisor's share.
    pub steal_percent: Option<f64>,
    /// The server's waiting for a CPU, in percent of the window.
    pub server_run_delay_percent: Option<f64>,
    /// The client's, as a mean over its threads.
    pub client_run_delay_percent: Option<f64>,
    /// Whether a bound on its CPU time stopped the server.
    pub is_throttled: bool,
    /// TCP's counts, if the trial had a namespace of its own. The host's belong to everybody.
    pub network: Option<NetworkReading>,
    /// io-wq workers that appeared.
    pub io_workers: u64,
    /// Memory readings that had not come to rest, and all of them.
    pub unsettled_readings: (usize, usize),
    /// Why the slope of a walk is not that of its connections.
    pub disturbed_slope: Option<String>,
    /// The server's counters at the end.
    pub counters: ServerCounters,
    /// Who has to share a CPU: waiting for each other is then no sign of anything else.
    pub sharing: Sharing,
    /// Why what was read at the window's ends is not of the window.
    pub not_of_window: Vec<String>,
    /// Settings that the knobs ask for and that are not in force.
    pub not_in_force: Vec<String>,
    /// The messages that were owed in the end, in words.
    pub owed: Option<String>,
    /// Why the client was its own limit, beside its CPU and what it did not send.
    pub client_limits: Vec<String>,
    /// Remarks although nothing is wrong.
    pub notes: Vec<String>,
}

/// Threads of a trial that have no CPU each, and so wait for one another.
#[derive(Clone, Copy, Default)]
pub struct Sharing {
    /// Server and client, or the workers among themselves: they were not kept on CPUs of their own.
    pub by_placement: bool,
    /// With `by_placement`: the client has CPUs of its own, and only the workers share.
    pub client_is_apart: bool,
    /// With `by_placement`: the server has CPUs of its own, and only loads share.
    pub server_is_apart: bool,
    /// With `by_placement`: the delays that are given are only those beyond what the two took from
    /// each other.
    pub is_accounted: bool,
    /// A worker and the SQPOLL thread of its ring, which inherits its pinning.
    pub kernel_thread: bool,
    /// The threads of a server that has more of them than workers, as with a thread for each
    /// connection. They are its way of waiting, so that this is no blemish; but its run delay says
    /// nothing about others, and only the client's, and the time that was stolen, still do.
    pub siblings: bool,
}

impl Sharing {
    /// Returns whether the figures are those of a machine with too few CPUs.
    pub fn is_shared_cpu(self) -> bool {
        self.by_placement || self.kernel_thread
    }
}

impl Evidence {
    /// Returns what a load's result tells.
    pub fn of_load(result: &LoadResult) -> Self {
        Self {
            echoes: Some(result.echoes),
            offered: result.open.as_ref().map(|open| Offered {
                per_s: open.offered_per_s,
                achieved_per_s: result.achieved_per_s,
                unsent_per_s: open.unsent as f64 / result.duration_s,
            }),
            in_flight: LittlesLaw::of(result),
            has_churn: result.churn.is_some(),
            client_cpu_percent: Some(result.client_cpu_ratio * 100.0),
            owed: owed(result),
            client_limits: behind(result),
            notes: (result.file_table.strip_prefix("shared: ").into_iter())
                .map(|why| format!("the load's threads share one file table: {why}"))
                .collect(),
            ..Self::default()
        }
    }
}

/// Says what a load was still owed when it waited no longer.
fn owed(result: &LoadResult) -> Option<String> {
    let saturated = result.saturated.filter(|saturated| saturated.owed_connections > 0)?;
    let p99 = result.latency_us.at_least.as_ref().and_then(|us| us.p99);
    let at_least = p99.map_or(String::new(), |us| format!(" (p99 is at least {us:.0} µs)"));
    Some(format!(
        "saturated: {} messages were still owed {:.1} s after the window; latencies that lie among \
         them are left out{at_least}",
        saturated.owed, saturated.drained_s
    ))
}

/// Says that a load, or one of several, did not come to do what was asked of it.
fn behind(result: &LoadResult) -> Vec<String> {
    let is_behind = result.saturated.is_some_and(|saturated| saturated.limit == Bottleneck::Client);
    let whole = || "client-limited: the load itself was behind what was asked of it".to_owned();
    let of_parts = result.parts.iter().filter_map(|part| part.why_behind(EDGE));
    let of_parts: Vec<String> = of_parts.map(|why| format!("client-limited: {why}")).collect();
    if of_parts.is_empty() { is_behind.then(whole).into_iter().collect() } else { of_parts }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A result with ten echoes in one second.
    pub fn load_result(threads: usize, client_cpu_ns: u64) -> LoadResult {
        serde_json::from_value(serde_json::json!({
            "connections": 1000, "active_connections": 1000, "message_bytes": 64,
            "pipeline_depth": 1, "arrival": "closed", "duration_s": 1.0, "warmup_s": 0.0,
            "warmup_echoes": 0, "echoes": 10, "bytes": 640, "achieved_per_s": 10.0,
            "latency_us": {}, "open": null, "churn": null, "fairness": null,
            "client_cpu_ns": client_cpu_ns, "client_cpu_ratio": 0.5, "threads": threads,
            "seed": 1, "interrupted": false,
        }))
        .expect("a result")
    }

    #[test]
    fn a_load_that_was_behind_limits_itself_and_a_server_that_was_does_not() {
        let mut result = load_result(1, 1);
        let evidence = Evidence::of_load(&result);
        assert!(evidence.client_limits.is_empty() && evidence.notes.is_empty());
        assert_eq!((evidence.owed, evidence.echoes), (None, Some(10)));
        let saturated = |limit: &str| {
            serde_json::from_value(serde_json::json!({
                "limit": limit, "drained_s": 20.0, "owed": 7, "owed_bytes": 448,
                "owed_connections": 2, "unanswered_connections": 0,
            }))
            .expect("a saturation")
        };
        result.saturated = Some(saturated("server"));
        let evidence = Evidence::of_load(&result);
        assert!(evidence.client_limits.is_empty());
        let reason = evidence.owed.expect("is owed");
        assert!(reason.starts_with("saturated: 7 messages were still owed 20.0 s"), "{reason}");
        result.saturated = Some(saturated("client"));
        result.file_table = "shared: unshare(CLONE_FILES): no".to_owned();
        let evidence = Evidence::of_load(&result);
        assert!(evidence.client_limits[0].starts_with("client-limited: "));
        assert_eq!(
            evidence.notes,
            ["the load's threads share one file table: unshare(CLONE_FILES): no"]
        );
    }
}
