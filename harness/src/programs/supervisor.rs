//! Stands between `ringmark` and a server that is not ours, and ends all of its processes: those
//! that it leaves behind become children of this one, and once stdin ends, as it does when
//! `ringmark` is killed, none is left.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use ringmark::process::{self, Signals};

use super::process::{end_with_parent, was_suspended};
use crate::machine::process_tree::children_of;

/// The verb of `ringmark` that does it, which is not for people.
pub const VERB: &str = "supervise";

/// What it says on stdout once the server's first process was stopped by a signal, or continued
/// after that.
pub const SUSPENDED: &str = "ringmark supervise: the server was suspended";

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
    // Whoever is killed together with the one that it was to watch could end nothing: the end of
    // stdin tells.
    set(libc::PR_SET_PDEATHSIG, 0).context("PR_SET_PDEATHSIG")?;
    set(libc::PR_SET_CHILD_SUBREAPER, 1).context("PR_SET_CHILD_SUBREAPER")?;
    let signals =
        Signals::block(&[libc::SIGCHLD]).and_then(|signals| signals.open()).context("SIGCHLD")?;
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.args(&options.arguments).process_group(0).stdin(Stdio::piped());
    end_with_parent(&mut command);
    unblock_signals(&mut command);
    let mut server = command.spawn().context("start the server")?;
    crate::terminal::print_line(&server.id().to_string())?;
    loop {
        if signals.wait(true).context("signals")?.is_some() {
            if let Some(status) = server.try_wait().context("wait for the server")? {
                end_children();
                if let Some(signal) = status.signal() {
                    end_by(signal);
                }
                std::process::exit(status.code().unwrap_or_default());
            }
            if was_suspended(server.id()) {
                crate::terminal::print_line(SUSPENDED)?;
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
            if let Some(mut stdin) = server.stdin.take() {
                // If it is gone, its end is noticed by itself.
                let _ = stdin.write_all(b"\n");
                continue;
            }
            // SAFETY: takes no pointer. It is not reaped yet, so the number is that of its group.
            unsafe { libc::kill(-(server.id() as libc::pid_t), libc::SIGTERM) };
        }
    }
}

/// The mask of this process would be the server's too, who waits for its own children by what is
/// blocked here.
fn unblock_signals(command: &mut Command) {
    // SAFETY: sigemptyset and pthread_sigmask write to and read a local that lives through both
    // calls, and may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            match libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        });
    }
}

/// Ends this process by a signal, without another core file; returns if the signal does not.
fn end_by(signal: libc::c_int) {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: setrlimit reads a local; the others take no pointer.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

fn set(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: prctl takes no pointer with these options.
    match unsafe { libc::prctl(option, value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reaps a child that has ended, waiting for it or not; false if there is none.
fn reap(pid: libc::pid_t, options: libc::c_int) -> bool {
    // SAFETY: waitpid takes null where the status is not wanted.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), options) > 0 }
}

/// What is dead would be taken for a process of the server. All children but the server were left
/// by it.
fn reap_orphans(server: &Child) {
    for orphan in own_children().into_iter().filter(|&pid| pid != server.id()) {
        reap(orphan as libc::pid_t, libc::WNOHANG);
    }
}

/// Kills and reaps until there are no more: with each that ends, its own children come to this
/// process. One that cannot be killed is waited for, however long; `ringmark` waits no longer than
/// it wants to.
fn end_children() {
    loop {
        for pid in own_children() {
            // SAFETY: takes no pointer. A child that only this thread reaps, and has not, so the
            // number is its own.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        }
        if !reap(-1, 0) {
            return;
        }
        while reap(-1, libc::WNOHANG) {}
    }
}

/// None where they cannot be listed.
fn own_children() -> Vec<u32> {
    children_of(std::process::id()).unwrap_or_default()
}
