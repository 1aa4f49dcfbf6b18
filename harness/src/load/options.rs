//! The options of `ringmark load`.

use std::path::PathBuf;

use anyhow::Result;
use ringmark::service::ServiceName;

use super::limits::{
    Churn, Connections, Echoes, MeasuringTime, MessageBytes, Pipeline, Ports, Rate,
    SourceAddresses, WaitingTime,
};
use super::message::Message;
use super::part::LoadPart;
use super::result::{Arrival, Close};

const EXAMPLES: &str = "\
Examples:
  ringmark load --connect 127.0.0.1:8888 --connections 64 --message-bytes 64
      how many echoes the server carries
  ringmark load --connect 127.0.0.1:8888 --connections 64 --message-bytes 64 \\
      --rate 10000
      how late it answers 10,000 messages per second
  ringmark load --connect 127.0.0.1:8888 --connections 64 --message-bytes 64 \\
      --churn 10
      what it carries on connections that come and go";

/// Loads a server and verifies every byte that comes from it.
///
/// Without --rate the loop is closed: every connection keeps --pipeline messages in flight. Such a
/// loop measures capacity, not latency under a given load. With --rate the loop is open: a seed
/// decides when messages are due, whatever the server does, and latency counts from then. The load
/// closes connections by a reset once all echoes are back, so no TIME_WAIT is left; with --churn it
/// closes them as --close says. A server that answers more slowly than it is asked is no failure:
/// the result says what it owed.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// The server's first address. Every address of a name is tried. An IPv6 literal stands in
    /// brackets, with its scope if it needs one: [fe80::1%eth0]:8888. Or a Unix socket,
    /// unix:/run/echo.sock
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: String,
    /// Consecutive ports from that one on; connections are dealt over them in turn
    #[arg(long, value_name = "N", default_value = "1")]
    pub ports: Ports,
    /// Connections to open; with --commands the most that may stand
    #[arg(long, value_name = "N")]
    pub connections: Connections,
    /// How many of them send, those opened first [default: all]
    #[arg(long, value_name = "N")]
    pub active: Option<Connections>,
    /// The service that the server offers, with the sizes that it was given
    #[arg(long, value_enum, default_value_t)]
    pub service: ServiceName,
    /// Size of one message of an echo
    #[arg(long, value_name = "N")]
    pub message_bytes: Option<MessageBytes>,
    /// Size of one request of an exchange or a sink, up to 16 MiB
    #[arg(long, value_name = "N")]
    pub request_bytes: Option<u32>,
    /// Size of one response of an exchange, or one write of a source, up to 16 MiB
    #[arg(long, value_name = "N")]
    pub response_bytes: Option<u32>,
    /// Messages in flight on each active connection of a closed loop
    #[arg(long, value_name = "N", default_value = "1")]
    pub pipeline: Pipeline,
    /// Open loop: messages per second, over all active connections together
    #[arg(long, value_name = "R",
        conflicts_with_all = ["pipeline", "echoes_per_connection", "churn"])]
    pub rate: Option<Rate>,
    /// How the messages of an open loop arrive
    #[arg(long, value_enum, default_value_t = Arrival::Poisson, requires = "rate")]
    pub arrival: Arrival,
    /// Closed loop: close an active connection after this many echoes and open another in its
    /// place
    #[arg(long, value_name = "N")]
    pub churn: Option<Churn>,
    /// How --churn closes a connection
    #[arg(long, value_enum, default_value_t, requires = "churn")]
    pub close: Close,
    /// How long to measure, after the warm-up [default: 5s]
    #[arg(long, value_name = "TIME", group = "budget")]
    pub duration: Option<MeasuringTime>,
    /// Send this many messages in all, dealt evenly over the active connections, without a warm-up
    #[arg(long, value_name = "N", group = "budget")]
    pub echoes: Option<Echoes>,
    /// Send this many messages on each active connection, without a warm-up
    #[arg(long, value_name = "N", group = "budget")]
    pub echoes_per_connection: Option<Echoes>,
    /// The longest warm-up of a timed run; a closed loop's ends earlier if the rate has settled
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub warmup_max: WaitingTime,
    /// How long to wait after the window while echoes are owed and still come; then the load ends
    /// with a result that says what was owed [default: as long as the window, at least 20s]
    #[arg(long, value_name = "TIME", conflicts_with_all = ["echoes", "echoes_per_connection"])]
    pub drain_max: Option<WaitingTime>,
    /// Threads, each with its connections [default: as few as can hold the connections' files]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Make only this part of the load, of so many. The others are other processes, on this machine
    /// or another one, with the same options: connections, rate and echoes are those of the whole
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    pub part: LoadPart,
    /// CPUs to run on, for example 0,2-3; thread i is pinned to the i-th, in turn
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,
    /// Connect from this many addresses, 127.0.0.1 and up [default: one for 10,000 connections to a
    /// port]
    #[arg(long, value_name = "N")]
    pub source_addresses: Option<SourceAddresses>,
    /// Seed of the bytes that are sent, and of an open loop's schedule
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Write the latencies of the last run to this file, as an HdrHistogram log; `-` puts them into
    /// the JSON of its result
    #[arg(long, value_name = "FILE")]
    pub histogram: Option<PathBuf>,
    /// Print JSON lines instead of text
    #[arg(long)]
    pub json: bool,
    /// Take commands from stdin and answer each with a JSON line when it is done
    ///
    /// The first line says where this process is. The commands: `connections N` opens or resets
    /// connections until N stand; `echo K` makes K echoes on each active connection, in a closed
    /// loop; `run` does what the options say; `quit` ends the load. With --part a run waits after
    /// its warm-up, until `measure` says that all parts have come so far.
    #[arg(long)]
    pub commands: bool,
    /// Fail when echoes are owed and nothing has moved for this long
    #[arg(long, hide = true, default_value = "20s")]
    pub stall_after: WaitingTime,
    /// Fail when no connection has made progress for this long
    #[arg(long, hide = true, default_value = "30s")]
    pub connect_stall_after: WaitingTime,
}

impl Options {
    /// Returns what every message is.
    pub fn message(&self) -> Result<Message> {
        Message::of(self.service, self.message_bytes, self.request_bytes, self.response_bytes)
    }
}

#[cfg(test)]
pub fn parse<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Options {
    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }
    <Alone as clap::Parser>::parse_from(arguments).options
}
