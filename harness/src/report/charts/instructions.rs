//! Charts of exact counts: where the instructions of an echo go, and since which kernel.

use itertools::{Itertools as _, iproduct};

use super::kit::{Found, nothing_of, say_missing};
use crate::matrix::{Arm, Workload};
use crate::report::chart::axis::Axis;
use crate::report::chart::lines::{self, Across, LEFT, Line, Panel, Point, RIGHT};
use crate::report::chart::rows::{self, ChartRow, Drawn, Group, StackPart};
use crate::report::chart::{Canvas, Chart};
use crate::report::colours::{Colour, look, of_class};
use crate::report::query::in_groups;
use crate::results::Run;
use crate::rows::Pass;
use crate::statistics::Interval;
use crate::text::significant;
use crate::verdict::instructions::{ArmCounts, kernels};

/// The name of all classes without a colour.
const OTHERS: &str = "others";

/// An arm that takes so many times the baseline's instructions would press the others together.
const RATIO_MAX: f64 = 1.7;

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
    let rows = run.matrix.backends.iter().map(Arm::name).filter_map(row).collect_vec();
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

/// The instructions of each arm over the baseline's, from kernel to kernel.
pub fn by_kernel(run: &Run) -> Found {
    let kernels = kernels(&run.instructions);
    if kernels.len() < 2 {
        return Err("the run counts instructions on no two kernels".to_owned());
    }
    let across = Across {
        title: "kernel".to_owned(),
        axis: Axis::of_places(kernels.len(), LEFT + 12.0, RIGHT - 12.0),
        ticks: Some((1..).map(f64::from).zip(kernels.iter().map(|name| series(name))).collect()),
        has_places: true,
    };
    let charts = run.matrix.workloads.iter().filter_map(|workload| {
        let (near, far) = lines_of(run, workload, &kernels);
        near.first()?;
        let mut canvas = Canvas::new(
            &format!("instructions-by-kernel-{}", workload.name),
            &format!(
                "Since which kernel does it take fewer instructions than {}? {}",
                run.matrix.baseline, workload.name
            ),
        );
        let panel = Panel {
            title: "server's instructions per echo, ratio".to_owned(),
            lines: near,
            goal: Some((1.0, run.matrix.baseline.clone())),
            is_ratio: true,
        };
        lines::draw(&mut canvas, &across, &[panel]);
        canvas.note("Whiskers: the range over the seeds.");
        if !far.is_empty() {
            let names = far.iter().map(|line| line.label.as_str()).join(", ");
            canvas.note(&format!("Left out, beyond {RATIO_MAX} somewhere: {names}."));
        }
        say_missing(&mut canvas, run, Pass::Instructions, &[&workload.name]);
        Some(canvas.finish())
    });
    let charts: Vec<Chart> = charts.collect();
    if charts.is_empty() { Err(nothing_of(run, Pass::Instructions)) } else { Ok(charts) }
}

/// Returns the lines that can be drawn together, and those that go beyond.
fn lines_of(run: &Run, workload: &Workload, kernels: &[&str]) -> (Vec<Line>, Vec<Line>) {
    let others = run.matrix.backends.iter().map(Arm::name);
    let others = others.filter(|arm| *arm != run.matrix.baseline);
    let counts =
        |kernel: &str, arm: &str| ArmCounts::of(&run.instructions, &workload.name, kernel, arm);
    let line = |label: String| {
        let point = |(x, kernel): (u32, &&str)| {
            let (arm, base) = (counts(kernel, &label)?, counts(kernel, &run.matrix.baseline)?);
            Some(Point {
                x: x.into(),
                y: arm.server() / base.server(),
                bounds: Interval::range(&arm.ratios(&base)),
                is_marked: true,
                is_ringed: false,
            })
        };
        let points = (1..).zip(kernels).filter_map(point).collect_vec();
        Line { look: look(run, &label), label, points }
    };
    let lines = others.map(line).filter(|line| !line.points.is_empty());
    lines.partition(|line| line.points.iter().all(|point| point.y <= RATIO_MAX))
}

/// Returns the first two numbers of a release: `6.12`.
fn series(release: &str) -> String {
    release.splitn(3, '.').take(2).join(".")
}
