//! CPU per echo, and ratios to the baseline.

use super::kit::{Found, MOST_ROWS, Median, SPREAD, nothing_of, say_missing};
use crate::matrix::{BLOCKS_FOR_VERDICT, Workload};
use crate::report::chart::rows::{self, ChartRow, Drawn, Group};
use crate::report::chart::{Canvas, Chart};
use crate::report::colours::look;
use crate::report::query::{comparison, describe_load, in_complete_blocks, ratio_of_bounds};
use crate::results::Run;
use crate::rows::{Bounds, ComparisonRow, Pass, Status, Verdict};
use crate::statistics::Interval;
use crate::text::significant;
use crate::verdict::blocks::complete_blocks;
use crate::verdict::metric::{self, Metric};

/// A column that is compared.
pub struct RatioChart {
    metric: &'static Metric,
    name: &'static str,
    question: &'static str,
    unit: &'static str,
}

pub const CPU: RatioChart = RatioChart {
    metric: &metric::CPU,
    name: "cpu-ratio",
    question: "Which server takes more CPU for an echo than",
    unit: "server CPU per echo over the baseline's in the same block",
};

pub const P99: RatioChart = RatioChart {
    metric: &metric::P99,
    name: "p99-ratio",
    question: "Whose 99th percentile of latency is longer than that of",
    unit: "99th percentile over the baseline's in the same block",
};

/// A forest of ratios, with the margin behind it.
pub fn ratios(run: &Run, compared: &RatioChart) -> Found {
    let groups: Vec<(&Workload, Group)> = run
        .matrix
        .workloads
        .iter()
        .filter_map(|workload| Some((workload, ratios_of(run, compared, workload)?)))
        .collect();
    let baseline = &run.matrix.baseline;
    let title = format!("{} {baseline}?", compared.question);
    let charts = pictures(run, compared.name, &title, groups, |canvas, groups| {
        rows::draw(canvas, groups, compared.unit, true);
        canvas.note(&format!(
            "Band: the margin of what is alike. `?`: neither a difference from {baseline} nor that \
             they are alike is shown."
        ));
        let of_metric = run.comparisons.iter().filter(|row| row.metric == compared.metric.name);
        if of_metric.clone().any(|row| row.bounds == Bounds::Interval95) {
            canvas.note("Whiskers: 95 % interval over the blocks.");
        }
        if of_metric.clone().any(|row| row.bounds == Bounds::Range && row.blocks > 1) {
            canvas.note(&format!(
                "Below {BLOCKS_FOR_VERDICT} blocks whiskers are the range over them, and there is \
                 no verdict."
            ));
        }
    });
    let charts = charts.into_iter().map(|(mut canvas, workloads)| {
        say_not_compared(&mut canvas, run, compared, &workloads);
        canvas.finish()
    });
    let charts: Vec<Chart> = charts.collect();
    match charts.is_empty() {
        false => Ok(charts),
        true if run
            .trials
            .iter()
            .any(|row| row.status.is_usable() && row.pass == Some(Pass::Latency)) =>
        {
            let all: Vec<&str> =
                run.matrix.workloads.iter().map(|workload| workload.name.as_str()).collect();
            Err(not_compared(run, compared, &all).join(" "))
        }
        true => Err(nothing_of(run, Pass::Latency)),
    }
}

fn ratios_of(run: &Run, compared: &RatioChart, workload: &Workload) -> Option<Group> {
    let arms = run.matrix.arms();
    let found =
        |arm: String| comparison(run, &workload.name, compared.metric, &arm, &run.matrix.baseline);
    let comparisons: Vec<&ComparisonRow> = arms.filter_map(found).collect();
    let row = |row: &&ComparisonRow| ChartRow {
        label: row.arm.clone(),
        figures: ratio_of_bounds(row.ratio, row.ratio_low, row.ratio_high, None)
            + word(row.verdict),
        drawn: Drawn::Ratio { look: look(run, &row.arm), at: row.ratio, bounds: row.interval() },
    };
    let margin = 1.0 + compared.metric.margin_percent(&run.matrix.margins) / 100.0;
    let blocks = comparisons.first()?.blocks;
    Some(Group {
        heading: format!("{}, {blocks} block{}", workload.name, if blocks == 1 { "" } else { "s" }),
        rows: comparisons.iter().map(row).collect(),
        band: Some(Interval { low: 1.0 / margin, high: margin }),
    })
}

/// A verdict as it stands beside a ratio.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Lower => " lower",
        Verdict::Higher => " higher",
        Verdict::SharedCpu => " shared CPU",
        Verdict::SharedCore => " shared core",
        Verdict::SendLag => " send lag",
        Verdict::Alike => " alike",
        Verdict::NotResolved => " ?",
        Verdict::Restless => " restless",
        Verdict::CheckPassed
        | Verdict::CheckFailed
        | Verdict::FewBlocks
        | Verdict::Counted
        | Verdict::OneWalk => "",
    }
}

fn say_not_compared(canvas: &mut Canvas, run: &Run, compared: &RatioChart, workloads: &[&str]) {
    let verdicts = || {
        let rows = run.comparisons.iter().filter(|row| row.metric == compared.metric.name);
        rows.filter(|row| workloads.contains(&row.workload.as_str())).map(|row| row.verdict)
    };
    for (verdict, words) in [
        (Verdict::SharedCpu, "Shared CPU: not every thread had one of its own; no verdict."),
        (
            Verdict::SharedCore,
            "Shared core: its threads ran on hyperthreads of one core; no verdict.",
        ),
        (Verdict::SendLag, "Send lag: the client's own lateness differs; no verdict."),
        (Verdict::Restless, "Restless: the baseline's readings disagree or scatter; no verdict."),
    ] {
        if verdicts().any(|of| of == verdict) {
            canvas.note(words);
        }
    }
    say_missing(canvas, run, Pass::Latency, workloads);
    for line in not_compared(run, compared, workloads) {
        canvas.note(&line);
    }
}

/// Which workloads with trials have no ratio, and why.
fn not_compared(run: &Run, compared: &RatioChart, workloads: &[&str]) -> Vec<String> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for workload in workloads {
        let rows = || {
            run.trials
                .iter()
                .filter(|row| row.pass == Some(Pass::Latency) && row.workload == *workload)
        };
        let is_compared = run
            .comparisons
            .iter()
            .any(|row| row.metric == compared.metric.name && row.workload == *workload);
        if is_compared || rows().next().is_none() {
            continue;
        }
        let why = if rows().any(|row| row.status == Status::ClientLimited) {
            "the client was the limit in some block"
        } else if complete_blocks(&run.trials, Pass::Latency, workload).is_empty() {
            "no block passed the gates"
        } else {
            "no two arms have the figure"
        };
        match reasons.iter_mut().find(|(reason, _)| *reason == why) {
            Some((_, workloads)) => workloads.push(workload),
            None => reasons.push((why, vec![workload])),
        }
    }
    let line = |(why, workloads): (&str, Vec<&str>)| {
        format!("Not compared, because {why}: {}.", workloads.join(", "))
    };
    reasons.into_iter().map(line).collect()
}

/// Returns the CPU time of an echo in ns.
pub fn absolute(run: &Run) -> Found {
    let of_workload = |workload: &'_ Workload| -> Option<Group> {
        let row = |arm: String| {
            let rows = in_complete_blocks(run, &workload.name, &arm);
            let Median { value: middle, interval: bounds } =
                Median::of(rows.iter().filter_map(|row| row.server_cpu_ns_per_echo).collect())?;
            let range = bounds.map_or(String::new(), |Interval { low, high }| {
                format!(" ({}–{})", significant(low), significant(high))
            });
            Some(ChartRow {
                figures: format!("{}{range}", significant(middle)),
                drawn: Drawn::Bar { look: look(run, &arm), to: middle, bounds },
                label: arm,
            })
        };
        let rows: Vec<ChartRow> =
            run.matrix.backends.iter().filter_map(|contender| row(contender.name())).collect();
        let heading = format!("{}: {}", workload.name, describe_load(workload));
        (!rows.is_empty()).then_some(Group { heading, rows, band: None })
    };
    let groups: Vec<(&Workload, Group)> = run
        .matrix
        .workloads
        .iter()
        .filter_map(|workload| Some((workload, of_workload(workload)?)))
        .collect();
    let title = "How much CPU does the server take for an echo?";
    let charts = pictures(run, "cpu", title, groups, |canvas, groups| {
        rows::draw(
            canvas,
            groups,
            "server CPU, ns per echo; each workload has an axis of its own",
            false,
        );
        let is_spread = |row: &ChartRow| matches!(row.drawn, Drawn::Bar { bounds: Some(_), .. });
        if groups.iter().flat_map(|group| &group.rows).any(is_spread) {
            canvas.note(SPREAD);
        }
    });
    let charts = charts.into_iter().map(|(mut canvas, workloads)| {
        say_missing(&mut canvas, run, Pass::Latency, &workloads);
        canvas.finish()
    });
    let charts: Vec<Chart> = charts.collect();
    if charts.is_empty() { Err(nothing_of(run, Pass::Latency)) } else { Ok(charts) }
}

/// One picture, or one for each workload if there are many rows; each with the workloads of which
/// it has to say what is missing.
pub fn pictures<'a>(
    run: &'a Run,
    name: &str,
    title: &str,
    groups: Vec<(&'a Workload, Group)>,
    draw: impl Fn(&mut Canvas, &[Group]),
) -> Vec<(Canvas, Vec<&'a str>)> {
    let rows: usize = groups.iter().map(|(_, group)| group.rows.len()).sum();
    let picture = |name: &str, title: &str, groups: &[Group], workloads: Vec<&'a str>| {
        let mut canvas = Canvas::new(name, title);
        draw(&mut canvas, groups);
        (canvas, workloads)
    };
    let names = |workloads: &mut dyn Iterator<Item = &'a Workload>| -> Vec<&'a str> {
        workloads.map(|workload| workload.name.as_str()).collect()
    };
    if rows == 0 {
        return Vec::new();
    }
    if rows <= MOST_ROWS {
        let groups: Vec<Group> = groups.into_iter().map(|(_, group)| group).collect();
        return vec![picture(name, title, &groups, names(&mut run.matrix.workloads.iter()))];
    }
    // Workloads without a picture of their own are spoken of in the first.
    let has_none = |workload: &&Workload| groups.iter().all(|(of, _)| of.name != workload.name);
    let mut without = names(&mut run.matrix.workloads.iter().filter(has_none));
    let of_workload = |(workload, group): (&'a Workload, Group)| {
        let mut of = std::mem::take(&mut without);
        of.push(&workload.name);
        let (name, title) =
            (format!("{name}-{}", workload.name), format!("{title} {}", workload.name));
        picture(&name, &title, &[group], of)
    };
    groups.into_iter().map(of_workload).collect()
}
