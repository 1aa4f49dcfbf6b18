//! `ringmark compare`: two runs side by side.

mod figures;
mod obstacles;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::builder::PossibleValuesParser;
use serde_json::Value;

use self::figures::{Compared, Figure};
use crate::comparisons::{MEMORY_SUMS, METRICS};
use crate::matrix::Contender;
use crate::measurement::{Bounds, Verdict};
use crate::report::table::{MISSING, Table, names, number, percent};
use crate::report::tables::ratio_of_bounds;
use crate::results::Run;
use crate::run::differences;

const AFTER: &str = "\
Ratios are B/A. Between the runs lies all that the machine did meanwhile: identical servers may differ by tens of
per cent from one run to the next. So that ratio has an interval (Welch's t on logarithms) and no verdict. A verdict is
on the ratio relative to the baseline: how much more of the baseline's figure an arm takes in B than in A, both within
the blocks of their runs.

--fail-if-slower acts on that one, or it would fail whenever the machine has a bad hour. What makes all arms alike slower,
the baseline too, is therefore not seen by it: let the baseline be a server that stays as it is. It acts on calls per
echo only where they are exact, with one connection and one message in flight, and on memory per connection by the
intervals of its slopes. A figure of fewer than ten blocks has no interval and does not fail; if there is no other, the
command fails. One interval in twenty misses: give a margin that matters, not 0%.

Exit status: 0, nothing is slower; 1, something is, or the runs cannot be compared, and stderr says which; 2, the
command line is wrong.

Examples:
  ringmark compare results/OLD-KERNEL results/NEW-KERNEL
  ringmark compare before after --metric server_cpu_ns_per_echo --arm uring-multishot
  ringmark compare main branch --fail-if-slower 10%";

/// Puts two runs side by side: two kernels, machines, revisions, or versions of a server.
#[derive(clap::Args, Debug)]
#[command(after_help = AFTER)]
pub struct Options {
    /// The folder of the run that is compared with
    a: PathBuf,
    /// The folder of the run that is compared
    b: PathBuf,
    /// Exit with 1 if a cost in B (CPU, latency, calls, memory; throughput the other way) is above that in A by more
    /// than this, with the whole of its interval
    #[arg(long, value_name = "PERCENT", value_parser = percentage)]
    fail_if_slower: Option<f64>,
    /// Only this metric; may be given several times
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(metrics()))]
    metric: Vec<String>,
    /// Only this arm; may be given several times
    #[arg(long, value_name = "NAME")]
    arm: Vec<String>,
}

fn metrics() -> impl Iterator<Item = &'static str> {
    METRICS.iter().map(|metric| metric.name).chain(MEMORY_SUMS.iter().map(|(_, metric)| *metric))
}

fn percentage(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end().parse::<f64>();
    match number {
        Ok(percent) if percent.is_finite() && percent >= 0.0 => Ok(percent),
        _ => Err("give a percentage, as in 10%".to_owned()),
    }
}

/// Two runs.
pub struct Pair {
    a: Run,
    b: Run,
}

impl Pair {
    fn read(options: &Options) -> Result<Self> {
        let pair = Self { a: read(&options.a)?, b: read(&options.b)? };
        obstacles::builds(&pair)?;
        Ok(pair)
    }

    /// The baseline, if it is the same in both.
    fn baseline(&self) -> Option<&str> {
        let baseline = self.a.matrix.baseline.as_str();
        (baseline == self.b.matrix.baseline).then_some(baseline)
    }
}

fn read(folder: &Path) -> Result<Run> {
    let run = Run::read(folder)?;
    ensure!(
        run.trials.iter().any(|row| row.status.is_usable()),
        "{}: no trial gave figures that can be used; its trials.csv says why",
        folder.display()
    );
    Ok(run)
}

/// Runs.
pub fn run(options: &Options) -> Result<()> {
    let pair = Pair::read(options)?;
    let known = figures::arms_of_both(&pair);
    if let Some(unknown) = options.arm.iter().find(|arm| !known.contains(arm)) {
        bail!("--arm '{unknown}' is not in both runs; there are: {}", known.join(", "));
    }
    let (mut figures, refused) = figures::all(&pair);
    if figures.is_empty() {
        let why = if refused.is_empty() { String::new() } else { format!(": {}", refused.join("; ")) };
        bail!(
            "{} and {} have nothing in common that can be compared{why}",
            options.a.display(),
            options.b.display()
        );
    }
    let is_wanted = |wanted: &[String], name: &str| wanted.is_empty() || wanted.iter().any(|of| of == name);
    figures
        .retain(|figure| is_wanted(&options.metric, figure.metric) && is_wanted(&options.arm, &figure.arm));
    ensure!(!figures.is_empty(), "nothing that can be compared is of this --metric and --arm");
    let text = format!("{}\n{}{}", origin(options, &pair), table(&pair, &figures), list(&refused));
    std::io::stdout().write_all(text.as_bytes()).context("stdout")?;
    options.fail_if_slower.map_or(Ok(()), |most| fail_if_slower(&figures, most))
}

/// Which runs these are, and in what they differ.
fn origin(options: &Options, pair: &Pair) -> String {
    let line = |name: &str, folder: &Path, run: &Run| {
        let of = |path: &str| run.manifest.pointer(path).and_then(Value::as_str).unwrap_or("unknown");
        let of_server = |field: &str| run.server_machine()[field].as_str().unwrap_or("unknown");
        let place = if run.sides.is_some() { "server on " } else { "" };
        format!(
            "- {name}: `{}`, begun {}, {place}{}, Linux {}, ringmark {}\n",
            folder.display(),
            of("/machine/read_at"),
            of_server("description"),
            of_server("kernel_release"),
            of("/ringmark"),
        )
    };
    let identity = |run: &Run| {
        let of = |path: &str| run.manifest.pointer(path).cloned();
        [of("/machine/read_at"), of("/seed"), of("/order")]
    };
    let mut found = differences(&pair.a.manifest, &pair.b.manifest);
    found.extend(knobs(pair));
    let mut text = line("A", &options.a, &pair.a) + &line("B", &options.b, &pair.b);
    text += &match found.is_empty() {
        _ if identity(&pair.a) == identity(&pair.b) => "- They are the same run\n".to_owned(),
        true => "- What they tell of their origin is the same\n".to_owned(),
        false => found.iter().map(|difference| format!("- From A to B: {difference}\n")).collect(),
    };
    for (name, run, other) in [("A", &pair.a, &pair.b), ("B", &pair.b, &pair.a)] {
        let arms = |run: &Run| run.matrix.backends.iter().map(Contender::arm).collect::<Vec<_>>();
        let workloads = |run: &Run| run.matrix.workloads.iter().map(|of| of.name.clone()).collect::<Vec<_>>();
        let all = |run: &Run| [arms(run), workloads(run)].concat();
        let others = all(other);
        let own: Vec<String> = all(run).into_iter().filter(|name| !others.contains(name)).collect();
        if !own.is_empty() {
            text += &format!("- Only in {name}: {}\n", names(own.iter().map(String::as_str)));
        }
    }
    if pair.baseline().is_none() {
        let [a, b] = [&pair.a, &pair.b].map(|run| &run.matrix.baseline);
        text += &format!("- Nothing is relative: the baseline is `{a}` in A and `{b}` in B\n");
    }
    text
}

/// In what the knobs of an arm differ that has one name in both.
fn knobs(pair: &Pair) -> Vec<String> {
    let of = |run: &Run| -> BTreeMap<(String, String), Value> {
        let rows = run.trials.iter().filter(|row| row.status.is_usable());
        let knobs = rows.filter_map(|row| {
            let knobs = serde_json::from_str::<BTreeMap<String, Value>>(&row.knobs).ok()?;
            Some(knobs.into_iter().map(|(knob, value)| ((row.arm.clone(), knob), value)))
        });
        knobs.flatten().collect()
    };
    let (a, b) = (of(&pair.a), of(&pair.b));
    let differing =
        a.iter().filter_map(|(place, was)| Some((place, was, b.get(place).filter(|is| *is != was)?)));
    differing.map(|((arm, knob), was, is)| format!("{knob} of `{arm}` was {was}, is {is}")).collect()
}

fn shown(compared: Option<Compared>) -> String {
    let Some(Compared { ratio, spread: (_, low, high), verdict }) = compared else {
        return MISSING.to_owned();
    };
    // What the heading says, or the bounds alone.
    let is_silent = matches!(verdict, Verdict::NoNoise | Verdict::Range);
    ratio_of_bounds(ratio, low, high, (!is_silent).then_some(verdict))
}

fn table(pair: &Pair, figures: &[Figure]) -> String {
    let is_short = |figure: &Figure| {
        [figure.between_runs, figure.relative]
            .iter()
            .flatten()
            .any(|compared| compared.spread.0 == Bounds::Range && compared.verdict != Verdict::Counted)
    };
    let bounds = match figures.iter().any(is_short) {
        true => "95 % interval, or range below 10 blocks",
        false => "95 % interval",
    };
    let relative = match pair.baseline() {
        Some(baseline) => format!("B/A relative to {baseline}"),
        None => "B/A relative to the baseline".to_owned(),
    };
    let between = format!("B/A between runs ({bounds})");
    let mut table = Table::new(3, &["workload", "arm", "metric", "A", "B", "blocks", &between, &relative]);
    for figure in figures {
        table.push(vec![
            figure.workload.clone(),
            figure.arm.clone(),
            figure.metric.to_owned(),
            number(figure.medians[0]),
            number(figure.medians[1]),
            format!("{}, {}", figure.blocks[0], figure.blocks[1]),
            shown(figure.between_runs),
            shown(figure.relative),
        ]);
    }
    let drift = "\nBetween runs the machine's drift is in the ratio: of times and rates it gets no verdict. Relative to the \
                 baseline, within the blocks of each run, it is not.\n";
    table.markdown() + drift
}

fn list(refused: &[String]) -> String {
    let lines: String = refused.iter().map(|reason| format!("- {reason}\n")).collect();
    if lines.is_empty() { lines } else { format!("\nNot compared:\n\n{lines}") }
}

/// What --fail-if-slower acts on: a verdict that the machine's drift is not in, or an exact count.
fn judged(figure: &Figure) -> Option<Compared> {
    let compared = figure.relative.or(figure.between_runs)?;
    let is_judged = match compared.verdict {
        Verdict::Lower | Verdict::Higher | Verdict::NoDifferenceShown => true,
        Verdict::Counted => figure.is_exact,
        _ => false,
    };
    (is_judged && figure.better.is_some()).then_some(compared)
}

/// What B costs of A at least, by its interval; none where nothing says that it costs more.
fn least_cost(figure: &Figure, compared: &Compared) -> Option<f64> {
    let (_, low, high) = compared.spread;
    let is_worse = match compared.verdict {
        Verdict::Counted => true,
        Verdict::NoDifferenceShown => false,
        verdict => figure.better != Some(verdict),
    };
    let cost = if figure.better == Some(Verdict::Higher) { 1.0 / high } else { low };
    is_worse.then_some(cost)
}

/// As many are named in the error; all stand in the table.
const NAMED: usize = 5;

fn fail_if_slower(figures: &[Figure], most_percent: f64) -> Result<()> {
    let judged: Vec<(&Figure, Compared)> =
        figures.iter().filter_map(|figure| Some((figure, judged(figure)?))).collect();
    ensure!(
        !judged.is_empty(),
        "--fail-if-slower has nothing to act on: no figure has a verdict relative to a baseline (which takes ten blocks in \
         both runs), of an exact count, or of memory"
    );
    let is_slower = |(figure, compared): &&(&Figure, Compared)| {
        least_cost(figure, compared).is_some_and(|cost| cost > 1.0 + most_percent / 100.0)
    };
    let slower: Vec<_> = judged.iter().filter(is_slower).collect();
    if slower.is_empty() {
        return Ok(());
    }
    let name = |(figure, compared): &&&(&Figure, Compared)| {
        let (_, low, high) = compared.spread;
        let ratio = ratio_of_bounds(compared.ratio, low, high, None);
        format!("{} of `{}` in {}: {ratio}", figure.metric, figure.arm, figure.workload)
    };
    let named: Vec<String> = slower.iter().take(NAMED).map(|of| name(&of)).collect();
    let more = match slower.len() - named.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    bail!(
        "B is worse than A by more than {} % in {} of {} figures: {}{more}",
        percent(most_percent),
        slower.len(),
        judged.len(),
        named.join("; ")
    )
}
