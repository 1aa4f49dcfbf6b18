//! Judges what disturbs times: shared CPUs, other programs, sleep, frequency, the clock.

use super::findings::Findings;
use super::lines::{CheckResult, limits, ok, ok_if, unknown};
use crate::text::{grouped, significant};
use crate::verdict::noise::{RUN_DELAY_PERCENT, STEAL_PERCENT};

pub fn cpus(findings: &Findings) -> CheckResult {
    let Some(allowed) = findings.cpus_allowed else {
        return unknown("sched_getaffinity(2)", "server and load may share a CPU");
    };
    if allowed < 2 {
        return limits(
            grouped(allowed as u64),
            "server and load take each other's time: `shared-cpu`",
            "allow two or more: `taskset -c 0,1`, `docker run --cpuset-cpus 0,1`",
        );
    }
    let Some(cores) = findings.cores_allowed else {
        return limits(
            format!("{allowed}, but their cores are not known"),
            "server and load may be hyperthreads of one core, which slow each other down unnoticed",
            "find out why /sys/devices/system/cpu/cpu0/topology cannot be read",
        );
    };
    if cores == 1 {
        return limits(
            format!("{allowed} on one core: hyperthreads, one for the server and one for the load"),
            "they slow each other down: `shared-core`, no verdict on what takes time",
            "allow CPUs of two cores, or set `hyperthreads = true` in the matrix for verdicts on \
             such a machine",
        );
    }
    if let Some(quota) = findings.cpu_quota.filter(|&quota| quota < allowed as f64) {
        return limits(
            format!("{allowed}, but the control group allows CPU time for {}", significant(quota)),
            "a process that has used that up is stopped, which shows as latency",
            "lift the quota: `docker run` without --cpus, cpu.max = max",
        );
    }
    let found = if cores == allowed {
        grouped(allowed as u64)
    } else {
        format!("{allowed} on {cores} cores; one CPU of each core is used")
    };
    match (cores, findings.packages_allowed.as_slice()) {
        (2, _) => limits(
            format!("{found}, one for the server and one for the load"),
            "an SQPOLL thread has no CPU of its own: `shared-cpu`",
            "allow three cores for verdicts on uring-sqpoll",
        ),
        (_, packages @ [first, _, ..]) => limits(
            format!("{found}, in {} packages", packages.len()),
            "an echo between packages costs more than one within, and a connection may be either",
            format!("keep server and load in one: `taskset -c {first}`"),
        ),
        _ => ok(format!("{found}, enough for an SQPOLL thread too")),
    }
}

pub fn steal(findings: &Findings) -> CheckResult {
    let Some(percent) = findings.steal_percent else {
        return unknown("/proc/stat", "the hypervisor may take CPU time unnoticed");
    };
    ok_if(
        percent <= STEAL_PERCENT,
        format!("{percent:.1} % of a busy moment"),
        format!("trials above {STEAL_PERCENT} % are rejected"),
        "wait until the host is quieter, or take a machine with CPUs of its own",
    )
}

pub fn other_programs(findings: &Findings) -> CheckResult {
    let Some(percent) = findings.run_delay_percent else {
        return unknown(
            "/proc/self/schedstat",
            "CPU time of other programs shows only in rejected trials",
        );
    };
    let load = findings.load_average.map(|average| format!("; load average {average:.2}"));
    let found =
        format!("a busy thread waits {percent:.1} % of its time{}", load.unwrap_or_default());
    ok_if(
        percent <= RUN_DELAY_PERCENT,
        found,
        format!("trials above {RUN_DELAY_PERCENT} % are rejected"),
        "end other programs: `top` shows them",
    )
}

/// The longest wake-up that does not show in an echo of some tens of microseconds.
const IDLE_EXIT_US_MAX: u64 = 10;

pub fn idle(findings: &Findings) -> CheckResult {
    let driver = findings.machine.idle_driver.as_deref().unwrap_or("none");
    if findings.idle_polls {
        return ok("they poll (idle=poll)");
    }
    if findings.machine.is_virtual {
        let (does, cost) = if driver == "haltpoll" {
            ("poll for a while, then halt", "latency depends on whether a CPU had halted")
        } else {
            ("they halt, and the hypervisor wakes them", "latency is mostly the time to wake up")
        };
        return limits(
            format!("driver {driver}: {does}"),
            format!("at low load, {cost}"),
            "compare CPU per echo there, or boot with `idle=poll`",
        );
    }
    match findings.idle_exit_us {
        Some(exit_us) if exit_us <= IDLE_EXIT_US_MAX => {
            ok(format!("driver {driver}: awake within {exit_us} us"))
        }
        Some(exit_us) => limits(
            format!("driver {driver}: up to {exit_us} us to wake"),
            "at low load, latency is mostly the time to wake up",
            format!("`cpupower idle-set -D {IDLE_EXIT_US_MAX}`"),
        ),
        None => ok(format!("driver {driver}, no deeper sleep than a halt")),
    }
}

pub fn frequency(findings: &Findings) -> CheckResult {
    match findings.machine.frequency_governor.as_deref() {
        None if findings.machine.is_virtual => ok("not visible: the hypervisor controls it"),
        None => ok("no governor: not changed by this kernel"),
        Some("performance") => ok("governor performance"),
        Some(governor) => limits(
            format!("governor {governor}"),
            "the frequency follows the load, and CPU per echo changes with it",
            "`cpupower frequency-set -g performance`",
        ),
    }
}

/// Clocks that can only be read from outside of the CPU.
const SLOW_CLOCKS: [&str; 5] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"];

/// The longest reading that is no system call.
const CLOCK_READ_NS_MAX: u64 = 500;

pub fn clock(findings: &Findings) -> CheckResult {
    let name = findings.machine.clocksource.as_deref().unwrap_or("unnamed");
    let Some(read_ns) = findings.clock_read_ns else {
        return unknown("the clock", "the cost of a reading is not known");
    };
    ok_if(
        !SLOW_CLOCKS.contains(&name) && read_ns <= CLOCK_READ_NS_MAX,
        format!("{name}, {read_ns} ns a reading"),
        "the load reads it for every message, which slows the echoes",
        "`echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource`",
    )
}
