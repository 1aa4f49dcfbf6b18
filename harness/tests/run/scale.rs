//! Walks through connection counts over several tables of files, on both sides: what the million
//! does, smaller.

use std::process::Command;

use crate::confine::limit_open_files;
use crate::processes::{Children, Running, children_named, wait_for};
use crate::{Place, Row, columns, heading, number, slabs_are_readable, stderr, stdout, success};

/// Open files for the whole: of 600 a worker needs some for itself, so that 2,000 connections take
/// four workers, and as many threads of the load.
const OPEN_FILES: u64 = 600;

/// Every load twice, and ever more of them active.
const SCALE: &str = "
ports = 4

[scale]
question = \"q\"
connections = [400, 2000]
active = 40
active_shares = [0.1]
message_bytes = 64
rate_per_s = 2000.0
repeats = 2
duration = \"200ms\"
warmup_max = \"50ms\"
";

/// Each load once: a closed loop takes seconds where the machine is busy.
fn short(backends: &[&str], connections: &str) -> String {
    heading(backends)
        + &SCALE
            .replace("[400, 2000]", connections)
            .replace("active_shares = [0.1]\n", "")
            .replace("repeats = 2", "repeats = 1")
}

const MEMORY: &str = "
[memory]
question = \"q\"
connections = [1000, 2000]
message_bytes = 64
active = [200, 400]
";

/// `ringmark run` with so few files.
fn limited(place: &Place) -> Command {
    let mut command = place.run();
    limit_open_files(&mut command, OPEN_FILES);
    command
}

/// The steps of a trial that have this name.
fn steps<'a>(rows: &'a [Row], trial: &Row, name: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row["run_id"] == trial["run_id"] && row["step"] == name).collect()
}

fn connections(steps: &[&Row]) -> Vec<String> {
    steps.iter().map(|row| row["connections"].clone()).collect()
}

/// Checks the trials of a run with `arms`, and the floor among them: its walk through `counts`, and
/// at which of them the loads were in turn, `repeats` times each.
fn assert_walked(place: &Place, arms: usize, counts: &[&str], loads: &[&str], repeats: usize) {
    columns::assert_files(&place.out(), &["scale.csv", "trials.csv"]);
    let (trials, rows) = (place.rows("trials.csv"), place.rows("scale.csv"));
    assert_eq!(trials.len(), arms);
    for trial in &trials {
        assert_eq!((&*trial["pass"], &*trial["status"]), ("scale", "ok"), "{}", trial["reason"]);
        assert_eq!((&*trial["connections"], &*trial["workers"]), ("2000", "4"));
        assert!(number(trial, "connections_per_s") > 0.0);
        let of = |name| steps(&rows, trial, name);
        assert_eq!((of("before").len(), of("rest").len(), of("after").len()), (1, counts.len(), 1));
        let opened = connections(&of("open"));
        if trial["backend"] == "null" {
            assert_eq!(opened, counts);
            assert_eq!((of("load").len(), of("all").len()), (0, 0));
            continue;
        }
        // The crowd makes room for those that are active, and is whole in the end.
        assert_eq!(opened, [counts, &["2000"]].concat());
        // A closed and an open loop, each on both servers.
        let at: Vec<_> = loads.iter().flat_map(|count| vec![*count; 4 * repeats]).collect();
        assert_eq!(connections(&of("load")), at);
        let in_turn: Vec<_> = of("load").iter().map(|row| row["server"].clone()).collect();
        let turns = [["crowded", "alone"], ["alone", "crowded"]];
        let turns = turns[..repeats].iter().flat_map(|turn| [*turn; 2].concat());
        assert_eq!(in_turn, turns.collect::<Vec<_>>().repeat(loads.len()));
        for load in of("load") {
            assert!(number(load, "echoes") > 0.0, "{load:?}");
            assert!(number(load, "syscalls_per_echo") > 0.0, "{load:?}");
        }
        let [everyone] = of("all")[..] else { panic!("{:?}", of("all")) };
        assert_eq!((&*everyone["echoes"], &*everyone["connections"]), ("2000", "2000"));
        assert_eq!(of("close").last().unwrap()["connections"], "0");
    }
}

#[test]
fn two_thousand_connections_over_four_tables_are_walked_loaded_and_all_alive() {
    let place = Place::with(&(heading(&["epoll-et"]) + SCALE));
    let text = stdout(&success(&mut limited(&place)));
    // Loads with 40 active at each count, and with 200 at the larger one.
    assert_walked(&place, 2, &["400", "2000"], &["400", "2000", "2000"], 2);
    for words in [
        "Opening and closing ever more connections",
        "2,000 (200 active)",
        "with a crowd, over a second server's without one",
        "Nobody sends",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn other_backends_are_walked_as_well() {
    let place = Place::with(&short(&["epoll-document", "uring-multishot"], "[2000]"));
    success(&mut limited(&place));
    assert_walked(&place, 3, &["2000"], &["2000"], 1);
}

#[test]
fn memory_is_walked_over_four_tables_and_while_all_are_active() {
    let place =
        Place::with(&(heading(&["epoll-et"]) + SCALE.split("[scale]").next().unwrap() + MEMORY));
    if !slabs_are_readable() {
        return;
    }
    let output = limited(&place).output().unwrap();
    if stderr(&output).contains("no trial of 2 gave figures") {
        eprintln!("the memory of this machine did not come to rest: its slopes are not looked at");
        return;
    }
    assert!(output.status.success(), "{}", stderr(&output));
    let trials = place.rows("trials.csv");
    let is_restless =
        |trial: &Row| trial["reason"].contains("had not come to rest") && trial["status"] != "ok";
    if trials.iter().any(is_restless) {
        return;
    }
    // Other tests add to the kernel's objects too, so this only looks whether there are any.
    let (slopes, points) = (place.rows("memory.csv"), place.rows("memory_points.csv"));
    for (arm, state, counts) in [
        ("null", "never-used", "1000 2000 2000 1000"),
        ("epoll-et", "never-used", "1000 2000 2000 1000"),
        ("epoll-et", "used-then-idle", "1000 2000 2000 1000"),
        ("epoll-et", "active", "200 400"),
    ] {
        let is_of = |row: &&Row, object: &str| {
            (&*row["arm"], &*row["state"], &*row["object"]) == (arm, state, object)
        };
        for object in ["all kernel objects", "server's private pages", "used pages", "unexplained"]
        {
            assert_eq!(
                slopes.iter().filter(|row| is_of(row, object)).count(),
                1,
                "{arm} {state} {object}"
            );
        }
        let walked = points.iter().filter(|row| is_of(row, "used pages"));
        let walked: Vec<_> = walked.map(|row| row["connections"].as_str()).collect();
        assert_eq!(walked.join(" "), counts, "{arm} {state}");
    }
    for trial in trials {
        assert_eq!((trial["workers"].as_str(), trial["connections"].as_str()), ("4", "2000"));
    }
}

#[test]
fn what_the_machine_has_no_room_for_is_skipped_with_the_reason() {
    // Four workers hold 4 x 567 connections at most.
    let place = Place::with(&short(&["epoll-et"], "[9000]"));
    success(&mut limited(&place));
    for trial in place.rows("trials.csv") {
        assert_eq!((&*trial["status"], &*trial["connections"]), ("ok", "2268"));
        crate::assert_has(
            &trial["reason"],
            &["9000 connections skipped: there is room for 2268 by open files (RLIMIT_NOFILE 600"],
        );
    }
    let fewer = Place::with(&short(&["epoll-et"], "[2000]"));
    success(limited(&fewer).args(["--connections", "500"]));
    assert!(fewer.rows("trials.csv").iter().all(|trial| trial["connections"] == "500"));
    let none = Place::with(&(heading(&["epoll-et"]) + crate::LATENCY + crate::FOUR_CONNECTIONS));
    let refused = none.run().args(["--connections", "500"]).output().unwrap();
    assert!(!refused.status.success());
    crate::assert_has(&stderr(&refused), &["--connections"]);
}

#[test]
fn when_a_side_is_killed_the_steps_so_far_stay_and_the_run_fails() {
    for victim in ["ringmark-server", "ringmark load"] {
        let place = Place::with(&short(&["epoll-et"], "[400]").replace("200ms", "1s"));
        let run = Running::start(&mut limited(&place));
        let children = |name| children_named(run.pid(), name);
        // Once the loads have begun: the steps before are there.
        let (servers, loads) = wait_for("two servers and two loads", || {
            Some((
                children("ringmark-server").try_into().ok()?,
                children("ringmark load").try_into().ok()?,
            ))
        });
        let (servers, loads): (Children<2>, Children<2>) = (Children(servers), Children(loads));
        let all = if victim == "ringmark load" { &loads } else { &servers };
        crate::processes::signal(all.0[0].0, libc::SIGKILL);
        assert!(!run.end().status.success(), "{victim}");
        assert!(servers.are_gone() && loads.are_gone(), "{victim}: nothing is left");
        let trials = place.rows("trials.csv");
        let failed: Vec<_> = trials.iter().filter(|row| row["status"] == "failed").collect();
        assert!(failed.len() == 1 && failed[0]["backend"] == "epoll-et", "{victim}: {trials:?}");
        assert_eq!(connections(&steps(&place.rows("scale.csv"), failed[0], "open"))[0], "400");
    }
}
