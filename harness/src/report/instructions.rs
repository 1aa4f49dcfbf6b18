//! The tables of exact counts: instructions for each echo.

use itertools::Itertools;

use super::section::Body;
use super::table::{MISSING, Table};
use crate::rows::{InstructionRow, Status};
use crate::text::{significant, three_digits};

/// Returns a table for each workload and kernel, and one of all kernels if there are several.
pub fn tables(rows: &[InstructionRow]) -> Body {
    let baseline = rows.first().map_or("", |row| row.baseline.as_str());
    let mut body = Body::default();
    let workloads = rows.iter().map(|row| row.workload.as_str()).unique().collect_vec();
    let kernels = rows.iter().map(|row| row.kernel.as_str()).unique().collect_vec();
    for workload in workloads {
        let of_workload = rows.iter().filter(|row| row.workload == workload).collect_vec();
        for kernel in &kernels {
            let of_kernel = of_workload.iter().copied().filter(|row| row.kernel == *kernel);
            let heading = format!("`{workload}` on Linux {kernel}");
            body = body.then(counts(&of_kernel.collect_vec(), baseline, &heading));
        }
        if kernels.len() > 1 {
            body = body.then(by_kernel(&of_workload, &kernels, baseline, workload));
        }
    }
    body
}

/// The counts of an arm, under one workload, on one kernel.
struct ArmCounts<'a> {
    name: &'a str,
    user: f64,
    kernel: f64,
    load: f64,
    /// Between the largest and the smallest count of any window, in percent.
    spread_percent: f64,
    events_per_wait: Option<f64>,
}

impl<'a> ArmCounts<'a> {
    fn of(name: &'a str, rows: &[&InstructionRow]) -> Option<Self> {
        let of_arm = rows.iter().filter(|row| row.arm == name);
        let rows = of_arm.filter(|row| row.status == Status::Ok).copied().collect_vec();
        let last = rows.iter().filter_map(|row| row.window).max()?;
        let server = |window: Option<u32>| {
            let of_server = rows.iter().filter(move |row| row.side == "server");
            of_server.filter(move |row| window.is_none_or(|window| row.window == Some(window)))
        };
        let mean = |side: &str, class: &str| {
            let of_side = rows.iter().filter(|row| row.side == side && row.class == class);
            let last = of_side.filter(|row| row.window == Some(last));
            let figures = last.filter_map(|row| row.instructions_per_echo).collect_vec();
            figures.iter().sum::<f64>() / figures.len() as f64
        };
        let windows = server(None).filter(|row| matches!(row.class.as_str(), "user" | "kernel"));
        let sums = windows
            .filter_map(|row| Some(((row.boot, row.seed, row.window), row.instructions_per_echo?)))
            .into_grouping_map()
            .sum();
        let (least, most) = sums.into_values().minmax().into_option()?;
        Some(Self {
            name,
            user: mean("server", "user"),
            kernel: mean("server", "kernel"),
            load: mean("load", "user") + mean("load", "kernel"),
            spread_percent: 100.0 * (most / least - 1.0),
            events_per_wait: server(Some(last)).find_map(|row| row.events_per_wait),
        })
    }

    fn server(&self) -> f64 {
        self.user + self.kernel
    }
}

fn counts(rows: &[&InstructionRow], baseline: &str, heading: &str) -> Body {
    let names = rows.iter().map(|row| row.arm.as_str()).unique();
    let arms = names.filter_map(|name| ArmCounts::of(name, rows)).collect_vec();
    let base = arms.iter().find(|arm| arm.name == baseline).map(ArmCounts::server);
    let mut table = Table::new(
        1,
        &[
            "arm",
            "user",
            "kernel",
            "server",
            "over the baseline",
            "load",
            "events a wait",
            "spread, %",
        ],
    );
    for arm in &arms {
        table.push(vec![
            format!("`{}`", arm.name),
            significant(arm.user),
            significant(arm.kernel),
            significant(arm.server()),
            base.map_or(MISSING.to_owned(), |base| format!("{:.3}", arm.server() / base)),
            significant(arm.load),
            arm.events_per_wait.map_or(MISSING.to_owned(), significant),
            three_digits(arm.spread_percent),
        ]);
    }
    let without = rows.iter().filter(|row| row.status != Status::Ok);
    let reasons: String = without
        .map(|row| format!("- `{}`: {}: {}\n", row.arm, row.status.word(), row.reason))
        .unique()
        .collect();
    Body::default().heading(heading).table(table).list(&reasons)
}

fn by_kernel(rows: &[&InstructionRow], kernels: &[&str], baseline: &str, workload: &str) -> Body {
    let on = |kernel: &str, arm| {
        let of_kernel = rows.iter().copied().filter(|row| row.kernel == kernel).collect_vec();
        ArmCounts::of(arm, &of_kernel).map(|arm| arm.server())
    };
    let heading = std::iter::once("arm").chain(kernels.iter().copied()).collect_vec();
    let mut table = Table::new(1, &heading);
    for arm in rows.iter().map(|row| row.arm.as_str()).unique() {
        let cells = kernels.iter().map(|kernel| match (on(kernel, arm), on(kernel, baseline)) {
            (Some(count), Some(base)) => format!("{} ({:.3})", significant(count), count / base),
            (Some(count), None) => significant(count),
            (None, _) => MISSING.to_owned(),
        });
        table.push(std::iter::once(format!("`{arm}`")).chain(cells).collect());
    }
    let heading = format!("`{workload}`, by kernel: instructions, and over the baseline");
    Body::default().heading(&heading).table(table)
}
