//! Every trial runs the programs that the manifest names: once a program is another, the run stops
//! and can be resumed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::processes::{Running, wait_for, wait_until};
use crate::{CALLS, FOUR_CONNECTIONS, Place, assert_has, calls, failure, heading, one_line};
use crate::{stdout, success};

/// Trials of a kind that a busy machine does not spoil, two of each workload.
fn matrix(workloads: usize) -> String {
    let mut text = heading(&["epoll-et", "poll"]) + CALLS;
    for number in 0..workloads {
        text += &FOUR_CONNECTIONS.replace("four", &format!("four-{number}"));
    }
    text
}

fn place_with_programs(matrix: &str) -> Place {
    let place = Place::with(matrix);
    place.copy_programs();
    place
}

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(place.path("ringmark"));
    command.current_dir(place.path("")).arg("run").args(arguments);
    command
}

/// Replaces a file as a build does: the old file loses its name, and a new one gets it. It holds a
/// byte more.
fn replace(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes.push(b'\n');
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
}

/// The file stays and gets a byte more, as soon as nobody runs it.
fn rewrite(path: &Path) {
    let mut file = wait_for("a moment in which it does not run", || {
        fs::OpenOptions::new().append(true).open(path).ok()
    });
    file.write_all(b"\n").unwrap();
}

/// Begins a run, changes a file after three rows, and returns what the run says at its end.
#[track_caller]
fn stopped_by(place: &Place, change: impl FnOnce(&Path), file: &str) -> String {
    stopped_with(place, &[], change, file)
}

/// The same with options.
#[track_caller]
fn stopped_with(place: &Place, options: &[&str], change: impl FnOnce(&Path), file: &str) -> String {
    let mut command = command(place, &[&["matrix.toml", "--out", "out"], options].concat());
    let running = Running::start(&mut command);
    wait_until("a third row", || place.rows_so_far() >= 3);
    change(&place.path(file));
    let line = one_line(&running.end());
    assert_has(&line, &[file, "the run stops; the trials so far are in out", " run --resume out"]);
    let found = place.rows("trials.csv");
    assert!((3..16).contains(&found.len()), "{}", found.len());
    assert!(found.iter().all(|row| row["status"] != "failed"), "{found:?}");
    assert!(place.manifest()["finished_utc"].is_null());
    line
}

/// Keeps a file, to put it back.
fn kept(place: &Place, file: &str) -> impl FnOnce() {
    let (path, copy): (PathBuf, PathBuf) = (place.path(file), place.path("kept"));
    fs::copy(&path, &copy).unwrap();
    move || fs::rename(copy, path).unwrap()
}

#[test]
fn a_server_that_is_replaced_stops_the_run_until_it_is_back() {
    let place = place_with_programs(&matrix(4));
    let put_back = kept(&place, "ringmark-server");
    let line = stopped_by(&place, replace, "ringmark-server");
    assert_has(&line, &["was replaced or written to"]);
    let refusal = failure(&mut command(&place, &["--resume", "out"]));
    assert_has(&refusal, &["the server's program was ", "--replay to start over"]);
    let before = fs::read_to_string(place.out().join("trials.csv")).unwrap();
    put_back();
    success(&mut command(&place, &["--resume", "out"]));
    assert!(fs::read_to_string(place.out().join("trials.csv")).unwrap().starts_with(&before));
    assert_eq!(place.rows_so_far(), 8);
}

#[test]
fn a_server_that_is_written_to_in_its_place_stops_the_run() {
    let place = place_with_programs(&matrix(8));
    stopped_by(&place, rewrite, "ringmark-server");
}

#[test]
fn a_server_that_may_not_be_executed_any_more_stops_the_run() {
    let place = place_with_programs(&matrix(8));
    let forbid =
        |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    assert_has(&stopped_by(&place, forbid, "ringmark-server"), &["may not be executed any more"]);
}

#[test]
fn another_ringmark_in_the_place_of_the_one_that_runs_stops_the_run() {
    let place = place_with_programs(&matrix(8));
    stopped_by(&place, replace, "ringmark");
    let refusal = failure(&mut command(&place, &["--resume", "out"]));
    assert_has(&refusal, &["ringmark's program was "]);
}

#[test]
fn a_server_behind_a_command_tells_which_file_it_runs() {
    let place = place_with_programs(&matrix(8));
    let line = stopped_with(&place, &["--server-command", "env"], replace, "ringmark-server");
    assert_has(&line, &["the server's program ringmark-server was replaced", "on its side"]);
}

#[test]
fn a_copy_that_holds_the_same_stops_nothing() {
    let place = place_with_programs(&matrix(3));
    let mut command = command(&place, &["matrix.toml", "--out", "out"]);
    let running = Running::start(&mut command);
    wait_until("a third row", || place.rows_so_far() >= 3);
    fs::copy(place.path("ringmark-server"), place.path("copy")).unwrap();
    fs::rename(place.path("copy"), place.path("ringmark-server")).unwrap();
    let output = running.end();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(place.rows_so_far(), 6);
}

/// An echo server of a few lines, in a script that its command names.
const SCRIPT: &str = "\
import socket, sys, threading
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=64)
def serve(connection):
    while data := connection.recv(4096):
        connection.sendall(data)
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
";

#[test]
fn a_script_that_is_edited_stops_the_run_and_its_sum_is_in_the_manifest() {
    if Command::new("python3").arg("--version").output().is_err() {
        return;
    }
    let external = "[[external]]\nname = \"mine\"\ncommand = \
    [\"python3\", \"server.py\", \"{port}\"]\nready = \"port\"\n\
                    version = [\"python3\", \"--version\"]\n";
    let place = place_with_programs(&(matrix(8) + external));
    fs::write(place.path("server.py"), SCRIPT).unwrap();
    let put_back = kept(&place, "server.py");
    stopped_by(&place, rewrite, "server.py");
    let files = &place.manifest()["external_files"]["mine"];
    let names: Vec<_> =
        files.as_array().unwrap().iter().map(|file| file["file"].as_str().unwrap()).collect();
    assert!(names.contains(&"server.py") && names.contains(&"python3"), "{names:?}");
    assert!(files.as_array().unwrap().iter().all(|file| file["sha256"].is_string()), "{files}");
    assert_has(&failure(&mut command(&place, &["--resume", "out"])), &["server.py of mine was "]);
    put_back();
    let mut command = command(&place, &["--resume", "out"]);
    let running = Running::start(&mut command);
    let before = place.rows_so_far();
    wait_until("a row more", || place.rows_so_far() > before);
    drop(running);
}

#[test]
fn the_revision_is_that_of_the_programs_wherever_they_are_started() {
    let place = place_with_programs(&calls(&["epoll-et"]));
    // Without git, and without a compiler.
    let printed = stdout(&success(
        command(&place, &["matrix.toml", "--out", "out", "--full"]).env("PATH", "/nowhere"),
    ));
    let manifest = place.manifest();
    let expected = option_env!("RINGMARK_REVISION");
    assert_eq!(manifest["machine"]["git_revision"].as_str(), expected);
    assert_eq!(manifest["programs"]["server"]["revision"].as_str(), expected);
    assert!(manifest["machine"]["rustc"].is_string());
    assert!(!printed.contains("is of revision"), "{printed}");
    match expected {
        Some(revision) => assert_has(&printed, &[&format!("Source: revision {}", &revision[..12])]),
        None => assert_has(&printed, &["Source: revision unknown (built outside a git checkout"]),
    }
}
