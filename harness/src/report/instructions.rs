//! The tables of exact counts: instructions for each echo.

use itertools::{Itertools as _, iproduct};

use super::query::absent;
use super::section::Body;
use super::table::{MISSING, Table};
use crate::results::Run;
use crate::rows::Pass;
use crate::text::{significant, three_digits};
use crate::verdict::instructions::{ArmCounts, kernels};

const COLUMNS: [&str; 8] =
    ["arm", "user", "kernel", "server", "over the baseline", "load", "events a wait", "spread, %"];

const LEGEND: &str = "\nInstructions for each echo in the last window, by one vCPU of an emulator. \
`spread`: the largest over the smallest count of all seeds and windows. Instructions are not \
time.\n";

/// Returns a table for each workload and kernel.
pub fn counts(run: &Run) -> Body {
    let mut body = Body::default();
    for (workload, kernel) in iproduct!(&run.matrix.workloads, kernels(&run.instructions)) {
        let heading = format!("`{}` on Linux {kernel}", workload.name);
        let table = table(run, &workload.name, kernel);
        if !table.is_empty() {
            body = body.then(Body::default().heading(&heading).table(table));
        }
    }
    if body.is_empty() {
        return body.list(&absent(run, Pass::Instructions));
    }
    body.notes(format!("{LEGEND}{}", boots(run))).list(&absent(run, Pass::Instructions))
}

fn table(run: &Run, workload: &str, kernel: &str) -> Table {
    let of = |arm: &str| ArmCounts::of(&run.instructions, workload, kernel, arm);
    let base = of(&run.matrix.baseline).map(|counts| counts.server());
    let mut table = Table::new(1, &COLUMNS);
    for (name, counts) in run.matrix.arms().filter_map(|arm| Some((arm.clone(), of(&arm)?))) {
        let server = counts.server();
        table.push(vec![
            format!("`{name}`"),
            significant(counts.mean("server", "user")),
            significant(counts.mean("server", "kernel")),
            significant(server),
            base.map_or(MISSING.to_owned(), |base| format!("{:.3}", server / base)),
            significant(counts.mean("load", "user") + counts.mean("load", "kernel")),
            counts.events_per_wait().map_or(MISSING.to_owned(), significant),
            three_digits(counts.spread_percent()),
        ]);
    }
    table
}

/// Says whether all boots of a kernel counted the same.
fn boots(run: &Run) -> String {
    let arms = run.matrix.arms().collect::<Vec<_>>();
    let places = iproduct!(&run.matrix.workloads, kernels(&run.instructions), arms);
    let counts = places.filter_map(|(workload, kernel, arm)| {
        ArmCounts::of(&run.instructions, &workload.name, kernel, &arm)
    });
    let counts = counts.filter(|counts| counts.boots() > 1).collect_vec();
    let spread = counts.iter().map(ArmCounts::spread_of_boots_percent).fold(0.0, f64::max);
    match counts.first() {
        None => String::new(),
        Some(counts) if spread == 0.0 => {
            format!("All {} boots of each kernel counted the same, to the one.\n", counts.boots())
        }
        Some(_) => format!(
            "**Boots of the same kernel differ by up to {} %: these counts are not exact.**\n",
            three_digits(spread)
        ),
    }
}
