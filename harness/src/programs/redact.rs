//! What results tell of the commands that start the sides. Results are published, and a command may
//! name hosts, people and passwords: what is told is its beginning, as far as that is known to say
//! nothing of anyone.

use std::collections::HashSet;

use super::sides::{LOAD, REMOTE_BIN, SERVER};
use crate::machine::files::without_folders;

/// Stands where something was left out.
pub const HIDDEN: &str = "…";

/// Programs whose options and numbers say how another runs that follows them.
const BEFORE_OTHERS: [&str; 9] =
    ["chrt", "env", "nice", "nsenter", "numactl", "sudo", "taskset", "timeout", "unshare"];

/// Programs of which only the name is told.
const NAMES_ONLY: [&str; 14] = [
    "bash",
    "chroot",
    "docker",
    "ip",
    "kubectl",
    "lxc",
    "machinectl",
    "nerdctl",
    "podman",
    "sh",
    "ssh",
    "sshpass",
    "systemd-nspawn",
    "systemd-run",
];

/// How many words at the beginning say nothing of anyone.
fn harmless(words: &[String]) -> usize {
    let Some(program) = words.first() else { return 0 };
    let program = program.rsplit('/').next().unwrap_or_default();
    let own = match words {
        // What a person calls a network namespace of this machine.
        [_, netns, exec, _, ..] if program == "ip" && netns == "netns" && exec == "exec" => 4,
        [_, rest @ ..] if BEFORE_OTHERS.contains(&program) => {
            1 + rest.iter().take_while(|word| is_option(word) || is_number(word)).count()
        }
        _ => return usize::from(NAMES_ONLY.contains(&program)),
    };
    own + harmless(&words[own..])
}

/// An option, with nothing attached to it but a number.
fn is_option(word: &str) -> bool {
    if let Some(option) = word.strip_prefix("--") {
        let (name, value) = option.split_once('=').unwrap_or((option, "0"));
        return name.chars().all(|c| c.is_ascii_lowercase() || c == '-') && is_number(value);
    }
    let mut letters = word.chars();
    letters.next() == Some('-')
        && letters.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && (letters.as_str().is_empty() || is_number(letters.as_str()))
}

/// A number, a mask, a time or a list of CPUs.
fn is_number(word: &str) -> bool {
    if let Some(mask) = word.strip_prefix("0x") {
        return mask.chars().all(|c| c.is_ascii_hexdigit());
    }
    let list = word.strip_suffix(['s', 'm', 'h']).unwrap_or(word);
    list.starts_with(|c: char| c.is_ascii_digit())
        && list.chars().all(|c| c.is_ascii_digit() || c == ',' || c == '-')
}

/// A command as results tell it. One that is told in full is split into its words again by a
/// shell's rules.
pub fn told(words: &[String]) -> String {
    let (kept, hidden) = words.split_at(harmless(words));
    let mut told: Vec<String> = kept.iter().map(|word| without_its_folder(word)).collect();
    told.extend((!hidden.is_empty()).then(|| HIDDEN.to_owned()));
    match shlex::try_join(told.iter().map(String::as_str)) {
        Ok(joined) if !joined.contains(HIDDEN) => joined,
        _ => told.join(" "),
    }
}

/// Of the words that are told only a program's has one.
fn without_its_folder(word: &str) -> String {
    word.rsplit_once('/').map_or_else(|| word.to_owned(), |(_, name)| format!("{HIDDEN}/{name}"))
}

/// The arguments of this program as results tell them.
pub fn told_arguments(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut before = String::new();
    let tell = |argument: String| {
        let (start, option, value) = match argument.split_once('=') {
            Some((option, value)) if option.starts_with("--") => {
                (format!("{option}="), option, value)
            }
            _ => (String::new(), before.as_str(), argument.as_str()),
        };
        let told = match option {
            SERVER | LOAD => {
                start + &shlex::split(value).map_or_else(|| HIDDEN.to_owned(), |words| told(&words))
            }
            REMOTE_BIN => start + HIDDEN,
            _ => without_folders(&argument),
        };
        before = argument;
        told
    };
    arguments.map(tell).collect()
}

/// A text without the names in a command that are not told, and without those in `more`. Whole
/// names only: whatever else they are part of stays.
pub fn hide(words: &[String], more: Option<&str>, text: String) -> String {
    let (kept, hidden) = words.split_at(harmless(words));
    let with_folders = kept.iter().filter(|word| word.contains('/'));
    let text = with_folders
        .fold(text, |text, word| text.replace(word.as_str(), &without_its_folder(word)));
    let hidden: HashSet<String> =
        hidden.iter().map(String::as_str).chain(more).flat_map(names).collect();
    let is_hidden = |name: &str| {
        // ssh writes a host in small letters, and may know the rest of its name.
        let name = name.to_lowercase();
        hidden.contains(&name) || parts(&name).any(|part| hidden.contains(part))
    };
    let mut shown = String::new();
    for piece in text.split_inclusive(|c| !is_of_name(c)) {
        let from = piece.len() - piece.trim_start_matches('.').len();
        let name = piece[from..].trim_end_matches(|c| !is_of_name(c) || c == '.');
        shown += &piece[..from];
        shown += if is_hidden(name) { HIDDEN } else { name };
        shown += &piece[from + name.len()..];
    }
    shown
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || "-_.".contains(c)
}

/// What a host may also be called: the first label of its whole name, which a shell there prints,
/// and the domain.
fn parts(name: &str) -> impl Iterator<Item = &str> {
    let is_address = name.chars().all(|c| c.is_ascii_digit() || c == '.');
    name.split_once('.')
        .filter(|_| !is_address)
        .into_iter()
        .flat_map(|(first, domain)| [first, domain])
}

/// The names, numbers and options in a word, and what is attached to an option of one letter; none
/// of known programs.
fn names(word: &str) -> impl Iterator<Item = String> {
    let names = word.split(|c| !is_of_name(c)).map(|name| name.trim_matches('.').to_lowercase());
    names
        .flat_map(|name| {
            let is_short = name.starts_with('-') && !name.starts_with("--");
            let attached = is_short.then(|| name.chars().skip(2).collect());
            let parts: Vec<String> = parts(&name).map(str::to_owned).collect();
            [Some(name), attached].into_iter().flatten().chain(parts)
        })
        .filter(|name| name.contains(char::is_alphanumeric))
        .filter(|name| {
            !BEFORE_OTHERS.contains(&name.as_str()) && !NAMES_ONLY.contains(&name.as_str())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &str) -> Vec<String> {
        command.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn of_a_command_only_what_says_nothing_of_anyone_is_told() {
        for (command, is_told) in [
            ("ip netns exec a", "ip netns exec a"),
            ("ip netns exec a ip vrf exec b", "ip netns exec a ip …"),
            ("ip -netns a", "ip …"),
            ("taskset  -c 0,2-3", "taskset -c '0,2-3'"),
            ("taskset 0xfF chrt -f 10 nice -n -5", "taskset 0xfF chrt -f 10 nice -n -5"),
            (
                "timeout 600s unshare --pid --fork --map-users=0",
                "timeout 600s unshare --pid --fork '--map-users=0'",
            ),
            ("nsenter -t 7 --net", "nsenter -t 7 --net"),
            ("nsenter --net=/run/netns/acme", "nsenter …"),
            ("/usr/sbin/ip netns exec a", "…/ip netns exec a"),
            ("bin/nice -5", "…/nice -5"),
            // Nothing that may be secret, wherever it stands.
            ("ssh bench", "ssh …"),
            ("./ssh -p 22 me@bench", "…/ssh …"),
            ("sudo /usr/bin/ssh -J gate me@bench taskset -c 3", "sudo …/ssh …"),
            ("sshpass -p bench ssh 10.0.0.1", "sshpass …"),
            ("sudo -u bench taskset -c 3", "sudo -u …"),
            ("sudo -ubench taskset -c 3", "sudo …"),
            ("sudo --user=bench taskset -c 3", "sudo …"),
            ("sudo -h 10.0.0.1 bench", "sudo -h …"),
            ("env bench", "env …"),
            ("env TOKEN=1 taskset -c 3", "env …"),
            ("kubectl exec bench --", "kubectl …"),
            ("docker -H ssh://me@bench exec -i box", "docker …"),
            ("docker exec -i bench", "docker …"),
            ("wrap@bench", "…"),
            ("to-bench", "…"),
            ("/home/me/bench", "…"),
            ("taskset -c 3 bench", "taskset -c 3 …"),
        ] {
            let told = told(&words(command));
            assert_eq!(told, is_told, "{command}");
            assert!(!told.contains("bench"));
            assert!(told.contains(HIDDEN) || shlex::split(&told) == Some(words(command)), "{told}");
        }
    }

    #[test]
    fn the_recorded_command_line_tells_no_more() {
        let given = [
            "/home/me/ringmark",
            "run",
            "a b/bench.toml",
            "--server-command",
            "wrap@bench",
            "--load-command=sshpass -p bench ssh me@bench",
            "--remote-bin",
            "work/bench",
            "--remote-bin=/home/bench",
            "--out=/home/me/run",
            "--server-command",
            "taskset -c 3",
            "taskset",
        ];
        let told = told_arguments(given.into_iter().map(str::to_owned));
        assert_eq!(
            told,
            [
                "…/ringmark",
                "run",
                "a b/bench.toml",
                "--server-command",
                "…",
                "--load-command=sshpass …",
                "--remote-bin",
                "…",
                "--remote-bin=…",
                "--out=…/run",
                "--server-command",
                "taskset -c 3",
                "taskset",
            ]
        );
    }

    #[test]
    fn errors_keep_their_words_and_lose_the_names() {
        for (command, error, shown) in [
            (
                "ssh -p 22 me@bench",
                "ssh: connect to bench port 22: refused",
                "ssh: connect to … port …: refused",
            ),
            ("ssh -p22 -lme Bench", "me@bench.example.org: denied (22).", "…@…: denied (…)."),
            (
                "ssh bench.",
                "no bench. No benches, workbench or work-bench",
                "no …. No benches, workbench or work-bench",
            ),
            ("ssh db-1.acme.org", "sh: db-1: ...db-1: acme.org is down", "sh: …: ...…: … is down"),
            ("ssh 10.0.0.1", "10 of 10.0.0.1 refused", "10 of … refused"),
            ("docker exec -i a", "a: no such container: a", "…: no such container: …"),
            ("kubectl exec -i b2 --", "pods \"b2\" not found", "pods \"…\" not found"),
            ("sshpass -pS3cret! x y", "wrong S3cret! for y", "wrong …! for …"),
            ("sh -c 'exec docker exec -i acme-1 \"$@\"'", "no acme-1", "no …"),
            ("/home/me/taskset -c 3", "/home/me/taskset: 3 is no CPU", "…/taskset: 3 is no CPU"),
            ("taskset -c 3", "taskset: no CPU 3", "taskset: no CPU 3"),
            (
                "ssh bench taskset -c 3",
                "sh: taskset: not found on bench",
                "sh: taskset: not found on …",
            ),
        ] {
            assert_eq!(hide(&words(command), None, error.to_owned()), shown, "{command}");
        }
        let error = "sh: work/acme/ringmark-server: not found".to_owned();
        assert_eq!(
            hide(&words("ssh b"), Some("work/acme"), error),
            "sh: …/…/ringmark-server: not found"
        );
        assert_eq!(hide(&[], None, "a, b.".to_owned()), "a, b.");
    }
}
