use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::built_in::BuiltIn;
use super::*;
use crate::rows::Pass;

const GOOD: &str = r#"
    question = "which?"
    baseline = "epoll-et"
    backends = [{ backend = "epoll-et" }, { backend = "uring-multishot", set = ["buffers=64"] }]
    [latency]
    blocks = 2
    duration = "200ms"
    warmup_max = "1s"
    [[workload]]
    name = "one"
    question = "the floor"
    connections = 1
    message_bytes = 64
"#;

fn parse(text: &str) -> Result<Matrix> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("writes");
    Matrix::read(file.path())
}

#[test]
fn a_good_matrix_is_read() {
    let matrix = parse(GOOD).expect("is good");
    assert_eq!(matrix.latency.as_ref().expect("given").duration.get(), Duration::from_millis(200));
    assert_eq!(matrix.workloads[0].pipeline.get(), 1);
    assert_eq!(matrix.passes(), [Pass::Latency]);
}

#[test]
fn bad_matrices_are_refused_in_one_line_that_names_the_fault() {
    let with = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        parse(&GOOD.replace(from, to))
    };
    let cases = [
        (parse(""), "empty"),
        (parse("[latency"), "line 1"),
        (with("blocks = 2", "blokcs = 2"), "blokcs"),
        (with("blocks = 2", "blocks = 0"), "blocks"),
        (with("connections = 1", "connections = 0"), "connections"),
        (with("message_bytes = 64", "message_bytes = 0"), "message_bytes"),
        (with("buffers=64", "bufers=64"), "bufers"),
        (with("buffers=64", "buffers=0"), "buffers"),
        (with("baseline = \"epoll-et\"", "baseline = \"epoll-lt\""), "epoll-lt"),
        (with("{ backend = \"epoll-et\" }", "{ backend = \"epol\" }"), "epol"),
        (with("200ms", "200"), "200: give a time such as 500ms"),
        (with("name = \"one\"", "name = \"a/b\""), "a/b"),
        (with("message_bytes = 64", "message_bytes = 64\nsweep = [0.5, 0.2]"), "sweep must rise"),
        (with("message_bytes = 64", "message_bytes = 64\nsweep = [0.5]\npipeline = 2"), "pipeline"),
        (
            with("message_bytes = 64", "message_bytes = 64\nsweep = [0.5]\nrate_per_s = 1.0"),
            "sweep finds",
        ),
        (with("message_bytes = 64", "message_bytes = 64\nsweep_of = \"one\""), "sweep_of"),
        (with("blocks = 2", "blocks = 2\nprecision_percent = 0.0"), "precision_percent"),
        (with("message_bytes = 64", "message_bytes = 64\nrate_per_s = 0.0"), "rate_per_s"),
        (
            with("message_bytes = 64", "message_bytes = 64\nrate_per_s = 1.0\npipeline = 2"),
            "pipeline",
        ),
        (with("message_bytes = 64", "message_bytes = 64\narrival = \"uniform\""), "arrival"),
        (with("message_bytes = 64", "message_bytes = 64\nidle_spinner = 1"), "boolean"),
        (
            with("message_bytes = 64", "message_bytes = 64\nidle_connections = 99999999"),
            "idle_connections must be at most",
        ),
        (
            parse(
                &GOOD
                    .replace("[latency]", "[syscalls]\nechoes = 1")
                    .replace("blocks = 2", "")
                    .replace("duration = \"200ms\"", "")
                    .replace("warmup_max = \"1s\"", "")
                    .replace("message_bytes = 64", "message_bytes = 64\nidle_spinner = true"),
            ),
            "idle_spinner is for the pass [latency]",
        ),
        (
            with(
                "message_bytes = 64",
                "message_bytes = 64\nrate_per_s = 1.0\narrival = \"closed\"",
            ),
            "closed",
        ),
        (
            with("message_bytes = 64", "message_bytes = 64\nchurn = 0"),
            "0: give at least 1 echo on a connection",
        ),
        (
            with("message_bytes = 64", "message_bytes = 64\nchurn = 1\nidle_connections = 1"),
            "leave idle_connections out",
        ),
        (
            with("message_bytes = 64", "message_bytes = 64\nchurn = 5000000000"),
            "(churn of \"one\")",
        ),
        (with("message_bytes = 64", "message_bytes = 64\nchurn = 1.5"), "line 14"),
        (with("message_bytes = 64", "message_bytes = 64\nchurn = 1\nrate_per_s = 9.0"), "open one"),
        (with("message_bytes = 64", "message_bytes = 64\nclose = \"fin\""), "give churn too"),
        (with("message_bytes = 64", "message_bytes = 64\nchurn = 1\nclose = \"abort\""), "line 15"),
        (with("message_bytes = 64", "message_bytes = 64\nmtu = 20"), "mtu must be from 68"),
        (with("message_bytes = 64", "message_bytes = 64\npath = \"wifi\""), "line 14"),
        (with("message_bytes = 64", "message_bytes = 64\ncongestion = \"a b\""), "is no name"),
        (
            with("message_bytes = 64", "message_bytes = 64\npath = \"unix\"\nmtu = 1500"),
            "path \"unix\" has no use for mtu: it has no packets",
        ),
        (
            with("message_bytes = 64", "message_bytes = 64\npath = \"unix\"\nworkers = 2"),
            "path \"unix\" has no use for workers",
        ),
        (with("message_bytes = 64", "message_bytes = 64\ncpu_quota = \"half\""), "\"50 %\""),
        (with("message_bytes = 64", ""), "the service echo needs message_bytes"),
        (
            with("message_bytes = 64", "message_bytes = 64\nrequest_bytes = 1"),
            "the service echo has no use for request_bytes",
        ),
        (with("message_bytes = 64", "service = \"discard\""), "line 13"),
        (with("message_bytes = 64", "service = \"sink\""), "'one': the service sink needs request"),
        (
            with("message_bytes = 64", "service = \"sink\"\nmessage_bytes = 1\nrequest_bytes = 1"),
            "the service sink has no use for message_bytes",
        ),
        (
            with(
                "message_bytes = 64",
                "service = \"exchange\"\nrequest_bytes = 0\nresponse_bytes = 0",
            ),
            "both sizes are 0",
        ),
        (
            with("message_bytes = 64", "service = \"source\"\nresponse_bytes = 16777217"),
            "the most is 16777216",
        ),
        (
            with(
                "message_bytes = 64",
                "service = \"source\"\nresponse_bytes = 1\nrate_per_s = 1.0",
            ),
            "the service source has no use for an open loop",
        ),
        (
            with("message_bytes = 64", "service = \"sink\"\nrequest_bytes = 1\nchurn = 1"),
            "the service sink has no use for churn",
        ),
        (with("message_bytes = 64", "message_bytes = 64\nworkers = 0"), "'one': workers must be"),
        (with("message_bytes = 64", "message_bytes = 64\nworkers = 70000"), "line 14"),
        (
            with("message_bytes = 64", "message_bytes = 64\nwork_ns = 2000000000"),
            "'one': --set work_ns=",
        ),
        (with("message_bytes = 64", "message_bytes = 64\nwork_ns = -1"), "line 14"),
        (
            parse(
                &GOOD
                    .replace("buffers=64", "work_ns=5")
                    .replace("message_bytes = 64", "message_bytes = 64\nwork_ns = 5"),
            ),
            "by 'uring-multishot work_ns=5'",
        ),
    ];
    for (result, names) in cases {
        let message = format!("{:#}", result.expect_err(names));
        assert!(message.contains(names) && !message.contains('\n'), "{names}: {message}");
    }
}

#[test]
fn a_workload_sets_the_work_of_every_arm_and_no_other_does() {
    let matrix = parse(&GOOD.replace("message_bytes = 64", "message_bytes = 64\nwork_ns = 7"))
        .expect("is good");
    let settings = |index: usize| matrix.workloads[0].settings(&matrix.backends[index]);
    assert_eq!(settings(0), ["work_ns=7"]);
    assert_eq!(settings(1), ["buffers=64", "work_ns=7"]);
    let without =
        parse(&GOOD.replace("buffers=64", "work_ns=7")).expect("an arm may, if no workload does");
    assert_eq!(without.workloads[0].settings(&without.backends[1]), ["work_ns=7"]);
    assert!(without.workloads[0].settings(&without.backends[0]).is_empty());
}

const EXTERNAL: &str = r#"
    [[external]]
    name = "other"
    command = ["other", "--port={port}"]
    ready = { line = "listening" }
    ready_within = "3s"
    version = ["other", "--version"]
"#;

#[test]
fn an_external_server_is_an_arm_named_or_not() {
    let arms = |matrix: &Matrix| matrix.backends.iter().map(Arm::name).collect::<Vec<_>>();
    let matrix = parse(&format!("{GOOD}{EXTERNAL}")).expect("is good");
    assert_eq!(arms(&matrix), ["epoll-et", "uring-multishot buffers=64", "other"]);
    assert_eq!(matrix.external("other").expect("given").ready_within, Duration::from_secs(3));
    assert_eq!(matrix.external("epoll-et"), None);
    let named = GOOD.replace(
        "[{ backend = \"epoll-et\" }",
        "[{ backend = \"other\", over = \"epoll-et\" }, { backend = \"epoll-et\" }",
    );
    let named = parse(&format!("{named}{EXTERNAL}")).expect("is good");
    assert_eq!(arms(&named), ["other", "epoll-et", "uring-multishot buffers=64"]);
    assert!(named.comparisons().contains(&("other".to_owned(), "epoll-et".to_owned())));
    // As it is in a manifest.
    let json = serde_json::to_value(&named).expect("writes");
    let again: Matrix = serde_json::from_value(json).expect("reads");
    assert_eq!(again.externals, named.externals);
}

#[test]
fn external_servers_that_cannot_be_are_refused_in_one_line() {
    let with = |from: &str, to: &str| {
        let good = format!("{GOOD}{EXTERNAL}");
        assert!(good.contains(from), "{from}");
        parse(&good.replace(from, to))
    };
    let cases = [
        (with("name = \"other\"", "name = \"epoll-lt\""), "one of our backends"),
        (with("{port}", "8888"), "no {port}"),
        (with("ready = { line = \"listening\" }", "ready = \"soon\""), "soon"),
        (with("ready = { line = \"listening\" }\n", ""), "ready"),
        (with("[\"other\", \"--version\"]", "[\"\"]"), "version is empty"),
        (with("ready_within = \"3s\"", "redy = 3"), "redy"),
        (parse(&format!("{GOOD}{EXTERNAL}{EXTERNAL}")), "'other' stands twice"),
        (
            with("message_bytes = 64", "message_bytes = 64\nwork_ns = 5"),
            "external 'other' would do no",
        ),
        (with("message_bytes = 64", "message_bytes = 64\nworkers = 2"), "no {workers}"),
        (
            with(
                "[{ backend = \"epoll-et\" }",
                "[{ backend = \"other\", set = [\"a=1\"] }, { backend = \"epoll-et\" }",
            ),
            "has no knobs",
        ),
    ];
    for (result, names) in cases {
        let message = format!("{:#}", result.expect_err(names));
        assert!(message.contains(names) && !message.contains('\n'), "{names}: {message}");
    }
}

const ARMS: &str = r#"
    question = "which?"
    baseline = "epoll-et receive_bytes=4096"
    [[backends]]
    backend = "epoll-document"
    changes = "is where it begins"
    [[backends]]
    backend = "epoll-et"
    over = "epoll-document"
    changes = "registered once"
    [[backends]]
    backend = "epoll-et"
    set = ["receive_bytes=4096"]
    over = "epoll-et"
    changes = "less at once"
    [[backends]]
    backend = "uring-multishot"
    set = ["buffers=64", "buffer_bytes=1024"]
    over = "epoll-et receive_bytes=4096"
    [memory]
    question = "how much?"
    connections = [1, 2]
    message_bytes = 64
"#;

#[test]
fn one_backend_makes_several_arms_by_its_settings() {
    let matrix = parse(ARMS).expect("is good");
    let names: Vec<_> = matrix.backends.iter().map(Arm::name).collect();
    let uring = "uring-multishot buffers=64 buffer_bytes=1024";
    let narrow = "epoll-et receive_bytes=4096";
    assert_eq!(names, ["epoll-document", "epoll-et", narrow, uring]);
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    // The last stands on the baseline: one comparison is enough.
    let expected = [
        pair("epoll-document", narrow),
        pair("epoll-et", narrow),
        pair(uring, narrow),
        pair("epoll-et", "epoll-document"),
        pair(narrow, "epoll-et"),
    ];
    assert_eq!(matrix.comparisons(), expected);
}

#[test]
fn arms_that_cannot_be_are_refused_in_one_line() {
    for (from, to, names) in [
        ("set = [\"receive_bytes=4096\"]", "set = []", "'epoll-et' stands twice"),
        (
            "baseline = \"epoll-et receive_bytes=4096\"",
            "baseline = \"null\"",
            "baseline 'null' is not among",
        ),
        (
            "over = \"epoll-document\"",
            "over = \"epoll-dokument\"",
            "'epoll-dokument', which is not among",
        ),
        ("over = \"epoll-document\"", "over = \"epoll-et\"", "'epoll-et' is over itself"),
        ("changes", "chances", "chances"),
    ] {
        assert!(ARMS.contains(from), "{from}");
        let message = format!("{:#}", parse(&ARMS.replace(from, to)).expect_err(names));
        assert!(message.contains(names) && !message.contains('\n'), "{names}: {message}");
    }
}

#[test]
fn every_built_in_matrix_is_good_and_every_file_is_built_in() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("matrix");
    let files = std::fs::read_dir(folder).expect("harness/matrix");
    let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let files: BTreeSet<String> = files.map(|file| stem(file.expect("an entry").path())).collect();
    let names: BTreeSet<String> = built_in::ALL.iter().map(|one| one.name.to_owned()).collect();
    assert_eq!(files, names);
    for BuiltIn { name, text } in built_in::ALL {
        Matrix::parse(text, name).expect("is good");
    }
}

#[test]
fn a_name_is_a_file_or_the_nearest_is_named() {
    assert_eq!(NamedMatrix::named(Path::new("smoke")).expect("is built in").origin, "built in");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("smoke.toml");
    std::fs::write(&file, built_in::find("quick").expect("is there").text).expect("is written");
    for name in [file.as_path(), &folder.path().join("smoke")] {
        let found = NamedMatrix::named(name).expect("is found");
        assert_eq!((found.name.as_str(), found.origin), ("smoke", file.display().to_string()));
        assert_eq!(found.matrix.question, Matrix::read(&file).expect("is read").question);
    }
    for (name, nearest) in [("quik", "`quick`"), ("harness/Standard.toml", "`standard`")] {
        let error = NamedMatrix::named(Path::new(name)).err().expect("is nowhere").to_string();
        assert!(error.contains(&format!("did you mean {nearest}?")), "{error}");
    }
    let error = NamedMatrix::named(Path::new("zzz")).err().expect("is nowhere").to_string();
    assert!(!error.contains("mean") && error.contains("--list"), "{error}");
    assert!(NamedMatrix::named(folder.path()).is_err(), "a folder is none");
}
