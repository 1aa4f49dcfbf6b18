//! The address of a server: an IP address and a port, or the path of a Unix socket.

use crate::socket;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The prefix of a path.
const UNIX: &str = "unix:";

/// Bytes of the longest path: `sun_path` holds 108, the last of them a zero (unix(7)).
pub const PATH_MAX: usize = 107;

/// The place where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// TCP, at an IP address and a port.
    Ip(SocketAddr),
    /// A stream socket in the file system (unix(7)).
    Unix(PathBuf),
}

impl Address {
    /// Reads the path of `unix:/run/echo.sock`; none: the text begins otherwise.
    ///
    /// # Errors
    /// One line that says why the kernel takes no such path.
    pub fn of_unix(text: &str) -> Option<Result<Self, String>> {
        let path = text.strip_prefix(UNIX)?;
        let refusal = if !path.starts_with('/') || path.ends_with('/') {
            "it is no whole path of a file, as in unix:/run/echo.sock".to_owned()
        } else if path.len() > PATH_MAX {
            format!("its path has {} bytes, and a Unix socket's at most {PATH_MAX}", path.len())
        } else {
            return Some(Ok(Self::Unix(path.into())));
        };
        Some(Err(format!("'{text}' is no address: {refusal}")))
    }

    /// Returns the IP address and the port, if it has them.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Returns the path, if it is a Unix socket's.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Ip(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

/// Reads an address as the kernel takes it: `127.0.0.1:8888`, `[::1]:8888`, for a link-local
/// address its interface by name or number, `[fe80::1%eth0]:8888`, and `unix:/run/echo.sock`.
impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(unix) = Self::of_unix(text) {
            return unix;
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let malformed = || {
            format!(
                "'{text}' is no address, as in 127.0.0.1:8888, [::1]:8888, [fe80::1%eth0]:8888 or \
                 unix:/run/echo.sock"
            )
        };
        let (ip, rest) = text.split_once('%').ok_or_else(malformed)?;
        let (interface, port) = rest.rsplit_once("]:").ok_or_else(malformed)?;
        match format!("{ip}]:{port}").parse() {
            Ok(SocketAddr::V6(mut address)) => {
                let number = socket::interface_number(interface);
                address.set_scope_id(
                    number.ok_or_else(|| format!("there is no interface '{interface}'"))?,
                );
                Ok(Self::Ip(address.into()))
            }
            _ => Err(malformed()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Address::from_str(text).expect_err(text)
    }

    #[test]
    fn addresses_are_read_as_the_kernel_takes_them() {
        for text in [
            "127.0.0.1:80",
            "0.0.0.0:0",
            "[::]:8888",
            "[::1]:0",
            "[::ffff:127.0.0.1]:1",
            "[fe80::1%7]:2",
            "unix:/run/echo.sock",
            "unix:/a:1",
        ] {
            assert_eq!(Address::from_str(text).expect(text).to_string(), text);
        }
        let lo = socket::interface_number("lo").expect("a loopback interface");
        let read = Address::from_str("[fe80::1%lo]:9").expect("an address of an interface");
        assert_eq!(read.to_string(), format!("[fe80::1%{lo}]:9"));
        assert!(refusal("[fe80::1%nosuch]:9").contains("no interface 'nosuch'"));
        for text in [
            "",
            "127.0.0.1",
            "::1:80",
            "[::1]",
            "[::1]:",
            "[::1]:65536",
            "localhost:80",
            "127.0.0.1%lo:80",
            "[%]:",
            "/run/echo.sock",
            "Unix:/run/echo.sock",
        ] {
            assert!(refusal(text).contains("[fe80::1%eth0]:8888"), "{text}");
        }
    }

    #[test]
    fn paths_that_a_unix_socket_cannot_have_are_refused() {
        for text in ["unix:", "unix:echo.sock", "unix:@echo", "unix:/", "unix:/run/"] {
            assert!(refusal(text).contains("as in unix:/run/echo.sock"), "{text}");
        }
        let longest = format!("unix:/{}", "a".repeat(PATH_MAX - 1));
        assert_eq!(Address::from_str(&longest).expect("it fits").to_string(), longest);
        assert!(refusal(&format!("{longest}a")).contains("108 bytes"));
    }

    #[test]
    fn a_line_holds_it_as_people_write_it() {
        let address: Address = serde_json::from_str("\"unix:/a\"").expect("an address");
        assert_eq!(serde_json::to_string(&address).expect("prints"), "\"unix:/a\"");
        assert!(serde_json::from_str::<Address>("\"nowhere\"").is_err());
    }
}
