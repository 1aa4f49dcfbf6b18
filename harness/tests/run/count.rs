//! Instructions, counted in an emulator: refusals before the first boot, and the counts where an
//! emulator and a kernel are there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use itertools::Itertools as _;

use crate::columns::assert_files;
use crate::programs::server;
use crate::{FOUR_CONNECTIONS, Place, assert_has, failure, heading, stdout, success};

const INSTRUCTIONS: &str = "[instructions]\nechoes = 64\n";

fn good() -> String {
    format!("{}{INSTRUCTIONS}{FOUR_CONNECTIONS}", heading(&["epoll-et", "uring-multishot"]))
}

/// A file that looks like a kernel from outside, and is none inside.
fn hollow_kernel(place: &Place) -> PathBuf {
    let mut bytes = vec![0; 0x2000];
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x236] = 1;
    let path = place.path("hollow");
    fs::write(&path, bytes).unwrap();
    path
}

fn count(place: &Place, kernel: &Path) -> Command {
    let mut command = place.command("count");
    command.arg("matrix.toml").arg("--kernel").arg(kernel);
    command
}

#[test]
fn what_cannot_be_counted_is_refused_in_words() {
    let place = Place::with(&good());
    let hollow = hollow_kernel(&place);
    fs::write(place.path("text"), "no kernel").unwrap();
    for (kernel, arguments, complaints) in [
        ("text", &[][..], &["--kernel text", "no image of a kernel"][..]),
        ("missing", &[], &["--kernel missing", "No such file"]),
        ("hollow", &["--emulator", "/nonexistent/qemu"], &["no such emulator", "apt-get install"]),
        ("hollow", &["--emulator", "true"], &["this is not QEMU"]),
        ("hollow", &["--out", "."], &["exists", "--out a new folder"]),
    ] {
        let mut command = count(&place, Path::new(kernel));
        assert_has(&failure(command.args(arguments)), complaints);
    }
    let without = Place::with(&good().replace(INSTRUCTIONS, crate::LATENCY));
    assert_has(&failure(&mut count(&without, &hollow)), &["it has no [instructions]"]);
    let idle = Place::with(&good().replace("echoes = 64", "echoes = 0"));
    assert_has(&failure(&mut count(&idle, &hollow)), &["instructions.echoes is 0"]);
}

/// Returns a kernel that can be booted here, or says why there is none.
fn kernel() -> Option<PathBuf> {
    let images = fs::read_dir("/boot").into_iter().flatten().flatten().map(|entry| entry.path());
    let is_kernel = |path: &PathBuf| path.to_string_lossy().contains("/vmlinuz-");
    let given = std::env::var_os("RINGMARK_KERNEL").map(PathBuf::from);
    let kernel = given.or_else(|| images.filter(is_kernel).max());
    let emulator = Command::new("qemu-system-x86_64").arg("--version").output();
    match (kernel, emulator) {
        (Some(kernel), Ok(_)) => Some(kernel),
        (None, _) => {
            eprintln!("skipped: no kernel in /boot, and RINGMARK_KERNEL names none");
            None
        }
        (_, Err(_)) => {
            eprintln!("skipped: there is no qemu-system-x86_64");
            None
        }
    }
}

/// Returns the rows of `instructions.csv` without their trials and boots, by boot.
fn by_boot(place: &Place) -> [Vec<Vec<String>>; 2] {
    let rows = place.rows("instructions.csv");
    ["1", "2"].map(|boot| {
        let of_boot = rows.iter().filter(|row| row["boot"] == boot);
        let counts = of_boot.map(|row| {
            let cells = row.iter().filter(|(name, _)| !["run_id", "boot"].contains(&name.as_str()));
            cells.map(|(name, cell)| format!("{name} {cell}")).sorted().collect()
        });
        counts.collect()
    })
}

#[test]
fn two_boots_count_the_same_and_a_run_compares_with_itself() {
    let Some(kernel) = kernel() else { return };
    let place = Place::with(&good());
    let mut command = count(&place, &kernel);
    command.args(["--boots", "2", "--out", "out", "--diff", "epoll-et", "uring-multishot"]);
    let output = stdout(&success(&mut command));
    assert_has(
        &output,
        &["All 2 boots of each kernel counted the same", "by function", "io_uring"],
    );
    let [first, second] = by_boot(&place);
    assert!(first.len() > 10, "{first:?}");
    assert!(first == second, "{:?}", first.iter().zip(&second).find(|(a, b)| a != b));
    assert_files(&place.path("out"), &["trials.csv", "instructions.csv", "functions.csv"]);
    let charts = fs::read_dir(place.path("out/charts")).unwrap().count();
    assert_eq!(charts, 1, "one workload on one kernel");
    let mut compare = place.command("compare");
    compare.args(["out", "out", "--metric", "instructions_per_echo"]);
    assert_has(&stdout(&compare.output().unwrap()), &["instructions_per_echo", "more than one"]);
}

#[test]
fn a_run_without_an_emulator_says_so_and_goes_on() {
    let both = format!("[syscalls]\nechoes = 64\n{INSTRUCTIONS}");
    let place = Place::with(&good().replace(INSTRUCTIONS, &both));
    let mut command = place.run();
    success(command.env("PATH", "/nonexistent"));
    for row in place.rows("trials.csv") {
        let is_counted = row["pass"] == "instructions";
        assert_eq!(row["status"], if is_counted { "unsupported" } else { "ok" });
        let reasons = ["no such emulator", "no image of this kernel"];
        let is_told = reasons.iter().any(|reason| row["reason"].contains(reason));
        assert!(!is_counted || is_told, "{}", row["reason"]);
    }
}

#[test]
fn a_guest_that_does_not_come_up_is_ended() {
    if kernel().is_none() {
        return;
    }
    let place = Place::with(&good());
    let hollow = hollow_kernel(&place);
    let mut command = place.command("boot");
    command.args(["--within", "3s", "--kernel"]).arg(hollow).args(["--", "/bin/true"]);
    assert_has(&failure(&mut command), &["the guest", "last lines"]);
}

/// The place of User-mode Linux on Debian. It is a kernel and needs no emulator.
const USER_MODE_LINUX: &str = "/usr/bin/linux.uml";

#[test]
fn user_mode_linux_runs_a_server_where_it_comes_up() {
    let place = Place::with(&good());
    let mut command = place.command("boot");
    command.args(["--kernel", USER_MODE_LINUX, "--within", "30s", "--"]);
    command.arg(server()).args(["--list", "--json"]);
    let output = command.output().unwrap();
    let (said, error) = (stdout(&output), String::from_utf8_lossy(&output.stderr));
    // It does not run on CPUs whose registers it does not know.
    if !Path::new(USER_MODE_LINUX).exists() || error.contains("the guest") {
        eprintln!("skipped: no User-mode Linux comes up here: {error}");
        return;
    }
    assert!(output.status.success(), "{error}");
    let list: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    assert!(list.to_string().contains("epoll-et"), "{said}");
}
