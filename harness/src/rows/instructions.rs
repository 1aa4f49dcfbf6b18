//! The rows of `instructions.csv` and `functions.csv`: instructions as an emulator counts them.

use serde::{Deserialize, Serialize};

/// Instructions of one side of one server under one workload, within one window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstructionRow {
    /// The trial.
    pub run_id: u32,
    /// Its workload.
    pub workload: String,
    /// Its arm.
    pub arm: String,
    /// Its backend.
    pub backend: String,
    /// The release of the guest's kernel.
    pub kernel: String,
    /// The emulator, as it names itself.
    pub emulator: String,
    /// The version of its plugin interface, for which the plugin was compiled.
    pub plugin: u32,
    /// The model of its CPU, as the guest sees it.
    pub cpu_model: String,
    /// The boot of this kernel, from 1 on.
    pub boot: u32,
    /// The seed of the load.
    pub seed: u64,
    /// The window, from 1 on; the second of a closed loop has twice the echoes.
    pub window: u32,
    /// Echoes of the window.
    pub echoes: u64,
    /// Events that one wait of the server reported, on average.
    pub events_per_wait: Option<f64>,
    /// `server`, `load`, `other` (the idle task, the harness, threads of the kernel's own).
    pub side: String,
    /// `user` or `kernel`; of a server's last window also the classes of the kernel's functions.
    pub class: String,
    /// Instructions.
    pub instructions: u64,
    /// The same for each echo.
    pub instructions_per_echo: f64,
    /// `exact`: each instruction was counted, none was sampled.
    pub bounds: String,
}

/// Instructions of a server for each echo, in one function. Functions with less than one
/// instruction an echo are left out, and so is all but the first seed of the first boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionRow {
    /// The trial.
    pub run_id: u32,
    /// Its workload.
    pub workload: String,
    /// Its arm.
    pub arm: String,
    /// The release of the guest's kernel.
    pub kernel: String,
    /// The class of the function.
    pub class: String,
    /// The function; a file's code without names is `[FILE]`.
    pub function: String,
    /// Its instructions for each echo, without those of the functions that it calls.
    pub instructions_per_echo: f64,
}
