//! `ringmark boot`: runs a program on another kernel, in an emulator.

use std::cell::Cell;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::emulator::{EMULATOR, Emulator, Guest, MEMORY_MIB};
use super::file_system::FileSystem;
use super::job::{GuestCommand, GuestEvent, Job};
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
  ringmark boot --kernel vmlinuz-6.1 --with target/release/ringmark-server \\
      --out results/FOLDER -- target/release/ringmark run memory --out /out
      a whole run there

Nothing is installed, and the guest has no network. It needs QEMU for x86-64, and no rights.";

/// Runs a program on another kernel, in an emulator.
///
/// The guest has that program, what it is linked with, and the files of --with, at the same places
/// as here, and runs it in the same folder. Nothing is timed: an emulator tells no times.
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
    /// Memory of the guest, in MiB; with little, its kernel drops what full sockets are sent
    #[arg(long, value_name = "N", default_value_t = MEMORY_MIB)]
    #[arg(value_parser = clap::value_parser!(u32).range(256..=65_536))]
    memory_mib: u32,
    /// A file, a program or an empty folder that the guest needs besides; again for more
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// Set a variable of the program's environment; again for more
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    environment: Vec<(String, String)>,
    /// Put the files that the program leaves in /out of the guest into this folder, which must not
    /// exist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// End the guest after this time
    #[arg(long, value_name = "TIME", default_value = "5min")]
    within: MeasuringTime,
    /// The program, and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// Parses a variable and its value.
fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it has no =")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Boots, and prints what the program printed.
pub fn run(options: &Options) -> Result<()> {
    if let Some(out) = options.out.as_ref().filter(|out| out.exists()) {
        bail!(
            "{} exists; files are never written over others: give --out a new folder",
            out.display()
        );
    }
    let [program, arguments @ ..] = &options.command[..] else { bail!("no program is given") };
    let absolute =
        |path: &Path| std::path::absolute(path).with_context(|| path.display().to_string());
    let emulator = match kernel::look(&options.kernel)? {
        KernelKind::Image => Emulator::find(&options.emulator)?,
        KernelKind::Program => Emulator::of_user_mode(&options.kernel),
    };
    let program = absolute(Path::new(program))?;
    let mut files = FileSystem::with_this_program()?;
    files.add(&program)?;
    for file in &options.with {
        files.add(&absolute(file)?)?;
    }
    let command = GuestCommand {
        program: program.clone(),
        arguments: arguments.to_vec(),
        environment: options.environment.clone(),
        folder: std::env::current_dir().context("this folder")?,
    };
    let archive = files.finish(&Job { counts: Vec::new(), command: Some(command) })?;
    let ended = Cell::new(None);
    let hear = |event: &GuestEvent| match event {
        GuestEvent::Said { text } => terminal::say(&format!("{text}\n")),
        GuestEvent::Left { path, text } => match &options.out {
            Some(out) => keep(out, Path::new(path), text),
            None => Ok(()),
        },
        GuestEvent::Ran { status } => {
            ended.set(*status);
            Ok(())
        }
        _ => Ok(()),
    };
    let guest = Guest {
        image: &options.kernel,
        archive: &archive,
        cpus: Some(options.cpus),
        memory_mib: options.memory_mib,
        most: options.within.get(),
        hear: &hear,
    };
    emulator.boot(&guest, &Interruptions::default())?;
    let status = ended.get();
    ensure!(status == Some(0), "{}: {}", program.display(), in_words(status));
    Ok(())
}

/// Writes a file of the guest's into a folder.
fn keep(folder: &Path, path: &Path, text: &str) -> Result<()> {
    let is_within = path.components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(is_within, "the guest left '{}', which is in no folder of its own", path.display());
    let path = folder.join(path);
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

fn in_words(status: Option<i32>) -> String {
    status.map_or("a signal ended it".to_owned(), |status| format!("exit status {status}"))
}
