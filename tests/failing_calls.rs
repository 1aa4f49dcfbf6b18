//! System calls that fail in the server, as strace(1) makes them fail: what the kernel does too
//! seldom to wait for.

mod support;

use libtest_mimic::{Arguments, Trial};
use std::process::Stdio;
use std::thread;
use support::{Backend, Client, Server, command, eventually, under_strace};

fn main() {
    let arguments = Arguments::from_args();
    let no_strace = support::why_no_strace();
    let mut trials: Vec<Trial> = Vec::new();
    for backend in support::backends() {
        let mut add = |case, body: fn(&Backend)| {
            trials.push(support::trial(&backend, case, no_strace.clone(), body))
        };
        add("refused_set_up", refused_set_up);
        if !backend.name.starts_with("uring") {
            add("refused_accepts", refused_accepts);
            add("unusable_listener", unusable_listener);
        }
        if backend.name == "poll" {
            add("last_line_is_lost", last_line_is_lost);
        }
        if !backend.echoes {
            continue;
        }
        add("interrupted_waits", interrupted_waits);
        if backend.name.starts_with("uring") {
            add("refused_submissions", refused_submissions);
            add("broken_ring", broken_ring);
        }
        // The next cases fail calls that a completion loop does not make.
        if !backend.name.starts_with("uring") {
            add("aborted_connections", aborted_connections);
        }
        if backend.name.starts_with("epoll") {
            add("failing_registrations", failing_registrations);
        }
        if backend.name == "threads" {
            add("refused_threads", refused_threads);
        }
        // Edge-triggered loops rely on EAGAIN and on a short count to mean that there is no more
        // for now, so they cannot be lied to. The document's is told again. Its fault of dropping
        // what a send did not take is held here, because Linux hides it: EPOLLOUT comes only when a
        // third of the buffer is free.
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
    let Client { mut sender, mut receiver, .. } = server.connect();
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
    for errno in ["ECONNABORTED", "EPROTO", "EINTR", "EOPNOTSUPP", "ENETDOWN"] {
        let server = start_with(backend, &format!("accept,accept4:error={errno}:when=1+2"));
        for _ in 0..5 {
            let mut client = server.connect();
            client.echo(100);
            client.finish();
        }
        let counters = server.finish();
        assert!(counters.of("accept_errors") >= 5, "{errno}: {counters:?}");
        assert_eq!(counters.of("accept_pauses"), 0, "{errno}");
    }
}

/// An error of accept that leaves the connection where it was, and one that is to be tried again
/// but never ends: the loop rests from accepting, serves whom it has, and hears the stop signal.
fn refused_accepts(backend: &Backend) {
    for errno in ["EPERM", "ENETDOWN"] {
        // The first connection is accepted.
        let server = start_with(backend, &format!("accept,accept4:error={errno}:when=2+"));
        let mut first = server.connect();
        server.wait_for("open", 1);
        let waiting = server.connect();
        eventually(
            "accepting rests",
            || server.counters().of("accept_pauses"),
            |pauses| *pauses > 0,
        );
        if backend.echoes {
            (0..20).for_each(|_| first.echo(1000));
        }
        server.wait_until_quiet();
        assert_eq!(server.counters().of("open"), 1);
        server.signal(libc::SIGTERM);
        first.receiver.receive_to_end();
        drop((first, waiting));
        let counters = server.wait().in_order();
        let (errors, pauses) = (counters.of("accept_errors"), counters.of("accept_pauses"));
        let each = if errno == "EPERM" { 1 } else { 17 };
        assert!(
            errors >= each && errors <= each * (pauses + 1),
            "{errno}: {errors} errors, {pauses} pauses"
        );
    }
}

/// A listener that can be used no longer ends the worker, in words.
fn unusable_listener(backend: &Backend) {
    let server = start_with(backend, "accept,accept4:error=EBADF:when=1");
    // It may be reset before it has heard that it is connected.
    let _ = Client::try_connect(server.address());
    let ended = server.wait();
    assert_eq!(ended.status.code(), Some(1), "{}: {}", ended.status, ended.complaints);
    assert!(ended.complaints.contains("worker 0: accept: "), "{}", ended.complaints);
}

/// A start that fails names the call, and the limit that it may have met.
fn refused_set_up(backend: &Backend) {
    let name = &*backend.name;
    // All backends share these: one is enough.
    let of_all: &[(&str, &str)] = &[
        (
            "socket:error=EMFILE",
            "socket: Too many open files (os error 24): no more files may be open; raise `ulimit \
             -n`",
        ),
        ("socket:error=ENFILE", "fs.file-max"),
        ("bind:error=EADDRINUSE", "bind: Address already in use"),
        ("listen:error=ENOBUFS", "listen: No buffer space"),
        ("unshare:error=EMFILE", "unshare(CLONE_FILES): Too many open files"),
        ("unshare:error=ENOMEM", "unshare(CLONE_FILES): Cannot allocate memory"),
        (
            "eventfd2:error=EMFILE",
            "eventfd: Too many open files (os error 24): no more files may be open",
        ),
        ("signalfd4:error=ENFILE", "signalfd: Too many open files in system"),
        ("clone3,clone:error=EAGAIN", "start worker 0: pthread_create: "),
        ("clone3,clone:error=EAGAIN", "`ulimit -u`"),
    ];
    let own: &[(&str, &str)] = match name {
        "poll" => of_all,
        _ if name.starts_with("epoll") => &[
            ("epoll_create1:error=EMFILE", "epoll_create1: Too many open files"),
            (
                "epoll_ctl:error=ENOSPC",
                "epoll_ctl: No space left on device (os error 28): epoll may watch no more",
            ),
        ],
        _ if name.starts_with("uring") => &[
            (
                "io_uring_setup:error=EMFILE",
                "io_uring_setup: EMFILE: no file descriptor is free; see `ulimit -n`",
            ),
            ("io_uring_setup:error=ENOMEM", "io_uring_setup: ENOMEM: "),
        ],
        _ => &[],
    };
    for (what, words) in own {
        let inject = format!("inject={what}");
        let mut refused = under_strace(&["-o", "/dev/null", "-e", &inject], &command(name, &[]));
        let output = refused.stdin(Stdio::null()).output().expect("the server starts");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {}: {complaint}", output.status);
        assert!(
            complaint.lines().count() == 1 && complaint.contains(words),
            "{what}: `{words}` in: {complaint}"
        );
    }
}

/// The last line cannot be written: the disk is full.
fn last_line_is_lost(backend: &Backend) {
    // The first thread writes the ready line, the stop signal and that.
    let server = start_with(backend, "write:error=ENOSPC:when=3");
    server.signal(libc::SIGTERM);
    let ended = server.wait();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.status);
    assert_eq!(
        ended.complaints,
        "ringmark-server: write to stdout: No space left on device (os error 28)\n"
    );
}

/// Whichever call fails, at most one connection ends by it, and nothing of that one stays behind.
fn failing_registrations(backend: &Backend) {
    // The first calls are those for the stop signal and the listener: without these there is no
    // server.
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
        assert_eq!(
            end.of("bytes_received"),
            end.of("bytes_sent") + end.of("bytes_abandoned"),
            "{what}"
        );
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
    assert_eq!(
        (counters.of("open"), counters.of("closed"), counters.of("accept_pauses")),
        (2, 1, 1)
    );
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
