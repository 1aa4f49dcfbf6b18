//! The rows of a run's CSV files. Each column is documented in its row's type.
//!
//! An empty cell means that the figure was not measured in that pass, or that the sample cannot
//! carry it.

mod comparisons;
mod hardware;
mod instructions;
mod memory;
mod scale;
mod syscalls;
mod trials;
mod verdict;
mod windows;
mod words;

use serde::{Deserialize, Serialize};

pub use self::comparisons::*;
pub use self::hardware::*;
pub use self::instructions::*;
pub use self::memory::*;
pub use self::scale::*;
pub use self::syscalls::*;
pub use self::trials::*;
pub use self::verdict::*;
pub use self::windows::*;
pub use self::words::*;

/// All that came of a trial.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Its row.
    pub row: TrialRow,
    /// The latencies of its messages, as an HdrHistogram log, which has a file of its own.
    #[serde(skip)]
    pub histogram: Option<String>,
    /// Its calls.
    pub syscalls: Vec<SyscallRow>,
    /// The events within io_uring.
    pub events: Vec<EventRow>,
    /// The counts of the CPUs.
    #[serde(default)]
    pub hardware: Vec<HardwareRow>,
    /// Its instructions.
    #[serde(default)]
    pub instructions: Vec<InstructionRow>,
    /// The functions that they are in.
    #[serde(default)]
    pub functions: Vec<FunctionRow>,
    /// Its turns, if it was interleaved with others.
    #[serde(default)]
    pub windows: Vec<WindowRow>,
    /// Its memory readings.
    pub memory_points: Vec<MemoryPointRow>,
    /// Slopes through them, not yet compared with `null`.
    pub memory: Vec<MemoryRow>,
    /// The steps of a walk.
    pub scale: Vec<ScaleRow>,
}
