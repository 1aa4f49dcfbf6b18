//! Judges what the kernel lets this user do, and how it does its part.

use ringmark::kernel::parse_version;

use super::findings::Findings;
use super::lines::{CheckResult, limits, missing, ok, unknown};
use crate::text::grouped;

/// How to get around a seccomp filter.
pub const LESS_SECCOMP: &str =
    "allow it, for example by `docker run --security-opt seccomp=unconfined`";

/// The first kernel with DEFER_TASKRUN and multishot receives.
const URING_KERNEL: (u32, u32) = (6, 1);

pub fn release(findings: &Findings) -> CheckResult {
    let Some(release) = &findings.machine.kernel_release else {
        return unknown("/proc/sys/kernel/osrelease", "missing features show only in other lines");
    };
    match parse_version(release) {
        Some(version) if version < URING_KERNEL => limits(
            release,
            "the io_uring backends need Linux 6.1",
            "boot a newer kernel, or compare the other backends",
        ),
        _ => ok(release),
    }
}

pub fn backends(findings: &Findings, is_uring: bool) -> CheckResult {
    let cost = if is_uring {
        "rows of the refused ones say `unsupported`"
    } else {
        "the refused ones are not compared"
    };
    let asked = findings.backends.iter().filter(|support| support.is_uring == is_uring);
    let all = asked.clone().count();
    let refusals: Vec<_> =
        asked.filter_map(|support| Some((support.name, support.refused.as_deref()?))).collect();
    let found = format!("{} of {all} run here", all - refusals.len());
    // The reason itself ends with the next step.
    match refusals.as_slice() {
        [] => ok(format!("all {all} run here")),
        [(_, reason), ..] if refusals.len() == all => missing(found, cost, *reason),
        [(_, reason), ..] => {
            let names: Vec<_> = refusals.iter().map(|(name, _)| *name).collect();
            limits(found, cost, format!("not {}: {reason}", names.join(", ")))
        }
    }
}

fn uring_runs(findings: &Findings) -> bool {
    findings.backends.iter().any(|support| support.is_uring && support.refused.is_none())
}

pub fn uring_disabled(findings: &Findings) -> CheckResult {
    match findings.io_uring_disabled.as_deref() {
        None => ok("no such setting, as before Linux 6.6"),
        Some("0") => ok("0: io_uring is for everybody"),
        Some("1") if uring_runs(findings) => ok("1: for privileged users, and this is one"),
        Some(value) => missing(
            format!("{value}: the administrator has turned io_uring off"),
            "no io_uring backend runs",
            "`sysctl -w kernel.io_uring_disabled=0`",
        ),
    }
}

pub fn seccomp(findings: &Findings) -> CheckResult {
    let refused: Vec<_> = [
        (!uring_runs(findings), "io_uring"),
        (findings.file_table_refused.is_some(), "unshare"),
        (findings.tracing_refused.is_some(), "perf_event_open or mount"),
        (findings.namespace_refused.is_some(), "network namespaces"),
    ]
    .into_iter()
    .filter_map(|(is_refused, name)| is_refused.then_some(name))
    .collect();
    match findings.seccomp_mode {
        Some(0) => ok("no filter"),
        Some(_) if refused.is_empty() => ok("a filter, which refuses nothing that is needed"),
        Some(_) => limits(
            "a filter, as in a container",
            format!("it may refuse {}", refused.join(", ")),
            LESS_SECCOMP,
        ),
        None => unknown("/proc/self/status", "a filter may refuse calls unnoticed"),
    }
}

pub fn namespace(findings: &Findings) -> CheckResult {
    match &findings.namespace_refused {
        None => ok("a fresh one for each trial"),
        Some(why) => missing(
            "none can be made",
            "trials share the host's ports, settings and TCP counters",
            why,
        ),
    }
}

pub fn conntrack(findings: &Findings) -> CheckResult {
    match (findings.conntrack_max, &findings.namespace_refused) {
        (None, _) => ok("not loaded"),
        (Some(_), None) => ok("loaded, but inactive in a trial's fresh namespace"),
        (Some(most), Some(_)) => limits(
            format!("loaded, for {} connections", grouped(most)),
            "rules that use it make each packet more expensive",
            "`iptables -t raw -A OUTPUT -o lo -j NOTRACK`",
        ),
    }
}

pub fn tracepoints(findings: &Findings) -> CheckResult {
    match (&findings.tracing_refused, findings.untraced_calls.as_slice()) {
        (Some(why), _) => {
            missing("not permitted", "system calls are counted by the server alone", why)
        }
        (None, []) => ok("system calls are counted by the kernel"),
        (None, untraced) => limits(
            format!("none for {}", untraced.join(" ")),
            "these calls are counted by the server alone",
            "boot a kernel that is built with these tracepoints",
        ),
    }
}

pub fn hardware_counters(findings: &Findings) -> CheckResult {
    match &findings.hardware_refused {
        None => ok("instructions, cycles and misses are counted by the CPU"),
        Some(why) => missing(
            "none to be had",
            "[hardware] is unsupported; [instructions] counts in an emulator",
            why,
        ),
    }
}

pub fn kernel_objects(findings: &Findings) -> CheckResult {
    match &findings.slabs_refused {
        Some(why) => missing("cannot be read", "only the server's own pages are measured", why),
        None if findings.slabs_exact => ok("/proc/slabinfo, exact: caches can be shrunk"),
        None => limits(
            "/proc/slabinfo, without shrinking caches",
            "free objects that CPUs keep are counted too",
            "run as root, with /sys writable: in a container `docker run --privileged`",
        ),
    }
}

pub fn interrupt_time(findings: &Findings) -> CheckResult {
    match findings.machine.softirq_in_process_cpu {
        Some(true) => ok("in the CPU time of the interrupted process"),
        Some(false) => limits(
            "counted apart (CONFIG_IRQ_TIME_ACCOUNTING)",
            "much of TCP's work is in no process's CPU time",
            "compare machine_cpu_ns_per_echo in trials.csv too",
        ),
        None => unknown(
            "/proc/config.gz or /boot/config-*",
            "a process's CPU time may leave out TCP's work",
        ),
    }
}

pub fn congestion(findings: &Findings) -> CheckResult {
    match findings.congestion_control.as_deref() {
        None => unknown("/proc/sys/net/ipv4/tcp_congestion_control", "sends may be paced"),
        Some(name) if name.starts_with("bbr") => limits(
            name,
            "it paces by timers, which costs CPU and delays large sends",
            "`sysctl -w net.ipv4.tcp_congestion_control=cubic`",
        ),
        Some(name) => ok(name),
    }
}
