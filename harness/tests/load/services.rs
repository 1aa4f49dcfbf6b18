//! Services other than an echo: what the load counts, what it demands, and what it refuses.

use std::io::Write;
use std::sync::atomic::Ordering::SeqCst;

use ringmark::echo::Stream;
use ringmark::service::{GREETING_BYTES, streams};

use crate::echo_server::{Connection, Server, echo};
use crate::{assert_has, failure, result};

/// Receives the greeting; returns the streams of the connection, and what followed.
fn greeted(connection: &mut Connection) -> Option<([Stream; 2], Vec<u8>)> {
    let mut bytes = Vec::new();
    while bytes.len() < GREETING_BYTES {
        let more = connection.receive();
        if more.is_empty() {
            return None;
        }
        bytes.extend(more);
    }
    let rest = bytes.split_off(GREETING_BYTES);
    let number = u64::from_le_bytes(bytes.try_into().unwrap());
    Some((streams(number), rest))
}

/// The next bytes of a stream.
fn take(stream: &mut Stream, mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while length > 0 {
        let slice = stream.peek(length);
        bytes.extend_from_slice(slice);
        stream.advance(slice.len());
        length -= slice.len();
    }
    bytes
}

/// A sound exchange of these sizes, but for what `spoil` makes of each response.
fn exchange(
    request: usize,
    response: usize,
    spoil: impl Fn(&mut Vec<u8>) + Send + Sync + 'static,
) -> Server {
    Server::start(1, move |connection| {
        let Some(([mut requests, mut responses], mut bytes)) = greeted(connection) else { return };
        let mut taken = 0;
        loop {
            requests.verify(&bytes).unwrap();
            taken += bytes.len();
            for _ in 0..taken / request {
                let mut answer = take(&mut responses, response);
                spoil(&mut answer);
                if connection.stream.write_all(&answer).is_err() {
                    return;
                }
            }
            taken %= request;
            bytes = connection.receive();
            if bytes.is_empty() {
                return;
            }
        }
    })
}

/// A sink that verifies what it receives.
fn sink() -> Server {
    Server::start(1, |connection| {
        let Some(([mut requests, _], mut bytes)) = greeted(connection) else { return };
        loop {
            requests.verify(&bytes).unwrap();
            bytes = connection.receive();
            if bytes.is_empty() {
                return;
            }
        }
    })
}

/// A source of writes of this size, but for what `spoil` makes of each.
fn source(response: usize, spoil: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> Server {
    Server::start(1, move |connection| {
        let Some(([_, mut responses], rest)) = greeted(connection) else { return };
        assert!(rest.is_empty());
        loop {
            let mut bytes = take(&mut responses, response);
            spoil(&mut bytes);
            if connection.stream.write_all(&bytes).is_err() {
                return;
            }
        }
    })
}

const GREETINGS: u64 = GREETING_BYTES as u64;

#[test]
fn exchanges_are_counted_exactly() {
    for (request, response) in [(1, 1), (64, 16_384), (200_000, 7), (1, 1_000_000)] {
        let server = exchange(request, response, |_| {});
        let options = format!(
            "--service exchange --request-bytes {request} --response-bytes {response} \
             --connections 3 --pipeline 2 --threads 2 --echoes 50"
        );
        let result = result(&server, &options);
        assert_eq!(result["echoes"], 50);
        assert_eq!(result["bytes"], 50 * (request + response));
        let named = format!("exchange request_bytes={request} response_bytes={response}");
        assert_eq!(result["service"], named);
        assert!(result["latency_us"]["p50"].is_f64());
        assert_eq!(server.bytes.load(SeqCst), 50 * request as u64 + 3 * GREETINGS);
    }
}

#[test]
fn exchanges_keep_to_a_rate_and_replace_connections() {
    let options = "--service exchange --request-bytes 100 --response-bytes 5000 --connections 4";
    let server = exchange(100, 5000, |_| {});
    let paced = result(&server, &format!("{options} --rate 2000 --echoes 300"));
    assert_eq!((&paced["echoes"], &paced["arrival"]), (&300.into(), &"poisson".into()));
    let churned = result(&server, &format!("{options} --churn 5 --echoes 300"));
    assert_eq!(churned["echoes"], 300);
    assert!(churned["churn"]["opened_in_all"].as_u64().unwrap() >= 60);
}

#[test]
fn all_that_a_sink_is_sent_has_arrived_when_the_load_ends() {
    for request in [1_u64, 64, 100_000, 3 << 20] {
        let server = sink();
        let options = format!("--service sink --request-bytes {request} --connections 3");
        let sent = result(&server, &format!("{options} --threads 2 --echoes 40"));
        assert_eq!((&sent["echoes"], &sent["bytes"]), (&40.into(), &(40 * request).into()));
        assert!(sent["latency_us"]["p50"].is_null(), "nothing comes back");
        server.wait_for_open(0);
        assert_eq!(server.bytes.load(SeqCst), 40 * request + 3 * GREETINGS);
    }
    let server = sink();
    let options = "--service sink --request-bytes 64 --connections 3 --duration 300ms";
    let timed = result(&server, options);
    server.wait_for_open(0);
    let in_all = timed["echoes_in_all"].as_u64().unwrap();
    assert_eq!(server.bytes.load(SeqCst), in_all * 64 + 3 * GREETINGS);
}

#[test]
fn a_sink_is_sent_what_is_due() {
    let server = sink();
    let options = "--service sink --request-bytes 64 --connections 3 --rate 5000 --duration 200ms";
    let paced = result(&server, options);
    let (offered, echoes) = (&paced["open"]["offered_per_s"], paced["echoes"].as_u64().unwrap());
    let due = (offered.as_f64().unwrap() * paced["duration_s"].as_f64().unwrap()).round() as u64;
    assert!(echoes > 0 && echoes <= paced["echoes_in_all"].as_u64().unwrap());
    assert!(due > 0 && paced["open"]["service_us"]["p50"].is_null(), "{paced}");
    server.wait_for_open(0);
    let in_all = paced["echoes_in_all"].as_u64().unwrap();
    assert_eq!(server.bytes.load(SeqCst), in_all * 64 + 3 * GREETINGS);
}

#[test]
fn a_source_is_read_as_far_as_was_asked() {
    for response in [1, 1000, 1 << 20] {
        let server = source(response, |_| {});
        let options = format!("--service source --response-bytes {response} --connections 3");
        let read = result(&server, &format!("{options} --threads 2 --echoes 40"));
        assert_eq!((&read["echoes"], &read["bytes"]), (&40.into(), &(40 * response).into()));
        assert!(read["latency_us"]["p50"].is_null(), "nobody asked");
        assert_eq!(server.bytes.load(SeqCst), 3 * GREETINGS);
    }
    let server = source(64, |_| {});
    let options = "--service source --response-bytes 64 --connections 3 --duration 300ms";
    let timed = result(&server, options);
    assert!(timed["echoes"].as_u64() <= timed["echoes_in_all"].as_u64());
}

const EXCHANGE: &str =
    "--service exchange --request-bytes 10 --response-bytes 100 --connections 1 --echoes 10";

#[test]
fn an_exchange_that_answers_too_much_too_early_too_little_or_wrongly_is_found_out() {
    let must_serve = "the server must serve `exchange request_bytes=10 response_bytes=100`";
    let too_much = exchange(10, 101, |_| {});
    assert_has(&failure(&too_much, EXCHANGE), &[must_serve, "offset 100: expected nothing more"]);
    let too_early = Server::start(1, |connection| {
        let Some(([_, mut responses], _)) = greeted(connection) else { return };
        let _ = connection.stream.write_all(&take(&mut responses, 200));
        while !connection.receive().is_empty() {}
    });
    let line = failure(&too_early, EXCHANGE);
    assert_has(&line, &[must_serve, "expected nothing more", "before it was asked"]);
    let too_little = exchange(10, 100, |bytes| bytes.truncate(99));
    let line = failure(&too_little, &format!("{EXCHANGE} --stall-after 300ms"));
    assert_has(&line, &[must_serve, "stalled for 300ms", "owed 1, on connections 1"]);
    let wrong = exchange(10, 100, |bytes| bytes[99] ^= 1);
    assert_has(&failure(&wrong, EXCHANGE), &[must_serve, "offset 99: expected byte"]);
    let closes = exchange(10, 100, |_| panic!("this ends the connection"));
    assert_has(&failure(&closes, EXCHANGE), &[must_serve, "expected 100 more bytes", "early end"]);
}

#[test]
fn streams_that_are_not_what_they_must_be_are_found_out() {
    let options = "--connections 1 --echoes 100000";
    let talks = Server::start(1, |connection| {
        let _ = connection.stream.write_all(b"!");
        while !connection.receive().is_empty() {}
    });
    let sink = format!("--service sink --request-bytes 1000 {options}");
    assert_has(&failure(&talks, &sink), &["must serve `sink", "offset 0: expected nothing more"]);
    let leaves = Server::start(1, |connection| drop(connection.receive()));
    assert_has(&failure(&leaves, &sink), &["must serve `sink", "expected"]);
    let sleeps = Server::start(1, |connection| {
        std::thread::sleep(std::time::Duration::from_secs(1));
        while !connection.receive().is_empty() {}
    });
    let line = failure(&sleeps, &format!("{sink} --stall-after 300ms"));
    assert_has(&line, &["must serve `sink", "stalled for 300ms"]);
    let of_source = format!("--service source --response-bytes 1000 {options}");
    let wrong = source(1000, |bytes| bytes[999] ^= 1);
    assert_has(&failure(&wrong, &of_source), &["must serve `source", "offset 999: expected byte"]);
    let silent = Server::start(1, |connection| while !connection.receive().is_empty() {});
    let line = failure(&silent, &format!("{of_source} --stall-after 300ms"));
    assert_has(&line, &["must serve `source", "stalled for 300ms", "nothing came"]);
}

#[test]
fn a_server_of_another_service_is_found_out() {
    let server = Server::start(1, echo);
    for options in [
        EXCHANGE,
        "--service sink --request-bytes 1000 --connections 1 --echoes 100000",
        "--service source --response-bytes 10 --connections 1 --echoes 10",
    ] {
        assert_has(&failure(&server, options), &["the server must serve `", "stream offset 0"]);
    }
}

#[test]
fn sizes_that_make_no_sense_are_refused_before_anything_is_sent() {
    let server = Server::start(1, echo);
    for (options, words) in [
        ("", "the service echo needs --message-bytes"),
        ("--request-bytes 64", "the service echo has no use for --request-bytes"),
        ("--service exchange --message-bytes 1", "needs --request-bytes"),
        (
            "--service sink --request-bytes 1 --message-bytes 1",
            "the service sink has no use for --message-bytes",
        ),
        ("--service exchange --request-bytes 0 --response-bytes 0", "both sizes are 0"),
        ("--service sink --request-bytes 16777217", "the most is 16777216"),
        ("--service sink --request-bytes 1 --pipeline 2", "no use for --pipeline"),
        ("--service sink --request-bytes 1 --churn 2", "no use for --churn"),
        ("--service source --response-bytes 1 --rate 10", "no use for --rate"),
    ] {
        assert_has(&failure(&server, &format!("--connections 1 {options}")), &[words]);
    }
    assert!(server.peers().is_empty());
}
