//! `ringmark run`: drives a whole matrix, trial by trial.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::comparisons;
use crate::doctor;
use crate::machine::{self, Machine};
use crate::matrix::{Contender, Matrix};
use crate::measurement::{Pass, Status, TrialRow};
use crate::report;
use crate::results::{Manifest, Results};
use crate::trial::{Ground, Placement, Task, Trial};

/// Runs a matrix and writes its results.
///
/// Each trial has a fresh server, a fresh client and, where permitted, a fresh network namespace. Rows are
/// written as trials end; Ctrl-C keeps them.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// The matrix file; see harness/matrix
    matrix: PathBuf,
    /// Folder for the results, which must not exist [default: results/TIME-MACHINE-MATRIX]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seed of the order within blocks [default: the time; the manifest records it]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The server's program [default: ringmark-server beside this program]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
}

/// Runs.
pub fn run(options: Options) -> Result<()> {
    let matrix = Matrix::read(&options.matrix)?;
    let name = options.matrix.file_stem().and_then(|stem| stem.to_str()).unwrap_or("matrix").to_owned();
    let server = server_binary(options.server)?;
    let machine = Machine::read();
    let examination = doctor::examine(&machine, &matrix)?;
    let started = SystemTime::now();
    let folder = options.out.unwrap_or_else(|| {
        let time = machine::utc(started).replace([':', '-'], "");
        Path::new("results").join(format!("{time}-{}-{name}", machine.description))
    });
    // Any number that differs from run to run; the manifest keeps it.
    let now = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = options.seed.unwrap_or(now.as_secs());
    ensure!(folder.to_str().is_some(), "{}: --out must be a name in UTF-8", folder.display());
    let null = Contender { backend: "null".to_owned(), ..Contender::default() };
    let mut planner = Planner::new(&matrix, &null, seed);
    let mut trials = planner.planned();

    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second one ends the program at once.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)))
            .context("take Ctrl-C")?;
    }
    let mut results = Results::create(&folder)?;
    let ground = Ground {
        server,
        workers: matrix.workers,
        placement: Placement::deal(matrix.workers)?,
        interrupted: Arc::clone(&interrupted),
        histograms: results.histograms(),
    };
    let mut manifest = Manifest {
        ringmark: env!("CARGO_PKG_VERSION"),
        name: &name,
        matrix: &matrix,
        seed,
        build_profile: if cfg!(debug_assertions) { "debug" } else { "release" },
        order: trials.iter().map(describe).collect(),
        finished_utc: None,
        machine: &machine,
        doctor: &examination.lines,
    };
    results.write_manifest(&manifest)?;

    examination.say()?;
    say_estimate(&matrix, &trials)?;
    let bar = progress();
    let mut usable = 0;
    let mut count = 0;
    while !trials.is_empty() && !interrupted.load(Ordering::Relaxed) {
        count += trials.len();
        bar.inc_length(trials.iter().map(|trial| trial.task.estimate().as_millis() as u64).sum());
        for trial in &trials {
            bar.set_message(format!("{} {}: {}", trial.task.pass().name(), trial.task.workload(), trial.arm));
            let outcome = trial.run(&ground);
            bar.inc(trial.task.estimate().as_millis() as u64);
            usable += usize::from(matches!(outcome.row.status, Status::Ok | Status::ClientLimited));
            results.add(outcome)?;
            if interrupted.load(Ordering::Relaxed) {
                break;
            }
        }
        if !interrupted.load(Ordering::Relaxed) {
            trials = planner.additional(results.trials());
            manifest.order.extend(trials.iter().map(describe));
            results.write_manifest(&manifest)?;
        }
    }
    bar.finish_and_clear();
    results.finish(&matrix)?;
    let broken_off = interrupted.load(Ordering::Relaxed);
    if !broken_off {
        manifest.finished_utc = Some(machine::utc(SystemTime::now()));
        results.write_manifest(&manifest)?;
    }
    report::print(&folder)?;
    writeln!(std::io::stdout(), "The results are in {}", folder.display()).context("stdout")?;
    ensure!(!broken_off, "interrupted: the trials so far are in {}", folder.display());
    ensure!(usable > 0, "no trial of {count} gave figures that can be used; trials.csv says why");
    Ok(())
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
                // What is unsupported stays so.
                if rows.iter().filter(is_of_workload).all(|row| row.status == Status::Unsupported) {
                    continue;
                }
                let complete = comparisons::complete_blocks(rows, pass, workload).len() as u32;
                if complete < planned && last < planned + additional {
                    trials.extend(self.block(last + 1, task));
                }
            }
        }
        trials
    }
}

/// Says how long it will take, so that one can go away meanwhile.
fn say_estimate(matrix: &Matrix, trials: &[Trial<'_>]) -> Result<()> {
    let minutes = |trials: &mut dyn Iterator<Item = &Trial<'_>>| {
        trials.map(|trial| trial.task.estimate()).sum::<Duration>().as_secs_f64() / 60.0
    };
    let (planned, additional) = matrix.blocks(Pass::Latency);
    let timed = minutes(&mut trials.iter().filter(|trial| trial.task.pass() == Pass::Latency));
    let more = timed * f64::from(additional) / f64::from(planned);
    let all = minutes(&mut trials.iter());
    writeln!(
        std::io::stdout(),
        "{} trials, about {all:.1} min; up to {more:.1} min more if blocks have to be run again\n",
        trials.len()
    )
    .context("stdout")
}

fn describe(trial: &Trial<'_>) -> String {
    let Trial { run_id, block, arm, task, .. } = trial;
    format!("{run_id} {} {} block {block} {arm}", task.pass().name(), task.workload())
}

/// The bar counts estimated milliseconds, so that the time left is about right although trials differ.
fn progress() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{wide_bar} {percent} %, {eta} left  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn server_binary(given: Option<PathBuf>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path,
        None => std::env::current_exe().context("find this program")?.with_file_name("ringmark-server"),
    };
    if !path.is_file() {
        bail!(
            "{}: there is no server; build it with `cargo build --release --workspace`, or give --server",
            path.display()
        );
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut unsupported = rows(&planned, &[]);
        for row in unsupported.iter_mut().filter(|row| row.workload == names[0]) {
            row.status = Status::Unsupported;
        }
        assert!(planner.additional(&unsupported).is_empty(), "another block would be no different");

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
