//! Arms that fail: when they are tried no more, and what that makes of the run.

use anyhow::{Result, bail};

use crate::rows::{NOT_RUN, Pass, Status, TrialRow};
use crate::status::ExitStatus;
use crate::trial::Trial;

/// An arm is tried no more once it has failed so often in the same way, and never came to an end.
const FAILURES_TO_GIVE_UP: usize = 4;

/// Says why a trial would fail as all of its arm did, in this workload or in the whole run.
pub fn hopeless(rows: &[TrialRow], trial: &Trial) -> Option<String> {
    let (pass, workload) = (Some(trial.task.pass()), trial.task.name());
    // Another kernel may well come up.
    if pass == Some(Pass::Instructions) {
        return None;
    }
    let is_known = |row: &&TrialRow| {
        row.arm == trial.role
            && row.status != Status::Unsupported
            && row.pass != Some(Pass::Instructions)
    };
    let all: Vec<&TrialRow> = rows.iter().filter(is_known).collect();
    let mut here = all.clone();
    here.retain(|row| row.pass == pass && row.workload == workload);
    let words = failed_alike(&here).or_else(|| failed_alike(&all))?;
    if words.starts_with(NOT_RUN) {
        return Some(words.to_owned());
    }
    Some(format!("{NOT_RUN}{FAILURES_TO_GIVE_UP} times before it failed in the same way: {words}"))
}

/// Returns the last reason, if all failed, and enough of the last ones for the same reason.
fn failed_alike<'a>(rows: &[&'a TrialRow]) -> Option<&'a str> {
    if rows.iter().any(|row| row.status != Status::Failed) {
        return None;
    }
    let [first, rest @ ..] = rows.get(rows.len().checked_sub(FAILURES_TO_GIVE_UP)?..)? else {
        return None;
    };
    let is_alike = |row: &&TrialRow| {
        row.reason.starts_with(NOT_RUN)
            || without_numbers(&row.reason) == without_numbers(&first.reason)
    };
    rest.last().filter(|_| rest.iter().all(is_alike)).map(|row| row.reason.as_str())
}

/// Ports, numbers of processes and times differ.
fn without_numbers(reason: &str) -> String {
    reason.replace(|c: char| c.is_ascii_digit(), "")
}

/// Refuses the trials of a whole run if they are of no use, or all of one arm have failed.
pub fn have_figures(trials: &[TrialRow]) -> Result<()> {
    if !trials.iter().any(|row| row.status.is_usable()) {
        return Err(ExitStatus::NoFigures.error(format!(
            "no trial of {} gave figures that can be used; trials.csv says why",
            trials.len()
        )));
    }
    if let Some(row) = given_up(trials) {
        let (pass, workload, arm) = (row.pass.map_or("", Pass::name), &row.workload, &row.arm);
        bail!(
            "trial {} failed, and no other of {arm} in {pass} {workload} succeeded: {}",
            row.run_id,
            row.reason
        );
    }
    Ok(())
}

/// Finds a trial that failed, and whose arm has no figures of that pass and workload.
fn given_up(rows: &[TrialRow]) -> Option<&TrialRow> {
    let mut failed = rows.iter().filter(|row| row.status == Status::Failed);
    failed.find(|row| {
        !rows.iter().any(|other| {
            other.status.is_usable()
                && (other.pass, &other.workload, &other.arm) == (row.pass, &row.workload, &row.arm)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_that_always_fails_alike_is_tried_no_more() {
        let task = |name: &str| {
            let workload = crate::matrix::Workload { name: name.to_owned(), ..Default::default() };
            crate::trial::Task::Syscalls(workload, 1)
        };
        let trial = |name: &str| Trial {
            run_id: 1,
            block: 1,
            order: 1,
            role: "other".to_owned(),
            arm: Default::default(),
            task: task(name),
        };
        let row = |workload: &str, status: Status, reason: &str| TrialRow {
            pass: Some(crate::rows::Pass::Syscalls),
            workload: workload.to_owned(),
            arm: "other".to_owned(),
            status,
            reason: reason.to_owned(),
            ..TrialRow::default()
        };
        let failed = |workload: &str, reason: &str| row(workload, Status::Failed, reason);
        let three = vec![
            failed("a", "port 1: in use"),
            failed("b", "port 2: in use"),
            failed("a", "port 4: in use"),
        ];
        assert_eq!(hopeless(&three, &trial("a")), None);
        let four = [three.clone(), vec![failed("c", "port 33: in use")]].concat();
        let reason = hopeless(&four, &trial("a")).unwrap_or_default();
        assert_eq!(reason, "not run: 4 times before it failed in the same way: port 33: in use");
        // It stays so, with the words said once.
        let five = [four.clone(), vec![failed("a", &reason)]].concat();
        assert_eq!(hopeless(&five, &trial("b")), Some(reason));
        let another = [three.clone(), vec![failed("c", "it ended")]].concat();
        assert_eq!(hopeless(&another, &trial("a")), None);
        // One that came to its end, whatever the gates said, is not hopeless; nor is another arm.
        let once = [vec![row("z", Status::Rejected, "")], four.clone()].concat();
        assert_eq!(hopeless(&once, &trial("a")), None);
        assert_eq!(hopeless(&four, &Trial { role: "x".to_owned(), ..trial("a") }), None);
    }
}
