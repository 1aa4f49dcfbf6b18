//! The command that starts a side's programs elsewhere, as a prefix of their own command lines.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::redact;

/// The words before the programs of a side; none by default.
#[derive(Clone, Debug, Default)]
pub struct CommandPrefix {
    option: &'static str,
    given: String,
    words: Vec<String>,
    folder: Option<PathBuf>,
}

impl CommandPrefix {
    /// Splits what an option was given into words. `folder` is that of the programs there.
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
        let Some((first, more)) = self.words.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(more).arg(program);
        command
    }

    /// Returns whether programs are started here, without a command.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Returns where a program lies there.
    pub fn path(&self, program: &Path) -> PathBuf {
        match (&self.folder, program.file_name()) {
            (Some(folder), Some(name)) => folder.join(name),
            _ => program.to_owned(),
        }
    }

    /// Names the command in an error of what it started.
    pub fn blame(&self, error: anyhow::Error) -> anyhow::Error {
        if self.is_empty() {
            return error;
        }
        error.context(format!("{} `{}`", self.option, self.given))
    }

    /// Returns what results tell of it.
    pub fn redacted(&self) -> String {
        redact::redacted(&self.words)
    }

    /// Takes out of a text what results do not tell of it.
    pub fn hide(&self, text: &str) -> String {
        if self.is_empty() {
            return text.to_owned();
        }
        let text = text.replace(&self.given, &self.redacted());
        redact::hide(&self.words, self.folder.as_deref().and_then(Path::to_str), &text)
    }
}
