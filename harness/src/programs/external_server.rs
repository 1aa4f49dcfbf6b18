//! A server that is not ours: it tells nothing of itself, so that all that is known of it is seen
//! from outside.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ringmark::protocol::ServerCounters;

use super::process::{
    ANSWER_TIME, DEATH_TIME, Interruptions, LAST_WORDS_TIME, Process, WasInterrupted,
};
use super::server::{Server, ServerPlan, free_port};
use super::{exec, supervisor};
use crate::machine::network::PortReading;
use crate::machine::network_namespace::NetworkNamespace;
use crate::matrix::external::{ADDRESS, External, Ready};

/// How long it may take to leave after SIGTERM. Then it is killed.
const LEAVE_TIME: Duration = Duration::from_secs(2);

/// How long it may take to say which version it is.
const VERSION_TIME: Duration = Duration::from_secs(5);

/// Between two looks at whether it is ready.
const READY_PAUSE: Duration = Duration::from_millis(2);

/// Starts it, calls `held` with the process that will be it before it is, and waits until it is
/// ready.
pub fn start(
    external: &External,
    plan: &ServerPlan<'_>,
    namespace: Option<&NetworkNamespace>,
    interruptions: &Interruptions,
    mut held: impl FnMut(Option<u32>),
) -> Result<Server> {
    if namespace.is_some() {
        return start_at(plan.first_port, external, plan, namespace, interruptions, &mut held);
    }
    // In the host's network another program may have taken the port since it was found free.
    match start_at(free_port()?, external, plan, namespace, interruptions, &mut held) {
        Err(error) if format!("{error:#}").to_lowercase().contains("in use") => {
            start_at(free_port()?, external, plan, namespace, interruptions, &mut held)
        }
        outcome => outcome,
    }
}

fn start_at(
    port: u16,
    external: &External,
    plan: &ServerPlan<'_>,
    namespace: Option<&NetworkNamespace>,
    interruptions: &Interruptions,
    held: &mut dyn FnMut(Option<u32>),
) -> Result<Server> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.args([supervisor::VERB, exec::VERB]);
    if !plan.cpus.is_empty() {
        command.args(["--cpus", plan.cpus]);
    }
    command.arg("--").args(external.words(port, plan.workers));
    let mut program = Process::start("server", command, namespace, interruptions)?;
    program.ends_with_stdin = true;
    let pid = program.hear(ANSWER_TIME)?.parse().context("the number of the server's process")?;
    let mut server = Server {
        is_external: true,
        pid: Some(pid),
        program,
        // It has none that are known.
        knobs: "{}".to_owned(),
        in_force: "{}".to_owned(),
        addresses: vec![format!("{ADDRESS}:{port}").parse()?],
    };
    held(Some(pid));
    server.program.say("")?;
    await_ready(&mut server.program, external, port)?;
    Ok(server)
}

fn await_ready(program: &mut Process, external: &External, port: u16) -> Result<()> {
    let deadline = Instant::now() + external.ready_within;
    let mut said = None;
    loop {
        if program.interruptions.is_wanted() {
            bail!(WasInterrupted);
        }
        // Before the lines are looked at: none comes after it has ended.
        let ended = program.child.try_wait().context("wait for the server")?.is_some();
        while let Some(line) = program.next_line() {
            if matches!(&external.ready, Ready::Line(text) if line.contains(text)) {
                return Ok(());
            }
            said = Some(line).filter(|line| !line.trim().is_empty()).or(said);
        }
        if ended {
            return Err(said.map_or_else(|| program.ended(), |words| anyhow!(words)))
                .context("the server ended before it was ready");
        }
        if external.ready == Ready::Port {
            match PortReading::read(program.child.id(), port) {
                Ok(reading) if reading.is_listening => return Ok(()),
                Ok(_) => {}
                // It has ended meanwhile.
                Err(_) if program.wait(DEATH_TIME).is_ok() => continue,
                Err(error) => return Err(error.into()),
            }
        }
        if Instant::now() >= deadline {
            let missed = match &external.ready {
                Ready::Port => format!("it does not listen on port {port}"),
                Ready::Line(text) => format!("no line of it contains '{text}'"),
            };
            let said = said.map_or_else(String::new, |words| format!("; it said last: {words}"));
            let time = humantime::format_duration(external.ready_within);
            bail!(
                "the server was not ready within {time}: {missed}{said}; give a longer ready_within, or another ready"
            );
        }
        std::thread::sleep(READY_PAUSE);
    }
}

impl Process {
    /// A line that has come on stderr or stdout.
    fn next_line(&self) -> Option<String> {
        self.errors.try_recv().or_else(|_| self.lines.try_recv()).ok()
    }
}

impl Server {
    /// What can be known of a server that has no counters: the connections that it has accepted and
    /// not closed, by the kernel's list.
    pub(super) fn counters_from_outside(&mut self) -> Result<ServerCounters> {
        let port = self.addresses.first().context("the server listens nowhere")?.port();
        let pid = self.pid.context("the server has no process")?;
        let reading = PortReading::read(pid, port).map_err(|error| self.blame(error.into()))?;
        Ok(ServerCounters {
            loops: [("open".to_owned(), reading.accepted)].into(),
            is_from_outside: true,
            ..ServerCounters::default()
        })
    }

    /// Ends all processes of a server that may not know how to leave.
    pub(super) fn stop_external(mut self) -> Result<ServerCounters> {
        if self.program.child.try_wait().context("wait for the server")?.is_some() {
            return Err(self.program.ended()).context("the server ended by itself");
        }
        self.program.say("leave")?;
        // Who has not left by then is killed when this is dropped.
        let _ = self.program.wait(LEAVE_TIME);
        Ok(ServerCounters { is_from_outside: true, ..ServerCounters::default() })
    }
}

/// The first line that its version command says.
pub fn version(external: &External) -> Result<String> {
    let (name, arguments) =
        external.version.split_first().context("the matrix names no version command")?;
    let mut command = Command::new(name);
    command.args(arguments);
    let mut program = Process::start("version command", command, None, &Interruptions::default())?;
    program.stdin = None;
    let deadline = Instant::now() + VERSION_TIME;
    loop {
        let ended = program.child.try_wait().context("wait for the version command")?.is_some();
        // What was said before the end may still be on its way.
        let wait = if ended { LAST_WORDS_TIME } else { READY_PAUSE };
        let line =
            program.lines.recv_timeout(wait).or_else(|_| program.errors.recv_timeout(wait)).ok();
        match line {
            Some(line) if line.trim().is_empty() => {}
            Some(line) => return Ok(line.trim().to_owned()),
            None if ended => bail!("the version command said nothing"),
            None if Instant::now() >= deadline => {
                bail!("the version command said nothing within {} s", VERSION_TIME.as_secs());
            }
            None => {}
        }
    }
}

/// The version of each by its name, or why it has none.
pub fn versions(externals: &[External]) -> BTreeMap<String, String> {
    let version = |external: &External| match external.missing() {
        Some(missing) => format!("missing: {missing}"),
        None => version(external).unwrap_or_else(|error| format!("unknown: {error:#}")),
    };
    externals.iter().map(|external| (external.name.clone(), version(external))).collect()
}
