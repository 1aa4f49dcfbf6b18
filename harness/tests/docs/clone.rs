//! A folder that looks like a fresh clone, in which each matrix takes no time, and the programs
//! that a document needs of other machines stand in for them.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::LazyLock;

use tempfile::TempDir;

use crate::programs::{self, RINGMARK};
use crate::root;

/// A matrix that counts a few calls.
const MATRIX: &str = "question = \"q\"\nbaseline = \"epoll-et\"\n\
                      backends = [{ backend = \"epoll-et\" }, { backend = \"epoll-lt\" }]\n\
                      [syscalls]\nechoes = 20\n\
                      [[workload]]\nname = \"w\"\nquestion = \"q\"\nconnections = 4\n\
                      message_bytes = 64\n";

/// A matrix of two servers that are the reader's own.
const VERSUS: &str = "question = \"q\"\nbaseline = \"before\"\n\
                      backends = [{ backend = \"before\" }, { backend = \"after\" }]\n\
                      [syscalls]\nechoes = 20\n\
                      [[workload]]\nname = \"w\"\nquestion = \"q\"\nconnections = 1\n\
                      message_bytes = 64\n\
                      [[external]]\nname = \"before\"\ncommand = [\"./before\", \"{port}\"]\n\
                      ready = \"port\"\n\
                      [[external]]\nname = \"after\"\ncommand = [\"./after\", \"{port}\"]\n\
                      ready = \"port\"\n";

/// A server of the reader's own.
const OWN_SERVER: &str = "exec ringmark-server --backend epoll-et --listen 127.0.0.1:$1\n";

/// The programs that stand in: a name, and what a shell does in its place.
const STAND_INS: [(&str, &str); 6] = [
    // Its programs lie in target/release.
    ("cargo", "exit 0\n"),
    ("git", "exit 0\n"),
    // The other machine is the folder `remote`.
    (
        "ssh",
        "while [ \"${1#-}\" != \"$1\" ]; do shift 2; done; shift\n\
         mkdir -p \"$CLONE/remote\"; cd \"$CLONE/remote\"; exec sh -c \"$*\"\n",
    ),
    (
        "scp",
        "mkdir -p \"$CLONE/remote/bin\"; exec ln -sf \"$(realpath \"$1\")\" \"$(realpath \"$2\")\" \
         \"$CLONE/remote/bin\"\n",
    ),
    (
        "docker",
        "mkdir -p \"$CLONE/opt\"\n\
         case $1 in cp) exec ln -sf \"$(realpath \"$2\")\" \"$CLONE/opt\" ;; esac\n\
         shift 3; exec \"$@\"\n",
    ),
    // The document's server, and no other of this machine.
    ("pidof", "exec cat \"$CLONE/server.pid\"\n"),
];

/// A finished run, which the tests copy.
static RUN: LazyLock<TempDir> = LazyLock::new(|| {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("matrix.toml"), MATRIX).unwrap();
    let mut command = Command::new(RINGMARK);
    command.args(["run", "matrix", "--out", "run"]).current_dir(place.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    place
});

pub struct Clone(TempDir);

impl Clone {
    pub fn new() -> Self {
        let clone = Self(tempfile::tempdir().unwrap());
        for entry in fs::read_dir(root()).unwrap().map(|entry| entry.unwrap()) {
            let name = entry.file_name();
            if !["target", "results", ".git"].iter().any(|own| name == *own) {
                symlink(entry.path(), clone.path(name.to_str().unwrap())).unwrap();
            }
        }
        for folder in ["target/release", "bin", "tmp", "results"] {
            fs::create_dir_all(clone.path(folder)).unwrap();
        }
        for program in [Path::new(RINGMARK), programs::server()] {
            for folder in ["target/release", "bin"] {
                let name = program.file_name().unwrap();
                symlink(program, clone.path(folder).join(name)).unwrap();
            }
        }
        for (name, script) in STAND_INS {
            clone.script(&format!("bin/{name}"), script);
        }
        for name in ["before", "after"] {
            clone.script(name, OWN_SERVER);
        }
        for entry in fs::read_dir(root().join("harness/matrix")).unwrap() {
            let name = entry.unwrap().file_name();
            let matrix = if name == "versus.toml" { VERSUS } else { MATRIX };
            fs::write(clone.path(name.to_str().unwrap()), matrix).unwrap();
        }
        for name in ["FOLDER", "A"] {
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(RUN.path().join("run")).arg(clone.path("results").join(name));
            assert!(copy.status().unwrap().success());
        }
        clone
    }

    fn script(&self, name: &str, text: &str) {
        fs::write(self.path(name), format!("#!/bin/sh\n{text}")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a matrix that a command has written take no time.
    pub fn shorten(&self, name: &str) {
        if self.path(name).exists() {
            fs::write(self.path(name), MATRIX).unwrap();
        }
    }

    /// Returns a command for a shell that is in the clone.
    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        let path = std::env::var("PATH").unwrap();
        shell
            .args(["-euc", command])
            .current_dir(self.0.path())
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("CLONE", self.0.path())
            .env("GITHUB_STEP_SUMMARY", self.path("summary.md"))
            .stdin(Stdio::null());
        shell
    }

    pub fn run(&self, command: &str) -> Output {
        self.shell(command).output().unwrap()
    }

    /// Starts a server that runs until it is killed, and waits until it says that it listens.
    pub fn serve(&self, command: &str) -> Serving {
        let mut shell = self.shell(&format!("exec {command}"));
        let mut child = shell.stdout(Stdio::piped()).spawn().unwrap();
        fs::write(self.path("server.pid"), child.id().to_string()).unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let serving = Serving { child, _said: said };
        assert!(line.contains("listen"), "{command}: {line}");
        serving
    }
}

/// A server, which is reaped with this.
pub struct Serving {
    child: Child,
    /// Open as long as it may say more.
    _said: BufReader<ChildStdout>,
}

impl Drop for Serving {
    /// Ends it as Ctrl-C does: the port is free afterwards.
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
