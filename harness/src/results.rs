//! The folder of a run: written while trials end, taken up again, and read.

mod files;
mod journal;
mod judged;
pub mod manifest;
pub mod origin;
mod read;
mod run_rows;
pub mod sides;
#[cfg(test)]
mod tests;
mod write;

pub use self::files::{FolderLock, histogram_file, lock, new_folder, replace};
pub use self::journal::remove as remove_journal;
pub use self::manifest::Manifest;
pub use self::read::{Run, RunState};
pub use self::write::Results;
