//! Checks that decide whether a trial's figures may be used.

use serde_json::Value;

use crate::load::result::{CLIENT_BUSY_PERCENT, OFFERED_SHARE};
use crate::machine::network::NetworkDifference;
use crate::programs::counters::ServerCounters;
use crate::rows::Status;

/// More than this share of the machine's time taken by the hypervisor spoils a window.
pub const STEAL_PERCENT: f64 = 5.0;

/// More than this share of the window spent ready but without a CPU means that something else ran
/// there.
pub const RUN_DELAY_PERCENT: f64 = 5.0;

/// More than this share of segments sent again is a network that loses some. Fewer are probes that
/// TCP sends when an acknowledgement is late (after 8 ms where the kernel's tick is 4 ms long): on
/// loopback nothing is lost, and whoever stalled for so long shows in the other gates if it
/// matters.
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
    /// Of those due, not even sent within the window.
    pub unsent_per_s: f64,
}

impl Offered {
    /// What to say of a client that did not send what was due.
    fn unsent_too_many(&self) -> Option<String> {
        let Self { per_s, unsent_per_s, .. } = self;
        let sent_per_s = per_s - unsent_per_s;
        (sent_per_s < OFFERED_SHARE * per_s).then(|| {
            format!("client-limited: of {per_s:.0} messages a second that were due the client sent {sent_per_s:.0} in time")
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
    /// What TCP counted, if the trial had a namespace of its own: the host's counts belong to
    /// everybody.
    pub network: Option<NetworkDifference>,
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
    /// What the knobs ask for and is not in force: see [`not_in_force`].
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
    /// Of `by_placement`: the client has CPUs of its own, and only the workers share.
    pub client_is_apart: bool,
    /// Of `by_placement`: the delays that are given are only those beyond what the two took from
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
    /// Whether the figures are those of a machine with too few CPUs.
    pub fn is_shared_cpu(self) -> bool {
        self.by_placement || self.kernel_thread
    }
}

/// What the knobs ask for and the server does not say to be in force, both as JSON. What it does
/// not tell of cannot be held against it, except for what every ring tells.
pub fn not_in_force(knobs: &str, in_force: &str) -> Vec<String> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (knobs, in_force) = (parse(knobs), parse(in_force));
    let has_flag =
        |flag: &str| in_force["setup"].as_str().unwrap_or("").split('|').any(|found| found == flag);
    let has_feature = |feature: &str| {
        in_force["features"].as_array().is_some_and(|all| all.iter().any(|f| f == feature))
    };
    let number = |name: &str| knobs[name].as_u64().filter(|&number| number > 0);
    let mut missing = Vec::new();
    let mut expect = |knob: &str, holds: bool, found: &Value| {
        if !holds {
            let asked = knobs[knob].as_str().map_or_else(|| knobs[knob].to_string(), str::to_owned);
            missing.push(format!("{knob}={asked} is not in force, the server says {found}"));
        }
    };
    if let Some(asked) = knobs["registered_ring"].as_str() {
        let found = &in_force["registered_ring"];
        expect("registered_ring", found.as_bool() == Some(asked == "on"), found);
    }
    if let Some(asked) = knobs["task_run"].as_str() {
        let flags = [("defer", "DEFER_TASKRUN"), ("coop", "COOP_TASKRUN")];
        let holds = flags.iter().all(|(word, flag)| has_flag(flag) == (*word == asked));
        expect("task_run", holds, &in_force["setup"]);
    }
    for (knob, flag) in [("sq_idle_ms", "SQPOLL"), ("sq_cpu", "SQ_AFF")] {
        expect(knob, number(knob).is_none() || has_flag(flag), &in_force["setup"]);
    }
    expect(
        "min_wait_us",
        number("min_wait_us").is_none() || has_feature("min_timeout"),
        &in_force["features"],
    );
    // The kernel rounds sizes up.
    for knob in ["sq_entries", "cq_entries", "buffers"] {
        let holds = number(knob)
            .is_none_or(|asked| in_force[knob].as_u64().is_some_and(|found| found >= asked));
        expect(knob, holds, &in_force[knob]);
    }
    let holds =
        number("busy_poll_us").is_none_or(|asked| in_force["busy_poll_us"].as_u64() == Some(asked));
    expect("busy_poll_us", holds, &in_force["busy_poll_us"]);
    missing
}

/// The status that the evidence allows, with every reason.
pub fn judge(evidence: &Evidence) -> (Status, String) {
    let mut rejections = Vec::new();
    let mut reject = |yes: bool, reason: String| {
        if yes {
            rejections.push(reason);
        }
    };
    let (asked, stood) = evidence.connections;
    reject(asked != stood, format!("{stood} connections stood where {asked} were asked for"));
    reject(
        evidence.echoes == Some(0),
        "no echo came back within the window: the client or the server had no CPU, or the window is too short"
            .to_owned(),
    );
    reject(!evidence.not_of_window.is_empty(), evidence.not_of_window.join("; "));
    reject(!evidence.not_in_force.is_empty(), evidence.not_in_force.join("; "));
    let above = |value: Option<f64>, limit: f64| value.is_some_and(|value| value > limit);
    let percent = |value: Option<f64>| value.unwrap_or_default();
    reject(
        above(evidence.steal_percent, STEAL_PERCENT),
        format!(
            "the hypervisor took {:.1} % of the time (bound: {STEAL_PERCENT} %)",
            percent(evidence.steal_percent)
        ),
    );
    let Sharing { by_placement, client_is_apart, is_accounted, kernel_thread, siblings } =
        evidence.sharing;
    let by_each_other = by_placement && !is_accounted;
    for (who, delay, is_its_own_doing) in [
        ("server", evidence.server_run_delay_percent, by_each_other || kernel_thread || siblings),
        ("client", evidence.client_run_delay_percent, by_each_other && !client_is_apart),
    ] {
        reject(
            above(delay, RUN_DELAY_PERCENT) && !is_its_own_doing,
            format!(
                "the {who} waited for a CPU {:.1} % of the time (bound: {RUN_DELAY_PERCENT} %): something else ran there",
                percent(delay)
            ),
        );
    }
    if let Some(network) = &evidence.network {
        reject(
            network.retransmitted_segments as f64
                > RETRANSMITTED_SHARE * network.sent_segments as f64,
            format!(
                "TCP sent {} of {} segments again (bound: {} %)",
                network.retransmitted_segments,
                network.sent_segments,
                100.0 * RETRANSMITTED_SHARE
            ),
        );
        reject(
            network.listen_drops > 0,
            format!("{} connections were dropped at the accept queue", network.listen_drops),
        );
    }
    // A server may have seen workers that were gone again when its tasks were listed.
    let io_workers = evidence.io_workers.max(evidence.counters.of_loop("io_wq_workers"));
    let is_external = evidence.counters.is_from_outside;
    let asynchronous = format!("{io_workers} io-wq workers appeared: something ran asynchronously");
    reject(io_workers > 0 && !is_external, asynchronous.clone());
    let (unsettled, readings) = evidence.unsettled_readings;
    reject(
        unsettled as f64 > UNSETTLED_SHARE * readings as f64,
        format!(
            "{unsettled} of {readings} readings had not come to rest: something else used memory"
        ),
    );
    reject(
        evidence.disturbed_slope.is_some(),
        evidence.disturbed_slope.clone().unwrap_or_default(),
    );
    let pauses = evidence.counters.of_loop("accept_pauses");
    let cause =
        evidence.counters.accept_error.as_deref().unwrap_or("files, memory or threads ran out");
    reject(pauses > 0, format!("accepting paused {pauses} times: {cause}"));
    let late = evidence.counters.of_loop("late");
    reject(
        late > 0,
        format!("{late} completions came after their connection was closed: the server's fault"),
    );
    let unsent = evidence.offered.and_then(|offered| offered.unsent_too_many());
    if !rejections.is_empty() {
        // A client that has far too much to send does not come to read, so that no echo comes back.
        rejections.extend(unsent);
        rejections.extend(evidence.client_limits.iter().cloned());
        rejections.extend(evidence.owed.clone());
        return (Status::Rejected, rejections.join("; "));
    }
    let mut notes = evidence.notes.clone();
    notes.extend(evidence.owed.clone());
    if is_external {
        // That may be its way.
        notes.extend((io_workers > 0).then_some(asynchronous));
        notes.push(
            "external: what only a server's own counters tell (pauses in accepting, connections that it accepted in \
             all, queues that overflowed, buffers that ran out) was not looked at"
                .to_owned(),
        );
    }
    if by_placement {
        notes.push(
            "shared-cpu: server and client, or the server's workers, were not kept on CPUs of their own"
                .to_owned(),
        );
    }
    if kernel_thread {
        notes
            .push("shared-cpu: the SQPOLL thread and its worker took each other's time".to_owned());
    }
    if let Some(network) = evidence.network.filter(|network| network.retransmitted_segments > 0) {
        let NetworkDifference { sent_segments, retransmitted_segments, .. } = network;
        notes.push(format!("TCP sent {retransmitted_segments} of {sent_segments} segments again"));
    }
    if unsettled > 0 {
        notes.push(format!("{unsettled} of {readings} readings had not come to rest"));
    }
    // What a backend does when its queues are short is its own cost, and stays in the comparison.
    for (counter, meaning) in [
        ("cq_overflows", "the completion queue overflowed"),
        ("no_buffers", "the pool ran dry (set buffers higher): receives found no provided buffer"),
    ] {
        let times = evidence.counters.of_loop(counter);
        if times > 0 {
            notes.push(format!("{meaning} {times} times"));
        }
    }
    let limits: Vec<String> = evidence.client_limits.iter().cloned().chain(unsent).collect();
    if !limits.is_empty() {
        notes.extend(limits);
        return (Status::ClientLimited, notes.join("; "));
    }
    if let Some(Offered { per_s, achieved_per_s, .. }) = evidence.offered
        && achieved_per_s < OFFERED_SHARE * per_s
    {
        notes.push(format!(
            "saturated: of {per_s:.0} echoes a second that were offered {achieved_per_s:.0} came back in time; \
             latency grows with the length of the window"
        ));
    }
    if above(evidence.client_cpu_percent, CLIENT_BUSY_PERCENT) {
        notes.push(format!(
            "client-limited: the client used {:.0} % of its CPU; throughput and latency are its own",
            percent(evidence.client_cpu_percent)
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
            network: Some(NetworkDifference {
                sent_segments: 10_000,
                retransmitted_segments: 0,
                listen_overflows: 0,
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

    #[test]
    fn what_is_asked_for_and_not_in_force_is_found() {
        let ring = r#"{"setup":"SINGLE_ISSUER|CQSIZE|DEFER_TASKRUN","features":["nodrop"],"registered_ring":true,
            "sq_entries":256,"cq_entries":4096,"buffers":1024}"#;
        let polled = r#"{"setup":"SINGLE_ISSUER|SQPOLL","registered_ring":false}"#;
        let busy = r#"{"trigger":"edge","busy_poll_us":50}"#;
        for (knobs, in_force, missing) in [
            (
                r#"{"task_run":"defer","registered_ring":"on","sq_entries":200,"min_wait_us":0}"#,
                ring,
                None,
            ),
            (r#"{"registered_ring":"off"}"#, polled, None),
            (r#"{"sq_idle_ms":10,"sq_cpu":0}"#, polled, None),
            (r#"{"receive_bytes":65536,"busy_poll_us":0}"#, r#"{"trigger":"edge"}"#, None),
            (r#"{"busy_poll_us":50}"#, busy, None),
            ("{}", "{}", None),
            // Of a server that never was ready.
            ("", "", None),
            (
                r#"{"registered_ring":"on"}"#,
                polled,
                Some("registered_ring=on is not in force, the server says false"),
            ),
            (r#"{"registered_ring":"on"}"#, "{}", Some("registered_ring=on")),
            (r#"{"registered_ring":"off"}"#, ring, Some("registered_ring=off")),
            (r#"{"task_run":"defer"}"#, polled, Some("task_run=defer")),
            (r#"{"task_run":"coop"}"#, ring, Some("task_run=coop")),
            (r#"{"task_run":"default"}"#, ring, Some("task_run=default")),
            (r#"{"sq_idle_ms":10}"#, ring, Some("sq_idle_ms=10")),
            (r#"{"sq_cpu":3}"#, polled, Some("sq_cpu=3")),
            (r#"{"min_wait_us":5}"#, ring, Some("min_wait_us=5")),
            (
                r#"{"sq_entries":512}"#,
                ring,
                Some("sq_entries=512 is not in force, the server says 256"),
            ),
            (r#"{"buffers":2048}"#, ring, Some("buffers=2048")),
            (
                r#"{"busy_poll_us":70}"#,
                busy,
                Some("busy_poll_us=70 is not in force, the server says 50"),
            ),
        ] {
            let found = not_in_force(knobs, in_force);
            match missing {
                None => assert_eq!(found, [""; 0], "{knobs}"),
                Some(words) => {
                    assert!(found.len() == 1 && found[0].starts_with(words), "{knobs}: {found:?}");
                }
            }
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
}
