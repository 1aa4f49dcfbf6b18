//! The documents are as short as they shall be, and their figures and pictures are made.

use std::process::Command;

use crate::markdown::without_comments;
use crate::programs::RINGMARK;
use crate::{root, text};

/// A reader with five minutes reads so much.
const README_LINES: usize = 120;
const REPORT_WORDS: usize = 5_000;

#[test]
fn the_first_documents_are_short() {
    let lines = text("README.md").lines().count();
    assert!(lines <= README_LINES, "README.md has {lines} lines");
    let words = text("REPORT.md").split_whitespace().count();
    assert!(words <= REPORT_WORDS, "REPORT.md has {words} words");
}

/// Returns the prose of a document, without what ringmark makes, in tables and in sentences.
fn by_hand(text: &str) -> String {
    let without_findings = text.split("<!-- / -->").map(|piece| {
        let kinds = ["<!-- finding ", "<!-- median "];
        let at = kinds.into_iter().filter_map(|kind| piece.find(kind)).min();
        &piece[..at.unwrap_or(piece.len())]
    });
    let text = without_comments(&without_findings.collect::<Vec<_>>().join(" FINDING "));
    let is_prose = |line: &&str| !line.starts_with(['|', '<']) && !line.starts_with("    ");
    text.lines().filter(is_prose).collect::<Vec<_>>().join("\n")
}

/// Returns the shares, multiples and durations in a text.
fn figures(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let units = ["%", "percent", "times", "ns", "µs", "instructions"];
    let is_figure = |pair: &&[&str]| {
        let unit =
            pair[1].trim_matches(|letter: char| letter.is_ascii_punctuation() && letter != '%');
        let has_digit = pair[0].contains(|letter: char| letter.is_ascii_digit());
        has_digit && (pair[0].contains('%') || units.contains(&unit))
    };
    words.windows(2).filter(is_figure).map(|pair| pair.join(" ")).collect()
}

/// No sentence of the report can contradict a verdict: each figure in it is made from the files of
/// a run, with the verdict's words.
#[test]
fn every_figure_of_the_report_is_made() {
    let report = text("REPORT.md");
    let (findings, method) = report.split_once("\n## How a number comes about\n").unwrap();
    assert!(findings.matches("<!-- finding ").count() > 5 && method.len() > 100);
    // Loads and settings, which the matrices give.
    let documents = [(findings, &["10 µs", "100 µs", "95 %"][..]), (&text("README.md"), &["95 %"])];
    for (text, known) in documents {
        let mut unmade = figures(&by_hand(text));
        unmade.retain(|figure| !known.contains(&&**figure));
        assert!(unmade.is_empty(), "write as findings (`ringmark report --help`): {unmade:?}");
    }
}

#[test]
fn figures_are_found() {
    let text =
        "it is <!-- finding a; b -->7 % lower<!-- / -->, or 3 % (of 10 µs)\n| 5 % | 6 ns |\n";
    assert_eq!(figures(&by_hand(text)), ["3 %", "10 µs)"]);
}

/// The table of benchmarks has the medians that criterion printed.
#[test]
fn the_benchmarks_are_those_of_the_passes() {
    let report = text("REPORT.md");
    let (_, section) = report.split_once("\n## cargo bench\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let folder = section.split("](").nth(1).unwrap().split(')').next().unwrap();
    let mut count = 0;
    for (pass, column) in [("pass-1.txt", 3), ("pass-2.txt", 4)] {
        let printed = text(&format!("{folder}/{pass}"));
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let name = cells[1].trim_matches('`');
            let lines =
                printed.lines().skip_while(|line| line.split_whitespace().next() != Some(name));
            let time = lines.take(2).find_map(|line| line.split_once("time:")).expect(name).1;
            let median: Vec<&str> = time.split_whitespace().skip(2).take(2).collect();
            assert_eq!(cells[column], median.join(" "), "{name} in {pass}");
            count += 1;
        }
    }
    assert!(count > 10);
}

/// The picture of a terminal shows what the program prints of the quick run in README.md.
#[test]
fn the_picture_is_of_a_committed_run() {
    let readme = text("README.md");
    let folders = readme.split("](results/").filter_map(|rest| rest.split(')').next());
    let folder = folders.into_iter().find(|folder| folder.ends_with("-quick-intel")).unwrap();
    let place = tempfile::tempdir().unwrap();
    let shown = "\"$0\" report \"results/$1\" --out \"$2\" | \
                 scripts/terminal_svg.sh scripts/run_matrix.sh";
    let picture = Command::new("sh")
        .args(["-c", shown, RINGMARK, folder])
        .arg(place.path())
        .current_dir(root())
        .output()
        .unwrap();
    let picture = String::from_utf8(picture.stdout).unwrap();
    assert!(
        picture == text("docs/quick.svg"),
        "make it anew: ringmark report results/{folder} | scripts/terminal_svg.sh \
         scripts/run_matrix.sh > docs/quick.svg"
    );
}
