//! The result of a run, from what each thread has measured.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use hdrhistogram::Histogram;
use ringmark::protocol::FORMAT_VERSION;

use super::fairness;
use super::latency::{self, Latencies};
use super::outstanding::Outstanding;
use super::part::{PartSamples, log};
use super::plan::LoadPlan;
use super::result::{Arrival, ChurnResult, LatencyUs, LoadResult, OpenResult};
use super::schedule::OpenLoop;
use super::shared::ThreadResult;

/// The results of the threads, which come in boxes.
pub type Parts = Vec<Box<ThreadResult>>;

/// A run that is over. Times are of CLOCK_MONOTONIC.
pub struct RunTotals {
    pub parts: Parts,
    pub interrupted: bool,
    pub connections: usize,
    pub active: usize,
    /// CPUs that the load can use.
    pub cpus: usize,
    pub open: Option<OpenLoop>,
    /// None: the run was of a number of echoes.
    pub warmup_s: Option<f64>,
    pub wall_start: SystemTime,
    /// The window.
    pub start_ns: u64,
    pub end_ns: u64,
    /// When the load no longer waited for echoes.
    pub ended_ns: u64,
    pub client_cpu_ns: u64,
    /// CPU time from the beginning of the run until all was back.
    pub cpu_in_all_ns: u64,
    /// How long after the window's end the CPU clock was read.
    pub late_ns: u64,
    /// Echoes before, within and after the window.
    pub echoes_in_all: u64,
}

impl RunTotals {
    /// Returns the result of the run.
    pub fn result(&self, plan: &LoadPlan) -> Result<LoadResult> {
        let mut latencies = Latencies::default();
        for part in &self.parts {
            latencies.add(&part.latencies);
        }
        let window_ns = self.end_ns.saturating_sub(self.start_ns).max(1);
        let duration_s = window_ns as f64 / 1e9;
        let window = Duration::from_nanos(window_ns);
        let echoes = self.sum(|part| part.echoes);
        let is_closed_and_timed = self.open.is_none() && self.warmup_s.is_some();
        // Whether all connections had equally much cannot be seen from a part of them.
        let is_whole = is_closed_and_timed && !plan.part.has_others();
        let echoes_by_connection = is_whole.then(|| self.echoes_by_connection());
        let gaps_ns = self.parts.iter().map(|part| part.longest_gap_ns);
        let mut result = LoadResult {
            format_version: FORMAT_VERSION,
            connections: self.connections,
            active_connections: self.active,
            service: plan.message.service().to_string(),
            message_bytes: plan.message.bytes(),
            pipeline_depth: plan.pipeline,
            arrival: self.open.map_or(Arrival::Closed, |open| open.arrival),
            duration_s,
            warmup_s: self.warmup_s.unwrap_or(0.0),
            warmup_echoes: self.sum(|part| part.warmup_echoes),
            echoes,
            echoes_in_all: self.echoes_in_all,
            bytes: echoes * plan.message.bytes(),
            achieved_per_s: echoes as f64 / duration_s,
            latency_us: latencies.latency_us(),
            open: self.open.map(|open| self.open_result(open, &latencies, duration_s)),
            churn: plan.churn.map(|churn| self.churn_result(plan, churn, duration_s)),
            fairness: echoes_by_connection.and_then(|echoes| fairness::of(&echoes, plan.ports)),
            cpu_in_all_ns: Some(self.cpu_in_all_ns),
            client_cpu_ns: self.client_cpu_ns,
            client_cpu_ratio: self.client_cpu_ns as f64 / (window_ns as f64 * self.cpus as f64),
            threads: plan.threads,
            file_table: plan.file_tables.words(),
            seed: plan.seed,
            interrupted: self.interrupted,
            saturated: None,
            window_start_ns: Some(self.start_ns),
            window_end_ns: Some(self.end_ns),
            longest_gap_ns: gaps_ns.max().max(Some(self.late_ns)),
            longest_gap_of: None,
            began_apart_ns: None,
            parts: Vec::new(),
            samples: None,
            histogram_log: plan
                .has_log
                .then(|| latency::log(&latencies.latency_ns, self.wall_start, window))
                .transpose()?,
        };
        if plan.part.has_others() {
            result.samples = Some(Box::new(self.samples(plan, &latencies, window)?));
        }
        result.saturated = result.saturation(self.owed(), self.drained_s());
        Ok(result)
    }

    fn samples(
        &self,
        plan: &LoadPlan,
        latencies: &Latencies,
        window: Duration,
    ) -> Result<PartSamples> {
        let is_closed_and_timed = self.open.is_none() && self.warmup_s.is_some();
        Ok(PartSamples {
            threads: plan.threads,
            ports: plan.ports,
            connect: plan.churn.map(|_| log(&self.connect_ns(), window)).transpose()?,
            echoes_by_connection: is_closed_and_timed.then(|| self.echoes_by_connection()),
            ..PartSamples::of(latencies, window)?
        })
    }

    /// Returns how long it took to open the connections that replaced others.
    fn connect_ns(&self) -> Histogram<u64> {
        let mut connect_ns = latency::histogram();
        for part in self.parts.iter().filter_map(|part| part.connect_ns.as_ref()) {
            connect_ns += part;
        }
        connect_ns
    }

    fn open_result(&self, open: OpenLoop, latencies: &Latencies, duration_s: f64) -> OpenResult {
        let offered_s = if self.warmup_s.is_some() {
            duration_s
        } else {
            // A number of messages is offered until the last one is due, whenever it comes back.
            self.asked_s() + 1.0 / open.rate_per_s
        };
        let due = latencies.latency_ns.len() + self.sum(|part| part.due);
        OpenResult {
            rate_per_s: open.rate_per_s,
            offered_per_s: due as f64 / offered_s,
            late_sends: self.sum(|part| part.late_sends),
            unsent: self.sum(|part| part.unsent),
            service_us: latencies.service_us(),
            send_lag_us: LatencyUs::of(&latencies.send_lag_ns),
        }
    }

    fn churn_result(&self, plan: &LoadPlan, echoes_each: u64, duration_s: f64) -> ChurnResult {
        let connect_ns = self.connect_ns();
        ChurnResult {
            echoes_each,
            close: plan.close,
            opened: connect_ns.len(),
            connections_per_s: connect_ns.len() as f64 / duration_s,
            connect_us: LatencyUs::of(&connect_ns),
            opened_in_all: self.sum(|part| part.opened),
        }
    }

    fn sum(&self, field: fn(&ThreadResult) -> u64) -> u64 {
        self.parts.iter().map(|part| field(part)).sum()
    }

    fn owed(&self) -> Outstanding {
        Outstanding {
            messages: self.sum(|part| part.owed.messages),
            bytes: self.sum(|part| part.owed.bytes),
            connections: self.sum(|part| part.owed.connections),
            unanswered: self.sum(|part| part.owed.unanswered),
        }
    }

    /// Returns the time from the window's start until the last message of an open loop was due.
    fn asked_s(&self) -> f64 {
        let last_due_ns = self.parts.iter().map(|part| part.last_due_ns).max();
        last_due_ns.unwrap_or_default().saturating_sub(self.start_ns) as f64 / 1e9
    }

    /// Returns how long the load waited for echoes after all was sent.
    fn drained_s(&self) -> f64 {
        if self.warmup_s.is_some() {
            self.ended_ns.saturating_sub(self.end_ns) as f64 / 1e9
        } else {
            self.end_ns.saturating_sub(self.start_ns) as f64 / 1e9 - self.asked_s()
        }
    }

    /// Returns the echoes of each active connection of this part, in the order of their numbers.
    fn echoes_by_connection(&self) -> Vec<u64> {
        let mut echoes = vec![0; self.active];
        for part in &self.parts {
            let own = echoes.iter_mut().skip(part.thread).step_by(self.parts.len());
            own.zip(&part.echoes_by_place).for_each(|(echoes, &of_place)| *echoes = of_place);
        }
        echoes
    }
}
