//! A run as one JSON document, by harness/schema/report.json.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use itertools::Itertools as _;
use ringmark::protocol::FORMAT_VERSION;
use serde::Serialize;
use serde_json::Value;

use crate::results::{Run, RunState};
use crate::rows::{
    CapacityRow, ComparisonRow, HardwareRow, InstructionRow, MemoryRow, Pass, ScaleRow, SyscallRow,
    TrialRow, Verdict,
};
use crate::verdict::metric::{self, Metric};

#[derive(Serialize)]
struct ReportDocument<'a> {
    format: &'static str,
    format_version: u32,
    /// The version of the program that printed this.
    ringmark: &'static str,
    run: About<'a>,
    machine: &'a Value,
    placement: &'a Value,
    matrix: &'a crate::matrix::Matrix,
    /// Trials by status.
    trials: BTreeMap<&'static str, usize>,
    /// The trials that are not `ok`, or carry a remark.
    remarks: Vec<Remark<'a>>,
    /// The metrics of the comparisons.
    metrics: Vec<MetricWords>,
    comparisons: &'a [ComparisonRow],
    syscalls: &'a [SyscallRow],
    memory: &'a [MemoryRow],
    capacities: &'a [CapacityRow],
    scale: &'a [ScaleRow],
    hardware: &'a [HardwareRow],
    instructions: &'a [InstructionRow],
}

#[derive(Serialize)]
struct About<'a> {
    folder: String,
    name: &'a Value,
    state: &'static str,
    begun_utc: &'a Value,
    finished_utc: &'a Value,
    build_profile: &'a Value,
    revision: &'a Value,
    seed: &'a Value,
    traffic: String,
}

#[derive(Serialize)]
struct Remark<'a> {
    trial: u32,
    pass: Option<&'static str>,
    workload: &'a str,
    arm: &'a str,
    status: &'static str,
    reason: &'a str,
}

impl<'a> Remark<'a> {
    fn of(row: &'a TrialRow) -> Self {
        let TrialRow { run_id, pass, workload, arm, status, reason, .. } = row;
        let pass = pass.map(Pass::name);
        Self { trial: *run_id, pass, workload, arm, status: status.word(), reason }
    }
}

#[derive(Serialize)]
struct MetricWords {
    name: &'static str,
    noun: &'static str,
    unit: &'static str,
    /// The verdict that is good news.
    better: Option<&'static str>,
}

impl MetricWords {
    fn of(metric: &Metric) -> Self {
        let Metric { name, words, better, .. } = metric;
        Self { name, noun: words.noun, unit: words.unit, better: better.map(Verdict::words) }
    }
}

/// Returns the document, on one line.
pub fn document(run: &Run, folder: &Path) -> Result<String> {
    let manifest = &run.manifest;
    let remarkable = |row: &&TrialRow| !row.reason.is_empty();
    let document = ReportDocument {
        format: "ringmark-report",
        format_version: FORMAT_VERSION,
        ringmark: env!("CARGO_PKG_VERSION"),
        run: About {
            folder: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            name: &manifest["name"],
            state: match run.state {
                RunState::Finished => "finished",
                RunState::UnderWay => "under way",
                RunState::BrokenOff => "broken off",
            },
            begun_utc: &manifest["machine"]["read_at"],
            finished_utc: &manifest["finished_utc"],
            build_profile: &manifest["build_profile"],
            revision: &manifest["machine"]["git_revision"],
            seed: &manifest["seed"],
            traffic: run.traffic(),
        },
        machine: &manifest["machine"],
        placement: &manifest["placement"],
        matrix: &run.matrix,
        trials: run.trials.iter().map(|row| row.status.word()).counts().into_iter().collect(),
        remarks: run.trials.iter().filter(remarkable).map(Remark::of).collect(),
        metrics: metric::all().map(MetricWords::of).collect(),
        comparisons: &run.comparisons,
        syscalls: &run.syscalls,
        memory: &run.memory,
        capacities: &run.capacities,
        scale: &run.scale,
        hardware: &run.hardware,
        instructions: &run.instructions,
    };
    Ok(serde_json::to_string(&document)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Committed runs show what they happened to measure. A row of another may lack more.
    #[test]
    fn the_schema_lets_a_row_lack_what_its_type_lets_it_lack() {
        fn empty(row: impl Serialize) -> Value {
            serde_json::to_value(row).expect("a row is JSON")
        }
        let schema: Value =
            serde_json::from_str(include_str!("../../schema/report.json")).expect("a schema");
        for (table, row) in [
            ("capacities", empty(CapacityRow::default())),
            ("comparisons", empty(ComparisonRow::of_two([""; 5], [1.0; 2], Verdict::Counted))),
            ("syscalls", empty(SyscallRow::default())),
            ("memory", empty(MemoryRow::default())),
            ("scale", empty(ScaleRow::default())),
            ("instructions", empty(InstructionRow::default())),
        ] {
            let columns = &schema["properties"][table]["items"]["properties"];
            let absent = row.as_object().expect("an object").iter();
            for (column, _) in absent.filter(|(_, value)| value.is_null()) {
                let kinds = columns[column]["type"].as_array();
                // Null, and what it is otherwise.
                let is_optional = kinds
                    .is_some_and(|kinds| kinds.len() > 1 && kinds.iter().any(|of| of == "null"));
                assert!(is_optional, "{table}: {column} may be null, and may be more");
            }
        }
    }
}
