//! What a load says: one set of types for the program that prints them and the one that reads them.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use super::latency::LatencyUs;
use crate::sides::Whereabouts;

/// A line of JSON on stdout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LoadEvent {
    /// It takes commands.
    Started(Whereabouts),
    /// As many connections stand as were asked for.
    Connections {
        /// How many.
        connections: usize,
        /// How long it took to open or close them, in s.
        connect_s: f64,
        /// How many of them were opened for it.
        opened: u64,
        /// From before connect() until the event that the connection stands is taken, in µs, of those.
        connect_us: LatencyUs,
    },
    /// The warm-up has ended and the measuring window begins.
    Measuring,
    /// The measuring window has ended; echoes may still be outstanding.
    Measured,
    /// Every echo of an `echo` command is back.
    Echoed(LoadResult),
    /// Every echo of a `run` is back.
    Result(LoadResult),
}

/// What one run has measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadResult {
    /// Connections that stood.
    pub connections: usize,
    /// Those of them that sent.
    pub active_connections: usize,
    /// Bytes of one message.
    pub message_bytes: u64,
    /// Messages in flight on each active connection.
    pub pipeline_depth: usize,
    /// What decided when a message began.
    pub arrival: Arrival,
    /// The measuring window, in s.
    pub duration_s: f64,
    /// How long the warm-up before it took, in s.
    pub warmup_s: f64,
    /// Echoes of the warm-up: verified, but in no other figure here.
    pub warmup_echoes: u64,
    /// Echoes that came back within the window, whole and verified.
    pub echoes: u64,
    /// Bytes of these echoes, counted one way.
    pub bytes: u64,
    /// Echoes per second of the window.
    pub achieved_per_s: f64,
    /// Until a message's last byte is back and verified, in µs. In a closed loop from before it is written, of
    /// the echoes within the window; in an open one from when it was due, of the messages due within it.
    pub latency_us: LatencyUs,
    /// What only an open loop has.
    pub open: Option<OpenResult>,
    /// What only a load with churn has.
    pub churn: Option<ChurnResult>,
    /// How evenly the echoes of a timed run fell to connections and ports. In an open loop, or with a number of
    /// echoes that is given, that is not the server's doing, and there is none.
    pub fairness: Option<Fairness>,
    /// CPU that the load used within the window, user and system, all threads, in ns.
    pub client_cpu_ns: u64,
    /// That as a share of the window times the CPUs that it can use (threads or allowed CPUs, whichever
    /// are fewer): near 1 the load is the bottleneck.
    pub client_cpu_ratio: f64,
    /// Threads of the load.
    pub threads: usize,
    /// The seed: it chooses which bytes are sent.
    pub seed: u64,
    /// Whether SIGINT ended the run early; all figures are of the part before.
    pub interrupted: bool,
    /// When the window began and ended, by CLOCK_MONOTONIC of the load's machine in ns: the same clock that others on
    /// that machine read.
    #[serde(default)]
    pub window_start_ns: Option<u64>,
    #[serde(default)]
    pub window_end_ns: Option<u64>,
    /// The longest time that a thread of the load did not look at its clock within the window, or from the window's end
    /// until the main one read the CPU clock, in ns. A thread waits for 50 ms at most: beyond that it was stopped
    /// (SIGSTOP, a machine that paused) or had no CPU.
    #[serde(default)]
    pub longest_gap_ns: Option<u64>,
    /// The latencies as an HdrHistogram log, with `--histogram -`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram_log: Option<String>,
}

/// What an open loop has measured beside the latency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenResult {
    /// Messages per second as asked for.
    pub rate_per_s: f64,
    /// Messages per second that were due within the window.
    pub offered_per_s: f64,
    /// Of these, those that were sent more than 1 ms after they were due.
    pub late_sends: u64,
    /// Of these, those that were not sent yet when the window ended. They were sent after it, and their lateness
    /// counts.
    pub unsent: u64,
    /// From when a message was sent until its last byte is back and verified, in µs.
    pub service_us: LatencyUs,
    /// From when a message was due until it was sent, in µs: the load's own share of the latency.
    pub send_lag_us: LatencyUs,
}

/// What has been measured of connections that replaced others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChurnResult {
    /// Echoes on a connection before another took its place.
    pub echoes_each: u64,
    /// Connections that were opened within the window.
    pub opened: u64,
    /// The same, per second of the window.
    pub connections_per_s: f64,
    /// From before connect() until the event that the connection stands is taken, in µs, of those.
    pub connect_us: LatencyUs,
    /// Connections that were opened since the load began, the first ones included: so many the server has accepted
    /// once it has come to rest.
    pub opened_in_all: u64,
}

/// How evenly the echoes fell to those who shared the server. Of connections that replaced each other, the echoes
/// of one place count together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fairness {
    /// Jain's index over the active connections: (Σx)² / (n Σx²), 1 when all had equally many.
    pub connections: f64,
    /// Echoes of the connection that had the fewest, over the mean.
    pub slowest_over_mean: f64,
    /// Of the one that had the most.
    pub fastest_over_mean: f64,
    /// Jain's index over the ports that have active connections.
    pub ports: f64,
}

/// What decides when a message begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// Each begins as soon as an earlier one of its connection is back.
    Closed,
    /// At random times, as from independent users.
    Poisson,
    /// Evenly spaced.
    Uniform,
}

impl Arrival {
    /// As in `trials.csv`, and as `--arrival` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Arrival::Closed => "closed",
            Arrival::Poisson => "poisson",
            Arrival::Uniform => "uniform",
        }
    }
}

impl fmt::Display for LoadResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "connections  {} ({} active), {}messages of {} B",
            self.connections,
            self.active_connections,
            if self.open.is_some() { String::new() } else { format!("pipeline {}, ", self.pipeline_depth) },
            self.message_bytes
        )?;
        write!(f, "echoes       {} in {:.3} s", self.echoes, self.duration_s)?;
        match self.warmup_s {
            0.0 => write!(f, ", no warm-up")?,
            warmup_s => write!(f, ", after {} in {warmup_s:.3} s of warm-up", self.warmup_echoes)?,
        }
        writeln!(f, "{}", if self.interrupted { " (interrupted)" } else { "" })?;
        write!(f, "echoes/s     {:.0}", self.achieved_per_s)?;
        if let Some(open) = &self.open {
            write!(f, " of {:.0} offered ({:.0} asked for)", open.offered_per_s, open.rate_per_s)?;
        }
        writeln!(f)?;
        writeln!(f, "latency µs   {}", self.latency_us)?;
        if let Some(open) = &self.open {
            writeln!(f, "service µs   {}", open.service_us)?;
            writeln!(f, "send lag µs  {}", open.send_lag_us)?;
            writeln!(
                f,
                "late sends   {} more than 1 ms; {} not sent within the window",
                open.late_sends, open.unsent
            )?;
        }
        if let Some(churn) = &self.churn {
            writeln!(
                f,
                "connections/s {:.0}, echoes per connection {}",
                churn.connections_per_s, churn.echoes_each
            )?;
            writeln!(f, "connect µs   {}", churn.connect_us)?;
        }
        if let Some(fairness) = self.fairness.filter(|_| self.active_connections > 1) {
            writeln!(
                f,
                "fairness     {:.3} over connections, which had {:.2} to {:.2} of the mean (Jain's index; 1 is even)",
                fairness.connections, fairness.slowest_over_mean, fairness.fastest_over_mean
            )?;
        }
        writeln!(f, "client CPU   {:.0} % of what its threads can use", self.client_cpu_ratio * 100.0)?;
        match self.arrival {
            Arrival::Closed => write!(f, "closed loop: capacity, not latency under a given load"),
            _ => write!(f, "open loop: latency from when a message was due, service from when it was sent"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn events_survive_json() {
        let result = LoadResult {
            connections: 2,
            active_connections: 1,
            message_bytes: 64,
            pipeline_depth: 3,
            arrival: Arrival::Closed,
            duration_s: 0.5,
            warmup_s: 0.25,
            warmup_echoes: 7,
            echoes: 10,
            bytes: 640,
            achieved_per_s: 20.0,
            latency_us: LatencyUs { p50: Some(12.5), ..LatencyUs::default() },
            open: Some(OpenResult {
                rate_per_s: 21.0,
                offered_per_s: 20.5,
                late_sends: 1,
                unsent: 2,
                service_us: LatencyUs { max: Some(9.0), ..LatencyUs::default() },
                send_lag_us: LatencyUs::default(),
            }),
            churn: Some(ChurnResult {
                echoes_each: 1,
                opened: 10,
                connections_per_s: 20.0,
                connect_us: LatencyUs { p99: Some(7.5), ..LatencyUs::default() },
                opened_in_all: 12,
            }),
            fairness: Some(Fairness {
                connections: 0.5,
                slowest_over_mean: 0.25,
                fastest_over_mean: 2.0,
                ports: 1.0,
            }),
            client_cpu_ns: 99,
            client_cpu_ratio: 0.125,
            threads: 1,
            seed: u64::MAX,
            interrupted: false,
            window_start_ns: Some(3),
            window_end_ns: Some(u64::MAX),
            longest_gap_ns: Some(50_000_000),
            histogram_log: Some("#[…]\n".to_owned()),
        };
        let connections = LoadEvent::Connections {
            connections: 2,
            connect_s: 0.125,
            opened: 1,
            connect_us: LatencyUs { max: Some(3.5), ..LatencyUs::default() },
        };
        for event in [connections, LoadEvent::Measuring, LoadEvent::Result(result)] {
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<LoadEvent>(&line).unwrap(), event, "{line}");
        }
    }
}
