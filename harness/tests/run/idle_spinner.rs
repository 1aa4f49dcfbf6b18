//! The program that keeps CPUs from halting: what it runs as, what its rows say, and that nothing
//! keeps it alive.

use std::fs;

use crate::processes::{Running, arguments, children_of, stat, wait_for, wait_until};
use crate::{FOUR_CONNECTIONS, LATENCY, Place, Row, assert_reasons, heading};

fn spinning() -> String {
    FOUR_CONNECTIONS.replace("four", "spinning") + "idle_spinner = true\n"
}

#[test]
fn its_rows_say_so_and_lack_what_it_spoils() {
    let place = Place::with(&format!(
        "{}{LATENCY}{FOUR_CONNECTIONS}{}",
        heading(&["epoll-et"]),
        spinning()
    ));
    // A busy machine may cost every trial.
    place.run().output().unwrap();
    let rows = place.rows("trials.csv");
    assert_reasons(&rows);
    let (with, without): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|row| row["workload"] == "spinning");
    assert!(with.len() >= 2 && without.len() >= 2);
    for row in with {
        assert_eq!(
            (row["idle_spinner"].as_str(), row["machine_cpu_ns_per_echo"].as_str()),
            ("true", ""),
            "{row:?}"
        );
        assert_ne!(row["status"], "failed", "{row:?}");
    }
    for row in without.into_iter().filter(|row| row["echoes"] != "0") {
        assert_eq!(row["idle_spinner"], "false");
        assert_ne!(row["machine_cpu_ns_per_echo"], "", "{row:?}");
    }
}

/// The CPUs on which a thread may run, and its policy (proc_pid_stat(5), field 41).
fn thread_facts(pid: u32, thread: &str) -> Option<(String, String)> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).ok()?;
    let cpus =
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim().to_owned();
    Some((cpus, stat(thread.parse().ok()?)?[41 - 3].clone()))
}

#[test]
fn it_gives_way_to_all_and_dies_with_the_run() {
    let matrix = format!(
        "{}[latency]\nblocks = 100\nduration = \"300ms\"\nwarmup_max = \"0s\"\n{}",
        heading(&["epoll-et"]),
        spinning()
    );
    let place = Place::with(&matrix);
    let running = Running::start(&mut place.run());
    let is_spinner = |pid| arguments(pid).iter().any(|word| word == "spin-when-idle");
    // Its main thread waits; the others have taken their CPUs and the policy when all are idle.
    let idle = libc::SCHED_IDLE.to_string();
    let (spinner, cpus) = wait_for("a spinner with all of its threads", || {
        let spinner = children_of(running.pid()).into_iter().find(|child| is_spinner(child.0))?;
        let tasks = fs::read_dir(format!("/proc/{}/task", spinner.0)).ok()?;
        let names = tasks.map(|task| Some(task.ok()?.file_name().to_str()?.to_owned()));
        let threads: Vec<String> = names.collect::<Option<_>>()?;
        let others: Option<Vec<_>> = threads
            .iter()
            .filter(|thread| **thread != spinner.0.to_string())
            .map(|thread| thread_facts(spinner.0, thread))
            .collect();
        let others = others?;
        let all_idle = !others.is_empty() && others.iter().all(|(_, policy)| *policy == idle);
        all_idle.then(|| (spinner, others.into_iter().map(|(cpus, _)| cpus).collect::<Vec<_>>()))
    });
    assert!(cpus.iter().all(|cpu| cpu.parse::<usize>().is_ok()), "one CPU each: {cpus:?}");
    let mut distinct = cpus.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), cpus.len(), "{cpus:?}");

    running.signal(libc::SIGKILL);
    running.end();
    wait_until("the end of the spinner", || !spinner.runs());
}
