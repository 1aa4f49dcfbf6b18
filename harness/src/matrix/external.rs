//! An external echo server, as a matrix names it: what to start, how it says that it is ready, and
//! which version it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use ringmark::backend;
use serde::{Deserialize, Serialize};

use crate::rows::Pass;

/// An `[[external]]` of a matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Its name in every result, as an arm and as a backend.
    pub name: String,
    /// The program and its arguments; no shell stands in between. `{address}`, `{port}` and
    /// `{workers}` in them are replaced. A path is one from where `ringmark` is started.
    pub command: Vec<String>,
    /// How it shows that it accepts connections.
    pub ready: ReadySign,
    /// How long that may take.
    #[serde(default = "ten_seconds", with = "super::duration")]
    pub ready_within: Duration,
    /// The command whose first line of output is its version. Without one it is unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub version: Vec<String>,
    /// Advice if the program is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
}

/// How a server shows that it accepts connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadySign {
    /// A listener on its port, in the kernel's list; no connection is made for it.
    Port,
    /// A line on its stdout or stderr that contains this.
    Line(String),
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// Makes a text from outside fit for a terminal and for every file. A character that is not to be
/// seen, or turns the direction of writing, becomes a blank.
pub fn visible(text: &str) -> String {
    text.replace(
        |c: char| {
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
                || c.is_control()
        },
        " ",
    )
}

/// The address that a server is told to listen on.
pub const ADDRESS: &str = "127.0.0.1";

/// Refuses a name that could not be part of a histogram's file name.
pub fn check_name(name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ensure!(
        (1..=64).contains(&name.len()) && name.chars().all(is_plain),
        "a name is made of up to 64 letters, digits, '-', '_' and '.'"
    );
    Ok(())
}

const PORT: &str = "{port}";
const WORKERS: &str = "{workers}";

impl External {
    /// Refuses what cannot be run.
    pub fn check(&self) -> Result<()> {
        check_name(&self.name)?;
        ensure!(
            backend::find(&self.name).is_err(),
            "one of our backends has that name; give it another"
        );
        let is_program = |word: &String| !word.is_empty();
        ensure!(self.command.first().is_some_and(is_program), "command is empty: name a program");
        ensure!(
            self.version.first().is_none_or(is_program),
            "version is empty: name a program, or leave it out"
        );
        ensure!(
            self.takes(PORT),
            "there is no {PORT} in its command, so that it could not be told where to listen"
        );
        ensure!(
            self.ready != ReadySign::Line(String::new()),
            "every line contains the empty text; give a part of its ready line, or ready = \"port\""
        );
        Ok(())
    }

    /// Returns whether it can be told how many workers to have.
    pub fn takes_workers(&self) -> bool {
        self.takes(WORKERS)
    }

    fn takes(&self, placeholder: &str) -> bool {
        self.command.iter().any(|word| word.contains(placeholder))
    }

    /// Returns the command with its placeholders filled.
    pub fn words(&self, port: u16, workers: u16) -> Vec<String> {
        let words = self.command.iter().map(|word| {
            word.replace("{address}", ADDRESS)
                .replace(PORT, &port.to_string())
                .replace(WORKERS, &workers.to_string())
        });
        words.collect()
    }

    /// Returns the files that its commands name, each once: programs, and arguments such as
    /// scripts, also after a `=`.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let programs = [self.command.first(), self.version.first()].into_iter().flatten();
        let arguments = self.command.iter().chain(&self.version);
        let values = arguments.clone().filter_map(|word| Some(word.split_once('=')?.1));
        let named = arguments.map(String::as_str).chain(values).map(PathBuf::from);
        programs
            .filter_map(|program| find(program))
            .chain(named.filter(|path| path.is_file()))
            .collect()
    }

    /// Says why it cannot be run here, if its program is missing.
    pub fn missing(&self) -> Option<String> {
        let program = self.command.first()?;
        if find(program).is_some() {
            return None;
        }
        let place = if program.contains('/') { "does not exist" } else { "is not in PATH" };
        let hint =
            self.build.as_deref().map(|build| format!("; to have it: {build}")).unwrap_or_default();
        Some(format!("{program} {place}{hint}"))
    }

    /// Says why a pass cannot measure it, in a run that has a command for a side or not.
    pub fn unsupported(&self, pass: Pass, is_commanded: bool) -> Option<String> {
        match pass {
            _ if is_commanded => Some(
                "an external server is started here, in a network of its own: leave \
                 --server-command and --load-command out"
                    .to_owned(),
            ),
            Pass::Scale => {
                Some("this pass reads counters that only our own servers have".to_owned())
            }
            _ => self.missing(),
        }
    }
}

/// Finds a program where a shell would.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path: &PathBuf| Path::is_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn external() -> External {
        External {
            name: "other".to_owned(),
            command: ["sh", "-c", "{address}:{port} {workers}{port}"].map(str::to_owned).to_vec(),
            ready: ReadySign::Port,
            ready_within: ten_seconds(),
            version: vec!["sh".to_owned()],
            build: Some("make other".to_owned()),
        }
    }

    #[test]
    fn every_placeholder_is_filled() {
        assert_eq!(external().words(8888, 2), ["sh", "-c", "127.0.0.1:8888 28888"]);
        assert!(external().takes_workers());
    }

    #[test]
    fn what_cannot_be_run_is_refused_and_named() {
        type Change = fn(&mut External);
        let cases: [(Change, &str); 6] = [
            (|other| other.name = "a/b".to_owned(), "letters"),
            (|other| other.name = "epoll-et".to_owned(), "one of our backends"),
            (|other| other.command.clear(), "command is empty"),
            (|other| other.version = vec![String::new()], "version is empty"),
            (|other| other.command = vec!["sh".to_owned()], "no {port}"),
            (|other| other.ready = ReadySign::Line(String::new()), "empty text"),
        ];
        external().check().expect("is good");
        for (change, words) in cases {
            let mut changed = external();
            change(&mut changed);
            let message = changed.check().expect_err(words).to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn what_is_said_from_outside_moves_no_cursor() {
        assert_eq!(visible("a\u{1b}[31mred\u{7}\tb\r\nc"), "a [31mred  b  c");
        assert_eq!(visible("\u{9b}2J \u{202e}é|"), " 2J  é|");
    }

    #[test]
    fn files_are_those_that_the_commands_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").expect("a file");
            path.to_str().expect("UTF-8").to_owned()
        };
        let (script, config, tool) = (file("script"), file("config"), file("tool"));
        let mut other = external();
        let config_option = format!("--config={config}");
        other.command =
            ["sh", &script, &config_option, "{port}", "missing"].map(str::to_owned).to_vec();
        other.version = vec![tool.clone()];
        let found = other.files();
        assert!(
            [&script, &config, &tool].iter().all(|path| found.contains(Path::new(path))),
            "{found:?}"
        );
        assert_eq!(found.len(), 4, "and the shell: {found:?}");
    }

    #[test]
    fn a_missing_program_comes_with_the_hint() {
        assert_eq!(external().missing(), None);
        let with = |program: &str| {
            let mut other = external();
            other.command[0] = program.to_owned();
            other.missing().expect("is missing")
        };
        assert_eq!(
            with("no-such-program"),
            "no-such-program is not in PATH; to have it: make other"
        );
        assert_eq!(external().unsupported(Pass::Memory, false), None);
        assert!(
            external()
                .unsupported(Pass::Scale, false)
                .is_some_and(|reason| reason.contains("our own servers"))
        );
        assert_eq!(with("./no-such-file"), "./no-such-file does not exist; to have it: make other");
    }
}
