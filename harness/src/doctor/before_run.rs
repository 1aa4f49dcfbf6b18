//! Says before a run what bears on its matrix, or refuses the matrix.

use std::time::Duration;

use anyhow::{Result, bail};

use super::demand::{Demand, demands};
use super::findings::{Findings, refusal};
use super::lines::DoctorLine;
use super::{checks, locked};
use crate::machine::Machine;
use crate::matrix::connection_limits::{
    self, ConnectionLimit, ConnectionLimits, OWN_DESCRIPTORS, own_descriptors,
};
use crate::matrix::external::External;
use crate::matrix::{Arm, Matrix};
use crate::results::sides::Sides;
use crate::rows::Pass;
use crate::terminal;
use crate::text::grouped;

/// How long all CPUs are kept busy before a run: less than by the doctor, because each trial is
/// watched anyway.
const SPIN_TIME: Duration = Duration::from_millis(300);

/// The most warnings that are printed: more would not be read.
const WARNINGS_MAX: usize = 6;

/// The fewest connections for which a run says beforehand how many fit.
const CONNECTIONS_TO_SAY: usize = 100_000;

/// Returns why a backend with its settings is refused by the kernel, if so.
pub type Refusal = fn(&Arm) -> Option<String>;

/// The state of the machine before a run.
pub struct Examination {
    /// How many connections fit here.
    pub connection_limits: ConnectionLimits,
    /// The same in words, if the matrix asks for many.
    walks: Vec<String>,
    /// Every line, for the manifest.
    pub lines: Vec<DoctorLine>,
    /// Warnings to print before anything is measured.
    pub warnings: Vec<String>,
}

/// Examines the machine for a matrix, and refuses what cannot be measured here. It knows nothing of
/// a side on another machine, and refuses nothing for its sake: that side does so in its trials.
pub fn examine(machine: &Machine, matrix: &Matrix, sides: Option<&Sides>) -> Result<Examination> {
    let findings = Findings::read(machine, SPIN_TIME);
    let lines = checks::lines(&findings);
    let connection_limits = findings.connection_limits();
    let is_commanded = sides.is_some();
    if sides.is_some_and(|sides| !sides.are_here()) {
        refuse_baseline(matrix, is_commanded)?;
        let warnings = unsupported_externals(matrix, is_commanded);
        return Ok(Examination { connection_limits, walks: Vec::new(), lines, warnings });
    }
    refuse(&findings, matrix, is_commanded, ask_kernel)?;
    let warnings = warnings(&lines, &findings, matrix, is_commanded, ask_kernel);
    let walks = walks(&connection_limits, matrix);
    Ok(Examination { connection_limits, walks, lines, warnings })
}

impl Examination {
    /// Prints the warnings and how many connections fit.
    pub fn say(&self) -> Result<()> {
        let mut text = String::new();
        if !self.warnings.is_empty() {
            text += "This machine limits the results; `ringmark doctor` says what to do:\n";
        }
        for warning in &self.warnings {
            text += &format!("  {warning}\n");
        }
        for line in &self.walks {
            text += &format!("{line}\n");
        }
        terminal::say(&text)
    }
}

fn ask_kernel(arm: &Arm) -> Option<String> {
    refusal(&arm.backend, &arm.set)
}

/// Lists the passes that cannot measure a server that is not ours, each with the reason.
/// `is_commanded` says whether the run has a command for a side.
fn unsupported(external: &External, matrix: &Matrix, is_commanded: bool) -> Vec<(Pass, String)> {
    let reason = |pass| Some((pass, external.unsupported(pass, is_commanded)?));
    matrix.passes().into_iter().filter_map(reason).collect()
}

/// Returns why no pass can measure a server that is not ours, if so.
fn never_supported(external: &External, matrix: &Matrix, is_commanded: bool) -> Option<String> {
    let unsupported = unsupported(external, matrix, is_commanded);
    let are_all = unsupported.len() == matrix.passes().len();
    unsupported.into_iter().next().filter(|_| are_all).map(|(_, reason)| reason)
}

/// Refuses a matrix whose baseline is a server that is not ours and that no pass can measure.
fn refuse_baseline(matrix: &Matrix, is_commanded: bool) -> Result<()> {
    let baseline = matrix.external(&matrix.baseline);
    match baseline.and_then(|external| never_supported(external, matrix, is_commanded)) {
        Some(why) => bail!(
            "the baseline '{}' is `unsupported`, and nothing could be compared: {why}",
            matrix.baseline
        ),
        None => Ok(()),
    }
}

/// Lists the servers that are not ours and cannot be measured, wholly or in a pass.
fn unsupported_externals(matrix: &Matrix, is_commanded: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for external in &matrix.externals {
        let name = &external.name;
        if let Some(reason) = never_supported(external, matrix, is_commanded) {
            lines.push(format!("{name} is `unsupported`: {reason}"));
            continue;
        }
        for (pass, reason) in unsupported(external, matrix, is_commanded) {
            let pass = pass.name();
            lines.push(format!("{name} is `unsupported` in the {pass} pass: {reason}"));
        }
    }
    lines
}

/// Refuses a matrix if nothing of it can be measured, or if a workload has too many connections. A
/// walk goes as far as it can.
pub fn refuse(
    findings: &Findings,
    matrix: &Matrix,
    is_commanded: bool,
    refusal: Refusal,
) -> Result<()> {
    refuse_baseline(matrix, is_commanded)?;
    let refused = |arm: &Arm| match matrix.external(&arm.backend) {
        Some(external) => never_supported(external, matrix, is_commanded),
        None => refusal(arm),
    };
    let refusals: Vec<_> = matrix.backends.iter().map_while(refused).collect();
    if refusals.len() == matrix.backends.len() {
        let first = refusals.first().map_or("", String::as_str);
        bail!("no backend of this matrix runs here: {first}");
    }
    if let Some(why) = findings.impossible() {
        bail!(why);
    }
    let limits = findings.connection_limits();
    for demand in demands(matrix) {
        let (workers, ports) = (demand.workers.into(), demand.ports.into());
        let bounds = limits.for_server(workers, ports, OWN_DESCRIPTORS as u64, table_bytes(matrix));
        if let Some(why) = too_many(&demand, "", bounds) {
            bail!(why);
        }
    }
    Ok(())
}

/// Returns why so many connections do not fit, if so.
fn too_many(demand: &Demand, to: &str, bounds: Vec<ConnectionLimit>) -> Option<String> {
    let asked = demand.connections as u64;
    let exceeded = bounds.into_iter().find(|bound| asked > bound.connections)?;
    Some(format!(
        "{}{to}: {} connections, but {} fit here by {}; or ask for fewer",
        demand.workload,
        grouped(asked),
        grouped(exceeded.connections),
        exceeded.reason
    ))
}

/// Lists the workloads whose connections fit into several workers of ours, but not into one process
/// of another server. It may have more processes; then nothing is wrong.
fn too_many_for_externals(findings: &Findings, matrix: &Matrix) -> Vec<String> {
    if matrix.externals.is_empty() {
        return Vec::new();
    }
    let bounds = findings.connection_limits().for_external(OWN_DESCRIPTORS as u64);
    let demands = demands(matrix).into_iter();
    demands
        .filter_map(|demand| too_many(&demand, ", to a server that is not ours", bounds.clone()))
        .collect()
}

fn table_bytes(matrix: &Matrix) -> u64 {
    connection_limits::table_bytes(matrix.backends.iter().map(|arm| arm.backend.as_str()))
}

/// Says how many connections each bound allows a walk, if it is to hold many.
pub fn walks(limits: &ConnectionLimits, matrix: &Matrix) -> Vec<String> {
    let Some(most) = matrix.most_walked().filter(|&most| most >= CONNECTIONS_TO_SAY) else {
        return Vec::new();
    };
    let workers = matrix.workers;
    let ports = matrix.ports.unwrap_or(workers);
    let own = own_descriptors(workers, ports);
    let (workers, ports) = (u64::from(workers), u64::from(ports));
    let asked = format!(
        "{} connections to {} workers on {} ports are asked for. There is room for:",
        grouped(most as u64),
        grouped(workers),
        grouped(ports)
    );
    let bounds = limits.for_server(workers, ports, own, table_bytes(matrix)).into_iter();
    let lines =
        bounds.map(|bound| format!("  {:>13} by {}", grouped(bound.connections), bound.reason));
    [asked].into_iter().chain(lines).collect()
}

/// Says in a few lines what is not ok here and bears on the matrix.
pub fn warnings(
    lines: &[DoctorLine],
    findings: &Findings,
    matrix: &Matrix,
    is_commanded: bool,
    refusal: Refusal,
) -> Vec<String> {
    let refused: Vec<_> = matrix
        .backends
        .iter()
        .filter(|arm| matrix.external(&arm.backend).is_none())
        .filter(|arm| refusal(arm).is_some())
        .map(Arm::name)
        .collect();
    let mut warnings = Vec::new();
    if !refused.is_empty() {
        let refused = refused.join(", ");
        warnings.push(format!("refused by this kernel, and so `unsupported`: {refused}"));
    }
    for DoctorLine { name, result } in checks::bearing(lines, findings, matrix) {
        let cost = result.cost.as_deref().unwrap_or_default();
        warnings.push(format!("{name}: {}: {cost}", result.found));
    }
    warnings.extend(unsupported_externals(matrix, is_commanded));
    warnings.extend(too_many_for_externals(findings, matrix));
    if let Some(limit) = findings.locked_memory_bytes {
        warnings.extend(locked::exceeding(limit, matrix));
    }
    if warnings.len() > WARNINGS_MAX {
        let left = warnings.len() - (WARNINGS_MAX - 1);
        warnings.truncate(WARNINGS_MAX - 1);
        warnings.push(format!("and {left} more"));
    }
    warnings
}
