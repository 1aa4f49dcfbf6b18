//! The matrix of a run: what is asked for, and whether it can be run.

pub mod built_in;
mod check;
pub mod connection_limits;
mod duration;
pub mod external;
mod file;
mod quota;
#[cfg(test)]
mod tests;
mod types;

pub use file::NamedMatrix;
pub use types::*;
