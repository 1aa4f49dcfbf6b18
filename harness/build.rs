//! Tells a program of ours which source it is built from: RINGMARK_REVISION and RINGMARK_DIRTY, or
//! in RINGMARK_REVISION_REASON why that is unknown; the compiler in RINGMARK_RUSTC; and in
//! RINGMARK_VERSION what `--version` says.

use std::path::Path;
use std::process::Command;

/// The sources of both programs.
const SOURCES: &[&str] =
    &["src", "build.rs", "Cargo.toml", "../src", "../Cargo.toml", "../Cargo.lock"];

fn main() {
    for source in SOURCES.iter().filter(|source| Path::new(source).exists()) {
        println!("cargo:rerun-if-changed={source}");
    }
    set(
        "RUSTC",
        &output(Command::new(std::env::var_os("RUSTC").unwrap_or_default()).arg("--version")),
    );
    // A copy that lies in some other repository has no revision.
    let is_tracked = git(&["ls-files", "--error-unmatch", "Cargo.toml"]);
    let revision =
        is_tracked.and_then(|_| git(&["rev-parse", "HEAD"])).or_else(revision_of_package);
    let status = [&["status", "--porcelain", "--untracked-files=no", "--"], SOURCES].concat();
    let is_dirty =
        revision.as_ref().and_then(|_| git(&status)).map(|status| (!status.is_empty()).to_string());
    let reason =
        revision.is_none().then(|| "built outside a git checkout, or without git".to_owned());
    let dirty = if is_dirty.as_deref() == Some("true") { ", with local changes" } else { "" };
    let (version, known) =
        (std::env::var("CARGO_PKG_VERSION"), revision.as_deref().unwrap_or("unknown"));
    set("VERSION", &version.ok().map(|version| format!("{version}, revision {known}{dirty}")));
    set("REVISION", &revision);
    set("DIRTY", &is_dirty);
    set("REVISION_REASON", &reason);
    // A move of HEAD writes one of these. A file that is missing would have this run at every
    // build.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", "logs/HEAD", "packed-refs", branch.as_str()] {
        let path = git(&["rev-parse", "--git-path", name]);
        if let Some(path) = path.filter(|path| Path::new(path).is_file()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
}

/// Returns the revision that a published package was made of, which cargo puts beside its sources.
fn revision_of_package() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\": \"")?;
    Some(rest.split_once('"')?.0.to_owned())
}

fn set(name: &str, value: &Option<String>) {
    if let Some(value) = value {
        println!("cargo:rustc-env=RINGMARK_{name}={value}");
    }
}

/// Returns what git says here. The files may belong to another user: root may build what somebody
/// else has checked out.
fn git(arguments: &[&str]) -> Option<String> {
    output(
        Command::new("git")
            .args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false"])
            .args(arguments),
    )
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim_end().to_owned())
}
