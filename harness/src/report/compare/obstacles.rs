//! The reasons why figures of two runs are not compared, or not judged.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use super::pair::{Asked, Pair, arms, is_exact, slope, workloads};
use crate::matrix::{Matrix, Workload};
use crate::report::query::counted_trial;
use crate::results::Run;
use crate::rows::{Pass, TrialRow};
use crate::status::ExitStatus;
use crate::text::quoted_list;
use crate::verdict::blocks::{is_seldom, is_spoilt_by_client};
use crate::verdict::metric::{self, Metric};

/// Names the parts that are missing: a run did not come to its end, or B lacks arms or workloads of
/// A.
pub fn parts(pair: &Pair, asked: &Asked) -> Vec<String> {
    let state_of = |(name, run): (&str, &Run)| Some(format!("{name} is not whole: {}", run.gap()?));
    let mut gaps: Vec<String> =
        [("A", &pair.a), ("B", &pair.b)].into_iter().filter_map(state_of).collect();
    let missing = |all: Vec<String>, others: Vec<String>| -> Vec<String> {
        all.into_iter().filter(|name| !others.contains(name)).collect()
    };
    let mut absent = missing(arms(&pair.a), arms(&pair.b));
    absent.retain(|arm| asked.has_arm(arm));
    absent.extend(missing(workloads(&pair.a), workloads(&pair.b)));
    if !absent.is_empty() {
        let is_of_sweep =
            |workload: &Workload| workload.sweep_of.is_some() && absent.contains(&workload.name);
        let advice = match pair.a.matrix.workloads.iter().any(is_of_sweep) {
            true => " (`ringmark run --replay` keeps the rates of a sweep)",
            false => "",
        };
        gaps.push(format!("B lacks {}{advice}", quoted_list(absent.iter().map(String::as_str))));
    }
    gaps
}

/// Why nothing of an arm of A is judged.
pub fn absent(pair: &Pair, arm: &str) -> Option<String> {
    let is_there = pair.b.matrix.backends.iter().any(|contender| contender.name() == arm);
    (!is_there).then(|| "B has no such arm".to_owned())
}

/// Whether times of an arm are judged: those of the baseline are what the others are relative to.
pub fn is_reference(pair: &Pair, metric: &Metric, arm: &str) -> bool {
    metric.pass() != Pass::Syscalls && pair.baseline() == Some(arm)
}

/// Returns why a figure of trials cannot be judged, whatever its value.
pub fn trials(pair: &Pair, own: &Workload, metric: &Metric, arm: &str) -> Option<String> {
    let Some(other) = pair.b.matrix.workloads.iter().find(|other| other.name == own.name) else {
        return Some("B has no such workload".to_owned());
    };
    if metric.pass() == Pass::Syscalls && !is_exact(own) {
        return Some(
            "with more than one message on the way, how many a wait brings is a matter of luck"
                .to_owned(),
        );
    }
    let is_missing = |run: &Run| !run.matrix.passes().contains(&metric.pass());
    if let Some(which) = in_which(is_missing(&pair.a), is_missing(&pair.b)) {
        return Some(format!("the {} pass is not in {which}", metric.pass().name()));
    }
    workload(pair, own, other)
        .or_else(|| of_metric(pair, own, metric))
        .or_else(|| of_arm(pair, own, metric.pass(), arm))
        .or_else(|| {
            let is_missing = |run: &Run| !has_value(run, own, metric, arm);
            let which = in_which(is_missing(&pair.a), is_missing(&pair.b))?;
            Some(format!("no {} in {which}, although its trials passed", metric.name))
        })
        .or_else(|| match metric.pass() {
            Pass::Syscalls => sources(pair, &own.name, arm),
            _ if pair.baseline().is_none() => Some("the baselines differ".to_owned()),
            _ => is_reference(pair, metric, arm)
                .then(|| "the baseline is what times are relative to".to_owned()),
        })
}

/// Whether a run has a figure of an arm in any trial that may be used.
pub fn has_value(run: &Run, workload: &Workload, metric: &Metric, arm: &str) -> bool {
    run.trials.iter().any(|row| {
        row.pass == Some(metric.pass())
            && row.workload == workload.name
            && row.arm == arm
            && row.status.is_usable()
            && metric.value(row).is_some()
    })
}

/// Why memory of an arm is not judged.
pub fn slopes(pair: &Pair, arm: &str, object: &str, state: &str) -> Option<String> {
    let low = |run: &Run| slope(run, arm, object, state).map(|(_, interval)| interval.low);
    let (a, b) = (low(&pair.a), low(&pair.b));
    memory(pair)
        .or_else(|| {
            Some(format!("no slope with an interval in {}", in_which(a.is_none(), b.is_none())?))
        })
        .or_else(|| {
            let is_zero = |low: Option<f64>| low.is_some_and(|low| low <= 0.0);
            Some(format!(
                "a slope that is not told from zero in {}",
                in_which(is_zero(a), is_zero(b))?
            ))
        })
}

/// Why instructions on a kernel are not judged.
pub fn counts(pair: &Pair, workload: &Workload, kernel: &str, arm: &str) -> Option<String> {
    if !is_exact(workload) {
        return Some("with more than one message on the way, each is counted in turns".to_owned());
    }
    let [a, b] = pair.counts(workload, kernel, arm);
    Some(format!("no count of the same work in {}", in_which(a.is_none(), b.is_none())?))
}

/// Why counts of calls are not judged: another instrument has counted them.
pub fn sources(pair: &Pair, workload: &str, arm: &str) -> Option<String> {
    let source = |run| {
        let source = counted_trial(run, workload, arm)?.syscalls_source.split([':', ',']).next()?;
        Some(source.to_owned())
    };
    let (a, b) = (source(&pair.a)?, source(&pair.b)?);
    (a != b).then(|| format!("the means of counting differ: {a} in A, {b} in B"))
}

/// Builds of different kinds have nothing in common.
pub fn builds(pair: &Pair) -> Result<()> {
    let profile =
        |run: &Run| run.manifest["build_profile"].as_str().unwrap_or("unknown").to_owned();
    let (a, b) = (profile(&pair.a), profile(&pair.b));
    if a != b {
        return Err(ExitStatus::NotComparable.error(format!(
            "A is of a {a} build and B of a {b} build, which differ by more than any server: build \
             both alike"
        )));
    }
    Ok(())
}

/// Returns how the conditions of a workload differ that both runs have by one name.
pub fn workload(pair: &Pair, a: &Workload, b: &Workload) -> Option<String> {
    let (ours, theirs) = (conditions(a, &pair.a.matrix), conditions(b, &pair.b.matrix));
    let names: BTreeSet<&String> =
        ours.as_object()?.keys().chain(theirs.as_object()?.keys()).collect();
    let differing: Vec<String> = names
        .into_iter()
        .filter(|name| ours[*name] != theirs[*name])
        .map(|name| {
            let word =
                |value: &Value| if value.is_null() { "none".to_owned() } else { value.to_string() };
            format!("{name} is {} in A and {} in B", word(&ours[name]), word(&theirs[name]))
        })
        .collect();
    (!differing.is_empty()).then(|| format!("`{}`: {}", a.name, differing.join(", ")))
}

/// Returns the conditions of a workload, without its name and the origin of its rate.
fn conditions(workload: &Workload, matrix: &Matrix) -> Value {
    let mut fields = serde_json::to_value(workload).expect("a workload is written as JSON");
    if let Some(fields) = fields.as_object_mut() {
        fields
            .retain(|name, _| !["name", "question", "sweep", "sweep_of"].contains(&name.as_str()));
        let workers = workload.workers.unwrap_or(matrix.workers);
        fields.insert("workers".to_owned(), workers.into());
        fields.insert("ports".to_owned(), matrix.ports.unwrap_or(workers).into());
    }
    fields
}

/// Whether a process's CPU has the softirqs in it, if the manifest tells. Older ones tell only how
/// the kernel was built.
fn softirq_in_process_cpu(run: &Run) -> Option<bool> {
    let machine = run.server_machine();
    let built = || {
        let option = machine.pointer("/kernel_config/options")?.get("CONFIG_IRQ_TIME_ACCOUNTING");
        Some(option.and_then(Value::as_str) != Some("y"))
    };
    machine["softirq_in_process_cpu"].as_bool().or_else(built)
}

/// Why a metric of a workload is not compared, with its names.
pub fn metric(pair: &Pair, workload: &Workload, metric: &Metric) -> Option<String> {
    let what = match *metric == metric::CPU {
        true => metric.name.to_owned(),
        false => format!("throughput and latency of `{}`", workload.name),
    };
    Some(format!("{what}: {}", of_metric(pair, workload, metric)?))
}

fn of_metric(pair: &Pair, workload: &Workload, metric: &Metric) -> Option<String> {
    let is_cpu = *metric == metric::CPU;
    let softirqs = pair.runs().map(softirq_in_process_cpu);
    if let ([Some(a), Some(b)], true) = (softirqs, is_cpu)
        && a != b
    {
        let has = if a { "A" } else { "B" };
        return Some(format!(
            "only in {has} does the kernel charge softirqs to the process that they interrupt \
             (CONFIG_IRQ_TIME_ACCOUNTING is off)"
        ));
    }
    let is_limited = |run: &Run| is_spoilt_by_client(&run.trials, &workload.name, metric);
    let limited = in_which(is_limited(&pair.a), is_limited(&pair.b))?;
    Some(format!("the client was the limit in {limited}"))
}

/// Whether both runs have trials of a pass.
pub fn was_measured(pair: &Pair, workload: &Workload, pass: Pass) -> bool {
    let has = |run: &Run| {
        run.trials.iter().any(|row| row.pass == Some(pass) && row.workload == workload.name)
    };
    has(&pair.a) && has(&pair.b)
}

/// Why an arm is not compared, with its names.
pub fn arm(pair: &Pair, workload: &Workload, pass: Pass, arm: &str) -> Option<String> {
    let why = of_arm(pair, workload, pass, arm)?;
    Some(format!("`{arm}` in `{}`, {}: {why}", workload.name, pass.name()))
}

/// One run has no figures of it, or too few blocks, or it had to share a CPU or a core in one only.
/// If it had to in both, there are figures and no verdict.
fn of_arm(pair: &Pair, workload: &Workload, pass: Pass, arm: &str) -> Option<String> {
    // For each usable trial: it shared a CPU, it shared a core.
    let rows = |run: &Run| -> Vec<[bool; 2]> {
        let is_own = |row: &&TrialRow| {
            row.pass == Some(pass)
                && row.workload == workload.name
                && row.arm == arm
                && row.status.is_usable()
        };
        run.trials
            .iter()
            .filter(is_own)
            .map(|row| [row.shared_cpu, row.shared_core == Some(true)])
            .collect()
    };
    let (a, b) = (rows(&pair.a), rows(&pair.b));
    let seldom = pair.runs().map(|run| is_seldom(&run.trials, pass, &workload.name, arm));
    let mut differing =
        ["had to share a CPU", "ran on hyperthreads of one core"].into_iter().enumerate();
    let differing = differing.find_map(|(index, what)| {
        let [in_a, in_b] = [&a, &b].map(|rows| rows.iter().any(|shared| shared[index]));
        (in_a != in_b).then(|| (what, in_which(in_a, in_b)))
    });
    let (what, which) = match (a.is_empty(), b.is_empty()) {
        (true, true) => return None,
        (true, false) | (false, true) => {
            ("has no figures in".to_owned(), in_which(a.is_empty(), b.is_empty()))
        }
        _ if seldom.contains(&true) => {
            ("was rejected in too many blocks of".to_owned(), in_which(seldom[0], seldom[1]))
        }
        (false, false) => differing.map(|(what, which)| (format!("{what} only in"), which))?,
    };
    Some(format!("it {what} {}", which?))
}

/// Names the runs for which something is true.
fn in_which(a: bool, b: bool) -> Option<&'static str> {
    match (a, b) {
        (true, true) => Some("A and B"),
        (true, false) => Some("A"),
        (false, true) => Some("B"),
        (false, false) => None,
    }
}

/// Names the walks, of which no figure of this comparison is.
pub fn walks(pair: &Pair) -> Option<String> {
    let has = |run: &Run| run.matrix.passes().contains(&Pass::Scale);
    Some(format!(
        "the walks of the scale pass in {}: they are not compared",
        in_which(has(&pair.a), has(&pair.b))?
    ))
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
    use crate::results::sides::{Side, Sides};
    use crate::rows::Status;

    const WORKLOAD: &str = "name = \"w\"\nquestion = \"q\"\nconnections = 64\nmessage_bytes = 64\n";

    fn run(manifest: Value, workload: &str, trials: Vec<TrialRow>) -> Run {
        let head =
            "question = \"q\"\nbaseline = \"epoll-et\"\nbackends = [{ backend = \"epoll-et\" }]\n";
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
        assert_eq!(
            of_workload(&(WORKLOAD.to_owned() + "workers = 1\n")),
            None,
            "as many as the matrix says"
        );
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
        let of_name =
            metric::OF_TRIALS.iter().find(|metric| metric.name == name).expect("a metric");
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
        let option = |value: &str| json!({ "CONFIG_IRQ_TIME_ACCOUNTING": value });
        let built = |value: &str| json!({ "kernel_config": { "options": option(value) } });
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
        // The server's machine counts, wherever `ringmark run` was.
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
            other_loads: Vec::new(),
        });
        assert!(metric_of(&remote, cpu).is_some_and(|reason| reason.contains("only in A")));
        assert!(
            of(yes.clone(), no.clone(), cpu).is_some_and(|reason| reason.contains("only in A"))
        );
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
            let pair =
                Pair { a: run(json!({}), WORKLOAD, vec![a]), b: run(json!({}), WORKLOAD, vec![b]) };
            arm(&pair, &pair.a.matrix.workloads[0], Pass::Latency, "epoll-et")
        };
        let ok = || row(Status::Ok, false);
        assert_eq!(of(ok(), ok()), None);
        assert_eq!(
            of(row(Status::Ok, true), row(Status::Ok, true)),
            None,
            "figures and no verdict"
        );
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
