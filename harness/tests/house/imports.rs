//! Finds which file imports which, and the circles that they make.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::successors;

use crate::sources::{Named, Source};

type Files<'a> = BTreeSet<&'a str>;

/// A file that names something of another file.
pub struct Import<'a> {
    pub from: &'a str,
    pub line: usize,
    pub to: &'a str,
    /// The path that is named, from its crate on.
    pub path: &'a str,
    /// Its part behind the module of the other file; empty for the module itself.
    pub name: &'a str,
}

/// Returns the imports between files. A path leads to the innermost module that is a file, so that
/// a name which a root re-exports is imported from the root. A root imports what it declares.
pub fn imports(sources: &[Source]) -> Vec<Import<'_>> {
    let files: BTreeMap<_, _> =
        sources.iter().map(|source| (source.module.as_str(), source.file.as_str())).collect();
    let mut imports = Vec::new();
    for source in sources {
        for Named { name: path, line } in &source.paths {
            let outwards = successors(Some(path.as_str()), |path| Some(path.rsplit_once("::")?.0));
            for module in outwards.filter(|module| files.contains_key(module)).take(1) {
                let name = path[module.len()..].trim_start_matches("::");
                let (from, line, to) = (source.file.as_str(), *line, files[module]);
                imports.push(Import { from, line, to, path, name });
            }
        }
    }
    imports.retain(|import| import.from != import.to);
    imports
}

/// Returns each group of files that all import each other, with the names that tie them.
pub fn circles(imports: &[Import]) -> Vec<String> {
    let mut arrows: BTreeMap<&str, Files> = BTreeMap::new();
    for import in imports {
        arrows.entry(import.from).or_default().insert(import.to);
    }
    let reach: BTreeMap<_, _> = arrows.keys().map(|file| (*file, reached(file, &arrows))).collect();
    let mut circles = BTreeSet::new();
    for (file, reached) in reach.iter().filter(|(file, reached)| reached.contains(*file)) {
        let mut circle = reached.clone();
        circle.retain(|other| reach.get(other).is_some_and(|back| back.contains(file)));
        circles.insert(circle);
    }
    circles.iter().map(|circle| describe(circle, imports)).collect()
}

/// Returns the files that one imports, directly or through others.
fn reached<'a>(from: &'a str, arrows: &BTreeMap<&'a str, Files<'a>>) -> Files<'a> {
    let mut reached = Files::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        let next = arrows.get(file).into_iter().flatten();
        open.extend(next.filter(|next| reached.insert(next)));
    }
    reached
}

fn describe(circle: &Files, imports: &[Import]) -> String {
    let mut ties: BTreeMap<_, Files> = BTreeMap::new();
    for Import { from, to, name, .. } in imports {
        if circle.contains(from) && circle.contains(to) {
            let name = name.split("::").next().filter(|name| !name.is_empty());
            ties.entry(format!("{from} -> {to}")).or_default().insert(name.unwrap_or("mod"));
        }
    }
    let mut text = format!("a circle of {} files", circle.len());
    for (tie, names) in ties {
        text += &format!("\n    {tie}: {}", Vec::from_iter(names).join(", "));
    }
    text
}

fn parse(files: &[(&str, &str)]) -> Vec<Source> {
    files.iter().map(|(file, text)| Source::parse(file, text)).collect()
}

#[test]
fn a_path_leads_to_the_file_that_it_names() {
    let page = "use crate::{rows::{self, Row as R}, report as above};
        use super::Page;
        #[serde(with = \"crate::rows::words\")]
        fn f() { ringmark::sys::read(); println!(\"{}\", rows::COLUMNS); let x: R = R::new(); }
        #[cfg(test)] mod tests { use crate::run::Run; }";
    let sources = parse(&[
        ("src/sys.rs", "use std::io;"),
        ("harness/src/rows.rs", "pub struct Row;"),
        ("harness/src/report.rs", "mod page; pub use page::Page; mod a { use super::page::f; }"),
        ("harness/src/report/page.rs", page),
        ("harness/src/run.rs", "fn f() { crate::report::page::f::<u8>() }"),
    ]);
    let found = imports(&sources).into_iter().map(|import| (import.line, import.to, import.name));
    let expected = [
        (1, "harness/src/report/page.rs", ""),
        (1, "harness/src/report/page.rs", "Page"),
        (1, "harness/src/report/page.rs", "f"),
        (1, "harness/src/rows.rs", ""),
        (1, "harness/src/rows.rs", "Row"),
        (1, "harness/src/report.rs", ""),
        (2, "harness/src/report.rs", "Page"),
        (3, "harness/src/rows.rs", "words"),
        (4, "src/sys.rs", "read"),
        (4, "harness/src/rows.rs", "COLUMNS"),
        (4, "harness/src/rows.rs", "Row::new"),
        (1, "harness/src/report/page.rs", "f"),
    ];
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

#[test]
fn a_circle_is_found_with_the_names_that_tie_it() {
    let sources = parse(&[
        ("src/a.rs", "use crate::b::B;"),
        ("src/b.rs", "use crate::c;"),
        ("src/c.rs", "fn f() { crate::a::f() }"),
        ("src/above.rs", "use crate::a::A;"),
        ("src/root.rs", "mod child; pub struct Shared;"),
        ("src/root/child.rs", "use super::Shared;"),
    ]);
    let of_three = "a circle of 3 files
    src/a.rs -> src/b.rs: B
    src/b.rs -> src/c.rs: mod
    src/c.rs -> src/a.rs: f";
    let of_two = "a circle of 2 files
    src/root.rs -> src/root/child.rs: mod
    src/root/child.rs -> src/root.rs: Shared";
    assert_eq!(circles(&imports(&sources)), [of_three, of_two]);
}
