//! `ringmark doctor` against what the kernel says elsewhere, and what `ringmark run` makes of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::confine::limit_open_files;
use crate::programs::{RINGMARK, server};
use crate::refused_ring::refuse_io_uring;
use crate::{FOUR_CONNECTIONS, LATENCY, Place, assert_has, failure, heading, stdout, success};

fn setting(name: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(name.replace('.', "/"))).ok()?;
    Some(text.trim().to_owned())
}

#[test]
fn it_agrees_with_the_kernel_and_the_server() {
    let place = Place::with("");
    let mut command = place.command("doctor");
    limit_open_files(command.arg("--json"), 4321);
    let said: Value = serde_json::from_str(&stdout(&success(&mut command))).unwrap();
    assert!(said["impossible"].is_null());
    let line = |name: &str| {
        let lines = said["lines"].as_array().unwrap();
        lines
            .iter()
            .find(|line| line["name"] == name)
            .unwrap_or_else(|| panic!("no {name} in {said:#}"))
    };
    let found = |name: &str| line(name)["found"].as_str().unwrap();
    for line in said["lines"].as_array().unwrap() {
        let is_ok = line["status"] == "ok";
        assert!(
            is_ok || ["limits results", "missing"].contains(&line["status"].as_str().unwrap()),
            "{line}"
        );
        assert!(line["cost"].is_null() == is_ok && line["advice"].is_null() == is_ok, "{line}");
    }

    assert_eq!(found("kernel"), setting("kernel.osrelease").unwrap());
    assert_eq!(line("open files")["status"], "limits results");
    assert_has(found("open files"), &["4,321"]);
    assert_has(line("open files")["cost"].as_str().unwrap(), &["4,257 connections"]);
    match setting("kernel.io_uring_disabled") {
        Some(value) => assert_has(found("io_uring_disabled"), &[&format!("{value}: ")]),
        None => assert_has(found("io_uring_disabled"), &["no such setting"]),
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).unwrap().trim();
    assert_eq!(found("seccomp") == "no filter", mode == "0");
    let cpus = std::thread::available_parallelism().unwrap().get();
    assert!(cpus >= 3 || line("CPUs")["status"] == "limits results", "{said:#}");

    let listed = Command::new(server()).args(["--list", "--json"]).output().unwrap();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let is_uring = |entry: &&Value| entry["name"].as_str().unwrap().starts_with("uring-");
    let all = listed["backends"].as_array().unwrap().iter().filter(is_uring).count();
    let supported = listed["backends"]
        .as_array()
        .unwrap()
        .iter()
        .filter(is_uring)
        .filter(|entry| entry["supported"] == true);
    let expected = match supported.count() {
        count if count == all => format!("all {all} run here"),
        count => format!("{count} of {all} run here"),
    };
    assert_eq!(found("io_uring backends"), expected);
}

#[test]
fn a_refused_ring_is_missing_and_the_screen_says_why() {
    let place = Place::with("");
    let mut command = place.command("doctor");
    refuse_io_uring(&mut command);
    let screen = stdout(&success(&mut command));
    assert_has(
        &screen,
        &["io_uring backends  missing", "io_uring_setup: EPERM", "it may refuse io_uring"],
    );
    assert!(screen.lines().all(|line| line.chars().count() <= 100), "{screen}");
}

#[test]
fn a_run_that_cannot_work_is_refused_before_anything_is_written() {
    let all = |connections: &str, backend: &str| {
        let workload = FOUR_CONNECTIONS.replace("connections = 4", connections);
        Place::with(&format!("{}{LATENCY}{workload}", heading(&[backend])))
    };
    let place = all("connections = 1000", "epoll-et");
    let mut command = place.run();
    limit_open_files(&mut command, 500);
    assert_has(
        &failure(&mut command),
        &["workload 'four': 1,000 connections", "RLIMIT_NOFILE 500"],
    );
    assert!(!place.out().exists());

    let place = all("connections = 4", "uring-multishot");
    let mut command = place.run();
    refuse_io_uring(&mut command);
    assert_has(
        &failure(&mut command),
        &["no backend of this matrix runs here", "io_uring_setup: EPERM"],
    );
    assert!(!place.out().exists());
}

#[test]
fn hyperthreads_of_one_core_are_said_and_get_no_verdict() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    let matrix = format!("{}{LATENCY}{FOUR_CONNECTIONS}", heading(&["epoll-et", "epoll-lt"]));
    let place = Place::with(&matrix);
    fs::write(place.path("siblings"), "0-1\n").unwrap();
    let list =
        |cpu: usize| format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    let script = format!(
        "mount --bind siblings {} && mount --bind siblings {} && exec taskset -c 0,1 \"$@\"",
        list(0),
        list(1)
    );
    let inside = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .current_dir(place.path(""))
            .args(["--mount", "sh", "-c", &script, "sh"])
            .args(arguments);
        command
    };
    if cpus < 2 || !inside(&["true"]).output().is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: it needs root, unshare, taskset, and CPUs 0 and 1");
    }
    let screen = stdout(&success(&mut inside(&[RINGMARK, "doctor"])));
    assert_has(&screen, &["2 on one core: hyperthreads", "`shared-core`, no verdict"]);

    let output =
        inside(&[RINGMARK, "run", "matrix.toml", "--out", "out", "--full"]).output().unwrap();
    let printed = stdout(&output);
    assert_has(
        &printed,
        &["CPUs: 2 on one core", "(hyperthreads of one core: no verdict on what takes time)"],
    );
    let manifest = place.manifest();
    assert_eq!(manifest["placement"]["shared_core"], true);
    assert_eq!(manifest["placement"]["shared_cpu"], false);
    assert_eq!(manifest["machine"]["topology"]["cores"], serde_json::json!(["0-1"]));
    let rows = place.rows("trials.csv");
    assert!(!rows.is_empty() && rows.iter().all(|row| row["shared_core"] == "true"), "{rows:?}");
    for row in place.rows("comparisons.csv") {
        assert_eq!(row["verdict"], "shared-core, no verdict", "{row:?}");
    }
}
