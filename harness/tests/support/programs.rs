//! The built programs, which lie beside each other as those of a user do.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program of this package.
pub const RINGMARK: &str = env!("CARGO_BIN_EXE_ringmark");

/// Returns the server beside `ringmark`. Builds it first if it is missing or older than its sources:
/// cargo builds no program of another package for `cargo test -p ringmark-harness`.
pub fn server() -> &'static Path {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Path::new(RINGMARK).with_file_name("ringmark-server");
        // Held until the end, because several test programs may run at once.
        let lock = Path::new(env!("CARGO_TARGET_TMPDIR")).join("server.lock");
        let _lock = File::create(lock).and_then(|file| file.lock().map(|()| file)).unwrap();
        if !is_up_to_date(&server).unwrap_or(false) {
            build(&server);
        }
        server
    })
}

/// Tells whether the program is newer than each file that cargo has listed beside it: its sources,
/// and what git writes when the revision changes.
fn is_up_to_date(program: &Path) -> io::Result<bool> {
    let built = fs::metadata(program)?.modified()?;
    let list = fs::read_to_string(program.with_extension("d"))?;
    for file in list.split_whitespace().skip(1) {
        if fs::metadata(file)?.modified()? > built {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Builds it into the same folder, by the cargo and with the profile of this test.
fn build(program: &Path) {
    let folder = program.parent().unwrap();
    let profile = match folder.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        name => name,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
    cargo.args(["build", "--workspace", "--bin", "ringmark-server", "--locked", "--offline"]);
    cargo.args(["--profile", profile, "--target-dir"]).arg(folder.parent().unwrap());
    let output = cargo.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && program.is_file(), "build the server: {cargo:?}: {said}");
}
