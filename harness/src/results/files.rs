//! The files of a run's folder: their names, their lock, and how they are replaced.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

use crate::machine::Machine;
use crate::machine::files::utc;

/// How long a reader may hold the lock, which it only looks at.
const LOOK_TIME: Duration = Duration::from_millis(200);

/// The right to write a run's folder, for as long as it is held. A file system without locks gives
/// it to everybody.
#[derive(Debug)]
pub struct FolderLock {
    _file: Option<File>,
}

/// Locks a folder, so that no two processes write the same run.
pub fn lock(folder: &Path) -> Result<FolderLock> {
    let opened = File::open(folder);
    let opened =
        opened.with_context(|| format!("{}: not the folder of a run", folder.display()))?;
    let deadline = Instant::now() + LOOK_TIME;
    loop {
        match opened.try_lock() {
            Ok(()) => return Ok(FolderLock { _file: Some(opened) }),
            Err(TryLockError::Error(_)) => return Ok(FolderLock { _file: None }),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                bail!("{}: this run is still under way; wait for its end", folder.display())
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Returns whether a process writes the run of a folder.
pub fn is_locked(folder: &Path) -> bool {
    let locked = File::open(folder).map(|folder| folder.try_lock_shared());
    matches!(locked, Ok(Err(TryLockError::WouldBlock)))
}

/// Returns the name of the file that holds a trial's histogram.
pub fn histogram_file(run_id: u32, workload: &str, arm: &str) -> String {
    bounded(&format!("{run_id:04}-{workload}-{}", arm.replace(' ', "-"))) + ".hlog"
}

/// Cuts a name to what a file may have: NAME_MAX is 255 bytes, and some are appended. A longer one
/// keeps its beginning and gets a sum of the whole (FNV-1a), so that names stay different.
pub fn bounded(name: &str) -> String {
    const MOST: usize = 200;
    if name.len() <= MOST {
        return name.to_owned();
    }
    let sum = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let ending = format!("-{sum:016x}");
    format!("{}{ending}", &name[..name.floor_char_boundary(MOST - ending.len())])
}

/// Returns where a run goes if nobody says: a folder that is not there yet, also if another run
/// began within the same second.
pub fn new_folder(started: SystemTime, machine: &Machine, name: &str) -> PathBuf {
    let time = utc(started).replace([':', '-'], "");
    let name = bounded(&format!("{time}-{}-{name}", machine.description));
    free_folder(&Path::new("results").join(name))
}

/// Returns the folder, or the same with the first number behind its name that none has.
fn free_folder(folder: &Path) -> PathBuf {
    let numbered = |number: u32| PathBuf::from(format!("{}-{number}", folder.display()));
    let mut folders = std::iter::once(folder.to_owned()).chain((2..).map(numbered));
    folders.find(|folder| !folder.exists()).unwrap_or_else(|| folder.to_owned())
}

/// The end of a file's name before the file is in its place.
pub const NEW_ENDING: &str = ".ringmark-new";

/// Writes a file beside the old one and renames it, so that a reader never sees half of it.
pub fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    // A link stays a link to the file that is replaced.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}{NEW_ENDING}"));
    fs::write(&new, contents).with_context(|| format!("write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("write {}", path.display()))
}

/// Removes the files of a folder whose names fit.
pub fn remove(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("read {}", folder.display()))?;
        if entry.file_name().to_str().is_some_and(&fits) {
            let path = entry.path();
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn names_of_files_are_bounded_and_stay_apart() {
        assert_eq!(bounded("0001-four-epoll-et.hlog"), "0001-four-epoll-et.hlog");
        let long = |end: &str| bounded(&("é".repeat(150) + end));
        assert_eq!(long("").len(), 199);
        assert!(long("").starts_with("éé") && long("a") != long("b"));
        let arm = format!("uring-multishot {}", ["a_knob=12345678"; 40].join(" "));
        let file = histogram_file(7, &"w".repeat(300), &arm);
        assert!(
            file.len() < 220 && file.starts_with("0007-ww") && file.ends_with(".hlog"),
            "{file}"
        );
        assert_ne!(file, histogram_file(7, &"w".repeat(300), &(arm + "9")));
    }

    #[test]
    fn two_runs_of_one_second_have_a_folder_each() {
        let place = tempfile::tempdir().expect("a folder");
        let first = place.path().join("run");
        for name in ["run", "run-2", "run-3"] {
            let free = free_folder(&first);
            assert_eq!(free, place.path().join(name));
            std::fs::create_dir(free).expect("it is free");
        }
    }

    #[test]
    fn two_do_not_write_the_same_run() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert!(is_locked(folder.path()));
        assert!(lock(folder.path()).unwrap_err().to_string().contains("under way"));
        drop(held);
        assert!(!is_locked(folder.path()));
        lock(folder.path()).unwrap();
    }
}
