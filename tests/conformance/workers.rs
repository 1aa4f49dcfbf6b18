//! Several workers, several ports, more ports than the document's table has events in a block.

use super::{Case, echo};
use crate::support::{Backend, Client, Server, command_at};

pub const CASES: &[Case] = &[
    echo("workers_and_ports", workers_and_ports),
    echo("workers_share_ports", workers_share_ports).for_knob("listeners"),
    echo("a_taken_port_is_not_shared", a_taken_port_is_not_shared).for_knob("listeners"),
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

/// The settings by which workers share their ports.
fn ways_to_share(backend: &Backend) -> Vec<String> {
    let knob = backend.knobs.iter().find(|knob| knob.name == "listeners").expect("a knob");
    let ways = knob.notable().into_iter().filter(|way| way != "dealt");
    ways.map(|way| format!("listeners={way}")).collect()
}

fn workers_share_ports(backend: &Backend) {
    for way in ways_to_share(backend) {
        let server = backend.start(&["--workers", "3", "--ports", "2", "--set", &way]);
        assert_eq!(server.addresses.len(), 2, "{way}");
        let tables = server.worker_fd_counts();
        let mut clients: Vec<Client> =
            server.addresses.iter().flat_map(|at| [at; 60]).map(Client::connect).collect();
        for _ in 0..5 {
            clients.iter_mut().for_each(|client| client.sender.send(2000));
            clients.iter_mut().for_each(Client::receive_owed);
        }
        server.wait_for("open", 120);
        let last = clients.split_off(119);
        clients.into_iter().for_each(Client::finish);
        server.wait_for("open", 1);
        last.into_iter().for_each(Client::finish);
        server.wait_for("open", 0);
        assert_eq!(server.worker_fd_counts(), tables, "{way}: open files of each worker");
        let accepted = server.counters().accepted_by_worker;
        assert_eq!((accepted.len(), accepted.iter().sum()), (3, 120_u64), "{way}: {accepted:?}");
        // The kernel deals by a hash of addresses: that one worker has none is less likely than
        // once in 10²⁰ runs.
        let is_dealt = accepted.iter().all(|accepted| *accepted > 0);
        assert!(is_dealt || way != "listeners=reuseport", "{accepted:?}");
        no_worker_listens_any_more(server);
    }
}

/// Checks that a server that is told to leave, and waits for a client, accepts nobody else.
fn no_worker_listens_any_more(server: Server) {
    let mut client = server.connect();
    client.echo(100);
    let address = server.address().clone();
    server.signal(libc::SIGTERM);
    assert_eq!(client.receiver.receive_to_end(), 100);
    Client::wait_until_refused(&address);
    drop(client);
    server.wait().in_order();
}

fn a_taken_port_is_not_shared(backend: &Backend) {
    for way in ways_to_share(backend) {
        let settings = ["--workers", "2", "--set", &way];
        let server = backend.start(&settings);
        let ended =
            Server::launch(command_at(&server.address().to_string(), &backend.name, &settings))
                .wait();
        assert!(
            !ended.status.success() && ended.complaints.contains("another process listens"),
            "{ended:?}"
        );
        let mut client = server.connect();
        client.echo(100);
        client.finish();
        server.finish();
    }
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
