//! poll(2): an array of all descriptors, which the kernel reads through at every wait, and so do
//! we.

use super::batch::{RECEIVE_BYTES, SEND};
use super::event_loop::{ACCEPTS, Readiness};
use super::selector::{Interest, Ready, Selector};
use crate::contract::{BackendFacts, Knobs, Needs};
use crate::counters::Counters;
use crate::ports::LISTENERS_OF_POLL;
use crate::sys;
use crate::work::WORK_NS;
use std::io;
use std::os::fd::RawFd;

/// The loop over poll(2).
pub type Poll<C> = Readiness<PollArray, C>;

/// The descriptors that are waited for, in any order.
pub struct PollArray {
    entries: Vec<libc::pollfd>,
    /// By fd: where its entry is. Means nothing for a descriptor that has none.
    places: Vec<u32>,
    /// The descriptors that the last wait has reported; serving them moves entries about.
    ready: Vec<RawFd>,
}

impl Selector for PollArray {
    const FACTS: BackendFacts = BackendFacts {
        name: "poll",
        summary: "poll(2) over an array of all descriptors, one receive buffer a worker, sent at \
                  once",
        needs: Needs { linux: "3.2", default_container: true, limits: "none" },
        knobs: &[RECEIVE_BYTES, SEND, ACCEPTS, LISTENERS_OF_POLL, WORK_NS],
        ..BackendFacts::DEFAULT
    };

    fn new(_knobs: &Knobs) -> io::Result<Self> {
        Ok(Self { entries: Vec::new(), places: Vec::new(), ready: Vec::new() })
    }

    fn add_level(&mut self, counters: &Counters, fd: RawFd) -> io::Result<()> {
        self.add_connection(counters, fd)
    }

    fn add_connection(&mut self, _counters: &Counters, fd: RawFd) -> io::Result<()> {
        let index = fd as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, 0);
        }
        self.places[index] = self.entries.len() as u32;
        self.entries.push(libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        Ok(())
    }

    fn change(&mut self, _counters: &Counters, fd: RawFd, interest: Interest) -> io::Result<()> {
        self.entries[self.places[fd as usize] as usize].events = match interest {
            Interest::Input => libc::POLLIN,
            Interest::Output => libc::POLLOUT,
            Interest::Either => libc::POLLIN | libc::POLLOUT,
        };
        Ok(())
    }

    fn remove(&mut self, _counters: &Counters, fd: RawFd) -> io::Result<()> {
        self.closing(fd);
        Ok(())
    }

    fn closing(&mut self, fd: RawFd) {
        let place = self.places[fd as usize];
        self.entries.swap_remove(place as usize);
        if let Some(moved) = self.entries.get(place as usize) {
            self.places[moved.fd as usize] = place;
        }
    }

    fn wait(&mut self, counters: &Counters, timeout_ms: i32) -> io::Result<usize> {
        let ready = sys::poll(counters, &mut self.entries, timeout_ms)?;
        self.ready.clear();
        let reported = self.entries.iter().filter(|entry| entry.revents != 0).take(ready);
        self.ready.extend(reported.map(|entry| entry.fd));
        Ok(self.ready.len())
    }

    fn ready(&self, index: usize) -> Ready {
        Ready::level(self.ready[index])
    }

    fn has_input(&self, index: usize) -> bool {
        let place = self.places[self.ready[index] as usize];
        let revents = self.entries.get(place as usize).map_or(0, |entry| entry.revents);
        revents & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_after_others_have_left() {
        let counters = Counters::default();
        let mut array = PollArray { entries: Vec::new(), places: Vec::new(), ready: Vec::new() };
        let add = |array: &mut PollArray, fd| {
            array.add_connection(&counters, fd).expect("needs no system call")
        };
        (3..9).for_each(|fd| add(&mut array, fd));
        for fd in [3, 8, 5] {
            array.closing(fd);
        }
        add(&mut array, 5);
        array.change(&counters, 6, Interest::Output).expect("needs no system call");
        let mut held: Vec<_> = array.entries.iter().map(|entry| (entry.fd, entry.events)).collect();
        held.sort_unstable();
        let (input, output) = (libc::POLLIN, libc::POLLOUT);
        assert_eq!(held, [(4, input), (5, input), (6, output), (7, input)]);
    }
}
