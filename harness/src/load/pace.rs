//! When a connection may begin a message, and what a thread's clock shows of the run.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How much is sent in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// As much as comes back within the window.
    Timed(Duration),
    /// This many echoes, dealt over the active connections in turn.
    Total(u64),
    /// This many echoes on each active connection.
    Each(u64),
}

impl Budget {
    /// Returns the length of the window of a timed run.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Timed(duration) => Some(duration),
            _ => None,
        }
    }

    /// Returns how many messages active connection `number` of `active` may begin.
    pub fn of(self, number: usize, active: usize) -> u64 {
        match self {
            Self::Timed(_) => u64::MAX,
            Self::Total(echoes) => share(echoes, active, number),
            Self::Each(echoes) => echoes,
        }
    }
}

/// Returns how many of `total` things receiver `index` of `receivers` gets when they are dealt in
/// turn.
pub fn share(total: u64, receivers: usize, index: usize) -> u64 {
    let receivers = receivers as u64;
    total / receivers + u64::from((index as u64) < total % receivers)
}

/// The measuring window, which all threads see: echoes that end within it count, and no message is
/// due after it. Its ends are instants, not a flag, so it does not depend on when a thread looks.
#[derive(Debug)]
pub struct MeasuringWindow {
    start_ns: AtomicU64,
    end_ns: AtomicU64,
    /// How long echoes may be owed after its end.
    drain_ns: AtomicU64,
}

/// An instant seen from the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Before,
    Within,
    After,
}

impl MeasuringWindow {
    /// Returns a window that has not begun.
    pub fn new(drain: Duration) -> Self {
        let [start_ns, end_ns] = [(); 2].map(|()| AtomicU64::new(u64::MAX));
        Self { start_ns, end_ns, drain_ns: AtomicU64::new(drain.as_nanos() as u64) }
    }

    /// Sets both ends; `u64::MAX` stands for not yet known.
    pub fn set(&self, start_ns: u64, end_ns: u64) {
        self.end_ns.store(end_ns, Relaxed);
        self.start_ns.store(start_ns, Relaxed);
    }

    pub fn start_ns(&self) -> u64 {
        self.start_ns.load(Relaxed)
    }

    pub fn end_ns(&self) -> u64 {
        self.end_ns.load(Relaxed)
    }

    /// Returns from when on the load no longer waits for echoes that are owed.
    pub fn give_up_ns(&self) -> u64 {
        self.end_ns().saturating_add(self.drain_ns.load(Relaxed))
    }

    /// Lets the load wait for nothing after the end.
    pub fn give_up_at_once(&self) {
        self.drain_ns.store(0, Relaxed);
    }

    /// Returns where `now_ns` lies.
    pub fn phase(&self, now_ns: u64) -> Phase {
        if now_ns < self.start_ns() {
            Phase::Before
        } else if now_ns < self.end_ns() {
            Phase::Within
        } else {
            Phase::After
        }
    }

    /// Returns how many messages a closed loop's connection may begin: as many as its pipeline has
    /// room for, until its quota is used or the window ends.
    pub fn grant(&self, quota: &mut u64, room: usize, now_ns: u64) -> usize {
        if now_ns >= self.end_ns() {
            return 0;
        }
        let granted = (*quota).min(room as u64);
        *quota -= granted;
        granted as usize
    }
}

/// The longest time within the window that a thread did not look at its clock.
///
/// A thread looks in every turn of its loop and waits for a tick at most in between. In a longer
/// gap it was stopped, starved, or had a long batch of events.
#[derive(Debug)]
pub struct LongestGap {
    last_ns: u64,
    longest_ns: u64,
}

impl LongestGap {
    pub fn since(now_ns: u64) -> Self {
        Self { last_ns: now_ns, longest_ns: 0 }
    }

    /// Notes that the thread looks at its clock. Only the part within the window counts.
    pub fn look(&mut self, window: &MeasuringWindow, now_ns: u64) {
        let (from_ns, to_ns) = (self.last_ns.max(window.start_ns()), now_ns.min(window.end_ns()));
        self.longest_ns = self.longest_ns.max(to_ns.saturating_sub(from_ns));
        self.last_ns = now_ns;
    }

    pub fn longest_ns(&self) -> u64 {
        self.longest_ns
    }
}

/// How long nothing has moved at all, as far as a thread saw it.
#[derive(Debug)]
pub struct StallClock {
    looked_ns: u64,
    moved_ns: u64,
    quiet_ns: u64,
}

/// The most that counts between two looks. A thread looks far more often; in a longer gap it was
/// itself stopped, and perhaps the server too.
const LOOK_NS: u64 = 1_000_000_000;

impl StallClock {
    /// Returns a clock that starts at `now_ns`.
    pub fn since(now_ns: u64) -> Self {
        Self { looked_ns: now_ns, moved_ns: now_ns, quiet_ns: 0 }
    }

    /// Notes when something moved last, and returns for how long nothing has.
    pub fn look(&mut self, now_ns: u64, moved_ns: u64) -> u64 {
        let looked_ns = std::mem::replace(&mut self.looked_ns, now_ns);
        if moved_ns > self.moved_ns {
            (self.moved_ns, self.quiet_ns) = (moved_ns, 0);
        } else {
            self.quiet_ns += now_ns.saturating_sub(looked_ns).min(LOOK_NS);
        }
        self.quiet_ns
    }

    /// Returns when something moved last.
    pub fn moved_ns(&self) -> u64 {
        self.moved_ns
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn shares_are_even_and_complete() {
        for (total, receivers) in [(0, 1), (1, 3), (7, 3), (10, 5), (1_000_003, 64)] {
            let shares: Vec<u64> = (0..receivers).map(|i| share(total, receivers, i)).collect();
            assert_eq!(shares.iter().sum::<u64>(), total);
            let least = shares.last().unwrap();
            assert!(shares.iter().all(|s| s - least <= 1), "{shares:?}");
        }
    }

    #[test]
    fn a_share_counts_the_numbers_of_its_residue() {
        for total in 0..20_usize {
            for index in 0..3 {
                let counted = (0..total).filter(|number| number % 3 == index).count();
                assert_eq!(share(total as u64, 3, index), counted as u64);
            }
        }
    }

    #[test]
    fn a_window_grants_until_quota_or_end() {
        let window = MeasuringWindow::new(Duration::ZERO);
        window.set(10, 20);
        let mut quota = 5;
        assert_eq!(window.grant(&mut quota, 3, 5), 3, "before the window messages begin too");
        assert_eq!(window.grant(&mut quota, 3, 15), 2);
        assert_eq!(window.grant(&mut quota, 3, 16), 0);
        quota = 5;
        assert_eq!(window.grant(&mut quota, 3, 20), 0);
        assert_eq!(quota, 5);
        let phases = [9, 10, 19, 20].map(|now| window.phase(now));
        assert_eq!(phases, [Phase::Before, Phase::Within, Phase::Within, Phase::After]);
    }

    #[test]
    fn the_longest_gap_is_the_part_of_it_within_the_window() {
        let longest_ns = |start_ns, end_ns, looks: &[u64]| {
            let window = MeasuringWindow::new(Duration::ZERO);
            window.set(start_ns, end_ns);
            let mut gap = LongestGap::since(looks[0]);
            looks[1..].iter().for_each(|&now_ns| gap.look(&window, now_ns));
            gap.longest_ns()
        };
        let looks = [0, 400, 450, 470, 900];
        assert_eq!(longest_ns(420, u64::MAX, &looks), 430);
        assert_eq!(longest_ns(100, 480, &looks), 300, "what lies before and after is cut off");
        assert_eq!(longest_ns(500, 600, &looks), 100, "one that spans the whole window");
        assert_eq!(longest_ns(1000, 2000, &looks), 0);
        assert_eq!(longest_ns(u64::MAX, u64::MAX, &looks), 0, "a window that has not begun");
    }

    #[test]
    fn only_time_that_the_load_saw_pass_without_any_movement_is_quiet() {
        let ms = |ms: u64| ms * 1_000_000;
        let mut quiet = StallClock::since(ms(100));
        assert_eq!(quiet.look(ms(150), ms(100)), ms(50));
        assert_eq!(quiet.look(ms(200), ms(100)), ms(100));
        assert_eq!(quiet.look(ms(250), ms(240)), 0, "another thread's connection moved");
        assert_eq!((quiet.look(ms(300), ms(240)), quiet.moved_ns()), (ms(50), ms(240)));
        // Stopped for a minute: the server's answers may wait to be read.
        assert_eq!(quiet.look(ms(60_300), ms(240)), ms(1050));
    }

    #[test]
    fn what_is_owed_is_waited_for_until_a_bound_after_the_windows_end() {
        let window = MeasuringWindow::new(Duration::from_nanos(100));
        assert_eq!(window.give_up_ns(), u64::MAX, "a window without an end");
        window.set(10, 20);
        assert_eq!(window.give_up_ns(), 120);
        window.give_up_at_once();
        assert_eq!(window.give_up_ns(), 20);
    }

    #[test]
    fn budgets_deal_exactly() {
        let total = |budget: Budget| (0..7).map(|number| budget.of(number, 7)).sum::<u64>();
        assert_eq!(total(Budget::Total(100)), 100);
        assert_eq!(total(Budget::Total(3)), 3);
        assert_eq!(total(Budget::Each(5)), 35);
    }
}
