//! A load that several processes make, each a part of it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::dialogue::Dialogue;
use crate::echo_server::{Connection, Server, echo};
use crate::{assert_has, failure, load, refusal, stderr};

/// The first bytes of each connection, which no other has, and how many came in all.
type Received = Arc<Mutex<BTreeMap<Vec<u8>, u64>>>;

/// An echo server that keeps what came.
fn keeping(ports: u16) -> (Server, Received) {
    let received = Received::default();
    let keeper = received.clone();
    let server = Server::start(ports, move |connection: &mut Connection| {
        let (mut first, mut count) = (Vec::new(), 0);
        loop {
            let bytes = connection.receive();
            if bytes.is_empty() {
                break;
            }
            count += bytes.len() as u64;
            first.extend(bytes.iter().take(64 - first.len().min(64)));
            connection.stream.write_all(&bytes).unwrap();
        }
        if !first.is_empty() {
            assert_eq!(keeper.lock().unwrap().insert(first, count), None, "bytes of two");
        }
    });
    (server, received)
}

/// Runs so many parts to the end, and returns their results.
fn parts(server: &Server, options: &str, parts: usize) -> Vec<Value> {
    let start = |part: usize| {
        let mut command = load(server, &format!("{options} --part {part}/{parts} --commands"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let commands = "connections 17\nrun\nmeasure\nquit\n";
        child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        child
    };
    let children: Vec<_> = (1..=parts).map(start).collect();
    let result = |child: std::process::Child| {
        let output = child.wait_with_output().unwrap();
        assert_eq!(stderr(&output), "");
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    };
    children.into_iter().map(result).collect()
}

#[test]
fn three_processes_send_what_three_threads_send() {
    for load_of in [
        // Poisson arrivals: the seed decides how many messages each connection has.
        "--active 11 --rate 20000 --echoes 1003",
        "--active 11 --rate 20000 --arrival uniform --echoes 1003",
        "--echoes 1003",
        "--pipeline 3 --echoes-per-connection 40",
    ] {
        let options = format!("--connections 17 --message-bytes 333 --ports 2 {load_of}");
        let (server, received) = keeping(2);
        let whole = crate::result(&server, &format!("{options} --threads 3"));
        drop(server);
        let by_one = received.lock().unwrap().clone();
        let (server, received) = keeping(2);
        let results = parts(&server, &format!("{options} --threads 1"), 3);
        drop(server);
        assert_eq!(*received.lock().unwrap(), by_one, "{load_of}");
        for figure in ["connections", "active_connections", "echoes", "bytes"] {
            let sum: u64 = results.iter().map(|result| result[figure].as_u64().unwrap()).sum();
            assert_eq!(whole[figure], sum, "{figure} of {load_of}");
        }
    }
}

#[test]
fn a_part_waits_for_the_others_before_it_measures() {
    let server = Server::start(1, echo);
    let options = "--connections 4 --message-bytes 64 --duration 50ms --warmup-max 50ms --part 2/2";
    let mut part = Dialogue::start(&server, options);
    let stood = part.ask("connections 4");
    assert_eq!((&stood["connections"], &stood["opened"]), (&4.into(), &2.into()));
    assert!(stood["connect_log"].is_string(), "{stood}");
    assert_eq!(part.ask("run")["event"], "warm");
    assert_eq!(part.ask("measure")["event"], "measuring");
    assert_eq!(part.hear()["event"], "measured");
    let result = part.hear();
    assert_eq!((&result["event"], &result["connections"]), (&"result".into(), &2.into()));
    let samples = &result["samples"];
    assert_eq!(samples["echoes_by_connection"].as_array().unwrap().len(), 2, "{samples}");
    assert!(["latency", "service", "send_lag"].iter().all(|log| samples[*log].is_string()));
    // Alone it cannot say how evenly all connections were served.
    assert!(result["fairness"].is_null());
    part.say("run");
    assert_eq!(part.hear()["event"], "warm");
    part.say("run");
    let (code, line) = part.end();
    assert_eq!(code, Some(1));
    assert_has(&line, &["command `run`: `measure` is due"]);
}

#[test]
fn parts_that_cannot_be_are_refused() {
    let server = Server::start(1, echo);
    let of = |part: &str| format!("--connections 5 --message-bytes 64 --part {part}");
    for part in ["0/2", "3/2", "two", "1/2000"] {
        assert_has(&refusal(&server, &of(part)), &["give a part and how many there are"]);
    }
    let line = failure(&server, &format!("{} --threads 2", of("1/3")));
    assert_has(&line, &["--part of 3: 2 threads in each are more than the 5 of --connections"]);
}
