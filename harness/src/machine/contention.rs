//! Measures who else takes the CPUs' time: it keeps every CPU busy for a moment, and reads how long
//! it was kept waiting. On an idle CPU nobody waits, so nothing would show.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::cpu::{MachineCpu, own_run_delay_ns};
use crate::statistics::percent_of;

/// The time that others took while this process wanted all of it.
#[derive(Clone, Copy, Debug)]
pub struct Contention {
    /// The hypervisor's share of all CPUs' time; none where /proc/stat does not tell.
    pub steal_percent: Option<f64>,
    /// How long a thread was ready while something else ran on its CPU.
    pub run_delay_percent: Option<f64>,
}

impl Contention {
    /// Keeps each of the CPUs busy for `time`.
    pub fn measure(cpus: &[usize], time: Duration) -> io::Result<Self> {
        let over = &AtomicBool::new(false);
        let before = MachineCpu::read().ok();
        let delays: Vec<(u64, Duration)> = thread::scope(|scope| {
            let started: io::Result<Vec<_>> = cpus
                .iter()
                .map(|&cpu| thread::Builder::new().spawn_scoped(scope, move || spin(cpu, over)))
                .collect();
            if started.is_ok() {
                thread::sleep(time);
            }
            // Threads that did start must end, or the scope would wait for them for ever.
            over.store(true, Ordering::Relaxed);
            let delays = started?.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            delays.collect::<io::Result<_>>()
        })?;
        let wanted: Duration = delays.iter().map(|(_, time)| time).sum();
        let delay_ns: u64 = delays.iter().map(|(delay_ns, _)| delay_ns).sum();
        Ok(Self {
            steal_percent: (MachineCpu::read().ok().zip(before))
                .and_then(|(after, before)| after.since(&before).steal_percent()),
            run_delay_percent: percent_of(delay_ns as f64, wanted.as_nanos() as f64),
        })
    }
}

/// Spins on a CPU. Returns for how many ns the calling thread waited for it, and for how long it
/// wanted it.
fn spin(cpu: usize, over: &AtomicBool) -> io::Result<(u64, Duration)> {
    ringmark::cpus::pin(&[cpu])?;
    let begin = Instant::now();
    let before = own_run_delay_ns()?;
    while !over.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
    Ok((own_run_delay_ns()?.saturating_sub(before), begin.elapsed()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use ringmark::cpus::CpuList;

    #[test]
    fn all_cpus_are_watched_and_the_threads_end() {
        let allowed = CpuList::allowed().unwrap();
        let found = Contention::measure(allowed.cpus(), Duration::from_millis(50)).unwrap();
        let is_share = |percent: f64| (0.0..=100.0).contains(&percent);
        assert!(found.run_delay_percent.is_some_and(is_share), "{found:?}");
        assert!(found.steal_percent.is_none_or(is_share), "{found:?}");
    }

    #[test]
    fn a_cpu_that_is_not_there_is_an_error() {
        assert!(Contention::measure(&[1_000_000], Duration::from_millis(1)).is_err());
    }
}
