//! Services other than an echo, through a whole run.

use std::collections::BTreeSet;

use crate::{LATENCY, Place, assert_has, assert_reasons, heading, number, stdout, success};

const SERVICES: &str = "
[syscalls]
echoes = 100

[[workload]]
name = \"web\"
question = \"Is a large response to a small request different?\"
connections = 4
service = \"exchange\"
request_bytes = 64
response_bytes = 16384
rate_per_s = 2000

[[workload]]
name = \"up\"
question = \"Is it different to receive only?\"
connections = 4
service = \"sink\"
request_bytes = 1024

[[workload]]
name = \"down\"
question = \"Is it different to send only?\"
connections = 4
service = \"source\"
response_bytes = 16384
";

/// On loopback the kernel copies what is sent without a copy.
#[test]
fn sends_that_were_copied_all_the_same_have_no_figures() {
    let arms = "{ backend = \"epoll-et\" }";
    let zero_copy = "{ backend = \"uring-multishot\", set = [\"zero_copy=on\"] }";
    let heading = heading(&["epoll-et"]).replace(arms, &format!("{arms}, {zero_copy}"));
    let down = SERVICES.split("[[workload]]").last().unwrap();
    let place = Place::with(&format!("{heading}{LATENCY}\n[[workload]]{down}"));
    place.run().output().unwrap();
    let trials = place.rows("trials.csv");
    let copied: Vec<_> = trials.iter().filter(|row| row["arm"].contains("zero_copy")).collect();
    assert!(!copied.is_empty(), "{trials:?}");
    for row in copied {
        assert_eq!(row["status"], "unsupported", "{row:?}");
        assert_has(&row["reason"], &["zero_copy: the kernel copied ", "use two machines"]);
    }
}

#[test]
fn exchanges_and_streams_are_measured_and_shown() {
    let matrix = heading(&["epoll-et", "uring-multishot"]) + LATENCY + SERVICES;
    let place = Place::with(&matrix);
    let printed = stdout(&success(&mut place.run()));
    assert_has(
        &printed,
        &[
            "exchange request_bytes=64 response_bytes=16384",
            "source response_bytes=16384",
            "| a stream ",
            "Streams: what goes one way",
        ],
    );
    let trials = place.rows("trials.csv");
    assert_reasons(&trials);
    let mut seen = BTreeSet::new();
    for row in &trials {
        // A busy machine may make the gates reject; but both sides have counted the same.
        assert!(["ok", "client-limited", "rejected"].contains(&row["status"].as_str()), "{row:?}");
        assert!(!row["reason"].contains("where the client made"), "{row:?}");
        seen.insert((row["pass"].clone(), row["workload"].clone()));
        let (service, bytes) = match row["workload"].as_str() {
            "web" => ("exchange request_bytes=64 response_bytes=16384", 16_448.0),
            "up" => ("sink request_bytes=1024", 1024.0),
            _ => ("source response_bytes=16384", 16_384.0),
        };
        assert_eq!((&*row["service"], number(row, "message_bytes")), (service, bytes), "{row:?}");
        if row["pass"] == "syscalls" {
            assert_eq!(row["echoes"], "100");
            continue;
        }
        let has_latency = row["workload"] == "web";
        for column in ["latency_p50_us", "latency_mean_us", "latency_max_us"] {
            assert!(has_latency || row[column].is_empty(), "{column}: {row:?}");
        }
        if row["echoes"] == "0" {
            // The machine was too busy for one.
            continue;
        }
        let near = |value: f64, expected: f64| (value - expected).abs() <= 1e-6 * expected;
        assert!(near(number(row, "bytes_per_s"), number(row, "achieved_per_s") * bytes), "{row:?}");
        let per_mib = number(row, "server_cpu_ns_per_echo") * f64::from(1 << 20) / bytes;
        assert!(near(number(row, "server_cpu_ns_per_mib"), per_mib), "{row:?}");
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
}
