//! Counts instructions: boots kernels in an emulator and runs servers and loads in them.

mod archive;
pub mod boot;
mod classes;
mod emulator;
mod file_system;
mod functions;
pub mod guest;
mod job;
mod kernel;
mod options;
mod plan;
mod plugin;
mod reading;
mod results;

pub use options::Options;

use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

use self::results::CountRows;
use crate::machine::Machine;
use crate::matrix::Matrix;
use crate::report::{functions::difference, instructions};
use crate::results::new_folder;
use crate::terminal;

/// Counts what a matrix asks for, or shows what was counted.
pub fn run(options: &Options) -> Result<()> {
    if let Some(folder) = &options.from {
        return show(options, &CountRows::read(folder)?);
    }
    let path = options.matrix.as_deref().context("no matrix is given")?;
    let matrix = Matrix::read(path)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let machine = Machine::read();
    let folder = match &options.out {
        Some(out) => out.clone(),
        None => new_folder(SystemTime::now(), &machine, &name),
    };
    ensure!(
        !folder.exists(),
        "{} exists; counts are never written over others: give --out a new folder",
        folder.display()
    );
    let counts = plan::CountPlan::of(options, path, matrix)?.count()?;
    counts.write(&folder)?;
    show(options, &counts)?;
    terminal::say(&format!("The counts are in {}\n", folder.display()))
}

fn show(options: &Options, counts: &CountRows) -> Result<()> {
    terminal::say(&instructions::tables(&counts.rows).markdown())?;
    if let Some([first, second]) = options.diff.as_deref() {
        let body = difference(&counts.functions, first, second)?;
        terminal::say(&format!("\n{}", body.markdown()))?;
    }
    Ok(())
}
