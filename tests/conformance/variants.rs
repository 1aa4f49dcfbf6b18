//! The same cases where a server listens on IPv6, or on a Unix socket, or sends without a copy, or
//! has several workers that serve the same connections.

use super::{Case, echo, has_knob, survives};
use crate::support::{Backend, Client, Place, Sizes, eventually};
use std::fs;
use std::path::PathBuf;

/// A way to run cases once more.
pub struct Variant {
    /// Its part of a trial's name.
    pub name: &'static str,
    pub place: Place,
    pub settings: &'static [&'static str],
    /// The backends that have it.
    pub fits: fn(&Backend) -> bool,
    /// The names of its cases.
    pub cases: &'static [&'static str],
}

pub const VARIANTS: &[Variant] = &[
    Variant {
        name: "ipv6",
        place: Place::Ipv6,
        settings: &[],
        fits: |_| true,
        cases: &["one_echo", "large_message", "half_close", "reset_in_mid_message"],
    },
    // A Unix socket has buffers of its own sizes, no urgent data, and resets only what was not
    // read. So here are the cases that ask how a socket fills, ends and comes back.
    Variant {
        name: "unix",
        place: Place::Unix,
        settings: &[],
        fits: |_| true,
        cases: &[
            "one_echo",
            "every_length_around_buffers",
            "joined_messages",
            "large_message",
            "many_connections",
            "half_close",
            "half_close_while_stopped",
            "reset_in_mid_message",
            "reset_with_data_owed",
            "peer_gone_before_the_echo",
            "fd_reuse",
            "files_come_back",
            "many_slow_readers",
            "drain_idle_peers",
            "exchange_ends",
            "exchange_ends_while_stopped",
            "source_until_the_end",
            "the_file_goes_with_the_server",
        ],
    },
    Variant {
        name: "zero_copy",
        place: Place::Ip,
        settings: &["--set", "zero_copy=on"],
        fits: |backend| has_knob(backend, "zero_copy"),
        cases: &[
            "exchange_of_any_sizes",
            "exchange_split_and_joined",
            "exchange_with_slow_readers",
            "exchange_ends",
            "exchange_drains",
            "resets_behind_many_bytes",
            "source_until_the_end",
            "source_with_slow_readers",
            "source_drains",
            "the_kernel_tells_what_it_copied",
        ],
    },
    Variant {
        name: "crew::unix",
        place: Place::Unix,
        settings: &["--workers", "4"],
        fits: |backend| backend.shares_files,
        cases: &["many_connections", "half_close_while_stopped", "fd_reuse", "drain_idle_peers"],
    },
    // One port, whose listener is one worker's.
    Variant {
        name: "crew",
        place: Place::Ip,
        settings: &["--workers", "4", "--ports", "1"],
        fits: |backend| backend.shares_files,
        cases: &[
            "every_length_around_buffers",
            "split_around_buffers",
            "large_message",
            "many_connections",
            "books_balance",
            "half_close",
            "half_close_while_stopped",
            "reset_in_mid_message",
            "reset_with_data_owed",
            "fd_reuse",
            "files_come_back",
            "many_slow_readers",
            "interrupted_waits",
            "out_of_files",
            "full_queue_meets_full_table",
            "connect_storm",
            "reset_storm",
            "connect_storm_beyond_the_backlog",
            "short_connections",
            "idle_ones_first_in_line",
            "newcomers_in_a_flood",
            "others_serve",
            "drain_nothing",
            "drain_idle_peers",
            "drain_deadline",
            "drain_deadline_despite_input",
            "drain_under_load",
            "drain_slow_readers",
            "exchange_of_any_sizes",
            "exchange_with_slow_readers",
            "exchange_ends",
            "exchange_drains",
            "resets_behind_many_bytes",
            "source_until_the_end",
            "source_with_slow_readers",
            "source_drains",
        ],
    },
];

/// Cases that only variants have.
pub const CASES: &[Case] = &[
    echo("the_file_goes_with_the_server", the_file_goes),
    echo("the_kernel_tells_what_it_copied", the_kernel_tells),
    echo("others_serve", others_serve),
];

fn the_file_goes(backend: &Backend) {
    let mut file = PathBuf::new();
    survives(backend, |server| {
        file = server.address().path().expect("a path").to_owned();
        assert!(file.exists(), "a client finds it");
    });
    eventually("the socket's file is gone", || file.exists(), |exists| !exists);

    // One that another has made in its place is not the server's.
    let server = backend.start(&[]);
    file = server.address().path().expect("a path").to_owned();
    fs::remove_file(&file).expect("it can be removed");
    fs::write(&file, "another's").expect("a file");
    server.finish();
    assert!(file.exists(), "the server has removed a file that it did not make");
}

fn the_kernel_tells(backend: &Backend) {
    let sizes = Sizes(100, 100_000);
    let arguments = sizes.arguments();
    let server = backend.start(&Vec::from_iter(arguments.iter().map(String::as_str)));
    let mut client = server.connect().greeting(Some(sizes));
    client.exchange(2000);
    eventually(
        "all sends are told of",
        || server.counters(),
        |counters| counters.of("zero_copies") >= 20,
    );
    let counters = server.counters();
    // No receiver of loopback holds the memory of a sender.
    assert_eq!(counters.of("zero_copies"), counters.of("zero_copies_copied"));
    client.finish();
    server.terminate().well();
}

/// Connections to one port, whose listener is one worker's, are accepted by others too. The kernel
/// wakes who waits, so that not every worker has to have one.
fn others_serve(backend: &Backend) {
    survives(backend, |server| {
        let mut clients = Vec::new();
        eventually(
            "not one worker alone has accepted",
            || {
                let mut client = server.connect();
                client.echo(100);
                clients.push(client);
                server.counters().accepted_by_worker
            },
            |accepted| accepted.iter().filter(|count| **count > 0).count() > 1,
        );
        clients.iter_mut().for_each(|client| client.echo(100));
        clients.into_iter().for_each(Client::finish);
    });
}
