//! The load under limits, and with outputs that cannot be written.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::confine::{limit_open_files, refuse};
use crate::echo_server::{Server, echo};
use crate::programs::RINGMARK;
use crate::{assert_has, load, stderr};

const FEW: &str = "--connections 2 --message-bytes 64 --echoes 100";

#[test]
fn a_histogram_that_cannot_be_created_is_told_before_anything_is_sent() {
    let server = Server::start(1, echo);
    let output = load(&server, &format!("{FEW} --histogram /nonexistent/x")).output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]));
    assert_has(&stderr(&output), &["ringmark: --histogram /nonexistent/x: No such file"]);
    assert!(server.peers().is_empty());
}

#[test]
fn the_result_is_printed_whatever_becomes_of_the_histogram() {
    let server = Server::start(1, echo);
    let output = load(&server, &format!("{FEW} --json --histogram /dev/full")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = stderr(&output);
    assert_eq!(line.lines().count(), 1, "{line}");
    assert_has(&line, &["ringmark: --histogram /dev/full: No space left on device"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let result: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&result["event"], &result["echoes"]), (&"result".into(), &100.into()));
}

#[test]
fn the_histogram_is_written_whatever_becomes_of_the_result() {
    let server = Server::start(1, echo);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.hlog");
    let mut command = load(&server, FEW);
    command
        .arg("--histogram")
        .arg(&file)
        .stdout(File::options().write(true).open("/dev/full").unwrap());
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = stderr(&output);
    assert_eq!(line.lines().count(), 1, "{line}");
    assert_has(&line, &["ringmark: stdout: No space left on device"]);
    assert!(std::fs::metadata(&file).unwrap().len() > 0);
}

#[test]
fn a_run_that_fails_leaves_a_histogram_as_it_was() {
    let server = Server::start(1, |connection| drop(connection.receive()));
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.hlog"), folder.path().join("new.hlog"));
    std::fs::write(&old, "of an earlier run").unwrap();
    for file in [&old, &new] {
        let output = load(&server, FEW).arg("--histogram").arg(file).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
    }
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "of an earlier run");
    assert!(!new.exists());
}

/// Lets the command's process make no file table of its own, as the profile that Docker has by
/// default, and open no more than 200 files.
fn confine(command: &mut Command) {
    limit_open_files(command, 200);
    refuse(command, &[libc::SYS_unshare], libc::EPERM);
}

#[test]
fn where_unshare_is_refused_the_threads_share_a_file_table() {
    let server = Server::start(1, echo);
    for threads in [1, 3] {
        let options = format!(
            "--connections 100 --message-bytes 64 --echoes 1000 --json --threads {threads}"
        );
        let mut command = load(&server, &options);
        confine(&mut command);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let result: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(result["echoes"], 1000);
        assert_has(
            result["file_table"].as_str().unwrap(),
            &["shared: unshare(CLONE_FILES): Operation not permitted"],
        );
    }
}

#[test]
fn where_unshare_is_refused_and_too_few_files_are_allowed_it_is_said_how_many_connections_fit() {
    let server = Server::start(1, echo);
    let mut command = load(&server, "--connections 137 --message-bytes 64 --echoes 1000");
    confine(&mut command);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let parts = [
        "--connections 137: 136 fit",
        "unshare(CLONE_FILES)",
        "seccomp",
        "CAP_SYS_ADMIN",
        "ulimit -n",
    ];
    assert_has(&stderr(&output), &parts);
    assert!(server.peers().is_empty());
}

/// In a network of its own, with a hundred ports for clients and an address that is not one of
/// loopback's.
#[test]
fn source_ports_that_run_out_off_loopback_are_counted_and_get_advice_that_works() {
    let of_thread = || -> Option<String> {
        // SAFETY: takes no pointer, and moves only this thread, which ends with the test.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            eprintln!("skipped: a network namespace needs root");
            return None;
        }
        for words in ["link set lo up", "address add 10.99.0.1/32 dev lo"] {
            assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success());
        }
        std::fs::write(
            "/proc/thread-self/root/proc/sys/net/ipv4/ip_local_port_range",
            "40000 40099",
        )
        .unwrap();
        let listener = TcpListener::bind("10.99.0.1:8888").unwrap();
        let output = Command::new(RINGMARK)
            .args([
                "load",
                "--connect",
                "10.99.0.1:8888",
                "--connections",
                "200",
                "--message-bytes",
                "1",
            ])
            .output()
            .unwrap();
        drop(listener);
        assert_eq!(output.status.code(), Some(1));
        Some(stderr(&output))
    };
    if let Some(line) = std::thread::spawn(of_thread).join().unwrap() {
        assert_has(
            &line,
            &["40000 to 40099", "more --ports", "fewer connections", "(100 of 200 are connected"],
        );
        assert!(!line.contains("--source-addresses"), "{line}");
    }
}
