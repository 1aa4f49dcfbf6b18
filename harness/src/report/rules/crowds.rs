//! Whether connections that rest cost those that are active anything, in a walk through connection
//! counts. A load beside none of them shows the noise: both servers then hold the same.

use itertools::Itertools as _;

use super::rule::{Rule, RuleKind, sentence};
use super::series::bytes;
use crate::report::query::range;
use crate::report::walk::{crowding, steps, trials};
use crate::results::Run;
use crate::rows::{Bounds, ScaleRow, TrialRow, Verdict};
use crate::statistics::Interval;
use crate::text::{grouped, list, percent, quoted_list, significant};
use crate::verdict::estimate::Estimate;
use crate::verdict::metric::CPU;
use crate::verdict::resolution::resolvable_percent;

/// An arm's CPU beside the largest crowd, over that of a second server without one.
struct Crowded<'a> {
    arm: &'a str,
    ratio: Estimate,
    noise: Interval,
}

impl Crowded<'_> {
    fn verdict(&self) -> Verdict {
        self.ratio.verdict(Some(&self.noise))
    }

    fn amount(&self) -> String {
        let ends = [self.ratio.interval.low, self.ratio.interval.high]
            .map(|ratio| 100.0 * (ratio - 1.0).abs());
        let [least, most] = [ends[0].min(ends[1]), ends[0].max(ends[1])].map(percent);
        format!("`{}` {} {least}–{most} %", self.arm, CPU.words.verb)
    }
}

/// Returns the ratio at so many connections, if it has an interval.
fn ratio_beside(run: &Run, trial: &TrialRow, connections: u64, active: u64) -> Option<Estimate> {
    let rows = steps(run, trial, "load").filter(|row| is_load(row, active));
    let rows = rows.filter(|row| row.connections == connections).collect_vec();
    crowding(&rows, |row| row.status.is_usable(), |row| row.server_cpu_ns_per_echo)
        .filter(|ratio| ratio.bounds == Bounds::Interval95)
}

fn is_load(row: &ScaleRow, active: u64) -> bool {
    row.step == "load" && row.offered_per_s.is_some() && row.active_connections == active
}

/// Makes one rule for all arms that have a verdict.
pub fn rule(run: &Run) -> Option<Rule> {
    let scale = run.matrix.scale.as_ref()?;
    let active = scale.active as u64;
    let loads = run.scale.iter().filter(|row| is_load(row, active));
    let most = loads.map(|row| row.connections).max()?;
    // A file that was edited may say anything.
    let idle = most.saturating_sub(active);
    let all = trials(run)
        .into_iter()
        .filter(|trial| trial.status.is_usable() && run.matrix.no_verdict(trial).is_none())
        .filter_map(|trial| {
            let noise = ratio_beside(run, trial, active, active)?.interval;
            let ratio = ratio_beside(run, trial, most, active).filter(|_| idle > 0)?;
            Some(Crowded { arm: &trial.arm, ratio, noise })
        })
        .collect_vec();
    let noun = CPU.words.noun;
    let mut clauses = Vec::new();
    for (verdict, more) in [(Verdict::Higher, "more"), (Verdict::Lower, "less")] {
        let arms = all.iter().filter(|crowded| crowded.verdict() == verdict);
        let amounts = arms.map(Crowded::amount).collect_vec();
        if !amounts.is_empty() {
            clauses.push(format!("{} {more} {noun} than beside none", list(&amounts)));
        }
    }
    let alike = (all.iter())
        .filter(|crowded| crowded.verdict() == Verdict::NoDifferenceShown)
        .collect_vec();
    if !alike.is_empty() {
        let resolvable = (alike.iter())
            .map(|crowded| resolvable_percent(&crowded.ratio.interval, &crowded.noise));
        clauses.push(format!(
            "no difference in {noun} to none beside them is shown for {} (one beyond {} % would \
             have been shown)",
            quoted_list(alike.iter().map(|crowded| crowded.arm)),
            percent(resolvable.fold(0.0, f64::max))
        ));
    }
    let mut ratios = all.iter().map(|Crowded { arm, ratio, noise }| {
        let interval = range(&ratio.interval);
        format!("`{arm}` {:.2} ({interval}), noise {}", ratio.mean, range(noise))
    });
    (!clauses.is_empty()).then(|| Rule {
        subject: format!(
            "{} connections, beside {} idle connections, open loop, {}/s, {} messages",
            grouped(active),
            grouped(idle),
            significant(scale.rate_per_s.get()),
            bytes(scale.message_bytes.get())
        ),
        statement: sentence(&clauses.join("; ")),
        evidence: format!(
            "Server CPU over that of a second server without the idle ones, measured in turn, \
             ratio with 95 % interval: {}.",
            ratios.join("; ")
        ),
        covers: all.len(),
        kind: RuleKind::Crowd,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{ALONE, CROWDED};
    use crate::rows::{Pass, Status};

    const ARM: &str = "epoll-et";
    const MOST: u64 = 1000;
    const ACTIVE: u64 = 8;

    /// A walk of one arm whose readings of pairs lie `scatter` around `crowded` beside the crowd,
    /// and around 1 without.
    fn walk(crowded: f64, scatter: f64, repeats: u32) -> Run {
        let text = format!(
            "question = \"q\"\nbaseline = \"{ARM}\"\nbackends = [{{ backend = \"{ARM}\" }}]\n\
             [scale]\nquestion = \"q\"\nconnections = [{ACTIVE}, {MOST}]\nactive = \
             {ACTIVE}\nmessage_bytes = 64\n\
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
