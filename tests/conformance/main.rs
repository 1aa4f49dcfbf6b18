//! Every backend through the same cases: bytes come back as they went, whatever the peers do.
//!
//! A trial is one case on one backend; the backends come from `ringmark-server --list --json`. Each
//! trial starts a server of its own on free ports. The faults of the document's listings that can
//! be seen from outside are each held by a case on `epoll-document`:
//!
//! | fault | case |
//! |---|---|
//! | 1, all descriptors of a block share one event | `many_connections` |
//! | 2, the listening descriptor's event taken for the accepted one's | `many_connections` |
//! | 3, close() without or before EPOLL_CTL_DEL | `fd_reuse` |
//! | 4, listeners looked up in the first block only | `listeners_beyond_one_block` |
//! | 5, a partial send drops the rest | `short_send` in `tests/failing_calls.rs` |
//! | 5, EAGAIN closes the connection | `calls_to_be_tried_again` in `tests/failing_calls.rs` |
//! | 5, EINTR taken for the end | `interrupted_waits` |
//! | 6, SIGPIPE | `peer_gone_before_the_echo` |
//! | 7, a block's link read after it was freed; 12, no way out of the loop | `many_connections` ends in order with several blocks |
//! | 8, bind() unchecked | `port_in_use` in `tests/errors.rs` |
//! | 9, a failing add or fcntl leaks the descriptor | `failing_registrations` in `tests/failing_calls.rs` |
//! | 11, accept() spins when files run out | `out_of_files` |
//!
//! Two cannot be seen in traffic. Linux reports EPOLLOUT only while a third of the send buffer is
//! free, so a send of 1024 bytes after it is never partial and never EAGAIN: strace(1) has to feign
//! both. And TCP never reports EPOLLERR or EPOLLHUP without EPOLLIN and EPOLLOUT, so their neglect
//! (11) changes nothing.
//!
//! | variable | effect |
//! |---|---|
//! | `RINGMARK_FULL=1` | `short_connections` takes 100,000 on each backend instead of 8,000 |
//! | `RINGMARK_PATIENCE=N` | a wait lasts N seconds at most instead of 60 |

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod bytes;
mod draining;
mod faults;
mod knobs;
mod leaving;
mod pressure;
mod services;
mod starting;
mod variants;
mod workers;

use libtest_mimic::{Arguments, Trial};
use ringmark::listener::BACKLOG;
use std::fs;
use std::num::NonZero;
use std::thread;
use support::{Backend, Place, Server, eventually};
use variants::{VARIANTS, Variant};

/// One case.
struct Case {
    name: &'static str,
    /// The server that it needs: one that echoes, one that does not, or either.
    echoes: Option<bool>,
    /// Descriptors that a worker must be able to hold.
    descriptors: u64,
    /// A knob that the backend must have.
    knob: Option<&'static str>,
    /// A backend that cannot be held to it, and why.
    exception: Option<(&'static str, &'static str)>,
    body: fn(&Backend),
}

impl Case {
    /// The same for those backends whose workers can hold so many descriptors.
    const fn with_descriptors(self, descriptors: u64) -> Self {
        Self { descriptors, ..self }
    }

    /// The same for those backends that have this knob.
    const fn for_knob(self, knob: &'static str) -> Self {
        Self { knob: Some(knob), ..self }
    }

    /// The same for all but one backend, for a reason that lies in the kernel.
    const fn except(self, backend: &'static str, reason: &'static str) -> Self {
        Self { exception: Some((backend, reason)), ..self }
    }

    /// Whether it is about backends such as this one.
    fn fits(&self, backend: &Backend) -> bool {
        self.echoes.is_none_or(|echoes| echoes == backend.echoes)
            && self.knob.is_none_or(|name| has_knob(backend, name))
    }

    /// Why `backend` cannot be put through it.
    fn obstacle(&self, backend: &Backend) -> Option<String> {
        if let Some((_, reason)) = self.exception.filter(|(name, _)| *name == backend.name) {
            return Some(reason.to_owned());
        }
        let most = backend.descriptors_per_worker.filter(|most| *most < self.descriptors)?;
        Some(format!("a worker holds {most} descriptors, and this takes {}", self.descriptors))
    }
}

/// A case for the servers that return what they are sent.
const fn echo(name: &'static str, body: fn(&Backend)) -> Case {
    Case { name, echoes: Some(true), descriptors: 0, knob: None, exception: None, body }
}

/// A case for those that do not.
const fn mute(name: &'static str, body: fn(&Backend)) -> Case {
    Case { name, echoes: Some(false), descriptors: 0, knob: None, exception: None, body }
}

/// A case for every server.
const fn any(name: &'static str, body: fn(&Backend)) -> Case {
    Case { name, echoes: None, descriptors: 0, knob: None, exception: None, body }
}

fn main() {
    faults::be_the_client_to_be_killed();
    let mut arguments = Arguments::from_args();
    // Most of what a case does is to wait.
    let parallel = thread::available_parallelism().map_or(1, NonZero::get);
    arguments.test_threads.get_or_insert(4 * parallel);
    support::raise_open_files();
    let lists = [
        bytes::CASES,
        leaving::CASES,
        pressure::CASES,
        faults::CASES,
        knobs::CASES,
        batches::CASES,
        workers::CASES,
        starting::CASES,
        draining::CASES,
        services::CASES,
    ];
    let mut trials: Vec<Trial> = Vec::new();
    for backend in support::backends() {
        let fitting = lists.into_iter().flatten().filter(|case| case.fits(&backend));
        trials.extend(
            fitting.clone().map(|case| {
                support::trial(&backend, case.name, case.obstacle(&backend), case.body)
            }),
        );
        for variant in VARIANTS {
            let Variant { name, place, settings, fits, cases } = *variant;
            if !fits(&backend) {
                continue;
            }
            let backend = Backend { place, settings, ..backend.clone() };
            let own = variants::CASES.iter().filter(|case| case.fits(&backend));
            let chosen = fitting.clone().chain(own).filter(|case| cases.contains(&case.name));
            trials.extend(chosen.map(|case| {
                let obstacle = case.obstacle(&backend).or_else(|| place.obstacle());
                support::trial(&backend, &format!("{name}::{}", case.name), obstacle, case.body)
            }));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    Place::clean_up();
    conclusion.exit();
}

fn has_knob(backend: &Backend, name: &str) -> bool {
    backend.knobs.iter().any(|knob| knob.name == name)
}

/// Connections that a listener's queue holds.
fn accept_queue() -> usize {
    let most =
        fs::read_to_string("/proc/sys/net/core/somaxconn").expect("a bound of accept queues");
    let most: usize = most.trim().parse().expect("a number");
    most.min(BACKLOG as usize)
}

/// [`outlives`] for a fresh server with its defaults.
fn survives(backend: &Backend, body: impl FnOnce(&Server)) {
    survives_with(backend, &[], body);
}

/// [`outlives`] for one that is started with these arguments.
fn survives_with(backend: &Backend, arguments: &[&str], body: impl FnOnce(&Server)) {
    outlives(backend, backend.start(arguments), body);
}

/// Runs `body` against a fresh server beside a connection that it must leave unharmed, and checks
/// what must hold after anything that peers do: the witness still gets its bytes, all else is
/// closed and its files are given back, the loop rests, and the server ends in order with books
/// that balance.
fn outlives(backend: &Backend, server: Server, body: impl FnOnce(&Server)) {
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
    server.finish();
}
