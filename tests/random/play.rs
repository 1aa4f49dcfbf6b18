//! One seed against one backend: peers that come, talk, stall and leave as the seed decides, and
//! then the same end for all: everything owed came, everything taken is given back, and the books
//! balance.

use crate::stage::{self, Diary, Tally};
use crate::support::{Backend, Client, Counters, Server, Sizes};
use crate::{knobs, sizes, source};
use fastrand::Rng;
use ringmark::address::Address;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Connections at a time: well below the 1024 descriptors of `select`.
const MOST_PEERS: usize = 300;

/// The most that may be owed to a connection that nobody reads from: socket buffers take it, so no
/// write blocks.
const UNREAD: usize = 60_000;

/// The longest message, which needs a reader at work while it is sent.
const LONGEST: usize = 200_000;

/// The same where the server rests for a moment in every wait, and so takes long for many small
/// pieces.
const LONGEST_WITH_RESTS: usize = 10_000;

/// Readers that stall in one play. Each takes the time that shows that nothing more is taken.
const MOST_SLOW: usize = 3;

/// One of so many seeds is of a source.
const SOURCES: u64 = 4;

/// Plays a seed; fails with one line that tells all that is needed to do it again.
pub fn run(backend: &Backend, seed: u64) -> Result<Tally, String> {
    let diary = RefCell::new(Diary::default());
    let played = panic::catch_unwind(AssertUnwindSafe(|| {
        if backend.echoes && seed % SOURCES == SOURCES - 1 {
            source::play(backend, seed, &diary);
        } else {
            Play::start(backend, seed, &diary).play();
        }
    }));
    let diary = diary.into_inner();
    played.map(|()| Tally { seeds: 1, ..diary.tally }).map_err(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panicked");
        let name = &backend.name;
        format!(
            "{name}, seed {seed}, {}: step {}, after [{}]: {message}; repeat it with: \
             RINGMARK_SEED={seed} cargo test --test random -- --exact {name}::{seed}",
            diary.arguments.join(" "),
            diary.tally.steps,
            diary.actions.into_iter().collect::<Vec<_>>().join(", "),
        )
    })
}

/// The kinds of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Connect,
    ConnectMany,
    Echo,
    Send,
    Receive,
    ReceiveOwed,
    Drip,
    /// Says that no more will be sent; the rest is read later.
    HalfClose,
    Finish,
    Reset,
    /// Closes with unread data, which resets too.
    Drop,
    /// Takes nothing until the buffers on the way are full.
    Stall,
    /// Takes what is there for one that stalled, and may stall again.
    Drain,
    ShortOnes,
    /// All send at once, while the server stands still or not, and then all read.
    Round,
    /// Some send long messages, all at the same time.
    LongOnes,
    Pause,
    Storm,
    Count,
}

/// The deeds of an echo server's peers, each as often as its weight says.
const ECHOED: &[(u32, Action)] = &[
    (12, Action::Connect),
    (3, Action::ConnectMany),
    (20, Action::Echo),
    (12, Action::Send),
    (8, Action::Receive),
    (4, Action::ReceiveOwed),
    (4, Action::Drip),
    (3, Action::HalfClose),
    (5, Action::Finish),
    (3, Action::Reset),
    (3, Action::Drop),
    (2, Action::Stall),
    (3, Action::Drain),
    (3, Action::ShortOnes),
    (5, Action::Round),
    (3, Action::LongOnes),
    (4, Action::Pause),
    (1, Action::Storm),
    (2, Action::Count),
];

/// Deeds that need nothing of the server: for a server that stands still, or does not echo.
const UNANSWERED: &[(u32, Action)] = &[
    (10, Action::Connect),
    (2, Action::ConnectMany),
    (10, Action::Send),
    (3, Action::Drip),
    (2, Action::HalfClose),
    (3, Action::Reset),
    (3, Action::Drop),
    (2, Action::ShortOnes),
];

/// Deeds that a server answers nevertheless if it does not echo.
const MUTE: &[(u32, Action)] = &[(4, Action::Pause), (1, Action::Storm), (2, Action::Count)];

/// How a peer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Finish,
    TakeAndDrop,
    Drop,
    Reset,
}

struct Play<'a> {
    backend: &'a Backend,
    diary: &'a RefCell<Diary>,
    rng: Rng,
    server: Server,
    /// Open files of the server with no connection.
    files: usize,
    peers: Vec<Client>,
    /// Those that have said that no more will be sent.
    ending: Vec<Client>,
    /// Those that stalled.
    slow: Vec<Client>,
    stalls: usize,
    longest: usize,
    /// Nobody leaves before all that is owed has come, so that the sums can be compared at the end.
    polite: bool,
    /// Bytes of a request and of a response, if it does not echo.
    sizes: Option<Sizes>,
    paused: bool,
    /// Bytes that came back to those that have left.
    received: u64,
}

impl<'a> Play<'a> {
    fn start(backend: &'a Backend, seed: u64, diary: &'a RefCell<Diary>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let workers = [1, 1, 2][rng.usize(..3)];
        let mut sizes = None;
        let server = stage::launch(backend, diary, || {
            let mut arguments =
                vec![format!("--workers={workers}"), "--drain-seconds=30".to_owned()];
            sizes = if backend.echoes { sizes::draw(&mut rng) } else { None };
            arguments.extend(match sizes {
                None => knobs::draw(backend.knobs_of_echo(), &mut rng),
                Some(_) => knobs::draw(&backend.knobs, &mut rng),
            });
            arguments.extend(sizes.map(Sizes::arguments).unwrap_or_default());
            arguments
        });
        let rest = knobs::set_to(&diary.borrow().arguments, "min_wait_us");
        let rests = rest.is_some_and(|time| time > 0);
        Self {
            backend,
            diary,
            files: server.fd_count(),
            server,
            peers: Vec::new(),
            ending: Vec::new(),
            slow: Vec::new(),
            stalls: 0,
            longest: if rests { LONGEST_WITH_RESTS } else { LONGEST }
                / sizes.map_or(1, Sizes::growth),
            polite: rng.u32(..4) == 0,
            sizes,
            paused: false,
            received: 0,
            rng,
        }
    }

    fn play(mut self) {
        if self.rng.u32(..4) == 0 {
            let crowd = self.rng.usize(100..MOST_PEERS);
            self.note(format!("crowd of {crowd}"));
            (0..crowd).for_each(|_| self.connect());
        }
        for _ in 0..self.rng.u32(20..100) {
            let actions =
                if self.backend.echoes { ECHOED.to_vec() } else { [UNANSWERED, MUTE].concat() };
            self.step(&actions);
        }
        if self.backend.echoes && self.rng.u32(..4) == 0 {
            self.end_in_mid_traffic();
        } else {
            self.end_at_rest();
        }
    }

    fn note(&self, action: String) {
        self.diary.borrow_mut().note(action);
    }

    fn step(&mut self, actions: &[(u32, Action)]) {
        self.diary.borrow_mut().tally.steps += 1;
        let weights: u32 = actions.iter().map(|(weight, _)| weight).sum();
        let mut ticket = self.rng.u32(..weights);
        let chosen = actions.iter().find(|(weight, _)| {
            let hit = ticket < *weight;
            ticket = ticket.saturating_sub(*weight);
            hit
        });
        self.act(chosen.expect("a ticket below the sum of all weights").1);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect => {
                self.note("Connect".to_owned());
                self.connect();
            }
            Action::ConnectMany => {
                let count = self.rng.usize(10..80);
                self.note(format!("ConnectMany {count}"));
                (0..count).for_each(|_| self.connect());
            }
            Action::Stall => self.stall(),
            Action::Drain => self.drain(),
            Action::ShortOnes => self.short_ones(),
            Action::Round => self.round(),
            Action::LongOnes => self.long_ones(),
            Action::Pause => self.pause(),
            Action::Storm => {
                let signals = self.rng.usize(5..100);
                self.note(format!("Storm {signals}"));
                self.server.storm(signals);
            }
            Action::Count => {
                self.note("Count".to_owned());
                let counters = self.server.counters();
                assert!(counters.of("accepted") >= counters.of("closed"), "{counters:?}");
            }
            _ if self.peers.is_empty() => self.act(Action::Connect),
            _ => self.act_on_one(action),
        }
    }

    fn act_on_one(&mut self, action: Action) {
        let index = self.rng.usize(..self.peers.len());
        let length = self.length(self.longest);
        self.note(format!("{action:?} {index} {length}"));
        let peer = &mut self.peers[index];
        let owed = peer.owed();
        // Returns the bytes that may still be sent without reading.
        let room = peer.room(UNREAD).min(length);
        match action {
            Action::Echo => peer.exchange(length),
            Action::Send => peer.sender.send(room),
            Action::Receive => peer.receiver.receive((owed as f64 * self.rng.f64()) as usize),
            Action::ReceiveOwed => peer.receive_owed(),
            Action::Drip => {
                for _ in 0..room.min(30) {
                    peer.sender.send(1);
                    if length.is_multiple_of(2) && !self.paused && self.backend.echoes {
                        peer.receiver.receive(peer.owed().min(1));
                    }
                }
            }
            Action::HalfClose => {
                let peer = self.peers.swap_remove(index);
                peer.sender.finish();
                self.ending.push(peer);
            }
            Action::Finish => self.take_leave(index, Leave::Finish),
            Action::Reset => self.take_leave(index, Leave::Reset),
            Action::Drop => {
                peer.sender.send(room);
                self.take_leave(index, Leave::Drop);
            }
            _ => unreachable!("{action:?} is not done by one peer"),
        }
    }

    /// From 1 to `longest`; each order of magnitude is as likely as the others.
    fn length(&mut self, longest: usize) -> usize {
        (longest as f64).powf(self.rng.f64()) as usize
    }

    fn room_for_peers(&self) -> bool {
        self.peers.len() + self.ending.len() + self.slow.len() < MOST_PEERS
    }

    fn address(&mut self) -> Address {
        self.diary.borrow_mut().tally.connections += 1;
        self.server.addresses[self.rng.usize(..self.server.addresses.len())].clone()
    }

    fn connect(&mut self) {
        if self.room_for_peers() {
            let address = self.address();
            self.peers.push(Client::connect(&address).greeting(self.sizes));
        }
    }

    fn take_leave(&mut self, index: usize, how: Leave) {
        let peer = self.peers.swap_remove(index);
        self.leave(peer, how);
    }

    /// One way or the other; the polite ones take what they are owed before.
    fn leave(&mut self, mut peer: Client, how: Leave) {
        let takes = self.backend.echoes && !self.paused;
        if self.polite && !takes && self.backend.echoes && peer.owed() > 0 {
            // It cannot now.
            self.peers.push(peer);
            return;
        }
        if takes && (self.polite || how == Leave::TakeAndDrop) {
            peer.receive_owed();
        }
        self.record(match how {
            Leave::Finish if takes => peer.receiver.bytes + peer.owed() as u64,
            _ => peer.receiver.bytes,
        });
        match how {
            Leave::Finish if takes => peer.finish(),
            Leave::Reset => peer.reset(),
            _ => drop(peer),
        }
    }

    fn record(&mut self, received: u64) {
        self.received += received;
        self.diary.borrow_mut().tally.bytes += received;
    }

    fn any_leave(&mut self) -> Leave {
        [Leave::Finish, Leave::TakeAndDrop, Leave::Drop, Leave::Reset][self.rng.usize(..4)]
    }

    fn stall(&mut self) {
        if self.stalls == MOST_SLOW || !self.room_for_peers() {
            return self.act(Action::Drain);
        }
        self.stalls += 1;
        let limit = self.longest * self.rng.usize(1..10);
        self.note(format!("Stall with {limit}"));
        let address = self.address();
        let mut peer = Client::connect_narrow(&address).greeting(self.sizes);
        peer.sender.send_until_stalled(limit);
        self.slow.push(peer);
    }

    fn drain(&mut self) {
        if self.slow.is_empty() {
            return self.act(Action::Echo);
        }
        let index = self.rng.usize(..self.slow.len());
        let leave = self.any_leave();
        let (part, stays) = (self.rng.f64(), self.rng.bool());
        self.note(format!(
            "Drain {index} {part:.3} {}",
            if stays { "and stay" } else { "and leave" }
        ));
        let peer = &mut self.slow[index];
        let owed = peer.owed();
        peer.receiver.receive((owed as f64 * part) as usize);
        if !stays {
            let peer = self.slow.swap_remove(index);
            self.leave(peer, leave);
        }
    }

    fn short_ones(&mut self) {
        let count = self.rng.usize(5..40);
        self.note(format!("ShortOnes {count}"));
        for _ in 0..count {
            if !self.room_for_peers() {
                break;
            }
            let address = self.address();
            let mut peer = Client::connect(&address).greeting(self.sizes);
            let length = self.length(self.longest.min(UNREAD));
            match self.rng.u32(..3) {
                0 if self.backend.echoes && !self.paused => peer.exchange(length),
                1 => peer.sender.send(peer.room(length)),
                _ => {}
            }
            let leave = self.any_leave();
            self.leave(peer, leave);
        }
    }

    fn round(&mut self) {
        let paused = self.rng.bool();
        let length = self.length(self.longest.min(UNREAD / 4));
        self.note(format!("Round of {length}{}", if paused { " to a stopped server" } else { "" }));
        if paused {
            self.server.pause();
        }
        for peer in &mut self.peers {
            peer.sender.send(peer.room(UNREAD).min(length));
        }
        if paused {
            self.server.resume();
        }
        if self.rng.u32(..3) > 0 {
            self.peers.iter_mut().for_each(Client::receive_owed);
        }
    }

    fn long_ones(&mut self) {
        let count = self.rng.usize(2..10).min(self.peers.len());
        let length = self.length(self.longest);
        self.note(format!("LongOnes {count} {length}"));
        self.rng.shuffle(&mut self.peers);
        thread::scope(|scope| {
            for peer in &mut self.peers[..count] {
                scope.spawn(|| peer.exchange(length));
            }
        });
    }

    fn pause(&mut self) {
        let steps = self.rng.u32(1..8);
        self.note(format!("Pause for {steps}"));
        self.server.pause();
        self.paused = true;
        for _ in 0..steps {
            self.step(UNANSWERED);
        }
        self.paused = false;
        self.server.resume();
    }

    fn finish_ending(&mut self) {
        for mut peer in std::mem::take(&mut self.ending) {
            if self.backend.echoes {
                let due = peer.receiver.bytes + peer.owed() as u64;
                let received = peer.receiver.receive_to_end();
                assert_eq!(received, due, "the server closed before it had sent all");
                self.record(received);
            }
        }
    }

    /// All leave, each in its way; then nothing of them may be left, and the server ends.
    fn end_at_rest(mut self) {
        self.note("all leave".to_owned());
        self.finish_ending();
        let all: Vec<Client> = self.slow.drain(..).chain(self.peers.drain(..)).collect();
        for peer in all {
            let leave = self.any_leave();
            self.leave(peer, leave);
        }
        let end = stage::end_at_rest(self.server, self.files, self.diary);
        check(&end, self.sizes, self.diary, self.backend.echoes && self.polite, self.received);
    }

    /// SIGTERM while some send and take as fast as they can and others wait for what they are owed:
    /// what the server has read reaches them all, and then the orderly end.
    fn end_in_mid_traffic(mut self) {
        self.finish_ending();
        let busy = self.rng.usize(1..8).min(self.peers.len());
        let wait = Duration::from_micros(self.rng.u64(..30_000));
        self.note(format!("SIGTERM after {wait:?} of {busy} in a flood"));
        let mut peers: Vec<Client> = self.peers.drain(..).chain(self.slow.drain(..)).collect();
        // Only those that stay are open then, so that only they can lose anything from here on.
        self.server.wait_for("accepted", self.diary.borrow().tally.connections);
        self.server.wait_for("open", peers.len() as u64);
        let abandoned = self.server.counters().of("bytes_abandoned");
        let server = self.server;
        let end = thread::scope(|scope| {
            let (flooding, waiting) = peers.split_at_mut(busy);
            for peer in flooding {
                scope.spawn(|| {
                    let ended = AtomicBool::new(false);
                    let Client { sender, receiver, .. } = peer;
                    thread::scope(|scope| {
                        scope.spawn(|| {
                            while !ended.load(Ordering::Relaxed) {
                                sender.send(5000);
                            }
                            sender.finish();
                        });
                        receiver.receive_to_end();
                        ended.store(true, Ordering::Relaxed);
                    });
                });
            }
            thread::sleep(wait);
            server.signal(libc::SIGTERM);
            for peer in waiting {
                peer.receiver.receive_to_end();
                peer.sender.finish();
            }
            server.wait().well()
        });
        let received: u64 = peers.iter().map(|peer| peer.receiver.bytes).sum();
        self.diary.borrow_mut().tally.bytes += received;
        assert_eq!(end.of("bytes_abandoned"), abandoned, "abandoned at the end and before SIGTERM");
        check(&end, self.sizes, self.diary, self.polite, self.received + received);
    }
}

/// Checks the books; `exact` when all that was sent back was taken, so that it is what came back.
fn check(end: &Counters, sizes: Option<Sizes>, diary: &RefCell<Diary>, exact: bool, received: u64) {
    let sent = end.of("bytes_sent");
    let owed =
        sizes.map_or(end.of("bytes_received"), |Sizes(_, response)| end.of("requests") * response);
    assert_eq!(owed, sent + end.of("bytes_abandoned"), "{end:?}");
    assert_eq!(end.of("mismatches"), 0, "{end:?}");
    assert_eq!(end.of("accepted"), diary.borrow().tally.connections, "{end:?}");
    if exact {
        assert_eq!(sent, received, "bytes that the server sent, and that came back");
        assert_eq!(end.of("bytes_abandoned"), 0, "nobody left before all had come");
    }
}
