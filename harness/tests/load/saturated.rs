//! A server that answers more slowly than it is asked is saturated, which is a result; one that
//! answers nothing has stalled, which is not.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use crate::dialogue::Dialogue;
use crate::echo_server::{Connection, Server, echo};
use crate::programs::RINGMARK;
use crate::{assert_has, load, result, stderr};

/// Echoes messages of 64 B, 100 in a second over all connections together.
fn paced() -> Server {
    let turn = Mutex::new(());
    Server::start(1, move |connection: &mut Connection| {
        let mut message = [0; 64];
        while connection.stream.read_exact(&mut message).is_ok() {
            let _turn = turn.lock().unwrap();
            std::thread::sleep(Duration::from_millis(10));
            if connection.stream.write_all(&message).is_err() {
                return;
            }
        }
    })
}

const SLOW: &str =
    "--connections 4 --message-bytes 64 --duration 300ms --warmup-max 0s --drain-max 100ms";

/// The words about messages that were still owed.
fn owed(result: &Value) -> u64 {
    let saturated = &result["saturated"];
    assert!(
        saturated["limit"].is_string() && saturated["drained_s"].as_f64().unwrap() >= 0.1,
        "{result}"
    );
    let owed = saturated["owed"].as_u64().unwrap();
    assert!(saturated["owed_bytes"].as_u64().unwrap() > 63 * owed, "{result}");
    owed
}

#[test]
fn an_open_loop_that_is_owed_messages_ends_with_what_was_answered() {
    let result = result(&paced(), &format!("{SLOW} --rate 1000 --arrival uniform"));
    let (echoes, owed) = (result["echoes"].as_u64().unwrap(), owed(&result));
    // 300 are due, of which no more than 40 can be back in 400 ms.
    assert!((1..=31).contains(&echoes) && (259..=300).contains(&owed), "{result}");
    let latency = &result["latency_us"];
    assert!(
        latency["p50"].is_null() && latency["mean"].is_null() && latency["max"].is_null(),
        "{result}"
    );
    // The last one was due when the window ended.
    assert!(latency["at_least"]["p50"].as_f64().unwrap() >= 100_000.0, "{result}");
    assert!(latency["at_least"]["max"].as_f64().unwrap() >= 300_000.0, "{result}");
    assert!(result["open"]["service_us"]["at_least"]["p50"].is_f64(), "{result}");
}

#[test]
fn a_closed_loop_counts_what_was_owed_as_well() {
    let result = result(&paced(), &format!("{SLOW} --pipeline 32"));
    // 128 are in flight until the window ends, of which 10 can come back after it.
    assert!(owed(&result) >= 117, "{result}");
    assert!(result["latency_us"]["p50"].is_null(), "{result}");
}

#[test]
fn the_text_says_at_least() {
    let output = load(&paced(), &format!("{SLOW} --rate 1000")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_has(
        &text,
        &["saturated    the server answered more slowly", " were still owed 0.", "p50 at least "],
    );
}

#[test]
fn a_number_of_echoes_comes_to_its_end_however_slow_the_server_is() {
    for options in [
        "--echoes 40 --rate 4000",
        "--echoes 40 --pipeline 10",
        "--echoes 40 --churn 4 --threads 2",
    ] {
        let options = format!("--connections 4 --message-bytes 64 --stall-after 300ms {options}");
        let result = result(&paced(), &options);
        assert_eq!(
            (&result["echoes"], &result["latency_us"]["at_least"]),
            (&40.into(), &Value::Null),
            "{result}"
        );
        if options.contains("--rate") {
            assert_eq!(
                (&result["saturated"]["limit"], &result["saturated"]["owed"]),
                (&"server".into(), &0.into())
            );
            // It was offered a hundred times as fast as it was answered.
            assert!(result["open"]["offered_per_s"].as_f64().unwrap() > 1000.0, "{result}");
        }
    }
}

#[test]
fn what_one_run_left_owed_does_not_come_back_in_the_next() {
    for options in ["--pipeline 32", "--rate 2000", "--churn 1"] {
        let server = paced();
        let mut load = Dialogue::start(&server, &format!("{SLOW} --threads 2 {options}"));
        load.ask("connections 4");
        for _ in 0..2 {
            assert_eq!(load.ask("run")["event"], "measuring");
            assert_eq!(load.hear()["event"], "measured");
            assert_eq!(load.hear()["event"], "result");
        }
        let echoed = load.ask("echo 2");
        assert_eq!(
            (&echoed["echoes"], &echoed["bytes"]),
            (&8.into(), &(8 * 64).into()),
            "{options}: {echoed}"
        );
        assert_eq!(load.ask("connections 2")["connections"], 2);
        assert_eq!(load.end(), (Some(0), String::new()));
    }
}

/// Nothing but a byte every 30 ms is movement too.
#[test]
fn a_message_that_comes_by_bytes_has_not_stalled() {
    let server = Server::start(1, |connection: &mut Connection| {
        let bytes = connection.receive();
        for byte in bytes {
            std::thread::sleep(Duration::from_millis(30));
            if connection.stream.write_all(&[byte]).is_err() {
                return;
            }
        }
        echo(connection);
    });
    let options = "--connections 1 --message-bytes 20 --duration 100ms --warmup-max 0s \
                   --stall-after 300ms --json";
    let output = load(&server, options).output().unwrap();
    // None is back within the window, so that nothing is measured; that is said, beside the result.
    assert_eq!(output.status.code(), Some(1));
    assert_has(&stderr(&output), &["ringmark: no echo came back within the window of 0.100 s"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let result: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&result["event"], &result["echoes"]), (&"result".into(), &0.into()));
}

#[test]
fn an_interrupt_ends_the_wait_for_what_is_owed() {
    let options =
        "--connections 4 --message-bytes 64 --duration 200ms --warmup-max 0s --pipeline 500";
    let server = paced();
    let mut load = Dialogue::start(&server, options);
    load.ask("connections 4");
    assert_eq!(load.ask("run")["event"], "measuring");
    assert_eq!(load.hear()["event"], "measured");
    load.interrupt();
    let result = load.hear();
    assert_eq!(result["interrupted"], true);
    assert!(
        result["echoes"].as_u64().unwrap() > 0
            && result["saturated"]["owed"].as_u64().unwrap() > 1000,
        "{result}"
    );
}

/// The kernel opens connections that a server never accepts.
#[test]
fn where_no_first_echo_came_the_accept_queue_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let one = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
    });
    let options =
        "--connections 4 --message-bytes 64 --echoes-per-connection 2 --stall-after 300ms";
    let output = std::process::Command::new(RINGMARK)
        .args(["load", "--connect", &address])
        .args(options.split_whitespace())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let parts = [
        "echoes owed 3, on connections 3",
        "no echo ever came on them",
        "net.core.somaxconn",
        "ulimit -n",
    ];
    assert_has(&stderr(&output), &parts);
    one.join().unwrap();
}

#[test]
fn without_a_message_that_is_due_nothing_is_measured() {
    let server = Server::start(1, echo);
    let options = "--connections 1 --message-bytes 1 --rate 0.001 --duration 50ms --warmup-max 0s";
    let output = load(&server, options).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_has(&stderr(&output), &["no message was due within the window of 0.050 s"]);
    assert_has(&String::from_utf8(output.stdout).unwrap(), &["(0.001 asked for)"]);
}
