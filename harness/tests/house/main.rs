//! Keeps the house in order: which file may import which, how long things are, and plain English.
//!
//! Each test names every place that breaks its rule, and says what to do about it. CONTRIBUTING.md
//! has the reasons.
#![expect(clippy::unwrap_used, reason = "tests")]

mod imports;
#[path = "../support/markdown.rs"]
mod markdown;
mod prose;
mod reference;
mod sources;

use std::collections::BTreeMap;

use imports::{Import, circles, imports};
use markdown::without_comments;
use prose::{Sentence, comments, indented, sentences};
use ringmark::backend;
use sources::{Named, SOURCES, Source, text};

/// The files and folders of the library, from the bottom up. Those of one line do
/// not stand above each other. `backend/` is the files in that folder, `backend` the list of them.
const LIBRARY: &[&str] = &[
    "call cpus echo error kernel process rights socket team whereabouts",
    "address counters stop sys",
    "listener service",
    "contract",
    "connection drain orders ports protocol work worker zero_copy",
    "backend/",
    "backend list",
    "lib",
];

/// The files and folders of the harness, from the bottom up. All of them stand above the library.
const HARNESS: &[&str] = &[
    "terminal",
    "text",
    "status",
    "statistics",
    "rows",
    "machine",
    "load",
    "matrix",
    "verdict",
    "results",
    "report",
    "programs",
    "count",
    "trial",
    "doctor",
    "run",
    "main",
    "bin",
];

/// The folders that show what was measured, and must not start a process.
const STARTS_NO_PROCESS: [&str; 6] = ["text", "statistics", "rows", "verdict", "results", "report"];

/// The paths by which a process is started.
const STARTERS: [&str; 5] = [
    "::std::process::Command",
    "::std::os::unix::process::",
    "::libc::",
    "::rustix::",
    "ringmark::process::",
];

const MOST_FLOORS: usize = 10;
const MOST_LINES_OF_A_FUNCTION: usize = 70;
const MOST_LINES_OF_A_FILE: usize = 600;
const MOST_COLUMNS: usize = 100;
const MOST_WORDS_OF_A_SENTENCE: usize = 35;
const MOST_WORDS_ON_AVERAGE: usize = 15;

/// The pages for those who use ringmark, but for those that are made of the types.
const PAGES: [&str; 10] = [
    "README.md",
    "docs/comparing.md",
    "docs/external-servers.md",
    "docs/kernels.md",
    "docs/machines.md",
    "docs/parts.md",
    "docs/placement.md",
    "docs/questions.md",
    "docs/reading.md",
    "docs/servers.md",
];

/// The words that begin no sentence of a comment, except a question.
const BEGINNINGS: [&str; 6] = ["What", "Of", "Where", "That", "So that", "Whoever"];

/// The file that names system calls, two of which are also backends.
const NAMES_OF_CALLS: [&str; 2] = ["src/call.rs", "harness/src/report/colours.rs"];

/// The names of types that stand for more than one thing, and why they may.
const SHARED_NAMES: [(&str, &str); 1] = [("Options", "the options of one verb, read by clap")];

/// Fails if there are findings.
fn demand(rule: &str, findings: Vec<String>) {
    let list = findings.join("\n  ");
    assert!(findings.is_empty(), "{rule}\n  {list}\n{} findings", findings.len());
}

/// Returns how high a file stands, and the entry of the order that says so.
fn place(file: &str) -> Option<(usize, &'static str)> {
    let (inner, order, base) = match file.strip_prefix("harness/src/") {
        Some(inner) => (inner, HARNESS, LIBRARY.len()),
        None => (file.strip_prefix("src/")?, LIBRARY, 0),
    };
    for (height, line) in order.iter().enumerate() {
        for entry in line.split(' ') {
            let rest = inner.strip_prefix(entry).unwrap_or_default();
            if rest == ".rs" || rest.starts_with('/') || entry.ends_with('/') && !rest.is_empty() {
                return Some((base + height, entry));
            }
        }
    }
    None
}

/// Returns the files of the library and the harness.
fn code() -> impl Iterator<Item = &'static Source> {
    let packages = ["src/", "harness/src/"];
    SOURCES.iter().filter(move |source| packages.iter().any(|src| source.file.starts_with(src)))
}

/// Returns each import of a file that stands above the one that imports it.
fn upward(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for Import { from, line, to, path, .. } in imports(sources) {
        if let (Some((low, name)), Some((high, _))) = (place(from), place(to))
            && low < high
        {
            let path = path.replacen("harness::", "crate::", 1);
            findings.push(format!("{from}:{line} imports {path}, which stands above {name}"));
        }
    }
    findings
}

#[test]
fn imports_run_downwards() {
    let unknown = code().filter(|source| place(&source.file).is_none());
    let unknown = unknown.map(|source| source.file.clone()).collect();
    demand("Add these files to LIBRARY or HARNESS, where they belong:", unknown);
    let rule = "Import only from below; move a thing that both need to the lower one, or below it:";
    demand(rule, upward(&SOURCES));
}

#[test]
fn the_guide_tells_the_same_order() {
    let guide = text("CONTRIBUTING.md");
    let rows = guide.lines().filter_map(|line| line.strip_prefix("| `")?.split(['/', '.']).next());
    assert_eq!(rows.take(HARNESS.len()).collect::<Vec<_>>(), HARNESS, "the table of CONTRIBUTING");
}

#[test]
fn nothing_that_reports_starts_a_process() {
    let mut findings = Vec::new();
    for source in code() {
        let shows = folder(&source.file).is_some_and(|folder| STARTS_NO_PROCESS.contains(&folder));
        for Named { name, line } in source.paths.iter().filter(|_| shows) {
            let starters = STARTERS.iter().filter(|starter| name.contains(*starter));
            findings.extend(starters.map(|what| format!("{}:{line} names {what}", source.file)));
        }
    }
    demand("Start processes in `programs`, and ask the system in `machine`:", findings);
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let rule = "Move what ties a circle to a file of its own; a child takes nothing from its root:";
    demand(rule, circles(&imports(&SOURCES)));
}

#[test]
fn the_house_has_few_floors() {
    let mut chains: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let imports = imports(&SOURCES);
    for room in ["src"].iter().chain(HARNESS) {
        let below = imports.iter().filter(|import| folder(import.from) == Some(room));
        let below = below.filter_map(|import| chains.get(folder(import.to)?));
        let mut chain = below.max_by_key(|chain| chain.len()).cloned().unwrap_or_default();
        chain.push(room);
        chains.insert(room, chain);
    }
    let high = chains.values().filter(|chain| chain.len() > MOST_FLOORS);
    let high = high.map(|chain| chain.join(" < ")).collect();
    demand("Take an import out of these chains, which have too many floors:", high);
}

/// Returns the folder of a file that makes a floor; all of `src` is one.
fn folder(file: &str) -> Option<&'static str> {
    place(file).map(|(height, entry)| if height < LIBRARY.len() { "src" } else { entry })
}

#[test]
fn functions_and_files_are_short() {
    let mut findings = Vec::new();
    for source in SOURCES.iter() {
        for (Named { name, line }, lines) in &source.functions {
            if *lines > MOST_LINES_OF_A_FUNCTION {
                findings.push(format!("{}:{line} {name} has {lines} lines", source.file));
            }
        }
        let lines = source.text.lines().count();
        if lines > MOST_LINES_OF_A_FILE {
            findings.push(format!("{} has {lines} lines", source.file));
        }
    }
    demand("Divide what is too long, by what its parts do:", findings);
}

#[test]
fn lines_are_narrow() {
    let mut findings = Vec::new();
    for source in SOURCES.iter() {
        findings.extend(wide_lines(&source.file, &source.text));
    }
    for file in ["METHOD.md", "BIAS.md", "CONTRIBUTING.md", "CHANGELOG.md"].into_iter().chain(PAGES)
    {
        findings.extend(wide_lines(file, &without_comments(&text(file))));
    }
    demand("Break these lines; a `\\` at the end of a line continues a string:", findings);
}

fn wide_lines(file: &str, text: &str) -> Vec<String> {
    let is_markdown = file.ends_with(".md");
    let lines = text
        .lines()
        .zip(1..)
        .filter(|(line, _)| line.chars().count() > MOST_COLUMNS && !may_be_wide(line, is_markdown));
    lines.map(|(line, number)| format!("{file}:{number} {}", line.trim())).collect()
}

/// Returns whether a line is a row of a table or holds a link, or is code in Markdown.
fn may_be_wide(line: &str, is_markdown: bool) -> bool {
    let is_table = line.trim_start_matches(['/', '!', ' ']).starts_with('|');
    let is_link = line.contains("](") || line.starts_with("<img ");
    is_table || line.contains("://") || is_markdown && (indented(line) || is_link)
}

#[test]
fn comments_begin_with_their_subject() {
    let mut findings = Vec::new();
    for source in SOURCES.iter() {
        for Sentence { line, words } in sentences(&comments(&source.text)) {
            let text = words.join(" ");
            let is_riddle = BEGINNINGS.iter().any(|words| text.starts_with(&format!("{words} ")));
            if is_riddle && !text.ends_with('?') {
                findings.push(format!("{}:{line} {text}", source.file));
            }
        }
    }
    let rule = "Begin these sentences with their subject, or with a verb such as \"Returns\":";
    demand(rule, findings);
}

#[test]
fn documents_have_short_sentences() {
    let mut findings = Vec::new();
    for file in ["METHOD.md", "CONTRIBUTING.md", "BIAS.md", "REPORT.md"].into_iter().chain(PAGES) {
        let text = without_comments(&text(file));
        let sentences = sentences(&text);
        let words: usize = sentences.iter().map(|sentence| sentence.words.len()).sum();
        if words > MOST_WORDS_ON_AVERAGE * sentences.len() {
            findings.push(format!("{file} has {words} words in {} sentences", sentences.len()));
        }
        for Sentence { line, words } in sentences {
            if words.len() > MOST_WORDS_OF_A_SENTENCE {
                findings.push(format!("{file}:{line} {}", words.join(" ")));
            }
        }
    }
    demand("Make two sentences of these; 15 words on average are enough:", findings);
}

#[test]
fn backends_are_known_by_their_facts() {
    let mut findings = Vec::new();
    for source in code().filter(|source| !NAMES_OF_CALLS.contains(&source.file.as_str())) {
        for Named { name, line } in &source.literals {
            let is_name = backend::ALL.iter().any(|entry| entry.name == name);
            let is_own = source.text.lines().nth(line - 1).is_some_and(|line| {
                source.file.starts_with("src/backend/") && line.contains("name: ")
            });
            if !is_own && (is_name || name.trim_end_matches('-') == "uring") {
                findings.push(format!("{}:{line} names \"{name}\"", source.file));
            }
        }
    }
    demand("Ask `backend::Entry` for the fact that makes this backend special:", findings);
}

#[test]
fn a_type_name_stands_for_one_thing() {
    let mut files: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for source in code() {
        for Named { name, line } in &source.types {
            files.entry(name).or_default().insert(&source.file, *line);
        }
    }
    let mut findings = Vec::new();
    for (name, files) in files {
        if files.len() > 1 && SHARED_NAMES.iter().all(|(shared, _)| *shared != name) {
            let places: Vec<_> =
                files.iter().map(|(file, line)| format!("{file}:{line}")).collect();
            findings.push(format!("{name}: {}", places.join(", ")));
        }
    }
    demand("Rename one of each, so that a name says which is meant:", findings);
}

#[test]
fn an_import_from_above_is_found() {
    let page = Source::parse("harness/src/report/page.rs", "\nuse crate::run::Run;");
    let run = Source::parse("harness/src/run.rs", "use crate::report::page;");
    let expected =
        "harness/src/report/page.rs:2 imports crate::run::Run, which stands above report";
    assert_eq!(upward(&[page, run]), [expected]);
}
