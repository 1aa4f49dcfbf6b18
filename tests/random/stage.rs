//! The stage of a play: the diary of what was done there, and the server.

use crate::support::{Backend, Counters, Server, command, eventually};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::unix::process::CommandExt;

/// The actions that a failure tells of.
const REMEMBERED: usize = 12;

/// A play that has ended.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub seeds: u64,
    pub steps: u64,
    pub connections: u64,
    /// Bytes that came back, each compared.
    pub bytes: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.connections += other.connections;
        self.bytes += other.bytes;
    }
}

/// The steps so far; they outlive a play that fails.
#[derive(Default)]
pub struct Diary {
    /// The server's arguments.
    pub arguments: Vec<String>,
    /// The last actions.
    pub actions: VecDeque<String>,
    pub tally: Tally,
}

impl Diary {
    /// Adds an action, and forgets those of long ago.
    pub fn note(&mut self, action: String) {
        self.actions.push_back(action);
        if self.actions.len() > REMEMBERED {
            self.actions.pop_front();
        }
    }
}

/// Starts a server with the arguments that are drawn. A backend that this kernel does not support
/// with these may be supported with others.
pub fn launch(
    backend: &Backend,
    diary: &RefCell<Diary>,
    mut draw: impl FnMut() -> Vec<String>,
) -> Server {
    loop {
        let arguments = draw();
        diary.borrow_mut().arguments.clone_from(&arguments);
        let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = command(&backend.name, &texts);
        // Out of the terminal's group: SIGINT there is for the tests.
        command.process_group(0);
        if let Ok(server) = Server::launch(command).ready_or_refused() {
            return server;
        }
    }
}

/// Waits until nothing is left of the connections that have all ended, and ends the server. It has
/// so many open files then.
pub fn end_at_rest(server: Server, files: usize, diary: &RefCell<Diary>) -> Counters {
    let note = |action: &str| diary.borrow_mut().note(action.to_owned());
    note("rest");
    server.wait_for("accepted", diary.borrow().tally.connections);
    server.wait_for("open", 0);
    let has_files = |count: &usize| *count == files;
    eventually("the open files are those before", || server.fd_count(), has_files);
    server.wait_until_quiet();
    note("SIGTERM");
    server.terminate().well()
}
