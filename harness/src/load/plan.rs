//! The load as it will be made: the options checked, and connections dealt over threads, ports and
//! source addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringmark::cpus::CpuList;

use super::address::first_that_answers;
use super::files::FileTables;
use super::pace::Budget;
use super::result::Arrival;
use super::schedule::OpenLoop;
use super::{ArrivalOption, Options};

/// Connections that share one source address and one destination port. connect() slows down a
/// hundredfold once half of the 28,232 ports of the usual range are taken.
pub const CONNECTIONS_PER_SOURCE: usize = 10_000;

/// Files of a thread that are no connections: standard streams, epoll, pipes, and room to spare.
pub const OTHER_FILES: u64 = 64;

/// 127.0.0.1 to 127.0.0.254.
pub const SOURCES_MAX: usize = 254;

/// Bounds that keep every sum within its type and every run within reason.
const CONNECTIONS_MAX: u64 = 100_000_000;
pub const DURATION_MAX: Duration = Duration::from_secs(86_400);
pub const MESSAGE_BYTES_MAX: u64 = 1 << 30;
pub const CHURN_MAX: u64 = 1 << 32;
pub const PIPELINE_MAX: u64 = 1 << 16;
pub const RATE_MAX_PER_S: f64 = 1e9;
/// One message a day.
pub const RATE_MIN_PER_S: f64 = 1.0 / 86_400.0;

/// The shortest time that is waited for echoes that are owed after a window.
const DRAIN_MIN: Duration = Duration::from_secs(20);

/// How long after a window of this length echoes may be owed, unless told otherwise.
pub fn drain_max(duration: Duration) -> Duration {
    duration.max(DRAIN_MIN)
}

/// Everything that the threads need to know; connections are numbered from 0 in the order of
/// opening.
#[derive(Debug)]
pub struct Plan {
    /// The server's first.
    pub address: SocketAddr,
    pub ports: usize,
    pub connections: usize,
    /// At most this many connections send: those with the lowest numbers.
    pub active: usize,
    pub message_bytes: u64,
    pub pipeline: usize,
    /// Echoes on an active connection before another takes its place; none: it stays.
    pub churn: Option<u64>,
    /// None: a closed loop.
    pub open: Option<OpenLoop>,
    pub budget: Budget,
    pub warmup_max: Duration,
    /// How long after the window echoes may be owed.
    pub drain_max: Duration,
    pub threads: usize,
    pub file_tables: FileTables,
    pub cpus: Vec<usize>,
    pub sources: usize,
    pub seed: u64,
    pub histogram: Option<PathBuf>,
    pub stall_after: Duration,
    pub connect_stall_after: Duration,
}

impl Plan {
    /// Checks `options` against each other and this machine. Raises the limit of open files.
    pub fn new(options: &Options) -> Result<Self> {
        let positive = |name: &str, value: u64, unit: &str| {
            ensure!(value > 0, "--{name} 0: at least one {unit} is needed");
            Ok(())
        };
        positive("connections", options.connections as u64, "connection")?;
        positive("message-bytes", options.message_bytes, "byte")?;
        positive("pipeline", options.pipeline as u64, "message in flight")?;
        positive("ports", options.ports as u64, "port")?;
        positive("churn", options.churn.unwrap_or(1), "echo on a connection")?;
        positive("echoes", options.echoes.unwrap_or(1), "echo")?;
        positive("echoes-per-connection", options.echoes_per_connection.unwrap_or(1), "echo")?;
        let active = options.active.unwrap_or(options.connections);
        positive("active", active as u64, "active connection")?;
        ensure!(
            active <= options.connections,
            "--active {active}: more than the {} of --connections",
            options.connections
        );
        for (name, value, most) in [
            ("connections", options.connections as u64, CONNECTIONS_MAX),
            ("message-bytes", options.message_bytes, MESSAGE_BYTES_MAX),
            ("pipeline", options.pipeline as u64, PIPELINE_MAX),
            ("churn", options.churn.unwrap_or(1), CHURN_MAX),
        ] {
            ensure!(value <= most, "--{name} {value}: at most {most}");
        }
        for (name, value) in [
            ("duration", options.duration.unwrap_or_default()),
            ("warmup-max", options.warmup_max),
            ("drain-max", options.drain_max.unwrap_or_default()),
            ("stall-after", options.stall_after),
            ("connect-stall-after", options.connect_stall_after),
        ] {
            ensure!(value <= DURATION_MAX, "--{name} {value:?}: at most a day");
        }
        let budget = match (options.duration, options.echoes, options.echoes_per_connection) {
            (_, Some(total), None) => Budget::Total(total),
            (_, None, Some(each)) => Budget::Each(each),
            (duration, ..) => Budget::Timed(duration.unwrap_or(Duration::from_secs(5))),
        };
        ensure!(
            budget != Budget::Timed(Duration::ZERO),
            "--duration 0s: nothing can be measured in no time"
        );

        if let Some(rate) = options.rate {
            if let Some(churn) = options.churn {
                bail!(
                    "--churn {churn}: for a closed loop only; in an open one messages are due on connections that stand"
                );
            }
            ensure!(
                (RATE_MIN_PER_S..=RATE_MAX_PER_S).contains(&rate),
                "--rate {rate}: at least one message a day, and at most {RATE_MAX_PER_S} messages per second"
            );
            let asked_s = options.echoes.unwrap_or_default() as f64 / rate;
            ensure!(
                asked_s <= DURATION_MAX.as_secs_f64(),
                "--echoes {} at --rate {rate}: takes {:.1} days, at most one",
                options.echoes.unwrap_or_default(),
                asked_s / DURATION_MAX.as_secs_f64()
            );
        }
        ensure!(
            options.histogram.as_deref() != Some(Path::new("-"))
                || options.json
                || options.commands,
            "--histogram -: into the JSON of a result, so only with --json or --commands"
        );
        let arrival = match options.arrival {
            ArrivalOption::Poisson => Arrival::Poisson,
            ArrivalOption::Uniform => Arrival::Uniform,
        };
        let file_tables = FileTables::look().context("RLIMIT_NOFILE")?;
        let threads = file_tables.threads(options.threads, options.connections)?;
        let address = first_that_answers(&options.connect, options.connect_stall_after)?;
        let ports_max = 65_536 - usize::from(address.port());
        ensure!(
            options.ports <= ports_max,
            "--ports {}: at most {ports_max} from port {} on",
            options.ports,
            address.port()
        );
        let cpus = options.cpus.as_deref().map_or(Ok(Vec::new()), parse_cpus)?;
        let per_port = options.connections.div_ceil(options.ports);
        Ok(Self {
            address,
            ports: options.ports,
            connections: options.connections,
            active,
            message_bytes: options.message_bytes,
            pipeline: options.pipeline,
            churn: options.churn,
            open: options.rate.map(|rate_per_s| OpenLoop { rate_per_s, arrival }),
            budget,
            warmup_max: options.warmup_max,
            drain_max: options.drain_max.unwrap_or_else(|| match budget {
                Budget::Timed(duration) => drain_max(duration),
                _ => DRAIN_MIN,
            }),
            threads,
            file_tables,
            cpus,
            sources: sources(options.source_addresses, address.ip(), per_port)?,
            seed: options.seed,
            histogram: options.histogram.clone(),
            stall_after: options.stall_after,
            connect_stall_after: options.connect_stall_after,
        })
    }

    /// Where connection `number` goes: over the ports in turn.
    pub fn target(&self, number: usize) -> SocketAddr {
        let mut target = self.address;
        target.set_port(target.port() + (number % self.ports) as u16);
        target
    }

    /// Where connection `number` comes from, unless the kernel may choose: the connections of one
    /// port over 127.0.0.1, 127.0.0.2 … in turn.
    pub fn source(&self, number: usize) -> Option<Ipv4Addr> {
        let turn = (number / self.ports) % self.sources;
        (self.sources > 1).then(|| Ipv4Addr::new(127, 0, 0, 1 + turn as u8))
    }
}

/// How many of `total` things fall to receiver `index` of `receivers` when they are dealt in turn.
pub fn share(total: u64, receivers: usize, index: usize) -> u64 {
    let receivers = receivers as u64;
    total / receivers + u64::from((index as u64) < total % receivers)
}

/// Whether connections can come from several addresses without one being set up: from all of
/// 127.0.0.0/8, but IPv6 has no more than ::1.
pub fn is_spreadable(destination: IpAddr) -> bool {
    matches!(destination, IpAddr::V4(address) if address.is_loopback())
}

fn sources(asked: Option<usize>, destination: IpAddr, per_port: usize) -> Result<usize> {
    let spreadable = is_spreadable(destination);
    let needed = if spreadable { per_port.div_ceil(CONNECTIONS_PER_SOURCE) } else { 1 };
    let sources = asked.unwrap_or(needed);
    if sources > 1 && !spreadable {
        bail!(
            "--source-addresses {sources}: only for destinations in 127.0.0.0/8, not {destination}"
        );
    }
    if asked.is_none() {
        ensure!(
            sources <= SOURCES_MAX,
            "{per_port} connections to one port: more than 254 source addresses can carry; pass more --ports"
        );
    }
    ensure!(
        (1..=SOURCES_MAX).contains(&sources),
        "--source-addresses {sources}: between 1 and 254"
    );
    ensure!(
        sources >= needed,
        "--source-addresses {sources}: {per_port} connections to one port are more than \
         {CONNECTIONS_PER_SOURCE} from one address; pass {needed}, or none"
    );
    Ok(sources)
}

fn parse_cpus(list: &str) -> Result<Vec<usize>> {
    let cpus: CpuList = list.parse().with_context(|| format!("--cpus {list}"))?;
    Ok(cpus.cpus().to_vec())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn shares_are_even_and_complete() {
        for (total, receivers) in [(0, 1), (1, 3), (7, 3), (10, 5), (1_000_003, 64)] {
            let shares: Vec<u64> = (0..receivers).map(|i| share(total, receivers, i)).collect();
            assert_eq!(shares.iter().sum::<u64>(), total);
            let least = shares.last().unwrap();
            assert!(shares.iter().all(|s| s - least <= 1), "{shares:?}");
        }
    }

    #[test]
    fn a_share_counts_the_numbers_of_its_residue() {
        for total in 0..20_usize {
            for index in 0..3 {
                let counted = (0..total).filter(|number| number % 3 == index).count();
                assert_eq!(share(total as u64, 3, index), counted as u64);
            }
        }
    }

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
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let remote = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(sources(None, loopback, 10_000).unwrap(), 1);
        assert_eq!(sources(None, loopback, 10_001).unwrap(), 2);
        assert_eq!(sources(Some(7), loopback, 10).unwrap(), 7);
        assert_eq!(sources(None, remote, 50_000).unwrap(), 1);
        assert!(sources(Some(1), loopback, 10_001).is_err());
        assert!(sources(Some(2), remote, 10).is_err());
        assert!(sources(Some(0), loopback, 10).is_err());
        assert!(sources(None, loopback, 2_540_001).is_err());
    }

    #[test]
    fn no_tuple_carries_more_than_its_share() {
        let plan = plan(25_000, 2);
        let mut uses = std::collections::HashMap::new();
        for number in 0..plan.connections {
            *uses.entry((plan.target(number), plan.source(number))).or_insert(0) += 1;
        }
        assert_eq!(uses.len(), 4);
        assert!(uses.values().all(|&n| n <= CONNECTIONS_PER_SOURCE), "{uses:?}");
    }

    fn plan(connections: usize, ports: usize) -> Plan {
        let arguments = [
            "load",
            "--connect=127.0.0.1:8888",
            &format!("--ports={ports}"),
            &format!("--connections={connections}"),
            "--message-bytes=64",
        ];
        Plan::new(&crate::load::parse(arguments)).unwrap()
    }
}
