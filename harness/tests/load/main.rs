//! `ringmark load` against echo servers of the test's own: sound ones and broken ones.
#![expect(clippy::unwrap_used, reason = "tests")]

mod broken;
mod churn;
#[path = "../../../tests/support/confine.rs"]
mod confine;
mod dialogue;
mod echo_server;
mod fairness;
mod limits;
mod open;
mod parts;
#[path = "../support/programs.rs"]
mod programs;
mod saturated;
mod services;
mod unix;

use std::process::{Command, Output};
use std::sync::atomic::Ordering::SeqCst;

use echo_server::{Server, echo};
use programs::RINGMARK;
use serde_json::Value;

fn load(server: &Server, options: &str) -> Command {
    let mut command = Command::new(RINGMARK);
    command.args(["load", "--connect", &server.address()]).args(options.split_whitespace());
    command
}

/// Runs to the end and returns the events, the last of which is the result.
fn events(server: &Server, options: &str) -> Vec<Value> {
    let output = load(server, options).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn result(server: &Server, options: &str) -> Value {
    events(server, options).pop().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs what must fail, and returns its one line.
fn failure(server: &Server, options: &str) -> String {
    let output = load(server, options).output().unwrap();
    let line = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    line.trim_end().to_owned()
}

/// Runs what the command line does not allow, and returns the line that says why.
fn refusal(server: &Server, options: &str) -> String {
    let output = load(server, options).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    text.lines().next().unwrap().to_owned()
}

#[track_caller]
fn assert_has(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "`{part}` is not in: {line}");
    }
}

#[test]
fn echoes_are_counted_exactly() {
    let server = Server::start(1, echo);
    let all = events(
        &server,
        "--connections 7 --active 5 --message-bytes 333 --pipeline 3 --echoes 1003",
    );
    let names: Vec<&str> = all.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["connections", "measuring", "measured", "result"]);
    let result = all.last().unwrap();
    assert_eq!(result["echoes"], 1003);
    assert_eq!(result["bytes"], 1003 * 333);
    assert_eq!(result["connections"], 7);
    assert_eq!(result["active_connections"], 5);
    assert_eq!(result["pipeline_depth"], 3);
    assert_eq!(result["arrival"], "closed");
    assert_eq!(result["warmup_echoes"], 0);
    assert!(result["latency_us"]["p99"].is_f64());
    assert!(result["latency_us"]["p999"].is_null(), "1,003 echoes carry no p99.9");
    assert_eq!(server.bytes.load(SeqCst), 1003 * 333);
}

#[test]
fn fewer_echoes_than_connections() {
    let server = Server::start(1, echo);
    assert_eq!(
        result(&server, "--connections 9 --message-bytes 1 --echoes 4 --threads 3")["echoes"],
        4
    );
    assert_eq!(server.bytes.load(SeqCst), 4);
}

#[test]
fn echoes_per_connection_on_several_threads() {
    let server = Server::start(1, echo);
    let options =
        "--connections 11 --message-bytes 100 --echoes-per-connection 40 --threads 3 --pipeline 16";
    let result = result(&server, options);
    assert_eq!(result["echoes"], 440);
    assert_eq!(result["threads"], 3);
    assert_eq!(server.bytes.load(SeqCst), 44_000);
}

#[test]
fn a_thousand_connections() {
    let server = Server::start(1, echo);
    let result = result(&server, "--connections 1000 --message-bytes 64 --echoes-per-connection 5");
    assert_eq!(result["echoes"], 5000);
    assert_eq!(server.peers().len(), 1000);
}

#[test]
fn messages_larger_than_any_buffer() {
    let server = Server::start(1, echo);
    let options = "--connections 3 --message-bytes 1048576 --pipeline 4 --echoes-per-connection 10";
    assert_eq!(result(&server, options)["echoes"], 30);
    assert_eq!(server.bytes.load(SeqCst), 30 << 20);
}

#[test]
fn a_timed_run_verifies_all_that_it_sends() {
    let server = Server::start(1, echo);
    let options =
        "--connections 4 --message-bytes 64 --pipeline 16 --duration 300ms --warmup-max 100ms";
    let result = result(&server, options);
    let echoes = result["echoes"].as_u64().unwrap();
    let warmup_echoes = result["warmup_echoes"].as_u64().unwrap();
    let sent = server.bytes.load(SeqCst) / 64;
    assert!(echoes > 0 && warmup_echoes > 0, "{result}");
    // Echoes that came back after the window are in neither.
    assert!((0..=4 * 16).contains(&(sent - echoes - warmup_echoes)), "{sent} sent: {result}");
    assert_eq!(server.bytes.load(SeqCst) % 64, 0);
}

#[test]
fn ports_and_source_addresses_are_dealt_in_turn() {
    let server = Server::start(2, echo);
    let options = "--ports 2 --connections 12 --source-addresses 3 --message-bytes 9 --echoes 12";
    result(&server, options);
    let mut tuples = server.peers();
    tuples.sort();
    let first = server.port;
    let mut expected = Vec::new();
    for port in [first, first + 1] {
        for host in 1..=3 {
            let source = std::net::Ipv4Addr::new(127, 0, 0, host);
            expected.extend([(port, source.into()); 2]);
        }
    }
    assert_eq!(tuples, expected);
}

#[test]
fn the_text_is_labelled_and_the_histogram_is_a_log() {
    let server = Server::start(1, echo);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latency.hlog");
    let mut command = load(&server, "--connections 2 --message-bytes 64 --echoes 100");
    let output = command.arg("--histogram").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_has(
        &text,
        &["echoes       100 in ", "p90 ", "p99 -", "closed loop: capacity, not latency"],
    );

    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let log = std::fs::read(&file).unwrap();
    let intervals = IntervalLogIterator::new(&log)
        .filter(|entry| matches!(entry, Ok(LogEntry::Interval(interval)) if interval.max() > 0.0));
    assert_eq!(intervals.count(), 1);
}

#[test]
fn a_value_out_of_its_limits_is_refused_with_them() {
    let server = Server::start(1, echo);
    let of = |option: &str| format!("--connections 1 --message-bytes 1 {option}");
    for (options, complaint) in [
        ("--connections 0 --message-bytes 1", "'0' for '--connections <N>': give 1 to 100000000"),
        ("--connections 18446744073709551615 --message-bytes 1", ": give 1 to 100000000"),
        (
            "--connections 1 --message-bytes 0",
            "'--message-bytes <N>': a message has at least 1 byte",
        ),
        (&of("--pipeline 0"), "'--pipeline <N>': give at least 1 message in flight"),
        (&of("--pipeline 70000"), "'--pipeline <N>': give at least 1 message in flight"),
        (&of("--active 0"), "'--active <N>': give 1 to 100000000"),
        (&of("--churn 0"), "'--churn <N>': give at least 1 echo on a connection"),
        (&of("--churn 5000000000"), "'--churn <N>': give at least 1 echo on a connection"),
        (&of("--churn 2 --rate 10"), "'--churn <N>' cannot be used with '--rate <R>'"),
        (&of("--echoes 0"), "'--echoes <N>': give at least 1 echo"),
        (&of("--duration 0s"), "'--duration <TIME>': give a time such as 500ms or 5s"),
        (&of("--warmup-max 9999999999y"), "'--warmup-max <TIME>': give a time"),
        (&of("--source-addresses 300"), "'--source-addresses <N>': give 1 to 254 addresses"),
        (&of("--ports 18446744073709551615"), "'--ports <N>': give at least 1 port"),
    ] {
        assert_has(&refusal(&server, options), &["error: ", complaint]);
    }
}

#[test]
fn options_that_contradict_each_other_are_refused_in_one_line() {
    let server = Server::start(1, echo);
    for (options, complaint) in [
        (
            "--connections 1 --message-bytes 1 --active 2",
            "--active 2: more than the 1 of --connections",
        ),
        ("--connections 1 --message-bytes 1 --threads 2", "--threads 2: more than the 1"),
        ("--connections 1 --message-bytes 1 --cpus x", "--cpus x: "),
        ("--connections 1 --message-bytes 1 --cpus 1023", "--cpus: "),
        ("--connections 1 --message-bytes 1 --ports 65535", "--ports 65535: at most"),
        ("--connections 1 --message-bytes 1 --histogram -", "--histogram -: into the JSON"),
        (
            "--connections 1 --message-bytes 1 --echoes 9000 --rate 0.1",
            "--echoes 9000 at --rate 0.1: takes 1.0 days",
        ),
        (
            "--connections 30000000 --message-bytes 1 --threads 1",
            "--threads 1 with --connections 30000000: ",
        ),
        (
            "--connections 1 --message-bytes 1 --echoes 1 --histogram /proc/no/file",
            "--histogram /proc/no/file",
        ),
    ] {
        let line = failure(&server, options);
        assert_has(&line, &["ringmark: ", complaint]);
    }
}

#[test]
fn bad_addresses_are_refused_in_one_line() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("127.0.0.1:{free}");
    let refused = format!(
        "ringmark: connect {nobody}: Connection refused: nothing listens there; start \
         ringmark-server first\n"
    );
    for (address, complaint) in [
        (nobody.as_str(), refused.as_str()),
        ("nonsense", "--connect nonsense: no address; write HOST:PORT"),
        ("[::1]", "--connect [::1]: no address"),
        ("[fe80::1%nowhere]:1", "--connect [fe80::1%nowhere]:1: no address"),
        ("127.0.0.1:99999", "--connect 127.0.0.1:99999: no address"),
        ("127.0.0.1:0", "port 0"),
    ] {
        let output = Command::new(RINGMARK)
            .args(["load", "--connect", address, "--connections", "1", "--message-bytes", "1"])
            .output()
            .unwrap();
        let line = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert_has(&line, &[complaint]);
    }
}
