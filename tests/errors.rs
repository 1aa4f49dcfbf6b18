//! The server refuses in words a task that it cannot do: what and why on stderr, a non-zero status,
//! no panic.

mod support;

use ringmark::backend::{self, Knobs};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use support::confine::{before_exec, checked, is_root, limit_locked_memory, refuse};
use support::{Backend, SERVER, Server, Values, backends, command_at, eventually, parse_backends};
use tempfile::TempDir;

/// Runs a server that must not start, and returns what it wrote to stdout and stderr.
fn refused(command: &mut Command) -> (String, String) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = KillOnDrop(command.spawn().expect("the server starts"));
    let asked = format!("{command:?}");
    let status = eventually(
        &format!("{asked} has ended"),
        || running.0.try_wait().expect("the child can be waited for"),
        Option::is_some,
    );
    let status = status.expect("it has ended");
    let (mut said, mut complained) = (String::new(), String::new());
    let (stdout, stderr) = (running.0.stdout.take(), running.0.stderr.take());
    stdout.expect("stdout is piped").read_to_string(&mut said).expect("stdout is text");
    stderr.expect("stderr is piped").read_to_string(&mut complained).expect("stderr is text");
    assert!(matches!(status.code(), Some(1 | 2)), "{asked}: {status}: {complained}");
    assert!(!complained.contains("panicked"), "{asked}: {complained}");
    // The parser of the command line adds its usage; all else is one line.
    let one_line = complained.starts_with("ringmark-server: ") && complained.lines().count() == 1;
    assert!(one_line || complained.starts_with("error: "), "{asked}: {complained}");
    (said, complained)
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Both fail when it has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Checks that these arguments are refused with nothing on stdout and a message that holds all of
/// `words`.
fn check_refused(arguments: &[&str], words: &[&str]) {
    let (said, complained) = refused(Command::new(&*SERVER).args(arguments));
    assert_eq!(said, "", "{arguments:?}");
    for word in words {
        assert!(complained.contains(word), "{arguments:?}: `{word}` is missing in: {complained}");
    }
}

/// Those backends that this kernel runs.
fn supported() -> impl Iterator<Item = Backend> {
    backends().into_iter().filter(|backend| backend.unsupported.is_none())
}

#[test]
fn arguments_that_mean_nothing() {
    let backend = &supported().next().expect("a backend").name;
    check_refused(&[], &["--backend"]);
    check_refused(&["--json"], &["--list"]);
    check_refused(&["--backend", "nonsense"], &["'nonsense'", backend]);
    check_refused(&["--backend", backend, "--nonsense"], &["--nonsense"]);
    for (option, value) in [
        ("--listen", "nowhere"),
        ("--listen", "127.0.0.1"),
        ("--listen", "127.0.0.1:65536"),
        ("--listen", "::1:8888"),
        ("--listen", "[fe80::1%nosuch]:8888"),
        ("--listen", "unix:echo.sock"),
        ("--ports", "0"),
        ("--ports", "65536"),
        ("--workers", "0"),
        ("--workers", "many"),
        ("--cpus", "x"),
        ("--cpus", "3-1"),
        ("--cpus", ""),
        ("--drain-seconds", "soon"),
    ] {
        check_refused(&["--backend", backend, option, value], &[option, value]);
    }
}

#[test]
fn services_that_make_no_sense() {
    for Backend { name, echoes, knobs, .. } in supported() {
        let with = |arguments: &str, words: &[&str]| {
            let arguments: Vec<&str> = arguments.split(' ').collect();
            let all = [&["--backend", &name, "--listen", "127.0.0.1:0", "--service"], &*arguments];
            check_refused(&all.concat(), words);
        };
        with("proxy", &["--service", "proxy", "exchange"]);
        with("exchange", &["exchange", "--request-bytes"]);
        with("exchange --request-bytes 0 --response-bytes 0", &["both sizes are 0"]);
        with("exchange --request-bytes 64 --response-bytes 0", &["--service sink"]);
        with("exchange --request-bytes 64 --response-bytes 16777217", &["16 MiB"]);
        with("exchange --request-bytes 4294967296 --response-bytes 1", &["--request-bytes"]);
        with("exchange --request-bytes -1 --response-bytes 1", &["-1"]);
        with("echo --response-bytes 64", &["echo", "--response-bytes"]);
        with("sink --request-bytes 64 --response-bytes 64", &["sink", "--response-bytes"]);
        if knobs.iter().any(|knob| knob.name == "zero_copy") {
            with("echo --set zero_copy=on", &["zero_copy=on", "--service exchange"]);
        }
        if !echoes {
            with("sink --request-bytes 64", &["serves nothing", "--service"]);
        }
    }
}

#[test]
fn ports_that_cannot_be_dealt() {
    for Backend { name, shares_files, .. } in supported() {
        let with = |arguments: &[&str], words: &[&str]| {
            check_refused(
                &[&["--backend", &name, "--listen", "127.0.0.1:0"], arguments].concat(),
                words,
            );
        };
        if !shares_files {
            with(&["--ports", "3", "--workers", "2"], &["--ports 3", "--workers 2", "multiple"]);
            with(&["--ports", "1", "--workers", "2"], &["--ports 1", "--workers 2", "multiple"]);
        }
        with(&["--cpus", "4000"], &["CPU 4000", "--cpus"]);
        let held = ["--backend", &name, "--listen", "127.0.0.1:0", "--hold"];
        let (said, complained) = refused(Command::new(&*SERVER).args(held));
        assert!(said.starts_with(r#"{"event":"held","#) && said.lines().count() == 1, "{said}");
        assert!(complained.contains("--hold: stdin ended before a line came"), "{complained}");
        let beyond = ["--backend", &name, "--listen", "127.0.0.1:65530", "--ports", "10"];
        check_refused(&beyond, &["127.0.0.1:65530", "--ports 10", "65535"]);
        // An address of TEST-NET-1, RFC 5737: nobody's.
        let foreign = ["--backend", &name, "--listen", "192.0.2.1:0"];
        check_refused(&foreign, &["192.0.2.1:0", "Cannot assign requested address"]);
        check_refused(
            &[&foreign[..], &["--ports", "2"]].concat(),
            &["192.0.2.1:0", "no interface"],
        );
        with(&["--ports", "65535"], &["no 65535 consecutive ports are free", "--ports"]);
    }
}

#[test]
fn knobs() {
    for Backend { name, knobs, .. } in supported() {
        let with = |setting: &str, words: &[&str]| {
            check_refused(
                &["--backend", &name, "--listen", "127.0.0.1:0", "--set", setting],
                words,
            );
        };
        with("nonsense=1", &[&name, "'nonsense'"]);
        for knob in &knobs {
            let at = |value: &str| format!("{}={value}", knob.name);
            with(&knob.name, &[&knob.name, "key=value"]);
            for bad in ["", "-1", "1e3", "nonsense", "18446744073709551616"] {
                with(&at(bad), &[&at(bad), &format!("{} takes", knob.name)]);
            }
            let Values::Numbers(range) = &knob.values else { continue };
            let (low, high) = (*range.start(), *range.end());
            let beyond = [low.checked_sub(1), high.checked_add(1)];
            for bad in beyond.into_iter().flatten() {
                with(
                    &at(&bad.to_string()),
                    &[&at(&bad.to_string()), &low.to_string(), &high.to_string()],
                );
            }
        }
    }
}

/// Their bits would lie beyond an fd_set.
#[test]
fn listeners_that_select_cannot_hold() {
    let select = ["--backend", "select", "--listen", "127.0.0.1:0"];
    let with =
        |arguments: &[&str], words: &[&str]| check_refused(&[&select, arguments].concat(), words);
    with(&["--ports", "1100"], &["descriptor 1024", "below 1024", "--ports"]);
    // The second worker may find the limit lowered already.
    with(&["--ports", "2200", "--workers", "2"], &["--ports"]);
}

/// An unchecked bind() leaves listen() to take some other port.
#[test]
fn port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("an address").to_string();
    for Backend { name, .. } in supported() {
        check_refused(
            &["--backend", &name, "--listen", &taken],
            &[&taken, "Address already in use"],
        );

        let server = Server::start(&name, &[]);
        let by_server = server.address().to_string();
        check_refused(
            &["--backend", &name, "--listen", &by_server],
            &[&by_server, "Address already in use"],
        );
        server.finish();
    }
}

/// A file in the place of a Unix socket is named, and stays.
#[test]
fn path_in_use() {
    let folder = TempDir::new().expect("a temporary folder");
    let address = |name: &str| format!("unix:{}/{name}", folder.path().display());
    let (text, nowhere) = (folder.path().join("text"), address("none/echo.sock"));
    fs::write(&text, "mine").expect("a file");
    for Backend { name, shares_files, .. } in supported() {
        let with = |listen: &str, more: &[&str], words: &[&str]| {
            let arguments = [&["--backend", &name, "--listen", listen], more].concat();
            check_refused(&arguments, words);
        };
        with(&address("text"), &[], &["Address already in use", "no socket"]);
        with(&nowhere, &[], &[&nowhere, "no such folder"]);
        with(&address("a"), &["--ports", "2"], &["one path", "--ports"]);
        if !shares_files {
            with(&address("a"), &["--workers", "2"], &["one path", "--workers"]);
        }
        with(&address(&"a".repeat(108)), &[], &["at most 107"]);

        let taken = address(&name);
        let server = Server::spawn(command_at(&taken, &name, &[]));
        with(&taken, &[], &[&taken, "another process listens there"]);
        server.finish();
        let killed = Server::spawn(command_at(&taken, &name, &[]));
        let path = killed.address().path().expect("a path").to_owned();
        killed.signal(libc::SIGKILL);
        killed.wait();
        // The kernel tears a ring down after its process has ended, and its listener with it.
        let answers = || UnixStream::connect(&path).is_ok();
        eventually("nobody listens there any more", answers, |answers| !answers);
        with(&taken, &[], &[&taken, "a server that has ended left it"]);
    }
    assert_eq!(fs::read(&text).expect("it is still there"), b"mine");
}

/// The first worker is up when the second finds its port taken: both must end.
#[test]
fn port_of_the_second_worker_in_use() {
    let (first, taken) = (0..100)
        .find_map(|_| {
            let first = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?;
            let second = TcpListener::bind(("127.0.0.1", first.port().checked_add(1)?)).ok()?;
            Some((first.to_string(), second))
        })
        .expect("two free ports side by side");
    let taken = taken.local_addr().expect("an address").to_string();
    for Backend { name, .. } in supported() {
        let arguments = ["--backend", &name, "--listen", &first, "--workers", "2", "--ports", "2"];
        check_refused(&arguments, &[&taken, "Address already in use"]);
    }
}

/// The backends whose memory this kernel counts as locked.
fn locking() -> Vec<Backend> {
    let mut list = Command::new(&*SERVER);
    list.args(["--list", "--json"]);
    limit_locked_memory(&mut list, 4096);
    let list = parse_backends(&list.output().expect("the server starts").stdout);
    let supported: Vec<Backend> = supported().collect();
    let now_refused = |backend: &Backend| {
        backend.unsupported.is_some() && supported.iter().any(|other| other.name == backend.name)
    };
    list.into_iter().filter(now_refused).collect()
}

/// The probe says it, before anything listens, for as many workers as there will be.
#[test]
fn locked_memory_that_does_not_fit() {
    for Backend { name, unsupported, .. } in locking() {
        let listed = unsupported.expect("it is refused");
        let limit = "RLIMIT_MEMLOCK (`ulimit -l`) is 4 KiB, and 1 worker needs ";
        assert!(
            listed.contains(limit) && listed.starts_with("io_uring_setup: ENOMEM: "),
            "{name}: {listed}"
        );
        // A page too little: the ring alone fits, and what some register with it does not.
        let need = locked_bytes(&name);
        let kib = need >> 10;
        let short =
            format!("is {} KiB, and 1 worker needs {kib} KiB ({kib} KiB each); raise it", kib - 4);
        for (bytes, arguments, words) in [
            (64 << 10, ["--workers", "1"], "is 64 KiB, and 1 worker needs "),
            (need - 4096, ["--workers", "1"], short.as_str()),
            (1 << 20, ["--workers", "16"], "is 1024 KiB, and 16 workers need "),
        ] {
            let mut start = support::command(&name, &arguments);
            limit_locked_memory(&mut start, bytes);
            let (said, complained) = refused(&mut start);
            assert!(
                complained.contains("is unsupported: io_uring_") && complained.contains(words),
                "{complained}"
            );
            let said: Value = serde_json::from_str(&said).expect("one JSON line on stdout");
            assert_eq!(said["event"], "unsupported");
        }
    }
}

/// Returns the bytes that one worker locks by default, as the server says that it does.
fn locked_bytes(name: &str) -> u64 {
    let entry = backend::find(name).expect("it is listed");
    (entry.locked_bytes)(&Knobs::parse(entry, &[]).expect("the defaults are valid"))
}

/// The probe's memory comes back a little later than the ring is closed.
#[test]
fn locked_memory_that_just_fits() {
    if !is_root() {
        eprintln!("skipped: other servers of this user lock memory too");
        return;
    }
    // Two servers at once would need twice as much.
    for Backend { name, .. } in locking() {
        let mut start = support::command(&name, &[]);
        limit_locked_memory(&mut start, locked_bytes(&name));
        Server::spawn(start).finish();
    }
}

/// Output that is lost is a failure; a reader that has left is none.
#[test]
fn output_that_is_lost() {
    let server = ["--backend", "poll", "--listen", "127.0.0.1:0"];
    let prints: [&[&str]; 5] = [
        &["--list", "--json"],
        &["--list", "--idle-seconds=0"],
        &["--help"],
        &["--version"],
        &server,
    ];
    for arguments in prints {
        let run = |stdout: Stdio, closed: bool| {
            let mut command = Command::new(&*SERVER);
            command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
            if closed {
                // SAFETY: close(2) takes no pointer, and nothing else uses the descriptor.
                before_exec(&mut command, || checked(unsafe { libc::close(libc::STDOUT_FILENO) }));
            }
            let output = command.output().expect("the server starts");
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let lost = "ringmark-server: write to stdout: No space left on device (os error 28)\n";
        assert_eq!(run(full.into(), false), (Some(1), lost.to_owned()), "{arguments:?}");
        let (status, complaint) = run(Stdio::null(), true);
        assert_eq!(status, Some(1), "{arguments:?}");
        assert!(
            complaint.starts_with("ringmark-server: stdout is closed: "),
            "{arguments:?}: {complaint}"
        );
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        if arguments != server {
            assert_eq!(run(Stdio::null(), false), (Some(0), String::new()), "{arguments:?}");
            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            assert_eq!(run(writer.into(), false), (Some(0), String::new()), "{arguments:?}");
        }
    }
}

/// Kernels before 6.9 do not know the ioctl.
#[test]
fn busy_polling_refused() {
    for name in ["epoll-lt", "epoll-et"] {
        let mut start = support::command(name, &["--set", "busy_poll_us=50"]);
        refuse(&mut start, &[libc::SYS_ioctl], libc::ENOTTY);
        let (said, complained) = refused(&mut start);
        assert!(complained.contains("EPIOCSPARAMS") && complained.contains("6.9"), "{complained}");
        let said: Value = serde_json::from_str(&said).expect("one JSON line on stdout");
        assert_eq!(said["event"], "unsupported");
    }
}

#[test]
fn io_uring_refused() {
    for (errno, name_of_errno) in [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS")] {
        let mut list = Command::new(&*SERVER);
        list.args(["--list", "--json"]);
        refuse(&mut list, &[libc::SYS_io_uring_setup], errno);
        let list = parse_backends(&list.output().expect("the server starts").stdout);
        let (uring, others): (Vec<_>, Vec<_>) =
            list.iter().partition(|backend| backend.name.starts_with("uring"));

        assert!(!uring.is_empty(), "a backend on io_uring");
        for backend in uring {
            let reason = backend.unsupported.as_ref().expect("unsupported without io_uring_setup");
            assert!(
                reason.contains("io_uring_setup") && reason.contains(name_of_errno),
                "{reason}"
            );

            let mut start = support::command(&backend.name, &[]);
            refuse(&mut start, &[libc::SYS_io_uring_setup], errno);
            let (said, complained) = refused(&mut start);
            let beginning = format!(
                "ringmark-server: {} is unsupported: io_uring_setup: {name_of_errno}",
                backend.name
            );
            assert!(complained.starts_with(&beginning), "{complained}");
            let said: Value = serde_json::from_str(&said).expect("one JSON line on stdout");
            assert_eq!(said["event"], "unsupported");
            assert_eq!(said["backend"], backend.name.as_str());
            assert_eq!(said["reason"], reason.as_str());
        }

        for backend in others {
            assert_eq!(backend.unsupported, None, "{}", backend.name);
            let mut start = support::command(&backend.name, &[]);
            refuse(&mut start, &[libc::SYS_io_uring_setup], errno);
            let server = Server::spawn(start);
            let mut client = server.connect();
            if backend.echoes {
                client.echo(100);
            }
            drop(client);
            server.finish();
        }
    }
}
