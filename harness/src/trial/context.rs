//! The context that the trials of a run share.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::count::InstructionCounter;
use crate::machine::placement::Placement;
use crate::matrix::connection_limits::ConnectionLimits;
use crate::matrix::external::External;
use crate::programs::placement;
use crate::programs::process::Interruptions;
use crate::programs::sides::Launchers;
use crate::results::sides::Sides;

/// The context of every trial of a run, unless its workload has workers of its own.
#[derive(Clone)]
pub struct TrialContext {
    /// The server's program.
    pub server: PathBuf,
    /// The external servers of the matrix.
    pub externals: Vec<External>,
    /// Worker threads of the server.
    pub workers: u16,
    /// The server's first port, in a fresh network namespace or on the side of a command.
    pub first_port: u16,
    /// How many ports the server has.
    pub ports: u16,
    /// How many connections fit on this machine.
    pub connection_limits: ConnectionLimits,
    /// Which CPUs server and client run on.
    pub placement: Placement,
    /// Whether they may be hyperthreads of one core.
    pub hyperthreads: bool,
    /// The starters of the two sides, if the run has a command for either.
    pub launchers: Option<Launchers>,
    /// The counter of instructions, or why there is none.
    pub counter: Result<InstructionCounter, String>,
    /// Who asked to end the trial, and who was stopped within it.
    pub interruptions: Interruptions,
}

impl TrialContext {
    /// Returns where the two sides are, if the run has a command for either.
    pub fn sides(&self) -> Option<&Sides> {
        Some(&self.launchers.as_ref()?.sides)
    }

    /// Returns the number of the loads.
    pub fn loads(&self) -> usize {
        self.sides().map_or(1, |sides| sides.loads().count())
    }

    /// Returns the external server of that name.
    pub fn external(&self, backend: &str) -> Option<&External> {
        self.externals.iter().find(|external| external.name == backend)
    }

    /// Returns the context of a trial with this number of workers.
    ///
    /// # Errors
    /// When the workers would not have a CPU each.
    pub fn with_workers(&self, workers: u16) -> Result<Self> {
        let placement = placement::deal(workers, self.hyperthreads, self.sides())?;
        let Some(reason) = too_few(workers, placement.server_cpus()) else {
            return Ok(Self { workers, ports: workers, placement, ..self.clone() });
        };
        let with_all = placement::deal(workers, true, self.sides());
        if with_all.is_ok_and(|placement| too_few(workers, placement.server_cpus()).is_none()) {
            bail!(
                "{reason} on cores of their own; `hyperthreads = true` in the matrix lets them \
                 share cores"
            );
        }
        bail!(reason)
    }
}

/// Says why the workers cannot have a CPU each.
fn too_few(workers: u16, cpus: Option<usize>) -> Option<String> {
    if usize::from(workers) <= cpus.unwrap_or(1) {
        return None;
    }
    let has = cpus
        .map_or_else(|| "how many it has is not known".to_owned(), |cpus| format!("has {cpus}"));
    Some(format!("needs {workers} CPUs for the server, {has}"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let placement =
            |server: &str| Placement { server: server.to_owned(), ..Placement::default() };
        assert_eq!((placement("").server_cpus(), placement("0,4").server_cpus()), (None, Some(2)));
    }
}
