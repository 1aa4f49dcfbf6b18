//! Servers that break the echo protocol must not pass.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use crate::echo_server::{Server, echo};
use crate::programs::RINGMARK;
use crate::{assert_has, failure, stderr};

/// Echoes, but for what `spoil` makes of the first bytes that come.
fn spoiling(spoil: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> Server {
    Server::start(1, move |connection| {
        let mut first = connection.receive();
        spoil(&mut first);
        if connection.stream.write_all(&first).is_ok() {
            echo(connection);
        }
    })
}

const ONE: &str = "--connections 1 --message-bytes 1000 --pipeline 2 --echoes 100";

fn first_connection(server: &Server) -> String {
    format!("ringmark: connection 0 to {}: stream offset ", server.address())
}

#[test]
fn a_byte_is_lost() {
    let server = spoiling(|bytes| _ = bytes.remove(10));
    let line = failure(&server, ONE);
    assert_has(
        &line,
        &[&first_connection(&server), "offset 10: ", "1 B later: the server lost them"],
    );
}

#[test]
fn a_byte_is_repeated() {
    let server = spoiling(|bytes| bytes.insert(10, bytes[10]));
    let line = failure(&server, ONE);
    assert_has(
        &line,
        &[&first_connection(&server), "offset 11: ", "1 B earlier: the server repeated them"],
    );
}

#[test]
fn the_last_byte_is_repeated() {
    let server = spoiling(|bytes| bytes.push(bytes[bytes.len() - 1]));
    let line = failure(&server, "--connections 1 --message-bytes 1000 --echoes 1");
    assert_has(
        &line,
        &[&first_connection(&server), "offset 1000: ", "beyond those owed (1 or more)"],
    );
}

#[test]
fn a_bit_is_flipped() {
    let server = spoiling(|bytes| bytes[500] ^= 4);
    let line = failure(&server, ONE);
    assert_has(&line, &[&first_connection(&server), "offset 500: ", "the server altered them"]);
}

#[test]
fn two_connections_are_crossed() {
    let (both, streams) = (Barrier::new(2), Mutex::new(Vec::<TcpStream>::new()));
    let server = Server::start(1, move |connection| {
        let bytes = connection.receive();
        streams.lock().unwrap().push(connection.stream.try_clone().unwrap());
        both.wait();
        let own = connection.stream.peer_addr().unwrap();
        for mut stream in &*streams.lock().unwrap() {
            if stream.peer_addr().is_ok_and(|peer| peer != own) {
                let _ = stream.write_all(&bytes);
            }
        }
        echo(connection);
    });
    let line = failure(&server, "--connections 2 --message-bytes 1000 --echoes 100");
    assert_has(&line, &["ringmark: connection ", "offset 0: ", "the server crossed connections"]);
}

#[test]
fn the_server_closes_early() {
    let server = Server::start(1, |connection| {
        let bytes = connection.receive();
        let _ = connection.stream.write_all(&bytes[..400]);
    });
    let line = failure(&server, "--connections 1 --message-bytes 1000 --echoes 100");
    assert_has(
        &line,
        &[&first_connection(&server), "offset 400: expected 600 more bytes", "an early end"],
    );
}

#[test]
fn the_server_resets() {
    let server = Server::start(1, |connection| {
        connection.receive();
        socket2::SockRef::from(&connection.stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let line = failure(&server, "--connections 1 --message-bytes 1000 --echoes 100");
    assert_has(
        &line,
        &[&first_connection(&server), "offset 0: expected 1000 more bytes", "reset by peer"],
    );
}

#[test]
fn an_idle_connection_is_closed() {
    let closed = Barrier::new(2);
    let server = Server::start(1, move |connection| {
        if connection.number == 1 {
            connection.stream.shutdown(std::net::Shutdown::Both).unwrap();
            closed.wait();
        } else {
            closed.wait();
            echo(connection);
        }
    });
    let line = failure(&server, "--connections 2 --active 1 --message-bytes 1000 --echoes 100");
    assert_has(&line, &["ringmark: connection 1 to ", "expected the connection to stay open"]);
}

#[test]
fn the_server_never_answers() {
    let server = Server::start(1, |connection| while !connection.receive().is_empty() {});
    let options = "--connections 4 --active 3 --message-bytes 64 --pipeline 2 --stall-after 200ms";
    for budget in ["--echoes 100", "--duration 50ms --warmup-max 0s"] {
        let line = failure(&server, &format!("{options} {budget}"));
        assert_has(
            &line,
            &[
                "ringmark: stalled for 200ms: ",
                "echoes owed 6, on connections 3, first connection 0 to",
            ],
        );
    }
}

#[test]
fn the_server_does_not_accept() {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(1).unwrap();
    let port = listener.local_addr().unwrap().as_socket().unwrap().port();
    let output = Command::new(RINGMARK)
        .args(["load", "--connect", &format!("127.0.0.1:{port}"), "--connections", "20"])
        .args(["--message-bytes", "1", "--connect-stall-after", "200ms"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = stderr(&output);
    assert_has(&line, &["accept queue full", " of 20 are connected, errno 110)"]);
}
