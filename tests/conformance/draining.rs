//! SIGTERM: what the server has read is sent, then the orderly end, then status 0.

use super::{Case, any, echo, has_knob, knobs};
use crate::support::{Backend, Client, Server, command, eventually, side_by_side};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

pub const CASES: &[Case] = &[
    any("drain_nothing", drain_nothing),
    any("drain_by_sigint", drain_by_sigint),
    any("drain_idle_peers", drain_idle_peers),
    any("drain_deadline", drain_deadline),
    any("drain_deadline_despite_input", drain_deadline_despite_input),
    any("second_signal", second_signal),
    echo("drain_under_load", drain_under_load),
    echo("drain_on_one_cpu", drain_on_one_cpu),
    echo("drain_slow_readers", drain_slow_readers),
];

/// Starts a server, unless the kernel refuses a setting: those before 6.12 refuse incremental
/// buffers.
fn started(backend: &Backend, arguments: &[&str]) -> Option<Server> {
    let server = Server::launch(command(&backend.name, arguments)).ready_or_refused();
    server.inspect_err(|reason| eprintln!("{} {arguments:?}: skipped: {reason}", backend.name)).ok()
}

fn drain_nothing(backend: &Backend) {
    let server = backend.start(&[]);
    let end = server.finish();
    assert_eq!(end.of("accepted"), 0);
    assert_eq!(end.of("bytes_received"), 0);
}

fn drain_by_sigint(backend: &Backend) {
    let server = backend.start(&["--workers", "2"]);
    server.signal(libc::SIGINT);
    server.wait().in_order();
}

fn drain_idle_peers(backend: &Backend) {
    let server = backend.start(&["--drain-seconds", "3600"]);
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    server.wait_for("open", 50);
    let address = server.address().clone();
    server.signal(libc::SIGTERM);
    for client in &mut clients {
        assert_eq!(client.receiver.receive_to_end(), 0);
    }
    Client::wait_until_refused(&address);
    drop(clients);
    server.wait().in_order();
}

fn drain_deadline(backend: &Backend) {
    let server = backend.start(&["--drain-seconds", "1"]);
    let mut client = server.connect();
    server.wait_for("open", 1);
    server.signal(libc::SIGTERM);
    assert_eq!(client.receiver.receive_to_end(), 0);
    // The client stays, and the server leaves nevertheless.
    server.wait().in_order();
}

fn drain_deadline_despite_input(backend: &Backend) {
    let server = backend.start(&["--drain-seconds", "1"]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    server.wait_for("open", 4);
    server.signal(libc::SIGTERM);
    thread::scope(|scope| {
        for client in &mut clients {
            assert_eq!(client.receiver.receive_to_end(), 0);
            // It sends for as long as anybody takes it, which is until the server has ended.
            scope.spawn(|| while client.sender.try_send(100_000).is_ok() {});
        }
        server.wait().in_order();
    });
}

fn second_signal(backend: &Backend) {
    let server = backend.start(&["--drain-seconds", "3600"]);
    let mut client = server.connect();
    server.wait_for("open", 1);
    server.signal(libc::SIGTERM);
    // It drains, and would for an hour.
    assert_eq!(client.receiver.receive_to_end(), 0);
    server.signal(libc::SIGTERM);
    let ended = server.wait();
    assert!(!ended.status.success(), "{}", ended.status);
    assert_ne!(ended.status.signal(), Some(libc::SIGKILL));
}

fn drain_under_load(backend: &Backend) {
    let mut all = vec![vec![], knobs::last_words(backend)];
    all.dedup();
    for settings in all {
        let mut arguments = vec!["--workers", "2"];
        arguments.extend(settings.iter().map(String::as_str));
        loaded_until_the_end(backend, &arguments, 10);
    }
}

/// A worker that shares its CPU with what works for it, the submission thread or the threads of
/// connections, meets them half-way through what they do.
fn drain_on_one_cpu(backend: &Backend) {
    let cpu = first_cpu();
    let (worker, submission) = (format!("--cpus={cpu}"), format!("--set=sq_cpu={}", cpu + 1));
    let mut arguments = vec![worker.as_str()];
    if has_knob(backend, "sq_cpu") {
        arguments.push(&submission);
    }
    for _ in 0..3 {
        loaded_until_the_end(backend, &arguments, 16);
    }
}

/// The first CPU that this process, and so its servers, may run on.
fn first_cpu() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("the status of this process");
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .expect("a list of CPUs");
    list.trim().split([',', '-']).next().and_then(|cpu| cpu.parse().ok()).expect("a number")
}

/// Stops a server while so many clients send all that it takes, and take all that it sends.
fn loaded_until_the_end(backend: &Backend, arguments: &[&str], count: usize) {
    let arguments = [&["--drain-seconds", "30"], arguments].concat();
    let Some(server) = started(backend, &arguments) else { return };
    let mut clients: Vec<Client> =
        server.addresses.iter().cycle().take(count).map(Client::connect).collect();
    let progress: Vec<AtomicU64> = clients.iter().map(|_| AtomicU64::new(0)).collect();
    let end = thread::scope(|scope| {
        for (index, (client, progress)) in clients.iter_mut().zip(&progress).enumerate() {
            scope.spawn(move || {
                let ended = AtomicBool::new(false);
                let Client { sender, receiver, .. } = client;
                thread::scope(|scope| {
                    scope.spawn(|| {
                        // Messages of several sizes, none awaited, until the server has said its
                        // end.
                        while !ended.load(Relaxed) {
                            sender.send([100, 1024, 5000, 40_000][index % 4]);
                        }
                        sender.finish();
                    });
                    while receiver.receive_some(usize::MAX) > 0 {
                        progress.store(receiver.bytes, Relaxed);
                    }
                    ended.store(true, Relaxed);
                });
            });
        }
        eventually(
            "every client is served",
            || progress.iter().map(|bytes| bytes.load(Relaxed)).min(),
            |least| *least > Some(100_000),
        );
        server.finish()
    });
    // Each client has compared every byte, up to the orderly end; together they have all that was
    // read.
    let received: u64 = clients.iter().map(|client| client.receiver.bytes).sum();
    assert_eq!(
        received,
        end.of("bytes_received"),
        "bytes that came back, and that the server had read"
    );
    assert_eq!(end.of("bytes_sent"), end.of("bytes_received"));
    assert_eq!(end.of("bytes_abandoned"), 0);
}

fn drain_slow_readers(backend: &Backend) {
    let buffers = |name: &str| name.ends_with("_bytes");
    let smallest = knobs::smallest(backend, |_| true);
    let largest = knobs::largest(backend, buffers);
    let words = knobs::last_words(backend);
    let mut all = vec![vec![], smallest, knobs::smallest(backend, buffers), largest, words];
    all.sort();
    all.dedup();
    side_by_side(all, |settings| {
        let mut arguments = vec!["--drain-seconds", "30"];
        arguments.extend(settings.iter().map(String::as_str));
        let Some(server) = started(backend, &arguments) else { return };
        let mut clients: Vec<Client> =
            (0..3).map(|_| Client::connect_narrow(server.address())).collect();
        thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| {
                    // Stalled, then taken from a little, so that the server has sent a part of what
                    // it owes.
                    for taken in [60_000, 1_000_000] {
                        client.sender.send_until_stalled(8 << 20);
                        client.receiver.receive(taken);
                    }
                });
            }
        });
        server.signal(libc::SIGTERM);
        let received: u64 = clients.iter_mut().map(|client| client.receiver.receive_to_end()).sum();
        drop(clients);
        let end = server.wait().in_order();
        assert_eq!(
            received,
            end.of("bytes_received"),
            "bytes that came back, and that the server had read"
        );
        assert_eq!(end.of("bytes_sent"), end.of("bytes_received"));
    });
}
