//! Connections that are replaced while the load runs.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::dialogue::Dialogue;
use crate::echo_server::{Connection, Server};
use crate::programs::{RINGMARK, server};
use crate::{assert_has, failure, load, result, stderr};

/// The bytes that each accepted connection sent, in the order in which they ended.
type Sent = Arc<Mutex<Vec<Vec<u8>>>>;

/// Echoes, and keeps what it echoed.
fn recording(ports: u16) -> (Server, Sent) {
    let sent = Sent::default();
    let record = sent.clone();
    let server = Server::start(ports, move |connection: &mut Connection| {
        let mut all = Vec::new();
        loop {
            let bytes = connection.receive();
            all.extend_from_slice(&bytes);
            if bytes.is_empty() || connection.stream.write_all(&bytes).is_err() {
                record.lock().unwrap().push(all);
                return;
            }
        }
    });
    (server, sent)
}

/// The lengths, ascending, once all connections are gone.
fn lengths(server: &Server, sent: &Sent) -> Vec<usize> {
    server.wait_for_open(0);
    let mut lengths: Vec<_> = sent.lock().unwrap().iter().map(Vec::len).collect();
    lengths.sort_unstable();
    lengths
}

#[test]
fn each_connection_carries_as_many_echoes_as_asked_for() {
    for (pipeline, threads) in [(1, 1), (2, 3), (16, 2)] {
        let (server, sent) = recording(1);
        let result = result(
            &server,
            &format!(
                "--connections 7 --active 5 --message-bytes 333 --churn 3 --echoes-per-connection \
                 10 --pipeline {pipeline} --threads {threads}"
            ),
        );
        // After 3, 6 and 9 of the 10.
        assert_eq!(
            (&result["echoes"], &result["connections"]),
            (&50.into(), &7.into()),
            "{result}"
        );
        let churn = &result["churn"];
        let counts =
            ["echoes_each", "opened", "opened_in_all"].map(|name| churn[name].as_u64().unwrap());
        assert_eq!(counts, [3, 15, 22], "{result}");
        assert!(
            churn["connect_us"]["p50"].is_f64() && churn["connections_per_s"].is_f64(),
            "{result}"
        );
        assert_eq!(server.peers().len(), 22);
        let expected = [vec![0; 2], vec![333; 5], vec![999; 15]].concat();
        assert_eq!(lengths(&server, &sent), expected);
        // Each with bytes of its own, or a server could mix them up unseen.
        let mut streams = sent.lock().unwrap().clone();
        streams.retain(|bytes| !bytes.is_empty());
        streams.sort_unstable();
        streams.dedup_by(|a, b| a[..333] == b[..333]);
        assert_eq!(streams.len(), 20);
    }
}

#[test]
fn what_is_left_of_a_connection_is_left_for_the_next_run_and_all_stand_at_its_end() {
    let (server, sent) = recording(1);
    let options =
        "--connections 40 --message-bytes 10 --churn 4 --threads 3 --echoes-per-connection 3";
    let mut load = Dialogue::start(&server, options);
    let opened = |reply: &Value| reply["churn"]["opened_in_all"].as_u64().unwrap();
    load.ask("connections 40");
    // 3 and 3 and 2 echoes: after the fourth and the eighth another stands in the place.
    assert_eq!(opened(&load.ask("echo 3")), 40);
    assert_eq!(load.ask("run")["event"], "measuring");
    assert_eq!(load.hear()["event"], "measured");
    assert_eq!(opened(&load.hear()), 80);
    assert_eq!(opened(&load.ask("echo 2")), 120);
    server.wait_for_open(40);
    load.ask("connections 10");
    server.wait_for_open(10);
    assert_eq!(opened(&load.ask("echo 4")), 130);
    load.ask("connections 20");
    server.wait_for_open(20);
    let reply = load.ask("echo 1");
    assert_eq!((opened(&reply), &reply["churn"]["opened"]), (140, &0.into()));
    load.say("quit");
    assert_eq!(load.end(), (Some(0), String::new()));
    assert_eq!(server.peers().len(), 140);
    // Two lives of forty and one of ten were full; thirty were closed unused, and twenty after one
    // echo.
    assert_eq!(lengths(&server, &sent), [vec![0; 30], vec![10; 20], vec![40; 90]].concat());
}

#[test]
fn connections_stay_with_their_port_and_source() {
    let (server, sent) = recording(2);
    let options =
        "--ports 2 --connections 4 --source-addresses 2 --message-bytes 9 --churn 1 --echoes 40";
    assert_eq!(result(&server, options)["churn"]["opened_in_all"], 44);
    let mut tuples = server.peers();
    tuples.sort();
    let mut expected = Vec::new();
    for port in [server.port, server.port + 1] {
        for host in 1..=2 {
            expected.extend([(port, std::net::IpAddr::from([127, 0, 0, host])); 11]);
        }
    }
    assert_eq!(tuples, expected);
    assert_eq!(lengths(&server, &sent), [vec![0; 4], vec![9; 40]].concat());
}

/// Closed connections to `port` that the kernel still keeps at the client's end, by both ends. The
/// table changes while it is read, so some may be missing.
fn in_time_wait(port: u16) -> HashSet<(String, String)> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[2].ends_with(&remote) && fields[3] == "06")
        .map(|fields| (fields[1].to_owned(), fields[2].to_owned()))
        .collect()
}

/// Whether the kernel would keep one more closed connection: it drops those beyond a limit.
fn keeps_closed_connections() -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap();
    let sockets = read("/proc/net/sockstat");
    let kept = sockets.split_once(" tw ").and_then(|(_, rest)| rest.split(' ').next());
    let most = read("/proc/sys/net/ipv4/tcp_max_tw_buckets");
    kept.unwrap().parse::<u64>().unwrap() < most.trim().parse().unwrap()
}

#[test]
fn an_orderly_close_leaves_time_wait_at_the_client_and_a_reset_leaves_none() {
    for (close, expected) in [("", 84), (" --close fin", 84), (" --close reset", 0)] {
        let (server, sent) = recording(1);
        // An earlier server may have had the port.
        let before = in_time_wait(server.port);
        let options =
            format!("--connections 4 --message-bytes 9 --churn 1 --echoes 80 --threads 2{close}");
        assert_eq!(result(&server, &options)["churn"]["opened_in_all"], 84);
        assert_eq!(lengths(&server, &sent).len(), 84);
        if !keeps_closed_connections() {
            eprintln!("skipped: net.ipv4.tcp_max_tw_buckets is reached; wait a minute");
            return;
        }
        let left = || in_time_wait(server.port).difference(&before).count();
        assert!((0..20).any(|_| left() == expected), "{options}: {} and not {expected}", left());
    }
}

#[test]
fn a_timed_run_counts_as_many_connections_as_the_server() {
    let (server, _) = recording(1);
    let options = "--connections 4 --message-bytes 64 --churn 1 --duration 200ms --warmup-max 50ms \
                   --threads 2";
    let result = result(&server, options);
    let [opened, in_all] =
        ["opened", "opened_in_all"].map(|name| result["churn"][name].as_u64().unwrap());
    assert_eq!(server.peers().len() as u64, in_all);
    // Each echo uses a connection up.
    assert_eq!(server.bytes.load(SeqCst) / 64, in_all - 4);
    assert!(opened > 0 && opened < in_all - 4, "the warm-up's are not of the window: {result}");
}

/// Echoes on the first `sound` connections, and lets `spoil` loose on what comes on the others.
fn spoiling(sound: usize, spoil: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> Server {
    Server::start(1, move |connection: &mut Connection| {
        loop {
            let mut bytes = connection.receive();
            if bytes.is_empty() {
                return;
            }
            if connection.number >= sound {
                spoil(&mut bytes);
            }
            if connection.stream.write_all(&bytes).is_err() {
                return;
            }
        }
    })
}

const ONE: &str = "--connections 1 --message-bytes 1000 --churn 2 --echoes 1000";

#[test]
fn a_wrong_byte_on_a_replaced_connection_is_found() {
    let server = spoiling(5, |bytes| bytes[500] ^= 4);
    assert_has(
        &failure(&server, ONE),
        &["ringmark: connection 0 to ", "offset 500: ", "altered them"],
    );
    // The sixth connection is the first that is wrong.
    assert_eq!(server.peers().len(), 6);
}

#[test]
fn bytes_of_the_connection_before_are_no_echo() {
    let before = Mutex::new(Vec::new());
    let server = spoiling(0, move |bytes| {
        let mut before = before.lock().unwrap();
        if before.is_empty() {
            before.clone_from(bytes);
        }
        bytes.clone_from(&before);
    });
    let one = ONE.replace("--churn 2", "--churn 1");
    assert_has(&failure(&server, &one), &["offset 0: ", "the server crossed connections"]);
    assert_eq!(server.peers().len(), 2);
}

#[test]
fn a_replaced_connection_that_is_closed_at_once_is_a_fault() {
    let server = Server::start(1, |connection: &mut Connection| {
        if connection.number < 3 {
            crate::echo_server::echo(connection);
        }
    });
    let line = failure(&server, ONE);
    assert!(line.contains("the server closed") || line.contains("reset"), "{line}");
    assert_has(&line, &["ringmark: connect"]);
}

/// A handshake that the kernel leaves unanswered, because the accept queue is full, is no silence
/// without end.
#[test]
fn a_connection_that_cannot_be_opened_stalls_the_run() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address: SockAddr = listener.local_addr().unwrap();
    let child = Command::new(RINGMARK)
        .args([
            "load",
            "--connect",
            &address.as_socket().unwrap().to_string(),
            "--connections",
            "1",
        ])
        .args(["--message-bytes", "64", "--churn", "1", "--echoes", "2", "--stall-after", "300ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = TcpStream::from(listener.accept().unwrap().0);
    let mut bytes = [0; 64];
    first.read_exact(&mut bytes).unwrap();
    let others: Vec<_> = (0..4)
        .map(|_| {
            let other = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
            let _ = other.connect(&address);
            other
        })
        .collect();
    first.write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(others);
    assert_eq!(output.status.code(), Some(1));
    let line = stderr(&output);
    assert_eq!(line.lines().count(), 1, "{line}");
    assert_has(
        &line,
        &["stalled for 300ms: connections being opened 1, first connection 0 to", "accept queue"],
    );
}

#[test]
fn the_text_tells_of_connections() {
    let (server, _) = recording(1);
    let output =
        load(&server, "--connections 2 --message-bytes 64 --churn 2 --echoes 40").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_has(
        &text,
        &["connections/s ", "echoes per connection 2, then fin", "connect µs   p50 "],
    );
}

/// A ringmark-server; killed when dropped.
struct Ringmark {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    address: String,
}

impl Ringmark {
    /// None if the kernel refuses the backend.
    fn start(backend: &str) -> Option<Self> {
        let mut child = Command::new(server())
            .args(["--backend", backend, "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let ready = event(&mut stdout);
        let address = ready["addresses"][0].as_str().map(str::to_owned);
        let server = Self { child, stdout, address: address.unwrap_or_default() };
        if server.address.is_empty() {
            eprintln!("skipped: {ready}");
            return None;
        }
        Some(server)
    }

    /// Returns its counters, once it holds nothing any more.
    fn end(&mut self) -> Value {
        let pid = self.child.id() as libc::pid_t;
        // SAFETY: takes no pointer. The child is not reaped yet, so the number is its own.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        event(&mut self.stdout)
    }
}

impl Drop for Ringmark {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn event(stdout: &mut impl BufRead) -> Value {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("no event: `{line}`"))
}

/// Both sides' counts of connections and bytes are the same, to the last one.
fn counts_agree(backend: &str, connections: u64, churn: u64, echoes: u64) {
    let Some(mut server) = Ringmark::start(backend) else { return };
    let output = Command::new(RINGMARK)
        .args(["load", "--json", "--message-bytes", "64", "--connect", &server.address])
        .args(["--connections", &connections.to_string(), "--churn", &churn.to_string()])
        .args(["--echoes", &echoes.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{backend}: {}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let result: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let opened = connections + connections * (echoes / connections / churn);
    assert_eq!(
        (&result["echoes"], &result["churn"]["opened_in_all"]),
        (&echoes.into(), &opened.into())
    );
    let end = server.end();
    let counted = |name: &str| end["loop"][name].as_u64().unwrap();
    assert_eq!((counted("accepted"), counted("closed")), (opened, opened), "{backend}: {end}");
    assert_eq!(
        (counted("bytes_received"), counted("bytes_sent")),
        (echoes * 64, echoes * 64),
        "{backend}"
    );
}

#[test]
fn every_backend_accepts_as_many_as_are_opened() {
    let list = Command::new(server()).args(["--list", "--json"]).output().unwrap();
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let backends: Vec<&str> = list["backends"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|backend| backend["name"].as_str())
        .collect();
    assert!(backends.len() > 10, "{list}");
    for backend in backends.into_iter().filter(|&name| name != "null") {
        counts_agree(backend, 16, 1, 320);
        counts_agree(backend, 16, 3, 320);
    }
}

/// One address has 28,232 ports by default, and a connection in TIME_WAIT keeps its port for a
/// second or a minute.
#[test]
fn more_connections_than_there_are_ports() {
    counts_agree("epoll-et", 10, 1, 40_000);
}
