//! Why figures of two runs are not compared.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde_json::Value;

use super::Pair;
use crate::comparisons::{Metric, is_spoilt_by_client};
use crate::matrix::{Matrix, Workload};
use crate::measurement::{Pass, TrialRow};
use crate::results::Run;

/// Builds of different kinds have nothing in common.
pub fn builds(pair: &Pair) -> Result<()> {
    let profile = |run: &Run| run.manifest["build_profile"].as_str().unwrap_or("unknown").to_owned();
    let (a, b) = (profile(&pair.a), profile(&pair.b));
    if a != b {
        bail!(
            "A is of a {a} build and B of a {b} build, which differ by more than any server: build both alike"
        );
    }
    Ok(())
}

/// In what the conditions of a workload differ that has one name in both.
pub fn workload(pair: &Pair, a: &Workload, b: &Workload) -> Option<String> {
    let (ours, theirs) = (conditions(a, &pair.a.matrix), conditions(b, &pair.b.matrix));
    let names: BTreeSet<&String> = ours.as_object()?.keys().chain(theirs.as_object()?.keys()).collect();
    let differing: Vec<String> = names
        .into_iter()
        .filter(|name| ours[*name] != theirs[*name])
        .map(|name| {
            let word = |value: &Value| if value.is_null() { "none".to_owned() } else { value.to_string() };
            format!("{name} is {} in A and {} in B", word(&ours[name]), word(&theirs[name]))
        })
        .collect();
    (!differing.is_empty()).then(|| format!("`{}`: {}", a.name, differing.join(", ")))
}

/// All that makes a workload what it is: not what it was called, nor where its rate came from.
fn conditions(workload: &Workload, matrix: &Matrix) -> Value {
    let mut fields = serde_json::to_value(workload).unwrap_or_default();
    if let Some(fields) = fields.as_object_mut() {
        fields.retain(|name, _| !["name", "question", "sweep", "sweep_of"].contains(&name.as_str()));
        let workers = workload.workers.unwrap_or(matrix.workers);
        fields.insert("workers".to_owned(), workers.into());
        fields.insert("ports".to_owned(), matrix.ports.unwrap_or(workers).into());
    }
    fields
}

/// Whether a process's CPU has the softirqs in it, if the manifest tells. Older ones tell only how the kernel was built.
fn softirq_in_process_cpu(run: &Run) -> Option<bool> {
    let machine = run.server_machine();
    let built = || {
        let option = machine.pointer("/kernel_config/options")?.get("CONFIG_IRQ_TIME_ACCOUNTING");
        Some(option.and_then(Value::as_str) != Some("y"))
    };
    machine["softirq_in_process_cpu"].as_bool().or_else(built)
}

/// Why a metric of a workload is not compared.
pub fn metric(pair: &Pair, workload: &Workload, metric: &Metric) -> Option<String> {
    let is_cpu = metric.name.starts_with("server_cpu");
    let softirqs = [&pair.a, &pair.b].map(softirq_in_process_cpu);
    if let ([Some(a), Some(b)], true) = (softirqs, is_cpu)
        && a != b
    {
        let has = if a { "A" } else { "B" };
        return Some(format!(
            "{}: only in {has} does the kernel charge softirqs to the process that they interrupt (CONFIG_IRQ_TIME_ACCOUNTING is off)",
            metric.name
        ));
    }
    let is_limited = |run: &Run| is_spoilt_by_client(&run.trials, &workload.name, metric);
    let limited = in_which(is_limited(&pair.a), is_limited(&pair.b))?;
    Some(format!("throughput and latency of `{}`: the client was the limit in {limited}", workload.name))
}

/// Whether both runs have trials of a pass.
pub fn was_measured(pair: &Pair, workload: &Workload, pass: Pass) -> bool {
    let has =
        |run: &Run| run.trials.iter().any(|row| row.pass == Some(pass) && row.workload == workload.name);
    has(&pair.a) && has(&pair.b)
}

/// Why an arm is not compared: one run has no figures of it, or it had to share a CPU or a core in one only. If it had to
/// in both, there are figures and no verdict.
pub fn arm(pair: &Pair, workload: &Workload, pass: Pass, arm: &str) -> Option<String> {
    // Of each trial that may be used, whether it shared a CPU, and whether a core.
    let rows = |run: &Run| -> Vec<[bool; 2]> {
        let is_own = |row: &&TrialRow| {
            row.pass == Some(pass)
                && row.workload == workload.name
                && row.arm == arm
                && row.status.is_usable()
        };
        run.trials.iter().filter(is_own).map(|row| [row.shared_cpu, row.shared_core == Some(true)]).collect()
    };
    let (a, b) = (rows(&pair.a), rows(&pair.b));
    let mut differing = ["had to share a CPU", "ran on hyperthreads of one core"].into_iter().enumerate();
    let differing = differing.find_map(|(index, what)| {
        let [in_a, in_b] = [&a, &b].map(|rows| rows.iter().any(|shared| shared[index]));
        (in_a != in_b).then(|| (what, in_which(in_a, in_b)))
    });
    let (what, which) = match (a.is_empty(), b.is_empty()) {
        (true, true) => return None,
        (true, false) | (false, true) => {
            ("has no figures in".to_owned(), in_which(a.is_empty(), b.is_empty()))
        }
        (false, false) => differing.map(|(what, which)| (format!("{what} only in"), which))?,
    };
    Some(format!("`{arm}` in `{}`, {}: it {what} {}", workload.name, pass.name(), which?))
}

/// Of which runs something is true.
fn in_which(a: bool, b: bool) -> Option<&'static str> {
    match (a, b) {
        (true, true) => Some("A and B"),
        (true, false) => Some("A"),
        (false, true) => Some("B"),
        (false, false) => None,
    }
}

/// Why memory is not compared.
pub fn memory(pair: &Pair) -> Option<String> {
    let bytes = |run: &Run| run.matrix.memory.as_ref().map(|memory| memory.message_bytes);
    let (a, b) = (bytes(&pair.a)?, bytes(&pair.b)?);
    (a != b).then(|| format!("memory: message_bytes is {a} in A and {b} in B"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::comparisons::METRICS;
    use crate::measurement::Status;
    use crate::sides::{Side, Sides};

    const WORKLOAD: &str = "name = \"w\"\nquestion = \"q\"\nconnections = 64\nmessage_bytes = 64\n";

    fn run(manifest: Value, workload: &str, trials: Vec<TrialRow>) -> Run {
        let head = "question = \"q\"\nbaseline = \"epoll-et\"\nbackends = [{ backend = \"epoll-et\" }]\n";
        let matrix = toml::from_str(&format!("{head}[[workload]]\n{workload}")).expect("a matrix");
        Run { manifest, ..Run::of(matrix, trials, Vec::new()) }
    }

    fn pair(workload: &str) -> Pair {
        Pair { a: run(json!({}), WORKLOAD, Vec::new()), b: run(json!({}), workload, Vec::new()) }
    }

    fn of_workload(other: &str) -> Option<String> {
        let pair = pair(other);
        workload(&pair, &pair.a.matrix.workloads[0], &pair.b.matrix.workloads[0])
    }

    #[test]
    fn the_fields_of_a_workload_are_named_that_differ() {
        assert_eq!(of_workload(&WORKLOAD.replace("\"q\"", "\"another question\"")), None);
        assert_eq!(of_workload(&(WORKLOAD.to_owned() + "workers = 1\n")), None, "as many as the matrix says");
        for (other, words) in [
            (
                WORKLOAD.replace("connections = 64", "connections = 128"),
                "`w`: connections is 64 in A and 128 in B",
            ),
            (WORKLOAD.to_owned() + "work_ns = 7\n", "`w`: work_ns is none in A and 7 in B"),
            (
                WORKLOAD.to_owned() + "workers = 2\n",
                "`w`: ports is 1 in A and 2 in B, workers is 1 in A and 2 in B",
            ),
        ] {
            assert_eq!(of_workload(&other).as_deref(), Some(words));
        }
    }

    fn metric_of(pair: &Pair, name: &str) -> Option<String> {
        let of_name = METRICS.iter().find(|metric| metric.name == name).expect("a metric");
        metric(pair, &pair.a.matrix.workloads[0], of_name)
    }

    #[test]
    fn cpu_that_has_softirqs_in_it_is_not_set_beside_cpu_that_has_not() {
        let of = |a: Value, b: Value, name: &str| {
            let mut pair = pair(WORKLOAD);
            (pair.a.manifest, pair.b.manifest) = (json!({ "machine": a }), json!({ "machine": b }));
            metric_of(&pair, name)
        };
        let [yes, no] = [true, false].map(|is| json!({ "softirq_in_process_cpu": is }));
        let built =
            |value: &str| json!({ "kernel_config": { "options": { "CONFIG_IRQ_TIME_ACCOUNTING": value } } });
        let cpu = "server_cpu_ns_per_echo";
        for (a, b, is_refused) in [
            (yes.clone(), no.clone(), true),
            (built("n"), no.clone(), true),
            (built("n"), yes.clone(), false),
            (built("y"), no.clone(), false),
            // One that does not tell is no reason.
            (json!({}), no.clone(), false),
        ] {
            assert_eq!(of(a, b, cpu).is_some(), is_refused);
        }
        // That of the server's machine, wherever `ringmark run` was.
        let mut remote = pair(WORKLOAD);
        remote.a.manifest = json!({ "machine": yes });
        remote.b.manifest = json!({ "machine": yes });
        remote.b.sides = Some(Sides {
            server_address: std::net::Ipv4Addr::LOCALHOST.into(),
            over_loopback: false,
            one_machine: false,
            has_remote_bin: false,
            server: Side { machine: no.clone(), ..Side::default() },
            load: Side::default(),
        });
        assert!(metric_of(&remote, cpu).is_some_and(|reason| reason.contains("only in A")));
        assert!(of(yes.clone(), no.clone(), cpu).is_some_and(|reason| reason.contains("only in A")));
        assert_eq!(of(yes, no, "latency_p99_us"), None);
    }

    #[test]
    fn builds_of_two_kinds_are_refused() {
        let mut pair = pair(WORKLOAD);
        let profile = |name: &str| json!({ "build_profile": name });
        (pair.a.manifest, pair.b.manifest) = (profile("debug"), profile("debug"));
        assert!(builds(&pair).is_ok());
        pair.b.manifest = profile("release");
        let refusal = builds(&pair).expect_err("differ").to_string();
        assert!(refusal.contains("A is of a debug build and B of a release build"), "{refusal}");
    }

    #[test]
    fn an_arm_needs_figures_and_the_same_room_in_both() {
        let row = |status, shared_cpu| TrialRow {
            pass: Some(Pass::Latency),
            workload: "w".to_owned(),
            arm: "epoll-et".to_owned(),
            status,
            shared_cpu,
            ..TrialRow::default()
        };
        let of = |a: TrialRow, b: TrialRow| {
            let pair = Pair { a: run(json!({}), WORKLOAD, vec![a]), b: run(json!({}), WORKLOAD, vec![b]) };
            arm(&pair, &pair.a.matrix.workloads[0], Pass::Latency, "epoll-et")
        };
        let ok = || row(Status::Ok, false);
        assert_eq!(of(ok(), ok()), None);
        assert_eq!(of(row(Status::Ok, true), row(Status::Ok, true)), None, "figures and no verdict");
        let refusal = |a, b| of(a, b).expect("refused");
        assert_eq!(
            refusal(ok(), row(Status::Unsupported, false)),
            "`epoll-et` in `w`, latency: it has no figures in B"
        );
        assert_eq!(
            refusal(row(Status::Ok, true), ok()),
            "`epoll-et` in `w`, latency: it had to share a CPU only in A"
        );
        let on_one_core = |shared| TrialRow { shared_core: Some(shared), ..ok() };
        assert_eq!(of(on_one_core(false), ok()), None, "a run from before it was told");
        assert_eq!(
            refusal(on_one_core(false), on_one_core(true)),
            "`epoll-et` in `w`, latency: it ran on hyperthreads of one core only in B"
        );
    }
}
