//! A run that is broken off keeps what it measured and leaves no program behind.

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
            // SAFETY: takes no pointer. The number was just found to be still that of the same process.
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

/// A long run with some rows written, and its server and its load at work.
fn in_mid_run() -> (Place, Running, Children) {
    let matrix = format!(
        "{}[latency]\nblocks = {}\nduration = \"300ms\"\nwarmup_max = \"0s\"\n{FOUR_CONNECTIONS}",
        heading(&["epoll-et"]),
        PLANNED / 2
    );
    let place = Place::with(&matrix);
    let running = place.run().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let running = Running(Some(running));
    let trials = place.out().join("trials.csv");
    wait_for("a third row", || {
        let lines = fs::read_to_string(&trials).unwrap_or_default().lines().count();
        (lines > 3).then_some(())
    });
    let children = wait_for("server and load", || children_of(running.pid()).try_into().ok());
    (place, running, Children(children))
}

/// The rows that are there, and that the report reads them.
fn assert_readable(place: &Place) -> Vec<crate::Row> {
    let rows = place.rows("trials.csv");
    assert!((3..PLANNED).contains(&rows.len()), "{}", rows.len());
    let manifest = place.manifest();
    assert_eq!(manifest["order"].as_array().unwrap().len(), PLANNED);
    assert!(manifest["finished_utc"].is_null());
    let printed = stdout(&success(place.command("report").arg("out")));
    assert_has(&printed, &["broken off", &format!("{} of {PLANNED} planned", rows.len())]);
    rows
}

fn interrupted_by(signal: libc::c_int) {
    let (place, running, children) = in_mid_run();
    running.signal(signal);
    let output = running.end();
    assert!(children.are_gone(), "{children:?}");
    assert_has(&one_line(&output), &["interrupted: the trials so far are in out"]);
    let rows = assert_readable(&place);
    let (last, before) = rows.split_last().unwrap();
    let is_interrupted =
        |row: &crate::Row| row["status"] == "failed" && row["reason"].contains("interrupted");
    // The signal may have come just between two trials.
    assert!(is_interrupted(last) || last["status"] != "failed", "{last:?}");
    assert!(before.iter().all(|row| row["status"] != "failed"), "{before:?}");
}

#[test]
fn ctrl_c_keeps_the_rows_and_ends_the_children() {
    interrupted_by(libc::SIGINT);
}

#[test]
fn sigterm_does_the_same() {
    interrupted_by(libc::SIGTERM);
}

#[test]
fn a_killed_run_takes_its_children_along() {
    let (place, running, children) = in_mid_run();
    running.signal(libc::SIGKILL);
    running.end();
    wait_for("the end of server and load", || children.are_gone().then_some(()));
    assert_readable(&place);
}
