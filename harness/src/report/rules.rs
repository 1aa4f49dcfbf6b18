//! Sentences that a person decides by, made from the verdicts of a run. Each is written from an arm, the baseline and a
//! verdict, whichever of them it favours. What has no verdict (a range, a shared CPU, a client that lags, trials that
//! were turned away) says nothing here.

mod choices;
mod differences;
mod limits;
mod series;

use self::series::Series;
use super::tables::comparison;
use crate::matrix::{Contender, Workload};
use crate::measurement::{ComparisonRow, Verdict};
use crate::results::Run;

/// A sentence that a person decides by, and what it stands on.
pub struct Rule {
    /// The shape of service that it is for, in words.
    pub subject: String,
    /// One sentence.
    pub statement: String,
    /// The figures behind it.
    pub evidence: String,
}

/// Every rule that the run supports: first what to choose, then by how much it differs, what it carries and what it
/// takes.
pub fn all(run: &Run) -> Vec<Rule> {
    let series = Series::all(&run.matrix);
    let mut rules = choices::rules(run, &series);
    for (words, says_none) in [(&CPU, true), (&THROUGHPUT, false), (&P99, false)] {
        rules.extend(series.iter().flat_map(|series| differences::rules(run, series, words, says_none)));
    }
    rules.extend(limits::capacities(run, &series));
    rules.extend(limits::memory(run));
    rules
}

/// Them as a list; nothing if there are none.
pub fn text(run: &Run) -> String {
    let rules = all(run);
    let item =
        |Rule { subject, statement, evidence }: &Rule| format!("- {subject}: **{statement}** {evidence}\n");
    let items: String = rules.iter().map(item).collect();
    match items.is_empty() {
        true => items,
        false => format!("Of this machine, this kernel and these workloads:\n\n{items}"),
    }
}

/// A metric in words: an arm `takes 3 % more server CPU per echo`.
struct Words {
    metric: &'static str,
    noun: &'static str,
    verb: &'static str,
    /// Of its medians.
    unit: &'static str,
}

const CPU: Words =
    Words { metric: "server_cpu_ns_per_echo", noun: "server CPU per echo", verb: "takes", unit: "ns" };
const THROUGHPUT: Words =
    Words { metric: "achieved_per_s", noun: "echoes per second", verb: "carries", unit: "/s" };
const P50: Words = Words { metric: "latency_p50_us", noun: "median latency", verb: "has", unit: "µs" };
const P99: Words = Words { metric: "latency_p99_us", noun: "p99 latency", verb: "has", unit: "µs" };
const P999: Words = Words { metric: "latency_p999_us", noun: "p99.9 latency", verb: "has", unit: "µs" };

/// By what a service judges a server under load.
const LOADS: [&Words; 5] = [&CPU, &THROUGHPUT, &P50, &P99, &P999];

/// The arm against the baseline, if that has a verdict. What an open loop returns is what it is offered, and says
/// nothing of a server.
fn judged<'a>(run: &'a Run, workload: &Workload, words: &Words, arm: &str) -> Option<&'a ComparisonRow> {
    if words.metric == THROUGHPUT.metric && workload.rate_per_s.is_some() {
        return None;
    }
    comparison(run, &workload.name, words.metric, arm, &run.matrix.baseline)
        .filter(|row| matches!(row.verdict, Verdict::Lower | Verdict::Higher | Verdict::NoDifferenceShown))
}

/// The arms beside the baseline.
fn others(run: &Run) -> impl Iterator<Item = String> + '_ {
    run.matrix.backends.iter().map(Contender::arm).filter(|arm| *arm != run.matrix.baseline)
}

/// Clauses as a sentence.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;
    use crate::measurement::{MemoryRow, Pass, Status, TrialRow};
    use crate::trial::memory_states::{KERNEL_SUM, USED_THEN_IDLE};

    const BASE: &str = "epoll-et";
    const OTHER: &str = "uring-multishot";

    /// How a made run comes out.
    #[derive(Clone, Copy)]
    struct Made {
        /// The baseline of its matrix, and the arm beside it.
        arms: [&'static str; 2],
        blocks: u32,
        /// How far readings lie from their mean, at most.
        scatter: f64,
        /// The arm's CPU over the baseline's at each of three rates.
        cpu: [f64; 3],
        /// The same of the 99th percentile, which is 2 ms of the baseline.
        p99: [f64; 3],
        shared_cpu: bool,
    }

    const MADE: Made = Made {
        arms: [BASE, OTHER],
        blocks: 10,
        scatter: 0.01,
        cpu: [1.0; 3],
        p99: [1.0; 3],
        shared_cpu: false,
    };

    const RATES: [f64; 3] = [1000.0, 2000.0, 3000.0];

    impl Made {
        fn run(&self) -> Run {
            let [base, other] = self.arms;
            let mut text = format!(
                "question = \"q\"\nbaseline = \"{base}\"\n\
                 backends = [{{ backend = \"{base}\" }}, {{ backend = \"{other}\" }}]\n\
                 [latency]\nblocks = 10\nduration = \"1s\"\nwarmup_max = \"1s\"\nobjective_p99_us = 5000.0\n"
            );
            for rate in RATES {
                text += &format!(
                    "[[workload]]\nname = \"w@{rate}\"\nquestion = \"q\"\nconnections = 64\nmessage_bytes = 64\n\
                     rate_per_s = {rate:.1}\nsweep_of = \"w\"\n"
                );
            }
            let again = crate::comparisons::again(base);
            let mut trials = Vec::new();
            for (at, rate) in RATES.iter().enumerate() {
                for block in 1..=self.blocks {
                    let arms = [(base, 1.0, 1.0), (&again, 1.0, 1.0), (other, self.cpu[at], self.p99[at])];
                    for (step, (arm, cpu, p99)) in arms.into_iter().enumerate() {
                        let wobble = f64::from(block * (step as u32 + 1) % 5) / 2.0 - 1.0;
                        let wobble = 1.0 + self.scatter * wobble;
                        trials.push(TrialRow {
                            pass: Some(Pass::Latency),
                            workload: format!("w@{rate}"),
                            block,
                            arm: arm.to_owned(),
                            server_cpu_ns_per_echo: Some(10_000.0 * cpu * wobble),
                            latency_p99_us: Some(2000.0 * p99 * wobble),
                            shared_cpu: self.shared_cpu,
                            status: Status::Ok,
                            ..TrialRow::default()
                        });
                    }
                }
            }
            Run::of(toml::from_str::<Matrix>(&text).expect("a matrix"), trials, Vec::new())
        }

        fn statements(&self) -> Vec<String> {
            all(&self.run()).into_iter().map(|rule| rule.statement).collect()
        }

        /// The one that has these words.
        #[track_caller]
        fn statement(&self, words: &str) -> String {
            let all = self.statements();
            let mut found = all.iter().filter(|statement| statement.contains(words));
            found.next().unwrap_or_else(|| panic!("{words}: {all:#?}")).clone()
        }
    }

    #[test]
    fn a_difference_is_said_with_the_ends_of_its_interval_and_not_where_the_interval_is_wide() {
        let saves = Made { cpu: [0.8; 3], ..MADE };
        assert_eq!(
            saves.statement("server CPU per echo than"),
            "`uring-multishot` takes 19–21 % less server CPU per echo than `epoll-et` at 1,000 to 3,000/s."
        );
        let costs = Made { cpu: [1.3; 3], ..MADE };
        assert_eq!(
            costs.statement("server CPU per echo than"),
            "`uring-multishot` takes 29–31 % more server CPU per echo than `epoll-et` at 1,000 to 3,000/s."
        );
        let thrice = Made { cpu: [3.0; 3], ..MADE };
        assert_eq!(
            thrice.statement("server CPU per echo of"),
            "`uring-multishot` takes 2.97–3.03 times the server CPU per echo of `epoll-et` at 1,000 to 3,000/s."
        );
        for made in [saves, costs] {
            let wide = Made { scatter: 0.5, ..made };
            let all = wide.statements();
            assert!(all.iter().all(|of| !of.contains("% less") && !of.contains("% more")), "{all:#?}");
            assert!(wide.statement("no difference").is_empty() || true);
        }
    }

    #[test]
    fn the_same_is_said_of_either_side() {
        let swapped = |text: String| text.replace(BASE, "x").replace(OTHER, BASE).replace('x', OTHER);
        for cpu in [[0.8; 3], [1.3; 3], [1.0; 3], [0.8, 1.0, 1.3], [3.0, 1.0, 0.5]] {
            let made = Made { cpu, p99: [1.2, 1.0, 0.8], ..MADE };
            let other = Made { arms: [OTHER, BASE], ..made };
            let all: Vec<String> = made.statements().into_iter().map(swapped).collect();
            assert_eq!(other.statements(), all);
        }
    }

    #[test]
    fn what_has_no_verdict_says_nothing() {
        let loses = Made { cpu: [0.5; 3], p99: [0.5; 3], ..MADE };
        assert!(!loses.statements().is_empty());
        let capacity = |of: &String| of.contains("keep");
        for without in [Made { blocks: 9, ..loses }, Made { shared_cpu: true, ..loses }] {
            let all = without.statements();
            assert!(all.iter().all(capacity), "{all:#?}");
        }
    }

    #[test]
    fn along_a_series_each_verdict_has_its_place() {
        let late = Made { cpu: [1.0, 1.0, 0.8], ..MADE }.statement("no difference");
        let _ = late;
        println!("{:#?}", Made { cpu: [1.0, 1.0, 0.8], ..MADE }.statements());
        println!("{:#?}", Made { cpu: [0.8, 1.0, 0.8], ..MADE }.statements());
        println!("{:#?}", Made { cpu: [1.3, 1.0, 0.8], p99: [1.0, 1.2, 1.2], ..MADE }.statements());
    }
}
