//! What a run that was broken off left behind, and how its files are taken up again.
//!
//! Every file but `trials.csv` gets its rows before that one gets the trial's, so a row there says
//! that the trial's others are complete. Whatever else there is of a trial without a row was
//! written by halves, and is dropped. A process that is killed loses nothing that it has written. A
//! machine that loses its power may, and in any order, because nothing waits for the disk: the last
//! rows are looked at for that.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{NEW_ENDING, Results, replace, write_all};
use crate::rows::{EventRow, MemoryPointRow, MemoryRow, Pass, ScaleRow, SyscallRow, TrialRow};
use crate::verdict::memory;

/// A file of rows with the bytes of each.
struct Table<T> {
    path: PathBuf,
    /// With its line break; empty if the file has none yet.
    header: Vec<u8>,
    rows: Vec<(T, Vec<u8>)>,
}

/// The lines that are whole: a line break within quotes ends none.
fn whole_lines(bytes: &[u8]) -> Vec<&[u8]> {
    let mut is_quoted = false;
    let mut lines: Vec<_> = bytes
        .split_inclusive(|&byte| {
            is_quoted ^= byte == b'"';
            byte == b'\n' && !is_quoted
        })
        .collect();
    // The last piece may end with a line break that is within quotes.
    if is_quoted || lines.last().is_some_and(|last| !last.ends_with(b"\n")) {
        lines.pop();
    }
    lines
}

impl<T: Serialize + DeserializeOwned + Default> Table<T> {
    /// Reads what is whole of a file. A file that is not there has no rows.
    fn read(path: PathBuf) -> Result<Self> {
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read.with_context(|| format!("read {}", path.display()))?,
        };
        let lines = whole_lines(&bytes);
        let Some((&header, lines)) = lines.split_first() else {
            return Ok(Self { path, header: Vec::new(), rows: Vec::new() });
        };
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.serialize(T::default())?;
        let own = writer.into_inner()?;
        ensure!(
            own.starts_with(header),
            "{}: its columns are not those that this version writes, so that it cannot be gone on with; `ringmark run --replay` repeats the run",
            path.display()
        );
        let whole = [&[header], lines].concat().concat();
        let rows: Vec<T> = csv::Reader::from_reader(&whole[..])
            .deserialize()
            .collect::<Result<_, _>>()
            .with_context(|| path.display().to_string())?;
        ensure!(rows.len() == lines.len(), "{}: there are lines that are no rows", path.display());
        let rows = rows.into_iter().zip(lines.iter().map(|line| line.to_vec())).collect();
        Ok(Self { path, header: header.to_vec(), rows })
    }

    /// Makes the file hold these rows and nothing else, and opens it for more.
    fn reopen(&self) -> Result<csv::Writer<File>> {
        let Self { path, header, rows } = self;
        let lines = std::iter::once(&header[..]).chain(rows.iter().map(|(_, line)| &line[..]));
        let bytes = lines.collect::<Vec<_>>().concat();
        if fs::read(path).ok().as_ref() != Some(&bytes) {
            replace(path, &bytes)?;
        }
        let file = OpenOptions::new().append(true).open(path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        Ok(csv::WriterBuilder::new().has_headers(bytes.is_empty()).from_writer(file))
    }
}

/// The finished trials of a run that was broken off. Reading it changes nothing.
pub struct BrokenOff {
    folder: PathBuf,
    lock: Option<File>,
    trials: Table<TrialRow>,
    syscalls: Table<SyscallRow>,
    events: Table<EventRow>,
    memory_points: Table<MemoryPointRow>,
    scale: Table<ScaleRow>,
    memory: Vec<MemoryRow>,
}

impl BrokenOff {
    /// Reads a folder that is locked.
    pub fn read(folder: &Path, lock: Option<File>) -> Result<Self> {
        let mut left = Self {
            folder: folder.to_owned(),
            lock,
            trials: Table::read(folder.join("trials.csv"))?,
            syscalls: Table::read(folder.join("syscalls.csv"))?,
            events: Table::read(folder.join("events.csv"))?,
            memory_points: Table::read(folder.join("memory_points.csv"))?,
            scale: Table::read(folder.join("scale.csv"))?,
            memory: crate::results::read(&folder.join("memory.csv"))?,
        };
        while left.trials.rows.last().is_some_and(|(row, _)| !left.has_details(row)) {
            left.trials.rows.pop();
        }
        for ((row, _), number) in left.trials.rows.iter().zip(1..) {
            let path = left.trials.path.display();
            ensure!(
                row.run_id == number,
                "{path}: trial {} stands in the place of {number}",
                row.run_id
            );
            ensure!(
                left.has_details(row),
                "{path}: of trial {number} the rows in the other files are missing, and later ones are there"
            );
        }
        let finished = 1..=left.trials.rows.len() as u32;
        left.syscalls.rows.retain(|(row, _)| finished.contains(&row.run_id));
        left.events.rows.retain(|(row, _)| finished.contains(&row.run_id));
        left.memory_points.rows.retain(|(row, _)| finished.contains(&row.run_id));
        left.scale.rows.retain(|(row, _)| finished.contains(&row.run_id));
        left.memory.retain(|row| finished.contains(&row.run_id));
        // The floor may have been that of a trial that is dropped.
        for row in &mut left.memory {
            row.over_null_bytes_per_connection = None;
            (row.over_null_low, row.over_null_high) = (None, None);
        }
        memory::subtract_null(&mut left.memory);
        Ok(left)
    }

    /// Whether the trial's rows in the other files are there, as far as its own row tells what
    /// there should be.
    fn has_details(&self, row: &TrialRow) -> bool {
        let calls = || -> u64 {
            let of_trial = self.syscalls.rows.iter().filter(|(call, _)| call.run_id == row.run_id);
            of_trial.map(|(call, _)| call.calls).sum()
        };
        let has_calls = row.syscalls_per_echo.is_none_or(|per_echo| {
            row.echoes.is_some_and(|echoes| calls() as f64 / echoes as f64 == per_echo)
        });
        let has_memory = row.memory_user_bytes_per_connection.is_none()
            || (self.memory_points.rows.iter().any(|(point, _)| point.run_id == row.run_id)
                && self.memory.iter().any(|slope| slope.run_id == row.run_id));
        // Its last step is the one after the server.
        let has_scale = row.pass != Some(Pass::Scale)
            || !row.status.is_usable()
            || self
                .scale
                .rows
                .iter()
                .any(|(step, _)| step.run_id == row.run_id && step.step == "after");
        has_calls && has_memory && has_scale
    }

    /// The rows of the finished trials, the first of which is 1, without a gap.
    pub fn rows(&self) -> Vec<TrialRow> {
        self.trials.rows.iter().map(|(row, _)| row.clone()).collect()
    }

    /// Drops what was written by halves, and opens the files for more. It may itself be broken off
    /// at any moment.
    pub fn reopen(self) -> Result<Results> {
        let histograms = self.folder.join("histograms");
        fs::create_dir_all(&histograms)
            .with_context(|| format!("make {}", histograms.display()))?;
        let is_of_no_trial = |name: &str| {
            let number = name.split_once('-').and_then(|(number, _)| number.parse::<usize>().ok());
            name.ends_with(".hlog") && number.is_some_and(|number| number > self.trials.rows.len())
        };
        remove(&histograms, is_of_no_trial)?;
        // That of the rows before; a new one is made of all.
        let is_of_before = |name: &str| {
            matches!(name, "comparisons.csv" | "capacity.csv") || name.ends_with(NEW_ENDING)
        };
        remove(&self.folder, is_of_before)?;
        let memory = self.folder.join("memory.csv");
        if memory.exists() {
            write_all(&memory, &self.memory)?;
        }
        Ok(Results {
            trials: self.trials.reopen()?,
            syscalls: self.syscalls.reopen()?,
            events: self.events.reopen()?,
            memory_points: self.memory_points.reopen()?,
            scale: self.scale.reopen()?,
            rows: self.rows(),
            memory: self.memory,
            folder: self.folder,
            _lock: self.lock,
        })
    }
}

/// Removes the files of a folder whose names fit.
fn remove(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("read {}", folder.display()))?;
        if entry.file_name().to_str().is_some_and(&fits) {
            let path = entry.path();
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use super::*;
    use crate::results::lock;
    use crate::rows::Outcome;
    use crate::rows::Status;

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
            Pass::Capacity | Pass::Latency => {}
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

    const TRIALS: [(Pass, &str); 6] = [
        (Pass::Syscalls, "epoll-et"),
        (Pass::Memory, "epoll-et"),
        (Pass::Memory, "null"),
        (Pass::Syscalls, "epoll-lt"),
        (Pass::Latency, "epoll-et"),
        (Pass::Scale, "epoll-et"),
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

    /// Adds a trial; one of the latency pass has its histogram before it ends.
    fn add(results: &mut Results, outcome: Outcome) {
        if outcome.row.pass == Some(Pass::Latency) {
            fs::write(results.folder.join(histogram(outcome.row.run_id)), "of this trial").unwrap();
        }
        results.add(outcome).unwrap();
    }

    /// The contents of all files of a folder, by their paths in it.
    type Files = BTreeMap<String, Vec<u8>>;

    fn files(folder: &Path) -> Files {
        let mut files = Files::new();
        for (part, folder) in [("", folder.to_owned()), ("histograms/", folder.join("histograms"))]
        {
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

    /// What the folder holds before the first trial and after each.
    fn states() -> Vec<Files> {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut results = Results::create(&out).unwrap();
        let mut states = vec![files(&out)];
        for outcome in outcomes() {
            add(&mut results, outcome);
            states.push(files(&out));
        }
        states
    }

    fn read(folder: &Path) -> Result<BrokenOff> {
        BrokenOff::read(folder, lock(folder).unwrap())
    }

    /// Takes up the folder of these files, in which `done` trials are finished, and adds the next
    /// one.
    #[track_caller]
    fn assert_goes_on(broken: &Files, done: usize, states: &[Files], what: &str) {
        let folder = folder_of(broken);
        let left = read(folder.path()).unwrap();
        let rows: Vec<_> = outcomes().into_iter().take(done).map(|outcome| outcome.row).collect();
        assert_eq!(left.rows(), rows, "{what}");
        let mut results = left.reopen().unwrap();
        // The trial may have none this time.
        assert!(!folder.path().join(histogram(done as u32 + 1)).exists(), "{what}");
        let next = outcomes().into_iter().nth(done);
        let expected = &states[done + usize::from(next.is_some())];
        next.into_iter().for_each(|outcome| add(&mut results, outcome));
        assert!(files(folder.path()) == *expected, "{what}");
    }

    #[test]
    fn a_run_that_ends_at_any_byte_goes_on_to_the_same_files() {
        let states = states();
        for (done, pair) in states.windows(2).enumerate() {
            let [before, after] = pair else { unreachable!() };
            // In the order in which they are written; each is done when the next one begins.
            let written = [
                histogram(done as u32 + 1).as_str(),
                "syscalls.csv",
                "events.csv",
                "memory_points.csv",
                "scale.csv",
                "memory.csv",
                "trials.csv",
            ]
            .map(str::to_owned);
            let mut broken = before.clone();
            for name in written.iter().filter(|&name| before.get(name) != after.get(name)) {
                let (old, new) = (before.get(name).cloned().unwrap_or_default(), &after[name]);
                if name == "memory.csv" {
                    // It is put in its place as a whole.
                    for length in [0, new.len() / 2, new.len()] {
                        let mut broken = broken.clone();
                        broken
                            .insert(".memory.csv.ringmark-new".to_owned(), new[..length].to_vec());
                        assert_goes_on(&broken, done, &states, name);
                    }
                } else {
                    for length in old.len()..new.len() {
                        broken.insert(name.clone(), new[..length].to_vec());
                        assert_goes_on(
                            &broken,
                            done,
                            &states,
                            &format!("{name} of {length} bytes"),
                        );
                    }
                }
                broken.insert(name.clone(), new.clone());
            }
            assert!(broken == *after);
            assert_goes_on(&broken, done + 1, &states, "between two trials");
        }
    }

    #[test]
    fn a_trial_has_its_row_only_after_its_details() {
        let full =
            || csv::Writer::from_writer(OpenOptions::new().write(true).open("/dev/full").unwrap());
        type Obstacle<'a> = &'a dyn Fn(&mut Results);
        let obstacles: [(usize, Obstacle<'_>); 3] = [
            (0, &|results| results.syscalls = full()),
            (1, &|results| results.memory_points = full()),
            // No file can take the place of a folder.
            (1, &|results| fs::create_dir(results.folder.join("memory.csv")).unwrap()),
        ];
        for (trial, obstacle) in obstacles {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            let mut results = Results::create(&out).unwrap();
            obstacle(&mut results);
            let outcome = outcomes().swap_remove(trial);
            results.add(outcome).unwrap_err();
            assert_eq!(fs::read(out.join("trials.csv")).unwrap(), b"", "of trial {trial}");
        }
    }

    #[test]
    fn what_is_made_of_all_rows_is_not_taken_for_that_of_a_part() {
        let states = states();
        let mut broken = states[3].clone();
        broken.insert("comparisons.csv".to_owned(), b"of three trials".to_vec());
        broken.insert(".manifest.json.ringmark-new".to_owned(), b"{".to_vec());
        assert_goes_on(&broken, 3, &states, "comparisons");
    }

    #[test]
    fn a_floor_that_is_dropped_is_no_floor() {
        let states = states();
        // The slopes of `null`, whose own row did not come to be.
        let mut broken = states[2].clone();
        broken.insert("memory.csv".to_owned(), states[3]["memory.csv"].clone());
        let folder = folder_of(&broken);
        let left = read(folder.path()).unwrap();
        assert_eq!(left.memory.len(), 1);
        assert_eq!(left.memory[0].over_null_bytes_per_connection, None);
        drop(left.reopen().unwrap());
        assert!(files(folder.path()) == states[2]);
    }

    #[test]
    fn a_row_whose_details_were_lost_is_dropped_if_it_is_the_last() {
        let states = states();
        for (done, name, length) in [
            (3, "syscalls.csv", 10),
            (1, "memory_points.csv", 0),
            (2, "memory.csv", 0),
            (5, "scale.csv", 9),
        ] {
            let mut broken = states[done + 1].clone();
            // As it was before, and a bit of what came then.
            let mut bytes = states[done].get(name).cloned().unwrap_or_default();
            bytes.extend_from_slice(&broken[name][bytes.len()..bytes.len() + length]);
            broken.insert(name.to_owned(), bytes);
            assert_goes_on(&broken, done, &states, name);
        }
        // Others have come since: they cannot be told from what should follow.
        let mut broken = states[TRIALS.len()].clone();
        broken.insert("syscalls.csv".to_owned(), Vec::new());
        let message = format!("{:#}", read(folder_of(&broken).path()).err().unwrap());
        assert!(
            message.contains("of trial 1 the rows in the other files are missing"),
            "{message}"
        );
    }

    #[test]
    fn files_that_no_run_leaves_are_refused_and_stay() {
        let whole = states().pop().unwrap();
        let trials = String::from_utf8(whole["trials.csv"].clone()).unwrap();
        let second = whole_lines(trials.as_bytes())[2].len();
        let without_second = {
            let lines = whole_lines(trials.as_bytes());
            [&lines[..2], &lines[3..]].concat().concat()
        };
        assert!(second > 0 && without_second.len() + second == trials.len());
        let cases = [
            ("trials.csv", trials.replacen("run_id", "run", 1).into_bytes(), "its columns"),
            ("trials.csv", trials.replacen("latency", "lateness", 3).into_bytes(), "its columns"),
            ("trials.csv", trials.replacen(",ok,", ",fine,", 1).into_bytes(), "fine"),
            ("trials.csv", [trials.as_bytes(), b"\n\n"].concat(), "lines that are no rows"),
            ("trials.csv", without_second, "trial 3 stands in the place of 2"),
            ("syscalls.csv", b"run_id\n1\n".to_vec(), "its columns"),
        ];
        for (name, bytes, words) in cases {
            let mut broken = whole.clone();
            broken.insert(name.to_owned(), bytes);
            let folder = folder_of(&broken);
            let message = format!("{:#}", read(folder.path()).err().unwrap());
            assert!(message.contains(words) && message.contains(name), "{words}: {message}");
            assert!(files(folder.path()) == broken);
        }
    }

    #[test]
    fn two_do_not_write_the_same_run() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let results = Results::create(&out).unwrap();
        assert!(lock(&out).unwrap_err().to_string().contains("under way"));
        drop(results);
        lock(&out).unwrap();
    }
}
