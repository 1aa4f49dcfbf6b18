//! The command that starts a side's programs elsewhere, as a prefix of their own command lines.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::redact;

/// The words that stand before the programs of a side; none by default.
#[derive(Clone, Debug, Default)]
pub struct CommandPrefix {
    option: &'static str,
    given: String,
    words: Vec<String>,
    folder: Option<PathBuf>,
}

impl CommandPrefix {
    pub fn parse(option: &'static str, given: &str, folder: Option<&Path>) -> Result<Self> {
        let words = shlex::split(given).with_context(|| {
            format!("{option} `{given}`: a quotation mark or a backslash has no end")
        })?;
        ensure!(
            !words.is_empty(),
            "{option} `{given}`: no word in it; leave it out to start the program here"
        );
        Ok(Self { option, given: given.to_owned(), words, folder: folder.map(Path::to_owned) })
    }

    /// Builds the command of a program there that lies here at `program`.
    pub fn command(&self, program: &Path) -> Command {
        let program = self.path(program);
        match self.words.split_first() {
            None => Command::new(program),
            Some((first, more)) => {
                let mut command = Command::new(first);
                command.args(more).arg(program);
                command
            }
        }
    }

    /// Returns whether programs are started here, by nothing that stands before them.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Where a program lies there.
    pub fn path(&self, program: &Path) -> PathBuf {
        match (&self.folder, program.file_name()) {
            (Some(folder), Some(name)) => folder.join(name),
            _ => program.to_owned(),
        }
    }

    /// An error on the way, which names it.
    pub fn blame(&self, error: anyhow::Error) -> anyhow::Error {
        if self.words.is_empty() {
            error
        } else {
            error.context(format!("{} `{}`", self.option, self.given))
        }
    }

    /// What results tell of it.
    pub fn told(&self) -> String {
        redact::told(&self.words)
    }

    /// A text without what they do not tell of it.
    pub fn hide(&self, text: String) -> String {
        redact::hide(&self.words, self.folder.as_deref().and_then(Path::to_str), text)
    }
}
