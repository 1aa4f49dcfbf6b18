//! A process's rights, as /proc tells them (capabilities(7), user_namespaces(7)).

/// Finds the effective capabilities in the text of /proc/PID/status: a bit for each.
pub fn effective_capabilities(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Tells from the text of /proc/PID/uid_map whether a process is in the first user namespace. Any
/// other has fewer users, or they have other numbers outside.
pub fn is_in_first_user_namespace(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}
