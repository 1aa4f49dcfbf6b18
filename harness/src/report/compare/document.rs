//! A comparison as one JSON document, by harness/schema/compare.json.

use std::path::Path;

use anyhow::{Error, Result};
use ringmark::protocol::FORMAT_VERSION;
use serde::Serialize;
use serde_json::Value;

use super::figures::{Compared, Figure};
use super::pair::Pair;
use crate::results::Run;
use crate::status::ExitStatus;

#[derive(Serialize)]
struct CompareDocument<'a> {
    format: &'static str,
    format_version: u32,
    /// The version of the program that printed this.
    ringmark: &'static str,
    a: Origin<'a>,
    b: Origin<'a>,
    /// How the origins differ, in words.
    origins: Vec<String>,
    figures: Vec<FigureDocument<'a>>,
    /// Why the rest was not judged, in words.
    not_judged: Vec<String>,
    /// The judgement that --fail-if-slower asked for.
    judgement: Option<JudgementDocument>,
}

#[derive(Serialize)]
struct Origin<'a> {
    folder: String,
    name: &'a Value,
    revision: &'a Value,
    kernel_release: &'a Value,
    machine: &'a Value,
}

impl<'a> Origin<'a> {
    fn of(folder: &Path, run: &'a Run) -> Self {
        let machine = &run.manifest["machine"];
        Self {
            folder: folder.display().to_string(),
            name: &run.manifest["name"],
            revision: &machine["git_revision"],
            kernel_release: &machine["kernel_release"],
            machine: &machine["description"],
        }
    }
}

#[derive(Serialize)]
struct FigureDocument<'a> {
    workload: &'a str,
    arm: &'a str,
    metric: &'static str,
    unit: &'static str,
    a: f64,
    b: f64,
    blocks_a: usize,
    blocks_b: usize,
    /// B/A by itself, the machine's drift in it.
    between_runs: Option<RatioDocument>,
    /// B/A relative to the baseline.
    relative: Option<RatioDocument>,
}

impl<'a> FigureDocument<'a> {
    fn of(figure: &'a Figure) -> Self {
        let Figure { workload, arm, metric, means: [a, b], blocks, .. } = figure;
        Self {
            workload,
            arm,
            metric: metric.name,
            unit: metric.words.unit,
            a: *a,
            b: *b,
            blocks_a: blocks[0],
            blocks_b: blocks[1],
            between_runs: figure.between_runs.map(RatioDocument::of),
            relative: figure.relative.map(RatioDocument::of),
        }
    }
}

#[derive(Serialize)]
struct RatioDocument {
    ratio: f64,
    low: f64,
    high: f64,
    verdict: Option<&'static str>,
}

impl RatioDocument {
    fn of(compared: Compared) -> Self {
        let Compared { ratio, verdict } = compared;
        Self {
            ratio: ratio.mean,
            low: ratio.interval.low,
            high: ratio.interval.high,
            verdict: verdict.map(|verdict| verdict.words()),
        }
    }
}

#[derive(Serialize)]
struct JudgementDocument {
    /// The exit status: 0, 3 or 5.
    exit_status: u8,
    words: String,
}

impl JudgementDocument {
    fn of(outcome: &Result<String, Error>) -> Self {
        match outcome {
            Ok(words) => Self { exit_status: 0, words: words.trim_end().to_owned() },
            Err(error) => {
                Self { exit_status: ExitStatus::of(error) as u8, words: format!("{error:#}") }
            }
        }
    }
}

/// Returns the document, on one line. The folders are those of A and B; `origins` and `not_judged`
/// are in words.
pub fn document(
    [a, b]: [&Path; 2],
    pair: &Pair,
    figures: &[Figure],
    (origins, not_judged): (Vec<String>, Vec<String>),
    outcome: Option<&Result<String>>,
) -> Result<String> {
    let document = CompareDocument {
        format: "ringmark-compare",
        format_version: FORMAT_VERSION,
        ringmark: env!("CARGO_PKG_VERSION"),
        a: Origin::of(a, &pair.a),
        b: Origin::of(b, &pair.b),
        origins,
        figures: figures.iter().map(FigureDocument::of).collect(),
        not_judged,
        judgement: outcome.map(JudgementDocument::of),
    };
    Ok(serde_json::to_string(&document)? + "\n")
}
