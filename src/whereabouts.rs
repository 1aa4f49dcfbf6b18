//! The machine and the namespaces of a process, by which another process can find it.

use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The machine and the namespaces of a process, as it says itself. A field is none if the kernel
/// does not tell it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Whereabouts {
    pid: u32,
    /// When it began: this tells it from other processes that had its number.
    start_ticks: Option<u64>,
    /// The running kernel.
    boot_id: Option<String>,
    pid_namespace: Option<String>,
    network_namespace: Option<String>,
    /// The stamp of the file that it runs.
    pub program: Option<FileStamp>,
}

impl Whereabouts {
    /// Returns those of this process.
    pub fn of_this_process() -> Self {
        let namespace = |kind: &str| {
            let link = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
            Some(link.to_string_lossy().into_owned())
        };
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        Self {
            pid: std::process::id(),
            start_ticks: start_ticks("self"),
            boot_id: boot_id.map(|id| id.trim_end().to_owned()),
            pid_namespace: namespace("pid"),
            network_namespace: namespace("net"),
            program: FileStamp::of(Path::new("/proc/self/exe")),
        }
    }

    /// Returns whether both processes run on one kernel.
    pub fn is_on_machine_of(&self, other: &Self) -> bool {
        is_same(&self.boot_id, &other.boot_id)
    }

    /// Returns whether both processes run in one network namespace. Namespaces of two kernels may
    /// have one number.
    pub fn is_in_network_of(&self, other: &Self) -> bool {
        self.is_on_machine_of(other) && is_same(&self.network_namespace, &other.network_namespace)
    }

    /// Returns whether both processes run in one PID namespace.
    pub fn sees_processes_of(&self, other: &Self) -> bool {
        self.is_on_machine_of(other) && is_same(&self.pid_namespace, &other.pid_namespace)
    }

    /// Returns the number of the process, if it is the one that /proc shows here under it.
    pub fn pid_here(&self) -> Option<u32> {
        let is_here = self.sees_processes_of(&Self::of_this_process());
        let is_it = || is_same(&self.start_ticks, &start_ticks(&self.pid.to_string()));
        (is_here && is_it()).then_some(self.pid)
    }
}

/// Returns whether both are known and the same.
fn is_same<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
    one.is_some() && one == other
}

/// Identifies a file and its content without reading it: the kernel changes `changed` with every
/// write (inode(7), "ctime"). Times are in ns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: i64,
    changed: i64,
}

impl FileStamp {
    /// Returns that of a file, if it is there.
    pub fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            modified: ns(file.mtime(), file.mtime_nsec()),
            changed: ns(file.ctime(), file.ctime_nsec()),
        })
    }
}

/// Returns when a process began, in clock ticks from the kernel's start: field 22 of /proc/PID/stat
/// (proc_pid_stat(5)). Field 2, the name, may hold anything.
pub fn start_ticks(pid: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat_field(&stat, 22)?.parse().ok()
}

/// Finds a field in the text of /proc/PID/stat by its number in proc_pid_stat(5), from 3 on. Field
/// 2, the process's name, may hold anything.
pub fn stat_field(stat: &str, number: usize) -> Option<&str> {
    stat.rsplit_once(") ")?.1.split_whitespace().nth(number.checked_sub(3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_where_it_says() {
        let here = Whereabouts::of_this_process();
        assert_eq!(here.pid, std::process::id());
        assert!(here.start_ticks.is_some_and(|ticks| ticks > 0), "{here:?}");
        let begins =
            |link: &Option<String>, word| link.as_ref().is_some_and(|l| l.starts_with(word));
        assert!(begins(&here.pid_namespace, "pid:["), "{here:?}");
        assert!(begins(&here.network_namespace, "net:["), "{here:?}");
        assert_eq!(start_ticks("0"), None);
        let this = std::env::current_exe().expect("this program");
        assert_eq!(here.program, FileStamp::of(&this));
    }

    #[test]
    fn only_the_process_itself_is_here() {
        let here = Whereabouts::of_this_process();
        assert_eq!(here.pid_here(), Some(std::process::id()));
        let other = || Some("another".to_owned());
        for elsewhere in [
            Whereabouts { start_ticks: here.start_ticks.map(|ticks| ticks + 1), ..here.clone() },
            Whereabouts { start_ticks: None, ..here.clone() },
            Whereabouts { boot_id: other(), ..here.clone() },
            Whereabouts { pid_namespace: other(), ..here.clone() },
            Whereabouts { pid_namespace: None, ..here.clone() },
        ] {
            assert_eq!(elsewhere.pid_here(), None, "{elsewhere:?}");
        }
        let (unknown, also) = (Whereabouts::default(), Whereabouts::default());
        assert!(!unknown.is_on_machine_of(&also) && !unknown.is_in_network_of(&also));
    }
}
