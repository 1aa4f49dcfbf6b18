//! Stands between `ringmark` and an external server, and ends all of its processes. Those that the
//! server leaves behind become children of the supervisor. Once stdin ends, as it does when
//! `ringmark` is killed, it ends them all.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use ringmark::process::{self, Signals};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getpid, kill_process, set_child_subreaper,
    set_parent_process_death_signal, setrlimit, wait, waitpid,
};

use super::child::{SUSPENDED, end_with_parent, signal_group, was_suspended};
use crate::machine::process_tree::children_of;
use crate::terminal::print_line;

/// The verb of `ringmark`, which is not for people.
pub const VERB: &str = "supervise";

/// Starts a server, says its number, and ends all that comes of it once stdin ends.
///
/// The first line on stdin is passed on to it; any other asks its process group to leave (SIGTERM).
#[derive(clap::Args, Debug)]
pub struct Options {
    /// The arguments of `ringmark` that make it the server
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Ends as the server does, by its exit status or by its signal.
pub fn run(options: &Options) -> Result<()> {
    // A supervisor that is killed together with `ringmark` could end nothing: it waits for the end
    // of stdin.
    set_parent_process_death_signal(None).context("PR_SET_PDEATHSIG")?;
    set_child_subreaper(Some(getpid())).context("PR_SET_CHILD_SUBREAPER")?;
    let signals =
        Signals::block(&[libc::SIGCHLD]).and_then(|signals| signals.open()).context("SIGCHLD")?;
    let mut server = start(options)?;
    print_line(&server.id().to_string())?;
    loop {
        if signals.wait(true).context("signals")?.is_some() {
            if let Some(status) = server.try_wait().context("wait for the server")? {
                end_children();
                if let Some(signal) = status.signal() {
                    end_by(signal);
                }
                std::process::exit(status.code().unwrap_or_default());
            }
            if was_suspended(&server) {
                print_line(SUSPENDED)?;
            }
            reap_orphans(&server);
            continue;
        }
        let mut bytes = [0; 64];
        let read = process::read_stdin(&mut bytes).context("stdin")?;
        if read == 0 {
            end_children();
            return Ok(());
        }
        for _ in bytes[..read].iter().filter(|&&byte| byte == b'\n') {
            match server.stdin.take() {
                // If it is gone, its end is noticed by itself.
                Some(mut stdin) => drop(stdin.write_all(b"\n")),
                None => signal_group(&server, Signal::TERM),
            }
        }
    }
}

fn start(options: &Options) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.args(&options.arguments).process_group(0).stdin(Stdio::piped());
    end_with_parent(&mut command);
    // The server would inherit the mask of this process, and wait for its own children in vain.
    // SAFETY: pthread_sigmask is safe between fork and exec. An error of its allocates, which is
    // safe too: this process has no other thread.
    unsafe { command.pre_exec(process::unblock_all_signals) };
    command.spawn().context("start the server")
}

/// Ends this process by a signal, without another core file; returns if the signal does not.
fn end_by(signal: libc::c_int) {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Whatever fails here, its status says that it has ended.
    let _ = setrlimit(Resource::Core, none);
    let _ = process::restore_signals(&[signal]);
    process::signal_self(signal);
}

/// Reaps dead processes that the server has left, so that they are not taken for its own.
fn reap_orphans(server: &Child) {
    for orphan in own_children().into_iter().filter(|&pid| pid != Pid::from_child(server)) {
        let _ = waitpid(Some(orphan), WaitOptions::NOHANG);
    }
}

/// Kills and reaps until there are no more: the children of each that ends come to this process.
/// It waits for a process that cannot be killed, however long; `ringmark` waits no longer than it
/// wants to.
fn end_children() {
    loop {
        for pid in own_children() {
            let _ = kill_process(pid, Signal::KILL);
        }
        if !matches!(wait(WaitOptions::empty()), Ok(Some(_))) {
            return;
        }
        while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
    }
}

/// Returns the children that are not reaped; none where they cannot be listed.
fn own_children() -> Vec<Pid> {
    let pids = children_of(std::process::id()).unwrap_or_default();
    pids.into_iter().filter_map(|pid| Pid::from_raw(pid as i32)).collect()
}
