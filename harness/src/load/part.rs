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
    fn parts_are_counted_from_one() {
        assert_eq!("1/1".parse(), Ok(LoadPart { index: 0, of: 1 }));
        assert_eq!("3/3".parse(), Ok(LoadPart { index: 2, of: 3 }));
        for bad in ["0/3", "4/3", "1", "1/0", "a/b", "1/2000", "-1/2", "1/2/3"] {
            assert!(bad.parse::<LoadPart>().is_err(), "{bad}");
        }
    }
}
