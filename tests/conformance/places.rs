//! The same cases where a server listens on IPv6, or on a Unix socket.

use super::{Case, echo, survives};
use crate::support::{Backend, Place, eventually};
use std::fs;
use std::path::PathBuf;

/// Each place, and the cases that are run there: those that ask how a socket fills, ends and comes
/// back. A Unix socket has buffers of its own sizes, no urgent data, and resets only what was not
/// read.
pub const PLACES: &[(Place, &str, &[&str])] = &[
    (
        Place::Ipv6,
        "ipv6",
        &["one_echo", "large_message", "half_close", "reset_in_mid_message", "drain_under_load"],
    ),
    (
        Place::Unix,
        "unix",
        &[
            "one_echo",
            "every_length_around_buffers",
            "joined_messages",
            "large_message",
            "many_connections",
            "half_close",
            "reset_in_mid_message",
            "reset_with_data_owed",
            "peer_gone_before_the_echo",
            "fd_reuse",
            "files_come_back",
            "many_slow_readers",
            "connect_storm",
            "drain_idle_peers",
            "drain_slow_readers",
            "the_file_goes_with_the_server",
        ],
    ),
];

/// Cases of a Unix socket alone.
pub const CASES: &[Case] = &[echo("the_file_goes_with_the_server", the_file_goes)];

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
