//! Keeps two runs that take much of the machine's memory from running at once.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context, Result, bail};

use crate::matrix::Matrix;

/// A run with this many connections takes a gigabyte.
const CONNECTIONS: usize = 100_000;

/// A name without a file, so that a run that is killed leaves nothing behind (unix(7),
/// "abstract").
const NAME: &str = "ringmark-large-run";

/// Holds the place of a run with many connections, as long as the listener lives. A smaller run
/// needs none.
pub fn alone(matrix: &Matrix) -> Result<Option<UnixListener>> {
    if matrix.most_connections() >= CONNECTIONS { hold(NAME).map(Some) } else { Ok(None) }
}

fn hold(name: &str) -> Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(name)?;
    match UnixListener::bind_addr(&address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
            "another run with {CONNECTIONS} connections or more is under way on this machine; two \
             would take each other's memory: wait for its end, or ask for fewer with --connections"
        ),
        bound => bound.with_context(|| format!("bind to the abstract name {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_of_the_first() {
        let name = format!("ringmark-test-{}", std::process::id());
        let first = hold(&name).expect("nobody holds it");
        let refused = hold(&name).expect_err("the first holds it").to_string();
        assert!(refused.contains("another run"), "{refused}");
        drop(first);
        hold(&name).expect("nobody holds it any more");
    }
}
