//! Becomes another program on command. Counters can be attached before, as to one of our servers in
//! `--hold`, and stay attached.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use ringmark::cpus::CpuList;

/// The verb of `ringmark`, which is not for people.
pub const VERB: &str = "exec-when-told";

/// Becomes another program once a line has come on stdin.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// CPUs that the program may use [default: those of this one]
    #[arg(long, value_name = "LIST")]
    cpus: Option<CpuList>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Waits, and becomes the program.
pub fn run(options: &Options) -> Result<()> {
    let read = io::stdin().lock().read_line(&mut String::new()).context("stdin")?;
    ensure!(read > 0, "stdin ended before a line came; nothing was started");
    if let Some(cpus) = &options.cpus {
        cpus.pin().with_context(|| format!("run on the CPUs {cpus}"))?;
    }
    // Our own servers take as many.
    ringmark::process::raise_open_files_limit().context("RLIMIT_NOFILE")?;
    let (program, arguments) = options.command.split_first().context("no program")?;
    let error = Command::new(program).args(arguments).stdin(Stdio::null()).exec();
    Err(anyhow!("run {}: {error}", program.to_string_lossy()))
}
