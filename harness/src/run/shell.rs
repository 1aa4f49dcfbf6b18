//! The command that resumes a run, as a shell takes it.

use std::path::Path;

use crate::programs::sides;

/// Returns the command that resumes an interrupted run.
pub fn resume_command(
    folder: &Path,
    server: Option<&Path>,
    emulator: Option<&Path>,
    sides: &sides::Options,
) -> String {
    let program = std::env::args_os().next().unwrap_or_else(|| "ringmark".into());
    let mut command = format!("{} run --resume {}", quoted(Path::new(&program)), quoted(folder));
    for (option, file) in [("server", server), ("emulator", emulator)] {
        if let Some(file) = file {
            command += &format!(" --{option} {}", quoted(file));
        }
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
