//! Names the two runs, and how they differ apart from their figures.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::pair::{Pair, arms, workloads};
use crate::matrix::Matrix;
use crate::results::Run;
use crate::results::origin::between as differences;
use crate::rows::TrialRow;
use crate::text::quoted_list;
use crate::verdict::readings::reading;

/// A line for each run, and for each difference.
pub fn lines(a: &Path, b: &Path, pair: &Pair) -> Vec<String> {
    let mut lines = vec![line("A", a, &pair.a), line("B", b, &pair.b)];
    let mut found = differences(&pair.a.manifest, &pair.b.manifest);
    found.extend(of_matrices(pair));
    found.extend(of_arms(pair, "", |row| &row.knobs));
    found.extend(of_arms(pair, " in force", |row| &row.in_force));
    let is_one = is_one_run(pair);
    match (is_one, pair.a.trials == pair.b.trials) {
        (true, true) if found.is_empty() => lines.push("They are the same run".to_owned()),
        (true, false) => lines
            .push("They are one run by their manifests, but their trials.csv differ".to_owned()),
        (false, _) if found.is_empty() => {
            lines.push("Their manifests tell the same of their origin".to_owned())
        }
        (true, true) | (false, _) => {}
    }
    lines.extend(found.iter().map(|difference| format!("From A to B: {difference}")));
    for (name, run, other) in [("A", &pair.a, &pair.b), ("B", &pair.b, &pair.a)] {
        lines.extend(run.gap().map(|gap| format!("{name} is not whole: {gap}")));
        let own = only_in(run, other);
        if !own.is_empty() {
            lines.push(format!("Only in {name}: {}", quoted_list(own.iter().map(String::as_str))));
        }
    }
    if pair.baseline().is_none() {
        let [a, b] = pair.runs().map(|run| &run.matrix.baseline);
        lines.push(format!("Nothing is relative: the baseline is `{a}` in A and `{b}` in B"));
    }
    lines
}

fn line(name: &str, folder: &Path, run: &Run) -> String {
    let of = |path: &str| run.manifest.pointer(path).and_then(Value::as_str).unwrap_or("unknown");
    let of_server = |field: &str| run.server_machine()[field].as_str().unwrap_or("unknown");
    let place = if run.sides.is_some() { "server on " } else { "" };
    let usable = run.trials.iter().filter(|row| row.status.is_usable()).count();
    format!(
        "{name}: `{}`, begun {}, {place}{}, Linux {}, ringmark {}, {usable} of {} trials usable",
        folder.display(),
        of("/machine/read_at"),
        of_server("description"),
        of_server("kernel_release"),
        of("/ringmark"),
        run.trials.len(),
    )
}

/// Whether both folders are of one run.
fn is_one_run(pair: &Pair) -> bool {
    let identity = |run: &Run| {
        let of = |path: &str| run.manifest.pointer(path).cloned();
        [of("/machine/read_at"), of("/seed"), of("/order")]
    };
    identity(&pair.a) == identity(&pair.b)
}

/// Arms and workloads that the other has not.
fn only_in(run: &Run, other: &Run) -> Vec<String> {
    let all = |run: &Run| [arms(run), workloads(run)].concat();
    let others = all(other);
    all(run).into_iter().filter(|name| !others.contains(name)).collect()
}

/// Returns how the matrices differ apart from arms and workloads: the passes, the length of their
/// windows, and the like.
fn of_matrices(pair: &Pair) -> Vec<String> {
    let [a, b] = pair.runs().map(|run| settings(&run.matrix));
    let word = |value: Option<&Value>| value.map_or_else(|| "none".to_owned(), Value::to_string);
    let places: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differing = places.into_iter().filter(|place| a.get(*place) != b.get(*place));
    differing
        .map(|place| format!("{place} was {}, is {}", word(a.get(place)), word(b.get(place))))
        .collect()
}

/// A matrix without its arms, its workloads and its questions, by the names of its keys. A pass is
/// one value if the other matrix has none of it.
fn settings(matrix: &Matrix) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let whole = serde_json::to_value(matrix).expect("a matrix is written as JSON");
    for (key, value) in whole.as_object().into_iter().flatten() {
        match value {
            Value::Null => {}
            _ if ["question", "backends", "external", "workload"].contains(&key.as_str()) => {}
            Value::Object(fields) => {
                let fields =
                    fields.iter().filter(|(field, value)| *field != "question" && !value.is_null());
                found
                    .extend(fields.map(|(field, value)| (format!("{key}.{field}"), value.clone())));
            }
            value => drop(found.insert(key.clone(), value.clone())),
        }
    }
    found
}

/// Returns how the knobs of an arm differ that both runs have by one name, or those in force.
fn of_arms(pair: &Pair, what: &str, column: fn(&TrialRow) -> &String) -> BTreeSet<String> {
    let of = |run: &Run| -> BTreeMap<(String, String, String), Value> {
        let second = reading(&run.matrix.baseline, 2);
        let rows = run.trials.iter().filter(|row| row.status.is_usable() && row.arm != second);
        let cells = rows.filter_map(|row| {
            let cells = serde_json::from_str::<BTreeMap<String, Value>>(column(row)).ok()?;
            let place = |knob| (row.arm.clone(), row.workload.clone(), knob);
            Some(cells.into_iter().map(move |(knob, value)| (place(knob), value)))
        });
        cells.flatten().collect()
    };
    let (a, b) = (of(&pair.a), of(&pair.b));
    let arms = |of: &BTreeMap<(String, String, String), Value>| -> BTreeSet<(String, String)> {
        of.keys().map(|(arm, workload, _)| (arm.clone(), workload.clone())).collect()
    };
    let both: BTreeSet<(String, String)> = arms(&a).intersection(&arms(&b)).cloned().collect();
    let word = |value: Option<&Value>| value.map_or_else(|| "none".to_owned(), Value::to_string);
    let places: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let is_other = |place: &&&(String, String, String)| {
        both.contains(&(place.0.clone(), place.1.clone())) && a.get(**place) != b.get(**place)
    };
    let in_words = |place: &(String, String, String)| {
        let (arm, _, knob) = place;
        format!("{knob}{what} of `{arm}` was {}, is {}", word(a.get(place)), word(b.get(place)))
    };
    places.iter().filter(is_other).map(|place| in_words(place)).collect()
}
