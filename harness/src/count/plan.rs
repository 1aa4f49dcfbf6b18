//! Plans what is counted on which kernels, and takes what came of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use itertools::Itertools;
use ringmark::backend;

use super::classes;
use super::emulator::{Emulator, Guest};
use super::file_system::FileSystem;
use super::functions::{self, Code};
use super::guest::SERVER;
use super::job::{Count, Job};
use super::kernel::{self, KernelKind};
use super::options::Options;
use super::reading::{BootReading, CountReading, RoleCounts};
use super::results::CountRows;
use crate::matrix::Matrix;
use crate::programs::server_plan::server_binary;
use crate::rows::{FunctionRow, InstructionRow, Status};
use crate::terminal;

/// The counts of a matrix, before they are made.
pub struct CountPlan {
    baseline: String,
    /// Workloads and arms, in the order of the matrix.
    order: Vec<(String, String)>,
    server: PathBuf,
    images: Vec<PathBuf>,
    emulator: Emulator,
    boots: u32,
    job: Job,
    /// Those that are not made, with the reason.
    refused: Vec<(Count, String)>,
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

impl CountPlan {
    /// Makes it from the command line; everything is looked at before the first boot.
    pub fn of(options: &Options, path: &Path, matrix: Matrix) -> Result<Self> {
        let instructions = matrix.instructions.clone();
        let instructions = instructions
            .with_context(|| format!("{}: it has no [instructions]", path.display()))?;
        let images = match &options.kernels[..] {
            [] => vec![kernel::of_this_machine()?],
            given => given.to_vec(),
        };
        for image in &images {
            ensure!(
                kernel::look(image)? == KernelKind::Image,
                "--kernel {}: User-mode Linux runs on this machine's CPU, and nothing counts its \
                 instructions: give a kernel's image",
                image.display()
            );
        }
        let each = matrix.workloads.iter().cartesian_product(&matrix.backends);
        let order =
            each.clone().map(|(workload, arm)| (workload.name.clone(), arm.name())).collect();
        let counts = each.flat_map(|(workload, arm)| {
            (1..=instructions.seeds).map(|seed| Count {
                arm: arm.clone(),
                workload: workload.clone(),
                seed,
                echoes: instructions.echoes,
            })
        });
        let (mut job, mut refused) = (Job { counts: Vec::new(), command: None }, Vec::new());
        for count in counts {
            match refusal(&count) {
                None => job.counts.push(count),
                Some(reason) => refused.push((count, reason.to_owned())),
            }
        }
        Ok(Self {
            server: server_binary(options.server.as_deref(), false)?,
            images,
            emulator: Emulator::find(&options.emulator)?,
            boots: options.boots,
            baseline: matrix.baseline,
            order,
            job,
            refused,
        })
    }

    /// Makes the counts.
    pub fn count(self) -> Result<CountRows> {
        let mut counted = CountRows::default();
        let mut files = FileSystem::with_this_program()?;
        files.program(&self.server, Path::new(SERVER))?;
        let archive = files.finish(&self.job)?;
        let most = BOOT_TIME + COUNT_TIME * self.job.counts.len() as u32;
        for image in &self.images {
            for boot in 1..=self.boots {
                let guest = Guest { image, archive: &archive, cpus: None, most };
                let files = self.emulator.boot(&guest)?;
                let reading = BootReading::read(&files.windows, &files.answers)?;
                terminal::say(&format!(
                    "Linux {}: {} counts in {:.0} s\n",
                    reading.kernel,
                    reading.counts.len(),
                    files.took.as_secs_f64()
                ))?;
                self.take(&reading, boot, &mut counted)?;
            }
        }
        Ok(counted)
    }

    fn take(&self, boot: &BootReading, number: u32, counted: &mut CountRows) -> Result<()> {
        let row = |count: &Count| InstructionRow {
            kernel: boot.kernel.clone(),
            emulator: self.emulator.version.clone(),
            cpu_model: boot.cpu.clone(),
            boot: number,
            workload: count.workload.name.clone(),
            arm: count.arm.name(),
            baseline: self.baseline.clone(),
            backend: count.arm.backend.clone(),
            seed: count.seed,
            bounds: "exact".to_owned(),
            ..InstructionRow::default()
        };
        let begins = counted.rows.len();
        for (count, reason) in &self.refused {
            let (status, reason) = (Status::Unsupported, reason.clone());
            counted.rows.push(InstructionRow { status, reason, ..row(count) });
        }
        for (&index, reading) in &boot.counts {
            let count = &self.job.counts[index];
            counted.rows.extend(rows_of(&row(count), reading));
            let Some(last) = reading.windows.last() else { continue };
            let code = functions::read(&reading.maps, SERVER, &self.server)?;
            let functions = functions_of(boot, &code, reading);
            for (class, instructions) in classes_of(&functions) {
                counted.rows.push(InstructionRow {
                    window: Some(reading.windows.len() as u32),
                    side: "server".to_owned(),
                    class: class.to_owned(),
                    ..with(row(count), instructions, last.echoes)
                });
            }
            // One count says which functions it is.
            if (number, count.seed) == (1, 1) {
                let rows =
                    functions.into_iter().map(|(class, function, instructions)| FunctionRow {
                        kernel: boot.kernel.clone(),
                        workload: count.workload.name.clone(),
                        arm: count.arm.name(),
                        class: class.to_owned(),
                        function,
                        instructions_per_echo: instructions as f64 / last.echoes as f64,
                    });
                let is_shown = |row: &FunctionRow| row.instructions_per_echo >= SMALLEST_FUNCTION;
                counted.functions.extend(rows.filter(is_shown));
            }
        }
        // In the order of the matrix.
        let place = |row: &InstructionRow| {
            self.order
                .iter()
                .position(|(workload, arm)| *workload == row.workload && *arm == row.arm)
        };
        counted.rows[begins..].sort_by_key(place);
        Ok(())
    }
}

/// Returns the sums of the kernel's classes, by their names.
fn classes_of(functions: &[(&'static str, String, u64)]) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for (class, _, instructions) in functions.iter().filter(|(class, ..)| *class != classes::USER) {
        *sums.entry(*class).or_default() += instructions;
    }
    sums
}

/// Says why a count would mislead.
fn refusal(count: &Count) -> Option<&'static str> {
    if backend::find(&count.arm.backend).is_ok_and(|entry| entry.kernel_thread) {
        return Some("its submission thread spins, and there is one CPU: a count would be of that");
    }
    (count.workload.message_bytes.get() > LARGEST_MESSAGE).then_some(
        "copies of large messages count otherwise here than they cost: up to 1,024 bytes can be \
         counted",
    )
}

/// Returns the rows of a count: one for each window, side and mode.
fn rows_of(row: &InstructionRow, reading: &CountReading) -> Vec<InstructionRow> {
    if reading.status != Status::Ok {
        let (status, reason) = (reading.status, reading.reason.clone());
        return vec![InstructionRow { status, reason, ..row.clone() }];
    }
    let windows = (1..).zip(&reading.windows);
    let of_window = windows.flat_map(|(number, measured)| {
        let window = &measured.window;
        let sides = [("server", window.server), ("load", window.load), ("other", window.other)];
        sides.into_iter().flat_map(move |(side, RoleCounts { user, kernel })| {
            [("user", user), ("kernel", kernel)].map(|(class, instructions)| InstructionRow {
                window: Some(number),
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
    InstructionRow {
        echoes: Some(echoes),
        instructions: Some(instructions),
        instructions_per_echo: Some(instructions as f64 / echoes as f64),
        status: Status::Ok,
        ..row
    }
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
