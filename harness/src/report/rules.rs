//! Sentences that a person decides by, made from the verdicts of a run. Each is written from an
//! arm, the baseline and a verdict, whichever of them it favours. Without a verdict (a range, a
//! shared CPU, a client that lags, rejected trials) there is no sentence.

mod choices;
mod crowds;
mod differences;
mod limits;
mod rule;
mod series;
mod unanswered;

use std::cmp::Reverse;

use self::rule::{Rule, RuleKind};
use self::series::Series;
use super::section::Body;
use crate::results::Run;
use crate::verdict::metric::{CPU, P99, THROUGHPUT};

/// The rules of a run, and the questions without an answer.
pub struct Decision {
    /// Paragraphs in Markdown about what the run does not answer, and why.
    pub unanswered: Vec<String>,
    pub rules: Vec<Rule>,
}

impl Decision {
    pub fn new(run: &Run) -> Self {
        let rules = rules(run);
        Self { unanswered: unanswered::lines(run, &rules), rules }
    }

    /// Returns the rules as a list, below what has no answer. It is never empty.
    pub fn body(&self, run: &Run) -> Body {
        let unanswered = self.unanswered.join("\n\n");
        let gap = if unanswered.is_empty() { "" } else { "\n\n" };
        let body = Body::default().notes(unanswered);
        if self.rules.is_empty() {
            return body.notes("\n");
        }
        let whose = if run.sides.is_some() {
            "the machines, the network and the workloads of this run"
        } else {
            "this machine, this kernel and these workloads"
        };
        let body = body.notes(format!("{gap}For {whose}:\n\n"));
        self.rules.iter().fold(body, |body, Rule { subject, statement, evidence, .. }| {
            body.finding(format!("{subject}: **{statement}**"), evidence.clone())
        })
    }
}

/// Returns every rule that the run supports. First comes what answers the matrix's own question,
/// then what is of a load, then what a connection at rest takes. Within these the rule that holds
/// for most comes first; among equals, what to choose.
fn rules(run: &Run) -> Vec<Rule> {
    let series = Series::all(&run.matrix);
    let mut rules = choices::rules(run, &series);
    for (metric, says_none) in [(&CPU, true), (&THROUGHPUT, false), (&P99, false)] {
        for series in &series {
            rules.extend(differences::rules(run, series, metric, says_none));
        }
    }
    rules.extend(crowds::rule(run));
    rules.extend(limits::capacities(run, &series));
    rules.extend(limits::memory(run));
    rules.sort_by_key(|rule| {
        let is_under_load = matches!(rule.kind, RuleKind::Capacity | RuleKind::Other);
        (!answers(run, rule.kind), !is_under_load, Reverse(rule.covers))
    });
    rules
}

/// Returns whether a kind of rule answers the question of a matrix, as far as its passes tell. A
/// sweep with an objective asks for a rate. Walks without a load ask for memory, or for the cost of
/// a crowd. Other questions have no kind of their own.
fn answers(run: &Run, kind: RuleKind) -> bool {
    let matrix = &run.matrix;
    match kind {
        RuleKind::Capacity => {
            matrix.workloads.iter().any(|workload| workload.sweep_of.is_some())
                && matrix.latency.as_ref().is_some_and(|latency| latency.objective_p99_us.is_some())
        }
        RuleKind::Memory => matrix.latency.is_none() && matrix.memory.is_some(),
        RuleKind::Crowd => matrix.latency.is_none() && matrix.memory.is_none(),
        RuleKind::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;
    use crate::rows::{KERNEL_SUM, USED_THEN_IDLE};
    use crate::rows::{MemoryRow, Pass, Status, TrialRow, Verdict};

    const BASE: &str = "epoll-et";
    const OTHER: &str = "uring-multishot";

    fn markdown(run: &Run) -> String {
        Decision::new(run).body(run).markdown()
    }

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
        scatter: 0.03,
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
                 [latency]\nblocks = 10\nduration = \"1s\"\nwarmup_max = \"1s\"\nobjective_p99_us \
                 = 5000.0\n"
            );
            for rate in RATES {
                text += &format!(
                    "[[workload]]\nname = \"w@{rate}\"\nquestion = \"q\"\nconnections = \
                    64\nmessage_bytes = 64\n\
                     rate_per_s = {rate:.1}\nsweep_of = \"w\"\n"
                );
            }
            let again = crate::verdict::comparisons::again(base);
            let mut trials = Vec::new();
            for (at, rate) in RATES.iter().enumerate() {
                for block in 1..=self.blocks {
                    let arms =
                        [(base, 1.0, 1.0), (&again, 1.0, 1.0), (other, self.cpu[at], self.p99[at])];
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
            rules(&self.run()).into_iter().map(|rule| rule.statement).collect()
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
        // The ends of the intervals by numpy, with the table's t for nine degrees of freedom.
        let [saves, costs, thrice] = [0.8, 1.3, 3.0].map(|ratio| Made { cpu: [ratio; 3], ..MADE });
        for (made, words) in [
            (saves, "takes 19–21 % less server CPU per echo than"),
            (costs, "takes 28–32 % more server CPU per echo than"),
            (thrice, "takes 2.95–3.05 times the server CPU per echo of"),
        ] {
            assert_eq!(made.statement("takes"), format!("`{OTHER}` {words} `{BASE}`."));
        }
        // The same with readings that scatter: no more is said than what would have been needed.
        for made in [saves, costs] {
            let all = Made { scatter: 0.9, ..made }.statements();
            let is_difference =
                |of: &String| ["% less", "% more", "times"].iter().any(|words| of.contains(words));
            assert!(!all.iter().any(is_difference), "{all:#?}");
            assert!(
                all.iter()
                    .any(|of| of.contains("no difference") || of.starts_with("No difference")),
                "{all:#?}"
            );
        }
    }

    #[test]
    fn the_same_is_said_of_either_side() {
        let swapped =
            |text: String| text.replace(BASE, "(").replace(OTHER, BASE).replace('(', OTHER);
        for cpu in [[0.8; 3], [1.3; 3], [1.0; 3], [0.8, 1.0, 1.3], [3.0, 1.0, 0.5]] {
            let made = Made { cpu, p99: [1.2, 1.0, 0.8], ..MADE };
            let other = Made { arms: [OTHER, BASE], ..made };
            let statements =
                |made: Made| made.statements().into_iter().map(|of| of.replace('(', "["));
            let all: Vec<String> = statements(made).map(swapped).collect();
            assert_eq!(statements(other).collect::<Vec<_>>(), all);
            assert!(all.len() > 1, "{all:?}");
        }
    }

    #[test]
    fn what_was_turned_away_is_said_to_have_no_answer() {
        let mut run = MADE.run();
        let lines = |run: &Run| Decision::new(run).unanswered;
        assert_eq!(lines(&run), [""; 0]);
        let of_first = run.trials.iter_mut().filter(|row| row.workload == "w@1000");
        of_first
            .filter(|row| row.arm == OTHER && row.block > 1)
            .for_each(|row| row.status = Status::Rejected);
        let line = lines(&run).remove(0);
        assert!(
            line.contains("in `w@1000`, where") && line.contains("9 of 90 latency trials"),
            "{line}"
        );
        assert!(markdown(&run).starts_with(&line));
    }

    #[test]
    fn what_has_no_verdict_says_nothing() {
        let loses = Made { cpu: [0.5; 3], p99: [0.5; 3], ..MADE };
        assert!(loses.statements().len() > 2);
        for without in [Made { blocks: 9, ..loses }, Made { shared_cpu: true, ..loses }] {
            assert_eq!(without.statements(), [""; 0]);
        }
        let mut run = loses.run();
        for row in &mut run.comparisons {
            row.verdict = Verdict::SendLag;
        }
        run.capacities.clear();
        assert!(
            markdown(&run).starts_with("**Nothing is decided:** no difference and no likeness")
        );
    }

    #[test]
    fn what_was_seen_is_said_first_where_blocks_are_too_few() {
        let made = Made { blocks: 3, cpu: [8.0, 2.0, 1.5], p99: [0.5, 1.0, 1.25], ..MADE };
        let run = made.run();
        let seen = "Seen: `uring-multishot` takes 1.51 to 8.08 times the CPU of `epoll-et`; \
                    `uring-multishot` has 0.50 to 1.26 times the p99 latency of `epoll-et`.";
        let first = markdown(&run).lines().next().expect("a line").to_owned();
        assert!(
            first.starts_with("**CPU and latency: no verdict** from 3 blocks (10 are needed: "),
            "{first}"
        );
        assert!(first.ends_with(seen), "{first}");
        // Ten were asked for.
        assert!(first.contains("lost a trial to the gates"), "{first}");
        let mut asked = made.run();
        asked.matrix.latency.as_mut().expect("a pass").blocks = 3;
        assert!(markdown(&asked).contains("`scripts/run_matrix.sh standard` has them"));
        let mut broken = made.run();
        broken.state = crate::results::RunState::BrokenOff;
        assert!(markdown(&broken).contains("`ringmark run --resume`"));
        // One workload of three.
        let mut run = MADE.run();
        run.trials.retain(|row| row.workload != "w@1000" || row.block <= 3);
        run = Run::of(run.matrix, run.trials, Vec::new());
        assert!(
            markdown(&run).starts_with("**CPU and latency: no verdict in `w@1000`** from 3 blocks"),
            "{}",
            markdown(&run)
        );
    }

    #[test]
    fn where_nothing_is_decided_the_reason_stands() {
        let made = |edit: &dyn Fn(&mut Vec<TrialRow>)| {
            let mut run = MADE.run();
            edit(&mut run.trials);
            Run::of(run.matrix, run.trials, Vec::new())
        };
        for (run, words) in [
            (made(&Vec::clear), "trials.csv is missing or has no row"),
            (
                made(&|rows| rows.iter_mut().for_each(|row| row.status = Status::Rejected)),
                "no trial of 90 gave figures that may be used",
            ),
            (
                made(&|rows| {
                    for row in rows.iter_mut().filter(|row| row.arm.starts_with(BASE)) {
                        (row.status, row.reason) = (Status::Unsupported, "ENOSYS".to_owned());
                    }
                }),
                "the baseline `epoll-et` has no figures in w@1000, w@2000, w@3000: unsupported: \
                 ENOSYS",
            ),
            (
                made(&|rows| rows.iter_mut().for_each(|row| row.shared_cpu = true)),
                "not every thread had a CPU of its own",
            ),
        ] {
            assert!(
                markdown(&run).starts_with("**No") && markdown(&run).contains(words),
                "{}",
                markdown(&run)
            );
        }
        let mut alone = MADE.run();
        alone.matrix.backends.truncate(1);
        alone.matrix.latency.as_mut().expect("a pass").objective_p99_us = None;
        assert!(
            markdown(&Run::of(alone.matrix, alone.trials, Vec::new()))
                .contains("`epoll-et` is the only arm")
        );
    }

    #[test]
    fn along_a_series_each_verdict_has_its_place() {
        for (cpu, statement) in [
            (
                [1.0, 1.0, 0.8],
                "No difference in server CPU per echo to `epoll-et` is shown for `uring-multishot` \
                 at 1,000 and 2,000/s (one beyond 1.6 % would have been shown); `uring-multishot` \
                 takes 19–21 % less at 3,000/s.",
            ),
            (
                [0.8, 1.0, 0.8],
                "`uring-multishot` takes 19–21 % less server CPU per echo than `epoll-et` at 1,000 \
                 and 3,000/s; no \
                 difference is shown at 2,000/s (one beyond 1.6 % would have been shown).",
            ),
            (
                [1.6, 1.4, 1.2],
                "`uring-multishot` takes 57–63 %, falling to 18–22 %, more server CPU per echo \
                 than `epoll-et`.",
            ),
            // Not steadily.
            (
                [1.2, 1.6, 1.4],
                "`uring-multishot` takes 18–63 % more server CPU per echo than `epoll-et`.",
            ),
        ] {
            assert_eq!(Made { cpu, ..MADE }.statement("takes"), statement);
        }
    }

    #[test]
    fn every_shape_has_a_choice() {
        let choices = |made: Made| -> Vec<(String, String)> {
            let rules = rules(&made.run()).into_iter().map(|rule| (rule.subject, rule.statement));
            rules
                .filter(|(_, of)| {
                    ["enough", "choice", "trade"].iter().any(|words| of.contains(words))
                })
                .collect()
        };
        let shape = |rates: &str| format!("64 connections, open loop, {rates}/s, 64 B messages");
        let enough = "`epoll-et` is enough: `uring-multishot` is not shown to be better in CPU, \
                      throughput or latency, as far as they could be compared.";
        let better = "`uring-multishot` is a better choice than `epoll-et`: shown to be better in \
                      server CPU per echo, and worse in nothing that could be compared.";
        let trade = "`uring-multishot` in place of `epoll-et` is a trade: better in server CPU per \
                     echo, worse in p99 latency.";
        let expected = |found: &[(&str, &str)]| -> Vec<(String, String)> {
            found.iter().map(|(rates, words)| (shape(rates), (*words).to_owned())).collect()
        };
        let made = Made { cpu: [1.3, 1.0, 0.8], ..MADE };
        // The rule before the exception.
        assert_eq!(choices(made), expected(&[("1,000 and 2,000", enough), ("3,000", better)]));
        let made = Made { p99: [1.0, 1.0, 1.2], ..made };
        assert_eq!(choices(made), expected(&[("1,000 and 2,000", enough), ("3,000", trade)]));
        assert_eq!(
            choices(Made { cpu: [0.8; 3], ..MADE }),
            expected(&[("1,000 to 3,000", better)])
        );
        assert_eq!(choices(MADE), expected(&[("1,000 to 3,000", enough)]));
    }

    #[test]
    fn a_capacity_counts_only_with_the_whole_of_its_interval() {
        let of = |p99| {
            let made = Made { p99: [1.0, 1.2, p99], ..MADE };
            // The table says the same.
            let run = made.run();
            let kept =
                run.capacities.iter().find(|row| row.arm == OTHER).and_then(|row| row.kept_per_s);
            let statement = made.statement("keep");
            let rate = crate::text::significant(kept.expect("a rate"));
            assert!(statement.contains(&format!("up to {rate}/s")), "{statement} {rate}");
            assert!(
                run.capacities
                    .iter()
                    .all(|row| row.bounds == Some(crate::rows::Bounds::Interval95))
            );
            assert_eq!(made.statements()[0], statement, "it answers the question of a sweep");
            statement
        };
        // 4.9 ms and 1.6 % more, 4.96 ms and 1.6 % more.
        assert_eq!(
            of(2.45),
            "`epoll-et` and `uring-multishot` are shown to keep p99 ≤ 5.00 ms up to 3,000/s, the \
             highest rate offered."
        );
        assert_eq!(
            of(2.48),
            "`epoll-et` is shown to keep p99 ≤ 5.00 ms up to 3,000/s, the highest rate offered; \
             `uring-multishot` up to 2,000/s."
        );
    }

    fn slope(arm: &str, bytes: f64, interval: Option<(f64, f64)>) -> MemoryRow {
        MemoryRow {
            run_id: 1,
            arm: arm.to_owned(),
            backend: arm.to_owned(),
            state: USED_THEN_IDLE.to_owned(),
            space: "kernel".to_owned(),
            object: KERNEL_SUM.to_owned(),
            aliases: String::new(),
            bytes_per_connection: bytes,
            low: interval.map(|(low, _)| low),
            high: interval.map(|(_, high)| high),
            intercept_bytes: 0.0,
            down_bytes_per_connection: None,
            over_null_bytes_per_connection: None,
            over_null_low: None,
            over_null_high: None,
            status: Status::Ok,
        }
    }

    #[test]
    fn what_a_connection_takes_is_said_where_the_intervals_of_its_slopes_lie_apart() {
        let statements = |made: Made, interval| -> Vec<String> {
            let mut run = made.run();
            run.memory =
                vec![slope(BASE, 200.0, Some((195.0, 205.0))), slope(OTHER, 840.0, interval)];
            rules(&run)
                .into_iter()
                .map(|rule| rule.statement)
                .filter(|of| of.contains("memory"))
                .collect()
        };
        for (interval, expected) in [
            (
                Some((830.0, 850.0)),
                &["`uring-multishot` takes 625–655 bytes more kernel memory than `epoll-et`, \
                     596–625 MiB for a million of them."][..],
            ),
            (
                Some((15.0, 20.0)),
                &["`uring-multishot` takes 175–190 bytes less kernel memory than `epoll-et`, \
                     167–181 MiB for a million of them."],
            ),
            (
                Some((190.0, 1500.0)),
                &["No difference in kernel memory to `epoll-et` is shown for `uring-multishot`."],
            ),
            (None, &[]),
        ] {
            assert_eq!(statements(MADE, interval), expected);
        }
        // An arm that takes more memory is no better choice by its CPU alone.
        let trade = "`uring-multishot` in place of `epoll-et` is a trade: better in server CPU per \
                     echo, worse in kernel memory per idle connection.";
        let saves = Made { cpu: [0.8; 3], ..MADE };
        assert_eq!(statements(saves, Some((830.0, 850.0)))[0], trade);
        let better = statements(saves, Some((15.0, 20.0)));
        let words = "better in server CPU per echo and kernel memory per idle connection, and \
                     worse in nothing";
        assert!(better[0].contains(words), "{better:?}");
    }
}
