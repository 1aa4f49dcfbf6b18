//! `ringmark report` of a finished run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{
    LADDER, Place, QUICK, assert_has, calls, committed, edit_rows, failure, one_line, set, stdout,
    success, table,
};

const SECTIONS: [&str; 14] = [
    "run",
    "verdicts",
    "questions",
    "syscalls",
    "events",
    "cpu",
    "latency",
    "open-loop",
    "capacity",
    "churn",
    "fairness",
    "memory",
    "ladder",
    "gates",
];

fn document() -> String {
    let mut text = String::from("# Before\n");
    for name in SECTIONS {
        text += &format!("\n<!-- ringmark:{name} out -->\n<!-- /ringmark:{name} -->\n");
    }
    text + "\nAfter\n"
}

#[test]
fn tables_are_printed() {
    let place = Place::finished();
    let printed = stdout(&success(&mut place.report()));
    let row = "| four     | epoll-et | ";
    assert_has(&printed, &["Trials: 1: 1 ok", row, "recvfrom 1.00, sendto 1.00"]);
    assert!(!printed.contains("Closed loop"), "it was not measured: {printed}");
}

#[test]
fn splicing_twice_is_splicing_once() {
    let place = Place::finished();
    let file = place.path("doc.md");
    fs::write(&file, document()).unwrap();
    let splice = || {
        let output = success(place.command("report").args(["--splice", "doc.md"]));
        assert_eq!(stdout(&output), "");
        fs::read_to_string(&file).unwrap()
    };
    let once = splice();
    assert!(
        once.starts_with("# Before\n\n<!-- ringmark:run out -->\n")
            && once.ends_with("\n\nAfter\n"),
        "{once}"
    );
    assert_has(&once, &["| four     | epoll-et | ", "This run did not measure it."]);
    assert_eq!(splice(), once);
}

#[test]
fn a_document_with_broken_markers_stays_as_it_is() {
    let place = Place::finished();
    let file = place.path("doc.md");
    for (text, complaint) in [
        (String::new(), "there is no marker <!-- ringmark:"),
        (document().replace("ringmark:cpu out", "ringmark:cpu other"), "not the folder of a run"),
        (document().replace("<!-- /ringmark:gates -->\n", ""), "'gates' has no end"),
        (document().replace("ringmark:memory", "ringmark:memories"), "no table 'memories'"),
    ] {
        fs::write(&file, &text).unwrap();
        let line = failure(place.command("report").args(["--splice", "doc.md"]));
        assert_has(&line, &["doc.md: ", complaint]);
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    let mut names: Vec<_> =
        fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["doc.md", "matrix.toml", "out"], "nothing is left beside it");
}

#[test]
fn who_reads_no_more_gets_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let place = Place::with("");
    let run = committed("-crowd");
    let said = place
        .command("report")
        .arg(run)
        .args(["--full", "--out", "drawn"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(said.stderr).unwrap(), "");
    assert!(said.status.success(), "{}", said.status);
    // The files do not hang on who reads the tables.
    let made = drawn(&place.path("drawn"));
    assert!(made.contains_key(Path::new("report.html")) && made.len() > 1, "{:?}", made.keys());
}

#[test]
fn a_run_of_which_nobody_reads_is_measured_all_the_same() {
    let place = Place::with(&calls(&["epoll-et"]));
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let doctor = place.command("doctor").stdout(closed()).output().unwrap();
    assert!(!String::from_utf8(doctor.stderr).unwrap().contains("pipe"));
    for command in [&mut place.run(), place.command("completions").arg("bash")] {
        let output = command.stdout(closed()).output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        assert!(output.status.success(), "{}", output.status);
    }
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!((place.rows("trials.csv").len(), drawn(&place.out()).len()), (1, 2));
    fs::remove_dir_all(place.out()).unwrap();
    assert_has(&failure(place.run().stdout(full())), &["stdout: No space left"]);
    assert_eq!(
        (place.rows("trials.csv").len(), drawn(&place.out()).len()),
        (1, 2),
        "its files are whole"
    );
    assert!(place.manifest()["finished_utc"].is_string());
    fs::remove_file(place.out().join("report.html")).unwrap();
    assert_has(&failure(place.report().stdout(full())), &["stdout: No space left"]);
    assert_eq!(drawn(&place.out()).len(), 2);
}

#[test]
fn the_verdicts_stand_first_and_the_question_above_them() {
    let place = Place::with("");
    let report = |run: &Path| {
        stdout(&success(place.command("report").arg(run).args(["--full", "--out", "drawn"])))
    };
    let standard = report(&committed("-standard-intel"));
    let mut lines = standard.lines().filter(|line| !line.is_empty());
    assert_has(lines.next().unwrap(), &["standard: At which rate does a server"]);
    assert_eq!(lines.next(), Some("Verdicts"));
    assert_has(
        lines.next().unwrap(),
        &["`server_cpu_ns_per_echo` over epoll-et", "lower is better"],
    );
    assert_has(lines.next().unwrap(), &["| arm ", "1-conn-64B"]);
    // The page colours a verdict, and shows the rest beside it.
    let page = fs::read_to_string(place.path("drawn/report.html")).unwrap();
    let verdicts = page.split("<h2>Verdicts</h2>\n").nth(1).unwrap();
    assert_has(verdicts, &["class=\"number worse\"", "title=\"higher; ", "to spare; "]);
    let table = standard.split("Capacity at the latency objective\n\n").nth(1).unwrap();
    let kept: Vec<_> =
        table.lines().skip(8).take(6).map(|line| line.split('|').nth(4).unwrap().trim()).collect();
    assert_eq!(kept, ["22,000", "22,000", "22,000", "89,000", "150,000", "22,000"]);
}

/// Every number of `comparisons.csv` that has a verdict stands in the grid with its sign.
#[test]
fn every_verdict_is_printed() {
    let place = Place::with("");
    let run = place.copy_of(&committed(LADDER));
    let printed = stdout(&success(place.command("report").arg(&run).arg("--full")));
    let (_, grid) = printed.split_once("Verdicts\n").unwrap();
    let (grid, _) = grid.split_once("\nThe run\n").unwrap();
    let signs = |sign: &str| grid.matches(&format!(") {sign}")).count();
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    let verdicts = |word: &str| page.matches(&format!("title=\"{word}; ")).count();
    for (sign, word) in [("▲", "higher"), ("▼", "lower"), ("≈", "alike"), ("?", "not resolved")]
    {
        assert!(signs(sign) > 0 && signs(sign) == verdicts(word), "{word}: {}", signs(sign));
    }
}

#[test]
fn rows_without_their_trial_decide_nothing() {
    let place = Place::with("");
    place.copy_of(&committed(QUICK));
    let report = || place.command("report").args(["copy", "--full"]).output().unwrap();
    let printed = stdout(&report());
    assert_has(&printed, &["kernel memory per idle connection"]);
    assert!(
        !printed.contains("- - ") && !printed.contains("\n- – "),
        "a list of dashes: {printed}"
    );
    let trials = fs::read_to_string(place.path("copy/trials.csv")).unwrap();
    fs::write(
        place.path("copy/trials.csv"),
        format!("{trials}{}\n", trials.lines().last().unwrap()),
    )
    .unwrap();
    assert_has(&one_line(&report()), &["copy/trials.csv: trial ", " stands in it twice"]);
    let most: Vec<&str> = trials.lines().take(41).collect();
    fs::write(place.path("copy/trials.csv"), most.join("\n")).unwrap();
    let cut = "it is not whole: its trials.csv has 40 of the 272 trials that its manifest names";
    assert_has(&stdout(&report()), &[cut]);
    fs::remove_file(place.path("copy/trials.csv")).unwrap();
    let printed = stdout(&report());
    assert!(!printed.contains("kernel memory") && !printed.contains("0 of 0 trials"), "{printed}");
}

/// Their columns are those of the version that wrote them.
#[test]
fn committed_runs_of_each_pass_are_still_read() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
    let place = Place::with("");
    let mut passes = BTreeMap::from([
        ("latency", &["1 (baseline)", " (again) "][..]),
        ("syscalls", &["System calls per echo"]),
        ("memory", &["all kernel objects"]),
        ("scale", &["Opening and closing", "Open loop, "]),
    ]);
    for folder in fs::read_dir(results).unwrap().map(|entry| entry.unwrap().path()) {
        // A run of one's own may be under way there.
        if !folder.join("comparisons.csv").exists() {
            continue;
        }
        let trials = table(&folder, "trials.csv");
        let has = |pass: &str| trials.contains(&format!(",{pass},"));
        if !passes.keys().any(|pass| has(pass)) {
            continue;
        }
        // A person who reads them leaves them as they are.
        let out = place.path("drawn");
        let printed = stdout(&success(
            place.command("report").arg(&folder).args(["--full", "--out"]).arg(out),
        ));
        for (_, words) in passes.extract_if(.., |pass, _| has(pass)) {
            assert_has(&printed, words);
        }
    }
    assert!(passes.is_empty(), "no committed run has {passes:?}");
}

/// Page and pictures of a run, by name.
fn drawn(folder: &Path) -> BTreeMap<PathBuf, String> {
    let charts = fs::read_dir(folder.join("charts")).into_iter().flatten();
    let charts = charts.map(|entry| Path::new("charts").join(entry.unwrap().file_name()));
    let names =
        charts.chain([PathBuf::from("report.html")]).filter(|name| folder.join(name).exists());
    names.map(|name| (name.clone(), fs::read_to_string(folder.join(name)).unwrap())).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Copies the files of the committed runs that ringmark reads.
fn copy_runs(place: &Place) {
    for folder in fs::read_dir(root().join("results")).unwrap().map(|entry| entry.unwrap().path()) {
        let copy = place.path("results").join(folder.file_name().unwrap());
        fs::create_dir_all(&copy).unwrap();
        for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let ending = file.extension().and_then(|ending| ending.to_str());
            if matches!(ending, Some("csv" | "gz" | "json")) {
                fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
            }
        }
        if folder.join("guests").exists() {
            std::os::unix::fs::symlink(folder.join("guests"), copy.join("guests")).unwrap();
        }
    }
}

/// The documents and the pictures in them show of the committed runs just what their files say.
#[test]
fn the_committed_documents_are_those_of_the_committed_runs() {
    let place = Place::with("");
    let documents = ["REPORT.md", "README.md"];
    for document in documents {
        fs::copy(root().join(document), place.path(document)).unwrap();
    }
    copy_runs(&place);
    success(place.command("report").arg("--splice").args(documents));
    let advice = "run `ringmark report --splice REPORT.md README.md`, and read the prose beside \
                  what changes";
    for document in documents {
        let [made, committed] = [place.path(document), root().join(document)]
            .map(|path| fs::read_to_string(path).unwrap());
        assert!(made == committed, "{document}: {advice}");
    }
    let mut count = 0;
    for copy in fs::read_dir(place.path("results")).unwrap().map(|entry| entry.unwrap().path()) {
        let name = copy.file_name().unwrap().to_string_lossy().into_owned();
        let folder = root().join("results").join(&name);
        let (made, committed) = (drawn(&copy), drawn(&folder));
        if !made.is_empty() {
            // A run that the documents do not speak of is one of one's own.
            assert!(made.keys().eq(committed.keys()), "{name}: {advice}");
        }
        for (file, text) in &made {
            assert!(committed[file] == *text, "{name}/{}: {advice}", file.display());
            assert_is_picture(&format!("{name}/{}", file.display()), text);
            count += 1;
        }
        let verdicts = |folder: &Path| fs::read(folder.join("comparisons.csv")).ok();
        assert!(verdicts(&copy) == verdicts(&folder), "{name}/comparisons.csv: {advice}");
    }
    assert!(count > 10, "{count} pictures");
}

/// Well-formed, with words for those who do not see it, and everything drawn at a finite place
/// within.
#[track_caller]
fn assert_is_picture(name: &str, text: &str) {
    let document =
        roxmltree::Document::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let root = document.root_element();
    let numbers = |text: &str| -> Vec<f64> {
        let pieces = text.split(|letter: char| letter.is_whitespace() || ",MLZ".contains(letter));
        let pieces = pieces.filter(|piece| !piece.is_empty());
        pieces
            .map(|piece| piece.parse().unwrap_or_else(|_| panic!("{name}: '{piece}' in '{text}'")))
            .collect()
    };
    let [_, _, width, height] = numbers(root.attribute("viewBox").unwrap())[..] else {
        panic!("{name}")
    };
    for element in ["title", "desc"] {
        let words = root
            .children()
            .find(|child| child.has_tag_name((root.tag_name().namespace().unwrap(), element)));
        assert!(
            words.and_then(|words| words.text()).is_some_and(|text| !text.is_empty()),
            "{name}: no {element}"
        );
    }
    let mut count = 0;
    for element in root.descendants().filter(roxmltree::Node::is_element).skip(1) {
        let of = |attribute: &str| element.attribute(attribute).map(numbers).unwrap_or_default();
        let [x, y] =
            [["x", "x1", "x2", "cx"], ["y", "y1", "y2", "cy"]].map(|names| names.map(of).concat());
        let points = [of("points"), of("d")].concat();
        let (xs, ys) = (points.iter().step_by(2), points.iter().skip(1).step_by(2));
        let right = of("x").iter().zip(of("width")).map(|(x, width)| x + width).collect::<Vec<_>>();
        let bottom =
            of("y").iter().zip(of("height")).map(|(y, height)| y + height).collect::<Vec<_>>();
        let xs: Vec<f64> = x.iter().chain(xs).chain(&right).copied().collect();
        let ys: Vec<f64> = y.iter().chain(ys).chain(&bottom).copied().collect();
        for (values, most) in [(xs, width), (ys, height)] {
            for value in values {
                let is_within = (-0.1..=most + 0.1).contains(&value);
                assert!(is_within, "{name}: {value} in {:?}", &text[element.range()]);
                count += 1;
            }
        }
    }
    assert!(count > 20, "{name}: only {count} places");
}

#[test]
fn a_run_ends_with_a_page_and_pictures_and_a_report_makes_the_same() {
    let place = Place::finished();
    let made = drawn(&place.out());
    assert_eq!(
        made.keys().collect::<Vec<_>>(),
        [Path::new("charts/syscalls.svg"), Path::new("report.html")]
    );
    let page = &made[Path::new("report.html")];
    assert_has(
        page,
        &[
            "<html lang=\"en\">",
            "<meta name=\"viewport\"",
            "epoll-et on ",
            ", over loopback, both sides on one machine</title>",
            "Nothing is compared: <code>epoll-et</code> is the only arm",
            "<td>epoll-et</td>",
            "<li>CPU per echo: the run has no latency pass</li>",
            "No trial was rejected.",
        ],
    );
    for outside in ["src=", "url(", "@import", "href=\"http"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let picture = &made[Path::new("charts/syscalls.svg")];
    assert_is_picture("syscalls", picture);
    assert_has(
        picture,
        &["Which system calls does an echo take?", "epoll-et", "recvfrom", "per echo"],
    );
    fs::remove_dir_all(place.out().join("charts")).unwrap();
    fs::remove_file(place.out().join("report.html")).unwrap();
    success(&mut place.report());
    assert_eq!(drawn(&place.out()), made);
    success(place.command("report").args(["out", "--out", "elsewhere/deep"]));
    assert_eq!(drawn(&place.path("elsewhere/deep")), made);
}

#[test]
fn pictures_that_a_run_has_no_more_go_and_others_stay() {
    let place = Place::finished();
    let charts = place.out().join("charts");
    fs::copy(charts.join("syscalls.svg"), charts.join("older.svg")).unwrap();
    fs::write(charts.join("own.svg"), "<svg/>").unwrap();
    success(&mut place.report());
    let made = drawn(&place.out());
    let names: Vec<_> = made.keys().map(|name| name.to_string_lossy()).collect();
    assert_eq!(names, ["charts/own.svg", "charts/syscalls.svg", "report.html"]);
}

#[test]
fn where_nothing_can_be_written_the_tables_are_printed_and_one_line_says_so() {
    let place = Place::finished();
    fs::remove_dir_all(place.out().join("charts")).unwrap();
    fs::write(place.out().join("charts"), "a file").unwrap();
    let output = place.report().output().unwrap();
    assert_has(&stdout(&output), &["System calls per echo"]);
    assert_has(&one_line(&output), &["--out", "out/charts: Not a directory"]);
}

/// Changes a cell of the first row.
fn edit(file: &Path, column: &str, cell: &str) {
    edit_rows(file, |rows| set(&mut rows[0], column, cell));
}

#[test]
fn what_was_edited_is_named() {
    for (file, column, cell, words) in [
        ("trials.csv", "echoes", "many", "line 2, column 'echoes': 'many'"),
        (
            "trials.csv",
            "syscalls_per_echo",
            "NaN",
            "line 2, column 'syscalls_per_echo': 'NaN' is no figure",
        ),
        ("trials.csv", "latency_p50_us", "1,5", "line 2, column 'latency_p50_us': '1,5'"),
        ("trials.csv", "status", "good", "line 2: unknown variant `good`"),
        ("syscalls.csv", "calls", "-3", "line 2, column 'calls': '-3'"),
    ] {
        let place = Place::finished();
        edit(&place.out().join(file), column, cell);
        assert_has(&failure(&mut place.report()), &["out/", file, words]);
    }
    let place = Place::finished();
    for (from, to, words) in [
        ("run_id,", "colour,", "unknown field `colour`: another version of ringmark wrote it"),
        (",status,", ",", "fields"),
    ] {
        let file = place.out().join("trials.csv");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
        assert_has(&failure(&mut place.report()), &["out/trials.csv: ", words]);
        fs::write(&file, text).unwrap();
    }
}

#[test]
fn a_run_without_figures_says_so_in_their_place() {
    let place = Place::finished();
    edit(&place.out().join("trials.csv"), "status", "rejected");
    edit(&place.out().join("trials.csv"), "reason", "<b>busy</b> & \"loud\"");
    let manifest = fs::read_to_string(place.out().join("manifest.json")).unwrap();
    let other = manifest
        .replacen("\"ringmark\": \"0.", "\"ringmark\": \"9.", 1)
        .replace("\"q\"", "\"<script>q\"");
    assert_ne!(manifest, other);
    fs::write(place.out().join("manifest.json"), other).unwrap();
    assert_has(&stdout(&success(&mut place.report())), &["Trials: 1: 1 rejected"]);
    let made = drawn(&place.out());
    assert_eq!(made.len(), 1, "there is nothing to draw");
    let page = &made[Path::new("report.html")];
    assert_has(
        page,
        &[
            "No trial of this run gave figures that may be used, out of 1",
            "Version 9.",
            "no figures of the syscalls pass may be used",
            "&lt;b&gt;busy&lt;/b&gt; &amp; &quot;loud&quot;",
            "&lt;script&gt;q",
        ],
    );
    assert!(!page.contains("<b>") && !page.contains("<script>q"), "{page}");
    fs::remove_file(place.out().join("trials.csv")).unwrap();
    success(&mut place.report());
    assert_has(&drawn(&place.out())[Path::new("report.html")], &["out of 0"]);
}

#[test]
fn what_is_no_run_is_refused() {
    let place = Place::with("");
    for folder in [".", "missing"] {
        assert_has(&failure(place.command("report").arg(folder)), &["not the folder of a run"]);
    }
    let line = failure(Place::finished().command("report").args(["--splice", "missing.md"]));
    assert_has(&line, &["read missing.md: No such file"]);
}

#[test]
fn a_full_stdout_is_an_error_and_no_panic() {
    let place = Place::finished();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_has(&failure(place.report().stdout(full)), &["stdout: No space left"]);
}

/// The kernel knows no more of these than it finds at its ticks: they were less than server and
/// client together.
#[test]
fn what_is_sampled_at_the_tick_is_shown_nowhere() {
    let run = committed(QUICK);
    let place = Place::with("");
    let printed =
        stdout(&success(place.command("report").arg(run).args(["--full", "--out", "drawn"])));
    let page = fs::read_to_string(place.path("drawn/report.html")).unwrap();
    assert_has(&printed, &["| server ns/echo | ", " client ns/echo | switches/echo | blocks |"]);
    for column in ["machine ns/echo", "server's program", "server's kernel ns", "softirqs ns/echo"]
    {
        assert!(!printed.contains(column) && !page.contains(column), "{column}");
    }
}
