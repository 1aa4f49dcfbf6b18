//! The measured server.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ringmark::address::Address;
use ringmark::backend;
use ringmark::ports::{LISTENERS, PortSharing};
use ringmark::protocol::{ServerCounters, ServerEvent};
use serde_json::Value;

use super::client::Client;
use super::command_prefix::CommandPrefix;
use super::external_server;
use super::process::{ANSWER_TIME, DEATH_TIME, Interruptions, Process, is_port_taken};
use super::server_plan::ServerPlan;
use crate::machine::cpu::Tasks;
use crate::machine::cpu_quota::CpuQuota;
use crate::machine::network_namespace::NetworkNamespace;
use crate::machine::process_tree::Tree;

/// How long a server may take to notice what its client has done.
const SETTLING_TIME: Duration = Duration::from_secs(2);

/// How long the port of an io_uring server that was killed may stay taken: the kernel tears its
/// rings down after it has ended.
const PORT_TIME: Duration = Duration::from_secs(5);

/// The server ended within a measurement. Its last words follow.
#[derive(Debug, thiserror::Error)]
#[error("under load")]
struct UnderLoad;

/// The kernel refuses the backend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RefusedByKernel(String);

/// The measured server.
pub struct Server {
    process: Process,
    pid: Option<u32>,
    /// Whether it is not ours: then `process` is its supervisor.
    is_external: bool,
    /// Its knobs, as JSON.
    pub knobs: String,
    /// The limits and privileges that the kernel granted it, as JSON.
    pub in_force: String,
    /// The addresses on which it listens.
    pub addresses: Vec<Address>,
    /// The bound on its CPU time, which goes when the process is gone.
    quota: Option<CpuQuota>,
}

impl Server {
    /// Returns how many ports it has that are one worker's alone.
    pub fn dealt_ports(&self) -> usize {
        let knobs: Value = serde_json::from_str(&self.knobs).unwrap_or_default();
        match knobs[LISTENERS].as_str().map(PortSharing::named) {
            None | Some(PortSharing::Dealt) => self.addresses.len(),
            Some(PortSharing::ReusePort | PortSharing::OneSocket) => 0,
        }
    }

    /// Starts it, calls `held` while it waits in `--hold`, and lets it go on until it is ready.
    /// `held` gets its number, if /proc shows it here.
    pub fn start(
        plan: &ServerPlan<'_>,
        namespace: Option<&NetworkNamespace>,
        interruptions: &Interruptions,
        mut held: impl FnMut(Option<u32>),
    ) -> Result<Self> {
        if let Some(external) = plan.external {
            let started =
                external_server::start(external, plan, namespace, interruptions, &mut held)?;
            return Ok(Self {
                is_external: true,
                pid: Some(started.pid),
                process: started.process,
                // It has none that are known.
                knobs: "{}".to_owned(),
                in_force: "{}".to_owned(),
                addresses: vec![started.address.into()],
                quota: None,
            });
        }
        let deadline = Instant::now() + PORT_TIME;
        loop {
            match Self::start_once(plan, namespace, interruptions, &mut held) {
                // Behind a command there is no fresh namespace in which all ports are free.
                Err(error)
                    if plan.launchers.is_some()
                        && is_port_taken(&error)
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(100));
                }
                outcome => return outcome,
            }
        }
    }

    fn start_once(
        plan: &ServerPlan<'_>,
        namespace: Option<&NetworkNamespace>,
        interruptions: &Interruptions,
        held: &mut dyn FnMut(Option<u32>),
    ) -> Result<Self> {
        let launcher = plan.launchers.map(|launchers| &launchers.server);
        let here = CommandPrefix::default();
        let prefix = launcher.map_or(&here, |launcher| &launcher.prefix);
        let command = command(plan, prefix);
        let hold = || -> Result<_> {
            let mut process = Process::start("server", command, namespace, interruptions)?;
            match process.hear_json(ANSWER_TIME)? {
                ServerEvent::Held { whereabouts, .. } => Ok((process, whereabouts)),
                other => bail!("expected `held` from the server, got {other:?}"),
            }
        };
        let (mut process, whereabouts) = hold().map_err(|error| prefix.blame(error))?;
        launcher.inspect(|launcher| launcher.note(&whereabouts));
        let pid = whereabouts.pid_here();
        held(pid);
        process.say("")?;
        match process.hear_json(ANSWER_TIME)? {
            ServerEvent::Ready { knobs, in_force, addresses, .. } => {
                let (knobs, in_force) = (Value::from(knobs), Value::from(in_force));
                let (knobs, in_force) = (knobs.to_string(), in_force.to_string());
                ensure!(
                    are_consecutive(&addresses),
                    "the server's ports do not follow one another: {addresses:?}"
                );
                let (is_external, quota) = (false, None);
                Ok(Self { process, pid, is_external, knobs, in_force, addresses, quota })
            }
            ServerEvent::Unsupported { reason, .. } => bail!(RefusedByKernel(reason)),
            other => bail!("expected `ready` from the server, got {other:?}"),
        }
    }

    /// Keeps the bound on its CPU time as long as it lives.
    pub fn keep(&mut self, quota: Option<CpuQuota>) {
        self.quota = quota;
    }

    /// Returns for how long it was kept from its CPUs by a bound, from its start; none without one.
    pub fn throttled(&self) -> std::io::Result<Option<Duration>> {
        self.quota.as_ref().map(CpuQuota::throttled).transpose()
    }

    /// Returns the number of its process, if /proc shows it here. Another program may have started
    /// it.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Returns its process, and those that it has started, if /proc shows them here.
    pub fn processes(&self) -> std::io::Result<Option<Tree>> {
        let Some(pid) = self.pid else { return Ok(None) };
        if !self.is_external {
            return Ok(Some(Tree::alone(pid)));
        }
        Tree::read(pid, self.process.child.id()).map(Some)
    }

    /// Returns the tasks of all of them.
    pub fn tasks(&self) -> std::io::Result<Option<Tasks>> {
        self.processes()?.map(|processes| processes.sum(Tasks::read)).transpose()
    }

    /// Returns its counters now.
    pub fn counters(&mut self) -> Result<ServerCounters> {
        if self.is_external {
            let (pid, address) = (self.pid, self.addresses.first().and_then(Address::ip));
            return external_server::counters(pid, address.as_ref())
                .map_err(|error| self.blame(error));
        }
        self.process.say("counters")?;
        match self.process.hear_json(ANSWER_TIME)? {
            ServerEvent::Counters { counters, .. } => Ok(counters),
            other => bail!("expected `counters` from the server, got {other:?}"),
        }
    }

    /// Returns the server's last words if it has ended, else the error of the other side.
    pub fn blame(&mut self, error: anyhow::Error) -> anyhow::Error {
        // Its last words are said once.
        if error.is::<UnderLoad>() || self.process.wait(DEATH_TIME).is_err() {
            return error;
        }
        self.process.ended().context(UnderLoad)
    }

    /// Looks at it. If that fails because it has ended, the error is its end.
    pub fn blaming<T>(&mut self, look: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        look(self).map_err(|error| self.blame(error))
    }

    /// Waits until the server itself counts the connections of its clients, and no more.
    ///
    /// # Errors
    /// When a client ends, or the counts differ for too long.
    pub fn await_open<'a>(
        &mut self,
        clients: impl IntoIterator<Item = &'a mut Client>,
    ) -> Result<()> {
        let mut clients: Vec<_> = clients.into_iter().collect();
        let connections: usize = clients.iter().map(|client| client.connections()).sum();
        let deadline = Instant::now() + ANSWER_TIME;
        loop {
            let open = self.counters()?.of_loop("open");
            if open == connections as u64 {
                return Ok(());
            }
            let checked = clients.iter_mut().try_for_each(|client| client.check());
            checked.map_err(|error| self.blame(error))?;
            if Instant::now() >= deadline {
                bail!("the server holds {open} connections where its clients hold {connections}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns its counters once they are `as_expected`, or when they have not come to be so in
    /// time.
    pub fn counters_once(
        &mut self,
        as_expected: impl Fn(&ServerCounters) -> bool,
    ) -> Result<ServerCounters> {
        let deadline = Instant::now() + SETTLING_TIME;
        loop {
            let counters = self.counters()?;
            if as_expected(&counters) || Instant::now() >= deadline {
                return Ok(counters);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it in order.
    pub fn stop(mut self) -> Result<ServerCounters> {
        if self.is_external {
            return external_server::stop(self.process);
        }
        self.process.say("stop")?;
        match self.process.hear_json(ANSWER_TIME)? {
            ServerEvent::End { counters, .. } => self.process.leave().map(|()| counters),
            other => bail!("expected `end` from the server, got {other:?}"),
        }
    }
}

/// Builds the command of a server of ours.
fn command(plan: &ServerPlan<'_>, prefix: &CommandPrefix) -> Command {
    let mut command = prefix.command(plan.binary);
    command.args(["--hold", "--backend", plan.backend, "--workers", &plan.workers.to_string()]);
    command.args(["--listen", &plan.listen.to_string()]);
    command.args(["--ports", &plan.ports.to_string()]);
    if !plan.cpus.is_empty() {
        command.args(["--cpus", plan.cpus]);
    }
    command.args(plan.service);
    command.args(plan.settings.iter().flat_map(|setting| ["--set", setting]));
    command
}

/// The first port of the servers.
pub const FIRST_PORT: u16 = backend::document::SERVER_PORT;

/// Returns whether the load, which gets the first port and their number, finds all of them.
fn are_consecutive(addresses: &[Address]) -> bool {
    let port = |address: &Address| address.ip().map(|address| address.port());
    addresses
        .windows(2)
        .all(|pair| port(&pair[0]).is_some_and(|first| first.checked_add(1) == port(&pair[1])))
}
