//! By the rules of a container's engine, as an unprivileged user: io_uring is refused, and the rest
//! is measured.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::confine::{CAP_SYS_ADMIN, become_user, drop_capability, is_root, limit_locked_memory};
use crate::confined::{Commons, confine};
use crate::{assert_has, assert_reasons, stdout, success};

fn smoke() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("matrix/smoke.toml")).unwrap()
}

#[test]
fn a_container_measures_what_it_may() {
    let commons = Commons::with(&smoke());
    let mut command = commons.confined("ringmark");
    let printed = stdout(&success(command.args(["run", "matrix.toml", "--out", "out", "--full"])));
    assert_has(
        &printed,
        &[
            "and so `unsupported`: uring-multishot\n",
            "seccomp=unconfined",
            "The results are in out",
        ],
    );

    let rows = commons.place.rows("trials.csv");
    assert_reasons(&rows);
    for pass in ["syscalls", "latency"] {
        for arm in ["epoll-document", "epoll-et"] {
            let is_one = |row: &&crate::Row| row["pass"] == pass && row["arm"] == arm;
            let all: Vec<_> = rows.iter().filter(is_one).collect();
            assert!(!all.is_empty(), "{pass} {arm}");
            assert!(
                all.iter().all(|row| !["unsupported", "failed"].contains(&&*row["status"])),
                "{all:?}"
            );
        }
    }
    for row in rows.iter().filter(|row| row["backend"] == "uring-multishot") {
        assert_eq!(row["status"], "unsupported", "{row:?}");
        assert_has(
            &row["reason"],
            &["io_uring_setup: EPERM", "seccomp", "--security-opt seccomp=unconfined"],
        );
    }
    let calls = commons.place.rows("syscalls.csv");
    assert!(
        !calls.is_empty() && calls.iter().all(|row| row["source"] == "self-reported"),
        "{calls:?}"
    );
    // The kernel's objects are for root only; the server's own pages are for who started it.
    let memory = commons.place.rows("memory.csv");
    let is_own =
        |row: &crate::Row| row["object"] == "server's private pages" && row["arm"] == "epoll-et";
    assert!(memory.iter().any(is_own), "{memory:?}");
    let manifest = commons.place.manifest();
    assert!(!manifest["finished_utc"].is_null());
}

#[test]
fn doctor_and_the_list_of_backends_say_what_a_container_refuses() {
    let commons = Commons::with("");
    let mut command = commons.confined("ringmark");
    let said: Value =
        serde_json::from_str(&stdout(&success(command.args(["doctor", "--json"])))).unwrap();
    assert!(said["impossible"].is_null(), "{said:#}");
    let line = |name: &str| -> String {
        let lines = said["lines"].as_array().unwrap();
        lines
            .iter()
            .find(|line| line["name"] == name)
            .unwrap_or_else(|| panic!("no {name}"))
            .to_string()
    };
    assert_has(
        &line("io_uring backends"),
        &["0 of 6 run here", "EPERM", "--security-opt seccomp=unconfined"],
    );
    assert_has(&line("seccomp"), &["refuse io_uring, unshare"]);
    assert_has(&line("open files"), &["limits results", "share"]);

    let mut command = commons.confined("ringmark-server");
    let listed: Value =
        serde_json::from_str(&stdout(&success(command.args(["--list", "--json"])))).unwrap();
    for backend in listed["backends"].as_array().unwrap() {
        assert_eq!(backend["supported"], backend["needs"]["default_container"], "{backend:#}");
    }
}

#[test]
fn root_without_its_capability_hears_of_that() {
    if !is_root() {
        return eprintln!("skipped: only root can have a capability less");
    }
    let commons = Commons::with("");
    let mut command = commons.command("ringmark");
    drop_capability(&mut command, CAP_SYS_ADMIN);
    confine(&mut command);
    let screen = stdout(&success(command.arg("doctor")));
    assert_has(&screen, &["CAP_SYS_ADMIN", "--cap-add"]);
    assert!(!screen.contains("run as root"), "{screen}");
}

#[test]
fn where_the_machines_cpu_is_masked_the_rest_is_measured() {
    const MASKED: &str = "mount --bind /dev/null /proc/stat && exec \"$@\"";
    let can_mask = Command::new("unshare").args(["-m", "sh", "-c", MASKED, "sh", "true"]).output();
    if !can_mask.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: it takes root and unshare(1) to mask /proc/stat");
    }
    let commons = Commons::with(
        "question = \"q\"\nbaseline = \"epoll-et\"\nbackends = [{ backend = \"epoll-et\" }]\n\
         [latency]\nblocks = 1\nduration = \"100ms\"\nwarmup_max = \"100ms\"\n\
         [[workload]]\nname = \"w\"\nquestion = \"q\"\nconnections = 1\nmessage_bytes = 64\n",
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", MASKED, "sh"]).arg(commons.place.path("ringmark"));
    command
        .args(["run", "matrix.toml", "--out", "out", "--full"])
        .current_dir(commons.place.path(""));
    command.output().unwrap();
    let rows = commons.place.rows("trials.csv");
    assert!(!rows.is_empty());
    for row in rows {
        assert_ne!(row["status"], "failed", "{row:?}");
        assert_eq!(row["steal_percent"], "", "{row:?}");
        if row["status"] != "rejected" {
            assert_has(
                &row["reason"],
                &["the machine's CPU and the hypervisor's share are not known: "],
            );
        }
    }
}

/// A user that has no other process: what a user locks is counted over all of them.
fn user() -> u32 {
    1_000_000 + std::process::id()
}

/// Whether a server with so many workers starts.
fn starts(commons: &Commons, workers: u32, locked_bytes: u64) -> bool {
    let mut command = commons.command("ringmark-server");
    command.args([
        "--backend=uring-multishot",
        "--listen=127.0.0.1:0",
        &format!("--workers={workers}"),
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    limit_locked_memory(&mut command, locked_bytes);
    become_user(&mut command, user());
    let mut server = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _ = server.kill();
    let _ = server.wait();
    line.contains("\"ready\"")
}

#[test]
fn doctor_says_for_how_many_workers_memory_may_be_locked() {
    if !is_root() {
        return eprintln!("skipped: it needs a user whose rings are the test's alone");
    }
    const LIMIT: u64 = 512 << 10;
    let commons = Commons::with("");
    let mut command = commons.command("ringmark");
    limit_locked_memory(&mut command, LIMIT);
    become_user(&mut command, user());
    let said: Value =
        serde_json::from_str(&stdout(&success(command.args(["doctor", "--json"])))).unwrap();
    let lines = said["lines"].as_array().unwrap();
    let line = lines.iter().find(|line| line["name"] == "locked memory").unwrap();
    if line["status"] == "ok" {
        return eprintln!("skipped: this kernel does not count rings");
    }
    assert_has(
        line["found"].as_str().unwrap(),
        &["512 KiB for all rings of this user: 4 workers of 116 KiB"],
    );
    // A ring is given back a little after it is closed: doctor's, and the one by which the server
    // asks the kernel.
    let patiently = || {
        std::thread::sleep(Duration::from_millis(100));
        starts(&commons, 3, LIMIT)
    };
    assert!((0..30).any(|_| patiently()));
    assert!(!starts(&commons, 5, LIMIT));
}
