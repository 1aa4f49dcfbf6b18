//! `ringmark report`: the tables of a run, on the terminal or between the markers of a document.

mod ladder;
pub mod table;
mod tables;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::results::{self, Run};

/// Prints the tables of a run.
///
/// With --splice, puts each into a document instead, between the lines `<!-- ringmark:NAME -->` and
/// `<!-- /ringmark:NAME -->`; the text around them stays as it is.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// The folder of the run
    folder: PathBuf,
    /// The document to put the tables into
    #[arg(long, value_name = "FILE")]
    splice: Option<PathBuf>,
    /// Put only this table into the document, and leave the others as they are; may be repeated
    #[arg(long, value_name = "NAME", requires = "splice")]
    only: Vec<String>,
}

/// Runs.
pub fn run(options: Options) -> Result<()> {
    let Some(document) = options.splice else { return print(&options.folder) };
    let run = Run::read(&options.folder)?;
    let text = fs::read_to_string(&document).with_context(|| format!("read {}", document.display()))?;
    let name = options.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let sections = tables::all(&run, &name);
    if let Some(unknown) =
        options.only.iter().find(|name| !sections.iter().any(|section| section.name == **name))
    {
        bail!("--only {unknown}: there is no such table; there are: {}", names(&sections));
    }
    let spliced = splice(&text, &sections, &options.only).with_context(|| document.display().to_string())?;
    results::replace(&document, spliced.as_bytes())
}

/// Prints every table.
pub fn print(folder: &Path) -> Result<()> {
    let run = Run::read(folder)?;
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut stdout = std::io::stdout().lock();
    for table in tables::all(&run, &name) {
        if !table.text.is_empty() {
            writeln!(stdout, "{}\n\n{}", table.title, table.text).context("stdout")?;
        }
    }
    Ok(())
}

/// A piece of generated text.
struct Section {
    /// Its name in markers.
    name: &'static str,
    /// What it shows; printed on the terminal only, where no prose stands around it.
    title: &'static str,
    /// Markdown that ends with a line break; empty if the run has nothing for it.
    text: String,
    /// It says which run it is of, so that it may stand in a document whose other tables are of another run,
    /// and stays when that one has nothing for it.
    names_its_run: bool,
}

fn names(sections: &[Section]) -> String {
    sections.iter().map(|section| section.name).collect::<Vec<_>>().join(", ")
}

/// Replaces what stands between the markers of each section, or `only` of some. Every section must have its
/// markers, once, and every marker a section.
fn splice(document: &str, sections: &[Section], only: &[String]) -> Result<String> {
    let mut spliced = String::new();
    let mut lines = document.lines();
    let mut done = Vec::new();
    while let Some(line) = lines.next() {
        spliced += line;
        spliced.push('\n');
        let Some(name) = marker(line, "<!-- ringmark:") else {
            if let Some(name) = marker(line, "<!-- /ringmark:") {
                bail!("the end of '{name}' stands without its beginning");
            }
            continue;
        };
        let Some(section) = sections.iter().find(|section| section.name == name) else {
            bail!("there is no table '{name}'; there are: {}", names(sections));
        };
        if done.contains(&section.name) {
            bail!("the marker of '{name}' stands twice");
        }
        done.push(section.name);
        let mut stood = String::new();
        let end = loop {
            match lines.next() {
                Some(line) if marker(line, "<!-- /ringmark:") == Some(name) => break line,
                Some(line) => stood += &format!("{line}\n"),
                None => bail!("the marker of '{name}' has no end: <!-- /ringmark:{name} -->"),
            }
        };
        let is_left_out = !only.is_empty() && !only.iter().any(|only| only == name);
        let stays = is_left_out || (section.text.is_empty() && section.names_its_run);
        spliced += &if stays {
            format!("{stood}{end}\n")
        } else if section.text.is_empty() {
            format!("\nThis run did not measure it.\n\n{end}\n")
        } else {
            format!("\n{}\n{end}\n", section.text)
        };
    }
    match sections.iter().find(|section| !done.contains(&section.name)) {
        Some(section) => bail!("there is no marker <!-- ringmark:{} -->", section.name),
        None => Ok(spliced),
    }
}

fn marker<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.trim().strip_prefix(start)?.strip_suffix(" -->")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(name: &'static str, text: &str, names_its_run: bool) -> Section {
        Section { name, title: "", text: text.to_owned(), names_its_run }
    }

    #[test]
    fn tables_of_two_runs_stand_in_one_document() {
        let document = "<!-- ringmark:cpu -->\n\nold\n\n<!-- /ringmark:cpu -->\n\
                        <!-- ringmark:ladder -->\n\nold\n\n<!-- /ringmark:ladder -->\n";
        let of_ladder = [section("cpu", "of ladder\n", false), section("ladder", "of ladder\n", true)];
        let spliced = splice(document, &of_ladder, &["ladder".to_owned()]).expect("splices");
        assert_eq!((spliced.matches("old").count(), spliced.matches("of ladder").count()), (1, 1));
        let of_other = [section("cpu", "of other\n", false), section("ladder", "", true)];
        let spliced = splice(&spliced, &of_other, &[]).expect("splices");
        assert_eq!((spliced.matches("of other").count(), spliced.matches("of ladder").count()), (1, 1));
        assert_eq!(splice(&spliced, &of_other, &[]).expect("splices"), spliced, "again, nothing changes");
    }

    fn sections() -> [Section; 1] {
        [section("cpu", "| new |\n", false)]
    }

    #[test]
    fn splicing_replaces_only_between_markers_and_twice_is_once() {
        let document = "# Title\n\n<!-- ringmark:cpu -->\n\n| old |\n\n<!-- /ringmark:cpu -->\n\nAfter\n";
        let once = splice(document, &sections(), &[]).expect("splices");
        assert_eq!(once, document.replace("old", "new"));
        assert_eq!(splice(&once, &sections(), &[]).expect("splices"), once);
    }

    #[test]
    fn broken_markers_are_named() {
        let cases = [
            ("no markers\n", "no marker"),
            ("<!-- ringmark:cpu -->\n", "no end"),
            ("<!-- /ringmark:cpu -->\n", "without its beginning"),
            ("<!-- ringmark:gpu -->\n<!-- /ringmark:gpu -->\n", "no table 'gpu'"),
        ];
        for (document, words) in cases {
            let message = splice(document, &sections(), &[]).expect_err(words).to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
