//! Reads the bounds of this process's control groups (cgroups(7)). Container engines bound memory
//! and CPU time by them; neither /proc/meminfo nor the list of CPUs tells.

use std::fs;
use std::path::{Path, PathBuf};

/// The bounds; none if no bound is set, or none can be read.
#[derive(Debug, Default, PartialEq)]
pub struct ControlGroup {
    /// Bytes of memory that may still be taken, the kernel's for its sockets among them.
    pub memory_left_bytes: Option<u64>,
    /// CPU time for each second.
    pub cpus: Option<f64>,
}

impl ControlGroup {
    /// Reads the tightest bounds of this process's groups and of all groups above them.
    pub fn read() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::of(&groups, Path::new("/sys/fs/cgroup"))
    }

    /// Reads the groups that are listed as hierarchy:controllers:path.
    fn of(groups: &str, mount: &Path) -> Self {
        let mut bounds = Self::default();
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            // The second version has the one hierarchy 0 without controllers.
            if controllers.is_empty() {
                for folder in folders(mount, path).chain(folders(&mount.join("unified"), path)) {
                    bounds.tighten_memory(&folder, "memory.max", "memory.current");
                    bounds.tighten_cpus(&file_text(&folder, "cpu.max"));
                }
            }
            for controller in controllers.split(',') {
                for folder in folders(&mount.join(controller), path) {
                    bounds.tighten_by_first_version(controller, &folder);
                }
            }
        }
        bounds
    }

    fn tighten_by_first_version(&mut self, controller: &str, folder: &Path) {
        match controller {
            "memory" => {
                self.tighten_memory(folder, "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            "cpu" => self.tighten_cpus(
                &[file_text(folder, "cpu.cfs_quota_us"), file_text(folder, "cpu.cfs_period_us")]
                    .join(" "),
            ),
            _ => {}
        }
    }

    fn tighten_memory(&mut self, folder: &Path, most: &str, used: &str) {
        // The first version writes "no bound" as the largest number of whole pages.
        let bytes = |file| file_text(folder, file).trim().parse::<u64>().ok();
        let bound = bytes(most).filter(|&bytes| bytes < u64::MAX / 4);
        let left = bound.map(|bound| bound.saturating_sub(bytes(used).unwrap_or_default()));
        self.memory_left_bytes = self.memory_left_bytes.into_iter().chain(left).min();
    }

    /// Reads a quota and its period. A quota of `max` or -1 is no bound.
    fn tighten_cpus(&mut self, quota_and_period: &str) {
        let mut numbers = quota_and_period.split_whitespace().map_while(|word| word.parse().ok());
        let (quota, period): (f64, f64) =
            (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        if quota > 0.0 && period > 0.0 {
            self.cpus = Some(self.cpus.map_or(quota / period, |cpus| cpus.min(quota / period)));
        }
    }
}

/// Lists the group's folder and those above it, as far as they are mounted here. A container sees
/// its own group as the root, under whatever path the host has it.
fn folders(mount: &Path, path: &str) -> impl Iterator<Item = PathBuf> {
    Path::new(path.trim_start_matches('/')).ancestors().map(move |path| mount.join(path))
}

/// Reads a file of a group; empty if there is none.
fn file_text(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn mounted(files: &[(&str, &str)]) -> tempfile::TempDir {
        let mount = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = mount.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        mount
    }

    #[test]
    fn the_tightest_bound_on_the_way_up_holds() {
        let mount = mounted(&[
            ("memory.max", "max\n"),
            ("a/memory.max", "1000\n"),
            ("a/memory.current", "300\n"),
            ("a/b/memory.max", "2000\n"),
            ("a/cpu.max", "150000 100000\n"),
            ("a/b/cpu.max", "max 100000\n"),
        ]);
        let expected = ControlGroup { memory_left_bytes: Some(700), cpus: Some(1.5) };
        assert_eq!(ControlGroup::of("0::/a/b\n", mount.path()), expected);
        assert_eq!(ControlGroup::of("0::/\n", mount.path()), ControlGroup::default());
    }

    #[test]
    fn the_first_version_is_read_too() {
        let mount = mounted(&[
            ("memory/memory.limit_in_bytes", "4096\n"),
            ("cpu,cpuacct/x", ""),
            ("cpu/cpu.cfs_quota_us", "50000\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        let groups = "4:memory:/docker/not-seen-here\n1:cpu,cpuacct:/docker/not-seen-here\n0::/\n";
        let expected = ControlGroup { memory_left_bytes: Some(4096), cpus: Some(0.5) };
        assert_eq!(ControlGroup::of(groups, mount.path()), expected);
        let unbound = mounted(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(ControlGroup::of(groups, unbound.path()), ControlGroup::default());
        assert_eq!(ControlGroup::of("garbage", unbound.path()), ControlGroup::default());
    }
}
