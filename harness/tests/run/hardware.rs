//! The CPUs' own counters, where there are any.

use crate::{FOUR_CONNECTIONS, Place, assert_has, failure, heading, stdout, success};

const BOTH: &str = "[syscalls]\nechoes = 64\n[hardware]\nechoes = 64\n";

fn matrix(passes: &str) -> String {
    format!("{}{passes}{FOUR_CONNECTIONS}", heading(&["epoll-et", "uring-multishot"]))
}

#[test]
fn the_cpus_count_or_it_is_said_why_they_do_not() {
    let place = Place::with(&matrix(BOTH));
    let output = stdout(&success(&mut place.run()));
    let trials = place.rows("trials.csv");
    let of_pass = trials.iter().filter(|row| row["pass"] == "hardware");
    let is_there = std::path::Path::new("/sys/bus/event_source/devices/cpu").exists();
    for trial in of_pass {
        match trial["status"].as_str() {
            "ok" => assert!(is_there, "a CPU without counters counted"),
            "unsupported" => {
                let reasons = ["virtual machine", "perf_event_open", "descriptor"];
                assert!(reasons.iter().any(|word| trial["reason"].contains(word)), "{trial:?}");
                assert_has(&output, &["hardware", "unsupported"]);
            }
            other => panic!("{other}: {}", trial["reason"]),
        }
    }
    let counted = trials.iter().filter(|row| row["pass"] == "hardware" && row["status"] == "ok");
    let rows = counted.count() * 8;
    let hardware = if rows == 0 { Vec::new() } else { place.rows("hardware.csv") };
    assert_eq!(hardware.len(), rows, "two modes and four events each");
    for row in hardware.iter().filter(|row| row["event"] == "instructions") {
        let figure: f64 = row["count_per_echo"].parse().unwrap();
        assert!((10.0..1e6).contains(&figure), "{row:?}");
    }
}

#[test]
fn a_count_over_no_echoes_is_refused() {
    let place = Place::with(&matrix("[hardware]\nechoes = 0\n"));
    assert_has(&failure(&mut place.run()), &["hardware.echoes is 0"]);
}
