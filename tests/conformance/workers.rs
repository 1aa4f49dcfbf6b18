//! Several workers, several ports, many ports.

use super::{Case, any, echo};
use crate::support::{Backend, Client, Server};
use std::collections::HashSet;

pub const CASES: &[Case] = &[
    any("ready_line", ready_line),
    echo("workers_and_ports", workers_and_ports),
    echo("listeners_beyond_one_block", listeners_beyond_one_block),
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

fn workers_and_ports(backend: &Backend) {
    let server = Server::start(&backend.name, &["--workers", "3", "--ports", "6"]);
    let tables = server.worker_fd_counts();
    assert_eq!(tables.len(), 3, "three workers");
    let mut clients: Vec<Client> =
        server.addresses.iter().flat_map(|address| [*address; 10]).map(Client::connect).collect();
    for _ in 0..5 {
        clients.iter_mut().for_each(|client| client.sender.send(2000));
        clients.iter_mut().for_each(Client::receive_owed);
    }
    let counters = server.counters();
    assert_eq!(counters.of("open"), 60);
    assert_eq!(counters.of("bytes_sent"), 60 * 5 * 2000);
    clients.into_iter().for_each(Client::finish);
    server.wait_for("open", 0);
    assert_eq!(server.worker_fd_counts(), tables, "open files of each worker");
    server.finish();
}

fn listeners_beyond_one_block(backend: &Backend) {
    const PORTS: usize = 1100;
    let server = Server::start(&backend.name, &["--ports", &PORTS.to_string()]);
    assert_eq!(server.addresses.len(), PORTS);
    for address in server.addresses.iter().step_by(100).chain(server.addresses.last()) {
        let mut client = Client::connect(*address);
        client.echo(1500);
        client.finish();
    }
    server.finish();
}
