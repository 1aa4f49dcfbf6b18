//! A small matrix with every pass, and what it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::columns::assert_files;
use crate::confine::before_exec;
use crate::processes::Running;
use crate::{
    FOUR_CONNECTIONS, Place, Row, as_dealt, assert_has, assert_reasons, number, slabs_are_readable,
    stdout, success,
};

const BACKENDS: [&str; 3] = ["epoll-document", "epoll-et", "uring-multishot"];
const BASELINE: &str = "epoll-et";
const WORKLOADS: [(&str, &str); 3] = [("one", "1"), ("four", "4"), ("twenty", "20")];
const ECHOES: u64 = 100;
const BLOCKS: usize = 2;

/// A host name that stands in no file by chance.
const HOST_NAME: &str = "nobody-may-read-this-name";

fn matrix() -> String {
    let mut text = String::from(
        "question = \"Does every pass run?\"
        baseline = \"epoll-et\"
        backends = [
            { backend = \"epoll-document\" }, { backend = \"epoll-et\" }, { backend \
            = \"uring-multishot\" },
        ]
        [latency]
        blocks = 2
        duration = \"100ms\"
        warmup_max = \"100ms\"
        [syscalls]
        echoes = 100
        [memory]
        question = \"Do the memory readings work?\"
        connections = [32, 96]
        message_bytes = 64\n",
    );
    for (name, connections) in WORKLOADS {
        text += &format!(
            "[[workload]]\nname = \"{name}\"\nquestion = \"q\"\nconnections = \
            {connections}\nmessage_bytes = 64\n"
        );
    }
    text
}

/// Gives the command's process a host name of its own, where that is permitted.
fn rename_host(command: &mut Command) {
    // SAFETY: the calls read a constant, whose length is the one given.
    before_exec(command, || unsafe {
        if libc::unshare(libc::CLONE_NEWUTS) == 0 {
            libc::sethostname(HOST_NAME.as_ptr().cast(), HOST_NAME.len());
        }
        Ok(())
    });
}

#[test]
fn every_pass_leaves_its_files() {
    let place = Place::with(&matrix());
    let mut command = place.run();
    command.args(["--seed", "42"]);
    rename_host(&mut command);
    let output = success(&mut command);
    let trials = place.rows("trials.csv");
    let all = trials.len();
    // A busy machine costs trials, which are run again twice at most, and blocks, for which others
    // are run: one for each pass and workload at most. Those for memory are not among them.
    assert!((37..=4 + 3 * (33 + 3 * 3 + 3 * 4)).contains(&all), "{all}");
    assert_has(
        &stdout(&output),
        &[
            "37 trials, about",
            "System calls per echo",
            "io_uring events per echo",
            &format!("- Trials: {all}: "),
            "results are in out",
        ],
    );
    assert_reasons(&trials);
    let of_pass =
        |pass: &str| -> Vec<&Row> { trials.iter().filter(|row| row["pass"] == pass).collect() };
    let planned = |pass: &str, blocks: u32| {
        let is_planned = |row: &&&Row| row["block"].parse::<u32>().unwrap() <= blocks;
        let trials = of_pass(pass);
        let arms = trials
            .iter()
            .filter(is_planned)
            .map(|row| (&row["workload"], &row["block"], &row["arm"]));
        arms.collect::<BTreeSet<_>>().len()
    };
    assert_eq!(
        [("syscalls", 1), ("memory", 1), ("latency", 2)]
            .map(|(pass, blocks)| planned(pass, blocks)),
        [9, 4, 24]
    );

    check_manifest(&place, &trials);
    check_syscalls(&place, &of_pass("syscalls"));
    check_events(&place, &of_pass("syscalls"));
    check_memory(&place, &of_pass("memory"));
    check_latency(&place, &of_pass("latency"));
    check_comparisons(&place);
    check_files(&place.out());
}

fn check_manifest(place: &Place, trials: &[Row]) {
    let manifest = place.manifest();
    assert_eq!(manifest["seed"], 42);
    assert_eq!(manifest["matrix"]["baseline"], BASELINE);
    assert_eq!(manifest["matrix"]["latency"]["duration"], "100ms");
    assert!(manifest["machine"]["kernel_release"].is_string());
    let examined = manifest["doctor"].as_array().unwrap();
    assert_eq!(examined[0]["name"], "kernel");
    assert_eq!(examined[0]["found"], manifest["machine"]["kernel_release"]);
    assert!(
        manifest["finished_utc"].as_str().is_some_and(|time| time.ends_with('Z')),
        "{manifest}"
    );
    let order: Vec<&str> =
        manifest["order"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(order, as_dealt(trials));
}

/// The exact counts stand for one connection with one message in flight, where no two can share a
/// wait.
fn check_syscalls(place: &Place, trials: &[&Row]) {
    assert_eq!(arms_by_block(trials).len(), WORKLOADS.len());
    for (block, arms) in arms_by_block(trials) {
        assert_eq!(arms, BACKENDS, "{block:?}");
    }
    let all = place.rows("syscalls.csv");
    for trial in trials {
        assert_eq!(
            (trial["status"].as_str(), trial["echoes"].as_str()),
            ("ok", "100"),
            "{trial:?}"
        );
        assert_connections(trial);
        let source = trial["syscalls_source"].split([':', ',']).next().unwrap();
        let mut calls = BTreeMap::new();
        for row in all.iter().filter(|row| row["run_id"] == trial["run_id"]) {
            assert_eq!((&row["backend"], row["source"].as_str()), (&trial["backend"], source));
            let count: u64 = row["calls"].parse().unwrap();
            assert_eq!(number(row, "calls_per_echo"), count as f64 / ECHOES as f64);
            calls.insert(row["syscall"].as_str(), count);
        }
        let total = calls.values().sum::<u64>() as f64 / ECHOES as f64;
        assert_eq!(number(trial, "syscalls_per_echo"), total, "{calls:?}");
        if trial["workload"] != "one" {
            continue;
        }
        let waits = calls.remove("epoll_wait").unwrap_or_default();
        // A wait that ends by itself is not an echo's.
        let expected_waits = match trial["backend"].as_str() {
            "epoll-document" => 2 * ECHOES..=2 * ECHOES + 2,
            "epoll-et" => ECHOES..=ECHOES + 2,
            _ => 0..=0,
        };
        assert!(expected_waits.contains(&waits), "{waits}: {trial:?}");
        let expected: &[(&str, u64)] = match trial["backend"].as_str() {
            "epoll-document" => {
                &[("epoll_ctl", 4 * ECHOES), ("recvfrom", ECHOES), ("sendto", ECHOES)]
            }
            "epoll-et" => &[("recvfrom", ECHOES), ("sendto", ECHOES)],
            _ => &[("io_uring_enter", ECHOES)],
        };
        assert_eq!(calls.into_iter().collect::<Vec<_>>(), expected, "{trial:?}");
    }
}

/// With one message in flight a multishot receive completes once for each, and a send is submitted
/// for it that skips its completion. If a row lacks its count only because the kernel lacks a
/// tracepoint, the completions are those that the server took.
fn check_events(place: &Place, trials: &[&Row]) {
    let all = place.rows("events.csv");
    for trial in trials {
        let rows: Vec<&Row> = all.iter().filter(|row| row["run_id"] == trial["run_id"]).collect();
        assert_eq!(!rows.is_empty(), trial["backend"] == "uring-multishot", "{rows:?}");
        for row in rows {
            assert_eq!((&row["workload"], &row["arm"]), (&trial["workload"], &trial["arm"]));
            if row["count"].is_empty() {
                let has_none = row["source"].contains("this kernel has no");
                assert!(
                    has_none || trial["syscalls_source"].starts_with("self-reported"),
                    "{row:?}"
                );
                continue;
            }
            assert_eq!(row["source"], "tracepoints");
            let count: u64 = row["count"].parse().unwrap();
            assert_eq!(number(row, "count_per_echo"), count as f64 / ECHOES as f64);
            let expected = match row["event"].as_str() {
                "io_uring_submit_req" | "io_uring_complete" | "io_uring_file_get" => {
                    ECHOES..=ECHOES
                }
                // None is needed for a message that has come before the server looks for it.
                "io_uring_cqring_wait" => 0..=ECHOES,
                "io_uring_local_work_run" => 0..=u64::MAX,
                _ => 0..=0,
            };
            assert!(trial["workload"] != "one" || expected.contains(&count), "{row:?}");
        }
    }
}

fn check_memory(place: &Place, trials: &[&Row]) {
    let arms: Vec<_> = arms_by_block(trials).into_values().collect();
    assert_eq!(arms, [["epoll-document", "epoll-et", "null", "uring-multishot"]]);
    if !slabs_are_readable() {
        for trial in trials {
            assert_eq!(trial["status"], "failed");
            assert_has(&trial["reason"], &["kernel objects cannot be read"]);
        }
        return;
    }
    // Other programs may use memory all the time: then there is a reason, and no figure.
    let is_restless = |trial: &Row| {
        trial["status"] == "rejected" && trial["reason"].contains("had not come to rest")
    };
    for trial in trials.iter().filter(|trial| !is_restless(trial)) {
        assert_eq!(
            (trial["status"].as_str(), trial["connections"].as_str()),
            ("ok", "96"),
            "{trial:?}"
        );
    }
    if trials.iter().any(|trial| is_restless(trial)) {
        eprintln!("the memory of this machine did not come to rest: its slopes are not looked at");
        return;
    }
    let slopes = place.rows("memory.csv");
    let points = place.rows("memory_points.csv");
    let find = |backend: &str, object: &str| {
        let wanted = |row: &&Row| {
            row["backend"] == backend && row["object"] == object && row["state"] == "never-used"
        };
        slopes.iter().find(wanted).unwrap_or_else(|| panic!("no {object} of {backend}"))
    };
    find("epoll-document", "eventpoll_epi");
    find("epoll-et", "eventpoll_epi");
    find("uring-multishot", "io_kiocb");
    for row in &slopes {
        let floor = slopes.iter().find(|floor| {
            let same = |column: &str| floor[column] == row[column];
            floor["backend"] == "null" && same("space") && same("object")
        });
        let floor = floor.map_or(0.0, |floor| number(floor, "bytes_per_connection"));
        let over = number(row, "over_null_bytes_per_connection");
        assert!((over - (number(row, "bytes_per_connection") - floor)).abs() < 1e-6, "{row:?}");
        // The walk, of which the slope is of the way up.
        let columns = ["run_id", "state", "space", "object"];
        let walk: Vec<(&str, &str)> = points
            .iter()
            .filter(|point| columns.iter().all(|&column| point[column] == row[column]))
            .map(|point| (point["direction"].as_str(), point["connections"].as_str()))
            .collect();
        let (up, down) = ("up", "down");
        assert_eq!(walk, [(up, "32"), (up, "96"), (down, "96"), (down, "32")], "{row:?}");
    }
    for backend in BACKENDS {
        for sum in ["all kernel objects", "server's private pages", "MemAvailable"] {
            find(backend, sum);
        }
        assert!(
            slopes.iter().any(|row| row["backend"] == backend && row["state"] == "used-then-idle")
        );
    }
}

fn check_latency(place: &Place, trials: &[&Row]) {
    let blocks = arms_by_block(trials);
    assert!((BLOCKS * WORKLOADS.len()..=(BLOCKS + 1) * WORKLOADS.len()).contains(&blocks.len()));
    for (block, arms) in blocks {
        assert_eq!(
            arms,
            ["epoll-document", "epoll-et", "epoll-et (again)", "uring-multishot"],
            "{block:?}"
        );
    }
    let mut histograms: Vec<String> = fs::read_dir(place.out().join("histograms"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    histograms.sort();
    assert_eq!(histograms.len(), trials.len());
    for (trial, histogram) in trials.iter().zip(histograms) {
        // A busy machine makes the gates reject; the trial must have come to its end all the same.
        assert!(
            ["ok", "client-limited", "rejected"].contains(&trial["status"].as_str()),
            "{trial:?}"
        );
        assert_connections(trial);
        assert!(histogram.starts_with(&format!("{:04}-", trial["run_id"].parse::<u32>().unwrap())));
        assert!(fs::metadata(place.out().join("histograms").join(histogram)).unwrap().len() > 0);
        assert!(number(trial, "duration_s") > 0.0);
        if number(trial, "echoes") == 0.0 {
            assert_eq!(trial["status"], "rejected", "nothing was measured: {trial:?}");
            continue;
        }
        for column in ["achieved_per_s", "server_cpu_ns_per_echo", "client_cpu_ns_per_echo"] {
            assert!(number(trial, column) >= 0.0, "{column}: {trial:?}");
        }
    }
}

fn check_comparisons(place: &Place) {
    let comparisons = place.rows("comparisons.csv");
    let counted = comparisons.iter().filter(|row| row["verdict"] == "counted").count();
    assert_eq!(counted, WORKLOADS.len() * (BACKENDS.len() - 1));
    for row in &comparisons {
        assert_eq!(row["baseline"], BASELINE);
        assert!(number(row, "ratio").is_finite(), "{row:?}");
        assert!(!row["verdict"].is_empty());
        assert!(
            !["lower", "higher"].iter().any(|word| row["verdict"].contains(word)),
            "two blocks: {row:?}"
        );
    }
}

fn check_files(folder: &Path) {
    let mut with_rows = vec!["comparisons.csv", "events.csv", "syscalls.csv", "trials.csv"];
    if slabs_are_readable() {
        with_rows.extend(["memory.csv", "memory_points.csv"]);
    }
    assert_files(folder, &with_rows);
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_file() {
            assert!(!fs::read_to_string(&path).unwrap().contains(HOST_NAME), "{}", path.display());
        }
    }
}

#[test]
fn one_backend_runs_as_several_arms_and_the_ladder_sets_them_beside_each_other() {
    let matrix = format!(
        "question = \"q\"\nbaseline = \"epoll-et\"\nbackends = [\n\
         {{ backend = \"epoll-et\", changes = \"is the first\" }},\n\
         {{ backend = \"epoll-et\", set = [\"receive_bytes=64\"], over = \"epoll-et\", changes \
         = \"reads less\" }},\n\
         ]\n[syscalls]\nechoes = 100\n{}",
        FOUR_CONNECTIONS.replace("message_bytes = 64", "message_bytes = 128")
    );
    let place = Place::with(&matrix);
    let printed = stdout(&success(&mut place.run()));
    let narrow = "epoll-et receive_bytes=64";
    assert_has(&printed, &[&format!("| {narrow} | epoll-et | reads less "), "calls/echo, four"]);

    let trials = place.rows("trials.csv");
    assert_eq!(trials.len(), 2);
    let calls = place.rows("syscalls.csv");
    // Two full receives, after which a third tells that there is no more.
    for (arm, bytes, receives) in [("epoll-et", "65536", 1.0..=1.0), (narrow, "64", 2.0..=3.0)] {
        let trial = trials.iter().find(|row| row["arm"] == arm).unwrap();
        assert_eq!((trial["backend"].as_str(), trial["status"].as_str()), ("epoll-et", "ok"));
        assert_has(&trial["knobs"], &[&format!("\"receive_bytes\":{bytes}")]);
        let of_arm = |row: &&Row| row["arm"] == arm && row["syscall"] == "recvfrom";
        let received = calls.iter().find(of_arm).unwrap();
        assert_eq!(received["run_id"], trial["run_id"]);
        assert!(receives.contains(&number(received, "calls_per_echo")), "{received:?}");
    }
    let comparisons = place.rows("comparisons.csv");
    assert_eq!(comparisons.len(), 1);
    let keys = ["arm", "backend", "baseline", "bounds", "verdict"]
        .map(|column| comparisons[0][column].as_str());
    assert_eq!(keys, [narrow, "epoll-et", "epoll-et", "range", "counted"]);
}

#[test]
fn an_arm_that_cannot_hold_the_connections_is_unsupported_and_takes_no_block_out() {
    let many =
        FOUR_CONNECTIONS.replace("connections = 4", "connections = 1100").replace("four", "many");
    let heading = crate::heading(&["epoll-et", "epoll-document", "select"]);
    let place =
        Place::with(&format!("{heading}[syscalls]\nechoes = 1100\n{FOUR_CONNECTIONS}{many}"));
    let printed = stdout(&success(&mut place.run()));
    assert_has(
        &printed,
        &["- `select` has no figures in many: unsupported: a worker holds 1024 descriptors at \
             most"],
    );
    let trials = place.rows("trials.csv");
    assert_eq!(trials.len(), 6, "no block is run again for it");
    for row in &trials {
        let is_too_many = row["arm"] == "select" && row["workload"] == "many";
        assert_eq!(row["status"], if is_too_many { "unsupported" } else { "ok" }, "{row:?}");
    }
    let compared: Vec<_> = place
        .rows("comparisons.csv")
        .into_iter()
        .map(|row| [row["workload"].clone(), row["arm"].clone()].join(" "))
        .collect();
    assert_eq!(compared, ["four epoll-document", "four select", "many epoll-document"]);
}

#[test]
fn the_seed_repeats_the_order() {
    let matrix = format!(
        "{}[latency]\nblocks = 5\nduration = \"20ms\"\nwarmup_max = \"0s\"\n{FOUR_CONNECTIONS}",
        crate::heading(&["epoll-et"])
    );
    let runs = ["7", "7", "8"].map(|seed| {
        let place = Place::with(&matrix);
        let running = Running::start(place.run().args(["--seed", seed]));
        (place, running)
    });
    let [first, same, other] = runs.map(|(place, running)| {
        // A machine so busy that the gates reject every trial makes the run fail, at its end.
        let output = running.end();
        let manifest = place.manifest();
        assert!(manifest["finished_utc"].is_string(), "{output:?}");
        // Without the numbers, the trials that were run again, and blocks in place of those that
        // were lost.
        let order = manifest["order"].as_array().unwrap().iter();
        let mut dealt: Vec<String> = Vec::new();
        for line in order.map(|line| line.as_str().unwrap().split_once(' ').unwrap().1.to_owned()) {
            if !dealt.contains(&line) {
                dealt.push(line);
            }
        }
        dealt[..10].to_vec()
    });
    assert_eq!(same, first);
    // Five coins: another seed gives another order, and this one is known to.
    assert_ne!(other, first);
}

/// The arms of each workload's block, sorted; the order column counts them.
fn arms_by_block<'a>(trials: &[&'a Row]) -> BTreeMap<(&'a str, &'a str), Vec<&'a str>> {
    let mut blocks: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for row in trials {
        let arms = blocks.entry((row["workload"].as_str(), row["block"].as_str())).or_default();
        arms.push(&row["arm"]);
        assert_eq!(row["order"], arms.len().to_string());
        assert_eq!(row["arm"].trim_end_matches(" (again)"), row["backend"]);
    }
    for arms in blocks.values_mut() {
        arms.sort_unstable();
        // One that was turned away is run again.
        arms.dedup();
    }
    blocks
}

#[track_caller]
fn assert_connections(trial: &Row) {
    let (_, connections) =
        WORKLOADS.into_iter().find(|(name, _)| trial["workload"] == *name).unwrap();
    assert_eq!(trial["connections"], connections);
    assert_eq!(trial["active_connections"], connections);
}
