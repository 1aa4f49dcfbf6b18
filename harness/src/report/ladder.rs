//! The ladder: arms of which each stands on another and changes one thing, and what that one thing
//! does.

use std::collections::BTreeSet;

use itertools::{Itertools as _, iproduct};

use super::about::short_revision;
use super::query::{self, ArmTrials, absent, counted_trial, noise};
use super::section::Body;
use super::table::{Column, MISSING, Table, cell};
use crate::matrix::Arm;
use crate::results::Run;
use crate::rows::{KERNEL_SUM, NEVER_USED, Pass, USER_SUM, Verdict};
use crate::text::{integer, significant};
use crate::verdict::memory;
use crate::verdict::metric::CPU;

/// Shows two tables, of counts and of CPU, and what is missing in them; nothing for a matrix
/// without rungs.
pub fn tables(run: &Run, folder: &str) -> Body {
    if !run.matrix.backends.iter().any(|arm| arm.over.is_some() || arm.changes.is_some()) {
        return Body::default();
    }
    let usable = run.trials.iter().filter(|row| row.status.is_usable()).count();
    let source = format!(
        "Run `{folder}`, revision {}: {usable} of {} trials passed the gates.\n",
        short_revision(&run.manifest, "/machine/git_revision").unwrap_or("unknown"),
        run.trials.len(),
    );
    Body::default()
        .notes(source)
        .then(counts(run))
        .then(cpu(run))
        .then(Body::default().notes(notes(run)))
}

/// Shows what a rung changes, and what can be counted: calls, and bytes of an idle connection.
fn counts(run: &Run) -> Body {
    let workloads = &run.matrix.workloads;
    let mut heading = ["arm", "over", "changes"].map(str::to_owned).to_vec();
    heading.extend(workloads.iter().map(|workload| format!("calls/echo, {}", workload.name)));
    heading.extend(["kernel bytes", "user bytes"].map(str::to_owned));
    let mut table = Table::new(3, &heading);
    for rung in &run.matrix.backends {
        let arm = rung.name();
        let [over, changes] = [&rung.over, &rung.changes]
            .map(|text| text.clone().unwrap_or_else(|| MISSING.to_owned()));
        let mut cells = vec![arm.clone(), over, changes];
        cells.extend(workloads.iter().map(|workload| {
            let trial = counted_trial(run, &workload.name, &arm);
            cell(trial.and_then(|row| row.syscalls_per_echo), significant)
        }));
        cells.extend([KERNEL_SUM, USER_SUM].map(|object| {
            let row = memory::slope(&run.memory, &arm, object, NEVER_USED);
            cell(row.and_then(|row| row.over_null_bytes_per_connection), integer)
        }));
        table.push(cells);
    }
    let bytes =
        "\nBytes are those of a connection that was never used, over two bare TCP endpoints.\n";
    Body::from(table).notes(if run.memory.is_empty() { "" } else { bytes })
}

/// A rung under a workload.
struct Rung<'a> {
    over: Option<&'a str>,
    trials: ArmTrials<'a>,
}

/// Shows server CPU per echo against the arm that a rung stands on, and against the baseline, in
/// the same blocks.
fn cpu(run: &Run) -> Body {
    if !run.trials.iter().any(|row| row.pass == Some(Pass::Latency)) {
        return Body::default();
    }
    let against_over = format!("CPU/echo against it ({})", query::bounds(run, &CPU));
    let against_baseline = format!("against {}", run.matrix.baseline);
    let columns: [Column<Rung>; 8] = [
        ("workload", |rung| rung.trials.workload.to_owned()),
        ("arm", |rung| rung.trials.arm.clone()),
        ("over", |rung| rung.over.unwrap_or(MISSING).to_owned()),
        (&against_over, |rung| {
            rung.over.map_or(MISSING.to_owned(), |over| rung.trials.against(&CPU, over))
        }),
        (&against_baseline, |rung| rung.trials.against_baseline(&CPU)),
        ("server ns/echo", |rung| rung.trials.median(|trial| trial.server_cpu_ns_per_echo)),
        ("events/wait", |rung| rung.trials.median(|trial| trial.events_per_wait)),
        ("blocks", |rung| rung.trials.blocks()),
    ];
    let rungs = iproduct!(&run.matrix.workloads, &run.matrix.backends)
        .map(|(workload, arm)| Rung {
            over: arm.over.as_deref(),
            trials: ArmTrials::in_complete_blocks(run, &workload.name, arm.name()),
        })
        .collect_vec();
    Table::of(&rungs, 3, &columns).into()
}

/// Says the noise, and which arms have no figures or no verdict, and why.
fn notes(run: &Run) -> String {
    let noises = (run.matrix.workloads.iter())
        .filter_map(|workload| {
            let noise = noise(run, &workload.name, &CPU)?;
            Some(format!("{} in {}", query::range(&noise), workload.name))
        })
        .join(", ");
    let mut text = String::new();
    if !noises.is_empty() {
        text += &format!(
            "Noise, `{}` against itself: {noises}. A difference within it has no verdict.\n",
            run.matrix.baseline
        );
    }
    for (verdict, why) in [
        (Verdict::SharedCpu, "shared-cpu: not every thread had a CPU of its own"),
        (Verdict::SharedCore, "shared-core: it ran on hyperthreads of one core"),
    ] {
        let rows = run.trials.iter().filter(|row| run.matrix.no_verdict(row) == Some(verdict));
        let without: BTreeSet<&str> = rows.map(|row| row.arm.as_str()).collect();
        let arms = run.matrix.backends.iter().map(Arm::name);
        let arms = arms.filter(|arm| without.contains(arm.as_str())).join("`, `");
        if !arms.is_empty() {
            text += &format!("- `{arms}`: {why}, so that there is no verdict\n");
        }
    }
    // A reason may hold in several passes.
    let absent: String = run.matrix.passes().into_iter().map(|pass| absent(run, pass)).collect();
    for line in absent.lines() {
        if !text.contains(line) {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;
    use crate::rows::{MemoryRow, Status, TrialRow};

    const MATRIX: &str = r#"
        question = "q"
        baseline = "epoll-et"
        backends = [
            { backend = "epoll-document", changes = "is where it begins" },
            { backend = "epoll-et", over = "epoll-document", changes = "registers once" },
            { backend = "uring-multishot", over = "epoll-et", changes = "completions" },
            { backend = "uring-multishot", set = ["buffers=64"],
              over = "uring-multishot", changes = "fewer buffers" },
            { backend = "null", changes = "holds too few" },
        ]
        [latency]
        blocks = 10
        duration = "1s"
        warmup_max = "1s"
        [syscalls]
        echoes = 10
        [[workload]]
        name = "w"
        question = "q"
        connections = 64
        message_bytes = 64
    "#;

    /// Each arm's CPU, which the second reading of the baseline shares.
    const ARMS: [(&str, f64); 5] = [
        ("epoll-document", 200.0),
        ("epoll-et", 100.0),
        ("epoll-et (again)", 100.0),
        ("uring-multishot", 80.0),
        ("uring-multishot buffers=64", 80.0),
    ];

    fn trial(pass: Pass, block: u32, arm: &str, cpu: f64) -> TrialRow {
        TrialRow {
            pass: Some(pass),
            workload: "w".to_owned(),
            block,
            arm: arm.to_owned(),
            server_cpu_ns_per_echo: Some(cpu),
            syscalls_per_echo: Some(cpu / 100.0),
            events_per_wait: Some(3.0),
            shared_cpu: arm.ends_with("=64"),
            status: Status::Ok,
            ..TrialRow::default()
        }
    }

    fn run() -> Run {
        let matrix: Matrix = toml::from_str(MATRIX).expect("a matrix");
        let mut trials = Vec::new();
        let unsupported = |pass, block| TrialRow {
            status: Status::Unsupported,
            reason: "holds 7 at most".to_owned(),
            ..trial(pass, block, "null", 0.0)
        };
        for (arm, cpu) in ARMS.into_iter().filter(|(arm, _)| !arm.ends_with("(again)")) {
            trials.push(trial(Pass::Syscalls, 1, arm, cpu));
        }
        trials.push(unsupported(Pass::Syscalls, 1));
        for block in 1..=10 {
            // The blocks differ, the ratios within them do not.
            let speed = f64::from(block);
            trials.extend(ARMS.map(|(arm, cpu)| trial(Pass::Latency, block, arm, cpu * speed)));
            trials.push(unsupported(Pass::Latency, block));
        }
        let slope = |object: &str, bytes: f64| MemoryRow {
            run_id: 1,
            arm: "uring-multishot".to_owned(),
            backend: "uring-multishot".to_owned(),
            state: NEVER_USED.to_owned(),
            space: "kernel".to_owned(),
            object: object.to_owned(),
            bytes_per_connection: bytes,
            over_null_bytes_per_connection: Some(bytes),
            status: Status::Ok,
            ..MemoryRow::default()
        };
        let memory = vec![slope(KERNEL_SUM, 873.0), slope(USER_SUM, 41.0)];
        Run::of(matrix, trials, memory)
    }

    /// The cells of every row of a table in the text, its heading left out.
    fn cells(text: &str) -> Vec<Vec<&str>> {
        let rows = text.lines().filter(|line| line.starts_with("| "));
        rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
    }

    #[test]
    fn every_rung_stands_beside_the_arm_that_it_is_over() {
        let run = run();
        let counts = counts(&run).markdown();
        let expected: [&[&str]; 6] = [
            &["arm", "over", "changes", "calls/echo, w", "kernel bytes", "user bytes"],
            &["epoll-document", "–", "is where it begins", "2.00", "–", "–"],
            &["epoll-et", "epoll-document", "registers once", "1.00", "–", "–"],
            &["uring-multishot", "epoll-et", "completions", "0.80", "873", "41"],
            &["uring-multishot buffers=64", "uring-multishot", "fewer buffers", "0.80", "–", "–"],
            &["null", "–", "holds too few", "–", "–", "–"],
        ];
        assert_eq!(cells(&counts), expected);

        let cpu = cpu(&run).markdown();
        let against_it = "CPU/echo against it (95 % interval)";
        let shared = "shared-cpu, no verdict";
        let narrow = [format!("1.00 {shared}"), format!("0.80 {shared}")];
        let head = [
            "workload",
            "arm",
            "over",
            against_it,
            "against epoll-et",
            "server ns/echo",
            "events/wait",
            "blocks",
        ];
        let lower = "0.80 lower";
        let expected: [&[&str]; 6] = [
            &head,
            &["w", "epoll-document", "–", "–", "2.00 higher", "1,100", "3.00", "10"],
            &["w", "epoll-et", "epoll-document", "0.50 lower", "1 (baseline)", "550", "3.00", "10"],
            &["w", "uring-multishot", "epoll-et", lower, lower, "440", "3.00", "10"],
            &[
                "w",
                "uring-multishot buffers=64",
                "uring-multishot",
                &narrow[0],
                &narrow[1],
                "440",
                "3.00",
                "10",
            ],
            &["w", "null", "–", "–", "–", "–", "–", "0"],
        ];
        assert_eq!(cells(&cpu), expected);
    }

    #[test]
    fn what_is_missing_is_said_once_with_its_reason() {
        let notes = notes(&run());
        let lines: Vec<&str> = notes.lines().collect();
        assert_eq!(
            lines,
            [
                "Noise, `epoll-et` against itself: 1.00–1.00 in w. A difference within it has no \
                 verdict.",
                "- `uring-multishot buffers=64`: shared-cpu: not every thread had a CPU of its \
                 own, so that there is no verdict",
                "- `null` has no figures in w: unsupported: holds 7 at most",
            ]
        );
    }

    #[test]
    fn without_rungs_there_is_no_ladder() {
        let mut run = run();
        for contender in &mut run.matrix.backends {
            (contender.over, contender.changes) = (None, None);
        }
        assert!(tables(&run, "a-run").is_empty());
    }
}
