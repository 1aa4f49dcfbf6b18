//! The matrix of a run: what is asked for, and whether it can be asked.

pub mod connection_limits;
pub mod external;
mod types;

pub use types::*;
