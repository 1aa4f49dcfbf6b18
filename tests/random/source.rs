//! One seed against one backend that sends without being asked: peers that come, take some, stall
//! and leave as the seed decides, and then the same end for all.

use crate::knobs;
use crate::stage::{self, Diary};
use crate::support::{Backend, Client, Server, Sizes, side_by_side};
use fastrand::Rng;
use std::cell::RefCell;
use std::thread;

/// Connections at a time: the kernel holds megabytes for each that takes nothing.
const MOST_PEERS: usize = 30;

/// The most that a peer takes in one step, in bytes and in the server's writes. A server that rests
/// in every wait makes a thousand writes a second.
const MOST_TAKEN: u64 = 300_000;
const MOST_WRITES: u64 = 1000;

struct Play<'a> {
    diary: &'a RefCell<Diary>,
    rng: Rng,
    server: Server,
    sizes: Sizes,
    /// Open files of the server with no connection.
    files: usize,
    peers: Vec<Client>,
}

/// Plays a seed.
pub fn play(backend: &Backend, seed: u64, diary: &RefCell<Diary>) {
    let mut rng = Rng::with_seed(seed);
    let sizes = Sizes(0, 10_f64.powf(6.0 * rng.f64()) as u64);
    let server = stage::launch(backend, diary, || {
        let mut arguments = vec!["--drain-seconds=30".to_owned()];
        // Without zero_copy: the kernel takes half a minute to hand on what slow readers left.
        arguments.extend(knobs::draw(backend.knobs_of_echo(), &mut rng));
        arguments.extend(sizes.arguments());
        arguments
    });
    let files = server.fd_count();
    let mut play = Play { diary, rng, server, sizes, files, peers: Vec::new() };
    for _ in 0..play.rng.u32(20..80) {
        play.step();
    }
    if play.rng.bool() { play.end_in_mid_traffic() } else { play.end_at_rest() }
}

impl Play<'_> {
    fn note(&self, action: String) {
        self.diary.borrow_mut().note(action);
    }

    fn step(&mut self) {
        self.diary.borrow_mut().tally.steps += 1;
        let action = self.rng.u32(..20);
        if self.peers.is_empty() || action < 6 {
            return self.connect();
        }
        let index = self.rng.usize(..self.peers.len());
        let most = (self.sizes.1 * MOST_WRITES).min(MOST_TAKEN);
        let bytes = (most as f64).powf(self.rng.f64()) as usize;
        match action {
            6..13 => {
                self.note(format!("take {bytes} of {index}"));
                self.peers[index].receiver.receive(bytes);
            }
            13..18 => self.leave(index),
            18 => {
                let signals = self.rng.usize(5..100);
                self.note(format!("storm {signals}"));
                self.server.storm(signals);
            }
            _ => {
                self.note(format!("resets to a stopped server, {index}"));
                self.server.pause();
                self.connect();
                self.peers.swap_remove(index).reset();
                self.server.resume();
            }
        }
    }

    fn connect(&mut self) {
        if self.peers.len() == MOST_PEERS {
            return self.leave(0);
        }
        let is_narrow = self.rng.u32(..4) == 0;
        self.note(format!("connect{}", if is_narrow { ", narrow" } else { "" }));
        self.diary.borrow_mut().tally.connections += 1;
        let connect = if is_narrow { Client::connect_narrow } else { Client::connect };
        self.peers.push(connect(self.server.address()).greeting(Some(self.sizes)));
    }

    fn leave(&mut self, index: usize) {
        let how = self.rng.u32(..3);
        self.note(format!("leave {index} by {how}"));
        let peer = self.peers.swap_remove(index);
        self.diary.borrow_mut().tally.bytes += peer.receiver.bytes;
        match how {
            0 => drop(peer),
            1 => peer.reset(),
            _ => {
                peer.sender.finish();
                self.take_the_rest(peer);
            }
        }
    }

    /// Takes all that comes, whole writes.
    fn take_the_rest(&self, mut peer: Client) {
        let before = peer.receiver.bytes;
        let received = peer.receiver.receive_to_end();
        assert_eq!(received % self.sizes.1, 0, "it ends with a whole write");
        self.diary.borrow_mut().tally.bytes += received - before;
    }

    /// All leave, each in its way; then nothing of them may be left, and the server ends.
    fn end_at_rest(mut self) {
        while !self.peers.is_empty() {
            self.leave(0);
        }
        let connections = self.diary.borrow().tally.connections;
        let end = stage::end_at_rest(self.server, self.files, self.diary);
        assert_eq!((end.of("accepted"), end.of("mismatches")), (connections, 0), "{end:?}");
    }

    /// SIGTERM while all of them take: each write that was begun reaches them whole.
    fn end_in_mid_traffic(self) {
        let Self { diary, server, sizes, mut peers, .. } = self;
        let connections = diary.borrow().tally.connections;
        server.wait_for("accepted", connections);
        server.wait_for("open", peers.len() as u64);
        let abandoned = server.counters().of("bytes_abandoned");
        diary.borrow_mut().note("SIGTERM".to_owned());
        let end = thread::scope(|scope| {
            let end = scope.spawn(|| server.terminate().well());
            side_by_side(&mut peers, |peer| {
                let received = peer.receiver.receive_to_end();
                assert_eq!(received % sizes.1, 0, "it ends with a whole write");
            });
            drop(peers);
            end.join().expect("it ends in order")
        });
        assert_eq!(end.of("bytes_abandoned"), abandoned, "abandoned at the end and before SIGTERM");
        assert_eq!((end.of("accepted"), end.of("mismatches")), (connections, 0), "{end:?}");
    }
}
