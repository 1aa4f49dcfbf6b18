//! The folder of counts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::rows::{FunctionRow, InstructionRow};

/// All that was counted.
#[derive(Default)]
pub struct CountRows {
    pub rows: Vec<InstructionRow>,
    pub functions: Vec<FunctionRow>,
}

const ROWS: &str = "instructions.csv";
const FUNCTIONS: &str = "functions.csv";

impl CountRows {
    /// Writes them into a folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        write(&folder.join(ROWS), &self.rows)?;
        write(&folder.join(FUNCTIONS), &self.functions)
    }

    /// Reads those of a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        Ok(Self { rows: read(folder.join(ROWS))?, functions: read(folder.join(FUNCTIONS))? })
    }
}

fn write<T: Serialize>(path: &Path, rows: &[T]) -> Result<()> {
    let mut writer = csv::Writer::from_path(path).with_context(|| path.display().to_string())?;
    for row in rows {
        writer.serialize(row).with_context(|| path.display().to_string())?;
    }
    writer.flush().with_context(|| path.display().to_string())
}

fn read<T: DeserializeOwned>(path: PathBuf) -> Result<Vec<T>> {
    let reader = csv::Reader::from_path(&path).with_context(|| path.display().to_string())?;
    let rows: csv::Result<Vec<T>> = reader.into_deserialize().collect();
    rows.with_context(|| path.display().to_string())
}
