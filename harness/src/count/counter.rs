//! Counts the instructions of servers on a kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use itertools::Itertools;
use ringmark::backend;

use super::classes;
use super::emulator::{Emulator, Guest, MEMORY_MIB};
use super::file_system::FileSystem;
use super::functions::{self, Code};
use super::guest::SERVER;
use super::job::{Count, Job};
use super::kernel::{self, KernelKind};
use super::reading::{BootReading, CountReading, RoleCounts};
use crate::programs::process::Interruptions;
use crate::rows::{FunctionRow, InstructionRow, Status};

/// An emulator, and what it is to boot.
#[derive(Clone, Debug)]
pub struct InstructionCounter {
    emulator: Emulator,
    server: PathBuf,
    kernels: Vec<PathBuf>,
}

/// A server that was counted, or not.
pub struct CountOutcome {
    /// `ok` if there are rows.
    pub status: Status,
    /// Why there are none.
    pub reason: String,
    /// Without their trial.
    pub rows: Vec<InstructionRow>,
    /// The functions of the last window, without their trial; those with the most instructions
    /// first.
    pub functions: Vec<FunctionRow>,
}

/// A message that is larger is copied for longer than it is handled, and a copy counts otherwise
/// here than it costs.
const LARGEST_MESSAGE: u64 = 1024;

/// A function with fewer instructions an echo has no row.
const SMALLEST_FUNCTION: f64 = 1.0;

/// How long a guest may take to come up.
const BOOT_TIME: Duration = Duration::from_secs(120);

/// How long each of its counts may take.
const COUNT_TIME: Duration = Duration::from_secs(30);

impl InstructionCounter {
    /// Looks for the emulator and at the kernels: that of this machine if none is given.
    pub fn find(emulator: &Path, kernels: &[PathBuf], server: &Path) -> Result<Self> {
        let kernels = match kernels {
            [] => vec![kernel::of_this_machine()?],
            given => given.to_vec(),
        };
        for image in &kernels {
            ensure!(
                kernel::look(image)? == KernelKind::Image,
                "--kernel {}: User-mode Linux runs on this machine's CPU, and nothing counts its \
                 instructions: give a kernel's image",
                image.display()
            );
        }
        let emulator = Emulator::find(emulator)?;
        Ok(Self { emulator, server: server.to_owned(), kernels })
    }

    /// Returns the images that it boots.
    pub fn kernels(&self) -> &[PathBuf] {
        &self.kernels
    }

    /// Returns the image of a block, and its boot, from 1 on.
    pub fn kernel_of(&self, block: u32) -> (&Path, u32) {
        let (number, kernels) = (block.saturating_sub(1) as usize, self.kernels.len());
        (&self.kernels[number % kernels], (number / kernels) as u32 + 1)
    }

    /// Boots a kernel, and makes the counts in their order.
    pub fn count(
        &self,
        kernel: &Path,
        counts: Vec<Count>,
        interruptions: &Interruptions,
    ) -> Result<Vec<CountOutcome>> {
        let mut files = FileSystem::with_this_program()?;
        files.program(&self.server, Path::new(SERVER))?;
        let job = Job { counts, command: None };
        let archive = files.finish(&job)?;
        let most = BOOT_TIME + COUNT_TIME * job.counts.len() as u32;
        let guest = Guest {
            image: kernel,
            archive: &archive,
            cpus: None,
            memory_mib: MEMORY_MIB,
            most,
            hear: &|_| Ok(()),
        };
        let boot = self.emulator.boot(&guest, interruptions)?;
        let reading = BootReading::read(&boot.windows, boot.answers)?;
        let row = InstructionRow {
            kernel: reading.kernel.clone(),
            emulator: self.emulator.version.clone(),
            plugin: boot.plugin,
            cpu_model: reading.cpu.clone(),
            bounds: "exact".to_owned(),
            ..InstructionRow::default()
        };
        let mut outcomes = Vec::new();
        // One server after the other has the same code at the same place.
        let (mut maps, mut code) = (&[][..], Code::new());
        for (index, count) in job.counts.iter().enumerate() {
            let Some(of_count) = reading.counts.get(&index) else {
                let reason = "the guest did not come to it".to_owned();
                outcomes.push(CountOutcome::without(Status::Failed, reason));
                continue;
            };
            if maps != of_count.maps {
                code = functions::read(&of_count.maps, SERVER, &self.server)?;
                maps = &of_count.maps;
            }
            let row = InstructionRow { seed: count.seed, ..row.clone() };
            outcomes.push(CountOutcome::of(&reading, of_count, &code, &row));
        }
        Ok(outcomes)
    }
}

impl CountOutcome {
    fn without(status: Status, reason: String) -> Self {
        Self { status, reason, rows: Vec::new(), functions: Vec::new() }
    }

    fn of(boot: &BootReading, reading: &CountReading, code: &Code, row: &InstructionRow) -> Self {
        let mut counted = Self::without(reading.status, reading.reason.clone());
        if reading.status != Status::Ok {
            return counted;
        }
        counted.rows = rows_of(row, reading);
        let Some(last) = reading.windows.last() else { return counted };
        let functions = functions_of(boot, code, reading);
        let of_class = |(class, instructions): (&str, u64)| InstructionRow {
            window: reading.windows.len() as u32,
            events_per_wait: last.events_per_wait,
            side: "server".to_owned(),
            class: class.to_owned(),
            ..with(row.clone(), instructions, last.echoes)
        };
        counted.rows.extend(classes_of(&functions).into_iter().map(of_class));
        let of_function = |(class, function, instructions): (&str, String, u64)| FunctionRow {
            kernel: boot.kernel.clone(),
            class: class.to_owned(),
            function,
            instructions_per_echo: instructions as f64 / last.echoes as f64,
            ..FunctionRow::default()
        };
        counted.functions = functions
            .into_iter()
            .map(of_function)
            .filter(|row| row.instructions_per_echo >= SMALLEST_FUNCTION)
            .collect();
        counted
    }
}

/// Says why a count would mislead.
pub fn refusal(count: &Count) -> Option<&'static str> {
    let Ok(entry) = backend::find(&count.arm.backend) else {
        return Some("it is an external server, and a guest has none of its files");
    };
    if entry.kernel_thread {
        return Some("its submission thread spins, and there is one CPU: a count would be of that");
    }
    if !count.workload.path().is_default() || count.workload.cpu_quota.is_some() {
        return Some(
            "a guest that is counted has its own loopback, and no bound: leave out path, \
                     mtu, congestion and cpu_quota",
        );
    }
    if count.workload.is_stream() {
        return Some("a stream has no end after so many messages, between which to count");
    }
    if count.workload.workers.is_some_and(|workers| workers > 1) {
        return Some("a guest that is counted has one CPU, and so the server has one worker");
    }
    (count.workload.message_bytes() > LARGEST_MESSAGE).then_some(
        "copies of large messages count otherwise here than they cost: up to 1,024 bytes can be \
         counted",
    )
}

/// Returns the sums of the kernel's classes, by their names.
fn classes_of(functions: &[(&'static str, String, u64)]) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for (class, _, instructions) in functions.iter().filter(|(class, ..)| *class != classes::USER) {
        *sums.entry(*class).or_default() += instructions;
    }
    sums
}

/// Returns the rows of a count: one for each window, side and mode.
fn rows_of(row: &InstructionRow, reading: &CountReading) -> Vec<InstructionRow> {
    let windows = (1..).zip(&reading.windows);
    let of_window = windows.flat_map(|(number, measured)| {
        let window = &measured.window;
        let sides = [("server", window.server), ("load", window.load), ("other", window.other)];
        sides.into_iter().flat_map(move |(side, RoleCounts { user, kernel })| {
            [("user", user), ("kernel", kernel)].map(|(class, instructions)| InstructionRow {
                window: number,
                events_per_wait: measured.events_per_wait,
                side: side.to_owned(),
                class: class.to_owned(),
                ..with(row.clone(), instructions, measured.echoes)
            })
        })
    });
    of_window.collect()
}

fn with(row: InstructionRow, instructions: u64, echoes: u64) -> InstructionRow {
    let instructions_per_echo = instructions as f64 / echoes as f64;
    InstructionRow { echoes, instructions, instructions_per_echo, ..row }
}

/// Returns the functions of a count's last window, those with the most instructions first.
fn functions_of(
    boot: &BootReading,
    code: &Code,
    reading: &CountReading,
) -> Vec<(&'static str, String, u64)> {
    let blocks = reading.windows.last().map_or(&[][..], |last| &last.window.blocks);
    let named = blocks.iter().map(|block| {
        let instructions = block.length * block.runs;
        if block.start >> 63 == 0 {
            return ((classes::USER, functions::name(code, block.start)), instructions);
        }
        let name = boot.functions.at(block.start).unwrap_or("[kernel]");
        ((classes::of(name), name.to_owned()), instructions)
    });
    let sums = named.into_grouping_map().sum();
    let all = sums.into_iter().map(|((class, name), sum)| (class, name, sum));
    all.sorted_by(|a, b| b.2.cmp(&a.2).then_with(|| a.1.cmp(&b.1))).collect()
}
