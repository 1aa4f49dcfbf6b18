//! The built programs, which lie beside each other as those of a user do.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The program of this package.
pub const RINGMARK: &str = env!("CARGO_BIN_EXE_ringmark");

/// Returns the server beside `ringmark`. Builds it first if it is missing or older than its
/// sources: cargo builds no program of another package for `cargo test -p ringmark-harness`.
pub fn server() -> &'static Path {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Path::new(RINGMARK).with_file_name("ringmark-server");
        // Held until the end, because several test programs may run at once.
        let lock = Path::new(env!("CARGO_TARGET_TMPDIR")).join("server.lock");
        let _lock = File::create(lock).and_then(|file| file.lock().map(|()| file)).unwrap();
        if !is_up_to_date(&server) {
            build(&server);
        }
        server
    })
}

/// Tells whether the program is newer than each of its sources, and of the revision of this test.
fn is_up_to_date(program: &Path) -> bool {
    let Some(built) = modified(program) else { return false };
    let sources = ["src", "Cargo.toml", "Cargo.lock", "build.rs"];
    let is_newer = sources.iter().all(|source| newest(&workspace().join(source)) < Some(built));
    let version = Command::new(program).arg("--version").output().unwrap();
    let revision = option_env!("RINGMARK_REVISION").unwrap_or("unknown");
    is_newer && String::from_utf8_lossy(&version.stdout).contains(revision)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// Returns when the newest file of a tree was written.
fn newest(path: &Path) -> Option<SystemTime> {
    let Ok(entries) = fs::read_dir(path) else { return modified(path) };
    entries.map(|entry| newest(&entry.unwrap().path())).max().flatten()
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Builds it into the same folder, by the cargo and with the profile of this test.
fn build(program: &Path) {
    let folder = program.parent().unwrap();
    let profile = match folder.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        name => name,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace()).args([
        "build",
        "--workspace",
        "--bin",
        "ringmark-server",
        "--locked",
        "--offline",
    ]);
    cargo.args(["--profile", profile, "--target-dir"]).arg(folder.parent().unwrap());
    let output = cargo.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && program.is_file(), "build the server: {cargo:?}: {said}");
}
