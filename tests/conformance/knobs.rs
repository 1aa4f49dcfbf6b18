//! Every value that a knob takes must serve: the ends of each range, and all the smallest at once.

use super::{Case, any, echo, has_knob, outlives, survives_with};
use crate::support::{Backend, Client, Knob, Server, command, side_by_side};
use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

pub const CASES: &[Case] = &[
    any("ends_of_every_range", ends_of_every_range),
    echo("every_word", every_word),
    echo("smallest_knobs", smallest_knobs),
    echo("smallest_queues", smallest_queues),
    echo("idle_ones_first_in_line", idle_ones_first_in_line),
    echo("newcomers_in_a_flood", newcomers_in_a_flood),
];

/// A piece of work, in nanoseconds, that many echoes can do one after the other in a case. At the
/// end of the knob's range each takes a second: with that, a server need only start.
const SOME_WORK: (&str, u64) = ("work_ns", 1_000_000);

fn ends_of_every_range(backend: &Backend) {
    serves(backend, backend.start(&[]));
    let values = backend
        .knobs_of_echo()
        .flat_map(|knob| knob.notable().into_iter().map(move |value| (knob, value)));
    // With some of them every wait takes a second.
    side_by_side(values, |(knob, value)| {
        let setting = format!("{}={value}", knob.name);
        let Some(server) = start_unless_refused(backend, &setting) else { return };
        let in_force = &server.ready["knobs"][&knob.name];
        assert_eq!(
            in_force.as_str().map_or_else(|| in_force.to_string(), str::to_owned),
            value,
            "{setting}"
        );
        if knob.name == SOME_WORK.0 && value == knob.last() {
            server.finish();
            let setting = format!("{}={}", SOME_WORK.0, SOME_WORK.1);
            serves(backend, backend.start(&["--set", &setting]));
        } else {
            serves(backend, server);
        }
    });
}

/// A server with this setting. This machine may still refuse a value that the defaults support: a
/// CPU that it does not have.
fn start_unless_refused(backend: &Backend, setting: &str) -> Option<Server> {
    let launched = Server::launch(command(&backend.name, &["--set", setting])).ready_or_refused();
    launched
        .inspect_err(|reason| {
            eprintln!("{} {setting}: skipped, unsupported: {reason}", backend.name)
        })
        .ok()
}

/// Another way to do the same serves the same peers.
fn every_word(backend: &Backend) {
    let words = backend.knobs_of_echo().filter(|knob| knob.takes_words());
    let settings = words
        .flat_map(|knob| knob.notable().into_iter().map(|word| format!("{}={word}", knob.name)));
    side_by_side(settings, |setting| {
        if let Some(server) = start_unless_refused(backend, &setting) {
            outlives(backend, server, all_sorts_of_peers);
        }
    });
}

/// Those that read late or not at all, and that leave in order or not.
fn all_sorts_of_peers(server: &Server) {
    let mut clients: Vec<Client> = (0..24).map(|_| server.connect()).collect();
    side_by_side(clients.iter_mut().enumerate(), |(index, client)| {
        client.exchange(1 + index * 5000);
        if index % 3 > 0 {
            client.sender.send_until_stalled(16 << 20);
        }
    });
    let (orderly, others): (Vec<_>, Vec<_>) =
        clients.into_iter().enumerate().partition(|(index, _)| index % 4 < 2);
    others
        .into_iter()
        .for_each(|(index, client)| if index % 4 == 2 { drop(client) } else { client.reset() });
    side_by_side(orderly, |(_, client)| client.finish());
}

/// Three connections come, get what they are owed, and go; then the server ends.
fn serves(backend: &Backend, server: Server) {
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    if backend.echoes {
        clients.iter_mut().for_each(|client| client.sender.send(1000));
        clients.into_iter().for_each(Client::finish);
    } else {
        drop(clients);
    }
    server.wait_for("accepted", 3);
    server.wait_for("closed", 3);
    server.finish();
}

/// `--set` for those knobs that are `chosen` by name, each to its smallest value.
pub fn smallest(backend: &Backend, chosen: impl Fn(&str) -> bool) -> Vec<String> {
    set(backend, chosen, Knob::first)
}

/// The same to the largest value.
pub fn largest(backend: &Backend, chosen: impl Fn(&str) -> bool) -> Vec<String> {
    set(backend, chosen, Knob::last)
}

fn set(
    backend: &Backend,
    chosen: impl Fn(&str) -> bool,
    value: impl Fn(&Knob) -> String,
) -> Vec<String> {
    let knobs = backend.knobs_of_echo().filter(|knob| chosen(&knob.name));
    knobs.map(|knob| format!("--set={}={}", knob.name, value(knob))).collect()
}

/// `--set` for those knobs that take words, each to its last.
pub fn last_words(backend: &Backend) -> Vec<String> {
    let words = backend.knobs_of_echo().filter(|knob| knob.takes_words());
    words.map(|knob| format!("--set={}={}", knob.name, knob.last())).collect()
}

/// Whether a knob sets how much there is of something that can run out. Others set how or when
/// something is done, and hide nothing that is scarce.
fn is_size(name: &str) -> bool {
    name.starts_with("buffers")
        || ["_entries", "_bytes", "_per_wait"].iter().any(|end| name.ends_with(end))
}

/// Queues of one entry, a single small buffer: everything that can run out does, and with one size
/// left as it is, what that one would have hidden.
fn smallest_knobs(backend: &Backend) {
    let sizes = backend.knobs.iter().map(|knob| knob.name.as_str()).filter(|name| is_size(name));
    side_by_side(iter::once("").chain(sizes), |except| {
        let settings = smallest(backend, |name| name != except);
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        // Through a buffer of 64 bytes, most of the time goes to the late readers' bytes.
        let late_readers = if except.is_empty() { 16 } else { 4 };
        survives_with(backend, &settings, |server| scarcity(server, late_readers));
    });
}

/// Many sends that fail at once, in queues that hold what came of one or two.
fn smallest_queues(backend: &Backend) {
    let settings =
        smallest(backend, |name| name.ends_with("_entries") || name.ends_with("_per_wait"));
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    survives_with(backend, &settings, |server| {
        let mut slow: Vec<Client> =
            (0..16).map(|_| Client::connect_narrow(server.address())).collect();
        let on_each = |slow: &mut [Client], act: fn(&mut Client)| {
            thread::scope(|scope| {
                for client in slow {
                    scope.spawn(move || act(client));
                }
            });
        };
        on_each(&mut slow, |client| client.sender.send_until_stalled(16 << 20));
        for _ in 0..5 {
            // Stopped, it sends nothing: each needs something that it can take.
            on_each(&mut slow, |client| client.receiver.wait_for_some());
            server.wait_until_quiet();
            // They take, which makes room, and they send, which meets full sockets, all of them at
            // once.
            server.pause();
            on_each(&mut slow, |client| {
                client.receiver.receive_until_stalled(100_000);
                client.sender.send_until_stalled(16 << 20);
            });
            server.resume();
        }
        slow.into_iter().for_each(Client::finish);
    });
}

/// The bytes that a late reader sends before it reads: a thousand of the smallest buffers. It fits
/// into sockets. Those that are full are the subject of `smallest_queues` and `drain_slow_readers`,
/// and take megabytes each.
const UNREAD: usize = 75_000;

fn scarcity(server: &Server, late_readers: usize) {
    let mut clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    for round in 0..3 {
        server.pause();
        clients
            .iter_mut()
            .enumerate()
            .for_each(|(index, client)| client.sender.send(1 + index * (round + 1)));
        server.resume();
        clients.iter_mut().for_each(Client::receive_owed);
    }
    // Some that take nothing for now, and others that send much at once.
    let mut late: Vec<Client> =
        (0..late_readers).map(|_| Client::connect_narrow(server.address())).collect();
    thread::scope(|scope| {
        for client in &mut late {
            scope.spawn(|| client.sender.send(UNREAD));
        }
        for client in &mut clients[..4] {
            scope.spawn(|| client.exchange(100_000));
        }
    });
    late.drain(..late_readers / 4).for_each(Client::reset);
    late.into_iter().for_each(Client::finish);
    clients.drain(..50).for_each(Client::reset);
    clients.into_iter().for_each(Client::finish);
}

/// A connection that waits for a resource must not wait for those before it that want none of it.
fn idle_ones_first_in_line(backend: &Backend) {
    let settings = smallest(backend, |_| true);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    survives_with(backend, &settings, |server| {
        let mut first = server.connect();
        first.echo(1);
        server.pause();
        first.sender.send(10);
        let idle: Vec<Client> = (0..3).map(|_| server.connect()).collect();
        let mut last = server.connect();
        last.sender.send(10);
        server.resume();
        last.receive_owed();
        first.receive_owed();
        [first, last].into_iter().chain(idle).for_each(Client::finish);
    });
}

/// Connections that always have more to send must not keep the others waiting, nor those that come.
fn newcomers_in_a_flood(backend: &Backend) {
    let settings: &[&str] = if has_knob(backend, "buffers") { &["--set=buffers=8"] } else { &[] };
    survives_with(backend, settings, |server| {
        let over = AtomicBool::new(false);
        let flood = |mut client: Client| {
            while !over.load(Ordering::Relaxed) {
                client.exchange(200_000);
            }
            client.finish();
        };
        let flooders: Vec<Client> = (0..48).map(|_| server.connect()).collect();
        thread::scope(|scope| {
            for client in flooders {
                scope.spawn(|| flood(client));
            }
            for _ in 0..10 {
                let mut newcomer = server.connect();
                newcomer.echo(10);
                newcomer.finish();
            }
            over.store(true, Ordering::Relaxed);
        });
    });
}
