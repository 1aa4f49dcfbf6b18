//! The documents: their links lead somewhere, their commands run, and their first screens stay
//! short.
#![expect(clippy::unwrap_used, reason = "tests")]

mod clone;
mod commands;
mod links;
#[path = "../support/markdown.rs"]
mod markdown;
mod measures;
#[path = "../support/programs.rs"]
mod programs;

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the folder of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Returns a document of the repository.
fn text(file: &str) -> String {
    fs::read_to_string(root().join(file)).expect(file)
}

/// Returns the names of all documents.
fn documents() -> Vec<String> {
    let in_folder = |folder: &str| {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let documents = names.filter(|name| name.ends_with(".md"));
        documents.map(|name| format!("{folder}{name}")).collect::<Vec<_>>()
    };
    [in_folder(""), in_folder("docs/")].concat()
}
