//! Checks that decide whether a trial's figures may be used.

use super::evidence::{Evidence, Sharing};
use crate::load::limits::CLIENT_BUSY_PERCENT;
use crate::machine::network::NetworkReading;
use crate::rows::Status;
use crate::verdict::noise::{RUN_DELAY_PERCENT, STEAL_PERCENT};

/// The same with churn. The kernel frees closed sockets in threads of its own (ksoftirqd,
/// kvfree_rcu), which take 3 % of the server's CPU at 40,000 connections a second.
const CHURN_RUN_DELAY_PERCENT: f64 = 10.0;

/// A closed loop's rate times its mean latency is the number of messages in flight, up to this.
pub const LITTLE_PERCENT: f64 = 2.0;

/// More than this share of segments sent again is a network that loses some. Fewer are probes that
/// TCP sends when an acknowledgement is late (after 8 ms where the kernel's tick is 4 ms long). On
/// loopback nothing is lost, and a stall of that length shows in the other gates if it matters.
pub const RETRANSMITTED_SHARE: f64 = 0.001;

/// More than this share of memory readings that did not come to rest spoils a walk.
pub const UNSETTLED_SHARE: f64 = 0.25;

impl Evidence {
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
        let off_percent = self.in_flight.map(|in_flight| in_flight.off_percent());
        if let Some(percent) = off_percent.filter(|percent| percent.abs() > LITTLE_PERCENT) {
            rejections.push(format!(
                "rate times mean latency is {percent:+.1} % off the messages in flight (bound: \
                 {LITTLE_PERCENT} %): the load's figures contradict each other"
            ));
        }
        let lost = self.network.as_ref().map(|network| lost(network, self.is_throttled));
        rejections.extend(lost.unwrap_or_default());
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
        let mismatches = self.counters.of_loop("mismatches");
        if mismatches > 0 {
            rejections.push(format!(
                "on {mismatches} connections the server received a byte that the client had not \
                 sent"
            ));
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
        let Sharing {
            by_placement,
            client_is_apart,
            server_is_apart,
            is_accounted,
            kernel_thread,
            siblings,
        } = self.sharing;
        let by_each_other = by_placement && !is_accounted;
        let server_shares = by_each_other && !server_is_apart || kernel_thread || siblings;
        let client_shares = by_each_other && !client_is_apart;
        let delays = [
            ("server", self.server_run_delay_percent.filter(|_| !server_shares)),
            ("client", self.client_run_delay_percent.filter(|_| !client_shares)),
        ];
        let bound = if self.has_churn { CHURN_RUN_DELAY_PERCENT } else { RUN_DELAY_PERCENT };
        let too_long =
            delays.into_iter().filter_map(|(who, delay)| Some((who, above(delay, bound)?)));
        too_long
            .map(|(who, delay)| {
                format!(
                    "the {who} waited for a CPU {delay:.1} % of the time (bound: {bound} %): \
                     something else ran there"
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
            // It may be meant so.
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
                "shared-cpu: server and client, two loads or two workers were not kept on CPUs of \
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
        // A backend whose queues are short bears that cost itself, and stays in the comparison.
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

/// Says what TCP lost. A server that a bound on its CPU time stops acknowledges late, so that
/// its client sends probes: then they are no sign of a loss.
fn lost(network: &NetworkReading, is_throttled: bool) -> Vec<String> {
    let NetworkReading { sent_segments, retransmitted_segments, listen_drops } = network;
    let mut lost = Vec::new();
    let share = *retransmitted_segments as f64 / *sent_segments as f64;
    if share > RETRANSMITTED_SHARE && !is_throttled {
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
    use super::super::evidence::{LittlesLaw, Offered};
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
            (
                with(|evidence| {
                    evidence.in_flight = Some(LittlesLaw { by_plan: 64.0, by_figures: 62.5 });
                }),
                "rate times mean latency is -2.3 % off",
            ),
            (with(|evidence| evidence.steal_percent = Some(5.1)), "hypervisor"),
            (with(|evidence| evidence.server_run_delay_percent = Some(6.0)), "waited for a CPU"),
            (
                with(|evidence| evidence.client_run_delay_percent = Some(6.0)),
                "the client waited for a CPU",
            ),
            (
                with(|evidence| {
                    evidence.has_churn = true;
                    evidence.server_run_delay_percent = Some(11.0);
                }),
                "bound: 10 %",
            ),
            (
                with(|evidence| evidence.not_in_force = vec!["x=on is not in force".to_owned()]),
                "x=on is not",
            ),
            (with(|evidence| evidence.not_of_window = vec!["read late".to_owned()]), "read late"),
            (with(|evidence| evidence.io_workers = 1), "io-wq"),
            (counter("io_wq_workers"), "1 io-wq workers"),
            (counter("accept_pauses"), "accepting"),
            (counter("mismatches"), "on 1 connections the server received a byte"),
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
    fn segments_that_a_stopped_server_did_not_acknowledge_are_noted() {
        let (status, reason) = with(|evidence| {
            evidence.network.as_mut().expect("given").retransmitted_segments = 500;
            evidence.is_throttled = true;
        });
        assert_eq!((status, reason.as_str()), (Status::Ok, "TCP sent 500 of 10000 segments again"));
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
