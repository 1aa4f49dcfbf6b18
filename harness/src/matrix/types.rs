//! The contents of a matrix file.

use std::path::PathBuf;

use anyhow::Result;
use ringmark::backend::{self, Knobs};
use ringmark::ports::PortSharing;
use ringmark::service::{Service, ServiceName};
use serde::{Deserialize, Serialize};

use super::external::External;
use super::quota::Quota;
use crate::load::limits::{Churn, MeasuringTime, MessageBytes, Pipeline, Rate, WaitingTime};
use crate::load::message::Message;
use crate::load::result::{Arrival, Close};
use crate::machine::path::{PathKind, PathPlan};
use crate::rows::{Pass, TrialRow, Verdict};

/// A matrix: which backends are measured under which workloads.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// The purpose of the matrix as a whole.
    pub question: String,
    /// The arm that the others are compared with. It runs twice in every latency block: its two
    /// readings differ by the noise, which a difference must exceed.
    pub baseline: String,
    /// The arms, the baseline among them. External servers that are not named here are added.
    pub backends: Vec<Arm>,
    /// Echo servers that are not ours, each of which is an arm.
    #[serde(default, rename = "external", skip_serializing_if = "Vec::is_empty")]
    pub externals: Vec<External>,
    /// Worker threads of the server, over whose ports the connections are dealt in turn. With
    /// [`Matrix::ports`] it is the fewest; a run takes more if the walks need them.
    #[serde(default = "one")]
    pub workers: u16,
    /// Consecutive ports of the server, dealt to the workers in turn; without it each has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<u16>,
    /// Whether threads that are measured may be hyperthreads of one core, with verdicts all the
    /// same. Without it one CPU of each core is used; on a single core there are no verdicts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hyperthreads: bool,
    /// The differences that do not matter.
    #[serde(default, skip_serializing_if = "Margins::is_default")]
    pub margins: Margins,
    /// How latency is measured.
    pub latency: Option<Latency>,
    /// How system calls are counted.
    pub syscalls: Option<Syscalls>,
    /// How the CPUs' own counters are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// How instructions are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<Instructions>,
    /// How memory is measured.
    pub memory: Option<Memory>,
    /// How a growing number of connections is measured, of which few or none are active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// The clients' work in the passes for latency and system calls.
    #[serde(default, rename = "workload")]
    pub workloads: Vec<Workload>,
}

/// Differences that do not matter, in percent: a ratio that lies so near to 1 is `alike`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Margins {
    /// The margin of CPU per echo.
    pub cpu_percent: f64,
    /// The margin of the median latency.
    pub p50_percent: f64,
    /// The margin of all others.
    pub other_percent: f64,
}

impl Default for Margins {
    fn default() -> Self {
        Self { cpu_percent: 3.0, p50_percent: 5.0, other_percent: 10.0 }
    }
}

impl Margins {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A backend with its knobs: what an arm of a block runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// The backend's name.
    pub backend: String,
    /// `key=value` settings; the defaults hold for the rest.
    #[serde(default)]
    pub set: Vec<String>,
    /// The arm that it is compared with beside the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// How it differs from that arm. Any `over` or `changes` makes the ladder tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<String>,
}

impl Arm {
    /// Returns its name in every result: the backend and its settings, as in
    /// `uring-multishot buffers=64`.
    pub fn name(&self) -> String {
        [std::slice::from_ref(&self.backend), &self.set].concat().join(" ")
    }

    /// Returns whether its workers listen on the same ports.
    pub fn shares_ports(&self) -> bool {
        let entry = backend::find(&self.backend).ok();
        let knobs = entry.and_then(|entry| Knobs::parse(entry, &self.set).ok());
        knobs.is_some_and(|knobs| PortSharing::of(&knobs) != PortSharing::Dealt)
    }

    /// Returns whether it is another arm's backend with nothing but work added.
    pub fn differs_in_work_alone(&self) -> bool {
        matches!(&self.set[..], [only] if only.starts_with(WORK))
    }
}

/// The latency pass.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Passes over all arms, in shuffled order, that shall count.
    pub blocks: u32,
    /// The measuring window of one trial.
    pub duration: MeasuringTime,
    /// The longest warm-up before it.
    pub warmup_max: WaitingTime,
    /// A workload ends before all its blocks have run, from ten on, once every interval of CPU per
    /// echo against the baseline is at most this far from its ratio, in percent of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision_percent: Option<f64>,
    /// The turns of open loops, of a single message in flight, and of streams. Without it each arm
    /// has fresh trials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interleaved: Option<Interleaved>,
    /// The 99th percentile that a service must keep: a sweep's capacity is the highest rate that
    /// does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective_p99_us: Option<f64>,
}

/// Workloads of which all servers and loads are alive at once and take turns in short windows. Arms
/// that are near in time share the machine's phases.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interleaved {
    /// Sets of fresh processes that shall count; each is a block.
    pub sets: u32,
    /// How long the servers of a set take turns.
    pub set: MeasuringTime,
    /// The window of a turn.
    pub window: MeasuringTime,
    /// The time before a window, in which the load runs already.
    pub warmup: WaitingTime,
}

/// The pass for system calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syscalls {
    /// Echoes that are counted in one trial, over all connections; at least one for each.
    pub echoes: u64,
}

/// The pass for the CPUs' own counters.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Echoes that are counted in one trial, over all connections; at least one for each.
    pub echoes: u64,
}

/// The pass for instructions, in an emulator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instructions {
    /// Echoes of the first window, over all connections; at least one for each. The second window
    /// has twice as many.
    pub echoes: u64,
    /// Fresh servers for each arm and workload, each with a seed of its own.
    #[serde(default = "one")]
    pub seeds: u64,
    /// Boots of each kernel. All of them count the same, or it is no exact count.
    #[serde(default = "one")]
    pub boots: u32,
    /// The images of the kernels; without them it is one of this machine's release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<PathBuf>,
}

/// The pass for memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The question that the pass answers.
    pub question: String,
    /// The connection counts that one server is walked through, up and down again.
    pub connections: Vec<usize>,
    /// Size of the message that uses a connection.
    pub message_bytes: MessageBytes,
    /// The counts at which every connection is active while memory is read. Without them that state
    /// is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<usize>,
}

/// The pass for a growing number of connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The question that the pass answers.
    pub question: String,
    /// The connection counts that one server is walked through, upwards.
    pub connections: Vec<usize>,
    /// How many of them are active at each count: the same load beside ever more that are idle.
    /// They are opened last, so that their descriptors are the highest.
    pub active: usize,
    /// At the largest count also these shares of it are active.
    #[serde(default)]
    pub active_shares: Vec<f64>,
    /// Size of a message.
    pub message_bytes: MessageBytes,
    /// Messages per second of the open loop, over all active connections together. A closed loop is
    /// measured beside it.
    pub rate_per_s: Rate,
    /// How often each load is measured.
    pub repeats: u32,
    /// The measuring window of a load, and of the rest before the loads.
    pub duration: MeasuringTime,
    /// The warm-up before it in the open loop; the closed one's ends when its rate has settled.
    pub warmup_max: WaitingTime,
}

/// The work of the clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Its name in every result.
    pub name: String,
    /// The question that it answers.
    pub question: String,
    /// Connections; all of them are active.
    pub connections: usize,
    /// In the latency pass: connections that are opened before them, and never send. Their
    /// descriptors are the lower ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub idle_connections: usize,
    /// The service of the server: `echo` (without it), `exchange`, `sink` or `source`.
    #[serde(default, skip_serializing_if = "ServiceName::is_echo")]
    pub service: ServiceName,
    /// Size of a message of an echo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_bytes: Option<MessageBytes>,
    /// Size of a request of an exchange or a sink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u32>,
    /// Size of a response of an exchange, or of a write of a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u32>,
    /// The network between server and load: `loopback` (without it), `loopback6`, the same over
    /// IPv6, `veth`, a pair of virtual Ethernet devices, or none: `unix`, a Unix socket.
    #[serde(default, skip_serializing_if = "is_loopback")]
    pub path: PathKind,
    /// Bytes of the largest packet; without it the device's own: 65,536 on loopback, 1,500 on veth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The congestion control of both sides, as the kernel names it; without it the kernel's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub congestion: Option<String>,
    /// Messages in flight on each connection of a closed loop.
    #[serde(default)]
    pub pipeline: Pipeline,
    /// Open loop: messages per second, over all connections together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_s: Option<Rate>,
    /// How the messages of an open loop arrive: `poisson` (without it) or `uniform`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<Arrival>,
    /// Open loops at these shares of the baseline's closed-loop capacity, which is measured first.
    /// They take the place of this workload, under names that end in `@RATE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sweep: Vec<f64>,
    /// The workload that was swept to make this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep_of: Option<String>,
    /// Echoes on a connection of a closed loop before the client closes it and opens another in its
    /// place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub churn: Option<Churn>,
    /// With churn, how the client closes a connection: `fin` (without it) or `reset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close: Option<Close>,
    /// The application's work: `--set work_ns=N` for every arm, so that each ratio is between
    /// servers that work equally long. The server waits busily for each piece of input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work_ns: Option<u64>,
    /// Worker threads of the server in this workload, in place of the matrix's. If they would not
    /// have a CPU each, the workload is `unsupported`. Connections should be a multiple of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u16>,
    /// A bound on the server's CPU time, in percent of one CPU, as containers have it: `"50 %"`.
    /// Its threads in the kernel are within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<Quota>,
    /// In the latency pass: a thread of the lowest priority spins on each CPU of the server and of
    /// the client, so that none of them halts. The figures are then without the time that a halted
    /// CPU takes to wake up, which is long in a virtual machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idle_spinner: bool,
}

/// From this many blocks on there is an interval, and a verdict. An interval of fewer says too
/// little about how heavy the tails are.
pub const BLOCKS_FOR_VERDICT: usize = 6;

/// The knob of every backend that a workload may set.
pub const WORK: &str = "work_ns";

fn is_loopback(kind: &PathKind) -> bool {
    *kind == PathKind::Loopback
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn one<N: From<u8>>() -> N {
    N::from(1)
}

impl Workload {
    /// Returns how many connections stand in all.
    pub fn all_connections(&self) -> usize {
        self.connections + self.idle_connections
    }

    /// Returns the rate of an open loop, in messages per second.
    pub fn rate(&self) -> Option<f64> {
        self.rate_per_s.map(Rate::get)
    }

    /// Returns what decides when a message begins.
    pub fn arrival(&self) -> Arrival {
        match self.rate_per_s {
            None => Arrival::Closed,
            Some(_) => self.arrival.unwrap_or(Arrival::Poisson),
        }
    }

    /// Returns whether servers may take turns in short windows: an open loop's rate is there from
    /// its first message on, a single message in flight has nothing to settle, and a stream fills
    /// its sockets at once.
    pub fn may_take_turns(&self) -> bool {
        let is_single = self.connections * self.pipeline.get() == 1 && self.churn.is_none();
        self.rate_per_s.is_some() || is_single || self.is_stream()
    }

    /// Returns what every message is.
    ///
    /// # Errors
    /// A size is missing, of no use to the service, or out of its limits.
    pub fn message(&self) -> Result<Message> {
        Message::of(self.service, self.message_bytes, self.request_bytes, self.response_bytes)
    }

    /// Returns the network that it asks for.
    pub fn path(&self) -> PathPlan {
        PathPlan { kind: self.path, mtu: self.mtu, congestion: self.congestion.clone() }
    }

    /// Returns the bytes of a message.
    pub fn message_bytes(&self) -> u64 {
        self.message().map_or(0, |message| message.bytes())
    }

    /// Returns the service of its server. A matrix that was checked has no other.
    pub fn service(&self) -> Service {
        self.message().map_or(Service::Echo, |message| message.service())
    }

    /// Whether messages go or come without an answer.
    pub fn is_stream(&self) -> bool {
        matches!(self.service, ServiceName::Sink | ServiceName::Source)
    }

    /// Returns the options of a server that offers its service.
    pub fn server_options(&self) -> Vec<String> {
        let sizes =
            [("request-bytes", self.request_bytes), ("response-bytes", self.response_bytes)];
        let sizes = sizes.into_iter().filter_map(|(name, bytes)| Some((name, bytes?)));
        let sizes = sizes.map(|(name, bytes)| format!("--{name}={bytes}"));
        let service = (!self.service.is_echo()).then(|| format!("--service={}", self.service));
        service.into_iter().chain(sizes).collect()
    }

    /// Returns the options of a load that makes it, but for its connections.
    pub fn load_options(&self) -> Vec<String> {
        let mut options = self.server_options();
        options.extend(self.message_bytes.map(|bytes| format!("--message-bytes={bytes}")));
        match self.rate_per_s {
            Some(rate) => {
                let arrival = self.arrival().name();
                options.extend([format!("--rate={rate}"), format!("--arrival={arrival}")]);
            }
            None => options.push(format!("--pipeline={}", self.pipeline)),
        }
        if let Some(churn) = self.churn {
            let close = self.close.unwrap_or_default().name();
            options.extend([format!("--churn={churn}"), format!("--close={close}")]);
        }
        options
    }

    /// Returns the command by which a load makes so many echoes on each connection. An open loop
    /// has the option of [`Self::all_echoes`].
    pub fn echo_command(&self, each: u64) -> String {
        if self.rate_per_s.is_some() { "run".to_owned() } else { format!("echo {each}") }
    }

    /// Returns the option of an open loop that ends after so many echoes.
    pub fn all_echoes(&self, each: u64) -> Option<String> {
        let all = each * self.connections as u64;
        self.rate_per_s.is_some().then(|| format!("--echoes={all}"))
    }

    /// Returns the settings of an arm under this workload.
    pub fn settings(&self, arm: &Arm) -> Vec<String> {
        let work = self.work_ns.map(|work_ns| format!("{WORK}={work_ns}"));
        arm.set.iter().cloned().chain(work).collect()
    }
}

impl Instructions {
    /// Returns how many blocks it has: each kernel in turn, as often as it is booted.
    pub fn blocks(&self) -> u32 {
        self.boots * self.kernels.len().max(1) as u32
    }
}

impl Memory {
    /// Returns the largest count of any state.
    pub fn most(&self) -> usize {
        self.connections.iter().chain(&self.active).copied().max().unwrap_or_default()
    }

    /// Returns the walk with at most `most` connections. If a list of counts goes beyond, all of
    /// its counts become smaller in proportion.
    pub fn up_to(&self, most: usize) -> Self {
        Self {
            connections: shrunk(&self.connections, most),
            active: shrunk(&self.active, most),
            ..self.clone()
        }
    }
}

fn shrunk(counts: &[usize], most: usize) -> Vec<usize> {
    let last = counts.last().copied().unwrap_or_default();
    if last <= most {
        return counts.to_vec();
    }
    let shrink = |&count: &usize| (count as u128 * most as u128 / last as u128) as usize;
    let mut counts: Vec<usize> = counts.iter().map(shrink).filter(|&count| count > 0).collect();
    counts.dedup();
    counts
}

impl Scale {
    /// Returns the largest count.
    pub fn most(&self) -> usize {
        self.connections.last().copied().unwrap_or_default()
    }

    /// Returns the counts up to `most`, which is the largest if there are larger ones.
    pub fn up_to(&self, most: usize) -> Vec<usize> {
        let mut counts = self.connections.clone();
        counts.retain(|&count| count <= most);
        if most < self.most() && counts.last() != Some(&most) {
            counts.push(most);
        }
        counts
    }

    /// Returns how many of `connections` are active in turn: the number that is the same
    /// everywhere, then, at the largest count, the shares of it that are more.
    pub fn active_of(&self, connections: usize, is_largest: bool) -> Vec<usize> {
        let shares = self.active_shares.iter().filter(|_| is_largest);
        let more = shares.map(|share| (share * connections as f64).round() as usize);
        std::iter::once(self.active).chain(more.filter(|&active| active > self.active)).collect()
    }
}

impl Matrix {
    /// Returns the verdict on figures of a trial whose threads were not kept apart, which is none.
    /// There is no such verdict if they were, or if sharing cores was asked for.
    pub fn no_verdict(&self, row: &TrialRow) -> Option<Verdict> {
        match (row.shared_cpu, row.shared_core) {
            (true, _) => Some(Verdict::SharedCpu),
            (false, Some(true)) if !self.hyperthreads => Some(Verdict::SharedCore),
            _ => None,
        }
    }

    /// Returns the matrix without its other passes.
    pub fn with_instructions_only(self) -> Self {
        Self { latency: None, syscalls: None, hardware: None, memory: None, scale: None, ..self }
    }

    /// Returns the external server of that name.
    pub fn external(&self, backend: &str) -> Option<&External> {
        self.externals.iter().find(|external| external.name == backend)
    }

    /// Returns the names of its arms, in their order.
    pub fn arms(&self) -> impl Iterator<Item = String> {
        self.backends.iter().map(Arm::name)
    }

    /// Returns every arm with one that it is compared with: each with the baseline, then each with
    /// the arm that it is over.
    pub fn comparisons(&self) -> Vec<(String, String)> {
        let others = self.arms().filter(|name| *name != self.baseline);
        let mut pairs: Vec<_> = others.map(|name| (name, self.baseline.clone())).collect();
        for arm in &self.backends {
            let over = arm.over.clone().filter(|over| *over != self.baseline);
            pairs.extend(over.map(|over| (arm.name(), over)));
        }
        pairs
    }

    /// Returns the most connections that a walk asks for.
    pub fn most_walked(&self) -> Option<usize> {
        let memory = self.memory.as_ref().map(Memory::most);
        memory.into_iter().chain(self.scale.as_ref().map(Scale::most)).max()
    }

    /// Returns the most connections that stand at a time.
    pub fn most_connections(&self) -> usize {
        let workloads = self.workloads.iter().map(Workload::all_connections);
        workloads.chain(self.most_walked()).max().unwrap_or_default()
    }

    /// Returns the passes that the matrix asks for, in the order in which they run. While the rates
    /// of its sweeps are not known, that is the one that finds them.
    pub fn passes(&self) -> Vec<Pass> {
        if self.workloads.iter().any(|workload| !workload.sweep.is_empty()) {
            return vec![Pass::Capacity];
        }
        let asked = [
            (self.syscalls.is_some(), Pass::Syscalls),
            (self.hardware.is_some(), Pass::Hardware),
            (self.instructions.is_some(), Pass::Instructions),
            (self.memory.is_some(), Pass::Memory),
            (self.scale.is_some(), Pass::Scale),
            (self.latency.is_some(), Pass::Latency),
        ];
        asked.into_iter().filter(|(asked, _)| *asked).map(|(_, pass)| pass).collect()
    }
}
