//! Tables of a document that are asked for row by row: ratios of chosen arms, and what to decide by
//! with several figures of one arm.

use anyhow::{Context, Result, bail, ensure};
use itertools::Itertools as _;
use serde::Deserialize;

use super::finding::{MULTIPLE, sized};
use super::grid;
use super::query::comparison;
use super::table::{MISSING, Table};
use crate::results::Run;
use crate::rows::{ComparisonRow, Verdict};
use crate::text::significant;
use crate::verdict::instructions::{ArmCounts, kernels};
use crate::verdict::metric::{self, Metric};

/// The metric by whose rows an idle connection's memory is known.
const MEMORY: &str = "memory_kernel_bytes_per_connection_over_null";
const IDLE: &str = "memory never-used";

/// A table, as a document asks for it.
pub enum Digest {
    Ratios(Ratios),
    Layers(Layers),
    Decision(Decision),
}

/// Ratios of arms, a row for each workload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ratios {
    /// The matrix of the run, unless a row names another.
    run: String,
    /// The column of comparisons.csv; server CPU per echo unless it is given.
    metric: Option<String>,
    /// The title of the first column.
    title: String,
    /// Each `ARM`, or `ARM over ARM` where the second is not the baseline.
    arms: Vec<String>,
    /// Each `[words, workload]`, or `[words, workload, run]`.
    rows: Vec<Vec<String>>,
}

/// Instructions of an echo by class of function, a column for each arm.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    run: String,
    workload: String,
    /// The beginning of the kernel's release.
    kernel: String,
    arms: Vec<String>,
}

/// One arm for each kind of service, against the baseline.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The matrix of the run that measured memory.
    memory: String,
    /// The words before what second runs say: when or where they ran.
    again: Option<String>,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    service: String,
    run: String,
    workload: String,
    arm: String,
    /// A run that measured the same workload at another time or place.
    again: Option<String>,
    /// The advice.
    advice: String,
}

impl Digest {
    /// Reads the words of a marker: the name of the kind of table, and its rows as TOML.
    ///
    /// # Errors
    /// If there is no such kind, or a key is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        Ok(match name {
            "ratios" => Self::Ratios(toml::from_str(text)?),
            "layers" => Self::Layers(toml::from_str(text)?),
            "decision" => Self::Decision(toml::from_str(text)?),
            _ => bail!("there is no table '{name}'; of these there are: ratios, layers, decision"),
        })
    }

    /// Makes the table. `cells` gives those of one row, out of the run of that matrix.
    ///
    /// # Errors
    /// If a run has not what is asked for.
    pub fn table(&self, cells: impl FnMut(&str, Question) -> Result<Rows>) -> Result<Table> {
        match self {
            Self::Ratios(ratios) => ratios.table(cells),
            Self::Layers(layers) => layers.table(cells),
            Self::Decision(decision) => decision.table(cells),
        }
    }
}

/// The cells of rows.
pub type Rows = Vec<Vec<String>>;

/// The rows, or a part of one, that a run answers for.
#[derive(Clone, Copy)]
pub enum Question<'a> {
    /// The ratios of these arms.
    Ratios { metric: Option<&'a str>, workload: &'a str, arms: &'a [String] },
    /// The instructions of these arms on a kernel, a row for each class.
    Layers { workload: &'a str, kernel: &'a str, arms: &'a [String] },
    /// Server CPU, that of both sides, latency, and how sure the first is.
    Figures { workload: &'a str, arm: &'a str },
    /// The ratio of server CPU, and the sign of its verdict.
    Again { workload: &'a str, arm: &'a str },
    /// The memory of an idle connection.
    Memory { arm: &'a str },
}

impl Ratios {
    fn table(&self, mut cells: impl FnMut(&str, Question) -> Result<Rows>) -> Result<Table> {
        let heading =
            self.arms.iter().map(|arm| format!("`{}`", arm.replace(" over ", "` over `")));
        let heading: Vec<String> = [self.title.clone()].into_iter().chain(heading).collect();
        let mut table = Table::new(1, &heading);
        for row in &self.rows {
            let (words, workload, run) = match &row[..] {
                [words, workload] => (words, workload, &self.run),
                [words, workload, run] => (words, workload, run),
                _ => bail!("a row is `[words, workload]` or `[words, workload, run]`: {row:?}"),
            };
            let metric = self.metric.as_deref();
            let ratios = cells(run, Question::Ratios { metric, workload, arms: &self.arms })?;
            table.push([words.clone()].into_iter().chain(ratios.concat()).collect());
        }
        Ok(table)
    }
}

impl Layers {
    fn table(&self, mut cells: impl FnMut(&str, Question) -> Result<Rows>) -> Result<Table> {
        let Self { run, workload, kernel, arms } = self;
        let heading = arms.iter().map(|arm| format!("`{arm}`"));
        let heading: Vec<String> = ["instructions".to_owned()].into_iter().chain(heading).collect();
        let mut table = Table::new(1, &heading);
        cells(run, Question::Layers { workload, kernel, arms })?
            .into_iter()
            .for_each(|row| table.push(row));
        Ok(table)
    }
}

impl Decision {
    fn table(&self, mut cells: impl FnMut(&str, Question) -> Result<Rows>) -> Result<Table> {
        let mut table = Table::new(
            8,
            &[
                "your service has",
                "with",
                "server CPU",
                "both sides",
                "latency",
                "memory",
                "how sure",
                "do",
            ],
        );
        for row in &self.rows {
            let Row { service, run, workload, arm, again, advice } = row;
            let mut figures = cells(run, Question::Figures { workload, arm })?.concat();
            let mut sure = figures.pop().unwrap_or_default();
            if let Some(again) = again {
                let ratio = cells(again, Question::Again { workload, arm })?.concat().concat();
                let words = self.again.as_deref().unwrap_or("again");
                sure += &format!("; {words} {ratio}");
            }
            let memory = cells(&self.memory, Question::Memory { arm })?.concat();
            table.push(
                [service.clone(), format!("`{arm}`")]
                    .into_iter()
                    .chain(figures)
                    .chain(memory)
                    .chain([sure, advice.clone()])
                    .collect(),
            );
        }
        Ok(table)
    }
}

/// Returns what a run says to a question.
///
/// # Errors
/// If it has no such workload or arm, or no verdict that must be there.
pub fn cells(run: &Run, question: Question) -> Result<Rows> {
    Ok(match question {
        Question::Ratios { metric, workload, arms } => vec![ratios(run, metric, workload, arms)?],
        Question::Layers { workload, kernel, arms } => layers(run, workload, kernel, arms)?,
        Question::Figures { workload, arm } => vec![figures(run, workload, arm)?],
        Question::Again { workload, arm } => vec![vec![grid::text(cpu(run, workload, arm)?)]],
        Question::Memory { arm } => vec![vec![memory(run, arm)?]],
    })
}

fn ratios(run: &Run, metric: Option<&str>, workload: &str, arms: &[String]) -> Result<Vec<String>> {
    let name = metric.unwrap_or(metric::CPU.name);
    let metric = metric::named(name).with_context(|| format!("there is no metric '{name}'"))?;
    let cell = |arm: &String| {
        let pair = arm.split_once(" over ");
        let (arm, other) = pair.unwrap_or((arm, &run.matrix.baseline));
        let row = found(run, metric, workload, arm, other)?;
        Ok(row.map_or_else(|| MISSING.to_owned(), grid::text))
    };
    arms.iter().map(cell).collect()
}

/// Returns the classes, those with the largest count of the first arm first; then the server's own
/// code, and all together.
fn layers(run: &Run, workload: &str, kernel: &str, arms: &[String]) -> Result<Rows> {
    // "6.1" is not the beginning of 6.12.
    let is_release = |name: &&str| {
        name.strip_prefix(kernel)
            .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    };
    let release = kernels(&run.instructions).into_iter().find(is_release);
    let release = release.with_context(|| format!("it counted on no Linux {kernel}"))?;
    let count = |arm: &String| {
        ArmCounts::of(&run.instructions, workload, release, arm)
            .with_context(|| format!("{workload} on {release} has no counts of {arm}"))
    };
    let counts = arms.iter().map(count).collect::<Result<Vec<_>>>()?;
    let classes = counts.iter().flat_map(ArmCounts::classes).map(|(class, _)| class);
    let of_first = |class: &&str| counts.first().map_or(0.0, |first| first.mean("server", class));
    let mut rows = Rows::new();
    for class in classes.unique().sorted_by(|one, other| of_first(other).total_cmp(&of_first(one)))
    {
        // A sum of nothing is -0.
        let cells = counts.iter().map(|counts| significant(counts.mean("server", class) + 0.0));
        rows.push([class.to_owned()].into_iter().chain(cells).collect());
    }
    let own = counts.iter().map(|counts| significant(counts.mean("server", "user")));
    rows.push(["the server's own code".to_owned()].into_iter().chain(own).collect());
    let all = counts.iter().map(|counts| format!("**{}**", significant(counts.server())));
    rows.push(["**together**".to_owned()].into_iter().chain(all).collect());
    Ok(rows)
}

fn memory(run: &Run, arm: &str) -> Result<String> {
    let is_memory =
        |row: &&ComparisonRow| row.metric == MEMORY && row.workload == IDLE && row.arm == arm;
    let row = run.comparisons.iter().find(is_memory);
    let row = row.with_context(|| format!("it has no memory of {arm}"))?;
    let [arm, other] = [row.arm_median, row.baseline_median].map(f64::round);
    Ok(format!("{arm} B ({other})"))
}

/// Returns a comparison; none if the run knows workload and arm, but has no figures.
fn found<'a>(
    run: &'a Run,
    metric: &Metric,
    workload: &str,
    arm: &str,
    other: &str,
) -> Result<Option<&'a ComparisonRow>> {
    let row = comparison(run, workload, metric, arm, other);
    let has_workload = run.trials.iter().any(|row| row.workload == workload)
        || run.comparisons.iter().any(|row| row.workload == workload);
    let has_arm = |arm: &str| run.trials.iter().any(|row| row.arm == arm);
    let is_known = has_workload && has_arm(arm) && has_arm(other);
    ensure!(row.is_some() || is_known, "{workload} has no {} of {arm} over {other}", metric.name);
    Ok(row)
}

fn cpu<'a>(run: &'a Run, workload: &str, arm: &str) -> Result<&'a ComparisonRow> {
    let row = comparison(run, workload, &metric::CPU, arm, &run.matrix.baseline);
    row.with_context(|| format!("{workload} has no server CPU of {arm}"))
}

fn figures(run: &Run, workload: &str, arm: &str) -> Result<Vec<String>> {
    let of = |metric| comparison(run, workload, metric, arm, &run.matrix.baseline);
    let cpu = cpu(run, workload, arm)?;
    let both = of(&metric::BOTH_CPU).map_or(MISSING.to_owned(), brief);
    let latencies = [("p50", of(&metric::P50)), ("p99", of(&metric::P99))];
    let latencies: Vec<String> = latencies
        .into_iter()
        .filter_map(|(name, row)| Some(format!("{name} {}", brief(row?))))
        .collect();
    let latency =
        if latencies.is_empty() { "not compared".to_owned() } else { latencies.join(", ") };
    let sign = if cpu.difference < 0.0 { "−" } else { "+" };
    let size = significant(cpu.difference.abs() / 1000.0);
    let server = match cpu.verdict {
        Verdict::Lower | Verdict::Higher => format!("{} ({sign}{size} µs)", brief(cpu)),
        _ => brief(cpu),
    };
    let sure = match (cpu.verdict, cpu.detectable_percent) {
        (Verdict::NotResolved, Some(percent)) => {
            format!("{} would have been found", sized(percent))
        }
        _ => grid::ratio(cpu),
    };
    Ok(vec![server, both, latency, sure])
}

/// Writes a verdict in two or three words.
fn brief(row: &ComparisonRow) -> String {
    match row.verdict {
        Verdict::Lower | Verdict::Higher if row.ratio >= MULTIPLE => {
            format!("{:.1} times", row.ratio)
        }
        Verdict::Lower | Verdict::Higher => {
            let more = if row.ratio < 1.0 { "less" } else { "more" };
            format!("{:.1} % {more}", 100.0 * (row.ratio - 1.0).abs())
        }
        Verdict::Alike => format!("alike (≤ {} %)", row.margin_percent.unwrap_or_default()),
        verdict => verdict.words().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, text: &str) -> Result<String> {
        let mut asked = Vec::new();
        let table = Digest::parse(name, text)?.table(|run, question| {
            asked.push(run.to_owned());
            let cells = match question {
                Question::Ratios { workload, arms, .. } => {
                    return Ok(vec![
                        arms.iter().map(|arm| format!("{arm} in {workload}")).collect(),
                    ]);
                }
                Question::Layers { .. } => vec!["locks", "1"],
                Question::Figures { .. } => {
                    vec!["2.0 % less (−1 µs)", "alike", "p50 alike", "0.98 (0.97–0.99)"]
                }
                Question::Again { .. } => vec!["0.97 (0.96–0.98) ▼"],
                Question::Memory { .. } => vec!["8 B (4)"],
            };
            Ok(vec![cells.into_iter().map(str::to_owned).collect()])
        })?;
        Ok(format!("{asked:?}\n{}", table.markdown()))
    }

    #[test]
    fn a_row_is_of_its_own_run() {
        let text = "run = \"a\"\ntitle = \"load\"\narms = [\"x\", \"y over x\"]\n\
                    rows = [[\"one\", \"v\"], [\"two\", \"w\", \"b\"]]";
        let made = table("ratios", text).expect("a table");
        assert!(made.starts_with("[\"a\", \"b\"]\n"), "{made}");
        assert!(made.contains(" `y` over `x` |") && made.contains("| y over x in w |"), "{made}");
    }

    #[test]
    fn a_second_run_stands_beside_the_first() {
        let rows = "rows = [{ service = \"s\", run = \"a\", workload = \"w\", arm = \"x\", again = \
                    \"b\", advice = \"do\" }]";
        let made = |again: &str| {
            table("decision", &format!("memory = \"m\"\n{again}{rows}")).expect("a table")
        };
        let first = made("");
        assert!(first.contains("0.98 (0.97–0.99); again 0.97 (0.96–0.98) ▼"), "{first}");
        let made = made("again = \"elsewhere\"\n");
        assert!(made.contains("; elsewhere 0.97 (0.96–0.98) ▼"), "{made}");
        assert!(made.contains("| 8 B (4) |"), "{made}");
        let text = "run = \"a\"\nworkload = \"w\"\nkernel = \"6.1\"\narms = [\"x\"]";
        let made = table("layers", text).expect("a table");
        assert!(made.contains("| locks        |   1 |"), "{made}");
    }

    #[test]
    fn a_wrong_key_is_named() {
        for (name, text, words) in [
            ("ratio", "", "there is no table 'ratio'"),
            ("ratios", "runs = 1", "unknown field `runs`"),
            ("decision", "memory = \"m\"", "missing field `rows`"),
        ] {
            let error = table(name, text).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
        let text = "run = \"a\"\ntitle = \"t\"\narms = []\nrows = [[\"alone\"]]";
        let error = table("ratios", text).expect_err("a row").to_string();
        assert!(error.contains("[\"alone\"]"), "{error}");
    }
}
