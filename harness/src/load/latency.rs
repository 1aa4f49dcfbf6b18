//! Latency histograms: what is recorded, what may be read from them, and how they are kept.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use super::flight::Stamp;

/// The longest latency that is told apart, in ns: longer ones count as this.
const MAX_NS: u64 = 60_000_000_000;

/// Latencies in µs. A percentile is null when the sample is too small to bound it: see [`carries`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
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
}

impl LatencyUs {
    pub fn of(histogram_ns: &Histogram<u64>) -> Self {
        let samples = histogram_ns.len();
        let quantile = |q: f64| carries(samples, q).then(|| histogram_ns.value_at_quantile(q) as f64 / 1e3);
        Self {
            mean: (samples > 0).then(|| histogram_ns.mean() / 1e3),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            p9999: quantile(0.9999),
            max: (samples > 0).then(|| histogram_ns.max() as f64 / 1e3),
        }
    }
}

impl fmt::Display for LatencyUs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |value: Option<f64>| value.map_or("-".to_owned(), |us| format!("{us:.1}"));
        let Self { p50, p90, p99, p999, max, .. } = *self;
        write!(f, "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}", us(p50), us(p90), us(p99), us(p999), us(max))
    }
}

/// How long messages took.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// From when a message was due until it was back.
    pub latency_ns: Histogram<u64>,
    /// From when it was sent.
    pub service_ns: Histogram<u64>,
    /// From when it was due until it was sent.
    pub send_lag_ns: Histogram<u64>,
}

impl Latencies {
    pub fn new() -> Result<Self> {
        Ok(Self { latency_ns: histogram()?, service_ns: histogram()?, send_lag_ns: histogram()? })
    }

    /// A message of an open loop.
    pub fn record(&mut self, stamp: Stamp, back_ns: u64) {
        self.latency_ns.saturating_record(back_ns - stamp.due_ns);
        self.service_ns.saturating_record(back_ns - stamp.sent_ns);
        self.send_lag_ns.saturating_record(stamp.sent_ns - stamp.due_ns);
    }

    pub fn add(&mut self, other: &Self) -> Result<()> {
        for (sum, part) in [
            (&mut self.latency_ns, &other.latency_ns),
            (&mut self.service_ns, &other.service_ns),
            (&mut self.send_lag_ns, &other.send_lag_ns),
        ] {
            merge(sum, part)?;
        }
        Ok(())
    }
}

/// Adds the samples of `part`.
pub fn merge(sum: &mut Histogram<u64>, part: &Histogram<u64>) -> Result<()> {
    sum.add(part).map_err(|error| anyhow!("merging histograms: {error}"))
}

/// An empty histogram of ns: 1 ns to 60 s, three significant digits.
pub fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, MAX_NS, 3).context("histogram")
}

/// Whether `samples` are enough for a finite 95 % interval of quantile `q`.
///
/// The interval has an upper end only if the largest sample lies above the quantile with a
/// probability of 97.5 %: 1 − qⁿ ≥ 0.975. That takes 368 samples for p99, 3,688 for p99.9 and 36,887 for
/// p99.99.
pub fn carries(samples: u64, q: f64) -> bool {
    samples as f64 >= (0.025_f64.ln() / q.ln()).ceil()
}

/// `histogram_ns` as an HdrHistogram V2 log of one interval, which the usual tools read.
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

/// Reads what [`log`] made, from a file.
pub fn read_log(path: &Path) -> Result<Histogram<u64>> {
    let read = || -> Result<Histogram<u64>> {
        let text = std::fs::read(path)?;
        let mut entries = IntervalLogIterator::new(&text);
        let encoded = entries.find_map(|entry| match entry {
            Ok(LogEntry::Interval(interval)) => Some(Ok(interval.encoded_histogram().to_owned())),
            Ok(_) => None,
            Err(error) => Some(Err(anyhow!("no log of a histogram: {error:?}"))),
        });
        let encoded = encoded.context("it holds no histogram")??;
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|error| anyhow!("no histogram: {error}"))?;
        Deserializer::new().deserialize(&mut &bytes[..]).map_err(|error| anyhow!("no histogram: {error}"))
    };
    read().with_context(|| path.display().to_string())
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
        let mut written = histogram().unwrap();
        (1..1000).for_each(|us| written.record(us * 1000).unwrap());
        let text = log(&written, SystemTime::UNIX_EPOCH, Duration::from_secs(1)).unwrap();
        std::fs::write(&path, &text).unwrap();
        assert!(read_log(&path).unwrap() == written);
        for (broken, words) in
            [("", "holds no histogram"), (&text[..text.len() - 90], "histogram"), ("no, log", "no log")]
        {
            std::fs::write(&path, broken).unwrap();
            let error = format!("{:#}", read_log(&path).unwrap_err());
            assert!(error.contains("a.hlog") && error.contains(words), "{error}");
        }
    }

    #[test]
    fn percentiles_that_the_sample_cannot_carry_are_absent() {
        let mut sample = histogram().unwrap();
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
