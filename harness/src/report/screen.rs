//! A run on one screen of a terminal, and in ten lines of Markdown.

use std::ops::Range;
use std::path::Path;

use itertools::Itertools as _;

use super::about;
use super::grid::glyph;
use super::query::{ArmTrials, arms, counted_trial, text_at};
use super::table::{self, MISSING};
use crate::results::Run;
use crate::rows::{ComparisonRow, KERNEL_SUM, Status, USED_THEN_IDLE, USER_SUM};
use crate::statistics::median;
use crate::text::{integer, significant, three_digits, wrapped};
use crate::verdict::metric::{self, Metric};
use crate::verdict::{memory, readings};

/// The screen that everything fits on, in columns and lines.
const WIDTH: usize = 80;
const HEIGHT: usize = 40;

/// The widest name of an arm.
const ARM_WIDTH: usize = 24;

/// The width of a workload's column, and of what is between two.
const WORKLOAD_WIDTH: usize = 10;
const GAP: usize = 2;

/// The lines of a table beside its rows: an empty one, its title, its heading and what is left out.
const LINES_OF_TABLE: usize = 5;

/// The fewest rows of the second table.
const FEWEST_ROWS: usize = 3;

/// Lines of Markdown that a summary has.
const SUMMARY_LINES: usize = 10;

const LEGEND: &str =
    "▲ higher ▼ lower ≈ alike ? not resolved · no verdict ✓✗ baseline against itself";

/// Arms by workloads, each over the baseline, in one metric.
struct Crossing<'a> {
    metric: &'static Metric,
    /// The workloads that are shown; of many, some that lie evenly among them.
    workloads: Vec<&'a str>,
    all_workloads: usize,
    rows: Vec<(&'a str, Vec<Option<&'a ComparisonRow>>)>,
}

impl<'a> Crossing<'a> {
    /// Returns that of the first metric that has comparisons with the baseline.
    fn of(run: &'a Run, most_workloads: usize) -> Option<Self> {
        let with_baseline =
            || run.comparisons.iter().filter(|row| row.baseline == run.matrix.baseline);
        let metric =
            metric::all().find(|metric| with_baseline().any(|row| row.metric == metric.name))?;
        let rows = with_baseline().filter(|row| row.metric == metric.name).collect_vec();
        let all = rows.iter().map(|row| row.workload.as_str()).unique().collect_vec();
        let workloads = evenly(&all, most_workloads);
        let of_arm = |arm: &'a str| {
            let row = |workload: &&str| {
                rows.iter().find(|row| row.arm == arm && row.workload == *workload).copied()
            };
            (arm, workloads.iter().map(row).collect())
        };
        let rows = rows.iter().map(|row| row.arm.as_str()).unique().map(of_arm).collect();
        Some(Self { metric, workloads, all_workloads: all.len(), rows })
    }

    /// Writes what the figures are.
    fn title(&self, baseline: &str) -> String {
        let shown = match self.workloads.len() {
            shown if shown == self.all_workloads => String::new(),
            shown => format!(" ({shown} of {} workloads)", self.all_workloads),
        };
        format!("{} over {baseline}{shown}", self.metric.words.noun)
    }
}

/// Returns at most so many items, the first and the last among them.
fn evenly<T: Clone>(items: &[T], most: usize) -> Vec<T> {
    if items.len() <= most {
        return items.to_vec();
    }
    let at = |place: usize| items[place * (items.len() - 1) / (most - 1).max(1)].clone();
    (0..most).map(at).collect()
}

/// Writes a ratio with the sign of its verdict.
fn cell(row: Option<&ComparisonRow>) -> String {
    let Some(row) = row else { return MISSING.to_owned() };
    let ratio = if row.ratio < 2.0 { format!("{:.3}", row.ratio) } else { three_digits(row.ratio) };
    format!("{ratio} {}", glyph(row.verdict).unwrap_or("·")).trim_end().to_owned()
}

/// Returns the run on one screen.
pub fn screen(run: &Run, folder: &Path) -> String {
    let name = format!("{}: ", text_at(&run.manifest, "/name"));
    let mut text = wrapped(&run.matrix.question, &name, 2, WIDTH);
    text += &wrapped(&about::in_short(run), "", 2, WIDTH);
    let arm_width = arms(run).iter().map(|arm| arm.chars().count()).max().unwrap_or_default();
    let beside = WIDTH - GAP - arm_width.min(ARM_WIDTH);
    let crossing = Crossing::of(run, beside / (WORKLOAD_WIDTH + GAP));
    let figures = Figures::of(run);
    let foot = foot(run, folder, crossing.is_some());
    // The verdicts get the room that they need, and the figures what is left.
    let mut room = HEIGHT.saturating_sub(text.lines().count() + foot.lines().count() + 1);
    if let Some(crossing) = &crossing {
        let below = if figures.columns.is_empty() { 0 } else { LINES_OF_TABLE + FEWEST_ROWS };
        let most = room.saturating_sub(LINES_OF_TABLE + below).min(crossing.rows.len());
        text += &format!("\n{}\n", crossing.title(&run.matrix.baseline));
        text += &crossing_lines(crossing, most);
        room = room.saturating_sub(LINES_OF_TABLE + most);
    }
    text += &figures.lines(room.saturating_sub(LINES_OF_TABLE).max(FEWEST_ROWS));
    text + "\n" + &foot
}

fn crossing_lines(crossing: &Crossing, most: usize) -> String {
    let heads = crossing.workloads.iter().map(|name| broken(name)).collect_vec();
    let height = heads.iter().map(Vec::len).max().unwrap_or_default();
    let mut rows = (0..height)
        .map(|line| {
            let part = |head: &Vec<String>| {
                let skipped = height - head.len();
                line.checked_sub(skipped).map_or_else(String::new, |line| head[line].clone())
            };
            std::iter::once(String::new()).chain(heads.iter().map(part)).collect_vec()
        })
        .collect_vec();
    for (arm, cells) in crossing.rows.iter().take(most) {
        let cells = cells.iter().map(|row| cell(*row));
        rows.push(std::iter::once((*arm).to_owned()).chain(cells).collect());
    }
    aligned(&rows) + &left_out(crossing.rows.len(), most)
}

/// Breaks a workload's name at hyphens and blanks, into at most two parts that fit a column.
fn broken(name: &str) -> Vec<String> {
    let width = WORKLOAD_WIDTH;
    let mut parts = vec![String::new()];
    for piece in name.split_inclusive(['-', '@', ' ']) {
        match parts.last_mut() {
            Some(last) if last.is_empty() || last.len() + piece.len() <= width => *last += piece,
            _ => parts.push(piece.to_owned()),
        }
    }
    if parts.len() > 2 {
        let rest = parts.split_off(1).concat();
        parts.push(rest);
    }
    parts.iter().map(|part| cut(part.trim_end(), width)).collect()
}

/// Cuts a text that is too wide.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// Writes rows of cells, the first to the left and the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths = (0..columns).map(width).collect_vec();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            line += &match column {
                0 => format!("  {:<width$}", cut(cell, ARM_WIDTH), width = width.min(ARM_WIDTH)),
                _ => format!("  {cell:>width$}"),
            };
        }
        line.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn left_out(all: usize, most: usize) -> String {
    match all.saturating_sub(most) {
        0 => String::new(),
        count => format!("  and {count} more, in the page and with --full\n"),
    }
}

/// The three figures of each arm: calls, CPU with latency, and memory.
struct Figures {
    title: String,
    columns: Vec<&'static str>,
    /// An arm's name, and its figures by column.
    rows: Vec<(String, Vec<String>)>,
}

impl Figures {
    fn of(run: &Run) -> Self {
        let workload = main_workload(run);
        let all = arms(run).into_iter().filter(|arm| {
            readings::number(arm, &run.matrix.baseline).is_none_or(|number| number == 1)
        });
        let rows = all.map(|arm| (arm.clone(), figures(run, workload, &arm))).collect_vec();
        let names = ["calls", "CPU µs", "p50 µs", "p99 µs", "kernel B", "own B"];
        // A column that nobody has a figure in says nothing.
        let kept = (0..names.len())
            .filter(|&column| rows.iter().any(|(_, cells)| cells[column] != MISSING))
            .collect_vec();
        let rows = rows
            .into_iter()
            .map(|(arm, cells)| (arm, kept.iter().map(|&column| cells[column].clone()).collect()))
            .collect();
        let has = |columns: Range<usize>| kept.iter().any(|column| columns.contains(column));
        let on = has(0..4).then(|| format!("per echo on {}", workload.unwrap_or_default()));
        let memory =
            has(4..6).then(|| "per connection that rests, over two bare sockets".to_owned());
        let columns = kept.into_iter().map(|column| names[column]).collect();
        Self { title: on.into_iter().chain(memory).join("; "), columns, rows }
    }

    fn lines(&self, most: usize) -> String {
        if self.columns.is_empty() {
            return String::new();
        }
        let head = std::iter::once("").chain(self.columns.iter().copied()).map(str::to_owned);
        let mut rows = vec![head.collect_vec()];
        for (arm, cells) in evenly(&self.rows, most) {
            rows.push(std::iter::once(arm).chain(cells).collect());
        }
        format!(
            "\n{}\n{}{}",
            cut(&self.title, WIDTH),
            aligned(&rows),
            left_out(self.rows.len(), most)
        )
    }
}

/// The workload whose figures are shown: the first with a rate of its own, or else the first.
fn main_workload(run: &Run) -> Option<&str> {
    let compared = |name: &str| {
        run.comparisons.iter().any(|row| row.workload == name && row.metric == metric::CPU.name)
    };
    let mut workloads = run.matrix.workloads.iter().filter(|workload| compared(&workload.name));
    let first = workloads.clone().next().or(run.matrix.workloads.first());
    let open = workloads.find(|workload| workload.rate_per_s.is_some());
    open.or(first).map(|workload| workload.name.as_str())
}

fn figures(run: &Run, workload: Option<&str>, arm: &str) -> Vec<String> {
    let bytes = |object| {
        let slope = memory::slope(&run.memory, arm, object, USED_THEN_IDLE);
        table::cell(slope.and_then(|row| row.over_null_bytes_per_connection), integer)
    };
    let trials = workload.map(|name| ArmTrials::in_complete_blocks(run, name, arm.to_owned()));
    let timed = |value| match &trials {
        Some(trials) => trials.median(value),
        None => MISSING.to_owned(),
    };
    let calls = workload.and_then(|name| counted_trial(run, name, arm)?.syscalls_per_echo);
    vec![
        table::cell(calls, significant),
        timed(|row| row.server_cpu_ns_per_echo.map(|ns| ns / 1e3)),
        timed(|row| row.latency_p50_us),
        timed(|row| row.latency_p99_us),
        bytes(KERNEL_SUM),
        bytes(USER_SUM),
    ]
}

/// Says what limits the figures, and where the rest is.
fn foot(run: &Run, folder: &Path, has_signs: bool) -> String {
    let mut text = String::new();
    let mut say = |line: &str| text += &wrapped(line, "", 2, WIDTH);
    if has_signs {
        say(LEGEND);
    }
    for line in limits(run) {
        say(&line);
    }
    let folder = folder.display();
    // A path is for copying: it is not wrapped.
    text + &format!("Page:   {folder}/report.html\nTables: ringmark report --full {folder}\n")
}

fn limits(run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    if text_at(&run.manifest, "/build_profile") != "release" {
        lines.push("Not a release build: its figures are of no use.".to_owned());
    }
    if let Some(caveat) = run.state.caveat() {
        lines.push(format!("This run is {caveat}."));
    }
    let of_cpu = run.comparisons.iter().filter(|row| row.metric == metric::CPU.name);
    let judged = of_cpu.filter(|row| row.verdict.is_judged());
    let mut found = judged.filter_map(|row| row.detectable_percent).collect_vec();
    if let Some(percent) = median(&mut found) {
        let percent = significant(percent);
        lines
            .push(format!("Differences in CPU of {percent} % are found in 4 of 5 cases (median)."));
    }
    lines.extend(spoilt(run));
    lines.extend(doctor(run));
    lines
}

/// Counts the trials that do not count, or not in all, with the reason that most were rejected for.
fn spoilt(run: &Run) -> Option<String> {
    let of_status = |status: Status| run.trials.iter().filter(move |row| row.status == status);
    let mut parts = Vec::new();
    for status in [Status::Rejected, Status::Failed, Status::Unsupported] {
        let kinds = of_status(status).into_group_map_by(|row| kind_of(&row.reason));
        let most = kinds.into_iter().max_by_key(|(kind, rows)| (rows.len(), kind.clone()));
        let Some((_, alike)) = most else { continue };
        let example = first_of(&alike[0].reason);
        parts.push(format!("{} {} (such as: {example})", of_status(status).count(), status.word()));
    }
    let limited = of_status(Status::ClientLimited).count();
    if limited > 0 {
        parts.push(format!("{limited} client-limited, without latency"));
    }
    let total = run.trials.len();
    (!parts.is_empty()).then(|| format!("Of {total} trials {}.", parts.join(", ")))
}

/// Returns a reason without its numbers, by which reasons of one kind are alike.
fn kind_of(reason: &str) -> String {
    first_of(reason).replace(|c: char| c.is_ascii_digit() || c == '.', "")
}

/// Returns the first of several reasons, without what explains it.
fn first_of(reason: &str) -> &str {
    reason.split([';', ':', '(']).next().unwrap_or(reason).trim_end()
}

/// Names the instruments that limit the results or are missing.
fn doctor(run: &Run) -> Option<String> {
    let lines = run.manifest["doctor"].as_array().into_iter().flatten();
    let poor = lines.filter(|line| line["status"] != "ok");
    let names = poor.filter_map(|line| line["name"].as_str()).join(", ");
    (!names.is_empty()).then(|| format!("`ringmark doctor` finds limited or missing: {names}."))
}

/// Returns the run in ten lines of Markdown, for a pull request.
pub fn summary(run: &Run) -> String {
    let name = text_at(&run.manifest, "/name");
    let mut text = format!("**{name}**: {}\n{}\n\n", run.matrix.question, about::in_short(run));
    let Some(crossing) = Crossing::of(run, usize::MAX) else {
        return text + "Nothing is compared.\n";
    };
    text += &format!("| {} |", crossing.title(&format!("`{}`", run.matrix.baseline)));
    text += &crossing.workloads.iter().map(|name| format!(" {name} |")).collect::<String>();
    text += &format!("\n|---|{}\n", "--:|".repeat(crossing.workloads.len()));
    let room = SUMMARY_LINES - text.lines().count();
    let most = if crossing.rows.len() > room { room - 1 } else { room };
    for (arm, cells) in crossing.rows.iter().take(most) {
        text += &format!("| `{arm}` |");
        text += &cells.iter().map(|row| format!(" {} |", cell(*row))).collect::<String>();
        text.push('\n');
    }
    if crossing.rows.len() > most {
        let blank = " |".repeat(crossing.workloads.len());
        text += &format!("| and {} more arms |{blank}\n", crossing.rows.len() - most);
    }
    text
}
