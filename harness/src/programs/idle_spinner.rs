//! Keeps CPUs from halting: on each of them spins a thread of the lowest priority.
//!
//! A CPU of a virtual machine that has halted for long enough takes tens of µs to wake up. At a low
//! load that may be half of an echo's latency, and none of it is the server's.

use std::io::{self, Read};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, bail};
use ringmark::cpus::CpuList;

use super::process::{ANSWER_TIME, Interruptions, Process};

/// The verb of `ringmark`, which is not for people.
const VERB: &str = "spin-when-idle";

/// The line that it prints once a thread spins on each CPU.
const READY: &str = "spinning";

/// Keeps CPUs from halting until stdin ends.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// The CPUs, for example 0,2-3
    #[arg(long, value_name = "LIST")]
    cpus: CpuList,
}

/// Spins until stdin ends.
pub fn run(options: &Options) -> Result<()> {
    let (sender, outcomes) = mpsc::channel();
    for &cpu in options.cpus.cpus() {
        let sender = sender.clone();
        let begin = move || {
            let outcome = ringmark::cpus::pin(&[cpu]).and_then(|()| yield_to_all());
            let failed = outcome.is_err();
            // Nobody listens only if another thread has failed, and the process is about to end.
            let _ = sender.send(outcome);
            if failed {
                return;
            }
            loop {
                std::hint::spin_loop();
            }
        };
        // It ends with the process.
        thread::Builder::new().spawn(begin).context("start a thread")?;
    }
    drop(sender);
    for outcome in outcomes.iter().take(options.cpus.cpus().len()) {
        outcome.with_context(|| format!("spin at idle priority on the CPUs {}", options.cpus))?;
    }
    crate::terminal::print_line(READY)?;
    io::stdin().read_to_end(&mut Vec::new()).context("stdin")?;
    Ok(())
}

/// Makes the calling thread run only where nothing else wants to (SCHED_IDLE, sched(7)). A thread
/// that wakes up there takes its place at once.
fn yield_to_all() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; the kernel reads `parameters`, which lives through the call.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The program that keeps CPUs from halting. Its CPU time is neither the server's nor the load's.
pub struct IdleSpinner(Process);

impl IdleSpinner {
    /// Starts it, and returns once a thread spins on each of the CPUs.
    pub fn start(cpus: &CpuList, interruptions: &Interruptions) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.args([VERB, "--cpus", &cpus.to_string()]);
        let mut process = Process::start("idle spinner", command, None, interruptions)?;
        match process.hear(ANSWER_TIME)?.as_str() {
            READY => Ok(Self(process)),
            other => bail!("expected `{READY}` from the idle spinner, got {other:?}"),
        }
    }

    /// Ends it in order.
    pub fn end(self) -> Result<()> {
        self.0.leave()
    }
}
