//! Tells a peer which version of its runtime it is built with, as the lock file has it: `RUNTIME`.

use std::path::Path;

fn main() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let runtime = env!("CARGO_PKG_NAME").trim_start_matches("peer-");
    let text = std::fs::read_to_string(&lock).expect("peers/Cargo.lock");
    let package = format!("name = \"{runtime}\"\nversion = \"");
    let (_, rest) = text.split_once(&package).expect("the runtime is in the lock file");
    let version = rest.split('"').next().expect("a version");
    println!("cargo::rustc-env=RUNTIME={runtime} {version}");
}
