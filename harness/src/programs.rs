//! Starts the server and the load, here or behind a command, and talks with them.

pub mod child;
pub mod client;
mod command_prefix;
pub mod describe;
pub mod exec;
pub mod external_server;
pub mod idle_spinner;
pub mod marks;
pub mod placement;
pub mod process;
pub mod redact;
pub mod server;
pub mod server_plan;
pub mod sides;
pub mod supervisor;
