//! Every command of the documents, run as it is written, in a folder that looks like a fresh clone.

use std::net::TcpListener;

use crate::clone::{Clone, Serving};
use crate::{documents, text};

/// Takes a long time, or another kernel: only its options are checked, by its help.
const LONG: [&str; 8] = [
    "scripts/soak.sh",
    "scripts/sanitize.sh",
    "scripts/kernels.sh",
    "scripts/dist.sh",
    "scripts/versus.sh",
    "scripts/pack_run.sh",
    "ringmark count",
    "ringmark boot",
];

/// A judgement may end with these: it is favourable or not, cannot be made, or there are no calls
/// to judge, since only root may count those of others.
const JUDGED: [i32; 4] = [0, 3, 4, 5];

/// Returns the commands of each indented block, with their comments.
fn blocks(text: &str) -> Vec<Vec<String>> {
    let mut blocks: Vec<Vec<String>> = Vec::new();
    let (mut is_inside, mut goes_on) = (false, false);
    for line in text.lines() {
        let Some(code) = line.strip_prefix("    ") else {
            is_inside = false;
            continue;
        };
        if !is_inside {
            blocks.push(Vec::new());
        }
        let block = blocks.last_mut().unwrap();
        let (code, continues) = match code.strip_suffix('\\') {
            Some(code) => (code, true),
            None => (code, false),
        };
        match block.last_mut() {
            Some(last) if goes_on && is_inside => *last += code.trim_start(),
            _ => block.push(code.to_owned()),
        }
        (is_inside, goes_on) = (true, continues);
    }
    blocks
}

/// Returns a command without its comment.
fn command(line: &str) -> &str {
    line.split("  #").next().unwrap_or_default().trim()
}

/// Returns the command with places, ports, machines and durations of the test.
fn adapted(command: &str, clone: &Clone, port: u16) -> String {
    let place = clone.path("");
    let place = place.display();
    let adapted = command
        .replace("/tmp/", &format!("{place}/tmp/"))
        .replace("--remote-bin /opt", &format!("--remote-bin {place}/opt"))
        .replace(":8888", &format!(":{port}"))
        .replace("192.168.7.2", "127.0.0.1")
        .replace("172.17.0.2", "127.0.0.1")
        .replace("taskset -c 3", "taskset -c 0");
    match adapted.contains("ringmark load ") {
        true => adapted + " --duration 200ms --warmup-max 100ms",
        false => adapted,
    }
}

/// Asserts that the help of a command knows the options that a document gives it.
fn assert_known(clone: &Clone, command: &str, long: &str) {
    let output = clone.run(&format!("{long} --help"));
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && !help.is_empty(), "{long} --help");
    let own = command.split(" -- ").next().unwrap();
    for option in own.split_whitespace().filter(|word| word.starts_with("--")) {
        assert!(help.contains(option), "{command}: {long} has no {option}:\n{help}");
    }
}

fn run_block(clone: &Clone, block: &[String], port: u16) {
    let commands: Vec<String> =
        block.iter().map(|line| adapted(command(line), clone, port)).collect();
    if commands.iter().any(|command| command.contains("ip netns add")) {
        return run_in_namespaces(clone, &commands);
    }
    let mut servers: Vec<Serving> = Vec::new();
    for command in commands.iter().filter(|command| !command.is_empty()) {
        if let Some(long) = LONG.into_iter().find(|long| command.starts_with(long)) {
            assert_known(clone, command, long);
        } else if command.contains("ringmark-server --backend") {
            servers.push(clone.serve(command));
        } else if command.contains("socat") && !clone.run("command -v socat").status.success() {
            eprintln!("skipped: there is no socat: {command}");
        } else {
            assert_runs(clone, command);
            clone.shorten("mine.toml");
        }
    }
}

fn assert_runs(clone: &Clone, command: &str) {
    let output = clone.run(command);
    let code = output.status.code().unwrap_or(-1);
    let is_judgement = ["--fail-if-slower", "run versus"].iter().any(|word| command.contains(word));
    assert!(
        code == 0 || is_judgement && JUDGED.contains(&code),
        "{command}\nended with {code}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs commands that make network namespaces, as root, where nobody else sees them.
fn run_in_namespaces(clone: &Clone, commands: &[String]) {
    let namespaces = "unshare --net --mount";
    if !clone.run(&format!("{namespaces} ip link")).status.success() {
        return eprintln!("skipped: no namespaces of its own: it needs root, and iproute2");
    }
    let lines = commands.join("\n");
    let script = format!("mkdir -p /run/netns\nmount -t tmpfs tmpfs /run/netns\n{lines}\n");
    std::fs::write(clone.path("namespaces.sh"), script).unwrap();
    assert_runs(clone, &format!("{namespaces} sh -eu namespaces.sh"));
}

fn run_document(document: &str) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let clone = Clone::new();
    let blocks = blocks(&text(document));
    assert!(!blocks.is_empty(), "{document} has no commands: take it out of the list");
    for block in blocks {
        run_block(&clone, &block, port);
    }
}

/// Makes a test of each document, and says which there are.
macro_rules! tests {
    ($($name:ident: $document:literal,)*) => {
        $(
            #[test]
            fn $name() {
                run_document($document);
            }
        )*
        const TESTED: &[&str] = &[$($document),*];
    };
}

tests! {
    readme: "README.md",
    report: "REPORT.md",
    contributing: "CONTRIBUTING.md",
    reading: "docs/reading.md",
    servers: "docs/servers.md",
    machines: "docs/machines.md",
    placement: "docs/placement.md",
    comparing: "docs/comparing.md",
    questions: "docs/questions.md",
    kernels: "docs/kernels.md",
    parts_alone: "docs/parts.md",
    external_servers: "docs/external-servers.md",
}

#[test]
fn no_document_with_commands_is_left_out() {
    let with_commands = documents().into_iter().filter(|name| !blocks(&text(name)).is_empty());
    let left_out: Vec<String> =
        with_commands.filter(|name| !TESTED.contains(&name.as_str())).collect();
    assert_eq!(left_out, Vec::<String>::new());
}

#[test]
fn blocks_and_comments_are_found() {
    let text = "text\n\n    a b   # why\n    c \\\n        d\n\ntext\n\n    e\n";
    assert_eq!(blocks(text), [vec!["a b   # why", "c d"], vec!["e"]]);
    assert_eq!(command("a b   # why"), "a b");
    assert_eq!(command("a"), "a");
}
