//! `ringmark run` and `ringmark report` as a person uses them: the built programs, real servers,
//! the files that they leave. The files are read by their column names, not through the program's
//! own types.
#![expect(clippy::unwrap_used, reason = "tests")]

mod advice;
mod bad_input;
mod beside;
mod broken_server;
mod calibrate;
mod compare;
mod confined;
mod container;
mod doctor;
mod external;
mod gates;
mod help;
mod idle_spinner;
mod interruption;
mod memory;
mod page;
mod placement;
mod refused_ring;
mod replaced;
mod report;
mod resume;
mod scale;
mod suspended;
mod sweep;
mod whole_run;
mod workloads;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use tempfile::TempDir;

/// A row of a CSV file, by column.
type Row = HashMap<String, String>;

/// The latency pass of a matrix, as short as it can be.
const LATENCY: &str = "
[latency]
blocks = 1
duration = \"50ms\"
warmup_max = \"50ms\"
";

const FOUR_CONNECTIONS: &str = "
[[workload]]
name = \"four\"
question = \"Do several connections run?\"
connections = 4
message_bytes = 64
";

/// What every matrix begins with; the first backend is the baseline.
fn heading(backends: &[&str]) -> String {
    let list: Vec<String> =
        backends.iter().map(|name| format!("{{ backend = \"{name}\" }}")).collect();
    let baseline = backends[0];
    format!("question = \"q\"\nbaseline = \"{baseline}\"\nbackends = [{}]\n", list.join(", "))
}

/// A folder of the test's own, with a matrix in it.
struct Place(TempDir);

impl Place {
    fn with(matrix: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path("matrix.toml"), matrix).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Where its run puts the results.
    fn out(&self) -> PathBuf {
        self.path("out")
    }

    fn command(&self, verb: &str) -> Command {
        let ringmark = Path::new(env!("CARGO_BIN_EXE_ringmark"));
        let server = ringmark.with_file_name("ringmark-server");
        assert!(
            server.is_file(),
            "{}: no server; cargo builds it for `cargo test --workspace`",
            server.display()
        );
        let mut command = Command::new(ringmark);
        command.current_dir(self.0.path()).arg(verb);
        command
    }

    /// `ringmark run` of the matrix.
    fn run(&self) -> Command {
        let mut command = self.command("run");
        command.args(["matrix.toml", "--out", "out"]);
        command
    }

    fn rows(&self, file: &str) -> Vec<Row> {
        let mut reader = csv::Reader::from_path(self.out().join(file)).unwrap();
        reader.deserialize().map(Result::unwrap).collect()
    }

    fn manifest(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.out().join("manifest.json")).unwrap()).unwrap()
    }
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

#[track_caller]
fn one_line(output: &Output) -> String {
    let line = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{line}");
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

/// What the manifest's order says of trials that have these rows.
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

/// A run that has not ended; it is ended when the test is.
struct Running(Option<Child>);

impl Running {
    fn pid(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: takes no pointer. The child is not reaped yet, so the number is its own.
        assert_eq!(unsafe { libc::kill(self.pid() as libc::pid_t, signal) }, 0);
    }

    fn end(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
