//! The table of the CPUs' own counts.

use itertools::Itertools as _;

use super::query::absent;
use super::section::Body;
use super::table::{MISSING, Table, cell};
use crate::results::Run;
use crate::rows::{HardwareRow, Pass, Status};
use crate::text::significant;

const COLUMNS: [&str; 9] = [
    "workload",
    "arm",
    "instructions, user",
    "kernel",
    "cycles, user",
    "kernel",
    "instructions a cycle",
    "cache misses",
    "branch misses",
];

/// Returns the counts of each trial that has any, for an echo.
pub fn table(run: &Run) -> Body {
    let mut table = Table::new(2, &COLUMNS);
    let usable = run.trials.iter().filter(|row| row.status == Status::Ok);
    for trial in usable.filter(|row| row.pass == Some(Pass::Hardware)) {
        let rows = run.hardware.iter().filter(|row| row.run_id == trial.run_id).collect_vec();
        let of = |mode: &str, event: &str| {
            rows.iter().find(|row| row.mode == mode && row.event == event)?.count_per_echo
        };
        let both = |event: &str| Some(of("user", event)? + of("kernel", event)?);
        let per_cycle = both("instructions").zip(both("cycles").filter(|cycles| *cycles > 0.0));
        let mut cells = vec![trial.workload.clone(), trial.arm.clone()];
        let figures = [
            of("user", "instructions"),
            of("kernel", "instructions"),
            of("user", "cycles"),
            of("kernel", "cycles"),
            per_cycle.map(|(instructions, cycles)| instructions / cycles),
            both("cache_misses"),
            both("branch_misses"),
        ];
        cells.extend(figures.map(|figure| cell(figure, significant)));
        table.push(cells);
    }
    let body = Body::from(table).list(&absent(run, Pass::Hardware));
    match turns(&run.hardware) {
        Some(words) => body.notes(words),
        None => body,
    }
}

/// Says in which share of the time the groups counted, if not in all of it, and who has no figure.
fn turns(rows: &[HardwareRow]) -> Option<String> {
    let shares = rows.iter().map(|row| row.running_percent);
    let (least, _) = shares.minmax().into_option()?;
    let refused = rows.iter().filter(|row| row.count_per_echo.is_none());
    let reasons = refused.map(|row| format!("- `{}` {}\n", row.arm, row.source)).unique();
    let scaled = (least < 99.5).then(|| {
        format!(
            "\nThe CPU has too few counters for all: groups took turns, and counted in \
             {least:.0} % of the time or more. Figures are scaled by that share; {MISSING}: too \
             small a share.\n"
        )
    });
    let words = scaled.unwrap_or_default() + &reasons.collect::<String>();
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::rows::TrialRow;

    fn run(running_percent: f64) -> Run {
        let text = "question = \"q\"\nbaseline = \"a\"\nbackends = [{ backend = \"a\" }]\n\
                    [hardware]\nechoes = 10\n[[workload]]\nname = \"w\"\nquestion = \"q\"\n\
                    connections = 1\nmessage_bytes = 64\n";
        let trial = TrialRow {
            run_id: 1,
            pass: Some(Pass::Hardware),
            workload: "w".to_owned(),
            arm: "a".to_owned(),
            status: Status::Ok,
            ..TrialRow::default()
        };
        let figures = [("instructions", 400.0), ("cycles", 800.0), ("cache_misses", 1.5)];
        let rows = ["user", "kernel"].into_iter().cartesian_product(figures);
        let hardware = rows.map(|(mode, (event, figure))| HardwareRow {
            run_id: 1,
            arm: "a".to_owned(),
            mode: mode.to_owned(),
            event: event.to_owned(),
            running_percent,
            count_per_echo: Some(figure),
            ..HardwareRow::default()
        });
        let hardware = hardware.collect();
        Run { hardware, ..Run::of(toml::from_str(text).unwrap(), vec![trial], Vec::new()) }
    }

    #[test]
    fn a_trial_has_its_counts_in_a_line() {
        let text = table(&run(100.0)).markdown();
        let line = text.lines().last().unwrap();
        let cells = line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect_vec();
        assert_eq!(cells, ["w", "a", "400", "400", "800", "800", "0.50", "3.00", MISSING]);
        assert!(table(&run(49.7)).markdown().contains("counted in 50 % of the time or more"));
    }
}
