//! `ringmark report`: a run as tables on the terminal or in a document, as a page and as pictures.

mod about;
mod bound;
mod chart;
mod charts;
mod colours;
pub mod compare;
mod digest;
mod finding;
pub mod functions;
mod grid;
mod hardware;
mod instructions;
mod json;
mod kernels;
mod ladder;
mod markup;
mod memory;
mod page;
mod query;
mod scale;
mod screen;
mod section;
mod sections;
mod splice;
mod table;
mod tables;
mod walk;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;
use itertools::Itertools as _;

use self::charts::Gallery;
use self::digest::{Question, Rows};
use self::finding::Kind;
use self::section::Section;
use self::splice::Shown;
use crate::results::{self, Run};
use crate::rows::TrialRow;
use crate::terminal;
use crate::verdict::metric::{self, Metric};

/// Makes the page of a run, report.html, and its pictures, charts/*.svg, in its folder, and prints
/// it on one screen. The verdicts of comparisons.csv are made anew too, by the rules of this
/// version.
///
/// With --splice, makes the tables of documents anew instead. Each stands between the lines `<!--
/// ringmark:NAME FOLDER -->` and `<!-- /ringmark:NAME -->`, and FOLDER is that of its run, as seen
/// from the document. Within a line, `<!-- finding RUN; WORKLOAD; ARM; METRIC -->` and `<!-- / -->`
/// hold a verdict in words: RUN is the end of a folder that the document names, and METRIC a column
/// of comparisons.csv. `median` in place of `finding` holds the arm's median, of trials.csv too.
/// Chosen rows stand between `<!-- ringmark:ratios`, TOML lines that ask for them, `-->` and `<!--
/// /ringmark:ratios -->`; `layers` and `decision` likewise. REPORT.md has examples. The text around
/// them stays as it is. To show another run, change the name of the folder. The pictures that the
/// documents show are drawn anew, and others of the same runs removed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ringmark report results/FOLDER
  ringmark report results/FOLDER --full
      every table
  ringmark report results/FOLDER --out /tmp/page
      where the folder may not be written
  ringmark report results/FOLDER --format json
      for a program
  ringmark report results/FOLDER --summary
      for a pull request
  ringmark report results/FOLDER --summary --fail-if-slower 5%
      in CI: one run of two versions of a server, as in the matrix `versus`
  ringmark report --splice REPORT.md
      the document and the pictures that it shows")]
pub struct Options {
    /// The folder of the run
    #[arg(required_unless_present = "splice")]
    folder: Option<PathBuf>,
    /// The folder for page, pictures and verdicts [default: the folder of the run]
    #[arg(long, value_name = "DIR", conflicts_with = "splice")]
    out: Option<PathBuf>,
    /// The documents whose tables are to be made anew, all that show the same runs
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "folder")]
    splice: Vec<PathBuf>,
    /// Print every table, not only what one screen holds
    #[arg(long, conflicts_with = "splice")]
    full: bool,
    /// Print the run in ten lines of Markdown, and write nothing
    #[arg(long, conflicts_with_all = ["splice", "full", "format", "out"])]
    summary: bool,
    /// Print the run in this form, and write nothing
    #[arg(long, value_enum, conflicts_with_all = ["splice", "out"])]
    format: Option<ReportFormat>,
    /// Judge the arms and write nothing: end with 5 if one is worse than the baseline by more than
    /// this, over the whole interval; with 3 if that cannot be said of all
    #[arg(long, value_name = "PERCENT", value_parser = compare::percentage)]
    #[arg(conflicts_with_all = ["splice", "out", "full", "format"])]
    fail_if_slower: Option<f64>,
    /// With --fail-if-slower: judge by this metric; may be given several times [default:
    /// server_cpu_ns_per_echo]
    #[arg(long, value_name = "NAME", requires = "fail_if_slower")]
    #[arg(value_parser = PossibleValuesParser::new(compare::metrics()))]
    metric: Vec<String>,
}

/// A form in which a run is printed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ReportFormat {
    /// One screen; with --full every table
    Text,
    /// Every table, under its heading
    Markdown,
    /// The rows and verdicts, by schema/report.json
    Json,
    /// The page
    Html,
}

/// Runs.
pub fn run(options: Options) -> Result<()> {
    if !options.splice.is_empty() {
        return splice_documents(&options.splice);
    }
    let folder = options.folder.unwrap_or_default();
    let report = RunReport::read(&folder)?;
    if options.summary {
        terminal::say(&screen::summary(&report.run))?;
    }
    match options.fail_if_slower {
        Some(most_percent) => return report.judge(&options.metric, most_percent),
        None if options.summary => return Ok(()),
        None => {}
    }
    if let Some(format) = options.format {
        return report.print_as(format, options.full);
    }
    let out = options.out.as_ref().unwrap_or(&folder);
    // First the files: who reads the tables may stop before their end.
    let drawn = report.draw(out);
    report.print(options.full)?;
    drawn.with_context(|| {
        let elsewhere = if options.out.is_none() { "; --out puts them elsewhere" } else { "" };
        format!("the run is above, page and pictures were not made{elsewhere}")
    })
}

/// Makes the sections of documents anew, and the pictures of all runs that they name.
fn splice_documents(documents: &[PathBuf]) -> Result<()> {
    let mut reports = BTreeMap::new();
    let (mut named, mut shown) = (BTreeSet::new(), BTreeSet::new());
    for document in documents {
        let text =
            fs::read_to_string(document).with_context(|| format!("read {}", document.display()))?;
        let parent = document.parent().unwrap_or(Path::new(""));
        let (spliced, read) = splice::splice(&text, parent, RunReport::read)
            .with_context(|| document.display().to_string())?;
        results::replace(document, spliced.as_bytes())?;
        reports.extend(read);
        named.extend(splice::named_runs(&spliced, parent));
        shown.extend(splice::pictures(&spliced, parent));
    }
    for folder in named {
        let report = reports.remove(&folder).map_or_else(|| RunReport::read(&folder), Ok)?;
        let drawn = report.pictures(&folder, &report.gallery());
        let mut of_run = shown.iter().filter(|picture| picture.starts_with(&folder));
        if let Some(unknown) = of_run.find(|picture| !drawn.contains_key(*picture)) {
            let names = drawn.keys().filter_map(|path| path.file_name()?.to_str()).join(", ");
            bail!("{}: the run has no such picture; it has: {names}", unknown.display());
        }
        let kept = drawn.into_iter().filter(|(path, _)| shown.contains(path)).collect();
        write_pictures(&folder, &kept)?;
        report.run.write_compared(&folder)?;
    }
    Ok(())
}

/// A run, and all that is written of it.
pub struct RunReport {
    folder: PathBuf,
    run: Run,
    /// Made when they are asked for: what is printed for programs needs none.
    sections: OnceCell<Vec<Section>>,
}

impl RunReport {
    /// Reads a run.
    pub fn read(folder: &Path) -> Result<Self> {
        let run = Run::read(folder)?;
        Ok(Self { folder: folder.to_owned(), run, sections: OnceCell::new() })
    }

    /// Returns the trials of the run.
    pub fn trials(&self) -> &[TrialRow] {
        &self.run.trials
    }

    /// Prints one screen, or the question of the run and every table.
    pub fn print(&self, full: bool) -> Result<()> {
        let text = if full { self.tables("") } else { screen::screen(&self.run, &self.folder) };
        terminal::say(&text)
    }

    /// Judges the arms by metrics of these names, or by server CPU.
    fn judge(&self, names: &[String], most_percent: f64) -> Result<()> {
        let is_asked = |metric: &&Metric| match names {
            [] => **metric == metric::CPU,
            names => names.iter().any(|name| name == metric.name),
        };
        let metrics: Vec<&Metric> = metric::all().filter(is_asked).collect();
        terminal::say(&bound::judge(&self.run, &metrics, most_percent)?)
    }

    fn print_as(&self, format: ReportFormat, full: bool) -> Result<()> {
        match format {
            ReportFormat::Text => self.print(full),
            ReportFormat::Markdown => terminal::say(&self.tables("## ")),
            ReportFormat::Json => terminal::say(&json::document(&self.run, &self.folder)?),
            ReportFormat::Html => {
                terminal::say(&page::html(&self.run, self.sections(), &self.gallery()))
            }
        }
    }

    /// Returns the question of the run, and every table under its title.
    fn tables(&self, before_title: &str) -> String {
        let name = query::text_at(&self.run.manifest, "/name");
        let mut text = format!("{name}: {}\n\n", self.run.matrix.question);
        for section in self.sections().iter().filter(|section| !section.body.is_empty()) {
            text += &format!("{before_title}{}\n\n{}\n", section.title, section.body.markdown());
        }
        text
    }

    /// Makes the page, the pictures and the verdicts.
    pub fn draw(&self, out: &Path) -> Result<()> {
        let gallery = self.gallery();
        let page = page::html(&self.run, self.sections(), &gallery);
        create_folder(out)?;
        write_pictures(out, &self.pictures(out, &gallery))?;
        results::replace(&out.join("report.html"), page.as_bytes())?;
        self.run.write_compared(out)
    }

    fn gallery(&self) -> Gallery {
        charts::all(&self.run, &self.folder)
    }

    /// Returns the pictures, by their files in a folder.
    fn pictures(&self, out: &Path, gallery: &Gallery) -> BTreeMap<PathBuf, String> {
        let charts = gallery.charts.iter();
        let file = |name: &str| out.join("charts").join(format!("{name}.svg"));
        charts.map(|chart| (file(&chart.name), chart.file())).collect()
    }
}

/// Makes a folder hold these pictures of ours and no others.
fn write_pictures(out: &Path, pictures: &BTreeMap<PathBuf, String>) -> Result<()> {
    let charts = out.join("charts");
    remove_others(&charts, pictures)?;
    if !pictures.is_empty() {
        create_folder(&charts)?;
    }
    for (path, picture) in pictures {
        results::replace(path, picture.as_bytes())?;
    }
    Ok(())
}

impl Shown for RunReport {
    fn sections(&self) -> &[Section] {
        self.sections.get_or_init(|| {
            let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
            sections::all(&self.run, &name)
        })
    }

    fn finding(&self, kind: Kind, fields: &str) -> Result<String> {
        finding::words(&self.run, kind, fields)
    }

    fn cells(&self, question: Question) -> Result<Rows> {
        digest::cells(&self.run, question)
    }
}

fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))
}

/// Removes pictures of ours that the run has no more, and nothing else.
fn remove_others(charts: &Path, files: &BTreeMap<PathBuf, String>) -> Result<()> {
    let entries = match fs::read_dir(charts) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("read {}", charts.display()))?,
    };
    for entry in entries {
        let path = entry.with_context(|| format!("read {}", charts.display()))?.path();
        if path.extension().is_some_and(|ending| ending == "svg")
            && !files.contains_key(&path)
            && fs::read(&path).is_ok_and(|text| text.starts_with(chart::OPENING.as_bytes()))
        {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}
