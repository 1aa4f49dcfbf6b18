//! The command line of `ringmark run`.

use std::path::PathBuf;

use super::counting::CountingOptions;
use crate::programs::sides;

const AFTER_HELP: &str = "\
Exit status:
  0    the run is complete, whether or not trials were rejected
  1    it could not begin or go on, or all trials of an arm failed
  2    the command line is wrong
  4    no trial gave figures that can be used
  130  it was interrupted, and can be resumed

Examples:
  ringmark run quick
  ringmark run --print quick > mine.toml
      as a beginning; then `ringmark run mine`
  ringmark run million --connections 100000
      as far as memory goes
  ringmark run --resume results/FOLDER
      after Ctrl-C, or a power cut
  ringmark run standard --server-address 10.0.0.1 \\
      --server-command 'ip netns exec a' --load-command 'ip netns exec b'";

/// Runs a matrix and writes its results.
///
/// Each trial has a fresh server, a fresh client and, where permitted, a fresh network namespace.
/// Rows are written as trials end. Ctrl-C stops after the current trial, a second Ctrl-C stops at
/// once. --resume continues a run, whatever ended it.
///
#[derive(clap::Args, Debug, Default)]
#[command(after_help = AFTER_HELP)]
pub struct Options {
    /// The matrix: a file, or one that --list names
    #[arg(required_unless_present_any = ["resume", "replay", "list", "print"])]
    pub(super) matrix: Option<PathBuf>,
    /// List the matrices that are built in, with their questions, and run nothing
    #[arg(long, exclusive = true)]
    pub(super) list: bool,
    /// Print a matrix that is built in, as a beginning of one's own
    #[arg(long, value_name = "NAME", exclusive = true)]
    pub(super) print: Option<String>,
    /// Folder for the results, which must not exist [default: results/TIME-MACHINE-MATRIX]
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Seed of the order within blocks [default: the time; the manifest records it]
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// Let the walks ([memory], [scale]) end at this many connections, if they go beyond
    #[arg(long, value_name = "N", conflicts_with_all = ["resume", "replay"])]
    pub(super) connections: Option<usize>,
    /// The server's program [default: ringmark-server beside this program]
    #[arg(long, value_name = "FILE")]
    pub(super) server: Option<PathBuf>,
    #[command(flatten)]
    pub(super) sides: sides::Options,
    /// Continue the run of this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["matrix", "out", "seed", "replay"])]
    pub(super) resume: Option<PathBuf>,
    /// With --resume: continue even if the machine or the programs have changed; the manifest
    /// records how
    #[arg(long, conflicts_with_all = ["matrix", "replay"])]
    pub(super) anyway: bool,
    /// Repeat the run of this folder in a new one, with its matrix, seed and order
    #[arg(long, value_name = "DIR", conflicts_with_all = ["matrix", "seed"])]
    pub(super) replay: Option<PathBuf>,
    /// Print every table at the end, not only what one screen holds
    #[arg(long)]
    pub(super) full: bool,
    #[command(flatten)]
    pub(super) counting: CountingOptions,
    /// Whether instructions are counted, and nothing else.
    #[arg(skip)]
    pub(super) counts_only: bool,
}
