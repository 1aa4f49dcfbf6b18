//! Decides which slopes of `memory.csv` may be used, and says why others may not.
//!
//! A slope is of everything that grew while connections did. Other programs' objects are in it too,
//! and nothing may be computed of a slope that is theirs.

use std::collections::{BTreeMap, BTreeSet};

use ringmark::backend::FLOOR;

use crate::rows::{
    ACTIVE, KERNEL_SUM, MemoryPointRow, MemoryRow, Pass, Status, TrialRow, USER_SUM,
};
use crate::statistics::{Interval, slope_range};
use crate::text::integer;

/// An interval that is no wider tells something even if there is 0 in it: that a connection takes
/// less than this.
const FINE_BYTES: f64 = 128.0;

/// The widest interval of the kernel's objects over their slope: with a wider one they do not lie
/// on a line.
const SCATTER_SHARE: f64 = 0.1;

/// A connection that ends gives back what it took. A larger share was given back by somebody else.
const GIVEN_BACK_SHARE: f64 = 1.05;

/// Objects of a walk that lie so far from those of `null` are more or fewer: in bytes, and in
/// shares of them.
const OFF_BYTES: f64 = 16.0;
const OFF_SHARE: f64 = 0.05;

/// An object that takes this share of two bare endpoints is one of theirs, and no server has more
/// of them.
const ENDPOINT_SHARE: f64 = 0.1;

/// The objects of `null` come to their sum, up to this share of it.
const SUM_SHARE: f64 = 0.02;

/// A reason not to use a walk, or its figures over `null`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub arm: String,
    /// Empty: all states.
    pub state: String,
    pub why: String,
}

/// Why the sum of a walk's kernel objects is not that of its connections; none if nothing speaks
/// against it. While connections are active, what is on its way comes and goes.
pub fn disturbance(sum: &MemoryRow) -> Option<String> {
    let interval = sum.interval().filter(|_| sum.state != ACTIVE)?;
    let slope = sum.bytes_per_connection;
    if interval.low <= 0.0 || interval.width() > SCATTER_SHARE * slope {
        return Some(format!(
            "the kernel's objects had not come to rest: the 95 % interval of their slope is {} \
             bytes wide, and {} would be a tenth of it: something else used memory",
            integer(interval.width()),
            integer(SCATTER_SHARE * slope.abs())
        ));
    }
    let down = sum.down_bytes_per_connection.filter(|down| *down > GIVEN_BACK_SHARE * slope)?;
    Some(format!(
        "the kernel's objects had not come to rest: connections took {} bytes each and gave back \
         {}: something else used memory",
        integer(slope),
        integer(down)
    ))
}

/// Makes `rejected` of the walks that are not of connections alone or not whole, takes away what is
/// over `null` where that tells nothing, and says why.
pub fn judge(
    memory: &mut [MemoryRow],
    points: &[MemoryPointRow],
    trials: &[TrialRow],
) -> Vec<Flaw> {
    let mut flaws = missing(memory, points, trials);
    flaws.extend(memory.iter().filter(|row| is_usable(row, KERNEL_SUM)).filter_map(|sum| {
        Some(Flaw { arm: sum.arm.clone(), state: sum.state.clone(), why: disturbance(sum)? })
    }));
    reject(memory, &flaws);
    let off = off_floor(memory, points);
    reject(memory, &off);
    flaws.extend(off);
    flaws.extend(take_away(memory, points));
    flaws
}

fn is_usable(row: &MemoryRow, object: &str) -> bool {
    row.status == Status::Ok && row.object == object
}

fn reject(memory: &mut [MemoryRow], flaws: &[Flaw]) {
    let is_flawed = |row: &MemoryRow| {
        flaws
            .iter()
            .any(|flaw| flaw.arm == row.arm && [row.state.as_str(), ""].contains(&&*flaw.state))
    };
    memory
        .iter_mut()
        .filter(|row| row.status == Status::Ok && is_flawed(row))
        .for_each(|row| row.status = Status::Rejected);
}

/// Walks of which a file has rows and another has none: they are written together.
fn missing(memory: &[MemoryRow], points: &[MemoryPointRow], trials: &[TrialRow]) -> Vec<Flaw> {
    let flaw = |arm: &str, state: &str, why: String| Flaw {
        arm: arm.to_owned(),
        state: state.to_owned(),
        why,
    };
    let mut flaws = Vec::new();
    for trial in
        trials.iter().filter(|row| row.pass == Some(Pass::Memory) && row.status == Status::Ok)
    {
        if memory.iter().all(|row| row.run_id != trial.run_id) {
            let number = trial.run_id;
            flaws.push(flaw(
                &trial.arm,
                "",
                format!("memory.csv has no rows of trial {number}: a part of it is missing"),
            ));
        }
    }
    let known: BTreeSet<u32> = trials.iter().map(|trial| trial.run_id).collect();
    let strangers: BTreeSet<_> = memory
        .iter()
        .filter(|row| !known.contains(&row.run_id))
        .map(|row| (&row.arm, row.run_id))
        .collect();
    for (arm, number) in strangers {
        flaws.push(flaw(
            arm,
            "",
            format!("trials.csv has no trial {number}: a part of it is missing"),
        ));
    }
    let mut objects: BTreeMap<(u32, &str), BTreeSet<(&str, &str)>> = BTreeMap::new();
    for row in memory {
        objects.entry((row.run_id, &row.state)).or_default().insert((&row.space, &row.object));
    }
    let mut lost: BTreeMap<(u32, &str), (&str, BTreeSet<&str>)> = BTreeMap::new();
    for point in points.iter().filter(|point| memory.iter().any(|row| row.run_id == point.run_id)) {
        let walk = (point.run_id, point.state.as_str());
        if !objects.get(&walk).is_some_and(|found| found.contains(&(&*point.space, &*point.object)))
        {
            let arm = if point.arm.is_empty() { &point.backend } else { &point.arm };
            lost.entry(walk).or_insert((arm, BTreeSet::new())).1.insert(&point.object);
        }
    }
    for ((number, state), (arm, objects)) in lost {
        let first = objects.first().copied().unwrap_or_default();
        let others = match objects.len() - 1 {
            0 => String::new(),
            count => format!(" and {count} more objects"),
        };
        let why = format!(
            "memory.csv has no rows of '{first}'{others} of trial {number}: a part of it is missing"
        );
        flaws.push(flaw(arm, state, why));
    }
    flaws
}

/// The interval of a slope; of three or four readings, which have none, the range of the slopes of
/// all pairs of them.
pub fn bounds(row: &MemoryRow, points: &[MemoryPointRow]) -> Option<Interval> {
    row.interval().or_else(|| slope_range(&row.way_up(points).collect::<Vec<_>>()))
}

/// Two bare endpoints in the kernel, and the walks that stand on them.
struct Floor<'a> {
    memory: &'a [MemoryRow],
    points: &'a [MemoryPointRow],
    sum: &'a MemoryRow,
    objects: Vec<&'a MemoryRow>,
    /// The sums of the others.
    walks: Vec<&'a MemoryRow>,
}

impl<'a> Floor<'a> {
    fn of(memory: &'a [MemoryRow], points: &'a [MemoryPointRow]) -> Option<Self> {
        let of_floor = || memory.iter().filter(|row| row.is_floor() && row.space == "kernel");
        let is_walk = |row: &&MemoryRow| is_usable(row, KERNEL_SUM) && row.backend != FLOOR;
        Some(Self {
            memory,
            points,
            sum: of_floor().find(|row| row.object == KERNEL_SUM)?,
            objects: of_floor().filter(|row| row.object != KERNEL_SUM).collect(),
            walks: memory.iter().filter(is_walk).collect(),
        })
    }

    /// How much more a walk has of something than the floor, if that is beyond the bounds of both.
    fn more(&self, walk: &MemoryRow, of_floor: &MemoryRow) -> Option<f64> {
        let is_same = |row: &&MemoryRow| {
            (row.run_id, &row.state, &row.space, &row.object)
                == (walk.run_id, &walk.state, &of_floor.space, &of_floor.object)
        };
        let of_walk = self.memory.iter().find(is_same)?;
        let (interval, under) = (bounds(of_walk, self.points)?, bounds(of_floor, self.points)?);
        let more = of_walk.bytes_per_connection - of_floor.bytes_per_connection;
        let least = if of_floor.object == KERNEL_SUM {
            0.0
        } else {
            OFF_SHARE * of_floor.bytes_per_connection
        };
        (interval.is_apart_from(&under) && more.abs() > least.max(OFF_BYTES)).then_some(more)
    }

    /// Returns an object of which a walk has less.
    fn lacks(&self, walk: &MemoryRow) -> Option<&'a MemoryRow> {
        let all = std::iter::once(&self.sum).chain(&self.objects).copied();
        all.into_iter().find(|object| self.more(walk, object).is_some_and(|more| more < 0.0))
    }

    /// Returns why it is no floor.
    fn flaw(&self) -> Option<String> {
        let all = self.walks.len();
        let lacking: Vec<_> = self.walks.iter().filter_map(|walk| self.lacks(walk)).collect();
        if 2 * lacking.len() > all {
            return Some(format!(
                "{} of {all} walks have less of '{}' than two bare endpoints here: something else \
                 used memory",
                lacking.len(),
                lacking[0].object
            ));
        }
        // Every server has as many of the endpoints' own objects.
        let is_endpoint = |row: &&&MemoryRow| {
            row.bytes_per_connection >= ENDPOINT_SHARE * self.sum.bytes_per_connection
        };
        let all_have_more = |object: &&&MemoryRow| {
            all > 1
                && self
                    .walks
                    .iter()
                    .all(|walk| self.more(walk, object).is_some_and(|more| more > 0.0))
        };
        if let Some(object) = self.objects.iter().filter(is_endpoint).find(all_have_more) {
            return Some(format!(
                "all {all} walks have more of '{}' than two bare endpoints here: something else \
                 gave memory back",
                object.object
            ));
        }
        let parts: f64 = self.objects.iter().map(|row| row.bytes_per_connection).sum();
        let sum = self.sum.bytes_per_connection;
        (self.sum.low.is_some() && (parts - sum).abs() > SUM_SHARE * sum).then(|| {
            "its objects do not come to their sum: rows of memory.csv are missing or were changed"
                .to_owned()
        })
    }
}

/// The floor if it is none, or the walks that do not stand on it.
fn off_floor(memory: &[MemoryRow], points: &[MemoryPointRow]) -> Vec<Flaw> {
    let Some(floor) = Floor::of(memory, points) else { return Vec::new() };
    let flaw =
        |row: &MemoryRow, why: String| Flaw { arm: row.arm.clone(), state: row.state.clone(), why };
    if let Some(why) = floor.flaw() {
        return vec![flaw(floor.sum, why)];
    }
    let off = |walk: &&MemoryRow| {
        let object = &floor.lacks(walk)?.object;
        Some(flaw(
            walk,
            format!(
                "it has less of '{object}' than two bare endpoints: something else gave memory back"
            ),
        ))
    };
    floor.walks.iter().filter_map(off).collect()
}

/// Takes away what is over `null` where there is no floor, or where it is not told from something
/// else.
fn take_away(memory: &mut [MemoryRow], points: &[MemoryPointRow]) -> Vec<Flaw> {
    let floor: BTreeMap<String, Option<Interval>> = memory
        .iter()
        .filter(|row| row.is_floor())
        .map(|row| (row.object.clone(), bounds(row, points)))
        .collect();
    let mut flaws = Vec::new();
    for row in memory.iter_mut().filter(|row| row.backend != FLOOR) {
        let Some(over) = row.over_null_bytes_per_connection else { continue };
        let is_own = row.space == "user";
        let none = Some(Interval { low: 0.0, high: 0.0 });
        let under = if is_own { none } else { floor.get(&row.object).copied().unwrap_or(none) };
        let range = || Some(bounds(row, points)?.minus(&under?));
        let why = match row.interval_over_null().or_else(range) {
            // Its trial says why, or its own flaw.
            _ if floor.is_empty() && !is_own => String::new(),
            Some(interval) => match untold(row, over, &interval) {
                Some(why) => why,
                None => continue,
            },
            None => "fewer than three readings on the way up do not bound a slope".to_owned(),
        };
        let is_sum = [KERNEL_SUM, USER_SUM].contains(&&*row.object) && row.status == Status::Ok;
        if is_sum && !why.is_empty() {
            let why = format!("{}: {why}", row.object);
            flaws.push(Flaw { arm: row.arm.clone(), state: row.state.clone(), why });
        }
        row.over_null_bytes_per_connection = None;
        (row.over_null_low, row.over_null_high) = (None, None);
    }
    flaws
}

/// Why what a row has over `null`, between these bounds, tells nothing; none if it does.
fn untold(row: &MemoryRow, bytes: f64, interval: &Interval) -> Option<String> {
    let width = interval.width();
    let below = if row.object == KERNEL_SUM { 0.0 } else { -OFF_BYTES };
    if row.space == "kernel" && interval.high < 0.0 && bytes.round() < below {
        return Some("less than two bare endpoints have, which no server does".to_owned());
    }
    let is_fine = width <= FINE_BYTES || (interval.excludes(0.0) && width <= bytes.abs());
    (!is_fine).then(|| {
        format!(
            "the readings bound it within {} bytes only, a wider range than the figure itself",
            integer(width)
        )
    })
}

#[cfg(test)]
mod tests;
