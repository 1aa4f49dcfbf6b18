//! The network between a server and its load: the loopback of one namespace, a pair of virtual
//! Ethernet devices between two, or a Unix socket.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;

use ringmark::address::Address;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::link::{Offloads, mtu, set_mtu};
use super::network::NetworkReading;
use super::network_namespace::NetworkNamespace;
use super::unavailable::Unavailable;

const LOOPBACK: &str = "lo";

/// Names of the devices, and the server's address, on a pair of Ethernet devices.
const SERVER_DEVICE: &str = "server0";
const LOAD_DEVICE: &str = "load0";
const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const LOAD_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// The setting of a namespace that chooses the congestion control of its connections, and those
/// that the kernel has.
const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const CONGESTIONS: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// The kind of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// `lo` of a namespace that both sides are in.
    #[default]
    Loopback,
    /// The same over IPv6.
    Loopback6,
    /// A pair of devices (veth(4)) between the namespaces of both sides.
    Veth,
    /// A Unix socket, which has no network.
    Unix,
}

/// A path as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathPlan {
    pub kind: PathKind,
    /// Bytes of the largest packet; none: the device's own.
    pub mtu: Option<u32>,
    /// The congestion control; none: the kernel's own.
    pub congestion: Option<String>,
}

/// A path that is there, with a namespace for each side. On loopback they are the same.
#[derive(Clone, Debug)]
pub struct NetworkPath {
    pub server: NetworkNamespace,
    pub load: NetworkNamespace,
    place: ServerPlace,
    pub facts: PathFacts,
}

/// The place at which a server is to be found on a path.
#[derive(Clone, Debug)]
enum ServerPlace {
    Ip(IpAddr),
    /// A folder for its socket, which goes with the path.
    Folder(Arc<TempDir>),
}

/// The settings of a path that are in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathFacts {
    pub kind: PathKind,
    /// Those of its device, if it has one.
    pub mtu: Option<u32>,
    pub congestion: String,
    pub offloads: String,
}

impl PathKind {
    /// Whether packets go through a device that can be polled (NAPI).
    pub fn has_device(self) -> bool {
        self == Self::Veth
    }

    /// Returns the name in a matrix and in `trials.csv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Loopback6 => "loopback6",
            Self::Veth => "veth",
            Self::Unix => "unix",
        }
    }
}

impl PathPlan {
    /// Whether nothing in particular is asked for: the host's network would do.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl NetworkPath {
    /// Makes the namespaces, and in them what was asked for.
    ///
    /// # Errors
    /// No namespace can be made here; the kernel refuses a setting; or a program is missing.
    pub fn create(plan: &PathPlan) -> Result<Self, Unavailable> {
        let server = NetworkNamespace::create()?;
        let (load, device, address) = match plan.kind {
            PathKind::Unix => return Self::create_unix(server),
            PathKind::Loopback => (server.clone(), LOOPBACK, Ipv4Addr::LOCALHOST.into()),
            PathKind::Loopback6 => (server.clone(), LOOPBACK, Ipv6Addr::LOCALHOST.into()),
            PathKind::Veth => {
                let load = NetworkNamespace::create()?;
                pair(&server, &load)?;
                (load, SERVER_DEVICE, IpAddr::from(SERVER_ADDRESS))
            }
        };
        let mut ends = vec![(&server, device)];
        if plan.kind == PathKind::Veth {
            ends.push((&load, LOAD_DEVICE));
        }
        for (namespace, device) in ends {
            if let Some(bytes) = plan.mtu {
                namespace
                    .within(|| set_mtu(device, bytes))
                    .map_err(|error| refused_mtu(device, bytes, &error))?;
            }
            if let Some(name) = &plan.congestion {
                set_congestion(namespace, name)?;
            }
        }
        let facts = server.within(|| {
            Ok(PathFacts {
                kind: plan.kind,
                mtu: Some(mtu(device)?),
                congestion: fs::read_to_string(CONGESTION)?.trim().to_owned(),
                offloads: Offloads::read(device)?.to_string(),
            })
        });
        let facts = facts.map_err(|error| {
            Unavailable::new(format!("the settings of {device} cannot be read: {error}"))
        })?;
        Ok(Self { server, load, place: ServerPlace::Ip(address), facts })
    }

    fn create_unix(server: NetworkNamespace) -> Result<Self, Unavailable> {
        let folder = TempDir::with_prefix("ringmark-").map_err(|error| {
            Unavailable::new(format!("path = \"unix\" needs a temporary folder: {error}"))
                .advising("see TMPDIR")
        })?;
        let place = ServerPlace::Folder(Arc::new(folder));
        let facts = PathFacts {
            kind: PathKind::Unix,
            mtu: None,
            congestion: String::new(),
            offloads: String::new(),
        };
        Ok(Self { load: server.clone(), server, place, facts })
    }

    /// Returns where a server listens on it, from this port on if it has ports.
    pub fn address(&self, port: u16) -> Address {
        match &self.place {
            ServerPlace::Ip(address) => SocketAddr::new(*address, port).into(),
            ServerPlace::Folder(folder) => Address::Unix(folder.path().join("server")),
        }
    }

    /// Reads what TCP has counted on both sides.
    pub fn reading(&self) -> io::Result<NetworkReading> {
        let server = self.server.within(NetworkReading::read)?;
        match self.facts.kind {
            PathKind::Loopback | PathKind::Loopback6 | PathKind::Unix => Ok(server),
            PathKind::Veth => Ok(server.and(&self.load.within(NetworkReading::read)?)),
        }
    }
}

fn refused_mtu(device: &str, bytes: u32, error: &io::Error) -> Unavailable {
    Unavailable::new(format!("mtu = {bytes}: {device} refuses it: {error}")).advising(
        "IPv4 needs 68 bytes at least, IPv6 1280, and a device has a most; see `ip -d link`",
    )
}

fn set_congestion(namespace: &NetworkNamespace, name: &str) -> Result<(), Unavailable> {
    namespace.within(|| fs::write(CONGESTION, name)).map_err(|error| {
        let known = fs::read_to_string(CONGESTIONS).unwrap_or_default();
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => format!(
                "a namespace may use those of net.ipv4.tcp_allowed_congestion_control, and reno; \
                 `sysctl` can add {name} there"
            ),
            _ => format!("`modprobe tcp_{name}`, if it is a module"),
        };
        Unavailable::new(format!(
            "congestion = \"{name}\": this kernel has {}: {error}",
            known.split_whitespace().collect::<Vec<_>>().join(", ")
        ))
        .advising(advice)
    })
}

/// Makes a pair of devices, one in each namespace, with their addresses.
fn pair(server: &NetworkNamespace, load: &NetworkNamespace) -> Result<(), Unavailable> {
    // `ip` opens a namespace by a path.
    let there = format!("/proc/{}/fd/{}", std::process::id(), load.as_raw_fd());
    let add = format!("link add {SERVER_DEVICE} type veth peer name {LOAD_DEVICE} netns {there}");
    ip(server, &add)?;
    for (namespace, device, address) in
        [(server, SERVER_DEVICE, SERVER_ADDRESS), (load, LOAD_DEVICE, LOAD_ADDRESS)]
    {
        ip(namespace, &format!("address add {address}/24 dev {device}"))?;
        ip(namespace, &format!("link set {device} up"))?;
    }
    Ok(())
}

/// Runs `ip` with these words in a namespace.
fn ip(namespace: &NetworkNamespace, words: &str) -> Result<(), Unavailable> {
    let run = || Command::new("ip").args(words.split(' ')).output();
    let output = namespace.within(run).map_err(|error| {
        Unavailable::new(format!("path = \"veth\" needs the program `ip`: {error}"))
            .advising("install iproute2")
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| {
        Unavailable::new(format!("path = \"veth\": `ip {words}`: {}", said.trim()))
            .advising("the kernel needs CONFIG_VETH")
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn created(plan: &PathPlan) -> Option<NetworkPath> {
        match NetworkPath::create(plan) {
            Err(why) if why.reason.contains("network namespace") => {
                eprintln!("skipped: {why}");
                None
            }
            path => Some(path.unwrap()),
        }
    }

    #[test]
    fn what_is_asked_for_is_in_force() {
        let Some(own) = created(&PathPlan::default()) else { return };
        assert_eq!((own.facts.kind, own.facts.mtu), (PathKind::Loopback, Some(65_536)));
        let plan = PathPlan { mtu: Some(1500), congestion: Some("reno".to_owned()), ..own_plan() };
        let asked = created(&plan).unwrap();
        assert_eq!((asked.facts.mtu, asked.facts.congestion.as_str()), (Some(1500), "reno"));
        assert_eq!(mtu("lo").unwrap(), 65_536, "the host's is as it was");
    }

    fn own_plan() -> PathPlan {
        PathPlan::default()
    }

    #[test]
    fn loopback_has_ipv6() {
        let plan = PathPlan { kind: PathKind::Loopback6, ..own_plan() };
        let Some(path) = created(&plan) else { return };
        let listener = path.server.within(|| TcpListener::bind(path.address(0).ip().unwrap()));
        match listener {
            Ok(listener) => assert!(listener.local_addr().unwrap().is_ipv6()),
            Err(why) => eprintln!("skipped: this machine has no IPv6: {why}"),
        }
    }

    #[test]
    fn a_pair_of_devices_leads_from_one_namespace_to_the_other() {
        let plan = PathPlan { kind: PathKind::Veth, mtu: Some(1400), congestion: None };
        let path = match NetworkPath::create(&plan) {
            Ok(path) => path,
            Err(why) => return eprintln!("skipped: {why}"),
        };
        assert_eq!(path.facts.mtu, Some(1400));
        let listener =
            path.server.within(|| TcpListener::bind(path.address(0).ip().unwrap())).unwrap();
        let at = listener.local_addr().unwrap();
        let client = path.load.within(|| TcpStream::connect(at)).unwrap();
        let (_accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(peer.ip(), IpAddr::from(LOAD_ADDRESS));
    }

    #[test]
    fn what_the_kernel_refuses_is_named() {
        if created(&PathPlan::default()).is_none() {
            return;
        }
        let refused = |plan: PathPlan| NetworkPath::create(&plan).unwrap_err().to_string();
        let mtu = refused(PathPlan { mtu: Some(u32::MAX), ..own_plan() });
        assert!(mtu.starts_with("mtu = 4294967295: lo refuses it: "), "{mtu}");
        let congestion = refused(PathPlan { congestion: Some("pigeon".to_owned()), ..own_plan() });
        assert!(
            congestion.starts_with("congestion = \"pigeon\": this kernel has "),
            "{congestion}"
        );
        assert!(congestion.contains("cubic") && congestion.contains("modprobe"), "{congestion}");
    }
}
