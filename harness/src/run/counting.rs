//! How a run counts instructions, by its command line.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::count::{EMULATOR, InstructionCounter};
use crate::matrix::Matrix;

/// The options of a run that counts instructions.
#[derive(clap::Args, Debug, Default)]
pub struct CountingOptions {
    /// Count instructions on this kernel, an image (bzImage); again for more [default: the
    /// matrix's, or /boot/vmlinuz-RELEASE]
    #[arg(long = "kernel", value_name = "FILE")]
    pub(super) kernels: Vec<PathBuf>,
    /// The emulator, QEMU for x86-64 with plugins [default: qemu-system-x86_64]
    #[arg(long, value_name = "FILE")]
    pub(super) emulator: Option<PathBuf>,
    /// Boot each kernel so often, to see that the counts are the same [default: the matrix's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) boots: Option<u32>,
}

impl CountingOptions {
    /// Puts the kernels and the boots into a matrix.
    ///
    /// # Errors
    /// When the matrix counts no instructions.
    pub(super) fn change(&self, matrix: &mut Matrix) -> Result<()> {
        let Some(instructions) = &mut matrix.instructions else {
            let is_plain =
                self.kernels.is_empty() && self.boots.is_none() && self.emulator.is_none();
            ensure!(
                is_plain,
                "--kernel, --boots and --emulator are for a matrix with [instructions]"
            );
            return Ok(());
        };
        if !self.kernels.is_empty() {
            instructions.kernels.clone_from(&self.kernels);
        }
        instructions.boots = self.boots.unwrap_or(instructions.boots);
        Ok(())
    }
    /// Returns what counts instructions, or why nothing does. It is an error if it `must` be there,
    /// or was asked for by name.
    pub(super) fn counter(
        &self,
        matrix: &Matrix,
        server: &Path,
        is_elsewhere: bool,
        must: bool,
    ) -> Result<Result<InstructionCounter, String>> {
        let Some(instructions) = &matrix.instructions else {
            return Ok(Err("the matrix has no [instructions]".to_owned()));
        };
        if is_elsewhere {
            return Ok(Err("a side has a command, and counts are made in a guest here".to_owned()));
        }
        let emulator = self.emulator.as_deref().unwrap_or(Path::new(EMULATOR));
        let found = InstructionCounter::find(emulator, &instructions.kernels, server);
        let is_named = self.emulator.is_some() || !instructions.kernels.is_empty();
        match found {
            Err(error) if must || is_named => Err(error),
            found => Ok(found.map_err(|error| format!("{error:#}"))),
        }
    }
}
