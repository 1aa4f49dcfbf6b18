//! The boundary between the ways of waiting: one trait, at the level of a whole worker.
//!
//! A trait of `recv` and `send` operations would make one side emulate the other: completion over
//! epoll needs extra `epoll_ctl` calls and a pinned buffer per connection, readiness over io_uring
//! loses multishot requests and provided buffers. Both would falsify what is measured. So a backend
//! owns its loop, its buffers and its way of accepting, and the choice between backends is made
//! once per worker.

use crate::counters::Counters;
use crate::listener::Listener;
use crate::service::{Conversation, Echo, Exchange, Service, Terms};
use crate::stop::Stop;
use crate::team::Team;
use serde_json::{Map, Value, json};
use std::fmt;
use std::io;
use std::ops::{Deref, RangeInclusive};

/// One way for a server to wait for and move bytes.
pub trait Backend: Sized {
    /// The conversations that it is compiled for.
    type Conversation: Conversation;

    /// The facts that are known before it runs.
    const FACTS: BackendFacts;

    /// Bytes that each worker locks with these knobs, on kernels that count them towards
    /// RLIMIT_MEMLOCK.
    fn locked_bytes(_knobs: &Knobs) -> u64 {
        0
    }

    /// Whether the running kernel lets so many workers run with these knobs, and if not, exactly
    /// why.
    fn probe(knobs: &Knobs, workers: u16) -> Result<(), Unsupported>;

    /// Sets up on the worker's own thread, which has its file table already.
    fn new(task: WorkerTask<'_, <Self::Conversation as Conversation>::Terms>) -> io::Result<Self>;

    /// Returns what the kernel granted: flags, features, sizes in bytes.
    fn in_force(&self) -> Facts {
        Facts::new()
    }

    /// Serves until `stop`, then [drains](crate::drain).
    fn run(self, counters: &Counters, stop: &Stop) -> io::Result<()>;
}

/// The task of a backend in a worker, with its service or the terms of its conversations.
pub struct WorkerTask<'a, S> {
    /// The sources of its connections.
    pub listeners: Vec<Listener>,
    /// Its settings.
    pub knobs: &'a Knobs,
    /// Its service, or its terms.
    pub service: S,
    /// The workers that it is one of.
    pub team: &'a Team,
}

impl<'a, S> WorkerTask<'a, S> {
    fn with<T>(self, service: T) -> WorkerTask<'a, T> {
        let Self { listeners, knobs, service: _, team } = self;
        WorkerTask { listeners, knobs, service, team }
    }
}

/// Facts about a backend that are known before it runs.
#[derive(Clone, Copy, Debug)]
pub struct BackendFacts {
    /// Its name on the command line and in every result.
    pub name: &'static str,
    /// Its work, in one line.
    pub summary: &'static str,
    /// Whether it sends back what it receives. Only the floor that memory is measured against does
    /// not.
    pub echoes: bool,
    /// Whether it waits with io_uring.
    pub uses_ring: bool,
    /// Whether each worker has a thread of the kernel's that wants a CPU of its own.
    pub kernel_thread: bool,
    /// Whether all workers serve all connections, so that they need one file table.
    pub shares_files: bool,
    /// Whether a connection costs an epoll registration in the kernel, and nothing else.
    pub only_registers: bool,
    /// Bytes that a connection takes in a table of the server's, if they are many.
    pub table_bytes_per_connection: usize,
    /// Requirements of the machine.
    pub needs: Needs,
    /// Its settings; help, `--list` and the check of `--set` come from here.
    pub knobs: &'static [Knob],
    /// How many descriptors a worker can have, listeners included, if that is less than the limit
    /// of open files.
    pub descriptors_per_worker: Option<usize>,
}

impl BackendFacts {
    /// Facts that hold of most backends. A name, a summary and needs are still missing.
    pub const DEFAULT: Self = Self {
        name: "",
        summary: "",
        echoes: true,
        uses_ring: false,
        kernel_thread: false,
        shares_files: false,
        only_registers: false,
        table_bytes_per_connection: 0,
        needs: Needs { linux: "", default_container: true, limits: "none" },
        knobs: &[],
        descriptors_per_worker: None,
    };
}

/// Requirements of a backend.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// The oldest kernel that has all that it uses with its default knobs, by the man pages. Rust's
    /// standard library needs 3.2 in any case.
    pub linux: &'static str,
    /// Whether the default seccomp profile of common container runtimes lets it run. They refuse
    /// io_uring_setup, io_uring_enter and io_uring_register (Moby since 25.0, containerd since
    /// 2.0).
    pub default_container: bool,
    /// Privileges and limits.
    pub limits: &'static str,
}

/// Flags and sizes in force in a backend, for the ready line and the results.
pub type Facts = Map<String, Value>;

/// A backend that the running kernel refuses.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Unsupported {
    /// The refused call with its errno, the likely cause, and the next step.
    pub reason: String,
}

/// There is no such backend, no such knob of it, or no such value of that.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidArgument(pub(crate) String);

/// A setting of a backend.
#[derive(Debug)]
pub struct Knob {
    /// The key of `--set key=value`.
    pub name: &'static str,
    /// The values that it takes.
    pub values: Values,
    /// Its meaning, with its unit.
    pub meaning: &'static str,
}

/// The values that a knob takes.
#[derive(Debug)]
pub enum Values {
    /// Whole numbers.
    Numbers {
        /// The value without `--set`.
        default: u64,
        /// Those that are accepted.
        range: RangeInclusive<u64>,
    },
    /// Words; the first is the one without `--set`.
    Words(&'static [&'static str]),
}

impl Knob {
    /// A knob that takes a whole number.
    pub const fn number(
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
        meaning: &'static str,
    ) -> Self {
        Self { name, values: Values::Numbers { default, range }, meaning }
    }

    /// A knob that takes one of some words, the first by default.
    pub const fn word(
        name: &'static str,
        words: &'static [&'static str],
        meaning: &'static str,
    ) -> Self {
        Self { name, values: Values::Words(words), meaning }
    }

    fn default(&self) -> KnobValue {
        match &self.values {
            Values::Numbers { default, .. } => KnobValue::Number(*default),
            Values::Words(words) => KnobValue::Word(words[0]),
        }
    }

    fn parse(&self, text: &str) -> Option<KnobValue> {
        match &self.values {
            Values::Numbers { range, .. } => {
                text.parse().ok().filter(|value| range.contains(value)).map(KnobValue::Number)
            }
            Values::Words(words) => {
                words.iter().find(|word| **word == text).map(|word| KnobValue::Word(word))
            }
        }
    }

    /// The values that it takes, in words.
    pub fn accepts(&self) -> String {
        match &self.values {
            Values::Numbers { range, .. } => {
                format!("a whole number from {} to {}", range.start(), range.end())
            }
            Values::Words(words) => format!("one of {}", words.join(", ")),
        }
    }

    /// For `--list --json`: `name`, `default`, `meaning`, and `range` or `words`.
    pub fn to_json(&self) -> Value {
        let (kind, values) = match &self.values {
            Values::Numbers { range, .. } => ("range", json!([range.start(), range.end()])),
            Values::Words(words) => ("words", json!(words)),
        };
        json!({
            "name": self.name,
            "default": self.default().to_json(),
            kind: values,
            "meaning": self.meaning,
        })
    }
}

/// The value of a knob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KnobValue {
    Number(u64),
    Word(&'static str),
}

impl KnobValue {
    fn to_json(self) -> Value {
        match self {
            KnobValue::Number(number) => number.into(),
            KnobValue::Word(word) => word.into(),
        }
    }
}

impl fmt::Display for Knob {
    /// As it would be set to its default.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.default() {
            KnobValue::Number(number) => write!(formatter, "{}={number}", self.name),
            KnobValue::Word(word) => write!(formatter, "{}={word}", self.name),
        }
    }
}

/// The knobs of one backend, with a value each.
#[derive(Clone, Debug)]
pub struct Knobs {
    values: Vec<(&'static Knob, KnobValue)>,
}

impl Knobs {
    /// The defaults, changed by `settings` of the form `key=value`.
    pub fn parse(backend: &Entry, settings: &[String]) -> Result<Self, InvalidArgument> {
        let mut knobs =
            Self { values: backend.knobs.iter().map(|knob| (knob, knob.default())).collect() };
        for setting in settings {
            let Some((name, text)) = setting.split_once('=') else {
                return Err(InvalidArgument(format!(
                    "--set {setting}: expected key=value, as in --set receive_bytes=4096"
                )));
            };
            let Some((knob, value)) = knobs.values.iter_mut().find(|(knob, _)| knob.name == name)
            else {
                let names: Vec<_> = backend.knobs.iter().map(|knob| knob.name).collect();
                let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                return Err(InvalidArgument(format!(
                    "{} has no knob '{name}'; it has: {known}",
                    backend.name
                )));
            };
            *value = knob.parse(text).ok_or_else(|| {
                InvalidArgument(format!("--set {setting}: {name} takes {}", knob.accepts()))
            })?;
        }
        Ok(knobs)
    }

    /// Whether the backend has a knob of this name.
    pub fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(knob, _)| knob.name == name)
    }

    fn setting(&self, name: &str) -> KnobValue {
        let found = self.values.iter().find(|(knob, _)| knob.name == name);
        found.unwrap_or_else(|| panic!("knob {name} is not declared")).1
    }

    /// The value of a knob that takes numbers.
    ///
    /// # Panics
    /// When the backend asks for a knob that it does not declare.
    pub fn get(&self, name: &str) -> u64 {
        match self.setting(name) {
            KnobValue::Number(number) => number,
            KnobValue::Word(word) => panic!("knob {name} is the word {word}"),
        }
    }

    /// [`Knobs::get`] for sizes and counts.
    pub fn size(&self, name: &str) -> usize {
        usize::try_from(self.get(name)).unwrap_or(usize::MAX)
    }

    /// The value of a knob that takes words.
    ///
    /// # Panics
    /// When the backend asks for a knob that it does not declare.
    pub fn word(&self, name: &str) -> &'static str {
        match self.setting(name) {
            KnobValue::Word(word) => word,
            KnobValue::Number(number) => panic!("knob {name} is the number {number}"),
        }
    }

    /// All knobs with the values in force.
    pub fn to_json(&self) -> Facts {
        self.values.iter().map(|(knob, value)| (knob.name.to_owned(), value.to_json())).collect()
    }
}

/// A backend in the list of all.
pub struct Entry {
    /// [`Backend::FACTS`].
    pub facts: BackendFacts,
    /// [`Backend::locked_bytes`].
    pub locked_bytes: fn(&Knobs) -> u64,
    /// [`Backend::probe`].
    pub probe: fn(&Knobs, u16) -> Result<(), Unsupported>,
    /// Sets up an echo on the calling thread, reports what is in force, and runs.
    echo: Serve<Echo>,
    /// The same for conversations.
    exchange: Serve<Exchange>,
}

/// [`Backend::new`], [`Backend::in_force`] given to the last argument, and [`Backend::run`], in
/// one.
type Serve<C> = fn(
    WorkerTask<'_, <C as Conversation>::Terms>,
    &Counters,
    &Stop,
    &mut dyn FnMut(Facts),
) -> io::Result<()>;

fn serve<B: Backend>(
    task: WorkerTask<'_, <B::Conversation as Conversation>::Terms>,
    counters: &Counters,
    stop: &Stop,
    ready: &mut dyn FnMut(Facts),
) -> io::Result<()> {
    let backend = B::new(task)?;
    ready(backend.in_force());
    backend.run(counters, stop)
}

impl Deref for Entry {
    type Target = BackendFacts;

    fn deref(&self) -> &BackendFacts {
        &self.facts
    }
}

impl Entry {
    /// Makes the entry of a backend, of which `E` is compiled for echoes and `X` for conversations.
    pub const fn of<E, X>() -> Self
    where
        E: Backend<Conversation = Echo>,
        X: Backend<Conversation = Exchange>,
    {
        Self {
            facts: E::FACTS,
            locked_bytes: E::locked_bytes,
            probe: E::probe,
            echo: serve::<E>,
            exchange: serve::<X>,
        }
    }

    /// Serves until `stop` on the calling thread; `ready` is told what is in force before the first
    /// connection.
    pub fn serve(
        &self,
        task: WorkerTask<'_, Service>,
        counters: &Counters,
        stop: &Stop,
        ready: &mut dyn FnMut(Facts),
    ) -> io::Result<()> {
        match task.service {
            Service::Echo => (self.echo)(task.with(()), counters, stop, ready),
            Service::Conversation(sizes) => {
                (self.exchange)(task.with(Terms::new(sizes)), counters, stop, ready)
            }
        }
    }
}
