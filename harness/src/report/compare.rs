//! `ringmark compare`: two runs side by side.

mod document;
mod figures;
mod judgement;
mod obstacles;
mod origin;
mod pair;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::builder::PossibleValuesParser;

use super::compare::figures::{Compared, Figure};
use super::compare::judgement::Judgement;
use super::compare::pair::{Asked, Pair};
use super::query::ratio_of_bounds;
use super::table::{MISSING, Table};
use crate::results::Run;
use crate::rows::{Bounds, Verdict};
use crate::statistics::Interval;
use crate::status::ExitStatus;
use crate::terminal;
use crate::text::three_digits;
use crate::verdict::estimate::Estimate;
use crate::verdict::metric::{self, Metric};

const AFTER: &str = "\
Each ratio is B/A of geometric means over the blocks that count. The two runs were made at \
different times, and the same server can differ by tens of percent between runs. The plain B/A \
ratio therefore has an interval (Welch's t on logarithms) and no verdict. The verdict is on the \
ratio relative to the baseline: the arm's figure over the baseline's within the blocks of each run.

--fail-if-slower acts on the ratio relative to the baseline, so a bad hour of the machine does not \
fail it. It cannot see a change that slows all arms alike, the baseline included: choose a \
baseline \
that does not change. It acts on calls per echo only with one connection and one message in \
flight, where they are exact. It acts on memory per connection by the intervals of the slopes. One \
interval in twenty misses: give a margin that matters, not 0%.

The command ends with 3 rather than judge a part as the whole: if a run is not complete; if a \
figure without a verdict reads worse than the bound over its whole range; if B lacks arms or \
workloads of A; if a figure has a verdict within one run and none here; if both runs measured a \
kind of figure (CPU, latency, throughput, calls, memory) and none of it can be judged. A verdict \
takes six blocks. --metric and --arm name what you ask for.

Exit status:
  0  the runs were compared; with --fail-if-slower: all that was asked for was judged, and nothing \
is slower
  1  a run cannot be read
  2  the command line is wrong
  3  the runs cannot be compared; with --fail-if-slower: not all could be judged, and nothing \
judged is slower
  4  a run has no figures
  5  something is slower

Examples:
  ringmark compare results/OLD-KERNEL results/NEW-KERNEL
  ringmark compare before after --metric server_cpu_ns_per_echo --arm uring-multishot
  ringmark compare main branch --fail-if-slower 10%
  ringmark compare main branch --format json";

/// Puts two runs side by side: two kernels, machines, revisions, or versions of a server.
#[derive(clap::Args, Debug)]
#[command(after_help = AFTER)]
pub struct Options {
    /// Reference run (A)
    a: PathBuf,
    /// Run to judge (B)
    b: PathBuf,
    /// Exit with 5 if B is worse than A by more than this, over the whole interval of the ratio;
    /// with 3 if not all could be judged
    #[arg(long, value_name = "PERCENT", value_parser = percentage)]
    fail_if_slower: Option<f64>,
    /// Only this metric; may be given several times
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(metrics()))]
    metric: Vec<String>,
    /// Only this arm; may be given several times
    #[arg(long, value_name = "NAME")]
    arm: Vec<String>,
    /// Print the comparison in this form
    #[arg(long, value_enum, default_value_t)]
    format: ComparisonFormat,
}

/// A form in which a comparison is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ComparisonFormat {
    /// A list and a table, in Markdown
    #[default]
    Markdown,
    /// The figures and verdicts, by schema/compare.json
    Json,
}

/// Returns the names of all metrics.
pub fn metrics() -> impl Iterator<Item = &'static str> {
    metric::all().map(|metric| metric.name)
}

/// Reads a percentage of a bound.
pub fn percentage(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end().parse::<f64>();
    match number {
        // Not -0.
        Ok(percent) if (0.0..=1000.0).contains(&percent) => Ok(percent + 0.0),
        _ => Err("give a percentage up to 1000%, as in 10%".to_owned()),
    }
}

fn read_both(options: &Options) -> Result<Pair> {
    let pair = Pair { a: read(&options.a)?, b: read(&options.b)? };
    obstacles::builds(&pair)?;
    Ok(pair)
}

fn read(folder: &Path) -> Result<Run> {
    let run = Run::read(folder)?;
    if !run.trials.iter().any(|row| row.status.is_usable()) {
        return Err(ExitStatus::NoFigures.error(format!(
            "{}: no trial gave figures that can be used; its trials.csv says why",
            folder.display()
        )));
    }
    Ok(run)
}

/// Runs.
pub fn run(options: &Options) -> Result<()> {
    let pair = read_both(options)?;
    let asked = Asked { metrics: &options.metric, arms: &options.arm };
    let figures = wanted(options, &pair, &asked)?;
    let judgement = Judgement::of(&pair, &asked, &figures);
    let outcome = options.fail_if_slower.map(|most| judgement.outcome(&pair, &figures, most));
    let origins = origin::lines(&options.a, &options.b, &pair);
    let unjudged = not_judged(&pair, &judgement);
    let text = match options.format {
        ComparisonFormat::Json => document::document(
            [&options.a, &options.b],
            &pair,
            &figures,
            (origins, unjudged),
            outcome.as_ref(),
        )?,
        ComparisonFormat::Markdown => {
            let last = match &outcome {
                Some(Ok(said)) => format!("\n{said}"),
                _ => String::new(),
            };
            format!(
                "{}{}\n{}{}{last}",
                origins.iter().map(|line| format!("- {line}\n")).collect::<String>(),
                summary(&pair, &judgement, &figures),
                table(&pair, &figures),
                list_of_not_judged(&unjudged),
            )
        }
    };
    // A closed pipe does not change the outcome.
    let said = terminal::say(&text);
    outcome.map_or(Ok(()), |outcome| outcome.map(drop))?;
    said
}

/// The figures that are asked for.
fn wanted(options: &Options, pair: &Pair, asked: &Asked) -> Result<Vec<Figure>> {
    let known = pair.arms();
    if let Some(unknown) = options.arm.iter().find(|arm| !known.contains(arm)) {
        let known = known.join(", ");
        return Err(ExitStatus::NotComparable
            .error(format!("--arm '{unknown}' is not in both runs; there are: {known}")));
    }
    let (mut figures, refused) = figures::all(pair);
    if figures.is_empty() {
        let why =
            if refused.is_empty() { String::new() } else { format!(": {}", refused.join("; ")) };
        return Err(ExitStatus::NotComparable.error(format!(
            "{} and {} have nothing in common that can be compared{why}",
            options.a.display(),
            options.b.display()
        )));
    }
    figures.retain(|figure| asked.has_metric(figure.metric) && asked.has_arm(&figure.arm));
    // A judgement says why there is none.
    if figures.is_empty() && options.fail_if_slower.is_none() {
        let words = "nothing that can be compared is of this --metric and --arm";
        return Err(ExitStatus::NotComparable.error(words));
    }
    // Changes stand first; the order is that of the matrix besides.
    figures.sort_by_key(|figure| figure.change().is_none());
    Ok(figures)
}

/// How many changes are named above the table.
const NAMED: usize = 3;

/// Counts what is judged, names what changed, and shows the baseline itself.
fn summary(pair: &Pair, judgement: &Judgement, figures: &[Figure]) -> String {
    let mut changed: Vec<(&Figure, Compared)> =
        figures.iter().filter_map(|figure| Some((figure, figure.change()?))).collect();
    let with_verdict =
        changed.iter().filter(|(_, of)| of.verdict != Some(Verdict::FewBlocks)).count();
    let distance = |of: &Compared| of.ratio.mean.ln().abs();
    changed.sort_by(|(_, a), (_, b)| distance(b).total_cmp(&distance(a)));
    let named: Vec<String> =
        changed.iter().take(NAMED).map(|(figure, of)| judgement::in_words(figure, of)).collect();
    let most =
        if named.is_empty() { String::new() } else { format!("; most {}", named.join("; ")) };
    let mut text = format!(
        "- In all: {}\n- Moved beyond its interval or range: {}\n",
        judgement.counts(),
        match changed.len() {
            0 => format!("none of {} figures", figures.len()),
            count =>
                format!("{count} of {} figures, {with_verdict} by verdict{most}", figures.len()),
        }
    );
    if let Some(baseline) = pair.baseline() {
        let own = baseline_itself(figures, baseline);
        if !own.is_empty() {
            text += &format!(
                "- The baseline `{baseline}` itself, B/A between runs over the workloads: {}. The \
                 others are relative to it: \
                 a change of it alone, or of all alike, is not in their verdicts\n",
                own.join(", ")
            );
        }
    }
    text
}

/// Between which ratios each time and rate of the baseline lies.
fn baseline_itself(figures: &[Figure], baseline: &str) -> Vec<String> {
    let range = |metric: &Metric| {
        let is_of = |figure: &&Figure| {
            figure.arm == baseline && figure.metric == metric && figure.telling().is_none()
        };
        let ratios = figures.iter().filter(is_of).filter_map(|figure| figure.between_runs);
        let ratios: Vec<f64> = ratios.map(|of| of.ratio.mean).collect();
        let Interval { low, high } = Interval::range(&ratios)?;
        let (low, high) = (format!("{low:.2}"), format!("{high:.2}"));
        Some(if low == high {
            format!("{} {low}", metric.name)
        } else {
            format!("{} {low}–{high}", metric.name)
        })
    };
    let judged = metric::OF_TRIALS.iter().filter(|metric| metric.better.is_some());
    judged.filter_map(range).collect()
}

fn shown(compared: Option<Compared>) -> String {
    let Some(Compared { ratio, verdict }) = compared else {
        return MISSING.to_owned();
    };
    // The heading says that these are few.
    let verdict = verdict.filter(|verdict| *verdict != Verdict::FewBlocks);
    let Estimate { mean, interval: Interval { low, high }, .. } = ratio;
    ratio_of_bounds(mean, low, high, verdict)
}

fn table(pair: &Pair, figures: &[Figure]) -> String {
    let is_short = |figure: &Figure| {
        [figure.between_runs, figure.relative].iter().flatten().any(|compared| {
            compared.ratio.bounds == Bounds::Range && compared.verdict != Some(Verdict::Counted)
        })
    };
    let bounds = match figures.iter().any(is_short) {
        true => "95 % interval, or range below six blocks",
        false => "95 % interval",
    };
    let relative = match pair.baseline() {
        Some(baseline) => format!("B/A relative to {baseline}"),
        None => "B/A relative to the baseline".to_owned(),
    };
    let between = format!("B/A between runs ({bounds})");
    let mut table =
        Table::new(3, &["workload", "arm", "metric", "A", "B", "blocks", &between, &relative]);
    for figure in figures {
        table.push(vec![
            figure.workload.clone(),
            figure.arm.clone(),
            figure.metric.name.to_owned(),
            three_digits(figure.means[0]),
            three_digits(figure.means[1]),
            format!("{}, {}", figure.blocks[0], figure.blocks[1]),
            shown(figure.between_runs),
            shown(figure.relative),
        ]);
    }
    let notes = "\nFigures that changed stand first. A and B are geometric means over the blocks \
    that count; of calls and memory there is one reading. Between runs the machine's drift is in \
    the ratio: of times and rates it gets no verdict. Relative to the baseline, within the blocks \
    of each run, it is not. A figure near zero has no ratio.\n";
    table.markdown() + notes
}

/// Why the rest was not judged.
fn not_judged(pair: &Pair, judgement: &Judgement) -> Vec<String> {
    judgement.reasons().into_iter().chain(obstacles::walks(pair)).collect()
}

fn list_of_not_judged(reasons: &[String]) -> String {
    let lines: String = reasons.iter().map(|line| format!("- {line}\n")).collect();
    if lines.is_empty() { lines } else { format!("\nNot judged, and why:\n\n{lines}") }
}
