//! The programs and the machine of a run, and in what they differ from those of another.

use std::path::Path;

use anyhow::Result;
use itertools::Itertools;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::sides::Sides;
use crate::machine::program_file::ProgramFile;

/// The two programs of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Programs {
    /// This one, which is also the load.
    pub ringmark: ProgramFile,
    /// The measured one.
    pub server: ProgramFile,
}

impl Programs {
    /// Reads both; a side where the server's program lies has described it.
    pub fn read(server: &Path, sides: Option<&Sides>) -> Result<Self> {
        let described = sides.and_then(|sides| sides.server.program.clone());
        Ok(Self {
            ringmark: ProgramFile::of_this()?,
            server: described.map_or_else(|| ProgramFile::of_server(server), Ok)?,
        })
    }

    /// Returns what to say if they were built from different sources.
    pub fn are_of_two_revisions(&self) -> Option<String> {
        let [ringmark, server] = [&self.ringmark, &self.server].map(|program| {
            let revision = program.revision.as_deref().unwrap_or("unknown");
            format!("{} is of revision {revision}", program.file)
        });
        (self.ringmark.revision != self.server.revision).then(|| {
            format!(
                "{ringmark}, {server}: build both from one checkout (`cargo build --release \
                 --workspace`)"
            )
        })
    }
}

/// The facts of each machine that must be the same for blocks to be of one run, and their names.
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

/// The facts of the run that must be the same too.
const OF_RUN: [(&str, &str); 9] = [
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

/// The facts that must be the same too if either run has a command for a side.
const OF_SIDES: [(&str, &str); 5] = [
    ("/sides/loads", "the number of loads"),
    ("/placement/loads", "the CPUs of the loads"),
    ("/sides/over_loopback", "whether traffic goes over loopback"),
    ("/sides/load/program/sha256", "the load's program"),
    ("/sides/load/program/bytes", "the size of the load's program"),
];

/// Returns in what the origins of two runs differ, by their manifests. It is no difference if the
/// earlier manifest does not tell.
pub fn between(then: &Value, now: &Value) -> Vec<String> {
    let have_sides = [then, now].iter().any(|manifest| manifest["sides"].is_object());
    let (then, now) = (with_sides(then), with_sides(now));
    let mut differences = Vec::new();
    let mut compare = |path: &str, name: &str| {
        let [was, is] = [&then, &now].map(|manifest| manifest.pointer(path));
        differences.extend(difference(name, was, is, path.ends_with("sha256")));
    };
    let machine = OF_MACHINE.map(|(field, name)| (format!("/machine/{field}"), name));
    machine.iter().for_each(|(path, name)| compare(path, &format!("the {name}")));
    OF_RUN.iter().for_each(|(path, name)| compare(path, name));
    if have_sides {
        OF_SIDES.iter().for_each(|(path, name)| compare(path, name));
        for other in 0..then["sides"]["loads"].as_u64().unwrap_or(1) - 1 {
            let (side, number) = (format!("/sides/other_loads/{other}"), other + 2);
            for (path, name) in [("program/sha256", "program"), ("program/bytes", "program's size")]
            {
                compare(&format!("{side}/{path}"), &format!("the {name} of load {number}"));
            }
            for (path, name) in &machine {
                compare(&format!("{side}{path}"), &format!("the {name} of load {number}"));
            }
        }
        for (side, (path, name)) in ["server", "load"].iter().cartesian_product(&machine) {
            compare(&format!("/sides/{side}{path}"), &format!("the {side}'s {name}"));
        }
    }
    differences.extend(of_files(&then["external_files"], &now["external_files"]));
    let [then, now] = [&then, &now].map(|manifest| json!({"[instructions]": manifest["kernels"]}));
    differences.extend(of_files(&then, &now));
    differences
}

/// Returns the manifest with both sides on its machine, where a run without a command has them.
fn with_sides(manifest: &Value) -> Value {
    let mut whole = manifest.clone();
    if !manifest["sides"].is_object() {
        let [server, load] = ["server", "ringmark"].map(|program| {
            json!({"machine": manifest["machine"], "program": manifest["programs"][program]})
        });
        whole["sides"] = json!({"over_loopback": true, "server": server, "load": load});
    }
    let others = whole["sides"]["other_loads"].as_array().map_or(0, Vec::len);
    whole["sides"]["loads"] = (others + 1).into();
    whole
}

fn difference(name: &str, was: Option<&Value>, is: Option<&Value>, is_sum: bool) -> Option<String> {
    /// As many digits of a revision or a sum as tell it from others.
    const DIGITS: usize = 12;
    let word = |value: &Value| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let is_long = is_sum || name == "the source's revision";
        if is_long { text.chars().take(DIGITS).collect() } else { text }
    };
    let was = was.filter(|was| !was.is_null())?;
    let is = is.filter(|is| !is.is_null());
    (is != Some(was)).then(|| {
        let is = is.map_or_else(|| "unknown".to_owned(), word);
        format!("{name} was {}, is {is}", word(was))
    })
}

/// Returns in what the files differ that the commands of external servers name.
fn of_files(then: &Value, now: &Value) -> Vec<String> {
    let mut differences = Vec::new();
    for (server, was) in then.as_object().into_iter().flatten() {
        let [was, is] =
            [was, &now[server]].map(|files| files.as_array().map_or(&[][..], Vec::as_slice));
        let [names_then, names_now] =
            [was, is].map(|files| files.iter().filter_map(|file| file["file"].as_str()).join(", "));
        if names_then != names_now {
            differences.push(format!("the files of {server} were {names_then}, are {names_now}"));
            continue;
        }
        for (was, is) in was.iter().zip(is) {
            let name = format!("{} of {server}", was["file"].as_str().unwrap_or("unknown"));
            differences.extend(difference(&name, was.get("sha256"), is.get("sha256"), true));
        }
    }
    differences
}

/// Which run is repeated.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replayed {
    /// The name of its folder.
    pub folder: String,
    /// When it began, UTC.
    pub begun_utc: Value,
    /// The revision of its source tree.
    pub git_revision: Value,
    /// The facts that differ from then.
    pub differences: Vec<String>,
}

/// When and on what a run was resumed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resumption {
    /// When, UTC.
    pub at_utc: String,
    /// How many trials had their rows.
    pub after_trials: usize,
    /// `uname -r`.
    pub kernel_release: Value,
    /// Another one than before: the machine was started again meanwhile.
    pub boot_id: Value,
    /// The revision of the source tree.
    pub git_revision: Value,
    /// The facts that differ from the beginning, although they should not.
    pub differences: Vec<String>,
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
        let program = |sum: &str| json!({"sha256": sum, "bytes": 3});
        let side = |sum: &str| json!({"machine": machine(), "program": program(sum)});
        json!({
            "machine": machine(),
            "programs": {"ringmark": program("a"), "server": program("b")},
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
        for (path, difference) in of_load
            .map(|(path, text)| (path.to_owned(), text.to_owned()))
            .into_iter()
            .chain(of_machines)
        {
            let mut now = commanded();
            *now["sides"].pointer_mut(&format!("/{path}")).unwrap() = json!("x");
            assert_eq!(between(&commanded(), &now), [difference]);
        }
    }

    #[test]
    fn another_script_of_a_server_that_is_not_ours_is_a_difference() {
        let run = |files: Value| json!({"external_files": {"other": files}});
        let script = |sum: &str| json!([{"file": "s.py", "bytes": 3, "sha256": sum}]);
        let differences = |now: Value| between(&run(script("aaa")), &now);
        assert_eq!(differences(run(script("aaa"))), [""; 0]);
        assert_eq!(differences(run(script("bbb"))), ["s.py of other was aaa, is bbb"]);
        assert_eq!(differences(run(json!([]))), ["the files of other were s.py, are "]);
        // An earlier version did not tell.
        assert_eq!(between(&json!({}), &run(script("aaa"))), [""; 0]);
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
        // Each difference of two such runs is said once.
        let mut other = plain.clone();
        other["machine"]["kernel_release"] = "6.2".into();
        assert_eq!(between(&plain, &other), ["the kernel was one kernel_release, is 6.2"]);
    }
}
