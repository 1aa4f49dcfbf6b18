//! Whatever the lengths, the splits and the number of connections: every byte comes back in its
//! place.

use super::{Case, echo, survives};
use crate::support::{Backend, Client};
use std::thread;
use std::time::Duration;

pub const CASES: &[Case] = &[
    echo("one_echo", one_echo),
    echo("every_length_around_buffers", every_length_around_buffers),
    echo("split_at_every_byte", split_at_every_byte),
    echo("split_around_buffers", split_around_buffers),
    echo("joined_messages", joined_messages),
    echo("dripping_bytes", dripping_bytes),
    echo("large_message", large_message),
    echo("many_connections", many_connections),
    echo("books_balance", books_balance),
    echo("urgent_data", urgent_data).except(
        "uring-sqpoll",
        "the kernel leaves what follows an urgent mark unread while work for the submission thread \
         is pending",
    ),
];

/// Sizes at which a buffer of some backend ends.
const BUFFERS: [usize; 6] = [1024, 2048, 4096, 16 * 1024, 32 * 1024, 64 * 1024];

fn one_echo(backend: &Backend) {
    survives(backend, |server| {
        let mut client = server.connect();
        client.echo(17);
        client.finish();
    });
}

/// An urgent byte is a byte of the stream like any other, and what follows it does not wait for
/// more.
fn urgent_data(backend: &Backend) {
    const AROUND: [(usize, usize); 5] = [(3, 3), (0, 100), (100, 0), (5000, 1), (1, 5000)];
    let send = |client: &mut Client, (before, after): (usize, usize)| {
        client.sender.send(before);
        client.sender.send_urgent(1);
        client.sender.send(after);
        client.sender.send_urgent(7);
        client.sender.send(after);
    };
    survives(backend, |server| {
        // All of it is there when the server looks.
        let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
        for lengths in AROUND {
            server.pause();
            clients.iter_mut().for_each(|client| send(client, lengths));
            server.resume();
            clients.iter_mut().for_each(Client::receive_owed);
        }
        // It comes as it comes.
        for lengths in AROUND.into_iter().cycle().take(50) {
            send(&mut clients[0], lengths);
            clients[0].receive_owed();
        }
        // Alone, behind more than the socket takes, and in front of the end.
        let mut narrow = server.connect();
        narrow.sender.send_urgent(1);
        narrow.receive_owed();
        narrow.sender.send_until_stalled(8 << 20);
        narrow.receiver.receive(narrow.sender.bytes as usize / 2);
        narrow.sender.send_urgent(1);
        narrow.receive_owed();
        clients.push(narrow);
        for mut client in clients {
            client.sender.send_urgent(2);
            client.finish();
        }
    });
}

fn every_length_around_buffers(backend: &Backend) {
    survives(backend, |server| {
        let mut client = server.connect();
        for length in BUFFERS.into_iter().flat_map(|size| size - 2..=size + 2) {
            client.exchange(length);
        }
        client.finish();
    });
}

fn split_at_every_byte(backend: &Backend) {
    const LENGTH: usize = 48;
    survives(backend, |server| {
        let mut client = server.connect();
        for split in 1..LENGTH {
            // The server has surely read the first part alone when its echo is there.
            client.echo(split);
            client.echo(LENGTH - split);
            // Two segments, which the server reads as it finds them.
            client.sender.send(split);
            client.sender.send(LENGTH - split);
            client.receive_owed();
        }
        client.finish();
    });
}

fn split_around_buffers(backend: &Backend) {
    survives(backend, |server| {
        let mut client = server.connect();
        for (size, split) in BUFFERS
            .into_iter()
            .flat_map(|size| (size - 1..=size + 1).map(move |split| (size, split)))
        {
            client.exchange(split);
            client.exchange(size);
            thread::scope(|scope| {
                let sender = &mut client.sender;
                scope.spawn(move || {
                    sender.send(split);
                    sender.send(size);
                    sender.send(1);
                });
                client.receiver.receive(split + size + 1);
            });
        }
        client.finish();
    });
}

fn joined_messages(backend: &Backend) {
    survives(backend, |server| {
        let mut client = server.connect();
        // Messages of 1 to 200 bytes as one write, and then as a write each with none awaited.
        client.echo((1..=200).sum());
        for length in 1..=200 {
            client.sender.send(length);
        }
        client.receive_owed();
        client.finish();
    });
}

fn dripping_bytes(backend: &Backend) {
    survives(backend, |server| {
        let mut client = server.connect();
        for _ in 0..200 {
            client.echo(1);
        }
        for _ in 0..2000 {
            client.sender.send(1);
        }
        client.receive_owed();
        client.finish();
    });
}

fn large_message(backend: &Backend) {
    survives(backend, |server| {
        let mut client = server.connect();
        client.exchange(8 << 20);
        client.finish();

        // The reader takes little at a time and late, so that sends are partial and buffers run
        // full.
        let mut client = server.connect();
        thread::scope(|scope| {
            let sender = &mut client.sender;
            let writer = scope.spawn(move || {
                sender.send(4 << 20);
                sender.finish();
            });
            while client.receiver.receive_some(3001) > 0 {
                if client.receiver.bytes < 64 << 10 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            writer.join().expect("the writer sends all");
        });
        assert_eq!(client.receiver.bytes, client.sender.bytes);
    });
}

fn many_connections(backend: &Backend) {
    const CONNECTIONS: usize = 1000;
    survives(backend, |server| {
        let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| server.connect()).collect();
        for round in 0..3 {
            for (index, client) in clients.iter_mut().enumerate() {
                client.sender.send(1 + (index * 7 + round * 131) % 1500);
            }
            // Taken in another order than sent.
            for client in clients.iter_mut().rev() {
                client.receive_owed();
            }
        }
        let counters = server.counters();
        assert_eq!(counters.of("open"), CONNECTIONS as u64 + 1);
        clients.into_iter().for_each(Client::finish);
    });
}

fn books_balance(backend: &Backend) {
    survives(backend, |server| {
        // The witness has sent 1000 bytes before, as the first connection.
        let mut clients: Vec<Client> = (0..10).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| client.exchange(99_990));
        // The last thing that happens is an echo, so that its send is counted without a further
        // event.
        clients.iter_mut().for_each(|client| client.echo(10));
        server.wait_for("bytes_received", 1_001_000);
        server.wait_for("bytes_sent", 1_001_000);
        let counters = server.counters();
        assert_eq!(
            (counters.of("accepted"), counters.of("closed"), counters.of("open")),
            (11, 0, 11)
        );
        assert_eq!(counters.of("bytes_abandoned"), 0);
        clients.drain(..4).for_each(Client::finish);
        server.wait_for("closed", 4);
        let counters = server.counters();
        assert_eq!((counters.of("accepted"), counters.of("open")), (11, 7));
    });
}
