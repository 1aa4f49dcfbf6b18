//! The events and results of a load: one set of types for the program that prints them and the one
//! that reads them.

use std::fmt;

use ringmark::service::Service;
use ringmark::whereabouts::Whereabouts;
use serde::{Deserialize, Serialize};

use super::limits::OFFERED_SHARE;
use super::outstanding::{ACCEPT_QUEUE, Outstanding};
use super::part::{PartEffort, PartSamples};

pub use super::latency::LatencyUs;

/// A line of JSON on stdout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LoadEvent {
    /// The load takes commands.
    Started(Whereabouts),
    /// As many connections stand as were asked for.
    Connections {
        connections: usize,
        /// How long it took to open or close them, in s.
        connect_s: f64,
        /// How many of them were opened for it.
        opened: u64,
        /// The time that these took, in µs: from before connect() until the event that the
        /// connection stands is taken.
        connect_us: LatencyUs,
        /// With `--part`: the same as an HdrHistogram log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connect_log: Option<String>,
    },
    /// A part of a load has warmed up, and waits for `measure`.
    Warm,
    /// The warm-up has ended and the measuring window begins.
    Measuring,
    /// The measuring window has ended; echoes may still be outstanding.
    Measured,
    /// Every echo of an `echo` command is back.
    Echoed(LoadResult),
    /// Every echo of a `run` is back, or owed for too long.
    Result(LoadResult),
}

impl LoadEvent {
    /// Returns its name in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Started(_) => "started",
            Self::Connections { .. } => "connections",
            Self::Warm => "warm",
            Self::Measuring => "measuring",
            Self::Measured => "measured",
            Self::Echoed(_) => "echoed",
            Self::Result(_) => "result",
        }
    }
}

/// The result of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadResult {
    /// The version of this JSON.
    #[serde(default)]
    pub format_version: u32,
    /// Connections that stood.
    pub connections: usize,
    /// Those of them that sent.
    pub active_connections: usize,
    /// The service, with the sizes of a conversation.
    #[serde(default = "echo")]
    pub service: String,
    /// Bytes of one message: those of a request and its response, or of an echo one way.
    pub message_bytes: u64,
    /// Messages in flight on each active connection.
    pub pipeline_depth: usize,
    /// When a message began.
    pub arrival: Arrival,
    /// The measuring window, in s.
    pub duration_s: f64,
    /// The length of the warm-up before it, in s.
    pub warmup_s: f64,
    /// Echoes of the warm-up: verified, but in no other figure here.
    pub warmup_echoes: u64,
    /// Echoes that came back within the window, whole and verified. With another service these are
    /// responses, or requests that the socket of a sink's client has taken.
    pub echoes: u64,
    /// Echoes of the run: before, within and after the window.
    #[serde(default)]
    pub echoes_in_all: u64,
    /// Bytes of these messages.
    pub bytes: u64,
    /// Echoes per second of the window.
    pub achieved_per_s: f64,
    /// From when a message was due until its last byte was back and verified, in µs. Counts the
    /// messages that were due within the window, whenever they came back. In a closed loop a
    /// message is due when it begins, right before it is written.
    pub latency_us: LatencyUs,
    /// Figures of an open loop.
    pub open: Option<OpenResult>,
    /// Figures of a load with churn.
    pub churn: Option<ChurnResult>,
    /// How evenly the echoes of a timed closed loop fell to connections and ports. In any other run
    /// that is not the server's doing.
    pub fairness: Option<Fairness>,
    /// CPU that the load used from the beginning of the run until all was back, in ns.
    #[serde(default)]
    pub cpu_in_all_ns: Option<u64>,
    /// CPU that the load used within the window, user and system, all threads, in ns.
    pub client_cpu_ns: u64,
    /// `client_cpu_ns` as a share of the window times the CPUs that the load can use (threads or
    /// allowed CPUs, whichever are fewer). Near 1 the load is the bottleneck.
    pub client_cpu_ratio: f64,
    pub threads: usize,
    /// The seed: it chooses which bytes are sent.
    pub seed: u64,
    /// Whether the threads had file tables of their own: `own`, or `shared` with the reason. With a
    /// shared one each call has to take a reference to its file.
    #[serde(default)]
    pub file_table: String,
    /// Whether SIGINT ended the run early; all figures are of the part before.
    pub interrupted: bool,
    /// If more was asked than was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saturated: Option<Saturation>,
    /// When the window began and ended, in ns of CLOCK_MONOTONIC, which all programs on the load's
    /// machine share.
    #[serde(default)]
    pub window_start_ns: Option<u64>,
    #[serde(default)]
    pub window_end_ns: Option<u64>,
    /// The longest time within the window that a thread of the load did not look at its clock, or
    /// from the window's end until the main thread read the CPU clock, in ns. A thread waits for
    /// 50 ms at most; in a longer gap it was stopped (SIGSTOP, a paused machine) or had no CPU.
    #[serde(default)]
    pub longest_gap_ns: Option<u64>,
    /// The name of the part of a load that had this gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_gap_of: Option<String>,
    /// By how much the windows of a load's parts may have begun apart, in ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_apart_ns: Option<u64>,
    /// With several parts: the figures that show whether each did what was asked of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartEffort>,
    /// With `--part`: the samples of the part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Box<PartSamples>>,
    /// The latencies as an HdrHistogram log, with `--histogram -`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram_log: Option<String>,
}

/// Returns the service of a result that does not name it.
fn echo() -> String {
    Service::Echo.to_string()
}

/// More was asked than was answered. Messages were still owed when the load no longer waited, or an
/// open loop's came back more slowly than they were due.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saturation {
    pub limit: Bottleneck,
    /// How long after the window the load waited for echoes, in s.
    pub drained_s: f64,
    /// Messages that were still owed then; 0: in the end all came back.
    pub owed: u64,
    /// Their bytes that had not come back.
    pub owed_bytes: u64,
    /// Connections on which they were owed, or that could not be opened.
    pub owed_connections: u64,
    /// Those of them on which no byte ever came back.
    pub unanswered_connections: u64,
}

/// Which side could do no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bottleneck {
    /// The server answered more slowly than it was asked.
    Server,
    /// The load's CPU was used up, or it sent late.
    Client,
}

/// Figures that only an open loop has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenResult {
    /// Messages per second as asked for.
    pub rate_per_s: f64,
    /// Messages per second that were due within the window.
    pub offered_per_s: f64,
    /// Those of them that were sent more than 1 ms after they were due.
    pub late_sends: u64,
    /// Those of them that were not sent yet when the window ended. They were sent after it, and
    /// their lateness counts.
    pub unsent: u64,
    /// From when a message was sent until its last byte is back and verified, in µs.
    pub service_us: LatencyUs,
    /// From when a message was due until it was sent, in µs: the load's own share of the latency.
    pub send_lag_us: LatencyUs,
}

/// Figures of connections that replaced others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChurnResult {
    /// Echoes on a connection before another took its place.
    pub echoes_each: u64,
    /// How these connections were closed.
    pub close: Close,
    /// Connections that were opened within the window.
    pub opened: u64,
    /// The same, per second of the window.
    pub connections_per_s: f64,
    /// The time that these took, in µs: from before connect() until the event that the connection
    /// stands is taken.
    pub connect_us: LatencyUs,
    /// Connections opened since the load began, the first ones included. The server has accepted as
    /// many once it has come to rest.
    pub opened_in_all: u64,
}

/// How evenly the echoes fell to the connections and ports that shared the server. Connections that
/// replaced each other count as one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fairness {
    /// Jain's index over the active connections: (Σx)² / (n Σx²), 1 when all had equally many.
    pub connections: f64,
    /// Echoes of the connection that had the fewest, over the mean.
    pub slowest_over_mean: f64,
    /// Echoes of the connection that had the most, over the mean.
    pub fastest_over_mean: f64,
    /// Jain's index over the ports that have active connections.
    pub ports: f64,
}

/// When messages begin.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// Each begins as soon as an earlier one of its connection is back
    #[value(skip)]
    Closed,
    /// As from independent users: random gaps, each message on a connection drawn at random
    Poisson,
    /// Evenly spaced, on the connections in turn
    Uniform,
}

impl Arrival {
    /// Returns the name in `trials.csv`, which `--arrival` takes too.
    pub fn name(self) -> &'static str {
        match self {
            Arrival::Closed => "closed",
            Arrival::Poisson => "poisson",
            Arrival::Uniform => "uniform",
        }
    }
}

/// How the client closes a connection that another replaces.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Close {
    /// In order, with a FIN, and TIME_WAIT on the client's side
    #[default]
    Fin,
    /// By a reset, without TIME_WAIT: the server finds a connection that is gone
    Reset,
}

impl Close {
    /// Returns the name that `--close` and a matrix take.
    pub fn name(self) -> &'static str {
        match self {
            Close::Fin => "fin",
            Close::Reset => "reset",
        }
    }
}

/// Messages on their way when a window ends are back soon. They show no queue if that takes no more
/// than this share of the window, or so many s, or so many times the median latency.
const NO_QUEUE_SHARE: f64 = 0.01;
const NO_QUEUE_S: f64 = 0.01;
const NO_QUEUE_MEDIANS: f64 = 1.5;

impl LoadResult {
    /// Returns whether more was asked than was answered, when `owed` was left after `drained_s`.
    pub(super) fn saturation(&self, owed: Outstanding, drained_s: f64) -> Option<Saturation> {
        let p50_s = self.latency_p50_at_least().unwrap_or_default() / 1e6;
        let no_queue_s =
            (NO_QUEUE_SHARE * self.duration_s).max(NO_QUEUE_S).max(NO_QUEUE_MEDIANS * p50_s);
        let is_behind = drained_s > no_queue_s
            && self
                .open
                .as_ref()
                .is_some_and(|open| self.achieved_per_s < OFFERED_SHARE * open.offered_per_s);
        (owed.connections > 0 || is_behind).then(|| Saturation {
            limit: if self.is_client_behind() { Bottleneck::Client } else { Bottleneck::Server },
            drained_s,
            owed: owed.messages,
            owed_bytes: owed.bytes,
            owed_connections: owed.connections,
            unanswered_connections: owed.unanswered,
        })
    }

    /// Whether messages went or came one after the other, with nothing in return.
    pub fn is_stream(&self) -> bool {
        self.service.starts_with("sink") || self.service.starts_with("source")
    }

    fn latency_p50_at_least(&self) -> Option<f64> {
        self.latency_us.p50.or_else(|| self.latency_us.at_least.as_ref()?.p50)
    }

    /// Whether the load itself could not do what was asked of it.
    fn is_client_behind(&self) -> bool {
        self.effort("the load").why_behind(0.0).is_some()
    }

    /// Returns what shows whether a part of a load did what was asked of it.
    pub fn effort(&self, name: &str) -> PartEffort {
        let open = self.open.as_ref();
        PartEffort {
            name: name.to_owned(),
            duration_s: self.duration_s,
            cpu_ratio: self.client_cpu_ratio,
            due: open.map_or(0.0, |open| open.offered_per_s * self.duration_s),
            unsent: open.map_or(0, |open| open.unsent),
            send_lag_p50_us: open.and_then(|open| open.send_lag_us.p50),
            latency_p50_us: self.latency_p50_at_least(),
        }
    }

    /// Returns why nothing was measured, if nothing was.
    pub fn nothing_measured(&self) -> Option<String> {
        if self.echoes > 0 || self.interrupted {
            return None;
        }
        if self.active_connections == 0 {
            return Some(
                "no active connection is this part's: give more of them, or fewer parts".to_owned(),
            );
        }
        let window = format!("within the window of {:.3} s", self.duration_s);
        Some(if self.open.as_ref().is_some_and(|open| open.offered_per_s == 0.0) {
            format!("no message was due {window}: ask for a longer --duration than 1/--rate")
        } else if self.saturated.is_some_and(|why| why.limit == Bottleneck::Client) {
            format!(
                "no echo came back {window}: the load itself had too little CPU for what is asked"
            )
        } else {
            format!(
                "no echo came back {window}: the server answers too slowly, or the window is too \
                 short; pass a longer --duration"
            )
        })
    }
}

/// Formats a rate with as many digits as it has, or as are of use.
fn per_s(rate: f64) -> String {
    match rate {
        rate if rate >= 100.0 => format!("{rate:.0}"),
        rate if rate >= 1.0 => format!("{rate:.1}"),
        rate => format!("{rate:.3}"),
    }
}

impl fmt::Display for Saturation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.limit {
            Bottleneck::Server => "the server answered more slowly than it was asked",
            Bottleneck::Client => {
                "the load itself was the limit: its CPU was used up, or it sent late"
            }
        };
        let Self { drained_s, owed, owed_bytes, owed_connections, .. } = *self;
        if owed_connections == 0 {
            return write!(f, "{who}; all was back {drained_s:.1} s after the last was due");
        }
        write!(
            f,
            "{who}; {owed} messages ({owed_bytes} B) on {owed_connections} connections were still \
             owed {drained_s:.1} s after the window, and count with the latency that they had at \
             least"
        )?;
        match self.unanswered_connections {
            0 => Ok(()),
            some => write!(
                f,
                "; on {some} of these connections nothing ever came back: a full accept queue \
                 ({ACCEPT_QUEUE}) and a server out of files look so too"
            ),
        }
    }
}

impl fmt::Display for LoadResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_amounts(f)?;
        self.fmt_times(f)?;
        if let Some(ChurnResult { echoes_each, close, connections_per_s, connect_us, .. }) =
            &self.churn
        {
            let (per_s, close) = (per_s(*connections_per_s), close.name());
            writeln!(
                f,
                "connections/s {per_s}, echoes per connection {echoes_each}, then {close}"
            )?;
            writeln!(f, "connect µs   {connect_us}")?;
        }
        if let Some(fairness) = self.fairness.filter(|_| self.active_connections > 1) {
            writeln!(
                f,
                "fairness     {:.3} over connections, which had {:.2} to {:.2} of the mean (Jain's \
                 index; 1 is even)",
                fairness.connections, fairness.slowest_over_mean, fairness.fastest_over_mean
            )?;
        }
        let percent = self.client_cpu_ratio * 100.0;
        writeln!(f, "client CPU   {percent:.0} % of what its threads can use")?;
        if self.file_table.starts_with("shared") {
            writeln!(f, "file table   {}", self.file_table)?;
        }
        f.write_str(match self.arrival {
            _ if self.is_stream() => {
                "a stream: nothing comes back for a message, so there is no latency"
            }
            Arrival::Closed => "closed loop: capacity, not latency under a given load",
            _ => "open loop: latency from when a message was due, service from when it was sent",
        })
    }
}

impl LoadResult {
    fn fmt_amounts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, active, bytes) = (self.connections, self.active_connections, self.message_bytes);
        write!(f, "connections  {all} ({active} active), ")?;
        if self.open.is_none() && !self.is_stream() {
            write!(f, "pipeline {}, ", self.pipeline_depth)?;
        }
        let is_echo = self.service == echo();
        let noun = if is_echo { "echoes" } else { "messages" };
        match is_echo {
            true => writeln!(f, "messages of {bytes} B")?,
            false => writeln!(f, "{}", self.service)?,
        }
        write!(f, "{noun:<12} {} in {:.3} s", self.echoes, self.duration_s)?;
        match self.warmup_s {
            0.0 => write!(f, ", no warm-up")?,
            warmup_s => write!(f, ", after {} in {warmup_s:.3} s of warm-up", self.warmup_echoes)?,
        }
        writeln!(f, "{}", if self.interrupted { " (interrupted)" } else { "" })?;
        write!(f, "{:<12} {}", format!("{noun}/s"), per_s(self.achieved_per_s))?;
        if let Some(open) = &self.open {
            write!(f, " of {} offered ({} asked for)", per_s(open.offered_per_s), open.rate_per_s)?;
        }
        writeln!(f)?;
        if !is_echo {
            let mib_per_s = self.bytes as f64 / self.duration_s / f64::from(1 << 20);
            writeln!(f, "MiB/s        {mib_per_s:.1}")?;
        }
        match &self.saturated {
            Some(saturated) => writeln!(f, "saturated    {saturated}"),
            None => Ok(()),
        }
    }

    fn fmt_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_stream() {
            writeln!(f, "latency µs   {}", self.latency_us)?;
        }
        let Some(OpenResult { service_us, send_lag_us, late_sends, unsent, .. }) = &self.open
        else {
            return Ok(());
        };
        if !self.is_stream() {
            writeln!(f, "service µs   {service_us}")?;
            writeln!(f, "send lag µs  {send_lag_us}")?;
        }
        writeln!(f, "late sends   {late_sends} more than 1 ms; {unsent} not sent within the window")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use ringmark::protocol::FORMAT_VERSION;

    use super::*;

    #[test]
    fn events_survive_json() {
        let result = LoadResult {
            format_version: FORMAT_VERSION,
            connections: 2,
            active_connections: 1,
            service: "echo".to_owned(),
            message_bytes: 64,
            pipeline_depth: 3,
            arrival: Arrival::Closed,
            duration_s: 0.5,
            warmup_s: 0.25,
            echoes_in_all: 0,
            warmup_echoes: 7,
            echoes: 10,
            bytes: 640,
            achieved_per_s: 20.0,
            latency_us: LatencyUs {
                p50: Some(12.5),
                at_least: Some(Box::new(LatencyUs { p99: Some(99.5), ..LatencyUs::default() })),
                ..LatencyUs::default()
            },
            open: Some(OpenResult {
                rate_per_s: 21.0,
                offered_per_s: 20.5,
                late_sends: 1,
                unsent: 2,
                service_us: LatencyUs { max: Some(9.0), ..LatencyUs::default() },
                send_lag_us: LatencyUs::default(),
            }),
            churn: Some(ChurnResult {
                echoes_each: 1,
                close: Close::Fin,
                opened: 10,
                connections_per_s: 20.0,
                connect_us: LatencyUs { p99: Some(7.5), ..LatencyUs::default() },
                opened_in_all: 12,
            }),
            fairness: Some(Fairness {
                connections: 0.5,
                slowest_over_mean: 0.25,
                fastest_over_mean: 2.0,
                ports: 1.0,
            }),
            cpu_in_all_ns: Some(100),
            client_cpu_ns: 99,
            client_cpu_ratio: 0.125,
            threads: 1,
            seed: u64::MAX,
            file_table: "own".to_owned(),
            interrupted: false,
            saturated: Some(Saturation {
                limit: Bottleneck::Client,
                drained_s: 20.5,
                owed: 1,
                owed_bytes: 63,
                owed_connections: 1,
                unanswered_connections: 0,
            }),
            window_start_ns: Some(3),
            window_end_ns: Some(u64::MAX),
            longest_gap_ns: Some(50_000_000),
            longest_gap_of: Some("load 1".to_owned()),
            began_apart_ns: Some(7),
            parts: vec![PartEffort { name: "load 2".to_owned(), ..PartEffort::default() }],
            samples: None,
            histogram_log: Some("#[…]\n".to_owned()),
        };
        let connections = LoadEvent::Connections {
            connections: 2,
            connect_s: 0.125,
            opened: 1,
            connect_us: LatencyUs { max: Some(3.5), ..LatencyUs::default() },
            connect_log: None,
        };
        for event in [connections, LoadEvent::Measuring, LoadEvent::Result(result)] {
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<LoadEvent>(&line).unwrap(), event, "{line}");
        }
    }
}
