//! Says what a run does not answer, and why. Silence is not the answer that nothing differs.

use itertools::Itertools as _;

use super::rule::Rule;
use crate::matrix::{BLOCKS_FOR_VERDICT, Workload};
use crate::report::query::{absences, comparison, others};
use crate::report::section::GATES_TITLE;
use crate::results::{Run, RunState};
use crate::rows::{Pass, Status, TrialRow, Verdict};
use crate::statistics::Interval;
use crate::text::{quoted_list, significant};
use crate::verdict::blocks::complete_blocks;
use crate::verdict::metric::{CPU, Metric, P99};

/// The most arms that are named with the ratios that were seen of them.
const NAMED: usize = 6;

/// Returns paragraphs in Markdown: what was seen and has no verdict, what has no answer, and why
/// there are no rules, if there are none.
pub fn lines(run: &Run, rules: &[Rule]) -> Vec<String> {
    if let Some(why) = nothing(run) {
        return vec![format!("**Nothing is decided:** {why}")];
    }
    let first = without_baseline(run)
        .map(|why| format!("**Not compared:** {why}"))
        .or_else(|| too_few(run));
    let mut lines: Vec<String> =
        [first, rejected(run), not_reached(run)].into_iter().flatten().collect();
    if lines.is_empty() && rules.is_empty() {
        lines.push(format!("**Nothing is decided:** {}", why_no_rule(run)));
    }
    lines
}

/// Says why nothing follows from a run, if that is so.
fn nothing(run: &Run) -> Option<String> {
    if run.trials.is_empty() {
        return Some(
            "trials.csv is missing or has no row; only a trial's row there says whether its \
             figures count."
                .to_owned(),
        );
    }
    let is_usable = run.trials.iter().any(|row| row.status.is_usable());
    (!is_usable).then(|| {
        format!(
            "no trial of {} gave figures that may be used. Each has its reason under \
             “{GATES_TITLE}”.",
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

/// Returns whether so many trials of a workload were rejected that there is no ratio worth a look.
fn is_lost(run: &Run, workload: &Workload) -> bool {
    let mut of_workload = latency_rows(run).filter(|row| row.workload == workload.name);
    of_workload.any(|row| row.status == Status::Rejected) && whole_blocks(run, workload) < 2
}

/// Says the ratios that were seen over blocks that are too few for a verdict.
fn too_few(run: &Run) -> Option<String> {
    let is_short = |workload: &&Workload| {
        (1..BLOCKS_FOR_VERDICT).contains(&whole_blocks(run, workload)) && !is_lost(run, workload)
    };
    let short = run.matrix.workloads.iter().filter(is_short).collect_vec();
    let counts = short.iter().map(|workload| whole_blocks(run, workload));
    let blocks = match counts.minmax().into_option()? {
        (1, 1) => "1 block".to_owned(),
        (least, most) if least == most => format!("{least} blocks"),
        (least, most) => format!("{least} to {most} blocks"),
    };
    let place = if short.len() == run.matrix.workloads.len() {
        String::new()
    } else {
        format!(" in {}", quoted_list(short.iter().map(|workload| workload.name.as_str())))
    };
    let [cpu, p99] = [(&CPU, "the CPU"), (&P99, "the p99 latency")]
        .map(|(metric, noun)| seen(run, &short, metric, noun));
    let ratios = cpu.into_iter().chain(p99).join("; ");
    let seen = if ratios.is_empty() {
        format!("No ratio was seen either: {}", why_no_rule(run))
    } else {
        format!("Seen: {ratios}.")
    };
    Some(format!(
        "**CPU and latency: no verdict{place}** from {blocks} ({BLOCKS_FOR_VERDICT} are needed: \
         {}). {seen}",
        advice(run)
    ))
}

/// Says how to get more blocks.
fn advice(run: &Run) -> String {
    let asked = run.matrix.latency.as_ref().map_or(0, |latency| latency.blocks as usize);
    if asked >= BLOCKS_FOR_VERDICT {
        return unfinished(run).to_owned();
    }
    format!(
        "`scripts/run_matrix.sh standard` has them, or set `blocks = {BLOCKS_FOR_VERDICT}` in the \
         matrix"
    )
}

/// Says between which ratios each arm lies over the workloads, the farthest first: `epoll-document`
/// takes 1.80 to 8.50 times the CPU of `epoll-et`, `uring-multishot` 0.90 to 1.20 times.
fn seen(run: &Run, workloads: &[&Workload], metric: &Metric, noun: &str) -> Option<String> {
    let baseline = &run.matrix.baseline;
    let arms = others(run).filter_map(|arm| {
        let ratios = (workloads.iter())
            .filter_map(|workload| comparison(run, &workload.name, metric, &arm, baseline))
            .filter(|row| row.verdict == Verdict::Range)
            .map(|row| row.ratio);
        Some((arm.clone(), Interval::range(&ratios.collect_vec())?))
    });
    let arms =
        arms.sorted_by(|(_, a), (_, b)| b.log_factor().total_cmp(&a.log_factor())).collect_vec();
    // A single one more is named too.
    let named = if arms.len() == NAMED + 1 { arms.len() } else { arms.len().min(NAMED) };
    let mut clauses = (arms[..named].iter().enumerate())
        .map(|(index, (arm, ratios))| match index {
            0 => {
                let verb = metric.words.verb;
                format!("`{arm}` {verb} {} {noun} of `{baseline}`", times(ratios))
            }
            _ => format!("`{arm}` {}", times(ratios)),
        })
        .collect_vec();
    if let Some((_, farthest)) = arms.get(named) {
        clauses.push(format!(
            "{} others at most {} times either way",
            arms.len() - named,
            significant(farthest.log_factor().exp())
        ));
    }
    (!clauses.is_empty()).then(|| clauses.join(", "))
}

fn times(ratios: &Interval) -> String {
    let [low, high] = [ratios.low, ratios.high].map(significant);
    if low == high { format!("{low} times") } else { format!("{low} to {high} times") }
}

/// Says which workloads a run has not come to.
fn not_reached(run: &Run) -> Option<String> {
    if run.state == RunState::Finished || !run.matrix.passes().contains(&Pass::Latency) {
        return None;
    }
    let workloads = &run.matrix.workloads;
    let is_missing =
        |workload: &&Workload| !latency_rows(run).any(|row| row.workload == workload.name);
    let missing = workloads.iter().filter(is_missing).count();
    (missing > 0).then(|| {
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
            "the other blocks lost a trial to the gates; `ringmark doctor` says what disturbs this \
             machine"
        }
    }
}

/// Says which workloads lost nearly all of their blocks.
fn rejected(run: &Run) -> Option<String> {
    let lost = run.matrix.workloads.iter().filter(|workload| is_lost(run, workload));
    let lost = lost.map(|workload| workload.name.as_str()).collect_vec();
    let rejected = latency_rows(run).filter(|row| row.status == Status::Rejected).count();
    (!lost.is_empty()).then(|| {
        format!(
            "**Not answered:** what the servers take in latency and CPU in {}, where fewer than \
             two blocks are whole: {rejected} of {} latency trials were turned away. Each has its \
             reason under “{GATES_TITLE}”; `ringmark doctor` says what disturbs this machine.",
            quoted_list(lost),
            latency_rows(run).count()
        )
    })
}

/// Says why the baseline has no latency and CPU, if it has none.
fn without_baseline(run: &Run) -> Option<String> {
    let all = absences(run, Pass::Latency);
    let absence = all.iter().find(|absence| absence.arm() == run.matrix.baseline)?;
    Some(format!("the baseline `{}` has no figures {}.", absence.arm(), absence.why()))
}

/// Says why a run with figures supports no rule.
fn why_no_rule(run: &Run) -> String {
    let baseline = &run.matrix.baseline;
    let passes = run.matrix.passes();
    if others(run).next().is_none() {
        return format!("`{baseline}` is the only arm, and there is none to compare it with.");
    }
    if ![Pass::Latency, Pass::Memory, Pass::Scale].iter().any(|pass| passes.contains(pass)) {
        return "neither CPU nor latency nor memory was measured. The calls that were counted stand \
                below."
            .to_owned();
    }
    if latency_rows(run).any(|row| row.shared_cpu) {
        return "not every thread had a CPU of its own, so that CPU and latency have no verdict."
            .to_owned();
    }
    "no difference and no likeness has a verdict; the tables have what was measured.".to_owned()
}
