//! The rows of a run, and the CSV files that hold them.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write as _};
use std::path::Path;
use std::slice;

use anyhow::{Context, Result, anyhow, bail};
use flate2::read::GzDecoder;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::files::replace;
use crate::rows::{
    EventRow, FunctionRow, HardwareRow, InstructionRow, MemoryPointRow, MemoryRow, Outcome,
    ScaleRow, SyscallRow, TrialRow, WindowRow,
};
use crate::verdict::memory;

/// The rows of a run's trials.
#[derive(Debug, Default)]
pub struct RunRows {
    /// `trials.csv`.
    pub trials: Vec<TrialRow>,
    /// `syscalls.csv`.
    pub syscalls: Vec<SyscallRow>,
    /// `events.csv`.
    pub events: Vec<EventRow>,
    /// `hardware.csv`.
    pub hardware: Vec<HardwareRow>,
    /// `instructions.csv`.
    pub instructions: Vec<InstructionRow>,
    /// `functions.csv`.
    pub functions: Vec<FunctionRow>,
    /// `windows.csv`.
    pub windows: Vec<WindowRow>,
    /// `memory_points.csv`.
    pub memory_points: Vec<MemoryPointRow>,
    /// `memory.csv`.
    pub memory: Vec<MemoryRow>,
    /// `scale.csv`.
    pub scale: Vec<ScaleRow>,
}

impl RunRows {
    /// Reads the CSV files of a folder, of any version.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut rows = Self {
            trials: read(&folder.join("trials.csv"))?,
            syscalls: read(&folder.join("syscalls.csv"))?,
            events: read(&folder.join("events.csv"))?,
            hardware: read(&folder.join("hardware.csv"))?,
            instructions: read(&folder.join("instructions.csv"))?,
            functions: read(&folder.join("functions.csv"))?,
            windows: read(&folder.join("windows.csv"))?,
            memory_points: read(&folder.join("memory_points.csv"))?,
            memory: read(&folder.join("memory.csv"))?,
            scale: read(&folder.join("scale.csv"))?,
        };
        let mut ids = BTreeSet::new();
        if let Some(twice) = rows.trials.iter().find(|row| !ids.insert(row.run_id)) {
            bail!(
                "{}: trial {} stands in it twice: it was edited, or put together of several",
                folder.join("trials.csv").display(),
                twice.run_id
            );
        }
        // Earlier versions wrote a trial's own row last: a trial without one was interrupted.
        rows.memory.retain(|row| ids.contains(&row.run_id));
        Ok(rows)
    }

    /// Adds the rows of a trial.
    pub fn add(&mut self, outcome: Outcome) {
        let status = outcome.row.status;
        self.memory.extend(outcome.memory.into_iter().map(|row| MemoryRow { status, ..row }));
        memory::subtract_null(&mut self.memory);
        self.trials.push(outcome.row);
        self.syscalls.extend(outcome.syscalls);
        self.events.extend(outcome.events);
        self.hardware.extend(outcome.hardware);
        self.instructions.extend(outcome.instructions);
        self.functions.extend(outcome.functions);
        self.windows.extend(outcome.windows);
        self.memory_points.extend(outcome.memory_points);
        self.scale.extend(outcome.scale);
    }

    /// Makes the CSV files of a folder hold these rows and nothing else.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_all(&folder.join("trials.csv"), &self.trials)?;
        write_all(&folder.join("syscalls.csv"), &self.syscalls)?;
        write_all(&folder.join("events.csv"), &self.events)?;
        write_all(&folder.join("hardware.csv"), &self.hardware)?;
        write_all(&folder.join("instructions.csv"), &self.instructions)?;
        write_all(&folder.join("functions.csv"), &self.functions)?;
        write_all(&folder.join("windows.csv"), &self.windows)?;
        write_all(&folder.join("memory_points.csv"), &self.memory_points)?;
        write_all(&folder.join("memory.csv"), &self.memory)?;
        write_all(&folder.join("scale.csv"), &self.scale)
    }
}

/// Appends a trial to the CSV files of a folder, all but `memory.csv`, where later trials change
/// earlier rows.
pub fn append_outcome(folder: &Path, outcome: &Outcome) -> Result<()> {
    append(&folder.join("trials.csv"), slice::from_ref(&outcome.row))?;
    append(&folder.join("syscalls.csv"), &outcome.syscalls)?;
    append(&folder.join("events.csv"), &outcome.events)?;
    append(&folder.join("hardware.csv"), &outcome.hardware)?;
    append(&folder.join("instructions.csv"), &outcome.instructions)?;
    append(&folder.join("functions.csv"), &outcome.functions)?;
    append(&folder.join("windows.csv"), &outcome.windows)?;
    append(&folder.join("memory_points.csv"), &outcome.memory_points)?;
    append(&folder.join("scale.csv"), &outcome.scale)
}

fn append<T: Serialize>(path: &Path, rows: &[T]) -> Result<()> {
    let write = || -> Result<()> {
        let mut file = OpenOptions::new().append(true).open(path)?;
        let is_new = file.metadata()?.len() == 0;
        Ok(file.write_all(&csv_of(rows, is_new)?)?)
    };
    write().with_context(|| {
        format!("{}: a row cannot be written: make room on the disk", path.display())
    })
}

/// Replaces a CSV file, unless it holds these rows already.
pub(super) fn write_all<T: Serialize>(path: &Path, rows: &[T]) -> Result<()> {
    let contents = csv_of(rows, true)?;
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    replace(path, &contents)
}

fn csv_of<T: Serialize>(rows: &[T], with_header: bool) -> Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new().has_headers(with_header).from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(writer.into_inner()?)
}

/// Reads the rows of a file, or of the same packed by gzip, as committed runs have it. A file that
/// is not there has none: its pass did not run, or an earlier version did not measure it.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let packed = path.with_extension("csv.gz");
    match (path.exists(), packed.exists()) {
        (false, false) => Ok(Vec::new()),
        (true, false) => parse_rows(File::open(path)?).with_context(|| path.display().to_string()),
        (false, true) => parse_rows(GzDecoder::new(File::open(&packed)?))
            .with_context(|| packed.display().to_string()),
        (true, true) => {
            bail!("{} is there, and packed too: remove the older one", path.display())
        }
    }
}

fn parse_rows<T: DeserializeOwned>(file: impl Read) -> Result<Vec<T>> {
    let mut reader = csv::Reader::from_reader(file);
    let header = reader.headers()?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        // Rust parses NaN and infinities as numbers, but no measurement is one.
        let is_no_figure = |cell: &str| cell.parse::<f64>().is_ok_and(|cell| !cell.is_finite());
        if let Some(index) = record.iter().position(is_no_figure) {
            bail!("line {line}, column '{}': '{}' is no figure", &header[index], &record[index]);
        }
        let row = record.deserialize(Some(&header));
        rows.push(row.map_err(|error| in_words(&error, line, &header, &record))?);
    }
    Ok(rows)
}

/// Says which cell cannot be read, by its column's name.
fn in_words(
    error: &csv::Error,
    line: u64,
    header: &csv::StringRecord,
    record: &csv::StringRecord,
) -> anyhow::Error {
    let csv::ErrorKind::Deserialize { err, .. } = error.kind() else {
        return anyhow!("line {line}: {error}");
    };
    let words = err.kind().to_string();
    // A list of all known columns follows.
    let what = words.split(", expected one of").next().unwrap_or(&words);
    let cell = err.field().map(|index| (header.get(index as usize), record.get(index as usize)));
    match cell {
        Some((Some(column), Some(cell))) if !what.contains("unknown field") => {
            anyhow!("line {line}, column '{column}': '{cell}': {what}")
        }
        _ => anyhow!("line {line}: {what}: another version of ringmark wrote it, or it was edited"),
    }
}
