//! Reads what TCP lost or refused, and who listens on a port, in the network namespace of a
//! process.

use std::io;

use super::procfs;

/// TCP's counters in one network namespace, since it was made or between two readings.
#[derive(Clone, Copy, Debug)]
pub struct NetworkReading {
    /// Segments sent, without those that were sent again (`Tcp: OutSegs`, RFC 4022).
    pub sent_segments: u64,
    /// Segments sent again (`Tcp: RetransSegs`).
    pub retransmitted_segments: u64,
    /// Connections dropped in a listener for any reason, a full accept queue among them (`TcpExt:
    /// ListenDrops`).
    pub listen_drops: u64,
}

impl NetworkReading {
    /// Reads the namespace of the calling thread.
    pub fn read() -> io::Result<Self> {
        let file = |name: &str| procfs::read(format!("/proc/thread-self/net/{name}"));
        let snmp = file("snmp")?;
        Ok(Self {
            sent_segments: tcp_counter(&snmp, "Tcp:", "OutSegs")?,
            retransmitted_segments: tcp_counter(&snmp, "Tcp:", "RetransSegs")?,
            listen_drops: tcp_counter(&file("netstat")?, "TcpExt:", "ListenDrops")?,
        })
    }

    /// Returns what happened in this namespace or another.
    pub fn and(&self, other: &Self) -> Self {
        Self {
            sent_segments: self.sent_segments + other.sent_segments,
            retransmitted_segments: self.retransmitted_segments + other.retransmitted_segments,
            listen_drops: self.listen_drops + other.listen_drops,
        }
    }

    /// Returns what happened since an earlier reading of the same namespace.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            sent_segments: self.sent_segments - earlier.sent_segments,
            retransmitted_segments: self.retransmitted_segments - earlier.retransmitted_segments,
            listen_drops: self.listen_drops - earlier.listen_drops,
        }
    }
}

/// Finds in the text of a `sockstat` file the pages that TCP has reserved for data in queues. They
/// are of the whole machine: the kernel keeps this number per protocol, not per namespace
/// (net/ipv4/proc.c, `proto_memory_allocated`).
pub fn tcp_memory_pages(sockstat: &str) -> io::Result<u64> {
    let line = procfs::text(sockstat, "TCP").ok_or_else(|| procfs::missing("TCP"))?;
    let mut words = line.split_whitespace().skip_while(|&word| word != "mem");
    words.nth(1).and_then(|pages| pages.parse().ok()).ok_or_else(|| procfs::missing("mem"))
}

/// The state of a server's port in the kernel's list of TCP sockets (proc_pid_net(5), `tcp` and
/// `tcp6`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortReading {
    /// Whether there is a listener.
    pub is_listening: bool,
    /// Connections to it that the server has accepted and not closed.
    pub accepted: u64,
}

impl PortReading {
    /// Reads the namespace of the process.
    pub fn read(pid: u32, port: u16) -> io::Result<Self> {
        let file = |name: &str| procfs::read(format!("/proc/{pid}/net/{name}"));
        // A kernel without IPv6 has one list.
        Ok(Self::parse(&(file("tcp")? + &file("tcp6").unwrap_or_default()), port))
    }

    /// Subtracts the queues of the listeners, because a connection in the list may still wait
    /// there. A listener's line has the length of its queue in place of the unread bytes.
    fn parse(list: &str, port: u16) -> Self {
        let port = format!(":{port:04X}");
        let (mut is_listening, mut connected, mut queued) = (false, 0, 0);
        for line in list.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let &[_, local, _, state, queues, ..] = fields.as_slice() else { continue };
            match state {
                _ if !local.ends_with(&port) => {}
                // ESTABLISHED, and CLOSE_WAIT: the client has closed, the server has not
                // (net/tcp_states.h).
                "01" | "08" => connected += 1,
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
        Self { is_listening, accepted: u64::saturating_sub(connected, queued) }
    }
}

/// Finds a value in `snmp` or `netstat`: a line of names, then a line of values, both under the
/// same prefix.
fn tcp_counter(file: &str, prefix: &str, name: &str) -> io::Result<u64> {
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

    #[test]
    fn parses_lines_of_names_and_values() {
        let netstat =
            "TcpExt: A ListenOverflows B\nTcpExt: 1 22 3\nIpExt: ListenOverflows\nIpExt: 9\n";
        assert_eq!(tcp_counter(netstat, "TcpExt:", "ListenOverflows").unwrap(), 22);
        assert_eq!(
            tcp_counter(netstat, "TcpExt:", "C").unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let sockstat =
            "sockets: used 9\nTCP: inuse 5 orphan 0 tw 7 alloc 6 mem 2\nUDP: inuse 1 mem 0\n";
        assert_eq!(tcp_memory_pages(sockstat).unwrap(), 2);
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
    fn a_namespace_is_read_on_a_thread_in_it() {
        let namespace = match NetworkNamespace::create() {
            Ok(namespace) => namespace,
            Err(why) => return eprintln!("skipped: {why}"),
        };
        let before = namespace.within(NetworkReading::read).unwrap();
        let pairs = namespace.within(|| {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let client = TcpStream::connect(listener.local_addr()?)?;
            Ok((client, listener.accept()?.0, listener))
        });
        let during = namespace.within(NetworkReading::read).unwrap();
        drop(pairs.unwrap());
        let since = during.since(&before);
        // One connection was made and nothing was sent: SYN, SYN+ACK and ACK.
        assert_eq!((since.sent_segments, since.retransmitted_segments), (3, 0));
        assert_eq!(since.listen_drops, 0);
    }
}
