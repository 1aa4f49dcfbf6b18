//! A run that is killed at any moment is resumed to the same files.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::Path;

use serde_json::json;

use super::files::lock;
use super::journal;
use super::read::Run;
use super::write::Results;
use crate::matrix::Matrix;
use crate::rows::{
    EventRow, FunctionRow, HardwareRow, InstructionRow, MemoryPointRow, MemoryRow, Outcome, Pass,
    ScaleRow, Status, SyscallRow, TrialRow,
};

const JOURNAL: &str = "trials.jsonl";

/// With figures that are not round, and text that CSV has to quote.
fn outcome(run_id: u32, pass: Pass, backend: &str) -> Outcome {
    let figure = 0.1 + f64::from(run_id) / 3.0;
    let text = |text: &str| text.to_owned();
    let mut row = TrialRow {
        run_id,
        pass: Some(pass),
        workload: text("w"),
        arm: text(backend),
        backend: text(backend),
        knobs: text(r#"{"a":1,"b":"x, y"}"#),
        server_cpu_ns_per_echo: Some(figure * 1e3),
        latency_max_us: Some(f64::MIN_POSITIVE * figure),
        status: Status::Ok,
        reason: text("of two \"lines\",\nquoted, ends with a break\n"),
        ..TrialRow::default()
    };
    let mut outcome = Outcome::default();
    match pass {
        Pass::Capacity => {}
        Pass::Latency => outcome.histogram = Some(text("of this trial")),
        Pass::Syscalls => {
            let echoes = 7;
            row.echoes = Some(echoes);
            row.syscalls_per_echo = Some(30.0 / echoes as f64);
            outcome.syscalls = [("recvfrom", 10), ("sendto", 20)]
                .map(|(syscall, calls)| SyscallRow {
                    run_id,
                    syscall: text(syscall),
                    calls,
                    calls_per_echo: calls as f64 / echoes as f64,
                    ..SyscallRow::default()
                })
                .into();
            let event = |event| EventRow {
                run_id,
                event: text(event),
                count: Some(7),
                ..EventRow::default()
            };
            outcome.events = vec![event("io_uring_submit_req"), event("io_uring_complete")];
        }
        Pass::Instructions => {
            let row = |side| InstructionRow {
                run_id,
                side: text(side),
                instructions: u64::MAX,
                instructions_per_echo: figure,
                ..InstructionRow::default()
            };
            outcome.instructions = ["server", "load"].map(row).into();
            outcome.functions = vec![FunctionRow {
                run_id,
                function: text("<a, b>::c"),
                instructions_per_echo: figure,
                ..FunctionRow::default()
            }];
        }
        Pass::Hardware => {
            outcome.hardware = vec![HardwareRow {
                run_id,
                event: text("cycles"),
                counted: u64::MAX,
                count_per_echo: Some(figure),
                ..HardwareRow::default()
            }];
        }
        Pass::Scale => {
            let step = |step| ScaleRow {
                run_id,
                step: text(step),
                repeat: Some(7),
                ..ScaleRow::default()
            };
            outcome.scale = ["before", "open", "after"].map(step).into();
        }
        Pass::Memory => {
            row.memory_user_bytes_per_connection = Some(figure);
            outcome.memory_points = [1, 2]
                .map(|connections| MemoryPointRow {
                    run_id,
                    connections,
                    object: text("a, b"),
                    ..MemoryPointRow::default()
                })
                .into();
            outcome.memory = vec![MemoryRow {
                run_id,
                arm: text(backend),
                backend: text(backend),
                state: text("never-used"),
                space: text("kernel"),
                object: text("a, b"),
                aliases: text("a b"),
                bytes_per_connection: figure,
                low: Some(figure / 7.0),
                high: None,
                intercept_bytes: -figure,
                down_bytes_per_connection: Some(1e-7),
                over_null_bytes_per_connection: None,
                over_null_low: None,
                over_null_high: None,
                status: Status::Failed,
            }];
        }
    }
    outcome.row = row;
    outcome
}

const TRIALS: [(Pass, &str); 8] = [
    (Pass::Syscalls, "epoll-et"),
    (Pass::Memory, "epoll-et"),
    (Pass::Memory, "null"),
    (Pass::Syscalls, "epoll-lt"),
    (Pass::Latency, "epoll-et"),
    (Pass::Scale, "epoll-et"),
    (Pass::Instructions, "epoll-et"),
    (Pass::Hardware, "epoll-et"),
];

fn outcomes() -> Vec<Outcome> {
    TRIALS
        .iter()
        .zip(1..)
        .map(|(&(pass, backend), run_id)| outcome(run_id, pass, backend))
        .collect()
}

fn histogram(run_id: u32) -> String {
    format!("histograms/{run_id:04}-w-epoll-et.hlog")
}

/// The contents of all files of a folder, by their paths in it.
type Files = BTreeMap<String, Vec<u8>>;

fn files(folder: &Path) -> Files {
    let mut files = Files::new();
    for (part, folder) in [("", folder.to_owned()), ("histograms/", folder.join("histograms"))] {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_file() {
                let name = path.file_name().unwrap().to_str().unwrap();
                files.insert(format!("{part}{name}"), fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// A folder of its own that holds these files.
fn folder_of(files: &Files) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("histograms")).unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// Returns the contents of the folder before the first trial and after each.
fn states() -> Vec<Files> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut results = Results::create(&out).unwrap();
    let mut states = vec![files(&out)];
    for outcome in outcomes() {
        results.add(outcome).unwrap();
        states.push(files(&out));
    }
    states
}

fn read(folder: &Path) -> anyhow::Result<Results> {
    Results::open(folder, lock(folder).unwrap())
}

/// Resumes the run of these files, of which `done` trials are finished, and adds the next one.
#[track_caller]
fn assert_resumes(interrupted: &Files, done: usize, states: &[Files], what: &str) {
    let folder = folder_of(interrupted);
    let left = read(folder.path()).unwrap();
    assert_eq!(left.trials(), rows(done), "{what}");
    let mut results = left.reopen().unwrap();
    assert!(files(folder.path()) == states[done], "{what}");
    let next = outcomes().into_iter().nth(done);
    let expected = &states[done + usize::from(next.is_some())];
    next.into_iter().for_each(|outcome| results.add(outcome).unwrap());
    assert!(files(folder.path()) == *expected, "{what}");
}

/// The rows of the first trials.
fn rows(count: usize) -> Vec<TrialRow> {
    outcomes().into_iter().take(count).map(|outcome| outcome.row).collect()
}

#[test]
fn a_journal_that_ends_at_any_byte_has_its_whole_lines() {
    let whole = states().pop().unwrap().remove(JOURNAL).unwrap();
    let rows = rows(TRIALS.len());
    for length in 0..=whole.len() {
        let (found, of_lines) = journal::parse(&whole[..length]).unwrap();
        let done = whole[..length].iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(found.trials, rows[..done], "{length} bytes");
        let rest = &whole[of_lines as usize..length];
        assert!(
            !rest.contains(&b'\n') && whole[..of_lines as usize].ends_with(b"\n") == (done > 0)
        );
    }
}

#[test]
fn a_run_that_ends_anywhere_goes_on_to_the_same_files() {
    let states = states();
    for (done, pair) in states.windows(2).enumerate() {
        let [before, after] = pair else { unreachable!() };
        let mut interrupted = before.clone();
        let histogram = histogram(done as u32 + 1);
        if let Some(log) = after.get(&histogram) {
            for length in [0, log.len() / 2, log.len()] {
                interrupted.insert(histogram.clone(), log[..length].to_vec());
                assert_resumes(&interrupted, done, &states, "within the histogram");
            }
        }
        let (old, new) = (before[JOURNAL].len(), &after[JOURNAL]);
        for length in (old..new.len()).step_by(301).chain([new.len() - 1]) {
            interrupted.insert(JOURNAL.to_owned(), new[..length].to_vec());
            assert_resumes(&interrupted, done, &states, &format!("journal of {length} bytes"));
        }
        interrupted.insert(JOURNAL.to_owned(), new.clone());
        assert_resumes(&interrupted, done + 1, &states, "before the CSV files");
        for (name, new) in after.iter().filter(|(name, _)| name.ends_with(".csv")) {
            for length in [0, new.len() / 2, new.len().saturating_sub(1)] {
                let mut interrupted = interrupted.clone();
                interrupted.insert(name.clone(), new[..length].to_vec());
                assert_resumes(&interrupted, done + 1, &states, name);
                interrupted.remove(name);
                interrupted.insert(format!(".{name}.ringmark-new"), new[..length].to_vec());
                assert_resumes(&interrupted, done + 1, &states, name);
            }
        }
    }
}

#[test]
fn a_trial_counts_once_it_is_in_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut results = Results::create(&out).unwrap();
    assert!(lock(&out).unwrap_err().to_string().contains("under way"));
    results.journal.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let refusal = results.add(outcomes().swap_remove(0)).unwrap_err().to_string();
    assert!(refusal.contains("make room on the disk"), "{refusal}");
    assert_eq!((results.trials().len(), fs::read(out.join("trials.csv")).unwrap().len()), (0, 0));
}

#[test]
fn what_is_made_of_all_rows_is_not_taken_for_that_of_a_part() {
    let states = states();
    let mut interrupted = states[3].clone();
    interrupted.insert("comparisons.csv".to_owned(), b"of three trials".to_vec());
    interrupted.insert("capacity.csv".to_owned(), b"of three trials".to_vec());
    interrupted.insert(".manifest.json.ringmark-new".to_owned(), b"{".to_vec());
    assert_resumes(&interrupted, 3, &states, "comparisons");
    // The slopes of `null`, whose trial did not come to be: a floor that is dropped is no floor.
    let mut interrupted = states[2].clone();
    interrupted.insert("memory.csv".to_owned(), states[3]["memory.csv"].clone());
    assert_resumes(&interrupted, 2, &states, "memory.csv");
}

#[test]
fn journals_that_no_run_leaves_are_refused_and_stay() {
    let whole = states().pop().unwrap();
    let journal = String::from_utf8(whole[JOURNAL].clone()).unwrap();
    for (changed, words) in [
        (journal.replacen("\"run_id\"", "\"run\"", 1), "line 1: another version of ringmark"),
        (journal.replacen("\"status\":\"ok\"", "\"status\":\"fine\"", 1), "`fine`"),
        (format!("{journal}\n"), "line 9: "),
    ] {
        let mut interrupted = whole.clone();
        interrupted.insert(JOURNAL.to_owned(), changed.into_bytes());
        let folder = folder_of(&interrupted);
        let refusal = format!("{:#}", read(folder.path()).err().unwrap());
        assert!(refusal.contains(words) && refusal.contains(JOURNAL), "{words}: {refusal}");
        assert!(files(folder.path()) == interrupted);
    }
    let mut cut = whole.clone();
    let first = journal.lines().next().unwrap();
    cut.insert(JOURNAL.to_owned(), format!("{first}\n").into_bytes());
    let folder = folder_of(&cut);
    let refusal = read(folder.path()).err().unwrap().to_string();
    assert!(refusal.contains("trials.jsonl only 1: the journal was cut"), "{refusal}");
    assert!(files(folder.path()) == cut);
    let mut of_earlier_version = whole;
    of_earlier_version.remove(JOURNAL);
    let folder = folder_of(&of_earlier_version);
    let refusal = read(folder.path()).err().unwrap().to_string();
    assert!(refusal.contains("an earlier version") && refusal.contains("--replay"), "{refusal}");
    assert!(files(folder.path()) == of_earlier_version);
}

#[test]
fn a_reader_takes_the_journal_of_a_run_that_is_not_complete() {
    let matrix =
        Matrix::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("matrix/smoke.toml")).unwrap();
    let mut killed = states().swap_remove(4);
    killed.insert("trials.csv".to_owned(), b"run_id,star".to_vec());
    killed.get_mut(JOURNAL).unwrap().extend(b"{\"row\":");
    let folder = folder_of(&killed);
    let trials = |finished: Option<&str>| {
        let manifest = json!({"matrix": matrix, "finished_utc": finished}).to_string();
        fs::write(folder.path().join("manifest.json"), manifest).unwrap();
        Run::read(folder.path()).unwrap().trials
    };
    assert_eq!(trials(None), rows(4));
    read(folder.path()).unwrap().reopen().unwrap();
    // It was killed before it could remove the journal.
    File::create(folder.path().join(JOURNAL)).unwrap();
    assert_eq!(trials(Some("2026-01-31T23:59:59Z")), rows(4));
}
