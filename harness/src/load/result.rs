//! What a load says: one set of types for the program that prints them and the one that reads them.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use super::latency::LatencyUs;

/// A line of JSON on stdout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LoadEvent {
    /// As many connections stand as were asked for.
    Connections {
        /// How many.
        connections: usize,
        /// How long it took to open or close them, in s.
        connect_s: f64,
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
    /// How messages were begun.
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
    /// From before a message is written until its last byte is back and verified, in µs.
    pub latency_us: LatencyUs,
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
}

/// What decides when a message begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// Each begins as soon as an earlier one of its connection is back.
    Closed,
}

impl fmt::Display for LoadResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |value: Option<f64>| value.map_or("-".to_owned(), |us| format!("{us:.1}"));
        let LatencyUs { p50, p90, p99, p999, max, .. } = self.latency_us;
        writeln!(
            f,
            "connections  {} ({} active), pipeline {}, messages of {} B",
            self.connections, self.active_connections, self.pipeline_depth, self.message_bytes
        )?;
        write!(f, "echoes       {} in {:.3} s", self.echoes, self.duration_s)?;
        match self.warmup_s {
            0.0 => write!(f, ", no warm-up")?,
            warmup_s => write!(f, ", after {} in {warmup_s:.3} s of warm-up", self.warmup_echoes)?,
        }
        writeln!(f, "{}", if self.interrupted { " (interrupted)" } else { "" })?;
        writeln!(f, "echoes/s     {:.0}", self.achieved_per_s)?;
        writeln!(
            f,
            "latency µs   p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
            us(p50),
            us(p90),
            us(p99),
            us(p999),
            us(max)
        )?;
        writeln!(f, "client CPU   {:.0} % of what its threads can use", self.client_cpu_ratio * 100.0)?;
        write!(f, "closed loop: capacity, not latency under a given load")
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
            client_cpu_ns: 99,
            client_cpu_ratio: 0.125,
            threads: 1,
            seed: u64::MAX,
            interrupted: false,
        };
        let connections = LoadEvent::Connections { connections: 2, connect_s: 0.125 };
        for event in [connections, LoadEvent::Measuring, LoadEvent::Result(result)] {
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<LoadEvent>(&line).unwrap(), event, "{line}");
        }
    }
}
