//! `ringmark load`: loads any TCP echo server, in a closed or an open loop, and verifies every
//! byte.
//!
//! Each thread has a file table, a CPU (if asked), an epoll instance and latency histograms of its
//! own and owns its connections. A message's latency runs until its last byte is back and verified:
//! in a closed loop from before it is written, in an open one from when it was [due](schedule),
//! whenever it could be written. Connections are closed by a reset (SO_LINGER 0), after everything
//! owed has come back: a server sees ECONNRESET, and no TIME_WAIT keeps ports from the next run. A
//! run that fails resets them at once. With [churn] connections are closed so, and opened anew, all
//! the time.

mod address;
mod churn;
mod crew;
mod fairness;
mod fault;
pub mod files;
mod flight;
pub mod latency;
#[allow(dead_code, reason = "the options use them next")]
pub mod limits;
mod open;
mod output;
mod pace;
mod plan;
mod process;
pub mod result;
mod schedule;
mod warmup;
mod worker;

use std::io::BufRead as _;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ringmark::whereabouts::Whereabouts;
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use self::crew::{Crew, Message};
use self::output::{Output, print};
use self::pace::Budget;
use self::plan::Plan;
use self::result::LoadEvent;
use self::schedule::OpenLoop;

pub use crate::load::plan::{
    CHURN_MAX, CONNECTIONS_PER_SOURCE, DURATION_MAX, MESSAGE_BYTES_MAX, OTHER_FILES, PIPELINE_MAX,
    RATE_MAX_PER_S, RATE_MIN_PER_S, SOURCES_MAX, drain_max,
};

/// Loads an echo server and verifies every byte that comes back.
///
/// Without --rate in a closed loop: every connection keeps --pipeline messages in flight. That
/// measures capacity, not latency under a given load. With --rate in an open loop: messages are due
/// at times that a seed decides, whatever the server does, and latency counts from then.
/// Connections are closed by a reset once all echoes are back, so that no TIME_WAIT is left. A
/// server that answers more slowly than it is asked is no failure: the result says what was owed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ringmark load --connect 127.0.0.1:8888 --connections 64 --message-bytes 64                 what it carries
  ringmark load --connect 127.0.0.1:8888 --connections 64 --message-bytes 64 --rate 10000    how late it answers
  ringmark load --connect 127.0.0.1:8888 --connections 64 --message-bytes 64 --churn 10      connections that come and go")]
pub struct Options {
    /// The server's first address. Every address of a name is tried; an IPv6 literal stands in
    /// brackets, with its scope if it needs one: [fe80::1%eth0]:8888.
    #[arg(long, value_name = "HOST:PORT")]
    connect: String,
    /// Consecutive ports from that one on; connections are dealt over them in turn.
    #[arg(long, value_name = "N", default_value_t = 1)]
    ports: usize,
    /// Connections to open; with --commands the most that may stand.
    #[arg(long, value_name = "N")]
    connections: usize,
    /// How many of them send, those opened first [default: all].
    #[arg(long, value_name = "N")]
    active: Option<usize>,
    /// Size of one message.
    #[arg(long, value_name = "N")]
    message_bytes: u64,
    /// Messages in flight on each active connection of a closed loop.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pipeline: usize,
    /// Open loop: messages per second, over all active connections together.
    #[arg(long, value_name = "R", conflicts_with_all = ["pipeline", "echoes_per_connection"])]
    rate: Option<f64>,
    /// How the messages of an open loop arrive.
    #[arg(long, value_enum, default_value_t = ArrivalOption::Poisson, requires = "rate")]
    arrival: ArrivalOption,
    /// Closed loop: after this many echoes on an active connection reset it, and open a new one in
    /// its place.
    #[arg(long, value_name = "K")]
    churn: Option<u64>,
    /// How long to measure, after the warm-up [default: 5s].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, group = "budget")]
    duration: Option<Duration>,
    /// Send this many messages in all, dealt evenly over the active connections, and no warm-up.
    #[arg(long, value_name = "N", group = "budget")]
    echoes: Option<u64>,
    /// Send this many messages on each active connection, and no warm-up.
    #[arg(long, value_name = "N", group = "budget")]
    echoes_per_connection: Option<u64>,
    /// The longest warm-up of a timed run; a closed loop's ends earlier when the rate has settled.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s")]
    warmup_max: Duration,
    /// How long to wait after the window while echoes are still owed, and come; then the load ends
    /// with a result that says what was owed [default: as long as the window, at least 20s].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration,
        conflicts_with_all = ["echoes", "echoes_per_connection"])]
    drain_max: Option<Duration>,
    /// Threads, each with its connections [default: as few as can hold the connections' files].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// CPUs to run on, for example 0,2-3: thread i is pinned to the i-th, in turn.
    #[arg(long, value_name = "LIST")]
    cpus: Option<String>,
    /// Connect from this many addresses, 127.0.0.1 and up [default: one for 10,000 connections to a
    /// port].
    #[arg(long, value_name = "N")]
    source_addresses: Option<usize>,
    /// Chooses the bytes that are sent, and an open loop's schedule.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write the latencies of the last run to this file, as an HdrHistogram log; `-`: into the JSON
    /// of its result.
    #[arg(long, value_name = "FILE")]
    histogram: Option<PathBuf>,
    /// Print JSON lines instead of text.
    #[arg(long)]
    json: bool,
    /// Say where this process is, then read commands from stdin and answer each with a JSON line
    /// when it is done: `connections N` (open or reset until N stand), `echo K` (K on each active
    /// connection, in a closed loop), `run` (as the options say), `quit`.
    #[arg(long)]
    commands: bool,
    /// Fail when echoes are owed and nothing has moved for this long.
    #[arg(long, hide = true, value_parser = humantime::parse_duration, default_value = "20s")]
    stall_after: Duration,
    /// Fail when no connection has made progress for this long.
    #[arg(long, hide = true, value_parser = humantime::parse_duration, default_value = "30s")]
    connect_stall_after: Duration,
}

/// `--arrival`.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum ArrivalOption {
    /// As of independent users: random gaps, each message on a connection drawn at random
    Poisson,
    /// Evenly spaced, on the connections in turn
    Uniform,
}

/// Runs the load.
///
/// # Errors
/// When an option is wrong, the server cannot be reached, or breaks the echo protocol; when SIGINT
/// came.
pub fn run(options: Options) -> Result<()> {
    let plan = Plan::new(&options)?;
    let (connections, budget, open) = (plan.connections, plan.budget, plan.open);
    let mut output = Output::open(options.histogram.as_deref(), options.json || options.commands)?;
    let (sender, messages) = mpsc::channel();
    // Before the threads: a signal may reach any of them, and its handler writes to a pipe that
    // must be in each one's file table.
    listen_for_interrupts(sender.clone())?;
    let mut crew = Crew::start(plan, &sender, messages)?;
    if options.commands {
        listen_to_stdin(sender);
        print(&LoadEvent::Started(Whereabouts::of_this_process()))?;
        obey(&mut crew, &mut output, budget, open)?;
    } else {
        let json = options.json;
        let mut report = |event| if json { print(&event) } else { Ok(()) };
        report(crew.set_connections(connections)?)?;
        let result = crew.run(budget, open, &mut report)?;
        let nothing_measured = result.nothing_measured();
        output.publish(result, LoadEvent::Result)?;
        if let Some(why) = nothing_measured {
            bail!("{why}");
        }
    }
    crew.quit();
    Ok(())
}

/// The dialogue of `--commands`.
fn obey(
    crew: &mut Crew,
    output: &mut Output,
    budget: Budget,
    open: Option<OpenLoop>,
) -> Result<()> {
    while let Some(line) = crew.next_line()? {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |text: &str| {
            text.parse::<u64>()
                .with_context(|| format!("command `{line}`: `{text}` is not a number"))
        };
        match words[..] {
            ["connections", count] => print(&crew.set_connections(number(count)? as usize)?)?,
            ["echo", count] => {
                let each = number(count)?;
                if each == 0 {
                    bail!("command `{line}`: at least one echo is needed");
                }
                let result = crew.run(Budget::Each(each), None, &mut |_| Ok(()))?;
                output.publish(result, LoadEvent::Echoed)?;
            }
            ["run"] => {
                let result = crew.run(budget, open, &mut |event| print(&event))?;
                output.publish(result, LoadEvent::Result)?;
            }
            ["quit"] => break,
            _ => bail!(
                "command `{line}`: unknown; there are `connections N`, `echo K`, `run` and `quit`"
            ),
        }
    }
    Ok(())
}

/// Passes the first SIGINT on; the second ends the process at once.
fn listen_for_interrupts(sender: Sender<Message>) -> Result<()> {
    let mut signals = Signals::new([SIGINT]).context("SIGINT")?;
    std::thread::spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 || sender.send(Message::Interrupted).is_err() {
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

fn listen_to_stdin(sender: Sender<Message>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(Message::Line(line)).is_err() {
                return;
            }
        }
        let _ = sender.send(Message::Eof);
    });
}

#[cfg(test)]
fn parse<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Options {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }
    <Cli as clap::Parser>::parse_from(arguments).options
}
