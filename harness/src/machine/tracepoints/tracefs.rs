//! Finds the kernel's tracepoints in tracefs.

use std::path::Path;
use std::{io, thread};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::machine::procfs;
use crate::machine::rights::{
    COUNT, LESS_PARANOID, MOUNT, Privilege, READ, Rights, everybody_may_count,
};
use crate::machine::unavailable::Unavailable;

/// The mount points of tracefs: by itself, or by debugfs.
const MOUNT_POINTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// A tracepoint of a group.
pub trait Tracepoint: Copy + PartialEq + 'static {
    /// The name of the group with its kernel option.
    const GROUP: &'static str;
    /// The one that the others are judged by: without it none is counted.
    const NEEDED: Self;

    /// Lists the group in the order in which it is read.
    fn all() -> impl Iterator<Item = Self>;

    /// Returns its path under `events`.
    fn path(self) -> String;
}

/// Finds the numbers by which perf_event_open knows the tracepoints, where the kernel has them.
/// They differ from boot to boot.
pub fn ids<T: Tracepoint>() -> Result<Vec<(T, Option<u64>)>, Unavailable> {
    let [by_itself, by_debugfs] = MOUNT_POINTS.map(Path::new);
    let has_events = |tracefs: &Path| tracefs.join("events").try_exists();
    match (has_events(by_itself), has_events(by_debugfs)) {
        (Ok(true), _) => ids_in(by_itself),
        // Only a mounted tracefs refuses to be looked into.
        (Err(error), _) if error.kind() == io::ErrorKind::PermissionDenied => Err(unreadable()),
        (_, Ok(true)) => ids_in(by_debugfs),
        _ => thread::scope(|scope| {
            let mounted = scope.spawn(|| {
                mount_privately()?;
                Ok(ids_in::<T>(by_itself)?.into_iter().map(|(_, id)| id).collect::<Vec<_>>())
            });
            let ids = mounted.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(T::all().zip(ids).collect())
        }),
    }
}

fn ids_in<T: Tracepoint>(tracefs: &Path) -> Result<Vec<(T, Option<u64>)>, Unavailable> {
    let id = |tracepoint: T| -> io::Result<u64> {
        let text = procfs::read(tracefs.join("events").join(tracepoint.path()).join("id"))?;
        text.trim().parse().map_err(io::Error::other)
    };
    id(T::NEEDED).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unavailable::new(format!("this kernel has no {}", T::GROUP)),
        io::ErrorKind::PermissionDenied => unreadable(),
        _ => Unavailable::new(error.to_string()),
    })?;
    Ok(T::all().map(|tracepoint| (tracepoint, id(tracepoint).ok())).collect())
}

/// Says that tracefs is mounted, but for others.
fn unreadable() -> Unavailable {
    Unavailable::new(format!("{} is not for this user to read", MOUNT_POINTS[0]))
        .advising(how_to_get_tracefs(READ, "-o remount,"))
}

/// Says what to do if tracefs needs a privilege: root can give it to a group of users.
fn how_to_get_tracefs(privilege: Privilege, options: &str) -> String {
    let rights = Rights::read();
    let own_step = rights.how_to_get(privilege);
    if !rights.is_users() {
        return own_step;
    }
    let (mount, group) = (MOUNT_POINTS[0], rustix::process::getegid().as_raw());
    let and_count = if everybody_may_count() || rights.has(COUNT) {
        String::new()
    } else {
        format!(" and `{LESS_PARANOID}`")
    };
    format!("{own_step}, or have root do `mount {options}mode=750,gid={group} {mount}`{and_count}")
}

/// Mounts tracefs where only the calling thread sees it. The mount goes when the thread ends, and
/// the host keeps none.
fn mount_privately() -> Result<(), Unavailable> {
    // SAFETY: only a copy of the mounts is unshared, and no table of descriptors.
    let mounted = unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
        .and_then(|()| {
            mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        })
        .and_then(|()| mount("tracefs", MOUNT_POINTS[0], "tracefs", MountFlags::empty(), None));
    mounted.map_err(|errno| {
        let error = io::Error::from(errno);
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Unavailable::new(format!(
                "tracefs is not mounted, and mounting it needs {} ({error})",
                MOUNT.capability
            ))
            .advising(how_to_get_tracefs(MOUNT, "-t tracefs tracefs -o ")),
            Some(libc::ENOENT | libc::ENODEV) => Unavailable::new(format!(
                "this kernel has no tracefs ({error}; CONFIG_FTRACE): no tracepoints to count by"
            )),
            _ => Unavailable::new(format!("tracefs could not be mounted: {error}")),
        }
    })
}
