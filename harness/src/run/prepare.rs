//! Prepares a run: its matrix, the machine, the programs, and its folder.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use ringmark::protocol::FORMAT_VERSION;
use serde_json::Value;

use super::options::Options;
use super::planner::Planner;
use super::shell::resume_command;
use super::watch::{self, Watch};
use super::{exclusive, resume};
use crate::count::InstructionCounter;
use crate::doctor::{self, Examination};
use crate::machine::Machine;
use crate::machine::path::PathKind;
use crate::machine::placement::Placement;
use crate::matrix::connection_limits::own_descriptors;
use crate::matrix::{Matrix, NamedMatrix, Workload};
use crate::programs::process::Interruptions;
use crate::programs::server::FIRST_PORT;
use crate::programs::server_plan::server_binary;
use crate::programs::sides::{self, Launchers};
use crate::programs::{external_server, placement, redact};
use crate::results::origin::Programs;
use crate::results::sides::Sides;
use crate::results::{FolderLock, Manifest, Results, new_folder};
use crate::trial::{Trial, TrialContext};

/// A run that may begin.
pub struct Prepared {
    pub folder: PathBuf,
    /// The place where the matrix of a new run was found.
    pub origin: Option<String>,
    /// The command that resumes it.
    pub resume_command: String,
    pub context: TrialContext,
    pub planner: Planner,
    pub manifest: Manifest,
    pub watch: Watch,
    pub examination: Examination,
    /// The rows that an interrupted run left behind.
    pub left: Option<Results>,
    /// The trials of the block that it did not finish.
    pub trials: Vec<Trial>,
    /// Keeps other runs with many connections away.
    pub _alone: Option<UnixListener>,
}

/// The run that is asked for.
struct RunRequest {
    name: String,
    /// The place where its matrix was found, if it is not that of a run.
    origin: Option<String>,
    matrix: Matrix,
    /// The matrix with the rates of its sweeps, if the run that is repeated or resumed got so far.
    expanded: Option<Matrix>,
    seed: u64,
}

impl RunRequest {
    fn of(options: &Options, original: Option<&Manifest>, started: SystemTime) -> Result<Self> {
        if let Some(Manifest { name, matrix, expanded, seed, .. }) = original {
            ensure!(
                options.counting.kernels.is_empty() && options.counting.boots.is_none(),
                "--kernel and --boots are for a new run: this one has those of its manifest"
            );
            return Ok(Self {
                name: name.clone(),
                origin: None,
                matrix: matrix.clone(),
                expanded: expanded.clone(),
                seed: *seed,
            });
        }
        // Any number that differs from run to run; the manifest keeps it.
        let now = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seed = options.seed.unwrap_or(now.as_secs());
        let path = options.matrix.as_deref().context("no matrix is given")?;
        let NamedMatrix { name, mut matrix, origin } = NamedMatrix::named(path)?;
        if let Some(most) = options.connections {
            limit_connections(&mut matrix, most)
                .with_context(|| format!("--connections {most}"))?;
        }
        if options.counts_only {
            matrix = matrix.with_instructions_only();
            let is_counted = matrix.instructions.is_some();
            ensure!(is_counted, "{}: it has no [instructions]", path.display());
        }
        options.counting.change(&mut matrix)?;
        let open_files = ringmark::process::raise_open_files_limit().context("RLIMIT_NOFILE")?;
        give_files(&mut matrix, open_files);
        Ok(Self { name, origin: Some(origin), matrix, expanded: None, seed })
    }
}

impl RunRequest {
    /// Moves what is over 127.0.0.1 to ::1. A run that has begun must be there already.
    fn go_over_ipv6(&mut self, has_begun: bool) -> Result<()> {
        let Matrix { memory, scale, instructions, .. } = &self.matrix;
        ensure!(
            memory.is_none() && scale.is_none() && instructions.is_none(),
            "--server-address ::1: [memory], [scale] and [instructions] are over 127.0.0.1 only; \
             leave them out of the matrix"
        );
        let over_ipv4 = |workload: &&mut Workload| workload.path == PathKind::Loopback;
        for workload in self.matrix.workloads.iter_mut().filter(over_ipv4) {
            ensure!(!has_begun, "--server-address ::1: the run began with 127.0.0.1");
            workload.path = PathKind::Loopback6;
        }
        self.matrix.check()
    }
}

/// Makes the walks end at `most` connections, if they go beyond.
fn limit_connections(matrix: &mut Matrix, most: usize) -> Result<()> {
    ensure!(matrix.most_walked().is_some(), "it is for a matrix with [memory] or [scale]");
    if let Some(memory) = &mut matrix.memory {
        *memory = memory.up_to(most);
    }
    if let Some(scale) = &mut matrix.scale {
        scale.connections = scale.up_to(most);
    }
    matrix.check()
}

/// Takes as many workers as the walks' connections need if each may open `open_files`: the smallest
/// divisor of the ports that is enough, or all of the ports.
fn give_files(matrix: &mut Matrix, open_files: u64) {
    let (Some(ports), Some(most)) = (matrix.ports, matrix.most_walked()) else { return };
    // More than that a table of direct descriptors never has.
    let files = open_files.min(65_536);
    let mut divisors = (matrix.workers..=ports).filter(|&workers| ports.is_multiple_of(workers));
    let enough = divisors.find(|&workers| {
        most.div_ceil(usize::from(workers)) as u64 + own_descriptors(workers, ports) <= files
    });
    matrix.workers = enough.unwrap_or(ports);
}

/// The programs of a run, and the machine that they run on.
struct RunSetting {
    server: PathBuf,
    launchers: Option<Launchers>,
    machine: Machine,
    placement: Placement,
    programs: Programs,
}

impl RunSetting {
    /// Finds them; `sides` are those of the command line.
    fn find(server: Option<&Path>, sides: &sides::Options, matrix: &Matrix) -> Result<Self> {
        let server = server_binary(server, sides.has_own_folder())?;
        let launchers = sides.look(&server)?;
        let found = launchers.as_ref().map(|launchers| &launchers.sides);
        Ok(Self {
            machine: Machine::read(),
            placement: placement::deal(matrix.workers, matrix.hyperthreads, found)?,
            programs: Programs::read(&server, found)?,
            server,
            launchers,
        })
    }

    fn sides(&self) -> Option<&Sides> {
        Some(&self.launchers.as_ref()?.sides)
    }

    /// Watches its files, but for kernels.
    fn watch(&self, matrix: &Matrix, manifest: &Manifest) -> Result<Watch> {
        Watch::new(
            &self.server,
            self.launchers.as_ref(),
            &matrix.externals,
            &self.programs,
            &manifest.external_files,
        )
    }

    /// Returns the context of its trials.
    fn context(
        self,
        matrix: Matrix,
        counter: Result<InstructionCounter, String>,
        examination: &Examination,
    ) -> TrialContext {
        TrialContext {
            server: self.server,
            workers: matrix.workers,
            first_port: FIRST_PORT,
            ports: matrix.ports.unwrap_or(matrix.workers),
            connection_limits: examination.connection_limits.clone(),
            placement: self.placement,
            hyperthreads: matrix.hyperthreads,
            externals: matrix.externals,
            launchers: self.launchers,
            counter,
            interruptions: Interruptions::default(),
        }
    }

    /// Returns the manifest of a run that begins now.
    fn manifest(&self, request: &RunRequest) -> Result<Manifest> {
        let RunRequest { name, matrix, expanded, seed, .. } = request;
        let mut machine = serde_json::to_value(&self.machine)?;
        let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
        machine["argv"] = redact::redacted_arguments(arguments).into();
        Ok(Manifest {
            format_version: FORMAT_VERSION,
            ringmark: env!("CARGO_PKG_VERSION").to_owned(),
            name: name.clone(),
            replays: None,
            matrix: matrix.clone(),
            expanded: expanded.clone(),
            build_profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            seed: *seed,
            order: Vec::new(),
            finished_utc: None,
            resumed: Vec::new(),
            programs: Some(self.programs.clone()),
            external_files: watch::external_files(&matrix.externals)?,
            kernels: Vec::new(),
            externals: external_server::versions(&matrix.externals),
            placement: Some(self.placement.clone()),
            sides: self.sides().cloned(),
            machine,
            doctor: Value::Null,
        })
    }
}

impl Prepared {
    /// Prepares a new run, one that repeats `original`, or, if there is a lock
    /// of its folder, `original` itself.
    pub fn new(
        options: Options,
        original: Option<Manifest>,
        lock: Option<FolderLock>,
    ) -> Result<Self> {
        let started = SystemTime::now();
        let mut request = RunRequest::of(&options, original.as_ref(), started)?;
        let alone = exclusive::alone(&request.matrix)?;
        let sides = match &original {
            Some(manifest) => options.sides.completed_from(manifest.sides.as_ref())?,
            None => options.sides,
        };
        if sides.loopback() == Some(PathKind::Loopback6) {
            request.go_over_ipv6(original.is_some())?;
        }
        let setting = RunSetting::find(options.server.as_deref(), &sides, &request.matrix)?;
        let folder = options.resume.or(options.out);
        let folder = folder.unwrap_or_else(|| new_folder(started, &setting.machine, &request.name));
        let path = folder.display();
        ensure!(folder.to_str().is_some(), "{path}: a folder's name must be in UTF-8");
        let mut manifest = setting.manifest(&request)?;
        let counter = options.counting.counter(
            &request.matrix,
            &setting.server,
            setting.launchers.is_some(),
            options.counts_only,
        )?;
        let kernels = counter.as_ref().map_or(&[][..], |counter| counter.kernels());
        manifest.kernels = watch::program_files(kernels)?;
        let watch = setting.watch(&request.matrix, &manifest)?.with(kernels, &manifest.kernels);
        let RunRequest { matrix, expanded, seed, origin, .. } = request;
        let mut planner = Planner::new(matrix.clone(), expanded.clone(), seed);
        let (mut left, mut trials) = (None, Vec::new());
        if let (Some(lock), Some(original)) = (lock, &original) {
            let found = Results::open(&folder, lock).with_context(|| path.to_string())?;
            let done = found.trials().len();
            manifest = resume::resumed(&folder, original.clone(), &manifest, done, options.anyway)?;
            trials = resume::catch_up(&mut planner, found.measured(), &mut manifest.order)
                .with_context(|| path.to_string())?;
            left = Some(found);
        } else if let (Some(folder), Some(original)) = (&options.replay, &original) {
            let again = Planner::new(matrix.clone(), expanded, seed).undisturbed();
            manifest.replays = Some(resume::replayed(folder, original, &manifest, &again)?);
        }
        let examination = doctor::examine(&setting.machine, &matrix, setting.sides())?;
        if left.is_none() {
            manifest.doctor = serde_json::to_value(&examination.lines)?;
        }
        let context = setting.context(matrix, counter, &examination);
        Ok(Self {
            resume_command: resume_command(
                &folder,
                options.server.as_deref(),
                options.counting.emulator.as_deref(),
                &sides,
            ),
            folder,
            origin,
            context,
            planner,
            manifest,
            watch,
            examination,
            left,
            trials,
            _alone: alone,
        })
    }
}
