//! Starts the server and the load, here or behind a command, and talks with them.

pub mod client;
mod command_prefix;
pub mod exec;
pub mod external_server;
pub mod idle_spinner;
pub mod placement;
pub mod process;
mod redact;
pub mod server;
pub mod sides;
pub mod supervisor;
#[cfg(test)]
mod tests;
