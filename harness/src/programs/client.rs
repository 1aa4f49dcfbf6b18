//! The load, as a process.

use std::ffi::OsStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::command_prefix::CommandPrefix;
use super::process::{ANSWER_TIME, Interruptions, Process};
use super::sides::Launchers;
use crate::load::result::{LatencyUs, LoadEvent};
use crate::machine::network_namespace::NetworkNamespace;

/// The load, waiting for commands.
pub struct Load {
    program: Process,
    pid: Option<u32>,
    connections: usize,
    /// What to say when it reaches no server.
    hint: Option<String>,
}

impl Load {
    /// Starts it with the given arguments besides those of the dialogue.
    pub fn start<S: AsRef<OsStr>>(
        arguments: impl IntoIterator<Item = S>,
        launchers: Option<&Launchers>,
        namespace: Option<&NetworkNamespace>,
        interruptions: &Interruptions,
    ) -> Result<Self> {
        let here = CommandPrefix::default();
        let way = launchers.map_or(&here, |launchers| &launchers.load.prefix);
        let mut command = way.command(&std::env::current_exe().context("find this program")?);
        command.args(["load", "--json", "--commands"]).args(arguments);
        let start = || -> Result<_> {
            let mut program = Process::start("load", command, namespace, interruptions)?;
            match parse_load(&program.hear(ANSWER_TIME)?)? {
                LoadEvent::Started(whereabouts) => {
                    launchers.inspect(|launchers| launchers.load.note(&whereabouts));
                    Ok((program, whereabouts.pid_here()))
                }
                other => bail!("the load should say that it has started, but says {other:?}"),
            }
        };
        let (program, pid) = start().map_err(|error| way.blame(error))?;
        let hint = launchers.map(|launchers| {
 let server_address = launchers.sides.server_address;
            format!(
                "--server-address {server_address} must be an address of the server's side that the load's side reaches"
            )
        });
        Ok(Self { program, pid, connections: 0, hint })
    }

    /// Its process, if it is to be seen here.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Gives a command that is answered by one line, within `time`.
    pub fn command(&mut self, line: &str, time: Duration) -> Result<LoadEvent> {
        self.program.say(line)?;
        self.next(time)
    }

    /// The next line.
    pub fn next(&mut self, time: Duration) -> Result<LoadEvent> {
        parse_load(&self.program.hear(time)?)
    }

    /// Connections that stand.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Opens or closes connections until `count` stand; how long the opening of each took.
    pub fn set_connections(&mut self, count: usize) -> Result<LatencyUs> {
        let event = self.command(&format!("connections {count}"), Duration::from_secs(120));
        let event = match self.hint.clone().filter(|_| self.connections == 0) {
            Some(hint) => event.context(hint),
            None => event,
        };
        match event? {
            LoadEvent::Connections { connections, connect_us, .. } if connections == count => {
                self.connections = count;
                Ok(connect_us)
            }
            other => bail!("the load should hold {count} connections, but says {other:?}"),
        }
    }

    /// Ends it in order.
    pub fn quit(mut self) -> Result<()> {
        self.program.say("quit")?;
        self.program.stdin = None;
        match self.program.wait(ANSWER_TIME)? {
            status if status.success() => Ok(()),
            _ => Err(self.program.ended()),
        }
    }
}

fn parse_load(line: &str) -> Result<LoadEvent> {
    serde_json::from_str(line)
        .with_context(|| format!("the load said what cannot be understood: {line}"))
}
