//! A trial's server, where it runs, and the loads that are started beside it.

use anyhow::{Context, Result};
use ringmark::protocol::ServerCounters;

use super::context::TrialContext;
use super::task::Trial;
use crate::load::files::FileTables;
use crate::load::result::ChurnResult;
use crate::machine::network::NetworkReading;
use crate::machine::network_namespace::NetworkNamespace;
use crate::programs::client::Client;
use crate::programs::server::Server;
use crate::programs::server_plan::ServerPlan;
use crate::rows::TrialRow;

/// Said of a server that a trial has to see and that its side shows elsewhere.
pub const UNSEEN: &str = "the server's process is not to be seen here";

/// A server and its network.
pub struct Site<'a> {
    trial: &'a Trial,
    context: &'a TrialContext,
    namespace: Option<NetworkNamespace>,
    pub server: Server,
}

impl<'a> Site<'a> {
    /// Starts the trial's server. The row gets what is known of it from then on. `held` gets the
    /// server's pid, if it is to be seen here, while it has one thread and has done nothing yet.
    pub fn start(
        trial: &'a Trial,
        context: &'a TrialContext,
        row: &mut TrialRow,
        held: impl FnMut(Option<u32>),
    ) -> Result<Self> {
        let namespace = namespace(context, row);
        let settings = match trial.task.workload() {
            Some(workload) => workload.settings(&trial.arm),
            None => trial.arm.set.clone(),
        };
        let plan = ServerPlan {
            external: context.external(&trial.arm.backend),
            binary: &context.server,
            backend: &trial.arm.backend,
            settings: &settings,
            workers: context.workers,
            first_port: context.first_port,
            ports: context.ports,
            cpus: &context.placement.server,
            launchers: context.launchers.as_ref(),
        };
        let server = Server::start(&plan, namespace.as_ref(), &context.interruptions, held)?;
        row.knobs = server.knobs.clone();
        row.in_force = server.in_force.clone();
        Ok(Self { trial, context, namespace, server })
    }

    /// Starts a load with at most `connections`: as many threads as it has CPUs, or more if those
    /// could not open so many files.
    pub fn load(&self, connections: usize, more: &[String]) -> Result<Client> {
        let Self { trial, context, namespace, server } = self;
        let first = server.addresses.first().context("the server listens nowhere")?;
        let holding = FileTables::look().context("RLIMIT_NOFILE")?.threads_for(connections);
        let threads = context.placement.client_threads.max(holding).min(connections);
        let mut arguments = vec![
            format!("--connect={first}"),
            format!("--ports={}", server.addresses.len()),
            format!("--connections={connections}"),
            format!("--message-bytes={}", trial.task.message_bytes()),
            format!("--threads={threads}"),
            // The same bytes for every backend of a block, others in the next.
            format!("--seed={}", trial.block),
        ];
        if !context.placement.client.is_empty() {
            arguments.push(format!("--cpus={}", context.placement.client));
        }
        if let Some(workload) = trial.task.workload() {
            arguments.extend(workload.load_options());
        }
        arguments.extend_from_slice(more);
        let launchers = context.launchers.as_ref();
        Client::start(arguments, launchers, namespace.as_ref(), &context.interruptions)
    }

    /// The same, with its connections open; the server then holds `in_all`.
    pub fn open_load(
        &mut self,
        connections: usize,
        in_all: usize,
        more: &[String],
    ) -> Result<Client> {
        let mut load = self.load(connections, more)?;
        self.server.blaming(|_| load.set_connections(connections))?;
        self.server.await_open(in_all as u64)?;
        Ok(load)
    }

    /// Reads what TCP has counted, if the trial has a network of its own.
    pub fn network(&mut self) -> Result<Option<NetworkReading>> {
        let namespace = self.namespace.as_ref();
        self.server.blaming(|server| {
            Ok(namespace.and(server.pid()).map(NetworkReading::read).transpose()?)
        })
    }

    /// Returns what TCP has counted since.
    pub fn network_since(
        &mut self,
        before: Option<NetworkReading>,
    ) -> Result<Option<NetworkReading>> {
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

/// Makes a fresh namespace if that is permitted and no command says where the sides are. The row
/// says which network it is.
fn namespace(context: &TrialContext, row: &mut TrialRow) -> Option<NetworkNamespace> {
    if context.launchers.is_some() {
        row.network_namespace = "as commanded".to_owned();
        return None;
    }
    let created = NetworkNamespace::create();
    row.network_namespace = match &created {
        Ok(_) => "fresh".to_owned(),
        Err(unavailable) => format!("host: {}", unavailable.reason),
    };
    created.ok()
}

/// Says what is wrong if a server has not accepted exactly the connections that the client opened.
pub fn miscounted(churn: Option<&ChurnResult>, counters: &ServerCounters) -> Option<String> {
    let (opened, accepted) = (churn?.opened_in_all, counters.of_loop("accepted"));
    (opened != accepted && !counters.is_from_outside).then(|| {
        format!("the server accepted {accepted} connections where the client opened {opened}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_only_one_side_counted_is_noticed() {
        let mut counters = ServerCounters::default();
        counters.loops.insert("accepted".to_owned(), 12);
        let churn = |opened_in_all| ChurnResult {
            echoes_each: 1,
            close: Default::default(),
            opened: 1,
            connections_per_s: 1.0,
            connect_us: Default::default(),
            opened_in_all,
        };
        assert_eq!(miscounted(None, &counters), None);
        assert_eq!(miscounted(Some(&churn(12)), &counters), None);
        let reason = miscounted(Some(&churn(13)), &counters).expect("one too few");
        assert!(reason.contains("accepted 12") && reason.contains("opened 13"), "{reason}");
    }
}
