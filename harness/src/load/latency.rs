//! Latency histograms: what is recorded, what may be read from them, and how they are kept.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use super::in_flight::Timestamps;
use super::limits::DURATION_MAX;

/// The longest latency that is told apart, in ns: the longest warm-up, window and wait for echoes
/// that are owed, with a day to spare.
const MAX_NS: u64 = 4 * DURATION_MAX.as_nanos() as u64;

/// Latencies in µs. A percentile is null when the sample is too small to bound it: see [`carries`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyUs {
    /// Arithmetic mean; null without echoes.
    pub mean: Option<f64>,
    /// Half of the echoes took no longer.
    pub p50: Option<f64>,
    /// 90 % took no longer.
    pub p90: Option<f64>,
    /// 99 % took no longer.
    pub p99: Option<f64>,
    /// 99.9 % took no longer.
    pub p999: Option<f64>,
    /// 99.99 % took no longer.
    pub p9999: Option<f64>,
    /// The longest; null without echoes.
    pub max: Option<f64>,
    /// Lower bounds of the figures that are null above because they lie among messages that never
    /// came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<Box<LatencyUs>>,
}

impl LatencyUs {
    /// Returns the figures of a sample, all of whose messages came back.
    pub fn of(histogram_ns: &Histogram<u64>) -> Self {
        Self::with_owed(histogram_ns, u64::MAX)
    }

    /// Returns the figures of a sample in which messages that never came back count with the time
    /// that they had waited: `owed_ns` or more.
    pub fn with_owed(histogram_ns: &Histogram<u64>, owed_ns: u64) -> Self {
        let mean = (!histogram_ns.is_empty()).then(|| histogram_ns.mean() / 1e3);
        if owed_ns == u64::MAX {
            return Self::figures(histogram_ns, mean, Some);
        }
        // A latency below `owed_ns` keeps its rank, however long the messages that are owed take.
        let exact = Self::figures(histogram_ns, None, |ns| (ns < owed_ns).then_some(ns));
        let at_least = Self::figures(histogram_ns, mean, |ns| {
            (ns >= owed_ns).then(|| histogram_ns.lowest_equivalent(ns))
        });
        Self { at_least: Some(Box::new(at_least)), ..exact }
    }

    /// Returns the figures that `keep` lets pass.
    fn figures(
        histogram_ns: &Histogram<u64>,
        mean: Option<f64>,
        keep: impl Fn(u64) -> Option<u64>,
    ) -> Self {
        let us = |ns: u64| Some(keep(ns)? as f64 / 1e3);
        let at = |q: f64| {
            carries(histogram_ns.len(), q).then(|| us(histogram_ns.value_at_quantile(q))).flatten()
        };
        let max = if histogram_ns.is_empty() { None } else { us(histogram_ns.max()) };
        let (p50, p90, p99, p999, p9999) = (at(0.5), at(0.9), at(0.99), at(0.999), at(0.9999));
        Self { mean, p50, p90, p99, p999, p9999, max, at_least: None }
    }
}

impl fmt::Display for LatencyUs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.at_least.as_deref();
        for (name, exact, at_least) in [
            ("p50", self.p50, least.and_then(|us| us.p50)),
            ("  p90", self.p90, least.and_then(|us| us.p90)),
            ("  p99", self.p99, least.and_then(|us| us.p99)),
            ("  p99.9", self.p999, least.and_then(|us| us.p999)),
            ("  max", self.max, least.and_then(|us| us.max)),
        ] {
            match (exact, at_least) {
                (Some(us), _) => write!(f, "{name} {us:.1}")?,
                (None, Some(us)) => write!(f, "{name} at least {us:.1}")?,
                (None, None) => write!(f, "{name} -")?,
            }
        }
        Ok(())
    }
}

/// The times that messages took.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// From when a message was due until it was back.
    pub latency_ns: Histogram<u64>,
    /// From when it was sent.
    pub service_ns: Histogram<u64>,
    /// From when it was due until it was sent.
    pub send_lag_ns: Histogram<u64>,
    /// The shortest wait of a message that never came back; `u64::MAX`: all came back.
    pub owed_latency_ns: u64,
    /// The same, from when it was sent.
    pub owed_service_ns: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            latency_ns: histogram(),
            service_ns: histogram(),
            send_lag_ns: histogram(),
            owed_latency_ns: u64::MAX,
            owed_service_ns: u64::MAX,
        }
    }
}

impl Latencies {
    /// Records a message that is still owed: it takes longer than until now.
    pub fn owe(&mut self, timestamps: Timestamps, now_ns: u64) {
        self.record(timestamps, now_ns);
        self.owed_latency_ns = self.owed_latency_ns.min(now_ns - timestamps.due_ns);
        self.owed_service_ns = self.owed_service_ns.min(now_ns - timestamps.sent_ns);
    }

    /// Records a message that is back.
    pub fn record(&mut self, timestamps: Timestamps, back_ns: u64) {
        self.latency_ns.saturating_record(back_ns - timestamps.due_ns);
        self.service_ns.saturating_record(back_ns - timestamps.sent_ns);
        self.send_lag_ns.saturating_record(timestamps.sent_ns - timestamps.due_ns);
    }

    pub fn add(&mut self, other: &Self) {
        self.latency_ns += &other.latency_ns;
        self.service_ns += &other.service_ns;
        self.send_lag_ns += &other.send_lag_ns;
        self.owed_latency_ns = self.owed_latency_ns.min(other.owed_latency_ns);
        self.owed_service_ns = self.owed_service_ns.min(other.owed_service_ns);
    }

    pub fn latency_us(&self) -> LatencyUs {
        LatencyUs::with_owed(&self.latency_ns, self.owed_latency_ns)
    }

    pub fn service_us(&self) -> LatencyUs {
        LatencyUs::with_owed(&self.service_ns, self.owed_service_ns)
    }
}

/// Adds the samples of `part`, which may be of a file with other bounds.
pub fn merge(sum: &mut Histogram<u64>, part: &Histogram<u64>) -> Result<()> {
    sum.add(part).map_err(|error| anyhow!("merging histograms: {error}"))
}

/// Returns an empty histogram of ns: 1 ns to four days, three significant digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_NS, 3).expect("1 ns to four days is a range")
}

/// Whether `samples` are enough for a finite 95 % interval of quantile `q`.
///
/// The interval has an upper end only if the largest sample lies above the quantile with a
/// probability of 97.5 %: 1 − qⁿ ≥ 0.975. Such n are 368 samples for p99, 3,688 for p99.9 and
/// 36,887 for p99.99.
pub fn carries(samples: u64, q: f64) -> bool {
    samples as f64 >= (0.025_f64.ln() / q.ln()).ceil()
}

/// Returns an HdrHistogram V2 log of one interval, which the usual tools read.
pub fn log(histogram_ns: &Histogram<u64>, start: SystemTime, duration: Duration) -> Result<String> {
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let since_epoch = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("[latency of echoes in ns; Interval_Max in ms]")
        .with_start_time(start)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut log, &mut serializer)
        .context("histogram log")?
        .write_histogram(histogram_ns, since_epoch, duration, None)
        .map_err(|error| anyhow!("histogram log: {error}"))?;
    String::from_utf8(log).context("histogram log")
}

/// Reads the histogram of a file that [`log`] made.
pub fn read_log(path: &Path) -> Result<Histogram<u64>> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    parse_log(&text).with_context(|| path.display().to_string())
}

/// Reads the histogram of a text that [`log`] made.
pub fn parse_log(text: &[u8]) -> Result<Histogram<u64>> {
    for entry in IntervalLogIterator::new(text) {
        let entry = entry.map_err(|error| anyhow!("no log of a histogram: {error:?}"))?;
        let LogEntry::Interval(interval) = entry else { continue };
        let bytes = BASE64_STANDARD
            .decode(interval.encoded_histogram())
            .map_err(|error| anyhow!("no histogram: {error}"))?;
        return Deserializer::new()
            .deserialize(&mut &bytes[..])
            .map_err(|error| anyhow!("no histogram: {error}"));
    }
    bail!("it holds no histogram")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_percentile_needs_its_sample() {
        for (q, least) in [(0.5, 6), (0.9, 36), (0.99, 368), (0.999, 3_688), (0.9999, 36_887)] {
            assert!(carries(least, q), "{q}");
            assert!(!carries(least - 1, q), "{q}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.hlog");
        let mut written = histogram();
        (1..1000).for_each(|us| written.record(us * 1000).unwrap());
        let text = log(&written, SystemTime::UNIX_EPOCH, Duration::from_secs(1)).unwrap();
        std::fs::write(&path, &text).unwrap();
        assert!(read_log(&path).unwrap() == written);
        for (broken, words) in [
            ("", "holds no histogram"),
            (&text[..text.len() - 90], "histogram"),
            ("no, log", "no log"),
        ] {
            std::fs::write(&path, broken).unwrap();
            let error = format!("{:#}", read_log(&path).unwrap_err());
            assert!(error.contains("a.hlog") && error.contains(words), "{error}");
        }
    }

    #[test]
    fn figures_among_messages_that_are_owed_are_lower_bounds() {
        let mut all = Latencies::default();
        let timestamps = |due_ns| Timestamps { due_ns, sent_ns: due_ns + 10_000 };
        for us in 1..=900 {
            all.record(timestamps(0), us * 1000 + 10_000);
        }
        assert_eq!(all.latency_us().at_least, None);
        // A tenth is still away after 2 to 3 ms.
        let mut part = Latencies::default();
        (0..100).for_each(|turn| part.owe(timestamps(turn * 10_000), 3_000_000));
        all.add(&part);
        assert_eq!((all.owed_latency_ns, all.owed_service_ns), (2_010_000, 2_000_000));
        let latency = all.latency_us();
        let at_least = latency.at_least.clone().unwrap();
        assert!(latency.p50.is_some_and(|us| (500.0..520.0).contains(&us)), "{latency:?}");
        assert!(latency.p90.is_some_and(|us| (900.0..920.0).contains(&us)), "{latency:?}");
        assert_eq!((latency.mean, latency.p99, latency.max), (None, None, None));
        assert_eq!((at_least.p50, at_least.p90), (None, None));
        assert!(at_least.p99.is_some_and(|us| (2800.0..2930.0).contains(&us)), "{at_least:?}");
        assert!(
            at_least.max.is_some_and(|us| us <= 3000.0) && at_least.mean.is_some(),
            "{at_least:?}"
        );
        let line = latency.to_string();
        assert!(line.contains("p99 at least 2") && line.contains("max at least 299"), "{line}");
        assert!(!line.contains("p90 at least"), "{line}");
        // Longer than any latency was until now.
        all.record(timestamps(0), 70_000_000_000);
        assert!(all.latency_ns.max() >= 70_000_000_000);
    }

    #[test]
    fn percentiles_that_the_sample_cannot_carry_are_absent() {
        let mut sample = histogram();
        assert_eq!(LatencyUs::of(&sample), LatencyUs::default());
        for us in 1..=367 {
            sample.record(us * 1000).unwrap();
        }
        let latency = LatencyUs::of(&sample);
        assert!(latency.p90.is_some() && latency.p99.is_none());
        sample.record(368_000).unwrap();
        let latency = LatencyUs::of(&sample);
        let p99 = latency.p99.unwrap();
        assert!((364.0..=366.0).contains(&p99), "{p99}");
        assert!(latency.p999.is_none());
    }
}
