//! The plugin that counts, compiled for the emulator at hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const SOURCE: &str = include_str!("plugin.c");

/// The versions of the plugin interface that the plugin is written for: QEMU 6.0 to 10.1.
pub const APIS: std::ops::RangeInclusive<u32> = 1..=5;

/// Compiles it.
pub fn compile(folder: &Path, api: u32) -> Result<PathBuf> {
    let (source, plugin) = (folder.join("plugin.c"), folder.join(format!("plugin-{api}.so")));
    fs::write(&source, SOURCE).with_context(|| format!("write {}", source.display()))?;
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]);
    command.args(["-fvisibility=hidden", &format!("-DAPI={api}"), "-o"]).arg(&plugin).arg(&source);
    let output = command.output().context(
        "cc: there is no C compiler for the emulator's plugin; install one (Debian: `apt-get \
         install gcc`)",
    )?;
    ensure!(
        output.status.success(),
        "the emulator's plugin does not compile: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(plugin)
}

/// Reads the version of the interface that an emulator wants, from its refusal of another one.
pub fn wanted_api(errors: &str) -> Option<u32> {
    let (_, rest) = errors
        .split_once("supports only a minimum version of ")
        .or_else(|| errors.split_once("supports only up to version "))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_says_which_interface_it_wants() {
        let old = "Could not load plugin p.so: plugin requires API version 1, but this QEMU \
                   supports only a minimum version of 2";
        let new = "Could not load plugin p.so: plugin requires API version 5, but this QEMU \
                   supports only up to version 4";
        assert_eq!((wanted_api(old), wanted_api(new), wanted_api("")), (Some(2), Some(4), None));
    }

    #[test]
    fn it_compiles_for_every_interface() {
        let folder = tempfile::tempdir().expect("a folder");
        for api in APIS {
            compile(folder.path(), api).expect("it compiles");
        }
    }
}
