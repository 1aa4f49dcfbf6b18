//! The places of a run's files: its folder, and the server's program.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

use crate::machine::{Machine, files};
use crate::programs::sides;
use crate::results;

/// Returns where a run goes if nobody says: a folder that is not there yet, also if another run
/// began within the same second.
pub fn new_folder(started: SystemTime, machine: &Machine, name: &str) -> PathBuf {
    let time = files::utc(started).replace([':', '-'], "");
    let name = results::bounded(&format!("{time}-{}-{name}", machine.description));
    free_folder(&Path::new("results").join(name))
}

/// Returns the folder, or the same with the first number behind its name that none has.
fn free_folder(folder: &Path) -> PathBuf {
    let numbered = |number: u32| PathBuf::from(format!("{}-{number}", folder.display()));
    let mut folders = std::iter::once(folder.to_owned()).chain((2..).map(numbered));
    folders.find(|folder| !folder.exists()).unwrap_or_else(|| folder.to_owned())
}

/// Returns the server's program: the one given, or the one beside this. If it lies elsewhere only
/// its name counts.
pub fn server_binary(given: Option<&Path>, is_elsewhere: bool) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => {
            std::env::current_exe().context("find this program")?.with_file_name("ringmark-server")
        }
    };
    ensure!(
        path.is_file() || is_elsewhere,
        "{}: there is no server; build it with `cargo build --release --workspace`, or give \
         --server",
        path.display()
    );
    // A name without a slash would be looked for in PATH.
    std::path::absolute(&path).with_context(|| path.display().to_string())
}

/// Returns the command that resumes an interrupted run.
pub fn resume_command(folder: &Path, server: Option<&Path>, sides: &sides::Options) -> String {
    let program = std::env::args_os().next().unwrap_or_else(|| "ringmark".into());
    let mut command = format!("{} run --resume {}", quoted(Path::new(&program)), quoted(folder));
    if let Some(server) = server {
        command += &format!(" --server {}", quoted(server));
    }
    for (option, value) in sides.arguments() {
        command += &format!(" {option} {}", quoted(Path::new(&value)));
    }
    command
}

/// Returns a path as a shell takes it for one word.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_of_one_second_have_a_folder_each() {
        let place = tempfile::tempdir().expect("a folder");
        let first = place.path().join("run");
        for name in ["run", "run-2", "run-3"] {
            let free = free_folder(&first);
            assert_eq!(free, place.path().join(name));
            std::fs::create_dir(free).expect("it is free");
        }
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for (path, word) in [
            ("results/20261124T021412Z-vm-2cpu-quick", "results/20261124T021412Z-vm-2cpu-quick"),
            ("my runs/a", "'my runs/a'"),
            ("it's", r"'it'\''s'"),
            ("$(x)", "'$(x)'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
