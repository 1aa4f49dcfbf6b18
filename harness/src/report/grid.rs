//! The verdicts of a run: arms by workloads, a table for each metric.

use std::time::Duration;

use itertools::Itertools as _;

use super::finding::sized;
use super::query::{bounded, decimals, in_groups};
use super::section::Body;
use super::table::{Cell, MISSING, Table};
use crate::results::Run;
use crate::rows::{ComparisonRow, Verdict};
use crate::statistics::median;
use crate::text::significant;
use crate::verdict::metric::{self, Metric};

/// The explanation of the signs.
const LEGEND: &str = "\
▲ higher, ▼ lower: shown at 5 % of all comparisons of that metric. ≈ alike within the margin. ? \
not resolved; behind it stands the difference that this run would have found in four of five \
cases, in percent or as a multiple. · no verdict; `comparisons.csv` says why. ✓ or ✗: whether the \
baseline's readings agree with each other. In brackets: the 95 % interval, or the range below six \
blocks. `comparisons.csv` has Student's interval, the absolute difference, p-values, and how many \
blocks a verdict can spare.\n";

/// The explanation of known work.
const KNOWN_WORK: &str = "\nA server counts its work from clock to clock. What reading the clock \
costs before and after is found too, but is not in that count.\n";

/// Returns every verdict. A metric of counts has ratios without one.
pub fn tables(run: &Run) -> Body {
    opening(run).then(others(run))
}

/// Returns the verdicts on the first metric that has any, and the same in a sentence for each
/// workload.
pub fn opening(run: &Run) -> Body {
    let Some((metric, heading, table)) = all(run).next() else {
        return Body::default().notes(nothing(run));
    };
    Body::default()
        .heading(&heading)
        .table(table)
        .list(&sentences(run, metric))
        .notes(format!("\n{LEGEND}{}", resolution(run)))
}

/// Returns the verdicts on the other metrics, and against the arms that others stand on.
pub fn others(run: &Run) -> Body {
    let tables =
        all(run).skip(1).map(|(_, heading, table)| Body::default().heading(&heading).table(table));
    tables.fold(Body::default(), Body::then).then(known_work(run))
}

/// Returns up to two tables of each metric: over the baseline, and over other arms.
fn all(run: &Run) -> impl Iterator<Item = (&'static Metric, String, Table)> {
    let both = metric::all().flat_map(|metric| [(metric, true), (metric, false)]);
    both.map(|(metric, is_over_baseline)| {
        let over =
            if is_over_baseline { &run.matrix.baseline } else { "the arm that it stands on" };
        (metric, title(metric, over), table(run, metric, is_over_baseline))
    })
    .filter(|(.., table)| !table.is_empty())
}

/// Names more arms of one verdict than these by their number and the farthest of them.
const NAMED: usize = 3;

/// Says of each workload which arms are lower, higher, alike or without a verdict.
fn sentences(run: &Run, metric: &Metric) -> String {
    let has_verdict = |row: &&ComparisonRow| {
        let is_check = matches!(row.verdict, Verdict::CheckPassed | Verdict::CheckFailed);
        row.metric == metric.name && row.baseline == run.matrix.baseline && !is_check
    };
    let rows = run.comparisons.iter().filter(has_verdict);
    let by_workload = in_groups(rows.map(|row| (&row.workload, row)));
    let sentence = |(workload, mut rows): (&String, Vec<&ComparisonRow>)| {
        rows.sort_by_key(|row| row.verdict);
        let by_verdict = in_groups(rows.into_iter().map(|row| (row.verdict, row)));
        let parts = by_verdict.into_iter().map(|(verdict, rows)| part(verdict, &rows));
        format!("- **{workload}** {}.\n", parts.collect_vec().join("; "))
    };
    by_workload.into_iter().map(sentence).collect()
}

fn part(verdict: Verdict, rows: &[&ComparisonRow]) -> String {
    let names =
        |rows: &[&ComparisonRow]| rows.iter().map(|row| format!("`{}`", row.arm)).join(", ");
    let words = verdict.words();
    let by_ratio =
        |one: &&&ComparisonRow, other: &&&ComparisonRow| one.ratio.total_cmp(&other.ratio);
    let farthest = match verdict {
        Verdict::Lower => rows.iter().min_by(by_ratio),
        Verdict::Higher => rows.iter().max_by(by_ratio),
        _ => None,
    };
    match farthest {
        _ if rows.len() <= NAMED => format!("{words}: {}", names(rows)),
        Some(row) => {
            format!("{words}: {}, `{}` the most ({})", rows.len(), row.arm, ratio(row))
        }
        None => format!("{words}: {}", rows.len()),
    }
}

/// Says in one line how small a difference in CPU the run finds.
fn resolution(run: &Run) -> String {
    let of_cpu = run.comparisons.iter().filter(|row| row.metric == metric::CPU.name);
    let percents = in_groups(
        of_cpu
            .filter(|row| row.verdict.is_judged())
            .filter_map(|row| Some((&row.workload, row.detectable_percent?))),
    );
    let each = percents
        .into_iter()
        .filter_map(|(workload, mut percents)| {
            Some(format!("{} % in `{workload}`", significant(median(&mut percents)?)))
        })
        .join(", ");
    if each.is_empty() {
        return String::new();
    }
    let time = run.time().map_or(String::new(), |time| format!(" in {} min", minutes(time)));
    format!(
        "\nThis run finds{time} a difference in {} of these sizes in four of five cases, at the \
         median over the pairs: {each}.\n",
        metric::CPU.words.noun
    )
}

/// Writes one decimal.
fn minutes(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() / 60.0)
}

/// Returns, for each arm that works longer than another and differs in nothing else, what it worked
/// by its own count and what was found.
fn known_work(run: &Run) -> Body {
    let worked = |workload: &str, arm: &str| {
        let rows = run.trials.iter().filter(|row| row.workload == workload && row.arm == arm);
        median(&mut rows.filter_map(|row| row.worked_ns_per_echo).collect_vec())
    };
    let mut table = Table::new(
        3,
        &["workload", "arm", "verdict", "worked ns/echo", "which is %", "found ns/echo (95 %)"],
    );
    for arm in run.matrix.backends.iter().filter(|arm| arm.differs_in_work_alone()) {
        let name = arm.name();
        let of_arm = run.comparisons.iter().filter(|row| row.arm == name);
        for row in of_arm.filter(|row| row.metric == metric::CPU.name) {
            let Some(worked_ns) = worked(&row.workload, &name) else { continue };
            table.push(vec![
                row.workload.clone(),
                name.clone(),
                row.verdict.words().to_owned(),
                significant(worked_ns),
                significant(100.0 * worked_ns / row.baseline_median),
                bounded(row.difference, row.difference_low, row.difference_high, 0),
            ]);
        }
    }
    if table.is_empty() {
        return Body::default();
    }
    Body::default().heading("Known work, and what was found of it").table(table).notes(KNOWN_WORK)
}

/// Says why nothing is compared.
fn nothing(run: &Run) -> String {
    let why = match &run.matrix.backends[..] {
        _ if run.trials.is_empty() => "trials.csv is missing or has no row".to_owned(),
        [only] => format!("`{}` is the only arm", only.name()),
        _ if run.trials.iter().any(|row| row.status.is_usable()) => {
            "no block has figures of both arms of a pair".to_owned()
        }
        _ => "no trial gave figures that may be used".to_owned(),
    };
    format!("Nothing is compared: {why}.\n")
}

fn title(metric: &Metric, over: &str) -> String {
    let better = match metric.better {
        Some(Verdict::Lower) => ", lower is better",
        Some(_) => ", higher is better",
        None => "",
    };
    format!("`{}` over {over}: {}{better}", metric.name, metric.words.noun)
}

fn table(run: &Run, metric: &Metric, is_over_baseline: bool) -> Table {
    let is_asked = |row: &&ComparisonRow| {
        row.metric == metric.name && (row.baseline == run.matrix.baseline) == is_over_baseline
    };
    let rows = run.comparisons.iter().filter(is_asked).collect_vec();
    let workloads = rows.iter().map(|row| row.workload.as_str()).unique().collect_vec();
    let names: &[&str] = if is_over_baseline { &["arm"] } else { &["arm", "over"] };
    let heading = names.iter().copied().chain(workloads.iter().copied()).collect_vec();
    let mut table = Table::new(names.len(), &heading);
    for (arm, baseline) in rows.iter().map(|row| (&row.arm, &row.baseline)).unique() {
        let is_of_pair = |row: &&&ComparisonRow| row.arm == *arm && row.baseline == *baseline;
        let of_pair = rows.iter().filter(is_of_pair).collect_vec();
        let cells = workloads.iter().map(|workload| {
            let row = of_pair.iter().find(|row| row.workload == *workload);
            row.map_or_else(|| Cell::from(MISSING.to_owned()), |row| cell(row, metric))
        });
        let names = [arm, baseline].into_iter().take(names.len());
        table.push_cells(names.map(|name| Cell::from(name.clone())).chain(cells).collect());
    }
    table
}

fn cell(row: &ComparisonRow, metric: &Metric) -> Cell {
    Cell { text: text(row), class: class(row, metric), hover: hover(row, metric) }
}

/// Writes a ratio, its bounds, and the sign of its verdict.
pub fn text(row: &ComparisonRow) -> String {
    let percent =
        |value: Option<f64>| value.map_or(String::new(), |value| format!(" {value:.1} %"));
    let sign = match row.verdict {
        Verdict::Alike => format!("≈{}", percent(row.margin_percent)),
        Verdict::NotResolved => {
            row.detectable_percent.map_or("?".to_owned(), |percent| format!("? {}", sized(percent)))
        }
        verdict => glyph(verdict).unwrap_or("·").to_owned(),
    };
    format!("{} {sign}", ratio(row)).trim_end().to_owned()
}

/// Returns the sign of a verdict; none if it is withheld.
pub fn glyph(verdict: Verdict) -> Option<&'static str> {
    Some(match verdict {
        Verdict::Higher => "▲",
        Verdict::Lower => "▼",
        Verdict::Alike => "≈",
        Verdict::NotResolved => "?",
        Verdict::CheckPassed => "✓",
        Verdict::CheckFailed => "✗",
        Verdict::FewBlocks | Verdict::Counted | Verdict::OneWalk => "",
        _ => return None,
    })
}

/// Writes a ratio and its bounds. One without bounds has three decimals below 1.1.
pub fn ratio(row: &ComparisonRow) -> String {
    let ComparisonRow { ratio, ratio_low: low, ratio_high: high, .. } = *row;
    let decimals = if low == high { decimals(1.0, ratio) } else { decimals(low, high) };
    bounded(ratio, low, high, decimals)
}

fn class(row: &ComparisonRow, metric: &Metric) -> &'static str {
    match (row.verdict, metric.better) {
        (Verdict::CheckFailed, _) => "worse",
        (Verdict::Alike, _) => "alike",
        (verdict, Some(better)) if verdict.is_difference() => {
            if verdict == better {
                "better"
            } else {
                "worse"
            }
        }
        _ => "",
    }
}

fn hover(row: &ComparisonRow, metric: &Metric) -> String {
    let unit = metric.words.unit;
    let mut parts = vec![format!(
        "{}; {} {unit} against {}; difference {} ({} to {}) {unit}",
        row.verdict.words(),
        significant(row.arm_median),
        significant(row.baseline_median),
        significant(row.difference),
        significant(row.difference_low),
        significant(row.difference_high)
    )];
    if let (Some(low), Some(high)) = (row.mean_ratio_low, row.mean_ratio_high) {
        parts.push(format!("by Student's t {:.3} ({low:.3}–{high:.3})", row.mean_ratio));
    }
    if let (Some(p_value), Some(adjusted)) = (row.p_value, row.p_adjusted) {
        parts.push(format!("p {}, adjusted {}", significant(p_value), significant(adjusted)));
    }
    let spare = row.blocks_to_spare.map_or(String::new(), |spare| format!(", {spare} to spare"));
    parts.push(format!("{} blocks{spare}", row.blocks));
    if let Some(percent) = row.detectable_percent {
        parts.push(format!("{} % would have been found", significant(percent)));
    }
    parts.join("; ")
}
