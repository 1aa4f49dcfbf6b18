//! The list of backends.

pub mod document;
pub mod null;
pub mod readiness;
pub mod shared;
pub mod threads;
pub mod uring;

pub use crate::contract::{Entry, Facts, Knob, Knobs, Needs, Unsupported};

use crate::contract::{Backend, InvalidArgument};
use crate::service::{Echo, Exchange};

/// A backend, compiled once for echoes and once for conversations.
macro_rules! entry {
    ($($part:ident)::+) => { Entry::of::<$($part)::+<Echo>, $($part)::+<Exchange>>() };
}

/// Every backend.
pub static ALL: &[Entry] = &[
    entry!(document::EpollDocument),
    entry!(readiness::epoll::EpollLevel),
    entry!(readiness::epoll::EpollEdge),
    entry!(shared::EpollShared),
    entry!(uring::UringOneshot),
    entry!(uring::UringMultishot),
    entry!(uring::UringMultishotDirect),
    entry!(uring::UringPollMultishot),
    entry!(uring::UringBundle),
    entry!(uring::UringSqpoll),
    entry!(threads::Threads),
    entry!(readiness::poll::Poll),
    entry!(readiness::select::Select),
    entry!(null::Null),
];

/// The name of the floor, which memory is measured against.
pub const FLOOR: &str = null::Null::<Echo>::FACTS.name;

/// The name of tuned epoll, which a calibration measures unless told otherwise.
pub const TUNED: &str = readiness::epoll::EpollEdge::<Echo>::FACTS.name;

/// Finds a backend by its name.
pub fn find(name: &str) -> Result<&'static Entry, InvalidArgument> {
    ALL.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|entry| entry.name).collect();
        InvalidArgument(format!("there is no backend '{name}'; there are: {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_lies_in_its_range() {
        for entry in ALL {
            for knob in entry.knobs {
                let defaults = Knobs::parse(entry, &[]).expect("no setting").to_json();
                let set = Knobs::parse(entry, &[knob.to_string()]).expect("its default");
                assert_eq!(set.to_json(), defaults, "{} {knob}", entry.name);
            }
        }
    }

    #[test]
    fn settings_are_checked() {
        let entry = find("epoll-et").expect("is in the list");
        let parse = |setting: &str| Knobs::parse(entry, &[setting.to_owned()]);
        assert_eq!(parse("receive_bytes=2048").expect("valid").get("receive_bytes"), 2048);
        for bad in
            ["receive_bytes", "receive_bytes=", "receive_bytes=0", "receive_bytes=-1", "speed=9"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
