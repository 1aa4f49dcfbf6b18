//! Tells what this process may do, and how to get the rights that it lacks.

use std::io;

use ringmark::rights::{effective_capabilities, is_in_first_user_namespace};

use super::procfs;
use super::unavailable::Unavailable;

/// A capability that the kernel asks for.
#[derive(Clone, Copy)]
pub struct Privilege {
    /// Its name in capabilities(7).
    pub capability: &'static str,
    bit: u32,
    /// Whether it must be root's of the host, and not of a user namespace.
    is_of_host: bool,
}

/// The privilege to make a network namespace.
pub const NAMESPACE: Privilege =
    Privilege { capability: "CAP_SYS_ADMIN", bit: 21, is_of_host: false };

/// The privilege to mount tracefs.
pub const MOUNT: Privilege = Privilege { is_of_host: true, ..NAMESPACE };

/// The privilege to count events of the kernel, where kernel.perf_event_paranoid does not leave it
/// to everybody.
pub const COUNT: Privilege = Privilege { capability: "CAP_PERFMON", bit: 38, is_of_host: true };

/// The privilege to read files of root.
pub const READ: Privilege =
    Privilege { capability: "CAP_DAC_READ_SEARCH", bit: 2, is_of_host: true };

/// The rights of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rights {
    is_root: bool,
    capabilities: u64,
    is_in_user_namespace: bool,
    is_filtered: bool,
}

impl Rights {
    /// Reads those of the calling thread.
    pub fn read() -> Self {
        let status = procfs::read("/proc/thread-self/status").unwrap_or_default();
        let uid_map = procfs::read("/proc/self/uid_map").unwrap_or_default();
        Self::parse(&status, &uid_map)
    }

    fn parse(status: &str, uid_map: &str) -> Self {
        let uid = procfs::text(status, "Uid").and_then(|uids| uids.split_whitespace().nth(1));
        Self {
            is_root: uid == Some("0"),
            capabilities: effective_capabilities(status).unwrap_or_default(),
            // A kernel without user namespaces has no such file.
            is_in_user_namespace: !uid_map.is_empty() && !is_in_first_user_namespace(uid_map),
            is_filtered: procfs::number(status, "Seccomp").is_ok_and(|mode| mode != 0),
        }
    }

    /// Tells whether root can allow this user more by the host's settings: not if it is root, or in
    /// a container.
    pub fn is_users(self) -> bool {
        !self.is_root && !self.is_filtered
    }

    /// Tells whether it has a privilege, as far as the kernel asks for no more.
    pub fn has(self, privilege: Privilege) -> bool {
        self.has_capability(privilege) && !(privilege.is_of_host && self.is_in_user_namespace)
    }

    fn has_capability(self, privilege: Privilege) -> bool {
        self.capabilities >> privilege.bit & 1 == 1
    }

    /// Says what to do if the kernel refuses what needs this privilege.
    pub fn how_to_get(self, privilege: Privilege) -> String {
        let capability = privilege.capability;
        if self.is_in_user_namespace && privilege.is_of_host {
            return "this is a user namespace (`unshare -r`, a rootless container), whose root is \
                    not the host's: run as the host's root"
                .to_owned();
        }
        match (self.has_capability(privilege), self.is_root) {
            (true, _) if self.is_filtered => {
                "a seccomp filter refuses it: `docker run --security-opt seccomp=unconfined`"
                    .to_owned()
            }
            (true, _) => {
                "a security module, such as SELinux or AppArmor, may refuse it: see `dmesg`"
                    .to_owned()
            }
            (false, true) => format!(
                "root is here without {capability}: in a container `docker run --privileged`, or \
                 `--cap-add {}`",
                capability.trim_start_matches("CAP_")
            ),
            (false, false) if self.is_filtered => {
                "run as root, in a container with `docker run --privileged`".to_owned()
            }
            (false, false) => "run as root".to_owned(),
        }
    }
}

/// The setting that lets everybody count the kernel's events of their own processes.
pub const LESS_PARANOID: &str = "sysctl -w kernel.perf_event_paranoid=1";

/// Reads how far the kernel forbids to count its events.
pub fn perf_event_paranoid() -> Option<i32> {
    procfs::read("/proc/sys/kernel/perf_event_paranoid").ok()?.trim().parse().ok()
}

/// Tells whether everybody may count the kernel's events of their own processes.
pub fn everybody_may_count() -> bool {
    perf_event_paranoid().is_some_and(|level| level <= 1)
}

/// Says why perf_event_open(2) did not count.
pub fn perf_refusal(error: &io::Error) -> Unavailable {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            let rights = Rights::read();
            let level = perf_event_paranoid();
            let level = level.map_or("unreadable".to_owned(), |level| level.to_string());
            let mut advice = rights.how_to_get(COUNT);
            if rights.is_users() && !everybody_may_count() {
                advice += &format!(", or have root set `{LESS_PARANOID}`");
            }
            Unavailable::new(format!(
                "perf_event_open was refused ({error}; kernel.perf_event_paranoid is {level})"
            ))
            .advising(advice)
        }
        Some(libc::ENOSYS) => {
            Unavailable::new("this kernel has no perf_event_open (CONFIG_PERF_EVENTS)")
        }
        Some(libc::EMFILE) => {
            Unavailable::new("each counter needs a descriptor").advising("raise `ulimit -n`")
        }
        _ => Unavailable::new(format!("perf_event_open failed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "         0          0 4294967295\n";
    const ALL: &str = "000001ffffffffff";
    /// The capabilities that Docker gives to root.
    const OF_DOCKER: &str = "00000000a80425fb";

    fn rights(uid: u32, capabilities: &str, seccomp: u32, uid_map: &str) -> Rights {
        let status =
            format!("Uid:\t1\t{uid}\t1\t1\nCapEff:\t{capabilities}\nSeccomp:\t{seccomp}\n");
        Rights::parse(&status, uid_map)
    }

    #[test]
    fn advice_is_for_who_asks() {
        let own = "0 1000 1\n";
        for (rights, privilege, words) in [
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
            let said = rights.how_to_get(privilege);
            assert!(said.contains(words), "{rights:?}: {said}");
            assert!(!rights.is_root || !said.contains("run as root"), "{said}");
        }
        assert!(rights(0, ALL, 0, HOST).has(COUNT) && !rights(0, OF_DOCKER, 0, HOST).has(COUNT));
        assert!(rights(0, ALL, 0, own).has(NAMESPACE) && !rights(0, ALL, 0, own).has(COUNT));
    }
}
