//! `ringmark run`: drives a whole matrix, trial by trial.

mod origin;
mod resume;
mod stop;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::comparisons;
use crate::doctor;
use crate::machine::{self, Machine};
use crate::matrix::{Contender, Matrix};
use crate::measurement::{Pass, Status, TrialRow};
use crate::report;
use crate::results::{self, BrokenOff, Manifest, Results};
use crate::trial::{Ground, Placement, Task, Trial};
pub use origin::Programs;
pub use resume::{Replayed, Resumption};
use stop::Stop;

/// Runs a matrix and writes its results.
///
/// Each trial has a fresh server, a fresh client and, where permitted, a fresh network namespace. Rows are
/// written as trials end. Ctrl-C lets the trial come to its end, a second one does not; either way, and after
/// whatever else ended a run, --resume goes on with it.
#[derive(clap::Args, Debug)]
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
    /// The server's program [default: ringmark-server beside this program]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Go on with the run of this folder, which was broken off
    #[arg(long, value_name = "DIR", conflicts_with_all = ["matrix", "out", "seed", "replay"])]
    resume: Option<PathBuf>,
    /// With --resume: go on although the machine or the programs are others; the manifest will say in what
    #[arg(long, conflicts_with_all = ["matrix", "replay"])]
    anyway: bool,
    /// Repeat the run of this folder, matrix, seed and order, into a new one
    #[arg(long, value_name = "DIR", conflicts_with_all = ["matrix", "seed"])]
    replay: Option<PathBuf>,
}

/// Runs.
pub fn run(options: Options) -> Result<()> {
    // Before anything is read: the run may be under way.
    let lock = options.resume.as_deref().map(results::lock).transpose()?;
    let original = options.resume.as_deref().or(options.replay.as_deref()).map(Manifest::read).transpose()?;
    if let (Some(folder), Some(Manifest { finished_utc: Some(time), .. })) = (&options.resume, &original) {
        report::print(folder)?;
        let folder = folder.display();
        return writeln!(
            std::io::stdout(),
            "The run in {folder} is complete since {time}: nothing is to be done"
        )
        .context("stdout");
    }
    let started = SystemTime::now();
    let (name, matrix, seed) = match (&original, &options.matrix) {
        (Some(manifest), _) => (manifest.name.clone(), manifest.matrix.clone(), manifest.seed),
        (None, path) => {
            let path = path.as_deref().unwrap_or(Path::new(""));
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("matrix").to_owned();
            // Any number that differs from run to run; the manifest keeps it.
            let now = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            (name, Matrix::read(path)?, options.seed.unwrap_or(now.as_secs()))
        }
    };
    let server = server_binary(options.server.as_deref())?;
    let machine = Machine::read();
    let placement = Placement::deal(matrix.workers)?;
    let folder = options.resume.clone().or(options.out).unwrap_or_else(|| {
        let time = machine::utc(started).replace([':', '-'], "");
        Path::new("results").join(format!("{time}-{}-{name}", machine.description))
    });
    ensure!(folder.to_str().is_some(), "{}: a folder's name must be in UTF-8", folder.display());
    let null = Contender { backend: "null".to_owned(), ..Contender::default() };
    let mut planner = Planner::new(&matrix, &null, seed);
    let mut manifest = Manifest {
        ringmark: env!("CARGO_PKG_VERSION").to_owned(),
        name,
        replays: None,
        matrix: matrix.clone(),
        build_profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        seed,
        order: Vec::new(),
        finished_utc: None,
        resumed: Vec::new(),
        programs: Some(Programs::read(&server)?),
        placement: Some(placement.clone()),
        machine: serde_json::to_value(&machine)?,
        doctor: serde_json::Value::Null,
    };
    let (left, mut trials, examination) = match (lock, original) {
        (Some(lock), Some(original)) => {
            let left = BrokenOff::read(&folder, lock).with_context(|| folder.display().to_string())?;
            let rows = left.rows();
            manifest = resume::resumed(&folder, original, &manifest, rows.len(), options.anyway)?;
            let trials = resume::catch_up(&mut planner, &rows, &mut manifest.order)
                .with_context(|| folder.display().to_string())?;
            (Some(left), trials, doctor::examine(&machine, &matrix)?)
        }
        (_, original) => {
            let trials = planner.planned();
            manifest.order = trials.iter().map(describe).collect();
            if let (Some(folder), Some(original)) = (&options.replay, original) {
                manifest.replays = Some(resume::replayed(folder, &original, &manifest)?);
            }
            let examination = doctor::examine(&machine, &matrix)?;
            manifest.doctor = serde_json::to_value(&examination.lines)?;
            (None, trials, examination)
        }
    };

    let bar = progress();
    let go_on = go_on_command(&folder, options.server.as_deref());
    let stop = Stop::listen({
        let (bar, go_on) = (bar.clone(), go_on.clone());
        move || {
            bar.println(format!("The trial comes to its end; Ctrl-C again breaks it off. To go on: {go_on}"));
        }
    })?;
    let mut results = match left {
        Some(left) => left.reopen()?,
        None => Results::create(&folder)?,
    };
    let ground = Ground {
        server,
        workers: matrix.workers,
        placement,
        interrupted: stop.interrupted(),
        histograms: results.histograms(),
    };
    results.write_manifest(&manifest)?;

    examination.say()?;
    say_differences(&manifest)?;
    say_estimate(&matrix, &trials, results.trials().len())?;
    bar.enable_steady_tick(Duration::from_millis(500));
    while !trials.is_empty() && !stop.after_trial() {
        bar.inc_length(trials.iter().map(|trial| trial.task.estimate().as_millis() as u64).sum());
        for trial in &trials {
            bar.set_message(format!("{} {}: {}", trial.task.pass().name(), trial.task.workload(), trial.arm));
            let outcome = trial.run(&ground);
            bar.inc(trial.task.estimate().as_millis() as u64);
            if stop.at_once() {
                // It may have been broken off, and has no row: it is run again when the run goes on.
                bar.finish_and_clear();
                bail!("interrupted in the midst of a trial; to go on: {go_on}");
            }
            results.add(outcome)?;
            if stop.after_trial() {
                break;
            }
        }
        if results.trials().len() == planner.count as usize {
            trials = planner.additional(results.trials());
            manifest.order.extend(trials.iter().map(describe));
            results.write_manifest(&manifest)?;
        }
    }
    bar.finish_and_clear();
    results.finish(&matrix)?;
    let is_complete = trials.is_empty();
    if is_complete {
        manifest.finished_utc = Some(machine::utc(SystemTime::now()));
        results.write_manifest(&manifest)?;
    }
    report::print(&folder)?;
    writeln!(std::io::stdout(), "The results are in {}", folder.display()).context("stdout")?;
    ensure!(is_complete, "interrupted: the trials so far are in {}; to go on: {go_on}", folder.display());
    let is_usable = |row: &TrialRow| matches!(row.status, Status::Ok | Status::ClientLimited);
    ensure!(
        results.trials().iter().any(is_usable),
        "no trial of {} gave figures that can be used; trials.csv says why",
        results.trials().len()
    );
    Ok(())
}

/// What to type to go on with a run that is broken off.
fn go_on_command(folder: &Path, server: Option<&Path>) -> String {
    let program = std::env::args_os().next().unwrap_or_else(|| "ringmark".into());
    let mut command = format!("{} run --resume {}", quoted(Path::new(&program)), quoted(folder));
    if let Some(server) = server {
        command += &format!(" --server {}", quoted(server));
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
        (_, Some(resumption)) => {
            ("This goes on with a run although not all is as it was:".to_owned(), &resumption.differences)
        }
        (Some(replayed), None) => {
            (format!("This repeats {}, but not all is as it was:", replayed.folder), &replayed.differences)
        }
        (None, None) => return Ok(()),
    };
    if differences.is_empty() {
        return Ok(());
    }
    let mut text = heading + "\n";
    for difference in differences {
        text += &format!("  {difference}\n");
    }
    std::io::stdout().write_all(text.as_bytes()).context("stdout")
}

/// Deals the trials of a run into blocks, each in an order of its own.
struct Planner<'a> {
    matrix: &'a Matrix,
    /// The floor of the memory pass.
    null: &'a Contender,
    random: StdRng,
    /// How many trials were dealt.
    count: u32,
}

impl<'a> Planner<'a> {
    fn new(matrix: &'a Matrix, null: &'a Contender, seed: u64) -> Self {
        Self { matrix, null, random: StdRng::seed_from_u64(seed), count: 0 }
    }

    /// What each workload is in a pass.
    fn tasks(&self, pass: Pass) -> Vec<Task<'a>> {
        let Matrix { workloads, syscalls, memory, latency, .. } = self.matrix;
        match pass {
            Pass::Syscalls => syscalls
                .iter()
                .flat_map(|syscalls| {
                    workloads.iter().map(|workload| Task::Syscalls(workload, syscalls.echoes))
                })
                .collect(),
            Pass::Memory => memory.iter().map(Task::Memory).collect(),
            Pass::Latency => latency
                .iter()
                .flat_map(|latency| workloads.iter().map(move |workload| Task::Latency(workload, latency)))
                .collect(),
        }
    }

    fn block(&mut self, number: u32, task: Task<'a>) -> Vec<Trial<'a>> {
        let matrix = self.matrix;
        let mut arms: Vec<_> = matrix.backends.iter().map(|contender| (contender.arm(), contender)).collect();
        match task.pass() {
            Pass::Syscalls => {}
            Pass::Memory => arms.push((self.null.arm(), self.null)),
            Pass::Latency => {
                let baseline = arms.iter().find(|(arm, _)| *arm == matrix.baseline).map(|&(_, found)| found);
                arms.extend(baseline.map(|contender| (comparisons::again(&matrix.baseline), contender)));
            }
        }
        arms.shuffle(&mut self.random);
        let trials = arms.into_iter().zip(1..).map(|((arm, contender), order)| {
            self.count += 1;
            Trial { run_id: self.count, block: number, order, arm, contender, task }
        });
        trials.collect()
    }

    /// The blocks that the matrix asks for, in the order in which they run.
    fn planned(&mut self) -> Vec<Trial<'a>> {
        let mut trials = Vec::new();
        for pass in self.matrix.passes() {
            for number in 1..=self.matrix.blocks(pass).0 {
                for task in self.tasks(pass) {
                    trials.extend(self.block(number, task));
                }
            }
        }
        trials
    }

    /// One more block of each workload that has fewer than it should and may still have more.
    fn additional(&mut self, rows: &[TrialRow]) -> Vec<Trial<'a>> {
        let mut trials = Vec::new();
        for pass in self.matrix.passes() {
            let (planned, additional) = self.matrix.blocks(pass);
            for task in self.tasks(pass) {
                let workload = task.workload();
                let is_of_workload = |row: &&TrialRow| row.pass == Some(pass) && row.workload == workload;
                let last = rows.iter().filter(is_of_workload).map(|row| row.block).max().unwrap_or_default();
                let complete = comparisons::complete_blocks(rows, pass, workload).len() as u32;
                if complete < planned && last < planned + additional {
                    trials.extend(self.block(last + 1, task));
                }
            }
        }
        trials
    }
}

/// Says how long it will take, so that one can go away meanwhile. A run that goes on has `done` trials.
fn say_estimate(matrix: &Matrix, trials: &[Trial<'_>], done: usize) -> Result<()> {
    let minutes = |trials: &mut dyn Iterator<Item = &Trial<'_>>| {
        trials.map(|trial| trial.task.estimate()).sum::<Duration>().as_secs_f64() / 60.0
    };
    let count = trials.len();
    let all = minutes(&mut trials.iter());
    let text = if done > 0 {
        format!(
            "{done} trials are there; {count} more, about {all:.1} min, and what blocks have to be run again\n"
        )
    } else {
        let (planned, additional) = matrix.blocks(Pass::Latency);
        let timed = minutes(&mut trials.iter().filter(|trial| trial.task.pass() == Pass::Latency));
        let more = timed * f64::from(additional) / f64::from(planned);
        format!(
            "{count} trials, about {all:.1} min; up to {more:.1} min more if blocks have to be run again\n"
        )
    };
    writeln!(std::io::stdout(), "{text}").context("stdout")
}

fn describe(trial: &Trial<'_>) -> String {
    let Trial { run_id, block, arm, task, .. } = trial;
    line(*run_id, task.pass().name(), task.workload(), *block, arm)
}

/// A trial in the manifest's order.
fn line(run_id: u32, pass: &str, workload: &str, block: u32, arm: &str) -> String {
    format!("{run_id} {pass} {workload} block {block} {arm}")
}

/// The bar counts estimated milliseconds, so that the time left is about right although trials differ.
fn progress() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{wide_bar} {percent} %, {eta} left  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn server_binary(given: Option<&Path>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().context("find this program")?.with_file_name("ringmark-server"),
    };
    if !path.is_file() {
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

    #[test]
    fn every_block_holds_every_arm_once_in_an_order_of_its_own() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("matrix/quick.toml");
        let matrix = Matrix::read(&file).expect("is good");
        let null = Contender { backend: "null".to_owned(), ..Contender::default() };
        let plan = || Planner::new(&matrix, &null, 7).planned();
        let trials = plan();
        let arms = |pass, block, workload: &str| -> Vec<&str> {
            let mut found: Vec<_> = trials
                .iter()
                .filter(|trial| {
                    trial.task.pass() == pass && trial.block == block && trial.task.workload() == workload
                })
                .collect();
            found.sort_by_key(|trial| trial.order);
            found.iter().map(|trial| trial.arm.as_str()).collect()
        };
        let latency = matrix.latency.as_ref().expect("given");
        let mut orders = Vec::new();
        for block in 1..=latency.blocks {
            for workload in &matrix.workloads {
                let mut arms = arms(Pass::Latency, block, &workload.name);
                orders.push(arms.clone());
                arms.sort_unstable();
                assert_eq!(arms, ["epoll-document", "epoll-et", "epoll-et (again)", "uring-multishot"]);
            }
        }
        orders.dedup();
        assert!(orders.len() > 1, "shuffled");
        assert!(arms(Pass::Memory, 1, "memory").contains(&"null"));
        let again: Vec<String> = plan().iter().map(describe).collect();
        assert_eq!(again, trials.iter().map(describe).collect::<Vec<_>>(), "the seed repeats the order");
    }
    /// The rows of trials of which those at `lost`, a workload and block, were rejected.
    fn rows(trials: &[Trial<'_>], lost: &[(&str, u32)]) -> Vec<TrialRow> {
        let row = |trial: &Trial<'_>| {
            let is_lost = lost.contains(&(trial.task.workload(), trial.block)) && trial.order == 1;
            TrialRow {
                pass: Some(trial.task.pass()),
                workload: trial.task.workload().to_owned(),
                block: trial.block,
                arm: trial.arm.clone(),
                status: if is_lost { Status::Rejected } else { Status::Ok },
                ..TrialRow::default()
            }
        };
        trials.iter().map(row).collect()
    }

    #[test]
    fn a_workload_that_lost_blocks_gets_others_up_to_a_bound() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("matrix/quick.toml");
        let mut matrix = Matrix::read(&file).expect("is good");
        matrix.latency.as_mut().expect("given").blocks = 10;
        matrix.workloads.truncate(2);
        let names: Vec<_> = matrix.workloads.iter().map(|workload| workload.name.clone()).collect();
        let null = Contender { backend: "null".to_owned(), ..Contender::default() };
        let mut planner = Planner::new(&matrix, &null, 7);
        let planned = planner.planned();
        let blocks = |trials: &[Trial<'_>]| -> Vec<(String, u32)> {
            let mut blocks: Vec<_> =
                trials.iter().map(|trial| (trial.task.workload().to_owned(), trial.block)).collect();
            blocks.dedup();
            blocks
        };

        assert!(planner.additional(&rows(&planned, &[])).is_empty());

        // Two blocks lost by one workload only: it gets one, and then, because that is lost too, two more.
        let lost = [(names[1].as_str(), 3), (&names[1], 8), (&names[1], 11)];
        let mut done = rows(&planned, &lost);
        for number in [11, 12, 13] {
            let more = planner.additional(&done);
            assert_eq!(blocks(&more), [(names[1].clone(), number)]);
            let mut arms: Vec<_> = more.iter().map(|trial| trial.arm.as_str()).collect();
            arms.sort_unstable();
            assert_eq!(arms, ["epoll-document", "epoll-et", "epoll-et (again)", "uring-multishot"]);
            assert_eq!(more[0].run_id as usize, done.len() + 1);
            done.extend(rows(&more, &lost));
        }
        assert_eq!(comparisons::complete_blocks(&done, Pass::Latency, &names[1]).len(), 10);
        assert!(planner.additional(&done).is_empty());

        // On a machine that is never quiet it ends after a quarter more.
        let lost: Vec<_> = (2..=20).map(|block| (names[0].as_str(), block)).collect();
        let mut done = rows(&planned, &lost);
        for number in [11, 12, 13] {
            let more = planner.additional(&done);
            assert_eq!(blocks(&more), [(names[0].clone(), number)]);
            done.extend(rows(&more, &lost));
        }
        assert!(planner.additional(&done).is_empty());
    }
}
