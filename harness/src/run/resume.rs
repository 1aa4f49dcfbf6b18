//! `ringmark run --resume`, the trials that an interrupted run still lacks, and `--replay`, all of
//! them once more.
//!
//! A run's seed decides the order of its trials, and the rows so far decide which blocks are added.
//! So the same is planned again, and what has a row is left out.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Result, ensure};

use super::planner::Planner;
use crate::results::Manifest;
use crate::results::origin::{Replayed, Resumption};
use crate::trial::Trial;
use crate::verdict::measured::Measured;

/// Returns the manifest of a run that is resumed after `done` trials. `now` is the manifest of a
/// new one.
pub fn resumed(
    folder: &Path,
    then: Manifest,
    now: &Manifest,
    done: usize,
    anyway: bool,
) -> Result<Manifest> {
    ensure!(
        then.programs.is_some(),
        "{}: a version of ringmark that could not resume began this run; --replay repeats it",
        folder.display()
    );
    let differences = then.differences(now)?;
    ensure!(
        differences.is_empty() || anyway,
        "{}: cannot resume: the machine or the programs have changed: {}. Use --anyway to \
         continue, or --replay to start over",
        folder.display(),
        differences.join("; ")
    );
    let mut manifest = then;
    manifest.resumed.push(Resumption {
        at_utc: now.machine["read_at"].as_str().unwrap_or_default().to_owned(),
        after_trials: done,
        kernel_release: now.machine["kernel_release"].clone(),
        boot_id: now.machine["boot_id"].clone(),
        git_revision: now.machine["git_revision"].clone(),
        differences,
    });
    Ok(manifest)
}

/// Returns what the manifest says of a run that repeats another and deals the trials `again`.
pub fn replayed(
    folder: &Path,
    then: &Manifest,
    now: &Manifest,
    again: &[Trial],
) -> Result<Replayed> {
    let mut differences = then.differences(now)?;
    let again: Vec<String> = again.iter().map(Trial::order_line).collect();
    let (again, before) = (dealt(&again), dealt(&then.order));
    let same = again.iter().zip(&before).take_while(|(again, before)| again == before).count();
    // Which blocks were added at the end, and where one ended early, depends on what the machine
    // did.
    let ends_early =
        then.matrix.latency.as_ref().is_some_and(|latency| latency.precision_percent.is_some());
    if same < again.len().min(before.len()) && !ends_early {
        differences.push(format!(
            "the order is another from trial {} on: this build deals otherwise",
            same + 1
        ));
    }
    let name = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    Ok(Replayed {
        folder: name.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        begun_utc: then.machine["read_at"].clone(),
        git_revision: then.machine["git_revision"].clone(),
        differences,
    })
}

/// An order without the trials that were run again, and so without the numbers.
fn dealt(order: &[String]) -> Vec<&str> {
    let mut seen = HashSet::new();
    let without_number = order.iter().map(|line| line.split_once(' ').map_or("", |(_, rest)| rest));
    without_number.filter(|line| seen.insert(*line)).collect()
}

/// Deals up to the first trial that has no row, and returns it with the others of its block.
/// `order` becomes what is dealt.
pub fn catch_up(
    planner: &mut Planner,
    measured: Measured<'_>,
    order: &mut Vec<String>,
) -> Result<Vec<Trial>> {
    let rows = measured.trials;
    let mut dealt = Vec::new();
    let mut left = Vec::new();
    while left.is_empty() {
        // Only what had a row when a block was dealt may decide on it.
        let Some(block) = planner.next(measured.first(planner.count()))? else { break };
        for trial in block {
            let planned = trial.order_line();
            match rows.get(dealt.len()) {
                None => left.push(trial),
                Some(row) => {
                    let found = row.order_line();
                    ensure!(
                        found == planned && row.order == trial.order,
                        "trials.jsonl: '{found}' stands where '{planned}' belongs: it was edited"
                    );
                }
            }
            if let Some(known) = order.get(dealt.len()) {
                ensure!(
                    *known == planned,
                    "manifest.json: its order is not that of its matrix and seed, from trial {} \
                     on: another build dealt it",
                    dealt.len() + 1
                );
            }
            dealt.push(planned);
        }
    }
    ensure!(
        rows.len() <= dealt.len(),
        "trials.jsonl has {} trials, but the matrix asks for {}",
        rows.len(),
        dealt.len()
    );
    *order = dealt;
    Ok(left)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;
    use crate::matrix::Matrix;
    use crate::rows::Status;
    use crate::rows::TrialRow;

    fn quick() -> Matrix {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("matrix/quick.toml");
        let mut matrix = Matrix::read(&file).unwrap();
        let latency = matrix.latency.as_mut().unwrap();
        (latency.blocks, latency.precision_percent, latency.interleaved) = (4, None, None);
        matrix.workloads.truncate(2);
        matrix
    }

    /// The row of a trial; those of each first arm in every third block were turned away.
    fn row(trial: &Trial) -> TrialRow {
        let is_lost = trial.order == 1 && trial.block % 3 == 1;
        TrialRow {
            run_id: trial.run_id,
            pass: Some(trial.task.pass()),
            workload: trial.task.name().to_owned(),
            block: trial.block,
            order: trial.order,
            arm: trial.role.clone(),
            status: if is_lost { Status::Rejected } else { Status::Ok },
            ..TrialRow::default()
        }
    }

    /// Runs what is left of a run; returns its rows and its order.
    fn rest(
        planner: &mut Planner,
        mut rows: Vec<TrialRow>,
        mut order: Vec<String>,
        left: Vec<Trial>,
    ) -> (Vec<TrialRow>, Vec<String>) {
        rows.extend(left.iter().map(row));
        while let Some(block) = planner.next(Measured::of(&rows)).unwrap() {
            rows.extend(block.iter().map(row));
            order.extend(block.iter().map(Trial::order_line));
        }
        (rows, order)
    }

    fn planner(seed: u64) -> Planner {
        Planner::new(quick(), None, seed)
    }

    #[test]
    fn a_run_that_is_broken_off_after_any_trial_gets_the_trials_that_it_lacks() {
        let (rows, order) = rest(&mut planner(7), Vec::new(), Vec::new(), Vec::new());
        assert!(
            rows.len() > planner(7).undisturbed().len() + 4,
            "trials were run again, and blocks added"
        );
        for done in 0..=rows.len() {
            // The manifest knows of a block as soon as it is dealt, or not yet.
            for known in [done, order.len()] {
                let mut planner = planner(7);
                let mut found = order[..known].to_vec();
                let left = catch_up(&mut planner, Measured::of(&rows[..done]), &mut found).unwrap();
                let ids: Vec<_> = left.iter().map(|trial| trial.run_id as usize).collect();
                assert_eq!(ids, (done + 1..=found.len()).collect::<Vec<_>>());
                assert_eq!(planner.count(), found.len());
                let again = rest(&mut planner, rows[..done].to_vec(), found, left);
                assert!(again == (rows.clone(), order.clone()), "after {done}");
            }
        }
    }

    #[test]
    fn what_another_build_dealt_is_refused() {
        let (all, order) = rest(&mut planner(7), Vec::new(), Vec::new(), Vec::new());
        let rows = all[..5].to_vec();
        let refusal = |seed, rows: &[TrialRow], order: &[String]| {
            catch_up(&mut planner(seed), Measured::of(rows), &mut order.to_vec())
                .err()
                .map(|error| error.to_string())
        };
        assert_eq!(refusal(7, &rows, &order), None);
        assert!(
            refusal(8, &[], &order)
                .unwrap()
                .contains("its order is not that of its matrix and seed")
        );
        assert!(refusal(8, &rows, &[]).unwrap().contains("belongs: it was edited"));
        let mut other = rows.clone();
        other[2].arm = "epoll-lt".to_owned();
        assert!(refusal(7, &other, &order).unwrap().contains("'3 syscalls"));
        let mut other = rows.clone();
        other[2].order += 1;
        assert!(refusal(7, &other, &order).is_some());
        let more = [all, vec![TrialRow::default()]].concat();
        assert!(refusal(7, &more, &order).unwrap().contains("trials, but the matrix asks for"));
    }

    fn manifest() -> Manifest {
        let program = json!({"file": "p", "bytes": 3, "sha256": "0123456789abcdef"});
        serde_json::from_value(json!({
            "ringmark": "0.1.0",
            "name": "quick",
            "matrix": serde_json::to_value(quick()).unwrap(),
            "build_profile": "release",
            "seed": u64::MAX,
            "order": ["1 a", "2 b"],
            "finished_utc": null,
            "programs": {"ringmark": program.clone(), "server": program},
            "placement": {
                "server_cpus": "0", "client_cpus": "1", "client_threads": 1, "shared_cpu": false,
            },
            "machine": {
                "read_at": "then", "description": "vm-2cpu", "kernel_release": "6.1",
                "boot_id": "a", "git_revision": "abc", "idle_driver": null,
            },
        }))
        .unwrap()
    }

    #[test]
    fn another_boot_is_the_same_machine_and_another_kernel_is_not() {
        let folder = Path::new("out");
        let mut now = manifest();
        now.machine["boot_id"] = json!("b");
        now.machine["read_at"] = json!("now");
        let found = resumed(folder, manifest(), &now, 2, false).unwrap();
        assert_eq!(found.seed, u64::MAX);
        assert_eq!(found.machine["boot_id"], "a", "that of the beginning");
        let [resumption] = &found.resumed[..] else { panic!("once") };
        assert_eq!((resumption.at_utc.as_str(), resumption.after_trials), ("now", 2));
        assert_eq!((&resumption.boot_id, &resumption.kernel_release), (&json!("b"), &json!("6.1")));
        assert!(resumption.differences.is_empty());

        for (path, value, words) in [
            ("/machine/kernel_release", json!("6.2"), "the kernel was 6.1, is 6.2"),
            ("/machine/description", json!("vm-4cpu"), "the machine was vm-2cpu, is vm-4cpu"),
            ("/machine/git_revision", json!("def"), "the source's revision was abc, is def"),
            ("/machine/git_revision", json!(null), "the source's revision was abc, is unknown"),
            (
                "/programs/server/sha256",
                json!("f123456789abcdef"),
                "was 0123456789ab, is f123456789ab",
            ),
            ("/programs/server/bytes", json!(4), "the size of the server's program was 3, is 4"),
            ("/placement/client_cpus", json!("2"), "the client's CPUs was 1, is 2"),
        ] {
            let mut now = serde_json::to_value(manifest()).unwrap();
            *now.pointer_mut(path).unwrap() = value;
            let now: Manifest = serde_json::from_value(now).unwrap();
            let refusal = resumed(folder, manifest(), &now, 2, false).err().unwrap().to_string();
            assert!(refusal.contains(words) && refusal.contains("--anyway"), "{refusal}");
            assert!(refusal.starts_with("out: ") && !refusal.contains('\n'), "{refusal}");
            let anyway = resumed(folder, manifest(), &now, 2, true).unwrap();
            assert_eq!(anyway.resumed[0].differences.len(), 1);
            assert!(
                replayed(folder, &manifest(), &now, &[]).unwrap().differences[0].contains(words)
            );
        }

        let early = Manifest { programs: None, ..manifest() };
        let refusal =
            resumed(folder, early.clone(), &manifest(), 2, true).err().unwrap().to_string();
        assert!(refusal.contains("--replay repeats it"), "{refusal}");
        assert!(replayed(folder, &early, &manifest(), &[]).unwrap().differences.is_empty());
    }

    #[test]
    fn a_replay_says_where_another_build_deals_otherwise() {
        let (_, order) = rest(&mut planner(7), Vec::new(), Vec::new(), Vec::new());
        let differences = |order: &[String], seed| {
            let then = Manifest { order: order.to_vec(), ..manifest() };
            replayed(Path::new("results/a"), &then, &manifest(), &planner(seed).undisturbed())
                .unwrap()
                .differences
        };
        // Trials that were run again, and blocks that were added, are no difference.
        assert!(differences(&order, 7).is_empty());
        assert!(differences(&order[..3], 7).is_empty(), "it was broken off");
        assert!(differences(&order, 8)[0].contains("this build deals otherwise"));
        let mut other = order;
        other[1] = "2 x".to_owned();
        assert!(differences(&other, 7)[0].contains("from trial 2 on"));
    }

    /// Earlier versions wrote less, and dealt the baseline otherwise; what they wrote is enough to
    /// repeat the run.
    #[test]
    fn every_committed_run_can_be_replayed() {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
        let mut count = 0;
        for folder in std::fs::read_dir(results).unwrap().map(|entry| entry.unwrap().path()) {
            // A run of one's own may be under way there.
            if !folder.join("comparisons.csv").exists() {
                continue;
            }
            let then = Manifest::read(&folder).unwrap();
            let again =
                Planner::new(then.matrix.clone(), then.expanded.clone(), then.seed).undisturbed();
            let replayed = replayed(&folder, &then, &then, &again).unwrap();
            let is_of_order =
                |difference: &String| difference.ends_with("this build deals otherwise");
            assert!(replayed.differences.iter().all(is_of_order), "{}", folder.display());
            count += 1;
        }
        assert!(count > 0, "there is a reference run");
    }
}
