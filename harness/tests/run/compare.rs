//! `ringmark compare` of runs that were made here, and of committed ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::broken_server::server_of;
use crate::{Place, assert_has, failure, heading, one_line, stdout, success};

/// Two servers that differ in nothing that matters here.
const ARMS: [&str; 2] = ["epoll-et", "epoll-lt"];

/// More blocks than a verdict takes: a busy machine costs some.
fn matrix(connections: u32) -> String {
    format!(
        "{}[latency]\nblocks = 14\nduration = \"50ms\"\nwarmup_max = \"20ms\"\n[syscalls]\nechoes = 20\n\
         [[workload]]\nname = \"w\"\nquestion = \"q\"\nconnections = {connections}\nmessage_bytes = 64\n",
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
    let mut cells = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    cells.find(|cells| cells[1] == arm && cells[2] == metric).unwrap_or_else(|| panic!("{printed}"))
}

#[test]
fn a_server_that_works_more_is_slower_than_it_was_and_than_none_is_itself() {
    let (before, after) = (Place::with(&matrix(1)), Place::with(&matrix(1)));
    success(&mut before.run());
    // The baseline stays as it is.
    let real = Path::new(env!("CARGO_BIN_EXE_ringmark")).with_file_name("ringmark-server");
    let handicap = "case \"$*\" in *epoll-lt*) set -- \"$@\" --set work_ns=50000;; esac";
    let server = server_of(&after, &format!("{handicap}\nexec '{}' \"$@\"", real.display()));
    success(after.run().arg("--server").arg(server));

    let itself = stdout(&success(&mut compare(&before, &before.out(), &before.out())));
    assert_has(&itself, &["They are the same run"]);
    assert!(!itself.contains(" lower") && !itself.contains(" higher"), "{itself}");

    let printed = stdout(&success(&mut compare(&before, &before.out(), &after.out())));
    assert_has(
        &printed,
        &["From A to B: the server's program was ", "work_ns of `epoll-lt` was 0, is 50000"],
    );
    assert_eq!(cells(&printed, "epoll-lt", "syscalls_per_echo")[6], "1.00 counted");

    if blocks(&before) < 10 || blocks(&after) < 10 {
        return eprintln!("skipped: this machine was too busy for ten blocks");
    }
    success(compare(&before, &before.out(), &before.out()).args(["--fail-if-slower", "0%"]));
    assert!(cells(&itself, "epoll-lt", "server_cpu_ns_per_echo")[7].starts_with("1.00 ("), "{itself}");
    let of_cpu = cells(&printed, "epoll-lt", "server_cpu_ns_per_echo");
    assert!(of_cpu[7].ends_with(" higher"), "{printed}");
    assert_eq!(cells(&printed, "epoll-et", "server_cpu_ns_per_echo")[7], "–", "it is the baseline");
    // An echo takes some ten microseconds, and fifty more now.
    let mut judged = compare(&before, &before.out(), &after.out());
    let output =
        judged.args(["--fail-if-slower", "50%", "--metric", "server_cpu_ns_per_echo"]).output().unwrap();
    assert!(stdout(&output).contains("server_cpu_ns_per_echo"), "the table stands all the same");
    assert_has(
        &one_line(&output),
        &[
            "B is worse than A by more than 50 % in 1 of 1 figures: server_cpu_ns_per_echo of `epoll-lt` in w: ",
        ],
    );
    // The other way round it is better.
    let mut back = compare(&before, &after.out(), &before.out());
    success(back.args(["--fail-if-slower", "50%", "--metric", "server_cpu_ns_per_echo"]));
    // Of the baseline alone nothing is relative.
    let mut alone = compare(&before, &before.out(), &after.out());
    let alone = alone.args(["--fail-if-slower", "50%", "--arm", "epoll-et"]);
    let alone = alone.args(["--metric", "server_cpu_ns_per_echo"]).output().unwrap();
    assert_has(&one_line(&alone), &["--fail-if-slower has nothing to act on"]);
}

/// A run of counted calls, which takes no time.
fn counted(connections: u32) -> Place {
    let workload =
        format!("name = \"w\"\nquestion = \"q\"\nconnections = {connections}\nmessage_bytes = 64\n");
    let place =
        Place::with(&format!("{}[syscalls]\nechoes = 20\n[[workload]]\n{workload}", heading(&["epoll-et"])));
    success(&mut place.run());
    place
}

#[test]
fn what_is_not_comparable_is_refused_with_the_reason() {
    let (one, two) = (counted(1), counted(2));
    let line = failure(&mut compare(&one, &one.out(), &two.out()));
    assert_has(&line, &["have nothing in common", "`w`: connections is 1 in A and 2 in B"]);

    let manifest = two.out().join("manifest.json");
    let written = fs::read_to_string(&manifest).unwrap();
    for (from, to, words) in [
        (
            "\"build_profile\": \"",
            "\"build_profile\": \"not-",
            "differ by more than any server: build both alike",
        ),
        ("\"name\": \"w\"", "\"name\": \"v\"", "have nothing in common that can be compared"),
    ] {
        assert!(written.contains(from), "{written}");
        fs::write(&manifest, written.replace(from, to)).unwrap();
        assert_has(&failure(&mut compare(&one, &one.out(), &two.out())), &[words]);
    }
    fs::write(&manifest, &written).unwrap();

    assert_has(
        &failure(&mut compare(&one, &one.out(), Path::new("missing"))),
        &["missing/manifest.json: not the folder of a run"],
    );
    let line = failure(compare(&one, &one.out(), &one.out()).args(["--arm", "epoll-lt"]));
    assert_has(&line, &["--arm 'epoll-lt' is not in both runs; there are: epoll-et"]);
    let trials = two.out().join("trials.csv");
    let rows = fs::read_to_string(&trials).unwrap();
    fs::write(&trials, rows.replace(",ok,", ",failed,")).unwrap();
    let line = failure(&mut compare(&one, &one.out(), &two.out()));
    assert_has(&line, &["no trial gave figures that can be used"]);
    fs::write(&trials, rows.replace("run_id,", "run_number,")).unwrap();
    let line = failure(&mut compare(&one, &one.out(), &two.out()));
    assert_has(
        &line,
        &["trials.csv: line 2: unknown field `run_number`", "another version of ringmark wrote it"],
    );
}

#[test]
fn a_wrong_command_line_is_told_from_a_slower_server() {
    let place = counted(1);
    for arguments in [["--fail-if-slower", "much"], ["--fail-if-slower", "-1%"], ["--metric", "speed"]] {
        let output = compare(&place, &place.out(), &place.out()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

fn committed(name: &str) -> PathBuf {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
    let mut folders = fs::read_dir(results).unwrap().map(|entry| entry.unwrap().path());
    folders.find(|folder| folder.to_string_lossy().ends_with(name)).unwrap()
}

/// A copy of a committed run in which the CPU of an arm is multiplied.
fn with_more_cpu(run: &Path, place: &Place, arm: &str, factor: f64) -> PathBuf {
    let copy = place.path("copy");
    fs::create_dir_all(&copy).unwrap();
    for file in ["manifest.json", "memory.csv", "memory_points.csv"] {
        fs::copy(run.join(file), copy.join(file)).unwrap();
    }
    let mut reader = csv::Reader::from_path(run.join("trials.csv")).unwrap();
    let mut writer = csv::Writer::from_path(copy.join("trials.csv")).unwrap();
    let heading = reader.headers().unwrap().clone();
    writer.write_record(&heading).unwrap();
    let column = |name: &str| heading.iter().position(|column| column == name).unwrap();
    let (of_arm, of_cpu) = (column("arm"), column("server_cpu_ns_per_echo"));
    for row in reader.records() {
        let row = row.unwrap();
        let is_wanted = arm == "all" || &row[of_arm] == arm;
        let changed = |(at, cell): (usize, &str)| match cell.parse::<f64>() {
            Ok(cpu) if at == of_cpu && is_wanted => (cpu * factor).to_string(),
            _ => cell.to_owned(),
        };
        writer.write_record(row.iter().enumerate().map(changed)).unwrap();
    }
    writer.flush().unwrap();
    copy
}

#[test]
fn a_slower_machine_is_no_slower_server() {
    let run = committed("-standard");
    let place = Place::with("");
    let fails_beyond = |copy: &Path, percent: &str| {
        let mut command = compare(&place, &run, copy);
        let command = command.args(["--metric", "server_cpu_ns_per_echo", "--fail-if-slower", percent]);
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
    assert!(of_cpu[6].starts_with("1.40 (") && of_cpu[7].ends_with(" no difference shown"), "{of_cpu:?}");
    assert_eq!(fails_beyond(&copy, "0%"), Some(0));
    // One of them.
    let copy = with_more_cpu(&run, &place, "uring-multishot", 1.4);
    assert_eq!(fails_beyond(&copy, "20%"), Some(1));
    assert_eq!(fails_beyond(&copy, "60%"), Some(0));
}
