//! select(2): a bit for each descriptor, and no more than 1024 of them.
//!
//! An `fd_set` has no room for a descriptor from FD_SETSIZE on; setting its bit would write beyond
//! it. So the process may not have such a descriptor: the soft limit of open files is lowered to
//! FD_SETSIZE, accept fails with EMFILE as it does wherever files run out, and the loop rests from
//! accepting until a connection closes. Connections beyond that wait in the listener's queue.

use super::batch::{RECEIVE_BYTES, SEND};
use super::event_loop::{ACCEPTS, Readiness};
use super::selector::{Interest, Ready, Selector};
use crate::contract::{BackendFacts, Facts, Knobs, Needs};
use crate::counters::Counters;
use crate::ports::LISTENERS_OF_POLL;
use crate::process;
use crate::sys::{self, FdSet};
use crate::work::WORK_NS;
use std::io;
use std::os::fd::RawFd;

/// The loop over select(2).
pub type Select<C> = Readiness<Sets, C>;

const BITS: usize = libc::c_ulong::BITS as usize;

/// The descriptors that are waited for. The kernel overwrites the sets that it is given, so it gets
/// copies.
pub struct Sets {
    input: FdSet,
    output: FdSet,
    /// One more than the highest descriptor in either set: as far as the kernel has to look.
    end: usize,
    /// The descriptors that the last wait has reported, in order.
    ready: Vec<RawFd>,
    /// Those of them that have input, or their peer's end.
    readable: FdSet,
    descriptors: u64,
}

impl Selector for Sets {
    const FACTS: BackendFacts = BackendFacts {
        name: "select",
        summary: "select(2) over sets of at most 1024 descriptors, one receive buffer a worker, \
                  sent at once",
        needs: Needs { linux: "3.2", default_container: true, limits: "1024 open files" },
        knobs: &[RECEIVE_BYTES, SEND, ACCEPTS, LISTENERS_OF_POLL, WORK_NS],
        descriptors_per_worker: Some(libc::FD_SETSIZE),
        ..BackendFacts::DEFAULT
    };

    fn new(_knobs: &Knobs) -> io::Result<Self> {
        let descriptors = process::lower_open_files_limit(libc::FD_SETSIZE as u64)?;
        Ok(Self {
            input: FdSet::default(),
            output: FdSet::default(),
            end: 0,
            ready: Vec::new(),
            readable: FdSet::default(),
            descriptors,
        })
    }

    fn admit(&self, fd: RawFd) -> io::Result<()> {
        if (fd as usize) < libc::FD_SETSIZE {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "descriptor {fd}: select holds descriptors below {} only; give fewer --ports or more \
             --workers",
            libc::FD_SETSIZE
        )))
    }

    fn in_force(&self) -> Facts {
        Facts::from_iter([("descriptors_per_worker".to_owned(), self.descriptors.into())])
    }

    fn add_level(&mut self, counters: &Counters, fd: RawFd) -> io::Result<()> {
        self.add_connection(counters, fd)
    }

    fn add_connection(&mut self, _counters: &Counters, fd: RawFd) -> io::Result<()> {
        // The limit does not hold for what was open before it was lowered, and others may raise it
        // (prlimit(1)).
        self.admit(fd)?;
        let (word, bit) = place(fd);
        self.input[word] |= bit;
        self.end = self.end.max(fd as usize + 1);
        Ok(())
    }

    fn change(&mut self, _counters: &Counters, fd: RawFd, interest: Interest) -> io::Result<()> {
        let (word, bit) = place(fd);
        let (input, output) = match interest {
            Interest::Input => (bit, 0),
            Interest::Output => (0, bit),
            Interest::Either => (bit, bit),
        };
        self.input[word] = self.input[word] & !bit | input;
        self.output[word] = self.output[word] & !bit | output;
        Ok(())
    }

    fn remove(&mut self, _counters: &Counters, fd: RawFd) -> io::Result<()> {
        self.closing(fd);
        Ok(())
    }

    fn closing(&mut self, fd: RawFd) {
        let (word, bit) = place(fd);
        self.input[word] &= !bit;
        self.output[word] &= !bit;
        if self.end == fd as usize + 1 {
            let below = (0..=word).rev().map(|word| (word, self.input[word] | self.output[word]));
            self.end = below
                .filter(|(_, bits)| *bits != 0)
                .map(|(word, bits)| (word + 1) * BITS - bits.leading_zeros() as usize)
                .next()
                .unwrap_or(0);
        }
    }

    fn wait(&mut self, counters: &Counters, timeout_ms: i32) -> io::Result<usize> {
        let (mut input, mut output) = (self.input, self.output);
        self.ready.clear();
        if sys::select(counters, self.end, &mut input, &mut output, timeout_ms)? > 0 {
            for word in 0..self.end.div_ceil(BITS) {
                let mut bits = input[word] | output[word];
                while bits != 0 {
                    self.ready.push((word * BITS + bits.trailing_zeros() as usize) as RawFd);
                    bits &= bits - 1;
                }
            }
        }
        self.readable = input;
        Ok(self.ready.len())
    }

    fn ready(&self, index: usize) -> Ready {
        Ready::level(self.ready[index])
    }

    fn has_input(&self, index: usize) -> bool {
        let (word, bit) = place(self.ready[index]);
        self.readable[word] & self.output[word] & bit != 0
    }
}

/// Returns the word and the bit of a descriptor.
fn place(fd: RawFd) -> (usize, libc::c_ulong) {
    (fd as usize / BITS, 1 << (fd as usize % BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_follows_the_highest_descriptor() {
        let counters = Counters::default();
        let mut sets = Sets {
            input: FdSet::default(),
            output: FdSet::default(),
            end: 0,
            ready: Vec::new(),
            readable: FdSet::default(),
            descriptors: 0,
        };
        for fd in [3, 63, 64, 200, 1023] {
            sets.add_connection(&counters, fd).expect("fits");
        }
        sets.change(&counters, 64, Interest::Output).expect("needs no system call");
        for (closed, end) in [(1023, 201), (3, 201), (200, 65), (64, 64), (63, 0)] {
            sets.closing(closed);
            assert_eq!(sets.end, end, "after {closed}");
        }
        assert_eq!((sets.input, sets.output), (FdSet::default(), FdSet::default()));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let counters = Counters::default();
        let mut sets = Sets {
            input: FdSet::default(),
            output: FdSet::default(),
            end: 0,
            ready: Vec::new(),
            readable: FdSet::default(),
            descriptors: 0,
        };
        assert!(sets.add_connection(&counters, 1024).is_err());
        assert_eq!((sets.end, sets.input), (0, FdSet::default()));
    }
}
