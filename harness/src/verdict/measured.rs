//! The rows of a run that are compared.

use crate::rows::{InstructionRow, MemoryRow, TrialRow, WindowRow};

/// The rows of a run that are compared.
#[derive(Clone, Copy, Default)]
pub struct Measured<'a> {
    /// `trials.csv`.
    pub trials: &'a [TrialRow],
    /// `windows.csv`.
    pub windows: &'a [WindowRow],
    /// `memory.csv`.
    pub memory: &'a [MemoryRow],
    /// `instructions.csv`.
    pub instructions: &'a [InstructionRow],
}

impl<'a> Measured<'a> {
    #[cfg(test)]
    /// Returns trials without more.
    pub fn of(trials: &'a [TrialRow]) -> Self {
        Self { trials, ..Self::default() }
    }

    /// Returns the first so many trials, with their windows.
    pub fn first(self, count: usize) -> Self {
        let windows = self.windows.partition_point(|window| window.run_id as usize <= count);
        Self { trials: &self.trials[..count], windows: &self.windows[..windows], ..self }
    }
}
