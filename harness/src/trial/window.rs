//! A load's measuring window, and the clocks that are read at both of its ends.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::clock::{self, LoadWindow, Moment};
use super::context::TrialContext;
use crate::load::drain_max;
use crate::load::result::{LoadEvent, LoadResult};
use crate::machine::cpu::{MachineCpu, ProcessTicks, Tasks, process_cpu_ns};
use crate::machine::pressure::Pressure;
use crate::machine::process_tree::Tree;
use crate::programs::client::Client;
use crate::programs::server::Server;
use crate::results::sides::Sides;
use crate::statistics::percent_of;

/// The CPU clocks at one end of the window. The optional ones cannot be read of a program that is
/// not to be seen here.
pub struct Clocks {
    processes: Option<Tree>,
    pub server_cpu_ns: u64,
    pub server_ticks: Option<ProcessTicks>,
    pub server_tasks: Option<Tasks>,
    /// Those of each load.
    pub client_tasks: Option<Vec<Tasks>>,
    /// An error where /proc/stat is masked.
    machine: io::Result<MachineCpu>,
    /// None where the kernel does not tell.
    pressure: Option<Pressure>,
    /// None if the server has no bound on its CPU time.
    throttled: Option<Duration>,
    /// When the server's CPU clock had been read.
    pub read_at: Moment,
}

impl Clocks {
    /// Reads them at the beginning of the window. The server's threads come first: with one for
    /// each connection that takes long, on the client's CPU, and what the client waits meanwhile
    /// must not count as the window's.
    pub fn begin(server: &mut Server, load: &Client) -> Result<Self> {
        let processes = server.processes()?;
        let server_tasks = sum(processes.as_ref(), Tasks::read)?;
        let client_tasks = load.each(Tasks::read)?;
        let (machine, pressure) = (MachineCpu::read(), Pressure::read().ok());
        let throttled = server.throttled()?;
        let server_ticks = sum(processes.as_ref(), ProcessTicks::read)?;
        let server_cpu_ns = server_cpu_ns(server, processes.as_ref())?;
        let read_at = Moment::now();
        Ok(Self {
            processes,
            server_cpu_ns,
            server_ticks,
            server_tasks,
            client_tasks,
            machine,
            pressure,
            throttled,
            read_at,
        })
    }

    /// Reads them at its end, the other way round: of the processes that there were `before`, and
    /// then which there are now.
    pub fn end(server: &mut Server, load: &Client, before: &Self) -> Result<Self> {
        let processes = before.processes.as_ref();
        let server_cpu_ns = server_cpu_ns(server, processes)?;
        let read_at = Moment::now();
        let server_ticks = sum(processes, ProcessTicks::read)?;
        let (machine, pressure) = (MachineCpu::read(), Pressure::read().ok());
        let throttled = server.throttled()?;
        let client_tasks = load.each(Tasks::read)?;
        let server_tasks = sum(processes, Tasks::read)?;
        let processes = server.processes()?;
        Ok(Self {
            processes,
            server_cpu_ns,
            server_ticks,
            server_tasks,
            client_tasks,
            machine,
            pressure,
            throttled,
            read_at,
        })
    }

    /// Returns what the machine's CPUs did since, or why that is not known.
    pub fn machine_since(&self, before: &Self) -> Result<MachineCpu> {
        match (&before.machine, &self.machine) {
            (Ok(before), Ok(after)) => Ok(after.since(before)),
            (Err(why), _) | (_, Err(why)) => {
                bail!("the machine's CPU and the hypervisor's share are not known: {why}")
            }
        }
    }

    /// Returns for how long a bound kept the server from its CPUs since; none without one.
    pub fn throttled_since(&self, before: &Self) -> Option<Duration> {
        Some(self.throttled?.saturating_sub(before.throttled?))
    }

    /// Returns for how long tasks of the machine waited since; none where that is not known.
    pub fn pressure_since(&self, before: &Self) -> Option<Pressure> {
        Some(self.pressure?.since(&before.pressure?))
    }
}

fn sum<T: std::ops::AddAssign>(
    processes: Option<&Tree>,
    read: impl Fn(u32) -> io::Result<T>,
) -> io::Result<Option<T>> {
    processes.map(|processes| processes.sum(read)).transpose()
}

/// Reads the clocks of the server's processes; of a server that is not to be seen here, its own
/// report.
pub fn server_cpu_ns(server: &mut Server, processes: Option<&Tree>) -> Result<u64> {
    match sum(processes, process_cpu_ns)? {
        Some(ns) => Ok(ns),
        None => server.counters()?.cpu_ns.context("the server does not tell its CPU time"),
    }
}

/// Lets the load run, and reads at the beginning of its window and at the end, which gets the first
/// reading.
pub fn run_load<T>(
    server: &mut Server,
    load: &mut Client,
    duration: Duration,
    warmup_max: Duration,
    mut read: impl FnMut(&mut Server, &Client, Option<&T>) -> Result<T>,
) -> Result<(T, T, LoadResult)> {
    let patience = warmup_max + Duration::from_secs(30);
    // The load waits for what is owed, and until something moves or has stalled.
    let drain = drain_max(duration) + patience;
    server.blaming(|server| {
        let LoadEvent::Measuring = load.command("run", patience)? else {
            bail!("the load did not begin to measure")
        };
        let before = read(server, load, None)?;
        let LoadEvent::Measured = load.next(duration + patience)? else {
            bail!("the load did not end measuring")
        };
        let after = read(server, load, Some(&before))?;
        let LoadEvent::Result(result) = load.next(drain)? else { bail!("the load gave no result") };
        Ok((before, after, result))
    })
}

/// A run of the load, and the clocks at both ends of its window.
pub struct Window {
    pub before: Clocks,
    pub after: Clocks,
    pub result: LoadResult,
    /// If it is the sum of several turns: how long threads waited for a CPU in these.
    pub turns: Option<RunDelays>,
}

impl Window {
    /// Lets the load run.
    pub fn measure(
        server: &mut Server,
        load: &mut Client,
        duration: Duration,
        warmup_max: Duration,
    ) -> Result<Self> {
        let (before, after, result) =
            run_load(server, load, duration, warmup_max, |server, load, before| match before {
                None => Clocks::begin(server, load),
                Some(before) => Clocks::end(server, load, before),
            })?;
        Ok(Self { before, after, result, turns: None })
    }

    /// Says why what was read at the ends is not of the window. Turns are read at rest.
    pub fn flaws(&self, context: &TrialContext) -> Vec<String> {
        if self.turns.is_some() {
            return Vec::new();
        }
        let is_one_clock = context.sides().is_none_or(Sides::are_loads_here);
        let window = LoadWindow::of(&self.result);
        let (begin, end) = (&self.before.read_at, &self.after.read_at);
        let apart = clock::began_apart(window.as_ref(), self.result.began_apart_ns);
        apart.into_iter().chain(clock::not_of_window(window, begin, end, is_one_clock)).collect()
    }

    /// Returns the server's CPU time within it.
    pub fn server_cpu_ns(&self) -> u64 {
        self.after.server_cpu_ns.saturating_sub(self.before.server_cpu_ns)
    }

    /// Returns an amount over the echoes; none without an echo.
    pub fn per_echo(&self, amount: u64) -> Option<f64> {
        (self.result.echoes > 0).then(|| amount as f64 / self.result.echoes as f64)
    }

    /// Returns a time in percent of the window.
    pub fn percent(&self, ns: f64) -> Option<f64> {
        percent_of(ns, self.result.duration_s * 1e9)
    }

    /// Returns how long threads were ready without a CPU.
    pub fn run_delays(&self) -> RunDelays {
        let whole = || RunDelays::of(&self.after).since(RunDelays::of(&self.before));
        self.turns.clone().unwrap_or_else(whole)
    }

    /// Returns such a time in percent of the window. Threads that share the work share the delay.
    pub fn run_delay_percent(&self, delay_ns: Option<u64>, threads: usize) -> Option<f64> {
        percent_of(delay_ns? as f64, self.result.duration_s * 1e9 * threads as f64)
    }

    /// Returns what the machine's CPUs did, or why that is not known.
    pub fn machine(&self) -> Result<MachineCpu> {
        self.after.machine_since(&self.before)
    }

    /// Returns the io-wq workers of a server that is to be seen.
    pub fn io_workers(&self) -> Option<u64> {
        self.after.server_tasks.as_ref().map(|tasks| tasks.io_workers)
    }

    /// Returns whether figures can be summed over the server's processes.
    pub fn sums(&self) -> Sums {
        if self.after.processes != self.before.processes {
            let note = "CPU and context switches are left out: processes of the server began or \
                        ended within the window, and what those had used cannot be read";
            return Sums { are_whole: false, note: Some(note.to_owned()) };
        }
        let count = self.after.processes.as_ref().map_or(1, Tree::count);
        let note = (count > 1).then(|| {
            format!("CPU and context switches are those of the server's {count} processes")
        });
        Sums { are_whole: true, note }
    }
}

/// How long threads were ready without a CPU, in ns; none if that is not known.
#[derive(Clone, Default)]
pub struct RunDelays {
    pub server_ns: Option<u64>,
    /// Those of each load.
    loads_ns: Option<Vec<u64>>,
}

impl RunDelays {
    fn of(clocks: &Clocks) -> Self {
        Self {
            server_ns: clocks.server_tasks.as_ref().map(|tasks| tasks.run_delay_ns),
            loads_ns: clocks.client_tasks.as_deref().map(Self::of_loads),
        }
    }

    fn of_loads(tasks: &[Tasks]) -> Vec<u64> {
        tasks.iter().map(|tasks| tasks.run_delay_ns).collect()
    }

    /// Returns that of the load's threads; of several loads, as if each had waited as long as the
    /// one that waited longest, so that one alone is seen.
    pub fn client_ns(&self) -> Option<u64> {
        let loads_ns = self.loads_ns.as_ref()?;
        Some(loads_ns.iter().max()? * loads_ns.len() as u64)
    }

    /// Reads those of the load, and of the server if asked.
    pub fn read(server: &Server, load: &Client, server_too: bool) -> Result<Self> {
        let server = if server_too { server.tasks()? } else { None };
        let client = load.each(Tasks::read)?;
        Ok(Self {
            server_ns: server.map(|tasks| tasks.run_delay_ns),
            loads_ns: client.as_deref().map(Self::of_loads),
        })
    }

    pub fn since(self, earlier: Self) -> Self {
        let less = |now: u64, then: u64| now.saturating_sub(then);
        Self {
            server_ns: self.server_ns.zip(earlier.server_ns).map(|(now, then)| less(now, then)),
            loads_ns: self.loads_ns.zip(earlier.loads_ns).map(|both| each(both, less)),
        }
    }

    pub fn add(&mut self, more: Self) {
        self.server_ns = more.server_ns.map(|more| self.server_ns.unwrap_or(0) + more);
        self.loads_ns = more.loads_ns.map(|more| match self.loads_ns.take() {
            Some(so_far) => each((so_far, more), |so_far, more| so_far + more),
            None => more,
        });
    }
}

/// Returns what becomes of each load's two values.
fn each((one, other): (Vec<u64>, Vec<u64>), of: impl Fn(u64, u64) -> u64) -> Vec<u64> {
    one.into_iter().zip(other).map(|(one, other)| of(one, other)).collect()
}

/// Figures that are sums over the server's processes.
pub struct Sums {
    /// Whether they are of all that the processes did.
    pub are_whole: bool,
    /// A remark on them.
    pub note: Option<String>,
}
