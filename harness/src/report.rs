//! `ringmark report`: a run as tables on the terminal or in a document, as a page and as pictures.

mod chart;
mod charts;
mod colours;
pub mod compare;
mod ladder;
mod page;
mod ranking;
pub mod rules;
mod scale;
mod section;
pub mod table;
pub mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use self::section::Section;
use crate::results::{self, Run};
use crate::terminal;

/// Makes the page of a run, report.html, and its pictures, charts/*.svg, in its folder, and prints
/// its tables.
///
/// With --splice, makes the tables of a document anew instead. Each stands between the lines `<!--
/// ringmark:NAME FOLDER -->` and `<!-- /ringmark:NAME -->`, and FOLDER is that of its run, as seen
/// from the document; the text around them stays as it is. To show another run, change the name of
/// the folder. Pages and pictures are made of every run that the document names in a marker or a
/// link.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ringmark report results/FOLDER
  ringmark report results/FOLDER --out /tmp/page    where the folder may not be written
  ringmark report --splice REPORT.md                the document and every page that it names")]
pub struct Options {
    /// The folder of the run
    #[arg(required_unless_present = "splice")]
    folder: Option<PathBuf>,
    /// Where page and pictures go [default: the folder of the run]
    #[arg(long, value_name = "DIR", conflicts_with = "splice")]
    out: Option<PathBuf>,
    /// The document whose tables are to be made anew
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    splice: Option<PathBuf>,
}

/// Runs.
pub fn run(options: Options) -> Result<()> {
    if let Some(document) = options.splice {
        let text = fs::read_to_string(&document)
            .with_context(|| format!("read {}", document.display()))?;
        let place = document.parent().unwrap_or(Path::new(""));
        let sections = |folder: &str| {
            let folder = place.join(folder);
            Ok(tables::all(&Run::read(&folder)?, &name(&folder)))
        };
        let spliced = splice(&text, sections).with_context(|| document.display().to_string())?;
        results::replace(&document, spliced.as_bytes())?;
        return named_runs(&spliced, place).iter().try_for_each(|folder| draw(folder, folder));
    }
    let folder = options.folder.unwrap_or_default();
    let out = options.out.as_ref().unwrap_or(&folder);
    // First the files: who reads the tables may stop before their end.
    let drawn = draw(&folder, out);
    print(&folder)?;
    drawn.with_context(|| match options.out {
        Some(_) => "the tables are above, page and pictures were not made".to_owned(),
        None => "the tables are above, page and pictures were not made; --out puts them elsewhere"
            .to_owned(),
    })
}

fn name(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Prints the question of a run, and every table.
pub fn print(folder: &Path) -> Result<()> {
    let run = Run::read(folder)?;
    let mut text =
        format!("{}: {}\n\n", tables::text_of(&run.manifest, "/name"), run.matrix.question);
    for section in
        tables::all(&run, &name(folder)).iter().filter(|section| !section.body.is_empty())
    {
        text += &format!("{}\n\n{}\n", section.title, section.body.markdown());
    }
    terminal::say(&text)
}

/// Makes the page and the pictures of a run.
pub fn draw(folder: &Path, out: &Path) -> Result<()> {
    let run = Run::read(folder)?;
    let gallery = charts::all(&run, folder);
    let page = page::html(&run, &name(folder), &gallery);
    let make = |folder: &Path| {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))
    };
    make(out)?;
    let charts = out.join("charts");
    let files: BTreeMap<PathBuf, String> = gallery
        .charts
        .iter()
        .map(|chart| (charts.join(format!("{}.svg", chart.name)), chart.file()))
        .collect();
    remove_others(&charts, |path| files.contains_key(path))?;
    if !files.is_empty() {
        make(&charts)?;
    }
    for (path, picture) in files {
        results::replace(&path, picture.as_bytes())?;
    }
    results::replace(&out.join("report.html"), page.as_bytes())
}

/// Removes pictures of ours that the run has no more, and nothing else.
fn remove_others(charts: &Path, is_wanted: impl Fn(&Path) -> bool) -> Result<()> {
    let entries = match fs::read_dir(charts) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("read {}", charts.display()))?,
    };
    for entry in entries {
        let path = entry.with_context(|| format!("read {}", charts.display()))?.path();
        let is_picture = path.extension().is_some_and(|ending| ending == "svg");
        if is_picture
            && !is_wanted(&path)
            && fs::read(&path).is_ok_and(|text| text.starts_with(chart::OPENING.as_bytes()))
        {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The folders of runs that a document shows or links to, or to files in them.
fn named_runs(document: &str, place: &Path) -> BTreeSet<PathBuf> {
    let marked = document
        .lines()
        .filter_map(|line| Some(marker(line, "<!-- ringmark:")?.split_once(' ')?.1));
    let linked = document.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    let is_run = |path: &&Path| {
        !path.as_os_str().is_empty() && place.join(path).join("manifest.json").is_file()
    };
    let run_of =
        |target: &str| Path::new(target).ancestors().find(is_run).map(|folder| place.join(folder));
    marked.chain(linked).filter_map(run_of).collect()
}

/// Replaces what stands between each pair of markers by the section of that name of the run in that
/// folder.
fn splice(document: &str, sections: impl Fn(&str) -> Result<Vec<Section>>) -> Result<String> {
    let mut runs: BTreeMap<&str, Vec<Section>> = BTreeMap::new();
    let mut spliced = String::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        spliced += line;
        spliced.push('\n');
        let Some(marked) = marker(line, "<!-- ringmark:") else {
            if let Some(name) = marker(line, "<!-- /ringmark:") {
                bail!("the end of '{name}' stands without its beginning");
            }
            continue;
        };
        let Some((name, folder)) = marked.split_once(' ') else {
            bail!(
                "the marker of '{marked}' names no run: <!-- ringmark:{marked} results/FOLDER -->"
            );
        };
        if !runs.contains_key(folder) {
            runs.insert(folder, sections(folder)?);
        }
        let of_run = &runs[folder];
        let Some(section) = of_run.iter().find(|section| section.name == name) else {
            let names: Vec<_> = of_run.iter().map(|section| section.name).collect();
            bail!("there is no table '{name}'; there are: {}", names.join(", "));
        };
        let end = loop {
            match lines.next() {
                Some(line) if marker(line, "<!-- /ringmark:") == Some(name) => break line,
                Some(line) if marker(line, "<!-- ringmark:").is_none() => {}
                _ => bail!("the marker of '{name}' has no end: <!-- /ringmark:{name} -->"),
            }
        };
        let text = match section.body.is_empty() {
            true => "This run did not measure it.\n".to_owned(),
            false => section.body.document(),
        };
        spliced += &format!("\n{text}\n{end}\n");
    }
    ensure!(!runs.is_empty(), "there is no marker <!-- ringmark:NAME results/FOLDER -->");
    Ok(spliced)
}

fn marker<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.trim().strip_prefix(start)?.strip_suffix(" -->")
}

#[cfg(test)]
mod tests {
    use super::section::Body;
    use super::*;

    /// A run that says which it is.
    fn sections(folder: &str) -> Result<Vec<Section>> {
        ensure!(folder != "missing", "{folder}: not the folder of a run");
        Ok(vec![
            Section {
                name: "cpu",
                title: "",
                body: Body::default().notes(format!("CPU of {folder}\n")),
            },
            Section { name: "memory", title: "", body: Body::default() },
        ])
    }

    #[test]
    fn tables_of_two_runs_stand_in_one_document_and_twice_is_once() {
        let document = "# Title\n\n<!-- ringmark:cpu a -->\nold\n<!-- /ringmark:cpu -->\nBetween\n\
                        <!-- ringmark:cpu b -->\n\nold\n\n<!-- /ringmark:cpu -->\n\
                        <!-- ringmark:memory b -->\n<!-- /ringmark:memory -->\nAfter\n";
        let once = splice(document, sections).expect("splices");
        let expected = "# Title\n\n<!-- ringmark:cpu a -->\n\nCPU of a\n\n<!-- /ringmark:cpu -->\nBetween\n\
                        <!-- ringmark:cpu b -->\n\nCPU of b\n\n<!-- /ringmark:cpu -->\n\
                        <!-- ringmark:memory b -->\n\nThis run did not measure it.\n\n<!-- /ringmark:memory -->\n\
                        After\n";
        assert_eq!(once, expected);
        assert_eq!(splice(&once, sections).expect("splices"), once);
    }

    #[test]
    fn runs_are_named_by_markers_and_links() {
        let place = tempfile::tempdir().expect("a folder");
        for run in ["results/a", "results/b", "results/c"] {
            fs::create_dir_all(place.path().join(run)).expect("a folder");
            fs::write(place.path().join(run).join("manifest.json"), "").expect("a file");
        }
        let document = "<!-- ringmark:cpu results/a -->\n[x](results/b/charts/x.svg), [y](results/a/memory.csv#top),\n\
                        results/c, [z](https://example.org), [w](results/d) and [v](#up)\n";
        let names: Vec<_> = named_runs(document, place.path()).into_iter().collect();
        assert_eq!(names, ["results/a", "results/b"].map(|run| place.path().join(run)));
    }

    #[test]
    fn broken_markers_are_named() {
        let cases = [
            ("no markers\n", "no marker"),
            ("<!-- ringmark:cpu a -->\n", "no end"),
            (
                "<!-- ringmark:cpu a -->\n<!-- ringmark:cpu a -->\n<!-- /ringmark:cpu -->\n",
                "no end",
            ),
            ("<!-- ringmark:cpu -->\n<!-- /ringmark:cpu -->\n", "names no run"),
            ("<!-- /ringmark:cpu -->\n", "without its beginning"),
            ("<!-- ringmark:gpu a -->\n<!-- /ringmark:gpu -->\n", "no table 'gpu'"),
            ("<!-- ringmark:cpu missing -->\n<!-- /ringmark:cpu -->\n", "not the folder of a run"),
        ];
        for (document, words) in cases {
            let message = splice(document, sections).expect_err(words).to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
