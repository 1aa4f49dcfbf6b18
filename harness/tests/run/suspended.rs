//! A program that is stopped by a signal and goes on later, as by Ctrl-Z and `fg`, spoils the trial
//! in which that happened: time passed without it.

use std::thread::sleep;
use std::time::Duration;

use crate::processes::{
    Process, Running, arguments, children_of, signal, stat, wait_for, wait_until,
};
use crate::programs::server;
use crate::{FOUR_CONNECTIONS, Place, Row, assert_has, heading};

/// Trials of about so long, of a given rate, so that the load does the same before its window as
/// within.
fn place(warmup: &str, duration: &str, external: &str) -> Place {
    let workload = FOUR_CONNECTIONS.to_owned() + "rate_per_s = 20000\n";
    let backends = heading(&[if external.is_empty() { "epoll-et" } else { "mine" }]);
    let latency =
        format!("[latency]\nblocks = 1\nduration = \"{duration}\"\nwarmup_max = \"{warmup}\"\n");
    Place::with(&(backends + &latency + external + &workload))
}

/// Stops a process for a while.
fn suspend(pid: u32, time: Duration) {
    signal(pid, libc::SIGSTOP);
    sleep(time);
    signal(pid, libc::SIGCONT);
}

/// Ticks of CPU that a process has used: fields 14 and 15 of its stat.
fn ticks(pid: u32) -> u64 {
    stat(pid).map_or(0, |fields| {
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum()
    })
}

/// The load and the process beside it, once the load has been at work for a moment.
fn at_work(running: &Running) -> (u32, u32) {
    let (load, other) = wait_for("server and load", || {
        let children: Vec<Process> = children_of(running.pid());
        let is_load =
            |child: &&Process| arguments(child.0).get(1).is_some_and(|verb| verb == "load");
        let load = children.iter().find(is_load)?.0;
        Some((load, children.iter().find(|child| child.0 != load)?.0))
    });
    wait_until("echoes", || ticks(load) >= 3);
    (load, other)
}

/// The row of the first trial of a run to which `disturb` does something once the load is at work;
/// gets the load's number and that of the process beside it.
fn first_row(place: &Place, disturb: impl FnOnce(&Running, u32, u32)) -> Row {
    let running = Running::start(&mut place.run());
    let (load, other) = at_work(&running);
    disturb(&running, load, other);
    wait_until("a row", || place.rows_so_far() > 0);
    drop(running);
    place.rows("trials.csv").remove(0)
}

#[track_caller]
fn assert_rejected(row: &Row, words: &[&str]) {
    assert_eq!(row["status"], "rejected", "{row:?}");
    assert_has(&row["reason"], words);
}

#[test]
fn a_harness_that_is_stopped_where_the_window_begins_has_no_cpu_of_it() {
    let row = first_row(&place("1s", "1s", ""), |running, _, _| {
        suspend(running.pid(), Duration::from_millis(1300));
    });
    assert_rejected(
        &row,
        &["the harness (`ringmark run`) was stopped by a signal", "after the window began"],
    );
}

#[test]
fn a_load_that_is_stopped_within_its_window_is_none() {
    let row =
        first_row(&place("0s", "1s", ""), |_, load, _| suspend(load, Duration::from_millis(300)));
    assert_rejected(&row, &["the load was stopped by a signal", "did not look at its clock"]);
}

#[test]
fn a_server_that_is_stopped_within_the_window_is_not_slow() {
    let row = first_row(&place("0s", "1s", ""), |_, _, server| {
        suspend(server, Duration::from_millis(100))
    });
    assert_rejected(
        &row,
        &["the server was stopped by a signal (SIGSTOP, Ctrl-Z) within the trial"],
    );
}

#[test]
fn nor_is_one_that_is_not_ours() {
    let server = server().display();
    let external = format!(
        "[[external]]\nname = \"mine\"\ncommand = \
        [\"{server}\", \"--backend\", \"epoll-et\", \"--listen\", \
         \"127.0.0.1:{{port}}\"]\nready = \"port\"\nversion = [\"{server}\", \"--version\"]\n"
    );
    let row = first_row(&place("0s", "1s", &external), |_, _, supervisor| {
        suspend(children_of(supervisor)[0].0, Duration::from_millis(100));
    });
    assert_rejected(&row, &["the server was stopped by a signal"]);
}
