//! An open loop's schedule: when each message is due and on which connection. A seed decides it
//! beforehand, not the server.
//!
//! A message is sent when it is due although earlier ones are still away, on the same connection
//! too. A server that stalls finds its queue grown, and the wait of a message counts from when it
//! was due. A closed loop leaves out just those messages, which is known as coordinated omission.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::result::Arrival;

/// How messages arrive in an open loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenLoop {
    /// Messages per second, over all active connections.
    pub rate_per_s: f64,
    /// Poisson or uniform.
    pub arrival: Arrival,
}

/// The active connections of one thread among those of all, in all parts of the load.
#[derive(Clone, Copy, Debug)]
pub struct ThreadShare {
    /// The thread.
    pub thread: usize,
    /// Threads in all.
    pub threads: usize,
    /// Active connections in all.
    pub active: usize,
    /// How many of them are this thread's.
    pub own: usize,
}

/// The messages of one thread, in the order of their due times.
#[derive(Debug)]
pub struct Schedule {
    start_ns: u64,
    /// Messages that the thread may still send.
    left: u64,
    next: DueMessage,
    arrivals: Arrivals,
}

/// When a message of the schedule is due, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueMessage {
    pub due_ns: u64,
    /// Which of the thread's active connections sends it.
    pub index: usize,
}

#[derive(Debug)]
enum Arrivals {
    /// Independent users: exponential gaps, each message on a connection drawn at random. The
    /// schedules of several threads together are a Poisson process of the whole rate.
    Poisson { random: Box<StdRng>, mean_gap_ns: f64, since_start_ns: f64, own: usize },
    /// Evenly spaced over all threads together, the connections in turn.
    Uniform { gap_ns: f64, round: u64, index: usize, share: ThreadShare },
}

impl Schedule {
    /// Makes a schedule that begins at `start_ns`, the same for all threads, and ends after
    /// `messages`.
    pub fn new(
        open: OpenLoop,
        seed: u64,
        start_ns: u64,
        messages: u64,
        share: ThreadShare,
    ) -> Self {
        let gap_ns = 1e9 / open.rate_per_s;
        let arrivals = match open.arrival {
            Arrival::Uniform => Arrivals::Uniform { gap_ns, round: 0, index: 0, share },
            _ => Arrivals::Poisson {
                // Any function of both that differs from thread to thread.
                random: Box::new(StdRng::seed_from_u64(
                    seed.wrapping_add((share.thread as u64) << 32),
                )),
                mean_gap_ns: gap_ns * share.active as f64 / share.own.max(1) as f64,
                since_start_ns: 0.0,
                own: share.own,
            },
        };
        let left = if share.own == 0 { 0 } else { messages };
        let mut schedule =
            Self { start_ns, left, next: DueMessage { due_ns: start_ns, index: 0 }, arrivals };
        if left > 0 {
            schedule.advance();
        }
        schedule
    }

    /// Returns when the next message is due; none if all that are due before `end_ns` are sent.
    pub fn next_ns(&self, end_ns: u64) -> Option<u64> {
        (self.left > 0 && self.next.due_ns < end_ns).then_some(self.next.due_ns)
    }

    /// Takes the next message off the schedule if it is due by `now_ns` and before `end_ns`.
    pub fn take(&mut self, now_ns: u64, end_ns: u64) -> Option<DueMessage> {
        let message = self.next;
        self.next_ns(end_ns).filter(|&due_ns| due_ns <= now_ns)?;
        self.left -= 1;
        self.advance();
        Some(message)
    }

    fn advance(&mut self) {
        let (since_start_ns, index) = match &mut self.arrivals {
            Arrivals::Poisson { random, mean_gap_ns, since_start_ns, own } => {
                // 1 − u lies in (0, 1], so that the logarithm is finite.
                *since_start_ns -= *mean_gap_ns * (1.0 - random.random::<f64>()).ln();
                (*since_start_ns, random.random_range(0..*own))
            }
            Arrivals::Uniform { gap_ns, round, index, share } => {
                let number = *index * share.threads + share.thread;
                let due = (*gap_ns * (*round as f64 * share.active as f64 + number as f64), *index);
                *index += 1;
                if *index == share.own {
                    (*index, *round) = (0, *round + 1);
                }
                due
            }
        };
        self.next =
            DueMessage { due_ns: self.start_ns.saturating_add(since_start_ns as u64), index };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::pace::share;

    const START_NS: u64 = 1_000_000;

    /// All messages of all threads before `end_ns`, with the numbers of their connections.
    fn messages(
        open: OpenLoop,
        seed: u64,
        threads: usize,
        active: usize,
        end_ns: u64,
    ) -> Vec<(u64, usize)> {
        let mut all = Vec::new();
        for thread in 0..threads {
            let own = share(active as u64, threads, thread) as usize;
            let share = ThreadShare { thread, threads, active, own };
            let mut schedule = Schedule::new(open, seed, START_NS, u64::MAX, share);
            while let Some(message) = schedule.take(u64::MAX, end_ns) {
                assert!(message.index < own);
                all.push((message.due_ns, message.index * threads + thread));
            }
            assert_eq!(schedule.next_ns(end_ns), None);
        }
        all.sort_unstable();
        all
    }

    fn open(rate_per_s: f64, arrival: Arrival) -> OpenLoop {
        OpenLoop { rate_per_s, arrival }
    }

    #[test]
    fn uniform_arrivals_are_evenly_spaced_over_all_threads_and_connections() {
        let second = START_NS + 1_000_000_000;
        let all = messages(open(1000.0, Arrival::Uniform), 1, 3, 7, second);
        assert_eq!(all.len(), 1000);
        for (number, &(due_ns, connection)) in all.iter().enumerate() {
            assert_eq!((due_ns, connection), (START_NS + number as u64 * 1_000_000, number % 7));
        }
    }

    #[test]
    fn poisson_arrivals_have_the_rate_the_spread_and_all_connections() {
        // 100,000 messages expected; the counts are exact for a seed, and the bounds those of six
        // standard deviations, which a sound generator misses once in 500 million seeds.
        let all = messages(open(10_000.0, Arrival::Poisson), 7, 3, 50, START_NS + 10_000_000_000);
        let expected = 100_000.0_f64;
        assert!((all.len() as f64 - expected).abs() < 6.0 * expected.sqrt(), "{}", all.len());
        // The gaps of the merged process are exponential: their standard deviation is their mean.
        let gaps: Vec<f64> = all.windows(2).map(|pair| (pair[1].0 - pair[0].0) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "{}", variance.sqrt() / mean);
        let mut counts = [0_u32; 50];
        all.iter().for_each(|&(_, connection)| counts[connection] += 1);
        assert!(
            counts.iter().all(|&count| (f64::from(count) - 2000.0).abs() < 6.0 * 2000_f64.sqrt())
        );
    }

    #[test]
    fn a_seed_repeats_the_schedule_and_another_does_not() {
        let of =
            |seed| messages(open(1000.0, Arrival::Poisson), seed, 2, 5, START_NS + 100_000_000);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn a_message_is_taken_when_it_is_due_and_none_from_the_end_on() {
        let share = ThreadShare { thread: 0, threads: 1, active: 2, own: 2 };
        let mut schedule = Schedule::new(open(1e9, Arrival::Uniform), 1, 100, 3, share);
        assert_eq!(schedule.take(99, u64::MAX), None);
        assert_eq!(schedule.take(100, u64::MAX), Some(DueMessage { due_ns: 100, index: 0 }));
        assert_eq!((schedule.next_ns(u64::MAX), schedule.take(100, u64::MAX)), (Some(101), None));
        assert_eq!(schedule.take(500, 101), None, "the window ends before it");
        // It is due in the past and never will be sent: to wait for it would be not to wait at all.
        assert_eq!((schedule.next_ns(101), schedule.next_ns(102)), (None, Some(101)));
        assert_eq!(schedule.take(500, 102), Some(DueMessage { due_ns: 101, index: 1 }));
        assert_eq!(schedule.take(500, u64::MAX), Some(DueMessage { due_ns: 102, index: 0 }));
        assert_eq!(schedule.next_ns(u64::MAX), None);
    }

    #[test]
    fn a_thread_without_active_connections_sends_nothing() {
        let share = ThreadShare { thread: 1, threads: 2, active: 1, own: 0 };
        for arrival in [Arrival::Poisson, Arrival::Uniform] {
            let schedule = Schedule::new(open(1000.0, arrival), 1, 0, u64::MAX, share);
            assert_eq!(schedule.next_ns(u64::MAX), None);
        }
    }
}
