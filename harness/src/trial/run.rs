//! Runs one trial, whatever its task.

use anyhow::anyhow;

use super::context::TrialContext;
use super::site::NotHere;
use super::task::{Task, Trial};
use super::{fit, hardware, latency, memory, scale, syscalls};
use crate::matrix::external::visible;
use crate::programs::server::RefusedByKernel;
use crate::rows::{Outcome, Status, TrialRow};

impl Trial {
    /// Returns the context of its workers; none if it is ruled out, as the row then says.
    pub fn prepare(&self, context: &TrialContext, outcome: &mut Outcome) -> Option<TrialContext> {
        let own = self
            .own_workers()
            .map_or_else(|| Ok(context.clone()), |workers| context.with_workers(workers));
        let ruled_out = match own {
            Ok(own) => {
                outcome.row.server_cpus = own.placement.server.clone();
                outcome.row.client_cpus = own.placement.client.clone();
                match self.unsupported(&own) {
                    None => return Some(own),
                    Some(reason) => reason,
                }
            }
            Err(error) => format!("{error:#}"),
        };
        (outcome.row.status, outcome.row.reason) = (Status::Unsupported, ruled_out);
        None
    }

    /// Runs it. Whatever goes wrong stands in the row.
    pub fn run(&self, context: &TrialContext) -> Outcome {
        let mut outcome = self.begun(context);
        let Some(context) = &self.prepare(context, &mut outcome) else { return outcome };
        context.interruptions.take_suspended();
        let judged = match &self.task {
            Task::Syscalls(workload, echoes) => {
                syscalls::measure(self, context, workload, *echoes, &mut outcome)
            }
            Task::Hardware(workload, echoes) => {
                hardware::measure(self, context, workload, *echoes, &mut outcome)
            }
            Task::Memory(memory) => memory::measure(self, context, memory, &mut outcome),
            Task::Scale(scale) => scale::measure(self, context, scale, &mut outcome),
            Task::Capacity(workload, latency) | Task::Latency(workload, latency) => {
                latency::measure(self, context, workload, latency, &mut outcome)
            }
            Task::Interleaved(..) | Task::Instructions(..) => {
                Err(anyhow!("it is of a set; this is a bug"))
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
            Task::Capacity(workload, _)
            | Task::Latency(workload, _)
            | Task::Interleaved(workload, _) => {
                (workload.idle_spinner && !sides.are_here()).then(|| {
                    "idle_spinner: a side is on another machine, whose CPUs it does not keep awake"
                        .to_owned()
                })
            }
            Task::Syscalls(..) | Task::Hardware(..) | Task::Instructions(..) => None,
        }
    }
}

/// Returns the status and the reason of a trial that did not come to its end.
pub fn failure(error: &anyhow::Error, context: &TrialContext) -> (Status, String) {
    let is_refused = error.downcast_ref::<RefusedByKernel>().is_some()
        || error.downcast_ref::<NotHere>().is_some();
    let status = if is_refused { Status::Unsupported } else { Status::Failed };
    let reason = visible(&format!("{error:#}").replace('\n', "; "));
    // It may hold what programs of other people say. All other reasons are in words of our own.
    match &context.launchers {
        Some(launchers) => (status, launchers.hide(&reason)),
        None => (status, reason),
    }
}

/// Rejects a trial in which programs were stopped.
pub fn reject_if_suspended(row: &mut TrialRow, suspended: &[&str]) {
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
