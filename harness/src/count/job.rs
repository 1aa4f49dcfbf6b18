//! The guest's job, and its answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::matrix::{Arm, Workload};
use crate::rows::Status;

/// The folder of the guest whose files come back.
pub const OUT: &str = "/out";

/// The job of one boot, a file of the guest's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its counts, in their order.
    pub counts: Vec<Count>,
    /// Or the program that it runs.
    pub command: Option<GuestCommand>,
}

/// A program to be run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GuestCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment, beside the path to other programs.
    pub environment: Vec<(String, String)>,
    /// The folder that it is run in.
    pub folder: PathBuf,
}

/// One server under one workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Count {
    /// The server.
    pub arm: Arm,
    /// The work of the load.
    pub workload: Workload,
    /// The seed of the load's bytes, and of an open loop's schedule.
    pub seed: u64,
    /// The echoes of the first window; the second has twice as many.
    pub echoes: u64,
}

/// A line of JSON from the guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum GuestEvent {
    /// The guest is up.
    Up {
        /// The release of its kernel.
        kernel: String,
        /// The model of its CPU, as /proc/cpuinfo has it.
        cpu: String,
    },
    /// The self-test has run: a window around so many instructions of its own.
    Tested { instructions: u64 },
    /// A count begins; the next windows are its.
    Begins { count: usize, maps: Vec<Map> },
    /// A window was counted.
    Window { count: usize, echoes: u64, events_per_wait: Option<f64> },
    /// A count has ended, or could not be made.
    Ends { count: usize, status: Status, reason: String },
    /// A function of the kernel, or a data object behind one.
    Symbol { address: u64, name: String },
    /// The program has said this, on either of its outputs.
    Said { text: String },
    /// The program has ended; without a status a signal ended it.
    Ran { status: Option<i32> },
    /// A file that the program left in [`OUT`], by its path there.
    Left { path: String, text: String },
    /// All is done.
    Done,
}

/// Code that is mapped into the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Map {
    pub start: u64,
    pub end: u64,
    /// Its beginning in the file.
    pub offset: u64,
    pub file: String,
}
