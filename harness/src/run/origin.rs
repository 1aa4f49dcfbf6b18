//! What made a run's figures: the programs and the machine, and in what they differ from those of another run.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

/// What must be the same of each machine for blocks to be of one run, and what to call it.
const OF_MACHINE: [(&str, &str); 9] = [
    ("description", "machine"),
    ("cpu_model", "CPU"),
    ("hypervisor", "hypervisor"),
    ("cpus_allowed", "allowed CPUs"),
    ("kernel_release", "kernel"),
    ("kernel_version", "kernel's build"),
    ("clocksource", "clock source"),
    ("idle_driver", "idle driver"),
    ("frequency_governor", "frequency governor"),
];

/// The same of all else.
const COMPARED: [(&str, &str); 9] = [
    ("/placement/server_cpus", "the server's CPUs"),
    ("/placement/client_cpus", "the client's CPUs"),
    ("/machine/git_revision", "the source's revision"),
    ("/ringmark", "ringmark's version"),
    ("/build_profile", "the build profile"),
    ("/programs/ringmark/sha256", "ringmark's program"),
    ("/programs/server/sha256", "the server's program"),
    ("/programs/server/bytes", "the size of the server's program"),
    ("/externals", "the external servers' versions"),
];

/// The same of the sides, if either run has a command for one.
const OF_SIDES: [(&str, &str); 3] = [
    ("/sides/over_loopback", "whether traffic goes over loopback"),
    ("/sides/load/program/sha256", "the load's program"),
    ("/sides/load/program/bytes", "the size of the load's program"),
];

/// Every path that is compared, and what to call what stands there.
fn compared(with_sides: bool) -> Vec<(String, String)> {
    let named = |(path, name): &(&str, &str)| ((*path).to_owned(), (*name).to_owned());
    let of_machine = |at: &str, whose: &str| {
        OF_MACHINE.map(|(field, name)| (format!("{at}/machine/{field}"), format!("{whose} {name}")))
    };
    let mut all = Vec::from(of_machine("", "the"));
    all.extend(COMPARED.iter().map(named));
    if with_sides {
        all.extend(OF_SIDES.iter().map(named));
        all.extend(of_machine("/sides/server", "the server's"));
        all.extend(of_machine("/sides/load", "the load's"));
    }
    all
}

fn has_sides(manifest: &Value) -> bool {
    manifest.get("sides").is_some_and(Value::is_object)
}

/// The same manifest with both sides on its machine, where a run without a command for either has them.
fn with_sides(manifest: &Value) -> Value {
    let mut whole = manifest.clone();
    if !has_sides(manifest) {
        let side =
            |program: &str| json!({"machine": manifest["machine"], "program": manifest["programs"][program]});
        whole["sides"] = json!({"over_loopback": true, "server": side("server"), "load": side("ringmark")});
    }
    whole
}

/// As many digits of a revision or a sum as tell it from others.
const DIGITS: usize = 12;

/// In what the origin of a run differs from what it would be now. What the earlier manifest does not tell is
/// no difference.
pub fn differences(then: &Manifest, now: &Manifest) -> Result<Vec<String>> {
    Ok(between(&serde_json::to_value(then)?, &serde_json::to_value(now)?))
}

/// The same of manifests as they stand in their files.
pub fn between(then: &Value, now: &Value) -> Vec<String> {
    let has_sides = has_sides(then) || has_sides(now);
    let (then, now) = (with_sides(then), with_sides(now));
    let differences = compared(has_sides).into_iter().filter_map(|(path, name)| {
        let find = |manifest: &Value| manifest.pointer(&path).filter(|value| !value.is_null()).cloned();
        let (was, is) = (find(&then)?, find(&now));
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn machine() -> Value {
        let fields = OF_MACHINE.map(|(field, _)| (field.to_owned(), json!(format!("one {field}"))));
        Value::Object(fields.into_iter().collect())
    }

    /// A run that has a command for a side.
    fn commanded() -> Value {
        let side = |sum: &str| json!({"machine": machine(), "program": {"sha256": sum, "bytes": 3}});
        json!({
            "machine": machine(),
            "programs": {"ringmark": {"sha256": "a", "bytes": 3}, "server": {"sha256": "b", "bytes": 3}},
            "sides": {"over_loopback": true, "server": side("b"), "load": side("a")},
        })
    }

    #[test]
    fn whatever_is_another_on_a_side_is_a_difference() {
        assert_eq!(between(&commanded(), &commanded()), [""; 0]);
        let fields = OF_MACHINE.map(|(field, name)| (format!("machine/{field}"), name));
        let of_load = [
            ("load/program/sha256", "the load's program was a, is x"),
            ("load/program/bytes", "the size of the load's program was 3, is x"),
        ];
        let of_machines = ["server", "load"].into_iter().flat_map(|side| {
            fields.iter().map(move |(path, name)| {
                let field = path.trim_start_matches("machine/");
                (format!("{side}/{path}"), format!("the {side}'s {name} was one {field}, is x"))
            })
        });
        for (path, difference) in
            of_load.map(|(path, text)| (path.to_owned(), text.to_owned())).into_iter().chain(of_machines)
        {
            let mut now = commanded();
            *now["sides"].pointer_mut(&format!("/{path}")).unwrap() = json!("x");
            assert_eq!(between(&commanded(), &now), [difference]);
        }
    }

    #[test]
    fn a_run_without_a_command_has_both_sides_on_its_machine() {
        let mut plain = commanded();
        plain["sides"] = Value::Null;
        assert_eq!(between(&plain, &commanded()), [""; 0]);
        assert_eq!(between(&commanded(), &plain), [""; 0]);
        let mut apart = commanded();
        apart["sides"]["over_loopback"] = false.into();
        apart["sides"]["server"]["machine"]["cpu_model"] = "another".into();
        let found = between(&plain, &apart);
        assert_eq!(
            found,
            [
                "whether traffic goes over loopback was true, is false",
                "the server's CPU was one cpu_model, is another"
            ]
        );
        // Of two such runs each difference is said once.
        let mut other = plain.clone();
        other["machine"]["kernel_release"] = "6.2".into();
        assert_eq!(between(&plain, &other), ["the kernel was one kernel_release, is 6.2"]);
    }
}
