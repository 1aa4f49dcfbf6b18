//! `ringmark run`: drives a whole matrix, trial by trial.

mod planner;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::doctor;
use crate::machine::{self, Machine};
use crate::matrix::Matrix;
use crate::measurement::{Pass, Status};
use crate::report;
use crate::results::{Manifest, Results};
use crate::sweep;
use crate::trial::{Ground, Placement, Trial};
use planner::Planner;

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
    let mut planner = Planner::new(matrix, seed);

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
        workers: planner.matrix().workers,
        placement: Placement::deal(planner.matrix().workers)?,
        interrupted: Arc::clone(&interrupted),
        histograms: results.histograms(),
    };
    let mut manifest = Manifest {
        ringmark: env!("CARGO_PKG_VERSION"),
        name: &name,
        matrix: planner.matrix().clone(),
        seed,
        build_profile: if cfg!(debug_assertions) { "debug" } else { "release" },
        order: Vec::new(),
        finished_utc: None,
        machine: &machine,
        doctor: &examination.lines,
    };
    results.write_manifest(&manifest)?;

    examination.say()?;
    say_estimate(&planner)?;
    let bar = progress();
    let time_ahead = |planner: &Planner| -> u64 {
        planner.ahead().map(|(task, trials)| task.estimate().as_millis() as u64 * trials as u64).sum()
    };
    while !interrupted.load(Ordering::Relaxed)
        && let Some(trials) = planner.next(results.trials())?
    {
        let time_of_block: u64 = trials.iter().map(|trial| trial.task.estimate().as_millis() as u64).sum();
        bar.set_length(bar.position() + time_of_block + time_ahead(&planner));
        manifest.order.extend(trials.iter().map(describe));
        manifest.matrix = planner.matrix().clone();
        results.write_manifest(&manifest)?;
        for trial in &trials {
            bar.set_message(format!("{} {}: {}", trial.task.pass().name(), trial.task.workload(), trial.arm));
            let outcome = trial.run(&ground);
            bar.inc(trial.task.estimate().as_millis() as u64);
            results.add(outcome)?;
            if interrupted.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    bar.finish_and_clear();
    results.finish(planner.matrix())?;
    let broken_off = interrupted.load(Ordering::Relaxed);
    if !broken_off {
        manifest.finished_utc = Some(machine::utc(SystemTime::now()));
        results.write_manifest(&manifest)?;
    }
    report::print(&folder)?;
    writeln!(std::io::stdout(), "The results are in {}", folder.display()).context("stdout")?;
    ensure!(!broken_off, "interrupted: the trials so far are in {}", folder.display());
    let rows = results.trials();
    ensure!(
        rows.iter().any(|row| matches!(row.status, Status::Ok | Status::ClientLimited)),
        "no trial of {} gave figures that can be used; trials.csv says why",
        rows.len()
    );
    Ok(())
}

/// Says how long it will take, so that one can go away meanwhile.
fn say_estimate(planner: &Planner) -> Result<()> {
    let (mut trials, mut all, mut timed) = (0, Duration::ZERO, Duration::ZERO);
    for (task, count) in planner.ahead() {
        let time = task.estimate() * count as u32;
        trials += count;
        all += time;
        timed += if task.pass() == Pass::Latency { time } else { Duration::ZERO };
    }
    let minutes = |time: Duration| time.as_secs_f64() / 60.0;
    let (planned, additional) = planner.matrix().blocks(Pass::Latency);
    let more = minutes(timed) * f64::from(additional) / f64::from(planned);
    let mut text = format!("{trials} trials, about {:.1} min", minutes(all));
    if sweep::unknown(planner.matrix()).next().is_some() {
        text += ", to find the rates of the sweep; then more\n";
    } else {
        text += &format!("; up to {more:.1} min more if blocks have to be run again\n");
    }
    writeln!(std::io::stdout(), "{text}").context("stdout")
}

fn describe(trial: &Trial) -> String {
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
