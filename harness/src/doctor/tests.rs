#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use super::before_run::{refuse, walks, warnings};
use super::checks::lines;
use super::findings::{BackendSupport, Findings};
use super::lines::{CheckResult, CheckStatus};
use super::screen;
use crate::machine::Machine;
use crate::matrix::{Arm, Matrix};

/// A server of one's own, as root.
fn rich() -> Findings {
    let support = |name, is_uring| BackendSupport { name, is_uring, refused: None };
    Findings {
        machine: Machine {
            kernel_release: Some("6.12.9-amd64".to_owned()),
            open_files_soft: Some(1024),
            open_files_hard: Some(1_048_576),
            frequency_governor: Some("performance".to_owned()),
            idle_driver: Some("intel_idle".to_owned()),
            clocksource: Some("tsc".to_owned()),
            softirq_in_process_cpu: Some(true),
            ..Machine::default()
        },
        backends: vec![
            support("epoll-et", false),
            support("uring-multishot", true),
            support("uring-bundle", true),
        ],
        io_uring_disabled: Some("0".to_owned()),
        seccomp_mode: Some(0),
        cpus_allowed: Some(16),
        cores_allowed: Some(16),
        ports: Some((32_768, 60_999)),
        memory_available_bytes: Some(64 << 30),
        slabs_exact: true,
        idle_exit_us: Some(2),
        steal_percent: Some(0.0),
        run_delay_percent: Some(0.1),
        load_average: Some(0.05),
        clock_read_ns: Some(20),
        congestion_control: Some("cubic".to_owned()),
        somaxconn: Some(4096),
        ..Findings::default()
    }
}

/// A container with what engines allow by default, on a busy virtual machine.
fn poor() -> Findings {
    let refused = |why: &str| Some(why.to_owned());
    let mut findings = Findings {
        machine: Machine {
            is_virtual: true,
            open_files_hard: Some(1024),
            frequency_governor: None,
            idle_driver: None,
            clocksource: Some("hpet".to_owned()),
            softirq_in_process_cpu: Some(false),
            ..rich().machine
        },
        io_uring_disabled: Some("2".to_owned()),
        seccomp_mode: Some(2),
        cpus_allowed: Some(1),
        cores_allowed: Some(1),
        locked_memory_bytes: Some(8 << 20),
        ports: Some((60_000, 60_999)),
        memory_available_bytes: Some(8 << 30),
        memory_bound_bytes: Some(100 << 20),
        namespace_refused: refused("network namespaces need root (CAP_SYS_ADMIN): run as root"),
        tracing_refused: refused("tracefs is not mounted, and mounting it needs root: run as root"),
        hardware_refused: refused("none here: give the virtual machine a PMU"),
        slabs_refused: refused("the kernel's objects can be read by root only: run as root"),
        slabs_exact: false,
        idle_exit_us: None,
        steal_percent: Some(12.0),
        run_delay_percent: Some(40.0),
        conntrack_max: Some(262_144),
        clock_read_ns: Some(2000),
        congestion_control: Some("bbr".to_owned()),
        somaxconn: Some(128),
        ..rich()
    };
    for support in findings.backends.iter_mut().filter(|support| support.is_uring) {
        support.refused = refused("io_uring_setup: EPERM: a seccomp filter refuses it; allow it");
    }
    findings
}

fn with_files(hard: u64, findings: Findings) -> Findings {
    let machine = Machine { open_files_hard: Some(hard), ..findings.machine };
    Findings { machine, ..findings }
}

fn result(findings: &Findings, check: &str) -> CheckResult {
    lines(findings).into_iter().find(|line| line.name == check).unwrap().result
}

#[track_caller]
fn assert_line(findings: &Findings, check: &str, status: CheckStatus, words: &[&str]) {
    let result = result(findings, check);
    assert_eq!(result.status, status, "{check}: {result:?}");
    let CheckResult { found, cost, advice, .. } = result;
    let text = [Some(found), cost, advice].into_iter().flatten().collect::<Vec<_>>().join("; ");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

fn matrix(from: &str, to: &str) -> Matrix {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("matrix/smoke.toml"))
            .unwrap();
    assert!(text.contains(from), "{from}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text.replace(from, to)).unwrap();
    Matrix::read(file.path()).unwrap()
}

fn all_run(_: &Arm) -> Option<String> {
    None
}

fn no_uring(contender: &Arm) -> Option<String> {
    let entry = ringmark::backend::find(&contender.backend).ok()?;
    (!entry.needs.default_container).then(|| "io_uring_setup: EPERM".to_owned())
}

fn none_runs(_: &Arm) -> Option<String> {
    Some("io_uring_setup: ENOSYS".to_owned())
}

#[test]
fn all_is_well_on_a_rich_machine() {
    let lines = lines(&rich());
    assert!(
        lines
            .iter()
            .all(|line| line.result.status == CheckStatus::Ok && line.result.cost.is_none()),
        "{lines:#?}"
    );
    let screen = screen::print(&lines);
    assert_eq!(screen.lines().count(), lines.len() + 1, "{screen}");
    for words in [
        "all 2 run here",
        "1,048,576 (soft 1,024 is raised): 1,048,512 connections x threads",
        "28,232 x 254 source addresses: 2,540,000 connections x workers",
        "64.0 GiB available: 6,972,000 connections of 9,856 B",
        "23 ok, 0 limit results, 0 missing",
    ] {
        assert!(screen.contains(words), "`{words}` is not in:\n{screen}");
    }
    assert_eq!(rich().impossible(), None);
}

#[test]
fn a_poor_machine_hears_what_it_costs_and_what_to_do() {
    use CheckStatus::{LimitsResults, Missing, Ok};
    for (check, status, words) in [
        ("kernel", Ok, ["6.12.9", ""]),
        ("other backends", Ok, ["all 1 run", ""]),
        ("io_uring backends", Missing, ["0 of 2 run", "EPERM: a seccomp filter"]),
        ("io_uring_disabled", Missing, ["2: ", "`sysctl -w kernel.io_uring_disabled=0`"]),
        ("seccomp", LimitsResults, ["refuse io_uring, perf_event_open", "seccomp=unconfined"]),
        ("CPUs", LimitsResults, ["shared-cpu", "--cpuset-cpus"]),
        (
            "locked memory",
            LimitsResults,
            ["8,192 KiB for all rings of this user: 70 workers", "memlock=-1"],
        ),
        ("open files", LimitsResults, ["960 connections for each thread", "ulimit"]),
        (
            "local ports",
            LimitsResults,
            ["1,000 x 254 source addresses: 1,000 connections", "ip_local_port_range"],
        ),
        (
            "memory",
            LimitsResults,
            ["allowed by the control group: 10,000 connections", "more memory"],
        ),
        ("network namespace", Missing, ["host's ports", "run as root"]),
        ("conntrack", LimitsResults, ["262,144", "NOTRACK"]),
        ("tracepoints", Missing, ["by the server alone", "run as root"]),
        ("hardware counters", Missing, ["[hardware] is unsupported", "a PMU"]),
        ("kernel objects", Missing, ["own pages", "run as root"]),
        ("stolen time", LimitsResults, ["12.0 %", "rejected"]),
        ("other programs", LimitsResults, ["40.0 %", "`top`"]),
        ("idle CPUs", LimitsResults, ["hypervisor wakes them", "idle=poll"]),
        ("CPU frequency", Ok, ["hypervisor controls it", ""]),
        ("clock", LimitsResults, ["hpet, 2000 ns", "tsc"]),
        ("interrupt time", LimitsResults, ["no process's CPU", "machine_cpu_ns_per_echo"]),
        ("TCP congestion", LimitsResults, ["bbr", "tcp_congestion_control=cubic"]),
        (
            "accept queue",
            LimitsResults,
            ["128, below the 4,096", "`sysctl -w net.core.somaxconn=4096`"],
        ),
    ] {
        assert_line(&poor(), check, status, &words);
    }
    assert_eq!(poor().impossible(), None, "epoll still runs");
}

#[test]
fn what_is_not_ok_says_what_it_costs_and_what_to_do() {
    // Nothing at all can be read on the last machine.
    for findings in [rich(), poor(), Findings::default()] {
        for line in lines(&findings) {
            let CheckResult { status, found, cost, advice } = &line.result;
            let is_ok = *status == CheckStatus::Ok;
            assert!(cost.is_none() == is_ok && advice.is_none() == is_ok, "{line:?}");
            assert!(!found.is_empty(), "{line:?}");
        }
    }
}

#[test]
fn the_screen_is_narrow_and_keeps_commands_whole() {
    for findings in [rich(), poor(), Findings::default()] {
        let lines = lines(&findings);
        let screen = screen::print(&lines);
        let widest = screen.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 100, "{widest}:\n{screen}");
        for advice in lines.iter().filter_map(|line| line.result.advice.as_deref()) {
            for command in advice.split('`').skip(1).step_by(2) {
                assert!(screen.contains(command), "`{command}` is not in:\n{screen}");
            }
        }
    }
}

#[test]
fn one_thing_can_be_amiss_by_itself() {
    let with = |change: fn(&mut Findings)| {
        let mut findings = rich();
        change(&mut findings);
        findings
    };
    let limits = CheckStatus::LimitsResults;
    let cpus = |cpus, cores| Findings { cpus_allowed: Some(cpus), cores_allowed: cores, ..rich() };
    assert_line(&cpus(2, Some(2)), "CPUs", limits, &["SQPOLL", "three"]);
    assert_line(&cpus(4, Some(2)), "CPUs", limits, &["4 on 2 cores", "three"]);
    assert_line(&cpus(2, None), "CPUs", limits, &["2, but their cores are not known", "unnoticed"]);
    let one_core = Findings { cpu_quota: Some(1.0), ..cpus(2, Some(1)) };
    assert_line(
        &one_core,
        "CPUs",
        limits,
        &["2 on one core", "shared-core", "hyperthreads = true"],
    );
    assert_line(&cpus(64, Some(32)), "CPUs", CheckStatus::Ok, &["64 on 32 cores; one CPU of each"]);
    let packages = ["0-15,32-47", "16-31,48-63"].map(str::to_owned).to_vec();
    let packages = Findings { packages_allowed: packages, ..cpus(64, Some(32)) };
    assert_line(&packages, "CPUs", limits, &["in 2 packages", "`taskset -c 0-15,32-47`"]);
    let quota = with(|findings| findings.cpu_quota = Some(1.5));
    assert_line(
        &quota,
        "CPUs",
        limits,
        &["16, but the control group allows CPU time for 1.50", "cpu.max"],
    );
    let old =
        with(|findings| findings.machine.kernel_release = Some("5.15.0-91-generic".to_owned()));
    assert_line(&old, "kernel", limits, &["need Linux 6.1"]);
    let deep = with(|findings| findings.idle_exit_us = Some(133));
    assert_line(&deep, "idle CPUs", limits, &["intel_idle: up to 133 us", "cpupower idle-set"]);
    let polling = with(|findings| {
        findings.machine.is_virtual = true;
        findings.machine.idle_driver = Some("haltpoll".to_owned());
    });
    assert_line(&polling, "idle CPUs", limits, &["haltpoll"]);
    let powersave =
        with(|findings| findings.machine.frequency_governor = Some("powersave".to_owned()));
    assert_line(&powersave, "CPU frequency", limits, &["cpupower frequency-set -g performance"]);
    let privileged = with(|findings| findings.io_uring_disabled = Some("1".to_owned()));
    assert_line(&privileged, "io_uring_disabled", CheckStatus::Ok, &["privileged"]);
    let filtered = with(|findings| findings.seccomp_mode = Some(2));
    assert_line(&filtered, "seccomp", CheckStatus::Ok, &["refuses nothing"]);
    let rooted = with(|findings| findings.conntrack_max = Some(1000));
    assert_line(&rooted, "conntrack", CheckStatus::Ok, &["inactive"]);
    let partly =
        with(|findings| findings.backends[2].refused = Some("needs Linux 6.10".to_owned()));
    assert_line(
        &partly,
        "io_uring backends",
        limits,
        &["1 of 2", "not uring-bundle: needs Linux 6.10"],
    );
    let untraced = with(|findings| findings.untraced_calls = vec!["recv"]);
    assert_line(&untraced, "tracepoints", limits, &["none for recv"]);
}

#[test]
fn threads_that_share_their_files_hold_as_many_connections_as_one() {
    let findings = Findings { file_table_refused: Some("EPERM".to_owned()), ..rich() };
    let words = ["(CLONE_FILES): EPERM", "1,048,512 connections in all", "unconfined"];
    assert_line(&findings, "open files", CheckStatus::LimitsResults, &words);
    assert_eq!(findings.impossible(), None);
    let most =
        |findings: &Findings| findings.connection_limits().for_server(4, 4, 576, 0)[0].clone();
    assert_eq!((most(&rich()).connections, most(&findings).connections), (4_192_000, 1_048_000));
    assert!(
        most(&findings).reason.contains("all threads of a process"),
        "{}",
        most(&findings).reason
    );
    let none = Findings {
        backends: vec![BackendSupport {
            name: "a",
            is_uring: false,
            refused: Some("why".to_owned()),
        }],
        ..rich()
    };
    assert!(none.impossible().is_some_and(|why| why.contains("no backend runs here: a: why")));
}

#[test]
fn a_matrix_that_does_not_fit_is_refused_in_one_line() {
    let large = |connections: &str| {
        let to = format!("connections = {connections}\nmessage_bytes = 64\n");
        matrix("connections = 8\nmessage_bytes = 64\n", &to)
    };
    let refused = |findings: &Findings, matrix: &Matrix, words: &[&str]| {
        let why = format!("{:#}", refuse(findings, matrix, false, all_run).unwrap_err());
        assert!(!why.contains('\n') && words.iter().all(|word| why.contains(word)), "{why}");
    };
    let files = with_files(900, poor());
    refuse(&files, &large("884"), false, all_run).unwrap();
    refused(
        &files,
        &large("885"),
        &["workload '8-conn-64B'", "885 connections, but 884 fit", "RLIMIT_NOFILE 900"],
    );
    let files = with_files(1 << 40, poor());
    refused(&files, &large("1001"), &["1,001", "local ports (60000 to 60999"]);
    let ports = Findings { ports: rich().ports, ..files };
    refused(&ports, &large("2000000"), &["2,000,000", "memory (100 MiB"]);
    let machine = Findings { files_of_machine: Some(4001), ..rich() };
    refused(&machine, &large("2001"), &["2,001", "2,000 fit", "fs.file-max"]);
    // A walk goes as far as it can.
    refuse(&rich(), &matrix("128, 192]", "128, 9999999]"), false, all_run).unwrap();
    // More workers have more ports, and more threads more files.
    let several = matrix("baseline = ", "workers = 2\nbaseline = ");
    assert_eq!(several.workers, 2);
    // So do those of a workload; fewer of them have fewer.
    let of_workload = large("1500").workloads.remove(0);
    let with = |workers| {
        let mut matrix = large("1500");
        matrix.workloads =
            vec![crate::matrix::Workload { workers: Some(workers), ..of_workload.clone() }];
        matrix
    };
    refuse(&with_files(1 << 40, poor()), &with(2), false, all_run).unwrap();
    refused(&with_files(1 << 40, poor()), &with(1), &["1,500", "1 ports of the server"]);
    let most = |workers, ports| {
        let bounds = poor().connection_limits().for_server(workers, ports, 16, 0);
        bounds.iter().map(|bound| bound.connections).collect::<Vec<_>>()
    };
    assert_eq!(most(1, 1)[..2], [1008, 1000]);
    assert_eq!(most(2, 2)[..2], [2016, 2000]);
    assert_eq!(most(1, 2)[..2], [1008, 2000]);
}

const SCALE: &str = "[scale]\nquestion = \"q\"\nconnections = [128, 256]\nactive = 8\n\
                     message_bytes = 64\nrate_per_s = 100.0\nrepeats = 1\nduration = \"1s\"\n\
                     warmup_max = \"0s\"\n";

/// The matrix with a server that is not ours, and what else is put before its first workload.
fn with_external(also: &str) -> Matrix {
    let first = "[[workload]]\nname = \"8-conn-64B\"";
    let external = "[[external]]\nname = \"other\"\ncommand = [\"sh\", \"{port} {workers}\"]\n\
                    ready = \"port\"\nversion = [\"sh\"]\n";
    matrix(first, &format!("{also}{external}{first}"))
}

#[test]
fn one_process_of_another_server_has_one_table_of_files() {
    let most = |ports| {
        let limits = Findings { ports, ..with_files(1024, rich()) }.connection_limits();
        limits.for_external(16).iter().map(|bound| bound.connections).collect::<Vec<_>>()
    };
    assert_eq!(most(Some((60_000, 60_999)))[..2], [1008, 1000]);

    let mut matrix = with_external("");
    (matrix.workers, matrix.workloads[0].connections) = (2, 2000);
    let files = with_files(1024, rich());
    let said = |matrix: &Matrix| warnings(&lines(&files), &files, matrix, false, all_run);
    let why = "workload '8-conn-64B', to a server that is not ours: 2,000 connections, but 1,008 \
               fit here by open files (RLIMIT_NOFILE 1024, for all of a process): raise \
               `ulimit -Hn`; or ask for fewer";
    assert_eq!(said(&matrix), [why]);
    refuse(&files, &matrix, false, all_run).unwrap();
    matrix.externals.clear();
    assert_eq!(said(&matrix), [""; 0]);
}

#[test]
fn what_cannot_be_measured_of_another_server_is_said_or_refused() {
    let said = |matrix: &Matrix, is_commanded| {
        warnings(&lines(&rich()), &rich(), matrix, is_commanded, all_run)
    };
    let refused = |matrix: &Matrix, is_commanded| {
        refuse(&rich(), matrix, is_commanded, all_run).map_err(|error| format!("{error:#}"))
    };
    let mut matrix = with_external("");
    assert_eq!(said(&matrix, false), [""; 0]);
    assert!(
        said(&matrix, true)[0]
            .starts_with("other is `unsupported`: an external server is started here")
    );
    refused(&matrix, true).unwrap();
    matrix.baseline = "other".to_owned();
    refused(&matrix, false).unwrap();
    let why = refused(&matrix, true).unwrap_err();
    assert!(
        why.starts_with("the baseline 'other' is `unsupported`, and nothing could be compared: "),
        "{why}"
    );

    // One of several passes can.
    let mut matrix = with_external(SCALE);
    matrix.baseline = "other".to_owned();
    refused(&matrix, false).unwrap();
    let in_pass = "other is `unsupported` in the scale pass: this pass reads counters that only \
                   our own servers have";
    assert_eq!(said(&matrix, false), [in_pass]);
    (matrix.latency, matrix.syscalls, matrix.memory) = (None, None, None);
    assert!(refused(&matrix, false).unwrap_err().contains("only our own servers"));
}

#[test]
fn what_a_long_walk_has_room_for_is_said_beforehand() {
    let limits = rich().connection_limits();
    assert!(walks(&limits, &matrix("question", "question")).is_empty());
    let said = walks(&limits, &matrix("128, 192]", "128, 1024000]"));
    assert!(said[0].contains("1,024,000 connections to 1 workers on 1 ports"), "{said:?}");
    assert!(said.len() >= 4 && said.iter().skip(1).all(|line| line.contains(" by ")), "{said:?}");
}

#[test]
fn a_matrix_needs_one_backend_that_runs() {
    let smoke = matrix("question", "question");
    refuse(&rich(), &smoke, false, no_uring).unwrap();
    let why = format!("{:#}", refuse(&rich(), &smoke, false, none_runs).unwrap_err());
    assert!(why.contains("no backend of this matrix runs here: io_uring_setup: ENOSYS"), "{why}");
}

#[test]
fn only_what_bears_on_the_matrix_is_said() {
    let said = |findings: &Findings, matrix: &Matrix, refusal| {
        warnings(&lines(findings), findings, matrix, false, refusal)
    };
    let smoke = matrix("question", "question");
    assert_eq!(said(&rich(), &smoke, all_run), [""; 0]);
    let refused = said(&rich(), &smoke, no_uring);
    assert!(refused.len() == 1 && refused[0].contains("uring-multishot"), "{refused:?}");
    let all = said(&poor(), &smoke, no_uring);
    assert!(all.len() == 6 && all[5].starts_with("and ") && all[5].ends_with(" more"), "{all:?}");

    let untraced = Findings { tracing_refused: Some("no tracefs".to_owned()), ..rich() };
    let lines_of = |matrix: &Matrix| said(&untraced, matrix, all_run);
    assert!(lines_of(&smoke)[0].starts_with("tracepoints: not permitted: system calls are"));
    assert_eq!(lines_of(&matrix("[syscalls]\nechoes = 200\n", "")), [""; 0]);

    let two = Findings { cpus_allowed: Some(2), cores_allowed: Some(2), ..rich() };
    assert_eq!(said(&two, &smoke, all_run), [""; 0]);
    let polls = matrix("{ backend = \"uring-multishot\" }", "{ backend = \"uring-sqpoll\" }");
    assert!(said(&two, &polls, all_run)[0].contains("SQPOLL"));

    let locks = Findings { locked_memory_bytes: Some(8 << 20), ..rich() };
    assert_eq!(said(&locks, &smoke, all_run), [""; 0]);
    let many = matrix("baseline = ", "workers = 82\nbaseline = ");
    let needs = "uring-multishot with 82 workers needs 9,512 KiB, and `ulimit -l` is 8,192 KiB: \
                 `unsupported`";
    assert!(said(&locks, &many, all_run)[0].contains(needs), "{:?}", said(&locks, &many, all_run));

    // Eight connections keep a CPU awake, one does not.
    let mut halting = rich();
    (halting.machine.is_virtual, halting.machine.idle_driver) = (true, None);
    assert_eq!(said(&halting, &smoke, all_run), [""; 0]);
    let one = matrix("connections = 8\n", "connections = 1\n");
    assert!(said(&halting, &one, all_run)[0].starts_with("idle CPUs"));
}
