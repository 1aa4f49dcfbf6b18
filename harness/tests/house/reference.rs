//! The pages of `docs/` that are made of the types: the columns of every file, and the keys of a
//! matrix. `RINGMARK_DOCS=write cargo test --test house` writes them.

use std::fmt::Write as _;
use std::fs;

use ringmark::backend;
use ringmark::contract::Knob;
use syn::{Attribute, Expr, Fields, Item, ItemStruct, Lit};

use crate::sources::{root, text};

/// The files that hold the rows of results, in the order of the page.
const ROWS: [&str; 8] =
    ["trials", "syscalls", "memory", "scale", "comparisons", "windows", "instructions", "hardware"];

/// The parts of a matrix, each with its type and its file.
const PARTS: [(&str, &str, &str); 12] = [
    ("The matrix itself", "Matrix", "types"),
    ("`backends`: an arm", "Arm", "types"),
    ("`[[external]]`: a server that is not ours", "External", "external"),
    ("`[margins]`", "Margins", "types"),
    ("`[latency]`", "Latency", "types"),
    ("`[latency.interleaved]`", "Interleaved", "types"),
    ("`[syscalls]`", "Syscalls", "types"),
    ("`[hardware]`", "Hardware", "types"),
    ("`[instructions]`", "Instructions", "types"),
    ("`[memory]`", "Memory", "types"),
    ("`[scale]`", "Scale", "types"),
    ("`[[workload]]`", "Workload", "types"),
];

#[test]
fn the_reference_is_that_of_the_types() {
    for (file, page) in [("columns.md", columns()), ("matrices.md", matrices())] {
        let path = root().join("docs").join(file);
        if std::env::var("RINGMARK_DOCS").is_ok_and(|what| what == "write") {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, page).unwrap();
            continue;
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        let first = found.lines().zip(page.lines()).find(|(found, made)| found != made);
        assert!(
            found == page,
            "docs/{file} is not that of the types, from here on: {first:?}; make it anew: \
             RINGMARK_DOCS=write cargo test --test house"
        );
    }
}

fn columns() -> String {
    let mut page = "# Columns\n\nEach run has these files. An empty cell is a figure that was not \
                    measured. This page is made of [the types](../harness/src/rows).\n"
        .to_owned();
    for file in ROWS {
        for row in structs(&format!("harness/src/rows/{file}.rs")) {
            let about = prose(&row.attrs);
            // The first word in code is the file.
            let Some(name) = about.split('`').nth(1).filter(|name| name.ends_with(".csv")) else {
                continue;
            };
            write!(page, "\n## `{name}`\n\n{about}\n\n| column | meaning |\n|---|---|\n").unwrap();
            page += &table(&row);
        }
    }
    page
}

fn matrices() -> String {
    let mut page = "# Matrices\n\nA matrix is a TOML file: what is measured, under which \
                    workloads. `ringmark run --list` names those that are built in, and \
                    `ringmark run --print quick` prints one to begin with. A file of the same \
                    name wins. This page is made of [the types](../harness/src/matrix/types.rs).\n"
        .to_owned();
    for (title, name, file) in PARTS {
        let all = structs(&format!("harness/src/matrix/{file}.rs"));
        let part = all.into_iter().find(|part| part.ident == name).expect(name);
        let about = prose(&part.attrs);
        write!(page, "\n## {title}\n\n{about}\n\n| key | meaning |\n|---|---|\n").unwrap();
        page += &table(&part);
    }
    page += "\n## Settings of a backend\n\nAn arm's `set` and `ringmark-server --set` take these. \
             The value is the one without it.\n\n| setting | backends | meaning |\n|---|---|---|\n";
    let mut knobs: Vec<(&'static Knob, Vec<&str>)> = Vec::new();
    for entry in backend::ALL {
        for knob in entry.knobs {
            let is_alike = |other: &Knob| {
                other.to_string() == knob.to_string() && other.meaning == knob.meaning
            };
            match knobs.iter_mut().find(|(other, _)| is_alike(other)) {
                Some((_, backends)) => backends.push(entry.name),
                None => knobs.push((knob, vec![entry.name])),
            }
        }
    }
    knobs.sort_by_key(|(knob, _)| knob.name);
    for (knob, backends) in knobs {
        let (meaning, backends) = (escaped(knob.meaning), backends.join("`, `"));
        let accepts = knob.accepts();
        writeln!(page, "| `{knob}` | `{backends}` | {meaning}; {accepts} |").unwrap();
    }
    page
}

/// Returns the public structs of a file.
fn structs(file: &str) -> Vec<ItemStruct> {
    let items = syn::parse_file(&text(file)).expect(file).items;
    let of_item = |item| match item {
        Item::Struct(of_struct) => Some(of_struct),
        _ => None,
    };
    items.into_iter().filter_map(of_item).collect()
}

/// Returns a line for each field of a struct that stands in a file.
fn table(of: &ItemStruct) -> String {
    let Fields::Named(fields) = &of.fields else { panic!("{} has no names", of.ident) };
    let mut table = String::new();
    for field in &fields.named {
        let serde = serde_words(&field.attrs);
        if serde.contains("skip)") || serde.contains("skip,") {
            continue;
        }
        let name = match serde.split_once("rename = \"") {
            Some((_, rest)) => rest.split('"').next().unwrap_or_default().to_owned(),
            None => field.ident.as_ref().expect("a name").to_string(),
        };
        writeln!(table, "| `{name}` | {} |", escaped(&prose(&field.attrs))).unwrap();
    }
    table
}

/// Returns what serde is told of a field.
fn serde_words(attributes: &[Attribute]) -> String {
    let lists = attributes.iter().filter(|attribute| attribute.path().is_ident("serde"));
    let tokens = lists.filter_map(|attribute| attribute.meta.require_list().ok());
    tokens.map(|list| format!("({})", list.tokens)).collect()
}

/// Returns the comment of an item.
fn comment(attributes: &[Attribute]) -> String {
    let docs = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let text = |attribute: &Attribute| match &attribute.meta.require_name_value().ok()?.value {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        _ => None,
    };
    docs.filter_map(text).collect::<Vec<_>>().join(" ")
}

/// Returns a comment as one line, without links to the source.
fn prose(attributes: &[Attribute]) -> String {
    let words = comment(attributes);
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    // A link to an item shows its name alone.
    let mut line = String::new();
    let mut rest = words.as_str();
    while let Some((before, after)) = rest.split_once("[`") {
        let (name, after) = after.split_once("`]").unwrap_or((after, ""));
        let name = name.rsplit("::").next().unwrap_or(name);
        write!(line, "{before}`{name}`").unwrap();
        rest = after;
    }
    line + rest
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}
