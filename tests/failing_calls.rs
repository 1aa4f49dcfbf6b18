//! System calls that fail in the server, as strace(1) makes them fail: what the kernel does too seldom to wait for.

mod support;

use libtest_mimic::{Arguments, Trial};
use std::thread;
use support::{Backend, Client, Server, command, eventually, under_strace};

fn main() {
    let arguments = Arguments::from_args();
    let no_strace = support::why_no_strace();
    let mut trials: Vec<Trial> = Vec::new();
    for backend in support::backends().into_iter().filter(|backend| backend.echoes) {
        let mut add =
            |case, body: fn(&Backend)| trials.push(support::trial(&backend, case, no_strace.clone(), body));
        add("interrupted_waits", interrupted_waits);
        if backend.name.starts_with("uring") {
            add("refused_submissions", refused_submissions);
            add("broken_ring", broken_ring);
        }
        // What follows fails calls that a completion loop does not make.
        if !backend.name.starts_with("uring") {
            add("aborted_connections", aborted_connections);
        }
        if backend.name.starts_with("epoll") {
            add("failing_registrations", failing_registrations);
        }
        if backend.name == "threads" {
            add("refused_threads", refused_threads);
        }
        // Edge-triggered loops rely on EAGAIN and on a short count to mean that there is no more for now, so they
        // cannot be lied to. The document's is told again. Its fault of dropping what a send did not take is
        // held here, because Linux hides it: EPOLLOUT comes only when a third of the buffer is free.
        if backend.name == "epoll-document" {
            add("calls_to_be_tried_again", calls_to_be_tried_again);
            add("short_send", short_send);
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// Starts a server some of whose calls fail: `what` is the argument of strace's `inject`.
fn start_with(backend: &Backend, what: &str) -> Server {
    let inject = format!("inject={what}");
    Server::spawn(under_strace(&["-o", "/dev/null", "-e", &inject], &command(&backend.name, &[])))
}

fn interrupted_waits(backend: &Backend) {
    serves_while(backend, "epoll_wait,io_uring_enter,poll,pselect6:error=EINTR:when=3+3");
    if backend.name == "threads" {
        // These are its waits.
        serves_while(backend, "recvfrom,sendto:error=EINTR:when=3+3");
    }
}

/// The completion queue is full, or memory is short: io_uring_enter(2), ERRORS.
fn refused_submissions(backend: &Backend) {
    for errno in ["EBUSY", "EAGAIN"] {
        serves_while(backend, &format!("io_uring_enter:error={errno}:when=3+3"));
    }
}

/// A loop that fails in the middle of its requests ends in words.
fn broken_ring(backend: &Backend) {
    let server = start_with(backend, "io_uring_enter:error=EBADF:when=40+");
    let Client { mut sender, mut receiver } = server.connect();
    thread::scope(|scope| {
        scope.spawn(|| receiver.receive_while_open());
        // Until the server has gone.
        while sender.try_send(100).is_ok() {}
    });
    let ended = server.wait();
    assert_eq!(ended.status.code(), Some(1), "{}: {}", ended.status, ended.complaints);
    assert!(ended.complaints.contains("worker 0: Bad file descriptor"), "{}", ended.complaints);
}

fn serves_while(backend: &Backend, what: &str) {
    let server = start_with(backend, what);
    let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for length in [1, 100, 1024, 5000] {
        clients.iter_mut().for_each(|client| client.echo(length));
    }
    clients[0].exchange(300_000);
    clients.into_iter().for_each(Client::finish);
    server.finish();
}

fn aborted_connections(backend: &Backend) {
    for errno in ["ECONNABORTED", "EPROTO", "EINTR"] {
        let server = start_with(backend, &format!("accept,accept4:error={errno}:when=1+2"));
        for _ in 0..5 {
            let mut client = server.connect();
            client.echo(100);
            client.finish();
        }
        server.finish();
    }
}

/// Whichever call fails, at most one connection ends by it, and nothing of that one stays behind.
fn failing_registrations(backend: &Backend) {
    // The first calls are those for the stop signal and the listener: without these there is no server.
    let epoll_ctl = (3..=20).map(|call| format!("epoll_ctl:error=ENOSPC:when={call}"));
    let fcntl = (1..=4).map(|call| format!("fcntl:error=ENOLCK:when={call}"));
    for what in epoll_ctl.chain(fcntl) {
        let server = start_with(backend, &what);
        let files = server.fd_count();
        let mut harmed = 0;
        for clients_at_once in [4, 1] {
            let clients: Vec<Client> = (0..clients_at_once).map(|_| server.connect()).collect();
            for mut client in clients {
                // It may be closed already.
                let _ = client.sender.try_send(2000).and_then(|()| client.sender.try_finish());
                harmed += usize::from(client.receiver.receive_while_open() < 2000);
            }
        }
        assert!(harmed <= 1, "{what}: {harmed} connections ended");
        server.wait_for("open", 0);
        eventually(
            &format!("{what}: the open files are those before"),
            || server.fd_count(),
            |count| *count == files,
        );
        let end = server.finish();
        assert_eq!(end.of("bytes_received"), end.of("bytes_sent") + end.of("bytes_abandoned"), "{what}");
    }
}

/// The second connection gets no thread: it is closed, those before and after it are served.
fn refused_threads(backend: &Backend) {
    // strace counts the calls of each thread: the worker's second.
    let server = start_with(backend, "clone3:error=EAGAIN:when=2");
    let files = server.fd_count();
    let mut first = server.connect();
    first.echo(100);
    let mut refused = server.connect();
    assert_eq!(refused.receiver.receive_to_end(), 0);
    let mut third = server.connect();
    third.echo(100);
    first.echo(100);
    let counters = server.counters();
    assert_eq!((counters.of("open"), counters.of("closed"), counters.of("accept_pauses")), (2, 1, 1));
    [first, third].into_iter().for_each(Client::finish);
    server.wait_for("open", 0);
    assert_eq!(server.fd_count(), files, "open files");
    server.finish();
}

fn calls_to_be_tried_again(backend: &Backend) {
    for errno in ["EAGAIN", "EINTR"] {
        let server = start_with(backend, &format!("recvfrom,sendto:error={errno}:when=2+3"));
        let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
        for length in [1, 1024, 5000] {
            clients.iter_mut().for_each(|client| client.echo(length));
        }
        clients.into_iter().for_each(Client::finish);
        server.finish();
    }
}

fn short_send(backend: &Backend) {
    // The server is told that its first send took 500 bytes, none of which went anywhere.
    let server = start_with(backend, "sendto:retval=500:when=1");
    let mut client = server.connect();
    client.sender.send(1024);
    client.receiver.skip(500);
    client.receiver.receive(524);
    client.echo(1500);
    client.finish();
    server.finish();
}
