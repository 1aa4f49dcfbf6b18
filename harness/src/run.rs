//! `ringmark run`: drives a whole matrix, trial by trial.

pub mod calibrate;
mod exclusive;
mod planner;
mod resume;
mod stop;
mod watch;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use self::planner::Planner;
use self::stop::Stop;
use self::watch::Watch;
use crate::machine::{Machine, files};
use crate::matrix::Matrix;
use crate::programs::server::FIRST_PORT;
use crate::programs::{external_server, placement, redact, sides};
use crate::report::RunReport;
use crate::results::manifest::order_line;
use crate::results::origin::Programs;
use crate::results::{self, Manifest, Results, Run};
use crate::rows::{NOT_RUN, Pass, Status, TrialRow};
use crate::trial::{Trial, TrialContext};
use crate::verdict::resolution::Calibration;
use crate::verdict::sweep;
use crate::{doctor, terminal};

/// Runs a matrix and writes its results.
///
/// Each trial has a fresh server, a fresh client and, where permitted, a fresh network namespace.
/// Rows are written as trials end. Ctrl-C lets the trial come to its end, a second one does not;
/// either way, and after whatever else ended a run, --resume goes on with it.
///
/// Exit status: 0, the run came to its end, rejected trials included; 1, it did not, no trial gave
/// figures that can be used, or an arm has nothing but failed trials; 2, the command line is wrong.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ringmark run harness/matrix/quick.toml
  ringmark run harness/matrix/million.toml --connections 100000    as far as memory goes
  ringmark run --resume results/FOLDER                             after Ctrl-C, or a power cut
  ringmark run harness/matrix/standard.toml --server-address 10.0.0.1 \\
      --server-command 'ip netns exec a' --load-command 'ip netns exec b'")]
pub struct Options {
    /// The matrix file; see harness/matrix
    #[arg(required_unless_present_any = ["resume", "replay"])]
    matrix: Option<PathBuf>,
    /// Folder for the results, which must not exist [default: results/TIME-MACHINE-MATRIX]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seed of the order within blocks [default: the time; the manifest records it]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Make the walks ([memory], [scale]) end at so many connections, if they go beyond
    #[arg(long, value_name = "N", conflicts_with_all = ["resume", "replay"])]
    connections: Option<usize>,
    /// The server's program [default: ringmark-server beside this program]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    #[command(flatten)]
    sides: sides::Options,
    /// Go on with the run of this folder, which was broken off
    #[arg(long, value_name = "DIR", conflicts_with_all = ["matrix", "out", "seed", "replay"])]
    resume: Option<PathBuf>,
    /// With --resume: go on although the machine or the programs are others; the manifest will say
    /// in what
    #[arg(long, conflicts_with_all = ["matrix", "replay"])]
    anyway: bool,
    /// Repeat the run of this folder, matrix, seed and order, into a new one
    #[arg(long, value_name = "DIR", conflicts_with_all = ["matrix", "seed"])]
    replay: Option<PathBuf>,
    /// A matrix that stands in no file, and what to call it. Its tables are not printed.
    #[arg(skip)]
    given: Option<(String, Matrix)>,
}

impl Options {
    /// Runs a matrix that stands in no file.
    pub fn of(name: &str, matrix: Matrix, out: PathBuf, server: Option<PathBuf>) -> Self {
        Self {
            matrix: None,
            out: Some(out),
            seed: None,
            connections: None,
            server,
            sides: sides::Options::default(),
            resume: None,
            anyway: false,
            replay: None,
            given: Some((name.to_owned(), matrix)),
        }
    }
}

/// Runs.
pub fn run(options: Options) -> Result<()> {
    // Before anything is read: the run may be under way.
    let lock = options.resume.as_deref().map(results::lock).transpose()?;
    let original =
        options.resume.as_deref().or(options.replay.as_deref()).map(Manifest::read).transpose()?;
    if let (Some(folder), Some(Manifest { finished_utc: Some(time), .. })) =
        (&options.resume, &original)
    {
        RunReport::read(folder)?.print()?;
        let trials = Run::read(folder)?.trials;
        let folder = folder.display();
        terminal::say(&format!(
            "The run in {folder} is complete since {time}: nothing is to be done\n"
        ))?;
        return have_figures(&trials);
    }
    let started = SystemTime::now();
    let prints_tables = options.given.is_none();
    // Any number that differs from run to run; the manifest keeps it.
    let now = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = options.seed.unwrap_or(now.as_secs());
    let (name, matrix, seed) = match (&original, options.given) {
        (Some(manifest), _) => (manifest.name.clone(), manifest.matrix.clone(), manifest.seed),
        (None, Some((name, matrix))) => (name, matrix, seed),
        (None, None) => {
            let path = options.matrix.as_deref().unwrap_or(Path::new(""));
            let name =
                path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("matrix").to_owned();
            let mut matrix = Matrix::read(path)?;
            if let Some(most) = options.connections {
                matrix.limit_connections(most).with_context(|| format!("--connections {most}"))?;
            }
            matrix
                .give_files(ringmark::process::raise_open_files_limit().context("RLIMIT_NOFILE")?);
            (name, matrix, seed)
        }
    };
    let _alone = exclusive::alone(&matrix)?;
    let sides_before = original.as_ref().and_then(|manifest| manifest.sides.as_ref());
    let where_to = match original {
        Some(_) => options.sides.completed_from(sides_before)?,
        None => options.sides,
    };
    let server = server_binary(options.server.as_deref(), where_to.has_own_folder())?;
    let launchers = where_to.look(&server)?;
    let sides = launchers.as_ref().map(|launchers| &launchers.sides);
    let machine = Machine::read();
    let placement = placement::deal(matrix.workers, matrix.hyperthreads, sides)?;
    let folder = options
        .resume
        .clone()
        .or(options.out)
        .unwrap_or_else(|| new_folder(started, &machine, &name));
    ensure!(folder.to_str().is_some(), "{}: a folder's name must be in UTF-8", folder.display());
    // The rates are those of the run that is repeated or gone on with, if it has got so far.
    let expanded = original.as_ref().and_then(|manifest| manifest.expanded.clone());
    let mut planner = Planner::new(matrix.clone(), expanded.clone(), seed);
    let programs = Programs::read(&server, sides)?;
    let mut manifest = Manifest {
        ringmark: env!("CARGO_PKG_VERSION").to_owned(),
        name,
        replays: None,
        matrix: matrix.clone(),
        expanded,
        build_profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        seed,
        order: Vec::new(),
        finished_utc: None,
        resumed: Vec::new(),
        programs: Some(programs.clone()),
        external_files: watch::external_files(&matrix.externals)?,
        externals: external_server::versions(&matrix.externals),
        placement: Some(placement.clone()),
        // One of this machine, over loopback.
        calibration: (folder.parent().filter(|_| sides.is_none()))
            .and_then(|results| Calibration::newest(results, &machine)),
        sides: sides.cloned(),
        machine: machine_of_run(&machine)?,
        doctor: serde_json::Value::Null,
    };
    let watch = Watch::new(
        &server,
        launchers.as_ref(),
        &matrix.externals,
        &programs,
        &manifest.external_files,
    )?;
    let mut trials = Vec::new();
    let (left, examination) = match (lock, original) {
        (Some(lock), Some(original)) => {
            let left =
                Results::open(&folder, lock).with_context(|| folder.display().to_string())?;
            let rows = left.trials();
            manifest = resume::resumed(&folder, original, &manifest, rows.len(), options.anyway)?;
            trials = resume::catch_up(&mut planner, rows, &mut manifest.order)
                .with_context(|| folder.display().to_string())?;
            (Some(left), doctor::examine(&machine, &matrix, sides)?)
        }
        (_, original) => {
            if let (Some(folder), Some(original)) = (&options.replay, original) {
                let again =
                    Planner::new(matrix.clone(), manifest.expanded.clone(), seed).undisturbed();
                manifest.replays = Some(resume::replayed(folder, &original, &manifest, &again)?);
            }
            let examination = doctor::examine(&machine, &matrix, sides)?;
            manifest.doctor = serde_json::to_value(&examination.lines)?;
            (None, examination)
        }
    };

    let bar = progress();
    let go_on = go_on_command(&folder, options.server.as_deref(), &where_to);
    let stop = Stop::listen({
        let (bar, go_on) = (bar.clone(), go_on.clone());
        move || {
            bar.println(format!(
                "The trial comes to its end; Ctrl-C again breaks it off. To go on: {go_on}"
            ));
        }
    })?;
    let results = match left {
        Some(left) => left.reopen()?,
        None => Results::create(&folder)?,
    };
    let context = TrialContext {
        server,
        externals: matrix.externals.clone(),
        workers: matrix.workers,
        first_port: FIRST_PORT,
        ports: matrix.ports.unwrap_or(matrix.workers),
        connection_limits: examination.connection_limits.clone(),
        placement,
        hyperthreads: matrix.hyperthreads,
        launchers,
        interruptions: stop.interruptions(),
    };
    results.write_manifest(&manifest)?;

    let shared_core = context.placement.shared_core == Some(true);
    // Its files are what a run is for: what cannot be said is an error at its end.
    let mut said = (examination.say())
        .and_then(|()| {
            context.launchers.as_ref().map_or(Ok(()), |launchers| launchers.say(shared_core))
        })
        .and_then(|()| say_differences(&manifest))
        .and_then(|()| {
            programs
                .are_of_two_revisions()
                .map_or(Ok(()), |line| terminal::say(&format!("{line}\n\n")))
        })
        .and_then(|()| say_estimate(&planner, &trials, results.trials().len()));
    bar.enable_steady_tick(Duration::from_millis(500));
    let mut course = Course { planner, manifest, results, context, watch, stop, bar };
    let end = course.measure(trials).map_err(|error| stopped(&error, &folder, &go_on));
    course.bar.finish_and_clear();
    let end = end?;
    // It may have been broken off, and has no row: it is run again when the run goes on.
    ensure!(end != End::AtOnce, "interrupted in the midst of a trial; to go on: {go_on}");
    let trials = course.conclude(end).map_err(|error| stopped(&error, &folder, &go_on))?;
    match RunReport::read(&folder) {
        Ok(report) => {
            let drawn = report.draw(&folder);
            if prints_tables {
                said = said.and_then(|()| report.print());
            }
            if let Err(error) = drawn {
                // Its rows are there; that is what the run was for.
                eprintln!(
                    "ringmark: no page was made: {error:#}; `ringmark report {}` tries again",
                    quoted(&folder)
                );
            }
        }
        Err(error) => said = said.and(Err(error)),
    }
    said = said.and_then(|()| terminal::say(&format!("The results are in {}\n", folder.display())));
    ensure!(
        end == End::Complete,
        "interrupted: the trials so far are in {}; to go on: {go_on}",
        folder.display()
    );
    have_figures(&trials).and(said)
}

/// The error of a run that cannot go on.
fn stopped(error: &anyhow::Error, folder: &Path, go_on: &str) -> anyhow::Error {
    anyhow!(
        "{error:#}: the run stops; the trials so far are in {}; then, to go on: {go_on}",
        folder.display()
    )
}

/// How the trials of a run came to an end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// There are no more.
    Complete,
    /// The person wants no more of them.
    AfterTrial,
    /// Nor the one that was under way.
    AtOnce,
}

/// A run in its course.
struct Course {
    planner: Planner,
    manifest: Manifest,
    results: Results,
    context: TrialContext,
    watch: Watch,
    stop: Stop,
    bar: ProgressBar,
}

impl Course {
    /// Runs these trials, and then block after block.
    fn measure(&mut self, mut trials: Vec<Trial>) -> Result<End> {
        while !self.stop.after_trial() {
            if trials.is_empty() {
                let Some(block) = self.planner.next(self.results.trials())? else {
                    return Ok(End::Complete);
                };
                trials = block;
                self.manifest.order.extend(trials.iter().map(describe));
                self.manifest.expanded = self.planner.expanded().cloned();
                self.results.write_manifest(&self.manifest)?;
            }
            let time = time_of(&trials) + time_ahead(&self.planner);
            self.bar.set_length(self.bar.position() + time.as_millis() as u64);
            for trial in std::mem::take(&mut trials) {
                let Trial { task, role, .. } = &trial;
                self.bar.set_message(format!("{} {}: {role}", task.pass().name(), task.name()));
                self.watch.look()?;
                let outcome = match hopeless(self.results.trials(), &trial) {
                    Some(reason) => trial.not_run(&self.context, reason),
                    None => trial.run(&self.context),
                };
                self.bar.inc(trial.task.estimate().as_millis() as u64);
                if self.stop.at_once() {
                    return Ok(End::AtOnce);
                }
                // A program may have been replaced since; then it is not known what was measured.
                self.watch.look()?;
                self.results.add(outcome)?;
                if self.stop.after_trial() {
                    break;
                }
            }
        }
        Ok(End::AfterTrial)
    }

    /// Writes what is made of all trials, and returns these. From then on the run is no longer
    /// under way.
    fn conclude(mut self, end: End) -> Result<Vec<TrialRow>> {
        self.results.finish(self.planner.matrix())?;
        if end == End::Complete {
            self.manifest.finished_utc = Some(files::utc(SystemTime::now()));
            self.results.write_manifest(&self.manifest)?;
            self.results.remove_journal()?;
        }
        Ok(self.results.close())
    }
}

/// Refuses the trials of a whole run if they are of no use, or all of one arm have failed.
fn have_figures(trials: &[TrialRow]) -> Result<()> {
    ensure!(
        trials.iter().any(|row| row.status.is_usable()),
        "no trial of {} gave figures that can be used; trials.csv says why",
        trials.len()
    );
    if let Some(row) = given_up(trials) {
        let (pass, workload, arm) = (row.pass.map_or("", Pass::name), &row.workload, &row.arm);
        bail!(
            "trial {} failed, and no other of {arm} in {pass} {workload} succeeded: {}",
            row.run_id,
            row.reason
        );
    }
    Ok(())
}

/// An arm is tried no more once it has failed so often in the same way, and never came to an end.
const FAILURES_TO_GIVE_UP: usize = 4;

/// Why a trial would fail as all of its arm did, in this workload or in the whole run.
fn hopeless(rows: &[TrialRow], trial: &Trial) -> Option<String> {
    let (pass, workload) = (Some(trial.task.pass()), trial.task.name());
    let of_arm =
        || rows.iter().filter(|row| row.arm == trial.role && row.status != Status::Unsupported);
    let here = || of_arm().filter(|row| row.pass == pass && row.workload == workload);
    let words = failed_alike(&here().collect::<Vec<_>>())
        .or_else(|| failed_alike(&of_arm().collect::<Vec<_>>()))?;
    Some(match words.strip_prefix(NOT_RUN) {
        Some(_) => words.to_owned(),
        None => format!(
            "{NOT_RUN}{FAILURES_TO_GIVE_UP} times before it failed in the same way: {words}"
        ),
    })
}

/// What the last of them failed of, if all failed, and enough of them of that.
fn failed_alike<'a>(rows: &[&'a TrialRow]) -> Option<&'a str> {
    if rows.iter().any(|row| row.status != Status::Failed) {
        return None;
    }
    let [first, rest @ ..] = rows.get(rows.len().checked_sub(FAILURES_TO_GIVE_UP)?..)? else {
        return None;
    };
    // Ports, numbers of processes and times differ.
    let without_numbers = |row: &TrialRow| row.reason.replace(|c: char| c.is_ascii_digit(), "");
    let is_not_run = |row: &TrialRow| row.reason.starts_with(NOT_RUN);
    let words = without_numbers(first);
    let alike = rest.iter().all(|row| is_not_run(row) || without_numbers(row) == words);
    rows.last().filter(|_| alike).map(|row| row.reason.as_str())
}

/// A trial that failed, if its arm has no figures of that pass and workload from any other.
fn given_up(rows: &[TrialRow]) -> Option<&TrialRow> {
    let what = |row: &TrialRow| (row.pass, row.workload.clone(), row.arm.clone());
    let mut failed = rows.iter().filter(|row| row.status == Status::Failed);
    failed
        .find(|row| !rows.iter().any(|other| other.status.is_usable() && what(other) == what(row)))
}

/// Where a run goes if nobody says: a folder that is not there, also if another began within the
/// same second.
pub fn new_folder(started: SystemTime, machine: &Machine, name: &str) -> PathBuf {
    let time = files::utc(started).replace([':', '-'], "");
    free_folder(
        &Path::new("results")
            .join(results::bounded(&format!("{time}-{}-{name}", machine.description))),
    )
}

/// The folder, or the same with the first number behind its name that none has.
fn free_folder(folder: &Path) -> PathBuf {
    let numbered = |number: u32| PathBuf::from(format!("{}-{number}", folder.display()));
    let mut folders = std::iter::once(folder.to_owned()).chain((2..).map(numbered));
    folders.find(|folder| !folder.exists()).unwrap_or_else(|| folder.to_owned())
}

/// Returns what the manifest says of the machine: its facts, and the command that was given.
fn machine_of_run(machine: &Machine) -> Result<serde_json::Value> {
    let mut machine = serde_json::to_value(machine)?;
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    machine["argv"] = redact::redacted_arguments(arguments).into();
    Ok(machine)
}

/// What to type to go on with a run that is broken off.
fn go_on_command(folder: &Path, server: Option<&Path>, where_to: &sides::Options) -> String {
    let program = std::env::args_os().next().unwrap_or_else(|| "ringmark".into());
    let mut command = format!("{} run --resume {}", quoted(Path::new(&program)), quoted(folder));
    if let Some(server) = server {
        command += &format!(" --server {}", quoted(server));
    }
    for (option, value) in where_to.arguments() {
        command += &format!(" {option} {}", quoted(Path::new(&value)));
    }
    command
}

/// A path as a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Says in what this differs from the run that it repeats, or from its own beginning.
fn say_differences(manifest: &Manifest) -> Result<()> {
    let (heading, differences) = match (&manifest.replays, manifest.resumed.last()) {
        (_, Some(resumption)) => (
            "This goes on with a run although not all is as it was:".to_owned(),
            &resumption.differences,
        ),
        (Some(replayed), None) => (
            format!("This repeats {}, but not all is as it was:", replayed.folder),
            &replayed.differences,
        ),
        (None, None) => return Ok(()),
    };
    if differences.is_empty() {
        return Ok(());
    }
    let mut text = heading + "\n";
    for difference in differences {
        text += &format!("  {difference}\n");
    }
    terminal::say(&text)
}

fn time_of(trials: &[Trial]) -> Duration {
    trials.iter().map(|trial| trial.task.estimate()).sum()
}

/// How long the blocks take that are ahead as far as that is known.
fn time_ahead(planner: &Planner) -> Duration {
    planner.ahead().map(|(task, trials)| task.estimate() * trials as u32).sum()
}

/// Says how long it will take, so that one can go away meanwhile. A run that goes on has `done`
/// trials, and those that are `left` of a block.
fn say_estimate(planner: &Planner, left: &[Trial], done: usize) -> Result<()> {
    let count = left.len() + planner.ahead().map(|(_, trials)| trials).sum::<usize>();
    let minutes = (time_of(left) + time_ahead(planner)).as_secs_f64() / 60.0;
    let there = if done > 0 { format!("{done} trials are there; ") } else { String::new() };
    let more = match sweep::unknown(planner.matrix()).next() {
        Some(_) => "to find the rates of the sweeps; then theirs",
        None => "and what the gates turn away once more",
    };
    terminal::say(&format!("{there}{count} trials, about {minutes:.1} min, {more}\n\n"))
}

fn describe(trial: &Trial) -> String {
    let Trial { run_id, block, role, task, .. } = trial;
    order_line(*run_id, task.pass().name(), task.name(), *block, role)
}

/// The bar counts estimated milliseconds, so that the time left is about right although trials
/// differ.
fn progress() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{wide_bar} {percent} %, {eta} left  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// The server's program: the one given, or the one beside this; if it lies elsewhere only its name
/// counts.
pub fn server_binary(given: Option<&Path>, is_elsewhere: bool) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => {
            std::env::current_exe().context("find this program")?.with_file_name("ringmark-server")
        }
    };
    if !path.is_file() && !is_elsewhere {
        bail!(
            "{}: there is no server; build it with `cargo build --release --workspace`, or give --server",
            path.display()
        );
    }
    // A name without a slash would be looked for in PATH.
    std::path::absolute(&path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_of_one_second_have_a_folder_each() {
        let place = tempfile::tempdir().expect("a folder");
        let first = place.path().join("run");
        for name in ["run", "run-2", "run-3"] {
            let free = free_folder(&first);
            assert_eq!(free, place.path().join(name));
            std::fs::create_dir(free).expect("it is free");
        }
    }

    #[test]
    fn an_arm_that_always_fails_alike_is_tried_no_more() {
        let task = |name: &str| {
            let workload = crate::matrix::Workload { name: name.to_owned(), ..Default::default() };
            crate::trial::Task::Syscalls(workload, 1)
        };
        let trial = |name: &str| Trial {
            run_id: 1,
            block: 1,
            order: 1,
            role: "other".to_owned(),
            arm: Default::default(),
            task: task(name),
        };
        let row = |workload: &str, status: Status, reason: &str| TrialRow {
            pass: Some(crate::rows::Pass::Syscalls),
            workload: workload.to_owned(),
            arm: "other".to_owned(),
            status,
            reason: reason.to_owned(),
            ..TrialRow::default()
        };
        let failed = |workload: &str, reason: &str| row(workload, Status::Failed, reason);
        let three = vec![
            failed("a", "port 1: in use"),
            failed("b", "port 2: in use"),
            failed("a", "port 4: in use"),
        ];
        assert_eq!(hopeless(&three, &trial("a")), None);
        let four = [three.clone(), vec![failed("c", "port 33: in use")]].concat();
        let reason = hopeless(&four, &trial("a")).unwrap_or_default();
        assert_eq!(reason, "not run: 4 times before it failed in the same way: port 33: in use");
        // It stays so, with the words said once.
        let five = [four.clone(), vec![failed("a", &reason)]].concat();
        assert_eq!(hopeless(&five, &trial("b")), Some(reason));
        let another = [three.clone(), vec![failed("c", "it ended")]].concat();
        assert_eq!(hopeless(&another, &trial("a")), None);
        // One that came to its end, whatever the gates said, is not hopeless; nor is another arm.
        let once = [vec![row("z", Status::Rejected, "")], four.clone()].concat();
        assert_eq!(hopeless(&once, &trial("a")), None);
        assert_eq!(hopeless(&four, &Trial { role: "x".to_owned(), ..trial("a") }), None);
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for (path, word) in [
            ("results/20261124T021412Z-vm-2cpu-quick", "results/20261124T021412Z-vm-2cpu-quick"),
            ("my runs/a", "'my runs/a'"),
            ("it's", r"'it'\''s'"),
            ("$(x)", "'$(x)'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
