//! Where the server and the load run: here, or behind a command that starts each of them elsewhere.
//!
//! A command is a prefix of the program and its arguments, as `ssh HOST` or `ip netns exec NAME`.
//! What it starts may be on another machine, or in another pid namespace of this one, where the
//! number of a process tells nothing here. So each side is asked where it is and what it is, before
//! the trials and in each; nothing is taken from the prefix's words.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ringmark::whereabouts;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::process::line_of;
use super::redact;
use super::redact::HIDDEN;
use crate::machine::Machine;
use crate::machine::affinity::CpuList;
use crate::machine::program_file::Program;
use crate::machine::topology::Topology;
use crate::machine::whereabouts::Whereabouts;

pub use crate::programs::redact::told_arguments;

/// Where the server and the load run.
#[derive(clap::Args, Clone, Debug, Default)]
#[group(skip)]
pub struct Options {
    /// Start the server by this command, which the program and its arguments follow
    ///
    /// For example "ip netns exec NAME", "taskset -c 3", "docker exec -i NAME" or "ssh HOST", split
    /// into words as a shell would, without one. It must pass stdin and stdout on. With it or
    /// --load-command no network namespace is made, and the server's ports are those from 8888 on.
    /// A side on another machine is not pinned from here: `taskset` in its command does it.
    #[arg(long, value_name = "PREFIX")]
    server_command: Option<String>,
    /// Start the load by this command, likewise
    #[arg(long, value_name = "PREFIX")]
    load_command: Option<String>,
    /// Where the server listens and the load finds it [default: 127.0.0.1, if both are in one
    /// network namespace]
    #[arg(long, value_name = "IP", value_parser = server_address)]
    server_address: Option<IpAddr>,
    /// Folder of `ringmark` and `ringmark-server` on the sides that have a command [default: that
    /// of the programs here]
    #[arg(long, value_name = "DIR")]
    remote_bin: Option<PathBuf>,
}

/// An address without a port; the brackets of IPv6 may stand.
fn server_address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| match bare.split_once('%') {
        Some((address, scope)) if address.parse::<std::net::Ipv6Addr>().is_ok() => format!(
            "the scope `%{scope}` of a link-local address is not supported here: give an address that needs none, of the \
             server's interface (`ip -6 address`)"
        ),
        _ => "no IP address, as 10.0.0.1 or fd00::1, without a port; names are not looked up".to_owned(),
    })
}

impl Options {
    /// Whether the server's program lies in a folder of another side.
    pub fn has_own_folder(&self) -> bool {
        self.server_command.is_some() && self.remote_bin.is_some()
    }

    /// What to add to a command line for the same.
    pub fn arguments(&self) -> impl Iterator<Item = (&'static str, String)> {
        let path = |path: &PathBuf| path.display().to_string();
        [
            (SERVER, self.server_command.clone()),
            (LOAD, self.load_command.clone()),
            ("--server-address", self.server_address.map(|address| address.to_string())),
            (REMOTE_BIN, self.remote_bin.as_ref().map(path)),
        ]
        .into_iter()
        .filter_map(|(option, value)| Some((option, value?)))
    }

    /// The same with what is not given taken from the run that is gone on with or repeated.
    ///
    /// # Errors
    /// When something else is given, or the run does not tell all.
    pub fn completed_from(mut self, before: Option<&Sides>) -> Result<Self> {
        let mut not_kept = Vec::new();
        let of = |side: fn(&Sides) -> &Side| before.and_then(|sides| side(sides).command.clone());
        for (option, given, was) in [
            (SERVER, &mut self.server_command, of(|sides| &sides.server)),
            (LOAD, &mut self.load_command, of(|sides| &sides.load)),
        ] {
            let is = given.as_deref().map(|given| Way::parse(option, given, None)).transpose()?;
            let is = is.map(|way| way.told());
            match (is, was) {
                (Some(is), was) if Some(&is) != was.as_ref() => {
                    let was = was.map_or_else(
                        || "without a command".to_owned(),
                        |was| format!("by `{was}`"),
                    );
                    bail!(
                        "{option} `{is}`: the run began {was}; figures from two places are not of one run"
                    );
                }
                (None, Some(was)) if was.contains(HIDDEN) => not_kept.push((option, was)),
                (None, was) => *given = was,
                _ => {}
            }
        }
        if self.remote_bin.is_none() && before.is_some_and(|before| before.has_remote_bin) {
            not_kept.push((REMOTE_BIN, HIDDEN.to_owned()));
        }
        ensure!(
            not_kept.is_empty(),
            "the run began with {}, of which it does not keep all: give {} again",
            not_kept
                .iter()
                .map(|(option, was)| format!("{option} `{was}`"))
                .collect::<Vec<_>>()
                .join(", "),
            not_kept.iter().map(|(option, _)| *option).collect::<Vec<_>>().join(", "),
        );
        if let Some(before) = before {
            let was = before.server_address;
            let is = *self.server_address.get_or_insert(was);
            ensure!(is == was, "--server-address {is}: the run began with {was}");
        }
        Ok(self)
    }

    /// Asks both sides where and what they are; none if neither has a command.
    pub fn look(&self, server: &Path) -> Result<Option<Sides>> {
        if self.server_command.is_none() && self.load_command.is_none() {
            if let Some((option, value)) = self.arguments().next() {
                bail!("{option} {value}: only with --server-command or --load-command");
            }
            return Ok(None);
        }
        let way = |option, given: &Option<String>| {
            let bin = self.remote_bin.as_deref();
            given.as_deref().map_or(Ok(Way::default()), |given| Way::parse(option, given, bin))
        };
        let (to_server, to_load) =
            (way(SERVER, &self.server_command)?, way(LOAD, &self.load_command)?);
        let (at_server, at_load) =
            (Report::ask(&to_server, Some(server))?, Report::ask(&to_load, None)?);
        let here = Whereabouts::of_this_process()?;
        let over_loopback = at_server.whereabouts.is_in_network_of(&at_load.whereabouts);
        let server_address = match self.server_address {
            Some(address) => address,
            None if over_loopback => Ipv4Addr::LOCALHOST.into(),
            None => bail!(
                "the server and the load are in different networks: give --server-address, an address of the server's \
                 side that the load's side can reach"
            ),
        };
        let one_machine = at_server.whereabouts.is_on_machine_of(&at_load.whereabouts);
        let side = |way: Way, mut report: Report| -> Result<Side> {
            // Only what this program was asked by, with the folder that it lies in there.
            report.machine.as_object_mut().and_then(|machine| machine.remove("argv"));
            let cpus = report.machine["cpus_allowed"].as_str().unwrap_or_default();
            Ok(Side {
                command: (!way.words.is_empty()).then(|| way.told()),
                cpus: cpus.parse().ok(),
                is_here: report.whereabouts.is_on_machine_of(&here),
                is_visible: report.whereabouts.sees_processes_of(&here),
                machine: report.machine,
                program: Some(report.program),
                started: Arc::new(Mutex::new(Started { accepted: report.stamp, said: Vec::new() })),
                way,
                ..Side::default()
            })
        };
        let mut sides = Sides {
            server_address,
            over_loopback,
            one_machine,
            has_remote_bin: self.remote_bin.is_some(),
            server: side(to_server, at_server)?,
            load: side(to_load, at_load)?,
        };
        sides.server.not_measured = sides.not_measured_of_server();
        sides.load.not_measured = sides.not_measured_of_load();
        Ok(Some(sides))
    }
}

pub const SERVER: &str = "--server-command";
pub const LOAD: &str = "--load-command";
pub const REMOTE_BIN: &str = "--remote-bin";

/// The way to a side: what stands before its programs. By default nothing does.
#[derive(Clone, Debug, Default)]
pub struct Way {
    option: &'static str,
    given: String,
    words: Vec<String>,
    folder: Option<PathBuf>,
}

impl Way {
    fn parse(option: &'static str, given: &str, folder: Option<&Path>) -> Result<Self> {
        let words = shlex::split(given).with_context(|| {
            format!("{option} `{given}`: a quotation mark or a backslash has no end")
        })?;
        ensure!(
            !words.is_empty(),
            "{option} `{given}`: no word in it; leave it out to start the program here"
        );
        Ok(Self { option, given: given.to_owned(), words, folder: folder.map(Path::to_owned) })
    }

    /// Starts a program there that lies here at `program`.
    pub fn command(&self, program: &Path) -> Command {
        let program = self.path(program);
        match self.words.split_first() {
            None => Command::new(program),
            Some((first, more)) => {
                let mut command = Command::new(first);
                command.args(more).arg(program);
                command
            }
        }
    }

    /// Where a program lies there.
    fn path(&self, program: &Path) -> PathBuf {
        match (&self.folder, program.file_name()) {
            (Some(folder), Some(name)) => folder.join(name),
            _ => program.to_owned(),
        }
    }

    /// An error on the way, which names it.
    pub fn blame(&self, error: anyhow::Error) -> anyhow::Error {
        if self.words.is_empty() {
            error
        } else {
            error.context(format!("{} `{}`", self.option, self.given))
        }
    }

    /// What results tell of it.
    pub fn told(&self) -> String {
        redact::told(&self.words)
    }

    /// A text without what they do not tell of it.
    fn hide(&self, text: String) -> String {
        redact::hide(&self.words, self.folder.as_deref().and_then(Path::to_str), text)
    }
}

/// Says where and what a side is, for whoever started this on it.
#[derive(clap::Args, Debug)]
pub struct DescribeOptions {
    /// The server's program there
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
}

/// The verb that does it.
pub const DESCRIBE: &str = "describe-side";

/// Prints one line of JSON.
pub fn describe(options: &DescribeOptions) -> Result<()> {
    let report = Report::read(options.server.as_deref())?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?).context("stdout")
}

/// What a side says of itself.
#[derive(Serialize, Deserialize)]
struct Report {
    ringmark: String,
    whereabouts: Whereabouts,
    machine: Value,
    /// The program that is started there in trials.
    program: Program,
    /// The stamp of its file, before it was read.
    stamp: Option<Value>,
}

impl Report {
    fn read(server: Option<&Path>) -> Result<Self> {
        let whereabouts = Whereabouts::of_this_process()?;
        Ok(Self {
            ringmark: env!("CARGO_PKG_VERSION").to_owned(),
            stamp: server.map_or_else(|| whereabouts.program.clone(), whereabouts::stamp),
            whereabouts,
            machine: serde_json::to_value(Machine::read())?,
            program: match server {
                Some(server) => Program::of_server(server)?,
                None => Program::of_this()?,
            },
        })
    }

    /// Of the side at the end of a way, where `server` is started if it is given.
    fn ask(way: &Way, server: Option<&Path>) -> Result<Self> {
        if way.words.is_empty() {
            return Self::read(server);
        }
        let mut command = way.command(&std::env::current_exe().context("find this program")?);
        command.arg(DESCRIBE);
        if let Some(server) = server {
            command.arg(format!("--server={}", way.path(server).display()));
        }
        let ask = || -> Result<Self> {
            let line = line_of(command)?;
            serde_json::from_str(&line)
                .map_err(|_| anyhow!("it said what cannot be understood: {line}"))
        };
        let hint = "it must start what follows it, find it there (see --remote-bin), and pass stdin and stdout on";
        let report = ask().map_err(|error| way.blame(anyhow!("{error:#}; {hint}")))?;
        let own = env!("CARGO_PKG_VERSION");
        if report.ringmark != own {
            let error = anyhow!(
                "ringmark there is version {}, here {own}: copy this one there",
                report.ringmark
            );
            return Err(way.blame(error));
        }
        Ok(report)
    }
}

/// One side of a run that has a command on either.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Side {
    /// What its program was started by, as far as that says nothing of anyone; null: nothing.
    pub command: Option<String>,
    /// What is not measured of it, and why.
    pub not_measured: Vec<String>,
    /// The machine, as it describes itself.
    pub machine: Value,
    /// The program that ran.
    pub program: Option<Program>,
    /// The way to it.
    #[serde(skip)]
    pub way: Way,
    /// The CPUs on which its program may run, if they are known.
    #[serde(skip)]
    pub cpus: Option<CpuList>,
    /// Whether it is on this machine.
    #[serde(skip)]
    pub is_here: bool,
    /// Whether /proc shows its processes here, under the numbers that they know themselves by.
    #[serde(skip)]
    pub is_visible: bool,
    /// Which files its processes ran.
    #[serde(skip)]
    pub started: Arc<Mutex<Started>>,
}

/// The stamps of the files that processes of a side ran, as they said.
#[derive(Debug, Default)]
pub struct Started {
    /// Of a file that holds the manifest's program.
    accepted: Option<Value>,
    /// Of those that were started since that was looked at.
    said: Vec<Option<Value>>,
}

impl Side {
    /// Whether its program is started here, by nothing that stands before it.
    pub fn has_no_command(&self) -> bool {
        self.way.words.is_empty()
    }

    fn started(&self) -> MutexGuard<'_, Started> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps which file a process of it runs.
    pub fn note(&self, process: &Whereabouts) {
        if !self.has_no_command() {
            self.started().said.push(process.program.clone());
        }
    }

    /// Whether it has started a file of which is not known that it holds the manifest's program.
    pub fn has_started_another(&self) -> bool {
        let started = self.started();
        started.said.iter().any(|said| said.is_none() || *said != started.accepted)
    }

    /// Takes the file that it started last for one that holds the manifest's program.
    pub fn accept_started(&self) {
        let mut started = self.started();
        started.accepted = std::mem::take(&mut started.said).pop().flatten();
    }

    /// What its program is now.
    pub fn program_now(&self, server: Option<&Path>) -> Result<Program> {
        Ok(Report::ask(&self.way, server)?.program)
    }

    /// Which of its CPUs share a core, as far as it tells.
    pub fn topology(&self) -> Topology {
        serde_json::from_value(self.machine["topology"].clone()).unwrap_or_default()
    }

    /// Why its processes are not seen.
    fn unseen(&self, name: &str) -> String {
        match self.is_here {
            true => format!("the {name} is in another pid namespace"),
            false => format!("the {name} is on another machine"),
        }
    }
}

/// Both sides of a run that has a command on either.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sides {
    /// Where the server listens and the load finds it.
    pub server_address: IpAddr,
    /// Whether both are in one network namespace.
    pub over_loopback: bool,
    /// Whether both are on one machine.
    pub one_machine: bool,
    /// Whether the programs lie in another folder on the sides that have a command. Which one is
    /// not told.
    #[serde(default)]
    pub has_remote_bin: bool,
    /// The server's.
    pub server: Side,
    /// The load's.
    pub load: Side,
}

impl Sides {
    /// Where the traffic of a run went, in words, from what its manifest has under `sides`.
    pub fn traffic(sides: Option<&Self>) -> String {
        let Some(Self { server_address, over_loopback, one_machine, server, load, .. }) = sides
        else {
            return "over loopback, both sides on one machine".to_owned();
        };
        let by = |side: &Side| match &side.command {
            Some(command) => format!("by `{command}`"),
            None => "without a command".to_owned(),
        };
        let network = match (over_loopback, one_machine) {
            (true, _) => "over loopback, both sides on one machine".to_owned(),
            (false, true) => {
                format!(
                    "to {server_address}, not over loopback but between two networks of one machine"
                )
            }
            (false, false) => format!("to {server_address}, from one machine to another"),
        };
        format!("{network}; server started {}, load {}", by(server), by(load))
    }

    /// Why walks through connection counts, which read and watch the memory of this machine, cannot
    /// be made.
    pub fn no_walk(&self) -> Option<String> {
        let Self { server, load, .. } = self;
        let unseen = match (server.is_visible, load.is_here) {
            (true, true) => return None,
            (false, _) => server.unseen("server"),
            (true, false) => load.unseen("load"),
        };
        Some(format!("memory and walks through connection counts: {unseen}"))
    }

    /// Whether both sides are on this machine.
    pub fn are_here(&self) -> bool {
        self.server.is_here && self.load.is_here
    }

    /// Whether one of them is.
    pub fn is_one_here(&self) -> bool {
        self.server.is_here || self.load.is_here
    }

    fn not_measured_of_server(&self) -> Vec<String> {
        let mut lines = vec![
            "segments sent again, connections dropped at the accept queue: they are counted in a network namespace \
             that is the trial's own"
                .to_owned(),
        ];
        let server = &self.server;
        if !server.is_visible {
            lines.push(format!(
                "run delay, context switches, user and kernel CPU apart, events within io_uring: {}; its CPU time and \
                 system calls are self-reported",
                server.unseen("server")
            ));
        }
        lines.extend(self.no_walk());
        lines.extend(self.machine_of(server));
        lines
    }

    fn not_measured_of_load(&self) -> Vec<String> {
        let load = &self.load;
        let run_delay = || format!("run delay: {}", load.unseen("load"));
        (!load.is_visible).then(run_delay).into_iter().chain(self.machine_of(load)).collect()
    }

    /// What of the machine of a side is not measured.
    fn machine_of(&self, side: &Side) -> Option<String> {
        if self.are_here() {
            return None;
        }
        Some(match side.is_here {
            true => "CPU of the machine: the other side's work is not in it".to_owned(),
            false => {
                "CPU of the machine, stolen time, how many connections it has room for, and what else `ringmark doctor` \
                 says there; it is not pinned but by its command (`taskset`)"
                    .to_owned()
            }
        })
    }

    /// A text without what is not told of the commands.
    pub fn hide(&self, text: String) -> String {
        let text = self.load.way.hide(self.server.way.hide(text));
        // Where a side looks for its program if it has no folder of its own, and says so if it is
        // not there.
        let program = std::env::current_exe().unwrap_or_default();
        match program.parent().and_then(Path::to_str).filter(|folder| folder.len() > 1) {
            Some(folder) => text.replace(&format!("{folder}/"), &format!("{}/", redact::HIDDEN)),
            None => text,
        }
    }

    /// What is to be known before the run; `shared_core`: its CPUs are hyperthreads of one core.
    pub fn say(&self, shared_core: bool) -> Result<()> {
        let mut text = format!("Traffic goes {}.\n", Self::traffic(Some(self)));
        if shared_core {
            text += "Server and load have hyperthreads of one core, and slow each other down: `shared-core`. Their \
                     commands can give them CPUs of two cores.\n";
        }
        for (name, side) in [("server", &self.server), ("load", &self.load)] {
            for line in &side.not_measured {
                text += &format!("  not measured of the {name}: {line}\n");
            }
        }
        crate::terminal::say(&text)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_servers_address_is_one_of_either_version() {
        for (text, address) in [("10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("[::1]", "::1")] {
            assert_eq!(server_address(text), Ok(address.parse().unwrap()));
        }
        for (text, words) in [
            ("fe80::1%eth0", "the scope `%eth0`"),
            ("[fe80::1%2]", "the scope `%2`"),
            ("10.0.0.1:8888", "without a port"),
            ("server", "names are not looked up"),
        ] {
            let line = server_address(text).unwrap_err();
            assert!(line.contains(words), "{line}");
        }
    }

    #[test]
    fn traffic_is_told_in_words() {
        let mut sides = Sides {
            server_address: "10.0.0.1".parse().unwrap(),
            over_loopback: false,
            one_machine: false,
            has_remote_bin: false,
            server: Side { command: Some("ssh …".to_owned()), ..Side::default() },
            load: Side::default(),
        };
        assert_eq!(Sides::traffic(None), "over loopback, both sides on one machine");
        assert_eq!(
            Sides::traffic(Some(&sides)),
            "to 10.0.0.1, from one machine to another; server started by `ssh …`, load without a command"
        );
        (sides.over_loopback, sides.one_machine) = (true, true);
        let text = Sides::traffic(Some(&sides));
        assert!(
            text.starts_with("over loopback, both sides on one machine; server started by `ssh …`"),
            "{text}"
        );
    }

    #[test]
    fn walks_need_the_server_to_be_seen_and_the_load_to_be_here() {
        let side = |is_here, is_visible| Side { is_here, is_visible, ..Side::default() };
        let reason = |server: Side, load: Side| {
            let address = Ipv4Addr::LOCALHOST.into();
            let (over_loopback, one_machine, has_remote_bin) = (false, false, false);
            Sides {
                server_address: address,
                over_loopback,
                one_machine,
                has_remote_bin,
                server,
                load,
            }
            .no_walk()
        };
        assert_eq!(reason(side(true, true), side(true, false)), None);
        let found = reason(side(true, false), side(true, true)).unwrap();
        assert!(found.ends_with("the server is in another pid namespace"), "{found}");
        let found = reason(side(false, false), side(false, false)).unwrap();
        assert!(found.ends_with("the server is on another machine"), "{found}");
        let found = reason(side(true, true), side(false, false)).unwrap();
        assert!(found.ends_with("the load is on another machine"), "{found}");
    }
}
