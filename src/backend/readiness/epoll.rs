//! epoll(7), level- or edge-triggered.

use super::batch::{RECEIVE_BYTES, SEND};
use super::event_loop::{ACCEPTS, Readiness};
use super::selector::{Interest, Ready, Selector};
use crate::contract::{BackendFacts, Facts, Knob, Knobs, Needs, Unsupported};
use crate::counters::Counters;
use crate::error::named;
use crate::ports::{self, LISTENERS_OF_EPOLL};
use crate::sys;
use crate::work::WORK_NS;
use crate::zero_copy::ZERO_COPY;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Level-triggered: a connection is registered for input, or while it owes something for output.
pub type EpollLevel<C> = Readiness<Epoll<false>, C>;

/// Edge-triggered: a connection is registered once, and no `epoll_ctl` follows.
pub type EpollEdge<C> = Readiness<Epoll<true>, C>;

const EVENTS_PER_WAIT: Knob =
    Knob::number("events_per_wait", 1024, 1..=65_536, "events taken by one epoll_wait at most");

/// An epoll instance.
pub struct Epoll<const EDGE: bool> {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
    /// The values that the kernel has taken over, if it was asked to busy-poll.
    busy_poll: Option<libc::epoll_params>,
    /// Whether a connection wakes one of the workers that wait for it.
    wakes_one: bool,
}

const INPUT: u32 = libc::EPOLLIN as u32;
const OUTPUT: u32 = libc::EPOLLOUT as u32;
const EVERY_EDGE: u32 =
    (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
/// Events with which more may be there although a receive was short: the peer's end, an error, an
/// urgent mark.
const CUT: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLPRI) as u32;

const BUSY_POLL_US: &str = "busy_poll_us";

/// Whether this kernel has epoll at all.
pub fn probe() -> Result<(), Unsupported> {
    create().map(drop)
}

fn create() -> Result<OwnedFd, Unsupported> {
    sys::epoll_create().map_err(|error| Unsupported { reason: error.to_string() })
}

/// Asks for busy polling, unless for none; the kernel's own budget of packets is kept.
fn set_busy_poll(epoll: &OwnedFd, knobs: &Knobs) -> io::Result<Option<libc::epoll_params>> {
    let Ok(busy_poll_usecs @ 1..) = u32::try_from(knobs.get(BUSY_POLL_US)) else { return Ok(None) };
    let wanted =
        libc::epoll_params { busy_poll_usecs, busy_poll_budget: 0, prefer_busy_poll: 0, __pad: 0 };
    sys::set_busy_poll(epoll.as_raw_fd(), wanted).map(Some)
}

fn explain(error: &io::Error) -> String {
    let cause = match error.raw_os_error() {
        Some(libc::ENOTTY | libc::EINVAL) => " (the kernel is older than 6.9)",
        Some(libc::EOPNOTSUPP) => " (the kernel was built without CONFIG_NET_RX_BUSY_POLL)",
        Some(libc::EPERM) => " (a sandbox forbids the ioctl)",
        _ => "",
    };
    format!("ioctl EPIOCSPARAMS: {error}{cause}; leave out --set {BUSY_POLL_US}")
}

impl<const EDGE: bool> Selector for Epoll<EDGE> {
    const FACTS: BackendFacts = BackendFacts {
        name: if EDGE { "epoll-et" } else { "epoll-lt" },
        summary: if EDGE {
            "edge-triggered, registered once, one receive buffer a worker, sent at once"
        } else {
            "level-triggered, one receive buffer a worker, sent at once, EPOLLOUT only while \
             something is owed"
        },
        only_registers: true,
        needs: Needs { linux: "3.2", default_container: true, limits: "fs.epoll.max_user_watches" },
        knobs: &[
            RECEIVE_BYTES,
            SEND,
            ACCEPTS,
            LISTENERS_OF_EPOLL,
            EVENTS_PER_WAIT,
            Knob::number(
                BUSY_POLL_US,
                0,
                0..=1_000_000,
                "microseconds that a wait polls the network device before it sleeps (EPIOCSPARAMS, \
                 Linux 6.9); 0 is off; no effect on loopback, which has no NAPI device to poll",
            ),
            ZERO_COPY,
            WORK_NS,
        ],
        ..BackendFacts::DEFAULT
    };
    const EDGE_TRIGGERED: bool = EDGE;

    fn probe(knobs: &Knobs) -> Result<(), Unsupported> {
        set_busy_poll(&create()?, knobs)
            .map(drop)
            .map_err(|error| Unsupported { reason: explain(&error) })
    }

    fn new(knobs: &Knobs) -> io::Result<Self> {
        let epoll = sys::epoll_create()?;
        let busy_poll = set_busy_poll(&epoll, knobs)
            .map_err(|error| io::Error::new(error.kind(), explain(&error)))?;
        let events =
            vec![libc::epoll_event { events: 0, u64: 0 }; knobs.size(EVENTS_PER_WAIT.name)];
        Ok(Self { epoll, events, busy_poll, wakes_one: ports::wakes_one(knobs) })
    }

    fn in_force(&self) -> Facts {
        let Some(params) = self.busy_poll else { return Facts::new() };
        Facts::from_iter([
            ("busy_poll_us".to_owned(), params.busy_poll_usecs.into()),
            ("busy_poll_budget".to_owned(), params.busy_poll_budget.into()),
            ("prefer_busy_poll".to_owned(), (params.prefer_busy_poll != 0).into()),
        ])
    }

    fn add_level(&mut self, counters: &Counters, fd: RawFd) -> io::Result<()> {
        self.control(counters, libc::EPOLL_CTL_ADD, fd, INPUT).map_err(named("epoll_ctl"))
    }

    fn add_listener(&mut self, counters: &Counters, fd: RawFd) -> io::Result<()> {
        let events = INPUT | if self.wakes_one { libc::EPOLLEXCLUSIVE as u32 } else { 0 };
        self.control(counters, libc::EPOLL_CTL_ADD, fd, events).map_err(named("epoll_ctl"))
    }

    fn add_connection(&mut self, counters: &Counters, fd: RawFd) -> io::Result<()> {
        self.control(counters, libc::EPOLL_CTL_ADD, fd, if EDGE { EVERY_EDGE } else { INPUT })
    }

    fn change(&mut self, counters: &Counters, fd: RawFd, interest: Interest) -> io::Result<()> {
        let events = match interest {
            Interest::Input => INPUT,
            Interest::Output => OUTPUT,
            Interest::Either => INPUT | OUTPUT,
        };
        self.control(counters, libc::EPOLL_CTL_MOD, fd, events)
    }

    fn remove(&mut self, counters: &Counters, fd: RawFd) -> io::Result<()> {
        self.control(counters, libc::EPOLL_CTL_DEL, fd, 0)
    }

    /// Closing takes it out of the set, since no other descriptor refers to the socket (epoll(7)).
    fn closing(&mut self, _fd: RawFd) {}

    fn wait(&mut self, counters: &Counters, timeout_ms: i32) -> io::Result<usize> {
        sys::epoll_wait(counters, self.epoll.as_raw_fd(), &mut self.events, timeout_ms)
    }

    fn ready(&self, index: usize) -> Ready {
        let libc::epoll_event { events, u64: fd } = self.events[index];
        let fd = fd as RawFd;
        let failed = events & libc::EPOLLERR as u32 != 0;
        if EDGE {
            Ready { fd, only_space: events == OUTPUT, cut: events & CUT != 0, failed }
        } else {
            Ready { failed, ..Ready::level(fd) }
        }
    }

    fn has_input(&self, index: usize) -> bool {
        self.events[index].events & (INPUT | CUT) != 0
    }
}

impl<const EDGE: bool> Epoll<EDGE> {
    fn control(
        &self,
        counters: &Counters,
        operation: i32,
        fd: RawFd,
        events: u32,
    ) -> io::Result<()> {
        sys::epoll_ctl(counters, self.epoll.as_raw_fd(), operation, fd, events, fd as u64)
    }
}
