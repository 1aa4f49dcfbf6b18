//! Reads the facts about this machine that a reader needs to judge a run's numbers. The host's name
//! is not among them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use ringmark::cpus::CpuList;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::files::{first_line, output, utc};
use super::meminfo::Meminfo;
use super::network_namespace::NetworkNamespace;
use super::topology::{SYS, Topology};

/// Options of the kernel's build that change the measured figures, by the beginnings of their
/// names. IRQ_TIME_ACCOUNTING decides whether a process's CPU time includes the interrupts that hit
/// it. MEMCG adds 8 bytes to each charged object.
#[rustfmt::skip]
const CONFIG: [&str; 14] = [
    "CONFIG_IRQ_TIME_ACCOUNTING", "CONFIG_TICK_CPU_ACCOUNTING", "CONFIG_VIRT_CPU_ACCOUNTING",
    "CONFIG_PREEMPT", "CONFIG_HZ", "CONFIG_NO_HZ", "CONFIG_SLUB", "CONFIG_SLAB", "CONFIG_MEMCG",
    "CONFIG_RCU_LAZY", "CONFIG_IO_URING", "CONFIG_FTRACE_SYSCALLS", "CONFIG_KASAN",
    "CONFIG_INIT_ON_",
];

#[rustfmt::skip]
const SYSCTLS: [&str; 6] = [
    "kernel.io_uring_disabled", "kernel.perf_event_paranoid", "kernel.numa_balancing", "fs.nr_open",
    "fs.file-max", "fs.epoll.max_user_watches",
];

/// Settings of a network namespace: the host's may differ from those of the trials.
#[rustfmt::skip]
const NETWORK_SYSCTLS: [&str; 8] = [
    "net.core.somaxconn", "net.core.rmem_max", "net.core.wmem_max", "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_max_syn_backlog",
];

/// Values by name; null where this machine does not tell.
type NamedValues = BTreeMap<String, Option<String>>;

/// The machine in manifest.json. A field is null where the machine does not tell.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// The time of this reading, UTC.
    pub read_at: String,
    /// A name for the machine: `vm-2cpu`, `metal-64cpu`.
    pub description: String,
    /// `uname -r`.
    pub kernel_release: Option<String>,
    /// `uname -v`: among others, whether preemption is dynamic.
    pub kernel_version: Option<String>,
    /// A number that the kernel draws when it starts.
    pub boot_id: Option<String>,
    /// How the kernel was built.
    pub kernel_config: KernelConfig,
    /// Whether a process's CPU time includes the softirqs that interrupted it, or that it ran
    /// itself when it sent. It does not if the kernel was built with CONFIG_IRQ_TIME_ACCOUNTING,
    /// unless that is not in use (`tsc=noirqtime`). Null if the build is not known.
    pub softirq_in_process_cpu: Option<bool>,
    /// Each weakness of the CPU with the kernel's answer to it.
    pub mitigations: NamedValues,
    /// The CPU's name.
    pub cpu_model: Option<String>,
    /// The CPUs on which this process may run.
    pub cpus_allowed: Option<String>,
    /// Which of them share a core, a package, a NUMA node or a cache.
    pub topology: Topology,
    /// Whether this runs in a virtual machine, as the CPU's `hypervisor` flag tells.
    pub is_virtual: bool,
    /// The hypervisor, if the kernel names it.
    pub hypervisor: Option<String>,
    /// The kernel's source of time.
    pub clocksource: Option<String>,
    /// The driver that puts idle CPUs to sleep.
    pub idle_driver: Option<String>,
    /// The governor that chooses how deep they sleep.
    pub idle_governor: Option<String>,
    /// The governor of the frequency of the first allowed CPU.
    pub frequency_governor: Option<String>,
    /// `MemTotal`.
    pub memory_total_bytes: Option<u64>,
    /// The choices of when the kernel uses huge pages, the setting in brackets.
    pub transparent_huge_pages: Option<String>,
    /// Settings of the kernel.
    pub sysctls: NamedValues,
    /// Network settings where this process runs.
    pub network_sysctls: NamedValues,
    /// Network settings in a new network namespace, as trials have; null if none can be made.
    pub new_namespace_network_sysctls: Option<NamedValues>,
    /// The soft limit of open descriptors of a process.
    pub open_files_soft: Option<u64>,
    /// The hard limit of open descriptors of a process.
    pub open_files_hard: Option<u64>,
    /// The memory that all processes of the user may lock (RLIMIT_MEMLOCK, soft), for rings among
    /// others; null if it is not limited.
    pub locked_memory_bytes: Option<u64>,
    /// `rustc --version` of the compiler that built this program.
    pub rustc: Option<String>,
    /// The revision of the source that this program was built from; null if it was built outside a
    /// git checkout.
    pub git_revision: Option<String>,
    /// Whether the source differed from the revision when it was built.
    pub git_dirty: Option<bool>,
    /// Why the revision is unknown, if it is.
    pub git_reason: Option<String>,
}

/// Options of the kernel's build.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KernelConfig {
    /// The options of interest: `y`, `m`, `n` or a number; null if the configuration cannot be
    /// read.
    pub options: Option<BTreeMap<String, String>>,
    /// Why it cannot be read.
    pub reason: Option<String>,
}

impl Machine {
    /// Reads everything. A fact that cannot be read is null.
    pub fn read() -> Self {
        let cpus = CpuList::allowed().ok();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let is_virtual =
            has_hypervisor_flag(&cpuinfo) || Path::new("/sys/hypervisor/type").exists();
        let release = first_line("/proc/sys/kernel/osrelease");
        let first_cpu =
            cpus.as_ref().and_then(|cpus| cpus.cpus().first().copied()).unwrap_or_default();
        let open_files = getrlimit(Resource::Nofile);
        let kernel_config = KernelConfig::read(release.as_deref());
        Self {
            read_at: utc(SystemTime::now()),
            description: description(is_virtual, cpus.as_ref()),
            softirq_in_process_cpu: kernel_config.has_softirq_in_process_cpu(),
            kernel_config,
            kernel_release: release,
            kernel_version: first_line("/proc/sys/kernel/version"),
            boot_id: first_line("/proc/sys/kernel/random/boot_id"),
            mitigations: mitigations(),
            cpu_model: cpuinfo_value(&cpuinfo, "model name").map(str::to_owned),
            topology: cpus
                .as_ref()
                .map(|cpus| Topology::read(Path::new(SYS), cpus.cpus()))
                .unwrap_or_default(),
            cpus_allowed: cpus.map(|cpus| cpus.to_string()),
            is_virtual,
            hypervisor: first_line("/sys/hypervisor/type"),
            clocksource: first_line(
                "/sys/devices/system/clocksource/clocksource0/current_clocksource",
            ),
            idle_driver: first_line("/sys/devices/system/cpu/cpuidle/current_driver"),
            idle_governor: first_line("/sys/devices/system/cpu/cpuidle/current_governor_ro"),
            frequency_governor: first_line(format!(
                "/sys/devices/system/cpu/cpu{first_cpu}/cpufreq/scaling_governor"
            )),
            memory_total_bytes: Meminfo::read().and_then(|info| info.bytes("MemTotal")).ok(),
            transparent_huge_pages: first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
            sysctls: sysctls(&SYSCTLS),
            network_sysctls: sysctls(&NETWORK_SYSCTLS),
            new_namespace_network_sysctls: NetworkNamespace::create()
                .ok()
                .and_then(|namespace| namespace.within(|| Ok(sysctls(&NETWORK_SYSCTLS))).ok()),
            open_files_soft: open_files.current,
            open_files_hard: open_files.maximum,
            locked_memory_bytes: ringmark::process::locked_memory_limit(),
            rustc: option_env!("RINGMARK_RUSTC").map(str::to_owned),
            git_revision: revision(),
            git_dirty: option_env!("RINGMARK_DIRTY").map(|dirty| dirty == "true"),
            git_reason: option_env!("RINGMARK_REVISION_REASON").map(str::to_owned),
        }
    }
}

fn description(is_virtual: bool, cpus: Option<&CpuList>) -> String {
    let kind = if is_virtual { "vm" } else { "metal" };
    cpus.map_or_else(|| kind.to_owned(), |cpus| format!("{kind}-{}cpu", cpus.cpus().len()))
}

/// Returns the first value of a name in /proc/cpuinfo.
pub fn cpuinfo_value<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| (key.trim_end() == name).then(|| value.trim()))
}

fn has_hypervisor_flag(cpuinfo: &str) -> bool {
    cpuinfo_value(cpuinfo, "flags")
        .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"))
}

fn mitigations() -> NamedValues {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return NamedValues::new();
    };
    entries
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), first_line(entry.path())))
        .collect()
}

/// Reads settings; those of the network are of the calling thread's namespace.
fn sysctls(names: &[&str]) -> NamedValues {
    names
        .iter()
        .map(|&name| {
            (name.to_owned(), first_line(Path::new("/proc/sys").join(name.replace('.', "/"))))
        })
        .map(|(name, value)| (name, value.map(|value| value.replace('\t', " "))))
        .collect()
}

impl KernelConfig {
    /// Reads /proc/config.gz if the kernel carries it, else the file of a distribution in /boot.
    fn read(release: Option<&str>) -> Self {
        let from_boot = || fs::read_to_string(format!("/boot/config-{}", release?)).ok();
        let config = output(Command::new("zcat").arg("/proc/config.gz")).or_else(from_boot);
        let unreadable = "neither `zcat /proc/config.gz` nor /boot/config-RELEASE can be read";
        Self {
            reason: config.is_none().then(|| unreadable.to_owned()),
            options: config.map(|config| Self::parse(&config)),
        }
    }

    fn has_softirq_in_process_cpu(&self) -> Option<bool> {
        // An option that this architecture does not have stands in no line.
        let options = self.options.as_ref()?;
        Some(options.get("CONFIG_IRQ_TIME_ACCOUNTING").is_none_or(|value| value != "y"))
    }

    fn parse(config: &str) -> BTreeMap<String, String> {
        config
            .lines()
            .filter_map(|line| {
                let unset = || Some((line.strip_prefix("# ")?.strip_suffix(" is not set")?, "n"));
                line.split_once('=').or_else(unset)
            })
            .filter(|(name, _)| CONFIG.iter().any(|beginning| name.starts_with(beginning)))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}

/// Returns the revision of the source that this program was built from.
pub fn revision() -> Option<String> {
    option_env!("RINGMARK_REVISION").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_machine_is_described_without_its_name() {
        let cpus: CpuList = "0-1,4".parse().unwrap();
        assert_eq!(description(true, Some(&cpus)), "vm-3cpu");
        assert_eq!(description(false, None), "metal");
        assert!(has_hypervisor_flag("model name\t: A\nflags\t\t: fpu hypervisor lm\n"));
        assert!(!has_hypervisor_flag("model name\t: hypervisor\nflags\t\t: fpu hypervisors\n"));
    }

    #[test]
    fn options_that_are_off_are_told() {
        let options = KernelConfig::parse(
            "# a comment\nCONFIG_HZ=250\n# CONFIG_IRQ_TIME_ACCOUNTING is not set\n\
             CONFIG_EXT4_FS=y\n",
        );
        let expected = [("CONFIG_HZ", "250"), ("CONFIG_IRQ_TIME_ACCOUNTING", "n")];
        assert_eq!(
            options,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
        );
        let in_process_cpu = |config: Option<&str>| {
            KernelConfig { options: config.map(KernelConfig::parse), reason: None }
                .has_softirq_in_process_cpu()
        };
        assert_eq!(in_process_cpu(Some("CONFIG_IRQ_TIME_ACCOUNTING=y\n")), Some(false));
        assert_eq!(in_process_cpu(Some("# CONFIG_IRQ_TIME_ACCOUNTING is not set\n")), Some(true));
        assert_eq!(in_process_cpu(None), None);
    }

    #[test]
    fn this_machine_tells_what_every_linux_tells_and_keeps_its_name() {
        let machine = Machine::read();
        let host = first_line("/proc/sys/kernel/hostname").unwrap();
        let json = serde_json::to_value(&machine).unwrap();
        assert!(machine.kernel_release.is_some() && machine.memory_total_bytes.is_some());
        assert!(machine.open_files_soft <= machine.open_files_hard);
        assert_ne!(machine.kernel_config.options.is_some(), machine.kernel_config.reason.is_some());
        assert_eq!(json["sysctls"].as_object().unwrap().len(), SYSCTLS.len());
        assert!(
            json.as_object().unwrap().values().all(|value| value.as_str() != Some(host.as_str())),
            "{json:#}"
        );
        println!("{json:#}");
    }
}
