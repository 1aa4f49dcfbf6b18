//! Memory per connection over that of `null`, and two arms in comparison.

use std::collections::BTreeMap;

use itertools::iproduct;
use ringmark::backend::FLOOR;

use super::metric;
use crate::rows::{ComparisonRow, MemoryRow, NEVER_USED, Status, USED_THEN_IDLE, Verdict};
use crate::statistics::Interval;

/// The states of a connection in which memory is compared.
pub const STATES: [&str; 2] = [NEVER_USED, USED_THEN_IDLE];

/// Returns the usable slope of an object in a state of an arm's connections.
pub fn slope<'a>(
    memory: &'a [MemoryRow],
    arm: &str,
    object: &str,
    state: &str,
) -> Option<&'a MemoryRow> {
    memory.iter().find(|row| {
        row.status == Status::Ok && row.arm == arm && row.object == object && row.state == state
    })
}

/// Returns the workload of a comparison of memory, as in `comparisons.csv`.
pub fn workload(state: &str) -> String {
    format!("memory {state}")
}

impl MemoryRow {
    /// Returns whether it is a slope of two bare endpoints in the kernel.
    pub fn is_floor(&self) -> bool {
        self.backend == FLOOR && self.state == NEVER_USED && self.status == Status::Ok
    }

    /// Returns the interval of the slope.
    pub fn interval(&self) -> Option<Interval> {
        Some(Interval { low: self.low?, high: self.high? })
    }

    /// Returns the interval of the slope over that of `null`.
    pub fn interval_over_null(&self) -> Option<Interval> {
        Some(Interval { low: self.over_null_low?, high: self.over_null_high? })
    }
}

/// Fills in what each slope is over that of `null`, never used, for the same object. An object that
/// `null` has none of costs it nothing. Without a usable `null` there is no floor: then only a
/// server's own pages, which need none, are filled in.
pub fn subtract_null(rows: &mut [MemoryRow]) {
    const NONE: (f64, Option<Interval>) = (0.0, Some(Interval { low: 0.0, high: 0.0 }));
    let floor: BTreeMap<String, _> = (rows.iter().filter(|row| row.is_floor()))
        .map(|row| (row.object.clone(), (row.bytes_per_connection, row.interval())))
        .collect();
    for row in rows.iter_mut().filter(|row| row.space == "user" || !floor.is_empty()) {
        let own = row.space == "user";
        let (under, under_interval) =
            floor.get(&row.object).copied().filter(|_| !own).unwrap_or(NONE);
        let over = row.interval().zip(under_interval).map(|(own, under)| own.minus(&under));
        row.over_null_bytes_per_connection = Some(row.bytes_per_connection - under);
        (row.over_null_low, row.over_null_high) = over.map(|over| (over.low, over.high)).unzip();
    }
}

/// Returns what each arm adds to two bare endpoints against what the other adds. One walk is one
/// comparison. The interval of each slope says what it resolves, so there is none without.
pub fn compare(memory: &[MemoryRow], pairs: &[(String, String)]) -> Vec<ComparisonRow> {
    iproduct!(&metric::OF_WALKS, STATES, pairs)
        .filter_map(|(metric, state, (arm, baseline))| {
            let slope = |arm: &str| {
                let row = slope(memory, arm, metric.object()?, state)?;
                Some((row, row.over_null_low.and(row.over_null_bytes_per_connection)?))
            };
            let (row, arm_bytes) = slope(arm)?;
            let (_, baseline_bytes) = slope(baseline).filter(|(_, bytes)| *bytes > 0.0)?;
            let workload = workload(state);
            let names = [workload.as_str(), metric.name, arm, &row.backend, baseline];
            Some(ComparisonRow::of_two(names, [baseline_bytes, arm_bytes], Verdict::OneWalk))
        })
        .collect()
}
