//! An external server: it has no counters of its own, so ringmark observes it from outside.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringmark::protocol::ServerCounters;

use super::process::{
    ANSWER_TIME, DEATH_TIME, Interruptions, LAST_WORDS_TIME, LastWords, Process, is_port_taken,
};
use super::server_plan::ServerPlan;
use super::{exec, supervisor};
use crate::machine::network::PortReading;
use crate::machine::network_namespace::NetworkNamespace;
use crate::matrix::external::{ADDRESS, External, ReadySign};

/// How long it may take to leave after SIGTERM. Then it is killed.
const LEAVE_TIME: Duration = Duration::from_secs(2);

/// How long it may take to say which version it is.
const VERSION_TIME: Duration = Duration::from_secs(5);

/// Between two looks at whether it is ready.
const READY_PAUSE: Duration = Duration::from_millis(2);

/// An external server that is ready.
pub struct Supervised {
    /// Its supervisor.
    pub process: Process,
    /// The number of its first process.
    pub pid: u32,
    /// The address on which it listens.
    pub address: SocketAddr,
}

/// Starts it, calls `held` with the process that will become it, and waits until it is ready.
pub fn start(
    external: &External,
    plan: &ServerPlan<'_>,
    namespace: Option<&NetworkNamespace>,
    interruptions: &Interruptions,
    held: &mut dyn FnMut(Option<u32>),
) -> Result<Supervised> {
    let mut start_at = |port: u16| -> Result<Supervised> {
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.args([supervisor::VERB, exec::VERB]);
        if !plan.cpus.is_empty() {
            command.args(["--cpus", plan.cpus]);
        }
        command.arg("--").args(external.words(port, plan.workers));
        let mut process = Process::start("server", command, namespace, interruptions)?;
        process.ends_with_stdin = true;
        let pid = process.hear(ANSWER_TIME)?;
        let pid = pid.parse().context("the number of the server's process")?;
        held(Some(pid));
        process.say("")?;
        await_ready(&mut process, external, port)?;
        Ok(Supervised { process, pid, address: format!("{ADDRESS}:{port}").parse()? })
    };
    if let Some(known) = plan.listen.ip().map(|address| address.port()).filter(|&port| port != 0) {
        return start_at(known);
    }
    // In the host's network another program may have taken the port since it was found free.
    match start_at(free_port()?) {
        Err(error) if is_port_taken(&error) => start_at(free_port()?),
        outcome => outcome,
    }
}

/// Returns a port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

fn await_ready(process: &mut Process, external: &External, port: u16) -> Result<()> {
    let deadline = Instant::now() + external.ready_within;
    let mut said = None;
    loop {
        process.interruptions.check()?;
        // Before the lines are read: none comes after it has ended.
        let has_ended = process.has_ended()?;
        while let Ok(line) = process.errors.try_recv().or_else(|_| process.lines.try_recv()) {
            if matches!(&external.ready, ReadySign::Line(text) if line.contains(text)) {
                return Ok(());
            }
            said = Some(line).filter(|line| !line.trim().is_empty()).or(said);
        }
        if has_ended {
            return Err(said.map_or_else(|| process.ended(), |words| LastWords(words).into()))
                .context("the server ended before it was ready");
        }
        if external.ready == ReadySign::Port {
            match PortReading::read(process.child.id(), port) {
                Ok(reading) if reading.is_listening => return Ok(()),
                Ok(_) => {}
                // It has ended meanwhile.
                Err(_) if process.wait(DEATH_TIME).is_ok() => continue,
                Err(error) => return Err(error.into()),
            }
        }
        if Instant::now() >= deadline {
            let missed = match &external.ready {
                ReadySign::Port => format!("it does not listen on port {port}"),
                ReadySign::Line(text) => format!("no line of it contains '{text}'"),
            };
            let said = said.map_or_else(String::new, |words| format!("; it said last: {words}"));
            let time = humantime::format_duration(external.ready_within);
            bail!(
                "the server was not ready within {time}: {missed}{said}; give a longer \
                 ready_within, or another ready"
            );
        }
        std::thread::sleep(READY_PAUSE);
    }
}

/// Returns how many connections it has accepted and not closed, by the kernel's list.
pub fn counters(pid: Option<u32>, address: Option<&SocketAddr>) -> Result<ServerCounters> {
    let port = address.context("the server listens nowhere")?.port();
    let reading = PortReading::read(pid.context("the server has no process")?, port)?;
    Ok(ServerCounters {
        loops: [("open".to_owned(), reading.accepted)].into(),
        is_from_outside: true,
        ..ServerCounters::default()
    })
}

/// Ends all processes of a server that may not know how to leave.
pub fn stop(mut supervisor: Process) -> Result<ServerCounters> {
    if supervisor.has_ended()? {
        return Err(supervisor.ended()).context("the server ended by itself");
    }
    supervisor.say("leave")?;
    // A process that has not left by then is killed when this is dropped.
    let _ = supervisor.wait(LEAVE_TIME);
    Ok(ServerCounters { is_from_outside: true, ..ServerCounters::default() })
}

/// Returns the first line that its version command prints.
pub fn version(external: &External) -> Result<String> {
    let (name, arguments) =
        external.version.split_first().context("the matrix names no version command")?;
    let mut command = Command::new(name);
    command.args(arguments);
    let mut process = Process::start("version command", command, None, &Interruptions::default())?;
    process.close_stdin();
    let deadline = Instant::now() + VERSION_TIME;
    loop {
        let has_ended = process.has_ended()?;
        // Lines from before the end may still be on their way.
        let wait = if has_ended { LAST_WORDS_TIME } else { READY_PAUSE };
        let line = process.lines.recv_timeout(wait).or_else(|_| process.errors.recv_timeout(wait));
        match line.ok() {
            Some(line) if line.trim().is_empty() => {}
            Some(line) => return Ok(line.trim().to_owned()),
            None if has_ended => bail!("the version command said nothing"),
            None if Instant::now() >= deadline => {
                bail!("the version command said nothing within {} s", VERSION_TIME.as_secs());
            }
            None => {}
        }
    }
}

/// Returns the version of each server by its name, or why it has none.
pub fn versions(externals: &[External]) -> BTreeMap<String, String> {
    let version = |external: &External| match external.missing() {
        Some(missing) => format!("missing: {missing}"),
        None => version(external).unwrap_or_else(|error| format!("unknown: {error:#}")),
    };
    externals.iter().map(|external| (external.name.clone(), version(external))).collect()
}
