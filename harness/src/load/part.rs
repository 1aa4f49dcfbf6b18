//! A part of a load that several processes make together, on one machine or on several.
//!
//! The whole is one load: its connections, its rate and its echoes are dealt over the threads of
//! all parts as they would be over those of one process, and the seed is the same. So three parts
//! of one thread each send what one process of three threads sends: the same bytes on the same
//! connections, due at the same times after the beginning.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::latency::{self, Latencies};
use super::limits::{CLIENT_BUSY_PERCENT, OFFERED_SHARE};
use crate::statistics::median;

/// Which part of a load, counted from 0, and of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadPart {
    pub index: usize,
    pub of: usize,
}

/// The most parts that a load may have.
pub const PARTS_MAX: usize = 1024;

impl LoadPart {
    /// Returns whether there are others.
    pub fn has_others(self) -> bool {
        self.of > 1
    }
}

impl FromStr for LoadPart {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(number, of)| {
            let (number, of): (usize, usize) = (number.parse().ok()?, of.parse().ok()?);
            ((1..=of).contains(&number) && of <= PARTS_MAX).then_some((number, of))
        });
        numbers.map(|(number, of)| Self { index: number - 1, of }).ok_or_else(|| {
            format!("give a part and how many there are, as 1/3: from 1/1 to 1024/{PARTS_MAX}")
        })
    }
}

/// Messages that a part may send after the window's end, besides one of a hundred: at its edge one
/// is soon late.
pub const EDGE: f64 = 2.0;

/// The figures that show whether a part of a load did what was asked of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartEffort {
    /// Its name among several.
    pub name: String,
    /// The measuring window, in s.
    pub duration_s: f64,
    /// Its CPU time as a share of what it could use.
    pub cpu_ratio: f64,
    /// Messages of an open loop that were due within the window, and those that it did not send.
    pub due: f64,
    pub unsent: u64,
    /// Medians, in µs.
    pub send_lag_p50_us: Option<f64>,
    pub latency_p50_us: Option<f64>,
}

impl PartEffort {
    /// Returns the same over several windows: sums, and medians of medians.
    pub fn sum(turns: &[&Self]) -> Self {
        let total = |value: fn(&Self) -> f64| turns.iter().map(|turn| value(turn)).sum::<f64>();
        let middle = |value: fn(&Self) -> Option<f64>| {
            median(&mut turns.iter().filter_map(|turn| value(turn)).collect::<Vec<_>>())
        };
        let duration_s = total(|turn| turn.duration_s);
        Self {
            name: turns.first().map_or(String::new(), |turn| turn.name.clone()),
            duration_s,
            cpu_ratio: total(|turn| turn.cpu_ratio * turn.duration_s) / duration_s,
            due: total(|turn| turn.due),
            unsent: turns.iter().map(|turn| turn.unsent).sum(),
            send_lag_p50_us: middle(|turn| turn.send_lag_p50_us),
            latency_p50_us: middle(|turn| turn.latency_p50_us),
        }
    }

    /// Returns why it could not do what was asked of it, if so. So many messages besides one of a
    /// hundred may be sent after the window's end.
    pub fn why_behind(&self, edge: f64) -> Option<String> {
        let (name, busy_percent) = (&self.name, self.cpu_ratio * 100.0);
        if busy_percent > CLIENT_BUSY_PERCENT {
            return Some(format!("{name} used {busy_percent:.0} % of its CPU"));
        }
        if self.unsent as f64 > (1.0 - OFFERED_SHARE) * self.due + edge {
            return Some(format!(
                "{name} did not send {} of {:.0} messages within the window",
                self.unsent, self.due
            ));
        }
        let (lag, all) = self.send_lag_p50_us.zip(self.latency_p50_us)?;
        (lag > all / 2.0).then(|| format!("{name} sent half of its messages over {lag:.0} µs late"))
    }
}

/// The samples of a part, for whoever puts the parts together. Histograms are HdrHistogram logs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartSamples {
    /// The threads of the part.
    pub threads: usize,
    /// The server's ports.
    pub ports: usize,
    pub latency: String,
    pub service: String,
    pub send_lag: String,
    /// How long it took to open the connections that replaced others.
    pub connect: Option<String>,
    /// The shortest waits of messages that never came back, in ns.
    pub owed_latency_ns: Option<u64>,
    pub owed_service_ns: Option<u64>,
    /// Echoes of each of its active connections, in the order of their numbers.
    pub echoes_by_connection: Option<Vec<u64>>,
}

impl PartSamples {
    /// Keeps those of a part.
    pub fn of(latencies: &Latencies, window: Duration) -> Result<Self> {
        let log = |histogram| log(histogram, window);
        let owed = |ns: u64| (ns != u64::MAX).then_some(ns);
        Ok(Self {
            threads: 0,
            ports: 0,
            latency: log(&latencies.latency_ns)?,
            service: log(&latencies.service_ns)?,
            send_lag: log(&latencies.send_lag_ns)?,
            connect: None,
            owed_latency_ns: owed(latencies.owed_latency_ns),
            owed_service_ns: owed(latencies.owed_service_ns),
            echoes_by_connection: None,
        })
    }

    /// Returns the times that its messages took.
    pub fn latencies(&self) -> Result<Latencies> {
        Ok(Latencies {
            latency_ns: parse(&self.latency)?,
            service_ns: parse(&self.service)?,
            send_lag_ns: parse(&self.send_lag)?,
            owed_latency_ns: self.owed_latency_ns.unwrap_or(u64::MAX),
            owed_service_ns: self.owed_service_ns.unwrap_or(u64::MAX),
        })
    }
}

/// Returns a histogram as a log that begins now.
pub fn log(histogram: &Histogram<u64>, window: Duration) -> Result<String> {
    latency::log(histogram, SystemTime::now(), window)
}

/// Reads a histogram of a log into one with our bounds.
pub fn parse(text: &str) -> Result<Histogram<u64>> {
    let mut whole = latency::histogram();
    latency::merge(&mut whole, &latency::parse_log(text.as_bytes())?)?;
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_behind_by_its_own_figures() {
        let part = PartEffort {
            name: "load 2".to_owned(),
            duration_s: 0.1,
            cpu_ratio: 0.5,
            due: 21.0,
            unsent: 2,
            send_lag_p50_us: Some(10.0),
            latency_p50_us: Some(100.0),
        };
        let why = |part: PartEffort| part.why_behind(EDGE).unwrap_or_default();
        // At a window's edge.
        assert_eq!(part.why_behind(EDGE), None);
        assert_eq!(
            why(PartEffort { unsent: 3, ..part.clone() }),
            "load 2 did not send 3 of 21 messages within the window"
        );
        assert_eq!(
            why(PartEffort { cpu_ratio: 0.91, ..part.clone() }),
            "load 2 used 91 % of its CPU"
        );
        let late = PartEffort { send_lag_p50_us: Some(51.0), ..part.clone() };
        assert_eq!(why(late), "load 2 sent half of its messages over 51 µs late");
        // Two of each turn are too many in all.
        let sum = PartEffort::sum(&[&part; 10]);
        assert_eq!((sum.unsent, sum.due, sum.cpu_ratio), (20, 210.0, 0.5));
        assert!(sum.why_behind(EDGE).is_some() && part.why_behind(EDGE).is_none());
    }

    #[test]
    fn parts_are_counted_from_one() {
        assert_eq!("1/1".parse(), Ok(LoadPart { index: 0, of: 1 }));
        assert_eq!("3/3".parse(), Ok(LoadPart { index: 2, of: 3 }));
        for bad in ["0/3", "4/3", "1", "1/0", "a/b", "1/2000", "-1/2", "1/2/3"] {
            assert!(bad.parse::<LoadPart>().is_err(), "{bad}");
        }
    }
}
