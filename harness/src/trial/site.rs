//! A trial's server, where it runs, and the loads that are started beside it.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use ringmark::address::Address;
use ringmark::protocol::ServerCounters;

use super::context::TrialContext;
use super::task::Trial;
use crate::load::files::FileTables;
use crate::load::result::{ChurnResult, LoadResult};
use crate::machine::cpu_quota::CpuQuota;
use crate::machine::network::NetworkReading;
use crate::machine::path::{NetworkPath, PathPlan};
use crate::matrix::Workload;
use crate::programs::client::{Client, Starter};
use crate::programs::server::Server;
use crate::programs::server_plan::ServerPlan;
use crate::rows::TrialRow;

/// Said of a server that a trial has to see and that its side shows elsewhere.
pub const UNSEEN: &str = "the server's process is not to be seen here";

/// A server and its network.
pub struct Site<'a> {
    trial: &'a Trial,
    context: &'a TrialContext,
    path: Option<NetworkPath>,
    pub server: Server,
}

impl<'a> Site<'a> {
    /// Starts the trial's server. The row gets what is known of it from then on. `held` gets the
    /// server's pid, if it is to be seen here, while it has one thread and has done nothing yet.
    pub fn start(
        trial: &'a Trial,
        context: &'a TrialContext,
        row: &mut TrialRow,
        mut held: impl FnMut(Option<u32>),
    ) -> Result<Self> {
        let asked = trial.task.workload().map(Workload::path).unwrap_or_default();
        let path = path(context, &asked, row)?;
        check_device(path.as_ref(), &trial.arm.set)?;
        let settings = match trial.task.workload() {
            Some(workload) => workload.settings(&trial.arm),
            None => trial.arm.set.clone(),
        };
        let service = trial.task.workload().map_or(Vec::new(), Workload::server_options);
        let plan = ServerPlan {
            service: &service,
            external: context.external(&trial.arm.backend),
            binary: &context.server,
            backend: &trial.arm.backend,
            settings: &settings,
            workers: context.workers,
            listen: listen(context, path.as_ref()),
            ports: context.ports,
            cpus: &context.placement.server,
            launchers: context.launchers.as_ref(),
        };
        let quota = quota(context, trial.task.workload())?;
        let namespace = path.as_ref().map(|path| &path.server);
        let mut is_bound = Ok(());
        let mut server = Server::start(&plan, namespace, &context.interruptions, |pid| {
            if let Some(quota) = &quota {
                is_bound = pid.map_or(Err(UNSEEN.to_owned()), |pid| {
                    quota.add(pid).map_err(|error| error.to_string())
                });
            }
            held(pid);
        })?;
        is_bound.map_err(|why| NotHere(format!("cpu_quota: {why}")))?;
        server.keep(quota);
        row.knobs = server.knobs.clone();
        row.in_force = server.in_force.clone();
        Ok(Self { trial, context, path, server })
    }

    /// Starts a load with at most `connections`: as many threads as it has CPUs, or more if those
    /// could not open so many files.
    pub fn load(&self, connections: usize, more: &[String]) -> Result<Client> {
        let Self { trial, context, path, server } = self;
        let first = server.addresses.first().context("the server listens nowhere")?;
        // Each of several loads has a part of the connections, as far as there are so many.
        let loads = context.loads().min(connections);
        let of_each = connections / loads;
        let holding = FileTables::look().context("RLIMIT_NOFILE")?;
        let holding = holding.threads_for(connections.div_ceil(loads));
        let threads = context.placement.client_threads.max(holding).min(of_each);
        let mut arguments = vec![
            format!("--connect={first}"),
            format!("--ports={}", server.addresses.len()),
            format!("--connections={connections}"),
            format!("--threads={threads}"),
            // The same bytes for every backend of a block, others in the next.
            format!("--seed={}", trial.block),
        ];
        arguments.extend(trial.task.load_options());
        arguments.extend_from_slice(more);
        let launchers = context.launchers.as_ref();
        let namespace = path.as_ref().map(|path| &path.load);
        let placement = Some(&context.placement);
        let starter = Starter { placement, launchers, namespace, most: loads };
        Client::start(&arguments, &starter, &context.interruptions)
    }

    /// The same, with its connections open, beside those of the idle load.
    pub fn open_load(
        &mut self,
        connections: usize,
        idle: Option<&mut Client>,
        more: &[String],
    ) -> Result<Client> {
        let mut load = self.load(connections, more)?;
        self.server.blaming(|_| load.set_connections(connections))?;
        self.server.await_open([&mut load].into_iter().chain(idle))?;
        Ok(load)
    }

    /// Reads what TCP has counted, if the trial has a network of its own.
    pub fn network(&self) -> Result<Option<NetworkReading>> {
        self.path.as_ref().map(|path| Ok(path.reading()?)).transpose()
    }

    /// Returns what TCP has counted since.
    pub fn network_since(&self, before: Option<NetworkReading>) -> Result<Option<NetworkReading>> {
        Ok(self.network()?.zip(before).map(|(after, before)| after.since(&before)))
    }

    /// Ends the server. The row keeps what its loops counted.
    pub fn stop(self, row: &mut TrialRow) -> Result<ServerCounters> {
        let counters = self.server.stop()?;
        if !counters.is_from_outside {
            row.loop_counters = serde_json::to_string(&counters.loops)?;
        }
        Ok(counters)
    }
}

/// A network or a bound that a workload asks for and that cannot be made here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotHere(String);

/// Makes the network that is asked for, if no command says where the sides are. One that is asked
/// for in particular must be there; another trial may run in the host's. The row says which it is.
fn path(
    context: &TrialContext,
    asked: &PathPlan,
    row: &mut TrialRow,
) -> Result<Option<NetworkPath>> {
    if context.launchers.is_some() {
        row.network_namespace = "as commanded".to_owned();
        ensure!(
            asked.is_default(),
            NotHere(
                "path, mtu and congestion are those of a network that ringmark makes; with \
                 --server-command or --load-command set them there yourself"
                    .to_owned()
            )
        );
        return Ok(None);
    }
    match NetworkPath::create(asked) {
        Ok(path) => {
            row.network_namespace = "fresh".to_owned();
            row.path = path.facts.kind.name().to_owned();
            row.mtu = path.facts.mtu;
            row.congestion = path.facts.congestion.clone();
            row.offloads = path.facts.offloads.clone();
            Ok(Some(path))
        }
        Err(why) if asked.is_default() => {
            row.network_namespace = format!("host: {}", why.reason);
            Ok(None)
        }
        Err(why) => bail!(NotHere(why.to_string())),
    }
}

/// Refuses to poll a device of a network that has none.
fn check_device(path: Option<&NetworkPath>, settings: &[String]) -> Result<()> {
    let polls = |setting: &&String| {
        setting.strip_prefix("busy_poll_us=").is_some_and(|time| !time.trim_matches('0').is_empty())
    };
    let (Some(path), Some(setting)) = (path, settings.iter().find(polls)) else { return Ok(()) };
    ensure!(
        path.facts.kind.has_device(),
        NotHere(format!(
            "{setting}: path \"{}\" has no device to poll; give path = \"veth\", or two machines",
            path.facts.kind.name()
        ))
    );
    Ok(())
}

/// Returns where a server listens. A network of its own has every port free, and behind a command
/// the load must know them beforehand.
fn listen(context: &TrialContext, path: Option<&NetworkPath>) -> Address {
    match (path, &context.launchers) {
        (Some(path), _) => path.address(context.first_port),
        (None, Some(there)) => {
            SocketAddr::new(there.sides.server_address, context.first_port).into()
        }
        (None, None) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into(),
    }
}

/// Makes the bound that a workload asks for.
fn quota(context: &TrialContext, workload: Option<&Workload>) -> Result<Option<CpuQuota>> {
    let Some(quota) = workload.and_then(|workload| workload.cpu_quota) else { return Ok(None) };
    ensure!(
        context.launchers.is_none(),
        NotHere(
            "cpu_quota bounds a server that ringmark starts; with --server-command set the bound \
             there yourself"
                .to_owned()
        )
    );
    let quota = CpuQuota::create(quota.percent()).map_err(|why| NotHere(why.to_string()))?;
    Ok(Some(quota))
}

/// Returns the server's counters once it has noticed all that the load has done, or when it has not
/// come to that in time. It learns a little later of connections that were reset, and may still be
/// reading what a sink's client has sent.
pub fn counters_after(
    server: &mut Server,
    open: u64,
    result: &LoadResult,
    before: &ServerCounters,
) -> Result<ServerCounters> {
    server.counters_once(|counters| {
        let has_closed = result.churn.is_none() || counters.of_loop("open") == open;
        has_closed && miscounted(result, before, counters).is_none()
    })
}

/// Says what is wrong if a server has not accepted exactly the connections that the client opened,
/// or not received exactly the requests that it has sent.
pub fn miscounted(
    result: &LoadResult,
    before: &ServerCounters,
    after: &ServerCounters,
) -> Option<String> {
    if after.is_from_outside {
        return None;
    }
    if let Some(ChurnResult { opened_in_all: opened, .. }) = result.churn {
        let accepted = after.of_loop("accepted");
        if opened != accepted {
            return Some(format!(
                "the server accepted {accepted} connections where the client opened {opened}"
            ));
        }
    }
    let has_requests = result.service.contains("request_bytes");
    let is_whole = result.saturated.is_none_or(|saturated| saturated.owed_connections == 0);
    let requests = after.of_loop("requests").saturating_sub(before.of_loop("requests"));
    let made = result.echoes_in_all;
    (has_requests && is_whole && requests != made)
        .then(|| format!("the server received {requests} requests where the client made {made}"))
}

#[cfg(test)]
mod tests {
    use super::super::evidence::tests::load_result;
    use super::*;

    fn counters(name: &str, value: u64) -> ServerCounters {
        let mut counters = ServerCounters::default();
        counters.loops.insert(name.to_owned(), value);
        counters
    }

    #[test]
    fn a_connection_that_only_one_side_counted_is_noticed() {
        let none = ServerCounters::default();
        let with = |opened_in_all| {
            let mut result = load_result(1, 1);
            result.churn = Some(ChurnResult {
                echoes_each: 1,
                close: Default::default(),
                opened: 1,
                connections_per_s: 1.0,
                connect_us: Default::default(),
                opened_in_all,
            });
            miscounted(&result, &none, &counters("accepted", 12))
        };
        assert_eq!(miscounted(&load_result(1, 1), &none, &counters("accepted", 12)), None);
        assert_eq!(with(12), None);
        let reason = with(13).expect("one too few");
        assert!(reason.contains("accepted 12") && reason.contains("opened 13"), "{reason}");
    }

    #[test]
    fn a_request_that_only_one_side_counted_is_noticed() {
        let mut result = load_result(1, 1);
        result.echoes_in_all = 100;
        let noticed = |result: &LoadResult, requests| {
            miscounted(result, &counters("requests", 7), &counters("requests", requests))
        };
        assert_eq!(noticed(&result, 7), None, "an echo has no requests");
        result.service = "sink request_bytes=64".to_owned();
        assert_eq!(noticed(&result, 107), None);
        let reason = noticed(&result, 106).expect("one too few");
        assert!(reason.contains("received 99 requests where the client made 100"), "{reason}");
        let mut outside = counters("requests", 0);
        outside.is_from_outside = true;
        assert_eq!(miscounted(&result, &outside, &outside), None);
    }
}
