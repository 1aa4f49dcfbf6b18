//! `ringmark run` and `ringmark report` as a person uses them: the built programs, real servers,
//! the files that they leave. The files are read by their column names, not through the program's
//! own types.
#![expect(clippy::unwrap_used, reason = "tests")]

mod advice;
mod bad_input;
mod beside;
mod broken_server;
mod columns;
mod compare;
#[path = "../../../tests/support/confine.rs"]
mod confine;
mod confined;
mod container;
mod count;
mod doctor;
mod external;
mod formats;
mod gates;
mod hardware;
mod help;
mod idle_spinner;
mod interruption;
mod memory;
mod page;
mod paths;
mod placement;
mod processes;
#[path = "../support/programs.rs"]
mod programs;
mod refused_ring;
mod replaced;
mod report;
mod resume;
mod scale;
mod schema;
mod services;
mod several_loads;
mod suspended;
mod sweep;
mod whole_run;
mod workloads;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use tempfile::TempDir;

use programs::RINGMARK;

/// A row of a CSV file, by column.
type Row = HashMap<String, String>;

/// The latency pass of a matrix, as short as it can be.
const LATENCY: &str = "
[latency]
blocks = 1
duration = \"50ms\"
warmup_max = \"50ms\"
";

/// Calls only: a busy machine spoils no trial of theirs.
const CALLS: &str = "
[syscalls]
echoes = 20
";

const FOUR_CONNECTIONS: &str = "
[[workload]]
name = \"four\"
question = \"Do several connections run?\"
connections = 4
message_bytes = 64
";

/// The lines with which every matrix begins; the first backend is the baseline.
fn heading(backends: &[&str]) -> String {
    let list: Vec<String> =
        backends.iter().map(|name| format!("{{ backend = \"{name}\" }}")).collect();
    let baseline = backends[0];
    format!("question = \"q\"\nbaseline = \"{baseline}\"\nbackends = [{}]\n", list.join(", "))
}

/// Returns a matrix that counts the calls of each backend once.
fn calls(backends: &[&str]) -> String {
    heading(backends) + CALLS + FOUR_CONNECTIONS
}

/// A folder of the test's own, with a matrix in it.
struct Place(TempDir);

impl Place {
    fn with(matrix: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path("matrix.toml"), matrix).unwrap();
        place
    }

    /// Holds a finished run with one trial of counted calls.
    fn finished() -> Self {
        static RUN: OnceLock<Files> = OnceLock::new();
        Self::copied_from(&RUN, || {
            let place = Self::with(&calls(&["epoll-et"]));
            success(&mut place.run());
            place
        })
    }

    /// Holds a copy of what the first caller made for all tests.
    fn copied_from(files: &OnceLock<Files>, make: impl FnOnce() -> Self) -> Self {
        let files = files.get_or_init(|| {
            let mut files = Files::new();
            read_files(make().0.path(), Path::new(""), &mut files);
            files
        });
        let place = Self(tempfile::tempdir().unwrap());
        for (path, content) in files {
            match content {
                None => fs::create_dir(place.0.path().join(path)).unwrap(),
                Some(bytes) => fs::write(place.0.path().join(path), bytes).unwrap(),
            }
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns the folder into which its run puts the results.
    fn out(&self) -> PathBuf {
        self.path("out")
    }

    fn command(&self, verb: &str) -> Command {
        programs::server();
        let mut command = Command::new(RINGMARK);
        command.current_dir(self.0.path()).arg(verb);
        command
    }

    /// `ringmark run` of the matrix.
    fn run(&self) -> Command {
        let mut command = self.command("run");
        command.args(["matrix.toml", "--out", "out", "--full"]);
        command
    }

    /// `ringmark run` that goes on with the results.
    fn resume(&self) -> Command {
        let mut command = self.command("run");
        command.args(["--resume", "out", "--full"]);
        command
    }

    /// `ringmark report` of the results.
    fn report(&self) -> Command {
        let mut command = self.command("report");
        command.args(["out", "--full"]);
        command
    }

    /// Makes copies of both programs in it, which a test may change.
    fn copy_programs(&self) {
        for program in [Path::new(RINGMARK), programs::server()] {
            fs::copy(program, self.0.path().join(program.file_name().unwrap())).unwrap();
        }
    }

    /// Copies what a report reads of a run into it, in place of an earlier copy.
    fn copy_of(&self, run: &Path) -> PathBuf {
        let copy = self.path("copy");
        fs::create_dir_all(&copy).unwrap();
        for file in ["manifest.json", "memory.csv"] {
            fs::copy(run.join(file), copy.join(file)).unwrap();
        }
        for file in ["memory_points.csv", "trials.csv"] {
            fs::write(copy.join(file), table(run, file)).unwrap();
        }
        copy
    }

    fn rows(&self, file: &str) -> Vec<Row> {
        rows(&self.out().join(file))
    }

    /// Returns the lines of the trials that have come to their end, also while a run writes them.
    fn trials_so_far(&self) -> Vec<String> {
        let text = fs::read_to_string(self.out().join("trials.csv")).unwrap_or_default();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().skip(1).map(str::to_owned).collect()
    }

    fn rows_so_far(&self) -> usize {
        self.trials_so_far().len()
    }

    fn manifest(&self) -> serde_json::Value {
        manifest(&self.out())
    }
}

/// The paths below a folder, each behind the folders that it is in, which have no content.
type Files = Vec<(PathBuf, Option<Vec<u8>>)>;

fn read_files(root: &Path, folder: &Path, files: &mut Files) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let path = folder.join(entry.unwrap().file_name());
        if root.join(&path).is_dir() {
            files.push((path.clone(), None));
            read_files(root, &path, files);
        } else {
            let bytes = fs::read(root.join(&path)).unwrap();
            files.push((path, Some(bytes)));
        }
    }
}

/// Returns a table of a committed run, where it may be packed. One without rows is not there.
fn table(run: &Path, file: &str) -> String {
    let packed = fs::File::open(run.join(format!("{file}.gz")));
    packed.map_or_else(
        |_| fs::read_to_string(run.join(file)).unwrap_or_default(),
        |packed| std::io::read_to_string(flate2::read::GzDecoder::new(packed)).unwrap(),
    )
}

fn rows(file: &Path) -> Vec<Row> {
    csv::Reader::from_path(file).unwrap().deserialize().map(Result::unwrap).collect()
}

/// Changes the rows of a file, whose columns stay as they are.
fn edit_rows(file: &Path, edit: impl FnOnce(&mut Vec<Row>)) {
    let header = csv::Reader::from_path(file).unwrap().headers().unwrap().clone();
    let mut edited = rows(file);
    edit(&mut edited);
    let mut writer = csv::Writer::from_path(file).unwrap();
    writer.write_record(&header).unwrap();
    for row in edited {
        writer.write_record(header.iter().map(|column| &row[column])).unwrap();
    }
    writer.flush().unwrap();
}

fn set(row: &mut Row, column: &str, cell: &str) {
    row.insert(column.to_owned(), cell.to_owned());
}

#[track_caller]
fn number(row: &Row, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} is `{}`: {row:?}", row[column]))
}

fn manifest(folder: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap()
}

/// The committed quick run that the expectations of the tests were read from.
const QUICK: &str = "-quick-intel";
/// The committed ladder that the tests read: of the same host as the quick run.
const LADDER: &str = "-ladder-intel";

/// Returns the folder of the committed runs.
fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../results")
}

/// Returns a committed run by the end of its folder's name.
fn committed(name: &str) -> PathBuf {
    let mut folders = fs::read_dir(results()).unwrap().map(|entry| entry.unwrap().path());
    folders.find(|folder| folder.to_string_lossy().ends_with(name)).unwrap()
}

/// Whether a reader of this machine gets at the kernel's caches, without which there is no memory
/// pass.
fn slabs_are_readable() -> bool {
    fs::File::open("/proc/slabinfo").is_ok()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn success(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    output
}

/// Runs what must fail, and returns its one line.
#[track_caller]
fn failure(command: &mut Command) -> String {
    one_line(&command.output().unwrap())
}

/// The exit statuses, as `ringmark --help` lists them.
const FAILED: i32 = 1;
const NOT_COMPARABLE: i32 = 3;
const NO_FIGURES: i32 = 4;
const SLOWER: i32 = 5;
const INTERRUPTED: i32 = 130;

/// Runs servers of which some cannot be measured, and returns the one line. A busy machine may
/// spoil the trials of the others too: then there are no figures at all.
#[track_caller]
fn unmeasured(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let is_empty = output.status.code() == Some(NO_FIGURES);
    ended_with(if is_empty { NO_FIGURES } else { FAILED }, &output)
}

#[track_caller]
fn one_line(output: &Output) -> String {
    ended_with(FAILED, output)
}

/// Returns the one line of a command that ended with this status.
#[track_caller]
fn ended_with(status: i32, output: &Output) -> String {
    let line = stderr(output);
    assert_eq!(output.status.code(), Some(status), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.starts_with("ringmark: "), "{line}");
    line.trim_end().to_owned()
}

#[track_caller]
fn assert_has(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "`{part}` is not in: {line}");
    }
}

/// Returns the manifest's order of trials that have these rows.
fn as_dealt(rows: &[Row]) -> Vec<String> {
    rows.iter()
        .map(|row| {
            let [id, pass, workload, block, arm] =
                ["run_id", "pass", "workload", "block", "arm"].map(|column| &row[column]);
            format!("{id} {pass} {workload} block {block} {arm}")
        })
        .collect()
}

/// Every row says whether it may be used, and if not, why.
#[track_caller]
fn assert_reasons(rows: &[Row]) {
    for row in rows {
        match row["status"].as_str() {
            "ok" => {}
            "client-limited" | "rejected" | "unsupported" | "failed" => {
                assert!(!row["reason"].is_empty(), "{row:?}");
            }
            other => panic!("status `{other}`: {row:?}"),
        }
    }
}
