//! Takes out of results what commands and paths may tell of hosts, people and passwords.

use std::collections::HashSet;

use crate::machine::files::without_folders;

/// Stands where something was left out.
pub const HIDDEN: &str = "…";

/// The option of the command that starts the server.
pub const SERVER: &str = "--server-command";

/// The option of the command that starts the load.
pub const LOAD: &str = "--load-command";

/// The option of the folder of the programs on the other sides.
pub const REMOTE_BIN: &str = "--remote-bin";

/// Reduces a command to its program, without folders and arguments.
pub fn redacted(words: &[String]) -> String {
    let Some((program, arguments)) = words.split_first() else { return String::new() };
    let name = program.rsplit('/').next().unwrap_or(program);
    let quoted = shlex::try_quote(name).map_or_else(|_| name.to_owned(), Into::into);
    let folder = if name == program { String::new() } else { format!("{HIDDEN}/") };
    let rest = if arguments.is_empty() { String::new() } else { format!(" {HIDDEN}") };
    format!("{folder}{quoted}{rest}")
}

/// Reduces a command that is not split into words yet.
pub fn redacted_line(command: &str) -> String {
    shlex::split(command).map_or_else(|| HIDDEN.to_owned(), |words| redacted(&words))
}

/// Takes folders and commands out of the arguments of this program.
pub fn redacted_arguments(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut before = String::new();
    let mut redact = |argument: String| {
        let (start, option, value) = match argument.split_once('=') {
            Some((option, value)) if option.starts_with("--") => {
                (format!("{option}="), option, value)
            }
            _ => (String::new(), before.as_str(), argument.as_str()),
        };
        let redacted = match option {
            SERVER | LOAD => start + &redacted_line(value),
            REMOTE_BIN => start + HIDDEN,
            _ => without_folders(&argument),
        };
        before = argument;
        redacted
    };
    arguments.map(&mut redact).collect()
}

/// Takes the names in a command's arguments, and those in a folder, out of a text.
pub fn hide(words: &[String], folder: Option<&str>, text: &str) -> String {
    let Some((program, arguments)) = words.split_first() else { return text.to_owned() };
    let hidden: HashSet<String> = arguments
        .iter()
        .map(String::as_str)
        .chain(folder)
        .flat_map(|word| word.split(|c| !is_of_name(c)))
        .flat_map(parts)
        // Shorter ones are words of any language, and say little.
        .filter(|name| name.chars().count() > 2)
        .collect();
    let mut text = text.to_owned();
    if let Some((_, name)) = program.rsplit_once('/') {
        text = text.replace(program, &format!("{HIDDEN}/{name}"));
    }
    let pieces = text.split_inclusive(|c| !is_of_name(c)).map(|piece| {
        let name = piece.trim_matches(|c: char| !c.is_alphanumeric());
        if parts(name).any(|part| hidden.contains(&part)) {
            piece.replace(name, HIDDEN)
        } else {
            piece.to_owned()
        }
    });
    pieces.collect()
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || "-_.".contains(c)
}

/// Returns a name, and what is between its dots: a host may be called by its first label. ssh
/// writes hosts in small letters.
fn parts(name: &str) -> impl Iterator<Item = String> {
    let name = name.trim_matches(|c: char| !c.is_alphanumeric());
    std::iter::once(name).chain(name.split('.')).map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &str) -> Vec<String> {
        command.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_command_keeps_the_name_of_its_program() {
        for (command, shown) in [
            ("env", "env"),
            ("ip netns exec a", "ip …"),
            ("ssh bench", "ssh …"),
            ("./ssh -p 22 me@bench", "…/ssh …"),
            ("/home/me/wrapper", "…/wrapper"),
            ("env TOKEN=1 taskset -c 3", "env …"),
        ] {
            let redacted = redacted(&words(command));
            assert_eq!(redacted, shown, "{command}");
            assert_eq!(redacted_line(&redacted), shown, "a second time");
        }
        assert_eq!(redacted(&["my program".to_owned(), "x".to_owned()]), "'my program' …");
        assert_eq!(redacted_line("a 'b"), HIDDEN);
    }

    #[test]
    fn the_recorded_command_line_tells_no_more() {
        let given = [
            "/home/me/ringmark",
            "run",
            "a b/bench.toml",
            "--server-command",
            "wrap bench",
            "--load-command=sshpass -p bench ssh me@bench",
            "--remote-bin",
            "work/bench",
            "--remote-bin=/home/bench",
            "--out=/home/me/run",
            "--server-command",
            "env",
            "taskset",
        ];
        assert_eq!(
            redacted_arguments(given.into_iter().map(str::to_owned)),
            [
                "…/ringmark",
                "run",
                "a b/bench.toml",
                "--server-command",
                "wrap …",
                "--load-command=sshpass …",
                "--remote-bin",
                "…",
                "--remote-bin=…",
                "--out=…/run",
                "--server-command",
                "env",
                "taskset",
            ]
        );
    }

    #[test]
    fn errors_keep_their_words_and_lose_the_names() {
        for (command, error, shown) in [
            (
                "ssh -p 2222 me@bench",
                "ssh: connect to bench port 2222: refused",
                "ssh: connect to … port …: refused",
            ),
            ("ssh -lyou Bench", "me@bench.example.org: denied (22).", "me@…: denied (22)."),
            (
                "ssh bench.",
                "no bench. No benches, workbench or work-bench",
                "no …. No benches, workbench or work-bench",
            ),
            ("ssh db-1.acme.org", "sh: db-1: ...db-1: acme.org is down", "sh: …: ...…: … is down"),
            ("ssh 10.0.0.1", "10 of 10.0.0.1 refused", "10 of … refused"),
            ("docker exec -i box", "box: no such container: box", "…: no such container: …"),
            ("sh -c 'exec docker exec -i acme-1 \"$@\"'", "no acme-1", "no …"),
            ("/home/me/taskset -c 3", "/home/me/taskset: 3 is no CPU", "…/taskset: 3 is no CPU"),
        ] {
            assert_eq!(hide(&words(command), None, error), shown, "{command}");
        }
        let error = "sh: work/acme/ringmark-server: not found";
        assert_eq!(
            hide(&words("ssh b"), Some("work/acme"), error),
            "sh: …/…/ringmark-server: not found"
        );
        assert_eq!(hide(&[], None, "a, b."), "a, b.");
    }
}
