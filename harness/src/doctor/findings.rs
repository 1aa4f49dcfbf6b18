//! Reads and tries what this machine has, without judging it.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, hint};

use ringmark::backend::{self, Knobs};
use ringmark::cpus::CpuList;
use ringmark::kernel::parse_version;

use super::locked;
use crate::load::OTHER_FILES;
use crate::load::files::{FILES_OF_A_THREAD, FileTables};
use crate::machine::cgroup::ControlGroup;
use crate::machine::contention::Contention;
use crate::machine::files::first_line;
use crate::machine::hardware::HardwareCounters;
use crate::machine::meminfo::Meminfo;
use crate::machine::network_namespace::NetworkNamespace;
use crate::machine::slabs::Slabs;
use crate::machine::tracepoints::{Syscall, TracepointCounters};
use crate::machine::{Machine, procfs};
use crate::matrix::connection_limits::ConnectionLimits;

/// The findings. A field is none where the machine does not tell. A field that ends in `_refused`
/// says why something cannot be used, and is none if it can.
#[derive(Debug, Default)]
pub struct Findings {
    pub machine: Machine,
    /// Every backend with its default knobs.
    pub backends: Vec<BackendSupport>,
    /// `kernel.io_uring_disabled`, which kernels before 6.6 do not have.
    pub io_uring_disabled: Option<String>,
    /// 0 for no filter, 1 for strict, 2 for a filter (proc_pid_status(5)).
    pub seccomp_mode: Option<u64>,
    pub cpus_allowed: Option<usize>,
    pub cores_allowed: Option<usize>,
    /// The list of CPUs of each package.
    pub packages_allowed: Vec<String>,
    /// CPU time for each second that the control group allows; none: no bound.
    pub cpu_quota: Option<f64>,
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
    /// Memory that the control group still allows; none: no bound.
    pub memory_bound_bytes: Option<u64>,
    /// Why trials have no network namespace.
    pub namespace_refused: Option<String>,
    /// Why tracepoints do not count.
    pub tracing_refused: Option<String>,
    /// Calls that the kernel has no tracepoint for.
    pub untraced_calls: Vec<&'static str>,
    /// Why the CPU's own counters are not to be had.
    pub hardware_refused: Option<String>,
    /// Why the kernel's objects cannot be read.
    pub slabs_refused: Option<String>,
    /// Whether the kernel's caches can be shrunk, which makes their counts exact.
    pub slabs_exact: bool,
    /// How long a CPU takes to wake from the deepest sleep that is allowed, as the driver tells.
    pub idle_exit_us: Option<u64>,
    /// Whether the kernel was started with `idle=poll`: its CPUs never sleep.
    pub idle_polls: bool,
    /// The hypervisor's share of the time while all CPUs were wanted.
    pub steal_percent: Option<f64>,
    /// How long a busy thread waited for its CPU.
    pub run_delay_percent: Option<f64>,
    /// The average number of ready tasks over the last minute.
    pub load_average: Option<f64>,
    /// The most connections that the host's connection tracking holds; none: it is not loaded.
    pub conntrack_max: Option<u64>,
    /// The time that it takes to read the time.
    pub clock_read_ns: Option<u64>,
    /// TCP's congestion control where trials run.
    pub congestion_control: Option<String>,
    /// `net.core.somaxconn` where trials run.
    pub somaxconn: Option<u64>,
}

/// A backend on this machine.
#[derive(Debug)]
pub struct BackendSupport {
    pub name: &'static str,
    /// Whether it needs io_uring.
    pub is_uring: bool,
    /// Why the kernel refuses it.
    pub refused: Option<String>,
}

impl Findings {
    /// Tries and reads everything, and keeps all CPUs busy for `spin`.
    pub fn read(machine: &Machine, spin: Duration) -> Self {
        let cpus = CpuList::allowed().ok();
        let contention = cpus.as_ref().and_then(|cpus| Contention::measure(cpus.cpus(), spin).ok());
        let group = ControlGroup::read();
        let tracing = TracepointCounters::<Syscall>::attach_to_main_thread(std::process::id());
        let slabs = Slabs::open();
        // A machine that can make namespaces has told the settings of a new one.
        let network =
            machine.new_namespace_network_sysctls.as_ref().unwrap_or(&machine.network_sysctls);
        let setting = |name: &str| network.get(name).cloned().flatten();
        let release = machine.kernel_release.as_deref().and_then(parse_version);
        let packages = machine.topology.packages.iter().flatten().zip(&cpus);
        Self {
            backends: backends(),
            io_uring_disabled: machine.sysctls.get("kernel.io_uring_disabled").cloned().flatten(),
            seccomp_mode: procfs::read("/proc/thread-self/status")
                .and_then(|status| procfs::number(&status, "Seccomp"))
                .ok(),
            cpus_allowed: cpus.as_ref().map(|cpus| cpus.cpus().len()),
            cores_allowed: machine.topology.cores.as_ref().map(Vec::len),
            packages_allowed: packages.map(|(list, cpus)| list.within(cpus).to_string()).collect(),
            cpu_quota: group.cpus,
            locked_memory_bytes: machine
                .locked_memory_bytes
                .filter(|_| release.is_none_or(locked::are_counted)),
            file_table_refused: FileTables::look().ok().and_then(|tables| tables.refused),
            files_of_machine: files_of_machine(),
            ports: setting("net.ipv4.ip_local_port_range").and_then(|range| {
                let mut ports = range.split_whitespace().map_while(|port| port.parse().ok());
                ports.next().zip(ports.next())
            }),
            memory_available_bytes: Meminfo::read()
                .and_then(|info| info.bytes("MemAvailable"))
                .ok(),
            memory_bound_bytes: group.memory_left_bytes,
            namespace_refused: NetworkNamespace::create().err().map(|why| why.to_string()),
            untraced_calls: tracing
                .iter()
                .flat_map(TracepointCounters::unavailable)
                .map(Syscall::name)
                .collect(),
            tracing_refused: tracing.err().map(|why| why.to_string()),
            slabs_exact: slabs.as_ref().is_ok_and(Slabs::can_shrink),
            hardware_refused: HardwareCounters::attach(std::process::id())
                .err()
                .map(|why| why.to_string()),
            slabs_refused: slabs.err().map(|why| why.to_string()),
            idle_exit_us: idle_exit_us(cpus.as_ref().and_then(|cpus| cpus.cpus().first().copied())),
            idle_polls: first_line("/proc/cmdline")
                .is_some_and(|options| options.split(' ').any(|option| option == "idle=poll")),
            steal_percent: contention.and_then(|contention| contention.steal_percent),
            run_delay_percent: contention.and_then(|contention| contention.run_delay_percent),
            load_average: first_line("/proc/loadavg")
                .and_then(|averages| averages.split(' ').next()?.parse().ok()),
            conntrack_max: first_line("/proc/sys/net/netfilter/nf_conntrack_max")
                .and_then(|most| most.parse().ok()),
            clock_read_ns: clock_read_ns(),
            congestion_control: setting("net.ipv4.tcp_congestion_control"),
            somaxconn: setting("net.core.somaxconn").and_then(|most| most.parse().ok()),
            machine: machine.clone(),
        }
    }

    /// Returns how many connections the machine has room for.
    pub fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            open_files: self.machine.open_files_hard,
            shared_with: self.file_table_refused.as_ref().map(|_| {
                OTHER_FILES + FILES_OF_A_THREAD * self.cpus_allowed.unwrap_or_default() as u64
            }),
            files_of_machine: self.files_of_machine,
            ports: self.ports,
            memory_bytes: self.memory_bytes(),
        }
    }

    /// Returns the bytes of memory that are available and that the control group allows.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory_available_bytes.into_iter().chain(self.memory_bound_bytes).min()
    }

    /// Returns why nothing at all can be measured, if so.
    pub fn impossible(&self) -> Option<String> {
        let runs = self.backends.iter().any(|support| support.refused.is_none());
        let first = self
            .backends
            .iter()
            .find_map(|support| Some(format!("{}: {}", support.name, support.refused.as_ref()?)));
        let why = first.as_deref().unwrap_or("there is none");
        (!runs).then(|| format!("no backend runs here: {why}"))
    }
}

/// Reads /proc/sys/fs/file-nr, which has three numbers: allocated, free (always 0), and the most
/// (proc_sys_fs(5)).
fn files_of_machine() -> Option<u64> {
    let numbers = first_line("/proc/sys/fs/file-nr")?;
    let mut numbers = numbers.split_whitespace().map(|number| number.parse::<u64>().ok());
    let (allocated, most) = (numbers.next()??, numbers.nth(1)??);
    Some(most.saturating_sub(allocated))
}

fn backends() -> Vec<BackendSupport> {
    let support = |entry: &backend::Entry| BackendSupport {
        name: entry.name,
        is_uring: entry.uses_ring,
        refused: refusal(entry.name, &[]),
    };
    backend::ALL.iter().map(support).collect()
}

/// Returns why this kernel refuses a backend with these settings.
pub fn refusal(name: &str, settings: &[String]) -> Option<String> {
    let parsed = backend::find(name).and_then(|entry| Ok((entry, Knobs::parse(entry, settings)?)));
    match parsed {
        Ok((entry, knobs)) => Some((entry.probe)(&knobs, 1).err()?.reason),
        Err(error) => Some(error.to_string()),
    }
}

/// Returns the longest time to wake of the sleeps that are not disabled.
fn idle_exit_us(cpu: Option<usize>) -> Option<u64> {
    let states = fs::read_dir(format!("/sys/devices/system/cpu/cpu{}/cpuidle", cpu?)).ok()?;
    let exit = |folder: &Path| {
        let is_disabled = first_line(folder.join("disable")).is_some_and(|disable| disable != "0");
        first_line(folder.join("latency"))?.parse().ok().filter(|_| !is_disabled)
    };
    states.flatten().filter_map(|state| exit(&state.path())).max()
}

/// Returns the least of several rounds, because a longer one was interrupted.
fn clock_read_ns() -> Option<u64> {
    const READS: u32 = 1000;
    let round = |_| {
        let begin = Instant::now();
        for _ in 1..READS {
            hint::black_box(Instant::now());
        }
        begin.elapsed().as_nanos() as u64 / u64::from(READS)
    };
    (0..20).map(round).min()
}
