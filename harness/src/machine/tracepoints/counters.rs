//! Opens and reads a counter for each tracepoint of a group.

use std::io;

use perf_event::{Builder, Counter};

use super::tracefs::{Tracepoint, ids};
use crate::machine::procfs;
use crate::machine::rights::perf_refusal;
use crate::machine::unavailable::Unavailable;

/// Open counters on one process, one for each tracepoint of a group.
pub struct TracepointCounters<T> {
    counters: Vec<(T, Option<Counter>)>,
}

/// Events since the counters were attached, or between two readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<T> {
    counts: Vec<(T, Option<u64>)>,
}

impl<T: Tracepoint> TracepointCounters<T> {
    /// Opens the counters on a process that has a single thread, and on all threads that it will
    /// start. It may be blocked in a system call: only what begins from now on is counted.
    pub fn attach(pid: u32) -> Result<Self, Unavailable> {
        let threads = procfs::read(format!("/proc/{pid}/status"))
            .and_then(|status| procfs::number(&status, "Threads"))
            .map_err(|error| Unavailable::new(error.to_string()))?;
        if threads != 1 {
            return Err(Unavailable::new(format!(
                "process {pid} has {threads} threads already, and counters follow only threads \
                 that start after them: attach while the server waits in --hold"
            )));
        }
        Self::open(pid, true)
    }

    /// Opens the counters on a process's main thread alone.
    pub fn attach_to_main_thread(pid: u32) -> Result<Self, Unavailable> {
        Self::open(pid, false)
    }

    pub(super) fn open(pid: u32, inherit: bool) -> Result<Self, Unavailable> {
        let ids = ids::<T>()?;
        let mut counters = Vec::with_capacity(ids.len());
        for (tracepoint, id) in ids {
            let counter = id.map(|id| open(pid, id, inherit)).transpose();
            let counter = counter.map_err(|error| perf_refusal(&error))?;
            counters.push((tracepoint, counter));
        }
        Ok(Self { counters })
    }

    /// Lists the tracepoints that this kernel does not have.
    pub fn unavailable(&self) -> impl Iterator<Item = T> {
        let missing = self.counters.iter().filter(|(_, counter)| counter.is_none());
        missing.map(|&(tracepoint, _)| tracepoint)
    }

    /// Reads every counter, at any moment, one after the other.
    pub fn read(&mut self) -> io::Result<Reading<T>> {
        let counts = self.counters.iter_mut().map(|(tracepoint, counter)| {
            Ok((*tracepoint, counter.as_mut().map(Counter::read).transpose()?))
        });
        Ok(Reading { counts: counts.collect::<io::Result<_>>()? })
    }
}

impl<T: Tracepoint> Reading<T> {
    /// Returns how often it happened; none if the kernel has no such tracepoint.
    pub fn of(&self, tracepoint: impl Into<T>) -> Option<u64> {
        let wanted = tracepoint.into();
        self.counts.iter().find(|(tracepoint, _)| *tracepoint == wanted)?.1
    }

    /// Returns what happened since an earlier reading of the same counters.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts.clone();
        for ((_, count), (_, then)) in counts.iter_mut().zip(&earlier.counts) {
            *count = count.zip(*then).map(|(now, then)| now - then);
        }
        Self { counts }
    }
}

fn open(pid: u32, id: u64, inherit: bool) -> io::Result<Counter> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // A tracepoint fires in the kernel: excluding the kernel would exclude every event.
    Builder::new(perf_event::events::Tracepoint::with_id(id))
        .observe_pid(pid)
        .any_cpu()
        .inherit(inherit)
        .exclude_kernel(false)
        .enabled(true)
        .build()
}
