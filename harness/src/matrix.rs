//! The matrix of a run: what is asked for, and whether it can be asked.

pub mod external;
pub mod room;
mod types;

pub use types::*;
