//! A load sweep: the rates of its open loops, from a closed loop's capacity, and the highest rate
//! of each arm within a latency objective.

use anyhow::{Result, anyhow};
use itertools::Itertools as _;

use super::blocks::complete_blocks;
use super::estimate::Estimate;
use crate::load::limits::Rate;
use crate::matrix::{Matrix, Workload};
use crate::rows::{Bounds, CapacityRow, Pass, Status, TrialRow};
use crate::statistics::median;

/// The workloads of a matrix whose rates are not known yet.
pub fn unknown(matrix: &Matrix) -> impl Iterator<Item = &Workload> {
    matrix.workloads.iter().filter(|workload| !workload.sweep.is_empty())
}

/// The baseline's capacity under a workload: the median of its trials, also where the client was
/// the limit, because the rates are to be such that this client can offer them. If the gates turned
/// all away, their rates count: a rate is no result, and every arm gets the same.
fn capacity_per_s(rows: &[TrialRow], workload: &str) -> Option<f64> {
    let of_status = |statuses: &[Status]| {
        let counts = |row: &&TrialRow| {
            row.pass == Some(Pass::Capacity)
                && row.workload == workload
                && statuses.contains(&row.status)
        };
        median(
            &mut rows
                .iter()
                .filter(counts)
                .filter_map(|row| row.achieved_per_s)
                .collect::<Vec<_>>(),
        )
    };
    of_status(&[Status::Ok, Status::ClientLimited])
        .or_else(|| of_status(&[Status::Rejected]))
        .filter(|capacity_per_s| *capacity_per_s > 0.0)
}

/// The matrix with its open loops in the place of its sweeps.
///
/// # Errors
/// When the baseline has no trial from which its capacity could be told.
pub fn expanded(matrix: &Matrix, rows: &[TrialRow]) -> Result<Matrix> {
    with_capacities(matrix, |workload| {
        capacity_per_s(rows, &workload.name).ok_or_else(|| {
            let mut of_capacity = rows.iter().rev().filter(|row| row.pass == Some(Pass::Capacity));
            let last = of_capacity.find(|row| row.workload == workload.name);
            anyhow!(
                "workload '{}': no rates for its sweep: no trial gave the capacity of {}: {}",
                workload.name,
                matrix.baseline,
                last.map_or("none was run", |row| &row.reason)
            )
        })
    })
}

/// The matrix with open loops in the place of its sweeps, where each workload's capacity is what
/// this says.
///
/// # Errors
/// When that says none, or no rate follows from it.
pub fn with_capacities(
    matrix: &Matrix,
    capacity_per_s: impl Fn(&Workload) -> Result<f64>,
) -> Result<Matrix> {
    let mut workloads = Vec::new();
    for workload in &matrix.workloads {
        if workload.sweep.is_empty() {
            workloads.push(workload.clone());
        } else {
            workloads.extend(expand(workload, capacity_per_s(workload)?)?);
        }
    }
    Ok(Matrix { workloads, ..matrix.clone() })
}

/// The workload's open loops, when its capacity is known.
fn expand(workload: &Workload, capacity_per_s: f64) -> Result<Vec<Workload>> {
    let mut loops: Vec<Workload> = Vec::new();
    for share in &workload.sweep {
        let rate: Rate = two_digits(share * capacity_per_s).try_into()?;
        // Shares that lie close may round to one rate.
        if loops.last().is_some_and(|last| last.rate_per_s == Some(rate)) {
            continue;
        }
        loops.push(Workload {
            name: format!("{}@{rate}", workload.name),
            rate_per_s: Some(rate),
            sweep: Vec::new(),
            sweep_of: Some(workload.name.clone()),
            ..workload.clone()
        });
    }
    Ok(loops)
}

/// Rounded to two significant digits, because more would claim a precision that the capacity has
/// not.
fn two_digits(rate: f64) -> f64 {
    let unit = 10_f64.powf(rate.log10().floor() - 1.0).max(0.1);
    (rate / unit).round() * unit
}

/// Returns the highest rate of each arm within the objective, for each sweep of the matrix.
pub fn capacities(rows: &[TrialRow], matrix: &Matrix) -> Vec<CapacityRow> {
    let Some(objective_us) = matrix.latency.as_ref().and_then(|latency| latency.objective_p99_us)
    else {
        return Vec::new();
    };
    let sweeps = matrix.workloads.iter().filter_map(|workload| workload.sweep_of.as_deref());
    let mut found = Vec::new();
    for sweep in sweeps.unique() {
        let loops: Vec<&Workload> = matrix
            .workloads
            .iter()
            .filter(|workload| workload.sweep_of.as_deref() == Some(sweep))
            .collect();
        let blocks: Vec<_> =
            loops.iter().map(|of| complete_blocks(rows, Pass::Latency, &of.name)).collect();
        for contender in &matrix.backends {
            let arm = contender.name();
            // From the lowest rate up, until one does not keep it: a rate above that keeps it is
            // luck.
            let mut row = CapacityRow {
                sweep: sweep.to_owned(),
                arm: arm.clone(),
                objective_p99_us: objective_us,
                ..CapacityRow::default()
            };
            for (of, blocks) in loops.iter().zip(&blocks) {
                let trials: Vec<&TrialRow> =
                    blocks.iter().filter_map(|block| block.get(arm.as_str()).copied()).collect();
                let read = p99_us(&trials);
                row.bounds = match (row.bounds, &read) {
                    (Some(Bounds::Range), _) | (_, None) => row.bounds,
                    (_, Some(p99)) => Some(p99.bounds),
                };
                match missed(&trials, read.as_ref(), objective_us) {
                    None => row.keep(of.rate(), read),
                    Some(why) => {
                        row.miss(of.rate(), read, why);
                        break;
                    }
                }
            }
            found.push(row);
        }
    }
    found
}

/// Returns the 99th percentile over blocks, in µs; none if a trial has none: those that have one
/// would be the busier ones.
pub fn p99_us(trials: &[&TrialRow]) -> Option<Estimate> {
    Estimate::of(&trials.iter().map(|row| row.latency_p99_us).collect::<Option<Vec<f64>>>()?)
}

/// Why a rate is not shown to keep the objective; none if it is.
fn missed(trials: &[&TrialRow], p99: Option<&Estimate>, objective_us: f64) -> Option<&'static str> {
    if trials.is_empty() {
        return Some("no block is whole");
    }
    let Some(Estimate { bounds, interval, .. }) = p99 else {
        let is_saturated =
            trials.iter().any(|row| row.is_saturated() && row.latency_p99_us.is_none());
        return Some(match is_saturated {
            true => "saturated: p99 lies among messages that were still owed",
            false => "too few messages for a 99th percentile",
        });
    };
    // A busy client makes a latency longer, never shorter.
    match bounds {
        _ if interval.high <= objective_us => None,
        _ if trials.iter().any(|row| row.status == Status::ClientLimited) => {
            Some("the client was the limit, and p99 reaches beyond the objective")
        }
        _ if interval.low > objective_us => Some("p99 above the objective"),
        Bounds::Interval95 => Some("its interval reaches beyond the objective"),
        Bounds::Range => Some("p99 of a block above the objective"),
    }
}

impl CapacityRow {
    fn keep(&mut self, rate_per_s: Option<f64>, p99: Option<Estimate>) {
        self.kept_per_s = rate_per_s;
        if let Some(Estimate { mean, interval, .. }) = p99 {
            (self.kept_p99_us, self.kept_p99_low_us, self.kept_p99_high_us) =
                (Some(mean), Some(interval.low), Some(interval.high));
        }
    }

    fn miss(&mut self, rate_per_s: Option<f64>, p99: Option<Estimate>, why: &str) {
        (self.missed_per_s, self.missed_because) = (rate_per_s, why.to_owned());
        if let Some(Estimate { mean, interval, .. }) = p99 {
            (self.missed_p99_us, self.missed_p99_low_us, self.missed_p99_high_us) =
                (Some(mean), Some(interval.low), Some(interval.high));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MATRIX: &str = r#"
        question = "q"
        baseline = "epoll-et"
        backends = [{ backend = "epoll-document" }, { backend = "epoll-et" }]
        [latency]
        blocks = 3
        duration = "1s"
        warmup_max = "1s"
        objective_p99_us = 5000.0
        [[workload]]
        name = "w"
        question = "q"
        connections = 64
        message_bytes = 64
        sweep = [0.1, 0.5, 0.504, 1.2]
    "#;

    fn expanded() -> Matrix {
        let mut matrix: Matrix = toml::from_str(MATRIX).expect("a matrix");
        matrix.workloads = unknown(&matrix)
            .flat_map(|workload| expand(workload, 123_456.0).expect("are rates"))
            .collect();
        matrix
    }

    #[test]
    fn rates_are_round_shares_of_the_capacity_and_differ() {
        let matrix = expanded();
        let names: Vec<_> =
            matrix.workloads.iter().map(|workload| workload.name.as_str()).collect();
        assert_eq!(names, ["w@12000", "w@62000", "w@150000"]);
        assert_eq!(matrix.workloads[1].rate(), Some(62_000.0));
        assert!(
            matrix
                .workloads
                .iter()
                .all(|of| of.sweep_of.as_deref() == Some("w") && of.sweep.is_empty())
        );
        assert_eq!(unknown(&matrix).count(), 0);
        assert_eq!([0.123, 9.96, 1234.0].map(two_digits), [0.1, 10.0, 1200.0]);
    }

    #[test]
    fn the_capacity_is_the_median_of_what_stands() {
        let row = |achieved: f64, status, pass| TrialRow {
            pass: Some(pass),
            workload: "w".to_owned(),
            achieved_per_s: Some(achieved),
            status,
            ..TrialRow::default()
        };
        let rows = [
            row(100.0, Status::Ok, Pass::Capacity),
            row(300.0, Status::ClientLimited, Pass::Capacity),
            row(900.0, Status::Rejected, Pass::Capacity),
            row(900.0, Status::Ok, Pass::Latency),
        ];
        assert_eq!(capacity_per_s(&rows, "w"), Some(200.0));
        assert_eq!(capacity_per_s(&rows[2..], "w"), Some(900.0), "for want of others");
        assert_eq!(capacity_per_s(&rows, "v"), None);
    }

    #[test]
    fn an_arm_carries_the_highest_rate_below_the_first_that_misses() {
        let matrix = expanded();
        let mut rows = Vec::new();
        for block in 1..=3 {
            for (workload, p99, document, document_status) in [
                ("w@12000", 200.0, 300.0, Status::Ok),
                ("w@62000", 400.0, 9000.0, Status::ClientLimited),
                ("w@150000", 8000.0, 100.0, Status::Ok),
            ] {
                let row = |arm: &str, p99: f64, status| TrialRow {
                    pass: Some(Pass::Latency),
                    workload: workload.to_owned(),
                    block,
                    arm: arm.to_owned(),
                    latency_p99_us: Some(p99),
                    status,
                    ..TrialRow::default()
                };
                // A client that is busy is no reason where the objective was kept all the same.
                let status =
                    if document_status == Status::Ok { Status::Ok } else { Status::ClientLimited };
                rows.push(row("epoll-et", p99, status));
                rows.push(row("epoll-document", document, document_status));
            }
        }
        let found = capacities(&rows, &matrix);
        let of = |arm: &str| found.iter().find(|row| row.arm == arm).expect("a row");
        let document = of("epoll-document");
        let is_near = |value: Option<f64>, expected: f64| {
            (value.expect("there") / expected - 1.0).abs() < 1e-9
        };
        assert_eq!((document.kept_per_s, document.missed_per_s), (Some(12_000.0), Some(62_000.0)));
        assert!(
            is_near(document.kept_p99_us, 300.0) && is_near(document.missed_p99_us, 9000.0),
            "{document:?}"
        );
        assert_eq!(document.bounds, Some(Bounds::Range));
        assert!(
            document.missed_because.starts_with("the client was the limit"),
            "{}",
            document.missed_because
        );
        let edge = of("epoll-et");
        assert_eq!((edge.kept_per_s, edge.missed_per_s), (Some(62_000.0), Some(150_000.0)));
        assert_eq!(edge.missed_because, "p99 above the objective");
    }

    #[test]
    fn a_server_that_still_owes_messages_does_not_keep_the_objective() {
        let matrix = expanded();
        let mut rows = Vec::new();
        // The measured p99 is short: the missing ones were too long to be measured.
        for (block, p99, owed) in [(1, Some(100.0), 0), (2, None, 400), (3, None, 500)] {
            for arm in ["epoll-et", "epoll-document"] {
                let (latency_p99_us, owed) =
                    if arm == "epoll-et" { (p99, owed) } else { (Some(100.0), 0) };
                rows.push(TrialRow {
                    pass: Some(Pass::Latency),
                    workload: "w@12000".to_owned(),
                    block,
                    arm: arm.to_owned(),
                    latency_p99_us,
                    owed: Some(owed),
                    status: Status::Ok,
                    ..TrialRow::default()
                });
            }
        }
        let found = capacities(&rows, &matrix);
        let edge = found.iter().find(|row| row.arm == "epoll-et").expect("a row");
        assert_eq!(
            (edge.kept_per_s, edge.missed_per_s, edge.missed_p99_us),
            (None, Some(12_000.0), None)
        );
        assert!(edge.missed_because.starts_with("saturated: p99"), "{}", edge.missed_because);
        let document = found.iter().find(|row| row.arm == "epoll-document").expect("a row");
        assert_eq!(document.kept_per_s, Some(12_000.0));
    }
}
