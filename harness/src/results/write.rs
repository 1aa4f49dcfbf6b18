//! Writes the folder of a run, and takes one up again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::files::{FolderLock, NEW_ENDING, histogram_file, lock, remove, replace};
use super::journal::{self, Journal};
use super::judged::{self, Judged};
use super::manifest::Manifest;
use super::run_rows::{RunRows, append_outcome, write_all};
use crate::matrix::Matrix;
use crate::rows::{Outcome, Pass, TrialRow};
use crate::verdict::measured::Measured;

/// The folder of a run, to which trials are added.
pub struct Results {
    folder: PathBuf,
    pub(super) journal: Journal,
    rows: RunRows,
    /// Held as long as rows may be written.
    _lock: FolderLock,
}

impl Results {
    /// Makes the folder, which must not exist.
    pub fn create(folder: &Path) -> Result<Self> {
        if folder.exists() {
            bail!(
                "{} exists; a run never writes over another: give --out a new folder",
                folder.display()
            );
        }
        fs::create_dir_all(folder.join("histograms")).with_context(|| {
            format!("make {} (--out puts the results elsewhere)", folder.display())
        })?;
        let lock = lock(folder)?;
        let (journal, rows) = (Journal::create(folder)?, RunRows::default());
        rows.write(folder)?;
        Ok(Self { folder: folder.to_owned(), journal, rows, _lock: lock })
    }

    /// Reads the folder of a run that was interrupted, which is locked. Nothing changes before
    /// [`Self::reopen`].
    pub fn open(folder: &Path, lock: FolderLock) -> Result<Self> {
        let Some((journal, rows)) = Journal::open(folder)? else {
            bail!(
                "there is no trials.jsonl to resume it from: an earlier version of ringmark began \
                 this run, or the file was removed: `ringmark run --replay` starts over"
            );
        };
        // A trial is in the journal before it is in the other files.
        let (known, shown) = (rows.trials.len(), rows_of(&folder.join("trials.csv")));
        ensure!(
            shown <= known,
            "trials.csv has {shown} trials and trials.jsonl only {known}: the journal was cut, by \
             a full disk or by hand; put it back, or start over with `ringmark run --replay`"
        );
        Ok(Self { folder: folder.to_owned(), journal, rows, _lock: lock })
    }

    /// Drops what belongs to no finished trial. It may itself be interrupted at any moment.
    pub fn reopen(self) -> Result<Self> {
        let histograms = self.folder.join("histograms");
        fs::create_dir_all(&histograms)
            .with_context(|| format!("make {}", histograms.display()))?;
        remove(&histograms, |name| {
            let number = name.split_once('-').and_then(|(number, _)| number.parse::<usize>().ok());
            name.ends_with(".hlog") && number.is_some_and(|number| number > self.rows.trials.len())
        })?;
        // The former are of the trials so far; the run makes new ones at its end.
        remove(&self.folder, |name| {
            matches!(name, "comparisons.csv" | "capacity.csv") || name.ends_with(NEW_ENDING)
        })?;
        self.rows.write(&self.folder)?;
        self.journal.cut()?;
        Ok(self)
    }

    /// Writes the manifest, whole or not at all.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let text = serde_json::to_string_pretty(manifest)? + "\n";
        replace(&self.folder.join("manifest.json"), text.as_bytes())
    }

    /// Writes what came of a trial. It counts once it is in the journal; its histogram is there
    /// before, and its rows in the CSV files come after.
    pub fn add(&mut self, outcome: Outcome) -> Result<()> {
        let TrialRow { run_id, workload, arm, pass, .. } = &outcome.row;
        if let Some(log) = &outcome.histogram {
            let name = histogram_file(*run_id, workload, arm);
            let path = self.folder.join("histograms").join(name);
            fs::write(&path, log).with_context(|| format!("write {}", path.display()))?;
        }
        self.journal.add(&outcome)?;
        append_outcome(&self.folder, &outcome)?;
        let has_memory = *pass == Some(Pass::Memory);
        self.rows.add(outcome);
        if has_memory {
            write_all(&self.folder.join("memory.csv"), &self.rows.memory)?;
        }
        Ok(())
    }

    /// Returns the trials so far, the first of which is 1, without a gap.
    pub fn trials(&self) -> &[TrialRow] {
        &self.rows.trials
    }

    /// Returns the rows so far that are compared.
    pub fn measured(&self) -> Measured<'_> {
        let RunRows { trials, windows, memory, instructions, .. } = &self.rows;
        Measured { trials, windows, memory, instructions }
    }

    /// Gives up the folder, and returns the trials of the run.
    pub fn close(self) -> Vec<TrialRow> {
        self.rows.trials
    }

    /// Writes all CSV files, those that compare the arms too.
    pub fn finish(&self, matrix: &Matrix) -> Result<()> {
        self.rows.write(&self.folder)?;
        let Judged { comparisons, capacities, .. } = Judged::of(&self.rows, matrix);
        judged::write(&self.folder, &comparisons, &capacities)
    }

    /// Removes the journal, once the manifest says that the run is complete.
    pub fn remove_journal(&self) -> Result<()> {
        journal::remove(&self.folder)
    }
}

/// Returns how many rows a CSV file has, one that is cut included; the heading is none.
fn rows_of(path: &Path) -> usize {
    let reader = csv::ReaderBuilder::new().flexible(true).from_path(path);
    reader.map_or(0, |reader| reader.into_byte_records().count())
}
