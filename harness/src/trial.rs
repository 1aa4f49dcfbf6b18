//! One trial: a fresh server, a fresh client, a fresh network namespace, and one pass over them.

mod clock;
mod columns;
mod context;
mod counted_load;
mod evidence;
mod fit;
mod gates;
mod hardware;
mod in_force;
mod instructions;
mod interleaved;
mod latency;
mod memory;
mod ramp;
mod rest;
mod run;
mod scale;
mod set;
mod site;
mod syscalls;
mod task;
mod window;

pub use self::context::TrialContext;
pub use self::set::run_set;
pub use self::task::{Task, Trial};
