//! The folder of counts.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::results::{read_rows, write_all};
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
        write_all(&folder.join(ROWS), &self.rows)?;
        write_all(&folder.join(FUNCTIONS), &self.functions)
    }

    /// Reads those of a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        Ok(Self {
            rows: read_rows(&folder.join(ROWS))?,
            functions: read_rows(&folder.join(FUNCTIONS))?,
        })
    }
}
