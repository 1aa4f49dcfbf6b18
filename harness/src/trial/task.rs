//! The task of a trial, and how long it takes.

use std::time::{Duration, SystemTime};

use ringmark::service::Service;

use super::context::TrialContext;
use crate::load::limits::MessageBytes;
use crate::load::result::Arrival;
use crate::machine::files;
use crate::matrix::{Arm, Instructions, Latency, Memory, Scale, Workload};
use crate::rows::{Outcome, Pass, Status, TrialRow, order_line};

/// The task of a trial.
#[derive(Clone, Debug)]
pub enum Task {
    /// System calls, over this number of echoes in all.
    Syscalls(Workload, u64),
    /// The CPUs' own counters, over this number of echoes in all.
    Hardware(Workload, u64),
    /// Instructions, in one boot with the other arms of the block.
    Instructions(Workload, Instructions),
    /// Memory.
    Memory(Memory),
    /// A growing number of connections.
    Scale(Scale),
    /// The throughput of a closed loop.
    Capacity(Workload, Latency),
    /// Latency.
    Latency(Workload, Latency),
    /// Latency, in turns with the other arms of the block.
    Interleaved(Workload, Latency),
}

impl Task {
    /// Returns the pass that it belongs to.
    pub fn pass(&self) -> Pass {
        match self {
            Task::Syscalls(..) => Pass::Syscalls,
            Task::Hardware(..) => Pass::Hardware,
            Task::Instructions(..) => Pass::Instructions,
            Task::Memory(_) => Pass::Memory,
            Task::Scale(_) => Pass::Scale,
            Task::Capacity(..) => Pass::Capacity,
            Task::Latency(..) | Task::Interleaved(..) => Pass::Latency,
        }
    }

    /// Returns whether its trial is of a set: run together with the others of its block.
    pub fn is_of_a_set(&self) -> bool {
        matches!(self, Task::Interleaved(..) | Task::Instructions(..))
    }

    /// Returns the workload's name in the results.
    pub fn name(&self) -> &str {
        self.workload().map_or(self.pass().name(), |workload| &workload.name)
    }

    /// Returns what the clients do; none in a walk.
    pub fn workload(&self) -> Option<&Workload> {
        match self {
            Task::Syscalls(workload, _)
            | Task::Hardware(workload, _)
            | Task::Instructions(workload, _)
            | Task::Capacity(workload, _)
            | Task::Latency(workload, _)
            | Task::Interleaved(workload, _) => Some(workload),
            Task::Memory(_) | Task::Scale(_) => None,
        }
    }

    /// Returns the size of an echo of a walk.
    fn walked_bytes(&self) -> Option<MessageBytes> {
        match self {
            Task::Memory(Memory { message_bytes, .. })
            | Task::Scale(Scale { message_bytes, .. }) => Some(*message_bytes),
            _ => None,
        }
    }

    /// Returns the size of a message.
    fn message_bytes(&self) -> u64 {
        let walked = self.walked_bytes().map_or(0, |bytes| bytes.get());
        self.workload().map_or(walked, Workload::message_bytes)
    }

    /// Returns the options of its load, but for its connections.
    pub fn load_options(&self) -> Vec<String> {
        let walked = self.walked_bytes().map(|bytes| format!("--message-bytes={bytes}"));
        self.workload()
            .map_or(Vec::new(), Workload::load_options)
            .into_iter()
            .chain(walked)
            .collect()
    }

    /// Returns the most connections that stand at a time.
    pub fn connections(&self) -> usize {
        match self {
            Task::Syscalls(workload, _)
            | Task::Hardware(workload, _)
            | Task::Instructions(workload, _) => workload.connections,
            Task::Capacity(workload, _)
            | Task::Latency(workload, _)
            | Task::Interleaved(workload, _) => workload.all_connections(),
            Task::Memory(memory) => memory.most(),
            Task::Scale(scale) => scale.most(),
        }
    }

    /// Estimates how long a block of so many trials takes; for the time that is left.
    pub fn estimate_block(&self, trials: usize) -> Duration {
        match self {
            Task::Interleaved(workload, latency) => {
                let set = latency.interleaved.as_ref().map_or(Duration::ZERO, |of| of.set.get());
                let open = time_to_open_and_close(workload.all_connections());
                set + (START_OF_A_PAIR + open) * trials as u32
            }
            Task::Instructions(..) => TIME_OF_A_BOOT + self.estimate() * trials as u32,
            _ => self.estimate() * trials as u32,
        }
    }

    /// Estimates how long a trial takes by itself.
    fn estimate(&self) -> Duration {
        match self {
            Task::Syscalls(workload, echoes) | Task::Hardware(workload, echoes) => {
                let send_s = workload.rate().map_or(0.0, |rate| *echoes as f64 / rate);
                START_OF_A_COUNT + Duration::from_secs_f64(send_s)
            }
            Task::Instructions(_, instructions) => {
                TIME_OF_A_COUNT * u32::try_from(instructions.seeds).unwrap_or(u32::MAX)
            }
            Task::Memory(memory) => {
                let opened = 2 * self.connections()
                    + memory.active.iter().max().copied().unwrap_or_default();
                Duration::from_millis(250) * memory.connections.len() as u32 * 4
                    + time_to_open_and_close(opened)
            }
            Task::Scale(scale) => {
                let load =
                    scale.duration.get() + scale.warmup_max.get() + Duration::from_millis(1300);
                let loads = scale.connections.len() + scale.active_shares.len();
                load * 4 * scale.repeats * loads as u32 + time_to_open_and_close(self.connections())
            }
            // Most warm-ups end early.
            Task::Capacity(workload, latency)
            | Task::Latency(workload, latency)
            | Task::Interleaved(workload, latency) => {
                latency.duration.get()
                    + latency.warmup_max.get().min(Duration::from_millis(500))
                    + time_to_open_and_close(workload.idle_connections)
            }
        }
    }
}

/// The time to start and end what counts, a server and its load, and for a closed loop's echoes.
const START_OF_A_COUNT: Duration = Duration::from_millis(1000);

/// The time in which an emulated kernel comes up.
const TIME_OF_A_BOOT: Duration = Duration::from_secs(10);

/// The time in which an emulated server's instructions are counted.
const TIME_OF_A_COUNT: Duration = Duration::from_millis(1500);

/// The time to start and end a server and its load.
const START_OF_A_PAIR: Duration = Duration::from_millis(150);

/// Estimates how long it takes to open the connections, to use each once, and to close them.
fn time_to_open_and_close(connections: usize) -> Duration {
    Duration::from_micros(110) * connections as u32
}

/// A trial to be run.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its number in the run.
    pub run_id: u32,
    /// Its block.
    pub block: u32,
    /// Its place in the block.
    pub order: u32,
    /// Its role in the block: the arm's name, or the baseline's for its second reading.
    pub role: String,
    /// The server that it measures.
    pub arm: Arm,
    /// Its task.
    pub task: Task,
}

impl Trial {
    /// Returns the workers that its workload asks for in place of the run's.
    pub fn own_workers(&self) -> Option<u16> {
        self.task.workload()?.workers
    }

    /// Returns what is known of it before it runs.
    pub fn begun(&self, context: &TrialContext) -> Outcome {
        let workload = self.task.workload();
        Outcome {
            row: TrialRow {
                run_id: self.run_id,
                started_utc: files::utc(SystemTime::now()),
                pass: Some(self.task.pass()),
                workload: self.task.name().to_owned(),
                block: self.block,
                order: self.order,
                arm: self.role.clone(),
                backend: self.arm.backend.clone(),
                workers: self.own_workers().unwrap_or(context.workers),
                service: workload.map_or(Service::Echo, Workload::service).to_string(),
                message_bytes: self.task.message_bytes(),
                cpu_quota_percent: workload
                    .and_then(|workload| workload.cpu_quota)
                    .map(|quota| quota.percent()),
                pipeline_depth: workload.map_or(1, |workload| workload.pipeline.get()),
                arrival: workload.map_or(Arrival::Closed, Workload::arrival).name().to_owned(),
                ..TrialRow::default()
            },
            ..Outcome::default()
        }
    }

    /// Returns its line in the manifest's order.
    pub fn order_line(&self) -> String {
        let Self { run_id, block, role, task, .. } = self;
        order_line(*run_id, task.pass().name(), task.name(), *block, role)
    }

    /// Returns what stands for it if it is not run.
    pub fn not_run(&self, context: &TrialContext, reason: String) -> Outcome {
        let mut outcome = self.begun(context);
        (outcome.row.status, outcome.row.reason) = (Status::Failed, reason);
        outcome
    }
}
