//! Checks that decide whether a trial's figures may be used.

use ringmark::protocol::ServerCounters;

use crate::load::result::{Bottleneck, CLIENT_BUSY_PERCENT, LoadResult, OFFERED_SHARE};
use crate::machine::network::NetworkReading;
use crate::rows::Status;

/// More than this share of the machine's time taken by the hypervisor spoils a window.
pub const STEAL_PERCENT: f64 = 5.0;

/// More than this share of the window spent ready but without a CPU means that something else ran
/// there.
pub const RUN_DELAY_PERCENT: f64 = 5.0;

/// More than this share of segments sent again is a network that loses some. Fewer are probes that
/// TCP sends when an acknowledgement is late (after 8 ms where the kernel's tick is 4 ms long). On
/// loopback nothing is lost, and a stall of that length shows in the other gates if it matters.
pub const RETRANSMITTED_SHARE: f64 = 0.001;

/// More than this share of memory readings that did not come to rest spoils a walk.
pub const UNSETTLED_SHARE: f64 = 0.25;

/// What became of an open loop's messages.
#[derive(Clone, Copy, Debug)]
pub struct Offered {
    /// Due within the window.
    pub per_s: f64,
    /// Back within the window.
    pub achieved_per_s: f64,
    /// Due, but not even sent within the window.
    pub unsent_per_s: f64,
}

impl Offered {
    /// Says that the client did not send what was due.
    fn unsent_too_many(&self) -> Option<String> {
        let Self { per_s, unsent_per_s, .. } = self;
        let sent_per_s = per_s - unsent_per_s;
        (sent_per_s < OFFERED_SHARE * per_s).then(|| {
            format!(
                "client-limited: of {per_s:.0} messages a second that were due the client sent \
                 {sent_per_s:.0} in time"
            )
        })
    }

    /// Says that the server did not send back what was offered.
    fn unanswered_too_many(&self) -> Option<String> {
        let Self { per_s, achieved_per_s, .. } = self;
        (*achieved_per_s < OFFERED_SHARE * per_s).then(|| {
            format!(
                "saturated: of {per_s:.0} echoes a second that were offered {achieved_per_s:.0} \
                 came back in time; latency grows with the length of the window"
            )
        })
    }
}

/// What the gates look at.
#[derive(Default)]
pub struct Evidence {
    /// Connections asked for, and those that the server counted.
    pub connections: (u64, u64),
    /// Echoes within the window; none if the trial had no window.
    pub echoes: Option<u64>,
    /// What became of the messages, if the loop was open.
    pub offered: Option<Offered>,
    /// The client's CPU in percent of what it could use.
    pub client_cpu_percent: Option<f64>,
    /// The hypervisor's share.
    pub steal_percent: Option<f64>,
    /// The server's waiting for a CPU, in percent of the window.
    pub server_run_delay_percent: Option<f64>,
    /// The client's, as a mean over its threads.
    pub client_run_delay_percent: Option<f64>,
    /// What TCP counted, if the trial had a namespace of its own. The host's counts belong to
    /// everybody.
    pub network: Option<NetworkReading>,
    /// io-wq workers that appeared.
    pub io_workers: u64,
    /// Memory readings that had not come to rest, and all of them.
    pub unsettled_readings: (usize, usize),
    /// Why the slope of a walk is not that of its connections.
    pub disturbed_slope: Option<String>,
    /// The server's counters at the end.
    pub counters: ServerCounters,
    /// Who has to share a CPU: waiting for each other is then no sign of anything else.
    pub sharing: Sharing,
    /// Why what was read at the window's ends is not of the window.
    pub not_of_window: Vec<String>,
    /// What the knobs ask for and is not in force.
    pub not_in_force: Vec<String>,
    /// What was owed in the end, if messages were.
    pub owed: Option<String>,
    /// Why the client was its own limit, beside its CPU and what it did not send.
    pub client_limits: Vec<String>,
    /// What to mind although nothing is wrong.
    pub notes: Vec<String>,
}

/// Threads of a trial that have no CPU each, and so wait for one another.
#[derive(Clone, Copy, Default)]
pub struct Sharing {
    /// Server and client, or the workers among themselves: they were not kept on CPUs of their own.
    pub by_placement: bool,
    /// With `by_placement`: the client has CPUs of its own, and only the workers share.
    pub client_is_apart: bool,
    /// With `by_placement`: the delays that are given are only those beyond what the two took from
    /// each other.
    pub is_accounted: bool,
    /// A worker and the SQPOLL thread of its ring, which inherits its pinning.
    pub kernel_thread: bool,
    /// The threads of a server that has more of them than workers, as with a thread for each
    /// connection. They are its way of waiting, so that this is no blemish; but its run delay says
    /// nothing about others, and only the client's, and the time that was stolen, still do.
    pub siblings: bool,
}

impl Sharing {
    /// Returns whether the figures are those of a machine with too few CPUs.
    pub fn is_shared_cpu(self) -> bool {
        self.by_placement || self.kernel_thread
    }
}

impl Evidence {
    /// Returns what a load's result tells.
    pub fn of_load(result: &LoadResult) -> Self {
        Self {
            echoes: Some(result.echoes),
            offered: result.open.as_ref().map(|open| Offered {
                per_s: open.offered_per_s,
                achieved_per_s: result.achieved_per_s,
                unsent_per_s: open.unsent as f64 / result.duration_s,
            }),
            client_cpu_percent: Some(result.client_cpu_ratio * 100.0),
            owed: owed(result),
            client_limits: behind(result).into_iter().collect(),
            notes: (result.file_table.strip_prefix("shared: ").into_iter())
                .map(|why| format!("the load's threads share one file table: {why}"))
                .collect(),
            ..Self::default()
        }
    }

    /// Says every reason for which no figure may be used.
    fn rejections(&self) -> Vec<String> {
        let (asked, stood) = self.connections;
        let mut rejections = Vec::new();
        if asked != stood {
            rejections.push(format!("{stood} connections stood where {asked} were asked for"));
        }
        if self.echoes == Some(0) {
            rejections.push(
                "no echo came back within the window: the client or the server had no CPU, or the \
                 window is too short"
                    .to_owned(),
            );
        }
        rejections.extend_from_slice(&self.not_of_window);
        rejections.extend_from_slice(&self.not_in_force);
        if let Some(percent) = above(self.steal_percent, STEAL_PERCENT) {
            rejections.push(format!(
                "the hypervisor took {percent:.1} % of the time (bound: {STEAL_PERCENT} %)"
            ));
        }
        rejections.extend(self.run_delays());
        rejections.extend(self.network.as_ref().map(lost).unwrap_or_default());
        let io_workers = self.io_workers();
        rejections.extend(io_workers.filter(|_| !self.counters.is_from_outside));
        let (unsettled, readings) = self.unsettled_readings;
        if unsettled as f64 > UNSETTLED_SHARE * readings as f64 {
            rejections.push(format!(
                "{unsettled} of {readings} readings had not come to rest: something else used \
                 memory"
            ));
        }
        rejections.extend(self.disturbed_slope.clone());
        let pauses = self.counters.of_loop("accept_pauses");
        if pauses > 0 {
            let cause = self.counters.accept_error.as_deref();
            let cause = cause.unwrap_or("files, memory or threads ran out");
            rejections.push(format!("accepting paused {pauses} times: {cause}"));
        }
        let late = self.counters.of_loop("late");
        if late > 0 {
            rejections.push(format!(
                "{late} completions came after their connection was closed: the server's fault"
            ));
        }
        rejections
    }

    /// Says who waited for a CPU longer than those that share it account for.
    fn run_delays(&self) -> Vec<String> {
        let Sharing { by_placement, client_is_apart, is_accounted, kernel_thread, siblings } =
            self.sharing;
        let by_each_other = by_placement && !is_accounted;
        let server_shares = by_each_other || kernel_thread || siblings;
        let client_shares = by_each_other && !client_is_apart;
        let delays = [
            ("server", self.server_run_delay_percent.filter(|_| !server_shares)),
            ("client", self.client_run_delay_percent.filter(|_| !client_shares)),
        ];
        let too_long = delays
            .into_iter()
            .filter_map(|(who, delay)| Some((who, above(delay, RUN_DELAY_PERCENT)?)));
        too_long
            .map(|(who, delay)| {
                format!(
                    "the {who} waited for a CPU {delay:.1} % of the time (bound: \
                     {RUN_DELAY_PERCENT} %): something else ran there"
                )
            })
            .collect()
    }

    /// Says how many io-wq workers appeared. A server may have seen workers that were gone again
    /// when its tasks were listed.
    fn io_workers(&self) -> Option<String> {
        let count = self.io_workers.max(self.counters.of_loop("io_wq_workers"));
        (count > 0).then(|| format!("{count} io-wq workers appeared: something ran asynchronously"))
    }

    /// Says what to mind of a trial that is not rejected.
    fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        notes.extend(self.owed.clone());
        if self.counters.is_from_outside {
            // That may be its way.
            notes.extend(self.io_workers());
            notes.push(
                "external: what only a server's own counters tell (pauses in accepting, \
                 connections that it accepted in all, queues that overflowed, buffers that ran \
                 out) was not looked at"
                    .to_owned(),
            );
        }
        if self.sharing.by_placement {
            notes.push(
                "shared-cpu: server and client, or the server's workers, were not kept on CPUs of \
                 their own"
                    .to_owned(),
            );
        }
        if self.sharing.kernel_thread {
            let note = "shared-cpu: the SQPOLL thread and its worker took each other's time";
            notes.push(note.to_owned());
        }
        if let Some(network) = self.network.filter(|network| network.retransmitted_segments > 0) {
            let NetworkReading { sent_segments, retransmitted_segments, .. } = network;
            notes.push(format!(
                "TCP sent {retransmitted_segments} of {sent_segments} segments again"
            ));
        }
        let (unsettled, readings) = self.unsettled_readings;
        if unsettled > 0 {
            notes.push(format!("{unsettled} of {readings} readings had not come to rest"));
        }
        // What a backend does when its queues are short is its own cost, and stays in the
        // comparison.
        for (counter, meaning) in [
            ("cq_overflows", "the completion queue overflowed"),
            (
                "no_buffers",
                "the pool ran dry (set buffers higher): receives found no provided buffer",
            ),
        ] {
            let times = self.counters.of_loop(counter);
            if times > 0 {
                notes.push(format!("{meaning} {times} times"));
            }
        }
        notes
    }
}

/// Returns the value if it is above its bound.
fn above(value: Option<f64>, bound: f64) -> Option<f64> {
    value.filter(|&value| value > bound)
}

/// Says what a load was still owed when it waited no longer.
fn owed(result: &LoadResult) -> Option<String> {
    let saturated = result.saturated.filter(|saturated| saturated.owed_connections > 0)?;
    let p99 = result.latency_us.at_least.as_ref().and_then(|us| us.p99);
    let at_least = p99.map_or(String::new(), |us| format!(" (p99 is at least {us:.0} µs)"));
    Some(format!(
        "saturated: {} messages were still owed {:.1} s after the window; latencies that lie among \
         them are left out{at_least}",
        saturated.owed, saturated.drained_s
    ))
}

/// Says that a load did not come to do what was asked of it.
fn behind(result: &LoadResult) -> Option<String> {
    let is_behind = result.saturated.is_some_and(|saturated| saturated.limit == Bottleneck::Client);
    is_behind.then(|| "client-limited: the load itself was behind what was asked of it".to_owned())
}

/// Says what TCP lost.
fn lost(network: &NetworkReading) -> Vec<String> {
    let NetworkReading { sent_segments, retransmitted_segments, listen_drops } = network;
    let mut lost = Vec::new();
    if *retransmitted_segments as f64 > RETRANSMITTED_SHARE * *sent_segments as f64 {
        lost.push(format!(
            "TCP sent {retransmitted_segments} of {sent_segments} segments again (bound: {} %)",
            100.0 * RETRANSMITTED_SHARE
        ));
    }
    if *listen_drops > 0 {
        lost.push(format!("{listen_drops} connections were dropped at the accept queue"));
    }
    lost
}

/// Returns the status that the evidence allows, with every reason.
pub fn judge(evidence: &Evidence) -> (Status, String) {
    let unsent = evidence.offered.and_then(|offered| offered.unsent_too_many());
    let mut rejections = evidence.rejections();
    if !rejections.is_empty() {
        // A client that has far too much to send does not come to read, so that no echo comes back.
        rejections.extend(unsent);
        rejections.extend_from_slice(&evidence.client_limits);
        rejections.extend(evidence.owed.clone());
        return (Status::Rejected, rejections.join("; "));
    }
    let mut notes = evidence.notes();
    if unsent.is_some() || !evidence.client_limits.is_empty() {
        notes.extend_from_slice(&evidence.client_limits);
        notes.extend(unsent);
        return (Status::ClientLimited, notes.join("; "));
    }
    notes.extend(evidence.offered.and_then(|offered| offered.unanswered_too_many()));
    if let Some(percent) = above(evidence.client_cpu_percent, CLIENT_BUSY_PERCENT) {
        notes.push(format!(
            "client-limited: the client used {percent:.0} % of its CPU; throughput and latency are \
             its own"
        ));
        return (Status::ClientLimited, notes.join("; "));
    }
    (Status::Ok, notes.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::cpu::MachineCpu;

    fn with(change: impl FnOnce(&mut Evidence)) -> (Status, String) {
        let mut evidence = Evidence {
            connections: (64, 64),
            echoes: Some(1000),
            client_cpu_percent: Some(50.0),
            steal_percent: Some(0.1),
            server_run_delay_percent: Some(0.2),
            network: Some(NetworkReading {
                sent_segments: 10_000,
                retransmitted_segments: 0,
                listen_drops: 0,
            }),
            ..Evidence::default()
        };
        change(&mut evidence);
        judge(&evidence)
    }

    #[test]
    fn a_clean_trial_passes() {
        assert_eq!(with(|_| {}), (Status::Ok, String::new()));
    }

    #[test]
    fn every_gate_rejects() {
        let counter = |name: &str| {
            with(|evidence| {
                evidence.counters.loops.insert(name.to_owned(), 1);
            })
        };
        let cases = [
            (with(|evidence| evidence.connections.1 = 63), "63 connections"),
            (with(|evidence| evidence.echoes = Some(0)), "no echo"),
            (with(|evidence| evidence.steal_percent = Some(5.1)), "hypervisor"),
            (with(|evidence| evidence.server_run_delay_percent = Some(6.0)), "waited for a CPU"),
            (
                with(|evidence| evidence.client_run_delay_percent = Some(6.0)),
                "the client waited for a CPU",
            ),
            (
                with(|evidence| evidence.not_in_force = vec!["x=on is not in force".to_owned()]),
                "x=on is not",
            ),
            (with(|evidence| evidence.not_of_window = vec!["read late".to_owned()]), "read late"),
            (with(|evidence| evidence.io_workers = 1), "io-wq"),
            (counter("io_wq_workers"), "1 io-wq workers"),
            (counter("accept_pauses"), "accepting"),
            (with(|evidence| evidence.unsettled_readings = (3, 10)), "come to rest"),
            (
                with(|evidence| evidence.disturbed_slope = Some("a slope of others".to_owned())),
                "a slope of others",
            ),
            (
                with(|evidence| {
                    evidence.network.as_mut().expect("given").retransmitted_segments = 11;
                }),
                "again",
            ),
            (
                with(|evidence| {
                    evidence.network.as_mut().expect("given").listen_drops = 1;
                }),
                "accept queue",
            ),
        ];
        for ((status, reason), words) in cases {
            assert_eq!(status, Status::Rejected, "{words}");
            assert!(reason.contains(words), "{words}: {reason}");
        }
    }

    /// /proc/stat of a virtual machine with two CPUs, and 4 s later, a tenth of them stolen.
    #[test]
    fn stolen_time_is_read_from_what_the_kernel_writes_and_rejects() {
        let read = |text: &str| MachineCpu::parse(text, 10_000_000).expect("what a kernel writes");
        let [before, after] = [
            include_str!("../../tests/fixtures/proc_stat_before_steal.txt"),
            include_str!("../../tests/fixtures/proc_stat_after_steal.txt"),
        ]
        .map(read);
        let steal_percent = after.since(&before).steal_percent();
        assert_eq!(steal_percent, Some(10.0));
        let (status, reason) = with(|evidence| evidence.steal_percent = steal_percent);
        assert_eq!(status, Status::Rejected);
        assert_eq!(reason, "the hypervisor took 10.0 % of the time (bound: 5 %)");
    }

    #[test]
    fn a_few_segments_sent_again_are_noted() {
        let (status, reason) = with(|evidence| {
            evidence.network.as_mut().expect("given").retransmitted_segments = 10;
        });
        assert_eq!((status, reason.as_str()), (Status::Ok, "TCP sent 10 of 10000 segments again"));
    }

    #[test]
    fn a_completion_of_a_connection_that_was_closed_is_a_fault() {
        let (status, reason) = with(|evidence| {
            evidence.counters.loops.insert("late".to_owned(), 1);
        });
        assert!(
            status == Status::Rejected && reason.starts_with("1 completions came after"),
            "{reason}"
        );
    }

    #[test]
    fn what_is_a_backends_own_cost_is_noted_and_stays() {
        for (counter, words) in
            [("cq_overflows", "completion queue"), ("no_buffers", "provided buffer")]
        {
            let (status, reason) = with(|evidence| {
                evidence.counters.loops.insert(counter.to_owned(), 7);
            });
            assert_eq!(status, Status::Ok);
            assert!(reason.contains(words) && reason.contains("7 times"), "{reason}");
        }
    }

    #[test]
    fn of_a_server_without_counters_it_is_said_which_gates_had_nothing_to_look_at() {
        let (status, reason) = with(|evidence| evidence.counters.is_from_outside = true);
        assert!(status == Status::Ok && reason.starts_with("external: what only"), "{reason}");
        let (status, reason) = with(|evidence| {
            evidence.counters.is_from_outside = true;
            evidence.io_workers = 2;
        });
        assert!(status == Status::Ok && reason.starts_with("2 io-wq workers"), "{reason}");
    }

    #[test]
    fn threads_that_share_a_cpu_wait_for_each_other_and_for_nobody_else() {
        let waiting = |server: f64, client: f64, sharing: Sharing| {
            with(|evidence| {
                evidence.sharing = sharing;
                evidence.server_run_delay_percent = Some(server);
                evidence.client_run_delay_percent = Some(client);
            })
        };
        let by_placement = Sharing { by_placement: true, ..Sharing::default() };
        let kernel_thread = Sharing { kernel_thread: true, ..Sharing::default() };
        let siblings = Sharing { siblings: true, ..Sharing::default() };
        for (sharing, note) in
            [(by_placement, "shared-cpu: server"), (kernel_thread, "shared-cpu: the SQPOLL thread")]
        {
            let (status, reason) = waiting(40.0, 0.0, sharing);
            assert!(status == Status::Ok && reason.starts_with(note), "{reason}");
            assert!(sharing.is_shared_cpu());
        }
        assert_eq!(waiting(40.0, 0.0, siblings), (Status::Ok, String::new()));
        assert!(!siblings.is_shared_cpu());
        assert_eq!(waiting(0.0, 40.0, by_placement).0, Status::Ok);
        let workers_alone = Sharing { client_is_apart: true, ..by_placement };
        for sharing in [kernel_thread, siblings, workers_alone] {
            assert_eq!(waiting(0.0, 40.0, sharing).0, Status::Rejected, "the client has its CPU");
        }
    }

    #[test]
    fn what_is_not_sent_in_time_limits_and_what_is_not_answered_saturates() {
        let offered = |achieved_per_s, unsent_per_s| {
            with(|evidence| {
                evidence.offered = Some(Offered { per_s: 1000.0, achieved_per_s, unsent_per_s });
            })
        };
        assert_eq!(offered(995.0, 5.0), (Status::Ok, String::new()));
        let (status, reason) = offered(800.0, 5.0);
        assert!(status == Status::Ok && reason.starts_with("saturated: of 1000"), "{reason}");
        let (status, reason) = offered(800.0, 20.0);
        assert!(status == Status::ClientLimited && reason.contains("sent 980 in time"), "{reason}");
        let (status, reason) = with(|evidence| {
            evidence.echoes = Some(0);
            evidence.offered =
                Some(Offered { per_s: 1000.0, achieved_per_s: 0.0, unsent_per_s: 900.0 });
        });
        assert!(status == Status::Rejected && reason.contains("no echo"), "{reason}");
        assert!(reason.contains("sent 100 in time"), "{reason}");
    }

    #[test]
    fn what_was_owed_is_said_of_a_trial_that_stands_and_of_one_that_does_not() {
        let owed = |change: fn(&mut Evidence)| {
            with(|evidence| {
                evidence.owed = Some("saturated: 5 messages".to_owned());
                change(evidence);
            })
        };
        assert_eq!(owed(|_| {}), (Status::Ok, "saturated: 5 messages".to_owned()));
        let (status, reason) = owed(|evidence| evidence.steal_percent = Some(6.0));
        assert!(
            status == Status::Rejected && reason.ends_with("saturated: 5 messages"),
            "{reason}"
        );
    }

    #[test]
    fn a_client_whose_threads_wait_for_each_other_is_its_own_limit() {
        let (status, reason) =
            with(|evidence| evidence.client_limits = vec!["its threads wait".to_owned()]);
        assert_eq!((status, reason.as_str()), (Status::ClientLimited, "its threads wait"));
        let (status, reason) = with(|evidence| {
            evidence.client_limits = vec!["its threads wait".to_owned()];
            evidence.client_run_delay_percent = Some(6.0);
        });
        assert_eq!(status, Status::Rejected, "what others took beyond that");
        assert!(reason.ends_with("something else ran there; its threads wait"), "{reason}");
    }

    #[test]
    fn a_busy_client_limits_and_worse_comes_first() {
        let busy = |evidence: &mut Evidence| evidence.client_cpu_percent = Some(95.0);
        assert_eq!(with(busy).0, Status::ClientLimited);
        let both = with(|evidence| {
            busy(evidence);
            evidence.connections.1 = 1;
        });
        assert_eq!(both.0, Status::Rejected);
    }

    #[test]
    fn a_load_that_was_behind_limits_itself_and_a_server_that_was_does_not() {
        let mut result: LoadResult = serde_json::from_value(serde_json::json!({
            "connections": 1000, "active_connections": 1000, "message_bytes": 64, "pipeline_depth": 1,
            "arrival": "closed", "duration_s": 1.0, "warmup_s": 0.0, "warmup_echoes": 0, "echoes": 10, "bytes": 640,
            "achieved_per_s": 10.0, "latency_us": {}, "open": null, "churn": null, "fairness": null,
            "client_cpu_ns": 1, "client_cpu_ratio": 0.5, "threads": 1, "seed": 1, "interrupted": false,
        }))
        .expect("a result");
        let evidence = Evidence::of_load(&result);
        assert!(evidence.client_limits.is_empty() && evidence.notes.is_empty());
        assert_eq!((evidence.owed, evidence.echoes), (None, Some(10)));
        let saturated = |limit: &str| {
            serde_json::from_value(serde_json::json!({
                "limit": limit, "drained_s": 20.0, "owed": 7, "owed_bytes": 448, "owed_connections": 2,
                "unanswered_connections": 0,
            }))
            .expect("a saturation")
        };
        result.saturated = Some(saturated("server"));
        let evidence = Evidence::of_load(&result);
        assert!(evidence.client_limits.is_empty());
        let reason = evidence.owed.expect("is owed");
        assert!(reason.starts_with("saturated: 7 messages were still owed 20.0 s"), "{reason}");
        result.saturated = Some(saturated("client"));
        result.file_table = "shared: unshare(CLONE_FILES): no".to_owned();
        let evidence = Evidence::of_load(&result);
        assert!(evidence.client_limits[0].starts_with("client-limited: "));
        assert_eq!(
            evidence.notes,
            ["the load's threads share one file table: unshare(CLONE_FILES): no"]
        );
    }
}
