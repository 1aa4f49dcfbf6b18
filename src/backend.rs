//! The boundary between the ways of waiting: one trait, at the level of a whole worker.
//!
//! A trait of `recv` and `send` operations would make one side emulate the other: completion over epoll
//! needs extra `epoll_ctl` calls and a pinned buffer per connection, readiness over io_uring loses
//! multishot requests and provided buffers. Both would falsify what is measured. So a backend owns its
//! loop, its buffers and its way of accepting, and the choice between backends is made once per worker.

pub mod document;
pub mod epoll;
pub mod null;
pub mod uring;

use crate::counters::Counters;
use crate::stop::Stop;
use serde_json::{Map, Value};
use std::io;
use std::net::TcpListener;
use std::ops::RangeInclusive;

/// One way for a server to wait for and move bytes.
pub trait Backend: Sized {
    /// Its name on the command line and in every result.
    const NAME: &'static str;
    /// What it does, in one line.
    const SUMMARY: &'static str;
    /// Whether it sends back what it receives. Only the floor that memory is measured against does not.
    const ECHOES: bool = true;
    /// Its settings; help, `--list` and the check of `--set` come from here.
    const KNOBS: &'static [Knob];

    /// Whether the running kernel lets it run with these knobs, and if not, exactly why.
    fn probe(knobs: &Knobs) -> Result<(), Unsupported>;

    /// Sets up on the worker's own thread, which has its own file table already.
    fn new(listeners: Vec<TcpListener>, knobs: &Knobs) -> io::Result<Self>;

    /// What the kernel granted: flags, features, sizes in bytes.
    fn in_force(&self) -> Facts {
        Facts::new()
    }

    /// Serves until `stop`, then [drains](crate::drain).
    fn run(self, counters: &Counters, stop: &Stop) -> io::Result<()>;
}

/// What is in force in a backend, for the ready line and the results.
pub type Facts = Map<String, Value>;

/// A backend that the running kernel refuses.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Unsupported {
    /// What was refused, with the errno; the likely cause; the next step.
    pub reason: String,
}

/// A setting of a backend.
#[derive(Debug)]
pub struct Knob {
    /// The key of `--set key=value`.
    pub name: &'static str,
    /// The value without `--set`.
    pub default: u64,
    /// The values that are accepted.
    pub range: RangeInclusive<u64>,
    /// What it sets, with its unit.
    pub meaning: &'static str,
}

/// The knobs of one backend, with a value each.
#[derive(Clone, Debug)]
pub struct Knobs {
    values: Vec<(&'static Knob, u64)>,
}

impl Knobs {
    /// The defaults, changed by `settings` of the form `key=value`.
    pub fn parse(backend: &Entry, settings: &[String]) -> Result<Self, String> {
        let mut knobs = Self { values: backend.knobs.iter().map(|knob| (knob, knob.default)).collect() };
        for setting in settings {
            let (name, text) = setting.split_once('=').ok_or_else(|| {
                format!("--set {setting}: expected key=value, as in --set receive_bytes=4096")
            })?;
            let Some((knob, value)) = knobs.values.iter_mut().find(|(knob, _)| knob.name == name) else {
                let names: Vec<_> = backend.knobs.iter().map(|knob| knob.name).collect();
                let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                return Err(format!("{} has no knob '{name}'; it has: {known}", backend.name));
            };
            *value = text.parse().ok().filter(|value| knob.range.contains(value)).ok_or_else(|| {
                let (low, high) = (knob.range.start(), knob.range.end());
                format!("--set {setting}: {name} takes a whole number from {low} to {high}")
            })?;
        }
        Ok(knobs)
    }

    /// The value of a knob.
    ///
    /// # Panics
    /// When the backend asks for a knob that it does not declare.
    pub fn get(&self, name: &str) -> u64 {
        let found = self.values.iter().find(|(knob, _)| knob.name == name);
        found.unwrap_or_else(|| panic!("knob {name} is not declared")).1
    }

    /// [`Knobs::get`] for sizes and counts.
    pub fn size(&self, name: &str) -> usize {
        usize::try_from(self.get(name)).unwrap_or(usize::MAX)
    }

    /// All knobs with the values in force.
    pub fn to_json(&self) -> Facts {
        self.values.iter().map(|(knob, value)| (knob.name.to_owned(), (*value).into())).collect()
    }
}

/// A backend in the list of all.
pub struct Entry {
    /// [`Backend::NAME`].
    pub name: &'static str,
    /// [`Backend::SUMMARY`].
    pub summary: &'static str,
    /// [`Backend::ECHOES`].
    pub echoes: bool,
    /// [`Backend::KNOBS`].
    pub knobs: &'static [Knob],
    /// [`Backend::probe`].
    pub probe: fn(&Knobs) -> Result<(), Unsupported>,
    /// Sets up on the calling thread, reports what is in force, and runs.
    pub serve: Serve,
}

/// [`Backend::new`], [`Backend::in_force`] given to the last argument, and [`Backend::run`], in one.
pub type Serve = fn(Vec<TcpListener>, &Knobs, &Counters, &Stop, &mut dyn FnMut(Facts)) -> io::Result<()>;

impl Entry {
    const fn of<B: Backend>() -> Self {
        Self {
            name: B::NAME,
            summary: B::SUMMARY,
            echoes: B::ECHOES,
            knobs: B::KNOBS,
            probe: B::probe,
            serve: |listeners, knobs, counters, stop, ready| {
                let backend = B::new(listeners, knobs)?;
                ready(backend.in_force());
                backend.run(counters, stop)
            },
        }
    }
}

/// Every backend.
pub static ALL: &[Entry] = &[
    Entry::of::<document::EpollDocument>(),
    Entry::of::<epoll::EpollEdge>(),
    Entry::of::<uring::UringMultishot>(),
    Entry::of::<null::Null>(),
];

/// Finds a backend by its name.
pub fn find(name: &str) -> Result<&'static Entry, String> {
    ALL.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|entry| entry.name).collect();
        format!("there is no backend '{name}'; there are: {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_lies_in_its_range() {
        for entry in ALL {
            for knob in entry.knobs {
                assert!(knob.range.contains(&knob.default), "{} {}", entry.name, knob.name);
            }
        }
    }

    #[test]
    fn settings_are_checked() {
        let entry = find("epoll-et").expect("is in the list");
        let parse = |setting: &str| Knobs::parse(entry, &[setting.to_owned()]);
        assert_eq!(parse("receive_bytes=2048").expect("valid").get("receive_bytes"), 2048);
        for bad in ["receive_bytes", "receive_bytes=", "receive_bytes=0", "receive_bytes=-1", "speed=9"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
