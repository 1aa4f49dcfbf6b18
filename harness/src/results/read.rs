//! Reads the folder of a run.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use ringmark::kernel::parse_version;
use serde_json::Value;

use super::files::is_locked;
use super::journal;
use super::judged::{self, Judged};
use super::manifest::read_value;
use super::run_rows::RunRows;
use super::sides::Sides;
use crate::matrix::Matrix;
use crate::rows::{
    CapacityRow, ComparisonRow, EventRow, FunctionRow, HardwareRow, InstructionRow, MemoryPointRow,
    MemoryRow, ScaleRow, SyscallRow, TrialRow, WindowRow,
};
use crate::verdict::measured::Measured;
use crate::verdict::slopes::Flaw;
#[cfg(test)]
use crate::verdict::{comparisons, sweep};

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// All of its trials have rows.
    Finished,
    /// A process writes its rows.
    UnderWay,
    /// Nobody writes its rows, and some are missing. On a file system without locks it may be under
    /// way.
    BrokenOff,
}

impl RunState {
    /// Returns the state of the folder of a manifest.
    fn of(manifest: &Value, was_locked: bool) -> Self {
        if manifest["finished_utc"].is_string() {
            Self::Finished
        } else if was_locked {
            Self::UnderWay
        } else {
            Self::BrokenOff
        }
    }

    /// Returns what to say of its rows, if they are not all.
    pub fn caveat(self) -> Option<&'static str> {
        match self {
            Self::Finished => None,
            Self::UnderWay => Some("under way: what follows is of the trials so far"),
            Self::BrokenOff => Some("interrupted: only the trials before that are shown"),
        }
    }
}

/// A run that was read.
pub struct Run {
    /// The manifest.
    pub manifest: Value,
    /// How far the run had come when it was read.
    pub state: RunState,
    /// The places of server and load; none if both were here, as usual.
    pub sides: Option<Sides>,
    /// The matrix of the manifest.
    pub matrix: Matrix,
    /// `trials.csv`.
    pub trials: Vec<TrialRow>,
    /// `syscalls.csv`.
    pub syscalls: Vec<SyscallRow>,
    /// `events.csv`.
    pub events: Vec<EventRow>,
    /// `hardware.csv`.
    pub hardware: Vec<HardwareRow>,
    /// `instructions.csv`.
    pub instructions: Vec<InstructionRow>,
    /// `functions.csv`.
    pub functions: Vec<FunctionRow>,
    /// `windows.csv`.
    pub windows: Vec<WindowRow>,
    /// `memory.csv`; slopes whose figures may not be used are `rejected`, or have nothing over
    /// `null`.
    pub memory: Vec<MemoryRow>,
    /// `memory_points.csv`.
    pub memory_points: Vec<MemoryPointRow>,
    /// Why some of the slopes are not used.
    pub flaws: Vec<Flaw>,
    /// `scale.csv`.
    pub scale: Vec<ScaleRow>,
    /// The runs that were made within guests, on other kernels: the folders in `guests`, the oldest
    /// kernel first.
    pub guests: Vec<Run>,
    /// As in `comparisons.csv`, but made from the rows above: a run that was killed has no such
    /// file, and one of an earlier version fewer columns.
    pub comparisons: Vec<ComparisonRow>,
    /// As in `capacity.csv`, but made from the rows above.
    pub capacities: Vec<CapacityRow>,
}

impl Run {
    /// Returns the rows that are compared.
    pub fn measured(&self) -> Measured<'_> {
        let Self { trials, windows, memory, instructions, .. } = self;
        Measured { trials, windows, memory, instructions }
    }

    /// Returns the description of the server's machine; null if it is not known.
    pub fn server_machine(&self) -> &Value {
        match &self.sides {
            Some(sides) => &sides.server.machine,
            None => &self.manifest["machine"],
        }
    }

    /// Returns the release of the server's kernel.
    pub fn kernel(&self) -> &str {
        self.server_machine()["kernel_release"].as_str().unwrap_or("unknown")
    }

    /// Returns where the traffic went, in words.
    pub fn traffic(&self) -> String {
        Sides::traffic(self.sides.as_ref())
    }

    /// Returns how long it took, from its first trial's start; none if it was resumed.
    pub fn time(&self) -> Option<Duration> {
        if self.manifest["resumed"].is_array() {
            return None;
        }
        let at = |text: &str| humantime::parse_rfc3339(text).ok();
        let begun = at(&self.trials.first()?.started_utc)?;
        at(self.manifest["finished_utc"].as_str()?)?.duration_since(begun).ok()
    }

    /// Returns what is missing, if the run is not whole.
    pub fn gap(&self) -> Option<String> {
        let rows = self.trials.len();
        match self.state {
            RunState::UnderWay => {
                return Some(format!("it is under way, with {rows} trials so far"));
            }
            RunState::BrokenOff => return Some(format!("it was interrupted after {rows} trials")),
            RunState::Finished => {}
        }
        let dealt = self.manifest["order"].as_array()?;
        if rows < dealt.len() {
            return Some(format!(
                "its trials.csv has {rows} of the {} trials that its manifest names",
                dealt.len()
            ));
        }
        let dealt: BTreeSet<&str> = dealt.iter().filter_map(Value::as_str).collect();
        let others =
            self.trials.iter().filter(|row| !dealt.contains(row.order_line().as_str())).count();
        (others > 0).then(|| {
            format!("{others} trials of its trials.csv are not those that its manifest names")
        })
    }

    /// Reads a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        // The lock first: a run that ends in between is then taken for one under way.
        let was_locked = is_locked(folder);
        let (path, manifest) = read_value(folder)?;
        let state = RunState::of(&manifest, was_locked);
        let matrix =
            serde_json::from_value(manifest.get("expanded").unwrap_or(&manifest["matrix"]).clone())
                .with_context(|| format!("the matrix in {}", path.display()))?;
        let sides = serde_json::from_value(manifest["sides"].clone()).with_context(|| {
            let path = path.display();
            format!(
                "the sides in {path}: another version of ringmark wrote them, or they were edited"
            )
        })?;
        // A killed run may have rows in its CSV files that have no end.
        let rows = match journal::read(folder)? {
            Some((rows, _)) if state != RunState::Finished => rows,
            _ => RunRows::read(folder)?,
        };
        let Judged { memory, flaws, comparisons, capacities } = Judged::of(&rows, &matrix);
        let RunRows { trials, syscalls, events, hardware, instructions, functions, .. } = rows;
        let RunRows { windows, memory_points, scale, .. } = rows;
        Ok(Self {
            comparisons,
            capacities,
            guests: read_guests(&folder.join("guests"))?,
            manifest,
            state,
            sides,
            matrix,
            trials,
            syscalls,
            events,
            hardware,
            instructions,
            functions,
            windows,
            memory,
            memory_points,
            flaws,
            scale,
        })
    }

    /// Writes `comparisons.csv` and `capacity.csv` as this ringmark judges the rows, so that they
    /// say what the page beside them says. A run that goes on has none yet.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_compared(&self, folder: &Path) -> Result<()> {
        if self.state != RunState::Finished {
            return Ok(());
        }
        judged::write(folder, &self.comparisons, &self.capacities)
    }
}

/// Reads the runs within guests; a run without such has no folder for them.
fn read_guests(folder: &Path) -> Result<Vec<Run>> {
    let folders = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {}", folder.display()))?,
    };
    let runs = folders.map(|entry| Run::read(&entry?.path()));
    let mut runs: Vec<Run> = runs.collect::<Result<_>>()?;
    runs.sort_by_key(|run| parse_version(run.kernel()));
    Ok(runs)
}

#[cfg(test)]
impl Run {
    /// Makes a run without the rows that only tables show.
    pub fn of(matrix: Matrix, trials: Vec<TrialRow>, memory: Vec<MemoryRow>) -> Self {
        Self {
            manifest: Value::Null,
            state: RunState::Finished,
            sides: None,
            comparisons: comparisons::compare(
                Measured { memory: &memory, ..Measured::of(&trials) },
                &matrix,
            ),
            capacities: sweep::capacities(&trials, &matrix),
            matrix,
            trials,
            memory,
            syscalls: Vec::new(),
            events: Vec::new(),
            hardware: Vec::new(),
            instructions: Vec::new(),
            functions: Vec::new(),
            guests: Vec::new(),
            windows: Vec::new(),
            memory_points: Vec::new(),
            flaws: Vec::new(),
            scale: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;
    use crate::results::files::lock;
    use crate::rows::Pass;
    use crate::verdict::readings;

    #[test]
    fn a_run_under_way_is_told_from_one_that_was_broken_off() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = |finished: Value| {
            let manifest = json!({"finished_utc": finished}).to_string();
            fs::write(folder.path().join("manifest.json"), manifest).unwrap();
        };
        let state = || {
            let was_locked = is_locked(folder.path());
            RunState::of(&read_value(folder.path()).unwrap().1, was_locked)
        };
        manifest(Value::Null);
        let held = lock(folder.path()).unwrap();
        assert_eq!(state(), RunState::UnderWay);
        drop(held);
        assert_eq!(state(), RunState::BrokenOff);
        manifest("2026-01-31T23:59:59Z".into());
        assert_eq!((state(), state().caveat()), (RunState::Finished, None));
    }

    #[test]
    fn a_run_that_is_not_whole_says_why() {
        let row = |run_id, block| TrialRow {
            run_id,
            pass: Some(Pass::Latency),
            workload: "w".to_owned(),
            block,
            arm: "epoll-et".to_owned(),
            ..TrialRow::default()
        };
        let matrix = || {
            let head = "question = \"q\"\nbaseline = \"epoll-et\"\nbackends = [{ backend \
            = \"epoll-et\" }]\n";
            toml::from_str::<Matrix>(head).unwrap()
        };
        let of = |run_state, trials| {
            let order = json!({ "order": ["1 latency w block 1 epoll-et", "2 latency w block 2 \
            epoll-et"] });
            Run { manifest: order, state: run_state, ..Run::of(matrix(), trials, Vec::new()) }.gap()
        };
        assert_eq!(of(RunState::Finished, vec![row(1, 1), row(2, 2)]), None);
        for (run_state, trials, words) in [
            (RunState::UnderWay, vec![row(1, 1)], "it is under way, with 1 trials so far"),
            (RunState::BrokenOff, vec![row(1, 1)], "it was interrupted after 1 trials"),
            (
                RunState::Finished,
                vec![row(1, 1)],
                "its trials.csv has 1 of the 2 trials that its manifest names",
            ),
            (
                RunState::Finished,
                vec![row(1, 1), row(2, 2), row(3, 3)],
                "1 trials of its trials.csv are not those that its manifest names",
            ),
        ] {
            assert_eq!(of(run_state, trials).as_deref(), Some(words));
        }
        assert_eq!(Run::of(matrix(), Vec::new(), Vec::new()).gap(), None, "one that does not tell");
    }

    #[test]
    fn sides_that_cannot_be_read_are_not_taken_for_none() {
        let matrix =
            Matrix::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("matrix/smoke.toml")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let read = |sides: Value| {
            let manifest = json!({"matrix": matrix, "sides": sides}).to_string();
            fs::write(folder.path().join("manifest.json"), manifest).unwrap();
            Run::read(folder.path())
                .map(|run| run.sides.is_some())
                .map_err(|error| format!("{error:#}"))
        };
        assert_eq!(read(Value::Null), Ok(false));
        let side = json!({"command": "ssh …", "not_measured": [], "machine": {}, "program": null});
        let mut sides = json!({
            "server_address": "10.0.0.1",
            "over_loopback": false,
            "one_machine": false,
            "server": side,
            "load": side,
        });
        assert_eq!(read(sides.clone()), Ok(true));
        sides["server_address"] = "no address".into();
        let error = read(sides).unwrap_err();
        assert!(error.starts_with("the sides in ") && error.contains("manifest.json: "), "{error}");
        assert!(error.ends_with("invalid IP address syntax"), "{error}");
    }

    #[test]
    fn it_does_not_matter_which_reading_of_a_committed_run_is_called_the_first() {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
        let mut judged = 0;
        for folder in std::fs::read_dir(results).expect("runs").map(|entry| entry.expect("a run")) {
            let Ok(mut run) = Run::read(&folder.path()) else { continue };
            let baseline = run.matrix.baseline.clone();
            let number = |arm: &str| readings::number(arm, &baseline);
            let count = run.trials.iter().filter_map(|row| number(&row.arm)).max();
            let Some(count) = count else { continue };
            let verdicts = |run: &Run| -> Vec<_> {
                let all = comparisons::compare(run.measured(), &run.matrix).into_iter();
                all.map(|row| (row.workload, row.metric, row.arm, row.baseline, row.verdict))
                    .collect()
            };
            let before = verdicts(&run);
            let exchange = |arm: &mut String| {
                if let Some(number) = number(arm) {
                    *arm = readings::reading(&baseline, 1 + number % count);
                }
            };
            let timed = run.trials.iter_mut().filter(|row| row.pass == Some(Pass::Latency));
            timed.for_each(|row| exchange(&mut row.arm));
            run.windows.iter_mut().for_each(|window| exchange(&mut window.arm));
            assert_eq!(verdicts(&run), before, "{}", folder.path().display());
            judged += before.iter().filter(|row| row.4.is_judged()).count();
        }
        assert!(judged > 100, "{judged}");
    }
}
