//! The measured server.
fn main() {}
