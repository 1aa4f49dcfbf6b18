//! The two sides of a run, server and load: each runs here, or behind a command that starts it
//! elsewhere.
//!
//! A command is a prefix of the program and its arguments, as `ssh HOST` or `ip netns exec NAME`.
//! The program may then be on another machine, or in another pid namespace of this one, where the
//! number of a process tells nothing here. Therefore ringmark asks each side where it is and what
//! it is, before the trials and in each. It takes nothing from the prefix's words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail, ensure};
use itertools::Itertools;
use ringmark::whereabouts::{FileStamp, Whereabouts};

use super::command_prefix::CommandPrefix;
use super::describe::Description;
use super::redact::{HIDDEN, LOAD, REMOTE_BIN, SERVER, redacted_line};
use crate::load::part::PARTS_MAX;
use crate::machine::path::PathKind;
use crate::machine::placement::Placement;
use crate::machine::program_file::ProgramFile;
use crate::results::sides::{Side, Sides};

/// The option of the server's address.
const ADDRESS: &str = "--server-address";

/// The commands and the address of the two sides.
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
    /// Start the load by this command, likewise. Given again, it starts another load: the loads
    /// share the connections, the rate and the seed of one, and their samples are put together
    #[arg(long, value_name = "PREFIX")]
    load_command: Vec<String>,
    /// The address on which the server listens and the load finds it [default: 127.0.0.1, if both
    /// are in one network namespace]. Without a command ::1 is the other one there is
    #[arg(long, value_name = "IP", value_parser = server_address)]
    server_address: Option<IpAddr>,
    /// Folder of `ringmark` and `ringmark-server` on the sides that have a command [default: that
    /// of the programs here]
    #[arg(long, value_name = "DIR")]
    remote_bin: Option<PathBuf>,
}

/// Parses an address without a port; an IPv6 address may have brackets.
fn server_address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| match bare.split_once('%') {
        Some((address, scope)) if address.parse::<std::net::Ipv6Addr>().is_ok() => format!(
            "the scope `%{scope}` of a link-local address is not supported here: give an address \
             that needs none, of the server's interface (`ip -6 address`)"
        ),
        _ => "no IP address, as 10.0.0.1 or fd00::1, without a port; names are not looked up"
            .to_owned(),
    })
}

impl Options {
    /// Returns whether the server's program lies in a folder of another side.
    pub fn has_own_folder(&self) -> bool {
        self.server_command.is_some() && self.remote_bin.is_some()
    }

    fn has_command(&self) -> bool {
        self.server_command.is_some() || !self.load_command.is_empty()
    }

    /// Returns the loopback that is asked for in the networks that ringmark makes.
    pub fn loopback(&self) -> Option<PathKind> {
        match self.server_address? {
            _ if self.has_command() => None,
            IpAddr::V4(Ipv4Addr::LOCALHOST) => Some(PathKind::Loopback),
            IpAddr::V6(Ipv6Addr::LOCALHOST) => Some(PathKind::Loopback6),
            _ => None,
        }
    }

    /// Returns what to add to a command line for the same sides.
    pub fn arguments(&self) -> impl Iterator<Item = (&'static str, String)> {
        let loads = self.load_command.iter().map(|command| (LOAD, Some(command.clone())));
        [(SERVER, self.server_command.clone())]
            .into_iter()
            .chain(loads)
            .chain([
                (ADDRESS, self.server_address.map(|address| address.to_string())),
                (REMOTE_BIN, self.remote_bin.as_ref().map(|path| path.display().to_string())),
            ])
            .filter_map(|(option, value)| Some((option, value?)))
    }

    /// Takes what is not given from the run that is resumed or repeated.
    ///
    /// # Errors
    /// When something else is given, or the run does not tell all.
    pub fn completed_from(mut self, before: Option<&Sides>) -> Result<Self> {
        let mut missing = Vec::new();
        let server = before.and_then(|sides| sides.server.command.as_deref());
        let loads = before.into_iter().flat_map(Sides::loads);
        let loads: Vec<&str> = loads.filter_map(|load| load.command.as_deref()).collect();
        let mut given = self.server_command.into_iter().collect();
        complete(SERVER, &mut given, &Vec::from_iter(server), &mut missing)?;
        self.server_command = given.pop();
        complete(LOAD, &mut self.load_command, &loads, &mut missing)?;
        if self.remote_bin.is_none() && before.is_some_and(|before| before.has_remote_bin) {
            missing.push((REMOTE_BIN, HIDDEN));
        }
        ensure!(
            missing.is_empty(),
            "the run began with {}, of which it does not keep all: give {} again",
            missing.iter().map(|(option, was)| format!("{option} `{was}`")).join(", "),
            missing.iter().map(|(option, _)| option).join(", "),
        );
        if let Some(before) = before {
            let was = before.server_address;
            let is = *self.server_address.get_or_insert(was);
            ensure!(is == was, "--server-address {is}: the run began with {was}");
        }
        Ok(self)
    }

    /// Asks all sides where and what they are; none if neither has a command.
    pub fn look(&self, server: &Path) -> Result<Option<Launchers>> {
        if !self.has_command() {
            // A network that ringmark makes has such an address by the matrix.
            let of_network = self.loopback().is_some().then_some(ADDRESS);
            let mut others = self.arguments().filter(|(option, _)| Some(*option) != of_network);
            if let Some((option, value)) = others.next() {
                let but = if option == ADDRESS { "; without them 127.0.0.1 or ::1" } else { "" };
                bail!("{option} {value}: only with --server-command or --load-command{but}");
            }
            return Ok(None);
        }
        let to_server = self.prefix(SERVER, self.server_command.as_deref())?;
        let to_loads = match self.load_command.as_slice() {
            [] => vec![CommandPrefix::default()],
            given => given.iter().map(|given| self.prefix(LOAD, Some(given))).try_collect()?,
        };
        ensure!(to_loads.len() <= PARTS_MAX, "{LOAD}: at most {PARTS_MAX} loads");
        let at_server = Description::ask(&to_server, Some(server))?;
        let at_loads: Vec<Description> =
            to_loads.iter().map(|to_load| Description::ask(to_load, None)).try_collect()?;
        let here = Whereabouts::of_this_process();
        let is_at_all_loads = |is_at: fn(&Whereabouts, &Whereabouts) -> bool| {
            at_loads.iter().all(|at_load| is_at(&at_server.whereabouts, &at_load.whereabouts))
        };
        let over_loopback = is_at_all_loads(Whereabouts::is_in_network_of);
        let server_address = match self.server_address {
            Some(address) => address,
            None if over_loopback => Ipv4Addr::LOCALHOST.into(),
            None => bail!(
                "the server and the load are in different networks: give --server-address, an \
                 address of the server's side that the load's side can reach"
            ),
        };
        let mut sides = Sides {
            server_address,
            over_loopback,
            one_machine: is_at_all_loads(Whereabouts::is_on_machine_of),
            has_remote_bin: self.remote_bin.is_some(),
            server: at_server.side(&to_server, &here),
            load: Side::default(),
            other_loads: Vec::new(),
        };
        let loads = to_loads.iter().zip(&at_loads).map(|(to, at)| at.side(to, &here));
        let mut loads = loads.collect::<Vec<Side>>().into_iter();
        sides.load = loads.next().unwrap_or_default();
        sides.other_loads = loads.collect();
        sides.server.not_measured = sides.not_measured_of_server();
        sides.load.not_measured = sides.not_measured_of_load(&sides.load);
        let of_others = sides.other_loads.iter().map(|load| sides.not_measured_of_load(load));
        for (load, lines) in of_others.collect::<Vec<_>>().into_iter().enumerate() {
            sides.other_loads[load].not_measured = lines;
        }
        let clocks = std::iter::once(&at_server).chain(&at_loads).map(|side| side.ahead_s);
        Ok(Some(Launchers {
            clocks_ahead_s: clocks.collect(),
            sides,
            server: Launcher::new(to_server, at_server.stamp),
            loads: to_loads
                .into_iter()
                .zip(at_loads)
                .map(|(to_load, at_load)| Launcher::new(to_load, at_load.stamp))
                .collect(),
        }))
    }

    fn prefix(&self, option: &'static str, given: Option<&str>) -> Result<CommandPrefix> {
        let folder = self.remote_bin.as_deref();
        given.map_or(Ok(CommandPrefix::default()), |given| {
            CommandPrefix::parse(option, given, folder)
        })
    }
}

/// Starts the programs of one side.
#[derive(Clone, Debug, Default)]
pub struct Launcher {
    /// The command that leads there.
    pub prefix: CommandPrefix,
    started: Arc<Mutex<Started>>,
}

/// The stamps of the files that processes of a side ran, as they said.
#[derive(Debug, Default)]
struct Started {
    /// The stamp of a file that holds the manifest's program.
    accepted: Option<FileStamp>,
    /// The stamps of files that were started since [`Launcher::accept_started`].
    said: Vec<Option<FileStamp>>,
}

impl Launcher {
    fn new(prefix: CommandPrefix, accepted: Option<FileStamp>) -> Self {
        Self { prefix, started: Arc::new(Mutex::new(Started { accepted, said: Vec::new() })) }
    }

    /// Returns whether its program is started here, without a command.
    pub fn has_no_command(&self) -> bool {
        self.prefix.is_empty()
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

    /// Returns whether it has started a file that is not known to hold the manifest's program.
    pub fn has_started_another(&self) -> bool {
        let started = self.started();
        started.said.iter().any(|said| said.is_none() || *said != started.accepted)
    }

    /// Accepts the file that it started last as one that holds the manifest's program.
    pub fn accept_started(&self) {
        let mut started = self.started();
        started.accepted = std::mem::take(&mut started.said).pop().flatten();
    }

    /// Asks what its program is now.
    pub fn program_now(&self, server: Option<&Path>) -> Result<ProgramFile> {
        Ok(Description::ask(&self.prefix, server)?.program)
    }
}

/// Takes commands of one kind that are not given from those of the run before, or adds to `missing`
/// that they must be given again.
///
/// # Errors
/// When others are given than the run began with.
fn complete<'a>(
    option: &'static str,
    given: &mut Vec<String>,
    was: &[&'a str],
    missing: &mut Vec<(&'static str, &'a str)>,
) -> Result<()> {
    if given.is_empty() {
        match was.iter().any(|was| was.contains(HIDDEN)) {
            true => missing.extend(was.iter().map(|was| (option, *was))),
            false => *given = was.iter().map(|&was| was.to_owned()).collect(),
        }
        return Ok(());
    }
    let redacted = |given: &String| Ok(CommandPrefix::parse(option, given, None)?.redacted());
    let is: Vec<String> = given.iter().map(redacted).collect::<Result<_>>()?;
    // Earlier versions kept more of a command.
    let was: Vec<String> = was.iter().map(|was| redacted_line(was)).collect();
    if is != was {
        let words = |commands: &[String]| {
            commands.iter().map(|command| format!("`{command}`")).join(" and ")
        };
        let began = match was.as_slice() {
            [] => "without a command".to_owned(),
            was => format!("by {}", words(was)),
        };
        bail!(
            "{option} {}: the run began {began}; figures from two places are not of one run",
            words(&is)
        );
    }
    Ok(())
}

/// Starts the programs of all sides of a run that has a command on any.
#[derive(Clone, Debug)]
pub struct Launchers {
    /// The commands that start them, and the server's address.
    pub sides: Sides,
    /// How far the sides' clocks are ahead of the clock here, in s, the server's first.
    clocks_ahead_s: Vec<f64>,
    /// The server's.
    pub server: Launcher,
    /// The loads', of which there is one at least.
    pub loads: Vec<Launcher>,
}

/// A clock that is so far off is told of.
const CLOCK_OFF_S: f64 = 2.0;

impl Launchers {
    /// Takes out of a text what results do not tell of the commands.
    pub fn hide(&self, text: &str) -> String {
        let hide = |text: String, load: &Launcher| load.prefix.hide(&text);
        let text = self.loads.iter().fold(self.server.prefix.hide(text), hide);
        // A side without a folder of its own looks for its program there, and says so if it is
        // missing.
        let program = std::env::current_exe().unwrap_or_default();
        match program.parent().and_then(Path::to_str).filter(|folder| folder.len() > 1) {
            Some(folder) => text.replace(&format!("{folder}/"), &format!("{HIDDEN}/")),
            None => text,
        }
    }

    /// Says what to know before the run.
    pub fn say(&self, placement: &Placement) -> Result<()> {
        let mut text = format!("Traffic goes {}.\n", Sides::traffic(Some(&self.sides)));
        if placement.loads_share_cpu {
            text += "Two loads on one machine may run on the same CPU, and take each other's time: \
                     `shared-cpu`. `taskset` in their commands gives each CPUs of its own.\n";
        }
        if placement.shared_core == Some(true) {
            text += "Server and load have hyperthreads of one core, and slow each other down: \
                     `shared-core`. Their commands can give them CPUs of two cores.\n";
        }
        for ((name, side), ahead_s) in self.sides.named().zip(&self.clocks_ahead_s) {
            for line in &side.not_measured {
                text += &format!("  not measured of the {name}: {line}\n");
            }
            if ahead_s.abs() > CLOCK_OFF_S {
                let (by, way) = (ahead_s.abs(), if *ahead_s > 0.0 { "ahead" } else { "behind" });
                text += &format!(
                    "  the clock of the {name} is {by:.0} s {way}: no figure depends on it, but \
                     times in its own logs do\n"
                );
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
            other_loads: Vec::new(),
        };
        assert_eq!(Sides::traffic(None), "over loopback, both sides on one machine");
        assert_eq!(
            Sides::traffic(Some(&sides)),
            "to 10.0.0.1, from one machine to another; server started by `ssh …`, load without a \
             command"
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
                other_loads: Vec::new(),
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
