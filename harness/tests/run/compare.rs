//! `ringmark compare` of runs that were made here, and of committed ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::broken_server::server_of;
use crate::programs::server;
use crate::{
    FAILED, LADDER, NO_FIGURES, NOT_COMPARABLE, Place, QUICK, Row, SLOWER, assert_has, calls,
    committed, edit_rows, ended_with, failure, heading, manifest, set, stderr, stdout, success,
};

/// Two servers that differ in nothing that matters here.
const ARMS: [&str; 2] = ["epoll-et", "epoll-lt"];

/// More blocks than a verdict takes: a busy machine costs some.
fn matrix(connections: u32) -> String {
    format!(
        "{}[latency]\nblocks = 14\nduration = \"50ms\"\nwarmup_max = \"20ms\"\n[syscalls]\nechoes \
        = 20\n\
         [[workload]]\nname = \"w\"\nquestion = \"q\"\nconnections = {connections}\nmessage_bytes \
         = 64\n",
        heading(&ARMS)
    )
}

/// `ringmark compare` from within a place.
fn compare(place: &Place, a: &Path, b: &Path) -> Command {
    let mut command = place.command("compare");
    command.arg(a).arg(b);
    command
}

/// How many blocks of the run count, by what its own comparisons say.
fn blocks(place: &Place) -> usize {
    let rows = place.rows("comparisons.csv");
    let mut of_cpu = rows.iter().filter(|row| row["metric"] == "server_cpu_ns_per_echo");
    of_cpu.next().map_or(0, |row| row["blocks"].parse().unwrap())
}

/// The cells of a row of the printed table.
#[track_caller]
fn cells<'a>(printed: &'a str, arm: &str, metric: &str) -> Vec<&'a str> {
    let rows = printed.lines().filter(|line| line.starts_with("| "));
    let mut cells =
        rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    cells.find(|cells| cells[1] == arm && cells[2] == metric).unwrap_or_else(|| panic!("{printed}"))
}

#[test]
fn a_server_that_works_more_is_slower_than_it_was_and_than_none_is_itself() {
    let (before, after) = (Place::with(&matrix(1)), Place::with(&matrix(1)));
    success(&mut before.run());
    // The baseline stays as it is.
    let handicap = "case \"$*\" in *epoll-lt*) set -- \"$@\" --set work_ns=50000;; esac";
    let slower = server_of(&after, &format!("{handicap}\nexec '{}' \"$@\"", server().display()));
    success(after.run().arg("--server").arg(slower));

    let itself = stdout(&success(&mut compare(&before, &before.out(), &before.out())));
    assert_has(&itself, &["They are the same run"]);
    assert!(!itself.contains(" lower") && !itself.contains(" higher"), "{itself}");

    let printed = stdout(&success(&mut compare(&before, &before.out(), &after.out())));
    assert_has(
        &printed,
        &["From A to B: the server's program was ", "work_ns of `epoll-lt` was 0, is 50000"],
    );
    assert_eq!(cells(&printed, "epoll-lt", "syscalls_per_echo")[6], "1.00 counted");

    if blocks(&before) < 6 || blocks(&after) < 6 {
        return eprintln!("skipped: this machine was too busy for six blocks");
    }
    let cpu = ["--metric", "server_cpu_ns_per_echo"];
    success(
        compare(&before, &before.out(), &before.out()).args(["--fail-if-slower", "0%"]).args(cpu),
    );
    assert!(
        cells(&itself, "epoll-lt", "server_cpu_ns_per_echo")[7].starts_with("1.00 ("),
        "{itself}"
    );
    let of_cpu = cells(&printed, "epoll-lt", "server_cpu_ns_per_echo");
    assert!(of_cpu[7].ends_with(" higher"), "{printed}");
    assert_eq!(cells(&printed, "epoll-et", "server_cpu_ns_per_echo")[7], "–", "it is the baseline");
    // An echo takes some ten microseconds, and fifty more now.
    let mut judged = compare(&before, &before.out(), &after.out());
    let output = judged
        .args(["--fail-if-slower", "50%", "--metric", "server_cpu_ns_per_echo"])
        .output()
        .unwrap();
    assert!(stdout(&output).contains("server_cpu_ns_per_echo"), "the table stands all the same");
    assert_has(
        &ended_with(SLOWER, &output),
        &["B is worse than A by more than 50 % in 1 of 1 figures: server_cpu_ns_per_echo of \
             `epoll-lt` in w: "],
    );
    // The other way round it is better.
    let mut back = compare(&before, &after.out(), &before.out());
    success(back.args(["--fail-if-slower", "50%", "--metric", "server_cpu_ns_per_echo"]));
    // The baseline alone has nothing to be compared with.
    let mut alone = compare(&before, &before.out(), &after.out());
    let alone = alone.args(["--fail-if-slower", "50%", "--arm", "epoll-et"]);
    let alone = alone.args(["--metric", "server_cpu_ns_per_echo"]).output().unwrap();
    assert_eq!(alone.status.code(), Some(NOT_COMPARABLE));
    assert_has(
        &stderr(&alone),
        &["no figure of server_cpu_ns_per_echo (the baseline is what times are relative to)"],
    );
}

#[test]
fn what_is_not_comparable_is_refused_with_the_reason() {
    let (one, two) = (
        Place::finished(),
        Place::with(&calls(&["epoll-et"]).replace("connections = 4", "connections = 2")),
    );
    success(&mut two.run());
    let refused =
        |status| ended_with(status, &compare(&one, &one.out(), &two.out()).output().unwrap());
    let line = refused(NOT_COMPARABLE);
    assert_has(&line, &["have nothing in common", "`four`: connections is 4 in A and 2 in B"]);

    let manifest = two.out().join("manifest.json");
    let written = fs::read_to_string(&manifest).unwrap();
    for (from, to, words) in [
        (
            "\"build_profile\": \"",
            "\"build_profile\": \"not-",
            "differ by more than any server: build both alike",
        ),
        ("\"name\": \"four\"", "\"name\": \"v\"", "have nothing in common that can be compared"),
    ] {
        assert!(written.contains(from), "{written}");
        fs::write(&manifest, written.replace(from, to)).unwrap();
        assert_has(&refused(NOT_COMPARABLE), &[words]);
    }
    fs::write(&manifest, &written).unwrap();

    assert_has(
        &failure(&mut compare(&one, &one.out(), Path::new("missing"))),
        &["missing/manifest.json: not the folder of a run"],
    );
    let other_arm =
        compare(&one, &one.out(), &one.out()).args(["--arm", "epoll-lt"]).output().unwrap();
    let line = ended_with(NOT_COMPARABLE, &other_arm);
    assert_has(&line, &["--arm 'epoll-lt' is not in both runs; there are: epoll-et"]);
    let trials = two.out().join("trials.csv");
    let rows = fs::read_to_string(&trials).unwrap();
    fs::write(&trials, rows.replace(",ok,", ",failed,")).unwrap();
    let line = refused(NO_FIGURES);
    assert_has(&line, &["no trial gave figures that can be used"]);
    fs::write(&trials, rows.replace("run_id,", "run_number,")).unwrap();
    let line = refused(FAILED);
    assert_has(
        &line,
        &["trials.csv: line 2: unknown field `run_number`", "another version of ringmark wrote it"],
    );
}

#[test]
fn a_wrong_command_line_is_told_from_a_slower_server() {
    let place = Place::finished();
    for arguments in
        [["--fail-if-slower", "much"], ["--fail-if-slower", "-1%"], ["--metric", "speed"]]
    {
        let output = compare(&place, &place.out(), &place.out()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

/// A copy of a committed run whose trials were edited.
fn edited(run: &Path, place: &Place, edit: impl FnOnce(&mut Vec<Row>)) -> PathBuf {
    let copy = place.copy_of(run);
    edit_rows(&copy.join("trials.csv"), edit);
    copy
}

fn multiply(row: &mut Row, column: &str, factor: f64) {
    if let Ok(figure) = row[column].parse::<f64>() {
        row.insert(column.to_owned(), (figure * factor).to_string());
    }
}

/// A copy of a committed run in which the CPU of an arm is multiplied.
fn with_more_cpu(run: &Path, place: &Place, arm: &str, factor: f64) -> PathBuf {
    edited(run, place, |rows| {
        for row in rows
            .iter_mut()
            .filter(|row| arm == "all" || row["arm"].trim_end_matches(" (again)") == arm)
        {
            multiply(row, "server_cpu_ns_per_echo", factor);
        }
    })
}

fn judged(place: &Place, a: &Path, b: &Path, more: &[&str]) -> Output {
    compare(place, a, b).args(["--fail-if-slower", "10%"]).args(more).output().unwrap()
}

/// It did not judge all, and says so in one line.
#[track_caller]
fn assert_not_judged(output: &Output, words: &[&str]) {
    assert_has(&ended_with(NOT_COMPARABLE, output), words);
}

#[test]
fn a_slower_machine_is_no_slower_server() {
    let run = committed(QUICK);
    let place = Place::with("");
    let fails_beyond = |copy: &Path, percent: &str| {
        let mut command = compare(&place, &run, copy);
        let command =
            command.args(["--metric", "server_cpu_ns_per_echo", "--fail-if-slower", percent]);
        command.output().unwrap().status.code()
    };
    // Nothing differs from itself.
    let printed = stdout(&success(compare(&place, &run, &run).args(["--fail-if-slower", "0%"])));
    assert_has(&printed, &["They are the same run"]);
    assert!(!printed.contains(" lower") && !printed.contains(" higher"), "{printed}");
    let of_cpu = cells(&printed, "uring-multishot", "server_cpu_ns_per_echo");
    assert!(of_cpu[6].starts_with("1.00 (") && of_cpu[7].starts_with("1.00 ("), "{of_cpu:?}");
    // All arms alike.
    let copy = with_more_cpu(&run, &place, "all", 1.4);
    let printed = stdout(&success(&mut compare(&place, &run, &copy)));
    let of_cpu = cells(&printed, "uring-multishot", "server_cpu_ns_per_echo");
    assert!(of_cpu[6].starts_with("1.40 (") && of_cpu[7].ends_with(" not resolved"), "{of_cpu:?}");
    assert_eq!(fails_beyond(&copy, "0%"), Some(0));
    // One of them.
    let copy = with_more_cpu(&run, &place, "uring-multishot", 1.4);
    assert_eq!(fails_beyond(&copy, "20%"), Some(SLOWER));
    assert_eq!(fails_beyond(&copy, "60%"), Some(0));
}

#[test]
fn a_part_is_not_taken_for_the_whole() {
    let (run, place) = (committed(QUICK), Place::with(""));
    let itself = judged(&place, &run, &run, &[]);
    assert_eq!((itself.status.code(), stderr(&itself).as_str()), (Some(0), ""));
    assert_has(
        &stdout(&itself),
        &["worse in B by more than 10 %; judged ", "CPU 16 of 16, latency ", "calls 3 of 12"],
    );
    let b = |edit: &dyn Fn(&mut Vec<Row>)| judged(&place, &run, &edited(&run, &place, edit), &[]);
    let of_multishot = |rows: &mut Vec<Row>, edit: &dyn Fn(&mut Row)| {
        rows.iter_mut().filter(|row| row["arm"] == "uring-multishot").for_each(edit);
    };

    // Its end is missing, or one arm's blocks, or what an instrument gave.
    let cut = b(&|rows| rows.truncate(40));
    assert_not_judged(
        &cut,
        &[
            "B is not whole: its trials.csv has 40 of the 272 trials",
            "no figure of CPU",
            "judged 15 of 74 ",
        ],
    );
    assert_has(
        &stdout(&cut),
        &["They are one run by their manifests, but their trials.csv differ"],
    );
    let rejected = b(&|rows| {
        of_multishot(rows, &|row| {
            multiply(row, "server_cpu_ns_per_echo", 3.0);
            if row["pass"] == "latency" && row["block"].parse::<u32>().unwrap() > 3 {
                set(row, "status", "rejected");
            }
        });
    });
    assert_not_judged(
        &rejected,
        &[
            ": it was rejected in too many blocks of B)",
            " figures have a verdict within one run and none here",
        ],
    );
    // Too few for a verdict, and far worse.
    let three = b(&|rows| {
        rows.retain(|row| row["pass"] != "latency" || row["block"].parse::<u32>().unwrap() <= 3);
        of_multishot(rows, &|row| multiply(row, "server_cpu_ns_per_echo", 3.0));
    });
    assert_not_judged(&three, &["(10 blocks in A and 3 in B, six are needed in both"]);
    assert_has(
        &stdout(&three),
        &["Moved beyond its interval or range: 8 of 87 figures, 0 by verdict; most \
             server_cpu_ns_per_echo of `uring-"],
    );
    let unsupported = b(&|rows| of_multishot(rows, &|row| set(row, "status", "unsupported")));
    assert_not_judged(&unsupported, &[": it has no figures in B)"]);
    let uncounted = b(&|rows| rows.iter_mut().for_each(|row| set(row, "syscalls_per_echo", "")));
    assert_not_judged(
        &uncounted,
        &["no figure of calls (", "no syscalls_per_echo in B, although its trials passed"],
    );
    let by_itself = b(&|rows| {
        rows.iter_mut().for_each(|row| set(row, "syscalls_source", "self-reported: no tracefs"))
    });
    assert_not_judged(
        &by_itself,
        &["the means of counting differ: tracepoints in A, self-reported in B"],
    );
    let twice = b(&|rows| rows.extend(rows.clone()));
    assert_has(&ended_with(FAILED, &twice), &["trial 1 stands in it twice"]);
    assert_has(
        &ended_with(NO_FIGURES, &b(&Vec::clear)),
        &["no trial gave figures that can be used"],
    );
    assert_has(
        &ended_with(FAILED, &judged(&place, &run, Path::new("missing"), &[])),
        &["not the folder of a run"],
    );
    // The same of A.
    let copy = edited(&run, &place, |rows| rows.truncate(40));
    assert_not_judged(&judged(&place, &copy, &run, &[]), &["A is not whole: "]);
    // A figure that has a verdict in neither, and reads far worse, beside others that have one.
    let few = |row: &Row| row["workload"] == "64-conn-64B-30k" && row["arm"] == "uring-multishot";
    // Each arm stands in most blocks, and all of them in five.
    let lose = |rows: &mut Vec<Row>| {
        let is_lost = |row: &Row| match row["block"].parse::<u32>().unwrap() {
            6 | 7 => row["arm"] == "uring-multishot",
            8 | 9 => row["arm"] == "epoll-document",
            10 => row["arm"] == "epoll-et",
            _ => false,
        };
        rows.iter_mut()
            .filter(|row| row["workload"] == "64-conn-64B-30k" && is_lost(row))
            .for_each(|row| set(row, "status", "rejected"));
    };
    let elsewhere = Place::with("");
    let a = edited(&run, &elsewhere, lose);
    let alike = judged(&place, &a, &a, &[]);
    assert_eq!(alike.status.code(), Some(0), "{}", stderr(&alike));
    let worse = edited(&run, &place, |rows| {
        lose(rows);
        rows.iter_mut()
            .filter(|row| few(row))
            .for_each(|row| multiply(row, "server_cpu_ns_per_echo", 5.0));
    });
    assert_not_judged(
        &judged(&place, &a, &worse, &[]),
        &["2 figures without a verdict read worse than that: server_cpu_ns_per_echo of \
             `uring-multishot` in 64-conn-64B-30k"],
    );
    // A part that is asked for by name can be judged without the rest.
    let copy =
        edited(&run, &place, |rows| of_multishot(rows, &|row| set(row, "status", "unsupported")));
    let other = judged(
        &place,
        &run,
        &copy,
        &["--arm", "epoll-document", "--metric", "server_cpu_ns_per_echo"],
    );
    assert_eq!(other.status.code(), Some(0), "{}", stderr(&other));
    assert_has(&stdout(&other), &["judged 4 of 4 figures: CPU 4 of 4"]);
    let alone = judged(&place, &run, &run, &["--metric", "context_switches_per_echo"]);
    assert_not_judged(&alone, &["neither better nor worse by itself"]);
    // A slower server is slower, whatever else is not judged.
    let copy = edited(&run, &place, |rows| {
        rows.truncate(240);
        of_multishot(rows, &|row| multiply(row, "server_cpu_ns_per_echo", 3.0));
    });
    let slower = judged(&place, &run, &copy, &[]);
    assert_has(
        &ended_with(SLOWER, &slower),
        &["B is worse than A by more than 10 %", "and not all could be judged: B is not whole"],
    );
}

/// A committed run whose other blocks were never dealt.
fn of_three_blocks(place: &Place) -> PathBuf {
    let run = place.copy_of(&committed(QUICK));
    let is_late = |row: &Row| row["pass"] == "latency" && row["block"].parse::<u32>().unwrap() > 3;
    let mut left = Vec::new();
    edit_rows(&run.join("trials.csv"), |rows| {
        rows.retain(|row| !is_late(row));
        left = rows.iter().map(|row| row["run_id"].clone()).collect();
    });
    let is_left = |id: &str| left.iter().any(|other| other == id);
    let mut manifest = manifest(&run);
    let is_dealt =
        |line: &serde_json::Value| is_left(line.as_str().unwrap().split(' ').next().unwrap());
    manifest["order"].as_array_mut().unwrap().retain(is_dealt);
    fs::write(run.join("manifest.json"), manifest.to_string()).unwrap();
    let renamed = place.path("three");
    fs::rename(run, &renamed).unwrap();
    renamed
}

#[test]
fn three_blocks_are_no_pass_whatever_else_is_judged() {
    let place = Place::with("");
    let run = of_three_blocks(&place);
    assert_not_judged(
        &judged(&place, &run, &run, &[]),
        &[
            "no figure of CPU (3 blocks, six are needed)",
            "judged 15 of 74 figures: CPU 0 of 16",
            "memory 12 of 12",
        ],
    );
    let memory = "memory_kernel_bytes_per_connection_over_null";
    assert_eq!(judged(&place, &run, &run, &["--metric", memory]).status.code(), Some(0));
    let copy = edited(&run, &place, |rows| {
        for row in rows.iter_mut().filter(|row| row["arm"] == "uring-multishot") {
            for column in ["server_cpu_ns_per_echo", "latency_p50_us", "latency_p99_us"] {
                multiply(row, column, 5.0);
            }
        }
    });
    assert_not_judged(
        &judged(&place, &run, &copy, &[]),
        &["no figure of CPU (3 blocks, six are needed)"],
    );
    // No figure is of a walk, which is said.
    let (million, crowd) = (committed("-million"), committed("-crowd"));
    let walks = "the walks of the scale pass in A and B: they are not compared";
    assert_has(
        &stdout(&judged(&place, &million, &million, &[])),
        &[walks, "judged 20 of 20 figures: memory 20 of 20"],
    );
    assert_not_judged(&judged(&place, &crowd, &crowd, &[]), &["have nothing in common", walks]);
    // A pass that was left out.
    let copy = edited(&run, &place, |rows| rows.retain(|row| row["pass"] != "memory"));
    assert_not_judged(
        &judged(&place, &run, &copy, &["--metric", memory]),
        &["no slope with an interval in B"],
    );
}

#[test]
fn what_differs_is_said_and_what_is_not_whole_is_not_judged() {
    let (run, place) = (committed("-standard-intel"), Place::with(""));
    let copy = edited(&run, &place, |_| ());
    let file = copy.join("manifest.json");
    let written: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let with = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut manifest = written.clone();
        for matrix in ["matrix", "expanded"] {
            edit(&mut manifest[matrix]);
        }
        fs::write(&file, manifest.to_string()).unwrap();
        judged(&place, &run, &copy, &[])
    };
    let longer = with(&|matrix| matrix["latency"]["duration"] = "7s".into());
    assert_has(&stdout(&longer), &["From A to B: latency.duration was \"400ms\", is \"7s\""]);
    let baseline = with(&|matrix| matrix["baseline"] = "epoll-document".into());
    assert_not_judged(
        &baseline,
        &["no figure of CPU (the baselines differ)", ": the baselines differ); judged "],
    );
    let fewer = with(&|matrix| matrix["backends"].as_array_mut().unwrap().truncate(2));
    assert_not_judged(
        &fewer,
        &["B lacks `epoll-et send=after-batch`, `uring-multishot`", ": B has no such arm)"],
    );
    let fewer = with(&|matrix| matrix["workload"].as_array_mut().unwrap().truncate(4));
    assert_not_judged(
        &fewer,
        &["B lacks `", "(`ringmark run --replay` keeps the rates of a sweep)"],
    );
    let mut manifest = written.clone();
    manifest["finished_utc"] = serde_json::Value::Null;
    fs::write(&file, manifest.to_string()).unwrap();
    assert_not_judged(
        &judged(&place, &run, &copy, &[]),
        &["B is not whole: it was interrupted after 1315 trials"],
    );
}

#[test]
fn a_baseline_that_changed_alone_is_no_pass() {
    let (run, place) = (committed(QUICK), Place::with(""));
    let cpu = ["--metric", "server_cpu_ns_per_echo"];
    let copy = with_more_cpu(&run, &place, "epoll-et", 3.0);
    assert_not_judged(
        &judged(&place, &run, &copy, &cpu),
        &["the baseline is worse in B by itself and beside every other"],
    );
    // With all others it may be the machine, which is said.
    let copy = with_more_cpu(&run, &place, "all", 3.0);
    let alike = judged(&place, &run, &copy, &cpu);
    assert_eq!(alike.status.code(), Some(0));
    assert_has(
        &stdout(&alike),
        &[
            "itself, B/A between runs over the workloads: server_cpu_ns_per_echo 3.00.",
            "the baseline itself is worse in B",
        ],
    );
}

/// Divides two cells as a reader's calculator does.
#[test]
fn the_columns_agree_with_their_ratios() {
    let place = Place::with("");
    let [a, b] = [QUICK, LADDER].map(committed);
    let printed = stdout(&success(&mut compare(&place, &a, &b)));
    let figure = |cell: &str| cell.split(' ').next().unwrap().replace(',', "").parse::<f64>();
    let mut count = 0;
    for line in printed.lines().filter(|line| line.starts_with("| ") && line.contains("_")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (Ok(a), Ok(b), Ok(ratio)) = (figure(cells[3]), figure(cells[4]), figure(cells[6]))
        else {
            continue;
        };
        assert!((b / a / ratio - 1.0).abs() < 0.02, "{line}");
        assert!(a >= 0.01 && b >= 0.01, "a ratio of nothing: {line}");
        count += 1;
    }
    assert!(count > 20, "{count} ratios: {printed}");
}

#[test]
fn who_reads_no_more_changes_nothing_of_the_status() {
    let (run, place) = (committed(QUICK), Place::with(""));
    let copy = with_more_cpu(&run, &place, "uring-multishot", 3.0);
    for (b, status, lines) in [(&run, 0, 0), (&copy, SLOWER, 1)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = compare(&place, &run, b);
        let output = command.args(["--fail-if-slower", "10%"]).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), lines);
    }
}
