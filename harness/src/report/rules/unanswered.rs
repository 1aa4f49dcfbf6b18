//! Says what a run does not answer, and why. Silence is not the answer that nothing differs.

use super::rule::Rule;
use crate::matrix::{BLOCKS_FOR_VERDICT, Workload};
use crate::report::query::{absences, comparison, others};
use crate::report::section::GATES_TITLE;
use crate::results::{Run, RunState};
use crate::rows::{Pass, Status, TrialRow, Verdict};
use crate::text::{names, number};
use crate::verdict::blocks::complete_blocks;
use crate::verdict::metric::{CPU, Metric, P99};

/// As many arms are named with the ratios that were seen of them.
const NAMED: usize = 6;

/// Paragraphs in Markdown: what was seen and has no verdict, what has no answer, and where there
/// are no rules at all, why.
pub fn lines(run: &Run, rules: &[Rule]) -> Vec<String> {
    if let Some(why) = nothing(run) {
        return vec![format!("**Nothing is decided:** {why}")];
    }
    let first = without_baseline(run)
        .map(|why| format!("**Not compared:** {why}"))
        .or_else(|| too_few(run));
    let mut lines: Vec<String> =
        [first, turned_away(run), not_reached(run)].into_iter().flatten().collect();
    if lines.is_empty() && rules.is_empty() {
        lines.push(format!("**Nothing is decided:** {}", why_no_rule(run)));
    }
    lines
}

/// Why nothing follows from a run, if that is so.
fn nothing(run: &Run) -> Option<String> {
    if run.trials.is_empty() {
        return Some(
            "trials.csv is missing or has no row; only a trial's row there says whether its figures count."
                .to_owned(),
        );
    }
    (!run.trials.iter().any(|row| row.status.is_usable())).then(|| {
        format!(
            "no trial of {} gave figures that may be used. Each has its reason under “{GATES_TITLE}”.",
            run.trials.len()
        )
    })
}

fn latency_rows(run: &Run) -> impl Iterator<Item = &TrialRow> {
    run.trials.iter().filter(|row| row.pass == Some(Pass::Latency))
}

fn whole_blocks(run: &Run, workload: &Workload) -> usize {
    complete_blocks(&run.trials, Pass::Latency, &workload.name).len()
}

/// Whether so many trials of a workload were turned away that there is no ratio worth a look.
fn is_lost(run: &Run, workload: &Workload) -> bool {
    let mut of_workload = latency_rows(run).filter(|row| row.workload == workload.name);
    of_workload.any(|row| row.status == Status::Rejected) && whole_blocks(run, workload) < 2
}

/// The ratios that were seen over blocks that are too few for a verdict.
fn too_few(run: &Run) -> Option<String> {
    let is_short = |workload: &&Workload| {
        (1..BLOCKS_FOR_VERDICT).contains(&whole_blocks(run, workload)) && !is_lost(run, workload)
    };
    let short: Vec<&Workload> = run.matrix.workloads.iter().filter(is_short).collect();
    let counts = || short.iter().map(|workload| whole_blocks(run, workload));
    let blocks = match (counts().min()?, counts().max()?) {
        (1, 1) => "1 block".to_owned(),
        (least, most) if least == most => format!("{least} blocks"),
        (least, most) => format!("{least} to {most} blocks"),
    };
    let place = match short.len() == run.matrix.workloads.len() {
        true => String::new(),
        false => format!(" in {}", names(short.iter().map(|workload| workload.name.as_str()))),
    };
    let of_cpu = seen(run, &short, &CPU, "the CPU");
    let of_p99 = seen(run, &short, &P99, "the p99 latency");
    let seen = match [of_cpu, of_p99].into_iter().flatten().collect::<Vec<_>>() {
        none if none.is_empty() => format!("No ratio was seen either: {}", why_no_rule(run)),
        seen => format!("Seen: {}.", seen.join("; ")),
    };
    Some(format!(
        "**CPU and latency: no verdict{place}** from {blocks} ({BLOCKS_FOR_VERDICT} are needed: {}). {seen}",
        advice(run)
    ))
}

/// How to come by more blocks.
fn advice(run: &Run) -> String {
    let asked = run.matrix.latency.as_ref().map_or(0, |latency| latency.blocks as usize);
    if asked >= BLOCKS_FOR_VERDICT {
        return unfinished(run).to_owned();
    }
    format!(
        "`scripts/run_matrix.sh standard` has them, or set `blocks = {BLOCKS_FOR_VERDICT}` in the matrix"
    )
}

/// `epoll-document` takes 1.80 to 8.50 times the CPU of `epoll-et`, `uring-multishot` 0.90 to 1.20
/// times: between which ratios each arm lies over the workloads, the farthest first.
fn seen(run: &Run, workloads: &[&Workload], metric: &Metric, noun: &str) -> Option<String> {
    let baseline = &run.matrix.baseline;
    let of_arm = |arm: String| {
        let rows =
            workloads.iter().filter_map(|of| comparison(run, &of.name, metric, &arm, baseline));
        let ratios: Vec<f64> =
            rows.filter(|row| row.verdict == Verdict::Range).map(|row| row.ratio).collect();
        let (low, high) =
            (ratios.iter().copied().reduce(f64::min)?, ratios.iter().copied().reduce(f64::max)?);
        Some((arm, low, high))
    };
    let mut arms: Vec<(String, f64, f64)> = others(run).filter_map(of_arm).collect();
    let distance = |(_, low, high): &(String, f64, f64)| low.ln().abs().max(high.ln().abs());
    arms.sort_by(|a, b| distance(b).total_cmp(&distance(a)));
    let range = |low: f64, high: f64| match (number(low), number(high)) {
        (low, high) if low == high => format!("{low} times"),
        (low, high) => format!("{low} to {high} times"),
    };
    let in_words = |(index, (arm, low, high)): (usize, &(String, f64, f64))| match index {
        0 => format!("`{arm}` {} {} {noun} of `{baseline}`", metric.words.verb, range(*low, *high)),
        _ => format!("`{arm}` {}", range(*low, *high)),
    };
    let mut named: Vec<String> = arms.iter().take(NAMED).enumerate().map(in_words).collect();
    if let Some([first, .., last]) = arms.get(NAMED..).filter(|rest| rest.len() > 1) {
        let nearer = distance(first).max(distance(last));
        named.push(format!(
            "{} others at most {} times either way",
            arms.len() - NAMED,
            number(nearer.exp())
        ));
    } else if let Some((arm, low, high)) = arms.get(NAMED) {
        named.push(format!("`{arm}` {}", range(*low, *high)));
    }
    (!named.is_empty()).then(|| named.join(", "))
}

/// Workloads that a run has not come to.
fn not_reached(run: &Run) -> Option<String> {
    let workloads = &run.matrix.workloads;
    let is_missing =
        |workload: &&Workload| !latency_rows(run).any(|row| row.workload == workload.name);
    let missing = workloads.iter().filter(is_missing).count();
    (missing > 0 && run.state != RunState::Finished && run.matrix.passes().contains(&Pass::Latency))
        .then(|| {
            format!(
                "**Not measured:** latency and CPU in {missing} of {} workloads: {}.",
                workloads.len(),
                unfinished(run)
            )
        })
}

/// Says why the rest is missing, and the next step.
fn unfinished(run: &Run) -> &'static str {
    match run.state {
        RunState::UnderWay => "the run goes on",
        RunState::BrokenOff => {
            "the run was broken off, and `ringmark run --resume` goes on with it"
        }
        RunState::Finished => {
            "the other blocks lost a trial to the gates; `ringmark doctor` says what disturbs this machine"
        }
    }
}

/// Workloads of which hardly anything is left.
fn turned_away(run: &Run) -> Option<String> {
    let lost: Vec<&str> = (run.matrix.workloads.iter())
        .filter(|workload| is_lost(run, workload))
        .map(|workload| workload.name.as_str())
        .collect();
    let rejected = latency_rows(run).filter(|row| row.status == Status::Rejected).count();
    (!lost.is_empty()).then(|| {
        format!(
            "**Not answered:** what the servers take in latency and CPU in {}, where fewer than two blocks are whole: {rejected} \
             of {} latency trials were turned away. Each has its reason under “{GATES_TITLE}”; `ringmark doctor` says what \
             disturbs this machine.",
            names(lost),
            latency_rows(run).count()
        )
    })
}

/// Why the baseline has no latency and CPU, if it has none.
fn without_baseline(run: &Run) -> Option<String> {
    let all = absences(run, Pass::Latency);
    let absence = all.iter().find(|absence| absence.arm() == run.matrix.baseline)?;
    Some(format!("the baseline `{}` has no figures {}.", absence.arm(), absence.why()))
}

/// Why a run with figures supports no rule.
fn why_no_rule(run: &Run) -> String {
    let baseline = &run.matrix.baseline;
    let passes = run.matrix.passes();
    if others(run).next().is_none() {
        return format!("`{baseline}` is the only arm, and there is none to compare it with.");
    }
    if ![Pass::Latency, Pass::Memory, Pass::Scale].iter().any(|pass| passes.contains(pass)) {
        return "neither CPU nor latency nor memory was measured. The calls that were counted stand below."
            .to_owned();
    }
    if latency_rows(run).any(|row| row.shared_cpu) {
        return "not every thread had a CPU of its own, so that CPU and latency have no verdict."
            .to_owned();
    }
    "no difference and no likeness has a verdict; the tables have what was measured.".to_owned()
}
