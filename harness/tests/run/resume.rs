//! A run that was killed goes on to where it would have come, and a run is repeated.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::interruption::{children_of, wait_for};
use crate::{
    FOUR_CONNECTIONS, Place, Row, Running, as_dealt, assert_has, failure, heading, stderr, stdout,
    success,
};

/// Calls only: a busy machine spoils no trial of theirs. Three trials.
fn calls() -> String {
    let backends = heading(&["epoll-et", "epoll-lt", "poll"]);
    format!("{backends}[syscalls]\nechoes = 20\n{FOUR_CONNECTIONS}")
}

/// Every pass.
fn all_passes() -> String {
    let backends = heading(&["epoll-et", "epoll-lt"]);
    let two = FOUR_CONNECTIONS.replace("connections = 4", "connections = 2").replace("four", "two");
    format!(
        "{backends}[syscalls]\nechoes = 20\n[latency]\nblocks = 2\nduration = \"50ms\"\nwarmup_max = \"50ms\"\n\
         [memory]\nquestion = \"q\"\nconnections = [8, 16]\nmessage_bytes = 64\n{FOUR_CONNECTIONS}{two}"
    )
}

/// The lines of a file that have come to their end.
fn whole_lines(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text[..text.rfind('\n').map_or(0, |end| end + 1)].to_owned()
}

fn resume(place: &Place) -> Command {
    let mut command = place.command("run");
    command.args(["--resume", "out"]);
    command
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

fn number(row: &Row, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} is `{}`: {row:?}", row[column]))
}

/// A broken-off run of [`calls`] with one trial, and with what was written of others.
fn broken_off() -> Place {
    let place = Place::with(&calls());
    success(place.run().args(["--seed", "5"]));
    let trials = place.out().join("trials.csv");
    let lines: Vec<String> =
        fs::read_to_string(&trials).unwrap().lines().map(str::to_owned).collect();
    fs::write(&trials, format!("{}\n{}\n{}", lines[0], lines[1], &lines[2][..20])).unwrap();
    change_manifest(&place, |manifest| manifest["finished_utc"] = Value::Null);
    place
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
    let files = [
        "charts",
        "comparisons.csv",
        "events.csv",
        "histograms",
        "manifest.json",
        "memory.csv",
        "memory_points.csv",
        "report.html",
        "scale.csv",
        "syscalls.csv",
        "trials.csv",
    ];
    assert_eq!(names(&place.out()), BTreeSet::from(files.map(str::to_owned)));
    assert!(!place.rows("comparisons.csv").is_empty());
}

/// Each time so many rows are there, and so many ms after that: between trials, within them, before
/// the first.
const KILLS: [(usize, u64); 7] = [(0, 0), (0, 130), (2, 10), (4, 700), (5, 90), (9, 0), (14, 160)];

#[test]
fn a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been() {
    let place = Place::with(&all_passes());
    let trials = place.out().join("trials.csv");
    let mut before = String::new();
    let mut command = place.run();
    command.args(["--seed", "11"]);
    for (kills, (rows, delay_ms)) in KILLS.into_iter().enumerate() {
        let running =
            Running(Some(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()));
        wait_for("the manifest", || {
            let is_there = place.out().join("manifest.json").exists();
            let resumed = |manifest: &Value| manifest["resumed"].as_array().map_or(0, Vec::len);
            (is_there && resumed(&place.manifest()) == kills).then_some(())
        });
        // Beside the header.
        wait_for("the rows", || {
            (rows == 0 || whole_lines(&trials).lines().count() > rows).then_some(())
        });
        sleep(Duration::from_millis(delay_ms));
        let children = children_of(running.pid());
        running.signal(libc::SIGKILL);
        let said = stderr(&running.end());
        assert_eq!(said, "");
        wait_for("the end of its children", || {
            (!children.iter().any(|child| child.runs())).then_some(())
        });
        let now = whole_lines(&trials);
        assert!(now.starts_with(&before), "{now}\nhas not what stood before:\n{before}");
        before = now;
        command = resume(&place);
    }
    let printed = stdout(&success(&mut command));
    assert_has(&printed, &["trials are there", "System calls per echo", "results are in out"]);
    assert!(fs::read_to_string(&trials).unwrap().starts_with(&before));
    assert_whole(&place);
    let manifest = place.manifest();
    let resumed = manifest["resumed"].as_array().unwrap();
    assert_eq!(resumed.len(), KILLS.len());
    assert_eq!(manifest["seed"], 11);
    for resumption in resumed {
        assert_eq!(resumption["kernel_release"], manifest["machine"]["kernel_release"]);
        assert_eq!(resumption["boot_id"], manifest["machine"]["boot_id"]);
        assert_eq!(resumption["differences"], json!([]));
    }
    assert_has(&printed, &[&format!("gone on with {} times", KILLS.len())]);

    let files: Vec<_> = names(&place.out()).into_iter().collect();
    let contents =
        || -> Vec<_> { files.iter().map(|file| fs::read(place.out().join(file)).ok()).collect() };
    let finished = contents();
    let printed = stdout(&success(&mut resume(&place)));
    assert_has(&printed, &["System calls per echo", "The run in out is complete since"]);
    assert!(contents() == finished);
}

#[test]
fn the_command_that_an_interrupted_run_names_goes_on_with_it() {
    let twenty =
        FOUR_CONNECTIONS.replace("connections = 4", "connections = 20").replace("four", "twenty");
    let latency = "[latency]\nblocks = 1\nduration = \"300ms\"\nwarmup_max = \"0s\"\n";
    let place = Place::with(&(calls() + latency + &twenty));
    let out = place.path("my runs").join("it's one");
    let mut command = place.command("run");
    command.args(["matrix.toml", "--out"]).arg("my runs/it's one");
    let running =
        Running(Some(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()));
    wait_for("a timed trial", || {
        let rows = whole_lines(&out.join("trials.csv"));
        rows.contains(",latency,").then_some(())
    });
    running.signal(libc::SIGINT);
    let line = crate::one_line(&running.end());
    let (_, command) = line.split_once("to resume: ").unwrap();
    let rows = fs::read_to_string(out.join("trials.csv")).unwrap();

    let mut shell = Command::new("sh");
    success(shell.current_dir(place.path("")).args(["-c", command]));
    assert!(fs::read_to_string(out.join("trials.csv")).unwrap().starts_with(&rows));
    let manifest: Value =
        serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    assert!(manifest["finished_utc"].is_string());
    assert_eq!(manifest["resumed"].as_array().unwrap().len(), 1);
}

#[test]
fn a_resumed_run_announces_what_is_left_of_the_block_under_way_too() {
    let printed = stdout(&success(&mut resume(&broken_off())));
    assert_has(&printed, &["1 trials are there; 2 trials, about "]);
}

#[test]
fn another_kernel_server_or_build_is_refused_and_the_folder_stays() {
    let place = broken_off();
    let kernel = place.manifest()["machine"]["kernel_release"].clone();
    let contents = || {
        let files = names(&place.out()).into_iter().map(|name| place.out().join(name));
        files.filter(|path| path.is_file()).map(|path| fs::read(path).unwrap()).collect::<Vec<_>>()
    };
    #[track_caller]
    fn assert_refused(command: &mut Command, words: &[&str]) {
        let line = failure(command);
        assert_has(&line, words);
        assert_has(&line, &["out: going on here would mix", "--anyway", "--replay"]);
    }

    change_manifest(&place, |manifest| {
        manifest["machine"]["kernel_release"] = json!("5.4.0-other")
    });
    let before = contents();
    assert_refused(
        &mut resume(&place),
        &[&format!("the kernel was 5.4.0-other, is {}", kernel.as_str().unwrap())],
    );
    assert!(contents() == before);

    change_manifest(&place, |manifest| {
        manifest["machine"]["kernel_release"] = kernel.clone();
        manifest["machine"]["git_revision"] = json!("0123456789abcdef");
    });
    assert_refused(&mut resume(&place), &["the source's revision was 0123456789ab, is "]);

    change_manifest(&place, |manifest| {
        let sum = "0".repeat(64);
        manifest["programs"]["ringmark"]["sha256"] = json!(sum);
        manifest["machine"]["git_revision"] = Value::Null;
    });
    // Where there is no `sha256sum`, it is not known.
    if place.manifest()["programs"]["server"]["sha256"].is_string() {
        assert_refused(&mut resume(&place), &["ringmark's program was 000000000000, is "]);
    }
    let server = place.path("server");
    let real = Path::new(env!("CARGO_BIN_EXE_ringmark")).with_file_name("ringmark-server");
    fs::write(&server, format!("#!/bin/sh\nexec '{}' \"$@\"\n", real.display())).unwrap();
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
    assert_refused(
        resume(&place).args(["--server", "server"]),
        &["the size of the server's program was "],
    );

    // Whoever knows better says so, and the manifest too.
    let trials = place.out().join("trials.csv");
    let row = whole_lines(&trials);
    let printed = stdout(&success(resume(&place).args(["--server", "server", "--anyway"])));
    assert_has(&printed, &["not all is as it was", "the size of the server's program was "]);
    assert!(fs::read_to_string(&trials).unwrap().starts_with(&row));
    assert_whole(&place);
    let differences = place.manifest()["resumed"][0]["differences"].to_string();
    assert_has(&differences, &["the size of the server's program was "]);
}

#[test]
fn what_cannot_be_gone_on_with_is_refused_in_one_line() {
    let place = Place::with(&calls());
    assert_has(&failure(&mut resume(&place)), &["out: not the folder of a run"]);
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

    let place = broken_off();
    change_manifest(&place, |manifest| manifest["order"].as_array_mut().unwrap().swap(1, 2));
    let line = failure(&mut resume(&place));
    assert_has(
        &line,
        &["out: manifest.json: its order is not that of its matrix and seed, from trial 2 on"],
    );
    change_manifest(&place, |manifest| {
        manifest["matrix"]["backends"][0]["backend"] = json!("epol")
    });
    assert_has(&failure(&mut resume(&place)), &["the matrix in out/manifest.json", "epol"]);
}

#[test]
fn a_run_that_is_under_way_is_left_alone() {
    let many = calls() + "[latency]\nblocks = 500\nduration = \"1s\"\nwarmup_max = \"0s\"\n";
    let place = Place::with(&many);
    let running =
        Running(Some(place.run().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()));
    wait_for("the manifest", || place.out().join("manifest.json").exists().then_some(()));
    assert_has(&failure(&mut resume(&place)), &["out: this run is still under way"]);
    let printed = stdout(&success(place.command("report").arg("out")));
    assert_has(&printed, &["under way: what follows is of the trials so far"]);
    assert!(!printed.contains("broken off"), "{printed}");
    drop(running);
    assert_has(
        &stdout(&success(place.command("report").arg("out"))),
        &["broken off: what follows"],
    );
}

#[test]
fn a_replay_has_the_order_of_the_run_that_it_repeats() {
    let place = broken_off();
    let printed =
        stdout(&success(place.command("run").args(["--replay", "out", "--out", "again"])));
    assert!(!printed.contains("as it was"), "{printed}");
    assert_has(&printed, &["repeats out, begun "]);
    let manifest = |folder: &Path| -> Value {
        serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap()
    };
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
    let printed = stdout(&success(place.command("run").args(["--replay", "out"])));
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
