//! Counters of a server, as it prints them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringmark::call::Call;
use serde::Deserialize;

use crate::machine::whereabouts::Whereabouts;

/// What a server says.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ServerEvent {
    Held(Whereabouts),
    Ready { knobs: serde_json::Value, in_force: serde_json::Value, addresses: Vec<SocketAddr> },
    Unsupported { reason: String },
    Counters(ServerCounters),
    End(ServerCounters),
}

/// The server's own counters, all workers summed. What never happened is not in the maps of calls.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ServerCounters {
    /// System calls by name.
    pub calls: BTreeMap<String, u64>,
    /// What the loops did; which names there are is the backend's affair.
    #[serde(rename = "loop")]
    pub loops: BTreeMap<String, u64>,
    /// CPU time of its process, threads that have ended included.
    pub cpu_ns: Option<u64>,
    /// How accept failed in it last, if it did.
    #[serde(default)]
    pub accept_error: Option<String>,
    /// Threads that io_uring has made in it.
    #[serde(default)]
    pub kernel_threads: KernelThreads,
    /// Whether they are of a server that is not ours and has none: then there is `open`, as it is
    /// seen from outside, and a 0 of anything else says nothing.
    #[serde(skip)]
    pub is_from_outside: bool,
}

impl ServerCounters {
    /// Whether its workers have done nothing since an earlier reading.
    pub fn is_still_since(&self, earlier: &Self) -> bool {
        (&self.calls, &self.loops) == (&earlier.calls, &earlier.loops)
    }

    /// A loop counter, 0 if this server has none of that name.
    pub fn of_loop(&self, name: &str) -> u64 {
        self.loops.get(name).copied().unwrap_or(0)
    }

    /// How often a call was made.
    pub fn of_call(&self, name: &str) -> u64 {
        self.calls.get(name).copied().unwrap_or(0)
    }

    /// Events for each of the calls that wait for them, since an earlier reading; none if there was
    /// no such wait or no event, as with a thread for each connection.
    pub fn events_per_wait_since(&self, earlier: &Self) -> Option<f64> {
        let waits =
            |counters: &Self| WAITS.map(|call| counters.of_call(call.name())).iter().sum::<u64>();
        let waits = waits(self) - waits(earlier);
        let events = self.of_loop("events") - earlier.of_loop("events");
        (waits > 0 && events > 0).then(|| events as f64 / waits as f64)
    }
}

/// Threads that io_uring has made in a server, by its own account.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct KernelThreads {
    /// io-wq workers.
    pub io_wq: u64,
    /// SQPOLL threads.
    pub sqpoll: u64,
}

/// The calls that wait for events.
const WAITS: [Call; 6] = [
    Call::EpollWait,
    Call::EpollPwait,
    Call::IoUringEnter,
    Call::Poll,
    Call::Ppoll,
    Call::Pselect6,
];
