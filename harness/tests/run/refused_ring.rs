//! A kernel that refuses io_uring, as containers' default seccomp filters do.

use std::process::Command;

use crate::confine::refuse;
use crate::{
    CALLS, FOUR_CONNECTIONS, LATENCY, Place, assert_has, assert_reasons, heading,
    slabs_are_readable, stdout, success,
};

/// Makes io_uring_setup(2) fail with EPERM in the command's process and in all that it starts.
pub fn refuse_io_uring(command: &mut Command) {
    refuse(command, &[libc::SYS_io_uring_setup], libc::EPERM);
}

#[test]
fn its_rows_are_unsupported_and_the_others_are_measured() {
    let matrix = format!(
        "{}{LATENCY}{CALLS}[memory]\nquestion = \"q\"\nconnections = [8, 16]\n\
         message_bytes = 64\n{FOUR_CONNECTIONS}",
        heading(&["epoll-et", "uring-multishot"])
    );
    let place = Place::with(&matrix);
    let mut command = place.run();
    refuse_io_uring(&mut command);
    let printed = stdout(&success(&mut command));
    assert_has(&printed, &["and so `unsupported`: uring-multishot\n"]);
    assert_has(
        &printed,
        &[
            " unsupported",
            "- `uring-multishot` has no figures in four: unsupported: ",
            "io_uring_setup",
        ],
    );

    let rows = place.rows("trials.csv");
    // A busy machine costs blocks of the other arms, for which others are run.
    assert!(rows.len() >= 2 + 3 + 3, "{}", rows.len());
    assert_reasons(&rows);
    for row in &rows {
        if row["backend"] == "uring-multishot" {
            assert_eq!(row["status"], "unsupported", "{row:?}");
            assert_has(&row["reason"], &["io_uring_setup: EPERM"]);
        } else if row["pass"] != "memory" || slabs_are_readable() {
            assert!(!["unsupported", "failed"].contains(&row["status"].as_str()), "{row:?}");
        }
    }
    let backends = |file: &str| {
        place.rows(file).into_iter().map(|row| row["backend"].clone()).collect::<Vec<_>>()
    };
    assert!(backends("syscalls.csv").iter().all(|backend| backend == "epoll-et"));
    assert!(!backends("syscalls.csv").is_empty());
    assert!(!backends("memory.csv").contains(&"uring-multishot".to_owned()));
    // Only the baseline's readings are compared.
    assert!(backends("comparisons.csv").iter().all(|backend| backend == "epoll-et"));
}
