//! Several loads that are one: in network namespaces of their own, behind ssh, and behind commands
//! that fail or lag.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::gates::two_cpus;
use crate::placement::{Holder, measured, of_pass, script};
use crate::processes::wait_until;
use crate::{
    FOUR_CONNECTIONS, Place, assert_has, assert_reasons, calls, failure, heading, number, stdout,
    success, unmeasured,
};

/// A window that has echoes on a busy machine.
const LATENCY: &str = "[latency]\nblocks = 1\nduration = \"400ms\"\nwarmup_max = \"100ms\"\n";

/// An open loop.
fn open_loop() -> String {
    FOUR_CONNECTIONS.replace("\"four\"", "\"open\"") + "rate_per_s = 2000.0\n"
}

/// Calls, an open loop and a closed one.
fn matrix() -> String {
    let (heading, open) = (heading(&["epoll-et"]), open_loop());
    format!("{heading}[syscalls]\nechoes = 100\n{LATENCY}{FOUR_CONNECTIONS}{open}")
}

/// A run of loads that are started by these commands, with the server where `server` leads.
fn by(place: &Place, server: &str, loads: &[&str]) -> Command {
    let mut command = place.run();
    command.args(["--server-command", server]);
    command.args(loads.iter().flat_map(|load| ["--load-command", load]));
    command
}

/// A network of the test's own, where nobody else has the server's port; none, with the reason
/// said, where that is not permitted.
fn own_network() -> Option<Holder> {
    let make = || {
        let holder = Holder::start()?;
        holder.ip("link set lo up")?;
        Ok(holder)
    };
    make()
        .inspect_err(|why: &std::io::Error| eprintln!("skipped: no network namespace: {why}"))
        .ok()
}

/// The server's address in a star of networks.
const HUB: &str = "10.78.0.1";

/// A network namespace for the server, and three for the loads, each of which has a wire to it;
/// none, with the reason said, where that is not permitted.
fn star() -> Option<[Holder; 4]> {
    let lay = || -> std::io::Result<_> {
        let holders = [Holder::start()?, Holder::start()?, Holder::start()?, Holder::start()?];
        let [hub, loads @ ..] = &holders;
        hub.ip("link set lo up")?;
        hub.ip(&format!("address add {HUB}/32 dev lo"))?;
        for (index, load) in loads.iter().enumerate() {
            let address = format!("10.78.0.{}", 10 + index);
            let pid = load.pid();
            hub.ip(&format!("link add w{index} type veth peer name wire netns {pid}"))?;
            hub.ip(&format!("link set w{index} up"))?;
            hub.ip(&format!("route add {address} dev w{index} src {HUB}"))?;
            load.ip(&format!("address add {address}/32 dev wire"))?;
            load.ip("link set wire up")?;
            load.ip(&format!("route add {HUB} dev wire"))?;
        }
        Ok(holders)
    };
    lay().inspect_err(|why| eprintln!("skipped: no star of network namespaces: {why}")).ok()
}

#[test]
fn three_loads_in_networks_of_their_own_are_one() {
    let Some([hub, loads @ ..]) = star() else { return };
    let place = Place::with(&matrix());
    let prefixes = loads.each_ref().map(Holder::prefix);
    let mut run = by(&place, &hub.prefix(), &prefixes.each_ref().map(String::as_str));
    run.args(["--server-address", HUB]);
    let printed = stdout(&success(&mut run));
    assert_has(&printed, &["between two networks of one machine", "3 loads by `nsenter …`"]);
    let rows = place.rows("trials.csv");
    assert_reasons(&rows);
    for row in of_pass(&rows, "syscalls") {
        assert_eq!((&*row["status"], &*row["connections"]), ("ok", "4"), "{row:?}");
    }
    for row in measured(&of_pass(&rows, "latency")) {
        assert!(number(row, "client_cpu_ns_per_echo") > 0.0, "{row:?}");
        if row["workload"] == "four" {
            // How evenly all connections were served, whichever load they are of.
            assert!((0.0..=1.0).contains(&number(row, "fairness_connections")), "{row:?}");
        } else {
            // The rate is that of the whole.
            assert!((1500.0..2500.0).contains(&number(row, "offered_per_s")), "{row:?}");
        }
    }
    let histograms = fs::read_dir(place.out().join("histograms")).unwrap().count();
    assert_eq!(histograms, rows.iter().filter(|row| row["pass"] == "latency").count());
    let sides = &place.manifest()["sides"];
    assert_eq!(sides["other_loads"].as_array().unwrap().len(), 2);
    assert_eq!(sides["one_machine"], true);
}

#[test]
fn loads_are_kept_apart_or_the_run_says_that_they_are_not() {
    let (Some([one, other]), Some(network)) = (two_cpus(), own_network()) else { return };
    let place = Place::with(&format!("{}{LATENCY}{FOUR_CONNECTIONS}", heading(&["epoll-et"])));
    let on = |cpu: usize| format!("{} taskset -c {cpu}", network.prefix());
    let printed = stdout(&success(&mut by(&place, &on(one), &[&on(other), &on(other)])));
    assert_has(&printed, &["Two loads on one machine may run on the same CPU"]);
    let rows = place.rows("trials.csv");
    for row in measured(&of_pass(&rows, "latency")) {
        assert_eq!((&*row["shared_cpu"], &*row["client_cpus"]), ("true", &*other.to_string()));
    }
}

#[test]
fn a_load_that_dies_is_named_and_what_was_measured_stays() {
    let Some(network) = own_network() else { return };
    let place = Place::with(&calls(&["epoll-et", "poll"]));
    // The second time that it is started it dies under way.
    let dies = "case \"$*\" in *describe-side*) exec \"$@\";; esac\n\
                [ -e started ] || { touch started; exec \"$@\"; }\n\
                echo gone with the wind >&2\nexit 7";
    script(&place, "frail", dies);
    let (here, frail) = (network.prefix(), format!("{} ./frail", network.prefix()));
    let line = unmeasured(&mut by(&place, &here, &[&here, &frail]));
    assert_has(&line, &["load 2 of 2", "gone with the wind"]);
    let rows = place.rows("trials.csv");
    let of = |status: &str| rows.iter().filter(|row| row["status"] == status).collect::<Vec<_>>();
    assert_eq!(of("ok").len(), 1, "{rows:?}");
    assert!(of("failed").iter().all(|row| row["reason"].contains("gone")), "{rows:?}");
}

#[test]
fn a_load_that_lags_spoils_the_trial_with_its_name() {
    let Some(network) = own_network() else { return };
    let place = Place::with(&format!("{}{LATENCY}{}", heading(&["epoll-et"]), open_loop()));
    // It is on hold for most of the time.
    let lags = "case \"$*\" in *describe-side*) exec \"$@\";; esac\n\
                exec 3<&0\n\"$@\" <&3 &\n\
                while kill -STOP $! 2>/dev/null; do sleep 0.1; kill -CONT $!; sleep 0.02; done\n\
                wait $!";
    script(&place, "lame", lags);
    let (here, lame) = (network.prefix(), format!("{} ./lame", network.prefix()));
    let output = by(&place, &here, &[&here, &lame]).output().unwrap();
    assert!(output.status.code().is_some());
    let rows = place.rows("trials.csv");
    let open: Vec<_> = rows.iter().filter(|row| row["workload"] == "open").collect();
    assert!(!open.is_empty());
    for row in open {
        assert!(["client-limited", "rejected"].contains(&&*row["status"]), "{row:?}");
        assert_has(&row["reason"], &["load 2 of 2 (`nsenter …`)"]);
    }
}

#[test]
fn a_run_goes_on_with_the_loads_that_it_began_with() {
    let Some(network) = own_network() else { return };
    let place = Place::with(&calls(&["epoll-et"]));
    let (here, again) = (network.prefix(), place.path("again"));
    let nice = format!("nice -n 0 {here}");
    success(&mut by(&place, &here, &[&here, &nice]));
    let replay = |loads: &[&str]| {
        let mut command = place.command("run");
        command.args(["--replay", "out", "--out", "again", "--server-command", &here]);
        command.args(loads.iter().flat_map(|load| ["--load-command", load]));
        command
    };
    let began = "the run began by `nsenter …` and `nice …`; figures from two places";
    assert_has(&failure(&mut replay(&[&here])), &["--load-command `nsenter …`: ", began]);
    assert_has(&failure(&mut replay(&[])), &["of which it does not keep all: give --load-command"]);
    success(&mut replay(&[&here, &nice]));
    assert_eq!(crate::manifest(&again)["sides"]["other_loads"][0]["command"], "nice …");
}

#[test]
fn no_more_loads_run_than_there_are_connections() {
    let Some(network) = own_network() else { return };
    let place = Place::with(&calls(&["epoll-et"]).replace("connections = 4", "connections = 1"));
    let here = network.prefix();
    success(&mut by(&place, &here, &[&here, &here]));
    let rows = place.rows("trials.csv");
    assert_eq!((&*rows[0]["status"], &*rows[0]["connections"]), ("ok", "1"), "{rows:?}");
}

#[test]
fn a_run_with_another_load_is_told_from_one_without() {
    let Some(network) = own_network() else { return };
    let place = Place::with(&calls(&["epoll-et"]));
    let here = network.prefix();
    success(&mut by(&place, &here, &[&here]));
    fs::rename(place.out(), place.path("one")).unwrap();
    success(&mut by(&place, &here, &[&here, &here]));
    let mut compare = place.command("compare");
    let output = compare.args(["one", "out"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_has(&said, &["the number of loads was 1, is 2"]);
}

/// An sshd of this test's own, on loopback.
struct Sshd {
    child: Child,
    port: u16,
    key: PathBuf,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sshd {
    /// Starts it; none, with the reason said, where it is not installed or does not start.
    fn start(folder: &Path) -> Option<Self> {
        let start = || -> std::io::Result<Self> {
            for key in ["host", "user"] {
                let made = Command::new("ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                    .arg(folder.join(key))
                    .output()?;
                assert!(made.status.success(), "{made:?}");
            }
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let at = folder.display();
            let config = format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {at}/host\nPidFile none\n\
                 AuthorizedKeysFile {at}/user.pub\nStrictModes no\nPermitRootLogin yes\n\
                 MaxStartups 100\n"
            );
            fs::write(folder.join("config"), config)?;
            let child = Command::new("/usr/sbin/sshd")
                .args(["-D", "-e", "-f"])
                .arg(folder.join("config"))
                .stdin(Stdio::null())
                .stderr(Stdio::from(fs::File::create(folder.join("log"))?))
                .spawn()?;
            Ok(Self { child, port, key: folder.join("user") })
        };
        let mut sshd = start().inspect_err(|why| eprintln!("skipped: no sshd: {why}")).ok()?;
        let mut is_over = false;
        wait_until("sshd", || {
            is_over = sshd.child.try_wait().unwrap().is_some();
            is_over || TcpStream::connect((Ipv4Addr::LOCALHOST, sshd.port)).is_ok()
        });
        if is_over || !sshd.ssh("true").output().unwrap().status.success() {
            let log = fs::read_to_string(folder.join("log")).unwrap();
            eprintln!("skipped: sshd does not let us in: {log}");
            return None;
        }
        Some(sshd)
    }

    /// Returns the command that runs what follows behind it.
    fn prefix(&self) -> String {
        format!(
            "ssh -F none -q -i {} -p {} -o BatchMode=yes -o StrictHostKeyChecking=no -o \
             UserKnownHostsFile=/dev/null 127.0.0.1",
            self.key.display(),
            self.port
        )
    }

    fn ssh(&self, what: &str) -> Command {
        let prefix = self.prefix();
        let mut words = prefix.split(' ').chain([what]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command
    }
}

#[test]
fn server_and_two_loads_run_behind_ssh() {
    let Some([one, other]) = two_cpus() else { return };
    let place = Place::with(&matrix());
    let keys = place.path("keys");
    fs::create_dir(&keys).unwrap();
    let Some(sshd) = Sshd::start(&keys) else { return };
    let on = |cpu: usize| format!("{} taskset -c {cpu}", sshd.prefix());
    success(&mut by(&place, &on(one), &[&on(other), &on(other)]));
    let rows = place.rows("trials.csv");
    assert_reasons(&rows);
    // The machine may spoil a trial, which is then made once more.
    let calls = of_pass(&rows, "syscalls");
    for row in &calls {
        assert!(["ok", "rejected"].contains(&row["status"].as_str()), "{row:?}");
        let mut of_workload = calls.iter().filter(|other| other["workload"] == row["workload"]);
        assert!(of_workload.any(|other| other["status"] == "ok"), "{row:?}");
    }
    assert!(!measured(&of_pass(&rows, "latency")).is_empty());
    assert_eq!(place.manifest()["sides"]["other_loads"][0]["command"], "ssh …");
}
