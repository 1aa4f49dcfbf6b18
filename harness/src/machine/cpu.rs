//! Reads CPU time: of a process, of its tasks one by one, and of the whole machine.

use std::collections::BTreeSet;
use std::io;
use std::ops::AddAssign;

use ringmark::cpus::CpuList;
use ringmark::whereabouts::stat_field;

use super::procfs;
use crate::statistics::percent_of;

/// Reads the CPU time of a process in ns, user and kernel, from its start. It includes threads that
/// have ended, SQPOLL threads and io-wq workers. It includes the interrupts that hit the process
/// too, unless the kernel has CONFIG_IRQ_TIME_ACCOUNTING.
pub fn process_cpu_ns(pid: u32) -> io::Result<u64> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let mut clock = 0;
    // SAFETY: the out-pointer is to a local that lives through the call.
    let error = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the out-pointer is to a local that lives through the call.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

/// The CPU time of a process, user and kernel, in ticks (USER_HZ, mostly 10 ms). It is of all
/// threads, those that have ended too.
///
/// The division is mostly a sample, not a measurement: at each of its own ticks (CONFIG_HZ) the
/// kernel looks in which of the two it is. It then divides the exact sum in that proportion
/// (`cputime_adjust` in kernel/sched/cputime.c). Only kernels with
/// CONFIG_VIRT_CPU_ACCOUNTING_NATIVE measure it, or with CONFIG_VIRT_CPU_ACCOUNTING_GEN, in use on
/// nohz_full CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessTicks {
    /// Time in the program.
    pub user: u64,
    /// Time in the kernel on its behalf, and in the interrupts that hit it, softirqs among them,
    /// unless the kernel has CONFIG_IRQ_TIME_ACCOUNTING.
    pub kernel: u64,
}

/// The fewest ticks that say enough: the standard error of a share of 30 samples is up to 9 in 100.
const TICKS_MIN: u64 = 30;

impl ProcessTicks {
    /// Reads /proc/PID/stat.
    pub fn read(pid: u32) -> io::Result<Self> {
        Self::parse(&procfs::read(format!("/proc/{pid}/stat"))?)
    }

    /// Finds utime and stime, the fields 14 and 15 of proc_pid_stat(5).
    fn parse(stat: &str) -> io::Result<Self> {
        let ticks = |number| {
            let field = stat_field(stat, number).and_then(|ticks| ticks.parse().ok());
            field.ok_or_else(|| procfs::missing("utime"))
        };
        Ok(Self { user: ticks(14)?, kernel: ticks(15)? })
    }

    /// Returns the ticks since an earlier reading, and which share of them was the program's; none
    /// if they are too few.
    pub fn user_share_since(&self, earlier: &Self) -> Option<(u64, f64)> {
        let user = self.user.saturating_sub(earlier.user);
        let ticks = user + self.kernel.saturating_sub(earlier.kernel);
        (ticks >= TICKS_MIN).then(|| (ticks, user as f64 / ticks as f64))
    }
}

impl AddAssign for ProcessTicks {
    fn add_assign(&mut self, other: Self) {
        self.user += other.user;
        self.kernel += other.kernel;
    }
}

/// The sum over the tasks of a process that exist now, without those that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// How many there are, kernel threads of the process included.
    pub count: u64,
    /// How often they gave up their CPU, of their own will or not.
    pub context_switches: u64,
    /// How long they were ready without a CPU, in ns (schedstat's second number).
    pub run_delay_ns: u64,
    /// io-wq workers: io_uring threads that do blocking work.
    pub io_workers: u64,
    /// SQPOLL threads: io_uring threads that poll a submission queue.
    pub sqpoll_threads: u64,
    /// The CPUs on which those may run, all together.
    pub sqpoll_cpus: BTreeSet<usize>,
    /// Whether every task is asleep (state `S`).
    pub all_sleeping: bool,
}

impl Tasks {
    /// Reads /proc/PID/task. A task that ends meanwhile is left out.
    pub fn read(pid: u32) -> io::Result<Self> {
        let directory = format!("/proc/{pid}/task");
        let mut sum = Self { all_sleeping: true, ..Self::default() };
        for entry in std::fs::read_dir(&directory).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot list {directory}: {error}"))
        })? {
            let task = entry?.path();
            let files = procfs::read(task.join("status"))
                .and_then(|status| Ok((status, procfs::read(task.join("schedstat"))?)));
            match files {
                Ok((status, schedstat)) => sum.add(&status, &schedstat)?,
                Err(_) if !task.exists() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }

    fn add(&mut self, status: &str, schedstat: &str) -> io::Result<()> {
        let name = procfs::text(status, "Name").unwrap_or_default();
        let state = procfs::text(status, "State").ok_or_else(|| procfs::missing("State"))?;
        self.count += 1;
        self.context_switches += procfs::number(status, "voluntary_ctxt_switches")?
            + procfs::number(status, "nonvoluntary_ctxt_switches")?;
        self.run_delay_ns += run_delay_ns(schedstat)?;
        self.io_workers += u64::from(name.starts_with("iou-wrk-"));
        if name.starts_with("iou-sqp-") {
            self.sqpoll_threads += 1;
            let cpus: CpuList = procfs::text(status, "Cpus_allowed_list")
                .and_then(|list| list.parse().ok())
                .ok_or_else(|| procfs::missing("Cpus_allowed_list"))?;
            self.sqpoll_cpus.extend(cpus.cpus());
        }
        self.all_sleeping &= state.starts_with('S');
        Ok(())
    }
}

impl AddAssign for Tasks {
    fn add_assign(&mut self, mut other: Self) {
        self.count += other.count;
        self.context_switches += other.context_switches;
        self.run_delay_ns += other.run_delay_ns;
        self.io_workers += other.io_workers;
        self.sqpoll_threads += other.sqpoll_threads;
        self.sqpoll_cpus.append(&mut other.sqpoll_cpus);
        self.all_sleeping &= other.all_sleeping;
    }
}

/// Returns how long the calling thread was ready without a CPU, from its start, in ns.
pub fn own_run_delay_ns() -> io::Result<u64> {
    run_delay_ns(&procfs::read("/proc/thread-self/schedstat")?)
}

/// Finds the second number of a `schedstat` file.
fn run_delay_ns(schedstat: &str) -> io::Result<u64> {
    let delay = schedstat.split_whitespace().nth(1).and_then(|delay| delay.parse().ok());
    delay.ok_or_else(|| procfs::missing("schedstat"))
}

/// The CPU time of all CPUs together from boot, or between two readings, in ns. It is as precise as
/// the kernel's tick (USER_HZ, mostly 10 ms).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineCpu {
    /// Time in anything but idling: user, nice, system, irq and softirq.
    pub busy_ns: u64,
    softirq_ns: u64,
    iowait_ns: u64,
    steal_ns: u64,
    /// The sum of busy, idle, waiting for I/O and stolen.
    total_ns: u64,
}

/// The least time in softirqs that says anything: less is too few ticks, or a kernel that does not
/// tell softirqs apart.
const SOFTIRQ_NS_MIN: u64 = TICKS_MIN * 10_000_000;

impl MachineCpu {
    /// Reads /proc/stat.
    pub fn read() -> io::Result<Self> {
        let ns_per_tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        Self::parse(&procfs::read("/proc/stat")?, ns_per_tick)
    }

    /// Reads the first line of proc_stat(5): user nice system idle iowait irq softirq steal guest
    /// guest_nice; user includes guest.
    pub fn parse(stat: &str, ns_per_tick: u64) -> io::Result<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().map_while(|tick| tick.parse().ok()).collect();
        let &[user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks.as_slice() else {
            return Err(procfs::missing("cpu"));
        };
        let busy = user + nice + system + irq + softirq;
        Ok(Self {
            busy_ns: busy * ns_per_tick,
            softirq_ns: softirq * ns_per_tick,
            iowait_ns: iowait * ns_per_tick,
            steal_ns: steal * ns_per_tick,
            total_ns: (busy + idle + iowait + steal) * ns_per_tick,
        })
    }

    /// Returns the time since an earlier reading. The kernel lets idle and iowait step back at
    /// times (proc_stat(5)), so a difference below zero counts as zero.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            busy_ns: self.busy_ns.saturating_sub(earlier.busy_ns),
            softirq_ns: self.softirq_ns.saturating_sub(earlier.softirq_ns),
            iowait_ns: self.iowait_ns.saturating_sub(earlier.iowait_ns),
            steal_ns: self.steal_ns.saturating_sub(earlier.steal_ns),
            total_ns: self.total_ns.saturating_sub(earlier.total_ns),
        }
    }

    /// Returns the time in softirqs, which do most of TCP's work; none if it is less than
    /// [`SOFTIRQ_NS_MIN`]. A kernel without CONFIG_IRQ_TIME_ACCOUNTING looks at each tick whether
    /// there is one, and charges it to the interrupted task too.
    pub fn softirq_ns(&self) -> Option<u64> {
        Some(self.softirq_ns).filter(|&softirq_ns| softirq_ns >= SOFTIRQ_NS_MIN)
    }

    /// Returns the share of the CPUs' time in which they idled while a task of theirs waited for
    /// I/O; none if no tick has passed.
    pub fn iowait_percent(&self) -> Option<f64> {
        percent_of(self.iowait_ns as f64, self.total_ns as f64)
    }

    /// Returns the share of the CPUs' time that the hypervisor took for others while a CPU had
    /// work; none if no tick has passed.
    pub fn steal_percent(&self) -> Option<f64> {
        percent_of(self.steal_ns as f64, self.total_ns as f64)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    fn spin(cpu_ns: u64) {
        let own_cpu_ns = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
        };
        while own_cpu_ns() < cpu_ns {}
    }

    #[test]
    fn the_clock_of_a_process_keeps_the_time_of_ended_threads() {
        let before = process_cpu_ns(std::process::id()).unwrap();
        thread::spawn(|| spin(5_000_000)).join().unwrap();
        assert!(process_cpu_ns(std::process::id()).unwrap() - before >= 5_000_000);
    }

    #[test]
    fn a_process_that_is_gone_has_no_clock() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(process_cpu_ns(child.id()).is_err());
        assert!(Tasks::read(child.id()).is_err());
    }

    #[test]
    fn a_waiting_child_sleeps() {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut tasks = Tasks::read(child.id()).unwrap();
        while !tasks.all_sleeping && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
            tasks = Tasks::read(child.id()).unwrap();
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(tasks.all_sleeping);
        assert_eq!((tasks.count, tasks.io_workers, tasks.sqpoll_threads), (1, 0, 0));
        assert!(tasks.context_switches > 0);
    }

    #[test]
    fn tasks_are_summed_and_the_kernels_own_are_told_apart() {
        let status = |name, state, switches| {
            format!(
                "Name:\t{name}\nState:\t{state}\nCpus_allowed_list:\t0,2\n\
                 voluntary_ctxt_switches:\t{switches}\nnonvoluntary_ctxt_switches:\t1\n"
            )
        };
        let mut sum = Tasks { all_sleeping: true, ..Tasks::default() };
        sum.add(&status("worker", "S (sleeping)", 10), "100 7 3\n").unwrap();
        sum.add(&status("iou-wrk-123", "S (sleeping)", 20), "100 8 3\n").unwrap();
        assert!(sum.all_sleeping);
        sum.add(&status("iou-sqp-123", "R (running)", 30), "100 9 3\n").unwrap();
        let expected = Tasks {
            count: 3,
            context_switches: 63,
            run_delay_ns: 24,
            io_workers: 1,
            sqpoll_threads: 1,
            sqpoll_cpus: BTreeSet::from([0, 2]),
            all_sleeping: false,
        };
        assert_eq!(sum, expected);
    }

    #[test]
    fn user_and_kernel_are_told_apart_if_the_ticks_are_many() {
        let stat = |name: &str, user: u64, kernel: u64| {
            format!(
                "7 ({name}) S 1 7 7 0 -1 4194560 100 0 0 0 {user} {kernel} 3 4 20 0 1 0 9 10 11\n"
            )
        };
        let before = ProcessTicks::parse(&stat("a) S 1 (b", 100, 200)).unwrap();
        assert_eq!(before, ProcessTicks { user: 100, kernel: 200 });
        let after = |user, kernel| ProcessTicks { user, kernel }.user_share_since(&before);
        assert_eq!(after(110, 230), Some((40, 0.25)));
        assert_eq!(after(129, 200), None);
        assert_eq!(after(100, 230), Some((30, 0.0)));
        assert!(ProcessTicks::parse("7 (a) S 1").is_err());
    }

    #[test]
    fn the_ticks_of_a_process_are_those_of_its_clock() {
        spin(50_000_000);
        let ticks = ProcessTicks::read(std::process::id()).unwrap();
        let ns_per_tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        let clock_ns = process_cpu_ns(std::process::id()).unwrap();
        // Both are cut down to whole ticks, and were read before the clock.
        let all = ticks.user + ticks.kernel;
        assert!(all >= 3 && all * ns_per_tick <= clock_ns, "{ticks:?}, {clock_ns} ns");
    }

    #[test]
    fn the_machine_is_split_and_steal_is_a_share_of_all() {
        let early = MachineCpu::parse("cpu  10 0 5 80 1 1 2 1 4 0\ncpu0 1 1\n", 10).unwrap();
        let late = MachineCpu::parse("cpu  20 0 10 130 26 1 3 10 4 0\n", 10).unwrap();
        assert_eq!(
            early,
            MachineCpu {
                busy_ns: 180,
                softirq_ns: 20,
                iowait_ns: 10,
                steal_ns: 10,
                total_ns: 1000,
            }
        );
        let spent = late.since(&early);
        assert_eq!(
            spent,
            MachineCpu {
                busy_ns: 160,
                softirq_ns: 10,
                iowait_ns: 250,
                steal_ns: 90,
                total_ns: 1000,
            }
        );
        assert_eq!((spent.softirq_ns(), spent.steal_percent()), (None, Some(9.0)));
        assert_eq!(spent.iowait_percent(), Some(25.0));
        assert_eq!(early.since(&early).steal_percent(), None);
        let after = |softirq_ns| {
            MachineCpu { softirq_ns: early.softirq_ns + softirq_ns, ..early }.since(&early)
        };
        assert_eq!(after(300_000_000).softirq_ns(), Some(300_000_000));
        assert_eq!(after(290_000_000).softirq_ns(), None);
        assert!(MachineCpu::read().unwrap().busy_ns > 0);
    }
}
