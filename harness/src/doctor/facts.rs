//! What was found on this machine, before anything is made of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ringmark::backend::{self, Knobs};
use ringmark::cpus::CpuList;
use ringmark::kernel::parse_version;

use super::locked;
use crate::load::OTHER_FILES;
use crate::load::files::{FILES_OF_A_THREAD, FileTables};
use crate::machine::cgroup::ControlGroup;
use crate::machine::contention::Contention;
use crate::machine::files::line;
use crate::machine::network_namespace::NetworkNamespace;
use crate::machine::topology::Topology;
use crate::machine::tracepoints::{Counters, Syscall};
use crate::machine::{Machine, memory, pmu, procfs};
use crate::matrix::connection_limits::ConnectionLimits;

/// The facts. None where the machine does not tell; what ends in `_refused` says why something
/// cannot be used, and is none if it can.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `uname -r`.
    pub kernel_release: Option<String>,
    /// Whether this runs in a virtual machine.
    pub is_virtual: bool,
    /// Every backend with its default knobs.
    pub backends: Vec<Support>,
    /// `kernel.io_uring_disabled`, which kernels before 6.6 do not have.
    pub io_uring_disabled: Option<String>,
    /// 0: no filter; 1: strict; 2: a filter (proc_pid_status(5)).
    pub seccomp_mode: Option<u64>,
    /// How many CPUs this process may use.
    pub cpus_allowed: Option<usize>,
    /// How many cores they belong to.
    pub cores_allowed: Option<usize>,
    /// Those of each package, as lists.
    pub packages_allowed: Vec<String>,
    /// CPU time for each second that the control group allows; none: no bound.
    pub cpu_quota: Option<f64>,
    /// RLIMIT_NOFILE. Server and load raise the soft limit to the hard one.
    pub open_files_soft: Option<u64>,
    /// RLIMIT_NOFILE.
    pub open_files_hard: Option<u64>,
    /// RLIMIT_MEMLOCK where it bounds rings; none: they are not bounded.
    pub locked_memory_bytes: Option<u64>,
    /// Why a thread cannot have a table of files of its own.
    pub file_table_refused: Option<String>,
    /// `fs.file-max` less the files that are open.
    pub files_of_machine: Option<u64>,
    /// The first and the last port that connect() takes, where trials run.
    pub ports: Option<(u64, u64)>,
    /// `MemAvailable`.
    pub memory_available_bytes: Option<u64>,
    /// What the control group still allows; none: no bound.
    pub memory_bound_bytes: Option<u64>,
    /// Why trials have no network namespace.
    pub namespace_refused: Option<String>,
    /// Why tracepoints do not count.
    pub tracing_refused: Option<String>,
    /// Calls that the kernel has no tracepoint for.
    pub untraced_calls: Vec<&'static str>,
    /// Why the kernel's objects cannot be read.
    pub slabs_refused: Option<String>,
    /// Whether the kernel's caches can be shrunk, which makes their counts exact.
    pub slabs_exact: bool,
    /// Why the CPU's own counters cannot be read.
    pub cycles_refused: Option<String>,
    /// Who chooses the frequency.
    pub frequency_governor: Option<String>,
    /// How idle CPUs sleep.
    pub idle_driver: Option<String>,
    /// How long a CPU takes to wake from the deepest sleep that is allowed, as the driver tells.
    pub idle_exit_us: Option<u64>,
    /// Whether the kernel was started with `idle=poll`: its CPUs never sleep.
    pub idle_polls: bool,
    /// Each weakness of the CPU with the kernel's answer to it.
    pub mitigations: BTreeMap<String, Option<String>>,
    /// What the hypervisor took while all CPUs were wanted.
    pub steal_percent: Option<f64>,
    /// How long a busy thread waited for its CPU.
    pub run_delay_percent: Option<f64>,
    /// How many tasks were ready, on average over the last minute.
    pub load_average: Option<f64>,
    /// How many connections the host's connection tracking holds; none: it is not loaded.
    pub conntrack_max: Option<u64>,
    /// What the kernel tells the time by.
    pub clocksource: Option<String>,
    /// What it takes to read the time.
    pub clock_read_ns: Option<u64>,
    /// CONFIG_IRQ_TIME_ACCOUNTING.
    pub irq_time_accounting: Option<bool>,
    /// TCP's congestion control where trials run.
    pub congestion_control: Option<String>,
    /// `net.core.somaxconn` where trials run.
    pub somaxconn: Option<u64>,
}

/// A backend on this machine.
#[derive(Clone, Debug)]
pub struct Support {
    /// Its name.
    pub name: &'static str,
    /// Whether it needs io_uring.
    pub is_uring: bool,
    /// Why the kernel refuses it.
    pub refused: Option<String>,
}

impl Facts {
    /// How many connections the machine has room for.
    pub fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            open_files: self.open_files_hard,
            shared_with: self.file_table_refused.as_ref().map(|_| {
                OTHER_FILES + FILES_OF_A_THREAD * self.cpus_allowed.unwrap_or_default() as u64
            }),
            files_of_machine: self.files_of_machine,
            ports: self.ports,
            memory_bytes: self.memory_bytes(),
        }
    }

    /// Memory that is available and that the control group allows, in bytes.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory_available_bytes.into_iter().chain(self.memory_bound_bytes).min()
    }

    /// Tries and reads everything; keeps all CPUs busy for `spin`.
    pub fn read(machine: &Machine, spin: Duration) -> Self {
        let status = procfs::read("/proc/thread-self/status").ok();
        let group = ControlGroup::read();
        let cpus = CpuList::allowed().ok();
        // A machine that can make namespaces has told what holds in a new one.
        let network =
            machine.new_namespace_network_sysctls.as_ref().unwrap_or(&machine.network_sysctls);
        let setting = |name: &str| network.get(name).cloned().flatten();
        let tracing = Counters::<Syscall>::attach_to_main_thread(std::process::id());
        let slabs = memory::try_slabs();
        let contention = cpus.as_ref().and_then(|cpus| Contention::measure(cpus.cpus(), spin).ok());
        let options = machine.kernel_config.options.as_ref();
        Self {
            kernel_release: machine.kernel_release.clone(),
            is_virtual: machine.is_virtual,
            backends: backends(),
            io_uring_disabled: machine.sysctls.get("kernel.io_uring_disabled").cloned().flatten(),
            seccomp_mode: status.and_then(|status| procfs::number(&status, "Seccomp").ok()),
            cpus_allowed: cpus.as_ref().map(|cpus| cpus.cpus().len()),
            cores_allowed: machine.topology.cores.as_ref().map(Vec::len),
            packages_allowed: cpus
                .as_ref()
                .map_or_else(Vec::new, |cpus| packages(&machine.topology, cpus)),
            cpu_quota: group.cpus,
            open_files_soft: machine.open_files_soft,
            open_files_hard: machine.open_files_hard,
            locked_memory_bytes: machine.locked_memory_bytes.filter(|_| {
                let release = machine.kernel_release.as_deref();
                release.and_then(parse_version).is_none_or(locked::are_counted)
            }),
            file_table_refused: FileTables::look().ok().and_then(|tables| tables.refused),
            files_of_machine: files_of_machine(),
            ports: setting("net.ipv4.ip_local_port_range").and_then(|range| {
                let mut ports = range.split_whitespace().map_while(|port| port.parse().ok());
                ports.next().zip(ports.next())
            }),
            memory_available_bytes: procfs::read("/proc/meminfo")
                .and_then(|meminfo| procfs::kibibytes(&meminfo, "MemAvailable"))
                .ok(),
            memory_bound_bytes: group.memory_left_bytes,
            namespace_refused: NetworkNamespace::create().err().map(|why| why.to_string()),
            untraced_calls: tracing
                .iter()
                .flat_map(Counters::unavailable)
                .map(Syscall::name)
                .collect(),
            tracing_refused: tracing.err().map(|why| why.to_string()),
            slabs_exact: slabs == Ok(true),
            slabs_refused: slabs.err().map(|why| why.to_string()),
            cycles_refused: pmu::try_cycles().err().map(|why| why.to_string()),
            frequency_governor: machine.frequency_governor.clone(),
            idle_driver: machine.idle_driver.clone(),
            idle_exit_us: idle_exit_us(cpus.as_ref().and_then(|cpus| cpus.cpus().first().copied())),
            idle_polls: line("/proc/cmdline")
                .is_some_and(|options| options.split(' ').any(|option| option == "idle=poll")),
            mitigations: machine.mitigations.clone(),
            steal_percent: contention.and_then(|contention| contention.steal_percent),
            run_delay_percent: contention.and_then(|contention| contention.run_delay_percent),
            load_average: line("/proc/loadavg").and_then(|averages| {
                averages.split(' ').next().and_then(|average| average.parse().ok())
            }),
            conntrack_max: line("/proc/sys/net/netfilter/nf_conntrack_max")
                .and_then(|most| most.parse().ok()),
            clocksource: machine.clocksource.clone(),
            clock_read_ns: clock_read_ns(),
            // An architecture that cannot has no such option.
            irq_time_accounting: options.map(|options| {
                options.get("CONFIG_IRQ_TIME_ACCOUNTING").is_some_and(|value| value == "y")
            }),
            congestion_control: setting("net.ipv4.tcp_congestion_control"),
            somaxconn: setting("net.core.somaxconn").and_then(|most| most.parse().ok()),
        }
    }
}

/// The allowed CPUs of each package.
fn packages(topology: &Topology, allowed: &CpuList) -> Vec<String> {
    topology.packages.iter().flatten().map(|package| package.within(allowed).to_string()).collect()
}

/// /proc/sys/fs/file-nr has three numbers: allocated, free (always 0), and the most
/// (proc_sys_fs(5)).
fn files_of_machine() -> Option<u64> {
    let numbers = line("/proc/sys/fs/file-nr")?;
    let mut numbers = numbers.split_whitespace().map(|number| number.parse::<u64>().ok());
    let (allocated, most) = (numbers.next()??, numbers.nth(1)??);
    Some(most.saturating_sub(allocated))
}

fn backends() -> Vec<Support> {
    let support = |entry: &'static backend::Entry| Support {
        name: entry.name,
        is_uring: entry.uses_ring,
        refused: refusal(entry.name, &[]),
    };
    backend::ALL.iter().map(support).collect()
}

/// Why this kernel refuses a backend with these settings.
pub fn refusal(name: &str, settings: &[String]) -> Option<String> {
    let probe = |entry: &'static backend::Entry| {
        let knobs = Knobs::parse(entry, settings)?;
        (entry.probe)(&knobs, 1).map_err(|unsupported| unsupported.reason)
    };
    backend::find(name).and_then(probe).err()
}

/// The longest time to wake of the sleeps that are not disabled.
fn idle_exit_us(cpu: Option<usize>) -> Option<u64> {
    let states = fs::read_dir(format!("/sys/devices/system/cpu/cpu{}/cpuidle", cpu?)).ok()?;
    let number = |folder: &Path, name: &str| line(folder.join(name))?.parse::<u64>().ok();
    let exit = |folder: &Path| {
        let is_disabled = number(folder, "disable").is_some_and(|disable| disable != 0);
        number(folder, "latency").filter(|_| !is_disabled)
    };
    states.flatten().filter_map(|state| exit(&state.path())).max()
}

/// The least of several rounds: what is more was an interruption.
fn clock_read_ns() -> Option<u64> {
    const READS: u32 = 1000;
    let round = || {
        let begin = Instant::now();
        for _ in 1..READS {
            std::hint::black_box(Instant::now());
        }
        begin.elapsed().as_nanos() as u64 / u64::from(READS)
    };
    (0..20).map(|_| round()).min()
}
