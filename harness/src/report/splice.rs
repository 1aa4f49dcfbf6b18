//! Sections and findings in the midst of a document, between markers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use itertools::Itertools as _;

use super::digest::{Digest, Question, Rows};
use super::finding::Kind;
use super::section::Section;

/// A run, as a document shows it.
pub trait Shown {
    /// Returns its sections.
    fn sections(&self) -> &[Section];
    /// Returns a finding in words.
    fn finding(&self, kind: Kind, fields: &str) -> Result<String>;
    /// Returns the cells that a table asks for.
    fn cells(&self, question: Question) -> Result<Rows>;
}

/// The end of a marker's words, and of a finding.
const CLOSE: &str = " -->";
const FINDING_END: &str = "<!-- / -->";

const BEGINNING: &str = "<!-- ringmark:";
const END: &str = "<!-- /ringmark:";

/// Returns the folders of runs that a document shows, or to which it links, or to files in them.
pub fn named_runs(document: &str, parent: &Path) -> BTreeSet<PathBuf> {
    let marked =
        document.lines().filter_map(|line| Some(marker(line, BEGINNING)?.split_once(' ')?.1));
    marked.chain(targets(document)).filter_map(|target| run_of(target, parent)).collect()
}

/// Returns the pictures of runs that a document shows.
pub fn pictures(document: &str, parent: &Path) -> BTreeSet<PathBuf> {
    let is_picture = |target: &&str| target.ends_with(".svg") && run_of(target, parent).is_some();
    targets(document).filter(is_picture).map(|target| parent.join(target)).collect()
}

/// Returns the targets of links and pictures.
fn targets(document: &str) -> impl Iterator<Item = &str> {
    let linked = document.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    let shown = document.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next());
    linked.chain(shown)
}

/// Returns the folder of the run in which a file is.
fn run_of(target: &str, parent: &Path) -> Option<PathBuf> {
    let folders = Path::new(target).ancestors().filter(|path| !path.as_os_str().is_empty());
    folders.map(|path| parent.join(path)).find(|path| path.join("manifest.json").is_file())
}

/// Replaces the text between each pair of markers: by the section of that name of the run in that
/// folder, by the rows that the lines of the marker ask for, or in a line by a finding. Returns
/// also all runs that were read.
pub fn splice<R: Shown>(
    document: &str,
    parent: &Path,
    read: impl Fn(&Path) -> Result<R>,
) -> Result<(String, BTreeMap<PathBuf, R>)> {
    let mut runs = Runs { named: named_runs(document, parent), known: BTreeMap::new(), read };
    let mut spliced = String::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = opened(line) {
            let asked = asked(&mut lines)
                .with_context(|| format!("the marker of '{name}' has no end: -->"))?;
            spliced += &format!("{line}\n{asked}-->\n");
            let table = Digest::parse(name, &asked).and_then(|digest| {
                digest.table(|matrix, question| {
                    let folder = runs.of_matrix(matrix)?;
                    runs.get(&folder)?.cells(question).with_context(|| folder.display().to_string())
                })
            });
            let table = table.with_context(|| format!("the table '{name}'"))?;
            spliced += &format!("\n{}\n{}\n", table.markdown(), close(&mut lines, name)?);
        } else if let Some(marked) = marker(line, BEGINNING) {
            let Some((name, folder)) = marked.split_once(' ') else {
                bail!(
                    "the marker of '{marked}' names no run: {BEGINNING}{marked} results/FOLDER -->"
                );
            };
            let text = section(name, runs.get(&parent.join(folder))?)?;
            spliced += &format!("{line}\n\n{text}\n{}\n", close(&mut lines, name)?);
        } else if let Some(name) = marker(line, END) {
            bail!("the end of '{name}' stands without its beginning");
        } else {
            spliced += &with_findings(line, &mut runs)?;
            spliced.push('\n');
        }
    }
    ensure!(!runs.known.is_empty(), "there is no marker {BEGINNING}NAME results/FOLDER -->");
    Ok((spliced, runs.known))
}

/// Returns a run's section of that name.
fn section<R: Shown>(name: &str, run: &R) -> Result<String> {
    let sections = run.sections();
    let Some(section) = sections.iter().find(|section| section.name == name) else {
        let names = sections.iter().map(|section| section.name).join(", ");
        bail!("there is no table '{name}'; there are: {names}");
    };
    Ok(if section.body.is_empty() {
        "This run did not measure it.\n".to_owned()
    } else {
        section.body.markdown()
    })
}

/// Passes over what stands before the end of a marker of that name. Returns the line of that end.
fn close<'a>(lines: &mut std::str::Lines<'a>, name: &str) -> Result<&'a str> {
    let is_marker = |line: &str| marker(line, END).or(marker(line, BEGINNING)).is_some();
    let end = lines.find(|line| is_marker(line) || opened(line).is_some());
    end.filter(|line| marker(line, END) == Some(name))
        .with_context(|| format!("the marker of '{name}' has no end: {END}{name} -->"))
}

/// Takes the lines of a marker whose words go on; none if it has no end.
fn asked(lines: &mut std::str::Lines<'_>) -> Option<String> {
    let mut asked = String::new();
    loop {
        match lines.next()? {
            line if line.trim() == "-->" => return Some(asked),
            line => asked += &format!("{line}\n"),
        }
    }
}

/// Makes the findings of a line anew.
fn with_findings<R: Shown, F: Fn(&Path) -> Result<R>>(
    line: &str,
    runs: &mut Runs<R, F>,
) -> Result<String> {
    let mut made = String::new();
    let mut rest = line;
    while let Some((start, kind)) = next_finding(rest) {
        let opening = kind.opening();
        let words = &rest[start + opening.len()..];
        let (words, old) = words
            .split_once(CLOSE)
            .with_context(|| format!("a marker has no end '{CLOSE}': {words}"))?;
        let (_, after) = old
            .split_once(FINDING_END)
            .with_context(|| format!("the finding '{words}' has no end: {FINDING_END}"))?;
        let (run, fields) =
            words.split_once(';').with_context(|| format!("the finding '{words}' names no run"))?;
        let finding = runs.get(&runs.of_matrix(run)?)?.finding(kind, fields);
        let finding = finding.with_context(|| format!("the finding '{words}'"))?;
        made += &rest[..start];
        made += &format!("{opening}{words}{CLOSE}{finding}{FINDING_END}");
        rest = after;
    }
    Ok(made + rest)
}

/// Returns the place and the kind of the first finding in a line.
fn next_finding(text: &str) -> Option<(usize, Kind)> {
    let of_kind = |kind: Kind| Some((text.find(&kind.opening())?, kind));
    Kind::ALL.into_iter().filter_map(of_kind).min_by_key(|(start, _)| *start)
}

/// The runs of a document, each read once.
struct Runs<R, F> {
    /// Those that its sections and links name.
    named: BTreeSet<PathBuf>,
    known: BTreeMap<PathBuf, R>,
    read: F,
}

impl<R, F: Fn(&Path) -> Result<R>> Runs<R, F> {
    fn get(&mut self, folder: &Path) -> Result<&R> {
        if !self.known.contains_key(folder) {
            self.known.insert(folder.to_owned(), (self.read)(folder)?);
        }
        Ok(&self.known[folder])
    }

    /// Returns the only folder that the document names and that ends in the name of this matrix.
    fn of_matrix(&self, matrix: &str) -> Result<PathBuf> {
        let ending = format!("-{matrix}");
        let is_of_matrix = |folder: &&PathBuf| {
            folder.file_name().is_some_and(|name| name.to_string_lossy().ends_with(&ending))
        };
        match self.named.iter().filter(is_of_matrix).collect::<Vec<_>>()[..] {
            [only] => Ok(only.clone()),
            [] => bail!("the document names no run whose folder ends in '{ending}'"),
            _ => bail!("the document names several runs whose folders end in '{ending}'"),
        }
    }
}

/// Returns the name of a marker whose words go on in the lines below.
fn opened(line: &str) -> Option<&str> {
    line.trim().strip_prefix(BEGINNING).filter(|name| !name.contains(' '))
}

fn marker<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.trim().strip_prefix(start)?.strip_suffix(" -->")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::section::Body;

    /// A run that says which it is.
    struct Named(String, Vec<Section>);

    impl Shown for Named {
        fn sections(&self) -> &[Section] {
            &self.1
        }

        fn finding(&self, kind: Kind, fields: &str) -> Result<String> {
            ensure!(fields.trim() != "bad", "there is none");
            Ok(format!("{} of {} in {}", kind.word(), fields.trim(), self.0))
        }

        fn cells(&self, question: Question) -> Result<Rows> {
            let Question::Ratios { workload, .. } = question else { bail!("ratios alone") };
            Ok(vec![vec![format!("{workload} of {}", self.0)]])
        }
    }

    fn read(folder: &Path) -> Result<Named> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ensure!(name != "missing", "{name}: not the folder of a run");
        let notes = Body::default().notes(format!("CPU of {name}\n"));
        let sections = vec![
            Section { name: "cpu", title: "", body: notes },
            Section { name: "memory", title: "", body: Body::default() },
        ];
        Ok(Named(name, sections))
    }

    fn spliced(document: &str) -> String {
        splice(document, Path::new(""), read).expect("splices").0
    }

    #[test]
    fn findings_stand_in_sentences_and_cells() {
        let place = tempfile::tempdir().expect("a folder");
        for run in ["1-a", "2-a", "1-b"] {
            std::fs::create_dir_all(place.path().join(run)).expect("a folder");
            std::fs::write(place.path().join(run).join("manifest.json"), "").expect("a file");
        }
        let links = "[x](1-a/report.html), [y](1-b/report.html)\n";
        let document = format!(
            "{links}| it is <!-- finding b; w -->old<!-- / -->, and \
             <!-- median a; v --><!-- / -->|\n"
        );
        let make = |document: &str| splice(document, place.path(), read).map(|(text, _)| text);
        let once = make(&document).expect("splices");
        let expected = format!(
            "{links}| it is <!-- finding b; w -->finding of w in 1-b<!-- / -->, and \
             <!-- median a; v -->median of v in 1-a<!-- / -->|\n"
        );
        assert_eq!(once, expected);
        assert_eq!(make(&once).expect("splices"), once);
        for (text, complaint) in [
            ("<!-- finding a; w -->", "has no end"),
            ("<!-- finding a; w", "has no end"),
            ("<!-- finding a --><!-- / -->", "names no run"),
            ("<!-- finding c; w --><!-- / -->", "ends in '-c'"),
            ("[z](2-a/x.csv) <!-- finding a; w --><!-- / -->", "several runs"),
            ("<!-- finding a; bad --><!-- / -->", "'a; bad': there is none"),
        ] {
            let error = make(&format!("{links}{text}\n")).expect_err(text);
            let message = format!("{error:#}");
            assert!(message.contains(complaint), "{message}");
        }
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
    fn rows_that_are_asked_for_stand_below_their_question() {
        let place = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(place.path().join("1-a")).expect("a folder");
        std::fs::write(place.path().join("1-a/manifest.json"), "").expect("a file");
        let asked = "[x](1-a)\n<!-- ringmark:ratios\nrun = \"a\"\ntitle = \"load\"\narms = \
                     [\"y\"]\nrows = [[\"one\", \"w\"]]\n-->\n";
        let document = format!("{asked}old\n<!-- /ringmark:ratios -->\nAfter\n");
        let make = |document: &str| splice(document, place.path(), read).map(|(text, _)| text);
        let once = make(&document).expect("splices");
        let table = "| load |      `y` |\n|------|---------:|\n| one  | w of 1-a |\n";
        assert_eq!(once, format!("{asked}\n{table}\n<!-- /ringmark:ratios -->\nAfter\n"));
        assert_eq!(make(&once).expect("splices"), once);
        for (text, complaint) in [
            ("<!-- ringmark:ratios\n", "no end: -->"),
            ("<!-- ringmark:ratios\nrun = 1\n-->\n<!-- /ringmark:ratios -->\n", "'ratios'"),
            ("<!-- ringmark:ratio\n-->\n<!-- /ringmark:ratio -->\n", "'ratio'"),
            (asked.trim_start_matches("[x](1-a)\n"), "no end: <!-- /ringmark:ratios -->"),
        ] {
            let error = make(&format!("[x](1-a)\n{text}")).expect_err(text);
            assert!(format!("{error:#}").contains(complaint), "{error:#}");
        }
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
                        results/c, [z](https://example.org), [w](results/d) and [v](#up)\n\
                        <img src=\"results/a/charts/y.svg\" alt=\"y\"> ![u](other.svg)\n";
        let names: Vec<_> = named_runs(document, place.path()).into_iter().collect();
        assert_eq!(names, ["results/a", "results/b"].map(|run| place.path().join(run)));
        let shown: Vec<_> = pictures(document, place.path()).into_iter().collect();
        let expected = ["results/a/charts/y.svg", "results/b/charts/x.svg"];
        assert_eq!(shown, expected.map(|picture| place.path().join(picture)));
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
                splice(document, Path::new(""), read).map(|_| ()).expect_err(words).to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
