//! `ringmark count`: the pass for instructions alone, and the functions that make a difference.

use std::path::PathBuf;

use anyhow::Result;

use super::counting::CountingOptions;
use super::options::Options as RunOptions;
use crate::report::functions::{CountName, difference};
use crate::results::Run;
use crate::terminal;

const AFTER_HELP: &str = "\
Examples:
  ringmark count instructions
      on a kernel of this machine's release
  ringmark count instructions --kernel vmlinuz-6.1 --kernel vmlinuz-6.12
      since when does it pay?
  ringmark count instructions --boots 3
      are the counts the same each time?
  ringmark count --from results/FOLDER --diff epoll-et uring-multishot@6.1
      which functions make the difference?

Nothing is installed, and the guest has no network. It needs QEMU for x86-64, a C compiler for the
emulator's plugin, 1 GiB of memory, and no rights. `ringmark run` counts, too, if its matrix has
[instructions], and --resume continues both.";

/// Counts the instructions of an echo, the kernel's included, in an emulator.
///
/// A guest of one CPU boots each kernel, runs our programs as they are, and counts every
/// instruction of the server and of the load between two moments of rest. The same boot gives the
/// same counts, whatever else the machine does. Instructions are not time: cache misses, system
/// calls and interrupts cost more than their instructions say.
#[derive(clap::Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Options {
    /// The matrix, as for `run`; its pass [instructions] runs, and no other
    #[arg(required_unless_present = "from")]
    matrix: Option<PathBuf>,
    /// Count nothing: take the counts of this folder
    #[arg(long, value_name = "DIR", requires = "diff")]
    #[arg(conflicts_with_all = ["matrix", "kernels", "emulator", "boots", "out", "server"])]
    from: Option<PathBuf>,
    /// Show the functions that make the difference between two counts, each named by its arm, or
    /// ARM@KERNEL
    #[arg(long, value_names = ["A", "B"], num_args = 2)]
    diff: Option<Vec<CountName>>,
    #[command(flatten)]
    counting: CountingOptions,
    /// Folder for the results, which must not exist [default: results/TIME-MACHINE-MATRIX]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The server's program [default: ringmark-server beside this program]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
}

/// Counts what a matrix asks for, or takes what was counted, and shows the difference.
pub fn run(options: Options) -> Result<()> {
    let Options { matrix, from, diff, counting, out, server } = options;
    let folder = match from {
        Some(folder) => folder,
        None => {
            let counts_only = true;
            let options =
                RunOptions { matrix, counting, out, server, counts_only, ..RunOptions::default() };
            super::drive::drive(options)?
        }
    };
    let Some([first, second]) = diff.as_deref() else { return Ok(()) };
    let body = difference(&Run::read(&folder)?.functions, first, second)?;
    terminal::say(&format!("\n{}", body.markdown()))
}
