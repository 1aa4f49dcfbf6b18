//! The settings that the ready line says to be in force, against the calls that strace(1) saw: the
//! flags of io_uring_setup, and whether enters go through a registered ring.

mod support;

use libtest_mimic::Arguments;
use ringmark::kernel;
use support::{Backend, LogFile, Server, Values, command, under_strace};

/// `IORING_SETUP_*` (linux/io_uring.h).
const SETUP_FLAGS: [(&str, u64); 7] = [
    ("SQPOLL", 1 << 1),
    ("SQ_AFF", 1 << 2),
    ("CQSIZE", 1 << 3),
    ("SUBMIT_ALL", 1 << 7),
    ("COOP_TASKRUN", 1 << 8),
    ("SINGLE_ISSUER", 1 << 12),
    ("DEFER_TASKRUN", 1 << 13),
];

/// IORING_ENTER_REGISTERED_RING and IORING_ENTER_NO_IOWAIT.
const REGISTERED_RING: u64 = 1 << 4;
const NO_IOWAIT: u64 = 1 << 7;

fn main() {
    let arguments = Arguments::from_args();
    let no_strace = support::why_no_strace();
    let mut trials = Vec::new();
    for backend in support::backends() {
        let words = |name: &str| match backend
            .knobs
            .iter()
            .find(|knob| knob.name == name)
            .map(|knob| &knob.values)
        {
            Some(Values::Words(words)) => words.clone(),
            _ => Vec::new(),
        };
        let mut settings = Vec::new();
        for knob in ["task_run", "registered_ring", "no_iowait"] {
            settings.extend(words(knob).into_iter().map(|word| format!("{knob}={word}")));
        }
        // An older kernel refuses it.
        settings.retain(|setting| setting != "no_iowait=on" || kernel::version() >= (6, 15));
        if backend.knobs.iter().any(|knob| knob.name == "busy_poll_us") {
            let case = "busy_poll_us is what the kernel has taken over";
            let too_old = (kernel::version() < (6, 9)).then(|| "needs Linux 6.9".to_owned());
            trials.push(support::trial(&backend, case, too_old, polls_as_long_as_it_says));
        }
        for setting in settings {
            let case = format!("{setting} is what the kernel was asked for");
            let body = move |backend: &Backend| asked_for_what_it_says(backend, &setting);
            trials.push(support::trial(&backend, &case, no_strace.clone(), body));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn asked_for_what_it_says(backend: &Backend, setting: &str) {
    let log = LogFile::new(&format!("{}-{setting}", backend.name));
    let traced = ["-X", "raw", "-e", "trace=io_uring_setup,io_uring_enter", "-o", &log.path];
    let server = Server::spawn(under_strace(&traced, &command(&backend.name, &["--set", setting])));
    let mut client = server.connect();
    client.echo(100);
    client.finish();
    let in_force = server.ready["in_force"].clone();
    let (name, value) = setting.split_once('=').expect("a setting");
    assert_eq!(server.ready["knobs"][name], value);
    server.finish();

    let log = log.read();
    let said = in_force["setup"].as_str().expect("the flags of the ring");
    let mut said_bits = 0;
    for flag in said.split('|') {
        let known = SETUP_FLAGS.iter().find(|(name, _)| *name == flag);
        said_bits |= known.unwrap_or_else(|| panic!("{flag} is no flag that this test knows")).1;
    }
    let setups: Vec<u64> = fields(&log, "io_uring_setup(", "flags=").collect();
    assert!(!setups.is_empty(), "no io_uring_setup in {log}");
    assert!(
        setups.iter().all(|flags| *flags == said_bits),
        "{said} is {said_bits:#x}, not {setups:x?}"
    );

    // The fourth argument; a refused call would have ended the server.
    let enters = log.lines().filter(|line| line.contains("io_uring_enter("));
    let flags: Vec<u64> = enters.filter_map(|line| number(line.split(", ").nth(3)?)).collect();
    assert!(!flags.is_empty(), "no io_uring_enter in {log}");
    for (fact, flag) in [("registered_ring", REGISTERED_RING), ("no_iowait", NO_IOWAIT)] {
        let is_on = in_force[fact].as_bool().expect("whether it is in force");
        for &flags in &flags {
            assert_eq!(flags & flag != 0, is_on, "{fact}: io_uring_enter with flags {flags:#x}");
        }
    }
}

/// A ring that polls a device says the time that the kernel has taken over.
fn polls_as_long_as_it_says(backend: &Backend) {
    let server = backend.start(&["--set", "busy_poll_us=70"]);
    assert_eq!(server.ready["in_force"]["busy_poll_us"], 70);
    let mut client = server.connect();
    client.echo(100);
    client.finish();
    server.finish();
}

/// The numbers behind `field` in the lines of a call.
fn fields<'a>(log: &'a str, call: &'a str, field: &'a str) -> impl Iterator<Item = u64> + 'a {
    log.lines()
        .filter(move |line| line.contains(call))
        .filter_map(move |line| number(line.split_once(field)?.1.split([',', '}']).next()?))
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
