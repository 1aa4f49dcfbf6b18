//! By the rules of a container's engine, as an unprivileged user: io_uring is refused, and the rest is measured.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::confined::{Commons, confine, drop_capability};
use crate::{assert_has, assert_reasons, slabs_are_readable, stdout, success};

/// The number of CAP_SYS_ADMIN (capability.h).
const CAP_SYS_ADMIN: libc::c_ulong = 21;

fn smoke() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("matrix/smoke.toml")).unwrap()
}

#[test]
fn a_container_measures_what_it_may() {
    let commons = Commons::with(&smoke());
    let mut command = commons.confined("ringmark");
    let printed = stdout(&success(command.args(["run", "matrix.toml", "--out", "out"])));
    assert_has(
        &printed,
        &["and so `unsupported`: uring-multishot\n", "seccomp=unconfined", "The results are in out"],
    );

    let rows = commons.place.rows("trials.csv");
    assert_reasons(&rows);
    for pass in ["syscalls", "latency"] {
        for arm in ["epoll-document", "epoll-et"] {
            let is_one = |row: &&crate::Row| row["pass"] == pass && row["arm"] == arm;
            let all: Vec<_> = rows.iter().filter(is_one).collect();
            assert!(!all.is_empty(), "{pass} {arm}");
            assert!(all.iter().all(|row| !["unsupported", "failed"].contains(&&*row["status"])), "{all:?}");
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
    assert!(!calls.is_empty() && calls.iter().all(|row| row["source"] == "self-reported"), "{calls:?}");
    // The kernel's objects are for root only; the server's own pages are for who started it.
    let objects: Vec<_> =
        commons.place.rows("memory.csv").into_iter().map(|row| row["object"].clone()).collect();
    assert!(!objects.is_empty());
    println!("{objects:?} {}", slabs_are_readable());
    let manifest = commons.place.manifest();
    assert!(!manifest["finished_utc"].is_null());
}

#[test]
fn doctor_and_the_list_of_backends_say_what_a_container_refuses() {
    let commons = Commons::with("");
    let mut command = commons.confined("ringmark");
    let said: Value = serde_json::from_str(&stdout(&success(command.args(["doctor", "--json"])))).unwrap();
    assert!(said["impossible"].is_null(), "{said:#}");
    let line = |name: &str| -> String {
        let lines = said["lines"].as_array().unwrap();
        lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("no {name}")).to_string()
    };
    assert_has(
        &line("io_uring backends"),
        &["0 of 6 run here", "EPERM", "--security-opt seccomp=unconfined"],
    );
    assert_has(&line("seccomp"), &["refuses io_uring, unshare"]);
    assert_has(&line("open files"), &["limits results", "share"]);

    let mut command = commons.confined("ringmark-server");
    let listed: Value = serde_json::from_str(&stdout(&success(command.args(["--list", "--json"])))).unwrap();
    for backend in listed.as_array().unwrap() {
        assert_eq!(backend["supported"], backend["needs"]["default_container"], "{backend:#}");
    }
}

#[test]
fn root_without_its_capability_hears_of_that() {
    if !crate::confined::is_root() {
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
