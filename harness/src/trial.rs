//! One trial: a fresh server, a fresh client, a fresh network namespace, and one pass over them.

mod clock;
mod columns;
mod context;
mod evidence;
mod fit;
pub mod gates;
mod in_force;
mod latency;
mod memory;
mod ramp;
mod scale;
mod site;
mod syscalls;
mod task;
mod window;

use crate::matrix::external::visible;
use crate::programs::server::RefusedByKernel;
use crate::rows::{Outcome, Status, TrialRow};

pub use self::context::TrialContext;
pub use self::task::{Task, Trial};

impl Trial {
    /// Runs it. Whatever goes wrong stands in the row.
    pub fn run(&self, context: &TrialContext) -> Outcome {
        let mut outcome = self.begun(context);
        let own = self.own_workers().map(|workers| context.with_workers(workers)).transpose();
        let own = match own {
            Ok(own) => own,
            Err(error) => {
                (outcome.row.status, outcome.row.reason) =
                    (Status::Unsupported, format!("{error:#}"));
                return outcome;
            }
        };
        let context = own.as_ref().unwrap_or(context);
        outcome.row.server_cpus = context.placement.server.clone();
        outcome.row.client_cpus = context.placement.client.clone();
        if let Some(reason) = self.unsupported(context) {
            (outcome.row.status, outcome.row.reason) = (Status::Unsupported, reason);
            return outcome;
        }
        context.interruptions.take_suspended();
        let judged = match &self.task {
            Task::Syscalls(workload, echoes) => {
                syscalls::measure(self, context, workload, *echoes, &mut outcome)
            }
            Task::Memory(memory) => memory::measure(self, context, memory, &mut outcome),
            Task::Scale(scale) => scale::measure(self, context, scale, &mut outcome),
            Task::Capacity(workload, latency) | Task::Latency(workload, latency) => {
                latency::measure(self, context, workload, latency, &mut outcome)
            }
        };
        (outcome.row.status, outcome.row.reason) =
            judged.unwrap_or_else(|error| failure(&error, context));
        reject_if_suspended(&mut outcome.row, &context.interruptions.take_suspended());
        outcome
    }

    /// Says why the server, or where the sides are, rules the trial out.
    fn unsupported(&self, context: &TrialContext) -> Option<String> {
        let backend = &self.arm.backend;
        let external = context.external(backend);
        fit::too_many_for_backend(backend, self.task.connections(), context.workers)
            .or_else(|| external?.unsupported(self.task.pass(), context.launchers.is_some()))
            .or_else(|| self.unmeasurable(context))
    }

    /// Says why this cannot be measured where the sides are.
    fn unmeasurable(&self, context: &TrialContext) -> Option<String> {
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
}

/// Returns the status and the reason of a trial that did not come to its end.
fn failure(error: &anyhow::Error, context: &TrialContext) -> (Status, String) {
    let is_refused = error.downcast_ref::<RefusedByKernel>().is_some();
    let status = if is_refused { Status::Unsupported } else { Status::Failed };
    let reason = visible(&format!("{error:#}").replace('\n', "; "));
    // It may hold what programs of other people say. All other reasons are in words of our own.
    match &context.launchers {
        Some(launchers) => (status, launchers.hide(&reason)),
        None => (status, reason),
    }
}

/// Rejects a trial in which programs were stopped.
fn reject_if_suspended(row: &mut TrialRow, suspended: &[&str]) {
    if suspended.is_empty() {
        return;
    }
    let who = suspended.iter().map(|name| format!("the {name}")).collect::<Vec<_>>().join(" and ");
    let mut reason = format!(
        "{who} was stopped by a signal (SIGSTOP, Ctrl-Z) within the trial: time passed without it"
    );
    if !row.reason.is_empty() {
        reason = format!("{reason}; {}", row.reason);
    }
    (row.status, row.reason) = (Status::Rejected, reason);
}
