//! `ringmark calibrate`: how small a difference this machine can show in so much time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use ringmark::backend;
use serde_json::Value;

use super::folder::{new_folder, server_binary};
use super::{drive, options as run};
use crate::load::limits::{MeasuringTime, MessageBytes, Rate};
use crate::machine::Machine;
use crate::matrix::connection_limits::ConnectionLimits;
use crate::matrix::{Arm, Latency, Matrix, Workload};
use crate::programs::placement;
use crate::programs::process::Interruptions;
use crate::programs::server::FIRST_PORT;
use crate::results::{self, Run};
use crate::rows::{Pass, Status, TrialRow};
use crate::statistics::median;
use crate::terminal;
use crate::trial::{Task, Trial, TrialContext};
use crate::verdict::blocks::complete_blocks;
use crate::verdict::resolution::{self, Calibration};

/// Measures a server against itself, and against itself with a little more work, to show how small
/// a difference this machine can resolve in so much time.
///
/// An open loop below capacity. Writes the folder of a run, with calibration.json in it; runs that
/// follow on this machine and kernel beside it carry that in their manifest.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ringmark calibrate                              five minutes
  ringmark calibrate --handicaps 5,20 --time 8m   is 5 or 20 % more CPU told apart?")]
pub struct Options {
    /// How long the blocks may take
    #[arg(long, value_name = "TIME", default_value = "5m",
        value_parser = humantime::parse_duration)]
    time: Duration,
    /// The backend
    #[arg(long, value_name = "NAME", default_value = backend::TUNED)]
    backend: String,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: usize,
    /// Size of a message
    #[arg(long, value_name = "N", default_value = "64")]
    message_bytes: MessageBytes,
    /// Messages per second [default: three tenths of what a closed loop carries]
    #[arg(long, value_name = "R")]
    rate: Option<Rate>,
    /// How much more work, in percent of the CPU of an echo
    #[arg(long, value_name = "PERCENT", value_delimiter = ',',
        default_values_t = [2.0, 5.0, 10.0, 20.0])]
    handicaps: Vec<f64>,
    /// The measuring window of a trial
    #[arg(long, value_name = "TIME", default_value = "400ms")]
    window: MeasuringTime,
    /// Folder for the results, which must not exist [default: results/TIME-MACHINE-calibration]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The server's program [default: ringmark-server beside this program]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Judge the calibration in this folder once more, for example after `run --resume` has
    /// completed it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "rate", "server"])]
    from: Option<PathBuf>,
}

/// The warm-up before each window.
const WARMUP: Duration = Duration::from_millis(100);

/// Trials from which the rate and the handicaps follow.
const PROBES: u32 = 3;

/// The rate, as a share of what a closed loop carries: far enough below for a moment that is slow.
const SHARE_OF_CAPACITY: f64 = 0.3;

/// Fewer blocks get no verdict.
const FEWEST_BLOCKS: u32 = 10;

/// Runs.
pub fn run(options: Options) -> Result<()> {
    if let Some(folder) = &options.from {
        return judge(folder);
    }
    for percent in &options.handicaps {
        ensure!(
            *percent > 0.0 && *percent <= 1000.0,
            "--handicaps {percent}: above 0 and at most 1000 percent"
        );
    }
    ensure!(
        backend::find(&options.backend).map_err(anyhow::Error::msg)?.echoes,
        "--backend {}: it echoes nothing, so that there are no messages to calibrate by; give one \
         that does",
        options.backend
    );
    let matrix = plan(&options)?;
    matrix.check()?;
    let folder = options
        .out
        .unwrap_or_else(|| new_folder(SystemTime::now(), &Machine::read(), "calibration"));
    let run = run::Options::of("calibration", matrix, folder.clone(), options.server);
    drive::run(run)?;
    judge(&folder)
}

/// Finds by trials which rate, how much work and how many blocks fit, and returns the matrix.
fn plan(options: &Options) -> Result<Matrix> {
    let mut workload = Workload {
        name: format!("{}-conn-{}B", options.connections, options.message_bytes),
        question: "How far do readings of one server lie apart?".to_owned(),
        connections: options.connections,
        message_bytes: options.message_bytes,
        ..Workload::default()
    };
    let latency = Latency {
        blocks: 1,
        duration: options.window,
        warmup_max: WARMUP.try_into()?,
        precision_percent: None,
        objective_p99_us: None,
    };
    let probe = Probe::new(server_binary(options.server.as_deref(), false)?, &options.backend)?;
    workload.rate_per_s = Some(match options.rate {
        Some(rate) => rate,
        None => {
            let (rows, _) = probe.run(&workload, &latency)?;
            let capacity = median_of(&rows, |row| row.achieved_per_s)?;
            (SHARE_OF_CAPACITY * capacity).round().try_into()?
        }
    });
    let (rows, time_of_trial) = probe.run(&workload, &latency)?;
    let cpu_ns = median_of(&rows, |row| row.server_cpu_ns_per_echo)?;

    let mut backends = vec![Arm { backend: options.backend.clone(), ..Arm::default() }];
    for percent in [0.0].iter().chain(&options.handicaps) {
        let work_ns = (cpu_ns * percent / 100.0).round() as u64;
        backends.push(resolution::arm_with_work(&options.backend, work_ns));
    }
    let time_of_block = time_of_trial * (backends.len() as u32 + 1);
    let blocks = (options.time.as_secs_f64() / time_of_block.as_secs_f64()) as u32;
    let enough = Duration::from_secs((time_of_block * FEWEST_BLOCKS).as_secs() + 1);
    ensure!(
        blocks >= FEWEST_BLOCKS,
        "--time {}: {blocks} blocks fit, and a verdict takes {FEWEST_BLOCKS}: give it {} or more",
        humantime::format_duration(options.time),
        humantime::format_duration(enough)
    );
    Ok(Matrix {
        question: "How small a difference can this machine show?".to_owned(),
        baseline: options.backend.clone(),
        backends,
        externals: Vec::new(),
        workers: 1,
        ports: None,
        hyperthreads: false,
        latency: Some(Latency { blocks, ..latency }),
        syscalls: None,
        memory: None,
        scale: None,
        workloads: vec![workload],
    })
}

/// Judges what a run has measured, and writes and prints it.
fn judge(folder: &Path) -> Result<()> {
    let run = Run::read(folder)?;
    let workload = run.matrix.workloads.first();
    let workload = workload.context("no workload: this is not the folder of a calibration")?;
    let text = |path: &str| run.manifest.pointer(path).and_then(Value::as_str);
    let time = |path: &str| text(path).and_then(|time| humantime::parse_rfc3339(time).ok());
    let (begun, ended) = (time("/machine/read_at"), time("/finished_utc"));
    let took = ended.zip(begun).and_then(|(ended, begun)| ended.duration_since(begun).ok());
    let name = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let found = Calibration {
        begun_utc: text("/machine/read_at").unwrap_or_default().to_owned(),
        folder: name.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        machine: text("/machine/description").unwrap_or_default().to_owned(),
        kernel_release: text("/machine/kernel_release").map(str::to_owned),
        workload: format!("{}, {} messages/s", workload.name, workload.rate().unwrap_or_default()),
        minutes: took.unwrap_or_default().as_secs_f64() / 60.0,
        blocks: complete_blocks(&run.trials, Pass::Latency, &workload.name).len(),
        metrics: resolution::resolutions(&run.trials, &run.matrix),
    };
    let json = serde_json::to_string_pretty(&found)? + "\n";
    results::replace(&folder.join(resolution::FILE), json.as_bytes())?;
    terminal::say(&format!("{}\n", found.to_text()))
}

/// Trials that are no part of a run: what they find decides what the run is.
struct Probe {
    context: TrialContext,
    arm: Arm,
}

impl Probe {
    fn new(server: PathBuf, backend: &str) -> Result<Self> {
        let context = TrialContext {
            server,
            externals: Vec::new(),
            workers: 1,
            first_port: FIRST_PORT,
            ports: 1,
            connection_limits: ConnectionLimits::default(),
            placement: placement::deal(1, false, None)?,
            hyperthreads: false,
            launchers: None,
            interruptions: Interruptions::default(),
        };
        let arm = Arm { backend: backend.to_owned(), ..Arm::default() };
        Ok(Self { context, arm })
    }

    /// Runs trials, and returns their rows and how long one takes.
    fn run(&self, workload: &Workload, latency: &Latency) -> Result<(Vec<TrialRow>, Duration)> {
        let begun = Instant::now();
        let mut rows = Vec::new();
        for number in 1..=PROBES {
            let trial = Trial {
                run_id: number,
                block: number,
                order: 1,
                role: self.arm.name(),
                arm: self.arm.clone(),
                task: Task::Capacity(workload.clone(), latency.clone()),
            };
            let row = trial.run(&self.context).row;
            let fails = matches!(row.status, Status::Failed | Status::Unsupported);
            ensure!(!fails, "{}: {}", self.arm.backend, row.reason);
            rows.push(row);
        }
        Ok((rows, begun.elapsed() / PROBES))
    }
}

fn median_of(rows: &[TrialRow], value: fn(&TrialRow) -> Option<f64>) -> Result<f64> {
    median(&mut rows.iter().filter_map(value).collect::<Vec<_>>()).context("no echo came back")
}
