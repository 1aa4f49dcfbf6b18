//! The lines that a server prints: JSON, one for each event. The server prints these types, and the
//! harness reads them.

use crate::address::Address;
use crate::call::Call;
use crate::contract::Facts;
use crate::counters::{self, Counters};
use crate::process;
use crate::whereabouts::Whereabouts;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;

/// The version of all JSON that the programs print or write. A new field leaves it as it is; a
/// field that goes, or that means another thing, raises it.
pub const FORMAT_VERSION: u32 = 1;

/// An event of a server on one backend.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant says what its fields are")]
pub enum ServerEvent {
    /// It waits for a line on stdin (`--hold`).
    Held {
        backend: String,
        #[serde(flatten)]
        whereabouts: Whereabouts,
    },
    /// It accepts connections. These are its service in words, the values of its knobs, the facts
    /// in force in its first worker, its workers, and its addresses in the order of their ports.
    Ready {
        #[serde(default)]
        format_version: u32,
        backend: String,
        #[serde(default)]
        service: String,
        knobs: Facts,
        in_force: Facts,
        workers: usize,
        addresses: Vec<Address>,
        pid: u32,
    },
    /// This kernel does not let its backend run.
    Unsupported { backend: String, reason: String },
    /// Its counters so far.
    Counters {
        backend: String,
        #[serde(flatten)]
        counters: ServerCounters,
    },
    /// Its counters at its end.
    End {
        backend: String,
        #[serde(flatten)]
        counters: ServerCounters,
    },
}

/// The counters of a server, all workers summed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServerCounters {
    /// System calls by name, those that were made.
    #[serde(serialize_with = "in_order_of_columns")]
    pub calls: BTreeMap<String, u64>,
    /// The loop counters, and `open`: the connections that are accepted and not closed.
    #[serde(rename = "loop", serialize_with = "in_order_of_loops")]
    pub loops: BTreeMap<String, u64>,
    /// Connections that each worker has accepted, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted_by_worker: Vec<u64>,
    /// The last error of accept, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_error: Option<String>,
    /// Threads that io_uring has made in the server.
    pub kernel_threads: KernelThreads,
    /// CPU time of the server's process, threads that have ended included.
    pub cpu_ns: Option<u64>,
    /// Whether the server prints no counters. Then `open` was seen from outside, and a 0 of
    /// anything else says nothing.
    #[serde(skip)]
    pub is_from_outside: bool,
}

/// Threads that io_uring has made in a server. A thread that was made for work which could not be
/// done at once stays: the last idle one of a kind does not end (`io_wq_worker` in the kernel's
/// io-wq.c).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct KernelThreads {
    /// io-wq workers.
    pub io_wq: u64,
    /// SQPOLL threads.
    pub sqpoll: u64,
}

/// The loop counter that is computed from others.
const OPEN: &str = "open";

/// The calls that wait for events.
const WAITS: [Call; 6] = [
    Call::EpollWait,
    Call::EpollPwait,
    Call::IoUringEnter,
    Call::Poll,
    Call::Ppoll,
    Call::Pselect6,
];

impl ServerCounters {
    /// Reads the counters of all workers, and of this process.
    pub fn read<'a>(workers: impl IntoIterator<Item = &'a Counters>) -> Self {
        let names = process::thread_names();
        let count = |prefix| names.iter().filter(|name| name.starts_with(prefix)).count() as u64;
        Self {
            kernel_threads: KernelThreads { io_wq: count("iou-wrk-"), sqpoll: count("iou-sqp-") },
            cpu_ns: process::cpu_ns().ok(),
            ..Self::sum(workers)
        }
    }

    /// Sums the counters of all workers.
    pub fn sum<'a>(workers: impl IntoIterator<Item = &'a Counters>) -> Self {
        let workers: Vec<&Counters> = workers.into_iter().collect();
        let accepted = workers.iter().map(|worker| worker.accepted.get());
        let accepted_by_worker = accepted.filter(|_| workers.len() > 1).collect();
        let sum = counters::Sum::of(workers);
        let calls = sum.calls().filter(|&(_, count)| count > 0);
        let mut summed = Self {
            calls: calls.map(|(call, count)| (call.name().to_owned(), count)).collect(),
            loops: sum.loops().map(|(name, count)| (name.to_owned(), count)).collect(),
            accepted_by_worker,
            accept_error: sum.accept_error().map(|error| error.to_string()),
            ..Self::default()
        };
        let open = summed.of_loop("accepted").saturating_sub(summed.of_loop("closed"));
        summed.loops.insert(OPEN.to_owned(), open);
        summed
    }

    /// Returns a loop counter, or 0 if this server has none of that name.
    pub fn of_loop(&self, name: &str) -> u64 {
        self.loops.get(name).copied().unwrap_or(0)
    }

    /// Returns how often a call was made.
    pub fn of_call(&self, name: &str) -> u64 {
        self.calls.get(name).copied().unwrap_or(0)
    }

    /// Returns whether the workers have done nothing since an earlier reading.
    pub fn is_still_since(&self, earlier: &Self) -> bool {
        (&self.calls, &self.loops) == (&earlier.calls, &earlier.loops)
    }

    /// Returns the events for each of the calls that wait for them, since an earlier reading. There
    /// is nothing to return without a wait or an event, as with a thread for each connection.
    pub fn events_per_wait_since(&self, earlier: &Self) -> Option<f64> {
        let waits =
            |counters: &Self| WAITS.map(|call| counters.of_call(call.name())).iter().sum::<u64>();
        let waits = waits(self) - waits(earlier);
        let events = self.of_loop("events") - earlier.of_loop("events");
        (waits > 0 && events > 0).then(|| events as f64 / waits as f64)
    }
}

fn in_order_of_columns<S: Serializer>(
    calls: &BTreeMap<String, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(Call::ALL.iter().filter_map(|call| calls.get_key_value(call.name())))
}

fn in_order_of_loops<S: Serializer>(
    loops: &BTreeMap<String, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let names = counters::LOOP_COUNTERS.iter().chain([&OPEN]);
    serializer.collect_map(names.filter_map(|name| loops.get_key_value(*name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_printed() {
        let worker = Counters::default();
        worker.count(Call::Sendto);
        worker.count(Call::EpollWait);
        worker.accepted.add(3);
        worker.closed.add(1);
        worker.last_accept_errno.set(24);
        let counters = ServerCounters { cpu_ns: Some(7), ..ServerCounters::sum([&worker]) };
        let event = ServerEvent::End { backend: "null".to_owned(), counters };
        let line = serde_json::to_string(&event).expect("prints");
        assert!(
            line.starts_with(
                "{\"event\":\"end\",\"backend\":\"null\",\
                 \"calls\":{\"epoll_wait\":1,\"sendto\":1},\"loop\":{\"accepted\":3,\"closed\":1,"
            ),
            "{line}"
        );
        assert!(
            line.ends_with(
                ",\"late\":0,\"open\":2},\"accept_error\":\"Too many open files (os error 24)\",\
                 \"kernel_threads\":{\"io_wq\":0,\"sqpoll\":0},\"cpu_ns\":7}"
            ),
            "{line}"
        );
        let ServerEvent::End { counters, .. } = serde_json::from_str(&line).expect("is read")
        else {
            panic!("another event")
        };
        assert_eq!((counters.of_loop("open"), counters.of_call("sendto")), (2, 1));
    }
}
