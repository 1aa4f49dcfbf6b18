//! A run that is broken off keeps what it measured, says how to go on, and leaves no program
//! behind.

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{FOUR_CONNECTIONS, Place, Running, assert_has, heading, one_line, stdout, success};

/// Far longer than the test waits for anything.
const PLANNED: usize = 400;

/// A process: its number, and when it began, because numbers are used again.
#[derive(Debug, PartialEq)]
pub struct Process(pub u32, String);

/// The fields of /proc/PID/stat from the state on, which is field 3 (proc_pid_stat(5)).
pub fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

pub fn children_of(parent: u32) -> Vec<Process> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        match stat(pid) {
            Some(fields) if fields[1] == parent.to_string() => {
                children.push(Process(pid, fields[19].clone()));
            }
            _ => {}
        }
    }
    children
}

impl Process {
    /// Whether it still runs. What is dead but not reaped by whoever inherited it is over.
    pub fn runs(&self) -> bool {
        stat(self.0).is_some_and(|fields| fields[19] == self.1 && fields[0] != "Z")
    }
}

/// The server and the load of a run, which outlive no test, whatever it finds.
#[derive(Debug)]
struct Children([Process; 2]);

impl Children {
    fn are_gone(&self) -> bool {
        !self.0.iter().any(Process::runs)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in self.0.iter().filter(|child| child.runs()) {
            // SAFETY: takes no pointer. The number was just found to be still that of the same
            // process.
            unsafe { libc::kill(child.0 as libc::pid_t, libc::SIGKILL) };
        }
    }
}

#[track_caller]
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        sleep(Duration::from_millis(5));
    }
}

/// A run of trials of one length, each about as long as that.
fn run_of(duration: &str) -> (Place, Running) {
    let matrix = format!(
        "{}[latency]\nblocks = {}\nduration = \"{duration}\"\nwarmup_max = \"0s\"\n{FOUR_CONNECTIONS}",
        heading(&["epoll-et"]),
        PLANNED / 2
    );
    let place = Place::with(&matrix);
    let running = place.run().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    (place, Running(Some(running)))
}

/// Its server and its load at work.
fn children_at_work(running: &Running) -> Children {
    Children(wait_for("server and load", || children_of(running.pid()).try_into().ok()))
}

fn rows_so_far(place: &Place) -> usize {
    let trials = fs::read_to_string(place.out().join("trials.csv")).unwrap_or_default();
    trials.lines().count().saturating_sub(1)
}

/// A long run with some rows written, and its server and its load at work.
fn in_mid_run() -> (Place, Running, Children) {
    let (place, running) = run_of("300ms");
    wait_for("a third row", || (rows_so_far(&place) >= 3).then_some(()));
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
    let printed = stdout(&success(place.command("report").arg("out")));
    assert_has(&printed, &["broken off", &format!("- Trials: {}: ", rows.len())]);
    rows
}

/// The first signal: the trial that is under way comes to its end.
fn interrupted_by(signal: libc::c_int) {
    let (place, running) = run_of("300ms");
    wait_for("a third row", || (rows_so_far(&place) >= 3).then_some(()));
    let before = rows_so_far(&place);
    // Of the next trial, or a later one.
    let children = children_at_work(&running);
    running.signal(signal);
    let output = running.end();
    assert!(children.are_gone(), "{children:?}");
    assert_has(
        &one_line(&output),
        &["interrupted: the trials so far are in out; to resume: ", " run --resume out"],
    );
    assert_has(&stdout(&output), &["broken off", "results are in out"]);
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
    wait_for("the end of the run", || running.0.as_mut().unwrap().try_wait().unwrap());
    assert!(children.are_gone(), "{children:?}");
    let line = one_line(&running.end());
    assert_has(&line, &["interrupted in the midst of a trial; to resume: ", " run --resume out"]);
    assert_eq!(rows_so_far(&place), 0, "a trial that was broken off is none");
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
    let before = rows_so_far(&place);

    let mut command = place.command("run");
    command.args(["--resume", "out"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = Running(Some(command.spawn().unwrap()));
    wait_for("two rows more", || (rows_so_far(&place) >= before + 2).then_some(()));
    running.signal(libc::SIGINT);
    assert_has(&one_line(&running.end()), &["interrupted: ", " run --resume out"]);
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
    wait_for("the end of server and load", || children.are_gone().then_some(()));
    assert_readable(&place);
}
