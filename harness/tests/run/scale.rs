//! Walks through connection counts over several tables of files, on both sides: what the million
//! does, smaller.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Place, Row, heading, slabs_are_readable, stderr, stdout, success};

/// Of which a worker needs some for itself: 2,000 connections take four workers, and as many
/// threads of the load.
const OPEN_FILES: u64 = 600;

const SCALE: &str = "
ports = 4

[scale]
question = \"q\"
connections = [400, 2000]
active = 40
active_shares = [0.1]
message_bytes = 64
rate_per_s = 2000.0
repeats = 2
duration = \"200ms\"
warmup_max = \"50ms\"
";

const MEMORY: &str = "
[memory]
question = \"q\"
connections = [500, 1000, 1500, 2000]
message_bytes = 64
active = [200, 400]
";

/// Runs it with so few files.
pub fn limited(command: &mut Command, files: u64) -> &mut Command {
    let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
    // SAFETY: setrlimit reads the struct, which the closure owns, and is a single system call, safe
    // between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    }
}

fn number(row: &Row, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column}: {row:?}"))
}

#[test]
fn two_thousand_connections_over_four_tables_are_walked_loaded_and_all_alive() {
    let place = Place::with(&(heading(&["epoll-et", "epoll-document", "uring-multishot"]) + SCALE));
    let output = success(limited(&mut place.run(), OPEN_FILES));
    let trials = place.rows("trials.csv");
    assert_eq!(trials.len(), 4, "three arms and the floor");
    for trial in &trials {
        assert_eq!(
            (trial["pass"].as_str(), trial["status"].as_str()),
            ("scale", "ok"),
            "{}",
            trial["reason"]
        );
        assert_eq!((trial["connections"].as_str(), trial["workers"].as_str()), ("2000", "4"));
        assert!(number(trial, "connections_per_s") > 0.0);
    }
    let all = place.rows("scale.csv");
    for trial in &trials {
        let steps = |name: &str| -> Vec<&Row> {
            all.iter()
                .filter(|row| row["run_id"] == trial["run_id"] && row["step"] == name)
                .collect()
        };
        let count = |name| steps(name).len();
        assert_eq!((count("before"), count("rest"), count("after")), (1, 2, 1));
        let opened: Vec<_> = steps("open").iter().map(|row| row["connections"].clone()).collect();
        let stood = |row: &&Row| row["connections"].clone();
        let loads: Vec<_> = steps("load").iter().map(stood).collect();
        if trial["backend"] == "null" {
            assert_eq!(opened, ["400", "2000"]);
            assert_eq!((loads.len(), count("all")), (0, 0));
            continue;
        }
        // Two loads, twice, on two servers, with 40 active at each count, and with 200 at the
        // larger one.
        assert_eq!(loads, [vec!["400"; 8], vec!["2000"; 16]].concat());
        let in_turn: Vec<_> = steps("load").iter().map(|row| row["server"].clone()).collect();
        let of_one_active = [
            ["crowded", "alone"],
            ["crowded", "alone"],
            ["alone", "crowded"],
            ["alone", "crowded"],
        ]
        .concat();
        assert_eq!(in_turn, of_one_active.repeat(3));
        for load in steps("load") {
            assert!(
                number(load, "echoes") > 0.0 && number(load, "syscalls_per_echo") > 0.0,
                "{load:?}"
            );
        }
        // The crowd makes room for those that are active, and is whole in the end.
        assert_eq!(opened, ["400", "2000", "2000"]);
        let everyone = steps("all");
        let [everyone] = everyone[..] else { panic!("{everyone:?}") };
        assert_eq!(
            (everyone["echoes"].as_str(), everyone["connections"].as_str()),
            ("2000", "2000")
        );
        assert_eq!(steps("close").last().unwrap()["connections"], "0");
    }
    let text = stdout(&output);
    for words in [
        "Opening and closing ever more connections",
        "2,000 (200 active)",
        "with a crowd, over a second server's without one",
        "Nobody sends",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn memory_is_walked_over_four_tables_and_while_all_are_active() {
    let place =
        Place::with(&(heading(&["epoll-et"]) + SCALE.split("[scale]").next().unwrap() + MEMORY));
    if !slabs_are_readable() {
        return;
    }
    let output = limited(&mut place.run(), OPEN_FILES).output().unwrap();
    if stderr(&output).contains("no trial of 2 gave figures") {
        eprintln!("the memory of this machine did not come to rest: its slopes are not looked at");
        return;
    }
    assert!(output.status.success(), "{}", stderr(&output));
    let trials = place.rows("trials.csv");
    let is_restless =
        |trial: &Row| trial["reason"].contains("had not come to rest") && trial["status"] != "ok";
    if trials.iter().any(is_restless) {
        return;
    }
    // What other tests do meanwhile is in the kernel's objects too: only that they are there is
    // looked at.
    let (slopes, points) = (place.rows("memory.csv"), place.rows("memory_points.csv"));
    for (arm, state, counts) in [
        ("null", "never-used", "500 1000 1500 2000 2000 1500 1000 500"),
        ("epoll-et", "never-used", "500 1000 1500 2000 2000 1500 1000 500"),
        ("epoll-et", "used-then-idle", "500 1000 1500 2000 2000 1500 1000 500"),
        ("epoll-et", "active", "200 400"),
    ] {
        let is_of = |row: &&Row, object: &str| {
            (&*row["arm"], &*row["state"], &*row["object"]) == (arm, state, object)
        };
        for object in ["all kernel objects", "server's private pages", "used pages", "unexplained"]
        {
            assert_eq!(
                slopes.iter().filter(|row| is_of(row, object)).count(),
                1,
                "{arm} {state} {object}"
            );
        }
        let walked = points.iter().filter(|row| is_of(row, "used pages"));
        let walked: Vec<_> = walked.map(|row| row["connections"].as_str()).collect();
        assert_eq!(walked.join(" "), counts, "{arm} {state}");
    }
    for trial in trials {
        assert_eq!((trial["workers"].as_str(), trial["connections"].as_str()), ("4", "2000"));
    }
}

#[test]
fn what_the_machine_has_no_room_for_is_skipped_with_the_reason() {
    // Four workers hold 4 x 567 connections at most.
    let place = Place::with(&(heading(&["epoll-et"]) + &SCALE.replace("2000]", "9000]")));
    let output = success(limited(&mut place.run(), OPEN_FILES));
    for trial in place.rows("trials.csv") {
        assert_eq!((trial["status"].as_str(), trial["connections"].as_str()), ("ok", "2268"));
        assert!(
            trial["reason"].contains(
                "9000 connections skipped: there is room for 2268 by open files (RLIMIT_NOFILE 600"
            ),
            "{}",
            trial["reason"]
        );
    }
    drop(output);
    let fewer = Place::with(&(heading(&["epoll-et"]) + SCALE));
    success(limited(fewer.run().args(["--connections", "500"]), OPEN_FILES));
    assert!(fewer.rows("trials.csv").iter().all(|trial| trial["connections"] == "500"));
    let none = Place::with(&(heading(&["epoll-et"]) + crate::LATENCY + crate::FOUR_CONNECTIONS));
    let refused = none.run().args(["--connections", "500"]).output().unwrap();
    assert!(
        !refused.status.success() && stderr(&refused).contains("--connections"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn when_a_side_is_killed_the_steps_so_far_stay_and_the_run_fails() {
    for victim in ["ringmark-server", "ringmark load"] {
        let place = Place::with(&(heading(&["epoll-et"]) + &SCALE.replace("200ms", "2s")));
        let run = limited(&mut place.run(), OPEN_FILES).spawn().unwrap();
        let harness = run.id();
        let deadline = Instant::now() + Duration::from_secs(60);
        // Once the loads have begun: the steps before are there.
        let pid = loop {
            assert!(Instant::now() < deadline, "no {victim}");
            let (found, loads) = (child(harness, victim), children(harness, "ringmark load").len());
            if let (Some(pid), 2) = (found, loads) {
                break pid;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let all = children(harness, "ringmark-server")
            .into_iter()
            .chain(children(harness, "ringmark load"));
        let all: Vec<_> = all.collect();
        assert_eq!(all.len(), 4, "two servers and two loads");
        // SAFETY: takes no pointer; the process is a child of our own child, which has not reaped
        // it.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        let output = run.wait_with_output().unwrap();
        assert!(!output.status.success(), "{victim}");
        let left = all.into_iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists());
        assert_eq!(left.count(), 0, "{victim}: nothing is left");
        let trials = place.rows("trials.csv");
        let failed: Vec<_> = trials.iter().filter(|row| row["status"] == "failed").collect();
        assert!(failed.len() == 1 && failed[0]["backend"] == "epoll-et", "{victim}: {trials:?}");
        let steps = place.rows("scale.csv");
        assert!(
            steps.iter().any(|row| row["step"] == "open" && row["connections"] == "400"),
            "{steps:?}"
        );
    }
}

fn child(parent: u32, name: &str) -> Option<i32> {
    children(parent, name).first().copied()
}

/// The processes of that parent whose program, and first argument if one is given after a space,
/// are these.
fn children(parent: u32, name: &str) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let text =
            |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        // The name is in parentheses; state and parent follow it (proc_pid_stat(5)).
        let stat = text("stat");
        let is_child =
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok())
                == Some(parent);
        let line = text("cmdline");
        let mut arguments = line.split('\0');
        let program = arguments.next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let words = format!("{program} {}", arguments.next().unwrap_or_default());
        is_child && (words == name || program == name)
    })
    .collect()
}
