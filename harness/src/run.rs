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
use crate::machine::{self, Machine};
use crate::matrix::{Contender, Matrix};
use crate::measurement::{Pass, Status};
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
    let started = SystemTime::now();
    let folder = options.out.unwrap_or_else(|| {
        let time = machine::utc(started).replace([':', '-'], "");
        Path::new("results").join(format!("{time}-{}-{name}", machine.description))
    });
    // Any number that differs from run to run; the manifest keeps it.
    let now = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = options.seed.unwrap_or(now.as_secs());
    ensure!(folder.to_str().is_some(), "{}: --out must be a name in UTF-8", folder.display());
    let null = Contender { backend: "null".to_owned(), set: Vec::new() };
    let trials = plan(&matrix, &null, seed);

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
    };
    results.write_manifest(&manifest)?;

    let bar = progress(&trials);
    let mut usable = 0;
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
    ensure!(usable > 0, "no trial of {} gave figures that can be used; trials.csv says why", trials.len());
    Ok(())
}

/// All trials in the order in which they run.
fn plan<'a>(matrix: &'a Matrix, null: &'a Contender, seed: u64) -> Vec<Trial<'a>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut trials = Vec::new();
    let mut block = |number: u32, mut arms: Vec<(String, &'a Contender)>, task: &dyn Fn() -> Task<'a>| {
        arms.shuffle(&mut random);
        for (place, (arm, contender)) in arms.into_iter().enumerate() {
            let run_id = trials.len() as u32 + 1;
            trials.push(Trial {
                run_id,
                block: number,
                order: place as u32 + 1,
                arm,
                contender,
                task: task(),
            });
        }
    };
    let all =
        || matrix.backends.iter().map(|contender| (contender.backend.clone(), contender)).collect::<Vec<_>>();
    for pass in matrix.passes() {
        match (pass, &matrix.syscalls, &matrix.memory, &matrix.latency) {
            (Pass::Syscalls, Some(syscalls), ..) => {
                for workload in &matrix.workloads {
                    block(1, all(), &|| Task::Syscalls(workload, syscalls.echoes));
                }
            }
            (Pass::Memory, _, Some(memory), _) => {
                let mut arms = all();
                arms.push((null.backend.clone(), null));
                block(1, arms, &|| Task::Memory(memory));
            }
            (Pass::Latency, .., Some(latency)) => {
                for number in 1..=latency.blocks {
                    for workload in &matrix.workloads {
                        let mut arms = all();
                        let baseline =
                            arms.iter().find(|(arm, _)| *arm == matrix.baseline).map(|(_, found)| *found);
                        arms.extend(
                            baseline.map(|contender| (comparisons::again(&matrix.baseline), contender)),
                        );
                        block(number, arms, &|| Task::Latency(workload, latency));
                    }
                }
            }
            _ => {}
        }
    }
    trials
}

fn describe(trial: &Trial<'_>) -> String {
    let Trial { run_id, block, arm, task, .. } = trial;
    format!("{run_id} {} {} block {block} {arm}", task.pass().name(), task.workload())
}

/// The bar counts estimated milliseconds, so that the time left is about right although trials differ.
fn progress(trials: &[Trial<'_>]) -> ProgressBar {
    let bar = ProgressBar::new(trials.iter().map(|trial| trial.task.estimate().as_millis() as u64).sum());
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
        let null = Contender { backend: "null".to_owned(), set: Vec::new() };
        let trials = plan(&matrix, &null, 7);
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
        let again: Vec<String> = plan(&matrix, &null, 7).iter().map(describe).collect();
        assert_eq!(again, trials.iter().map(describe).collect::<Vec<_>>(), "the seed repeats the order");
    }
}
