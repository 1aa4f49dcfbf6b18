//! The command line of `ringmark count`.

use std::path::PathBuf;

use crate::report::functions::CountName;

const AFTER_HELP: &str = "\
Examples:
  ringmark count harness/matrix/instructions.toml
      on a kernel of this machine's release
  ringmark count harness/matrix/instructions.toml --kernel vmlinuz-6.1 --kernel vmlinuz-6.12
      since when does it pay?
  ringmark count harness/matrix/instructions.toml --boots 3
      are the counts the same each time?
  ringmark count --from results/FOLDER --diff epoll-et uring-multishot@6.1
      which functions make the difference?

Nothing is installed, and the guest has no network. It needs QEMU for x86-64, a C compiler for the
emulator's plugin, 1 GiB of memory, and no rights.";

/// Counts the instructions of an echo, the kernel's included, in an emulator.
///
/// A guest of one CPU boots each kernel, runs our programs as they are, and counts every
/// instruction of the server and of the load between two moments of rest. The same boot gives the
/// same counts, whatever else the machine does. Instructions are not time: cache misses, system
/// calls and interrupts cost more than their instructions say.
#[derive(clap::Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Options {
    /// The matrix file; it has [instructions]
    #[arg(required_unless_present = "from")]
    pub(super) matrix: Option<PathBuf>,
    /// Count nothing: show the counts in this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["matrix", "kernels", "boots", "out"])]
    pub(super) from: Option<PathBuf>,
    /// Show the functions that make the difference between two counts, each named by its arm, or
    /// ARM@KERNEL
    #[arg(long, value_names = ["A", "B"], num_args = 2)]
    pub(super) diff: Option<Vec<CountName>>,
    /// A kernel's image (bzImage), once for each kernel [default: /boot/vmlinuz-RELEASE]
    #[arg(long = "kernel", value_name = "FILE")]
    pub(super) kernels: Vec<PathBuf>,
    /// The emulator, QEMU for x86-64 with plugins
    #[arg(long, value_name = "FILE", default_value = "qemu-system-x86_64")]
    pub(super) emulator: PathBuf,
    /// Boot each kernel so often, to see that the counts are the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) boots: u32,
    /// Folder for the results, which must not exist [default: results/TIME-MACHINE-MATRIX]
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// The server's program [default: ringmark-server beside this program]
    #[arg(long, value_name = "FILE")]
    pub(super) server: Option<PathBuf>,
}
