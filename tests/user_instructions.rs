//! How many instructions of its own code an echo costs a server, to the single one: a change of a
//! loop that nobody meant to make does not pass unseen.

mod support;

use libtest_mimic::{Arguments, Trial};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use support::{Backend, Client, Server, Steps, process};

/// The counts that are known: a line for each compiler, profile and backend. If they are meant
/// to change, `RINGMARK_COUNTS=write` writes those of this compiler anew.
const KNOWN: &str = "tests/user_instructions.csv";

/// Instructions by backend.
type Counts = BTreeMap<String, u64>;

/// The compiler and the profile, on which the counts depend.
fn build() -> String {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = std::process::Command::new(rustc).arg("--version").output().map(|said| said.stdout);
    let version = said.map(|said| String::from_utf8_lossy(&said).trim_end().to_owned());
    format!("{},{profile}", version.as_deref().unwrap_or("unknown"))
}

fn known() -> Counts {
    let build = build();
    let text = fs::read_to_string(KNOWN).unwrap_or_default();
    let of_build = text.lines().filter_map(|line| line.strip_prefix(&build)?.strip_prefix(','));
    let counts = of_build.filter_map(|line| {
        let (backend, count) = line.split_once(',')?;
        Some((backend.to_owned(), count.parse().ok()?))
    });
    counts.collect()
}

fn main() {
    let arguments = Arguments::from_args();
    if std::env::var("RINGMARK_COUNTS").is_ok_and(|what| what == "write") {
        return write();
    }
    let known = known();
    let backends = support::backends().into_iter();
    let echoing = backends.filter(|backend| backend.echoes && is_countable(backend));
    let trials: Vec<Trial> = echoing
        .map(|backend| {
            let expected = known.get(&backend.name).copied();
            let obstacle = expected.is_none().then(|| format!("no count is known for {}", build()));
            support::trial(&backend, "an_echo_costs_as_many", obstacle, move |backend| {
                let counted = count(&backend.name);
                assert_eq!(
                    Some(counted),
                    expected,
                    "instructions an echo; if that is meant: RINGMARK_COUNTS=write cargo test \
                     --test user_instructions"
                );
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

/// A submission thread decides how often the server looks in vain.
fn is_countable(backend: &Backend) -> bool {
    backend.name != "uring-sqpoll"
}

/// Counts the instructions of one echo of 64 bytes, when nothing else happens.
fn count(backend: &str) -> u64 {
    const ECHOES: u64 = 4;
    let server = Server::start(backend, &[]);
    let mut client = server.connect();
    client.echo(64);
    let steps = Steps::begin(server.pid(), serving_thread(&server))
        .unwrap_or_else(|reason| panic!("{reason}"));
    let echo = |client: &mut Client| (0..ECHOES).for_each(|_| client.echo(64));
    echo(&mut client);
    let mut before = steps.at_rest();
    // A timer of the server's may fire in one of them.
    let windows: Vec<u64> = (0..3)
        .map(|_| {
            echo(&mut client);
            let after = steps.at_rest();
            std::mem::replace(&mut before, after).abs_diff(after)
        })
        .collect();
    // To step through its end as well would take the longest.
    drop(steps);
    client.finish();
    server.finish();
    let least = windows.iter().copied().min().expect("windows");
    assert!(
        least % ECHOES == 0 && windows.iter().filter(|&&window| window == least).count() > 1,
        "{ECHOES} echoes at a time took {windows:?} instructions"
    );
    least / ECHOES
}

/// The thread that serves the only connection: the one that was made last, unless the kernel made
/// it.
fn serving_thread(server: &Server) -> u32 {
    let threads = process::threads(server.pid()).into_iter();
    let own = threads.filter(|&thread| !process::name(thread).starts_with("iou-"));
    own.max().expect("the main thread at least")
}

/// Writes the counts of this build, and keeps those of others.
fn write() {
    let build = build();
    let text = fs::read_to_string(KNOWN).unwrap_or_default();
    let others = text.lines().filter(|line| !line.starts_with(&build));
    let mut lines: Vec<String> = others.map(str::to_owned).collect();
    let backends = support::backends().into_iter();
    let backends = backends.filter(|backend| backend.echoes && backend.unsupported.is_none());
    for backend in backends.filter(is_countable) {
        let counted = count(&backend.name);
        println!("{}: {counted}", backend.name);
        lines.push(format!("{build},{},{counted}", backend.name));
    }
    fs::write(Path::new(KNOWN), lines.join("\n") + "\n").expect("the counts are written");
}
