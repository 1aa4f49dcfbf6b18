//! `ringmark report` of a finished run.

use std::fs;
use std::path::Path;

use crate::{FOUR_CONNECTIONS, Place, assert_has, failure, heading, stdout, success};

const SECTIONS: [&str; 14] = [
    "run",
    "rules",
    "questions",
    "syscalls",
    "events",
    "cpu",
    "latency",
    "open-loop",
    "capacity",
    "churn",
    "fairness",
    "memory",
    "ladder",
    "gates",
];

/// Of counted calls only: a busy machine spoils no trial of theirs.
fn finished() -> Place {
    let matrix = format!("{}[syscalls]\nechoes = 20\n{FOUR_CONNECTIONS}", heading(&["epoll-et"]));
    let place = Place::with(&matrix);
    success(&mut place.run());
    place
}

fn document() -> String {
    let mut text = String::from("# Before\n");
    for name in SECTIONS {
        text += &format!("\n<!-- ringmark:{name} out -->\n<!-- /ringmark:{name} -->\n");
    }
    text + "\nAfter\n"
}

#[test]
fn tables_are_printed() {
    let place = finished();
    let printed = stdout(&success(place.command("report").arg("out")));
    let row = "| four     | epoll-et | ";
    assert_has(&printed, &["Trials: 1: 1 ok", row, "recvfrom 1.00, sendto 1.00"]);
    assert!(!printed.contains("Closed loop"), "it was not measured: {printed}");
}

#[test]
fn splicing_twice_is_splicing_once() {
    let place = finished();
    let file = place.path("doc.md");
    fs::write(&file, document()).unwrap();
    let splice = || {
        let output = success(place.command("report").args(["--splice", "doc.md"]));
        assert_eq!(stdout(&output), "");
        fs::read_to_string(&file).unwrap()
    };
    let once = splice();
    assert!(
        once.starts_with("# Before\n\n<!-- ringmark:run out -->\n") && once.ends_with("\n\nAfter\n"),
        "{once}"
    );
    assert_has(&once, &["| four     | epoll-et | ", "This run did not measure it."]);
    assert_eq!(splice(), once);
}

#[test]
fn a_document_with_broken_markers_stays_as_it_is() {
    let place = finished();
    let file = place.path("doc.md");
    for (text, complaint) in [
        (String::new(), "there is no marker <!-- ringmark:"),
        (document().replace("ringmark:cpu out", "ringmark:cpu other"), "not the folder of a run"),
        (document().replace("<!-- /ringmark:gates -->\n", ""), "'gates' has no end"),
        (document().replace("ringmark:memory", "ringmark:memories"), "no table 'memories'"),
    ] {
        fs::write(&file, &text).unwrap();
        let line = failure(place.command("report").args(["--splice", "doc.md"]));
        assert_has(&line, &["doc.md: ", complaint]);
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    let mut names: Vec<_> =
        fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["doc.md", "matrix.toml", "out"], "nothing is left beside it");
}

/// Their columns are those of the version that wrote them.
#[test]
fn every_committed_run_is_still_read() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
    let place = Place::with("");
    let mut count = 0;
    for folder in fs::read_dir(results).unwrap().map(|entry| entry.unwrap().path()) {
        // A run of one's own may be under way there.
        if !folder.join("comparisons.csv").exists() {
            continue;
        }
        let printed = stdout(&success(place.command("report").arg(&folder)));
        let trials = fs::read_to_string(folder.join("trials.csv")).unwrap();
        for (pass, words) in [
            ("latency", &["1 (baseline)", "noise: "][..]),
            ("syscalls", &["System calls per echo"]),
            ("memory", &["all kernel objects"]),
            ("scale", &["Opening and closing", "Open loop, "]),
        ] {
            if trials.contains(&format!(",{pass},")) {
                assert_has(&printed, words);
                count += 1;
            }
        }
    }
    assert!(count > 0, "there is a reference run");
}

/// What REPORT.md shows of them is what their files say.
#[test]
fn the_committed_report_is_that_of_the_committed_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let place = Place::with("");
    let report = fs::read_to_string(root.join("REPORT.md")).unwrap();
    fs::write(place.path("REPORT.md"), &report).unwrap();
    std::os::unix::fs::symlink(root.join("results"), place.path("results")).unwrap();
    success(place.command("report").args(["--splice", "REPORT.md"]));
    let spliced = fs::read_to_string(place.path("REPORT.md")).unwrap();
    assert!(
        spliced == report,
        "run `ringmark report --splice REPORT.md`, and read the prose beside what changes"
    );
}

#[test]
fn what_is_no_run_is_refused() {
    let place = Place::with("");
    for folder in [".", "missing"] {
        assert_has(&failure(place.command("report").arg(folder)), &["not the folder of a run"]);
    }
    let line = failure(finished().command("report").args(["--splice", "missing.md"]));
    assert_has(&line, &["read missing.md: No such file"]);
}

#[test]
fn a_closed_stdout_is_an_error_and_no_panic() {
    let place = finished();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_has(&failure(place.command("report").arg("out").stdout(full)), &["stdout: No space left"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_has(&failure(place.command("report").arg("out").stdout(writer)), &["stdout: Broken pipe"]);
}
