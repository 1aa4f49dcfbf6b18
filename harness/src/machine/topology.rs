//! Reads from /sys which CPUs are hyperthreads of one core, and which share a package, NUMA node or
//! cache.
//!
//! Hyperthreads share a core's execution units and first caches. Each runs slower while the other
//! is busy, and neither's clock nor its run delay shows it. Two measured threads therefore get
//! cores of their own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ringmark::cpus::CpuList;
use serde::{Deserialize, Serialize};

/// The tree in which Linux tells of it.
pub const SYS: &str = "/sys";

/// Groups of CPUs, with those that this process may not use; null where the machine does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// The hyperthreads of each core.
    pub cores: Option<Vec<CpuList>>,
    /// The CPUs of each package, which is in one socket.
    pub packages: Option<Vec<CpuList>>,
    /// The CPUs of each NUMA node, which are equally near to a part of the memory.
    pub numa_nodes: Option<Vec<CpuList>>,
    /// The CPUs of each third-level cache.
    pub l3_caches: Option<Vec<CpuList>>,
}

impl Topology {
    /// Reads the groups that have any of these CPUs from `sys`, which is [`SYS`] except in tests.
    pub fn read(sys: &Path, cpus: &[usize]) -> Self {
        let devices = sys.join("devices/system");
        let folder = |cpu: usize| devices.join(format!("cpu/cpu{cpu}"));
        // Kernels before 5.3 have only the second name of each.
        let named = |names: [&'static str; 2]| {
            grouped(cpus, |cpu| {
                let lists: Vec<_> = names
                    .iter()
                    .filter_map(|name| list(&folder(cpu).join("topology").join(name)))
                    .collect();
                // A container's engine may hide or make up one of both, but not the larger.
                lists.into_iter().max_by_key(|list| list.cpus().len())
            })
        };
        let nodes = lists_in(&devices.join("node"), "node", |node| list(&node.join("cpulist")));
        Self {
            cores: named(["core_cpus_list", "thread_siblings_list"]),
            packages: named(["package_cpus_list", "core_siblings_list"]),
            numa_nodes: grouped(cpus, |cpu| {
                nodes.iter().find(|node| node.cpus().contains(&cpu)).cloned()
            }),
            l3_caches: grouped(cpus, |cpu| {
                let third = |cache: &Path| {
                    let level = fs::read_to_string(cache.join("level")).ok()?;
                    (level.trim() == "3").then(|| list(&cache.join("shared_cpu_list"))).flatten()
                };
                lists_in(&folder(cpu).join("cache"), "index", third).pop()
            }),
        }
    }

    /// Tells whether two CPUs are one, or known to be hyperthreads of one core.
    pub fn is_one_core(&self, one: usize, other: usize) -> bool {
        one == other
            || index(&self.cores, one).is_some_and(|core| index(&self.cores, other) == Some(core))
    }

    /// Tells whether one of the first and another of the second are hyperthreads of one core; none
    /// if the cores are not known.
    pub fn share_a_core(&self, first: &[usize], second: &[usize]) -> Option<bool> {
        self.cores.as_ref()?;
        let has_sibling =
            |&one: &usize| second.iter().any(|&other| one != other && self.is_one_core(one, other));
        Some(first.iter().any(has_sibling))
    }

    /// Orders CPUs so that those of a package, a node and a cache are beside each other.
    pub fn nearest(&self, cpus: &[usize]) -> Vec<usize> {
        let levels = [&self.packages, &self.numa_nodes, &self.l3_caches];
        let mut ordered = cpus.to_vec();
        ordered.sort_by_key(|&cpu| (levels.map(|groups| index(groups, cpu)), cpu));
        ordered
    }

    /// Picks the first CPU of each core, in the same order; all of them if the cores are not known.
    pub fn one_of_each_core(&self, cpus: &[usize]) -> Vec<usize> {
        let mut chosen: Vec<usize> = Vec::new();
        for &cpu in cpus {
            if !chosen.iter().any(|&taken| self.is_one_core(taken, cpu)) {
                chosen.push(cpu);
            }
        }
        chosen
    }

    /// Counts the packages over which these CPUs are spread, if that is known.
    pub fn packages_of(&self, cpus: &[usize]) -> Option<usize> {
        let packages: Option<BTreeSet<_>> =
            cpus.iter().map(|&cpu| index(&self.packages, cpu)).collect();
        packages.map(|packages| packages.len())
    }
}

fn index(groups: &Option<Vec<CpuList>>, cpu: usize) -> Option<usize> {
    groups.as_ref()?.iter().position(|group| group.cpus().contains(&cpu))
}

/// Collects the groups of these CPUs, each once; none if `group_of` does not know that of each CPU.
fn grouped(cpus: &[usize], group_of: impl Fn(usize) -> Option<CpuList>) -> Option<Vec<CpuList>> {
    let mut groups: Vec<CpuList> = Vec::new();
    for &cpu in cpus {
        if !groups.iter().any(|group| group.cpus().contains(&cpu)) {
            groups.push(group_of(cpu).filter(|group| group.cpus().contains(&cpu))?);
        }
    }
    (!groups.is_empty()).then_some(groups)
}

fn list(path: &Path) -> Option<CpuList> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Applies `found` to each entry of a folder whose name is `prefix` and a number.
fn lists_in(folder: &Path, prefix: &str, found: impl Fn(&Path) -> Option<CpuList>) -> Vec<CpuList> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            entry.file_name().to_str()?.strip_prefix(prefix)?.parse::<u32>().ok()?;
            found(&entry.path())
        })
        .collect()
}

/// Machines that are not here.
#[cfg(test)]
pub mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// A tree under which `read` finds what these closures tell of each CPU.
    pub struct Sys(tempfile::TempDir);

    impl Sys {
        pub fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        pub fn write(&self, path: &str, text: &str) -> &Self {
            let path = self.0.path().join("devices/system").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
            self
        }

        pub fn core(&self, cpus: &[usize], list: &str) -> &Self {
            for cpu in cpus {
                self.write(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"), list);
            }
            self
        }

        pub fn read(&self, cpus: &str) -> Topology {
            Topology::read(self.0.path(), cpus.parse::<CpuList>().unwrap().cpus())
        }
    }

    /// 64 CPUs, the hyperthreads of 32 cores, in two packages whose cores alternate, as some
    /// firmware numbers them.
    pub fn two_packages() -> Sys {
        let sys = Sys::new();
        let every_second = |first: usize| {
            let cpus: Vec<String> = (first..64).step_by(2).map(|cpu| cpu.to_string()).collect();
            cpus.join(",")
        };
        for cpu in 0..64 {
            sys.core(&[cpu], &format!("{},{}", cpu % 32, cpu % 32 + 32));
            let package = every_second(cpu % 2);
            sys.write(&format!("cpu/cpu{cpu}/topology/package_cpus_list"), &package);
            sys.write(&format!("cpu/cpu{cpu}/cache/index0/level"), "1");
            sys.write(&format!("cpu/cpu{cpu}/cache/index0/shared_cpu_list"), &cpu.to_string());
            sys.write(&format!("cpu/cpu{cpu}/cache/index3/level"), "3");
            sys.write(&format!("cpu/cpu{cpu}/cache/index3/shared_cpu_list"), &package);
        }
        for node in 0..2 {
            sys.write(&format!("node/node{node}/cpulist"), &every_second(node));
        }
        // Memory alone, and what is no node.
        sys.write("node/node2/cpulist", "").write("node/online", "0-2");
        sys
    }

    /// A machine of so many CPUs, two hyperthreads a core and two packages with a node each, whose
    /// cores are numbered one package after the other. Some CPUs are offline.
    pub fn with_offline(cpus: usize, offline: &[usize]) -> Sys {
        let (sys, cores) = (Sys::new(), cpus / 2);
        let online = |cpus: Vec<usize>| {
            let online = cpus.into_iter().filter(|cpu| !offline.contains(cpu));
            online.map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(",")
        };
        let package =
            |of: usize| online((0..cpus).filter(|cpu| cpu % cores * 2 / cores == of).collect());
        for cpu in (0..cpus).filter(|cpu| !offline.contains(cpu)) {
            let core = cpu % cores;
            sys.core(&[cpu], &online(vec![core, core + cores]));
            let of = core * 2 / cores;
            sys.write(&format!("cpu/cpu{cpu}/topology/package_cpus_list"), &package(of));
        }
        for node in 0..2 {
            sys.write(&format!("node/node{node}/cpulist"), &package(node));
        }
        sys
    }

    fn lists(groups: &Option<Vec<CpuList>>) -> Option<Vec<String>> {
        Some(groups.as_ref()?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_large_machine_tells_of_all() {
        let topology = two_packages().read("0-63");
        assert_eq!(lists(&topology.cores).unwrap().len(), 32);
        assert_eq!(lists(&topology.cores).unwrap()[5], "5,37");
        for groups in [&topology.packages, &topology.numa_nodes, &topology.l3_caches] {
            let groups = groups.as_ref().unwrap();
            assert_eq!(groups.iter().map(|group| group.cpus().len()).collect::<Vec<_>>(), [32, 32]);
        }
        let cores = topology.one_of_each_core(&topology.nearest(&(0..64).collect::<Vec<_>>()));
        assert_eq!(cores.len(), 32);
        assert_eq!((&cores[..3], &cores[16..19]), (&[0, 2, 4][..], &[1, 3, 5][..]));
        let share = |one: &[usize], other: &[usize]| topology.share_a_core(one, other);
        assert_eq!((share(&[0, 1], &[0, 31]), share(&[0, 1], &[33])), (Some(false), Some(true)));
        assert_eq!(
            (topology.packages_of(&[0, 2, 34]), topology.packages_of(&[0, 1])),
            (Some(1), Some(2))
        );
        assert!(topology.is_one_core(3, 35) && !topology.is_one_core(3, 4));
        let json = serde_json::to_value(&topology).unwrap();
        assert_eq!(json["cores"][5], "5,37");
        assert_eq!(serde_json::from_value::<Topology>(json).unwrap(), topology);
    }

    #[test]
    fn what_a_cpuset_leaves_is_grouped_with_what_it_does_not() {
        let topology = two_packages().read("4,36,41");
        assert_eq!(lists(&topology.cores).unwrap(), ["4,36", "9,41"]);
        assert_eq!(topology.one_of_each_core(&[4, 36, 41]), [4, 41]);
        // The sibling of 32 is offline, and the kernel leaves it out.
        let sys = two_packages();
        sys.core(&[32], "32");
        assert_eq!(sys.read("1,32").one_of_each_core(&[1, 32]), [1, 32]);
    }

    #[test]
    fn what_is_not_told_is_not_known() {
        let nothing = Sys::new().read("0-3");
        assert_eq!(nothing, Topology::default());
        assert_eq!((nothing.share_a_core(&[0], &[1]), nothing.packages_of(&[0])), (None, None));
        assert_eq!(nothing.one_of_each_core(&nothing.nearest(&[0, 1, 2])), [0, 1, 2]);
        // Only one CPU is told of, or another one, or the list is nonsense.
        for (told, of_the_other) in [("0", None), ("0", Some("0")), ("0-", Some("1"))] {
            let sys = Sys::new();
            sys.core(&[0], told);
            of_the_other.map(|list| sys.core(&[1], list));
            assert_eq!(sys.read("0-1").cores, None, "{told} {of_the_other:?}");
        }
        // Either name will do, and the one that tells more holds.
        let sys = Sys::new();
        sys.core(&[0, 1], "0-1").write("cpu/cpu0/topology/core_cpus_list", "0");
        assert_eq!(lists(&sys.read("0-1").cores).unwrap(), ["0-1"]);
    }
}
