//! Peers that leave, in order or not: the others are unharmed and nothing of the leaver stays
//! behind.

use super::{Case, any, echo, survives};
use crate::support::{Backend, Client, Server};

pub const CASES: &[Case] = &[
    echo("half_close", half_close),
    echo("half_close_with_a_mebibyte_owed", half_close_with_a_mebibyte_owed),
    echo("half_close_while_stopped", half_close_while_stopped),
    echo("reset_in_mid_message", reset_in_mid_message),
    echo("reset_with_data_owed", reset_with_data_owed),
    echo("peer_gone_before_the_echo", peer_gone_before_the_echo),
    echo("fd_reuse", fd_reuse),
    echo("files_come_back", files_come_back),
    any("silent_peers_come_and_go", silent_peers_come_and_go),
];

fn half_close(backend: &Backend) {
    survives(backend, |server| {
        for length in [0, 1, 1024, 1025, 60_000] {
            let mut client = server.connect();
            client.sender.send(length);
            client.finish();
        }
    });
}

/// The end comes while the peer reads nothing, behind more than socket buffers take: the server has
/// input and the end still to read, and output that it cannot send.
fn half_close_with_a_mebibyte_owed(backend: &Backend) {
    survives(backend, |server| {
        let mut client = Client::connect_narrow(server.address());
        client.sender.send_until_stalled(32 << 20);
        let owed = client.sender.bytes;
        assert!((1 << 20..32 << 20).contains(&owed), "{owed} bytes fill the connection");
        client.finish();
    });
}

/// The server hears of the bytes and of the end at once: the kernel may tell of both in one.
fn half_close_while_stopped(backend: &Backend) {
    survives(backend, |server| {
        for length in [1, 1024, 60_000, 150_000] {
            let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
            clients.iter_mut().for_each(|client| client.echo(10));
            server.wait_until_asleep();
            server.pause();
            // Some that it has yet to accept.
            clients.extend((0..4).map(|_| server.connect()));
            for client in &mut clients {
                client.sender.send(length);
                client.sender.finish();
            }
            server.resume();
            for client in &mut clients {
                assert_eq!(client.receiver.receive_to_end(), client.sender.bytes);
            }
        }
    });
}

/// Does something to some clients while others are in the middle of messages, which then must come
/// back.
fn beside_others(server: &Server, mut harm: impl FnMut(Client)) {
    let mut others: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for other in &mut others {
        other.sender.send(3000);
        harm(server.connect());
        other.sender.send(3000);
    }
    for mut other in others {
        other.receive_owed();
        other.finish();
    }
}

fn reset_in_mid_message(backend: &Backend) {
    survives(backend, |server| {
        let mut lengths = (1..).map(|step| step * 997 % 50_000);
        beside_others(server, |mut client| {
            client.sender.send(lengths.next().unwrap_or(1));
            client.receiver.receive_some(10);
            client.reset();
        });
        // At once, and before anything was said.
        beside_others(server, |client| client.reset());
    });
}

fn reset_with_data_owed(backend: &Backend) {
    survives(backend, |server| {
        for _ in 0..3 {
            let mut client = server.connect();
            client.sender.send_until_stalled(64 << 20);
            client.reset();
        }
        // The same, with the end of the stream said before.
        beside_others(server, |mut client| {
            client.sender.send(50_000);
            client.sender.finish();
            client.reset();
        });
    });
}

fn peer_gone_before_the_echo(backend: &Backend) {
    survives(backend, |server| {
        // The first echo meets a closed socket and brings a reset; the next send to it fails with
        // EPIPE, and with SIGPIPE too if that was not declined. Stopped, the server finds all of it
        // at once.
        let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.echo(1);
        }
        server.pause();
        for mut client in clients {
            client.sender.send(60_000);
            client.sender.finish();
        }
        server.resume();
        // Closing with unread input resets: some in the middle of what the server does, some after.
        beside_others(server, |mut client| {
            client.sender.send(40_000);
            client.receiver.receive_some(1);
        });
    });
}

fn fd_reuse(backend: &Backend) {
    let leave: [fn(Client); 4] = [Client::finish, drop, Client::reset, |mut client| {
        client.sender.send_until_stalled(16 << 20);
        client.reset();
    }];
    survives(backend, |server| {
        let mut closed = 0;
        for round in 0..20 {
            let mut client = server.connect();
            client.echo(100);
            client.echo(2000);
            leave[if round == 7 { 3 } else { round % 3 }](client);
            // The next connection gets the same fd only once this one is closed.
            closed += 1;
            server.wait_for("closed", closed);
        }
    });
}

fn files_come_back(backend: &Backend) {
    survives(backend, |server| {
        for _ in 0..10 {
            let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
            for client in &mut clients {
                client.sender.send(500);
            }
            for (index, mut client) in clients.into_iter().enumerate() {
                match index % 5 {
                    0 => client.finish(),
                    1 => client.receive_owed(),
                    2 => client.reset(),
                    3 => drop(client),
                    _ => client.sender.finish(),
                }
            }
        }
        // `survives` compares the open files.
    });
}

fn silent_peers_come_and_go(backend: &Backend) {
    survives(backend, |server| {
        for _ in 0..5 {
            let clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
            for (index, client) in clients.into_iter().enumerate() {
                match index % 3 {
                    0 => drop(client),
                    1 => client.reset(),
                    _ => client.sender.finish(),
                }
            }
        }
    });
}
