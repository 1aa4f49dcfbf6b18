//! Every backend through the same cases: bytes come back as they went, whatever the peers do.
//!
//! A trial is one case on one backend; the backends come from `ringmark-server --list --json`. Each trial
//! starts a server of its own on free ports. The faults of the document's listings that can be seen from
//! outside are each held by a case on `epoll-document`:
//!
//! | fault of the listing | case |
//! |---|---|
//! | all fds of a block share one event | `many_connections` |
//! | the listening fd's event taken for the accepted one's | `many_connections` |
//! | close() without or before EPOLL_CTL_DEL | `fd_reuse` |
//! | listeners looked up in the first block only | `listeners_beyond_one_block` |
//! | the rest of a partial send dropped, EAGAIN taken for the end | `large_message`, `slow_reader` |
//! | EINTR taken for the end | `interrupted_waits` |
//! | SIGPIPE | `peer_gone_before_the_echo` |
//! | bind() unchecked | `port_in_use` in `tests/errors.rs` |
//! | accept() spins when files run out | `out_of_files` |
//! | blocks freed while they are walked, no way out of the loop | `many_connections`: it ends in order with several blocks |

#[path = "../support/mod.rs"]
mod support;

mod bytes;
mod draining;
mod leaving;
mod pressure;
mod workers;

use libtest_mimic::{Arguments, Trial};
use support::{Backend, Server, eventually};

/// One case.
struct Case {
    name: &'static str,
    /// Whether it needs a server that returns what it is sent.
    echoes: bool,
    body: fn(&Backend),
}

/// A case for the servers that echo.
const fn echo(name: &'static str, body: fn(&Backend)) -> Case {
    Case { name, echoes: true, body }
}

/// A case for every server.
const fn any(name: &'static str, body: fn(&Backend)) -> Case {
    Case { name, echoes: false, body }
}

fn main() {
    let arguments = Arguments::from_args();
    support::raise_open_files();
    let mut trials: Vec<Trial> = Vec::new();
    for backend in support::backends() {
        let cases = [bytes::CASES, leaving::CASES, pressure::CASES, workers::CASES, draining::CASES];
        let fitting = cases.into_iter().flatten().filter(|case| backend.echoes || !case.echoes);
        trials.extend(fitting.map(|case| support::trial(&backend, case.name, None, case.body)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// Runs `body` against a fresh server beside a connection that it must leave unharmed, and checks what must
/// hold after anything that peers do: the witness still gets its bytes, all else is closed and its files
/// are given back, the loop rests, and the server ends in order with books that balance.
fn survives(backend: &Backend, body: impl FnOnce(&Server)) {
    let server = Server::start(&backend.name, &[]);
    let files_without_connections = server.fd_count();
    let mut witness = server.connect();
    if backend.echoes {
        witness.echo(1000);
    }
    server.wait_for("open", 1);
    let files = server.fd_count();
    assert!(
        files > files_without_connections || backend.name.contains("direct"),
        "a connection takes a file"
    );

    body(&server);

    if backend.echoes {
        witness.echo(1000);
    }
    server.wait_for("open", 1);
    eventually("the open files are those before", || server.fd_count(), |count| *count == files);
    server.wait_until_quiet();
    drop(witness);
    server.wait_for("open", 0);
    let end = server.finish();
    assert_eq!(end.of("bytes_received"), end.of("bytes_sent") + end.of("bytes_abandoned"));
}
