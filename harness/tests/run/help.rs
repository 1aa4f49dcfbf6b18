//! The help and the messages that a person reads first.

use std::fs;
use std::process::Command;

use crate::programs::server;
use crate::{Place, assert_has, failure, stdout, success};

/// Those that the program says to itself.
const HIDDEN: [&str; 4] = ["spin-when-idle", "describe-side", "exec-when-told", "supervise"];

#[test]
fn every_verb_is_listed_and_has_examples_and_what_is_hidden_stays_so() {
    let place = Place::with("");
    let help = stdout(&success(&mut place.command("help")));
    for verb in ["doctor", "run", "load", "report", "compare", "completions", "man"] {
        assert!(help.contains(verb), "{help}");
        let of_verb = stdout(&success(place.command("help").arg(verb)));
        assert!(of_verb.contains(&format!("Examples:\n  {}", example(verb))), "{of_verb}");
    }
    for verb in HIDDEN {
        assert!(!help.contains(verb), "{help}");
    }
}

/// How the first example begins.
fn example(verb: &str) -> String {
    match verb {
        "completions" => "source <(ringmark completions".to_owned(),
        _ => format!("ringmark {verb}"),
    }
}

#[test]
fn shells_complete_verbs_and_options() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&success(Place::with("").command("completions").arg(shell)));
        for word in ["doctor", "fail-if-slower", "server-command"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        for hidden in ["supervise", "exec-when-told"] {
            assert!(!script.contains(hidden), "{shell}: {hidden}");
        }
    }
}

#[test]
fn matrices_are_listed_printed_and_known_by_name() {
    let place = Place::with("");
    let list = stdout(&success(place.command("run").arg("--list")));
    let quick = list.lines().find(|line| line.starts_with("quick ")).unwrap();
    assert_has(quick, &[" min  What does the document's reactor cost"]);
    assert!(list.lines().all(|line| line.chars().count() <= 100), "{list}");
    let printed = stdout(&success(place.command("run").args(["--print", "smoke"])));
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/matrix/smoke.toml");
    assert_eq!(printed, fs::read_to_string(folder).unwrap());
    for arguments in [&["quik", "--out", "out"][..], &["--print", "quik"]] {
        let line = failure(place.command("run").args(arguments));
        assert_has(&line, &["built in; did you mean `quick`? `ringmark run --list`"]);
    }
    assert!(!place.out().exists());
}

#[test]
fn each_verb_and_the_server_have_a_manual_page_and_the_server_completions() {
    let place = Place::with("");
    success(place.command("man").arg("."));
    let page = |verb: &str| fs::read_to_string(place.path(&format!("ringmark-{verb}.1"))).unwrap();
    assert_has(&page("run"), &[".TH ringmark-run 1", "\\-\\-resume", "Exit status"]);
    assert!(!place.path("ringmark-supervise.1").exists(), "it is not for people");
    let of_server = |arguments: &[&str]| stdout(&success(Command::new(server()).args(arguments)));
    assert_has(&of_server(&["--man"]), &[".TH ringmark-server 1", "busy_poll_us"]);
    for shell in ["bash", "zsh", "fish"] {
        assert_has(&of_server(&["--completions", shell]), &["ringmark-server", "drain-seconds"]);
    }
}
