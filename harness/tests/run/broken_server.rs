//! A server that breaks the protocol gives no figures, and its rows say what it did.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::{LATENCY, NO_FIGURES, Place, assert_has, assert_reasons, calls, ended_with};
use ringmark::backend::Facts;
use ringmark::protocol::{ServerCounters, ServerEvent};
use ringmark::service::Service;
use ringmark::whereabouts::Whereabouts;

/// The faults of the stand-in.
const FAULT: &str = "RINGMARK_TEST_FAULT";

/// Runs a matrix on a server that is this script; returns the reasons of the rows, which have all
/// failed.
fn reasons(script: &str) -> Vec<String> {
    let place = Place::with(&(calls(&["epoll-et"]) + LATENCY));
    let mut run = place.run();
    run.arg("--server").arg(server_of(&place, script));
    let line = ended_with(NO_FIGURES, &run.output().unwrap());
    assert_has(&line, &["no trial of 6 gave figures that can be used", "trials.csv says why"]);

    let rows = place.rows("trials.csv");
    // A block of each pass, and another in its place.
    assert_eq!(rows.len(), 2 * 3);
    // The settings in force are known of every server that was ready, however it ended.
    let in_force = if script.contains(FAULT) { "{}" } else { "" };
    assert!(
        rows.iter().all(|row| row["in_force"] == in_force && row["knobs"] == in_force),
        "{rows:?}"
    );
    assert_reasons(&rows);
    assert!(rows.iter().all(|row| row["status"] == "failed"), "{rows:?}");
    assert!(place.rows("syscalls.csv").is_empty());
    assert!(place.rows("comparisons.csv").is_empty());
    assert!(place.manifest()["finished_utc"].is_string(), "the run came to its end");
    rows.into_iter().map(|mut row| row.remove("reason").unwrap()).collect()
}

#[track_caller]
fn assert_each_has(reasons: &[String], parts: &[&str]) {
    for reason in reasons {
        assert!(!reason.contains('\n'), "{reason}");
        assert_has(reason, parts);
    }
}

/// A program of the place that is this script.
pub fn server_of(place: &Place, script: &str) -> PathBuf {
    let server = place.path("server");
    fs::write(&server, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
    server
}

/// A script that becomes the stand-in below. Its lines go through descriptor 3, because the test
/// program says things of its own on stdout.
pub fn stand_in_with(fault: &str) -> String {
    let program = std::env::current_exe().unwrap();
    format!(
        "exec 3>&1\n{FAULT}={fault} exec '{}' --exact broken_server::stand_in --ignored \
        --nocapture >/dev/null",
        program.display()
    )
}

#[test]
fn a_bit_is_flipped() {
    assert_each_has(
        &reasons(&stand_in_with("flip")),
        &["connection ", "offset 10: ", "altered them"],
    );
}

#[test]
fn a_byte_is_lost() {
    assert_each_has(
        &reasons(&stand_in_with("lose")),
        &["connection ", "offset 10: ", "the server lost them"],
    );
}

#[test]
fn a_connection_is_closed() {
    assert_each_has(&reasons(&stand_in_with("close")), &["connection ", "closed"]);
}

#[test]
fn the_server_dies_under_load() {
    assert_each_has(&reasons(&stand_in_with("die")), &["under load: the server ended"]);
}

#[test]
fn the_server_never_gets_ready() {
    assert_each_has(&reasons("exit 3"), &["the server ended without a word (exit status: 3)"]);
    assert_each_has(&reasons("echo no room >&2; exit 1"), &["no room"]);
    assert_each_has(
        &reasons("echo nonsense; read line"),
        &["unexpected output from the server: nonsense"],
    );
}

/// Speaks as `ringmark-server` does, but has a fault.
#[test]
#[ignore = "is no test but the server that the tests here start"]
fn stand_in() {
    let Ok(fault) = std::env::var(FAULT) else { return };
    let lines = fs::OpenOptions::new().write(true).open("/proc/self/fd/3").unwrap();
    let mut told = std::io::stdin().lines().map(Result::unwrap);
    let say = |event: &ServerEvent| {
        writeln!(&lines, "{}", serde_json::to_string(event).unwrap()).unwrap();
    };
    let backend = String::new;
    say(&ServerEvent::Held { backend: backend(), whereabouts: Whereabouts::of_this_process() });
    told.next();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = vec![listener.local_addr().unwrap().into()];
    let (mut knobs, mut in_force) = (Facts::new(), Facts::new());
    if fault == "unregistered" {
        knobs.insert("registered_ring".to_owned(), "on".into());
        in_force.insert("registered_ring".to_owned(), false.into());
    }
    if fault == "overflow" {
        // SAFETY: takes no pointer; a listener may be told its backlog again.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
    }
    let open = Arc::new(AtomicUsize::new(0));
    let accepted = Arc::clone(&open);
    thread::spawn(move || {
        if fault == "overflow" {
            await_count("netstat", "TcpExt:", "ListenOverflows");
        }
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            // Some faults are those of the first connection alone.
            let fault = if number > 0 && fault.starts_with("first-") {
                String::new()
            } else {
                fault.clone()
            };
            if fault == "lossy" {
                lose_what_comes(&stream);
            }
            accepted.fetch_add(1, SeqCst);
            let open = Arc::clone(&accepted);
            thread::spawn(move || serve(stream, &fault, &open));
        }
    });
    let pid = std::process::id();
    let (name, service) = (backend(), Service::Echo.to_string());
    let workers = 1;
    say(&ServerEvent::Ready {
        format_version: 1,
        backend: name,
        service,
        knobs,
        in_force,
        workers,
        addresses,
        pid,
    });
    for line in told {
        let mut counters = ServerCounters::default();
        counters.loops.insert("open".to_owned(), open.load(SeqCst) as u64);
        if line == "stop" {
            return say(&ServerEvent::End { backend: backend(), counters });
        }
        say(&ServerEvent::Counters { backend: backend(), counters });
    }
}

/// Waits, but not for ever, until TCP in this process's network namespace has counted one.
fn await_count(file: &str, prefix: &str, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let count = || {
        let text = fs::read_to_string(format!("/proc/self/net/{file}")).ok()?;
        let mut lines =
            text.lines().filter_map(|line| line.strip_prefix(prefix)).map(str::split_whitespace);
        let mut pairs = lines.next()?.zip(lines.next()?);
        pairs.find_map(|(found, value)| (found == name).then(|| value.parse::<u64>().ok())?)
    };
    while count() == Some(0) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Makes the kernel drop one in eight of the segments that come on a connection, at random, as if
/// they were lost on the way.
fn lose_what_comes(stream: &TcpStream) {
    // Classic BPF (socket(7), SO_ATTACH_FILTER): of a random number the last three bits; none set:
    // keep 0 bytes.
    let step = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, random),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 7),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set_option(stream, libc::SO_ATTACH_FILTER, &filter);
}

/// Sets an option of socket(7).
fn set_option<T>(stream: &TcpStream, option: libc::c_int, value: &T) {
    let bytes = size_of_val(value) as libc::socklen_t;
    // SAFETY: the descriptor is open through the borrow; the kernel only reads `value`, whose size
    // is the one given, and of a filter's program the instructions, which the caller still has.
    let outcome = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const *value).cast(),
            bytes,
        )
    };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

/// Echoes on a connection, and does once what the fault says.
pub fn serve(mut stream: TcpStream, fault: &str, open: &AtomicUsize) {
    let mut buffer = [0; 4096];
    let mut first = true;
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let mut bytes = buffer[..length].to_vec();
        match (first, fault) {
            (true, "flip") => bytes[10] ^= 4,
            (true, "lose") => _ = bytes.remove(10),
            (true, "die") => exit(7),
            (true, "close") => {
                open.fetch_sub(1, SeqCst);
                return;
            }
            (true, "first-forgotten") => _ = open.fetch_sub(1, SeqCst),
            _ => {}
        }
        first = false;
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}
