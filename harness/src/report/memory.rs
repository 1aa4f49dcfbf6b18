//! The tables of memory per connection.

use std::collections::BTreeSet;

use itertools::Itertools as _;
use ringmark::backend::{self, FLOOR};

use super::query::{SHOWN_BYTES, absent, arms, in_groups};
use super::section::Body;
use super::table::{Column, Table, cell};
use super::walk::place;
use crate::results::Run;
use crate::rows::{
    ACTIVE, KERNEL_SUM, MemoryRow, NEVER_USED, PAGE_TABLES, Pass, Status, UNEXPLAINED, USED_SUM,
    USED_THEN_IDLE, USER_SUM,
};
use crate::statistics::Interval;
use crate::text::{integer, list, significant};
use crate::verdict::{memory, slopes};

/// The widest interval of the pages in use, over them.
const WIDEST_SHARE: f64 = 0.5;

/// So much of the pages in use may be below zero, as they are read one after the other. More is
/// another program's doing.
const NEGATIVE_SHARE: f64 = 0.05;

/// The slopes of an arm in a state.
#[derive(Clone, Copy)]
struct Slopes<'a> {
    run: &'a Run,
    arm: &'a str,
    state: &'a str,
}

impl<'a> Slopes<'a> {
    fn idle(run: &'a Run, arm: &'a str) -> Self {
        Self { run, arm, state: USED_THEN_IDLE }
    }

    fn slope(&self, object: &str) -> Option<&'a MemoryRow> {
        memory::slope(&self.run.memory, self.arm, object, self.state)
    }

    fn bytes(&self, object: &str) -> Option<f64> {
        Some(self.slope(object)?.bytes_per_connection)
    }

    fn over_null(&self, object: &str) -> Option<f64> {
        self.slope(object)?.over_null_bytes_per_connection
    }

    fn title(&self) -> String {
        match self.state {
            USED_THEN_IDLE => format!("{}, used", self.arm),
            ACTIVE => format!("{}, active", self.arm),
            _ => self.arm.to_owned(),
        }
    }

    /// Writes what an object costs over `null`. An object without a row hardly changed: it costs
    /// nothing, less what `null` has of it.
    fn object(&self, object: &str, floor: f64) -> String {
        let over_null = match self.slope(object) {
            _ if self.over_null(KERNEL_SUM).is_none() => None,
            Some(row) => row.over_null_bytes_per_connection,
            None => Some(-floor),
        };
        cell(over_null, integer)
    }

    /// Writes a sum over `null` with its interval.
    fn sum(&self, object: &str) -> String {
        let interval = self.slope(object).and_then(MemoryRow::interval_over_null);
        match (self.over_null(object), interval) {
            (Some(over), Some(Interval { low, high })) => {
                format!("**{}** ({} to {})", integer(over), integer(low), integer(high))
            }
            (over, _) => cell(over, integer),
        }
    }
}

/// Returns the usable slopes of the servers, by state and arm.
fn servers(run: &Run) -> Vec<Slopes<'_>> {
    let states = [NEVER_USED, USED_THEN_IDLE, ACTIVE];
    let arms = arms(run);
    (run.memory.iter())
        .filter(|row| row.status == Status::Ok && row.arm != FLOOR)
        .map(|row| Slopes { run, arm: &row.arm, state: &row.state })
        .unique_by(|slopes| (slopes.arm, slopes.state))
        .sorted_by_key(|slopes| {
            (
                states.iter().position(|state| *state == slopes.state),
                arms.iter().position(|arm| arm == slopes.arm),
            )
        })
        .collect()
}

/// Shows object by arm: what a connection costs over `null`, in each state, and the sums.
/// `MemAvailable` is not shown: at a few thousand connections the rest of the machine moves it more
/// than they do.
pub fn slopes(run: &Run) -> Body {
    let servers = servers(run);
    let floor = Slopes { run, arm: FLOOR, state: NEVER_USED };
    let mut heading = vec!["object".to_owned(), "two bare endpoints".to_owned()];
    heading.extend(servers.iter().map(Slopes::title));
    let mut table = Table::new(1, &heading);
    for object in shown_objects(run, &servers) {
        let bytes = floor.bytes(object).unwrap_or_default();
        let mut cells = vec![object.to_owned(), integer(bytes)];
        cells.extend(servers.iter().map(|server| server.object(object, bytes)));
        table.push(cells);
    }
    for object in [KERNEL_SUM, USER_SUM] {
        if servers.iter().all(|server| server.slope(object).is_none()) {
            continue;
        }
        let bytes = floor.bytes(object).filter(|_| object == KERNEL_SUM);
        let mut cells = vec![format!("**{object}**"), cell(bytes, integer)];
        cells.extend(servers.iter().map(|server| server.sum(object)));
        table.push(cells);
    }
    let flaws = run.flaws.iter().map(|slopes::Flaw { arm, state, why }| {
        let gap = if state.is_empty() { "" } else { " " };
        format!("- No figures of `{arm}`{gap}{state}: {why}\n")
    });
    Body::from(table).list(&absent(run, Pass::Memory)).list(&flaws.collect::<String>())
}

/// Returns the kernel's objects that are large enough, if any server has a floor.
fn shown_objects<'a>(run: &'a Run, servers: &[Slopes]) -> BTreeSet<&'a str> {
    if servers.iter().all(|server| server.over_null(KERNEL_SUM).is_none()) {
        return BTreeSet::new();
    }
    (run.memory.iter())
        .filter(|row| row.status == Status::Ok && row.space == "kernel" && row.object != KERNEL_SUM)
        .filter(|row| row.bytes_per_connection.abs() >= SHOWN_BYTES)
        .map(|row| row.object.as_str())
        .collect()
}

impl Slopes<'_> {
    /// Returns why what was read of the pages is not that of the connections.
    fn flaw(&self) -> Option<&'static str> {
        let Some(objects) = self.objects() else {
            return Some(
                "without the kernel's objects it is not known whether the machine was at rest",
            );
        };
        let (Some(slab), Some(unexplained)) = (self.bytes("slab pages"), self.bytes(UNEXPLAINED))
        else {
            return Some("memory.csv has no rows of slab pages, or none of what is unexplained");
        };
        // The objects are in the pages of slabs, and these are pages in use.
        let is_less = |whole: f64, part: f64| whole < (1.0 - NEGATIVE_SHARE) * part;
        let add_up = self.slope(USED_SUM).is_some_and(|row| {
            let used = row.bytes_per_connection;
            slopes::bounds(row, &self.run.memory_points)
                .is_some_and(|bounds| bounds.width() <= WIDEST_SHARE * used)
                && used > 0.0
                && !is_less(slab, objects)
                && !is_less(used, slab)
                && unexplained >= -NEGATIVE_SHARE * used
        });
        (!add_up).then_some("the machine's pages do not add up: something else took or gave memory")
    }

    fn objects(&self) -> Option<f64> {
        Some(self.bytes(KERNEL_SUM)? - self.bytes(PAGE_TABLES).unwrap_or_default())
    }

    fn between_objects(&self) -> Option<f64> {
        Some(self.bytes("slab pages")? - self.objects()?)
    }

    /// Writes the pages of one use. One without a row hardly changed.
    fn pages(&self, object: &str) -> String {
        self.bytes(object).map_or("0".to_owned(), integer)
    }

    fn unexplained_share(&self) -> Option<f64> {
        Some(100.0 * self.bytes(UNEXPLAINED)? / self.bytes(USED_SUM)?)
    }

    /// Returns the farthest that a reading of the way up lies from its line.
    fn residual(&self, object: &str) -> Option<f64> {
        let row = self.slope(object)?;
        let residuals = row.way_up(&self.run.memory_points).map(|(connections, bytes)| {
            (bytes - row.intercept_bytes - row.bytes_per_connection * connections).abs()
        });
        residuals.reduce(f64::max)
    }
}

/// Shows where the machine's pages went, connection by connection, and what is not accounted for.
pub fn account(run: &Run) -> Body {
    let (shown, flawed): (Vec<Slopes>, Vec<Slopes>) = (run.memory.iter())
        .filter(|row| row.object == USED_SUM && row.state != ACTIVE && row.status == Status::Ok)
        .sorted_by_key(|row| (row.state != NEVER_USED, place(run, &row.arm)))
        .map(|row| Slopes { run, arm: &row.arm, state: &row.state })
        .partition(|slopes| slopes.flaw().is_none());
    let flaws = in_groups(flawed.iter().map(|slopes| {
        (slopes.flaw().unwrap_or_default(), format!("`{}` {}", slopes.arm, slopes.state))
    }));
    let flaws = flaws.iter();
    let lines: String =
        flaws.map(|(why, walks)| format!("- No account of {}: {why}\n", list(walks))).collect();
    let columns: [Column<Slopes>; 12] = [
        ("arm", |slopes| slopes.arm.to_owned()),
        ("state", |slopes| slopes.state.to_owned()),
        ("pages in use", |slopes| slopes.pages(USED_SUM)),
        ("slab pages", |slopes| slopes.pages("slab pages")),
        ("of which objects", |slopes| cell(slopes.objects(), integer)),
        ("and between them", |slopes| cell(slopes.between_objects(), integer)),
        ("anonymous pages", |slopes| slopes.pages("anonymous pages")),
        ("page tables", |slopes| slopes.pages("page tables")),
        ("page cache", |slopes| slopes.pages("page cache")),
        ("vmalloc", |slopes| slopes.pages("vmalloc")),
        ("unexplained", |slopes| slopes.pages(UNEXPLAINED)),
        ("of all", |slopes| cell(slopes.unexplained_share(), |share| format!("{share:.1} %"))),
    ];
    if shown.is_empty() {
        return Body::default().notes(lines);
    }
    Body::from(Table::of(&shown, 2, &columns)).list(&lines).notes(residuals(&shown))
}

/// Says how far the readings of the way up lie from their lines.
fn residuals(shown: &[Slopes]) -> String {
    let [objects, pages] = [KERNEL_SUM, USED_SUM].map(|object| {
        let residuals = shown.iter().filter_map(|slopes| slopes.residual(object));
        residuals.reduce(f64::max).map(|bytes| significant(bytes / f64::from(1 << 20)))
    });
    let (Some(objects), Some(pages)) = (objects, pages) else { return String::new() };
    format!(
        "\nOn the way up no reading of the kernel's objects lies farther from its line than \
         {objects} MiB, none of the pages in use farther than {pages} MiB.\n"
    )
}

/// The memory of one end of a connection that was used and rests, in bytes.
struct WalkEnd {
    arm: String,
    bare: f64,
    /// The kernel memory that the server adds to wait for it.
    wait: f64,
    /// The growth of the server's own memory.
    own: f64,
    /// The whole of the baseline's.
    baseline: Option<f64>,
}

impl WalkEnd {
    fn sum(&self) -> f64 {
        self.bare + self.wait + self.own
    }
}

/// Shows how many connections that were used and rest fit into a server's memory, when the other
/// ends are elsewhere.
///
/// `null` shows two bare ends and the load's epoll registration of one of them. Such a registration
/// takes what an epoll server adds to that.
pub fn fit(run: &Run) -> Body {
    // The edge-triggered server, the last of them, is the first choice.
    let registering = backend::ALL.iter().rev().filter(|entry| entry.only_registers);
    let registration = registering
        .map(|entry| entry.name)
        .find_map(|arm| Slopes::idle(run, arm).over_null(KERNEL_SUM));
    let floor = Slopes { run, arm: FLOOR, state: NEVER_USED }.bytes(KERNEL_SUM);
    let (Some(floor), Some(registration)) = (floor, registration) else { return Body::default() };
    let end = |arm: &str, baseline| {
        let slopes = Slopes::idle(run, arm);
        let (wait, own) = (slopes.over_null(KERNEL_SUM)?, slopes.over_null(USER_SUM)?);
        let bare = (floor - registration) / 2.0;
        Some(WalkEnd { arm: arm.to_owned(), bare, wait, own, baseline })
            .filter(|end| end.sum() > 0.0)
    };
    let baseline = end(&run.matrix.baseline, None).map(|end| end.sum());
    let arms = run.matrix.arms();
    let ends = arms.filter_map(|arm| end(&arm, baseline)).collect_vec();
    let columns: [Column<WalkEnd>; 7] = [
        ("arm", |end| end.arm.clone()),
        ("a bare end", |end| integer(end.bare)),
        ("to wait for it", |end| integer(end.wait)),
        ("own memory", |end| integer(end.own)),
        ("together", |end| integer(end.sum())),
        ("connections in 1 GiB", |end| significant(f64::from(1 << 30) / end.sum())),
        ("against the baseline", |end| {
            cell(end.baseline, |baseline| format!("{:.2}", end.sum() / baseline))
        }),
    ];
    Table::of(&ends, 1, &columns).into()
}
