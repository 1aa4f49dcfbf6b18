//! A matrix: which backends are measured under which workloads, and what question each one answers.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringmark::backend::{self, Knobs};
use serde::{Deserialize, Serialize};

use super::connection_limits::own_descriptors;
use super::external::{External, visible};
use crate::load::result::Arrival;
use crate::load::{
    CHURN_MAX, DURATION_MAX, MESSAGE_BYTES_MAX, PIPELINE_MAX, RATE_MAX_PER_S, RATE_MIN_PER_S,
};
use crate::rows::{Pass, TrialRow, Verdict};

/// A matrix file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// What the matrix as a whole is for.
    pub question: String,
    /// The arm that the others are compared with. It runs twice in every latency block: how far the
    /// two readings of the same server lie apart is the noise that a difference must exceed.
    pub baseline: String,
    /// The arms, the baseline among them. External servers need not be named here: those that are
    /// not are added.
    pub backends: Vec<Arm>,
    /// Echo servers that are not ours, each of which is an arm.
    #[serde(default, rename = "external", skip_serializing_if = "Vec::is_empty")]
    pub externals: Vec<External>,
    /// Worker threads of the server, over whose ports the connections are dealt in turn. Where
    /// [`Matrix::ports`] is given: the fewest; see [`Matrix::give_files`].
    #[serde(default = "one")]
    pub workers: u16,
    /// Consecutive ports of the server, dealt to the workers in turn; without it each has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<u16>,
    /// Whether threads that are measured may be hyperthreads of one core, and verdicts are given
    /// all the same. Without it one CPU of each core is used and the others stay empty; where there
    /// is only one core, there are no verdicts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hyperthreads: bool,
    /// How latency is measured.
    pub latency: Option<Latency>,
    /// How system calls are counted.
    pub syscalls: Option<Syscalls>,
    /// How memory is measured.
    pub memory: Option<Memory>,
    /// How a growing number of connections is measured of which few or none are active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// What the clients do in the passes for latency and system calls.
    #[serde(default, rename = "workload")]
    pub workloads: Vec<Workload>,
}

/// A backend with its knobs: what an arm of a block runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name.
    pub backend: String,
    /// `key=value` settings; the defaults hold for the rest.
    #[serde(default)]
    pub set: Vec<String>,
    /// The arm that it stands on: it is compared with that one too, beside the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// What it does otherwise than the arm that it stands on. Any `over` or `changes` makes the
    /// ladder tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<String>,
}

impl Arm {
    /// Its name in every result: the backend and its settings, as in `uring-multishot buffers=64`.
    pub fn name(&self) -> String {
        std::iter::once(&self.backend)
            .chain(&self.set)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// The latency pass.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Passes over all arms, in shuffled order, that shall count; [`ADDITIONAL_SHARE`] bounds how
    /// many more are run in place of those that lost a trial.
    pub blocks: u32,
    /// The measuring window of one trial.
    #[serde(with = "duration")]
    pub duration: Duration,
    /// The longest warm-up before it.
    #[serde(with = "duration")]
    pub warmup_max: Duration,
    /// A workload ends before all its blocks have run, from [`BLOCKS_FOR_VERDICT`] on, once every
    /// interval of CPU per echo against the baseline is at most this far from its ratio, in percent
    /// of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision_percent: Option<f64>,
    /// The 99th percentile that a service must keep: a sweep's capacity is the highest rate that
    /// does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective_p99_us: Option<f64>,
}

/// The pass for system calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syscalls {
    /// Echoes that are counted in one trial, over all connections; each connection makes at least
    /// one.
    pub echoes: u64,
}

/// The pass for memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// What the pass answers.
    pub question: String,
    /// The connection counts that one server is walked through, up and down again.
    pub connections: Vec<usize>,
    /// Size of the message that uses a connection.
    pub message_bytes: u64,
    /// The counts of the walk in which every connection is active while memory is read. Without
    /// them that state is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<usize>,
}

/// The pass for a growing number of connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// What the pass answers.
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
    pub message_bytes: u64,
    /// Messages per second of the open loop, over all active connections together; beside it there
    /// is a closed one.
    pub rate_per_s: f64,
    /// How often each load is measured.
    pub repeats: u32,
    /// The measuring window of a load, and of the rest before the loads.
    #[serde(with = "duration")]
    pub duration: Duration,
    /// The warm-up before it in the open loop; the closed one's ends when its rate has settled.
    #[serde(with = "duration")]
    pub warmup_max: Duration,
}

/// What the clients do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Its name in every result.
    pub name: String,
    /// What it answers.
    pub question: String,
    /// Connections; all of them are active.
    pub connections: usize,
    /// In the latency pass: connections beside them that are opened before, and never send. Their
    /// descriptors are the lower ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub idle_connections: usize,
    /// Size of a message.
    pub message_bytes: u64,
    /// Messages in flight on each connection of a closed loop.
    #[serde(default = "one_message")]
    pub pipeline: usize,
    /// Open loop: messages per second, over all connections together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_s: Option<f64>,
    /// How the messages of an open loop arrive: `poisson` (without it) or `uniform`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<Arrival>,
    /// Open loops at these shares of the baseline's closed-loop capacity, which is measured first:
    /// they take the place of this workload, under names that end in `@RATE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sweep: Vec<f64>,
    /// The workload that was swept to make this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep_of: Option<String>,
    /// Echoes on a connection of a closed loop before the client resets it and opens another in its
    /// place. It resets, as it does at the end of every load, so that no TIME_WAIT uses up its
    /// ports: what a server makes of a peer that is gone is in the figures, and an orderly end with
    /// a FIN each way is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub churn: Option<u64>,
    /// The application's work: `--set work_ns=N` for every arm, the baseline and its second reading
    /// among them, so that each ratio is between servers that work equally long. A busy wait for
    /// each piece of input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work_ns: Option<u64>,
    /// Worker threads of the server in this workload, in place of the matrix's. Where they would
    /// not have a CPU each, the workload is `unsupported`. Connections should be a multiple of
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u16>,
    /// In the latency pass: a thread of the lowest priority spins on each CPU of the server and of
    /// the client, so that none of them halts when it has nothing to do. What is measured is then
    /// without the time that a halted CPU takes to wake up, which is long in a virtual machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idle_spinner: bool,
}

impl Workload {
    /// All connections that stand.
    pub fn all_connections(&self) -> usize {
        self.connections + self.idle_connections
    }

    /// What decides when a message begins.
    pub fn arrival(&self) -> Arrival {
        match self.rate_per_s {
            None => Arrival::Closed,
            Some(_) => self.arrival.unwrap_or(Arrival::Poisson),
        }
    }

    /// The settings of a contender under this workload.
    pub fn settings(&self, contender: &Arm) -> Vec<String> {
        let work = self.work_ns.map(|work_ns| format!("{WORK}={work_ns}"));
        contender.set.iter().cloned().chain(work).collect()
    }
}

impl Memory {
    /// The largest count of any state.
    pub fn most(&self) -> usize {
        self.connections.iter().chain(&self.active).copied().max().unwrap_or_default()
    }

    /// The walk with at most so many connections: counts that go beyond become smaller in
    /// proportion, all of them.
    pub fn up_to(&self, most: usize) -> Self {
        let shrunk = |counts: &[usize]| {
            let last = counts.last().copied().unwrap_or_default();
            let shrink = |&count: &usize| (count as u128 * most as u128 / last as u128) as usize;
            let mut counts =
                if last <= most { counts.to_vec() } else { counts.iter().map(shrink).collect() };
            counts.retain(|&count| count > 0);
            counts.dedup();
            counts
        };
        Self {
            connections: shrunk(&self.connections),
            active: shrunk(&self.active),
            ..self.clone()
        }
    }
}

impl Scale {
    /// Returns the largest count.
    pub fn most(&self) -> usize {
        self.connections.iter().copied().max().unwrap_or_default()
    }

    /// The counts up to `most`, which is the largest if there are larger ones.
    pub fn up_to(&self, most: usize) -> Vec<usize> {
        let mut counts: Vec<_> =
            self.connections.iter().copied().filter(|&count| count <= most).collect();
        if counts.len() < self.connections.len() && counts.last() != Some(&most) {
            counts.push(most);
        }
        counts
    }

    fn check(&self) -> Result<()> {
        ensure!(
            !self.connections.is_empty(),
            "scale.connections is empty: give at least one count"
        );
        check_counts("scale.connections", &self.connections)?;
        check_message("scale", self.message_bytes)?;
        let least = self.connections[0];
        ensure!(
            (1..=least).contains(&self.active),
            "scale.active must be from 1 to the smallest of scale.connections, {least}"
        );
        ensure!(
            self.active_shares.iter().all(|share| (0.0..=1.0).contains(share))
                && self.active_shares.is_sorted_by(|a, b| a < b),
            "scale.active_shares must rise, from 0 to 1"
        );
        ensure!(
            (RATE_MIN_PER_S..=RATE_MAX_PER_S).contains(&self.rate_per_s),
            "scale.rate_per_s must be above 0, at least one message a day, and at most {RATE_MAX_PER_S}"
        );
        ensure!((1..=100).contains(&self.repeats), "scale.repeats must be from 1 to 100");
        ensure!(!self.duration.is_zero(), "scale.duration is 0: nothing would be measured");
        for (name, value) in [("duration", self.duration), ("warmup_max", self.warmup_max)] {
            ensure!(value <= DURATION_MAX, "scale.{name} is more than a day");
        }
        Ok(())
    }

    /// How many of `connections` are active in turn: the number that is the same everywhere, then,
    /// at the largest count, the shares of it that are more.
    pub fn active_of(&self, connections: usize, is_largest: bool) -> Vec<usize> {
        let shares = self.active_shares.iter().filter(|_| is_largest);
        let of_shares = shares.map(|share| (share * connections as f64).round() as usize);
        std::iter::once(self.active)
            .chain(of_shares.filter(|&active| active > self.active))
            .collect()
    }
}

fn check_counts(name: &str, counts: &[usize]) -> Result<()> {
    let rises = counts.first().is_none_or(|&first| first > 0) && counts.is_sorted_by(|a, b| a < b);
    ensure!(rises, "{name} must rise, from 1 on");
    ensure!(
        counts.last().is_none_or(|&most| most <= MOST_CONNECTIONS),
        "{name} must be at most {MOST_CONNECTIONS}"
    );
    Ok(())
}

fn check_message(pass: &str, message_bytes: u64) -> Result<()> {
    ensure!(message_bytes > 0, "{pass}.message_bytes is 0: a message has at least one byte");
    ensure!(message_bytes <= MESSAGE_BYTES_MAX, "{pass}.message_bytes is more than 1 GiB");
    Ok(())
}

/// From this many blocks on there is an interval, and a verdict. An interval of fewer says too
/// little about how heavy the tails are.
pub const BLOCKS_FOR_VERDICT: usize = 10;

/// The knob of every backend that a workload may set.
const WORK: &str = "work_ns";

/// A workload whose blocks lost trials to the gates gets up to this share of its blocks in
/// addition, rounded up: enough for a busy moment, and an end for a machine that is never quiet.
const ADDITIONAL_SHARE: f64 = 0.25;

/// Closed-loop trials of the baseline from which the rates of a sweep follow: enough for a median.
const CAPACITY_TRIALS: u32 = 3;

/// What a server may have of them.
const WORKERS: std::ops::RangeInclusive<u16> = 1..=4096;

/// More than this fits into no machine's ports and memory that anyone would test with.
const MOST_CONNECTIONS: usize = 10_000_000;

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn one() -> u16 {
    1
}

fn one_message() -> usize {
    1
}

pub(crate) mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&humantime::format_duration(*duration).to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        humantime::parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A text in it that would do something to a terminal. Breaks of lines and tabs are blanks.
fn hidden_in(value: &serde_json::Value) -> Option<&str> {
    match value {
        serde_json::Value::String(text) => {
            let is_hidden = text.lines().any(|line| visible(line) != line.replace('\t', " "));
            is_hidden.then_some(text)
        }
        serde_json::Value::Array(values) => values.iter().find_map(hidden_in),
        serde_json::Value::Object(values) => values.values().find_map(hidden_in),
        _ => None,
    }
}

impl Matrix {
    /// The verdict on figures of a trial whose threads were not kept apart, which is none; none if
    /// they were, or if that they share cores was asked for.
    pub fn no_verdict(&self, row: &TrialRow) -> Option<Verdict> {
        match (row.shared_cpu, row.shared_core) {
            (true, _) => Some(Verdict::SharedCpu),
            (false, Some(true)) if !self.hyperthreads => Some(Verdict::SharedCore),
            _ => None,
        }
    }

    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        ensure!(
            !text.trim().is_empty(),
            "{}: the file is empty; see harness/matrix for examples",
            path.display()
        );
        // The parser's message spans several lines; one line is what a terminal and a log can use.
        let mut matrix: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            anyhow::anyhow!(
                "{} line {line}: {}",
                path.display(),
                error.message().replace('\n', "; ")
            )
        })?;
        if let Some(text) = hidden_in(&serde_json::to_value(&matrix)?) {
            bail!("{}: a character in {text:?} is not to be seen; take it out", path.display());
        }
        matrix.enlist_externals();
        matrix.check().with_context(|| path.display().to_string())?;
        Ok(matrix)
    }

    /// Makes an arm of every external server that is none yet.
    fn enlist_externals(&mut self) {
        for External { name, .. } in &self.externals {
            if !self.backends.iter().any(|contender| contender.backend == *name) {
                self.backends.push(Arm { backend: name.clone(), ..Arm::default() });
            }
        }
    }

    /// The server of that name, if it is not ours.
    pub fn external(&self, backend: &str) -> Option<&External> {
        self.externals.iter().find(|external| external.name == backend)
    }

    fn check_externals(&self) -> Result<()> {
        for (index, external) in self.externals.iter().enumerate() {
            let name = &external.name;
            external.check()?;
            let twice = self.externals[..index].iter().any(|other| other.name == *name);
            ensure!(!twice, "external '{name}' stands twice");
            let workers =
                self.workloads.iter().filter_map(|workload| workload.workers).chain([self.workers]);
            let most = workers.max().unwrap_or_default();
            ensure!(
                most == 1 || external.takes_workers(),
                "external '{name}': there is no {{workers}} in its command, but {most} are asked for"
            );
        }
        Ok(())
    }

    /// Refuses what cannot be run.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.backends.is_empty(), "backends is empty: name at least one");
        self.check_externals()?;
        for (index, contender) in self.backends.iter().enumerate() {
            let arm = contender.name();
            if let Some(External { name, .. }) = self.external(&contender.backend) {
                ensure!(
                    contender.set.is_empty(),
                    "'{arm}': external '{name}' has no knobs; leave `set` out"
                );
            } else {
                let entry = backend::find(&contender.backend).map_err(anyhow::Error::msg)?;
                Knobs::parse(entry, &contender.set).map_err(anyhow::Error::msg)?;
                ensure!(
                    entry.echoes,
                    "{} does not echo; memory passes measure it by themselves",
                    entry.name
                );
            }
            let twice = self.backends[..index].iter().any(|other| other.name() == arm);
            ensure!(
                !twice,
                "backend '{arm}' stands twice; another `set` would make it another arm"
            );
        }
        let is_arm = |name: &str| self.backends.iter().any(|contender| contender.name() == name);
        if !is_arm(&self.baseline) {
            bail!("baseline '{}' is not among the backends{}", self.baseline, self.names());
        }
        for contender in &self.backends {
            let (arm, Some(over)) = (contender.name(), &contender.over) else { continue };
            ensure!(arm != *over, "'{arm}' is over itself");
            ensure!(
                is_arm(over),
                "'{arm}' is over '{over}', which is not among the backends{}",
                self.names()
            );
        }
        ensure!(WORKERS.contains(&self.workers), "workers must be from 1 to 4096");
        if let Some(latency) = &self.latency {
            ensure!((1..=1000).contains(&latency.blocks), "latency.blocks must be from 1 to 1000");
            ensure!(
                !latency.duration.is_zero(),
                "latency.duration is 0: nothing would be measured"
            );
            for (name, value) in
                [("duration", latency.duration), ("warmup_max", latency.warmup_max)]
            {
                ensure!(value <= DURATION_MAX, "latency.{name} is more than a day");
            }
            for (name, value) in [
                ("precision_percent", latency.precision_percent),
                ("objective_p99_us", latency.objective_p99_us),
            ] {
                ensure!(value.is_none_or(|value| value > 0.0), "latency.{name} must be above 0");
            }
        }
        if let Some(syscalls) = &self.syscalls {
            ensure!(syscalls.echoes > 0, "syscalls.echoes is 0: nothing would be counted");
        }
        if let Some(memory) = &self.memory {
            let Memory { connections, active, message_bytes, .. } = memory;
            for (name, counts) in [("connections", connections), ("active", active)] {
                let may_be_empty = name == "active";
                ensure!(
                    counts.len() >= 2 || (may_be_empty && counts.is_empty()),
                    "memory.{name} needs two counts or more: a slope needs two points"
                );
                check_counts(&format!("memory.{name}"), counts)?;
            }
            check_message("memory", *message_bytes)?;
        }
        if let Some(scale) = &self.scale {
            scale.check()?;
        }
        if let Some(ports) = self.ports {
            ensure!(WORKERS.contains(&ports), "ports must be from 1 to 4096");
            ensure!(
                ports.is_multiple_of(self.workers),
                "ports must be a multiple of workers: else some would have more than others"
            );
        }
        let needs_workloads = self.latency.is_some() || self.syscalls.is_some();
        ensure!(
            needs_workloads || self.memory.is_some() || self.scale.is_some(),
            "no pass: give [latency], [syscalls], [memory] or [scale]"
        );
        ensure!(
            !needs_workloads || !self.workloads.is_empty(),
            "no [[workload]] for the passes that need one"
        );
        for (index, workload) in self.workloads.iter().enumerate() {
            let name = &workload.name;
            // It becomes part of the histograms' file names.
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            ensure!(
                !name.is_empty() && name.chars().all(is_plain),
                "workload '{name}': a name is made of letters, digits, '-', '_' and '.'"
            );
            let connections = 1..=MOST_CONNECTIONS;
            ensure!(
                connections.contains(&workload.connections),
                "workload '{name}': connections must be from 1 to {MOST_CONNECTIONS}"
            );
            ensure!(workload.message_bytes > 0, "workload '{name}': message_bytes is 0");
            ensure!(
                workload.message_bytes <= MESSAGE_BYTES_MAX,
                "workload '{name}': message_bytes is more than 1 GiB"
            );
            ensure!(
                workload.pipeline as u64 <= PIPELINE_MAX,
                "workload '{name}': pipeline is more than {PIPELINE_MAX}"
            );
            ensure!(
                workload.sweep.is_empty()
                    || (workload.rate_per_s.is_none() && self.latency.is_some()),
                "workload '{name}': sweep finds its rates itself, in the latency pass; leave rate_per_s out and give [latency]"
            );
            ensure!(
                workload.sweep.iter().all(|share| (0.001..=10.0).contains(share))
                    && workload.sweep.is_sorted_by(|a, b| a < b),
                "workload '{name}': sweep must rise, from 0.001 to 10 times the capacity"
            );
            ensure!(
                workload.sweep_of.is_none(),
                "workload '{name}': sweep_of is written by a run, not given"
            );
            if let Some(rate) = workload.rate_per_s {
                ensure!(
                    (RATE_MIN_PER_S..=RATE_MAX_PER_S).contains(&rate),
                    "workload '{name}': rate_per_s must be above 0, at least one message a day, and at most {RATE_MAX_PER_S}"
                );
            }
            let is_open = workload.rate_per_s.is_some() || !workload.sweep.is_empty();
            ensure!(
                workload.pipeline == 1 || !is_open,
                "workload '{name}': an open loop has no pipeline; leave it out"
            );
            ensure!(
                workload.arrival.is_none() || is_open,
                "workload '{name}': arrival is for an open loop; give rate_per_s or sweep too"
            );
            ensure!(
                workload.arrival != Some(Arrival::Closed),
                "workload '{name}': arrival 'closed' is what a workload without rate_per_s or sweep has"
            );
            if let Some(churn) = workload.churn {
                ensure!(
                    workload.idle_connections == 0,
                    "workload '{name}': with churn the server's connections are counted one by one; leave idle_connections out"
                );
                ensure!(
                    (1..=CHURN_MAX).contains(&churn),
                    "workload '{name}': churn must be from 1 to {CHURN_MAX} echoes on a connection"
                );
                ensure!(
                    workload.rate_per_s.is_none(),
                    "workload '{name}': churn is for a closed loop, and rate_per_s makes an open one"
                );
            }
            ensure!(
                workload.workers.is_none_or(|workers| WORKERS.contains(&workers)),
                "workload '{name}': workers must be from 1 to 4096"
            );
            self.check_work(workload)?;
            ensure!(
                workload.idle_connections <= MOST_CONNECTIONS,
                "workload '{name}': idle_connections must be at most {MOST_CONNECTIONS}"
            );
            ensure!(
                workload.idle_connections == 0 || self.latency.is_some(),
                "workload '{name}': idle_connections is for the pass [latency], which is not asked for"
            );
            ensure!(
                !workload.idle_spinner || self.latency.is_some(),
                "workload '{name}': idle_spinner is for the pass [latency], which is not asked for"
            );
            ensure!(name.len() <= 64, "workload '{name}': a name has at most 64 characters");
            ensure!(
                workload.pipeline > 0,
                "workload '{name}': pipeline is 0: nothing would be sent"
            );
            let twice = self.workloads[..index].iter().any(|other| other.name == *name);
            ensure!(!twice, "workload '{name}' stands twice");
        }
        Ok(())
    }

    /// Whether every arm takes the work, and from the workload only.
    fn check_work(&self, workload: &Workload) -> Result<()> {
        for contender in self.backends.iter().filter(|_| workload.work_ns.is_some()) {
            let (name, arm) = (&workload.name, contender.name());
            ensure!(
                self.external(&contender.backend).is_none(),
                "workload '{name}': {WORK} is a knob of our servers, and external '{arm}' would do no such work"
            );
            let sets_it =
                contender.set.iter().any(|setting| setting.split('=').next() == Some(WORK));
            ensure!(!sets_it, "workload '{name}': {WORK} is set by it and by '{arm}'; one must do");
            let entry = backend::find(&contender.backend).map_err(anyhow::Error::msg)?;
            Knobs::parse(entry, &workload.settings(contender))
                .map_err(|error| anyhow::anyhow!("workload '{name}': {error}"))?;
        }
        Ok(())
    }

    /// For the end of a message that missed one.
    fn names(&self) -> String {
        let names: Vec<_> = self.backends.iter().map(Arm::name).collect();
        format!("; there are: {}", names.join(", "))
    }

    /// Every arm with one that it is compared with: each with the baseline, then each with what it
    /// is over.
    pub fn comparisons(&self) -> Vec<(String, String)> {
        let others = self.backends.iter().map(Arm::name).filter(|arm| *arm != self.baseline);
        let mut pairs: Vec<_> = others.map(|arm| (arm, self.baseline.clone())).collect();
        for contender in &self.backends {
            let pair = contender.over.clone().map(|over| (contender.name(), over));
            pairs.extend(pair.filter(|(_, over)| *over != self.baseline));
        }
        pairs
    }

    /// The most connections that a walk asks for.
    pub fn most_walked(&self) -> Option<usize> {
        let memory = self.memory.as_ref().map(Memory::most);
        let scale = self.scale.as_ref().and_then(|scale| scale.connections.last().copied());
        memory.into_iter().chain(scale).max()
    }

    /// The most connections that stand at a time.
    pub fn most_connections(&self) -> usize {
        let workloads = self.workloads.iter().map(Workload::all_connections);
        workloads.chain(self.most_walked()).max().unwrap_or_default()
    }

    /// Takes as many workers as it needs for the walks' connections if each may open so many files:
    /// the smallest divisor of the ports that is enough, or all of the ports.
    pub fn give_files(&mut self, open_files: u64) {
        let (Some(ports), Some(most)) = (self.ports, self.most_walked()) else { return };
        // More than that a table of direct descriptors never has.
        let files = open_files.min(65_536);
        let holds = |workers: u16| {
            most.div_ceil(usize::from(workers)) as u64 + own_descriptors(workers, ports) <= files
        };
        let mut divisors = (self.workers..=ports).filter(|&workers| ports.is_multiple_of(workers));
        self.workers = divisors.find(|&workers| holds(workers)).unwrap_or(ports);
    }

    /// Makes the walks end at `most` connections, if they go beyond.
    pub fn limit_connections(&mut self, most: usize) -> Result<()> {
        ensure!(self.most_walked().is_some(), "it is for a matrix with [memory] or [scale]");
        if let Some(memory) = &mut self.memory {
            *memory = memory.up_to(most);
        }
        if let Some(scale) = &mut self.scale {
            scale.connections = scale.up_to(most);
        }
        self.check()
    }

    /// How many blocks of a workload shall count in a pass, and how many more may be run to get
    /// there. A walk takes minutes and no ratio within its block, so it is not repeated.
    pub fn blocks(&self, pass: Pass) -> (u32, u32) {
        let planned = match (pass, &self.latency) {
            (Pass::Capacity, _) => CAPACITY_TRIALS,
            (Pass::Latency, Some(latency)) => latency.blocks,
            _ => 1,
        };
        let additional = (f64::from(planned) * ADDITIONAL_SHARE).ceil() as u32;
        (planned, if pass.is_walk() { 0 } else { additional })
    }

    /// The passes that the matrix asks for, in the order in which they run. While the rates of its
    /// sweeps are not known, that is the one that finds them.
    pub fn passes(&self) -> Vec<Pass> {
        if self.workloads.iter().any(|workload| !workload.sweep.is_empty()) {
            return vec![Pass::Capacity];
        }
        let asked = [
            (self.syscalls.is_some(), Pass::Syscalls),
            (self.memory.is_some(), Pass::Memory),
            (self.scale.is_some(), Pass::Scale),
            (self.latency.is_some(), Pass::Latency),
        ];
        asked.into_iter().filter(|(asked, _)| *asked).map(|(_, pass)| pass).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        question = "which?"
        baseline = "epoll-et"
        backends = [{ backend = "epoll-et" }, { backend = "uring-multishot", set = ["buffers=64"] }]
        [latency]
        blocks = 2
        duration = "200ms"
        warmup_max = "1s"
        [[workload]]
        name = "one"
        question = "the floor"
        connections = 1
        message_bytes = 64
    "#;

    fn parse(text: &str) -> Result<Matrix> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("writes");
        Matrix::read(file.path())
    }

    #[test]
    fn a_good_matrix_is_read() {
        let matrix = parse(GOOD).expect("is good");
        assert_eq!(matrix.latency.as_ref().expect("given").duration, Duration::from_millis(200));
        assert_eq!(matrix.workloads[0].pipeline, 1);
        assert_eq!(matrix.passes(), [Pass::Latency]);
    }

    #[test]
    fn bad_matrices_are_refused_in_one_line_that_names_the_fault() {
        let with = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            parse(&GOOD.replace(from, to))
        };
        let cases = [
            (parse(""), "empty"),
            (parse("[latency"), "line 1"),
            (with("blocks = 2", "blokcs = 2"), "blokcs"),
            (with("blocks = 2", "blocks = 0"), "blocks"),
            (with("connections = 1", "connections = 0"), "connections"),
            (with("message_bytes = 64", "message_bytes = 0"), "message_bytes"),
            (with("buffers=64", "bufers=64"), "bufers"),
            (with("buffers=64", "buffers=0"), "buffers"),
            (with("baseline = \"epoll-et\"", "baseline = \"epoll-lt\""), "epoll-lt"),
            (with("{ backend = \"epoll-et\" }", "{ backend = \"epol\" }"), "epol"),
            (with("200ms", "200"), "unit"),
            (with("name = \"one\"", "name = \"a/b\""), "a/b"),
            (
                with("message_bytes = 64", "message_bytes = 64\nsweep = [0.5, 0.2]"),
                "sweep must rise",
            ),
            (
                with("message_bytes = 64", "message_bytes = 64\nsweep = [0.5]\npipeline = 2"),
                "pipeline",
            ),
            (
                with("message_bytes = 64", "message_bytes = 64\nsweep = [0.5]\nrate_per_s = 1.0"),
                "sweep finds",
            ),
            (with("message_bytes = 64", "message_bytes = 64\nsweep_of = \"one\""), "sweep_of"),
            (with("blocks = 2", "blocks = 2\nprecision_percent = 0.0"), "precision_percent"),
            (with("message_bytes = 64", "message_bytes = 64\nrate_per_s = 0.0"), "rate_per_s"),
            (
                with("message_bytes = 64", "message_bytes = 64\nrate_per_s = 1.0\npipeline = 2"),
                "pipeline",
            ),
            (with("message_bytes = 64", "message_bytes = 64\narrival = \"uniform\""), "arrival"),
            (with("message_bytes = 64", "message_bytes = 64\nidle_spinner = 1"), "boolean"),
            (
                with("message_bytes = 64", "message_bytes = 64\nidle_connections = 99999999"),
                "idle_connections must be at most",
            ),
            (
                parse(
                    &GOOD
                        .replace("[latency]", "[syscalls]\nechoes = 1")
                        .replace("blocks = 2", "")
                        .replace("duration = \"200ms\"", "")
                        .replace("warmup_max = \"1s\"", "")
                        .replace("message_bytes = 64", "message_bytes = 64\nidle_spinner = true"),
                ),
                "idle_spinner is for the pass [latency]",
            ),
            (
                with(
                    "message_bytes = 64",
                    "message_bytes = 64\nrate_per_s = 1.0\narrival = \"closed\"",
                ),
                "closed",
            ),
            (with("message_bytes = 64", "message_bytes = 64\nchurn = 0"), "churn must be from 1"),
            (
                with("message_bytes = 64", "message_bytes = 64\nchurn = 1\nidle_connections = 1"),
                "leave idle_connections out",
            ),
            (
                with("message_bytes = 64", "message_bytes = 64\nchurn = 5000000000"),
                "churn must be from 1",
            ),
            (with("message_bytes = 64", "message_bytes = 64\nchurn = 1.5"), "line 14"),
            (
                with("message_bytes = 64", "message_bytes = 64\nchurn = 1\nrate_per_s = 9.0"),
                "open one",
            ),
            (
                with("message_bytes = 64", "message_bytes = 64\nworkers = 0"),
                "'one': workers must be",
            ),
            (with("message_bytes = 64", "message_bytes = 64\nworkers = 70000"), "line 14"),
            (
                with("message_bytes = 64", "message_bytes = 64\nwork_ns = 2000000000"),
                "'one': --set work_ns=",
            ),
            (with("message_bytes = 64", "message_bytes = 64\nwork_ns = -1"), "line 14"),
            (
                parse(
                    &GOOD
                        .replace("buffers=64", "work_ns=5")
                        .replace("message_bytes = 64", "message_bytes = 64\nwork_ns = 5"),
                ),
                "by 'uring-multishot work_ns=5'",
            ),
        ];
        for (result, names) in cases {
            let message = format!("{:#}", result.expect_err(names));
            assert!(message.contains(names) && !message.contains('\n'), "{names}: {message}");
        }
    }

    #[test]
    fn a_workload_sets_the_work_of_every_arm_and_no_other_does() {
        let matrix = parse(&GOOD.replace("message_bytes = 64", "message_bytes = 64\nwork_ns = 7"))
            .expect("is good");
        let settings = |index: usize| matrix.workloads[0].settings(&matrix.backends[index]);
        assert_eq!(settings(0), ["work_ns=7"]);
        assert_eq!(settings(1), ["buffers=64", "work_ns=7"]);
        let without = parse(&GOOD.replace("buffers=64", "work_ns=7"))
            .expect("an arm may, if no workload does");
        assert_eq!(without.workloads[0].settings(&without.backends[1]), ["work_ns=7"]);
        assert!(without.workloads[0].settings(&without.backends[0]).is_empty());
    }

    const EXTERNAL: &str = r#"
        [[external]]
        name = "other"
        command = ["other", "--port={port}"]
        ready = { line = "listening" }
        ready_within = "3s"
        version = ["other", "--version"]
    "#;

    #[test]
    fn an_external_server_is_an_arm_named_or_not() {
        let arms = |matrix: &Matrix| matrix.backends.iter().map(Arm::name).collect::<Vec<_>>();
        let matrix = parse(&format!("{GOOD}{EXTERNAL}")).expect("is good");
        assert_eq!(arms(&matrix), ["epoll-et", "uring-multishot buffers=64", "other"]);
        assert_eq!(matrix.external("other").expect("given").ready_within, Duration::from_secs(3));
        assert_eq!(matrix.external("epoll-et"), None);
        let named = GOOD.replace(
            "[{ backend = \"epoll-et\" }",
            "[{ backend = \"other\", over = \"epoll-et\" }, { backend = \"epoll-et\" }",
        );
        let named = parse(&format!("{named}{EXTERNAL}")).expect("is good");
        assert_eq!(arms(&named), ["other", "epoll-et", "uring-multishot buffers=64"]);
        assert!(named.comparisons().contains(&("other".to_owned(), "epoll-et".to_owned())));
        // As it is in a manifest.
        let json = serde_json::to_value(&named).expect("writes");
        let again: Matrix = serde_json::from_value(json).expect("reads");
        assert_eq!(again.externals, named.externals);
    }

    #[test]
    fn external_servers_that_cannot_be_are_refused_in_one_line() {
        let with = |from: &str, to: &str| {
            let good = format!("{GOOD}{EXTERNAL}");
            assert!(good.contains(from), "{from}");
            parse(&good.replace(from, to))
        };
        let cases = [
            (with("name = \"other\"", "name = \"epoll-lt\""), "one of our backends"),
            (with("{port}", "8888"), "no {port}"),
            (with("ready = { line = \"listening\" }", "ready = \"soon\""), "soon"),
            (with("ready = { line = \"listening\" }\n", ""), "ready"),
            (with("[\"other\", \"--version\"]", "[\"\"]"), "version is empty"),
            (with("ready_within = \"3s\"", "redy = 3"), "redy"),
            (parse(&format!("{GOOD}{EXTERNAL}{EXTERNAL}")), "'other' stands twice"),
            (
                with("message_bytes = 64", "message_bytes = 64\nwork_ns = 5"),
                "external 'other' would do no",
            ),
            (with("message_bytes = 64", "message_bytes = 64\nworkers = 2"), "no {workers}"),
            (
                with(
                    "[{ backend = \"epoll-et\" }",
                    "[{ backend = \"other\", set = [\"a=1\"] }, { backend = \"epoll-et\" }",
                ),
                "has no knobs",
            ),
        ];
        for (result, names) in cases {
            let message = format!("{:#}", result.expect_err(names));
            assert!(message.contains(names) && !message.contains('\n'), "{names}: {message}");
        }
    }

    const ARMS: &str = r#"
        question = "which?"
        baseline = "epoll-et receive_bytes=4096"
        backends = [
            { backend = "epoll-document", changes = "is where it begins" },
            { backend = "epoll-et", over = "epoll-document", changes = "registered once" },
            { backend = "epoll-et", set = ["receive_bytes=4096"], over = "epoll-et", changes = "less at once" },
            { backend = "uring-multishot", set = ["buffers=64", "buffer_bytes=1024"], over = "epoll-et receive_bytes=4096" },
        ]
        [memory]
        question = "how much?"
        connections = [1, 2]
        message_bytes = 64
    "#;

    #[test]
    fn one_backend_makes_several_arms_by_its_settings() {
        let matrix = parse(ARMS).expect("is good");
        let names: Vec<_> = matrix.backends.iter().map(Arm::name).collect();
        let uring = "uring-multishot buffers=64 buffer_bytes=1024";
        let narrow = "epoll-et receive_bytes=4096";
        assert_eq!(names, ["epoll-document", "epoll-et", narrow, uring]);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        // The last stands on the baseline: one comparison is enough.
        let expected = [
            pair("epoll-document", narrow),
            pair("epoll-et", narrow),
            pair(uring, narrow),
            pair("epoll-et", "epoll-document"),
            pair(narrow, "epoll-et"),
        ];
        assert_eq!(matrix.comparisons(), expected);
    }

    #[test]
    fn arms_that_cannot_be_are_refused_in_one_line() {
        for (from, to, names) in [
            ("set = [\"receive_bytes=4096\"]", "set = []", "'epoll-et' stands twice"),
            (
                "baseline = \"epoll-et receive_bytes=4096\"",
                "baseline = \"null\"",
                "baseline 'null' is not among",
            ),
            (
                "over = \"epoll-document\"",
                "over = \"epoll-dokument\"",
                "'epoll-dokument', which is not among",
            ),
            ("over = \"epoll-document\"", "over = \"epoll-et\"", "'epoll-et' is over itself"),
            ("changes", "chances", "chances"),
        ] {
            assert!(ARMS.contains(from), "{from}");
            let message = format!("{:#}", parse(&ARMS.replace(from, to)).expect_err(names));
            assert!(message.contains(names) && !message.contains('\n'), "{names}: {message}");
        }
    }

    #[test]
    fn a_quarter_of_the_blocks_may_be_run_again() {
        let mut matrix = parse(GOOD).expect("is good");
        for (blocks, additional) in [(1, 1), (3, 1), (4, 1), (10, 3), (1000, 250)] {
            matrix.latency.as_mut().expect("given").blocks = blocks;
            assert_eq!(matrix.blocks(Pass::Latency), (blocks, additional));
        }
        assert_eq!(matrix.blocks(Pass::Syscalls), (1, 1));
        assert_eq!(matrix.blocks(Pass::Memory), (1, 0));
    }

    #[test]
    fn every_shipped_matrix_is_good() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("matrix");
        let mut count = 0;
        for file in std::fs::read_dir(folder).expect("harness/matrix") {
            Matrix::read(&file.expect("an entry").path()).expect("is good");
            count += 1;
        }
        assert!(count >= 2);
    }
}
