//! Workloads on a network of their own, and under a bound on CPU time.

use crate::{
    CALLS, LATENCY, Place, Row, assert_has, assert_reasons, heading, number, stdout, success,
};

const WORKLOADS: &str = "
[[workload]]
name = \"small\"
question = \"Do packets of Ethernet's size make a difference?\"
connections = 2
message_bytes = 20000
mtu = 1500
congestion = \"reno\"

[[workload]]
name = \"sixth\"
question = \"Does IPv6?\"
connections = 2
message_bytes = 64
path = \"loopback6\"

[[workload]]
name = \"ethernet\"
question = \"Does a device?\"
connections = 2
message_bytes = 64
path = \"veth\"

[[workload]]
name = \"unix\"
question = \"Does a socket without a network?\"
connections = 2
message_bytes = 64
path = \"unix\"

[[workload]]
name = \"pigeons\"
question = \"Does another congestion control?\"
connections = 2
message_bytes = 64
congestion = \"pigeon\"
";

const BOUNDED: &str = "
[[workload]]
name = \"bounded\"
question = \"Does a bound on CPU time?\"
connections = 2
message_bytes = 64
cpu_quota = \"20 %\"
";

#[test]
fn a_workloads_network_is_made_recorded_and_refused_in_words() {
    let matrix = heading(&["epoll-et"]) + CALLS + WORKLOADS;
    let place = Place::with(&matrix);
    let printed = stdout(&success(&mut place.run()));
    assert_has(
        &printed,
        &[", MTU 1,500, reno ", ", over loopback6 ", ", over veth ", ", over unix "],
    );
    let trials = place.rows("trials.csv");
    assert_reasons(&trials);
    let of = |workload: &str| -> Vec<&Row> {
        trials.iter().filter(|row| row["workload"] == workload).collect()
    };
    let columns = |row: &Row| ["path", "mtu", "congestion"].map(|column| row[column].clone());
    for row in of("pigeons") {
        assert_eq!(row["status"], "unsupported", "{row:?}");
        assert_has(&row["reason"], &["congestion = \"pigeon\": this kernel has "]);
    }
    let is_possible = |row: &Row| row["status"] != "unsupported";
    for row in of("small").into_iter().filter(|row| is_possible(row)) {
        assert_eq!(columns(row), ["loopback", "1500", "reno"], "{row:?}");
        assert!(!row["offloads"].is_empty(), "{row:?}");
    }
    for row in of("sixth").into_iter().filter(|row| is_possible(row)) {
        assert_eq!((&*row["path"], &*row["mtu"]), ("loopback6", "65536"), "{row:?}");
    }
    for row in of("ethernet").into_iter().filter(|row| is_possible(row)) {
        assert_eq!((&*row["path"], &*row["mtu"]), ("veth", "1500"), "{row:?}");
    }
    for row in of("unix").into_iter().filter(|row| is_possible(row)) {
        assert_eq!(columns(row), ["unix", "", ""], "{row:?}");
        assert!(row["status"] != "ok" || number(row, "echoes") > 0.0, "{row:?}");
    }
    for row in trials.iter().filter(|row| !is_possible(row) && row["workload"] != "pigeons") {
        // Without root.
        let words = ["network namespace", "iproute2", "CONFIG_VETH"];
        assert!(words.iter().any(|words| row["reason"].contains(words)), "{row:?}");
    }
}

#[test]
fn a_bound_on_cpu_time_is_recorded_with_the_time_that_it_took() {
    let place = Place::with(&(heading(&["epoll-et"]) + LATENCY + CALLS + BOUNDED));
    assert_has(&stdout(&success(&mut place.run())), &[", 20 % of a CPU "]);
    for row in &place.rows("trials.csv") {
        assert_eq!(row["cpu_quota_percent"], "20.0");
        if row["status"] == "unsupported" {
            assert_has(&row["reason"], &["cpu_quota"]);
        } else if row["pass"] == "latency" {
            assert!(number(row, "throttled_percent") >= 0.0, "{row:?}");
        }
    }
}
