//! Workloads that do more than echo on connections that stay, through a whole run.

use std::collections::BTreeSet;

use crate::{
    FOUR_CONNECTIONS, LATENCY, Place, Row, assert_has, assert_reasons, heading, number, stdout,
    success,
};

const WORKLOADS: &str = "
[syscalls]
echoes = 100

[[workload]]
name = \"churning\"
question = \"Do connections come and go?\"
connections = 4
message_bytes = 64
churn = 5

[[workload]]
name = \"working\"
question = \"Does the application work?\"
connections = 4
message_bytes = 64
work_ns = 20_000

[[workload]]
name = \"crowded\"
question = \"What if there are fewer CPUs than workers?\"
connections = 4096
message_bytes = 64
workers = 4096
";

#[test]
fn churn_work_and_workers_are_a_workloads_own() {
    let place =
        Place::with(&format!("{}{LATENCY}{WORKLOADS}", heading(&["epoll-et", "uring-multishot"])));
    let printed = stdout(&success(&mut place.run()));
    assert_has(
        &printed,
        &[
            "closed loop, 1 in flight, echoes per connection: 5",
            "closed loop, 1 in flight, 20,000 ns of work",
            "closed loop, 1 in flight, 4,096 workers",
        ],
    );
    let trials = place.rows("trials.csv");
    assert_reasons(&trials);
    let of = |workload: &str, pass: &str| -> Vec<&Row> {
        trials.iter().filter(|row| row["workload"] == workload && row["pass"] == pass).collect()
    };

    for (workload, works, churns) in [("churning", false, true), ("working", true, false)] {
        let rows = of(workload, "latency");
        // A trial that a busy machine spoilt is run again.
        let arms: BTreeSet<&str> = rows.iter().map(|row| row["arm"].as_str()).collect();
        assert_eq!(arms, BTreeSet::from(["epoll-et", "epoll-et (again)", "uring-multishot"]));
        for row in rows {
            // A busy machine may make the gates reject; but both sides have counted the same.
            assert!(
                ["ok", "client-limited", "rejected"].contains(&row["status"].as_str()),
                "{row:?}"
            );
            assert!(!row["reason"].contains("where the client opened"), "{row:?}");
            assert_eq!(
                (row["connections"].as_str(), row["workers"].as_str()),
                ("4", "1"),
                "{row:?}"
            );
            assert_has(&row["knobs"], &[if works { "\"work_ns\":20000" } else { "\"work_ns\":0" }]);
            for column in [
                "connections_per_s",
                "connect_p50_us",
                "connect_p99_us",
                "server_cpu_ns_per_connection",
            ] {
                // A p99 needs 368 connections, for which there may be no time.
                let may_lack = column == "connect_p99_us";
                assert!(churns || row[column].is_empty(), "{column}: {row:?}");
                assert!(!churns || may_lack || number(row, column) > 0.0, "{column}: {row:?}");
            }
            for column in ["fairness_connections", "fairness_workers"] {
                assert!((0.25..=1.0 + 1e-9).contains(&number(row, column)), "{column}: {row:?}");
            }
            assert!(number(row, "slowest_connection_over_mean") <= 1.0, "{row:?}");
            assert!(number(row, "fastest_connection_over_mean") >= 1.0, "{row:?}");
            // No echo can be back before the work is done.
            assert!(!works || number(row, "latency_p50_us") >= 20.0, "{row:?}");
        }
    }
    for row in of("churning", "syscalls").into_iter().chain(of("working", "syscalls")) {
        assert_eq!((row["status"].as_str(), row["echoes"].as_str()), ("ok", "100"), "{row:?}");
    }
    // 100 echoes, after the one on each connection that is not counted: 25 in each place, of which
    // five end a connection. (io_uring closes by requests.)
    let calls = place.rows("syscalls.csv");
    let closes = calls.iter().find(|row| {
        ["workload", "backend", "syscall"].map(|column| row[column].as_str())
            == ["churning", "epoll-et", "close"]
    });
    assert_eq!(closes.map(|row| row["calls"].as_str()), Some("20"), "{calls:?}");

    for pass in ["latency", "syscalls"] {
        let rows = of("crowded", pass);
        assert_eq!(
            rows.len(),
            if pass == "latency" { 3 } else { 2 },
            "no block is run again for it"
        );
        for row in rows {
            assert_eq!((row["status"].as_str(), row["workers"].as_str()), ("unsupported", "4096"));
            assert_has(&row["reason"], &["needs 4096 CPUs for the server, has "]);
        }
    }
    assert_has(&printed, &["- `epoll-et` has no figures in crowded: unsupported: needs 4096 CPUs"]);
}

#[test]
fn idle_connections_stand_beside_those_that_send() {
    let workload =
        FOUR_CONNECTIONS.replace("connections = 4", "connections = 4\nidle_connections = 300");
    // On a machine that is busy with other tests the latency pass may have no figures to use.
    let place =
        Place::with(&(heading(&["epoll-et"]) + LATENCY + "[syscalls]\nechoes = 100\n" + &workload));
    let output = success(&mut place.run());
    for trial in place.rows("trials.csv").iter().filter(|trial| trial["pass"] == "latency") {
        let counts = ["connections", "active_connections"].map(|column| trial[column].as_str());
        assert_eq!(counts, ["304", "4"], "{}", trial["reason"]);
    }
    assert!(stdout(&output).contains("| 4, and 300 idle | "), "{}", stdout(&output));
}
