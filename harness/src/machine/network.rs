//! What TCP lost or refused, and how many sockets there are, in the network namespace of a process.

use std::io;

use super::procfs;

/// TCP's counters and sockets in one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkReading {
    /// Segments sent since the namespace was made, those that were sent again not counted (`Tcp:
    /// OutSegs`, RFC 4022).
    pub sent_segments: u64,
    /// Segments sent again (`Tcp: RetransSegs`).
    pub retransmitted_segments: u64,
    /// Connections dropped because an accept queue was full (`TcpExt: ListenOverflows`).
    pub listen_overflows: u64,
    /// Connections dropped in a listener for any reason, overflows included (`TcpExt:
    /// ListenDrops`).
    pub listen_drops: u64,
    /// TCP sockets now.
    pub sockets: SocketReading,
}

/// The TCP line of `sockstat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketReading {
    /// Sockets in use in the namespace, TIME_WAIT not among them.
    pub in_use: u64,
    /// Sockets in TIME_WAIT in the namespace.
    pub time_wait: u64,
    /// Pages that TCP has reserved for data in queues. This one is of the whole machine: the kernel
    /// keeps it per protocol, not per namespace (net/ipv4/proc.c, `proto_memory_allocated`).
    pub memory_pages: u64,
}

/// What happened between two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkDifference {
    /// Segments sent, those that were sent again not counted.
    pub sent_segments: u64,
    /// Segments sent again.
    pub retransmitted_segments: u64,
    /// Connections dropped because an accept queue was full.
    pub listen_overflows: u64,
    /// Connections dropped in a listener for any reason.
    pub listen_drops: u64,
}

impl NetworkReading {
    /// Reads the namespace that the process is in.
    pub fn read(pid: u32) -> io::Result<Self> {
        let file = |name: &str| procfs::read(format!("/proc/{pid}/net/{name}"));
        let (snmp, netstat) = (file("snmp")?, file("netstat")?);
        Ok(Self {
            sent_segments: counter(&snmp, "Tcp:", "OutSegs")?,
            retransmitted_segments: counter(&snmp, "Tcp:", "RetransSegs")?,
            listen_overflows: counter(&netstat, "TcpExt:", "ListenOverflows")?,
            listen_drops: counter(&netstat, "TcpExt:", "ListenDrops")?,
            sockets: SocketReading::parse(&file("sockstat")?)?,
        })
    }

    /// What happened since an earlier reading of the same namespace.
    pub fn since(&self, earlier: &Self) -> NetworkDifference {
        NetworkDifference {
            sent_segments: self.sent_segments - earlier.sent_segments,
            retransmitted_segments: self.retransmitted_segments - earlier.retransmitted_segments,
            listen_overflows: self.listen_overflows - earlier.listen_overflows,
            listen_drops: self.listen_drops - earlier.listen_drops,
        }
    }
}

impl SocketReading {
    /// From the text of a `sockstat` file.
    pub fn parse(sockstat: &str) -> io::Result<Self> {
        let line = procfs::text(sockstat, "TCP").ok_or_else(|| procfs::missing("TCP"))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |name: &str| {
            words
                .chunks_exact(2)
                .find_map(|pair| (pair[0] == name).then(|| pair[1].parse().ok())?)
                .ok_or_else(|| procfs::missing(name))
        };
        Ok(Self { in_use: value("inuse")?, time_wait: value("tw")?, memory_pages: value("mem")? })
    }
}

/// What the kernel's list of TCP sockets tells of a server's port (proc_pid_net(5), `tcp` and
/// `tcp6`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortReading {
    /// Whether there is a listener.
    pub is_listening: bool,
    /// Connections to it that were accepted and that the server has not closed.
    pub accepted: u64,
}

impl PortReading {
    /// Reads the namespace that the process is in.
    pub fn read(pid: u32, port: u16) -> io::Result<Self> {
        let file = |name: &str| procfs::read(format!("/proc/{pid}/net/{name}"));
        // A kernel without IPv6 has one list.
        Ok(Self::parse(&(file("tcp")? + &file("tcp6").unwrap_or_default()), port))
    }

    /// Of a connection in the list, the server has accepted it or it waits in its listener's queue,
    /// whose length stands where others have the bytes that were not read.
    fn parse(list: &str, port: u16) -> Self {
        let port = format!(":{port:04X}");
        let (mut is_listening, mut stand, mut queued) = (false, 0, 0);
        for line in list.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let &[_, local, _, state, queues, ..] = fields.as_slice() else { continue };
            match state {
                _ if !local.ends_with(&port) => {}
                // ESTABLISHED, and CLOSE_WAIT: the client has closed, the server has not
                // (net/tcp_states.h).
                "01" | "08" => stand += 1,
                "0A" => {
                    is_listening = true;
                    let length =
                        queues.split_once(':').map(|(_, length)| u64::from_str_radix(length, 16));
                    queued += length.and_then(Result::ok).unwrap_or_default();
                }
                _ => {}
            }
        }
        // Both are of slightly different moments.
        Self { is_listening, accepted: u64::saturating_sub(stand, queued) }
    }
}

/// A value of `snmp` and `netstat`: a line of names, then a line of values, both under the same
/// prefix.
fn counter(file: &str, prefix: &str, name: &str) -> io::Result<u64> {
    let mut lines =
        file.lines().filter_map(|line| line.strip_prefix(prefix)).map(str::split_whitespace);
    lines
        .next()
        .zip(lines.next())
        .and_then(|(names, values)| names.zip(values).find(|(found, _)| *found == name))
        .and_then(|(_, value)| value.parse().ok())
        .ok_or_else(|| procfs::missing(name))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::machine::network_namespace::NetworkNamespace;
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    #[test]
    fn parses_lines_of_names_and_values() {
        let netstat =
            "TcpExt: A ListenOverflows B\nTcpExt: 1 22 3\nIpExt: ListenOverflows\nIpExt: 9\n";
        assert_eq!(counter(netstat, "TcpExt:", "ListenOverflows").unwrap(), 22);
        assert_eq!(
            counter(netstat, "TcpExt:", "C").unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let sockstat =
            "sockets: used 9\nTCP: inuse 5 orphan 0 tw 7 alloc 6 mem 2\nUDP: inuse 1 mem 0\n";
        assert_eq!(
            SocketReading::parse(sockstat).unwrap(),
            SocketReading { in_use: 5, time_wait: 7, memory_pages: 2 }
        );
    }

    #[test]
    fn connections_are_counted_once_they_are_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let read = || PortReading::read(std::process::id(), address.port()).unwrap();
        let port = |accepted| PortReading { is_listening: true, accepted };
        assert_eq!(read(), port(0));
        let clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        assert_eq!(read(), port(0), "they stand, and wait to be accepted");
        let first = listener.accept().unwrap().0;
        assert_eq!(read(), port(1));
        let second = listener.accept().unwrap().0;
        assert_eq!(read(), port(2));
        drop(clients);
        assert_eq!(read(), port(2), "the server has not closed its ends");
        drop((first, second));
        // Port 1 is nobody's.
        assert_eq!(PortReading::read(std::process::id(), 1).unwrap(), PortReading::default());
    }

    #[test]
    fn a_namespace_is_read_through_a_process_in_it() {
        let namespace = match NetworkNamespace::create() {
            Ok(namespace) => namespace,
            Err(why) => return eprintln!("skipped: {why}"),
        };
        let mut command = Command::new("cat");
        namespace.apply(command.stdin(Stdio::piped()).stdout(Stdio::null()));
        let mut resident = command.spawn().unwrap();
        let before = NetworkReading::read(resident.id()).unwrap();
        let pairs = namespace.within(|| {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let client = TcpStream::connect(listener.local_addr()?)?;
            Ok((client, listener.accept()?.0, listener))
        });
        let during = NetworkReading::read(resident.id()).unwrap();
        drop(resident.stdin.take());
        resident.wait().unwrap();
        drop(pairs.unwrap());
        assert_eq!(before.sockets.in_use, 0);
        assert_eq!(during.sockets.in_use, 3);
        let since = during.since(&before);
        // One connection was made and nothing was sent: SYN, SYN+ACK and ACK.
        assert_eq!((since.sent_segments, since.retransmitted_segments), (3, 0));
        assert_eq!((since.listen_overflows, since.listen_drops), (0, 0));
    }
}
