//! Counts instructions: boots kernels in an emulator and runs servers and loads in them.

mod archive;
pub mod boot;
mod classes;
mod counter;
mod emulator;
mod file_system;
mod functions;
pub mod guest;
mod job;
mod kernel;
mod plugin;
mod reading;

pub use counter::{CountOutcome, InstructionCounter, refusal};
pub use emulator::EMULATOR;
pub use job::Count;
