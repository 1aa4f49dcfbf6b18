//! The load as it will be made: the options checked against each other and this machine, and
//! connections dealt over threads, ports and source addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringmark::address::Address;
use ringmark::cpus::CpuList;

use super::address::first_that_answers;
use super::files::FileTables;
use super::limits::{DURATION_MAX, SourceAddresses};
use super::message::Message;
use super::options::Options;
use super::pace::{Budget, share};
use super::part::LoadPart;
use super::result::Close;
use super::schedule::{OpenLoop, ThreadShare};

/// Connections that share one source address and one destination port. connect() slows down a
/// hundredfold once half of the 28,232 ports of the usual range are taken.
pub const CONNECTIONS_PER_SOURCE: usize = 10_000;

/// Addresses that connections come from while TIME_WAIT holds ports. Linux gives such a port of
/// loopback away again after one second (net.ipv4.tcp_tw_reuse, ip-sysctl.rst), so these last for
/// 225,000 connections per second with half of the usual range free.
const CHURN_SOURCES: usize = 16;

/// The least time that the load waits after a window for echoes that are owed, unless told
/// otherwise.
const DRAIN_MIN: Duration = Duration::from_secs(20);

/// Returns how long after a window of this length echoes may be owed, unless told otherwise.
pub fn drain_max(duration: Duration) -> Duration {
    duration.max(DRAIN_MIN)
}

/// Everything that the threads need to know. Connections are numbered from 0 in the order of
/// opening.
#[derive(Debug)]
pub struct LoadPlan {
    /// The server's first address.
    pub address: Address,
    pub ports: usize,
    pub connections: usize,
    /// At most this many connections send: those with the lowest numbers.
    pub active: usize,
    pub message: Message,
    pub pipeline: usize,
    /// Echoes on an active connection before another takes its place; none: it stays.
    pub churn: Option<u64>,
    /// How the load closes connections. Without churn it resets them.
    pub close: Close,
    /// None: a closed loop.
    pub open: Option<OpenLoop>,
    pub budget: Budget,
    pub warmup_max: Duration,
    /// How long after the window echoes may be owed.
    pub drain_max: Duration,
    /// The part of the load that this process makes; connections and rate are the whole's.
    pub part: LoadPart,
    /// Threads of this part. The others have as many.
    pub threads: usize,
    pub file_tables: FileTables,
    pub cpus: Vec<usize>,
    pub sources: usize,
    pub seed: u64,
    /// Whether results carry a log of their latencies.
    pub has_log: bool,
    pub stall_after: Duration,
    pub connect_stall_after: Duration,
}

impl LoadPlan {
    /// Checks `options` against each other and this machine. Raises the limit of open files.
    pub fn new(options: &Options) -> Result<Self> {
        let message = options.message()?;
        check(options, &message)?;
        let (connections, ports) = (options.connections.get(), options.ports.get());
        let file_tables = FileTables::look().context("RLIMIT_NOFILE")?;
        let part = options.part;
        let threads = file_tables.threads(options.threads, connections.div_ceil(part.of))?;
        ensure!(
            threads * part.of <= connections,
            "--part of {}: {threads} threads in each are more than the {connections} of \
             --connections, some would have nothing to do",
            part.of
        );
        let connect_stall_after = options.connect_stall_after.get();
        let address = first_that_answers(&options.connect, connect_stall_after)?;
        check_address(&address, options)?;
        let per_port = connections.div_ceil(ports);
        let close = options.churn.map_or(Close::Reset, |_| options.close);
        // The kernel keeps the ports of closed connections for a while.
        let wants_more_sources = close == Close::Fin && options.source_addresses.is_none();
        let sources = match sources(options.source_addresses, &address, per_port)? {
            1 if wants_more_sources && is_spreadable(&address) => CHURN_SOURCES,
            sources => sources,
        };
        let budget = match (options.duration, options.echoes, options.echoes_per_connection) {
            (_, Some(total), _) => Budget::Total(total.get()),
            (_, _, Some(each)) => Budget::Each(each.get()),
            (Some(duration), ..) => Budget::Timed(duration.get()),
            _ => Budget::Timed(Duration::from_secs(5)),
        };
        let drain_default = budget.duration().map_or(DRAIN_MIN, drain_max);
        Ok(Self {
            address,
            ports,
            connections,
            active: options.active.unwrap_or(options.connections).get(),
            message,
            pipeline: options.pipeline.get(),
            churn: options.churn.map(|churn| churn.get()),
            close,
            open: options
                .rate
                .map(|rate| OpenLoop { rate_per_s: rate.get(), arrival: options.arrival }),
            budget,
            warmup_max: options.warmup_max.get(),
            drain_max: options.drain_max.map_or(drain_default, |time| time.get()),
            part,
            threads,
            file_tables,
            cpus: options.cpus.as_deref().map_or(Ok(Vec::new()), parse_cpus)?,
            sources,
            seed: options.seed,
            has_log: options.histogram.is_some(),
            stall_after: options.stall_after.get(),
            connect_stall_after,
        })
    }

    /// Returns the threads of all parts together.
    pub fn threads_of_all(&self) -> usize {
        self.threads * self.part.of
    }

    /// Returns which of the threads of all parts thread `thread` of this part is.
    pub fn among_all(&self, thread: usize) -> usize {
        self.part.index * self.threads + thread
    }

    /// Returns which of the active connections are thread `thread`'s.
    pub fn share_of(&self, thread: usize, active: usize) -> ThreadShare {
        let (threads, thread) = (self.threads_of_all(), self.among_all(thread));
        ThreadShare { thread, threads, active, own: share(active as u64, threads, thread) as usize }
    }

    /// Returns how many of `total` things, dealt over the threads of all parts, are this part's.
    pub fn own(&self, total: usize) -> usize {
        let of_thread =
            |thread| share(total as u64, self.threads_of_all(), self.among_all(thread)) as usize;
        (0..self.threads).map(of_thread).sum()
    }

    /// Returns where connection `number` goes: over the ports in turn.
    pub fn target(&self, number: usize) -> Address {
        let mut target = self.address.clone();
        if let Address::Ip(address) = &mut target {
            address.set_port(address.port() + (number % self.ports) as u16);
        }
        target
    }

    /// Returns where connection `number` comes from, unless the kernel may choose: the connections
    /// of one port over 127.0.0.1, 127.0.0.2 … in turn, and so those that stand in the place of
    /// others.
    pub fn source(&self, number: usize, replaced: usize) -> Option<Ipv4Addr> {
        let turn = (number / self.ports + replaced) % self.sources;
        (self.sources > 1).then(|| Ipv4Addr::new(127, 0, 0, 1 + turn as u8))
    }
}

/// Checks options against each other, and against the service.
fn check(options: &Options, message: &Message) -> Result<()> {
    let name = options.service;
    let is_stream = !message.is_answered();
    for (option, is_given, is_refused, why) in [
        ("--pipeline", options.pipeline.get() > 1, is_stream, "nothing is waited for"),
        ("--churn", options.churn.is_some(), is_stream, "its connections stay"),
        ("--rate", options.rate.is_some(), message.is_source(), "the server decides when it sends"),
    ] {
        ensure!(!(is_given && is_refused), "the service {name} has no use for {option}: {why}");
    }
    if let Some(active) = options.active {
        ensure!(
            active <= options.connections,
            "--active {active}: more than the {} of --connections",
            options.connections
        );
    }
    if let (Some(rate), Some(echoes)) = (options.rate, options.echoes) {
        let asked_s = echoes.get() as f64 / rate.get();
        ensure!(
            asked_s <= DURATION_MAX.as_secs_f64(),
            "--echoes {echoes} at --rate {rate}: takes {:.1} days, at most one",
            asked_s / DURATION_MAX.as_secs_f64()
        );
    }
    ensure!(
        options.histogram.as_deref() != Some(Path::new("-")) || options.json || options.commands,
        "--histogram -: into the JSON of a result, so only with --json or --commands"
    );
    Ok(())
}

/// Checks the options that are about ports against the address.
fn check_address(address: &Address, options: &Options) -> Result<()> {
    let ports = options.ports.get();
    let Some(first) = address.ip() else {
        for (option, is_given) in [
            ("--ports", ports > 1),
            ("--source-addresses", options.source_addresses.is_some()),
            ("--close reset", options.close == Close::Reset),
        ] {
            ensure!(!is_given, "{option} is of TCP, and {address} is a Unix socket: leave it out");
        }
        return Ok(());
    };
    let ports_max = 65_536 - usize::from(first.port());
    ensure!(
        ports <= ports_max,
        "--ports {ports}: at most {ports_max} from port {} on",
        first.port()
    );
    Ok(())
}

/// Whether connections can come from several addresses without one being set up: from all of
/// 127.0.0.0/8, but IPv6 has no more than ::1.
pub fn is_spreadable(destination: &Address) -> bool {
    matches!(destination.ip().map(|address| address.ip()),
        Some(IpAddr::V4(address)) if address.is_loopback())
}

/// Returns from how many addresses to connect.
fn sources(
    asked: Option<SourceAddresses>,
    destination: &Address,
    per_port: usize,
) -> Result<usize> {
    let is_spreadable = is_spreadable(destination);
    let needed = if is_spreadable { per_port.div_ceil(CONNECTIONS_PER_SOURCE) } else { 1 };
    let Some(asked) = asked else {
        ensure!(
            SourceAddresses::LIMITS.contains(&needed),
            "{per_port} connections to one port: more than {} source addresses can carry; pass \
             more --ports",
            SourceAddresses::LIMITS.end()
        );
        return Ok(needed);
    };
    ensure!(
        asked.get() == 1 || is_spreadable,
        "--source-addresses {asked}: only for destinations in 127.0.0.0/8, not {destination}"
    );
    ensure!(
        asked.get() >= needed,
        "--source-addresses {asked}: {per_port} connections to one port are more than \
         {CONNECTIONS_PER_SOURCE} from one address; pass {needed}, or none"
    );
    Ok(asked.get())
}

/// Reads a list of CPUs that the mask of sched_setaffinity(2) can hold.
fn parse_cpus(list: &str) -> Result<Vec<usize>> {
    let cpus: CpuList = list.parse().with_context(|| format!("--cpus {list}"))?;
    Ok(cpus.cpus().to_vec())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::load::options::parse;
    use crate::load::schedule::Schedule;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpus("0").unwrap(), [0]);
        assert_eq!(parse_cpus("0,2-4,7").unwrap(), [0, 2, 3, 4, 7]);
        for bad in ["", "a", "1-", "3-1", "0,,1", "99999"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sources_spread_only_over_loopback() {
        let loopback = &"127.0.0.1:1".parse().unwrap();
        let remote = &"10.0.0.1:1".parse().unwrap();
        assert_eq!(sources(None, loopback, 10_000).unwrap(), 1);
        assert_eq!(sources(None, loopback, 10_001).unwrap(), 2);
        let asked = |count: usize| Some(SourceAddresses::try_from(count).unwrap());
        assert_eq!(sources(asked(7), loopback, 10).unwrap(), 7);
        assert_eq!(sources(None, remote, 50_000).unwrap(), 1);
        assert_eq!(sources(None, &"unix:/a".parse().unwrap(), 50_000).unwrap(), 1);
        assert!(sources(asked(1), loopback, 10_001).is_err());
        assert!(sources(asked(2), remote, 10).is_err());
        assert!(sources(None, loopback, 2_540_001).is_err());
    }

    #[test]
    fn no_tuple_carries_more_than_its_share() {
        let plan = plan(25_000, 2);
        let mut uses = std::collections::HashMap::new();
        for number in 0..plan.connections {
            *uses.entry((plan.target(number), plan.source(number, 0))).or_insert(0) += 1;
        }
        assert_eq!(uses.len(), 4);
        assert!(uses.values().all(|&n| n <= CONNECTIONS_PER_SOURCE), "{uses:?}");
    }

    /// Every message of a second, with its connection: of one process of three threads, and of
    /// three of one, both with the same options.
    #[test]
    fn parts_of_a_load_have_the_schedule_of_the_whole() {
        let plan = |part: &str, threads: usize, arrival: &str| {
            let options = format!(
                "load --connect=127.0.0.1:8888 --connections=17 --active=11 --message-bytes=64 \
                 --rate=3000 --arrival={arrival} --seed=5 --threads={threads} --part={part}"
            );
            LoadPlan::new(&parse(options.split(' '))).unwrap()
        };
        let messages = |plan: &LoadPlan| {
            let mut all = Vec::new();
            for thread in 0..plan.threads {
                let share = plan.share_of(thread, plan.active);
                let mut schedule = Schedule::new(plan.open.unwrap(), plan.seed, 0, u64::MAX, share);
                while let Some(message) = schedule.take(u64::MAX, 1_000_000_000) {
                    let number = message.index * share.threads + share.thread;
                    all.push((message.due_ns, number));
                }
            }
            all
        };
        for arrival in ["poisson", "uniform"] {
            let mut whole = messages(&plan("1/1", 3, arrival));
            let parts = ["1/3", "2/3", "3/3"].map(|part| plan(part, 1, arrival));
            let mut of_parts: Vec<_> = parts.iter().flat_map(messages).collect();
            whole.sort_unstable();
            of_parts.sort_unstable();
            assert!(whole.len() > 2500, "{}", whole.len());
            assert_eq!(of_parts, whole);
            assert_eq!(parts.each_ref().map(|part| part.own(17)), [6, 6, 5]);
        }
    }

    fn plan(connections: usize, ports: usize) -> LoadPlan {
        let arguments = [
            "load",
            "--connect=127.0.0.1:8888",
            &format!("--ports={ports}"),
            &format!("--connections={connections}"),
            "--message-bytes=64",
        ];
        LoadPlan::new(&parse(arguments)).unwrap()
    }
}
