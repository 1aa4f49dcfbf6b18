//! Sides that a command starts elsewhere: in two network namespaces with a wire between them, in
//! another pid namespace, behind what names another host, and behind what is no way at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::confine::{before_exec, checked};
use crate::gates::two_cpus;
use crate::processes::{Process, Running, arguments, children_of, wait_for, wait_until};
use crate::programs::server;
use crate::{
    FOUR_CONNECTIONS, NO_FIGURES, Place, Row, assert_has, assert_reasons, calls, ended_with,
    failure, heading, manifest, number, stdout, success,
};

/// Calls and latency. Over a slow wire a window must be long to have echoes.
fn matrix(window: &str) -> String {
    format!(
        "{}[syscalls]\nechoes = 100\n[latency]\nblocks = 1\nduration = \"{window}\"\nwarmup_max \
        = \"50ms\"\n\
         {FOUR_CONNECTIONS}",
        heading(&["epoll-et", "uring-multishot"])
    )
}

/// The ends of the wire.
const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

/// Two network namespaces, and a wire between them whose packets go through this test's hands. All
/// of it ends with the test, however that ends: each namespace is held by a program that waits for
/// the end of its stdin.
struct Wire {
    holders: [Holder; 2],
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A process in a network namespace of its own.
pub struct Holder(Child);

impl Holder {
    pub fn start() -> io::Result<Self> {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        // SAFETY: takes no pointer.
        before_exec(&mut command, || checked(unsafe { libc::unshare(libc::CLONE_NEWNET) }));
        command.spawn().map(Self)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Returns the command that starts a program in its namespace.
    pub fn prefix(&self) -> String {
        format!("nsenter --net=/proc/{}/ns/net", self.0.id())
    }

    /// Runs `ip` in there.
    pub fn ip(&self, arguments: &str) -> io::Result<()> {
        let prefix = self.prefix();
        let mut words = prefix.split(' ').chain(["ip"]).chain(arguments.split(' '));
        let output = Command::new(words.next().unwrap()).args(words).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("ip {arguments}: {}", crate::stderr(&output).trim())))
    }

    /// Makes the end of a wire in there: what the kernel sends over it can be read, and what is
    /// written it receives.
    fn end_of_wire(&self) -> io::Result<File> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.0.id()))?;
        let make = || -> io::Result<File> {
            // SAFETY: setns takes no pointer and moves only this thread, which ends with this
            // closure.
            checked(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })?;
            let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
            // SAFETY: ifreq is a plain C struct of integers and bytes, for which zero is a valid
            // value.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(c"wire".to_bytes()) {
                *to = from.cast_signed();
            }
            request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
            // SAFETY: the ioctl reads and writes one ifreq, which `request` is.
            checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
            Ok(tun)
        };
        thread::scope(|scope| scope.spawn(make).join().unwrap())
    }

    /// Segments that TCP has sent again in there.
    fn retransmitted(&self) -> u64 {
        let snmp = fs::read_to_string(format!("/proc/{}/net/snmp", self.0.id())).unwrap();
        let mut lines =
            snmp.lines().filter_map(|line| line.strip_prefix("Tcp:")).map(str::split_whitespace);
        let mut pairs = lines.next().unwrap().zip(lines.next().unwrap());
        pairs.find(|(name, _)| *name == "RetransSegs").unwrap().1.parse().unwrap()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Wire {
    /// One on which each packet takes `delay`, and one in `drop_every` is lost on either way; none,
    /// with the reason said, where that is not permitted or `ip` and `nsenter` are missing.
    fn lay(delay: Duration, drop_every: Option<usize>) -> Option<Self> {
        let lay = || -> io::Result<Self> {
            let holders = [Holder::start()?, Holder::start()?];
            let ends = [holders[0].end_of_wire()?, holders[1].end_of_wire()?];
            for (holder, address) in holders.iter().zip(ADDRESSES) {
                holder.ip(&format!("address add {address}/24 dev wire"))?;
                holder.ip("link set wire up")?;
                holder.ip("link set lo up")?;
            }
            let over = Arc::new(AtomicBool::new(false));
            let mut threads = Vec::new();
            for (from, to) in [(0, 1), (1, 0)] {
                let (mut from, mut to) = (ends[from].try_clone()?, ends[to].try_clone()?);
                let (sender, packets) = mpsc::channel::<(Instant, Vec<u8>)>();
                let over = Arc::clone(&over);
                threads.push(thread::spawn(move || {
                    let mut buffer = [0; 65536];
                    let mut count = 0_usize;
                    while !over.load(Relaxed) {
                        if !is_readable(&from, 50) {
                            continue;
                        }
                        let Ok(length) = from.read(&mut buffer) else { return };
                        count += 1;
                        if drop_every.is_none_or(|every| !count.is_multiple_of(every)) {
                            let _ =
                                sender.send((Instant::now() + delay, buffer[..length].to_vec()));
                        }
                    }
                }));
                threads.push(thread::spawn(move || {
                    for (due, packet) in packets {
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        // The other end may be gone.
                        let _ = to.write_all(&packet);
                    }
                }));
            }
            Ok(Self { holders, over, threads })
        };
        lay()
            .inspect_err(|why| eprintln!("skipped: no wire between two network namespaces: {why}"))
            .ok()
    }

    /// A run with the server at one end and the load at the other.
    fn run(&self, place: &Place) -> Command {
        let [server, load] = &self.holders;
        let mut command = place.run();
        command.args(["--server-command", &server.prefix(), "--load-command", &load.prefix()]);
        command
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn is_readable(file: &File, timeout_ms: libc::c_int) -> bool {
    let mut entry = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one entry that lives through the call.
    unsafe { libc::poll(&raw mut entry, 1, timeout_ms) == 1 }
}

pub fn of_pass<'a>(rows: &'a [Row], pass: &str) -> Vec<&'a Row> {
    let rows: Vec<&Row> = rows.iter().filter(|row| row["pass"] == pass).collect();
    assert!(!rows.is_empty());
    rows
}

/// Every row that a busy machine did not cost has figures.
pub fn measured<'a>(rows: &[&'a Row]) -> Vec<&'a Row> {
    for row in rows {
        assert!(["ok", "client-limited", "rejected"].contains(&row["status"].as_str()), "{row:?}");
    }
    let rows: Vec<&Row> =
        rows.iter().copied().filter(|row| !row["latency_p50_us"].is_empty()).collect();
    assert!(!rows.is_empty(), "no echo in any window");
    rows
}

/// Each of the 100 echoes was received and sent once, by whichever count.
fn assert_calls(place: &Place) {
    let calls = place.rows("syscalls.csv");
    for name in ["recvfrom", "sendto"] {
        let found = calls.iter().find(|row| row["arm"] == "epoll-et" && row["syscall"] == name);
        assert_eq!(found.map(|row| row["calls"].as_str()), Some("100"), "{calls:?}");
    }
}

/// Whether a run here has tracepoints.
fn has_tracepoints() -> bool {
    Place::finished().rows("trials.csv")[0]["syscalls_source"] == "tracepoints"
}

#[test]
fn two_network_namespaces_are_measured_as_this_one() {
    let Some(wire) = Wire::lay(Duration::from_millis(5), None) else { return };
    let place = Place::with(&matrix("400ms"));
    let line = failure(&mut wire.run(&place));
    assert_has(&line, &["the server and the load are in different networks", "--server-address"]);
    assert!(!place.out().exists());

    let printed = stdout(&success(wire.run(&place).args(["--server-address", ADDRESSES[0]])));
    let traffic = "to 10.77.0.1, not over loopback but between two networks of one machine; server \
                   started by `nsenter …`, load by `nsenter …`";
    assert_has(
        &printed,
        &[&format!("Traffic goes {traffic}.\n"), &format!("- Traffic: {traffic}\n")],
    );
    let rows = place.rows("trials.csv");
    assert_reasons(&rows);
    for row in &rows {
        assert_eq!(
            (&*row["network_namespace"], &*row["retransmitted_segments"]),
            ("as commanded", "")
        );
    }
    let source = if has_tracepoints() { "tracepoints" } else { "self-reported: " };
    for row in of_pass(&rows, "syscalls") {
        assert_eq!(row["status"], "ok", "{row:?}");
        assert!(row["syscalls_source"].starts_with(source), "{row:?}");
    }
    assert_calls(&place);
    for row in measured(&of_pass(&rows, "latency")) {
        assert!(number(row, "latency_p50_us") >= 10_000.0, "both ways take 10 ms: {row:?}");
        assert_eq!(row["server_cpu_source"], "process clock");
        for column in
            ["server_run_delay_percent", "client_run_delay_percent", "context_switches_per_echo"]
        {
            assert!(number(row, column) >= 0.0);
        }
        let histogram =
            format!("histograms/{:0>4}-four-{}.hlog", row["run_id"], row["arm"].replace(' ', "-"));
        assert!(place.out().join(&histogram).is_file(), "{histogram}");
    }
    let sides = &place.manifest()["sides"];
    assert_eq!((&sides["over_loopback"], &sides["one_machine"]), (&false.into(), &true.into()));
    assert_eq!(sides["server"]["machine"]["boot_id"], place.manifest()["machine"]["boot_id"]);
}

#[test]
fn every_byte_comes_over_a_wire_that_loses_packets() {
    let Some(wire) = Wire::lay(Duration::ZERO, Some(50)) else { return };
    let place = Place::with(&matrix("1s"));
    success(wire.run(&place).args(["--server-address", ADDRESSES[0]]));
    let rows = place.rows("trials.csv");
    for row in of_pass(&rows, "syscalls") {
        assert_eq!((&*row["status"], &*row["echoes"]), ("ok", "100"), "{row:?}");
    }
    assert_calls(&place);
    measured(&of_pass(&rows, "latency"));
    assert!(wire.holders.iter().map(Holder::retransmitted).sum::<u64>() > 0);
}

#[test]
fn an_address_that_the_load_does_not_reach_is_named() {
    let Some(wire) = Wire::lay(Duration::ZERO, None) else { return };
    let place = Place::with(&matrix("50ms"));
    // Each of the two has one.
    let mut run = wire.run(&place);
    ended_with(NO_FIGURES, &run.args(["--server-address", "127.0.0.1"]).output().unwrap());
    for row in place.rows("trials.csv") {
        assert_eq!(row["status"], "failed");
        assert_has(
            &row["reason"],
            &["--server-address 127.0.0.1 must be an address of the server's side that the \
                 load's side reaches: "],
        );
    }
}

/// A prefix behind which the number of a process is another than here.
const ELSEWHERE: &str = "unshare --pid --fork --mount-proc";

fn has_pid_namespaces() -> bool {
    let mut words = ELSEWHERE.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).arg("true").output();
    let can = output.as_ref().is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("skipped: {ELSEWHERE} true: {output:?}");
    }
    can
}

#[test]
fn a_process_that_is_not_to_be_seen_reports_itself() {
    if !has_pid_namespaces() {
        return;
    }
    let memory = "[memory]\nquestion = \"q\"\nconnections = [8, 16]\nmessage_bytes = 64\n";
    let place = Place::with(&matrix("100ms").replace("[latency]", &format!("{memory}[latency]")));
    let printed = stdout(&success(place.run().args([
        "--server-command",
        ELSEWHERE,
        "--load-command",
        ELSEWHERE,
    ])));
    let unseen =
        "memory and walks through connection counts: the server is in another pid namespace";
    assert_has(
        &printed,
        &[
            "Traffic goes over loopback, both sides on one machine; server started by `unshare …`",
            &format!("  not measured of the server: {unseen}\n"),
            "  not measured of the load: run delay: the load is in another pid namespace\n",
            &format!("- Not measured of the server: {unseen}\n"),
        ],
    );
    let rows = place.rows("trials.csv");
    assert_reasons(&rows);
    for row in of_pass(&rows, "memory") {
        assert_eq!((&*row["status"], &*row["reason"]), ("unsupported", unseen));
    }
    assert!(place.rows("memory.csv").is_empty());
    for row in of_pass(&rows, "syscalls") {
        assert_eq!(row["status"], "ok", "{row:?}");
        assert_has(
            &row["syscalls_source"],
            &["self-reported: the server's process is not to be seen here"],
        );
    }
    assert_calls(&place);
    assert!(place.rows("events.csv").iter().all(|row| row["source"].starts_with("unavailable: ")));
    for row in measured(&of_pass(&rows, "latency")) {
        assert_eq!(row["server_cpu_source"], "self-reported");
        assert!(
            number(row, "server_cpu_ns_per_echo") > 0.0
                && number(row, "client_cpu_ns_per_echo") > 0.0
        );
        for column in [
            "server_run_delay_percent",
            "client_run_delay_percent",
            "context_switches_per_echo",
            "server_cpu_user_ns_per_echo",
        ] {
            assert_eq!(row[column], "", "{column}: {row:?}");
        }
    }
    let sides = &place.manifest()["sides"];
    assert_has(
        &sides["server"]["not_measured"].to_string(),
        &[unseen, "CPU time and system calls are self-reported"],
    );
}

/// A command behind which the machine is another, as far as its programs can tell.
fn another_machine(place: &Place) -> bool {
    fs::write(place.path("boot_id"), "another").unwrap();
    let mount = "mount --bind boot_id /proc/sys/kernel/random/boot_id && exec \"$@\"";
    script(place, "away", &format!("exec unshare --mount sh -c '{mount}' - \"$@\""));
    let output = Command::new("./away").arg("true").current_dir(place.path("")).output().unwrap();
    if !output.status.success() {
        eprintln!("skipped: no mount namespace: {output:?}");
    }
    output.status.success()
}

#[test]
fn two_sides_on_another_machine_are_apart_only_by_their_commands() {
    let place = Place::with(&matrix("50ms"));
    let Some([one, other]) = two_cpus().filter(|_| another_machine(&place)) else { return };
    let on = |cpu: usize| format!("taskset -c {cpu} ./away");
    let apart = [on(one), on(other)];
    for ([server, load], is_shared) in
        [(["./away"; 2], "true"), (apart.each_ref().map(|on| &**on), "false")]
    {
        let _ = fs::remove_dir_all(place.out());
        success(place.run().args(["--server-command", server, "--load-command", load]));
        assert_eq!(place.manifest()["sides"]["one_machine"], true);
        let rows = place.rows("trials.csv");
        for row in measured(&of_pass(&rows, "latency")) {
            assert_eq!(
                (&*row["server_cpus"], &*row["client_cpus"]),
                ("", ""),
                "not pinned from here"
            );
            assert_eq!(
                (&*row["server_cpu_source"], &*row["shared_cpu"]),
                ("self-reported", is_shared)
            );
        }
    }
}

/// A command whose child is the server is not taken for the server.
#[test]
fn a_process_behind_another_is_measured_itself() {
    let place = Place::with(&matrix("50ms"));
    // timeout(1) stays the parent of what it starts.
    success(place.run().args(["--server-command", "timeout 600"]));
    let rows = place.rows("trials.csv");
    let source = if has_tracepoints() { "tracepoints" } else { "self-reported: " };
    for row in of_pass(&rows, "syscalls") {
        assert_eq!(row["status"], "ok", "{row:?}");
        assert!(row["syscalls_source"].starts_with(source), "{row:?}");
    }
    assert_calls(&place);
    let row = measured(&of_pass(&rows, "latency"))[0];
    assert_eq!(row["server_cpu_source"], "process clock");
    assert!(number(row, "context_switches_per_echo") >= 0.0);
}

#[test]
fn a_lost_way_leaves_no_server_behind() {
    if !has_pid_namespaces() {
        return;
    }
    let place = Place::with(&matrix("300ms").replace("blocks = 1", "blocks = 100"));
    let mut command = place.run();
    command.args(["--server-command", ELSEWHERE, "--load-command", ELSEWHERE]);
    let running = Running::start(&mut command);
    let programs = wait_for("server and load behind their commands", || {
        let behind: Vec<_> =
            children_of(running.pid()).iter().flat_map(|way| children_of(way.0)).collect();
        let is_program =
            |name| behind.iter().any(|program| arguments(program.0).concat().contains(name));
        (is_program("ringmark-server") && is_program("--commands")).then_some(behind)
    });
    running.signal(libc::SIGKILL);
    running.end();
    wait_until("the end of server and load", || !programs.iter().any(Process::runs));
}

#[test]
fn what_is_no_way_is_named_in_one_line() {
    for (command, words) in [
        ("no-such-program x", "No such file"),
        ("false", "ended without a word (exit status: 1)"),
        ("sh -c 'echo sorry >&2; exit 3'", "sorry"),
        ("echo hello", "unexpected output from the command: hello "),
        ("a 'b", "has no end"),
        ("", "no word in it"),
    ] {
        for option in ["--server-command", "--load-command"] {
            let place = Place::with(&matrix("50ms"));
            let line = failure(place.run().args([option, command]));
            assert_has(&line, &[&format!("ringmark: {option} `{command}`: "), words]);
            assert!(!place.out().exists());
        }
    }
    let place = Place::with(&matrix("50ms"));
    let line = failure(place.run().args(["--server-address", "10.0.0.1"]));
    assert_has(&line, &["only with --server-command or --load-command; without them 127.0.0.1 or"]);
}

#[test]
fn a_run_goes_over_ipv6_where_it_is_told_to() {
    let place = Place::with(&calls(&["epoll-et"]));
    success(place.run().args(["--server-address", "::1"]));
    for row in place.rows("trials.csv") {
        assert!(row["path"] == "loopback6" || row["status"] == "unsupported", "{row:?}");
    }
    let mut again = place.command("run");
    success(again.args(["--replay", "out", "--out", "again", "--server-address", "::1"]));
    let place = Place::with(&calls(&["epoll-et"]));
    success(&mut place.run());
    let mut other = place.command("run");
    other.args(["--replay", "out", "--out", "other", "--server-address", "::1"]);
    assert_has(&failure(&mut other), &["--server-address ::1: the run began with 127.0.0.1"]);
}

#[test]
fn a_repeated_run_is_where_it_was() {
    let place = Place::with(&calls(&["epoll-et"]));
    success(place.run().args(["--server-command", "env"]));
    let mut again = place.command("run");
    success(again.args(["--replay", "out", "--out", "again"]));
    let sides = &manifest(&place.path("again"))["sides"];
    assert_eq!(sides["server"]["command"], "env");
    assert_eq!(sides["load"]["command"], serde_json::Value::Null);
    let refused = |arguments: &[&str], words: &[&str]| {
        let mut command = place.command("run");
        assert_has(
            &failure(command.args(["--replay", "out", "--out", "other"]).args(arguments)),
            words,
        );
    };
    refused(
        &["--server-command", "nice -n 2"],
        &["--server-command `nice …`: the run began by `env`"],
    );
    refused(&["--load-command", "env"], &["--load-command `env`: the run began without a command"]);
    refused(&["--server-address", "127.0.0.2"], &["the run began with 127.0.0.1"]);
}

/// A program of a person's own, in the place of the run.
pub fn script(place: &Place, name: &str, text: &str) {
    let path = place.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// As ssh does: its words, joined again, are a line for a shell on that host.
const AS_SSH: &str = "exec sh -c \"$*\"";

/// No file of the results has that in it.
#[track_caller]
fn assert_untold(place: &Place, secret: &str) {
    for entry in fs::read_dir(place.out()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            assert!(!fs::read_to_string(&path).unwrap().contains(secret), "{}", path.display());
        }
    }
}

#[test]
fn results_do_not_tell_whose_hosts_these_are() {
    const HOST: &str = "nobody-may-read-this-host";
    let place = Place::with(&calls(&["epoll-et"]));
    script(&place, "sshpass", &format!("shift 4\n{AS_SSH}"));
    script(&place, "wrap", "shift\nexec \"$@\"");
    let programs = server().parent().unwrap();
    std::os::unix::fs::symlink(programs, place.path(HOST)).unwrap();
    let given = [
        format!("--server-command=./sshpass -p {HOST} ssh me@{HOST}"),
        "--load-command".to_owned(),
        format!("./wrap {HOST}"),
        "--remote-bin".to_owned(),
        HOST.to_owned(),
    ];
    success(place.run().args(&given));
    let rows = place.rows("trials.csv");
    assert!(rows.iter().all(|row| row["status"] == "ok"), "{rows:?}");
    let sides = &place.manifest()["sides"];
    assert_eq!(
        (&sides["server"]["command"], &sides["load"]["command"]),
        (&"…/sshpass …".into(), &"…/wrap …".into())
    );
    assert_untold(&place, HOST);

    let mut again = place.command("run");
    again.args(["--replay", "out", "--out", "again"]);
    assert_has(
        &failure(&mut again),
        &["the run began with --server-command `…/sshpass …`, --load-command `…/wrap …`, \
             --remote-bin `…`, of which it does not \
             keep all: give --server-command, --load-command, --remote-bin again"],
    );
    again.args(&given[..3]);
    assert_has(
        &failure(&mut again),
        &["--remote-bin `…`, of which it does not keep all: give --remote-bin again"],
    );
    success(again.args(&given[3..]));
}

#[test]
fn a_lost_way_does_not_tell_whose_it_was() {
    let place = Place::with(&calls(&["epoll-et"]));
    // It is there when it is asked, and then no more.
    let refused = "ssh: connect to host bench.example.org port 2222: refused";
    let text = format!(
        "shift 3\ncase \"$*\" in *describe-side*) {AS_SSH};; esac\necho {refused} >&2\nexit 255"
    );
    script(&place, "ssh", &text);
    let mut run = place.run();
    run.args(["--server-command", "./ssh -p 2222 bench"]);
    ended_with(NO_FIGURES, &run.output().unwrap());
    let rows = place.rows("trials.csv");
    for row in &rows {
        assert_eq!(row["status"], "failed");
        assert_has(
            &row["reason"],
            &["--server-command `…/ssh", "ssh: connect to host … port …: refused"],
        );
    }
    assert_untold(&place, "example.org");
}
