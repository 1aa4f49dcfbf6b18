//! What made a run's figures: the programs and the machine, and in what they differ from those of another run.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::machine;
use crate::results::Manifest;
use crate::sides::Sides;

/// A program, without the folder that it lies in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// Its file's name.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// What `sha256sum` says of it; null where there is no such command.
    pub sha256: Option<String>,
}

impl Program {
    /// One that lies here.
    pub fn of_file(path: &Path) -> Result<Self> {
        Self::read(path, path)
    }

    /// This one.
    pub fn of_this() -> Result<Self> {
        let this = std::env::current_exe().context("find this program")?;
        // The file that runs, even if another has taken its name since.
        let running = format!("/proc/{}/exe", std::process::id());
        Self::read(Path::new(&running), &this)
    }

    fn read(path: &Path, name: &Path) -> Result<Self> {
        let open = || File::open(path).with_context(|| format!("read {}", name.display()));
        let bytes = open()?.metadata().with_context(|| format!("read {}", name.display()))?.len();
        let sum = machine::output(Command::new("sha256sum").stdin(open()?));
        Ok(Self {
            file: name.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes,
            sha256: sum.and_then(|line| line.split_whitespace().next().map(str::to_owned)),
        })
    }
}

/// The two programs of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Programs {
    /// This one, which is also the load.
    pub ringmark: Program,
    /// The measured one.
    pub server: Program,
}

impl Programs {
    /// Reads both; the server's program may lie elsewhere, on a side that has told of it.
    pub fn read(server: &Path, sides: Option<&Sides>) -> Result<Self> {
        let told = sides.and_then(|sides| sides.server.program.clone());
        Ok(Self { ringmark: Program::of_this()?, server: told.map_or_else(|| Program::of_file(server), Ok)? })
    }
}

/// What must be the same for blocks to be of one run, and what to call it.
const COMPARED: [(&str, &str); 24] = [
    ("/machine/description", "the machine"),
    ("/machine/cpu_model", "the CPU"),
    ("/machine/hypervisor", "the hypervisor"),
    ("/machine/cpus_allowed", "the allowed CPUs"),
    ("/placement/server_cpus", "the server's CPUs"),
    ("/placement/client_cpus", "the client's CPUs"),
    ("/machine/kernel_release", "the kernel"),
    ("/machine/kernel_version", "the kernel's build"),
    ("/machine/clocksource", "the clock source"),
    ("/machine/idle_driver", "the idle driver"),
    ("/machine/frequency_governor", "the frequency governor"),
    ("/machine/git_revision", "the source's revision"),
    ("/ringmark", "ringmark's version"),
    ("/build_profile", "the build profile"),
    ("/programs/ringmark/sha256", "ringmark's program"),
    ("/programs/server/sha256", "the server's program"),
    ("/programs/server/bytes", "the size of the server's program"),
    ("/sides/over_loopback", "whether traffic goes over loopback"),
    ("/sides/server/machine/description", "the server's machine"),
    ("/sides/server/machine/cpu_model", "the server's CPU"),
    ("/sides/server/machine/kernel_release", "the server's kernel"),
    ("/sides/load/machine/cpu_model", "the load's CPU"),
    ("/sides/load/machine/kernel_release", "the load's kernel"),
    ("/externals", "the external servers' versions"),
];

/// As many digits of a revision or a sum as tell it from others.
const DIGITS: usize = 12;

/// In what the origin of a run differs from what it would be now. What the earlier manifest does not tell is
/// no difference.
pub fn differences(then: &Manifest, now: &Manifest) -> Result<Vec<String>> {
    Ok(between(&serde_json::to_value(then)?, &serde_json::to_value(now)?))
}

/// The same of manifests as they stand in their files.
pub fn between(then: &Value, now: &Value) -> Vec<String> {
    let differences = COMPARED.iter().filter_map(|(path, name)| {
        let find = |manifest: &Value| manifest.pointer(path).filter(|value| !value.is_null()).cloned();
        let (was, is) = (find(then)?, find(now));
        let word = |value: &Value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let is_long = path.ends_with("sha256") || path.ends_with("git_revision");
            if is_long { text.chars().take(DIGITS).collect() } else { text }
        };
        let is_other = is.as_ref() != Some(&was);
        is_other.then(|| {
            let is = is.as_ref().map_or_else(|| "unknown".to_owned(), word);
            format!("{name} was {}, is {is}", word(&was))
        })
    });
    differences.collect()
}
