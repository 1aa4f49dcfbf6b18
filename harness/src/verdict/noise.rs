//! How much noise of the machine a window bears.

/// More than this share of the machine's time taken by the hypervisor spoils a window.
pub const STEAL_PERCENT: f64 = 5.0;

/// More than this share of the window spent ready but without a CPU means that something else ran
/// there.
pub const RUN_DELAY_PERCENT: f64 = 5.0;
