//! Settings of a network device of the calling thread's namespace (netdevice(7)).

use std::os::fd::AsRawFd;
use std::{fmt, io, mem};

use socket2::{Domain, Socket, Type};

/// Requests of SIOCETHTOOL that read one setting (linux/ethtool.h).
const ETHTOOL_GTSO: u32 = 0x1e;
const ETHTOOL_GGSO: u32 = 0x23;
const ETHTOOL_GGRO: u32 = 0x2b;

/// Packets that a device takes or hands over in larger pieces than its MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// The kernel divides what TCP sends right before the device (generic segmentation).
    pub gso: bool,
    /// The device divides it (TCP segmentation).
    pub tso: bool,
    /// The kernel joins what comes in (generic receive offload).
    pub gro: bool,
}

impl Offloads {
    /// Reads those of a device.
    pub fn read(device: &str) -> io::Result<Self> {
        let read = |command| ethtool_value(device, command).map(|value| value != 0);
        Ok(Self { gso: read(ETHTOOL_GGSO)?, tso: read(ETHTOOL_GTSO)?, gro: read(ETHTOOL_GGRO)? })
    }
}

impl fmt::Display for Offloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [(self.gso, "gso"), (self.tso, "tso"), (self.gro, "gro")];
        let on: Vec<&str> = all.iter().filter(|(is_on, _)| *is_on).map(|(_, name)| *name).collect();
        if on.is_empty() { f.write_str("none") } else { f.write_str(&on.join(" ")) }
    }
}

/// Brings a device up, which `lo` of a new namespace is not.
pub fn bring_up(device: &str) -> io::Result<()> {
    let mut request = request(device)?;
    ioctl(libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the request above has written the flags.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    ioctl(libc::SIOCSIFFLAGS, &mut request)
}

/// Reads the bytes of the largest packet.
pub fn mtu(device: &str) -> io::Result<u32> {
    let mut request = request(device)?;
    ioctl(libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: the request has written the MTU.
    Ok(unsafe { request.ifr_ifru.ifru_mtu }.cast_unsigned())
}

/// Sets it.
pub fn set_mtu(device: &str, bytes: u32) -> io::Result<()> {
    let mut request = request(device)?;
    request.ifr_ifru.ifru_mtu = bytes.cast_signed();
    ioctl(libc::SIOCSIFMTU, &mut request)
}

fn ethtool_value(device: &str, command: u32) -> io::Result<u32> {
    // struct ethtool_value: the command, and the value that the kernel writes.
    let mut value = [command, 0];
    let mut request = request(device)?;
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    ioctl(libc::SIOCETHTOOL, &mut request)?;
    Ok(value[1])
}

/// Returns a request for a device, with nothing else in it.
fn request(device: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is a plain C struct of integers, bytes and a pointer, for which zero is valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte ends the name.
    if device.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn ioctl(code: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: these codes read and write one ifreq, which `request` is; one of SIOCETHTOOL has a
    // pointer to eight bytes that its caller keeps until this returns.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), code, request) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_settings_and_what_is_no_device_has_none() {
        assert!(mtu("lo").expect("an MTU") >= 1500);
        Offloads::read("lo").expect("offloads");
        assert!(mtu("none0").is_err() && mtu("a-name-that-is-too-long").is_err());
        let offloads = Offloads { gso: true, tso: false, gro: true };
        assert_eq!(offloads.to_string(), "gso gro");
        assert_eq!(Offloads { gso: false, tso: false, gro: false }.to_string(), "none");
    }
}
