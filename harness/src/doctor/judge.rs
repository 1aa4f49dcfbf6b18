//! From facts to lines: what each fact costs, and what to do about it. It looks at nothing but the
//! facts.

use ringmark::backend;
use ringmark::kernel::parse_version;
use serde::{Serialize, Serializer};

use super::facts::{Facts, Support};
use super::locked;
use crate::matrix::connection_limits;
use crate::text::{count, number};
use crate::trial::gates::{RUN_DELAY_PERCENT, STEAL_PERCENT};

/// How good something is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Ok,
    /// It measures, but less, or less well.
    LimitsResults,
    /// Not to be had.
    Missing,
}

impl Status {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::LimitsResults => "limits results",
            Self::Missing => "missing",
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Kernel,
    OtherBackends,
    UringBackends,
    UringDisabled,
    Seccomp,
    Cpus,
    OpenFiles,
    LockedMemory,
    Ports,
    Memory,
    Namespace,
    Conntrack,
    Tracepoints,
    KernelObjects,
    Steal,
    OtherPrograms,
    Idle,
    Frequency,
    Mitigations,
    Clock,
    InterruptTime,
    Congestion,
    AcceptQueue,
}

impl Check {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::OtherBackends => "other backends",
            Self::UringBackends => "io_uring backends",
            Self::UringDisabled => "io_uring_disabled",
            Self::Seccomp => "seccomp",
            Self::Cpus => "CPUs",
            Self::OpenFiles => "open files",
            Self::LockedMemory => "locked memory",
            Self::Ports => "local ports",
            Self::Memory => "memory",
            Self::Namespace => "network namespace",
            Self::Conntrack => "conntrack",
            Self::Tracepoints => "tracepoints",
            Self::KernelObjects => "kernel objects",
            Self::Steal => "stolen time",
            Self::OtherPrograms => "other programs",
            Self::Idle => "idle CPUs",
            Self::Frequency => "CPU frequency",
            Self::Mitigations => "mitigations",
            Self::Clock => "clock",
            Self::InterruptTime => "interrupt time",
            Self::Congestion => "TCP congestion",
            Self::AcceptQueue => "accept queue",
        }
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One line of the screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What was looked at.
    #[serde(rename = "name")]
    pub check: Check,
    /// How good it is.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What that costs; none if it is ok.
    pub cost: Option<String>,
    /// What to do about it; none if it is ok.
    pub advice: Option<String>,
}

impl Line {
    fn ok(check: Check, found: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, found: found.into(), cost: None, advice: None }
    }

    fn new(
        check: Check,
        status: Status,
        found: impl Into<String>,
        cost: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            check,
            status,
            found: found.into(),
            cost: Some(cost.into()),
            advice: Some(advice.into()),
        }
    }

    fn limits(
        check: Check,
        found: impl Into<String>,
        cost: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(check, Status::LimitsResults, found, cost, advice)
    }

    fn missing(
        check: Check,
        found: impl Into<String>,
        cost: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(check, Status::Missing, found, cost, advice)
    }

    /// Where the machine does not tell.
    fn unknown(check: Check, source: &str, cost: &str) -> Self {
        Self::limits(check, "not known", cost, format!("look why {source} cannot be read"))
    }
}

/// Every line, in the order of the screen.
pub fn lines(facts: &Facts) -> Vec<Line> {
    vec![
        kernel(facts),
        other_backends(facts),
        uring_backends(facts),
        uring_disabled(facts),
        seccomp(facts),
        cpus(facts),
        open_files(facts),
        locked_memory(facts),
        ports(facts),
        memory(facts),
        namespace(facts),
        conntrack(facts),
        tracepoints(facts),
        kernel_objects(facts),
        steal(facts),
        other_programs(facts),
        idle(facts),
        frequency(facts),
        mitigations(facts),
        clock(facts),
        interrupt_time(facts),
        congestion(facts),
        accept_queue(facts),
    ]
}

/// Why nothing at all can be measured, if so.
pub fn impossible(facts: &Facts) -> Option<String> {
    let refused =
        |support: &Support| Some(format!("{}: {}", support.name, support.refused.as_ref()?));
    let refusals: Vec<_> = facts.backends.iter().map_while(refused).collect();
    (refusals.len() == facts.backends.len()).then(|| {
        format!(
            "no backend runs here: {}",
            refusals.first().map_or("there is none", String::as_str)
        )
    })
}

fn gibibytes(bytes: u64) -> String {
    format!("{} GiB", number(bytes as f64 / f64::from(1 << 30)))
}

const LESS_SECCOMP: &str = "for example `docker run --security-opt seccomp=unconfined`";

/// The first kernel with DEFER_TASKRUN and multishot receives.
const URING_KERNEL: (u32, u32) = (6, 1);

fn kernel(facts: &Facts) -> Line {
    let Some(release) = &facts.kernel_release else {
        return Line::unknown(
            Check::Kernel,
            "/proc/sys/kernel/osrelease",
            "what it lacks shows only below",
        );
    };
    match parse_version(release) {
        Some(version) if version < URING_KERNEL => Line::limits(
            Check::Kernel,
            release,
            "the io_uring backends need Linux 6.1",
            "boot a newer kernel, or compare the other backends",
        ),
        _ => Line::ok(Check::Kernel, release),
    }
}

fn other_backends(facts: &Facts) -> Line {
    backends(facts, Check::OtherBackends, false, "these are not compared")
}

fn uring_backends(facts: &Facts) -> Line {
    backends(facts, Check::UringBackends, true, "their rows say `unsupported`")
}

fn backends(facts: &Facts, check: Check, is_uring: bool, cost: &str) -> Line {
    let of_kind: Vec<_> =
        facts.backends.iter().filter(|support| support.is_uring == is_uring).collect();
    let refusals: Vec<_> = of_kind
        .iter()
        .filter_map(|support| Some((support.name, support.refused.as_deref()?)))
        .collect();
    let Some((_, first)) = refusals.first() else {
        return Line::ok(check, format!("all {} run here", of_kind.len()));
    };
    let found = format!("{} of {} run here", of_kind.len() - refusals.len(), of_kind.len());
    let all_refused = refusals.len() == of_kind.len();
    let names = match all_refused {
        true => String::new(),
        false => {
            let names: Vec<_> = refusals.iter().map(|(name, _)| *name).collect();
            format!("not {}: ", names.join(", "))
        }
    };
    let status = if all_refused { Status::Missing } else { Status::LimitsResults };
    // The reason itself ends with the next step.
    Line::new(check, status, found, cost, format!("{names}{first}"))
}

fn uring_runs(facts: &Facts) -> bool {
    facts.backends.iter().any(|support| support.is_uring && support.refused.is_none())
}

fn uring_disabled(facts: &Facts) -> Line {
    let check = Check::UringDisabled;
    match facts.io_uring_disabled.as_deref() {
        None => Line::ok(check, "no such setting, as before Linux 6.6"),
        Some("0") => Line::ok(check, "0: io_uring is for everybody"),
        Some("1") if uring_runs(facts) => {
            Line::ok(check, "1: for privileged users, of whom this is one")
        }
        Some(value) => Line::missing(
            check,
            format!("{value}: the administrator has turned io_uring off"),
            "no io_uring backend runs",
            "`sysctl -w kernel.io_uring_disabled=0`",
        ),
    }
}

fn seccomp(facts: &Facts) -> Line {
    let check = Check::Seccomp;
    let refused = [
        (!uring_runs(facts), "io_uring"),
        (facts.file_table_refused.is_some(), "unshare"),
        (facts.tracing_refused.is_some(), "perf_event_open or mount"),
        (facts.namespace_refused.is_some(), "network namespaces"),
    ];
    let refused: Vec<_> =
        refused.iter().filter(|(refused, _)| *refused).map(|(_, name)| *name).collect();
    match facts.seccomp_mode {
        Some(0) => Line::ok(check, "no filter"),
        Some(_) if refused.is_empty() => {
            Line::ok(check, "a filter, which refuses nothing that is needed")
        }
        Some(_) => Line::limits(
            check,
            "a filter, as containers have it",
            format!("it may be what refuses {}", refused.join(", ")),
            LESS_SECCOMP,
        ),
        None => Line::unknown(check, "/proc/self/status", "what refuses a call cannot be told"),
    }
}

fn cpus(facts: &Facts) -> Line {
    let check = Check::Cpus;
    let Some(allowed) = facts.cpus_allowed else {
        return Line::unknown(check, "sched_getaffinity(2)", "server and load may share a CPU");
    };
    if allowed < 2 {
        return Line::limits(
            check,
            count(allowed as u64),
            "server and load take each other's time: `shared-cpu`",
            "allow two or more: `taskset -c 0,1`, `docker run --cpuset-cpus 0,1`",
        );
    }
    let Some(cores) = facts.cores_allowed else {
        return Line::limits(
            check,
            format!("{allowed}, of which cores is not known"),
            "server and load may be hyperthreads of one core, and slow each other down unseen",
            "look why /sys/devices/system/cpu/cpu0/topology cannot be read",
        );
    };
    let found = match cores {
        1 => format!("{allowed} on one core"),
        cores if cores == allowed => count(allowed as u64),
        cores => format!("{allowed} on {cores} cores, of each of which one is used"),
    };
    if cores == 1 {
        return Line::limits(
            check,
            format!("{found}: hyperthreads, one for the server and one for the load"),
            "they slow each other down: `shared-core`, no verdict on what takes time",
            "allow CPUs of two cores, or set `hyperthreads = true` in the matrix, for verdicts on such a machine",
        );
    }
    if let Some(quota) = facts.cpu_quota.filter(|&quota| quota < allowed as f64) {
        return Line::limits(
            check,
            format!("{allowed}, with CPU time for {} by the control group", number(quota)),
            "whoever has used that up is stopped, which shows as latency",
            "lift the quota: `docker run` without --cpus, cpu.max = max",
        );
    }
    match cores {
        2 => Line::limits(
            check,
            format!("{found}, one for the server and one for the load"),
            "an SQPOLL thread has no CPU of its own: `shared-cpu`",
            "allow three cores for verdicts on uring-sqpoll",
        ),
        _ if facts.packages_allowed.len() > 1 => Line::limits(
            check,
            format!("{found}, in {} packages", facts.packages_allowed.len()),
            "an echo between packages costs more than one within, and a connection may be either",
            format!("keep both sides in one: `taskset -c {}`", facts.packages_allowed[0]),
        ),
        _ => Line::ok(check, format!("{found}, enough for an SQPOLL thread too")),
    }
}

/// What the matrices that come with ringmark need (README.md).
const OPEN_FILES_WANTED: u64 = 20_000;

fn open_files(facts: &Facts) -> Line {
    let check = Check::OpenFiles;
    let Some(hard) = facts.open_files_hard else {
        return Line::unknown(check, "RLIMIT_NOFILE", "how many connections fit cannot be told");
    };
    let each = count(connection_limits::connections_per_thread(hard));
    let raised = match facts.open_files_soft {
        Some(soft) if soft < hard => format!(" (soft {} is raised)", count(soft)),
        _ => String::new(),
    };
    let found = format!("{}{raised}", count(hard));
    if let Some(why) = &facts.file_table_refused {
        return Line::limits(
            check,
            format!("{found}, which the threads of a process share: unshare(CLONE_FILES): {why}"),
            format!("{each} connections in all, whatever `workers` says"),
            LESS_SECCOMP,
        );
    }
    if hard < OPEN_FILES_WANTED {
        return Line::limits(
            check,
            found,
            format!("{each} connections for each thread of server and load"),
            "`ulimit -Hn 1048576` as root, `docker run --ulimit nofile=1048576`, or more workers",
        );
    }
    Line::ok(check, format!("{found}: {each} connections x threads, unshare permitted"))
}

/// As many as the largest of the matrices that come with ringmark give a server of many
/// connections.
const WORKERS_WANTED: u64 = 100;

fn locked_memory(facts: &Facts) -> Line {
    let check = Check::LockedMemory;
    let Some(limit) = facts.locked_memory_bytes else {
        return Line::ok(check, "rings are not bounded by it");
    };
    let each = locked::most_bytes();
    let workers = limit / each;
    let found = format!(
        "{} KiB for all rings of this user: {} workers of {} KiB",
        count(limit >> 10),
        count(workers),
        count(each >> 10)
    );
    match workers >= WORKERS_WANTED {
        true => Line::ok(check, found),
        false => Line::limits(
            check,
            found,
            "with more, or with larger queues, an io_uring backend is `unsupported`",
            "`ulimit -l unlimited` as root, LimitMEMLOCK= of systemd, `docker run --ulimit memlock=-1`",
        ),
    }
}

fn ports(facts: &Facts) -> Line {
    let check = Check::Ports;
    let Some((first, last)) = facts.ports.filter(|(first, last)| first <= last) else {
        return Line::unknown(
            check,
            "/proc/sys/net/ipv4/ip_local_port_range",
            "how many connections fit cannot be told",
        );
    };
    let ports = last - first + 1;
    let found = format!(
        "{} x {} source addresses: {} connections x workers",
        count(ports),
        connection_limits::SOURCES,
        count(connection_limits::connections_per_port(ports))
    );
    match ports >= connection_limits::PORTS_WANTED {
        true => Line::ok(check, found),
        // From half of them on, connect() looks for long.
        false => Line::limits(
            check,
            found,
            format!(
                "a source is given up to {} connections, for lack of ports slowly or in vain",
                count(connection_limits::PORTS_A_SOURCE)
            ),
            "`sysctl -w net.ipv4.ip_local_port_range='32768 60999'`, where trials run",
        ),
    }
}

/// Below this the shipped matrices have little to spare.
const CONNECTIONS_WANTED: u64 = 20_000;

fn memory(facts: &Facts) -> Line {
    let check = Check::Memory;
    let Some(bytes) = facts.memory_bytes() else {
        return Line::unknown(check, "/proc/meminfo", "how many connections fit cannot be told");
    };
    let tables = backend::ALL.iter().map(|entry| entry.table_bytes_per_connection as u64);
    let each = connection_limits::bytes_per_connection(tables.max().unwrap_or(0));
    let fit = bytes / each;
    let source = match facts.memory_bound_bytes {
        Some(bound) if bound == bytes => "allowed by the control group",
        _ => "available",
    };
    let found = format!(
        "{} {source}: {} connections of {} B",
        gibibytes(bytes),
        number((fit / 1000 * 1000) as f64),
        count(each)
    );
    if fit < CONNECTIONS_WANTED {
        return Line::limits(
            check,
            found,
            "larger counts end with the kernel killing one side",
            "give it more memory, or keep connection counts below that",
        );
    }
    Line::ok(check, found)
}

fn namespace(facts: &Facts) -> Line {
    match &facts.namespace_refused {
        None => Line::ok(Check::Namespace, "a fresh one for each trial"),
        Some(why) => Line::missing(
            Check::Namespace,
            "none can be made",
            "trials share the host's ports, settings and TCP counts",
            why,
        ),
    }
}

fn conntrack(facts: &Facts) -> Line {
    let check = Check::Conntrack;
    match (facts.conntrack_max, &facts.namespace_refused) {
        (None, _) => Line::ok(check, "not loaded"),
        (Some(_), None) => Line::ok(check, "loaded, but not at work in a trial's fresh namespace"),
        (Some(most), Some(_)) => Line::limits(
            check,
            format!("loaded, for {} connections", count(most)),
            "rules that use it make each packet dearer",
            "`iptables -t raw -A OUTPUT -o lo -j NOTRACK`",
        ),
    }
}

fn tracepoints(facts: &Facts) -> Line {
    let check = Check::Tracepoints;
    match (&facts.tracing_refused, facts.untraced_calls.as_slice()) {
        (Some(why), _) => {
            Line::missing(check, "not permitted", "system calls are as the server counts them", why)
        }
        (None, []) => Line::ok(check, "system calls are counted by the kernel"),
        (None, missing) => Line::limits(
            check,
            format!("none for {}", missing.join(" ")),
            "the server's own counts stand for these",
            "a kernel that is built for them has them all",
        ),
    }
}

fn kernel_objects(facts: &Facts) -> Line {
    let check = Check::KernelObjects;
    match &facts.slabs_refused {
        Some(why) => Line::missing(check, "cannot be read", "only the server's own pages", why),
        None if facts.slabs_exact => Line::ok(check, "/proc/slabinfo, exact: caches can be shrunk"),
        None => Line::limits(
            check,
            "/proc/slabinfo, without shrinking caches",
            "free objects that CPUs keep are counted too",
            "run as root, with /sys writable: in a container `docker run --privileged`",
        ),
    }
}

fn steal(facts: &Facts) -> Line {
    let check = Check::Steal;
    match facts.steal_percent {
        None => Line::unknown(check, "/proc/stat", "what the hypervisor takes cannot be told"),
        Some(percent) if percent > STEAL_PERCENT => Line::limits(
            check,
            format!("{percent:.1} % of a busy moment"),
            format!("trials above {STEAL_PERCENT} % are rejected"),
            "wait until the host is quieter, or take a machine with CPUs of its own",
        ),
        Some(percent) => Line::ok(check, format!("{percent:.1} % of a busy moment")),
    }
}

fn other_programs(facts: &Facts) -> Line {
    let check = Check::OtherPrograms;
    let load = facts
        .load_average
        .map(|average| format!("; load average {average:.2}"))
        .unwrap_or_default();
    match facts.run_delay_percent {
        None => Line::unknown(
            check,
            "/proc/self/schedstat",
            "whether others use the CPUs shows only in rejected trials",
        ),
        Some(percent) if percent > RUN_DELAY_PERCENT => Line::limits(
            check,
            format!("a busy thread waits {percent:.1} % of its time{load}"),
            format!("trials above {RUN_DELAY_PERCENT} % are rejected"),
            "end what else runs: `top`",
        ),
        Some(percent) => {
            Line::ok(check, format!("a busy thread waits {percent:.1} % of its time{load}"))
        }
    }
}

/// What a wake-up may take before it shows in an echo of some tens of microseconds.
const IDLE_EXIT_US_MAX: u64 = 10;

fn idle(facts: &Facts) -> Line {
    let check = Check::Idle;
    let driver = facts.idle_driver.as_deref().unwrap_or("none");
    if facts.idle_polls {
        return Line::ok(check, "they poll (idle=poll)");
    }
    let cost = "at low load, latency is largely their waking up";
    match (facts.is_virtual, facts.idle_exit_us) {
        (true, _) if driver == "haltpoll" => Line::limits(
            check,
            "driver haltpoll: poll for a while, then halt",
            "at low load, latency depends on which of both it was",
            "compare CPU per echo there, or boot with `idle=poll`",
        ),
        (true, _) => Line::limits(
            check,
            format!("driver {driver}: they halt, and the hypervisor wakes them"),
            cost,
            "compare CPU per echo there, or boot with `idle=poll`",
        ),
        (false, Some(exit_us)) if exit_us <= IDLE_EXIT_US_MAX => {
            Line::ok(check, format!("driver {driver}: awake within {exit_us} us"))
        }
        (false, Some(exit_us)) => Line::limits(
            check,
            format!("driver {driver}: up to {exit_us} us to wake"),
            cost,
            format!("`cpupower idle-set -D {IDLE_EXIT_US_MAX}`"),
        ),
        (false, None) => Line::ok(check, format!("driver {driver}, no deeper sleep than a halt")),
    }
}

fn frequency(facts: &Facts) -> Line {
    let check = Check::Frequency;
    match facts.frequency_governor.as_deref() {
        None if facts.is_virtual => Line::ok(check, "not visible: the hypervisor's affair"),
        None => Line::ok(check, "no governor: not changed by this kernel"),
        Some("performance") => Line::ok(check, "governor performance"),
        Some(governor) => Line::limits(
            check,
            format!("governor {governor}"),
            "the clock follows the load, and CPU per echo with it",
            "`cpupower frequency-set -g performance`",
        ),
    }
}

fn mitigations(facts: &Facts) -> Line {
    let check = Check::Mitigations;
    let all = facts.mitigations.len();
    if all == 0 {
        return Line::unknown(
            check,
            "/sys/devices/system/cpu/vulnerabilities",
            "what each system call pays for them cannot be told",
        );
    }
    let count = |beginning: &str| {
        let answers = facts.mitigations.values().flatten();
        answers.filter(|answer| answer.starts_with(beginning)).count()
    };
    // Both of those are part of what a service of this machine pays, and so no blemish.
    Line::ok(
        check,
        format!(
            "{} active, {} left open, of {all} known weaknesses",
            count("Mitigation"),
            count("Vulnerable")
        ),
    )
}

/// Clocks that take a way out of the CPU to be read.
const SLOW_CLOCKS: [&str; 5] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"];

/// A reading that takes longer is a system call, or worse.
const CLOCK_READ_NS_MAX: u64 = 500;

fn clock(facts: &Facts) -> Line {
    let check = Check::Clock;
    let name = facts.clocksource.as_deref().unwrap_or("unnamed");
    let Some(read_ns) = facts.clock_read_ns else {
        return Line::unknown(check, "the clock", "what a reading costs cannot be told");
    };
    let found = format!("{name}, {read_ns} ns a reading");
    if SLOW_CLOCKS.contains(&name) || read_ns > CLOCK_READ_NS_MAX {
        return Line::limits(
            check,
            found,
            "the load reads it for every message: it is slower, and so are the echoes",
            "`echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource`",
        );
    }
    Line::ok(check, found)
}

fn interrupt_time(facts: &Facts) -> Line {
    let check = Check::InterruptTime;
    match facts.irq_time_accounting {
        Some(false) => Line::ok(check, "in the CPU of whom it interrupts"),
        Some(true) => Line::limits(
            check,
            "apart (CONFIG_IRQ_TIME_ACCOUNTING)",
            "much of TCP's work is in no process's CPU",
            "read machine_cpu_ns_per_echo beside it in trials.csv",
        ),
        None => Line::unknown(
            check,
            "/proc/config.gz or /boot/config-*",
            "whether TCP's work is in a process's CPU cannot be told",
        ),
    }
}

fn congestion(facts: &Facts) -> Line {
    let check = Check::Congestion;
    match facts.congestion_control.as_deref() {
        None => Line::unknown(
            check,
            "/proc/sys/net/ipv4/tcp_congestion_control",
            "whether sends are paced cannot be told",
        ),
        Some(name) if name.starts_with("bbr") => Line::limits(
            check,
            name,
            "paces by timers: costs CPU, delays large sends",
            "`sysctl -w net.ipv4.tcp_congestion_control=cubic`",
        ),
        Some(name) => Line::ok(check, name),
    }
}

fn accept_queue(facts: &Facts) -> Line {
    let check = Check::AcceptQueue;
    let backlog = u64::from(ringmark::listener::BACKLOG.unsigned_abs());
    match facts.somaxconn {
        None => Line::unknown(
            check,
            "/proc/sys/net/core/somaxconn",
            "how many may wait to be accepted cannot be told",
        ),
        Some(most) if most < backlog => Line::limits(
            check,
            format!("somaxconn {}, below the {} asked for", count(most), count(backlog)),
            "when many connect at once, some are dropped and the trial rejected",
            match facts.namespace_refused {
                Some(_) => format!("`sysctl -w net.core.somaxconn={backlog}`"),
                None => "Linux 5.4 or newer gives new namespaces 4096".to_owned(),
            },
        ),
        Some(most) => Line::ok(
            check,
            format!("somaxconn {}, of which {} are asked for", count(most), count(backlog)),
        ),
    }
}
