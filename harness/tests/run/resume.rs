//! A run that was killed goes on to where it would have come, and a run is repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::columns::assert_files;
use crate::processes::{Process, Running, children_of, wait_until};
use crate::programs::server;
use crate::{
    FOUR_CONNECTIONS, INTERRUPTED, Place, as_dealt, assert_has, calls, ended_with, failure,
    manifest, number, stderr, stdout, success,
};

/// Backends of three trials that count calls.
const THREE: [&str; 3] = ["epoll-et", "epoll-lt", "poll"];

/// The variable that repeats the random moments of an earlier test.
const SEED: &str = "RINGMARK_TEST_SEED";

/// Every pass: two trials that count calls, three of memory, and two blocks of three that are
/// timed, in this order.
const PLANNED: usize = 2 + 3 + 2 * 3;

fn all_passes() -> String {
    format!(
        "{}[latency]\nblocks = 2\nduration = \"150ms\"\nwarmup_max = \"50ms\"\n\
         [memory]\nquestion = \"q\"\nconnections = [8, 16]\nmessage_bytes = 64\n",
        calls(&["epoll-et", "epoll-lt"])
    )
}

fn order(manifest: &Value) -> Vec<&str> {
    manifest["order"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// A run of [`THREE`] that was killed with one trial finished, and another within its line.
fn killed() -> Place {
    static RUN: OnceLock<crate::Files> = OnceLock::new();
    Place::copied_from(&RUN, || {
        let place = Place::with(&calls(&THREE));
        let running = Running::start(place.run().args(["--seed", "5"]));
        let journal = place.out().join("trials.jsonl");
        let text = || fs::read_to_string(&journal).unwrap_or_default();
        wait_until("a trial", || text().contains('\n'));
        kill(running);
        let first = text().lines().next().unwrap().to_owned();
        fs::write(&journal, format!("{first}\n{}", &first[..20])).unwrap();
        place
    })
}

/// Ends a run without a warning, and waits for the end of its children.
fn kill(running: Running) {
    let children = children_of(running.pid());
    running.signal(libc::SIGKILL);
    assert_eq!(stderr(&running.end()), "");
    wait_until("the end of its children", || !children.iter().any(Process::runs));
}

fn change_manifest(place: &Place, change: impl FnOnce(&mut Value)) {
    let mut manifest = place.manifest();
    change(&mut manifest);
    fs::write(place.out().join("manifest.json"), manifest.to_string()).unwrap();
}

/// All planned trials have one row each, and each row has its others once.
fn assert_whole(place: &Place) {
    let trials = place.rows("trials.csv");
    let manifest = place.manifest();
    assert_eq!(order(&manifest), as_dealt(&trials));
    let ids: Vec<_> = trials.iter().map(|row| row["run_id"].clone()).collect();
    assert_eq!(ids, (1..=trials.len()).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(manifest["finished_utc"].is_string());

    let calls = place.rows("syscalls.csv");
    for trial in trials.iter().filter(|row| row["pass"] == "syscalls") {
        assert_eq!(trial["status"], "ok", "{trial:?}");
        let of_trial = calls.iter().filter(|row| row["run_id"] == trial["run_id"]);
        let sum: f64 = of_trial.map(|row| number(row, "calls")).sum();
        assert_eq!(sum / number(trial, "echoes"), number(trial, "syscalls_per_echo"), "{trial:?}");
    }
    let keys = |file: &str, columns: &[&str]| {
        let rows = place.rows(file);
        let keys: BTreeSet<Vec<String>> = rows
            .iter()
            .map(|row| columns.iter().map(|&column| row[column].clone()).collect())
            .collect();
        assert_eq!(keys.len(), rows.len(), "{file} has a row twice");
        assert!(rows.iter().all(|row| ids.contains(&row["run_id"])));
    };
    keys("syscalls.csv", &["run_id", "syscall"]);
    keys("memory.csv", &["run_id", "state", "space", "object"]);
    keys("memory_points.csv", &["run_id", "state", "space", "object", "direction", "connections"]);

    let histograms: Vec<String> = names(&place.out().join("histograms")).into_iter().collect();
    let timed: Vec<_> = trials.iter().filter(|row| row["pass"] == "latency").collect();
    assert_eq!(histograms.len(), timed.len());
    for (histogram, trial) in histograms.iter().zip(timed) {
        assert!(histogram.starts_with(&format!("{:0>4}-", trial["run_id"])), "{histogram}");
    }
    assert_files(&place.out(), &["comparisons.csv", "syscalls.csv", "trials.csv"]);
}

/// Each trial of [`all_passes`] has one row, unless the machine was too busy and it was run again.
fn assert_planned(place: &Place) {
    let mut statuses: BTreeMap<[String; 4], Vec<String>> = BTreeMap::new();
    for row in place.rows("trials.csv") {
        let key = ["pass", "workload", "block", "arm"].map(|column| row[column].clone());
        statuses.entry(key).or_default().push(row["status"].clone());
    }
    // Another block takes the place of a lost one.
    let is_planned = |[pass, _, block, _]: &&[String; 4]| {
        block.parse::<u32>().unwrap() <= if pass == "latency" { 2 } else { 1 }
    };
    assert_eq!(statuses.keys().filter(is_planned).count(), PLANNED, "{statuses:?}");
    for (key, statuses) in statuses {
        let (_, before) = statuses.split_last().unwrap();
        assert!(before.iter().all(|status| status == "rejected"), "{key:?}: {statuses:?}");
    }
}

/// Kills a run once it has so many rows, and some time after that; returns those that have come to
/// their end.
fn killed_after(rows: usize, delay: Duration, place: &Place, command: &mut Command) -> Vec<String> {
    let resumed = |manifest: &Value| manifest["resumed"].as_array().map_or(0, Vec::len);
    let has_manifest = place.out().join("manifest.json").exists();
    let lives = if has_manifest { resumed(&place.manifest()) + 1 } else { 0 };
    let mut running = Running::start(command);
    wait_until("the manifest and the rows", || {
        let is_there = place.out().join("manifest.json").exists();
        running.has_ended()
            || is_there && resumed(&place.manifest()) == lives && place.rows_so_far() >= rows
    });
    sleep(delay);
    assert!(!running.has_ended(), "it ended before it was killed");
    kill(running);
    place.trials_so_far()
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been() {
    let given = std::env::var(SEED).ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
    println!("the moments are those of {SEED}={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let place = Place::with(&all_passes());
    let mut before = Vec::new();
    let mut command = place.run();
    command.args(["--seed", "11"]);
    let mut kills = 0;
    // The last five trials take longer than any delay, so that no life comes to its end.
    while kills < 4 && place.rows_so_far() <= PLANNED - 5 {
        let there = place.rows_so_far();
        // The first time before the first row, then after one more at least, so that there is an
        // end.
        let rows = there + random.random_range(kills.min(1)..=kills.min(3));
        let rows = rows.min(PLANNED - 5);
        let delay = Duration::from_millis(random.random_range(0..500));
        println!("{there} rows are there; killed {delay:?} after there are {rows}");
        kills += 1;
        let now = killed_after(rows, delay, &place, &mut command);
        assert!(now.starts_with(&before), "{now:#?}\nhas not what stood before:\n{before:#?}");
        before = now;
        command = place.resume();
    }
    let printed = stdout(&success(&mut command));
    assert_has(&printed, &["trials are there", "System calls per echo", "results are in out"]);
    assert!(place.trials_so_far().starts_with(&before));
    assert_whole(&place);
    assert_planned(&place);
    let manifest = place.manifest();
    let resumed = manifest["resumed"].as_array().unwrap();
    assert_eq!(resumed.len(), kills);
    assert_eq!(manifest["seed"], 11);
    for resumption in resumed {
        assert_eq!(resumption["kernel_release"], manifest["machine"]["kernel_release"]);
        assert_eq!(resumption["boot_id"], manifest["machine"]["boot_id"]);
        assert_eq!(resumption["differences"], json!([]));
    }
    assert_has(&printed, &[&format!("resumed {kills} times")]);

    let files: Vec<_> = names(&place.out()).into_iter().collect();
    let contents =
        || -> Vec<_> { files.iter().map(|file| fs::read(place.out().join(file)).ok()).collect() };
    let finished = contents();
    // A run that is killed between its last two steps leaves its journal.
    let journal = place.out().join("trials.jsonl");
    fs::write(&journal, "").unwrap();
    let printed = stdout(&success(&mut place.resume()));
    assert_has(&printed, &["System calls per echo", "The run in out is complete since"]);
    assert!(!journal.exists());
    assert!(contents() == finished);
}

#[test]
fn the_command_that_an_interrupted_run_names_goes_on_with_it() {
    let twenty =
        FOUR_CONNECTIONS.replace("connections = 4", "connections = 20").replace("four", "twenty");
    let latency = "[latency]\nblocks = 1\nduration = \"300ms\"\nwarmup_max = \"0s\"\n";
    let place = Place::with(&(calls(&["epoll-et"]) + latency + &twenty));
    let out = place.path("my runs").join("it's one");
    let mut command = place.command("run");
    command.args(["matrix.toml", "--out"]).arg("my runs/it's one");
    let running = Running::start(&mut command);
    wait_until("a timed trial", || {
        fs::read_to_string(out.join("trials.csv")).is_ok_and(|text| text.contains(",latency,"))
    });
    running.signal(libc::SIGINT);
    let line = ended_with(INTERRUPTED, &running.end());
    let (_, command) = line.split_once("to resume: ").unwrap();
    let rows = fs::read_to_string(out.join("trials.csv")).unwrap();

    let mut shell = Command::new("sh");
    success(shell.current_dir(place.path("")).args(["-c", command]));
    assert!(fs::read_to_string(out.join("trials.csv")).unwrap().starts_with(&rows));
    let manifest = manifest(&out);
    assert!(manifest["finished_utc"].is_string());
    assert_eq!(manifest["resumed"].as_array().unwrap().len(), 1);
}

#[test]
fn a_resumed_run_announces_what_is_left_of_the_block_under_way_too() {
    let printed = stdout(&success(&mut killed().resume()));
    assert_has(&printed, &["1 trials are there; 2 trials, about "]);
}

#[test]
fn another_kernel_server_or_build_is_refused_and_the_folder_stays() {
    let place = killed();
    let kernel = place.manifest()["machine"]["kernel_release"].clone();
    let contents = || {
        let files = names(&place.out()).into_iter().map(|name| place.out().join(name));
        files.filter(|path| path.is_file()).map(|path| fs::read(path).unwrap()).collect::<Vec<_>>()
    };
    #[track_caller]
    fn assert_refused(command: &mut Command, words: &[&str]) {
        let line = failure(command);
        assert_has(&line, words);
        assert_has(&line, &["out: cannot resume: ", "--anyway", "--replay"]);
    }

    change_manifest(&place, |manifest| {
        manifest["machine"]["kernel_release"] = json!("5.4.0-other")
    });
    let before = contents();
    assert_refused(
        &mut place.resume(),
        &[&format!("the kernel was 5.4.0-other, is {}", kernel.as_str().unwrap())],
    );
    assert!(contents() == before);

    change_manifest(&place, |manifest| {
        manifest["machine"]["kernel_release"] = kernel.clone();
        manifest["machine"]["git_revision"] = json!("0123456789abcdef");
    });
    assert_refused(&mut place.resume(), &["the source's revision was 0123456789ab, is "]);

    change_manifest(&place, |manifest| {
        let sum = "0".repeat(64);
        manifest["programs"]["ringmark"]["sha256"] = json!(sum);
        manifest["machine"]["git_revision"] = Value::Null;
    });
    // Without `sha256sum` it is not known.
    if place.manifest()["programs"]["server"]["sha256"].is_string() {
        assert_refused(&mut place.resume(), &["ringmark's program was 000000000000, is "]);
    }
    let other = place.path("server");
    let text = format!("#!/bin/sh\nexec '{}' \"$@\"\n", server().display());
    fs::write(&other, text).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    assert_refused(
        place.resume().args(["--server", "server"]),
        &["the size of the server's program was "],
    );

    // A person who knows better says so, and the manifest too.
    let row = place.trials_so_far();
    let printed = stdout(&success(place.resume().args(["--server", "server", "--anyway"])));
    assert_has(
        &printed,
        &["the machine or the programs have changed", "the size of the server's program was "],
    );
    assert!(place.trials_so_far().starts_with(&row));
    assert_whole(&place);
    let differences = place.manifest()["resumed"][0]["differences"].to_string();
    assert_has(&differences, &["the size of the server's program was "]);
}

#[test]
fn what_cannot_be_gone_on_with_is_refused_in_one_line() {
    let place = Place::with(&calls(&THREE));
    assert_has(&failure(&mut place.resume()), &["out: not the folder of a run"]);
    fs::create_dir(place.out()).unwrap();
    for verb in ["--resume", "--replay"] {
        let refused = || failure(place.command("run").args([verb, "out"]));
        assert_has(&refused(), &["manifest.json: not the folder of a run"]);
        for (text, complaint) in [
            ("", "EOF"),
            ("{\"ringmark\": \"0.1.0\"", "line 1"),
            ("{}", "missing field"),
            ("[1]", "invalid"),
        ] {
            fs::write(place.out().join("manifest.json"), text).unwrap();
            assert_has(&refused(), &["out/manifest.json: ", complaint]);
        }
        fs::remove_file(place.out().join("manifest.json")).unwrap();
    }
    assert_eq!(names(&place.path("")), BTreeSet::from(["matrix.toml", "out"].map(str::to_owned)));
    assert!(names(&place.out()).is_empty());

    for arguments in [
        &["--resume", "out", "matrix.toml"][..],
        &["--resume", "out", "--out", "other"],
        &["--resume", "out", "--seed", "1"],
        &["--resume", "out", "--replay", "out"],
        &["--replay", "out", "matrix.toml"],
        &["--replay", "out", "--seed", "1"],
        &["matrix.toml", "--anyway"],
        &[],
    ] {
        let output = place.command("run").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    }

    let place = killed();
    change_manifest(&place, |manifest| manifest["order"].as_array_mut().unwrap().swap(1, 2));
    let line = failure(&mut place.resume());
    assert_has(
        &line,
        &["out: manifest.json: its order is not that of its matrix and seed, from trial 2 on"],
    );
    change_manifest(&place, |manifest| {
        manifest["matrix"]["backends"][0]["backend"] = json!("epol")
    });
    assert_has(&failure(&mut place.resume()), &["the matrix in out/manifest.json", "epol"]);
}

#[test]
fn a_run_that_is_under_way_is_left_alone() {
    let many = calls(&THREE) + "[latency]\nblocks = 500\nduration = \"1s\"\nwarmup_max = \"0s\"\n";
    let place = Place::with(&many);
    let running = Running::start(&mut place.run());
    wait_until("the manifest", || place.out().join("manifest.json").exists());
    assert_has(&failure(&mut place.resume()), &["out: this run is still under way"]);
    let printed = stdout(&success(&mut place.report()));
    assert_has(&printed, &["under way: what follows is of the trials so far"]);
    assert!(!printed.contains("interrupted:"), "{printed}");
    drop(running);
    assert_has(&stdout(&success(&mut place.report())), &["interrupted: only the trials"]);
}

#[test]
fn a_replay_has_the_order_of_the_run_that_it_repeats() {
    let place = killed();
    let printed = stdout(&success(
        place.command("run").args(["--replay", "out", "--out", "again", "--full"]),
    ));
    assert!(!printed.contains("as it was"), "{printed}");
    assert_has(&printed, &["repeats out, begun "]);
    let (original, again) = (place.manifest(), manifest(&place.path("again")));
    assert_eq!((order(&again), order(&again).len()), (order(&original), 3));
    for key in ["seed", "name", "matrix", "placement", "programs"] {
        assert_eq!(again[key], original[key], "{key}");
        assert!(!again[key].is_null(), "{key}");
    }
    assert_eq!(again["programs"]["server"]["file"], "ringmark-server");
    assert_eq!(again["replays"]["folder"], "out");
    assert_eq!(again["replays"]["begun_utc"], original["machine"]["read_at"]);
    assert_eq!(again["replays"]["differences"], json!([]));
    assert!(again["finished_utc"].is_string());

    // As of another kernel, by a version that wrote less; into a folder with a name of its own.
    change_manifest(&place, |manifest| {
        manifest["machine"]["kernel_release"] = json!("5.4.0-other");
        for key in ["programs", "placement", "doctor"] {
            manifest.as_object_mut().unwrap().remove(key);
        }
    });
    let printed = stdout(&success(place.command("run").args(["--replay", "out", "--full"])));
    assert_has(
        &printed,
        &["This repeats out, but not all is as it was:\n  the kernel was 5.4.0-other, is "],
    );
    let made = names(&place.path("results"));
    assert_eq!(made.len(), 1);
    let name = made.first().unwrap();
    assert!(name.ends_with("-matrix"), "{name}");
    let third = manifest(&place.path("results").join(name));
    assert_eq!(order(&third), order(&original));
    assert_has(&third["replays"]["differences"].to_string(), &["the kernel was 5.4.0-other"]);
}
