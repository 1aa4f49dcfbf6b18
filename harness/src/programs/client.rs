//! The load: one process, or several that make a part of it each.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::command_prefix::CommandPrefix;
use super::process::{ANSWER_TIME, Interruptions, Process};
use super::sides::{Launcher, Launchers};
use crate::load::MEASURE;
use crate::load::merge::{connect_us, merge};
use crate::load::result::{LatencyUs, LoadEvent, LoadResult};
use crate::machine::network_namespace::NetworkNamespace;
use crate::machine::placement::Placement;

/// The load, which waits for commands. Several loads are one: each command goes to all of them, and
/// is answered once all have answered it.
pub struct Client {
    loads: Vec<Load>,
    connections: usize,
    /// Whether all loads have the clock of this machine.
    is_one_clock: bool,
    /// The likely cause, said when it reaches no server.
    hint: Option<String>,
    /// By how much the loads may have begun the last window apart.
    began_apart: Option<Duration>,
}

/// A process of the load.
struct Load {
    process: Process,
    pid: Option<u32>,
    /// Its name among several.
    name: Option<String>,
}

impl Load {
    /// Names it in an error, if there are several.
    fn blame(&self, error: anyhow::Error) -> anyhow::Error {
        named(self.name.as_ref(), error)
    }

    fn leave(self) -> Result<()> {
        let Self { process, name, .. } = self;
        process.leave().map_err(|error| named(name.as_ref(), error))
    }

    fn say(&mut self, line: &str) -> Result<()> {
        self.process.say(line).map_err(|error| self.blame(error))
    }

    fn hear(&mut self, until: Instant) -> Result<LoadEvent> {
        let left = until.saturating_duration_since(Instant::now());
        self.process.hear_json(left).map_err(|error| self.blame(error))
    }
}

/// The places where the processes of a load are started.
#[derive(Default)]
pub struct Starter<'a> {
    /// The CPUs of each.
    pub placement: Option<&'a Placement>,
    /// The commands that start them.
    pub launchers: Option<&'a Launchers>,
    pub namespace: Option<&'a NetworkNamespace>,
    /// The most that are of use.
    pub most: usize,
}

impl Client {
    /// Starts it with the given arguments besides those of the dialogue, of a part and of CPUs.
    pub fn start(
        arguments: &[String],
        starter: &Starter<'_>,
        interruptions: &Interruptions,
    ) -> Result<Self> {
        let Starter { placement, launchers, namespace, most } = *starter;
        let here = [Launcher::default()];
        let launchers_of_loads = launchers.map_or(&here[..], |launchers| &launchers.loads);
        let all = launchers_of_loads.len();
        let count = all.min(most.max(1));
        let mut loads = Vec::new();
        for (index, launcher) in launchers_of_loads.iter().enumerate().take(count) {
            let (prefix, number) = (&launcher.prefix, index + 1);
            let mut own = arguments.to_vec();
            let cpus = placement.map_or("", |placement| placement.of_load(index));
            own.extend((!cpus.is_empty()).then(|| format!("--cpus={cpus}")));
            own.extend((count > 1).then(|| format!("--part={number}/{count}")));
            let of_several = |error: anyhow::Error| match all {
                1 => error,
                _ => error.context(format!("load {number} of {all}")),
            };
            let (process, whereabouts) = Self::start_one(prefix, &own, namespace, interruptions)
                .map_err(|error| prefix.blame(of_several(error)))?;
            launcher.note(&whereabouts);
            let name =
                (count > 1).then(|| format!("load {number} of {all} (`{}`)", prefix.redacted()));
            loads.push(Load { process, pid: whereabouts.pid_here(), name });
        }
        let hint = launchers.map(|launchers| {
            let address = launchers.sides.server_address;
            format!(
                "--server-address {address} must be an address of the server's side that the \
                 load's side reaches"
            )
        });
        let is_one_clock = launchers.is_none_or(|launchers| launchers.sides.are_loads_here());
        Ok(Self { loads, connections: 0, is_one_clock, hint, began_apart: None })
    }

    fn start_one(
        prefix: &CommandPrefix,
        arguments: &[String],
        namespace: Option<&NetworkNamespace>,
        interruptions: &Interruptions,
    ) -> Result<(Process, ringmark::whereabouts::Whereabouts)> {
        let mut command = prefix.command(&std::env::current_exe().context("find this program")?);
        command.args(["load", "--json", "--commands"]).args(arguments);
        let mut process = Process::start("load", command, namespace, interruptions)?;
        match process.hear_json(ANSWER_TIME)? {
            LoadEvent::Started(whereabouts) => Ok((process, whereabouts)),
            other => bail!("expected `started` from the load, got {other:?}"),
        }
    }

    /// Reads something of the process of each load; none if /proc does not show all of them here.
    pub fn each<T>(&self, read: impl Fn(u32) -> io::Result<T>) -> Result<Option<Vec<T>>> {
        let pids = self.loads.iter().map(|load| load.pid).collect::<Option<Vec<u32>>>();
        let Some(pids) = pids else { return Ok(None) };
        // A process that is gone has ended too early.
        let of_load =
            |(load, pid): (&Load, u32)| read(pid).map_err(|error| load.blame(error.into()));
        self.loads.iter().zip(pids).map(of_load).collect::<Result<Vec<T>>>().map(Some)
    }

    /// Gives a command, and waits for the first answer to it within `time`. Several loads warm up,
    /// and begin to measure together.
    pub fn command(&mut self, line: &str, time: Duration) -> Result<LoadEvent> {
        self.loads.iter_mut().try_for_each(|load| load.say(line))?;
        self.next(time)
    }

    /// Waits for the next answer.
    pub fn next(&mut self, time: Duration) -> Result<LoadEvent> {
        let event = self.hear_all(time)?;
        let LoadEvent::Warm = event else { return Ok(event) };
        let begun = Instant::now();
        self.loads.iter_mut().try_for_each(|load| load.say(MEASURE))?;
        let event = self.hear_all(ANSWER_TIME)?;
        self.began_apart = Some(begun.elapsed());
        Ok(event)
    }

    /// Waits for an answer of every load, and makes one of them.
    fn hear_all(&mut self, time: Duration) -> Result<LoadEvent> {
        let until = Instant::now() + time;
        let hear = |load: &mut Load| load.hear(until);
        let mut events = self.loads.iter_mut().map(hear).collect::<Result<Vec<LoadEvent>>>()?;
        if let [_] = events[..] {
            return events.pop().context("an event");
        }
        for (load, event) in self.loads.iter().zip(&events) {
            ensure!(
                event.kind() == events[0].kind(),
                "{} answers `{}` where the first load answers `{}`",
                load.name.as_deref().unwrap_or("a load"),
                event.kind(),
                events[0].kind()
            );
        }
        match &events[0] {
            LoadEvent::Connections { .. } => of_connections(events),
            LoadEvent::Echoed(_) => Ok(LoadEvent::Echoed(self.whole(events)?)),
            LoadEvent::Result(_) => Ok(LoadEvent::Result(self.whole(events)?)),
            _ => events.pop().context("an event"),
        }
    }

    /// Makes one result of those of all loads. It tells of each what shows whether it was
    /// behind what was asked of it, although the whole may not be.
    fn whole(&self, events: Vec<LoadEvent>) -> Result<LoadResult> {
        let result = |event| match event {
            LoadEvent::Echoed(result) | LoadEvent::Result(result) => Some(result),
            _ => None,
        };
        let parts: Vec<LoadResult> = events.into_iter().filter_map(result).collect();
        let mut whole = merge(&parts, self.is_one_clock)?;
        let named = || self.loads.iter().filter_map(|load| load.name.as_deref()).zip(&parts);
        whole.parts = named().map(|(name, part)| part.effort(name)).collect();
        whole.longest_gap_of =
            named().max_by_key(|(_, part)| part.longest_gap_ns).map(|(name, _)| name.to_owned());
        whole.began_apart_ns = self.began_apart.map(|apart| apart.as_nanos() as u64);
        Ok(whole)
    }

    /// Looks whether all of its processes run.
    ///
    /// # Errors
    /// When one has ended: its last words.
    pub fn check(&mut self) -> Result<()> {
        for load in &mut self.loads {
            if load.process.has_ended()? {
                let ended = load.process.ended();
                return Err(load.blame(ended));
            }
        }
        Ok(())
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
        self.loads.iter_mut().try_for_each(|load| load.say("quit"))?;
        self.loads.into_iter().try_for_each(Load::leave)
    }
}

/// Puts the name of a load of several before an error.
fn named(name: Option<&String>, error: anyhow::Error) -> anyhow::Error {
    match name {
        Some(name) => error.context(name.clone()),
        None => error,
    }
}

/// Makes one answer of those of all loads, whose connections stand.
fn of_connections(events: Vec<LoadEvent>) -> Result<LoadEvent> {
    let (mut stood, mut longest_s, mut in_all, mut logs) = (0, 0.0_f64, 0, Vec::new());
    for event in events {
        let LoadEvent::Connections { connections, connect_s, opened, connect_log, .. } = event
        else {
            bail!("the loads do not answer alike")
        };
        // Each tells how many the whole has.
        stood = connections;
        longest_s = longest_s.max(connect_s);
        in_all += opened;
        logs.push(connect_log.context("a part of a load does not tell how long it connected")?);
    }
    Ok(LoadEvent::Connections {
        connections: stood,
        connect_s: longest_s,
        opened: in_all,
        connect_us: connect_us(&logs)?,
        connect_log: None,
    })
}
