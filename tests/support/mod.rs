//! Support that the tests of the running servers share: the list of backends, the server as a
//! process, a client that verifies every byte, and waiting for a condition.
#![allow(dead_code, unused_imports, reason = "each test program uses a part of this")]

mod client;
pub mod confine;
mod place;
pub mod process;
mod program;
mod server;
mod sizes;
mod steps;
mod strace;

pub use client::Client;
pub use place::Place;
pub use program::SERVER;
pub use server::{Counters, Server, command, command_at};
pub use sizes::Sizes;
pub use steps::Steps;
pub use strace::{LogFile, under_strace, why_no_strace};

use libtest_mimic::{Completion, Failed, Trial};
use ringmark::zero_copy::ZERO_COPY;
use serde_json::Value;
use std::ops::RangeInclusive;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

/// How long any single wait may last, in a client's socket or for a condition: far above what a
/// loaded machine needs, so that reaching it means that what was waited for will not come.
/// `RINGMARK_PATIENCE=SECONDS` is for machines that are emulated.
pub static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = std::env::var("RINGMARK_PATIENCE").map(|text| text.parse());
    Duration::from_secs(seconds.map_or(60, |seconds| seconds.expect("RINGMARK_PATIENCE")))
});

/// How long a whole case may last. Its server is killed when this process ends, if not before.
fn case_deadline() -> Duration {
    6 * *PATIENCE
}

/// A backend as `ringmark-server --list --json` tells of it.
#[derive(Clone, Debug)]
pub struct Backend {
    /// A name that `--backend` takes.
    pub name: String,
    /// Whether it returns what it is sent.
    pub echoes: bool,
    /// Why this kernel refuses it.
    pub unsupported: Option<String>,
    /// Whether all of its workers serve all connections.
    pub shares_files: bool,
    /// How many descriptors a worker can hold, where the backend itself bounds them.
    pub descriptors_per_worker: Option<u64>,
    /// The settings that `--set` takes.
    pub knobs: Vec<Knob>,
    /// The kind of address of its servers.
    pub place: Place,
    /// Settings of its servers, beside a case's own.
    pub settings: &'static [&'static str],
}

impl Backend {
    /// Its knobs, but for one that an echo refuses.
    pub fn knobs_of_echo(&self) -> impl Iterator<Item = &Knob> {
        self.knobs.iter().filter(|knob| knob.name != ZERO_COPY.name)
    }

    /// Starts a server and waits until it is ready.
    pub fn start(&self, arguments: &[&str]) -> Server {
        let arguments = [arguments, self.settings].concat();
        Server::spawn(command_at(&self.place.address(), &self.name, &arguments))
    }
}

/// A setting of a backend.
#[derive(Clone, Debug)]
pub struct Knob {
    pub name: String,
    /// The values that it takes.
    pub values: Values,
}

/// The values that a knob takes.
#[derive(Clone, Debug)]
pub enum Values {
    /// All whole numbers of a range.
    Numbers(RangeInclusive<u64>),
    /// Some words.
    Words(Vec<String>),
}

impl Knob {
    /// Whether its values are words.
    pub fn takes_words(&self) -> bool {
        matches!(self.values, Values::Words(_))
    }

    /// Both ends of the range, or every word.
    pub fn notable(&self) -> Vec<String> {
        match &self.values {
            Values::Numbers(_) => vec![self.first(), self.last()],
            Values::Words(words) => words.clone(),
        }
    }

    /// The smallest number, or the first word.
    pub fn first(&self) -> String {
        match &self.values {
            Values::Numbers(range) => range.start().to_string(),
            Values::Words(words) => words[0].clone(),
        }
    }

    /// The largest number, or the last word.
    pub fn last(&self) -> String {
        match &self.values {
            Values::Numbers(range) => range.end().to_string(),
            Values::Words(words) => words[words.len() - 1].clone(),
        }
    }
}

/// Every backend that the server knows, supported here or not.
pub fn backends() -> Vec<Backend> {
    let output =
        Command::new(&*SERVER).args(["--list", "--json"]).output().expect("the server starts");
    assert!(output.status.success(), "--list --json: {}", String::from_utf8_lossy(&output.stderr));
    parse_backends(&output.stdout)
}

/// Reads what `--list --json` printed.
pub fn parse_backends(json: &[u8]) -> Vec<Backend> {
    let list: Value = serde_json::from_slice(json).expect("--list --json prints JSON");
    let text = |value: &Value, name: &str| {
        value[name].as_str().unwrap_or_else(|| panic!("`{name}` missing in {value}")).to_owned()
    };
    let flag = |value: &Value, name: &str| {
        value[name].as_bool().unwrap_or_else(|| panic!("`{name}` missing in {value}"))
    };
    list["backends"]
        .as_array()
        .expect("--list --json prints an array")
        .iter()
        .map(|entry| Backend {
            name: text(entry, "name"),
            echoes: flag(entry, "echoes"),
            unsupported: (!flag(entry, "supported")).then(|| text(entry, "reason")),
            shares_files: flag(entry, "shares_files"),
            descriptors_per_worker: entry["descriptors_per_worker"].as_u64(),
            place: Place::Ip,
            settings: &[],
            knobs: entry["knobs"]
                .as_array()
                .expect("a list of knobs")
                .iter()
                .map(|knob| {
                    let end =
                        |index: usize| knob["range"][index].as_u64().expect("two ends of a range");
                    let word = |word: &Value| word.as_str().expect("a word").to_owned();
                    let values = match knob["words"].as_array() {
                        Some(words) => Values::Words(words.iter().map(word).collect()),
                        None => Values::Numbers(end(0)..=end(1)),
                    };
                    Knob { name: text(knob, "name"), values }
                })
                .collect(),
        })
        .collect()
}

/// One case on one backend as a trial: ignored with the reason where the kernel refuses the backend
/// or there is another `obstacle`, failed when it panics or does not end in time.
pub fn trial(
    backend: &Backend,
    case: &str,
    obstacle: Option<String>,
    body: impl FnOnce(&Backend) + Send + 'static,
) -> Trial {
    let name = format!("{}::{case}", backend.name);
    let backend = backend.clone();
    Trial::ignorable_test(name.clone(), move || match backend.unsupported.clone().or(obstacle) {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => run_with_deadline(name, move || body(&backend)).map(|()| Completion::Completed),
    })
}

fn run_with_deadline(name: String, body: impl FnOnce() + Send + 'static) -> Result<(), Failed> {
    let body = || {
        take_own_files();
        body();
    };
    let case = thread::Builder::new().name(name).spawn(body).expect("a thread starts");
    let started = Instant::now();
    while !case.is_finished() {
        if started.elapsed() > case_deadline() {
            return Err(format!("still running after {} s", case_deadline().as_secs()).into());
        }
        thread::sleep(Duration::from_millis(2));
    }
    case.join().map_err(|panic| match panic.downcast::<String>() {
        Ok(message) => Failed::from(message),
        Err(panic) => Failed::from(panic.downcast_ref::<&str>().unwrap_or(&"panicked")),
    })
}

/// Gives this thread, and those that it starts, an open file table of their own with nothing but
/// the standard streams: what the cases beside it open does not count towards its limit.
fn take_own_files() {
    // SAFETY: what is closed are this thread's references to files of other threads, of which it
    // knows nothing.
    let result = unsafe {
        libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE as libc::c_int)
    };
    assert_eq!(result, 0, "close_range: {}", std::io::Error::last_os_error());
}

/// Does the same with all of `items` side by side, because waiting is most of it; returns what came
/// of each. The first that panicked makes this panic with its message.
pub fn side_by_side<I: Send, T: Send>(
    items: impl IntoIterator<Item = I>,
    each: impl Fn(I) -> T + Sync,
) -> Vec<T> {
    thread::scope(|scope| {
        let each = &each;
        let running: Vec<_> =
            items.into_iter().map(|item| scope.spawn(move || each(item))).collect();
        let ended: Vec<_> = running.into_iter().map(thread::ScopedJoinHandle::join).collect();
        ended.into_iter().map(|end| end.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Waits until `read` gives a value that `holds` accepts; fails with the last value when that does
/// not come.
pub fn eventually<T: std::fmt::Debug>(
    what: &str,
    read: impl FnMut() -> T,
    holds: impl Fn(&T) -> bool,
) -> T {
    eventually_by_steps(what, || 0, read, holds)
}

/// Like [`eventually`], for work of a bounded length on a machine of any speed: patience begins
/// anew with each change of `done`.
pub fn eventually_by_steps<T: std::fmt::Debug>(
    what: &str,
    done: impl Fn() -> u64,
    mut read: impl FnMut() -> T,
    holds: impl Fn(&T) -> bool,
) -> T {
    let mut last = (done(), Instant::now());
    loop {
        let value = read();
        if holds(&value) {
            return value;
        }
        let now = done();
        if now != last.0 {
            last = (now, Instant::now());
        }
        assert!(
            last.1.elapsed() < *PATIENCE,
            "{what}: not after {} s; it is now {value:?}",
            PATIENCE.as_secs()
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// Lets this process open as many files as it may: a thousand connections are above the usual soft
/// limit.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write `limit`, which lives across them.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
