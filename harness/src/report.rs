//! `ringmark report`: the tables of a run, on the terminal or between the markers of a document.

mod ladder;
mod ranking;
mod scale;
pub mod table;
mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::results::{self, Run};

/// Prints the tables of a run.
///
/// With --splice, makes the tables of a document anew instead. Each stands between the lines
/// `<!-- ringmark:NAME FOLDER -->` and `<!-- /ringmark:NAME -->`, and FOLDER is that of its run, as seen from the
/// document; the text around them stays as it is. To show another run, change the name of the folder.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// The folder of the run
    #[arg(required_unless_present = "splice")]
    folder: Option<PathBuf>,
    /// The document whose tables are to be made anew
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    splice: Option<PathBuf>,
}

/// Runs.
pub fn run(options: Options) -> Result<()> {
    if let Some(document) = options.splice {
        let text = fs::read_to_string(&document).with_context(|| format!("read {}", document.display()))?;
        let place = document.parent().unwrap_or(Path::new(""));
        let spliced = splice(&text, |folder| sections(&place.join(folder)))
            .with_context(|| document.display().to_string())?;
        return results::replace(&document, spliced.as_bytes());
    }
    print(&options.folder.unwrap_or_default())
}

fn sections(folder: &Path) -> Result<Vec<Section>> {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(tables::all(&Run::read(folder)?, &name))
}

/// Prints every table.
pub fn print(folder: &Path) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    for table in sections(folder)? {
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
}

/// Replaces what stands between each pair of markers by the section of that name of the run in that folder.
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
            bail!("the marker of '{marked}' names no run: <!-- ringmark:{marked} results/FOLDER -->");
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
        let text = if section.text.is_empty() { "This run did not measure it.\n" } else { &section.text };
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
    use super::*;

    /// A run that says which it is.
    fn sections(folder: &str) -> Result<Vec<Section>> {
        ensure!(folder != "missing", "{folder}: not the folder of a run");
        let text = |words: &str| format!("{words} of {folder}\n");
        Ok(vec![
            Section { name: "cpu", title: "", text: text("CPU") },
            Section { name: "memory", title: "", text: String::new() },
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
    fn broken_markers_are_named() {
        let cases = [
            ("no markers\n", "no marker"),
            ("<!-- ringmark:cpu a -->\n", "no end"),
            ("<!-- ringmark:cpu a -->\n<!-- ringmark:cpu a -->\n<!-- /ringmark:cpu -->\n", "no end"),
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
