//! Lists the checks, and says which of them bear on a matrix.

use ringmark::backend;

use super::demand::most_connections;
use super::findings::Findings;
use super::lines::{CheckResult, CheckStatus, DoctorLine};
use super::{capacity, kernel, noise};
use crate::matrix::Matrix;
use crate::rows::Pass;

/// A check of the machine.
struct Check {
    /// The name of its line.
    name: &'static str,
    /// Judges the findings.
    judge: fn(&Findings) -> CheckResult,
    /// Tells whether a result that is not ok bears on a matrix.
    bears: fn(&Findings, &Matrix) -> bool,
}

const fn check(
    name: &'static str,
    judge: fn(&Findings) -> CheckResult,
    bears: fn(&Findings, &Matrix) -> bool,
) -> Check {
    Check { name, judge, bears }
}

/// All checks, in the order of the screen.
const CHECKS: [Check; 23] = [
    // The refused arms of a matrix are listed by themselves.
    check("kernel", kernel::release, never),
    check("other backends", |findings| kernel::backends(findings, false), never),
    check("io_uring backends", |findings| kernel::backends(findings, true), never),
    check("io_uring_disabled", kernel::uring_disabled, never),
    check("seccomp", kernel::seccomp, never),
    check("CPUs", noise::cpus, has_too_few_cores),
    // A matrix that does not fit is refused, or its arms that do not fit are listed.
    check("open files", capacity::open_files, never),
    check("locked memory", capacity::locked_memory, never),
    check("local ports", capacity::ports, needs_most_ports),
    check("memory", capacity::memory, never),
    check("network namespace", kernel::namespace, always),
    check("conntrack", kernel::conntrack, always),
    check("tracepoints", kernel::tracepoints, counts_calls),
    check("hardware counters", kernel::hardware_counters, counts_in_hardware),
    check("kernel objects", kernel::kernel_objects, measures_memory),
    check("stolen time", noise::steal, measures_time),
    check("other programs", noise::other_programs, measures_time),
    check("idle CPUs", noise::idle, has_low_load),
    check("CPU frequency", noise::frequency, measures_time),
    check("clock", noise::clock, measures_time),
    check("interrupt time", kernel::interrupt_time, measures_time),
    check("TCP congestion", kernel::congestion, measures_time),
    check("accept queue", capacity::accept_queue, fills_accept_queue),
];

/// Makes the line of each check.
pub fn lines(findings: &Findings) -> Vec<DoctorLine> {
    let line = |check: &Check| DoctorLine { name: check.name, result: (check.judge)(findings) };
    CHECKS.iter().map(line).collect()
}

/// Picks the lines that are not ok and bear on a matrix.
pub fn bearing<'a>(
    lines: &'a [DoctorLine],
    findings: &Findings,
    matrix: &Matrix,
) -> impl Iterator<Item = &'a DoctorLine> {
    let checked = CHECKS.iter().zip(lines);
    checked
        .filter(|(check, line)| {
            line.result.status != CheckStatus::Ok && (check.bears)(findings, matrix)
        })
        .map(|(_, line)| line)
}

fn never(_: &Findings, _: &Matrix) -> bool {
    false
}

fn always(_: &Findings, _: &Matrix) -> bool {
    true
}

fn counts_calls(_: &Findings, matrix: &Matrix) -> bool {
    matrix.passes().contains(&Pass::Syscalls)
}

fn counts_in_hardware(_: &Findings, matrix: &Matrix) -> bool {
    matrix.passes().contains(&Pass::Hardware)
}

fn measures_memory(_: &Findings, matrix: &Matrix) -> bool {
    matrix.passes().contains(&Pass::Memory)
}

fn measures_time(_: &Findings, matrix: &Matrix) -> bool {
    matrix.passes().iter().any(|pass| matches!(pass, Pass::Latency | Pass::Scale))
}

/// Below this many messages in flight a CPU sleeps between them.
const LOW_LOAD: usize = 8;

fn has_low_load(_: &Findings, matrix: &Matrix) -> bool {
    matrix.passes().contains(&Pass::Latency)
        && matrix.workloads.iter().any(|load| load.connections * load.pipeline.get() < LOW_LOAD)
}

fn has_too_few_cores(findings: &Findings, matrix: &Matrix) -> bool {
    let polls = matrix
        .backends
        .iter()
        .any(|arm| backend::find(&arm.backend).is_ok_and(|entry| entry.kernel_thread));
    let wanted = if polls { 3 } else { 2 };
    let is_enough = findings.cores_allowed.is_some_and(|cores| cores >= wanted)
        && findings.cpu_quota.is_none()
        && findings.packages_allowed.len() < 2;
    measures_time(findings, matrix) && !is_enough
}

fn needs_most_ports(findings: &Findings, matrix: &Matrix) -> bool {
    let ports = findings.ports.map(|(first, last)| last.saturating_sub(first) + 1);
    most_connections(matrix).is_some_and(|most| ports.is_none_or(|ports| 2 * most > ports))
}

fn fills_accept_queue(findings: &Findings, matrix: &Matrix) -> bool {
    most_connections(matrix).is_some_and(|most| findings.somaxconn.is_none_or(|queue| most > queue))
}
