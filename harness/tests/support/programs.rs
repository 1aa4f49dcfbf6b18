//! The built programs, which lie beside each other as those of a user do.

use std::path::Path;

/// `ringmark`.
pub const RINGMARK: &str = env!("CARGO_BIN_EXE_ringmark");

/// Returns the server.
pub fn server() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ringmark-server"))
}
