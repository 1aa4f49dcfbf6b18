//! Watches that every trial runs the files that the manifest names. They are looked at before and
//! after each trial, and a side that is elsewhere tells which file it runs.
//!
//! A look is a call of stat(2). If that shows a change, the file is read once more: a new link to
//! it, or a copy that takes its place, changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use ringmark::whereabouts::FileStamp;

use crate::machine::program_file::ProgramFile;
use crate::matrix::external::External;
use crate::programs::sides::{Launcher, Launchers};
use crate::results::origin::Programs;
use crate::results::sides::Side;

/// Returns the error of a file of the manifest that has changed.
fn replaced(what: impl fmt::Display, how: &str) -> anyhow::Error {
    anyhow!(
        "{what} {how}, so that trials would not measure what the manifest names: put back what it \
         was, or begin anew with --replay"
    )
}

/// A file as it was when the manifest was made.
struct Watched {
    path: PathBuf,
    program: ProgramFile,
    stamp: Option<FileStamp>,
    /// Whether somebody might execute it.
    is_executable: bool,
}

impl Watched {
    /// `program` is what was read of the file. Without a sum the stamp alone tells a change.
    fn new(path: &Path, program: ProgramFile) -> Self {
        let stamp = program.stamp.clone();
        Self { path: path.to_owned(), stamp, program, is_executable: is_executable(path) }
    }

    fn look(&mut self) -> Result<()> {
        let stamp = FileStamp::of(&self.path);
        let how = match &stamp {
            None => "is gone",
            Some(_) if stamp == self.stamp => return Ok(()),
            Some(_) => match ProgramFile::of_file(&self.path) {
                Ok(_) if self.is_executable && !is_executable(&self.path) => {
                    "may not be executed any more"
                }
                Ok(now) if now.has_contents_of(&self.program) => {
                    // It is from before the reading: a write meanwhile shows at the next look.
                    self.stamp = stamp;
                    return Ok(());
                }
                _ => "was replaced or written to",
            },
        };
        Err(replaced(self.path.display(), how))
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.permissions().mode() & 0o111 != 0)
}

/// All files that a run starts.
pub struct Watch {
    files: Vec<Watched>,
    externals: Vec<(External, BTreeSet<PathBuf>)>,
    launchers: Option<Launchers>,
    /// The path of the server's program, here or on its side.
    server: PathBuf,
}

impl Watch {
    /// Watches the files of a manifest.
    pub fn new(
        server: &Path,
        launchers: Option<&Launchers>,
        externals: &[External],
        programs: &Programs,
        external_files: &BTreeMap<String, Vec<ProgramFile>>,
    ) -> Result<Self> {
        let this = std::env::current_exe().context("find this program")?;
        let mut files = vec![Watched::new(&this, programs.ringmark.clone())];
        if launchers.is_none_or(|launchers| launchers.server.has_no_command()) {
            files.push(Watched::new(server, programs.server.clone()));
        }
        let externals: Vec<_> =
            externals.iter().map(|external| (external.clone(), external.files())).collect();
        for (external, paths) in &externals {
            let programs = external_files.get(&external.name).into_iter().flatten();
            let watched = paths.iter().zip(programs);
            files.extend(watched.map(|(path, program)| Watched::new(path, program.clone())));
        }
        Ok(Self { files, externals, launchers: launchers.cloned(), server: server.to_owned() })
    }

    /// Watches kernels too.
    pub fn with(mut self, kernels: &[PathBuf], files: &[ProgramFile]) -> Self {
        let watched = kernels.iter().zip(files);
        self.files.extend(watched.map(|(path, file)| Watched::new(path, file.clone())));
        self
    }

    /// Refuses to go on once a file has changed.
    pub fn look(&mut self) -> Result<()> {
        for (external, files) in &self.externals {
            // One that was missing would be measured, although the manifest does not know it.
            if external.files() != *files {
                let what = format!("what the commands of {} name", external.name);
                return Err(replaced(what, "is not there any more, or has come"));
            }
        }
        self.files.iter_mut().try_for_each(Watched::look)?;
        let Some(launchers) = &self.launchers else { return Ok(()) };
        let sides = &launchers.sides;
        let server = Some(self.server.as_path());
        look_at(&launchers.server, &sides.server, "the server's program", server)?;
        let mut loads = launchers.loads.iter().zip(sides.loads());
        loads.try_for_each(|(load, side)| look_at(load, side, "the load's program", None))
    }
}

/// Asks a side for its program now, if it has started another file than before.
fn look_at(launcher: &Launcher, side: &Side, name: &str, program: Option<&Path>) -> Result<()> {
    let (Some(of_manifest), true) = (&side.program, launcher.has_started_another()) else {
        return Ok(());
    };
    let now = launcher.program_now(program).with_context(|| format!("look at {name}"))?;
    if !now.has_contents_of(of_manifest) {
        let what = format!("{name} {}", of_manifest.file);
        return Err(replaced(what, "was replaced or written to on its side"));
    }
    launcher.accept_started();
    Ok(())
}

/// Returns the files that the commands of external servers name, by the servers' names.
pub fn external_files(externals: &[External]) -> Result<BTreeMap<String, Vec<ProgramFile>>> {
    let files = externals
        .iter()
        .map(|external| Ok((external.name.clone(), program_files(&external.files())?)));
    files.collect()
}

/// Reads files.
pub fn program_files<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<Vec<ProgramFile>> {
    paths.into_iter().map(|path| ProgramFile::of_file(path)).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;

    #[test]
    fn only_another_content_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::write(&path, "one").unwrap();
        let mut watched = Watched::new(&path, ProgramFile::of_file(&path).unwrap());
        let mut look = || watched.look().map_err(|error| error.to_string());
        assert_eq!(look(), Ok(()));
        // As a build does that makes the same: a link more, and the same once more under that name.
        fs::hard_link(&path, folder.path().join("link")).unwrap();
        assert_eq!(look(), Ok(()));
        fs::remove_file(&path).unwrap();
        assert!(look().unwrap_err().contains("program is gone, so that"));
        fs::write(&path, "one").unwrap();
        if ProgramFile::of_file(&path).unwrap().sha256.is_some() {
            assert_eq!(look(), Ok(()));
        }
        // In place, with as many bytes.
        fs::write(&path, "two").unwrap();
        assert!(look().unwrap_err().contains("program was replaced or written to"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "six").unwrap();
        assert!(look().unwrap_err().contains("was replaced"));
    }
}
