//! Whether connections that rest cost those that are active anything, in a walk through connection
//! counts. A load beside none of them shows the noise: both servers then hold the same.

use super::series::bytes;
use super::{Kind, Rule, sentence};
use crate::report::scale::{crowding, steps, trials};
use crate::results::Run;
use crate::rows::{Bounds, ScaleRow, Verdict};
use crate::statistics::Interval;
use crate::text::{count, list, names, number, percent};
use crate::verdict::estimate::Estimate;
use crate::verdict::metric::CPU;
use crate::verdict::resolution::resolvable_percent;

/// What an arm takes beside the largest crowd, over a second server that has none.
struct Crowded {
    arm: String,
    ratio: Estimate,
    noise: Interval,
    verdict: Verdict,
}

/// One for all arms that have a verdict.
pub fn rule(run: &Run) -> Option<Rule> {
    let scale = run.matrix.scale.as_ref()?;
    let loads = |row: &&ScaleRow| {
        row.step == "load"
            && row.offered_per_s.is_some()
            && row.active_connections == scale.active as u64
    };
    let most = run.scale.iter().filter(loads).map(|row| row.connections).max()?;
    // A file that was edited may say anything.
    let idle = most.saturating_sub(scale.active as u64);
    let all: Vec<Crowded> = trials(run)
        .into_iter()
        .filter(|trial| trial.status.is_usable() && run.matrix.no_verdict(trial).is_none())
        .filter_map(|trial| {
            let of = |connections: u64| {
                let rows = steps(run, trial, "load").filter(loads);
                let rows: Vec<_> = rows.filter(|row| row.connections == connections).collect();
                crowding(&rows, |row| row.status.is_usable(), |row| row.server_cpu_ns_per_echo)
            };
            let has_interval = |ratio: &Estimate| ratio.bounds == Bounds::Interval95;
            let noise = of(scale.active as u64).filter(has_interval)?.interval;
            let ratio = of(most).filter(|_| idle > 0).filter(has_interval)?;
            let verdict = ratio.verdict(Some(&noise));
            Some(Crowded { arm: trial.arm.clone(), ratio, noise, verdict })
        })
        .collect();
    let with = |verdict| all.iter().filter(move |of| of.verdict == verdict);
    let mut clauses = Vec::new();
    for (verdict, more) in [(Verdict::Higher, "more"), (Verdict::Lower, "less")] {
        let amount = |of: &Crowded| {
            let mut ends = [of.ratio.interval.low, of.ratio.interval.high]
                .map(|ratio| 100.0 * (ratio - 1.0).abs());
            ends.sort_by(f64::total_cmp);
            format!("`{}` {} {}–{} %", of.arm, CPU.words.verb, percent(ends[0]), percent(ends[1]))
        };
        let amounts: Vec<String> = with(verdict).map(amount).collect();
        if !amounts.is_empty() {
            clauses.push(format!("{} {more} {} than beside none", list(&amounts), CPU.words.noun));
        }
    }
    let alike: Vec<&Crowded> = with(Verdict::NoDifferenceShown).collect();
    if !alike.is_empty() {
        let widest = alike
            .iter()
            .map(|of| resolvable_percent(&of.ratio.interval, &of.noise))
            .fold(0.0, f64::max);
        clauses.push(format!(
            "no difference in {} to none beside them is shown for {} (one beyond {} % would have been shown)",
            CPU.words.noun,
            names(alike.iter().map(|of| of.arm.as_str())),
            percent(widest)
        ));
    }
    let ratios = all.iter().map(|of| {
        let Estimate { mean, interval: Interval { low, high }, .. } = of.ratio;
        let Interval { low: noise_low, high: noise_high } = of.noise;
        format!(
            "`{}` {:.2} ({low:.2}–{high:.2}), noise {noise_low:.2}–{noise_high:.2}",
            of.arm, mean
        )
    });
    (!clauses.is_empty()).then(|| Rule {
        subject: format!(
            "{} connections, beside {} idle connections, open loop, {}/s, {} messages",
            count(scale.active as u64),
            count(idle),
            number(scale.rate_per_s.get()),
            bytes(scale.message_bytes.get())
        ),
        statement: sentence(&clauses.join("; ")),
        evidence: format!(
            "Server CPU over that of a second server without the idle ones, measured in turn, ratio with 95 % interval: {}.",
            ratios.collect::<Vec<_>>().join("; ")
        ),
        covers: all.len(),
        kind: Kind::Crowd,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{ALONE, CROWDED};
    use crate::rows::{Pass, Status, TrialRow};

    const ARM: &str = "epoll-et";
    const MOST: u64 = 1000;
    const ACTIVE: u64 = 8;

    /// A walk of one arm whose readings of pairs lie `scatter` around `crowded` beside the crowd,
    /// and around 1 without.
    fn walk(crowded: f64, scatter: f64, repeats: u32) -> Run {
        let text = format!(
            "question = \"q\"\nbaseline = \"{ARM}\"\nbackends = [{{ backend = \"{ARM}\" }}]\n\
             [scale]\nquestion = \"q\"\nconnections = [{ACTIVE}, {MOST}]\nactive = {ACTIVE}\nmessage_bytes = 64\n\
             rate_per_s = 100.0\nrepeats = {repeats}\nduration = \"1s\"\nwarmup_max = \"0s\"\n"
        );
        let trial = TrialRow {
            pass: Some(Pass::Scale),
            arm: ARM.to_owned(),
            status: Status::Ok,
            ..TrialRow::default()
        };
        let mut run = Run::of(toml::from_str(&text).expect("a matrix"), vec![trial], Vec::new());
        for (connections, ratio) in [(ACTIVE, 1.0), (MOST, crowded)] {
            for repeat in 1..=repeats {
                let wobble = 1.0 + scatter * (f64::from(repeat % 5) / 2.0 - 1.0);
                for (server, cpu) in [(CROWDED, 1000.0 * ratio * wobble), (ALONE, 1000.0)] {
                    run.scale.push(ScaleRow {
                        arm: ARM.to_owned(),
                        step: "load".to_owned(),
                        server: server.to_owned(),
                        connections,
                        active_connections: ACTIVE,
                        repeat: Some(repeat),
                        offered_per_s: Some(100.0),
                        server_cpu_ns_per_echo: Some(cpu),
                        status: Status::Ok,
                        ..ScaleRow::default()
                    });
                }
            }
        }
        run
    }

    fn statement(crowded: f64, scatter: f64, repeats: u32) -> Option<String> {
        rule(&walk(crowded, scatter, repeats)).map(|rule| rule.statement)
    }

    #[test]
    fn what_a_crowd_costs_is_said_beyond_the_noise_and_only_with_an_interval() {
        let said = |crowded, scatter| statement(crowded, scatter, 10).expect("a rule");
        // The ends of the intervals by the table's t for nine degrees of freedom.
        assert_eq!(
            said(1.3, 0.03),
            "`epoll-et` takes 28–32 % more server CPU per echo than beside none."
        );
        assert_eq!(
            said(0.8, 0.03),
            "`epoll-et` takes 19–21 % less server CPU per echo than beside none."
        );
        for (crowded, scatter) in [(1.0, 0.03), (1.3, 0.5)] {
            let text = said(crowded, scatter);
            assert!(
                text.starts_with(
                    "No difference in server CPU per echo to none beside them is shown"
                ),
                "{text}"
            );
        }
        assert_eq!(statement(1.3, 0.03, 9), None);
        let run = walk(1.3, 0.03, 10);
        assert_eq!(
            rule(&run).expect("a rule").subject,
            "8 connections, beside 992 idle connections, open loop, 100/s, 64 B messages"
        );
    }

    #[test]
    fn a_walk_that_was_turned_away_or_shared_its_cpus_says_nothing() {
        let mut run = walk(1.3, 0.03, 10);
        run.trials[0].status = Status::Rejected;
        assert!(rule(&run).is_none());
        for (shared_cpu, shared_core) in [(true, None), (false, Some(true))] {
            let mut run = walk(1.3, 0.03, 10);
            (run.trials[0].shared_cpu, run.trials[0].shared_core) = (shared_cpu, shared_core);
            assert!(rule(&run).is_none(), "{shared_cpu} {shared_core:?}");
        }
    }
}
