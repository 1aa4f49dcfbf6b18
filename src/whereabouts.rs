//! Where a process runs, so that another can tell whether it sees the same one under its number.

use serde_json::{Map, Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Of this process, as fields of a JSON line; null where the kernel does not tell. On one kernel
/// (`boot_id`) and in one `pid_namespace` its `pid` is the same for all; `start_ticks` tells it
/// from others that had that number.
pub fn to_json() -> Map<String, Value> {
    let namespace = |kind: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
        Some(link.to_string_lossy().into_owned())
    };
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    Map::from_iter([
        ("pid".to_owned(), std::process::id().into()),
        ("start_ticks".to_owned(), start_ticks("self").into()),
        ("boot_id".to_owned(), boot_id.map(|id| id.trim_end().to_owned()).into()),
        ("pid_namespace".to_owned(), namespace("pid").into()),
        ("network_namespace".to_owned(), namespace("net").into()),
        ("program".to_owned(), stamp(Path::new("/proc/self/exe")).into()),
    ])
}

/// What tells a file from others, and what it holds from what it held before, without reading it:
/// the kernel changes `changed` with every write (inode(7), "ctime"). Times are in ns.
pub fn stamp(path: &Path) -> Option<Value> {
    let file = fs::metadata(path).ok()?;
    let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
    Some(json!({
        "device": file.dev(),
        "inode": file.ino(),
        "bytes": file.size(),
        "modified": ns(file.mtime(), file.mtime_nsec()),
        "changed": ns(file.ctime(), file.ctime_nsec()),
    }))
}

/// Reads when a process began, in clock ticks from the kernel's start.
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
        let here = to_json();
        assert_eq!(here["pid"], std::process::id());
        assert!(here["start_ticks"].as_u64().is_some_and(|ticks| ticks > 0), "{here:?}");
        assert_eq!(here["start_ticks"].as_u64(), start_ticks(&std::process::id().to_string()));
        assert!(
            here["pid_namespace"].as_str().is_some_and(|link| link.starts_with("pid:[")),
            "{here:?}"
        );
        assert!(
            here["network_namespace"].as_str().is_some_and(|link| link.starts_with("net:[")),
            "{here:?}"
        );
        assert_eq!(start_ticks("0"), None);
        let this = std::env::current_exe().expect("this program");
        assert_eq!(here["program"], Value::from(stamp(&this)));
    }
}
