//! Sections in the midst of a document, between markers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use itertools::Itertools as _;

use super::section::Section;

const BEGINNING: &str = "<!-- ringmark:";
const END: &str = "<!-- /ringmark:";

/// Returns the folders of runs that a document shows, or to which it links, or to files in them.
pub fn named_runs(document: &str, parent: &Path) -> BTreeSet<PathBuf> {
    let marked =
        document.lines().filter_map(|line| Some(marker(line, BEGINNING)?.split_once(' ')?.1));
    let linked = document.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    marked.chain(linked).filter_map(|target| run_of(target, parent)).collect()
}

/// Returns the folder of the run in which a file is.
fn run_of(target: &str, parent: &Path) -> Option<PathBuf> {
    let folders = Path::new(target).ancestors().filter(|path| !path.as_os_str().is_empty());
    folders.map(|path| parent.join(path)).find(|path| path.join("manifest.json").is_file())
}

/// Replaces the text between each pair of markers by the section of that name of the run in that
/// folder. Returns also all runs that were read.
pub fn splice<R: AsRef<[Section]>>(
    document: &str,
    parent: &Path,
    read: impl Fn(&Path) -> Result<R>,
) -> Result<(String, BTreeMap<PathBuf, R>)> {
    let mut runs: BTreeMap<PathBuf, R> = BTreeMap::new();
    let mut spliced = String::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        spliced += line;
        spliced.push('\n');
        let Some(marked) = marker(line, BEGINNING) else {
            if let Some(name) = marker(line, END) {
                bail!("the end of '{name}' stands without its beginning");
            }
            continue;
        };
        let Some((name, folder)) = marked.split_once(' ') else {
            bail!("the marker of '{marked}' names no run: {BEGINNING}{marked} results/FOLDER -->");
        };
        let folder = parent.join(folder);
        if !runs.contains_key(&folder) {
            runs.insert(folder.clone(), read(&folder)?);
        }
        let sections = runs[&folder].as_ref();
        let Some(section) = sections.iter().find(|section| section.name == name) else {
            let names = sections.iter().map(|section| section.name).join(", ");
            bail!("there is no table '{name}'; there are: {names}");
        };
        let end = loop {
            match lines.next() {
                Some(line) if marker(line, END) == Some(name) => break line,
                Some(line) if marker(line, BEGINNING).is_none() => {}
                _ => bail!("the marker of '{name}' has no end: {END}{name} -->"),
            }
        };
        let text = if section.body.is_empty() {
            "This run did not measure it.\n".to_owned()
        } else {
            section.body.markdown()
        };
        spliced += &format!("\n{text}\n{end}\n");
    }
    ensure!(!runs.is_empty(), "there is no marker {BEGINNING}NAME results/FOLDER -->");
    Ok((spliced, runs))
}

fn marker<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.trim().strip_prefix(start)?.strip_suffix(" -->")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::section::Body;

    /// A run that says which it is.
    fn sections(folder: &Path) -> Result<Vec<Section>> {
        let folder = folder.display().to_string();
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

    fn spliced(document: &str) -> String {
        splice(document, Path::new(""), sections).expect("splices").0
    }

    #[test]
    fn tables_of_two_runs_stand_in_one_document_and_twice_is_once() {
        let document = "# Title\n\n<!-- ringmark:cpu a -->\nold\n<!-- /ringmark:cpu -->\nBetween\n\
                        <!-- ringmark:cpu b -->\n\nold\n\n<!-- /ringmark:cpu -->\n\
                        <!-- ringmark:memory b -->\n<!-- /ringmark:memory -->\nAfter\n";
        let once = spliced(document);
        let expected = "# Title\n\n<!-- ringmark:cpu a -->\n\nCPU of a\n\n<!-- /ringmark:cpu \
        -->\nBetween\n\
                        <!-- ringmark:cpu b -->\n\nCPU of b\n\n<!-- /ringmark:cpu -->\n\
                        <!-- ringmark:memory b -->\n\nThis run did not measure it.\n\n<!-- \
                        /ringmark:memory -->\n\
                        After\n";
        assert_eq!(once, expected);
        assert_eq!(spliced(&once), once);
    }

    #[test]
    fn runs_are_named_by_markers_and_links() {
        let place = tempfile::tempdir().expect("a folder");
        for run in ["results/a", "results/b", "results/c"] {
            std::fs::create_dir_all(place.path().join(run)).expect("a folder");
            std::fs::write(place.path().join(run).join("manifest.json"), "").expect("a file");
        }
        let document = "<!-- ringmark:cpu results/a -->\n[x](results/b/charts/x.svg), \
        [y](results/a/memory.csv#top),\n\
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
            let message =
                splice(document, Path::new(""), sections).map(|_| ()).expect_err(words).to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
