//! Counts what the CPUs do for another process, by their own counters (perf_event_open(2)).
//!
//! A CPU has few counters: the events stand in two groups, one of user mode and one of the kernel,
//! and where both do not fit at once the kernel lets them take turns. Events of a group count at
//! the same moments. Counts are scaled by the share of the time in which their group counted, and
//! that share stands beside them.

use std::io;
use std::time::Duration;

use perf_event::events::Hardware;
use perf_event::{Builder, Counter, CounterData, ReadFormat};

use super::rights::perf_refusal;
use super::unavailable::Unavailable;

/// An event that CPUs count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HardwareEvent {
    Instructions,
    Cycles,
    CacheMisses,
    BranchMisses,
}

impl HardwareEvent {
    /// In the order of a group; the first leads it.
    pub const ALL: [Self; 4] =
        [Self::Instructions, Self::Cycles, Self::CacheMisses, Self::BranchMisses];

    /// Returns its name in `hardware.csv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Cycles => "cycles",
            Self::CacheMisses => "cache_misses",
            Self::BranchMisses => "branch_misses",
        }
    }

    fn of_perf(self) -> Hardware {
        match self {
            Self::Instructions => Hardware::INSTRUCTIONS,
            Self::Cycles => Hardware::CPU_CYCLES,
            Self::CacheMisses => Hardware::CACHE_MISSES,
            Self::BranchMisses => Hardware::BRANCH_MISSES,
        }
    }
}

/// The mode of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuMode {
    User,
    Kernel,
}

impl CpuMode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::User, Self::Kernel];

    /// Returns its name in `hardware.csv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Kernel => "kernel",
        }
    }
}

/// Open counters on a process.
pub struct HardwareCounters {
    groups: Vec<(CpuMode, Vec<(HardwareEvent, Counter)>)>,
}

/// A counter as it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterReading {
    /// The events that were counted.
    pub count: u64,
    /// For how long it was to count: while a thread of the process ran.
    pub enabled: Duration,
    /// For how long it counted.
    pub running: Duration,
}

/// A group that counted for a smaller share of the time is not scaled: too much is guessed.
const SMALLEST_SHARE: f64 = 0.1;

impl CounterReading {
    fn of(data: &CounterData) -> Self {
        Self {
            count: data.count(),
            enabled: data.time_enabled().unwrap_or_default(),
            running: data.time_running().unwrap_or_default(),
        }
    }

    /// Returns what was counted since an earlier reading of the same counter.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            enabled: self.enabled.saturating_sub(earlier.enabled),
            running: self.running.saturating_sub(earlier.running),
        }
    }

    /// Returns the share of the time in which it counted.
    pub fn share(&self) -> f64 {
        if self.enabled.is_zero() {
            return 0.0;
        }
        self.running.as_secs_f64() / self.enabled.as_secs_f64()
    }

    /// Returns the events of the whole time, by the share in which it counted.
    ///
    /// # Errors
    /// When it counted too seldom.
    pub fn scaled(&self) -> Result<f64, Unavailable> {
        let share = self.share();
        if self.running.is_zero() {
            return Err(Unavailable::new("the CPU's counters were never free for it").advising(
                "end other users of them, such as perf, or `sysctl kernel.nmi_watchdog=0`",
            ));
        }
        if share < SMALLEST_SHARE {
            return Err(Unavailable::new(format!(
                "it counted in {:.1} % of the time only, which scales to no figure",
                100.0 * share
            )));
        }
        Ok(self.count as f64 / share)
    }
}

impl HardwareCounters {
    /// Opens them on a process that has one thread, and on all that it will start.
    pub fn attach(pid: u32) -> Result<Self, Unavailable> {
        let groups = CpuMode::ALL.map(|mode| Ok((mode, group(pid, mode)?)));
        let groups: io::Result<Vec<_>> = groups.into_iter().collect();
        Ok(Self { groups: groups.map_err(|error| refused(&error))? })
    }

    /// Reads every counter, one after the other.
    pub fn read(&mut self) -> io::Result<Vec<(CpuMode, HardwareEvent, CounterReading)>> {
        let mut readings = Vec::new();
        for (mode, counters) in &mut self.groups {
            for (event, counter) in counters {
                readings.push((*mode, *event, CounterReading::of(&counter.read_full()?)));
            }
        }
        Ok(readings)
    }
}

fn group(pid: u32, mode: CpuMode) -> io::Result<Vec<(HardwareEvent, Counter)>> {
    let mut counters: Vec<(HardwareEvent, Counter)> = Vec::new();
    for event in HardwareEvent::ALL {
        let mut builder = Builder::new(event.of_perf());
        open(&mut builder, pid)?;
        builder.exclude_user(mode == CpuMode::Kernel).exclude_kernel(mode == CpuMode::User);
        let counter = match counters.first_mut() {
            None => builder.build()?,
            Some((_, leader)) => builder.build_with_group(leader)?,
        };
        counters.push((event, counter));
    }
    Ok(counters)
}

/// Asks for a counter of a process, with the times that tell its share.
fn open(builder: &mut Builder<'_>, pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    builder
        .observe_pid(pid)
        .any_cpu()
        .inherit(true)
        .exclude_hv(true)
        .read_format(ReadFormat::TOTAL_TIME_ENABLED | ReadFormat::TOTAL_TIME_RUNNING)
        .enabled(true);
    Ok(())
}

/// Says why there are none.
fn refused(error: &io::Error) -> Unavailable {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV | libc::ENXIO) => {
            Unavailable::new("the CPU has no such counters, or a virtual machine hides them")
                .advising("run on the machine itself, or give the virtual machine a PMU")
        }
        _ => perf_refusal(error),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use perf_event::events::Software;

    use super::*;

    fn reading(count: u64, enabled_us: u64, running_us: u64) -> CounterReading {
        CounterReading {
            count,
            enabled: Duration::from_micros(enabled_us),
            running: Duration::from_micros(running_us),
        }
    }

    /// As `perf stat` shows them: the count, and the share of the time in brackets.
    #[test]
    fn counts_are_scaled_by_the_time_in_which_they_counted() {
        for (of, scaled) in [
            (reading(1_000, 500, 500), 1_000.0),
            (reading(1_000, 1_000, 500), 2_000.0),
            (reading(3_141_592, 2_000_000, 800_000), 7_853_980.0),
            (reading(0, 1_000, 1_000), 0.0),
        ] {
            let found = of.scaled().unwrap();
            assert!((found - scaled).abs() < 1e-6 * scaled.max(1.0), "{found} {scaled}");
        }
        let since = reading(5_000, 3_000, 2_000).since(&reading(1_000, 1_000, 1_000));
        assert_eq!(since, reading(4_000, 2_000, 1_000));
        assert_eq!((since.share(), since.scaled().unwrap()), (0.5, 8_000.0));
    }

    #[test]
    fn counters_that_hardly_counted_give_no_figure() {
        let refused = |of: CounterReading| of.scaled().err().unwrap().to_string();
        assert!(refused(reading(0, 1_000, 0)).contains("nmi_watchdog"));
        assert!(refused(reading(0, 0, 0)).contains("never free"));
        assert!(refused(reading(70, 1_000, 70)).contains("in 7.0 % of the time"));
        assert!(reading(100, 1_000, 100).scaled().is_ok());
    }

    #[test]
    fn what_the_kernel_answers_is_said_in_words() {
        let words = |code| refused(&io::Error::from_raw_os_error(code)).to_string();
        assert!(words(libc::ENOENT).contains("a virtual machine hides them"));
        assert!(words(libc::EOPNOTSUPP).contains("PMU"));
        assert!(words(libc::EACCES).contains("perf_event_paranoid"));
        assert!(words(libc::ENOSYS).contains("CONFIG_PERF_EVENTS"));
        assert!(words(libc::EMFILE).contains("ulimit -n"));
    }

    /// The kernel's own counters have groups, too, and are there without a PMU: page faults, which
    /// /proc counts as well.
    #[test]
    fn a_group_of_the_kernels_own_counters_reads_as_the_kernel_counts() {
        let faults = || procfs_faults().expect("/proc/thread-self/stat");
        let mut switches = Builder::new(Software::CONTEXT_SWITCHES);
        open(&mut switches, 0).unwrap();
        let Ok(mut leader) = switches.inherit(false).exclude_kernel(false).build() else {
            eprintln!("skipped: perf_event_open is refused here");
            return;
        };
        let mut builder = Builder::new(Software::PAGE_FAULTS);
        open(&mut builder, 0).unwrap();
        let mut counter =
            builder.inherit(false).exclude_kernel(false).build_with_group(&mut leader).unwrap();
        let (first, before) = (CounterReading::of(&counter.read_full().unwrap()), faults());
        // More than malloc(3) ever takes from memory that was touched before.
        let mut pages = vec![0_u8; 40 << 20];
        pages.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        std::hint::black_box(&pages);
        let (last, after) = (CounterReading::of(&counter.read_full().unwrap()), faults());
        let since = last.since(&first);
        assert!(since.count >= 16, "{since:?}");
        assert!(since.count.abs_diff(after - before) <= 8, "{since:?}, {}", after - before);
        assert_eq!(since.share(), 1.0, "nothing takes turns with them");
        assert_eq!(since.scaled().unwrap(), since.count as f64);
    }

    /// Returns the page faults of this thread, from proc_pid_stat(5).
    fn procfs_faults() -> Option<u64> {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut words = rest.split(' ');
        let minor: u64 = words.nth(7)?.parse().ok()?;
        let major: u64 = words.nth(1)?.parse().ok()?;
        Some(minor + major)
    }
}
