//! The tables of figures by kernel: since when does it pay?

use itertools::Itertools as _;

use super::query::absent;
use super::section::Body;
use super::table::{MISSING, Table};
use crate::results::Run;
use crate::rows::{KERNEL_SUM, MemoryRow, NEVER_USED, Pass, USED_THEN_IDLE};
use crate::statistics::Interval;
use crate::text::{integer, significant};
use crate::verdict::instructions::{ArmCounts, kernels};
use crate::verdict::memory::slope;

/// Returns a table of instructions for each workload of several kernels: the counts, and over the
/// baseline.
pub fn instructions(run: &Run) -> Body {
    let kernels = kernels(&run.instructions);
    let mut body = Body::default();
    if kernels.len() < 2 {
        return body;
    }
    let heading = std::iter::once("arm").chain(kernels.iter().copied()).collect_vec();
    for workload in &run.matrix.workloads {
        let server = |kernel: &str, arm: &str| {
            let counts = ArmCounts::of(&run.instructions, &workload.name, kernel, arm);
            counts.map(|counts| counts.server())
        };
        let cell = |kernel: &str, arm: &str| match (
            server(kernel, arm),
            server(kernel, &run.matrix.baseline),
        ) {
            (Some(count), Some(base)) => {
                format!("{} ({:.3})", significant(count), count / base)
            }
            (Some(count), None) => significant(count),
            (None, _) => MISSING.to_owned(),
        };
        let mut table = Table::new(1, &heading);
        let is_counted = |arm: &String| kernels.iter().any(|kernel| server(kernel, arm).is_some());
        for arm in run.matrix.arms().filter(is_counted) {
            let cells = kernels.iter().map(|kernel| cell(kernel, &arm));
            table.push(std::iter::once(format!("`{arm}`")).chain(cells).collect());
        }
        if !table.is_empty() {
            body = body.then(Body::default().heading(&format!("`{}`", workload.name)).table(table));
        }
    }
    body
}

/// Returns a table of bytes for each state of a connection, and the reasons why some are missing.
pub fn memory(run: &Run) -> Body {
    let mut body = Body::default();
    let heading = std::iter::once("arm").chain(run.guests.iter().map(Run::kernel)).collect_vec();
    for state in [NEVER_USED, USED_THEN_IDLE] {
        let cell = |guest: &Run, arm: &str| {
            let row = slope(&guest.memory, arm, KERNEL_SUM, state)?;
            let over = integer(row.over_null_bytes_per_connection?);
            let Interval { low, high } = MemoryRow::interval_over_null(row)?;
            Some(format!("{over} ({} to {})", integer(low), integer(high)))
        };
        let mut table = Table::new(1, &heading);
        for arm in run.matrix.arms() {
            let cells = run.guests.iter().map(|guest| cell(guest, &arm)).collect_vec();
            if cells.iter().any(Option::is_some) {
                let cells =
                    cells.into_iter().map(|cell| cell.unwrap_or_else(|| MISSING.to_owned()));
                table.push(std::iter::once(format!("`{arm}`")).chain(cells).collect());
            }
        }
        if !table.is_empty() {
            body = body.then(Body::default().heading(state).table(table));
        }
    }
    let reasons = run.guests.iter().flat_map(|guest| {
        let reasons = absent(guest, Pass::Memory);
        let lines = reasons.lines().map(|line| line.trim_start_matches("- "));
        lines.map(|line| format!("- Linux {}: {line}\n", guest.kernel())).collect_vec()
    });
    let reasons: String = reasons.collect();
    body.list(&reasons)
}
