//! One trial: a fresh server, a fresh client, a fresh network namespace, and one pass over them.

mod latency;
mod memory;
mod ramp;
mod scale;
mod syscalls;

pub use scale::{ALONE, CROWDED};

/// The states and sums that the memory pass names.
pub mod memory_states {
    pub use super::memory::{
        ACTIVE, KERNEL_SUM, MACHINE_SUM, NEVER_USED, PAGE_TABLES, UNEXPLAINED, USED_SUM,
        USED_THEN_IDLE, USER_SUM,
    };
}

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use ringmark::backend;
use serde::{Deserialize, Serialize};

use crate::children::{Interruptions, Load, RefusedByKernel, Server, ServerCounters, ServerPlan};
use crate::doctor::Room;
use crate::external::{External, visible};
use crate::instruments::affinity::CpuList;
use crate::instruments::network_namespace::NetworkNamespace;
use crate::instruments::topology::{SYS, Topology};
use crate::load::files::FileTables;
use crate::load::result::{Arrival, ChurnResult};
use crate::machine;
use crate::matrix::{Contender, Memory, Scale, Workload};
use crate::measurement::{
    EventRow, MemoryPointRow, MemoryRow, Pass, ScaleRow, Status, SyscallRow, TrialRow,
};
use crate::sides::{Side, Sides};

/// What is the same for every trial of a run, unless its workload has workers of its own.
#[derive(Clone)]
pub struct Ground {
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
    pub room: Room,
    /// Which CPUs server and client run on.
    pub placement: Placement,
    /// Whether they may be hyperthreads of one core.
    pub hyperthreads: bool,
    /// Where the two sides are, if the run has a command for either.
    pub sides: Option<Sides>,
    /// Who wants no more of the trial, and who was stopped within it.
    pub interruptions: Interruptions,
}

impl Ground {
    /// The server of that name, if it is not ours.
    fn external(&self, backend: &str) -> Option<&External> {
        self.externals.iter().find(|external| external.name == backend)
    }

    /// The ground of a trial whose workload has so many workers; if they would not have a CPU each,
    /// why not.
    fn with_workers(&self, workers: u16) -> Result<Self, String> {
        let placement = Placement::deal(workers, self.hyperthreads, self.sides.as_ref())
            .map_err(|error| format!("{error:#}"))?;
        let Some(mut reason) = too_few(workers, placement.server_cpus()) else {
            return Ok(Self { workers, ports: workers, placement, ..self.clone() });
        };
        let with_all = Placement::deal(workers, true, self.sides.as_ref());
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

/// Which CPUs the two sides are pinned to, so that neither takes the other's time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The server's CPUs; empty: not pinned from here.
    #[serde(rename = "server_cpus")]
    pub server: String,
    /// The client's CPUs; empty: not pinned from here.
    #[serde(rename = "client_cpus")]
    pub client: String,
    /// Threads of the client: one for each of its CPUs.
    pub client_threads: usize,
    /// Whether the two sides, or the workers among themselves, have to share a CPU, or are not
    /// known not to.
    pub shared_cpu: bool,
    /// Whether two of these CPUs are hyperthreads of one core, which slow each other down; null if
    /// that is not known.
    #[serde(default)]
    pub shared_core: Option<bool>,
    /// Over how many packages these CPUs are spread; null if that is not known.
    #[serde(default)]
    pub packages: Option<usize>,
    /// How many CPUs the server has, if it is on another machine, so that it is not pinned from
    /// here, and tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_cpus_elsewhere: Option<usize>,
}

impl Placement {
    /// Deals the CPUs that this process may use, or those that a side says that its command leaves
    /// it: one of each core, or with `hyperthreads` all of them.
    pub fn deal(workers: u16, hyperthreads: bool, sides: Option<&Sides>) -> Result<Self> {
        let allowed = allowed()?;
        let topology = Topology::read(Path::new(SYS), allowed.cpus());
        Ok(Self::out_of(&allowed, &topology, workers, hyperthreads, sides))
    }

    /// One for each worker, but half of them at most; the rest to the client. A side on another
    /// machine is not pinned, nor is one whose CPUs are not known.
    fn out_of(
        allowed: &CpuList,
        topology: &Topology,
        workers: u16,
        hyperthreads: bool,
        sides: Option<&Sides>,
    ) -> Self {
        let has = |side: fn(&Sides) -> &Side| match sides.map(side) {
            None => {
                Has { cpus: allowed.cpus().to_vec(), topology: topology.clone(), is_here: true }
            }
            Some(side) => Has {
                cpus: side.cpus.as_ref().map_or_else(Vec::new, |cpus| cpus.cpus().to_vec()),
                topology: side.topology(),
                is_here: side.is_here,
            },
        };
        let (server_has, client_has) = (has(|sides| &sides.server), has(|sides| &sides.load));
        let one_machine = sides.is_none_or(|sides| sides.one_machine);
        let (server, client) = divide(workers, &server_has, &client_has, one_machine, hyperthreads);
        // What is not pinned may run on all that it has.
        let at_server = if server_has.is_here { &server } else { &server_has.cpus };
        let at_client = if client_has.is_here { &client } else { &client_has.cpus };
        let are_apart =
            !at_client.is_empty() && !at_server.iter().any(|cpu| at_client.contains(cpu));
        let list = |cpus: &[usize], is_here: bool| match is_here {
            true => cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
            false => String::new(),
        };
        let pinned =
            |has: &Has, cpus: &[usize]| if has.is_here { cpus.to_vec() } else { Vec::new() };
        let (pinned_server, pinned_client) =
            (pinned(&server_has, &server), pinned(&client_has, &client));
        let (at, there) = (&server_has.topology, &client_has.topology);
        let shared_cores = [
            at.share_a_core(&pinned_server, &pinned_server),
            there.share_a_core(&pinned_client, &pinned_client),
            if one_machine { at.share_a_core(at_server, at_client) } else { Some(false) },
        ];
        let is_spread = one_machine && server_has.is_here && client_has.is_here;
        Self {
            server: list(&server, server_has.is_here),
            client: list(&client, client_has.is_here),
            client_threads: client.len().max(1),
            shared_cpu: at_server.len() < usize::from(workers) || one_machine && !are_apart,
            shared_core: any(&shared_cores),
            packages: at
                .packages_of(&[pinned_server, pinned_client].concat())
                .filter(|_| is_spread),
            server_cpus_elsewhere: Some(server_has.cpus.len())
                .filter(|&cpus| !server_has.is_here && cpus > 0),
        }
    }

    /// What to mind of figures that were taken on hyperthreads of one core.
    fn note(&self) -> Option<String> {
        (self.shared_core == Some(true)).then(|| {
            "shared-core: two of its CPUs are hyperthreads of one core, and slow each other down".to_owned()
        })
    }

    /// Whether both sides have one CPU together.
    fn is_one_cpu(&self) -> bool {
        self.server == self.client
            && self.server.parse::<CpuList>().is_ok_and(|list| list.cpus().len() == 1)
    }

    /// Whether both sides are pinned, and the client to CPUs of its own.
    fn is_client_apart(&self) -> bool {
        let both = self.server.parse::<CpuList>().ok().zip(self.client.parse::<CpuList>().ok());
        both.is_some_and(|(server, client)| {
            !client.cpus().iter().any(|cpu| server.cpus().contains(cpu))
        })
    }

    /// How many CPUs the server has, if that is known.
    fn server_cpus(&self) -> Option<usize> {
        let pinned = || self.server.parse::<CpuList>().ok().map(|list| list.cpus().len());
        self.server_cpus_elsewhere.or_else(pinned)
    }

    /// The CPUs of both sides; all that are allowed if one is not pinned.
    fn cpus(&self) -> Result<CpuList> {
        if self.server.is_empty() || self.client.is_empty() {
            return allowed();
        }
        [self.server.as_str(), self.client.as_str()].join(",").parse().map_err(anyhow::Error::msg)
    }

    /// How many of the CPUs are left by both sides.
    fn free_of(&self, cpus: &BTreeSet<usize>) -> u64 {
        let of_side = |list: &String| {
            list.parse().map(|list: CpuList| list.cpus().to_vec()).unwrap_or_default()
        };
        let taken = [&self.server, &self.client].map(of_side).concat();
        cpus.iter().filter(|cpu| !taken.contains(cpu)).count() as u64
    }

    /// How many CPUs of a server that is not to be seen are left by its workers for kernel threads,
    /// which inherit their pinning.
    fn left_by(&self, workers: u16) -> u64 {
        let cpus = self.server_cpus_elsewhere.unwrap_or_default();
        cpus.saturating_sub(workers.into()) as u64
    }
}

fn allowed() -> Result<CpuList> {
    CpuList::allowed().context("CPUs that this process may use")
}

/// The CPUs that a side may use.
struct Has {
    cpus: Vec<usize>,
    topology: Topology,
    is_here: bool,
}

impl Has {
    /// One CPU of each core of those that `taken` is not on, in the order of their nearness. If
    /// there is no such core, then another CPU of one; if there is none, what there is.
    fn without(&self, taken: &[usize], hyperthreads: bool) -> Vec<usize> {
        let all = self.topology.nearest(&self.cpus);
        let those = |is_left: &dyn Fn(usize) -> bool| -> Vec<usize> {
            let left: Vec<_> = all.iter().copied().filter(|&cpu| is_left(cpu)).collect();
            if hyperthreads { left } else { self.topology.one_of_each_core(&left) }
        };
        let is_near =
            |cpu| !hyperthreads && taken.iter().any(|&taken| self.topology.is_one_core(taken, cpu));
        let left = [
            those(&|cpu| !taken.contains(&cpu) && !is_near(cpu)),
            those(&|cpu| !taken.contains(&cpu)),
        ];
        left.into_iter().find(|cpus| !cpus.is_empty()).unwrap_or_else(|| those(&|_| true))
    }
}

/// Whether any of them is true; none if none is known to be, and some are not known.
fn any(parts: &[Option<bool>]) -> Option<bool> {
    let is_known = !parts.contains(&None);
    parts.contains(&Some(true)).then_some(true).or(is_known.then_some(false))
}

/// The CPUs of the server and of the client, each out of those that it may use.
fn divide(
    workers: u16,
    server: &Has,
    client: &Has,
    one_machine: bool,
    hyperthreads: bool,
) -> (Vec<usize>, Vec<usize>) {
    let workers = usize::from(workers);
    let first = |cpus: Vec<usize>, most: usize| cpus.into_iter().take(most).collect::<Vec<_>>();
    let all = |has: &Has| has.without(&[], hyperthreads);
    if !one_machine {
        return (first(all(server), workers), all(client));
    }
    let server = match server.cpus == client.cpus {
        true => {
            let cpus = all(server);
            let half = (cpus.len() / 2).max(1);
            first(cpus, workers.min(half))
        }
        false => first(server.without(&client.cpus, hyperthreads), workers),
    };
    let client = client.without(&server, hyperthreads);
    (server, client)
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

/// Events in a block of the document's table.
const BLOCK_EVENTS: usize = 1024;

/// About how long it takes to open so many connections, to use each once, and to close them.
fn time_to_open_and_close(connections: usize) -> Duration {
    Duration::from_micros(110) * connections as u32
}

/// Descriptors that a worker opens or inherits beside its connections: the standard ones, a
/// listener, rings, the stop signal.
pub const OWN_DESCRIPTORS: usize = 16;

/// The same of a worker with several ports, and with room to spare in a table of direct
/// descriptors.
pub fn own_descriptors(workers: u16, ports: u16) -> u64 {
    2 * OWN_DESCRIPTORS as u64 + u64::from(ports.div_ceil(workers.max(1)))
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
    pub arm: String,
    /// The backend.
    pub contender: Contender,
    /// What is measured.
    pub task: Task,
}

/// All that came of a trial.
#[derive(Default)]
pub struct Outcome {
    /// Its row.
    pub row: TrialRow,
    /// The latencies of its messages, as an HdrHistogram log.
    pub histogram: Option<String>,
    /// Its calls.
    pub syscalls: Vec<SyscallRow>,
    /// What happened within io_uring.
    pub events: Vec<EventRow>,
    /// Its memory readings.
    pub memory_points: Vec<MemoryPointRow>,
    /// Slopes through them, not yet compared with `null`.
    pub memory: Vec<MemoryRow>,
    /// The steps of a walk.
    pub scale: Vec<ScaleRow>,
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
                started_utc: machine::utc(SystemTime::now()),
                pass: Some(self.task.pass()),
                workload: self.task.workload().to_owned(),
                block: self.block,
                order: self.order,
                arm: self.arm.clone(),
                backend: self.contender.backend.clone(),
                message_bytes,
                pipeline_depth,
                arrival: arrival.name().to_owned(),
                ..TrialRow::default()
            },
            ..Outcome::default()
        }
    }

    /// What stands for it if it is not run.
    pub fn not_run(&self, ground: &Ground, reason: String) -> Outcome {
        let mut outcome = self.begun();
        outcome.row.workers =
            self.task.load().and_then(|workload| workload.workers).unwrap_or(ground.workers);
        (outcome.row.status, outcome.row.reason) = (Status::Failed, reason);
        outcome
    }

    /// Runs it. Whatever goes wrong stands in the row.
    pub fn run(&self, ground: &Ground) -> Outcome {
        let mut outcome = self.begun();
        let own_workers = self.task.load().and_then(|workload| workload.workers);
        let own_ground = match own_workers.map(|workers| ground.with_workers(workers)).transpose() {
            Ok(own) => own,
            Err(reason) => {
                outcome.row.workers = own_workers.unwrap_or(ground.workers);
                (outcome.row.status, outcome.row.reason) = (Status::Unsupported, reason);
                return outcome;
            }
        };
        let ground = own_ground.as_ref().unwrap_or(ground);
        outcome.row.workers = ground.workers;
        outcome.row.server_cpus = ground.placement.server.clone();
        outcome.row.client_cpus = ground.placement.client.clone();
        let own_bound = descriptors_per_worker(&self.contender.backend);
        let external = ground.external(&self.contender.backend);
        if let Some(reason) = too_many(self.task.connections(), ground.workers, own_bound)
            .or_else(|| external?.unsupported(self.task.pass(), ground.sides.is_some()))
        {
            (outcome.row.status, outcome.row.reason) = (Status::Unsupported, reason);
            return outcome;
        }
        if let Some(reason) = self.not_to_be_measured(ground) {
            (outcome.row.status, outcome.row.reason) = (Status::Unsupported, reason);
            return outcome;
        }
        ground.interruptions.take_suspended();
        let result = match &self.task {
            Task::Syscalls(workload, echoes) => {
                syscalls::measure(self, ground, workload, *echoes, &mut outcome)
            }
            Task::Memory(memory) => memory::measure(self, ground, memory, &mut outcome),
            Task::Scale(scale) => scale::measure(self, ground, scale, &mut outcome),
            Task::Capacity(workload, latency) | Task::Latency(workload, latency) => {
                latency::measure(self, ground, workload, latency, &mut outcome)
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
                outcome.row.reason = match &ground.sides {
                    Some(sides) => sides.hide(reason),
                    None => reason,
                };
            }
        }
        if let Some(reason) = spoilt_by(&ground.interruptions.take_suspended()) {
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
    fn not_to_be_measured(&self, ground: &Ground) -> Option<String> {
        let sides = ground.sides.as_ref()?;
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
    fn namespace(&self, ground: &Ground, row: &mut TrialRow) -> Option<NetworkNamespace> {
        if ground.sides.is_some() {
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
        ground: &Ground,
        namespace: Option<&NetworkNamespace>,
        row: &mut TrialRow,
        held: impl FnMut(Option<u32>),
    ) -> Result<Server> {
        let settings = match self.task.load() {
            Some(workload) => workload.settings(&self.contender),
            None => self.contender.set.clone(),
        };
        let plan = ServerPlan {
            external: ground.external(&self.contender.backend),
            binary: &ground.server,
            backend: &self.contender.backend,
            settings: &settings,
            workers: ground.workers,
            first_port: ground.first_port,
            ports: ground.ports,
            cpus: &ground.placement.server,
            sides: ground.sides.as_ref(),
        };
        let server = Server::start(&plan, namespace, &ground.interruptions, held)?;
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
    fn room(&self, ground: &Ground, wanted: usize) -> Result<Option<(usize, String)>> {
        let room = ground.room.with_available(ramp::available_bytes()?);
        let is_document = self.contender.backend == "epoll-document";
        let own = own_descriptors(ground.workers, ground.ports);
        let bounds = match ground.external(&self.contender.backend) {
            Some(_) => room.bounds_of_external(own),
            None => {
                room.bounds(u64::from(ground.workers), u64::from(ground.ports), own, is_document)
            }
        };
        let tightest = bounds.into_iter().min_by_key(|bound| bound.connections);
        let too_few = tightest.filter(|bound| bound.connections < wanted as u64);
        Ok(too_few.map(|bound| {
            // A round number, of which each worker has as many: whole blocks of the document's
            // table if there are several.
            let workers = usize::from(ground.workers);
            let blocks = workers * BLOCK_EVENTS;
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
        ground: &Ground,
        namespace: Option<&NetworkNamespace>,
        server: &Server,
        row: &TrialRow,
        connections: usize,
        more: &[String],
    ) -> Result<Load> {
        let first = server.addresses.first().context("the server listens nowhere")?;
        let holding = FileTables::look().context("RLIMIT_NOFILE")?.threads_for(connections);
        let threads = ground.placement.client_threads.max(holding).min(connections);
        let mut arguments = vec![
            format!("--connect={first}"),
            format!("--ports={}", server.addresses.len()),
            format!("--connections={connections}"),
            format!("--message-bytes={}", row.message_bytes),
            format!("--threads={threads}"),
            // The same bytes for every backend of a block, others in the next.
            format!("--seed={}", self.block),
        ];
        if !ground.placement.client.is_empty() {
            arguments.push(format!("--cpus={}", ground.placement.client));
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
        Load::start(arguments, ground.sides.as_ref(), namespace, &ground.interruptions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruments::topology::tests::two_packages;

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

    #[test]
    fn cpus_are_dealt_out_of_those_that_each_side_may_use() {
        for (workers, server, client, one_machine, of_server, of_client) in [
            (1, &[0, 1][..], &[0, 1][..], true, &[0][..], &[1][..]),
            (2, &[0, 1], &[0, 1], true, &[0], &[1]),
            (3, &[0, 1, 2, 5], &[0, 1, 2, 5], true, &[0, 1], &[2, 5]),
            (1, &[3], &[3], true, &[3], &[3]),
            // `taskset` on one side, and on both.
            (1, &[1], &[0, 1], true, &[1], &[0]),
            (1, &[0, 1], &[0], true, &[1], &[0]),
            (2, &[0, 1], &[0, 1, 2], true, &[0, 1], &[2]),
            (1, &[0, 1], &[2, 3], true, &[0], &[2, 3]),
            (2, &[0, 1, 2], &[0, 1], false, &[0, 1], &[0, 1]),
        ] {
            let expected = (of_server.to_vec(), of_client.to_vec());
            let has = |cpus: &[usize]| Has {
                cpus: cpus.to_vec(),
                topology: Topology::default(),
                is_here: true,
            };
            let dealt = divide(workers, &has(server), &has(client), one_machine, false);
            assert_eq!(dealt, expected, "{server:?} {client:?}");
        }
    }

    #[test]
    fn a_cpu_is_free_that_neither_side_has() {
        let placement = Placement {
            server: "0,1".to_owned(),
            client: "2".to_owned(),
            client_threads: 1,
            shared_cpu: false,
            shared_core: Some(false),
            packages: Some(1),
            server_cpus_elsewhere: None,
        };
        let free = |cpus: &[usize]| placement.free_of(&cpus.iter().copied().collect());
        assert_eq!((free(&[0]), free(&[0, 2]), free(&[3]), free(&[0, 3, 4])), (0, 0, 1, 2));
        assert_eq!(placement.cpus().expect("a list").cpus(), [0, 1, 2]);
        // One that is not pinned may run on any.
        let unpinned = Placement { server: String::new(), ..placement };
        assert_eq!(unpinned.cpus().expect("a list"), CpuList::allowed().expect("a list"));
    }

    fn list(text: &str) -> CpuList {
        text.parse().expect("a list")
    }

    /// Out of these CPUs, of which nothing more is known.
    fn out_of(cpus: &str, workers: u16, sides: Option<&Sides>) -> Placement {
        Placement::out_of(&list(cpus), &Topology::default(), workers, false, sides)
    }

    /// Sides that may use these CPUs, if they tell.
    fn sides(one_machine: bool, server: (bool, Option<&str>), load: (bool, Option<&str>)) -> Sides {
        let side = |(is_here, cpus): (bool, Option<&str>)| Side {
            is_here,
            cpus: cpus.map(list),
            ..Side::default()
        };
        Sides {
            server_address: std::net::Ipv4Addr::LOCALHOST.into(),
            over_loopback: one_machine,
            one_machine,
            has_remote_bin: false,
            server: side(server),
            load: side(load),
        }
    }

    #[test]
    fn two_sides_share_a_cpu_unless_they_are_known_to_be_kept_apart() {
        const HERE: bool = true;
        const ELSEWHERE: bool = false;
        let deal = |workers, sides: &Sides| {
            let placement = out_of("0-3", workers, Some(sides));
            (
                placement.server.clone(),
                placement.client.clone(),
                placement.client_threads,
                placement.shared_cpu,
            )
        };
        let dealt = |server: &str, client: &str, threads, shared| {
            (server.to_owned(), client.to_owned(), threads, shared)
        };
        for (workers, one_machine, server, load, expected) in [
            // `taskset` on one of them, and on both.
            (1, true, (HERE, Some("3")), (HERE, Some("0-3")), dealt("3", "0,1,2", 3, false)),
            (1, true, (HERE, Some("3")), (HERE, Some("3")), dealt("3", "3", 1, true)),
            (2, true, (HERE, Some("3")), (HERE, Some("1")), dealt("3", "1", 1, true)),
            // Both on another machine: nothing but their commands keeps them apart.
            (1, true, (ELSEWHERE, Some("0-3")), (ELSEWHERE, Some("0-3")), dealt("", "", 3, true)),
            (1, true, (ELSEWHERE, Some("0-1")), (ELSEWHERE, Some("1-3")), dealt("", "", 3, true)),
            (2, true, (ELSEWHERE, Some("0-1")), (ELSEWHERE, Some("2-3")), dealt("", "", 2, false)),
            (3, true, (ELSEWHERE, Some("0-1")), (ELSEWHERE, Some("2-3")), dealt("", "", 2, true)),
            (2, false, (ELSEWHERE, Some("0-1")), (ELSEWHERE, Some("0-1")), dealt("", "", 2, false)),
            (
                2,
                false,
                (ELSEWHERE, Some("0-1")),
                (HERE, Some("0-3")),
                dealt("", "0,1,2,3", 4, false),
            ),
            // Of whom it is not known.
            (1, false, (ELSEWHERE, None), (HERE, Some("0-3")), dealt("", "0,1,2,3", 4, true)),
            (1, false, (HERE, Some("0-3")), (ELSEWHERE, None), dealt("0", "", 1, false)),
            (1, true, (ELSEWHERE, Some("0-3")), (ELSEWHERE, None), dealt("", "", 1, true)),
            (1, true, (ELSEWHERE, None), (ELSEWHERE, Some("7")), dealt("", "", 1, true)),
            (1, true, (HERE, None), (HERE, None), dealt("", "", 1, true)),
        ] {
            let sides = sides(one_machine, server, load);
            assert_eq!(
                deal(workers, &sides),
                expected,
                "{workers} {one_machine} {server:?} {load:?}"
            );
        }
        let elsewhere = |server| {
            let sides = sides(false, (ELSEWHERE, server), (HERE, Some("0-3")));
            out_of("0-3", 1, Some(&sides)).server_cpus()
        };
        assert_eq!((elsewhere(Some("0-7")), elsewhere(None)), (Some(8), None));
    }

    #[test]
    fn without_a_command_the_allowed_cpus_are_dealt() {
        let placement = out_of("4-7", 2, None);
        assert_eq!(
            (&*placement.server, &*placement.client, placement.shared_cpu),
            ("4,5", "6,7", false)
        );
        assert_eq!(placement.server_cpus_elsewhere, None);
        assert!(!placement.is_one_cpu() && placement.is_client_apart());
        // Three workers on one CPU, beside a client on another.
        let crowded = out_of("0-1", 3, None);
        assert!(crowded.shared_cpu && crowded.is_client_apart());
    }

    #[test]
    fn one_cpu_of_many_may_be_that_of_both() {
        for sides in [None, Some(sides(true, (true, Some("3")), (true, Some("3"))))] {
            let allowed = if sides.is_none() { "3" } else { "0-3" };
            let placement = out_of(allowed, 1, sides.as_ref());
            assert!(placement.is_one_cpu() && placement.shared_cpu, "{placement:?}");
            assert!(!placement.is_client_apart());
            assert_eq!(placement.cpus().expect("a list"), list("3"));
            assert_eq!(placement.free_of(&[3].into()), 0);
        }
        let apart = out_of("0-3", 1, Some(&sides(true, (true, Some("3")), (true, Some("1")))));
        assert!(!apart.is_one_cpu() && !apart.shared_cpu);
        assert_eq!(apart.cpus().expect("a list"), list("1,3"));
    }

    /// Two packages of 16 cores each, with two hyperthreads a core.
    fn large() -> Topology {
        two_packages().read("0-63")
    }

    fn dealt(cpus: &str, topology: &Topology, workers: u16, hyperthreads: bool) -> Placement {
        Placement::out_of(&list(cpus), topology, workers, hyperthreads, None)
    }

    #[test]
    fn the_hyperthreads_beside_server_and_client_stay_empty() {
        let one = dealt("0-63", &large(), 1, false);
        assert_eq!((&*one.server, one.client_threads), ("0", 31));
        assert_eq!((one.shared_cpu, one.shared_core, one.packages), (false, Some(false), Some(2)));
        // The server's workers in one package, and of the client as many as fit beside them.
        let four = dealt("0-63", &large(), 4, false);
        assert_eq!(four.server, "0,2,4,6");
        assert!(four.client.starts_with("8,10,") && four.client.ends_with(",29,31"), "{four:?}");
        assert_eq!(list(&four.client).cpus().iter().filter(|&&cpu| cpu >= 32).count(), 0);
        // A cpuset, with holes in it: the siblings of 3 are whole, of 4 and 40 is one each.
        let some = dealt("3,4,35,40", &large(), 1, false);
        assert_eq!((&*some.server, &*some.client, some.shared_core), ("4", "40,3", Some(false)));
        // Of one package.
        assert_eq!(dealt("0,2,32,34", &large(), 1, false).packages, Some(1));
    }

    #[test]
    fn hyperthreads_are_shared_if_that_is_asked_for_or_there_is_one_core() {
        let asked = dealt("0-63", &large(), 40, true);
        assert_eq!((list(&asked.server).cpus().len(), asked.client_threads), (32, 32));
        assert_eq!(asked.shared_core, Some(true), "of two workers");
        let asked = dealt("0-63", &large(), 1, true);
        assert_eq!((asked.client_threads, asked.shared_core), (63, Some(true)));
        for hyperthreads in [true, false] {
            let one = dealt("5,37", &large(), 1, hyperthreads);
            assert_eq!((&*one.server, &*one.client), ("5", "37"));
            assert_eq!((one.shared_cpu, one.shared_core), (false, Some(true)));
        }
        let unknown = out_of("0-3", 1, None);
        assert_eq!(
            (unknown.client_threads, unknown.shared_core, unknown.packages),
            (3, None, None)
        );
    }

    #[test]
    fn sides_with_cpus_of_their_own_get_cores_of_their_own() {
        let deal = |one_machine, server, load| {
            let mut sides = sides(one_machine, server, load);
            let topology = serde_json::to_value(large()).expect("JSON");
            for side in [&mut sides.server, &mut sides.load] {
                side.machine = serde_json::json!({ "topology": topology });
            }
            let placement = out_of("0-63", 1, Some(&sides));
            (placement.server, placement.client, placement.shared_core)
        };
        let expected =
            |server: &str, client: &str, shared| (server.to_owned(), client.to_owned(), shared);
        for (one_machine, server, load, dealt) in [
            (true, (true, Some("7")), (true, Some("6-8,38-40")), expected("7", "6,8", Some(false))),
            (true, (true, Some("7")), (true, Some("39")), expected("7", "39", Some(true))),
            (true, (true, Some("7,39")), (true, Some("7")), expected("39", "7", Some(true))),
            (true, (false, Some("7")), (false, Some("39")), expected("", "", Some(true))),
            (true, (false, Some("7,39")), (false, Some("8,40")), expected("", "", Some(false))),
            (false, (false, Some("7")), (true, Some("7,39")), expected("", "7", Some(false))),
        ] {
            assert_eq!(deal(one_machine, server, load), dealt, "{one_machine} {server:?} {load:?}");
        }
    }
}
