//! How a server starts: held until instruments are attached, then ready and saying how it was set up.

use super::{Case, any};
use crate::support::{Backend, Client, Server, command};
use std::collections::HashSet;

pub const CASES: &[Case] = &[
    any("ready_line", ready_line),
    any("held_until_told", held_until_told),
    any("obeys_stdin", obeys_stdin),
    any("ends_when_abandoned", ends_when_abandoned),
];

fn ready_line(backend: &Backend) {
    let server = Server::start(&backend.name, &["--workers", "2", "--ports", "6"]);
    assert_eq!(server.ready["backend"], backend.name.as_str());
    assert_eq!(server.ready["workers"], 2);
    assert_eq!(server.addresses.iter().collect::<HashSet<_>>().len(), 6, "six ports that differ");
    assert!(server.ready["in_force"].is_object());
    let knobs = server.ready["knobs"].as_object().expect("the knobs in force");
    let named: HashSet<&str> = knobs.keys().map(String::as_str).collect();
    assert_eq!(named, backend.knobs.iter().map(|knob| knob.name.as_str()).collect());
    let clients: Vec<Client> = server.addresses.iter().map(|address| Client::connect(*address)).collect();
    server.wait_for("accepted", 6);
    drop(clients);
    server.wait_for("closed", 6);
    server.finish();
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
    let clients: Vec<Client> = server.addresses.iter().map(|address| Client::connect(*address)).collect();
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
    server.abandon();
    assert_eq!(client.receiver.receive_to_end(), sent as u64, "what came back before the end");
    drop(client);
    server.wait().in_order();
}
