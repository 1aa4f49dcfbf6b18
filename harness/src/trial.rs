//! One trial: a fresh server, a fresh client, a fresh network namespace, and one pass over them.

mod clock;
pub mod gates;
mod latency;
mod memory;
mod ramp;
mod scale;
mod syscalls;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use ringmark::backend;
use ringmark::backend::document::event_table::MAX_EPOLL_EVENTS;

use crate::load::files::FileTables;
use crate::load::result::{Arrival, ChurnResult};
use crate::machine::files;
use crate::machine::network_namespace::NetworkNamespace;
use crate::machine::placement::Placement;
use crate::matrix::connection_limits::{self, ConnectionLimits, OWN_DESCRIPTORS, own_descriptors};
use crate::matrix::external::{External, visible};
use crate::matrix::{Arm, Memory, Scale, Workload};
use crate::programs::client::Load;
use crate::programs::counters::ServerCounters;
use crate::programs::placement;
use crate::programs::process::Interruptions;
use crate::programs::server::{RefusedByKernel, Server, ServerPlan};
use crate::programs::sides::Launchers;
use crate::results::sides::Sides;
use crate::rows::{Outcome, Pass, Status, TrialRow};

/// What is the same for every trial of a run, unless its workload has workers of its own.
#[derive(Clone)]
pub struct TrialContext {
    /// The server's program.
    pub server: PathBuf,
    /// The servers that are not ours.
    pub externals: Vec<External>,
    /// Worker threads of the server.
    pub workers: u16,
    /// The first of its ports, in a fresh network namespace or where a command leads it.
    pub first_port: u16,
    /// Its ports.
    pub ports: u16,
    /// How many connections this machine has room for.
    pub connection_limits: ConnectionLimits,
    /// Which CPUs server and client run on.
    pub placement: Placement,
    /// Whether they may be hyperthreads of one core.
    pub hyperthreads: bool,
    /// Where the two sides are, if the run has a command for either.
    pub launchers: Option<Launchers>,
    /// Who wants no more of the trial, and who was stopped within it.
    pub interruptions: Interruptions,
}

impl TrialContext {
    /// Where the two sides are, if the run has a command for either.
    pub fn sides(&self) -> Option<&Sides> {
        Some(&self.launchers.as_ref()?.sides)
    }

    /// The server of that name, if it is not ours.
    fn external(&self, backend: &str) -> Option<&External> {
        self.externals.iter().find(|external| external.name == backend)
    }

    /// The context of a trial whose workload has so many workers; if they would not have a CPU each,
    /// why not.
    fn with_workers(&self, workers: u16) -> Result<Self, String> {
        let placement = placement::deal(workers, self.hyperthreads, self.sides())
            .map_err(|error| format!("{error:#}"))?;
        let Some(mut reason) = too_few(workers, placement.server_cpus()) else {
            return Ok(Self { workers, ports: workers, placement, ..self.clone() });
        };
        let with_all = placement::deal(workers, true, self.sides());
        if with_all.is_ok_and(|placement| too_few(workers, placement.server_cpus()).is_none()) {
            reason +=
                " on cores of their own; `hyperthreads = true` in the matrix lets them share cores";
        }
        Err(reason)
    }
}

/// Why so many workers cannot have a CPU each.
fn too_few(workers: u16, cpus: Option<usize>) -> Option<String> {
    let has = || {
        cpus.map_or_else(|| "how many it has is not known".to_owned(), |cpus| format!("has {cpus}"))
    };
    (usize::from(workers) > cpus.unwrap_or(1))
        .then(|| format!("needs {workers} CPUs for the server, {}", has()))
}

/// What is measured in a trial.
#[derive(Clone, Debug)]
pub enum Task {
    /// Calls, over this many echoes in all.
    Syscalls(Workload, u64),
    /// Memory.
    Memory(Memory),
    /// Ever more connections.
    Scale(Scale),
    /// The throughput of a closed loop.
    Capacity(Workload, crate::matrix::Latency),
    /// Latency.
    Latency(Workload, crate::matrix::Latency),
}

impl Task {
    /// The pass that it belongs to.
    pub fn pass(&self) -> Pass {
        match self {
            Task::Syscalls(..) => Pass::Syscalls,
            Task::Memory(_) => Pass::Memory,
            Task::Scale(_) => Pass::Scale,
            Task::Capacity(..) => Pass::Capacity,
            Task::Latency(..) => Pass::Latency,
        }
    }

    /// The workload's name in the results.
    pub fn workload(&self) -> &str {
        self.load().map_or(self.pass().name(), |workload| &workload.name)
    }

    /// What the clients do, but in a walk.
    fn load(&self) -> Option<&Workload> {
        match self {
            Task::Syscalls(workload, _)
            | Task::Capacity(workload, _)
            | Task::Latency(workload, _) => Some(workload),
            Task::Memory(_) | Task::Scale(_) => None,
        }
    }

    /// The most connections that stand at a time.
    fn connections(&self) -> usize {
        match self {
            Task::Syscalls(workload, _) => workload.connections,
            Task::Capacity(workload, _) | Task::Latency(workload, _) => workload.all_connections(),
            Task::Memory(memory) => memory.most(),
            Task::Scale(scale) => scale.connections.iter().copied().max().unwrap_or_default(),
        }
    }

    /// About how long it takes; for the time that is left.
    pub fn estimate(&self) -> Duration {
        match self {
            Task::Syscalls(..) => Duration::from_millis(1000),
            Task::Memory(memory) => {
                let opened = 2 * self.connections()
                    + memory.active.iter().max().copied().unwrap_or_default();
                Duration::from_millis(250) * memory.connections.len() as u32 * 4
                    + time_to_open_and_close(opened)
            }
            Task::Scale(scale) => {
                let load = scale.duration + scale.warmup_max + Duration::from_millis(1300);
                let loads = scale.connections.len() + scale.active_shares.len();
                load * 4 * scale.repeats * loads as u32 + time_to_open_and_close(self.connections())
            }
            // Most warm-ups end early.
            Task::Capacity(workload, latency) | Task::Latency(workload, latency) => {
                latency.duration
                    + latency.warmup_max.min(Duration::from_millis(500))
                    + time_to_open_and_close(workload.idle_connections)
            }
        }
    }
}

/// About how long it takes to open so many connections, to use each once, and to close them.
fn time_to_open_and_close(connections: usize) -> Duration {
    Duration::from_micros(110) * connections as u32
}

/// Why workers that hold so many descriptors each, if there is a bound, cannot serve so many
/// connections.
fn too_many(
    connections: usize,
    workers: u16,
    descriptors_per_worker: Option<usize>,
) -> Option<String> {
    let bound = descriptors_per_worker?;
    let each = connections.div_ceil(usize::from(workers));
    (each + OWN_DESCRIPTORS > bound).then(|| {
        format!(
            "a worker holds {bound} descriptors at most, and {each} connections with {OWN_DESCRIPTORS} files of \
             its own are more; give it more workers or fewer connections"
        )
    })
}

/// How many descriptors a worker of the backend can hold, if there is a bound.
fn descriptors_per_worker(backend: &str) -> Option<usize> {
    backend::find(backend).ok()?.descriptors_per_worker
}

/// What is wrong if a server has not accepted exactly the connections that the client opened.
fn miscounted(churn: Option<&ChurnResult>, counters: &ServerCounters) -> Option<String> {
    let (opened, accepted) = (churn?.opened_in_all, counters.of_loop("accepted"));
    (opened != accepted && !counters.is_from_outside).then(|| {
        format!("the server accepted {accepted} connections where the client opened {opened}")
    })
}

/// Why a trial is of no use in which these programs were stopped, if there are any.
fn spoilt_by(suspended: &[&str]) -> Option<String> {
    let who = suspended.iter().map(|name| format!("the {name}")).collect::<Vec<_>>().join(" and ");
    (!suspended.is_empty()).then(|| {
        format!("{who} was stopped by a signal (SIGSTOP, Ctrl-Z) within the trial: time passed without it")
    })
}

/// Of a server that a trial has to see, and that is not where its side said that it would be.
const UNSEEN: &str = "the server's process is not to be seen here";

/// A trial to be run.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its number in the run.
    pub run_id: u32,
    /// Its block.
    pub block: u32,
    /// Its place in the block.
    pub order: u32,
    /// Its role in the block.
    pub role: String,
    /// The server that it measures.
    pub arm: Arm,
    /// What is measured.
    pub task: Task,
}

impl Trial {
    /// What is known of it before it runs.
    fn begun(&self) -> Outcome {
        let (message_bytes, pipeline_depth, arrival) = match &self.task {
            Task::Syscalls(workload, _)
            | Task::Capacity(workload, _)
            | Task::Latency(workload, _) => {
                (workload.message_bytes, workload.pipeline, workload.arrival())
            }
            Task::Memory(memory) => (memory.message_bytes, 1, Arrival::Closed),
            Task::Scale(scale) => (scale.message_bytes, 1, Arrival::Closed),
        };
        Outcome {
            row: TrialRow {
                run_id: self.run_id,
                started_utc: files::utc(SystemTime::now()),
                pass: Some(self.task.pass()),
                workload: self.task.workload().to_owned(),
                block: self.block,
                order: self.order,
                arm: self.role.clone(),
                backend: self.arm.backend.clone(),
                message_bytes,
                pipeline_depth,
                arrival: arrival.name().to_owned(),
                ..TrialRow::default()
            },
            ..Outcome::default()
        }
    }

    /// What stands for it if it is not run.
    pub fn not_run(&self, context: &TrialContext, reason: String) -> Outcome {
        let mut outcome = self.begun();
        outcome.row.workers =
            self.task.load().and_then(|workload| workload.workers).unwrap_or(context.workers);
        (outcome.row.status, outcome.row.reason) = (Status::Failed, reason);
        outcome
    }

    /// Runs it. Whatever goes wrong stands in the row.
    pub fn run(&self, context: &TrialContext) -> Outcome {
        let mut outcome = self.begun();
        let own_workers = self.task.load().and_then(|workload| workload.workers);
        let own_context = match own_workers.map(|workers| context.with_workers(workers)).transpose()
        {
            Ok(own) => own,
            Err(reason) => {
                outcome.row.workers = own_workers.unwrap_or(context.workers);
                (outcome.row.status, outcome.row.reason) = (Status::Unsupported, reason);
                return outcome;
            }
        };
        let context = own_context.as_ref().unwrap_or(context);
        outcome.row.workers = context.workers;
        outcome.row.server_cpus = context.placement.server.clone();
        outcome.row.client_cpus = context.placement.client.clone();
        let own_bound = descriptors_per_worker(&self.arm.backend);
        let external = context.external(&self.arm.backend);
        if let Some(reason) = too_many(self.task.connections(), context.workers, own_bound)
            .or_else(|| external?.unsupported(self.task.pass(), context.launchers.is_some()))
        {
            (outcome.row.status, outcome.row.reason) = (Status::Unsupported, reason);
            return outcome;
        }
        if let Some(reason) = self.not_to_be_measured(context) {
            (outcome.row.status, outcome.row.reason) = (Status::Unsupported, reason);
            return outcome;
        }
        context.interruptions.take_suspended();
        let result = match &self.task {
            Task::Syscalls(workload, echoes) => {
                syscalls::measure(self, context, workload, *echoes, &mut outcome)
            }
            Task::Memory(memory) => memory::measure(self, context, memory, &mut outcome),
            Task::Scale(scale) => scale::measure(self, context, scale, &mut outcome),
            Task::Capacity(workload, latency) | Task::Latency(workload, latency) => {
                latency::measure(self, context, workload, latency, &mut outcome)
            }
        };
        match result {
            Ok(verdict) => (outcome.row.status, outcome.row.reason) = verdict,
            Err(error) => {
                let refused = error.downcast_ref::<RefusedByKernel>().is_some();
                outcome.row.status = if refused { Status::Unsupported } else { Status::Failed };
                let reason = visible(&format!("{error:#}").replace('\n', "; "));
                // It may hold what programs of other people say. All other reasons are in words of
                // our own.
                outcome.row.reason = match &context.launchers {
                    Some(launchers) => launchers.hide(reason),
                    None => reason,
                };
            }
        }
        if let Some(reason) = spoilt_by(&context.interruptions.take_suspended()) {
            let row = &mut outcome.row;
            row.reason = [reason, std::mem::take(&mut row.reason)]
                .join("; ")
                .trim_end_matches("; ")
                .to_owned();
            row.status = Status::Rejected;
        }
        outcome
    }

    /// Why the sides are where this cannot be measured.
    fn not_to_be_measured(&self, context: &TrialContext) -> Option<String> {
        let sides = context.sides()?;
        match &self.task {
            Task::Memory(_) | Task::Scale(_) => sides.no_walk(),
            Task::Capacity(workload, _) | Task::Latency(workload, _) => {
                (workload.idle_spinner && !sides.are_here()).then(|| {
                    "idle_spinner: a side is on another machine, whose CPUs it does not keep awake"
                        .to_owned()
                })
            }
            Task::Syscalls(..) => None,
        }
    }

    /// A fresh namespace if it is permitted, and no command says where the sides are; the row says
    /// which.
    fn namespace(&self, context: &TrialContext, row: &mut TrialRow) -> Option<NetworkNamespace> {
        if context.launchers.is_some() {
            row.network_namespace = "as commanded".to_owned();
            return None;
        }
        match NetworkNamespace::create() {
            Ok(namespace) => {
                row.network_namespace = "fresh".to_owned();
                Some(namespace)
            }
            Err(unavailable) => {
                row.network_namespace = format!("host: {}", unavailable.reason);
                None
            }
        }
    }

    /// Starts the server; `held` gets its pid while it has one thread and has done nothing yet, if
    /// it is to be seen here.
    fn server(
        &self,
        context: &TrialContext,
        namespace: Option<&NetworkNamespace>,
        row: &mut TrialRow,
        held: impl FnMut(Option<u32>),
    ) -> Result<Server> {
        let settings = match self.task.load() {
            Some(workload) => workload.settings(&self.arm),
            None => self.arm.set.clone(),
        };
        let plan = ServerPlan {
            external: context.external(&self.arm.backend),
            binary: &context.server,
            backend: &self.arm.backend,
            settings: &settings,
            workers: context.workers,
            first_port: context.first_port,
            ports: context.ports,
            cpus: &context.placement.server,
            launchers: context.launchers.as_ref(),
        };
        let server = Server::start(&plan, namespace, &context.interruptions, held)?;
        row.knobs = server.knobs.clone();
        row.in_force = server.in_force.clone();
        Ok(server)
    }

    /// Ends the server; the row keeps what its loops counted.
    fn stop(&self, server: Server, row: &mut TrialRow) -> Result<ServerCounters> {
        let counters = server.stop()?;
        if !counters.is_from_outside {
            row.loop_counters = serde_json::to_string(&counters.loops)?;
        }
        Ok(counters)
    }

    /// How many connections this machine has room for if it is less than `wanted`, and why.
    fn room(&self, context: &TrialContext, wanted: usize) -> Result<Option<(usize, String)>> {
        let limits = context.connection_limits.with_available(ramp::available_bytes()?);
        let own = own_descriptors(context.workers, context.ports);
        let bounds = match context.external(&self.arm.backend) {
            Some(_) => limits.for_external(own),
            None => limits.for_server(
                u64::from(context.workers),
                u64::from(context.ports),
                own,
                connection_limits::table_bytes([self.arm.backend.as_str()]),
            ),
        };
        let tightest = bounds.into_iter().min_by_key(|bound| bound.connections);
        let too_few = tightest.filter(|bound| bound.connections < wanted as u64);
        Ok(too_few.map(|bound| {
            // A round number, of which each worker has as many: whole blocks of the document's
            // table if there are several.
            let workers = usize::from(context.workers);
            let blocks = workers * MAX_EPOLL_EVENTS;
            let unit = if bound.connections as usize >= 4 * blocks { blocks } else { workers };
            let reason = format!(
                "{wanted} connections skipped: there is room for {} by {}",
                bound.connections, bound.reason
            );
            (bound.connections as usize / unit * unit, reason)
        }))
    }

    /// Starts a load with at most `connections`, as many threads as it has CPUs, or more if they
    /// could not open so many files.
    fn load(
        &self,
        context: &TrialContext,
        namespace: Option<&NetworkNamespace>,
        server: &Server,
        row: &TrialRow,
        connections: usize,
        more: &[String],
    ) -> Result<Load> {
        let first = server.addresses.first().context("the server listens nowhere")?;
        let holding = FileTables::look().context("RLIMIT_NOFILE")?.threads_for(connections);
        let threads = context.placement.client_threads.max(holding).min(connections);
        let mut arguments = vec![
            format!("--connect={first}"),
            format!("--ports={}", server.addresses.len()),
            format!("--connections={connections}"),
            format!("--message-bytes={}", row.message_bytes),
            format!("--threads={threads}"),
            // The same bytes for every backend of a block, others in the next.
            format!("--seed={}", self.block),
        ];
        if !context.placement.client.is_empty() {
            arguments.push(format!("--cpus={}", context.placement.client));
        }
        match self.task.load() {
            Some(Workload { rate_per_s: Some(rate), .. }) => {
                arguments.extend([format!("--rate={rate}"), format!("--arrival={}", row.arrival)]);
            }
            Some(Workload { pipeline, .. }) => arguments.push(format!("--pipeline={pipeline}")),
            None => {}
        }
        if let Some(churn) = self.task.load().and_then(|workload| workload.churn) {
            arguments.push(format!("--churn={churn}"));
        }
        arguments.extend_from_slice(more);
        Load::start(arguments, context.launchers.as_ref(), namespace, &context.interruptions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_on_descriptors_leaves_room_for_the_workers_own() {
        assert_eq!(too_many(1_000_000, 1, None), None);
        assert_eq!(too_many(1000, 1, Some(1024)), None);
        assert_eq!(too_many(1008, 1, Some(1024)), None);
        let reason = too_many(1009, 1, Some(1024)).expect("one too many");
        assert!(
            reason.contains("1024 descriptors") && reason.contains("1009 connections"),
            "{reason}"
        );
        assert_eq!(too_many(2016, 2, Some(1024)), None, "two workers share them");
        assert!(too_many(2017, 2, Some(1024)).is_some());
    }

    #[test]
    fn a_connection_that_only_one_side_counted_is_noticed() {
        let mut counters = ServerCounters::default();
        counters.loops.insert("accepted".to_owned(), 12);
        let churn = |opened_in_all| ChurnResult {
            echoes_each: 1,
            opened: 1,
            connections_per_s: 1.0,
            connect_us: Default::default(),
            opened_in_all,
        };
        assert_eq!(miscounted(None, &counters), None);
        assert_eq!(miscounted(Some(&churn(12)), &counters), None);
        let reason = miscounted(Some(&churn(13)), &counters).expect("one too few");
        assert!(reason.contains("accepted 12") && reason.contains("opened 13"), "{reason}");
    }

    #[test]
    fn every_worker_of_a_workload_needs_a_cpu() {
        assert_eq!(
            (too_few(1, Some(1)), too_few(4, Some(4)), too_few(1, None)),
            (None, None, None)
        );
        assert_eq!(too_few(4, Some(3)), Some("needs 4 CPUs for the server, has 3".to_owned()));
        let reason = too_few(2, None);
        assert_eq!(
            reason,
            Some("needs 2 CPUs for the server, how many it has is not known".to_owned())
        );
        let placement = |server: &str| Placement {
            server: server.to_owned(),
            client: String::new(),
            client_threads: 1,
            shared_cpu: true,
            shared_core: None,
            packages: None,
            server_cpus_elsewhere: None,
        };
        assert_eq!((placement("").server_cpus(), placement("0,4").server_cpus()), (None, Some(2)));
    }
}
