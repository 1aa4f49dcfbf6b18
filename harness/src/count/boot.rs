//! `ringmark boot`: runs a program on another kernel, in an emulator.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::emulator::{EMULATOR, Emulator, Guest};
use super::file_system::FileSystem;
use super::job::{GuestEvent, Job};
use super::kernel::{self, KernelKind};
use crate::load::limits::MeasuringTime;
use crate::programs::process::Interruptions;
use crate::terminal;

const AFTER_HELP: &str = "\
Examples:
  ringmark boot --kernel vmlinuz-6.1 -- target/release/ringmark-server --list
      which backends does that kernel run?
  ringmark boot --kernel /usr/bin/linux.uml -- target/release/ringmark doctor
      what could be measured there?

Nothing is installed, and the guest has no network. It needs QEMU for x86-64, and no rights.";

/// Runs a program on another kernel, in an emulator.
///
/// The guest has that program, what it is linked with, and the files of --with, at the same places
/// as here. The output comes when the program has ended. Nothing is timed: an emulator tells no
/// times.
#[derive(clap::Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Options {
    /// The kernel's image (bzImage), or User-mode Linux, which needs no emulator
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The emulator, QEMU for x86-64
    #[arg(long, value_name = "FILE", default_value = EMULATOR)]
    emulator: PathBuf,
    /// CPUs of the guest
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// A file or a program that the guest needs besides; again for more
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// End the guest after this time
    #[arg(long, value_name = "TIME", default_value = "5min")]
    within: MeasuringTime,
    /// The program, and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// Boots, and prints what the program printed.
pub fn run(options: &Options) -> Result<()> {
    let mut command = options.command.clone();
    let absolute =
        |path: &Path| std::path::absolute(path).with_context(|| path.display().to_string());
    let emulator = match kernel::look(&options.kernel)? {
        KernelKind::Image => Emulator::find(&options.emulator)?,
        KernelKind::Program => Emulator::of_user_mode(&options.kernel),
    };
    let program = absolute(Path::new(&command[0]))?;
    command[0] = program.display().to_string();
    let mut files = FileSystem::with_this_program()?;
    files.add(&program)?;
    for file in &options.with {
        files.add(&absolute(file)?)?;
    }
    let archive = files.finish(&Job { counts: Vec::new(), command: Some(command) })?;
    let guest = Guest {
        image: &options.kernel,
        archive: &archive,
        cpus: Some(options.cpus),
        most: options.within.get(),
    };
    let boot = emulator.boot(&guest, &Interruptions::default())?;
    for line in boot.answers.lines() {
        let event = serde_json::from_str(line).with_context(|| format!("'{line}'"))?;
        if let GuestEvent::Ran { status, output } = event {
            terminal::say(&output)?;
            ensure!(status == Some(0), "{}: exit status {status:?}", options.command[0]);
        }
    }
    Ok(())
}
