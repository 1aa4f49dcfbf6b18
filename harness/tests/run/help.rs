//! The help and the messages that a person reads first.

use crate::{Place, stdout, success};

/// Those that the program says to itself.
const HIDDEN: [&str; 4] = ["spin-when-idle", "describe-side", "exec-when-told", "supervise"];

#[test]
fn every_verb_is_listed_and_has_examples_and_what_is_hidden_stays_so() {
    let place = Place::with("");
    let help = stdout(&success(&mut place.command("help")));
    for verb in ["doctor", "run", "load", "report", "compare", "completions"] {
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
