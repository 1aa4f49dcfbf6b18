//! The folder of a run: rows are written as trials end, so that a run that is killed keeps what it
//! measured.

mod broken_off;
pub mod origin;
pub mod sides;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::origin::{Programs, Replayed, Resumption};
use self::sides::Sides;
use crate::machine::placement::Placement;
use crate::machine::program_file::ProgramFile;
use crate::matrix::Matrix;
use crate::rows::{
    CapacityRow, ComparisonRow, EventRow, MemoryPointRow, MemoryRow, Outcome, Pass, ScaleRow,
    SyscallRow, TrialRow,
};
use crate::statistics::{Interval, TheilSen};
use crate::verdict::resolution::Calibration;
use crate::verdict::slopes::{self, Flaw};
use crate::verdict::{comparisons, memory, sweep};

pub use crate::results::broken_off::BrokenOff;

/// What a run is, in `manifest.json`: enough to repeat it. Earlier versions wrote less.
#[derive(Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this program and of the files.
    pub ringmark: String,
    /// Name of the matrix.
    pub name: String,
    /// The run that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replays: Option<Replayed>,
    /// The matrix as it was read, with as many workers as its walks need.
    pub matrix: Matrix,
    /// The same with the rates of its sweeps, as soon as they are known; in a run that repeats
    /// another from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expanded: Option<Matrix>,
    /// `release` or `debug`; figures of the latter are of no use.
    pub build_profile: String,
    /// Seed of the order within blocks.
    pub seed: u64,
    /// Trials in the order in which they were dealt, block by block, as `run_id pass workload block
    /// arm`.
    pub order: Vec<String>,
    /// When the last row was written, UTC; null while the run goes on, or if it was broken off.
    pub finished_utc: Option<String>,
    /// Each time that it went on after it was broken off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed: Vec<Resumption>,
    /// What ran.
    pub programs: Option<Programs>,
    /// The versions of the servers that are not ours, by name, as each tells it; or why there is
    /// none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub externals: BTreeMap<String, String>,
    /// The files that their commands name, by the servers' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub external_files: BTreeMap<String, Vec<ProgramFile>>,
    /// Where server and client ran.
    pub placement: Option<Placement>,
    /// Where they were started, if there was a command for either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sides: Option<Sides>,
    /// What it ran on.
    pub machine: Value,
    /// What it could measure, and how well.
    #[serde(default)]
    pub doctor: Value,
    /// How small a difference it showed before this run, if that was looked for there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

impl Manifest {
    /// Reads that of a folder, of which the matrix is checked.
    pub fn read(folder: &Path) -> Result<Self> {
        let (path, manifest) = read_manifest(folder)?;
        let manifest: Self =
            serde_json::from_value(manifest).with_context(|| path.display().to_string())?;
        manifest.matrix.check().with_context(|| format!("the matrix in {}", path.display()))?;
        Ok(manifest)
    }
}

fn read_manifest(folder: &Path) -> Result<(PathBuf, Value)> {
    let path = folder.join("manifest.json");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{}: not the folder of a run", path.display()))?;
    let manifest = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    Ok((path, manifest))
}

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
    /// That of a folder, and its manifest with the path of it.
    fn read(folder: &Path) -> Result<(Self, PathBuf, Value)> {
        // First: a run that ends in between is then taken for one under way, and not for one that
        // was broken off.
        let was_locked = is_locked(folder);
        let (path, manifest) = read_manifest(folder)?;
        let state = match manifest["finished_utc"].is_string() {
            true => Self::Finished,
            false if was_locked => Self::UnderWay,
            false => Self::BrokenOff,
        };
        Ok((state, path, manifest))
    }

    /// What to say of its rows, if they are not all.
    pub fn caveat(self) -> Option<&'static str> {
        match self {
            Self::Finished => None,
            Self::UnderWay => Some("under way: what follows is of the trials so far"),
            Self::BrokenOff => Some("broken off: what follows is of the trials before"),
        }
    }
}

/// Whether a run holds the lock of its folder.
fn is_locked(folder: &Path) -> bool {
    let locked = File::open(folder).map(|folder| folder.try_lock_shared());
    matches!(locked, Ok(Err(TryLockError::WouldBlock)))
}

/// How long a reader may hold the lock that it only looks at.
const LOOK_TIME: Duration = Duration::from_millis(200);

/// Locks a folder, so that two do not write the same run. None where the file system has no locks.
pub fn lock(folder: &Path) -> Result<Option<File>> {
    let opened = File::open(folder);
    let opened =
        opened.with_context(|| format!("{}: not the folder of a run", folder.display()))?;
    let deadline = Instant::now() + LOOK_TIME;
    loop {
        match opened.try_lock() {
            Ok(()) => return Ok(Some(opened)),
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                bail!("{}: this run is still under way; wait for its end", folder.display())
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// An open run folder.
pub struct Results {
    folder: PathBuf,
    trials: csv::Writer<File>,
    syscalls: csv::Writer<File>,
    events: csv::Writer<File>,
    memory_points: csv::Writer<File>,
    scale: csv::Writer<File>,
    rows: Vec<TrialRow>,
    memory: Vec<MemoryRow>,
    /// Held as long as rows may be written.
    _lock: Option<File>,
}

impl Results {
    /// Makes the folder, which must not exist.
    pub fn create(folder: &Path) -> Result<Self> {
        if folder.exists() {
            bail!(
                "{} exists; a run never writes over another: give --out a new folder",
                folder.display()
            );
        }
        fs::create_dir_all(folder.join("histograms")).with_context(|| {
            format!("make {} (--out puts the results elsewhere)", folder.display())
        })?;
        Ok(Self {
            trials: writer(&folder.join("trials.csv"))?,
            syscalls: writer(&folder.join("syscalls.csv"))?,
            events: writer(&folder.join("events.csv"))?,
            memory_points: writer(&folder.join("memory_points.csv"))?,
            scale: writer(&folder.join("scale.csv"))?,
            folder: folder.to_owned(),
            rows: Vec::new(),
            memory: Vec::new(),
            _lock: lock(folder)?,
        })
    }

    /// Writes the manifest, whole or not at all.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let text = serde_json::to_string_pretty(manifest)? + "\n";
        replace(&self.folder.join("manifest.json"), text.as_bytes())
    }

    /// Writes what came of a trial, and what follows from it for the tables that are made of
    /// several. The row in `trials.csv` comes last: it says that the others are there.
    pub fn add(&mut self, outcome: Outcome) -> Result<()> {
        if let Some(log) = &outcome.histogram {
            let row = &outcome.row;
            let path = self.folder.join("histograms").join(histogram_file(
                row.run_id,
                &row.workload,
                &row.arm,
            ));
            fs::write(&path, log).with_context(|| format!("write {}", path.display()))?;
        }
        append(&mut self.syscalls, &outcome.syscalls)?;
        append(&mut self.events, &outcome.events)?;
        append(&mut self.memory_points, &outcome.memory_points)?;
        append(&mut self.scale, &outcome.scale)?;
        if outcome.row.pass == Some(Pass::Memory) {
            let status = outcome.row.status;
            self.memory.extend(outcome.memory.into_iter().map(|row| MemoryRow { status, ..row }));
            memory::subtract_null(&mut self.memory);
            write_all(&self.folder.join("memory.csv"), &self.memory)?;
        }
        append(&mut self.trials, [&outcome.row])?;
        self.rows.push(outcome.row);
        Ok(())
    }

    /// The trials so far.
    pub fn trials(&self) -> &[TrialRow] {
        &self.rows
    }

    /// The trials of a run that writes no more.
    pub fn close(self) -> Vec<TrialRow> {
        self.rows
    }

    /// Compares the arms, once all trials are there.
    pub fn finish(&self, matrix: &Matrix) -> Result<()> {
        let mut memory = self.memory.clone();
        slopes::judge(&mut memory, &[], &self.rows);
        let comparisons = comparisons::compare(&self.rows, &memory, matrix);
        write_all(&self.folder.join("comparisons.csv"), &comparisons)?;
        let capacities = sweep::capacities(&self.rows, matrix);
        if !capacities.is_empty() {
            write_all(&self.folder.join("capacity.csv"), &capacities)?;
        }
        write_all(&self.folder.join("memory.csv"), &self.memory)
    }
}

/// The file of a trial's histogram.
pub fn histogram_file(run_id: u32, workload: &str, arm: &str) -> String {
    bounded(&format!("{run_id:04}-{workload}-{}", arm.replace(' ', "-"))) + ".hlog"
}

fn writer(path: &Path) -> Result<csv::Writer<File>> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    Ok(csv::Writer::from_writer(file.with_context(|| format!("make {}", path.display()))?))
}

fn append<'a, T: Serialize + 'a>(
    writer: &mut csv::Writer<File>,
    rows: impl IntoIterator<Item = &'a T>,
) -> Result<()> {
    const WHY: &str = "a row cannot be written: see to it that there is room on the disk";
    for row in rows {
        writer.serialize(row).context(WHY)?;
    }
    writer.flush().context(WHY)
}

fn write_all<T: Serialize>(path: &Path, rows: &[T]) -> Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    replace(path, &writer.into_inner()?)
}

/// A name that a file may have: NAME_MAX is 255 bytes, and some are appended. A longer one keeps
/// its beginning and a sum of the whole (FNV-1a), so that two with one beginning stay two.
pub fn bounded(name: &str) -> String {
    const MOST: usize = 200;
    if name.len() <= MOST {
        return name.to_owned();
    }
    let sum = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let ending = format!("-{sum:016x}");
    format!("{}{ending}", &name[..name.floor_char_boundary(MOST - ending.len())])
}

/// What the name of a file ends with before the file is in its place.
const NEW_ENDING: &str = ".ringmark-new";

/// Writes a file beside the old one and puts it in its place, so that a reader never sees half of
/// it.
pub fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    // A link stays a link to the file that is replaced.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}{NEW_ENDING}"));
    fs::write(&new, contents).with_context(|| format!("write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("write {}", path.display()))
}

/// A run folder that is read.
pub struct Run {
    /// The manifest.
    pub manifest: Value,
    /// How far it had come when it was read.
    pub state: RunState,
    /// Where the server and the load were; none if both were here, as usual.
    pub sides: Option<Sides>,
    /// The matrix in it.
    pub matrix: Matrix,
    /// `trials.csv`.
    pub trials: Vec<TrialRow>,
    /// `syscalls.csv`.
    pub syscalls: Vec<SyscallRow>,
    /// `events.csv`.
    pub events: Vec<EventRow>,
    /// `memory.csv`, as far as its figures may be used.
    pub memory: Vec<MemoryRow>,
    /// `memory_points.csv`.
    pub memory_points: Vec<MemoryPointRow>,
    /// Why some of the slopes are not used. These are `rejected` above, or have nothing over
    /// `null`.
    pub flaws: Vec<Flaw>,
    /// `scale.csv`.
    pub scale: Vec<ScaleRow>,
    /// As in `comparisons.csv`, but made from the rows above: a run that was killed has none of
    /// that name, and one of an earlier version fewer columns.
    pub comparisons: Vec<ComparisonRow>,
    /// As in `capacity.csv`, made likewise.
    pub capacities: Vec<CapacityRow>,
}

impl Run {
    /// The machine that the server ran on, as it describes itself; null if that is not known.
    pub fn server_machine(&self) -> &Value {
        match &self.sides {
            Some(sides) => &sides.server.machine,
            None => &self.manifest["machine"],
        }
    }

    /// Where the traffic went, in words.
    pub fn traffic(&self) -> String {
        Sides::traffic(self.sides.as_ref())
    }

    /// Says what is missing, if the run is not whole.
    pub fn gap(&self) -> Option<String> {
        let rows = self.trials.len();
        match (self.state, self.manifest["order"].as_array()) {
            (RunState::UnderWay, _) => Some(format!("it is under way, with {rows} trials so far")),
            (RunState::BrokenOff, _) => Some(format!("it was broken off after {rows} trials")),
            (RunState::Finished, Some(dealt)) if rows < dealt.len() => Some(format!(
                "its trials.csv has {rows} of the {} trials that its manifest names",
                dealt.len()
            )),
            (RunState::Finished, Some(dealt)) => {
                let dealt: BTreeSet<&str> = dealt.iter().filter_map(Value::as_str).collect();
                let is_dealt = |row: &&TrialRow| dealt.contains(row.order_line().as_str());
                let others = self.trials.len() - self.trials.iter().filter(is_dealt).count();
                (others > 0).then(|| {
                    format!(
                        "{others} trials of its trials.csv are not those that its manifest names"
                    )
                })
            }
            (RunState::Finished, None) => None,
        }
    }

    /// Reads a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let (state, path, manifest) = RunState::read(folder)?;
        let matrix =
            serde_json::from_value(manifest.get("expanded").unwrap_or(&manifest["matrix"]).clone())
                .with_context(|| format!("the matrix in {}", path.display()))?;
        let sides = serde_json::from_value(manifest["sides"].clone()).with_context(|| {
            let path = path.display();
            format!(
                "the sides in {path}: another version of ringmark wrote them, or they were edited"
            )
        })?;
        let trials: Vec<TrialRow> = read(&folder.join("trials.csv"))?;
        // A row of a trial says that its others are there, and is the last to be written: what has
        // none is a part.
        let ids =
            once_each(&trials).with_context(|| folder.join("trials.csv").display().to_string())?;
        let mut memory: Vec<MemoryRow> = read(&folder.join("memory.csv"))?;
        memory.retain(|row| ids.contains(&row.run_id));
        // Before there was a column for the arm, a backend had but one.
        for row in memory.iter_mut().filter(|row| row.arm.is_empty()) {
            row.arm = row.backend.clone();
        }
        let memory_points: Vec<MemoryPointRow> = read(&folder.join("memory_points.csv"))?;
        bound_slopes(&mut memory, &memory_points);
        let flaws = slopes::judge(&mut memory, &memory_points, &trials);
        let comparisons = comparisons::compare(&trials, &memory, &matrix);
        let capacities = sweep::capacities(&trials, &matrix);
        Ok(Self {
            capacities,
            manifest,
            state,
            sides,
            matrix,
            trials,
            syscalls: read(&folder.join("syscalls.csv"))?,
            events: read(&folder.join("events.csv"))?,
            memory_points,
            flaws,
            scale: read(&folder.join("scale.csv"))?,
            memory,
            comparisons,
        })
    }
}

#[cfg(test)]
impl Run {
    /// A made one, without the files that only tables show.
    pub fn of(matrix: Matrix, trials: Vec<TrialRow>, memory: Vec<MemoryRow>) -> Self {
        Self {
            manifest: Value::Null,
            state: RunState::Finished,
            sides: None,
            comparisons: comparisons::compare(&trials, &memory, &matrix),
            capacities: sweep::capacities(&trials, &matrix),
            matrix,
            trials,
            memory,
            syscalls: Vec::new(),
            events: Vec::new(),
            memory_points: Vec::new(),
            flaws: Vec::new(),
            scale: Vec::new(),
        }
    }
}

/// The numbers of the trials.
fn once_each(trials: &[TrialRow]) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    match trials.iter().find(|row| !ids.insert(row.run_id)) {
        Some(row) => {
            bail!(
                "trial {} stands in it twice: it was edited, or put together of several",
                row.run_id
            )
        }
        None => Ok(ids),
    }
}

/// Gives slopes without an interval the one that their readings have: earlier versions had none of
/// five readings.
fn bound_slopes(memory: &mut [MemoryRow], points: &[MemoryPointRow]) {
    let mut is_new = false;
    for row in memory.iter_mut().filter(|row| row.low.is_none()) {
        let up: Vec<_> = row.way_up(points).collect();
        let line =
            TheilSen::fit(&up).filter(|line| (line.slope - row.bytes_per_connection).abs() < 1e-6);
        if let Some(Interval { low, high }) = line.and_then(|line| line.slope_interval) {
            (row.low, row.high, is_new) = (Some(low), Some(high), true);
        }
    }
    if is_new {
        memory::subtract_null(memory);
    }
}

/// The rows of a file; none if it is not there, which is so for passes that did not run, and for
/// what was not measured yet when the run was made.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    rows(path).with_context(|| path.display().to_string())
}

fn rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let mut reader = csv::Reader::from_path(path)?;
    let header = reader.headers()?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        // Rust reads them as numbers, but no measurement is one.
        let is_number = |cell: &str| cell.parse::<f64>().is_ok_and(|number| !number.is_finite());
        if let Some(index) = record.iter().position(is_number) {
            bail!("line {line}, column '{}': '{}' is no figure", &header[index], &record[index]);
        }
        rows.push(
            record
                .deserialize(Some(&header))
                .map_err(|error| in_words(&error, line, &header, &record))?,
        );
    }
    Ok(rows)
}

/// Which cell cannot be read, by its column's name.
fn in_words(
    error: &csv::Error,
    line: u64,
    header: &csv::StringRecord,
    record: &csv::StringRecord,
) -> anyhow::Error {
    let csv::ErrorKind::Deserialize { err, .. } = error.kind() else {
        return anyhow!("line {line}: {error}");
    };
    let words = err.kind().to_string();
    // The list of all columns that there are would follow.
    let what = words.split(", expected one of").next().unwrap_or_default();
    match err
        .field()
        .and_then(|index| Some((header.get(index as usize)?, record.get(index as usize)?)))
    {
        Some((column, cell)) if !what.contains("unknown field") => {
            anyhow!("line {line}, column '{column}': '{cell}': {what}")
        }
        _ => anyhow!("{what}: another version of ringmark wrote it, or it was edited")
            .context(format!("line {line}")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_under_way_is_told_from_one_that_was_broken_off() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = |finished: Value| {
            let manifest = json!({"finished_utc": finished}).to_string();
            fs::write(folder.path().join("manifest.json"), manifest).unwrap();
        };
        let state = || RunState::read(folder.path()).unwrap().0;
        manifest(Value::Null);
        let held = lock(folder.path()).unwrap();
        assert_eq!(state(), RunState::UnderWay);
        assert!(lock(folder.path()).unwrap_err().to_string().contains("under way"));
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
            let head = "question = \"q\"\nbaseline = \"epoll-et\"\nbackends = [{ backend = \"epoll-et\" }]\n";
            toml::from_str::<Matrix>(head).unwrap()
        };
        let of = |run_state, trials| {
            let order = json!({ "order": ["1 latency w block 1 epoll-et", "2 latency w block 2 epoll-et"] });
            Run { manifest: order, state: run_state, ..Run::of(matrix(), trials, Vec::new()) }.gap()
        };
        assert_eq!(of(RunState::Finished, vec![row(1, 1), row(2, 2)]), None);
        for (run_state, trials, words) in [
            (RunState::UnderWay, vec![row(1, 1)], "it is under way, with 1 trials so far"),
            (RunState::BrokenOff, vec![row(1, 1)], "it was broken off after 1 trials"),
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
    fn names_of_files_are_bounded_and_stay_apart() {
        assert_eq!(bounded("0001-four-epoll-et.hlog"), "0001-four-epoll-et.hlog");
        let long = |end: &str| bounded(&("é".repeat(150) + end));
        assert_eq!(long("").len(), 199);
        assert!(long("").starts_with("éé") && long("a") != long("b"));
        let arm = format!("uring-multishot {}", ["a_knob=12345678"; 40].join(" "));
        let file = histogram_file(7, &"w".repeat(300), &arm);
        assert!(
            file.len() < 220 && file.starts_with("0007-ww") && file.ends_with(".hlog"),
            "{file}"
        );
        assert_ne!(file, histogram_file(7, &"w".repeat(300), &(arm + "9")));
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
            "server_address": "10.0.0.1", "over_loopback": false, "one_machine": false, "server": side, "load": side,
        });
        assert_eq!(read(sides.clone()), Ok(true));
        sides["server_address"] = "no address".into();
        let error = read(sides).unwrap_err();
        assert!(error.starts_with("the sides in ") && error.contains("manifest.json: "), "{error}");
        assert!(error.ends_with("invalid IP address syntax"), "{error}");
    }
}
