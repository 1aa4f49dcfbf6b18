//! The manifest of a run: what ran, on what, and in which order.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ringmark::protocol::FORMAT_VERSION;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::origin::{Programs, Replayed, Resumption, between};
use super::sides::Sides;
use crate::machine::placement::Placement;
use crate::machine::program_file::ProgramFile;
use crate::matrix::Matrix;

/// `manifest.json`: enough to repeat a run. Earlier versions wrote less.
#[derive(Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this JSON; 0 in those that had none yet.
    #[serde(default)]
    pub format_version: u32,
    /// The version of this program.
    pub ringmark: String,
    /// The name of the matrix.
    pub name: String,
    /// The run that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replays: Option<Replayed>,
    /// The matrix as it was read, with as many workers as its walks need.
    pub matrix: Matrix,
    /// The matrix with the rates of its sweeps, as soon as they are known; in a run that repeats
    /// another from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expanded: Option<Matrix>,
    /// `release` or `debug`; figures of the latter are of no use.
    pub build_profile: String,
    /// The seed of the order within blocks.
    pub seed: u64,
    /// Trials in the order in which they were dealt, block by block, as `run_id pass workload block
    /// arm`.
    pub order: Vec<String>,
    /// When the run was complete, UTC; null before that.
    pub finished_utc: Option<String>,
    /// Each time that the run was resumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed: Vec<Resumption>,
    /// The two programs of the run.
    pub programs: Option<Programs>,
    /// The versions of the external servers by name, as each prints it, or why there is none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub externals: BTreeMap<String, String>,
    /// The files that the commands of the external servers name, by the servers' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub external_files: BTreeMap<String, Vec<ProgramFile>>,
    /// The kernels on which instructions are counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<ProgramFile>,
    /// The CPUs of server and client.
    pub placement: Option<Placement>,
    /// The commands that started server and load, if there was one for either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sides: Option<Sides>,
    /// The machine.
    pub machine: Value,
    /// The instruments of the machine, and how well each could measure.
    #[serde(default)]
    pub doctor: Value,
}

impl Manifest {
    /// Reads the manifest of a folder, and checks its matrix.
    pub fn read(folder: &Path) -> Result<Self> {
        let (path, manifest) = read_value(folder)?;
        let manifest: Self =
            serde_json::from_value(manifest).with_context(|| path.display().to_string())?;
        manifest.matrix.check().with_context(|| format!("the matrix in {}", path.display()))?;
        Ok(manifest)
    }

    /// Returns in what the origin of a run `now` differs from this one.
    pub fn differences(&self, now: &Self) -> Result<Vec<String>> {
        Ok(between(&serde_json::to_value(self)?, &serde_json::to_value(now)?))
    }
}

/// Reads a manifest of any version; returns its path too.
pub fn read_value(folder: &Path) -> Result<(PathBuf, Value)> {
    let path = folder.join("manifest.json");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{}: not the folder of a run", path.display()))?;
    let manifest: Value =
        serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let version = manifest["format_version"].as_u64().unwrap_or(0);
    ensure!(
        version <= FORMAT_VERSION.into(),
        "{}: a newer version of ringmark wrote it (format_version {version}, and this one reads up \
         to {FORMAT_VERSION})",
        path.display()
    );
    Ok((path, manifest))
}
