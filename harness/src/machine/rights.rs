//! What this process may do, and what gets it what it may not.

use super::procfs;

/// What the kernel asks for.
#[derive(Clone, Copy)]
pub struct Need {
    /// As capabilities(7) calls it.
    pub capability: &'static str,
    bit: u32,
    /// Whether it must be root's of the host, and not of a user namespace.
    is_of_host: bool,
}

/// To make a network namespace.
pub const NAMESPACE: Need = Need { capability: "CAP_SYS_ADMIN", bit: 21, is_of_host: false };

/// To mount tracefs.
pub const MOUNT: Need = Need { capability: "CAP_SYS_ADMIN", bit: 21, is_of_host: true };

/// To count what the kernel does, where kernel.perf_event_paranoid does not leave it to everybody.
pub const COUNT: Need = Need { capability: "CAP_PERFMON", bit: 38, is_of_host: true };

/// To read what root owns.
pub const READ: Need = Need { capability: "CAP_DAC_READ_SEARCH", bit: 2, is_of_host: true };

/// What a process may do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rights {
    is_root: bool,
    capabilities: u64,
    is_in_user_namespace: bool,
    is_filtered: bool,
}

impl Rights {
    /// Of the calling thread.
    pub fn read() -> Self {
        let status = procfs::read("/proc/thread-self/status").unwrap_or_default();
        let uid_map = procfs::read("/proc/self/uid_map").unwrap_or_default();
        Self::parse(&status, &uid_map)
    }

    fn parse(status: &str, uid_map: &str) -> Self {
        let effective =
            procfs::text(status, "CapEff").and_then(|mask| u64::from_str_radix(mask, 16).ok());
        let uid = procfs::text(status, "Uid").and_then(|uids| uids.split_whitespace().nth(1));
        let ids: Vec<_> = uid_map.split_whitespace().collect();
        Self {
            is_root: uid == Some("0"),
            capabilities: effective.unwrap_or_default(),
            is_in_user_namespace: !ids.is_empty() && ids != ["0", "0", "4294967295"],
            is_filtered: procfs::number(status, "Seccomp").is_ok_and(|mode| mode != 0),
        }
    }

    /// Whether this is a user whom root can allow more by the host's settings: not root, and not in
    /// a container.
    pub fn is_users(self) -> bool {
        !self.is_root && !self.is_filtered
    }

    /// Whether it has what is needed, as far as the kernel asks for no more.
    pub fn has(self, need: Need) -> bool {
        self.capabilities >> need.bit & 1 == 1 && !(need.is_of_host && self.is_in_user_namespace)
    }

    /// What to do if the kernel refuses what needs this.
    pub fn how_to_get(self, need: Need) -> String {
        let Need { capability, bit, is_of_host } = need;
        let short = capability.trim_start_matches("CAP_");
        if self.is_in_user_namespace && is_of_host {
            return "this is a user namespace (`unshare -r`, a rootless container), whose root is not the host's: \
                    run as the host's root"
                .to_owned();
        }
        match (self.capabilities >> bit & 1 == 1, self.is_root) {
            (true, _) if self.is_filtered => {
                "a seccomp filter refuses it: `docker run --security-opt seccomp=unconfined`"
                    .to_owned()
            }
            (true, _) => {
                "a security module, as SELinux or AppArmor, may refuse it: see `dmesg`".to_owned()
            }
            (false, true) => format!(
                "root is here without {capability}: in a container `docker run --privileged`, or `--cap-add {short}`"
            ),
            (false, false) if self.is_filtered => {
                "run as root, in a container with `docker run --privileged`".to_owned()
            }
            (false, false) => "run as root".to_owned(),
        }
    }
}

/// The group of the calling process.
pub fn group() -> u32 {
    // SAFETY: getegid takes nothing and never fails.
    unsafe { libc::getegid() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "         0          0 4294967295\n";
    const ALL: &str = "000001ffffffffff";
    /// What Docker gives to root.
    const OF_DOCKER: &str = "00000000a80425fb";

    fn rights(uid: u32, capabilities: &str, seccomp: u32, uid_map: &str) -> Rights {
        let status =
            format!("Uid:\t1\t{uid}\t1\t1\nCapEff:\t{capabilities}\nSeccomp:\t{seccomp}\n");
        Rights::parse(&status, uid_map)
    }

    #[test]
    fn advice_is_for_who_asks() {
        let own = "0 1000 1\n";
        for (rights, need, words) in [
            (rights(1000, "0", 0, HOST), MOUNT, "run as root"),
            (
                rights(1000, "0", 2, HOST),
                MOUNT,
                "run as root, in a container with `docker run --privileged`",
            ),
            (rights(0, OF_DOCKER, 2, HOST), MOUNT, "without CAP_SYS_ADMIN: in a container"),
            (rights(0, OF_DOCKER, 0, HOST), COUNT, "`--cap-add PERFMON`"),
            (rights(0, ALL, 2, HOST), NAMESPACE, "--security-opt seccomp=unconfined"),
            (rights(0, ALL, 0, HOST), NAMESPACE, "a security module"),
            (rights(0, ALL, 0, own), MOUNT, "run as the host's root"),
            (rights(0, ALL, 0, own), NAMESPACE, "a security module"),
            (Rights::default(), READ, "run as root"),
        ] {
            let said = rights.how_to_get(need);
            assert!(said.contains(words), "{rights:?}: {said}");
            assert!(!rights.is_root || !said.contains("run as root"), "{said}");
        }
        assert!(rights(0, ALL, 0, HOST).has(COUNT) && !rights(0, OF_DOCKER, 0, HOST).has(COUNT));
        assert!(rights(0, ALL, 0, own).has(NAMESPACE) && !rights(0, ALL, 0, own).has(COUNT));
    }
}
