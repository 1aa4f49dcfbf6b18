//! The chart of exact counts: where the instructions of an echo go.

use itertools::{Itertools as _, iproduct};

use super::kit::{Found, nothing_of, say_missing};
use crate::matrix::Workload;
use crate::report::chart::rows::{self, ChartRow, Drawn, Group, StackPart};
use crate::report::chart::{Canvas, Chart};
use crate::report::colours::{Colour, of_class};
use crate::report::query::in_groups;
use crate::results::Run;
use crate::rows::Pass;
use crate::text::significant;
use crate::verdict::instructions::{ArmCounts, kernels};

/// The name of all classes without a colour.
const OTHERS: &str = "others";

/// The classes of an echo's instructions, one after the other, on each kernel.
pub fn by_class(run: &Run) -> Found {
    let places = iproduct!(&run.matrix.workloads, kernels(&run.instructions));
    let charts = places.filter_map(|(workload, kernel)| of_kernel(run, workload, kernel));
    let charts: Vec<Chart> = charts.collect();
    if charts.is_empty() { Err(nothing_of(run, Pass::Instructions)) } else { Ok(charts) }
}

fn of_kernel(run: &Run, workload: &Workload, kernel: &str) -> Option<Chart> {
    let row = |arm: String| {
        let counts = ArmCounts::of(&run.instructions, &workload.name, kernel, &arm)?;
        let user = ("user", counts.mean("server", "user"));
        let classes = std::iter::once(user).chain(counts.classes());
        let known = classes.map(|(class, size)| match of_class(class) {
            Some(colour) => ((class, colour), size),
            None => ((OTHERS, Colour::Grey), size),
        });
        let part = |((name, colour), sizes): ((&str, Colour), Vec<f64>)| StackPart {
            name: name.to_owned(),
            colour,
            size: sizes.iter().sum(),
        };
        // Grey stands last.
        let parts = in_groups(known).into_iter().map(part);
        let parts = parts.sorted_by_key(|part| part.colour == Colour::Grey).collect();
        let figures = significant(counts.server());
        Some(ChartRow { label: arm, figures, drawn: Drawn::Stack(parts) })
    };
    let rows = run.matrix.arms().filter_map(row).collect_vec();
    if rows.is_empty() {
        return None;
    }
    let heading = format!("{} on Linux {kernel}", workload.name);
    let mut canvas = Canvas::new(
        &format!("instructions-{}-{kernel}", workload.name),
        &format!("Where do the server's instructions of an echo go? {heading}"),
    );
    let group = Group { heading, rows, band: None };
    rows::draw(&mut canvas, &[group], "instructions per echo, counted by an emulator", true);
    canvas.note("Instructions are not time: a cache miss or an interrupt takes longer.");
    say_missing(&mut canvas, run, Pass::Instructions, &[&workload.name]);
    Some(canvas.finish())
}
