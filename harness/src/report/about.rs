//! The header of a run: when, where and from what it was made.

use itertools::Itertools as _;
use serde_json::Value;

use super::query::text_at;
use super::section::Body;
use crate::results::Run;
use crate::results::sides::Sides;

/// Describes a run in a list.
pub fn about(run: &Run, folder: &str) -> Body {
    let manifest = &run.manifest;
    // Sides that a command started describe their own machines.
    let machine = if run.sides.is_some() { "`ringmark run` on" } else { "Machine" };
    let is_fresh = run.trials.first().is_some_and(|row| row.network_namespace == "fresh");
    let text = format!(
        "- Run: `{folder}`, begun {}, {}\n\
         - Traffic: {}\n\
         - {machine}: {} ({}), Linux {}, {} memory, idle driver {}{}\n\
         - Source: revision {}{}, {}{}\n\
         - Placement: {}\n\
         - Trials: {}\n{}{}{}",
        text_at(manifest, "/machine/read_at"),
        finished(run),
        run.traffic(),
        text_at(manifest, "/machine/description"),
        text_at(manifest, "/machine/cpu_model"),
        text_at(manifest, "/machine/kernel_release"),
        manifest["machine"]["memory_total_bytes"].as_u64().map_or(
            "unknown".to_owned(),
            |bytes| format!("{:.0} GiB", bytes as f64 / f64::from(1 << 30))
        ),
        text_at(manifest, "/machine/idle_driver"),
        if run.sides.is_some() {
            String::new()
        } else {
            congestion(&manifest["machine"], is_fresh)
        },
        revision(manifest),
        if manifest["machine"]["git_dirty"] == true { ", with local changes" } else { "" },
        text_at(manifest, "/machine/rustc"),
        match text_at(manifest, "/build_profile") {
            "release" => "",
            _ => ", **not a release build: its figures are of no use**",
        },
        placement(run),
        trials(run),
        externals(run),
        sides(run),
        history(manifest),
    );
    Body::default().notes(text)
}

/// Describes in a line where a run was made, and of what.
pub fn in_short(run: &Run) -> String {
    let manifest = &run.manifest;
    let traffic = if run.sides.is_some() { run.traffic() } else { "over loopback".to_owned() };
    format!(
        "{} ({}, CPUs {}), Linux {}, {traffic}; revision {}; {} trials",
        text_at(manifest, "/machine/description"),
        text_at(manifest, "/machine/cpu_model"),
        text_at(manifest, "/machine/cpus_allowed"),
        text_at(manifest, "/machine/kernel_release"),
        revision(manifest),
        run.trials.len()
    )
}

/// Describes how the run ended.
fn finished(run: &Run) -> String {
    if let Some(caveat) = run.state.caveat() {
        return caveat.to_owned();
    }
    let gap = run.gap().map_or_else(String::new, |gap| format!(", but it is not whole: {gap}"));
    format!("finished {}{gap}", text_at(&run.manifest, "/finished_utc"))
}

/// Describes where the server and the client of the first trial ran.
fn placement(run: &Run) -> String {
    let Some(row) = run.trials.first() else { return "not known".to_owned() };
    let [server, client] = [&row.server_cpus, &row.client_cpus].map(|cpus| match cpus.as_str() {
        "" if run.sides.is_some() => "not pinned from here".to_owned(),
        "" => "not pinned".to_owned(),
        cpus => format!("on CPU {cpus}"),
    });
    let core = match (run.manifest["placement"]["shared_core"].as_bool(), run.matrix.hyperthreads) {
        (Some(true), false) => " (hyperthreads of one core: no verdict on what takes time)",
        (Some(true), true) => " (hyperthreads of one core, as the matrix allows)",
        _ => "",
    };
    let namespace = match row.network_namespace.as_str() {
        "fresh" => "a fresh network namespace for each trial".to_owned(),
        other => match other.strip_prefix("host: ") {
            Some(why) => format!("in the host's network, with whatever else is in it ({why})"),
            None => other.to_owned(),
        },
    };
    format!("server {server}, client {client}{core}, {namespace}")
}

/// Counts the trials by status.
fn trials(run: &Run) -> String {
    if run.trials.is_empty() {
        return "none".to_owned();
    }
    let statuses = run.trials.iter().map(|row| row.status).sorted().dedup_with_count();
    let counts = statuses.map(|(count, status)| format!("{count} {}", status.word())).join(", ");
    format!("{}: {counts}", run.trials.len())
}

/// Returns how TCP paces itself on a machine, in its own network namespace or in a fresh one.
fn congestion(machine: &Value, is_fresh: bool) -> String {
    let sysctls = if is_fresh { "new_namespace_network_sysctls" } else { "network_sysctls" };
    let control = text_at(machine, &format!("/{sysctls}/net.ipv4.tcp_congestion_control"));
    format!(", TCP congestion control {control}")
}

/// Names the servers that are not ours, and their versions.
fn externals(run: &Run) -> String {
    let versions = run.matrix.externals.iter().map(|server| {
        let version = run.manifest["externals"][&server.name].as_str().unwrap_or("unknown");
        format!("- `{}`, external: {version}\n", server.name)
    });
    versions.collect()
}

/// Describes the sides that a command started elsewhere; most runs have none.
fn sides(run: &Run) -> String {
    let mut text = String::new();
    for (name, side) in run.sides.iter().flat_map(Sides::named) {
        text += &format!(
            "- The {name}'s machine: {} ({}), Linux {}, idle driver {}{}\n",
            text_at(&side.machine, "/description"),
            text_at(&side.machine, "/cpu_model"),
            text_at(&side.machine, "/kernel_release"),
            text_at(&side.machine, "/idle_driver"),
            congestion(&side.machine, false)
        );
        for line in &side.not_measured {
            text += &format!("- Not measured of the {name}: {line}\n");
        }
    }
    text
}

/// Returns the revision of the source that the programs were built from.
fn revision(manifest: &Value) -> String {
    let own = short_revision(manifest, "/machine/git_revision").map_or_else(
        || match manifest["machine"]["git_reason"].as_str() {
            Some(reason) => format!("unknown ({reason})"),
            None => "unknown".to_owned(),
        },
        str::to_owned,
    );
    match short_revision(manifest, "/programs/server/revision") {
        Some(server) if server != own => format!("{own}, the server's program {server}"),
        _ => own,
    }
}

/// Returns the first letters of a revision in the manifest.
pub fn short_revision<'a>(manifest: &'a Value, path: &str) -> Option<&'a str> {
    manifest.pointer(path)?.as_str()?.get(..12)
}

/// Says which run this one repeats and how often it was resumed; nothing of most runs.
fn history(manifest: &Value) -> String {
    let mut text = String::new();
    let replays = &manifest["replays"];
    if replays.is_object() {
        let (folder, begun) = (text_at(replays, "/folder"), text_at(replays, "/begun_utc"));
        text += &format!("- It repeats {folder}, begun {begun}{}\n", differences(replays));
    }
    if let Some(resumed @ [.., last]) = manifest["resumed"].as_array().map(Vec::as_slice) {
        text += &format!(
            "- It was interrupted and resumed {}, last at {} after {} trials{}\n",
            match resumed.len() {
                1 => "once".to_owned(),
                count => format!("{count} times"),
            },
            text_at(last, "/at_utc"),
            last["after_trials"],
            // All of them: the blocks before and after are of different origin.
            resumed.iter().map(differences).collect::<String>(),
        );
    }
    text
}

/// Lists in what the machine or the programs differed.
fn differences(origin: &Value) -> String {
    let differences = origin["differences"].as_array().into_iter().flatten();
    differences.filter_map(Value::as_str).map(|difference| format!("; {difference}")).collect()
}
