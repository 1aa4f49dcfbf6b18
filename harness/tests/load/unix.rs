//! Unix sockets: the load verifies what comes over one, and refuses what it has not.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::programs::RINGMARK;
use crate::{assert_has, stderr};

/// Echoes on a socket of this path until the test ends.
fn echo_at(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
}

fn load(path: &Path, options: &str) -> Output {
    let mut command = Command::new(RINGMARK);
    command.args(["load", "--connect", &format!("unix:{}", path.display()), "--json"]);
    command.args(options.split(' ')).output().unwrap()
}

fn failure(path: &Path, options: &str) -> String {
    let output = load(path, options);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let line = stderr(&output);
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

#[test]
fn echoes_over_a_unix_socket_are_verified_and_counted() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("echo");
    echo_at(&path);
    for options in [
        "--connections 20 --message-bytes 1000 --echoes 400",
        "--connections 3 --message-bytes 300000 --echoes 30 --threads 2",
        "--connections 4 --message-bytes 9 --echoes 40 --churn 2",
    ] {
        let output = load(&path, options);
        assert!(output.status.success(), "{options}: {}", stderr(&output));
        let last = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
        let result: Value = serde_json::from_str(&last).unwrap();
        let asked = options.split("--echoes ").nth(1).unwrap();
        let asked = asked.split(' ').next().unwrap();
        assert_eq!(result["echoes"].to_string(), asked, "{result}");
    }
}

#[test]
fn more_connect_at_once_than_the_queue_takes() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("echo");
    // The queue of the standard library's listener: 4,096 or somaxconn; nobody accepts for a while.
    let listener = UnixListener::bind(&path).unwrap();
    let late = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        for stream in listener.incoming().take(6000) {
            let stream = stream.unwrap();
            std::thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    let output = load(&path, "--connections 6000 --message-bytes 9 --echoes 6000");
    assert!(output.status.success(), "{}", stderr(&output));
    late.join().unwrap();
}

#[test]
fn a_unix_socket_that_is_none_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("echo");
    let one = "--connections 1 --message-bytes 9 --echoes 1";
    assert_has(&failure(&path, one), &["No such file", "start ringmark-server first"]);
    drop(UnixListener::bind(&path).unwrap());
    assert_has(&failure(&path, one), &["Connection refused", "its server has ended"]);
    let text = folder.path().join("text");
    std::fs::write(&text, "").unwrap();
    assert_has(&failure(&text, one), &["Connection refused", "the file is no socket"]);
    assert_has(&failure(Path::new("echo"), one), &["--connect", "as in unix:/run/echo.sock"]);
    let long = folder.path().join("a".repeat(108));
    assert_has(&failure(&long, one), &["--connect", "at most 107"]);
    for (option, name) in [
        ("--ports 2", "--ports"),
        ("--source-addresses 2", "--source-addresses"),
        ("--churn 2 --close reset", "--close reset"),
    ] {
        let line = failure(&path, &format!("{one} {option}"));
        assert_has(&line, &[name, "is of TCP", "a Unix socket"]);
    }
}
