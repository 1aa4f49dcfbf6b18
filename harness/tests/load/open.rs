//! The open loop: what is due is sent, however late, and what a stall costs shows.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::echo_server::{Connection, Server, echo};
use crate::{assert_has, load, refusal, result, stderr};

#[test]
fn as_many_are_sent_as_asked_for() {
    for arrival in ["poisson", "uniform"] {
        let server = Server::start(1, echo);
        let options = format!(
            "--connections 7 --active 5 --message-bytes 333 --rate 20000 --arrival {arrival} \
             --echoes 1003 --threads 3"
        );
        let result = result(&server, &options);
        assert_eq!((&result["echoes"], &result["arrival"]), (&1003.into(), &arrival.into()));
        assert_eq!(result["open"]["rate_per_s"], 20_000.0);
        assert!(
            result["open"]["send_lag_us"]["p50"].is_f64()
                && result["open"]["service_us"]["p99"].is_f64()
        );
        assert_eq!(server.bytes.load(SeqCst), 1003 * 333);
    }
}

#[test]
fn uniform_arrivals_take_the_connections_in_turn() {
    let turns = Arc::new(Mutex::new(Vec::new()));
    let seen = turns.clone();
    let server = Server::start(1, move |connection: &mut Connection| {
        loop {
            let bytes = connection.receive();
            if bytes.is_empty() {
                return;
            }
            let messages = bytes.len() / 8;
            seen.lock().unwrap().extend(std::iter::repeat_n(connection.number, messages));
            std::io::Write::write_all(&mut connection.stream, &bytes).unwrap();
        }
    });
    result(&server, "--connections 4 --message-bytes 8 --rate 200 --arrival uniform --echoes 40");
    let mut numbers = turns.lock().unwrap().clone();
    numbers.sort_unstable();
    let expected: Vec<usize> = (0..4).flat_map(|number| [number; 10]).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn a_timed_run_counts_what_was_due_within_its_window() {
    let server = Server::start(1, echo);
    let options = "--connections 8 --message-bytes 64 --rate 2000 --arrival uniform --duration \
                   500ms --warmup-max 100ms";
    let result = result(&server, options);
    // Evenly spaced, so the window holds 1,000 of them, give or take the one at its edge.
    let offered_per_s = result["open"]["offered_per_s"].as_f64().unwrap();
    assert!((1998.0..=2002.0).contains(&offered_per_s), "{result}");
    assert_eq!(server.bytes.load(SeqCst) % 64, 0);
    assert!(result["warmup_echoes"].as_u64().unwrap() > 0, "{result}");
}

/// A server that, after `before` messages, holds up all connections for 100 ms, once.
fn stalling(before: u64) -> Server {
    let (count, stalled, gate) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(()));
    Server::start(1, move |connection: &mut Connection| {
        loop {
            let bytes = connection.receive();
            if bytes.is_empty() {
                return;
            }
            {
                let _gate = gate.lock().unwrap();
                let messages = bytes.len() as u64 / 64;
                if count.fetch_add(messages, SeqCst) >= before && !stalled.swap(true, SeqCst) {
                    std::thread::sleep(STALL);
                }
            }
            if std::io::Write::write_all(&mut connection.stream, &bytes).is_err() {
                return;
            }
        }
    })
}

const STALL: Duration = Duration::from_millis(100);

fn p999_us(result: &Value) -> f64 {
    result["latency_us"]["p999"].as_f64().unwrap()
}

/// The stall meets 40 messages a millisecond that are due, of which those of its first 10 ms wait
/// at least 90 ms: more than the slowest thousandth. In a closed loop it meets one message of each
/// connection.
#[test]
fn a_stall_shows_in_the_open_loop_and_hides_in_the_closed_one() {
    let most_of_it_us = 0.9 * STALL.as_micros() as f64;
    let open = result(
        &stalling(1000),
        "--connections 4 --message-bytes 64 --rate 4000 --arrival uniform --echoes 4800",
    );
    assert!(p999_us(&open) >= most_of_it_us, "{open}");
    assert!(open["latency_us"]["max"].as_f64().unwrap() >= most_of_it_us, "{open}");
    let closed = result(&stalling(1000), "--connections 4 --message-bytes 64 --echoes 20000");
    assert!(closed["latency_us"]["max"].as_f64().unwrap() >= most_of_it_us, "{closed}");
    assert!(p999_us(&closed) < most_of_it_us, "{closed}");
}

#[test]
fn more_than_the_server_can_do_is_sent_all_the_same() {
    // A hundred a second is what this server does; a thousand are due in the window.
    let server = Server::start(1, |connection: &mut Connection| {
        loop {
            let bytes = connection.receive();
            if bytes.is_empty() {
                return;
            }
            for message in bytes.chunks(64) {
                std::thread::sleep(Duration::from_millis(10));
                if std::io::Write::write_all(&mut connection.stream, message).is_err() {
                    return;
                }
            }
        }
    });
    let options = "--connections 1 --message-bytes 64 --rate 1000 --arrival uniform --duration \
                   200ms --warmup-max 0s";
    let result = result(&server, options);
    // And those that were due before the window began.
    let sent = server.bytes.load(SeqCst) / 64;
    let before = (result["warmup_s"].as_f64().unwrap() * 1000.0).ceil() as u64;
    assert!((200..=201 + before).contains(&sent), "{sent} sent: {result}");
    assert!(result["achieved_per_s"].as_f64().unwrap() <= 105.0, "{result}");
    assert!(result["open"]["offered_per_s"].as_f64().unwrap() >= 990.0, "{result}");
    // The last one was due at the window's end and came back when 200 had taken 10 ms each.
    assert!(result["latency_us"]["max"].as_f64().unwrap() >= 1_750_000.0, "{result}");
}

#[test]
fn the_text_tells_latency_from_service() {
    let server = Server::start(1, echo);
    let output = load(&server, "--connections 2 --message-bytes 64 --rate 5000 --echoes 500")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_has(
        &text,
        &[
            "offered (5000 asked for)",
            "service µs   p50",
            "send lag µs",
            "late sends",
            "open loop: ",
        ],
    );
}

#[test]
fn bad_rates_are_refused_in_one_line() {
    let server = Server::start(1, echo);
    for rate in ["0", "-1", "nan", "inf", "1e10", "1e-5", "1e-300"] {
        let line = refusal(&server, &format!("--connections 1 --message-bytes 1 --rate={rate}"));
        assert_has(&line, &["error: ", "'--rate <R>'", "messages per second"]);
    }
}
