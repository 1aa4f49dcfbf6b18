//! The built server.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::SystemTime;

/// The server, in the folder of this test's build. It is built first if it is missing or older than
/// its sources: cargo builds no program of another package for `cargo test -p ringmark`.
pub static SERVER: LazyLock<PathBuf> = LazyLock::new(|| {
    let test = std::env::current_exe().expect("this test has a path");
    let folder = test.ancestors().nth(2).expect("tests are built into deps");
    let server = folder.join("ringmark-server");
    // Held until the end, because several test programs may run at once.
    let _lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("server.lock"))
        .and_then(|file| file.lock().map(|()| file));
    if !is_up_to_date(&server) {
        build(&server);
    }
    server
});

/// The sources of the server, from the root of the repository.
const SOURCES: [&str; 5] =
    ["src", "harness/src/bin", "harness/Cargo.toml", "Cargo.toml", "Cargo.lock"];

/// Tells whether the program is newer than each of its sources. Sources that are not there, as in a
/// guest, cannot be newer.
fn is_up_to_date(program: &Path) -> bool {
    let Some(built) = modified(program) else { return false };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    SOURCES.iter().all(|source| newest(&root.join(source)) < Some(built))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// Returns when the newest file of a tree was written.
fn newest(path: &Path) -> Option<SystemTime> {
    let Ok(entries) = fs::read_dir(path) else { return modified(path) };
    entries.filter_map(|entry| newest(&entry.ok()?.path())).max()
}

/// Builds it into the same folder, by the cargo and with the profile of this test.
fn build(program: &Path) {
    let folder = program.parent().expect("it is in a folder");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "build",
        "--workspace",
        "--bin",
        "ringmark-server",
        "--locked",
        "--offline",
    ]);
    cargo.args(["--profile", profile]);
    cargo.arg("--target-dir").arg(folder.parent().unwrap_or(folder));
    let output = cargo.output().expect("cargo starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && program.is_file(), "build the server: {cargo:?}: {said}");
}
