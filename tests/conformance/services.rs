//! The services other than an echo: every byte is compared by the side that receives it.

use super::support::{Backend, Client, Server, Sizes, eventually, side_by_side};
use super::{Case, echo, knobs};
use ringmark::service::GREETING_BYTES;
use std::thread;

pub const CASES: &[Case] = &[
    echo("exchange_of_any_sizes", exchange_of_any_sizes),
    echo("exchange_split_and_joined", exchange_split_and_joined),
    echo("exchange_with_slow_readers", exchange_with_slow_readers),
    echo("exchange_ends", exchange_ends),
    echo("exchange_ends_while_stopped", exchange_ends_while_stopped),
    echo("exchange_drains", exchange_drains),
    echo("wrong_requests", wrong_requests),
    echo("sink_takes_all", sink_takes_all),
    echo("resets_behind_many_bytes", resets_behind_many_bytes),
    echo("source_until_the_end", source_until_the_end),
    echo("source_with_few_buffers", source_with_few_buffers).for_knob("buffers"),
    echo("source_with_slow_readers", source_with_slow_readers),
    echo("source_drains", source_drains),
];

/// Pairs of sizes around those of buffers.
const SIZES: [Sizes; 8] = [
    Sizes(1, 1),
    Sizes(64, 64),
    Sizes(1, 200_000),
    Sizes(200_000, 1),
    Sizes(1024, 1023),
    Sizes(4097, 65_537),
    Sizes(64, 3_000_000),
    Sizes(3_000_000, 64),
];

/// Starts a server of conversations of these sizes, with these arguments besides.
fn start(backend: &Backend, sizes: Sizes, settings: &[String]) -> Server {
    let arguments = [sizes.arguments(), settings.to_vec()].concat();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    backend.start(&arguments)
}

/// Connects to it and greets it.
fn greet(server: &Server, sizes: Sizes) -> Client {
    server.connect().greeting(Some(sizes))
}

/// The same with a small receive buffer.
fn greet_narrow(server: &Server, sizes: Sizes) -> Client {
    Client::connect_narrow_to_much(server.address()).greeting(Some(sizes))
}

/// Ends the client's direction, and takes what is left of so many bytes and then the end.
fn finish(mut client: Client, bytes: u64) {
    client.sender.finish();
    assert_eq!(client.receiver.receive_to_end(), bytes, "bytes up to the orderly end");
}

/// Waits until all connections are closed, and stops the server: no byte was wrong.
fn end(server: Server) {
    server.wait_for("open", 0);
    server.wait_until_quiet();
    let end = server.terminate().well();
    assert_eq!(end.of("mismatches"), 0);
}

fn exchange_of_any_sizes(backend: &Backend) {
    side_by_side(SIZES, |sizes| {
        let server = start(backend, sizes, &[]);
        let clients: Vec<Client> = (0..3).map(|_| greet(&server, sizes)).collect();
        side_by_side(clients, |mut client| {
            client.exchange(sizes.0 as usize);
            client.exchange(5 * sizes.0 as usize);
            finish(client, 6 * sizes.1);
        });
        server.wait_for("open", 0);
        let end = server.terminate().well();
        assert_eq!(end.of("requests"), 18);
        assert_eq!(end.of("bytes_received"), 3 * (GREETING_BYTES as u64 + 6 * sizes.0));
        assert_eq!(end.of("bytes_sent"), 18 * sizes.1);
        assert_eq!((end.of("bytes_abandoned"), end.of("mismatches")), (0, 0));
    });
}

fn exchange_split_and_joined(backend: &Backend) {
    let sizes = Sizes(50, 70);
    let server = start(backend, sizes, &[]);
    // Byte by byte, the greeting too.
    let mut dripping = server.connect();
    dripping.sender.greet_by(1, &mut dripping.receiver);
    for _ in 0..100 {
        dripping.sender.send(1);
    }
    dripping.receiver.receive(140);
    // Many at once, behind the greeting.
    let mut joined = greet(&server, sizes);
    joined.sender.send(1000 * 50 + 49);
    joined.receiver.receive(70_000);
    joined.sender.send(1);
    joined.receiver.receive(70);
    finish(dripping, 140);
    finish(joined, 70_070);
    end(server);
}

fn exchange_with_slow_readers(backend: &Backend) {
    side_by_side([Sizes(64, 1_000_000), Sizes(1, 1), Sizes(20_000, 100_000)], |sizes| {
        let server = start(backend, sizes, &[]);
        let mut slow: Vec<Client> = (0..4).map(|_| greet_narrow(&server, sizes)).collect();
        let mut quick = greet(&server, sizes);
        thread::scope(|scope| {
            let mut receivers = Vec::new();
            for Client { sender, receiver, .. } in &mut slow {
                scope.spawn(|| sender.send(40 * sizes.0 as usize));
                receivers.push(receiver);
            }
            // Others are served meanwhile.
            quick.exchange(10 * sizes.0 as usize);
            // Sockets need not hold all that they send: now they take as well.
            for receiver in receivers {
                scope.spawn(|| receiver.receive(40 * sizes.1 as usize));
            }
        });
        finish(quick, 10 * sizes.1);
        side_by_side(slow, |client| finish(client, 40 * sizes.1));
        end(server);
    });
}

/// Ends of all kinds, with responses owed and without.
fn exchange_ends(backend: &Backend) {
    let sizes = Sizes(100, 400_000);
    let server = start(backend, sizes, &[]);
    let stays = greet(&server, sizes);
    let without_a_word = server.connect();
    let within_the_greeting = server.connect();
    within_the_greeting.sender.raw(&[1, 2, 3]);
    let greeted_only = greet(&server, sizes);
    let mut within_a_request = greet(&server, sizes);
    within_a_request.sender.send(99);
    for client in [without_a_word, within_the_greeting, greeted_only, within_a_request] {
        finish(client, 0);
    }
    // With responses owed: all of them come.
    let mut owed = greet(&server, sizes);
    owed.sender.send(5 * 100 + 20);
    finish(owed, 5 * 400_000);
    // Resets: at rest, within a request, and with responses owed.
    for sent in [0, 50, 100, 1000] {
        let mut client = greet(&server, sizes);
        client.sender.send(sent);
        client.reset();
    }
    server.wait_for("open", 1);
    drop(stays);
    end(server);
}

/// The server hears of the bytes and of the end at once: within a request, and behind requests.
fn exchange_ends_while_stopped(backend: &Backend) {
    let sizes = Sizes(100, 1000);
    let server = start(backend, sizes, &[]);
    let stays = greet(&server, sizes);
    for sent in [1, 100, 5 * 100 + 20, 5000, 150_000] {
        let mut clients: Vec<Client> = (0..4).map(|_| greet(&server, sizes)).collect();
        server.wait_until_asleep();
        server.pause();
        // Some that it has yet to accept.
        clients.extend((0..4).map(|_| greet(&server, sizes)));
        for client in &mut clients {
            client.sender.send(sent);
            client.sender.finish();
        }
        server.resume();
        for client in &mut clients {
            assert_eq!(client.receiver.receive_to_end(), sent as u64 / 100 * 1000);
        }
    }
    server.wait_for("open", 1);
    drop(stays);
    end(server);
}

fn exchange_drains(backend: &Backend) {
    let sizes = Sizes(10, 500_000);
    let server = start(backend, sizes, &[]);
    let mut clients: Vec<Client> = (0..4).map(|_| greet(&server, sizes)).collect();
    clients.iter_mut().for_each(|client| client.sender.send(25));
    eventually("all are read", || server.counters().of("requests"), |requests| *requests == 8);
    let ended = thread::scope(|scope| {
        let ended = scope.spawn(|| server.terminate().well());
        for client in &mut clients {
            let received = client.receiver.receive_to_end();
            assert_eq!(received, 1_000_000, "two responses, and not the third");
        }
        drop(clients);
        ended.join().expect("it ends in order")
    });
    assert_eq!((ended.of("bytes_sent"), ended.of("bytes_abandoned")), (4_000_000, 0));
}

/// A wrong byte ends its connection and no other.
fn wrong_requests(backend: &Backend) {
    let sizes = Sizes(100, 100);
    let server = start(backend, sizes, &[]);
    let mut right = greet(&server, sizes);
    for length in [1, 100, 150, 70_000] {
        let mut wrong = greet(&server, sizes);
        wrong.sender.send(length);
        wrong.sender.send_wrong();
        wrong.receiver.receive_while_open();
        right.exchange(3 * 100);
    }
    let mismatches = || server.counters().of("mismatches");
    eventually("each was noticed", mismatches, |count| *count == 4);
    finish(right, 1200);
    server.wait_for("open", 0);
    server.terminate().well();
}

fn sink_takes_all(backend: &Backend) {
    let sizes = Sizes(1000, 0);
    let server = start(backend, sizes, &[]);
    let mut clients: Vec<Client> = (0..4).map(|_| greet(&server, sizes)).collect();
    side_by_side(&mut clients, |client| {
        for length in [1, 999, 1000, 70_001, 3_000_000] {
            client.sender.send(length);
        }
    });
    let bytes = 1 + 999 + 1000 + 70_001 + 3_000_000;
    clients.into_iter().for_each(|client| finish(client, 0));
    server.wait_for("open", 0);
    let end = server.terminate().well();
    assert_eq!(end.of("requests"), 4 * (bytes / 1000));
    assert_eq!(end.of("bytes_received"), 4 * (bytes + GREETING_BYTES as u64));
    assert_eq!((end.of("bytes_sent"), end.of("mismatches")), (0, 0));
}

/// More bytes than a server takes in one go, and then a reset: it must not be missed.
fn resets_behind_many_bytes(backend: &Backend) {
    let smallest = knobs::smallest(backend, |name| name.ends_with("_bytes"));
    side_by_side([Vec::new(), smallest], |settings| {
        let sizes = Sizes(11, 0);
        let server = start(backend, sizes, &settings);
        for length in [1, 2000, 9000, 50_000].repeat(20) {
            let mut client = greet(&server, sizes);
            client.sender.send(length);
            client.reset();
        }
        server.wait_for("accepted", 80);
        end(server);
    });
}

fn source_until_the_end(backend: &Backend) {
    side_by_side([1, 1000, 65_537, 1_000_000], |size| {
        let sizes = Sizes(0, size as u64);
        let server = start(backend, sizes, &[]);
        let stays = server.connect();
        let clients: Vec<Client> = (0..3).map(|_| greet(&server, sizes)).collect();
        side_by_side(clients, |mut client| {
            client.receiver.receive(3 * size + (2000 * size).min(100_000));
            client.sender.finish();
            let received = client.receiver.receive_to_end();
            assert_eq!(received % size as u64, 0, "it ends with a whole write");
        });
        let mut reset = greet(&server, sizes);
        reset.receiver.receive(size);
        reset.reset();
        // Bytes that nobody asked for.
        let mut talks = greet(&server, sizes);
        talks.receiver.receive(size + 1);
        talks.sender.send(1);
        talks.receiver.receive_while_open();
        server.wait_for("mismatches", 1);
        server.wait_for("open", 1);
        drop(stays);
        server.wait_for("open", 0);
        server.wait_until_quiet();
        server.terminate().well();
    });
}

/// Their receives find no buffer, and must find their peers' ends nevertheless.
fn source_with_few_buffers(backend: &Backend) {
    let settings = knobs::smallest(backend, |name| name.starts_with("buffer"));
    let sizes = Sizes(0, 1000);
    let server = start(backend, sizes, &settings);
    let clients: Vec<Client> = (0..20).map(|_| greet(&server, sizes)).collect();
    side_by_side(clients, |mut client| {
        client.receiver.receive(50_000);
        client.sender.finish();
        assert_eq!(client.receiver.receive_to_end() % 1000, 0, "it ends with a whole write");
    });
    end(server);
}

fn source_with_slow_readers(backend: &Backend) {
    let sizes = Sizes(0, 10_000);
    let server = start(backend, sizes, &[]);
    let mut slow: Vec<Client> = (0..4).map(|_| greet_narrow(&server, sizes)).collect();
    // Those that take nothing keep nobody waiting, nor the loop busy.
    server.wait_until_quiet();
    let mut quick = greet(&server, sizes);
    quick.receiver.receive(2_000_000);
    quick.reset();
    server.wait_until_quiet();
    side_by_side(&mut slow, |client| client.receiver.receive(200_000));
    let [ends, resets] = [slow.split_off(2), slow];
    resets.into_iter().for_each(Client::reset);
    side_by_side(ends, |mut client| {
        client.sender.finish();
        assert_eq!(client.receiver.receive_to_end() % 10_000, 0, "it ends with a whole write");
    });
    end(server);
}

fn source_drains(backend: &Backend) {
    let sizes = Sizes(0, 100_000);
    let server = start(backend, sizes, &[]);
    let mut clients: Vec<Client> = (0..4).map(|_| greet(&server, sizes)).collect();
    clients.iter_mut().for_each(|client| client.receiver.receive(1_000_000));
    let (received, ended) = thread::scope(|scope| {
        let ended = scope.spawn(|| server.terminate().well());
        let received: u64 = side_by_side(&mut clients, |client| {
            let received = client.receiver.receive_to_end();
            assert_eq!(received % 100_000, 0, "it ends with a whole write");
            received
        })
        .into_iter()
        .sum();
        drop(clients);
        (received, ended.join().expect("it ends in order"))
    });
    assert_eq!((ended.of("bytes_sent"), ended.of("bytes_abandoned")), (received, 0));
}
