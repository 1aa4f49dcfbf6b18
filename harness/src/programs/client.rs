//! The load, as a process.

use std::ffi::OsStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::command_prefix::CommandPrefix;
use super::process::{ANSWER_TIME, Interruptions, Process};
use super::sides::Launchers;
use crate::load::result::{LatencyUs, LoadEvent, LoadResult};
use crate::machine::network_namespace::NetworkNamespace;

/// The load, which waits for commands.
pub struct Client {
    process: Process,
    pid: Option<u32>,
    connections: usize,
    /// The likely cause, said when it reaches no server.
    hint: Option<String>,
}

impl Client {
    /// Starts it with the given arguments besides those of the dialogue.
    pub fn start<S: AsRef<OsStr>>(
        arguments: impl IntoIterator<Item = S>,
        launchers: Option<&Launchers>,
        namespace: Option<&NetworkNamespace>,
        interruptions: &Interruptions,
    ) -> Result<Self> {
        let here = CommandPrefix::default();
        let prefix = launchers.map_or(&here, |launchers| &launchers.load.prefix);
        let mut command = prefix.command(&std::env::current_exe().context("find this program")?);
        command.args(["load", "--json", "--commands"]).args(arguments);
        let start = || -> Result<_> {
            let mut process = Process::start("load", command, namespace, interruptions)?;
            match process.hear_json(ANSWER_TIME)? {
                LoadEvent::Started(whereabouts) => Ok((process, whereabouts)),
                other => bail!("expected `started` from the load, got {other:?}"),
            }
        };
        let (process, whereabouts) = start().map_err(|error| prefix.blame(error))?;
        let hint = launchers.map(|launchers| {
            launchers.load.note(&whereabouts);
            let address = launchers.sides.server_address;
            format!(
                "--server-address {address} must be an address of the server's side that the \
                 load's side reaches"
            )
        });
        Ok(Self { process, pid: whereabouts.pid_here(), connections: 0, hint })
    }

    /// Returns the number of its process, if /proc shows it here.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Gives a command that is answered by one line, within `time`.
    pub fn command(&mut self, line: &str, time: Duration) -> Result<LoadEvent> {
        self.process.say(line)?;
        self.next(time)
    }

    /// Waits for the next line.
    pub fn next(&mut self, time: Duration) -> Result<LoadEvent> {
        self.process.hear_json(time)
    }

    /// Returns how many connections stand.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Opens or closes connections until `count` stand; returns how long each took to open.
    pub fn set_connections(&mut self, count: usize) -> Result<LatencyUs> {
        let mut event = self.command(&format!("connections {count}"), Duration::from_secs(120));
        if let Some(hint) = self.hint.as_ref().filter(|_| self.connections == 0) {
            event = event.context(hint.clone());
        }
        match event? {
            LoadEvent::Connections { connections, connect_us, .. } if connections == count => {
                self.connections = count;
                Ok(connect_us)
            }
            other => bail!("expected {count} connections from the load, got {other:?}"),
        }
    }

    /// Gives the command of a load, and waits for its result.
    pub fn measure(&mut self, order: &str, patience: Duration) -> Result<LoadResult> {
        let mut event = self.command(order, patience)?;
        while let LoadEvent::Measuring | LoadEvent::Measured = event {
            event = self.next(patience)?;
        }
        let (LoadEvent::Echoed(result) | LoadEvent::Result(result)) = event else {
            bail!("no result came back")
        };
        Ok(result)
    }

    /// Ends it in order.
    pub fn quit(mut self) -> Result<()> {
        self.process.say("quit")?;
        self.process.leave()
    }
}
