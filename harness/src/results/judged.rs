//! All that follows from the rows of a run, and the CSV files that hold it.

use std::path::Path;

use anyhow::Result;

use super::run_rows::{RunRows, write_all};
use crate::matrix::Matrix;
use crate::rows::{CapacityRow, ComparisonRow, MemoryRow};
use crate::verdict::measured::Measured;
use crate::verdict::slopes::{self, Flaw};
use crate::verdict::{comparisons, sweep};

/// All that follows from the rows of a run.
pub struct Judged {
    /// The rows of memory, of which the flawed walks are rejected.
    pub memory: Vec<MemoryRow>,
    /// Those flaws.
    pub flaws: Vec<Flaw>,
    /// `comparisons.csv`.
    pub comparisons: Vec<ComparisonRow>,
    /// `capacity.csv`.
    pub capacities: Vec<CapacityRow>,
}

impl Judged {
    /// Judges the rows.
    pub fn of(rows: &RunRows, matrix: &Matrix) -> Self {
        let RunRows { trials, windows, memory_points, instructions, .. } = rows;
        let mut memory = rows.memory.clone();
        let flaws = slopes::judge(&mut memory, memory_points, trials);
        let measured = Measured { trials, windows, memory: &memory, instructions };
        let comparisons = comparisons::compare(measured, matrix);
        Self { comparisons, capacities: sweep::capacities(trials, matrix), memory, flaws }
    }
}

/// Writes the files.
pub fn write(
    folder: &Path,
    comparisons: &[ComparisonRow],
    capacities: &[CapacityRow],
) -> Result<()> {
    write_all(&folder.join("comparisons.csv"), comparisons)?;
    if capacities.is_empty() {
        return Ok(());
    }
    write_all(&folder.join("capacity.csv"), capacities)
}
