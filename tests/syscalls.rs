//! How many system calls an echo costs: what each backend promises, what the server counts about
//! itself, and what strace(1) sees must agree to the call.

mod support;

use libtest_mimic::{Arguments, Trial};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use support::{Backend, Client, Counters, LogFile, Server, command, eventually, under_strace};

type Calls = BTreeMap<String, u64>;

/// The cost of one echo of at most 1024 bytes when nothing else happens: how often each call is
/// made.
struct Promise {
    backend: &'static str,
    settings: &'static [&'static str],
    calls: &'static [(&'static str, RangeInclusive<u64>)],
}

impl Promise {
    const fn by_default(
        backend: &'static str,
        calls: &'static [(&'static str, RangeInclusive<u64>)],
    ) -> Self {
        Self { backend, settings: &[], calls }
    }
}

const EPOLL: &[(&str, RangeInclusive<u64>)] =
    &[("epoll_wait", 1..=1), ("recvfrom", 1..=1), ("sendto", 1..=1)];
const POLL: &[(&str, RangeInclusive<u64>)] =
    &[("poll", 1..=1), ("recvfrom", 1..=1), ("sendto", 1..=1)];
const SELECT: &[(&str, RangeInclusive<u64>)] =
    &[("pselect6", 1..=1), ("recvfrom", 1..=1), ("sendto", 1..=1)];

/// For those that can hold answers back.
const AFTER_BATCH: &[&str] = &["--set=send=after-batch"];

const PROMISES: &[Promise] = &[
    Promise::by_default(
        "epoll-document",
        &[("epoll_wait", 2..=2), ("recvfrom", 1..=1), ("sendto", 1..=1), ("epoll_ctl", 4..=4)],
    ),
    Promise::by_default("epoll-lt", EPOLL),
    Promise { backend: "epoll-lt", settings: AFTER_BATCH, calls: EPOLL },
    Promise::by_default("epoll-et", EPOLL),
    Promise { backend: "epoll-et", settings: AFTER_BATCH, calls: EPOLL },
    Promise::by_default(
        "epoll-shared",
        &[("epoll_wait", 1..=1), ("recvfrom", 1..=1), ("sendto", 1..=1), ("epoll_ctl", 1..=1)],
    ),
    Promise::by_default("poll", POLL),
    Promise { backend: "poll", settings: AFTER_BATCH, calls: POLL },
    Promise::by_default("select", SELECT),
    Promise { backend: "select", settings: AFTER_BATCH, calls: SELECT },
    Promise::by_default("threads", &[("recvfrom", 1..=1), ("sendto", 1..=1)]),
    Promise::by_default("uring-oneshot", &[("io_uring_enter", 2..=2)]),
    Promise {
        backend: "uring-oneshot",
        settings: &["--set=link=on"],
        calls: &[("io_uring_enter", 1..=1)],
    },
    Promise::by_default("uring-multishot", &[("io_uring_enter", 1..=1)]),
    Promise::by_default("uring-multishot-direct", &[("io_uring_enter", 1..=1)]),
    Promise::by_default("uring-poll-multishot", &[("io_uring_enter", 2..=2)]),
    Promise::by_default("uring-bundle", &[("io_uring_enter", 1..=1)]),
    // None where the next message is there before the loop looks for it.
    Promise::by_default("uring-sqpoll", &[("io_uring_enter", 0..=1)]),
];

/// The calls that can end without an event, by their time-out or by a signal.
const WAITS: [&str; 3] = ["epoll_wait", "poll", "pselect6"];

fn main() {
    let arguments = Arguments::from_args();
    let no_strace = support::why_no_strace();
    let mut trials: Vec<Trial> = Vec::new();
    for backend in support::backends().into_iter().filter(|backend| backend.echoes) {
        let promises: Vec<&Promise> =
            PROMISES.iter().filter(|promise| promise.backend == backend.name).collect();
        assert!(!promises.is_empty(), "{} echoes, and promises nothing", backend.name);
        for promise in promises {
            let mut add = |case: &str, obstacle: Option<String>, body: fn(&Promise)| {
                let case = [&[case], promise.settings].concat().join(" ");
                trials.push(support::trial(&backend, &case, obstacle, move |_: &Backend| {
                    body(promise)
                }));
            };
            add("an_echo_costs_what_is_promised", None, an_echo_costs_what_is_promised);
            add("strace_agrees", no_strace.clone(), strace_agrees);
            if backend.knobs.iter().any(|knob| knob.name == "send") {
                add("a_batch_costs_one_wait", None, a_batch_costs_one_wait);
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn an_echo_costs_what_is_promised(promise: &Promise) {
    const ECHOES: u64 = 200;
    let server = Server::start(promise.backend, promise.settings);
    let mut clients: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.echo(1024));
    for (connections, length) in [(1, 1), (1, 64), (1, 1024), (10, 300)] {
        server.wait_until_quiet();
        let before = server.counters();
        for echo in 0..ECHOES as usize {
            clients[echo % connections].echo(length);
        }
        let is_kept = |calls: &Calls, idle: u64| {
            calls.keys().all(|name| promise.calls.iter().any(|(promised, _)| promised == name))
                && promise.calls.iter().all(|(name, each)| {
                    let made = calls.get(*name).copied().unwrap_or(0);
                    let idle = if WAITS.contains(name) { idle } else { 0 };
                    (each.start() * ECHOES + idle..=each.end() * ECHOES + idle).contains(&made)
                })
        };
        // The last echo may be here before the server waits again. A call too many never goes away.
        eventually(
            &format!(
                "each of {ECHOES} echoes of {length} bytes on {connections} connections costs {:?}",
                promise.calls
            ),
            || {
                let after = server.counters();
                (after.calls_since(&before), waits_for_nothing(&before, &after))
            },
            |(calls, idle)| is_kept(calls, *idle),
        );
    }
    drop(clients);
    server.finish();
}

/// Inputs that are there at once are waited for once, and received and answered one by one,
/// whenever answers leave.
fn a_batch_costs_one_wait(promise: &Promise) {
    const CONNECTIONS: u64 = 10;
    let server = Server::start(promise.backend, promise.settings);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.echo(300));
    let burst = || {
        server.wait_until_quiet();
        let before = server.counters();
        server.pause();
        clients.iter_mut().for_each(|client| client.sender.send(300));
        server.resume();
        clients.iter_mut().for_each(Client::receive_owed);
        server.wait_until_quiet();
        let after = server.counters();
        (after.calls_since(&before), waits_for_nothing(&before, &after))
    };
    let is_one_wait = |(calls, idle): &(Calls, u64)| {
        let promised = promise.calls.iter().map(|(name, _)| {
            let made = if WAITS.contains(name) { 1 + idle } else { CONNECTIONS };
            ((*name).to_owned(), made)
        });
        *calls == promised.collect()
    };
    // A worker that the signal reaches late gets a part of them before it stops.
    eventually(&format!("{CONNECTIONS} echoes at once cost one wait"), burst, is_one_wait);
    drop(clients);
    server.finish();
}

/// [`WAITS`] that ended without an event between two readings.
fn waits_for_nothing(before: &Counters, after: &Counters) -> u64 {
    ["timeouts", "interrupts"].iter().map(|name| after.of(name) - before.of(name)).sum()
}

/// Calls that the server and the C library make when a thread begins and ends, and futex(2) for a
/// lock that two threads want: as often as they see fit, so that the server cannot count them. A
/// connection that stays makes none.
const LIFE_OF_A_THREAD: [&str; 12] = [
    "clone3",
    "exit",
    "futex",
    "gettid",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "prctl",
    "rseq",
    "rt_sigprocmask",
    "set_robust_list",
];

/// How the C library's allocator grows the arena of a thread, when it sees fit: no echo makes it.
const GROWTH_OF_AN_ARENA: &str = "mprotect";

fn strace_agrees(promise: &Promise) {
    let Promise { backend, settings, .. } = promise;
    let log = LogFile::new(&[&["calls", backend], *settings].concat().join("-"));
    let server = Server::spawn(under_strace(&["-o", &log.path], &command(backend, settings)));
    let converse = || {
        let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
        for length in [1, 100, 1024, 5000] {
            clients.iter_mut().for_each(|client| client.echo(length));
        }
        // More than is read at once, none awaited.
        clients.iter_mut().for_each(|client| (0..50).for_each(|_| client.sender.send(700)));
        clients.iter_mut().for_each(Client::receive_owed);
        clients.into_iter().for_each(Client::finish);
    };
    let open_none = |server: &Server| {
        server.wait_for("open", 0);
        server.wait_until_quiet();
    };
    // The tables of the server have grown to their size after the first time.
    converse();
    open_none(&server);
    // The line that is printed for a reading stands in the log too: the readings mark what lies
    // between.
    let (before, first) = (server.counters(), server.readings());
    converse();
    open_none(&server);
    let (after, last) = (server.counters(), server.readings());
    let pid = server.pid();
    server.finish();
    let mut seen = worker_calls(&log.read(), pid, first, last);
    seen.remove(GROWTH_OF_AN_ARENA);
    if *backend == "threads" {
        seen.retain(|name, _| !LIFE_OF_A_THREAD.contains(&name.as_str()));
    }
    assert_eq!(seen, after.calls_since(&before), "what strace saw, and what the server counted");
}

/// Counts the calls that all threads but the main one entered between two printed counter lines:
/// the `first` and the `last`, counted from 1.
fn worker_calls(log: &str, main_thread: u32, first: usize, last: usize) -> Calls {
    let mut calls = Calls::new();
    let mut readings = 0;
    for line in log.lines() {
        let (thread, event) = line.split_once(' ').expect("a thread id, then what it did");
        let event = event.trim_start();
        if thread == main_thread.to_string() {
            if event.starts_with(r#"write(1, "{\"event\":\"counters\""#) {
                readings += 1;
            }
        } else if (first..last).contains(&readings) {
            // A call is logged as `name(…`. Its return may stand apart, as `<... name resumed>`;
            // signals and ends of threads begin with `---` and `+++`.
            if let Some((name, _)) = event.split_once('(')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            {
                *calls.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    assert_eq!(readings, last, "readings in the log");
    calls
}
