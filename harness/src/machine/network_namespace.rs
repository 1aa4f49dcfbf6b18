//! Makes a network of its own for a trial: without conntrack, without TIME_WAIT of the trial
//! before, with its own counters.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::{io, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::link::bring_up;
use super::rights::{NAMESPACE, Rights};
use super::unavailable::Unavailable;

/// A network namespace with `lo` up, which lives as long as this handle or a process in it.
#[derive(Clone, Debug)]
pub struct NetworkNamespace(Arc<File>);

impl NetworkNamespace {
    /// Makes a namespace, on a thread of its own, so that the calling thread stays in its network.
    pub fn create() -> Result<Self, Unavailable> {
        let made = on_helper_thread(|| {
            // SAFETY: unshare takes no pointers, and moves only this thread, which ends with this
            // closure.
            checked(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            bring_up("lo")?;
            File::open("/proc/thread-self/ns/net")
        });
        made.map(|file| Self(Arc::new(file))).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => {
                Unavailable::new(format!("a network namespace needs {}", NAMESPACE.capability))
                    .advising(Rights::read().how_to_get(NAMESPACE))
            }
            Some(libc::EINVAL) => {
                Unavailable::new("this kernel has no network namespaces (CONFIG_NET_NS)")
                    .advising("boot one that has")
            }
            Some(libc::ENOSPC) => Unavailable::new("no more network namespaces are allowed")
                .advising("`sysctl -w user.max_net_namespaces=1000`, as root"),
            _ => Unavailable::new(format!("a network namespace could not be made: {error}")),
        })
    }

    /// Lets the command's process start inside of this namespace.
    pub fn apply(&self, command: &mut Command) {
        let namespace = Arc::clone(&self.0);
        // SAFETY: between fork and exec only setns(2) is called, which is a plain system call, and
        // an io::Error is made from its number, which does not allocate: both are
        // async-signal-safe. The closure owns the file.
        unsafe { command.pre_exec(move || enter(&namespace)) };
    }

    /// Runs `work` on a thread inside of this namespace and returns what it returned.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_helper_thread(|| {
            enter(&self.0)?;
            work()
        })
    }
}

impl AsRawFd for NetworkNamespace {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn on_helper_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn enter(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn checked(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn namespace() -> Option<NetworkNamespace> {
        NetworkNamespace::create().inspect_err(|why| eprintln!("skipped: {why}")).ok()
    }

    #[test]
    fn a_port_of_the_host_is_free_inside_and_loopback_works() {
        let Some(namespace) = namespace() else { return };
        let host = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = host.local_addr().unwrap();
        assert_eq!(TcpListener::bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        namespace
            .within(|| {
                let inside = TcpListener::bind(address)?;
                TcpStream::connect(address)?;
                inside.accept().map(drop)
            })
            .unwrap();
        // This thread has stayed outside.
        assert_eq!(TcpListener::bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_command_starts_inside() {
        let Some(namespace) = namespace() else { return };
        let link = |command: &mut Command| {
            let output = command.arg("/proc/self/ns/net").output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let mut child = Command::new("readlink");
        namespace.apply(&mut child);
        let inside = link(&mut child);
        let outside = link(&mut Command::new("readlink"));
        let expected = namespace
            .within(|| std::fs::read_link("/proc/thread-self/ns/net"))
            .unwrap()
            .display()
            .to_string();
        assert_eq!(inside, expected);
        assert_ne!(inside, outside);
    }
}
