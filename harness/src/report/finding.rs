//! A verdict as words in the midst of a sentence.

use anyhow::{Context, Result, bail};
use itertools::Itertools as _;

use super::query::decimals;
use crate::results::Run;
use crate::rows::{ComparisonRow, Pass, TrialRow, Verdict};
use crate::statistics::median;
use crate::text::significant;
use crate::verdict::metric;

/// From this ratio on a difference reads better as a multiple than in percent.
pub const MULTIPLE: f64 = 1.5;

/// A marker in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The verdict, with the size of a difference.
    Finding,
    /// The median of the arm alone.
    Median,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Finding, Kind::Median];

    /// Returns the word that begins its marker.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Finding => "finding",
            Kind::Median => "median",
        }
    }

    /// Returns the beginning of its marker.
    pub fn opening(self) -> String {
        format!("<!-- {} ", self.word())
    }
}

/// Returns the words for `WORKLOAD; ARM; METRIC`, or `WORKLOAD; ARM; METRIC; OTHER` where the other
/// is not the baseline.
///
/// # Errors
/// If the run has no such comparison.
pub fn words(run: &Run, kind: Kind, fields: &str) -> Result<String> {
    let fields: Vec<&str> = fields.split(';').map(str::trim).collect();
    let (workload, arm, name, other) = match fields[..] {
        [workload, arm, metric] => (workload, arm, metric, run.matrix.baseline.as_str()),
        [workload, arm, metric, other] => (workload, arm, metric, other),
        _ => bail!("a finding is of `RUN; WORKLOAD; ARM; METRIC` or `…; METRIC; OTHER ARM`"),
    };
    let metric = metric::named(name);
    if kind == Kind::Median && metric.is_none() {
        return Ok(significant(of_trials(run, workload, arm, name)?));
    }
    let unit = metric.with_context(|| format!("there is no metric '{name}'"))?.words.unit;
    let of_metric = || {
        let rows = run.comparisons.iter();
        rows.filter(|row| row.workload == workload && row.metric == name)
    };
    let with_unit = |figure: f64| format!("{} {unit}", significant(figure)).trim().to_owned();
    if kind == Kind::Median && arm == run.matrix.baseline {
        let row = of_metric().find(|row| row.baseline == arm);
        let row = row.with_context(|| format!("{workload} has no {name} of {arm}"))?;
        return Ok(with_unit(row.baseline_median));
    }
    let row = of_metric().find(|row| row.arm == arm && row.baseline == other);
    let row = row.with_context(|| format!("{workload} has no {name} of {arm} over {other}"))?;
    Ok(match kind {
        Kind::Finding => finding(row, unit),
        Kind::Median => with_unit(row.arm_median),
    })
}

/// Returns the median of a column of trials.csv that is no metric, over the trials that count.
fn of_trials(run: &Run, workload: &str, arm: &str, column: &str) -> Result<f64> {
    let is_of = |row: &&TrialRow| {
        row.workload == workload
            && row.arm == arm
            && row.pass == Some(Pass::Latency)
            && row.status.is_usable()
    };
    let mut values = Vec::new();
    for row in run.trials.iter().filter(is_of) {
        let row = serde_json::to_value(row)?;
        let value = row.get(column).with_context(|| format!("there is no metric '{column}'"))?;
        values.extend(value.as_f64());
    }
    median(&mut values).with_context(|| format!("{workload} has no {column} of {arm}"))
}

fn finding(row: &ComparisonRow, unit: &str) -> String {
    let ComparisonRow { ratio, ratio_low: low, ratio_high: high, .. } = *row;
    let decimals = decimals(low, high);
    let interval = format!("{ratio:.decimals$}, {low:.decimals$}–{high:.decimals$}");
    match row.verdict {
        Verdict::Lower | Verdict::Higher => difference(row, unit),
        Verdict::Alike => {
            let margin = row.margin_percent.unwrap_or_default();
            format!("alike within {margin} % ({interval})")
        }
        Verdict::NotResolved => match row.detectable_percent {
            Some(percent) => {
                format!("not resolved ({interval}; {} would have been found)", sized(percent))
            }
            None => format!("not resolved ({interval})"),
        },
        Verdict::Counted | Verdict::OneWalk => {
            let [arm, other] = [row.arm_median, row.baseline_median].map(significant);
            let words = [arm.as_str(), unit, "against", other.as_str()];
            words.into_iter().filter(|word| !word.is_empty()).join(" ")
        }
        withheld => format!("{} ({interval})", withheld.words()),
    }
}

/// Writes the size of a difference in percent, or as a multiple where that is easier to read.
pub fn sized(percent: f64) -> String {
    if percent < 100.0 {
        format!("{} %", one_decimal(percent))
    } else {
        format!("{} times", one_decimal(1.0 + percent / 100.0))
    }
}

/// Writes a difference that is shown, with the interval of the ratio and the size in its unit.
fn difference(row: &ComparisonRow, unit: &str) -> String {
    let ComparisonRow { ratio, ratio_low: low, ratio_high: high, difference, .. } = *row;
    let sign = if difference < 0.0 { "−" } else { "+" };
    let size = format!("{sign}{} {unit}", significant(difference.abs()));
    let size = size.trim_end();
    if ratio >= MULTIPLE {
        return format!("{ratio:.2} times as high ({low:.2}–{high:.2}; {size})");
    }
    let percents = [low, high].map(|end| 100.0 * (end - 1.0).abs());
    let (least, most) = (percents[0].min(percents[1]), percents[0].max(percents[1]));
    let percent = one_decimal(100.0 * (ratio - 1.0).abs());
    let [least, most] = [least, most].map(one_decimal);
    format!("{percent} % {} ({least}–{most} %; {size})", row.verdict.words())
}

fn one_decimal(percent: f64) -> String {
    format!("{percent:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Bounds;

    fn row(verdict: Verdict, ratio: [f64; 3], difference: f64) -> ComparisonRow {
        let [ratio, ratio_low, ratio_high] = ratio;
        ComparisonRow {
            workload: "w".to_owned(),
            metric: "latency_p50_us".to_owned(),
            arm: "a".to_owned(),
            backend: "a".to_owned(),
            baseline: "b".to_owned(),
            baseline_median: 20.0,
            arm_median: 10.0,
            ratio,
            bounds: Bounds::Interval95,
            ratio_low,
            ratio_high,
            mean_ratio: ratio,
            mean_ratio_low: None,
            mean_ratio_high: None,
            difference,
            difference_low: 0.0,
            difference_high: 0.0,
            blocks: 10,
            rounds: None,
            block_sd_percent: None,
            p_value: None,
            p_adjusted: None,
            margin_percent: Some(3.0),
            detectable_percent: Some(3.62),
            blocks_to_spare: None,
            verdict,
        }
    }

    #[test]
    fn the_words_are_those_of_the_verdict() {
        let near = [1.004, 0.99, 1.02];
        for (row, unit, words) in [
            (
                row(Verdict::Lower, [0.871, 0.859, 0.88], -1830.4),
                "ns",
                "12.9 % lower (12.0–14.1 %; −1,830 ns)",
            ),
            (row(Verdict::Higher, [1.04, 1.03, 1.05], 0.5), "", "4.0 % higher (3.0–5.0 %; +0.50)"),
            (
                row(Verdict::Higher, [2.03, 1.98, 2.08], 3.3),
                "µs",
                "2.03 times as high (1.98–2.08; +3.30 µs)",
            ),
            (row(Verdict::Alike, near, 1.0), "ns", "alike within 3 % (1.004, 0.990–1.020)"),
            (
                row(Verdict::NotResolved, near, 1.0),
                "ns",
                "not resolved (1.004, 0.990–1.020; 3.6 % would have been found)",
            ),
            (row(Verdict::Restless, near, 1.0), "ns", "restless, no verdict (1.004, 0.990–1.020)"),
            (row(Verdict::OneWalk, near, 1.0), "bytes", "10.0 bytes against 20.0"),
        ] {
            assert_eq!(finding(&row, unit), words);
        }
    }
}
