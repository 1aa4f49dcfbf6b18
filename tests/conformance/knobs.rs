//! Every value that a knob takes must serve: the ends of each range, and all the smallest at once.

use super::{Case, any, echo, survives_with};
use crate::support::{Backend, Client, Server};
use std::thread;

pub const CASES: &[Case] =
    &[any("ends_of_every_range", ends_of_every_range), echo("all_knobs_smallest", all_knobs_smallest)];

fn ends_of_every_range(backend: &Backend) {
    for knob in &backend.knobs {
        for value in [knob.range.start(), knob.range.end()] {
            let setting = format!("{}={value}", knob.name);
            let server = Server::start(&backend.name, &["--set", &setting]);
            assert_eq!(server.ready["knobs"][&knob.name], *value, "{setting}");
            let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
            if backend.echoes {
                clients.iter_mut().for_each(|client| client.sender.send(1000));
                clients.into_iter().for_each(Client::finish);
            }
            server.wait_for("accepted", 3);
            server.wait_for("closed", 3);
            server.finish();
        }
    }
}

/// Queues of one entry, a single small buffer: everything that can run out does.
fn all_knobs_smallest(backend: &Backend) {
    let settings: Vec<String> =
        backend.knobs.iter().map(|knob| format!("--set={}={}", knob.name, knob.range.start())).collect();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    survives_with(backend, &settings, |server| {
        let mut clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
        for round in 0..3 {
            server.pause();
            clients
                .iter_mut()
                .enumerate()
                .for_each(|(index, client)| client.sender.send(1 + index * (round + 1)));
            server.resume();
            clients.iter_mut().for_each(Client::receive_owed);
        }
        // One that takes nothing for now, and others that send much at once.
        let mut slow = server.connect();
        slow.sender.send_until_stalled(64 << 20);
        thread::scope(|scope| {
            for client in &mut clients[..8] {
                scope.spawn(|| client.exchange(200_000));
            }
        });
        slow.reset();
        clients.drain(..50).for_each(Client::reset);
        clients.into_iter().for_each(Client::finish);
    });
}
