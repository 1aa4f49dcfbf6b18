//! The report about memory that something disturbed, that could not be read, or of which files are
//! cut.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Place, QUICK, Row, assert_has, committed, edit_rows, set, stdout, success};

/// A copy of a committed run with walks.
fn copied(place: &Place) -> PathBuf {
    place.copy_of(&committed(QUICK))
}

/// Changes each row of a file.
fn edit(file: &Path, change: impl Fn(&mut Row)) {
    edit_rows(file, |rows| rows.iter_mut().for_each(change));
}

/// The output on the terminal, on the page and in the pictures.
fn reported(place: &Place, run: &Path) -> (String, String) {
    let drawn = place.path("drawn");
    let printed =
        stdout(&success(place.command("report").arg(run).args(["--full", "--out"]).arg(&drawn)));
    let chart = fs::read_to_string(drawn.join("charts/memory.svg")).unwrap_or_default();
    let page = fs::read_to_string(drawn.join("report.html")).unwrap();
    for nonsense in ["NaN", "inf", "0.00 MiB, none"] {
        let words = format!(" {nonsense} ");
        assert!(!printed.contains(&words) && !chart.contains(nonsense), "{nonsense}: {printed}");
        assert!(
            !page.contains(&format!(">{nonsense}")) && !page.contains(&format!("-{nonsense}")),
            "{nonsense}"
        );
    }
    (printed, chart)
}

fn table<'a>(printed: &'a str, title: &str) -> &'a str {
    printed.split(title).nth(1).and_then(|rest| rest.split("\n\n").nth(1)).unwrap_or_default()
}

#[test]
fn nothing_is_computed_from_a_floor_that_something_disturbed() {
    let place = Place::with("");
    let run = copied(&place);
    let is_sum = |row: &Row| row["backend"] == "null" && row["object"] == "all kernel objects";
    for (slope, low, high, why) in [
        ("10958", "7868", "13100", "`null` never-used: the kernel's objects had not come to rest"),
        (
            "10958",
            "10950",
            "10960",
            "`null` never-used: 6 of 6 walks have less of 'all kernel objects'",
        ),
        (
            "5000",
            "4990",
            "5010",
            "`null` never-used: the kernel's objects had not come to rest: connections took 5000 \
             bytes each",
        ),
    ] {
        edit(&run.join("memory.csv"), |row| {
            if is_sum(row) {
                for (column, value) in
                    [("bytes_per_connection", slope), ("low", low), ("high", high)]
                {
                    set(row, column, value);
                }
            } else if row["object"] == "all kernel objects" {
                for column in ["over_null_bytes_per_connection", "over_null_low", "over_null_high"]
                {
                    set(row, column, "-3000");
                }
            }
        });
        let (printed, chart) = reported(&place, &run);
        assert_has(&printed, &[why]);
        for absent in ["10958", "-3000", "connections in 1 GiB"] {
            assert!(!printed.contains(absent), "{absent}: {printed}");
        }
        assert_eq!(chart, "", "there is nothing to draw over no floor");
        // The server's own pages need none.
        assert_has(table(&printed, "Bytes per idle connection"), &["| **1056** (1056 to 1058) |"]);
    }
}

#[test]
fn a_walk_that_something_disturbed_has_no_figures_and_the_others_keep_theirs() {
    let place = Place::with("");
    let run = copied(&place);
    edit(&run.join("memory.csv"), |row| {
        if (row["arm"].as_str(), row["state"].as_str(), row["object"].as_str())
            == ("epoll-et", "never-used", "all kernel objects")
        {
            for (column, value) in [
                ("bytes_per_connection", "8432"),
                ("low", "7900"),
                ("high", "8600"),
                ("over_null_bytes_per_connection", "585"),
                ("over_null_low", "-334"),
                ("over_null_high", "960"),
            ] {
                set(row, column, value);
            }
        }
    });
    let (printed, chart) = reported(&place, &run);
    let said =
        "`epoll-et` never-used: all kernel objects: the readings bound it within 1294 bytes only";
    assert_has(&printed, &[said, "| **231** (197 to 277) |", "connections in 1 GiB"]);
    assert!(!printed.contains("585") && !chart.contains("585"), "{printed}");
    assert!(chart.contains("1294 bytes"), "{chart}");
}

#[test]
fn what_could_not_be_read_is_neither_zero_nor_a_rest_of_it() {
    let place = Place::with("");
    let run = copied(&place);
    // As a user has it, who may not read /proc/slabinfo.
    for file in ["memory.csv", "memory_points.csv"] {
        let is_read =
            |row: &Row| row["space"] != "kernel" || row["object"] == "server's page tables";
        edit_rows(&run.join(file), |rows| rows.retain(is_read));
    }
    let (printed, _) = reported(&place, &run);
    assert_has(
        &printed,
        &["without the kernel's objects it is not known whether the machine was at rest"],
    );
    for absent in
        ["| unexplained |", "MiB, none of the pages", "connections in 1 GiB", "all kernel objects"]
    {
        assert!(!printed.contains(absent), "{absent}: {printed}");
    }
}

#[test]
fn pages_that_do_not_add_up_have_no_shares() {
    let place = Place::with("");
    let run = copied(&place);
    for used in ["0", "0.4", "-58464", "5074.5"] {
        edit(&run.join("memory.csv"), |row| {
            if row["object"] == "used pages" {
                set(row, "bytes_per_connection", used);
            }
        });
        let (printed, _) = reported(&place, &run);
        assert_has(
            &printed,
            &["the machine's pages do not add up: something else took or gave memory"],
        );
        assert!(!printed.contains("| of all |"), "{used}: {printed}");
    }
}

#[test]
fn what_is_missing_of_a_cut_file_is_said() {
    let place = Place::with("");
    for (file, keep, why) in [
        ("memory.csv", 120, "part of it is missing"),
        (
            "memory.csv",
            30,
            "`epoll-et`: memory.csv has no rows of trial 14: a part of it is missing",
        ),
        ("memory.csv", 1, "`null`: memory.csv has no rows of trial 16: a part of it is missing"),
        ("trials.csv", 1, "Nothing is compared: trials.csv is missing or has no row"),
    ] {
        let run = copied(&place);
        let text = fs::read_to_string(run.join(file)).unwrap();
        let lines: Vec<&str> = text.lines().take(keep).collect();
        fs::write(run.join(file), lines.join("\n") + "\n").unwrap();
        assert_has(&reported(&place, &run).0, &[why]);
        fs::remove_file(run.join(file)).unwrap();
        if keep == 1 {
            assert_has(&reported(&place, &run).0, &[why]);
        }
    }
}
