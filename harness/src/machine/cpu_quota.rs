//! A bound on CPU time, as containers have one: a control group of the machine's first or second
//! version, into which a server is put with all the threads that it will have.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::procfs;
use super::unavailable::Unavailable;

/// The kernel deals the time out once in so long (its default, and Kubernetes').
const PERIOD_US: u64 = 100_000;

/// How often the group of a server that has just ended is tried to be removed.
const REMOVALS: u32 = 200;

/// The files of either version of control groups (cgroup-v1/cpusets.rst, cgroup-v2.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GroupVersion {
    First,
    Second,
}

/// A control group of its own with a bound, which is removed with this handle.
#[derive(Debug)]
pub struct CpuQuota {
    folder: PathBuf,
    version: GroupVersion,
}

impl CpuQuota {
    /// Makes a group that may use so many percent of one CPU.
    ///
    /// # Errors
    /// This user may make no group, or the kernel has no such bound.
    pub fn create(percent: f64) -> Result<Self, Unavailable> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::create_below(&groups, Path::new("/sys/fs/cgroup"), percent).map_err(|why| {
            Unavailable::new(format!("cpu_quota: {why}")).advising(
                "run as root where /sys/fs/cgroup may be written, or in a group of your own: \
                 `systemd-run --scope -p Delegate=yes`",
            )
        })
    }

    /// Tries the groups that are listed as hierarchy:controllers:path, and those above them.
    fn create_below(groups: &str, mount: &Path, percent: f64) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut refused = "no control group has the controller cpu".to_owned();
        for (parent, version) in parents(groups, mount) {
            let name = format!("ringmark-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
            let folder = parent.join(name);
            if let Err(error) = fs::create_dir(&folder) {
                refused = format!("{} may hold no group: {error}", parent.display());
                continue;
            }
            let group = Self { folder, version };
            match group.limit(percent) {
                Ok(()) => return Ok(group),
                Err(error) => refused = format!("{} takes no bound: {error}", parent.display()),
            }
        }
        Err(refused)
    }

    fn limit(&self, percent: f64) -> io::Result<()> {
        let quota_us = (percent / 100.0 * PERIOD_US as f64).round() as u64;
        match self.version {
            GroupVersion::First => {
                self.write("cpu.cfs_period_us", &PERIOD_US.to_string())?;
                self.write("cpu.cfs_quota_us", &quota_us.to_string())
            }
            GroupVersion::Second => self.write("cpu.max", &format!("{quota_us} {PERIOD_US}")),
        }
    }

    /// Puts a process into it. The threads that it makes from then on are in it too, the kernel's
    /// for its rings (io-wq, SQPOLL) among them.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Returns for how long it had used up its time while it had work, from the beginning.
    pub fn throttled(&self) -> io::Result<Duration> {
        throttled(&procfs::read(self.folder.join("cpu.stat"))?)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.folder.join(file), text)
    }
}

impl Drop for CpuQuota {
    /// A group is busy until the kernel has done with the last thread of a process that has ended.
    fn drop(&mut self) {
        for _ in 0..REMOVALS {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                _ => return,
            }
        }
    }
}

/// Lists the groups of this process that have the controller, each before those above it.
fn parents(groups: &str, mount: &Path) -> Vec<(PathBuf, GroupVersion)> {
    let mut parents = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let above = Path::new(path.trim_start_matches('/')).ancestors();
        if controllers.split(',').any(|controller| controller == "cpu") {
            let roots = [mount.join(controllers), mount.join("cpu")];
            let folders = above.flat_map(|path| roots.iter().map(move |root| root.join(path)));
            parents.extend(
                folders.filter(|folder| folder.is_dir()).map(|of| (of, GroupVersion::First)),
            );
        } else if controllers.is_empty() {
            let hands_on = |folder: &PathBuf| {
                let text = fs::read_to_string(folder.join("cgroup.subtree_control"));
                text.is_ok_and(|text| text.split_whitespace().any(|word| word == "cpu"))
            };
            let folders = above.map(|path| mount.join(path)).filter(hands_on);
            parents.extend(folders.map(|of| (of, GroupVersion::Second)));
        }
    }
    parents
}

/// Finds the time in a `cpu.stat`: in ns in the first version, in µs in the second.
fn throttled(text: &str) -> io::Result<Duration> {
    let number = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse::<u64>().ok())
    };
    let first = number("throttled_time").map(Duration::from_nanos);
    let second = number("throttled_usec").map(Duration::from_micros);
    first.or(second).ok_or_else(|| procfs::missing("throttled_time"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::machine::cpu::process_cpu_ns;
    use std::process::Command;
    use std::time::Instant;

    #[test]
    fn both_versions_tell_how_long_a_group_was_throttled() {
        let first = "nr_periods 12\nnr_throttled 3\nthrottled_time 250000000\n";
        let second = "usage_usec 9\nnr_throttled 3\nthrottled_usec 250000\n";
        for text in [first, second] {
            assert_eq!(throttled(text).unwrap(), Duration::from_millis(250));
        }
        assert!(throttled("usage_usec 9\n").is_err());
    }

    #[test]
    fn the_nearest_group_that_hands_the_controller_on_is_used() {
        let mount = tempfile::tempdir().unwrap();
        let inner = mount.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(mount.path().join("a/cgroup.subtree_control"), "cpu memory\n").unwrap();
        fs::write(inner.join("cgroup.subtree_control"), "memory\n").unwrap();
        assert_eq!(
            parents("0::/a/b\n", mount.path()),
            [(mount.path().join("a"), GroupVersion::Second)]
        );
        fs::create_dir_all(mount.path().join("cpu,cpuacct/x")).unwrap();
        let groups = "4:memory:/x\n1:cpu,cpuacct:/x\n";
        let first = mount.path().join("cpu,cpuacct");
        assert_eq!(
            parents(groups, mount.path()),
            [(first.join("x"), GroupVersion::First), (first, GroupVersion::First)]
        );
        let refused = CpuQuota::create_below("0::/\n", &mount.path().join("none"), 50.0);
        assert!(refused.unwrap_err().contains("no control group"));
    }

    #[test]
    fn a_process_in_it_gets_no_more_than_its_share_and_the_group_goes() {
        let quota = match CpuQuota::create(20.0) {
            Ok(quota) => quota,
            Err(why) => return eprintln!("skipped: {why}"),
        };
        let folder = quota.folder.clone();
        let mut child = Command::new("sh")
            .args(["-c", "read go; while :; do :; done"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        quota.add(child.id()).unwrap();
        drop(child.stdin.take());
        let end = Instant::now() + Duration::from_secs(20);
        while quota.throttled().unwrap().is_zero() {
            assert!(Instant::now() < end, "it was never throttled");
            std::thread::sleep(Duration::from_millis(20));
        }
        let (begin, before) = (Instant::now(), process_cpu_ns(child.id()).unwrap());
        std::thread::sleep(Duration::from_millis(1000));
        let cpu_ns = process_cpu_ns(child.id()).unwrap() - before;
        let share = cpu_ns as f64 / begin.elapsed().as_nanos() as f64;
        child.kill().unwrap();
        child.wait().unwrap();
        // A period may have been begun, and another not yet counted.
        assert!(share < 0.45, "{share}");
        drop(quota);
        assert!(!folder.exists());
    }
}
