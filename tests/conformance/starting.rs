//! How a server starts: held until instruments are attached, then ready and saying how it was set
//! up.

use super::{Case, any};
use crate::support::confine::before_exec;
use crate::support::{Backend, Client, SERVER, Server, command};
use ringmark::address::Address;
use std::collections::HashSet;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

pub const CASES: &[Case] = &[
    any("ready_line", ready_line),
    any("free_ports_of_ipv6", free_ports_of_ipv6),
    any("inherited_signals", inherited_signals),
    any("held_with_inherited_signals", held_with_inherited_signals),
    any("held_until_told", held_until_told),
    any("obeys_stdin", obeys_stdin),
    any("ends_when_abandoned", ends_when_abandoned),
];

fn ready_line(backend: &Backend) {
    let server = backend.start(&["--workers", "2", "--ports", "6"]);
    assert_eq!(server.ready["backend"], backend.name.as_str());
    assert_eq!(server.ready["workers"], 2);
    let first = server.address().ip().expect("an IP address");
    let consecutive: Vec<Address> =
        (0..6).map(|index| SocketAddr::new(first.ip(), first.port() + index).into()).collect();
    assert_eq!(server.addresses, consecutive, "six free ports, one after the other");
    assert!(server.ready["in_force"].is_object());
    let knobs = server.ready["knobs"].as_object().expect("the knobs in force");
    let named: HashSet<&str> = knobs.keys().map(String::as_str).collect();
    assert_eq!(named, backend.knobs.iter().map(|knob| knob.name.as_str()).collect());
    let clients: Vec<Client> = server.addresses.iter().map(Client::connect).collect();
    server.wait_for("accepted", 6);
    drop(clients);
    server.wait_for("closed", 6);
    server.finish();
}

/// A link-local address of this host, with its interface by name.
fn link_local() -> Option<String> {
    // proc_net(5): address, number, length of the prefix, scope, flags, name. The flag 0x40 says
    // that it is tentative.
    let table = fs::read_to_string("/proc/net/if_inet6").ok()?;
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines
        .find(|fields| fields.len() == 6 && fields[0].starts_with("fe80") && fields[4] == "80")?;
    let address = u128::from_str_radix(line[0], 16).ok()?;
    Some(format!("[{}%{}]:0", Ipv6Addr::from_bits(address), line[5]))
}

/// The line that says where can be connected to, in whatever form the address was given.
fn free_ports_of_ipv6(backend: &Backend) {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("skipped: this host has no IPv6");
        return;
    }
    let local = ["[::1]:0", "[::1%lo]:0", "[::]:0", "[::ffff:127.0.0.1]:0"].map(str::to_owned);
    for listen in local.into_iter().chain(link_local()) {
        let mut command = Command::new(&*SERVER);
        command.args(["--backend", &backend.name, "--listen", &listen, "--workers", "2"]);
        let server = Server::spawn(command);
        let port = |index: usize| server.addresses[index].ip().expect("an IP address").port();
        assert_eq!(server.addresses.len(), 2, "{}", server.ready);
        assert_eq!(port(1), port(0) + 1, "{}", server.ready);
        for address in &server.addresses {
            let mut client = Client::connect(address);
            if backend.echoes {
                client.echo(100);
            }
            drop(client);
        }
        server.wait_for("closed", 2);
        server.finish();
    }
}

/// The same server from a process that has left every signal blocked, and these ignored.
fn with_inherited_signals(backend: &Backend, arguments: &[&str]) -> Command {
    let mut command = command(&backend.name, arguments);
    // SAFETY: these calls touch nothing but the set on the stack.
    before_exec(&mut command, || unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
        for signal in
            [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGURG, libc::SIGCHLD]
        {
            libc::signal(signal, libc::SIG_IGN);
        }
        Ok(())
    });
    command
}

/// A server restores the signals that it relies on.
fn inherited_signals(backend: &Backend) {
    let server = Server::spawn(with_inherited_signals(backend, &[]));
    let mut client = server.connect();
    if backend.echoes {
        client.echo(100);
    }
    server.wait_for("open", 1);
    server.signal(libc::SIGTERM);
    client.receiver.receive_to_end();
    drop(client);
    server.wait().in_order();
}

fn held_with_inherited_signals(backend: &Backend) {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let held = Server::launch(with_inherited_signals(backend, &["--hold"]));
        held.held();
        held.signal(signal);
        assert_eq!(held.wait().status.signal(), Some(signal));
    }
}

fn held_until_told(backend: &Backend) {
    let mut held = Server::launch(command(&backend.name, &["--hold", "--workers", "2"]));
    assert_eq!(held.held()["pid"], held.pid());
    held.wait_until_asleep();
    assert_eq!(held.thread_count(), 1, "threads before the line on stdin");
    let files = held.open_files();
    let made = |file: &&String| file.starts_with("socket:") || file.starts_with("anon_inode:");
    assert_eq!(
        files.iter().find(made),
        None,
        "a listener, ring, epoll instance or eventfd before the line on stdin"
    );
    held.tell("go");
    let server = held.ready();
    let clients: Vec<Client> = server.addresses.iter().map(Client::connect).collect();
    server.wait_for("accepted", 2);
    drop(clients);
    server.wait_for("closed", 2);
    server.finish();
}

/// As it obeys signals, where these do not reach it.
fn obeys_stdin(backend: &Backend) {
    let mut server = Server::launch(command(&backend.name, &["--hold"]));
    server.held();
    server.tell("go");
    let mut server = server.ready();
    let client = server.connect();
    server.wait_for("accepted", 1);
    let before = server.cpu_ns();
    server.tell("counters\nnonsense\ncounters");
    for _ in 0..2 {
        let (counters, cpu_ns) = server.told_counters();
        assert_eq!(counters.of("open"), 1);
        // As the kernel tells it to others.
        let bounds = before..=server.cpu_ns();
        assert!(bounds.contains(&cpu_ns), "{cpu_ns} {bounds:?}");
    }
    drop(client);
    server.wait_for("open", 0);
    server.tell("stop");
    let ended = server.wait();
    assert!(ended.complaints.contains("'nonsense' is unknown"), "{}", ended.complaints);
    ended.in_order();
}

/// Who started it may be gone without a word, with the network between them.
fn ends_when_abandoned(backend: &Backend) {
    let mut server = Server::launch(command(&backend.name, &["--hold"]));
    server.tell("go");
    server.held();
    let mut server = server.ready();
    let mut client = server.connect();
    let sent = if backend.echoes { 1000 } else { 0 };
    client.exchange(sent);
    // One that was not accepted yet would be reset.
    server.wait_for("open", 1);
    server.abandon();
    assert_eq!(client.receiver.receive_to_end(), sent as u64, "what came back before the end");
    drop(client);
    server.wait().in_order();
}
