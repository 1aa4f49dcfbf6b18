//! A run that is interrupted keeps what it measured, says how to go on, and leaves no program
//! behind.

use std::fs;

use crate::processes::{self, Running, children_of, wait_for, wait_until};
use crate::{
    FOUR_CONNECTIONS, INTERRUPTED, Place, assert_has, ended_with, heading, stdout, success,
};

/// Far longer than the test waits for anything.
const PLANNED: usize = 400;

/// The server and the load of a run.
type Children = processes::Children<2>;

/// A run of trials of one length, each about as long as that.
fn run_of(duration: &str) -> (Place, Running) {
    let matrix = format!(
        "{}[latency]\nblocks = {}\nduration = \"{duration}\"\nwarmup_max \
        = \"0s\"\n{FOUR_CONNECTIONS}",
        heading(&["epoll-et"]),
        PLANNED / 2
    );
    let place = Place::with(&matrix);
    let running = Running::start(&mut place.run());
    (place, running)
}

/// Its server and its load at work.
fn children_at_work(running: &Running) -> Children {
    processes::Children(wait_for("server and load", || children_of(running.pid()).try_into().ok()))
}

/// A long run with some rows written, and its server and its load at work.
fn in_mid_run() -> (Place, Running, Children) {
    let (place, running) = run_of("300ms");
    wait_until("a third row", || place.rows_so_far() >= 3);
    let children = children_at_work(&running);
    (place, running, children)
}

/// The rows that are there, and that the report reads them.
fn assert_readable(place: &Place) -> Vec<crate::Row> {
    let rows = place.rows("trials.csv");
    assert!((3..PLANNED).contains(&rows.len()), "{}", rows.len());
    let manifest = place.manifest();
    // Blocks are dealt one by one.
    assert!((rows.len()..PLANNED).contains(&manifest["order"].as_array().unwrap().len()));
    assert!(manifest["finished_utc"].is_null());
    let printed = stdout(&success(&mut place.report()));
    assert_has(&printed, &["interrupted: only", &format!("- Trials: {}: ", rows.len())]);
    rows
}

/// The first signal: the trial that is under way comes to its end.
fn interrupted_by(signal: libc::c_int) {
    let (place, running) = run_of("300ms");
    wait_until("a third row", || place.rows_so_far() >= 3);
    let before = place.rows_so_far();
    // Children of the next trial, or of a later one.
    let children = children_at_work(&running);
    running.signal(signal);
    let output = running.end();
    assert!(children.are_gone(), "{children:?}");
    assert_has(
        &ended_with(INTERRUPTED, &output),
        &["interrupted: the trials so far are in out; to resume: ", " run --resume out"],
    );
    assert_has(&stdout(&output), &["interrupted: only", "results are in out"]);
    let rows = assert_readable(&place);
    assert!(rows.len() > before, "{} {before}", rows.len());
    assert!(rows.iter().all(|row| row["status"] != "failed"), "{rows:?}");
    assert!(place.out().join("comparisons.csv").exists());
}

#[test]
fn ctrl_c_ends_the_trial_keeps_the_rows_and_ends_the_children() {
    interrupted_by(libc::SIGINT);
}

#[test]
fn sigterm_does_the_same() {
    interrupted_by(libc::SIGTERM);
}

/// Two signals of different kinds: two of the same that come at once are one to the kernel.
fn twice_interrupted_by(first: libc::c_int, second: libc::c_int) {
    // Longer than a test may take.
    let (place, mut running) = run_of("1h");
    let children = children_at_work(&running);
    running.signal(first);
    running.signal(second);
    wait_until("the end of the run", || running.has_ended());
    assert!(children.are_gone(), "{children:?}");
    let line = ended_with(INTERRUPTED, &running.end());
    assert_has(&line, &["interrupted in the midst of a trial; to resume: ", " run --resume out"]);
    assert_eq!(place.rows_so_far(), 0, "a trial that was interrupted is none");
    assert!(place.manifest()["finished_utc"].is_null());
}

#[test]
fn the_second_ctrl_c_breaks_the_trial_off() {
    twice_interrupted_by(libc::SIGINT, libc::SIGTERM);
    twice_interrupted_by(libc::SIGTERM, libc::SIGINT);
}

#[test]
fn a_run_whose_trial_was_broken_off_goes_on() {
    let (place, running, children) = in_mid_run();
    running.signal(libc::SIGINT);
    running.signal(libc::SIGTERM);
    running.end();
    assert!(children.are_gone(), "{children:?}");
    let rows = fs::read_to_string(place.out().join("trials.csv")).unwrap();
    let before = place.rows_so_far();

    let running = Running::start(&mut place.resume());
    wait_until("two rows more", || place.rows_so_far() >= before + 2);
    running.signal(libc::SIGINT);
    assert_has(&ended_with(INTERRUPTED, &running.end()), &["interrupted: ", " run --resume out"]);
    assert!(fs::read_to_string(place.out().join("trials.csv")).unwrap().starts_with(&rows));
    let ids: Vec<_> =
        assert_readable(&place).into_iter().map(|mut row| row.remove("run_id").unwrap()).collect();
    assert_eq!(ids, (1..=ids.len()).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_killed_run_takes_its_children_along() {
    let (place, running, children) = in_mid_run();
    running.signal(libc::SIGKILL);
    running.end();
    wait_until("the end of server and load", || children.are_gone());
    assert_readable(&place);
}
