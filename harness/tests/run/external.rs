//! Servers that are not ours, in a matrix beside one that is. On a busy machine the gates may turn
//! any trial away, which leaves its figures and takes its notes: what is told by a note is looked
//! for in the rows that stand.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, exit};
use std::thread;
use std::time::Duration;

use crate::broken_server::serve;
use crate::confine::limit_open_files;
use crate::processes::{Running, wait_for, wait_until};
use crate::programs::server;
use crate::{
    CALLS, FOUR_CONNECTIONS, INTERRUPTED, LATENCY, Place, Row, assert_has, ended_with, failure,
    heading, stdout, unmeasured,
};

/// The stand-in's task, and the file that it shows at the place where it runs, in one variable of
/// its environment. Processes of one test are told by it from those of all others.
const ROLE: &str = "RINGMARK_TEST_ROLE";
const PORT: &str = "RINGMARK_TEST_PORT";

const SYSCALLS: &str = "[syscalls]\nechoes = 200\n";

const ONE_CONNECTION: &str = "
[[workload]]
name = \"one\"
question = \"What does an echo cost alone?\"
connections = 1
message_bytes = 64
";

/// An `[[external]]` with this command.
fn external(command: &[&str], ready: &str) -> String {
    format!(
        "[[external]]\nname = \"other\"\ncommand = {command:?}\nready = {ready}\nready_within \
        = \"20s\"\n\
         version = [\"sh\", \"-c\", \"echo; echo other 1.2 >&2; echo more >&2\"]\nbuild = \"make \
         other\"\n"
    )
}

/// A matrix of one of ours and the stand-in in a role, of which no process is left in the end.
struct Trials {
    place: Place,
    role: String,
}

impl Trials {
    fn of(role: &str, passes: &str) -> Self {
        let place = Place::with("");
        let role = format!("{role} {}", place.path("seen").display());
        let program = std::env::current_exe().unwrap();
        let variables = [format!("{ROLE}={role}"), format!("{PORT}={{port}}")];
        let command = [
            "env",
            &variables[0],
            &variables[1],
            program.to_str().unwrap(),
            "--exact",
            "external::stand_in",
            "--ignored",
            "--nocapture",
        ];
        let matrix =
            format!("{}{passes}{}", heading(&["epoll-et"]), external(&command, "\"port\""));
        fs::write(place.path("matrix.toml"), matrix).unwrap();
        Self { place, role }
    }

    fn rows(&self) -> Vec<Row> {
        self.place.rows("trials.csv").into_iter().filter(|row| row["arm"] == "other").collect()
    }

    fn runs(&self) -> bool {
        let variable = format!("{ROLE}={}", self.role);
        fs::read_dir("/proc").unwrap().any(|process| {
            let environment = fs::read(process.unwrap().path().join("environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|found| found == variable.as_bytes())
        })
    }

    #[track_caller]
    fn assert_gone(&self) {
        wait_until("the end of every process", || !self.runs());
    }
}

/// Whether the tracepoints of system calls can be had here: what our own server's row says.
fn has_tracepoints(place: &Place) -> bool {
    place
        .rows("trials.csv")
        .iter()
        .any(|row| row["arm"] == "epoll-et" && row["syscalls_source"] == "tracepoints")
}

const CPU: &str = "server_cpu_ns_per_echo";

/// Whether the gates have let it pass.
fn stands(row: &Row) -> bool {
    row["status"] != "rejected"
}

/// How often the external server made each call.
fn calls(place: &Place, arm: &str) -> Vec<(String, String)> {
    let rows = place.rows("syscalls.csv").into_iter().filter(|row| row["arm"] == arm);
    rows.map(|row| (row["syscall"].clone(), row["calls"].clone())).collect()
}

#[test]
fn one_of_ours_from_outside_costs_what_it_costs_from_inside() {
    for backend in ["epoll-et", "epoll-document"] {
        let command = [
            server().to_str().unwrap(),
            "--backend",
            backend,
            "--listen",
            "{address}:{port}",
            "--workers={workers}",
        ];
        let ready = "{ line = '\"event\":\"ready\"' }";
        let passes = format!("{SYSCALLS}{LATENCY}{ONE_CONNECTION}");
        let place =
            Place::with(&format!("{}{passes}{}", heading(&[backend]), external(&command, ready)));
        let printed = stdout(&place.run().output().unwrap());
        assert_eq!(place.manifest()["externals"]["other"], "other 1.2");

        let rows = place.rows("trials.csv");
        let of = |pass: &str, arm: &str| {
            rows.iter().rfind(|row| row["pass"] == pass && row["arm"] == arm).unwrap()
        };
        let (inside, outside) = (of("syscalls", backend), of("syscalls", "other"));
        if has_tracepoints(&place) || inside["syscalls_source"] == "tracepoints" {
            assert_eq!(outside["status"], "ok", "{outside:?}");
            assert_eq!(outside["syscalls_per_echo"], inside["syscalls_per_echo"]);
            assert_eq!(calls(&place, "other"), calls(&place, backend));
            assert_has(&outside["syscalls_source"], &["tracepoints: not checked"]);
        } else {
            assert_eq!(outside["status"], "unsupported");
            assert_has(&outside["reason"], &["no counters of its own"]);
            assert!(calls(&place, "other").is_empty());
        }
        let outside = of("latency", "other");
        assert_eq!(outside["connections"], "1");
        for column in [
            "server_cpu_ns_per_echo",
            "context_switches_per_echo",
            "latency_p50_us",
            "achieved_per_s",
        ] {
            assert!(outside[column].parse::<f64>().unwrap() > 0.0, "{column}: {outside:?}");
        }
        // Figures that it cannot tell are empty, and it is said.
        assert_eq!((&*outside["loop_counters"], &*outside["events_per_wait"]), ("", ""));
        if stands(outside) {
            assert_has(&outside["reason"], &["external: what only a server's own counters tell"]);
            let is_compared = place.rows("comparisons.csv").iter().any(|row| row["metric"] == CPU);
            assert!(!is_compared || printed.contains("external: other 1.2"), "{printed}");
        }
    }
}

#[test]
fn it_runs_where_ours_do() {
    let trials = Trials::of("echo", &format!("{LATENCY}{FOUR_CONNECTIONS}"));
    trials.place.run().output().unwrap();
    let row = &trials.rows()[0];
    let seen = fs::read_to_string(trials.place.path("seen")).unwrap();
    let [cpus, blocked, network] = seen.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{seen}")
    };
    assert_eq!(u64::from_str_radix(blocked, 16).unwrap(), 0, "no signal that it may wait for");
    if !row["server_cpus"].is_empty() {
        assert_eq!(cpus, row["server_cpus"]);
    }
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(network != own.to_str().unwrap(), row["network_namespace"] == "fresh");
    assert_eq!(row["connections"], "4");
    trials.assert_gone();
}

/// Checks the reason of every row of a stand-in that has but failed.
#[track_caller]
fn assert_fails(trials: &Trials, parts: &[&str]) {
    let refusal = unmeasured(&mut trials.place.run());
    // A whole run that has failed is not made good by asking for the rest of it.
    let again = unmeasured(&mut trials.place.resume());
    assert_eq!(again.lines().last(), refusal.lines().last());
    let rows = trials.rows();
    assert!(!rows.is_empty());
    for row in rows {
        assert_eq!(row["status"], "failed");
        assert_has(&row["reason"], parts);
    }
    // It takes nothing from ours.
    let all = trials.place.rows("trials.csv");
    assert!(all.iter().filter(|row| row["arm"] != "other").all(|row| row["status"] != "failed"));
    trials.assert_gone();
}

#[test]
fn one_that_alters_a_byte_is_found_out() {
    assert_fails(
        &Trials::of("flip", &format!("{LATENCY}{FOUR_CONNECTIONS}")),
        &["offset 10: ", "altered them"],
    );
}

#[test]
fn one_that_dies_under_load_is_blamed() {
    assert_fails(
        &Trials::of("die", &format!("{LATENCY}{FOUR_CONNECTIONS}")),
        &["under load: the server ended"],
    );
}

#[test]
fn one_that_never_gets_ready_is_given_up() {
    for (command, ready, parts) in [
        (
            ["sleep", "600{port}"],
            "\"port\"",
            ["not ready within 100ms: ", "does not listen on port "],
        ),
        (
            ["tail", "-f/dev/null{port}"],
            "\"port\"",
            ["the server ended before it was ready: ", "tail"],
        ),
        (
            ["sleep", "600{port}"],
            "{ line = \"here I am\" }",
            ["not ready within 100ms", "contains 'here I am'"],
        ),
    ] {
        let text = format!(
            "{}{LATENCY}{FOUR_CONNECTIONS}{}",
            heading(&["epoll-et"]),
            external(&command, ready)
                .replace("20s", if command[0] == "sleep" { "100ms" } else { "20s" })
        );
        let place = Place::with(&text);
        unmeasured(&mut place.run());
        let rows = place.rows("trials.csv");
        assert_has(&rows.iter().find(|row| row["arm"] == "other").unwrap()["reason"], &parts);
    }
}

#[test]
fn one_that_never_stands_costs_no_other_blocks_and_its_words_move_no_cursor() {
    let calls = heading(&["epoll-et"]) + CALLS;
    let workloads: String =
        (0..5).map(|number| FOUR_CONNECTIONS.replace("four", &format!("four-{number}"))).collect();
    let latency = LATENCY.replace("blocks = 1", "blocks = 2");
    // Without a version command too.
    let other = "[[external]]\nname = \"other\"\nready = \"port\"\ncommand = [\"sh\", \"-c\", \
                 \"printf 'no: a|b \\\\033[31mred\\\\007\\\\n' >&2; exit 3 # {port}\"]\n";
    let place = Place::with(&(calls + &latency + other + &workloads));
    let line = failure(&mut place.run());
    assert_has(&line, &["no: a|b  [31mred"]);
    let rows = place.rows("trials.csv");
    let of = |arm: &str| rows.iter().filter(|row| row["arm"] == arm).collect::<Vec<_>>();
    let others = of("other");
    assert_eq!(
        others.iter().filter(|row| row["pass"] == "syscalls").count(),
        5,
        "one for each planned block"
    );
    assert_eq!(
        others.iter().filter(|row| !row["reason"].starts_with("not run: 4 times before")).count(),
        4
    );
    assert!(
        others.iter().all(|row| row["status"] == "failed" && row["reason"].contains("no: a|b"))
    );
    assert!(of("epoll-et").iter().all(|row| row["block"].parse::<u32>().unwrap() <= 3));
    assert_eq!(
        place.manifest()["externals"]["other"],
        "unknown: the matrix names no version command"
    );
    for file in ["trials.csv", "manifest.json", "report.html"] {
        let text = fs::read_to_string(place.out().join(file)).unwrap();
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{file}");
    }
    let printed = stdout(&place.report().output().unwrap());
    assert!(!printed.chars().any(|c| c.is_control() && c != '\n'), "{printed}");
}

#[test]
fn one_that_is_missing_is_unsupported_and_the_others_are_measured() {
    let matrix = format!("{}{LATENCY}{FOUR_CONNECTIONS}", heading(&["epoll-et"]));
    let missing = external(&["no-such-server", "{port}"], "\"port\"");
    let place = Place::with(&format!("{matrix}{missing}"));
    let printed = stdout(&place.run().output().unwrap());
    let reason = "no-such-server is not in PATH; to have it: make other";
    assert_has(&printed, &[&format!("other is `unsupported`: {reason}")]);
    assert_eq!(place.manifest()["externals"]["other"], format!("missing: {reason}"));
    let rows = place.rows("trials.csv");
    let row = rows.iter().find(|row| row["arm"] == "other").unwrap();
    assert_eq!((&*row["status"], &*row["reason"]), ("unsupported", reason));

    // With nothing to compare with there is no use in a run.
    let place = Place::with(&format!("{}{missing}", with_it_as_baseline(&matrix)));
    assert_has(
        &failure(&mut place.run()),
        &["the baseline 'other' is `unsupported`, and nothing", reason],
    );
}

fn with_it_as_baseline(matrix: &str) -> String {
    matrix.replace("baseline = \"epoll-et\"", "baseline = \"other\"")
}

#[test]
fn where_a_command_leads_nothing_is_compared_with_one() {
    let matrix = format!("{}{LATENCY}{FOUR_CONNECTIONS}", heading(&["epoll-et"]));
    let other = external(&["sleep", "600{port}"], "\"port\"");
    let place = Place::with(&format!("{}{other}", with_it_as_baseline(&matrix)));
    assert_has(
        &failure(place.run().args(["--server-command", "timeout 600"])),
        &["the baseline 'other' is `unsupported`", "leave --server-command and --load-command out"],
    );
    assert!(!place.out().exists(), "nothing was begun");

    let place = Place::with(&format!("{matrix}{other}"));
    let printed = stdout(&place.run().args(["--server-command", "timeout 600"]).output().unwrap());
    assert_has(&printed, &["other is `unsupported`: an external server is started here"]);
}

#[test]
fn one_with_a_name_of_ours_is_refused() {
    let text = format!(
        "{}{LATENCY}{FOUR_CONNECTIONS}{}",
        heading(&["epoll-et"]),
        external(&["sleep", "{port}"], "\"port\"").replace("\"other\"", "\"uring-bundle\"")
    );
    assert_has(
        &failure(&mut Place::with(&text).run()),
        &["external 'uring-bundle': one of our backends has that name"],
    );
}

#[test]
fn a_process_for_each_connection_is_counted_with_the_others_and_reaped() {
    let trials = Trials::of("fork", &format!("{SYSCALLS}{LATENCY}{ONE_CONNECTION}"));
    trials.place.run().output().unwrap();
    let rows = trials.rows();
    let of = |pass: &str| rows.iter().rfind(|row| row["pass"] == pass).unwrap();
    let latency = of("latency");
    if stands(latency) {
        assert_has(&latency["reason"], &["those of the server's 2 processes"]);
    }
    assert!(latency["server_cpu_ns_per_echo"].parse::<f64>().unwrap() > 0.0);
    if has_tracepoints(&trials.place) {
        // The child's calls: each echo is one receive and one send.
        let echoes = of("syscalls")["echoes"].clone();
        let calls = calls(&trials.place, "other");
        for call in ["recvfrom", "sendto"] {
            assert!(
                calls.contains(&(call.to_owned(), echoes.clone())),
                "{call} {echoes}: {calls:?}"
            );
        }
    }
    trials.assert_gone();
}

#[test]
fn the_cpu_of_processes_that_come_and_go_is_left_out() {
    let trials = Trials::of("restless", &format!("{LATENCY}{FOUR_CONNECTIONS}"));
    let printed = stdout(&trials.place.run().output().unwrap());
    let rows = trials.rows();
    let row = rows.iter().find(|row| stands(row)).unwrap_or(&rows[0]);
    for column in
        ["server_cpu_ns_per_echo", "server_cpu_user_ns_per_echo", "context_switches_per_echo"]
    {
        assert_eq!(row[column], "", "{column}");
    }
    assert!(row["achieved_per_s"].parse::<f64>().unwrap() > 0.0);
    let reason = "CPU and context switches are left out: processes of the server began or ended \
                  within the window";
    if stands(row) {
        assert_has(&row["reason"], &[reason]);
        assert_has(&printed, &[reason]);
    }
    trials.assert_gone();
}

#[test]
fn dead_processes_are_none_of_the_servers() {
    let trials = Trials::of("zombie", &format!("{SYSCALLS}{LATENCY}{ONE_CONNECTION}"));
    trials.place.run().output().unwrap();
    let rows = trials.rows();
    // It comes to rest, and is alone.
    if has_tracepoints(&trials.place) {
        assert!(
            rows.iter().any(|row| row["pass"] == "syscalls" && row["status"] == "ok"),
            "{rows:?}"
        );
    }
    for row in rows.iter().filter(|row| row["pass"] == "latency") {
        assert!(!row["server_cpu_ns_per_echo"].is_empty(), "{row:?}");
        assert!(!row["reason"].contains("processes"), "{row:?}");
    }
    trials.assert_gone();
}

#[test]
fn several_workers_of_it_are_given_no_more_than_one_table_of_files() {
    let command = [
        server().to_str().unwrap(),
        "--backend=epoll-et",
        "--listen={address}:{port}",
        "--workers={workers}",
        "--ports={workers}",
    ];
    // With so few files the walk loses its first count, and cannot be.
    let memory = "[memory]\nquestion = \"q\"\nconnections = [1, 400]\nmessage_bytes = 64\n";
    let matrix =
        format!("workers = 2\n{}{memory}{}", heading(&["other"]), external(&command, "\"port\""));
    let place = Place::with(&matrix);
    let mut command = place.run();
    limit_open_files(&mut command, 300);
    command.output().unwrap();
    let rows = place.rows("trials.csv");
    let row = rows.iter().find(|row| row["arm"] == "other").unwrap();
    assert_eq!(row["status"], "skipped");
    assert_has(
        &row["reason"],
        &["room for 267 by open files (RLIMIT_NOFILE 300, for all of a process)"],
    );
}

/// A run in the midst of a trial of the stand-in.
fn in_the_midst(role: &str) -> (Trials, Running) {
    let passes = format!("{LATENCY}{FOUR_CONNECTIONS}")
        .replace("duration = \"50ms\"", "duration = \"600s\"");
    let trials = Trials::of(role, &passes);
    // The baseline runs first.
    let file = trials.place.path("matrix.toml");
    let matrix = fs::read_to_string(&file).unwrap();
    fs::write(&file, matrix.replace("baseline = \"epoll-et\"", "baseline = \"other\"")).unwrap();
    let running = Running::start(&mut trials.place.run());
    wait_until("the stand-in", || trials.place.path("seen").exists() && trials.runs());
    (trials, running)
}

#[test]
fn a_killed_run_leaves_none_of_its_processes_behind() {
    let (trials, running) = in_the_midst("orphans");
    wait_until("the one that lives on", || trials.place.path("lives").exists());
    let ended = wait_for("the other one", || {
        let pid = fs::read_to_string(trials.place.path("ended")).ok()?;
        pid.strip_suffix('\n').map(str::to_owned)
    });
    wait_until("its being reaped", || !Path::new("/proc").join(&ended).exists());
    running.signal(libc::SIGKILL);
    running.end();
    trials.assert_gone();
}

#[test]
fn an_interrupted_run_leaves_none_of_its_processes_behind() {
    let (trials, running) = in_the_midst("fork");
    running.signal(libc::SIGINT);
    thread::sleep(Duration::from_millis(100));
    running.signal(libc::SIGINT);
    let output = running.end();
    assert_has(&ended_with(INTERRUPTED, &output), &["interrupted in the midst of a trial"]);
    trials.assert_gone();
}

/// An echo server that is told its port, and what to do wrong.
#[test]
#[ignore = "is no test but the server that the tests here start"]
#[expect(clippy::zombie_processes, reason = "one of the things to do wrong")]
fn stand_in() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (role, seen) = role.split_once(' ').unwrap();
    if std::env::var_os(PORT).is_none() {
        // SAFETY: a child of the role `fork` gets its connection as descriptor 0, which nobody else
        // uses.
        let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(0) });
        serve(stream, "", &Default::default());
        // Not back through the test's own runtime, which would print.
        exit(0);
    }
    let port: u16 = std::env::var(PORT).unwrap().parse().unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let cpus =
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let network = fs::read_link("/proc/self/ns/net").unwrap();
    // Reads this thread's: the first one blocks all while it makes others.
    let own = fs::read_to_string("/proc/thread-self/status").unwrap();
    let blocked = own.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
    fs::write(seen, format!("{cpus} {blocked} {}", network.display())).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    if role == "zombie" {
        // A child that nobody waits for.
        Command::new("true").spawn().unwrap();
    }
    if role == "orphans" {
        // One that ends, and one that lives on, in a session of its own.
        let script = "sh -c 'echo $$' >ended & setsid sleep 600 >lives &";
        let folder = Path::new(seen).parent().unwrap();
        Command::new("sh").args(["-c", script]).current_dir(folder).status().unwrap();
    }
    if role == "restless" {
        thread::spawn(|| {
            loop {
                let _ = Command::new("true").status();
            }
        });
    }
    for stream in listener.incoming().map_while(Result::ok) {
        stream.set_nodelay(true).unwrap();
        if role == "fork" {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(std::env::args().skip(1)).env_remove(PORT).stdin(OwnedFd::from(stream));
            let mut child = child.spawn().unwrap();
            thread::spawn(move || child.wait());
            continue;
        }
        let fault = role.to_owned();
        thread::spawn(move || serve(stream, &fault, &Default::default()));
    }
}
