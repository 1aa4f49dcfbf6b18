//! What bears on a matrix: said before anything is measured, or refused.

use anyhow::{Result, bail};
use ringmark::backend;

use super::facts::{Facts, refusal};
use super::judge::{Check, Line, Status, impossible};
use super::locked;
use crate::matrix::connection_limits::{
    self, ConnectionLimit, ConnectionLimits, OWN_DESCRIPTORS, own_descriptors,
};
use crate::matrix::external::External;
use crate::matrix::{Arm, Matrix, Workload};
use crate::rows::Pass;
use crate::text::count;

/// More lines than this would not be read.
const LINES_MAX: usize = 6;

/// Below this many messages in flight a CPU sleeps between them.
const LOW_LOAD: usize = 8;

/// Whether a backend with its settings is refused by this kernel, and why.
pub type Refusal = fn(&Arm) -> Option<String>;

/// The kernel's own word.
pub fn ask_kernel(contender: &Arm) -> Option<String> {
    refusal(&contender.backend, &contender.set)
}

/// The passes of a matrix that cannot measure a server that is not ours, each with the reason;
/// `is_commanded` says whether the run has a command for a side.
fn unsupported(external: &External, matrix: &Matrix, is_commanded: bool) -> Vec<(Pass, String)> {
    let of_pass = |pass| Some((pass, external.unsupported(pass, is_commanded)?));
    matrix.passes().into_iter().filter_map(of_pass).collect()
}

/// Why none of them can, if so.
fn never_supported(external: &External, matrix: &Matrix, is_commanded: bool) -> Option<String> {
    let unsupported = unsupported(external, matrix, is_commanded);
    let are_all = unsupported.len() == matrix.passes().len();
    unsupported.into_iter().next().filter(|_| are_all).map(|(_, reason)| reason)
}

/// Refuses a matrix whose baseline is a server that is not ours and that no pass can measure.
pub fn refuse_baseline(matrix: &Matrix, is_commanded: bool) -> Result<()> {
    let baseline = matrix.external(&matrix.baseline);
    match baseline.and_then(|external| never_supported(external, matrix, is_commanded)) {
        Some(why) => {
            bail!(
                "the baseline '{}' is `unsupported`, and nothing could be compared: {why}",
                matrix.baseline
            )
        }
        None => Ok(()),
    }
}

/// What of the servers that are not ours cannot be measured.
pub fn unsupported_externals(matrix: &Matrix, is_commanded: bool) -> Vec<String> {
    let lines = |external: &External| {
        let name = &external.name;
        if let Some(reason) = never_supported(external, matrix, is_commanded) {
            return vec![format!("{name} is `unsupported`: {reason}")];
        }
        let in_pass = |(pass, reason): (Pass, String)| {
            format!("{name} is `unsupported` in the {} pass: {reason}", pass.name())
        };
        unsupported(external, matrix, is_commanded).into_iter().map(in_pass).collect()
    };
    matrix.externals.iter().flat_map(lines).collect()
}

/// Refuses a matrix of which nothing, or some part for a reason that is known beforehand, could be
/// measured. A walk goes as far as it can.
pub fn refuse(facts: &Facts, matrix: &Matrix, is_commanded: bool, refusal: Refusal) -> Result<()> {
    refuse_baseline(matrix, is_commanded)?;
    let refused = |contender: &Arm| match matrix.external(&contender.backend) {
        Some(external) => never_supported(external, matrix, is_commanded),
        None => refusal(contender),
    };
    let refusals: Vec<_> = matrix.backends.iter().map_while(refused).collect();
    if refusals.len() == matrix.backends.len() {
        bail!(
            "no backend of this matrix runs here: {}",
            refusals.first().map_or("", String::as_str)
        );
    }
    if let Some(why) = impossible(facts) {
        bail!(why);
    }
    let limits = facts.connection_limits();
    for (what, connections, workers, ports) in demands(matrix) {
        let own = OWN_DESCRIPTORS as u64;
        let bounds =
            limits.for_server(u64::from(workers), u64::from(ports), own, table_bytes(matrix));
        if let Some(why) = too_many(&what, connections, bounds) {
            bail!(why);
        }
    }
    Ok(())
}

/// Why so many connections do not fit.
fn too_many(what: &str, connections: usize, bounds: Vec<ConnectionLimit>) -> Option<String> {
    let exceeded = bounds.into_iter().find(|bound| connections as u64 > bound.connections)?;
    let (asked, room) = (count(connections as u64), count(exceeded.connections));
    Some(format!(
        "{what}: {asked} connections, but {room} fit here by {}; or ask for fewer",
        exceeded.reason
    ))
}

/// The workloads whose connections fit into several workers of ours, but not into one process of
/// another server. It may have more processes: then nothing is amiss.
fn too_many_for_externals(facts: &Facts, matrix: &Matrix) -> Vec<String> {
    if matrix.externals.is_empty() {
        return Vec::new();
    }
    let bounds = facts.connection_limits().for_external(OWN_DESCRIPTORS as u64);
    let line = |(what, connections, ..): (String, usize, u16, u16)| {
        too_many(&format!("{what}, to a server that is not ours"), connections, bounds.clone())
    };
    demands(matrix).into_iter().filter_map(line).collect()
}

fn table_bytes(matrix: &Matrix) -> u64 {
    connection_limits::table_bytes(matrix.backends.iter().map(|arm| arm.backend.as_str()))
}

/// The most connections of each workload that the matrix asks for, and the workers and ports that
/// hold them.
fn demands(matrix: &Matrix) -> Vec<(String, usize, u16, u16)> {
    let workloads =
        matrix.workloads.iter().filter(|_| matrix.latency.is_some() || matrix.syscalls.is_some());
    let of_workload = |workload: &Workload| {
        let workers = workload.workers.unwrap_or(matrix.workers);
        let ports = workload.workers.or(matrix.ports).unwrap_or(matrix.workers);
        (format!("workload '{}'", workload.name), workload.all_connections(), workers, ports)
    };
    workloads.map(of_workload).collect()
}

/// From so many connections on a run says beforehand what room there is for them.
const CONNECTIONS_TO_SAY: usize = 100_000;

/// How many connections each bound allows a walk, if it is to hold many.
pub fn walks(limits: &ConnectionLimits, matrix: &Matrix) -> Vec<String> {
    let Some(most) = matrix.most_walked().filter(|&most| most >= CONNECTIONS_TO_SAY) else {
        return Vec::new();
    };
    let Matrix { workers, ports, .. } = matrix;
    let ports = ports.unwrap_or(*workers);
    let own = own_descriptors(*workers, ports);
    let bounds = limits.for_server(u64::from(*workers), u64::from(ports), own, table_bytes(matrix));
    let mut lines = vec![format!(
        "{} connections to {} workers on {} ports are asked for. There is room for:",
        count(most as u64),
        count(u64::from(*workers)),
        count(u64::from(ports))
    )];
    lines.extend(
        bounds
            .iter()
            .map(|bound| format!("  {:>13} by {}", count(bound.connections), bound.reason)),
    );
    lines
}

/// In a few lines, what is not ok here and bears on what the matrix asks for.
pub fn warnings(
    lines: &[Line],
    facts: &Facts,
    matrix: &Matrix,
    is_commanded: bool,
    refusal: Refusal,
) -> Vec<String> {
    let bearing =
        lines.iter().filter(|line| line.status != Status::Ok && bears(line.check, facts, matrix));
    let mut warnings: Vec<_> = bearing
        .map(|line| {
            let cost = line.cost.as_deref().map(|cost| format!(": {cost}")).unwrap_or_default();
            format!("{}: {}{cost}", line.check.name(), line.found)
        })
        .collect();
    warnings.extend(unsupported_externals(matrix, is_commanded));
    warnings.extend(too_many_for_externals(facts, matrix));
    warnings.extend(locked::too_little(facts, matrix));
    let is_ours = |contender: &&Arm| matrix.external(&contender.backend).is_none();
    let refused =
        matrix.backends.iter().filter(is_ours).filter(|contender| refusal(contender).is_some());
    let refused: Vec<_> = refused.map(Arm::name).collect();
    if !refused.is_empty() {
        warnings.insert(
            0,
            format!("not run by this kernel, and so `unsupported`: {}", refused.join(", ")),
        );
    }
    if warnings.len() > LINES_MAX {
        let left = warnings.len() - (LINES_MAX - 1);
        warnings.truncate(LINES_MAX - 1);
        warnings.push(format!("and {left} more"));
    }
    warnings
}

fn bears(check: Check, facts: &Facts, matrix: &Matrix) -> bool {
    let has = |pass| matrix.passes().contains(&pass);
    let times = || has(Pass::Latency) || has(Pass::Scale);
    let walked = matrix.most_walked();
    let most = demands(matrix).into_iter().map(|(_, connections, ..)| connections).chain(walked);
    let most = most.max().map(|most| most as u64);
    match check {
        // What of this matters to the matrix is told by its refused arms.
        Check::Kernel
        | Check::OtherBackends
        | Check::UringBackends
        | Check::UringDisabled
        | Check::Seccomp => false,
        // With enough of them, what is below what one would wish for is no matter; without, it is
        // refused, or said.
        Check::OpenFiles
        | Check::LockedMemory
        | Check::Memory
        | Check::Cycles
        | Check::Mitigations => false,
        Check::Ports => most.is_some_and(|most| {
            facts.ports.is_none_or(|(first, last)| 2 * most > last.saturating_sub(first) + 1)
        }),
        Check::Cpus => {
            let polls = matrix
                .backends
                .iter()
                .any(|arm| backend::find(&arm.backend).is_ok_and(|entry| entry.kernel_thread));
            let enough =
                facts.cores_allowed.is_some_and(|cores| cores >= if polls { 3 } else { 2 });
            times() && !(enough && facts.cpu_quota.is_none() && facts.packages_allowed.len() < 2)
        }
        Check::Namespace | Check::Conntrack => true,
        Check::Tracepoints => has(Pass::Syscalls),
        Check::KernelObjects => has(Pass::Memory),
        Check::Idle => {
            has(Pass::Latency)
                && matrix
                    .workloads
                    .iter()
                    .any(|load| load.connections * load.pipeline.get() < LOW_LOAD)
        }
        Check::Steal
        | Check::OtherPrograms
        | Check::Frequency
        | Check::Clock
        | Check::InterruptTime
        | Check::Congestion => times(),
        Check::AcceptQueue => {
            most.is_some_and(|most| facts.somaxconn.is_none_or(|queue| most > queue))
        }
    }
}
