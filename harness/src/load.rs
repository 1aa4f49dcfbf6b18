//! `ringmark load`: loads any TCP echo server, or a server of ours with another
//! [service](message), in a closed or an open loop, and verifies every byte.
//!
//! Each thread owns its connections, an epoll instance and latency histograms. If the kernel allows
//! it, each has a file table of its own too. A message's latency ends when its last byte is back
//! and verified. In a closed loop it begins before the message is written, in an open one when the
//! message is [due](schedule).
//!
//! The load closes connections by a reset (SO_LINGER 0) once everything owed has come back. The
//! server sees ECONNRESET, and no TIME_WAIT takes ports from the next run. A run that fails resets
//! them at once. With [churn] the load closes and opens connections all the time, with a FIN unless
//! told otherwise.

mod address;
mod churn;
mod dialogue;
mod event_loop;
mod fairness;
mod fault;
pub mod files;
mod in_flight;
pub mod latency;
pub mod limits;
pub mod merge;
pub mod message;
mod open;
mod options;
mod output;
mod outstanding;
mod pace;
pub mod part;
mod plan;
mod process;
pub mod result;
mod schedule;
mod shared;
mod stream;
pub mod sum;
mod thread;
mod thread_pool;
mod totals;
mod under_way;
mod warmup;

use std::sync::mpsc;

use anyhow::{Result, bail};

use self::limits::SourceAddresses;
use self::output::{Output, print};
use self::plan::LoadPlan;
use self::result::LoadEvent;
use self::thread_pool::ThreadPool;

pub use self::files::OTHER_FILES;
pub use self::options::Options;
pub use self::plan::{CONNECTIONS_PER_SOURCE, drain_max};
pub use self::thread_pool::MEASURE;

pub const SOURCES_MAX: usize = *SourceAddresses::LIMITS.end();

/// Runs the load.
///
/// # Errors
/// When options contradict each other, the server cannot be reached or breaks the echo protocol, no
/// echo came back, or SIGINT came.
pub fn run(options: Options) -> Result<()> {
    let plan = LoadPlan::new(&options)?;
    let mut output = Output::open(options.histogram.as_deref(), options.json || options.commands)?;
    let (sender, events) = mpsc::channel();
    // Before the threads: a signal may reach any of them. Its handler writes to a pipe, which must
    // be in the file table of each.
    dialogue::listen_for_interrupts(sender.clone())?;
    let mut threads = ThreadPool::start(plan, &sender, events)?;
    if options.commands {
        dialogue::listen_to_stdin(sender);
        dialogue::obey(&mut threads, &mut output)?;
    } else {
        let mut report = |event| if options.json { print(&event) } else { Ok(()) };
        report(threads.set_connections(options.connections.get())?)?;
        let result = threads.run_as_planned(false, &mut report)?;
        let nothing_measured = result.nothing_measured();
        output.publish(result, LoadEvent::Result)?;
        if let Some(why) = nothing_measured {
            bail!("{why}");
        }
    }
    threads.quit();
    Ok(())
}
