//! Several workers, several ports, more ports than the document's table has events in a block.

use super::{Case, echo};
use crate::support::{Backend, Client, Server};

pub const CASES: &[Case] = &[
    echo("workers_and_ports", workers_and_ports),
    echo("listeners_beyond_one_block", listeners_beyond_one_block)
        .with_descriptors(MANY_PORTS as u64 + 50),
    echo("index_beyond_one_block", index_beyond_one_block)
        .with_descriptors(MANY_PORTS as u64 + 50)
        .for_knob("lookup"),
];

/// More listeners than one of the document's blocks holds descriptors.
const MANY_PORTS: usize = 1100;

fn workers_and_ports(backend: &Backend) {
    let server = backend.start(&["--workers", "3", "--ports", "6"]);
    let tables = server.worker_fd_counts();
    assert_eq!(tables.len(), 3, "three workers");
    let mut clients: Vec<Client> =
        server.addresses.iter().flat_map(|address| [address; 10]).map(Client::connect).collect();
    for _ in 0..5 {
        clients.iter_mut().for_each(|client| client.sender.send(2000));
        clients.iter_mut().for_each(Client::receive_owed);
    }
    server.wait_for("open", 60);
    server.wait_for("bytes_received", 60 * 5 * 2000);
    clients.into_iter().for_each(Client::finish);
    server.wait_for("open", 0);
    assert_eq!(server.worker_fd_counts(), tables, "open files of each worker");
    server.finish();
}

fn listeners_beyond_one_block(backend: &Backend) {
    echo_on_many_ports(with_many_ports(backend, &[]));
}

/// The same where blocks are found by another way than the document's.
fn index_beyond_one_block(backend: &Backend) {
    let server = with_many_ports(backend, &["--set", "lookup=index"]);
    assert_eq!(server.ready["in_force"]["lookup"], "index");
    echo_on_many_ports(server);
}

fn with_many_ports(backend: &Backend, settings: &[&str]) -> Server {
    let ports = MANY_PORTS.to_string();
    backend.start(&[&["--ports", &ports], settings].concat())
}

fn echo_on_many_ports(server: Server) {
    assert_eq!(server.addresses.len(), MANY_PORTS);
    for address in server.addresses.iter().step_by(100).chain(server.addresses.last()) {
        let mut client = Client::connect(address);
        client.echo(1500);
        client.finish();
    }
    server.finish();
}
