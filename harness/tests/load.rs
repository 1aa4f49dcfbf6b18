//! `ringmark load` against echo servers of the test's own: sound ones and broken ones.
#![expect(clippy::unwrap_used, reason = "tests")]

mod echo_server;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::Ordering::SeqCst;

use echo_server::{Server, echo};
use serde_json::Value;

fn load(server: &Server, options: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmark"));
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

#[track_caller]
fn assert_has(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "`{part}` is not in: {line}");
    }
}

#[test]
fn echoes_are_counted_exactly() {
    let server = Server::start(1, echo);
    let all = events(&server, "--connections 7 --active 5 --message-bytes 333 --pipeline 3 --echoes 1003");
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
    assert_eq!(result(&server, "--connections 9 --message-bytes 1 --echoes 4 --threads 3")["echoes"], 4);
    assert_eq!(server.bytes.load(SeqCst), 4);
}

#[test]
fn echoes_per_connection_on_several_threads() {
    let server = Server::start(1, echo);
    let options = "--connections 11 --message-bytes 100 --echoes-per-connection 40 --threads 3 --pipeline 16";
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
    let options = "--connections 4 --message-bytes 64 --pipeline 16 --duration 300ms --warmup-max 100ms";
    let result = result(&server, options);
    let echoes = result["echoes"].as_u64().unwrap();
    let warmup_echoes = result["warmup_echoes"].as_u64().unwrap();
    let sent = server.bytes.load(SeqCst) / 64;
    assert!(echoes > 0 && warmup_echoes > 0, "{result}");
    // What came back after the window is in neither.
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
    assert_has(&text, &["echoes       100 in ", "p90 ", "p99 -", "closed loop: capacity, not latency"]);

    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let log = std::fs::read(&file).unwrap();
    let intervals = IntervalLogIterator::new(&log)
        .filter(|entry| matches!(entry, Ok(LogEntry::Interval(interval)) if interval.max() > 0.0));
    assert_eq!(intervals.count(), 1);
}

/// A load that takes commands.
struct Dialogue {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Dialogue {
    fn start(server: &Server, options: &str) -> Self {
        let mut child = load(server, options)
            .arg("--commands")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no event: `{line}`"))
    }

    fn ask(&mut self, line: &str) -> Value {
        self.say(line);
        self.hear()
    }

    /// Closes stdin and waits; returns the exit code and stderr.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.stdin.take());
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code(), text)
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_dialogue_up_and_down() {
    let server = Server::start(1, echo);
    let options = "--connections 100 --active 40 --message-bytes 64 --pipeline 2 --threads 3 --echoes 77";
    let mut load = Dialogue::start(&server, options);
    for (connections, active) in [(10, 10), (100, 40), (30, 30), (0, 0), (50, 40)] {
        let reply = load.ask(&format!("connections {connections}"));
        assert_eq!(reply["event"], "connections");
        assert_eq!(reply["connections"], connections);
        assert!(reply["connect_s"].is_f64());
        server.wait_for_open(connections);
        if connections > 0 {
            let reply = load.ask("echo 3");
            assert_eq!(reply["event"], "echoed");
            assert_eq!(reply["echoes"], 3 * active);
            assert_eq!(reply["active_connections"], active);
        }
    }
    for _ in 0..2 {
        assert_eq!(load.ask("run")["event"], "measuring");
        assert_eq!(load.hear()["event"], "measured");
        let reply = load.hear();
        assert_eq!(reply["event"], "result");
        assert_eq!(reply["echoes"], 77);
    }
    load.say("quit");
    assert_eq!(load.end(), (Some(0), String::new()));
    server.wait_for_open(0);
}

#[test]
fn end_of_input_quits() {
    let server = Server::start(1, echo);
    let mut load = Dialogue::start(&server, "--connections 5 --message-bytes 64");
    load.ask("connections 5");
    assert_eq!(load.end(), (Some(0), String::new()));
    server.wait_for_open(0);
}

#[test]
fn wrong_commands_end_the_dialogue() {
    let server = Server::start(1, echo);
    for (command, complaint) in [
        ("jump", "command `jump`: unknown"),
        ("connections x", "`x` is not a number"),
        ("connections 6", "more than the 5 of --connections"),
        ("echo 1", "no connection stands"),
        ("echo 0", "at least one echo"),
        ("run", "no connection stands"),
    ] {
        let mut load = Dialogue::start(&server, "--connections 5 --message-bytes 64");
        load.say(command);
        let (code, text) = load.end();
        assert_eq!(code, Some(1), "{command}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_has(&text, &[complaint]);
    }
}

#[test]
fn an_interrupt_ends_the_run_and_still_reports() {
    let server = Server::start(1, echo);
    let mut load =
        Dialogue::start(&server, "--connections 2 --message-bytes 64 --duration 60s --warmup-max 0s");
    load.ask("connections 2");
    assert_eq!(load.ask("run")["event"], "measuring");
    std::thread::sleep(std::time::Duration::from_millis(50));
    let kill = Command::new("kill").args(["-INT", &load.child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(load.hear()["event"], "measured");
    let result = load.hear();
    assert_eq!(result["interrupted"], true);
    assert!(
        result["echoes"].as_u64().unwrap() > 0 && result["duration_s"].as_f64().unwrap() < 30.0,
        "{result}"
    );
    let (code, text) = load.end();
    assert_eq!(code, Some(1));
    assert_has(&text, &["interrupted"]);
}

mod broken {
    use super::*;
    use std::net::TcpStream;
    use std::sync::{Barrier, Mutex};
    use std::time::Duration;

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
        assert_has(&line, &[&first_connection(&server), "offset 10: ", "1 B later: the server lost them"]);
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
        assert_has(&line, &[&first_connection(&server), "offset 1000: ", "beyond those sent (1 or more)"]);
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
                &["ringmark: stalled for 200ms: ", "echoes owed 6, on connections 3, first connection 0 to"],
            );
        }
    }

    #[test]
    fn the_server_does_not_accept() {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(1).unwrap();
        let port = listener.local_addr().unwrap().as_socket().unwrap().port();
        let output = Command::new(env!("CARGO_BIN_EXE_ringmark"))
            .args(["load", "--connect", &format!("127.0.0.1:{port}"), "--connections", "20"])
            .args(["--message-bytes", "1", "--connect-stall-after", "200ms"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let line = stderr(&output);
        assert_has(&line, &["accept queue full", " of 20 are connected, errno 110)"]);
    }
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let server = Server::start(1, echo);
    for (options, complaint) in [
        ("--connections 0 --message-bytes 1", "--connections 0: "),
        ("--connections 1 --message-bytes 0", "--message-bytes 0: "),
        ("--connections 1 --message-bytes 1 --pipeline 0", "--pipeline 0: "),
        ("--connections 1 --message-bytes 1 --pipeline 70000", "--pipeline 70000: at most"),
        ("--connections 1 --message-bytes 1 --active 2", "--active 2: more than the 1 of --connections"),
        ("--connections 1 --message-bytes 1 --active 0", "--active 0: "),
        ("--connections 1 --message-bytes 1 --threads 2", "--threads 2: more than the 1"),
        ("--connections 1 --message-bytes 1 --cpus x", "--cpus x: "),
        ("--connections 1 --message-bytes 1 --cpus 1023", "--cpus: "),
        ("--connections 1 --message-bytes 1 --ports 65535", "--ports 65535: would end at port"),
        ("--connections 1 --message-bytes 1 --echoes 0", "--echoes 0: "),
        ("--connections 1 --message-bytes 1 --duration 0s", "--duration 0s: "),
        ("--connections 1 --message-bytes 1 --source-addresses 300", "--source-addresses 300: "),
        ("--connections 30000000 --message-bytes 1 --threads 1", "--threads 1 with --connections 30000000: "),
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
        "ringmark: connect {nobody}: Connection refused: nothing listens there; start ringmark-server first\n"
    );
    for (address, complaint) in [
        (nobody.as_str(), refused.as_str()),
        ("nonsense", "--connect nonsense: no address; write HOST:PORT"),
        ("127.0.0.1:99999", "--connect 127.0.0.1:99999: no address"),
        ("127.0.0.1:0", "port 0"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringmark"))
            .args(["load", "--connect", address, "--connections", "1", "--message-bytes", "1"])
            .output()
            .unwrap();
        let line = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert_has(&line, &[complaint]);
    }
}
