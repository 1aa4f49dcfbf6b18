//! Instructions, counted in an emulator: refusals before the first boot, and the counts where an
//! emulator and a kernel are there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{FOUR_CONNECTIONS, Place, assert_has, failure, heading};

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

#[test]
fn two_boots_count_the_same() {
    let Some(kernel) = kernel() else { return };
    let place = Place::with(&good());
    let output = count(&place, &kernel).args(["--boots", "2", "--out", "counts"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = fs::read_to_string(place.path("counts/instructions.csv")).unwrap();
    let mut reader = csv::Reader::from_reader(rows.as_bytes());
    let boot = reader.headers().unwrap().iter().position(|name| name == "boot").unwrap();
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let of_boot = |number: &str| -> Vec<Vec<String>> {
        let of_boot = records.iter().filter(|record| &record[boot] == number);
        let others = of_boot.map(|record| {
            let cells = record.iter().enumerate().filter(|(column, _)| *column != boot);
            cells.map(|(_, cell)| cell.to_owned()).collect()
        });
        others.collect()
    };
    assert!(of_boot("1").len() > 10, "{rows}");
    assert_eq!(of_boot("1"), of_boot("2"));
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
