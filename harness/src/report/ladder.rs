//! The ladder: arms of which each stands on another and changes one thing, and what that one thing
//! does.

use std::collections::BTreeSet;

use itertools::Itertools as _;

use super::about::short_revision;
use super::query::{absent, counted_trial};
use super::section::Body;
use super::table::{MISSING, Table, cell};
use crate::results::Run;
use crate::rows::{KERNEL_SUM, NEVER_USED, USER_SUM, Verdict};
use crate::text::{integer, significant};
use crate::verdict::memory;

/// Shows what each rung changes and what can be counted, and what is missing; nothing for a matrix
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
    Body::default().notes(source).then(counts(run)).then(Body::default().notes(notes(run)))
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

/// Says which arms have no figures or no verdict, and why.
fn notes(run: &Run) -> String {
    let mut text = String::new();
    for (verdict, why) in [
        (Verdict::SharedCpu, "shared-cpu: not every thread had a CPU of its own"),
        (Verdict::SharedCore, "shared-core: it ran on hyperthreads of one core"),
    ] {
        let rows = run.trials.iter().filter(|row| run.matrix.no_verdict(row) == Some(verdict));
        let without: BTreeSet<&str> = rows.map(|row| row.arm.as_str()).collect();
        let arms = run.matrix.arms();
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
    use crate::rows::{MemoryRow, Pass, Status, TrialRow};

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
    }

    #[test]
    fn what_is_missing_is_said_once_with_its_reason() {
        let notes = notes(&run());
        let lines: Vec<&str> = notes.lines().collect();
        assert_eq!(
            lines,
            [
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
