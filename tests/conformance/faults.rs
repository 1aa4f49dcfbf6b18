//! Faults that come in numbers: storms of connections and resets, signals in every wait, a client
//! that is killed, and queues and buffers far too small for what arrives at once.

use super::{Case, echo, has_knob, outlives, survives, survives_with};
use crate::support::{Backend, Client, Server, command};
use ringmark::address::Address;
use ringmark::kernel;
use std::env;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub const CASES: &[Case] = &[
    echo("four_buffers_for_two_hundred", four_buffers_for_two_hundred).for_knob("buffers"),
    echo("buffers_for_a_thousand", buffers_for_a_thousand).for_knob("buffers"),
    echo("buffers_come_back", buffers_come_back).for_knob("buffers"),
    echo("completion_queue_overflows", completion_queue_overflows).for_knob("cq_entries"),
    echo("submission_queue_full", submission_queue_full).for_knob("sq_entries"),
    echo("reset_storm", reset_storm),
    echo("connect_storm_beyond_the_backlog", connect_storm_beyond_the_backlog),
    echo("client_killed", client_killed),
    echo("signals_in_every_wait", signals_in_every_wait),
    echo("short_connections", short_connections),
];

/// Lets all `clients` send at once, as the server sees it, and takes everything back.
fn burst(server: &Server, clients: &mut [Client], bytes: impl Fn(usize) -> usize) {
    server.pause();
    clients.iter_mut().enumerate().for_each(|(index, client)| client.sender.send(bytes(index)));
    server.resume();
    clients.iter_mut().for_each(Client::receive_owed);
}

/// 200 inputs that are there at once find 4 buffers.
fn four_buffers_for_two_hundred(backend: &Backend) {
    survives_with(backend, &["--set=buffers=4"], |server| {
        let mut clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
        server.wait_for("accepted", 201);
        for round in 1..=5 {
            burst(server, &mut clients, |index| index * round % 2000 + 1);
        }
        assert!(server.counters().of("no_buffers") > 0, "buffers never ran out");
        clients.into_iter().for_each(Client::finish);
        all_buffers_are_there(backend, server, 4);
    });
}

/// A thousand inputs that are there at once, of which the kernel tells at once, find the buffers
/// that there are by default, while those before them are being sent.
fn buffers_for_a_thousand(backend: &Backend) {
    // A submission thread is told of no bursts.
    if !has_knob(backend, "task_run") {
        return;
    }
    let bursts =
        [&["--set=task_run=coop"][..], &["--set=min_wait_us=5000", "--set=min_wait_events=1000"]];
    for settings in bursts {
        // Kernels before 6.12 refuse min_wait_us.
        let server = match Server::launch(command(&backend.name, settings)).ready_or_refused() {
            Ok(server) => server,
            Err(reason) => return eprintln!("{} {settings:?}: skipped: {reason}", backend.name),
        };
        outlives(backend, server, |server| {
            let mut clients: Vec<Client> = (0..999).map(|_| server.connect()).collect();
            server.wait_for("accepted", 1000);
            (0..2).for_each(|_| burst(server, &mut clients, |_| 64));
            assert_eq!(server.counters().of("no_buffers"), 0, "{settings:?}");
            clients.into_iter().for_each(Client::finish);
        });
    }
}

/// Few enough that the loop gets inputs for all of them in one turn: the kernel hands over 20 at a
/// time.
const FEW_BUFFERS: usize = 16;

/// As many inputs at once as there are buffers find one each. One that was not given back would be
/// missed.
fn all_buffers_are_there(backend: &Backend, server: &Server, buffers: usize) {
    // The kernel ends a receive of bundles that has taken the last buffer, and the next misses one
    // at once. Linux 6.1 looks for a buffer after each input, even if it was the last.
    let asks_early = backend.name == "uring-bundle" || kernel::version() < (6, 12);
    let count = if asks_early { buffers - 1 } else { buffers };
    let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
    for _ in 0..3 {
        // After that no receive waits for a buffer, and no buffer is in use.
        clients.iter_mut().for_each(|client| client.echo(1));
        // The buffer of the last echo is given back when the loop wakes up again.
        server.pause();
        server.resume();
        server.wait_until_quiet();
        let before = server.counters().of("no_buffers");
        burst(server, &mut clients, |_| 50);
        let missed = server.counters().of("no_buffers") - before;
        assert_eq!(missed, 0, "inputs of {count} that found no buffer");
    }
    clients.into_iter().for_each(Client::finish);
}

/// However a connection ends, and whatever it is owed then, its buffers are given back.
fn buffers_come_back(backend: &Backend) {
    let setting = format!("--set=buffers={FEW_BUFFERS}");
    survives_with(backend, &[&setting], |server| {
        let leave: [fn(Client); 5] = [
            Client::finish,
            drop,
            Client::reset,
            |client| client.sender.finish(),
            |mut client| {
                client.sender.send_until_stalled(8 << 20);
                client.reset();
            },
        ];
        for round in 0..10 {
            // More than there are buffers, so that some wait for one when they leave.
            let mut clients: Vec<Client> = (0..3 * FEW_BUFFERS).map(|_| server.connect()).collect();
            server.pause();
            clients.iter_mut().for_each(|client| client.sender.send(30_000));
            server.resume();
            for (index, client) in clients.into_iter().enumerate() {
                // Stalling takes its time.
                let ways = if index == 0 { 5 } else { 4 };
                leave[(index + ways - 1 + round) % ways](client);
            }
        }
        server.wait_for("open", 1);
        all_buffers_are_there(backend, server, FEW_BUFFERS);
    });
}

/// Hundreds of completions at once in a queue of two.
fn completion_queue_overflows(backend: &Backend) {
    survives_with(backend, &["--set=sq_entries=1", "--set=cq_entries=2"], |server| {
        let mut clients: Vec<Client> = (0..300).map(|_| server.connect()).collect();
        server.wait_for("accepted", 301);
        let before = server.counters().of("cq_overflows");
        for round in 1..=5 {
            burst(server, &mut clients, |index| index * round % 3000 + 1);
        }
        assert!(
            server.counters().of("cq_overflows") > before,
            "the completion queue never overflowed"
        );
        clients.into_iter().for_each(Client::finish);
    });
}

/// Hundreds of requests in one turn through a submission queue of one: each must wait for the one
/// before it.
fn submission_queue_full(backend: &Backend) {
    survives_with(backend, &["--set=sq_entries=1"], |server| {
        let mut clients: Vec<Client> = (0..300).map(|_| server.connect()).collect();
        server.wait_for("accepted", 301);
        let before = server.counters();
        for round in 1..=5 {
            burst(server, &mut clients, |index| index * round % 3000 + 1);
        }
        let enters = server.counters().calls_since(&before)["io_uring_enter"];
        // A submission thread may have taken one before the next comes.
        assert!(
            enters >= 5 * 300 / 2,
            "{enters} enters for a send to each of 300 clients, five times"
        );
        clients.into_iter().for_each(Client::finish);
    });
}

/// A sequence that looks random and is the same in every run (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize % bound
    }
}

/// Thousands of connections, each reset at some moment: before it said anything, in the middle of
/// its input, in the middle of its echo, or after.
fn reset_storm(backend: &Backend) {
    survives(backend, |server| {
        let address = server.address();
        let storm = |seed: u64| {
            let mut dice = Dice(seed);
            for _ in 0..8 {
                let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(address)).collect();
                while !clients.is_empty() {
                    let mut client = clients.swap_remove(dice.below(clients.len()));
                    let bytes = dice.below(4) * dice.below(8000);
                    client.sender.send(bytes);
                    match dice.below(3) {
                        0 => client.receiver.receive(dice.below(bytes + 1)),
                        1 => client.sender.finish(),
                        _ => {}
                    }
                    client.reset();
                }
            }
        };
        let mut beside = server.connect();
        thread::scope(|scope| {
            (1..=4).for_each(|seed| drop(scope.spawn(move || storm(seed))));
            (0..20).for_each(|_| beside.exchange(50_000));
        });
        beside.finish();
    });
}

/// 5,000 clients at once, more than the queue of the listener holds. The kernel drops what they ask
/// for beyond that, and they ask again after a second.
fn connect_storm_beyond_the_backlog(backend: &Backend) {
    const CLIENTS: usize = 5000;
    const BEYOND: usize = 900;
    let count = CLIENTS.max(super::accept_queue() + BEYOND);
    survives(backend, |server| {
        server.pause();
        let mut clients: Vec<Client> =
            (0..count).map(|_| Client::begin_to_connect(server.address())).collect();
        server.resume();
        // If not all can be open at once, those that are done must make room. In the order in which
        // they came; what came later than the queue took has none, but is less than any server can
        // hold.
        let at_once =
            backend.descriptors_per_worker.map_or(clients.len(), |most| most as usize / 2);
        while !clients.is_empty() {
            let mut wave: Vec<Client> = clients.drain(..at_once.min(clients.len())).collect();
            wave.iter_mut().for_each(|client| client.sender.send(100));
            wave.iter_mut().for_each(Client::receive_owed);
        }
    });
}

/// Set for a copy of this program that is a client to be killed: the server's address.
const CLIENT_OF: &str = "RINGMARK_CLIENT_OF";

/// Becomes the client of [`client_killed`] if this process was started as one.
pub fn be_the_client_to_be_killed() {
    let Ok(address) = env::var(CLIENT_OF) else { return };
    let address: Address = address.parse().expect("an address");
    let clients: Vec<Client> = (0..8).map(|_| Client::connect(&address)).collect();
    let echoed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for mut client in clients {
            let echoed = &echoed;
            scope.spawn(move || {
                loop {
                    client.exchange(300_000);
                    if echoed.fetch_add(1, Ordering::Relaxed) == 16 {
                        println!("in the middle of it");
                    }
                }
            });
        }
    });
}

/// A process that ends with all its transfers under way, and can say nothing.
fn client_killed(backend: &Backend) {
    survives(backend, |server| {
        let mut beside: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        for _ in 0..3 {
            let mut command = Command::new(env::current_exe().expect("the path of this program"));
            command.env(CLIENT_OF, server.address().to_string()).stdout(Stdio::piped());
            let mut client = command.spawn().expect("a second process of this program");
            let mut said = String::new();
            let stdout = client.stdout.take().expect("stdout is piped");
            BufReader::new(stdout).read_line(&mut said).expect("a line of the client");
            beside.iter_mut().for_each(|other| other.sender.send(3000));
            let open = server.counters().of("open");
            client.kill().expect("SIGKILL");
            client.wait().expect("it is reaped");
            assert_eq!((said.trim_end(), open), ("in the middle of it", 13));
            beside.iter_mut().for_each(Client::receive_owed);
            server.wait_for("open", 5);
        }
        beside.into_iter().for_each(Client::finish);
    });
}

/// Counters asked for and the process stopped and continued, over and over, while data goes back
/// and forth.
fn signals_in_every_wait(backend: &Backend) {
    survives(backend, |server| {
        let clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
        thread::scope(|scope| {
            let exchanges: Vec<_> = clients
                .into_iter()
                .enumerate()
                .map(|(index, mut client)| {
                    scope.spawn(move || {
                        // Half of them keep the server busy, and half of them wait for every byte.
                        for _ in 0..if index % 2 == 0 { 15 } else { 300 } {
                            if index % 2 == 0 { client.exchange(200_000) } else { client.echo(100) }
                        }
                        client.finish();
                    })
                })
                .collect();
            for round in 0.. {
                server.counters();
                if round % 4 == 0 {
                    server.pause();
                    server.resume();
                }
                if round >= 100 && exchanges.iter().all(|exchange| exchange.is_finished()) {
                    break;
                }
            }
        });
    });
}

/// Many connections that live for one echo each: no file, buffer or memory of them may stay.
/// `RINGMARK_FULL=1` makes them 100,000; without it there are 8,000, for which a developer can
/// wait.
fn short_connections(backend: &Backend) {
    const THREADS: usize = 4;
    let full = env::var_os("RINGMARK_FULL").is_some_and(|value| value == "1");
    let half = if full { 50_000 } else { 4_000 };
    let few_buffers = has_knob(backend, "buffers");
    let setting = format!("--set=buffers={FEW_BUFFERS}");
    let settings: &[&str] = if few_buffers { &[&setting] } else { &[] };
    survives_with(backend, settings, |server| {
        let address = server.address();
        let run_half = || {
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    scope.spawn(move || {
                        for index in 0..half / THREADS {
                            // One source address has not enough ports for all that have just been
                            // used.
                            let source =
                                Ipv4Addr::new(127, 0, 0, 2 + (index % 4 * THREADS + thread) as u8);
                            let mut client = Client::connect_from(source, address);
                            client.echo(1 + index % 64);
                            if index % 4 == 0 { client.reset() } else { drop(client) }
                        }
                    });
                }
            });
            server.wait_for("open", 1);
            server.resident_bytes()
        };
        let first = run_half();
        let second = run_half();
        assert!(second <= first + (1 << 20), "memory grew from {first} to {second} bytes");
        assert_eq!(server.counters().of("accepted"), 2 * half as u64 + 1);
        if few_buffers {
            all_buffers_are_there(backend, server, FEW_BUFFERS);
        }
    });
}
