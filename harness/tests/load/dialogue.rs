//! `--commands`, and an interrupt.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::echo_server::{Server, echo};
use crate::{assert_has, load};

/// A load that takes commands.
pub struct Dialogue {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Dialogue {
    pub fn start(server: &Server, options: &str) -> Self {
        let mut child = load(server, options)
            .arg("--commands")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut dialogue = Self { child, stdin, stdout };
        let started = dialogue.hear();
        assert_eq!(
            (&started["event"], &started["pid"]),
            (&"started".into(), &dialogue.child.id().into())
        );
        dialogue
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no event: `{line}`"))
    }

    pub fn ask(&mut self, line: &str) -> Value {
        self.say(line);
        self.hear()
    }

    pub fn interrupt(&self) {
        let kill =
            Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// Closes stdin and waits; returns the exit code and stderr.
    pub fn end(mut self) -> (Option<i32>, String) {
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
    let options =
        "--connections 100 --active 40 --message-bytes 64 --pipeline 2 --threads 3 --echoes 77";
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
    let mut load = Dialogue::start(
        &server,
        "--connections 2 --message-bytes 64 --duration 60s --warmup-max 0s",
    );
    load.ask("connections 2");
    assert_eq!(load.ask("run")["event"], "measuring");
    std::thread::sleep(std::time::Duration::from_millis(50));
    load.interrupt();
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
