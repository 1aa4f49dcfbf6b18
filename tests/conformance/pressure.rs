//! Peers that take nothing, signals in mid-wait, files that run out: what the server holds stays
//! bounded and the others are served.

use super::{Case, any, echo, mute, outlives, survives};
use crate::support::confine::limit_open_files;
use crate::support::{Backend, Client, Counters, Server, command, eventually};
use ringmark::listener::BACKLOG;
use std::thread;
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    echo("slow_reader_bound_is_per_connection", slow_reader_bound_is_per_connection),
    echo("many_slow_readers", many_slow_readers),
    echo("interrupted_waits", interrupted_waits),
    any("stopped_and_continued", stopped_and_continued),
    any("out_of_files", out_of_files),
    echo("full_queue_meets_full_table", full_queue_meets_full_table),
    echo("nearly_as_many_files_as_an_accept_queue", nearly_as_many_files_as_an_accept_queue),
    any("connect_storm", connect_storm),
    mute("holds_and_never_reads", holds_and_never_reads),
];

/// The bytes that slow readers offer in all: far more than socket buffers take, so that a server
/// which reads on without sending would have to hold the rest itself.
const OFFERED: usize = 96 << 20;

/// The bytes that a server may hold for one connection, with its defaults: generous, and far below
/// those that it is offered.
const HELD_BYTES: u64 = 1 << 20;

/// More that it may hold in all if its receives take provided buffers, all of whose pool one wait
/// may fill: the kernel says how often a multishot receive goes on before the server can pause it.
/// On Linux 6.18 that is 32 times, on 7.3 up to hundreds. With a submission thread the pool may
/// fill again, until the thread sees that a receive is cancelled.
const POOL: u64 = 8 << 20;

/// The bytes by which a server's memory may grow beside that: the largest pool of buffers by
/// default, 8 MiB, all touched for the first time, and the heap's own.
const OWN_GROWTH: u64 = 10 << 20;

fn slow_readers(backend: &Backend, count: usize) {
    survives(backend, |server| {
        let resident_before = server.resident_bytes();
        let mut slow: Vec<Client> =
            (0..count).map(|_| Client::connect_narrow(server.address())).collect();
        thread::scope(|scope| {
            for client in &mut slow {
                scope.spawn(|| client.sender.send_until_stalled(OFFERED / count));
            }
        });

        let counters = server.counters();
        let has = |name: &str| backend.knobs.iter().any(|knob| knob.name == name);
        let pools = u64::from(has("buffers")) + u64::from(has("sq_idle_ms"));
        let bound = HELD_BYTES * count as u64 + POOL * pools;
        let held = counters.of("bytes_received") - counters.of("bytes_sent");
        assert!(held < bound, "the server holds {held} bytes that it has not sent");
        let grown = server.resident_bytes().saturating_sub(resident_before);
        assert!(grown < bound + OWN_GROWTH, "the server's memory grew by {grown} bytes");

        // Others are served meanwhile, old and new.
        let mut others: Vec<Client> = (0..10).map(|_| server.connect()).collect();
        for _ in 0..20 {
            others.iter_mut().for_each(|other| other.echo(3000));
        }
        others[0].exchange(4 << 20);
        others.into_iter().for_each(Client::finish);

        // A debt to a client that does not read is no reason to be awake.
        server.wait_until_quiet();

        // Then they read, and get all. An end that they said before would be input, and so wake up
        // a loop that does not wait for space.
        slow.iter_mut().for_each(Client::receive_owed);
        slow.into_iter().for_each(Client::finish);
    });
}

fn slow_reader_bound_is_per_connection(backend: &Backend) {
    slow_readers(backend, 1);
}

fn many_slow_readers(backend: &Backend) {
    slow_readers(backend, 8);
}

fn interrupted_waits(backend: &Backend) {
    survives(backend, |server| {
        let mut clients: Vec<Client> = (0..10).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.echo(10);
        }
        for round in 0..10 {
            server.pause();
            if round % 2 == 0 {
                clients.iter_mut().for_each(|client| client.sender.send(1500));
            }
            server.resume();
            clients.iter_mut().for_each(Client::receive_owed);
            clients.iter_mut().for_each(|client| client.echo(100));
        }
        clients.into_iter().for_each(Client::finish);
    });
}

fn stopped_and_continued(backend: &Backend) {
    survives(backend, |server| {
        for _ in 0..5 {
            server.pause();
            // Queued by the kernel meanwhile.
            let clients: Vec<Client> = (0..10).map(|_| server.connect()).collect();
            server.resume();
            server.wait_for("open", 11);
            drop(clients);
            server.wait_for("open", 1);
        }
    });
}

fn out_of_files(backend: &Backend) {
    with_too_few_files(backend, 64, 64, 100);
    if backend.name == "select" {
        // More files than it can hold, of which it must not take more.
        with_too_few_files(backend, 4096, 1024, 1100);
    }
}

/// A table of direct descriptors must keep room for a whole accept queue: these connections leave
/// less. The server's own change for it is its own doing, and not the kernel's.
fn nearly_as_many_files_as_an_accept_queue(backend: &Backend) {
    let server = start_with_files(backend, BACKLOG as u64 + 40, &[]);
    outlives(backend, server, |server| {
        for _ in 0..2 {
            let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
            clients.iter_mut().for_each(|client| client.echo(100));
            clients.into_iter().for_each(Client::finish);
            // With all of them gone there is room again.
            server.wait_for("open", 1);
            server.connect().finish();
        }
        assert_eq!(server.counters().of("rearms"), 0, "requests that the kernel ended");
    });
}

/// A server that may have `limit` files.
fn start_with_files(backend: &Backend, limit: u64, settings: &[&str]) -> Server {
    let mut command = command(&backend.name, settings);
    limit_open_files(&mut command, limit);
    Server::spawn(command)
}

/// A server that may have `limit` files and can have `files`, and more clients than that.
fn with_too_few_files(backend: &Backend, limit: u64, files: u64, clients: u64) {
    let server = start_with_files(backend, limit, &[]);
    let all = clients;
    let mut clients: Vec<Client> = (0..all).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.sender.send(100));
    // Until files have run out, and all that was accepted has been served.
    let before = eventually(
        "files run out",
        || server.counters(),
        |now| {
            let echoed = if backend.echoes { 100 * now.of("accepted") } else { 0 };
            now.of("accept_pauses") > 0 && now.of("bytes_sent") == echoed
        },
    );
    let accepted = before.of("accepted");
    assert!(0 < accepted && accepted < files, "{accepted} accepted with {files} files");
    // While nobody leaves, it tries again once a second.
    let begun = Instant::now();
    thread::sleep(Duration::from_millis(1200));
    let tried_again = |now: &Counters| now.of("accept_pauses") > before.of("accept_pauses");
    let after = eventually("it tries again", || server.counters(), tried_again);
    let calls: u64 = after.calls_since(&before).values().sum();
    let events = after.of("events") - before.of("events");
    let seconds = 1 + begun.elapsed().as_secs();
    assert!(calls + events <= 16 * seconds, "{calls} calls and {events} events in {seconds} s");
    assert_eq!(after.of("accepted"), accepted, "accepted without files");
    if backend.echoes {
        wakes_without_trying(&server, &mut clients[0]);
    }

    // Connections are accepted in the order in which they came. Those that leave make room for
    // those that wait.
    let take_back = |clients: Vec<Client>| {
        for mut client in clients {
            if backend.echoes {
                client.receive_owed();
                client.finish();
            }
        }
    };
    let waiting = clients.split_off(accepted as usize);
    take_back(clients);
    take_back(waiting);
    server.wait_for("accepted", all);
    server.wait_for("open", 0);
    take_back(vec![server.connect()]);
    server.wait_for("accepted", all + 1);
    server.wait_for("open", 0);
    server.finish();
}

/// Files of a server that are no connections, and some to spare.
const OTHER_FILES: usize = 40;

/// A connection that is accepted beyond the free files is lost, and cannot be put back into the
/// queue.
fn full_queue_meets_full_table(backend: &Backend) {
    let files = backend.descriptors_per_worker.map_or(2100, |most| most.min(2100) as usize);
    let queue = super::accept_queue().min(files * 3 / 4);
    queue_beyond_the_table(backend, files, queue, queue * 2 / 3, &[]);
    if backend.name.contains("direct") {
        // One request accepts all for as long as the table has room for connections not heard of
        // yet.
        let queue = super::accept_queue();
        queue_beyond_the_table(backend, 6000, queue, queue * 3 / 4, &[]);
        queue_beyond_the_table(backend, 6000, queue, queue + 100, &[]);
        // How much that is follows from the queues and from when completions are made.
        for settings in [
            ["cq_entries=65536", "sq_entries=1"],
            ["cq_entries=65536", "task_run=default"],
            ["cq_entries=1024", "task_run=coop"],
            ["cq_entries=2", "sq_entries=1"],
        ] {
            let [first, second] = settings;
            let arguments = ["--set", first, "--set", second];
            queue_beyond_the_table(backend, 6000, queue, queue + 100, &arguments);
        }
    }
}

/// A server that may have so many `files` and has `room` for that many more connections, those that
/// come at once, and some that come while it accepts these.
fn queue_beyond_the_table(
    backend: &Backend,
    files: usize,
    queued: usize,
    room: usize,
    settings: &[&str],
) {
    const LATE: usize = 600;
    let accepted = files - OTHER_FILES - room;
    let server = start_with_files(backend, files as u64, settings);
    let mut clients: Vec<Client> = (0..accepted).map(|_| server.connect()).collect();
    server.wait_for("accepted", accepted as u64);
    server.pause();
    clients.extend((0..queued).map(|_| server.connect()));
    server.resume();
    clients.extend((0..LATE).map(|_| server.connect()));
    eventually("files run out", || server.counters().of("accept_pauses"), |pauses| *pauses > 0);
    // In the order in which they came, so that those who leave make room for those that wait.
    for mut client in clients {
        client.echo(100);
        // An orderly end would keep the ports of all these thousands for a minute (TIME-WAIT).
        client.reset();
    }
    let end = server.finish();
    assert_eq!(end.of("accepted"), (accepted + queued + LATE) as u64);
}

/// A loop that tries to accept whenever it wakes up fails as often as it wakes up, however slow the
/// machine: it wakes up for every echo.
fn wakes_without_trying(server: &Server, client: &mut Client) {
    const ECHOES: u64 = 200;
    client.receive_owed();
    let before = server.counters();
    (0..ECHOES).for_each(|_| client.echo(100));
    let after = server.counters();
    let mut calls = after.calls_since(&before);
    let accepts: u64 = ["accept", "accept4"].iter().filter_map(|call| calls.remove(*call)).sum();
    let pauses = after.of("accept_pauses") - before.of("accept_pauses");
    // Once a second, and the echoes take less than one each.
    assert!(
        accepts.max(pauses) <= ECHOES / 10,
        "{accepts} calls and {pauses} failures in {ECHOES} echoes"
    );
}

fn connect_storm(backend: &Backend) {
    let clients = 1000.min(super::accept_queue() / 2);
    survives(backend, |server| {
        for _ in 0..2 {
            // All of them, and what they say, are there at once when the server looks.
            server.pause();
            let mut clients: Vec<Client> = (0..clients).map(|_| server.connect()).collect();
            clients.iter_mut().for_each(|client| client.sender.send(300));
            server.resume();
            if backend.echoes {
                clients.iter_mut().for_each(Client::receive_owed);
                clients.into_iter().for_each(Client::finish);
            }
        }
    });
}

fn holds_and_never_reads(backend: &Backend) {
    survives(backend, |server| {
        let mut clients: Vec<Client> = (0..500).map(|_| server.connect()).collect();
        server.wait_for("open", 501);
        clients[0].sender.send_until_stalled(64 << 20);
        let counters = settled(server);
        assert_eq!((counters.of("bytes_received"), counters.of("bytes_sent")), (0, 0));
        assert_eq!(counters.of("open"), 501);
        // An orderly end would wait behind what the server does not take.
        clients.swap_remove(0).reset();
    });
}

/// The counters once they no longer change from one reading to the next.
fn settled(server: &Server) -> Counters {
    server.wait_until_quiet();
    server.counters()
}
