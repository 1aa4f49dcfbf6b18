//! The server's address: every one that a name has, in every form that the resolver takes, or the
//! path of a Unix socket.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use ringmark::address::Address;

const EXAMPLE: &str = "write HOST:PORT, for example 127.0.0.1:8888, [::1]:8888 or \
                       [fe80::1%eth0]:8888, or unix:/run/echo.sock";

/// Returns the addresses of `HOST:PORT`, IPv4 first, otherwise in the resolver's order. An IPv6
/// literal stands in brackets and may have a scope: `[fe80::1%eth0]:8888`.
fn resolve(connect: &str) -> Result<Vec<SocketAddr>> {
    let no_address = || format!("--connect {connect}: no address; {EXAMPLE}");
    let (host, port) = connect.rsplit_once(':').with_context(no_address)?;
    let port: u16 = port.parse().ok().with_context(|| {
        format!("--connect {connect}: no address: `{port}` is no port, 1 to 65535; {EXAMPLE}")
    })?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ensure!(!host.is_empty(), "--connect {connect}: no address: no host; {EXAMPLE}");
    ensure!(port != 0, "--connect {connect}: port 0 cannot be connected to");
    let mut addresses = Vec::new();
    for address in (host, port).to_socket_addrs().with_context(no_address)? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.sort_by_key(SocketAddr::is_ipv6);
    ensure!(!addresses.is_empty(), no_address());
    Ok(addresses)
}

/// Returns the first address of `connect` at which something accepts connections. One that is alone
/// is not tried, so that a server sees no connection but those of the load.
pub fn first_that_answers(connect: &str, time: Duration) -> Result<Address> {
    if let Some(unix) = Address::of_unix(connect) {
        return unix.map_err(Error::msg).context("--connect");
    }
    let address = match resolve(connect)?[..] {
        [only] => only,
        ref several => try_each(connect, several, time)?,
    };
    Ok(address.into())
}

fn try_each(connect: &str, addresses: &[SocketAddr], time: Duration) -> Result<SocketAddr> {
    let mut refusals = Vec::new();
    for &address in addresses {
        match TcpStream::connect_timeout(&address, time) {
            Ok(stream) => {
                // As for all of the load's connections: no TIME_WAIT is left.
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                return Ok(address);
            }
            Err(error) => refusals.push(format!("{address}: {}", without_number(&error))),
        }
    }
    bail!(
        "connect {connect}: no address of it accepts connections ({}); is the server started?",
        refusals.join("; ")
    )
}

/// Returns the text of an error without `(os error N)`.
pub fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::net::TcpListener;

    use super::*;

    #[test]
    fn every_form_of_address_is_taken() {
        for (text, address) in [
            ("127.0.0.1:8888", "127.0.0.1:8888"),
            ("127.1:8888", "127.0.0.1:8888"),
            ("0x7f000001:8888", "127.0.0.1:8888"),
            ("[::1]:8888", "[::1]:8888"),
            ("::1:8888", "[::1]:8888"),
            ("[::ffff:127.0.0.1]:8888", "[::ffff:127.0.0.1]:8888"),
            ("[fe80::1%1]:8888", "[fe80::1%1]:8888"),
            ("[fe80::1%lo]:8888", "[fe80::1%1]:8888"),
            ("fe80::1%lo:8888", "[fe80::1%1]:8888"),
        ] {
            assert_eq!(resolve(text).unwrap(), [address.parse().unwrap()], "{text}");
        }
    }

    #[test]
    fn every_address_of_a_name_is_tried_and_each_says_why_not() {
        let free = |address: &str| TcpListener::bind(address).unwrap().local_addr().unwrap();
        let (first, second) = (free("127.0.0.1:0"), free("127.0.0.2:0"));
        let time = Duration::from_secs(5);
        let line = try_each("name:1", &[first, second], time).unwrap_err().to_string();
        for address in [first, second] {
            assert!(line.contains(&format!("{address}: Connection refused")), "{line}");
        }
        let listener = TcpListener::bind("127.0.0.3:0").unwrap();
        let third = listener.local_addr().unwrap();
        assert_eq!(try_each("name:1", &[first, third, second], time).unwrap(), third);
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for text in [
            "",
            "nonsense",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:x",
            "127.0.0.1:99999",
            ":8888",
            "[]:8888",
        ] {
            let line = format!("{:#}", resolve(text).unwrap_err());
            assert!(line.starts_with(&format!("--connect {text}: no address")), "{line}");
            assert!(line.contains("[fe80::1%eth0]:8888"), "{line}");
        }
        for text in ["[fe80::1%nowhere]:8888", "[::1::2]:8888"] {
            assert!(resolve(text).is_err(), "{text}");
        }
        assert!(resolve("127.0.0.1:0").unwrap_err().to_string().contains("port 0"));
    }
}
