//! Peers that take nothing, signals in mid-wait, files that run out: what the server holds stays bounded and the others are served.

use super::{Case, any, echo, survives};
use crate::support::{Backend, Client, Counters, Server, command, eventually};
use std::os::unix::process::CommandExt;
use std::thread;

pub const CASES: &[Case] = &[
    echo("slow_reader", slow_reader),
    echo("many_slow_readers", many_slow_readers),
    echo("interrupted_waits", interrupted_waits),
    any("stopped_and_continued", stopped_and_continued),
    echo("out_of_files", out_of_files),
];

/// What slow readers offer in all: far more than socket buffers take, so that a server which reads on
/// without sending would have to hold the rest itself.
const OFFERED: usize = 96 << 20;

/// What a server may hold of it: generous, and far below what it is offered.
const HELD_BYTES: u64 = 24 << 20;

fn slow_readers(backend: &Backend, count: usize) {
    survives(backend, |server| {
        let resident_before = server.resident_bytes();
        let mut slow: Vec<Client> = (0..count).map(|_| server.connect()).collect();
        thread::scope(|scope| {
            for client in &mut slow {
                scope.spawn(|| client.sender.send_until_stalled(OFFERED / count));
            }
        });

        let counters = server.counters();
        let held = counters.of("bytes_received") - counters.of("bytes_sent");
        assert!(held < HELD_BYTES, "the server holds {held} bytes that it has not sent");
        let grown = server.resident_bytes().saturating_sub(resident_before);
        assert!(grown < HELD_BYTES, "the server's memory grew by {grown} bytes");

        // Others are served meanwhile, old and new.
        let mut others: Vec<Client> = (0..10).map(|_| server.connect()).collect();
        for _ in 0..20 {
            others.iter_mut().for_each(|other| other.echo(3000));
        }
        others.into_iter().for_each(Client::finish);

        // Then they read, and get all.
        slow.into_iter().for_each(Client::finish);
    });
}

fn slow_reader(backend: &Backend) {
    slow_readers(backend, 1);
}

fn many_slow_readers(backend: &Backend) {
    slow_readers(backend, 32);
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
    const FILES: libc::rlim_t = 64;
    let mut command = command(&backend.name, &[]);
    // SAFETY: setrlimit(2) reads a value on the stack and is safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: FILES, rlim_max: FILES };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
    let server = Server::spawn(command);
    let mut clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.sender.send(100));
    // Connections are accepted in the order in which they came.
    let accepted =
        eventually("some are accepted", || settled(&server).of("accepted"), |count| *count > 0) as usize;
    assert!(accepted < FILES as usize, "{accepted} accepted with {FILES} files");
    server.wait_until_quiet();
    clients[..accepted].iter_mut().for_each(Client::receive_owed);

    // Those that leave make room for those that wait.
    let waiting = clients.split_off(accepted);
    clients.into_iter().for_each(Client::finish);
    for mut client in waiting {
        client.receive_owed();
        client.finish();
    }
    server.connect().finish();
    server.wait_for("open", 0);
    server.finish();
}

/// The counters once they no longer change from one reading to the next.
fn settled(server: &Server) -> Counters {
    server.wait_until_quiet();
    server.counters()
}
