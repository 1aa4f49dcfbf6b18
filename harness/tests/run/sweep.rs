//! A sweep: its rates follow from a capacity that is measured first, and a run that goes on or is
//! repeated keeps them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::columns::assert_files;
use crate::processes::{Running, wait_until};
use crate::{Place, Row, assert_has, assert_reasons, failure, heading, rows, stdout, success};

fn swept() -> Place {
    Place::with(&format!(
        "{}
        [latency]
        blocks = 1
        duration = \"60ms\"
        warmup_max = \"20ms\"
        objective_p99_us = 10000000.0
        [syscalls]
        echoes = 100
        [[workload]]
        name = \"four\"
        question = \"q\"
        connections = 4
        message_bytes = 64
        sweep = [0.05, 0.1]\n",
        heading(&["epoll-et", "uring-multishot"])
    ))
}

fn workloads(rows: &[Row], pass: &str) -> BTreeSet<String> {
    rows.iter().filter(|row| row["pass"] == pass).map(|row| row["workload"].clone()).collect()
}

#[test]
fn the_rates_follow_from_the_baselines_capacity() {
    let place = swept();
    let printed = stdout(&success(&mut place.run()));
    assert_files(&place.out(), &["capacity.csv", "syscalls.csv", "trials.csv"]);
    let trials = place.rows("trials.csv");
    assert_reasons(&trials);
    let capacity: Vec<_> = trials.iter().filter(|row| row["pass"] == "capacity").collect();
    assert!(
        capacity.iter().all(|row| row["arm"] == "epoll-et" && row["arrival"] == "closed"),
        "{capacity:?}"
    );
    assert!(capacity.len() >= 3, "{}", capacity.len());
    let rates = workloads(&trials, "latency");
    assert_eq!(rates, workloads(&trials, "syscalls"));
    assert_eq!(rates.len(), 2, "{rates:?}");
    for row in trials.iter().filter(|row| row["pass"] == "latency") {
        let asked: f64 = row["workload"].strip_prefix("four@").unwrap().parse().unwrap();
        assert_eq!(row["arrival"], "poisson");
        if let Ok(offered) = row["offered_per_s"].parse::<f64>() {
            // The number due in 60 ms of a Poisson process: nine standard deviations either way.
            assert!((offered - asked).abs() < 9.0 * (asked / 0.06).sqrt(), "{offered} {asked}");
        }
    }
    let names: Vec<_> = place.manifest()["expanded"]["workload"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["name"].clone())
        .collect();
    assert!(names.iter().all(|name| rates.contains(name.as_str().unwrap())), "{names:?}");
    assert_eq!(place.manifest()["matrix"]["workload"][0]["name"], "four");

    // Nobody misses an objective of ten seconds.
    for row in place.rows("capacity.csv").iter().filter(|row| row["missed_per_s"].is_empty()) {
        assert!(
            rates.contains(&format!("four@{}", row["kept_per_s"].parse::<f64>().unwrap())),
            "{row:?}"
        );
    }
    assert_has(
        &printed,
        &["Capacity at the latency objective", "Open loop: latency at a given rate"],
    );

    // A repetition measures the capacity too, but keeps the rates.
    success(place.command("run").args(["--replay", "out", "--out", "again"]));
    let again = rows(&place.path("again").join("trials.csv"));
    assert_eq!(workloads(&again, "latency"), rates);
    assert!(again.iter().any(|row| row["pass"] == "capacity"));
}

#[test]
fn a_run_that_is_killed_goes_on_at_the_same_rates() {
    let place = swept();
    let kill_once = |holds: &dyn Fn() -> bool, command: &mut Command| {
        let running = Running::start(command);
        wait_until("the moment to kill it", holds);
        running.signal(libc::SIGKILL);
        running.end();
    };
    let latency_is_there = || {
        let rows = place.trials_so_far();
        rows.iter().any(|row| row.contains(",latency,"))
    };
    // While the capacity is being measured, and when the rates are known.
    kill_once(&|| place.rows_so_far() >= 1, &mut place.run());
    kill_once(&latency_is_there, &mut place.resume());
    let trials = || fs::read_to_string(place.out().join("trials.csv")).unwrap();
    let (before, expanded) = (trials(), place.manifest()["expanded"].clone());
    assert!(expanded.is_object());
    success(&mut place.resume());
    assert!(trials().starts_with(&before[..=before.rfind('\n').unwrap()]));
    assert_eq!(place.manifest()["expanded"], expanded);
    assert_eq!(workloads(&place.rows("trials.csv"), "latency").len(), 2);
    assert!(place.out().join("capacity.csv").exists());
}

#[test]
fn without_a_capacity_there_are_no_rates() {
    let place = swept();
    // A server that does not start.
    let line = failure(place.run().args(["--server", "/bin/false"]));
    assert_has(&line, &["workload 'four': no rates for its sweep", "epoll-et"]);
}
