//! The forms in which runs and comparisons are printed: one screen, Markdown, JSON, a page.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::schema::{faults, schema};
use crate::{
    LADDER, NOT_COMPARABLE, Place, QUICK, SLOWER, assert_has, committed, ended_with, results,
    stderr, stdout, success, table,
};

/// The screen that a run must fit on.
const COLUMNS: usize = 80;
const LINES: usize = 40;

/// Returns what `ringmark report` prints of a run.
fn report(run: &Path, options: &[&str]) -> String {
    let place = Place::with("");
    stdout(&success(place.command("report").arg(run).args(options)))
}

fn parsed(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "one document on one line");
    serde_json::from_str(text).unwrap()
}

#[track_caller]
fn assert_is_by(name: &str, document: &Value, what: &Path) {
    let faults = faults(&schema(name), document);
    assert!(faults.is_empty(), "{}: {faults:#?}", what.display());
}

/// The folders of all committed runs.
fn all_committed() -> Vec<PathBuf> {
    let folders = fs::read_dir(results()).unwrap().map(|entry| entry.unwrap().path());
    let runs: Vec<_> = folders.filter(|folder| folder.join("manifest.json").is_file()).collect();
    assert!(runs.len() > 10);
    runs
}

#[test]
fn every_committed_run_is_json_by_its_schema() {
    for run in all_committed() {
        let document = parsed(&report(&run, &["--format", "json"]));
        assert_is_by("report", &document, &run);
        let trials = document["trials"].as_object().unwrap().values();
        let rows = table(&run, "trials.csv");
        assert!(trials.filter_map(Value::as_u64).sum::<u64>() as usize <= rows.lines().count());
        let manifest = fs::read_to_string(run.join("manifest.json")).unwrap();
        assert_is_by("manifest", &serde_json::from_str(&manifest).unwrap(), &run);
    }
}

#[test]
fn runs_of_all_sizes_fit_on_a_screen_and_into_ten_lines() {
    for name in [QUICK, LADDER, "-million", "-crowd", "-instructions", "-stream"] {
        let run = committed(name);
        let screen = report(&run, &["--format", "text"]);
        assert!(screen.lines().count() <= LINES, "{screen}");
        // A path is not broken.
        let is_path = |line: &&str| line.starts_with("Page: ") || line.starts_with("Tables: ");
        for line in screen.lines().filter(|line| !is_path(line)) {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
        let summary = report(&run, &["--summary"]);
        assert!(summary.lines().count() <= 10, "{summary}");
    }
}

#[test]
fn a_screen_has_the_grid_the_three_figures_and_what_limits_them() {
    let run = committed(QUICK);
    let screen = report(&run, &["--format", "text"]);
    assert_has(
        &screen,
        &[
            "server CPU per echo over epoll-et",
            "epoll-et (again)",
            "✓",
            "▲",
            "calls  CPU µs  p50 µs  p99 µs  kernel B  own B",
            "are found in 4 of 5 cases",
            "client-limited",
            "Page:   ",
            "ringmark report --full ",
        ],
    );
    // Its figures are those of the long tables.
    let document = parsed(&report(&run, &["--format", "json"]));
    let comparisons = document["comparisons"].as_array().unwrap();
    let row = comparisons.iter().find(|row| {
        row["metric"] == "server_cpu_ns_per_echo"
            && row["workload"] == "1-conn-64B"
            && row["arm"] == "epoll-document"
    });
    let ratio = format!("{:.3}", row.unwrap()["ratio"].as_f64().unwrap());
    let line = screen.lines().find(|line| line.starts_with("  epoll-document ")).unwrap();
    assert_has(line, &[&ratio]);
    let summary = report(&run, &["--summary"]);
    assert_has(&summary, &["**quick**: ", "Linux ", "revision ", "| `epoll-document` | ", &ratio]);
}

#[test]
fn a_form_is_printed_and_nothing_is_written() {
    let run = committed(QUICK);
    let place = Place::with("");
    let copy = place.copy_of(&run);
    let page = copy.join("report.html");
    let _ = fs::remove_file(&page);
    for (format, words) in [
        ("markdown", "\n## Verdicts\n"),
        ("html", "<!DOCTYPE html>"),
        ("json", "\"ringmark-report\""),
        ("text", "Page: "),
    ] {
        assert_has(&report(&copy, &["--format", format]), &[words]);
        assert!(!page.exists(), "{format}");
    }
    let full = report(&copy, &["--format", "text", "--full"]);
    assert_has(&full, &["\nVerdicts\n", "System calls per echo, counted"]);
    assert_has(&report(&copy, &[]), &["Page: "]);
    assert!(page.exists(), "without a form the page is made");
}

#[test]
fn a_run_is_judged_by_a_bound() {
    let (run, place) = (committed(QUICK), Place::with(""));
    let judged = |arguments: &[&str]| {
        place.command("report").arg(&run).arg("--fail-if-slower").args(arguments).output().unwrap()
    };
    let within = judged(&["1000%"]);
    assert!(within.status.success(), "{}", stderr(&within));
    assert_has(
        &stdout(&within),
        &["No arm is worse than `epoll-et` by more than 1000 %, in 8 of 8"],
    );
    let line = ended_with(SLOWER, &judged(&["50%"]));
    assert_has(&line, &["server_cpu_ns_per_echo of `epoll-document` in 64-conn-4KiB: 8.6"]);
    assert!(!line.contains("uring-multishot"), "{line}");
    let line = ended_with(NOT_COMPARABLE, &judged(&["10%", "--metric", "latency_p99_us"]));
    assert_has(&line, &["not all is shown not to be; not judged: ", "% worse"]);
    // With a summary, which stands before it.
    let both = judged(&["1000%", "--summary"]);
    assert_has(&stdout(&both), &["**quick**: ", "No arm is worse"]);
}

#[test]
fn a_comparison_is_json_by_its_schema() {
    let place = Place::with("");
    let [a, b] = [QUICK, LADDER].map(committed);
    let compare = |a: &Path, b: &Path, options: &[&str]| {
        let mut command = place.command("compare");
        command.args([a, b]).args(["--format", "json"]).args(options).output().unwrap()
    };
    let output = compare(&a, &b, &[]);
    assert!(output.status.success());
    let document = parsed(&stdout(&output));
    assert_is_by("compare", &document, &a);
    assert!(document["judgement"].is_null());
    assert!(document["figures"].as_array().unwrap().len() > 20);

    let itself = compare(&a, &a, &["--fail-if-slower", "0%"]);
    let document = parsed(&stdout(&itself));
    assert_is_by("compare", &document, &a);
    assert_eq!(document["judgement"]["exit_status"], 0);

    let other = compare(&a, &b, &["--fail-if-slower", "10%"]);
    let line = ended_with(NOT_COMPARABLE, &other);
    let document = parsed(&stdout(&other));
    assert_is_by("compare", &document, &a);
    assert_eq!(document["judgement"]["exit_status"], NOT_COMPARABLE);
    assert!(line.ends_with(document["judgement"]["words"].as_str().unwrap()), "{line}");
}

#[test]
fn the_doctor_and_a_new_manifest_are_by_their_schemas() {
    let place = Place::finished();
    let said = stdout(&success(place.command("doctor").arg("--json")));
    assert_is_by("doctor", &serde_json::from_str(&said).unwrap(), Path::new("doctor"));
    let manifest = place.manifest();
    assert_is_by("manifest", &manifest, &place.out());
    assert_eq!(manifest["format_version"], 1);
    // One of a later version is refused in a line.
    let mut later = manifest;
    later["format_version"] = 2.into();
    let file = place.out().join("manifest.json");
    fs::write(&file, later.to_string()).unwrap();
    let line = crate::failure(&mut place.report());
    assert_has(&line, &["a newer version of ringmark wrote it", "reads up to 1"]);
}
