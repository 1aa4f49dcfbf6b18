//! The addresses of a server: with consecutive ports, dealt to its workers.

use crate::address::Address;
use crate::contract::{Knob, Knobs};
use crate::error;
use crate::listener;
use crate::process;
use crate::socket;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

/// The name of the knob that says how workers share ports.
pub const LISTENERS: &str = "listeners";

/// Its value if they do not.
const DEALT: &str = "dealt";

const fn listeners(ways: &'static [&'static str]) -> Knob {
    Knob::word(
        LISTENERS,
        ways,
        "how workers share the ports: each has some to itself (dealt); or all listen on every \
         port, each by a socket of its own, over which the kernel spreads connections by their \
         addresses (reuseport), or by one socket, of which a connection wakes one worker \
         (exclusive) or all that wait (shared)",
    )
}

/// The knob of epoll, which waits exclusively if it is asked to (EPOLLEXCLUSIVE, Linux 4.5).
pub const LISTENERS_OF_EPOLL: Knob = listeners(&[DEALT, "reuseport", "exclusive", "shared"]);

/// The knob of io_uring, whose accept always waits exclusively.
pub const LISTENERS_OF_URING: Knob = listeners(&[DEALT, "reuseport", "exclusive"]);

/// The knob of poll and select, which never do.
pub const LISTENERS_OF_POLL: Knob = listeners(&[DEALT, "reuseport", "shared"]);

/// How the workers of a server share its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSharing {
    /// Each has some to itself.
    Dealt,
    /// Each has a socket on every port.
    ReusePort,
    /// All have the same socket on every port.
    OneSocket,
}

impl PortSharing {
    /// Reads it from the knobs of a backend; one without such a knob deals its ports.
    pub fn of(knobs: &Knobs) -> Self {
        if knobs.has(LISTENERS) { Self::named(knobs.word(LISTENERS)) } else { Self::Dealt }
    }

    /// Returns the one that a value of the knob stands for.
    pub fn named(way: &str) -> Self {
        match way {
            "reuseport" => Self::ReusePort,
            "exclusive" | "shared" => Self::OneSocket,
            _ => Self::Dealt,
        }
    }
}

/// Whether a connection is to wake one of the workers that share its listener.
pub fn wakes_one(knobs: &Knobs) -> bool {
    knobs.word(LISTENERS) == "exclusive"
}

/// Fails if anybody listens there: listeners with SO_REUSEPORT would take a part of another
/// server's connections, of the same user, without a word.
pub fn claim(addresses: &[SocketAddr]) -> io::Result<()> {
    let claim = |address: SocketAddr| {
        let socket = socket::tcp_socket(address)?;
        // As the listeners have it: connections that closed lately are in nobody's way.
        socket::set_reuse_address(socket.as_raw_fd())?;
        socket::bind(socket.as_raw_fd(), address)
    };
    addresses.iter().try_for_each(|address| {
        claim(*address).map_err(|error| listener::explain(&Address::Ip(*address), &error))
    })
}

/// The consecutive ports of a server, as addresses.
///
/// # Errors
/// When they go beyond the last port there is.
pub fn consecutive(first: SocketAddr, ports: u16) -> io::Result<Vec<SocketAddr>> {
    let last = first.port().checked_add(ports - 1).ok_or_else(|| {
        io::Error::other(format!("--listen {first} with --ports {ports} goes beyond port 65535"))
    })?;
    Ok((first.port()..=last).map(|port| at(first, port)).collect())
}

/// Deals addresses to workers in turn.
pub fn deal(addresses: &[Address], workers: u16) -> Vec<Vec<Address>> {
    let workers = usize::from(workers);
    (0..workers)
        .map(|worker| addresses.iter().skip(worker).step_by(workers).cloned().collect())
        .collect()
}

/// The same address, flow and scope with another port.
fn at(address: SocketAddr, port: u16) -> SocketAddr {
    let mut address = address;
    address.set_port(port);
    address
}

/// Consecutive ports that were free, held until this is dropped: listeners may be opened on them
/// meanwhile, and nobody else is given them.
///
/// A socket that is bound and does not listen holds each. It is bound without SO_REUSEADDR, so that
/// it gets no port that another server holds in this way, and has it from then on, which is what
/// lets a listener that has it too be bound beside it (socket(7)). A thread with a file table of
/// its own holds the sockets, so that no worker has copies of them.
pub struct Reserved {
    /// The first of them.
    pub first: SocketAddr,
    release: Option<Sender<()>>,
    holder: Option<JoinHandle<()>>,
}

impl Reserved {
    /// Finds `count` ports of an address.
    pub fn find(address: SocketAddr, count: u16) -> io::Result<Self> {
        let (release, released) = mpsc::channel();
        let (sender, found) = mpsc::channel();
        let hold = move || hold(address, count, &sender, &released);
        let holder = thread::Builder::new().name("ports".to_owned()).spawn(hold);
        let holder = holder.map_err(|error| io::Error::other(error::of_thread(&error)))?;
        let first = found
            .recv()
            .map_err(|_| io::Error::other("the search for free ports ended without a word"))??;
        Ok(Self { first, release: Some(release), holder: Some(holder) })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.release = None;
        if let Some(holder) = self.holder.take() {
            // It can only have panicked, with a message of its own.
            let _ = holder.join();
        }
    }
}

/// Finds the ports, says what came of it, and holds them until they are released.
fn hold(
    address: SocketAddr,
    count: u16,
    found: &Sender<io::Result<SocketAddr>>,
    released: &Receiver<()>,
) {
    // If it is refused, all workers share one table, and have no copies.
    let _ = process::unshare_files();
    match search(address, count) {
        Ok((first, _held)) => {
            // The sender is dropped without a message.
            if found.send(Ok(first)).is_ok() {
                let _ = released.recv();
            }
        }
        Err(error) => drop(found.send(Err(error))),
    }
}

/// The lowest port that needs no privilege by default.
const LOWEST: u16 = 1024;

/// The first range of free ports from one that the kernel chooses, upwards and then from [`LOWEST`]
/// on: each port is tried twice at most, so that the search ends, and what it does not find is not
/// there.
fn search(address: SocketAddr, count: u16) -> io::Result<(SocketAddr, VecDeque<OwnedFd>)> {
    let explain = |error| listener::explain(&address.into(), &error);
    let none = || {
        io::Error::other(format!(
            "listen on {address}: no {count} consecutive ports are free from {LOWEST} to 65535; \
             give fewer --ports or --workers, or a first port"
        ))
    };
    if count > u16::MAX - LOWEST + 1 {
        return Err(none());
    }
    let chosen = bind_alone(at(address, 0)).map_err(explain)?;
    let chosen = local_port(chosen).map_err(explain)?;
    let passes = [chosen..=u16::MAX, LOWEST..=u16::MAX];
    for pass in passes {
        let mut held = VecDeque::new();
        for port in pass {
            match bind_alone(at(address, port)) {
                Ok(socket) => held.push_back(socket),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => held.clear(),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => held.clear(),
                Err(error) => return Err(explain(error)),
            }
            if held.len() == usize::from(count) {
                return Ok((at(address, port - (count - 1)), held));
            }
        }
    }
    Err(none())
}

/// A socket that has a port to itself for a moment, and then lets listeners be opened there.
fn bind_alone(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket::tcp_socket(address)?;
    socket::bind(socket.as_raw_fd(), address)?;
    socket::set_reuse_address(socket.as_raw_fd())?;
    Ok(socket)
}

fn local_port(socket: OwnedFd) -> io::Result<u16> {
    std::net::TcpListener::from(socket).local_addr().map(|address| address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Listener;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn ports_are_dealt_in_turn() {
        let addresses = consecutive(loopback(65530), 6).expect("they fit");
        let addresses: Vec<Address> = addresses.into_iter().map(Address::from).collect();
        let dealt = deal(&addresses, 2);
        let ports = |index: usize| {
            dealt[index].iter().filter_map(Address::ip).map(|at| at.port()).collect::<Vec<_>>()
        };
        assert_eq!([ports(0), ports(1)], [vec![65530, 65532, 65534], vec![65531, 65533, 65535]]);
        assert!(consecutive(loopback(65530), 7).is_err());
    }

    #[test]
    fn reserved_ports_take_a_listener_and_nobody_else() {
        let one = Reserved::find(loopback(0), 20).expect("free ports");
        let other = Reserved::find(loopback(0), 20).expect("more free ports");
        let ports = |reserved: &Reserved| consecutive(reserved.first, 20).expect("they fit");
        assert!(
            ports(&one).iter().all(|address| !ports(&other).contains(address)),
            "both have the same ports"
        );
        for address in ports(&one) {
            bind_alone(address).expect_err("it is held");
        }
        let open = |address: SocketAddr| Listener::open(&address.into()).expect("a listener");
        let listeners: Vec<Listener> = ports(&one).into_iter().map(open).collect();
        drop(one);
        drop(listeners);
        let again = open(ports(&other)[0]);
        drop(other);
        drop(again);
    }

    #[test]
    fn a_range_that_is_not_there_is_refused_in_words() {
        let error = Reserved::find(loopback(0), 65_535)
            .err()
            .expect("some of them are not for us")
            .to_string();
        assert!(error.contains("65535 consecutive ports"), "{error}");
        let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = Reserved::find(foreign, 2).err().expect("nobody's address").to_string();
        assert!(error.contains("192.0.2.1:0") && error.contains("no interface"), "{error}");
    }
}
