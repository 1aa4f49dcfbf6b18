//! The parts that all peers share: their arguments, their listening socket and their ready line.
//! The loop is each one's own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::exit;

use socket2::{Domain, Socket, Type};

/// The most that a connection reads at once: the runtimes' own examples and proxies take 4 to 16
/// KiB.
pub const BUFFER_BYTES: usize = 16 * 1024;

/// The accept queue that our own servers ask for.
pub const BACKLOG: i32 = 4096;

/// Reads `--port N`; answers `--version` with `runtime`, and ends.
pub fn port(runtime: &str) -> u16 {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--version"] => {
            println!("{runtime}");
            exit(0);
        }
        ["--port", port] => port.parse().unwrap_or_else(|_| usage()),
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("give --port N, or --version");
    exit(2);
}

/// The address of a port.
pub fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A listener with the options of our own servers: SO_REUSEADDR, TCP_NODELAY, which accepted
/// sockets inherit, and their backlog.
pub fn listen(port: u16) -> TcpListener {
    let listen = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address(port).into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        std::io::Result::Ok(TcpListener::from(socket))
    };
    listen().unwrap_or_else(|error| fail("listen", error))
}

/// Says that connections are accepted from now on.
pub fn ready(port: u16, runtime: &str) {
    println!("ready on port {port}: {runtime}");
}

/// Ends the program, with a word.
pub fn fail(what: &str, error: impl std::fmt::Display) -> ! {
    eprintln!("{what}: {error}");
    exit(1);
}
