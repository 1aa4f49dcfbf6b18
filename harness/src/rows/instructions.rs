//! The rows of `instructions.csv` and `functions.csv`: instructions as an emulator counts them.

use serde::{Deserialize, Serialize};

use super::words::Status;

/// Instructions of one side of one server under one workload, within one window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstructionRow {
    /// The release of the guest's kernel.
    pub kernel: String,
    /// The emulator, as it names itself.
    pub emulator: String,
    /// The model of its CPU, as the guest sees it.
    pub cpu_model: String,
    /// The boot, from 1 on.
    pub boot: u32,
    /// The name of the workload.
    pub workload: String,
    /// The name of the arm.
    pub arm: String,
    /// The arm that the others are compared with.
    pub baseline: String,
    /// The backend of the arm.
    pub backend: String,
    /// The seed of the load.
    pub seed: u64,
    /// The window, from 1 on; the second of a closed loop has twice the echoes.
    pub window: Option<u32>,
    /// Echoes of the window.
    pub echoes: Option<u64>,
    /// Events that one wait of the server reported, on average.
    pub events_per_wait: Option<f64>,
    /// `server`, `load`, `other` (the idle task, the harness, threads of the kernel's own).
    pub side: String,
    /// `user` or `kernel`; of a server's last window also the classes of the kernel's functions.
    pub class: String,
    /// Instructions.
    pub instructions: Option<u64>,
    /// The same for each echo.
    pub instructions_per_echo: Option<f64>,
    /// `exact`: each instruction was counted, none was sampled.
    pub bounds: String,
    /// How the count ended.
    pub status: Status,
    /// Why, if it is not `ok`.
    pub reason: String,
}

/// Instructions of a server for each echo, in one function. Functions with less than one
/// instruction an echo are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionRow {
    /// The release of the guest's kernel.
    pub kernel: String,
    /// The name of the workload.
    pub workload: String,
    /// The name of the arm.
    pub arm: String,
    /// The class of the function.
    pub class: String,
    /// The function; a file's code without names is `[FILE]`.
    pub function: String,
    /// Its instructions for each echo, without those of the functions that it calls.
    pub instructions_per_echo: f64,
}
