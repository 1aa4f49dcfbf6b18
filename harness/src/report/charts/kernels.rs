//! Charts against the kernel: since when does it pay?

use itertools::Itertools as _;

use super::kit::{Found, nothing_of, say_missing};
use crate::matrix::Workload;
use crate::report::chart::axis::Axis;
use crate::report::chart::lines::{self, Across, LEFT, Line, Panel, Point, RIGHT};
use crate::report::chart::{Canvas, Chart};
use crate::report::colours::look;
use crate::results::Run;
use crate::rows::{KERNEL_SUM, MemoryRow, NEVER_USED, Pass, USED_THEN_IDLE};
use crate::statistics::Interval;
use crate::verdict::instructions::{ArmCounts, kernels};
use crate::verdict::memory::slope;

/// An arm that takes so many times the baseline's instructions would press the others together.
const RATIO_MAX: f64 = 1.7;

/// So would one that takes more bytes of the kernel for a connection.
const BYTES_MAX: f64 = 4000.0;

/// The instructions of each arm over the baseline's, from kernel to kernel.
pub fn instructions(run: &Run) -> Found {
    let kernels = kernels(&run.instructions);
    if kernels.len() < 2 {
        return Err("the run counts instructions on no two kernels".to_owned());
    }
    let across = across(&kernels);
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
    let others = run.matrix.arms();
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

/// The bytes of the kernel's objects for a connection that is idle.
pub fn memory(run: &Run) -> Found {
    let kernels = run.guests.iter().map(Run::kernel).collect_vec();
    if kernels.len() < 2 {
        return Err("the run has memory of no two kernels".to_owned());
    }
    let states = [(NEVER_USED, "never used"), (USED_THEN_IDLE, "used, then idle")];
    let (mut panels, mut far) = (Vec::new(), Vec::new());
    for (state, words) in states {
        let lines = run.matrix.backends.iter().map(|arm| bytes(run, &arm.name(), state));
        let lines = lines.filter(|line| !line.points.is_empty());
        let (near, beyond): (Vec<Line>, Vec<Line>) =
            lines.partition(|line| line.points.iter().all(|point| point.y <= BYTES_MAX));
        far.extend(beyond.into_iter().map(|line| line.label));
        let title = format!("{words}: bytes over two bare ends");
        panels.push(Panel { title, lines: near, goal: None, is_ratio: false });
    }
    let mut canvas = Canvas::new(
        "memory-by-kernel",
        "How much of the kernel's memory does an idle connection take, kernel by kernel?",
    );
    lines::draw(&mut canvas, &across(&kernels), &panels);
    canvas.note("All kernel objects, with the 95 % intervals of the slopes; read in guests.");
    if !far.is_empty() {
        let names = far.iter().unique().join(", ");
        canvas.note(&format!("Left out, beyond {BYTES_MAX} bytes somewhere: {names}."));
    }
    Ok(vec![canvas.finish()])
}

fn bytes(run: &Run, arm: &str, state: &str) -> Line {
    let point = |(x, guest): (u32, &Run)| {
        let row = slope(&guest.memory, arm, KERNEL_SUM, state)?;
        Some(Point {
            x: x.into(),
            y: row.over_null_bytes_per_connection?,
            bounds: MemoryRow::interval_over_null(row),
            is_marked: true,
            is_ringed: false,
        })
    };
    let points = (1..).zip(&run.guests).filter_map(point).collect();
    Line { look: look(run, arm), label: arm.to_owned(), points }
}

/// Returns the axis of these kernels, beside each other.
fn across(kernels: &[&str]) -> Across {
    Across {
        title: "kernel".to_owned(),
        axis: Axis::of_places(kernels.len(), LEFT + 12.0, RIGHT - 12.0),
        ticks: Some((1..).map(f64::from).zip(kernels.iter().map(|name| series(name))).collect()),
        has_places: true,
    }
}

/// Returns the first two numbers of a release: `6.12`.
fn series(release: &str) -> String {
    release.splitn(3, '.').take(2).join(".")
}
