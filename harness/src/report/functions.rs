//! The functions that make the difference between two counts.

use std::str::FromStr;

use anyhow::{Result, bail};
use itertools::Itertools;

use super::section::Body;
use super::table::Table;
use crate::rows::FunctionRow;
use crate::text::{list, significant};

/// The most functions that a table shows.
const MOST: usize = 30;

/// A count: an arm, on one kernel if there are several.
#[derive(Clone, Debug, PartialEq)]
pub struct CountName {
    arm: String,
    kernel: Option<String>,
}

impl FromStr for CountName {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (arm, kernel) = match text.split_once('@') {
            Some((arm, kernel)) => (arm, Some(kernel.to_owned())),
            None => (text, None),
        };
        Ok(Self { arm: arm.to_owned(), kernel })
    }
}

impl CountName {
    /// Returns its rows, which are of one kernel.
    fn rows<'a>(&self, rows: &'a [FunctionRow]) -> Result<Vec<&'a FunctionRow>> {
        let is_wanted = |row: &&FunctionRow| {
            let fits = self.kernel.as_ref().is_none_or(|kernel| row.kernel.starts_with(kernel));
            fits && row.arm == self.arm
        };
        let rows_of = rows.iter().filter(is_wanted).collect_vec();
        let kernels = rows_of.iter().map(|row| row.kernel.as_str()).unique().collect_vec();
        match kernels[..] {
            [_] => Ok(rows_of),
            [] => {
                let arms = rows.iter().map(|row| row.arm.as_str()).unique().collect_vec();
                bail!("there is no count of '{}': the arms are {}", self.name(), list(&arms))
            }
            _ => bail!(
                "'{}' was counted on {}: say which, as in '{}@{}'",
                self.arm,
                list(&kernels),
                self.arm,
                kernels[0]
            ),
        }
    }

    fn name(&self) -> String {
        let kernel = self.kernel.as_ref().map(|kernel| format!("@{kernel}"));
        format!("{}{}", self.arm, kernel.unwrap_or_default())
    }
}

/// Returns a table for each workload: the classes, then the functions, by how much they differ.
pub fn difference(rows: &[FunctionRow], first: &CountName, second: &CountName) -> Result<Body> {
    let (of_first, of_second) = (first.rows(rows)?, second.rows(rows)?);
    let workloads = of_first.iter().map(|row| row.workload.as_str()).unique();
    let mut body = Body::default();
    for workload in workloads {
        let pairs = |key: fn(&FunctionRow) -> String| {
            let figures = |rows: &[&FunctionRow]| {
                let of_workload = rows.iter().filter(|row| row.workload == workload);
                let figures = of_workload.map(|row| (key(row), row.instructions_per_echo));
                figures.into_grouping_map().sum()
            };
            let (firsts, seconds) = (figures(&of_first), figures(&of_second));
            let names = firsts.keys().chain(seconds.keys()).cloned().unique();
            let get = |of: &std::collections::HashMap<String, f64>, name: &str| {
                of.get(name).copied().unwrap_or_default()
            };
            let pairs = names.map(|name| {
                let (first, second) = (get(&firsts, &name), get(&seconds, &name));
                (name, first, second)
            });
            let by_size = |(name, first, second): &(String, f64, f64)| {
                (ordered(-(second - first).abs()), name.clone())
            };
            pairs.sorted_by_key(by_size).collect_vec()
        };
        for (what, pairs) in
            [("class", pairs(|row| row.class.clone())), ("function", pairs(name_of))]
        {
            let heading = format!("`{workload}`, instructions an echo by {what}");
            let titles = [what, &first.name(), &second.name(), "difference"];
            let mut table = Table::new(1, &titles);
            for (name, first, second) in pairs.iter().take(MOST) {
                let difference = format!("{:+.0}", second - first);
                table.push(vec![
                    format!("`{name}`"),
                    significant(*first),
                    significant(*second),
                    difference,
                ]);
            }
            body = body.then(Body::default().heading(&heading).table(table));
        }
    }
    Ok(body)
}

fn name_of(row: &FunctionRow) -> String {
    row.function.clone()
}

/// Returns a number by which figures are put into order, to a thousandth.
fn ordered(figure: f64) -> i64 {
    (figure * 1000.0).round() as i64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn row(kernel: &str, arm: &str, function: &str, instructions_per_echo: f64) -> FunctionRow {
        FunctionRow {
            kernel: kernel.to_owned(),
            workload: "one".to_owned(),
            arm: arm.to_owned(),
            class: "epoll".to_owned(),
            function: function.to_owned(),
            instructions_per_echo,
            ..FunctionRow::default()
        }
    }

    fn rows() -> Vec<FunctionRow> {
        vec![
            row("6.1", "a", "same", 50.0),
            row("6.1", "a", "less", 40.0),
            row("6.1", "b", "same", 50.0),
            row("6.1", "b", "more", 10.0),
            row("6.12", "b", "more", 20.0),
        ]
    }

    #[test]
    fn the_largest_difference_comes_first() {
        let [a, b] = ["a", "b@6.1."].map(|text| text.parse::<CountName>().unwrap());
        assert!(difference(&rows(), &a, &b).is_err(), "6.1. is no kernel");
        let b = "b@6.12".parse().unwrap();
        let text = difference(&rows(), &a, &b).unwrap().markdown();
        let places = ["`less`", "`same`", "`more`"].map(|name| text.find(name).unwrap());
        assert!(places[0] > text.find("by function").unwrap());
        assert!(places[1] < places[2] && text.contains("-50"), "{text}");
    }

    #[test]
    fn what_was_not_counted_is_said() {
        let refused = |a: &str| {
            let [a, b] = [a, "a"].map(|text| text.parse().unwrap());
            difference(&rows(), &a, &b).err().unwrap().to_string()
        };
        assert!(refused("c").contains("the arms are a and b"));
        assert!(refused("b").contains("say which, as in 'b@6.1'"));
    }
}
