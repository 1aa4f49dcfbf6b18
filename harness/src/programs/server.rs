//! The programs of a trial, each spoken to by lines: the server, the load, and, where a workload
//! asks for it, one that keeps the CPUs from halting.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringmark::backend;
use ringmark::protocol::{ServerCounters, ServerEvent};
use serde_json::Value;

use super::command_prefix::CommandPrefix;
use super::external_server;
use super::process::{ANSWER_TIME, DEATH_TIME, Interruptions, Process};
use super::sides::Launchers;
use crate::machine::cpu::Tasks;
use crate::machine::network_namespace::NetworkNamespace;
use crate::machine::process_tree::Tree;
use crate::matrix::external::External;

/// Before what a server said at its end.
const UNDER_LOAD: &str = "under load";

/// How long a server may take to notice that the client has reset connections.
const RESET_TIME: Duration = Duration::from_secs(2);

/// How long the port of an io_uring server that was killed may stay taken: the kernel tears its
/// rings down after it has ended.
const PORT_TIME: Duration = Duration::from_secs(5);

/// The kernel refuses the backend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RefusedByKernel(String);

/// The measured server.
pub struct Server {
    pub(super) program: Process,
    pub(super) pid: Option<u32>,
    /// Whether it is not ours: then the program is its supervisor.
    pub(super) is_external: bool,
    /// Its knobs, as JSON.
    pub knobs: String,
    /// What is in force in it, as JSON.
    pub in_force: String,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
}

/// How to start a server.
pub struct ServerPlan<'a> {
    /// The server, if it is not ours; what follows is then of no use to it but for the workers and
    /// the CPUs.
    pub external: Option<&'a External>,
    /// The program.
    pub binary: &'a Path,
    /// The backend.
    pub backend: &'a str,
    /// Its `--set`s.
    pub settings: &'a [String],
    /// Worker threads.
    pub workers: u16,
    /// The first of its ports, where others cannot have taken it.
    pub first_port: u16,
    /// Ports, dealt to them in turn.
    pub ports: u16,
    /// CPUs to pin them to; empty: none.
    pub cpus: &'a str,
    /// Where it is started, if the run has a command for either side.
    pub launchers: Option<&'a Launchers>,
}

impl Server {
    /// Starts it, calls `held` while it waits in `--hold`, and lets it go on until it is ready.
    /// `held` gets its number, if it is to be seen here.
    pub fn start(
        plan: &ServerPlan<'_>,
        namespace: Option<&NetworkNamespace>,
        interruptions: &Interruptions,
        mut held: impl FnMut(Option<u32>),
    ) -> Result<Self> {
        if let Some(external) = plan.external {
            return external_server::start(external, plan, namespace, interruptions, held);
        }
        let deadline = Instant::now() + PORT_TIME;
        loop {
            match Self::start_once(plan, namespace, interruptions, &mut held) {
                // Where the command leads it there is no fresh namespace in which all ports are
                // free.
                Err(error)
                    if plan.launchers.is_some()
                        && format!("{error:#}").contains("Address already in use")
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
        let here = CommandPrefix::default();
        let way = plan.launchers.map_or(&here, |launchers| &launchers.server.prefix);
        let mut command = way.command(plan.binary);
        command.args(["--hold", "--backend", plan.backend, "--workers", &plan.workers.to_string()]);
        // A namespace of its own has every port free, and where a command leads the ports are known
        // beforehand. In the host's network the server takes free ones, and says which: others may
        // be looking for some too.
        let is_own = namespace.is_some() || plan.launchers.is_some();
        let port = if is_own { plan.first_port } else { 0 };
        let address = plan
            .launchers
            .map_or(Ipv4Addr::LOCALHOST.into(), |launchers| launchers.sides.server_address);
        command.args(["--listen", &SocketAddr::new(address, port).to_string()]);
        command.args(["--ports", &plan.ports.to_string()]);
        if !plan.cpus.is_empty() {
            command.args(["--cpus", plan.cpus]);
        }
        command.args(plan.settings.iter().flat_map(|setting| ["--set", setting]));
        let start = || -> Result<_> {
            let mut program = Process::start("server", command, namespace, interruptions)?;
            match parse(&program.hear(ANSWER_TIME)?)? {
                ServerEvent::Held { whereabouts, .. } => {
                    plan.launchers.inspect(|launchers| launchers.server.note(&whereabouts));
                    Ok((program, whereabouts.pid_here()))
                }
                other => bail!("the server should say that it is held, but says {other:?}"),
            }
        };
        let (mut program, pid) = start().map_err(|error| way.blame(error))?;
        held(pid);
        program.say("")?;
        let line = program.hear(ANSWER_TIME)?;
        match parse(&line)? {
            ServerEvent::Ready { knobs, in_force, addresses, .. } => {
                let (knobs, in_force) =
                    (Value::from(knobs).to_string(), Value::from(in_force).to_string());
                ensure!(
                    are_consecutive(&addresses),
                    "the server's ports do not follow one another: {addresses:?}"
                );
                Ok(Self { program, pid, is_external: false, knobs, in_force, addresses })
            }
            ServerEvent::Unsupported { reason, .. } => bail!(RefusedByKernel(reason)),
            other => bail!("the server should say that it is ready, but says {other:?}"),
        }
    }

    /// Its process, if it is to be seen here. What was started may be another one, which has
    /// started this.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Whether it is not ours, and tells nothing of itself.
    pub fn is_external(&self) -> bool {
        self.is_external
    }

    /// Its process, and those that it has started, if it is to be seen here.
    pub fn processes(&self) -> std::io::Result<Option<Tree>> {
        let tree = |pid| match self.is_external {
            true => Tree::read(pid, self.program.child.id()),
            false => Ok(Tree::alone(pid)),
        };
        self.pid.map(tree).transpose()
    }

    /// The tasks of all of them.
    pub fn tasks(&self) -> std::io::Result<Option<Tasks>> {
        self.processes()?.map(|processes| processes.sum(Tasks::read)).transpose()
    }

    /// Its counters now.
    pub fn counters(&mut self) -> Result<ServerCounters> {
        if self.is_external() {
            return self.counters_from_outside();
        }
        self.program.say("counters")?;
        match parse(&self.program.hear(ANSWER_TIME)?)? {
            ServerEvent::Counters { counters, .. } => Ok(counters),
            other => bail!("the server should give its counters, but says {other:?}"),
        }
    }

    /// If the server has ended, that, in its own words; else what went wrong with the other side.
    pub fn blame(&mut self, error: anyhow::Error) -> anyhow::Error {
        // Its last words are said once.
        if error.to_string() == UNDER_LOAD {
            return error;
        }
        match self.program.wait(DEATH_TIME) {
            Ok(_) => self.program.ended().context(UNDER_LOAD),
            _ => error,
        }
    }

    /// What comes of a look at it. If that fails because it has ended, the error is its end.
    pub fn blaming<T>(&mut self, look: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        look(self).map_err(|error| self.blame(error))
    }

    /// Waits until the server itself counts `connections`.
    pub fn await_open(&mut self, connections: u64) -> Result<()> {
        let deadline = Instant::now() + ANSWER_TIME;
        loop {
            let open = self.counters()?.of_loop("open");
            if open == connections {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the server holds {open} connections where the client holds {connections}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its counters once it holds `open` connections and has accepted `accepted`, or what they are
    /// when it has not come to that in time: of connections that were reset it learns a little
    /// later.
    pub fn counters_after_churn(&mut self, open: u64, accepted: u64) -> Result<ServerCounters> {
        let deadline = Instant::now() + RESET_TIME;
        loop {
            let counters = self.counters()?;
            let is_done = counters.of_loop("open") == open
                && (counters.is_from_outside || counters.of_loop("accepted") == accepted);
            if is_done || Instant::now() >= deadline {
                return Ok(counters);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it in order.
    pub fn stop(mut self) -> Result<ServerCounters> {
        if self.is_external() {
            return self.stop_external();
        }
        self.program.say("stop")?;
        let counters = match parse(&self.program.hear(ANSWER_TIME)?)? {
            ServerEvent::End { counters, .. } => counters,
            other => bail!("the server should end, but says {other:?}"),
        };
        match self.program.wait(ANSWER_TIME)? {
            status if status.success() => Ok(counters),
            _ => Err(self.program.ended()),
        }
    }
}

/// The first port of the servers.
pub const FIRST_PORT: u16 = backend::document::SERVER_PORT;

/// Whether the load, which is told the first port and their number, finds all of them.
fn are_consecutive(addresses: &[SocketAddr]) -> bool {
    addresses.windows(2).all(|pair| pair[0].port().checked_add(1) == Some(pair[1].port()))
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

fn parse(line: &str) -> Result<ServerEvent> {
    serde_json::from_str(line)
        .with_context(|| format!("the server said what cannot be understood: {line}"))
}
