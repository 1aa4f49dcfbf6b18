//! Faults that spoil a trial, done to real runs: its rows stay and say why, no comparison is made
//! of them, and the block is run again a bounded number of times.

use ringmark::cpus::{self, CpuList};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::broken_server::{server_of, stand_in_with};
use crate::confine::{before_exec, checked};
use crate::programs::server;
use crate::{
    FOUR_CONNECTIONS, LATENCY, NO_FIGURES, Place, Row, assert_has, assert_reasons, ended_with,
    heading,
};

/// One block of two arms, each tried three times, and another block in its place.
const ROWS: usize = 2 * 2 * 3;

/// The words of a run in which all of them were turned away.
const NONE_STANDS: &str = "no trial of 12 gave figures that can be used";

/// A run of which every trial was rejected; its rows.
#[track_caller]
fn rejected(place: &Place, command: &mut Command) -> Vec<Row> {
    let line = ended_with(NO_FIGURES, &command.output().unwrap());
    assert_has(&line, &[NONE_STANDS, "trials.csv says why"]);
    let rows = place.rows("trials.csv");
    assert_eq!(rows.len(), ROWS);
    let places: Vec<_> =
        rows.iter().map(|row| (row["block"].as_str(), row["order"].as_str())).collect();
    let orders = ["1", "2", "3", "4", "5", "6"];
    assert_eq!(places, ["1", "2"].map(|block| orders.map(|order| (block, order))).concat());
    assert!(rows.iter().all(|row| row["status"] == "rejected"), "{rows:?}");
    assert!(place.rows("comparisons.csv").is_empty());
    rows
}

#[track_caller]
fn assert_each_says(rows: &[Row], words: &str) {
    for row in rows {
        assert_has(&row["reason"], &[words]);
    }
}

fn one_block() -> Place {
    Place::with(&format!("{}{LATENCY}{FOUR_CONNECTIONS}", heading(&["epoll-et"])))
}

/// The rows of a run on a server that does something wrong.
#[track_caller]
fn rejected_with(fault: &str) -> Vec<Row> {
    let place = one_block();
    let server = server_of(&place, &stand_in_with(fault));
    rejected(&place, place.run().arg("--server").arg(server))
}

/// Whether the trials had network namespaces of their own; TCP's counts of the host are
/// everybody's, and judged by no gate.
fn had_namespaces(rows: &[Row]) -> bool {
    let namespace = &rows[0]["network_namespace"];
    if namespace != "fresh" {
        eprintln!("skipped: {namespace}");
    }
    namespace == "fresh"
}

/// Runs a matrix on a faulty server, whose rows may be used where no namespace tells TCP's counts
/// apart.
fn with_fault_of_tcp(fault: &str, words: &str) {
    let place = one_block();
    let server = server_of(&place, &stand_in_with(fault));
    let output = place.run().arg("--server").arg(server).output().unwrap();
    let rows = place.rows("trials.csv");
    if !had_namespaces(&rows) {
        return;
    }
    assert!(!output.status.success());
    assert_eq!(rows.len(), ROWS);
    assert!(rows.iter().all(|row| row["status"] == "rejected"), "{rows:?}");
    assert_each_says(&rows, words);
}

#[test]
fn an_accept_queue_that_overflows_rejects() {
    with_fault_of_tcp("overflow", " connections were dropped at the accept queue");
}

#[test]
fn a_network_that_loses_segments_rejects() {
    with_fault_of_tcp("lossy", "segments again (bound: 0.1 %)");
}

#[test]
fn a_connection_that_the_server_no_longer_has_rejects() {
    assert_each_says(
        &rejected_with("first-forgotten"),
        "3 connections stood where 4 were asked for",
    );
}

#[test]
fn a_feature_that_is_not_in_force_rejects() {
    let rows = rejected_with("unregistered");
    assert_each_says(&rows, "registered_ring=on is not in force, the server says false");
    assert_eq!(rows[0]["knobs"], "{\"registered_ring\":\"on\"}");
}

/// Two CPUs, of which a run that may use no other gives the first to its server and the second to
/// its client.
pub fn two_cpus() -> Option<[usize; 2]> {
    let two = CpuList::allowed().unwrap().cpus().first_chunk().copied();
    if two.is_none() {
        eprintln!("skipped: two CPUs are needed, for the server and the client one each");
    }
    two
}

/// Lets the command's process, and all that it starts, use these CPUs only.
fn confine(command: &mut Command, cpus: [usize; 2]) {
    // SAFETY: all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus {
        assert!(cpu < libc::CPU_SETSIZE as usize);
        // SAFETY: `cpu` lies within the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    before_exec(command, move || {
        // SAFETY: the call reads the set, which the closure owns and whose size is the one given.
        checked(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) })
    });
}

/// Those that make a CPU busy, and those that the CPUs should be left to, one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static CPUS: Mutex<()> = Mutex::new(());
    // Nothing is in it that a panic could have left half done.
    CPUS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does `work` while two threads want all of a CPU's time.
fn while_busy<T>(cpu: usize, work: impl FnOnce() -> T) -> T {
    let _alone = alone();
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                cpus::pin(&[cpu]).unwrap();
                while !over.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        // Also when `work` panics, or the scope would wait for ever.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let _end = End(over);
        work()
    })
}

/// The rows of a run beside a busy process on one of the two CPUs.
fn beside_busy_process(on: impl Fn([usize; 2]) -> usize, words: &str) {
    let Some(cpus) = two_cpus() else { return };
    let place = one_block();
    let mut command = place.run();
    confine(&mut command, cpus);
    let rows = while_busy(on(cpus), || rejected(&place, &mut command));
    let [server, client] = cpus.map(|cpu| cpu.to_string());
    assert!(
        rows.iter().all(|row| row["server_cpus"] == server && row["client_cpus"] == client),
        "{rows:?}"
    );
    assert_each_says(&rows, words);
}

#[test]
fn a_busy_process_on_the_servers_cpu_rejects() {
    beside_busy_process(|[server, _]| server, "the server waited for a CPU ");
}

#[test]
fn a_busy_process_on_the_clients_cpu_rejects() {
    beside_busy_process(|[_, client]| client, "the client waited for a CPU ");
}

#[test]
fn a_busy_process_on_the_one_cpu_of_both_rejects_although_they_wait_for_each_other() {
    let Some([cpu, _]) = two_cpus() else { return };
    let place = one_block();
    let mut command = place.run();
    confine(&mut command, [cpu, cpu]);
    let rows = while_busy(cpu, || rejected(&place, &mut command));
    assert!(rows.iter().all(|row| row["shared_cpu"] == "true"), "{rows:?}");
    assert_each_says(&rows, "waited for a CPU ");
}

#[test]
fn a_client_that_cannot_send_what_is_due_is_the_limit_and_its_latency_is_not_compared() {
    let place = Place::with(&format!(
        "{}[latency]\nblocks = 1\nduration = \"10ms\"\nwarmup_max = \"0s\"\n\
         [[workload]]\nname = \"flood\"\nquestion = \"q\"\nconnections = 1\nmessage_bytes = \
         64\nrate_per_s = 5e6\n",
        heading(&["epoll-et", "epoll-lt"])
    ));
    let _alone = alone();
    let output = place.run().output().unwrap();
    let rows = place.rows("trials.csv");
    assert_reasons(&rows);
    for row in &rows {
        // Rejected if it did not even come to read within the window, or if the machine was too
        // busy.
        assert!(["client-limited", "rejected"].contains(&row["status"].as_str()), "{row:?}");
        assert_has(
            &row["reason"],
            &["client-limited: of ", " messages a second that were due the client sent "],
        );
    }
    let stands = rows.iter().any(|row| row["status"] == "client-limited");
    assert_eq!(output.status.success(), stands, "{output:?}");
    for row in place.rows("comparisons.csv") {
        assert!(
            ["server_cpu_ns_per_echo", "context_switches_per_echo"]
                .contains(&row["metric"].as_str()),
            "{row:?}"
        );
    }
}

/// Returns the `cpu` line of proc_stat(5) after so many ticks, a tenth of them stolen.
fn stat_text(ticks: u64) -> String {
    let (busy, steal) = (ticks * 9 / 10, ticks / 10);
    format!("cpu  {busy:012} 0 0 0 0 0 0 {steal:012} 0 0\n")
}

/// Puts a file in the place of /proc/stat for the command's process and all that it starts.
fn replace_proc_stat(command: &mut Command, file: &std::path::Path) {
    let file = CString::new(file.as_os_str().as_bytes()).unwrap();
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the calls read strings that the closure owns or that are constant.
    before_exec(command, move || unsafe {
        let (root, stat) = (c"/".as_ptr(), c"/proc/stat".as_ptr());
        checked(libc::unshare(libc::CLONE_NEWNS))?;
        checked(libc::mount(ptr::null(), root, ptr::null(), private, ptr::null()))?;
        checked(libc::mount(file.as_ptr(), stat, ptr::null(), libc::MS_BIND, ptr::null()))
    });
}

#[test]
fn stolen_time_rejects() {
    let place = one_block();
    let path = place.path("stat");
    std::fs::write(&path, stat_text(0)).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let mut command = place.run();
    replace_proc_stat(&mut command, &path);
    let over = &AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        scope.spawn(move || {
            for ticks in (0..).step_by(1000).take_while(|_| !over.load(Relaxed)) {
                // In place, and always of one length: the file is what is mounted.
                file.write_all_at(stat_text(ticks).as_bytes(), 0).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        let outcome = command.output();
        over.store(true, Relaxed);
        outcome
    });
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return eprintln!("skipped: a mount namespace needs root (CAP_SYS_ADMIN): {error}");
        }
        outcome => assert_has(&ended_with(NO_FIGURES, &outcome.unwrap()), &[NONE_STANDS]),
    }
    let rows = place.rows("trials.csv");
    assert_eq!(rows.len(), ROWS);
    assert_each_says(&rows, "the hypervisor took 10.0 % of the time (bound: 5 %)");
    assert!(
        rows.iter().all(|row| row["status"] == "rejected" && row["steal_percent"] == "10.0"),
        "{rows:?}"
    );
}

/// The first trial alone is spoiled by us; what the machine spoils by itself beside it is bounded
/// too.
#[test]
fn a_rejected_trial_stays_and_is_run_again_a_bounded_number_of_times() {
    let blocks = 4;
    let matrix = format!("{}{LATENCY}{FOUR_CONNECTIONS}", heading(&["epoll-et", "epoll-lt"]));
    let place = Place::with(&matrix.replace("blocks = 1", &format!("blocks = {blocks}")));
    let faulty = stand_in_with("first-forgotten");
    let script = format!(
        "if mkdir was-started 2>/dev/null\nthen {faulty}\nelse exec '{}' \"$@\"\nfi",
        server().display()
    );
    let server = server_of(&place, &script);
    let _alone = alone();
    // A machine that is too busy for any trial makes the run fail, at its end.
    place.run().arg("--server").arg(server).output().unwrap();

    let rows = place.rows("trials.csv");
    assert_eq!(place.manifest()["order"].as_array().unwrap().len(), rows.len());
    assert_eq!((rows[0]["run_id"].as_str(), rows[0]["status"].as_str()), ("1", "rejected"));
    assert_has(&rows[0]["reason"], &["3 connections stood where 4 were asked for"]);
    // The trials of each arm of each block, in their order.
    let mut tries: BTreeMap<(usize, &str), Vec<&str>> = BTreeMap::new();
    for row in &rows {
        tries.entry((row["block"].parse().unwrap(), &row["arm"])).or_default().push(&row["status"]);
    }
    assert!(tries[&(1, rows[0]["arm"].as_str())].len() > 1, "it was run again");
    let stands = |status: &&str| ["ok", "client-limited"].contains(status);
    let mut complete = 0;
    for block in 1..=blocks + 1 {
        let of_block: Vec<_> = tries.iter().filter(|((number, _), _)| *number == block).collect();
        assert!(of_block.len() == 3 || (block > blocks && of_block.is_empty()), "{tries:?}");
        for (_, statuses) in &of_block {
            let (last, before) = statuses.split_last().unwrap();
            assert!(statuses.len() <= 3, "{tries:?}");
            assert!(!before.iter().any(stands), "what stands is not run again: {tries:?}");
            // From three blocks on, an arm that never stood is given up.
            assert!(stands(last) || statuses.len() == 3 || block >= 3, "{tries:?}");
        }
        complete += usize::from(
            !of_block.is_empty() && of_block.iter().all(|(_, all)| all.last().is_some_and(stands)),
        );
    }
    let counts: Vec<usize> = place
        .rows("comparisons.csv")
        .iter()
        .filter(|row| row["metric"] == "server_cpu_ns_per_echo")
        .map(|row| row["blocks"].parse().unwrap())
        .collect();
    // An arm that is given up takes no block out.
    assert!(counts.iter().all(|&count| count >= complete.max(1)), "{counts:?} {tries:?}");
    assert_eq!(counts.is_empty(), complete == 0, "{counts:?} {tries:?}");
}
