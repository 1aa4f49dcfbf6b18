//! Input that cannot be run is refused before anything is written.

use std::fs;

use crate::{FOUR_CONNECTIONS, LATENCY, Place, assert_has, failure, heading};

fn good() -> String {
    format!("{}{LATENCY}{FOUR_CONNECTIONS}", heading(&["epoll-et", "uring-multishot"]))
}

/// Nothing stands in the place but the matrix.
#[track_caller]
fn assert_untouched(place: &Place) {
    let names: Vec<_> =
        fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["matrix.toml"]);
}

#[test]
fn a_bad_matrix_is_refused() {
    let with = |from: &str, to: &str| {
        assert!(good().contains(from), "{from}");
        good().replace(from, to)
    };
    let knob = "{ backend = \"uring-multishot\", set = [\"no_such_knob=1\"] }";
    let wide = "{ backend = \"uring-multishot\", set = [\"buffers=999999999999\"] }";
    for (text, complaint) in [
        (String::new(), "the file is empty"),
        ("\n \n".to_owned(), "the file is empty"),
        (with("blocks = 1", "blocks = = 1"), "line "),
        ("[latency".to_owned(), "line 1"),
        (with("blocks", "blokcs"), "unknown field `blokcs`"),
        (
            with("question = \"q\"", "question = \"q\"\nthreads = 3"),
            "line 2: unknown field `threads`",
        ),
        (with("question = \"q\"", "question = \"q\\u001b[2J\""), "is not to be seen"),
        (with("warmup_max = \"50ms\"\n", ""), "warmup_max"),
        (with("\"uring-multishot\"", "\"uring-manyshot\""), "uring-manyshot"),
        (with("\"uring-multishot\"", "\"epoll-et\""), "stands twice"),
        (with("{ backend = \"uring-multishot\" }", knob), "no_such_knob"),
        (with("{ backend = \"uring-multishot\" }", wide), "buffers"),
        (
            with("baseline = \"epoll-et\"", "baseline = \"epoll-document\""),
            "not among the backends",
        ),
        (with("connections = 4", "connections = 0"), "connections must be from 1"),
        (with("connections = 4", "connections = -1"), "line "),
        (
            with("message_bytes = 64", "message_bytes = 0"),
            "0: a message has at least 1 byte, at most 1073741824 (message_bytes of \"four\")",
        ),
        (with("name = \"four\"", "name = \"a/b\""), "workload 'a/b'"),
        (with("name = \"four\"", "name = \"\""), "workload ''"),
        (with("\"50ms\"\nwarm", "\"fifty\"\nwarm"), "line "),
        (with(LATENCY, ""), "no pass"),
        (with(FOUR_CONNECTIONS, ""), "no [[workload]]"),
    ] {
        let place = Place::with(&text);
        assert_has(&failure(&mut place.run()), &["matrix.toml", complaint]);
        assert_untouched(&place);
    }
}

#[test]
fn a_missing_file_is_named() {
    let place = Place::with(&good());
    let line = failure(place.command("run").args(["missing.toml", "--out", "out"]));
    assert_has(&line, &["missing.toml: there is no such file"]);
    assert_untouched(&place);

    let line = failure(place.run().args(["--server", "missing-server"]));
    assert_has(&line, &["missing-server: there is no server; build it with", "or give --server"]);
    assert_untouched(&place);
}

#[test]
fn a_run_never_writes_over_another() {
    let place = Place::with(&good());
    fs::create_dir(place.out()).unwrap();
    fs::write(place.out().join("trials.csv"), "precious").unwrap();
    assert_has(&failure(&mut place.run()), &["out exists", "give --out a new folder"]);
    let names: Vec<_> =
        fs::read_dir(place.out()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["trials.csv"]);
    assert_eq!(fs::read_to_string(place.out().join("trials.csv")).unwrap(), "precious");
}
