//! Answers that wait for the end of a batch, where a backend can be told to hold them back.

use super::{Case, echo, survives_with};
use crate::support::{Backend, Client, Server, eventually};

pub const CASES: &[Case] = &[
    echo("answers_leave_when_they_should", answers_leave_when_they_should).for_knob("send"),
    echo("peers_leave_in_mid_batch", peers_leave_in_mid_batch).for_knob("send"),
];

const MESSAGE: usize = 100;

/// The point in a batch after which answers are owed: after each input, or after all of them.
fn answers_leave_when_they_should(backend: &Backend) {
    // Enough to look many times while a batch is worked through.
    let work = "--set=work_ns=20000000";
    survives_with(backend, &["--set=send=at-once", work], |server| {
        let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
        let most = (0..3).map(|_| most_owed_in_a_burst(server, &mut clients)).max();
        assert!(most <= Some(MESSAGE as u64), "{most:?} bytes were owed at once");
        clients.into_iter().for_each(Client::finish);
    });
    survives_with(backend, &["--set=send=after-batch", work], |server| {
        let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
        eventually(
            "half of the answers are owed at once",
            || most_owed_in_a_burst(server, &mut clients),
            |most| *most >= 4 * MESSAGE as u64,
        );
        clients.into_iter().for_each(Client::finish);
    });
}

/// The most that was owed at any moment, as far as one looked, while the server answers all
/// `clients`.
fn most_owed_in_a_burst(server: &Server, clients: &mut [Client]) -> u64 {
    // A worker counts what it has sent a little after its peer may have it.
    let before = eventually(
        "nothing is owed",
        || server.counters(),
        |counters| counters.of("bytes_received") == counters.of("bytes_sent"),
    );
    let all = before.of("bytes_received") + (clients.len() * MESSAGE) as u64;
    server.pause();
    clients.iter_mut().for_each(|client| client.sender.send(MESSAGE));
    server.resume();
    let mut most = 0;
    loop {
        let counters = server.counters();
        let received = counters.of("bytes_received");
        // Read one after the other: the second may be the newer.
        most = most.max(received.saturating_sub(counters.of("bytes_sent")));
        if received == all {
            break;
        }
    }
    clients.iter_mut().for_each(Client::receive_owed);
    most
}

/// Some leave before the server reads what they sent, and some while their answers are held. Others
/// come meanwhile, and get the descriptors of the former. The buffer is full in mid-batch too, and
/// some messages do not fit into it.
fn peers_leave_in_mid_batch(backend: &Backend) {
    let settings = ["--set=send=after-batch", "--set=receive_bytes=4096", "--set=work_ns=200000"];
    survives_with(backend, &settings, |server| {
        let mut clients: Vec<Client> = (0..64).map(|_| server.connect()).collect();
        for round in 0..12 {
            clients.iter_mut().for_each(|client| client.echo(10));
            let received = || server.counters().of("bytes_received");
            let begun = received();
            server.pause();
            for (index, client) in clients.iter_mut().enumerate() {
                client.sender.send(1 + index * 37 * (round % 3 + 1) + index % 7 * 1000);
            }
            let mut leavers = clients.drain(..24).collect::<Vec<_>>().into_iter();
            leavers.by_ref().take(4).for_each(Client::reset);
            let ending: Vec<Client> = leavers.by_ref().take(4).collect();
            ending.iter().for_each(|client| client.sender.finish());
            clients.extend((0..24).map(|_| server.connect()));
            server.resume();
            eventually("it works through what came", received, |bytes| *bytes > begun);
            leavers.by_ref().take(8).for_each(Client::reset);
            leavers.by_ref().take(4).for_each(drop);
            leavers.for_each(Client::finish);
            for mut client in ending {
                assert_eq!(
                    client.receiver.receive_to_end(),
                    client.sender.bytes,
                    "bytes that came back"
                );
            }
            clients.iter_mut().for_each(Client::receive_owed);
        }
        clients.into_iter().for_each(Client::finish);
    });
}
