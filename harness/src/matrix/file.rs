//! Reads a matrix.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::built_in::{self, BuiltIn};
use super::external::{External, visible};
use super::types::{Arm, Matrix};

/// A matrix that was asked for, and where it was found.
pub struct NamedMatrix {
    /// The name of its runs.
    pub name: String,
    /// The matrix.
    pub matrix: Matrix,
    /// The file, or "built in".
    pub origin: String,
}

impl NamedMatrix {
    /// Reads the matrix that a command line names: a file, the file of that name with the ending
    /// .toml, or else one that is part of the program.
    pub fn named(name: &Path) -> Result<Self> {
        let with_ending = name.with_added_extension("toml");
        let file = [name, &with_ending].into_iter().find(|path| path.exists() && !path.is_dir());
        if let Some(file) = file {
            let matrix = Matrix::read(file)?;
            let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("matrix");
            return Ok(Self { name: stem.to_owned(), matrix, origin: file.display().to_string() });
        }
        let built_in = name.to_str().and_then(built_in::find).ok_or_else(|| nowhere(name))?;
        Self::built_in(built_in)
    }

    /// Reads one that is part of the program.
    pub fn built_in(&BuiltIn { name, text }: &BuiltIn) -> Result<Self> {
        let matrix = Matrix::parse(text, name)?;
        Ok(Self { name: name.to_owned(), matrix, origin: "built in".to_owned() })
    }
}

/// Says that there is no such matrix, and which may be meant.
fn nowhere(name: &Path) -> anyhow::Error {
    let stem = name.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    anyhow!("{}: there is no such file, and {}", name.display(), built_in::unknown(stem))
}

impl Matrix {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).with_context(|| format!("read {file}"))?;
        Self::parse(&text, &file)
    }

    /// Reads and checks the text of a file.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        ensure!(
            !text.trim().is_empty(),
            "{file}: the file is empty; `ringmark run --print quick` prints an example"
        );
        let mut matrix: Self = toml::from_str(text)
            .map_err(|fault| anyhow!("{file} line {}", in_words(&fault, text)))?;
        if let Some(text) = hidden_in(&serde_json::to_value(&matrix)?) {
            bail!("{file}: a character in {text:?} is not to be seen; take it out");
        }
        matrix.enlist_externals();
        matrix.check().with_context(|| file.to_owned())?;
        Ok(matrix)
    }

    /// Makes an arm of every external server that is none yet.
    fn enlist_externals(&mut self) {
        for External { name, .. } in &self.externals {
            if !self.backends.iter().any(|arm| arm.backend == *name) {
                self.backends.push(Arm { backend: name.clone(), ..Arm::default() });
            }
        }
    }
}

/// Puts a fault and its place into one line, which is what a terminal and a log can use.
fn in_words(fault: &toml::de::Error, text: &str) -> String {
    let line = text[..fault.span().map_or(0, |span| span.start)].matches('\n').count();
    let mut words = format!("{}: {}", line + 1, fault.message().replace('\n', "; "));
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let Some((key, _)) = lines.get(line).and_then(|line| line.split_once('=')) else {
        return words;
    };
    words += &format!(" ({}", key.trim());
    let head = lines[..line].iter().rposition(|line| line.starts_with('[')).unwrap_or(0);
    let table = lines[head + 1..].iter().take_while(|line| !line.starts_with('['));
    let mut values = table.filter_map(|line| line.split_once('='));
    if let Some((_, name)) = values.find(|(key, _)| key.trim() == "name") {
        words += &format!(" of {}", name.trim());
    }
    words + ")"
}

/// Finds a text that would do something to a terminal. Breaks of lines and tabs are blanks.
fn hidden_in(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => {
            let is_hidden = text.lines().any(|line| visible(line) != line.replace('\t', " "));
            is_hidden.then_some(text)
        }
        Value::Array(values) => values.iter().find_map(hidden_in),
        Value::Object(values) => values.values().find_map(hidden_in),
        _ => None,
    }
}
