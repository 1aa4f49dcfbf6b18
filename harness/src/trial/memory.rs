//! A connection's cost in memory, as a slope. One server is walked through several connection
//! counts, up and down. At each count, at rest, everything is read that could hold a connection's
//! memory.
//!
//! The cost is the slope of the way up. The way down has a slope of its own: where it is smaller,
//! the server or its ring keeps what it once needed, as io_uring keeps its requests for reuse.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ringmark::backend;

use super::clock::Moment;
use super::context::TrialContext;
use super::evidence::Evidence;
use super::ramp::{self, Ramp};
use super::site::{Site, UNSEEN};
use super::task::Trial;
use super::{fit, gates, in_force};
use crate::load::result::LoadEvent;
use crate::machine::memory::{MemoryInstrument, MemoryReading};
use crate::matrix::Memory;
use crate::programs::client::Client;
use crate::programs::server::Server;
use crate::rows::{
    ACTIVE, KERNEL_SUM, MACHINE_SUM, MemoryPointRow, MemoryRow, NEVER_USED, Outcome, PAGE_TABLES,
    Status, UNEXPLAINED, USED_SUM, USED_THEN_IDLE, USER_SUM,
};
use crate::statistics::TheilSen;
use crate::verdict::slopes;

const UP: &str = "up";
const DOWN: &str = "down";

/// Readings of active connections, of which the median counts.
const ACTIVE_READINGS: usize = 5;

/// How long connections are active: longer than the readings take.
const ACTIVE_TIME: Duration = Duration::from_secs(2);

/// How long a reading may take to come to rest.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// How long it may take until each connection has made an echo.
const ECHO_TIME: Duration = Duration::from_secs(300);

/// Objects whose readings are kept, whatever little they differ by.
const SUMS: [&str; 5] = [KERNEL_SUM, USER_SUM, MACHINE_SUM, USED_SUM, UNEXPLAINED];

/// The reading at one connection count.
struct WalkPoint {
    direction: &'static str,
    connections: usize,
    reading: MemoryReading,
}

/// Measures one trial of the pass.
pub fn measure(
    trial: &Trial,
    context: &TrialContext,
    memory: &Memory,
    outcome: &mut Outcome,
) -> Result<(Status, String)> {
    // Nothing else is expected of an external server.
    let echoes = backend::find(&trial.arm.backend).map_or(true, |entry| entry.echoes);
    let (memory, skipped) = match fit::limit(trial, context, memory.most())? {
        Some(limit) => (&memory.up_to(limit.connections as usize), Some(limit.reason)),
        None => (memory, None),
    };
    if memory.connections.len() < 2 {
        return Ok((Status::Skipped, skipped.unwrap_or_default()));
    }
    let mut states = vec![(NEVER_USED, &memory.connections)];
    if echoes {
        states.push((USED_THEN_IDLE, &memory.connections));
    }
    if echoes && !memory.active.is_empty() {
        states.push((ACTIVE, &memory.active));
    }
    let mut notes: Vec<String> = skipped.into_iter().collect();
    for (state, counts) in states {
        let (status, reason) = measure_state(trial, context, counts, state, outcome)?;
        let note = format!("{state}: {reason}");
        if status != Status::Ok {
            return Ok((status, note));
        }
        notes.extend((!reason.is_empty()).then_some(note));
    }
    Ok((Status::Ok, notes.join("; ")))
}

/// Measures one state. Each has a server of its own: what one keeps for reuse would hide what the
/// next one needs.
fn measure_state(
    trial: &Trial,
    context: &TrialContext,
    counts: &[usize],
    state: &str,
    outcome: &mut Outcome,
) -> Result<(Status, String)> {
    let mut site = Site::start(trial, context, &mut outcome.row, |_| {})?;
    let most = counts.last().copied().unwrap_or_default();
    let more = [format!("--duration={}", humantime::format_duration(ACTIVE_TIME))];
    let mut load = site.load(most, &more)?;
    let instrument = MemoryInstrument::new(site.server.pid().context(UNSEEN)?)?;
    let mut points = Vec::new();
    let walked = walk(&mut site.server, &mut load, &instrument, counts, state, &mut points);
    // The readings stay, whatever ended the walk.
    record(state, &points, outcome);
    walked?;
    let row = &mut outcome.row;
    row.connections = row.connections.max(Some(most as u64));
    row.active_connections = Some(if state == ACTIVE { most as u64 } else { 0 });
    let processes = site.server.processes()?.map_or(1, |processes| processes.count());
    load.quit()?;
    let counters = site.stop(row)?;
    if processes > 1 {
        let reason = format!("the server has {processes} processes, and pages can be read of one");
        return Ok((Status::Unsupported, reason));
    }
    // The next walk begins where this one did.
    ramp::released(most)?;
    let sum = outcome.memory.iter().find(|row| row.state == state && row.object == KERNEL_SUM);
    let unsettled = points.iter().filter(|point| !point.reading.settled).count();
    let unavailable = instrument.slabs_unavailable().map(|unavailable| {
        format!("the server's own pages only, kernel objects cannot be read: {unavailable}")
    });
    Ok(gates::judge(&Evidence {
        unsettled_readings: (unsettled, points.len()),
        disturbed_slope: sum.and_then(slopes::disturbance),
        counters,
        not_in_force: in_force::missing(&row.knobs, &row.in_force),
        notes: unavailable.into_iter().collect(),
        ..Evidence::default()
    }))
}

/// Walks one server through the counts, up and down.
fn walk(
    server: &mut Server,
    load: &mut Client,
    instrument: &MemoryInstrument,
    counts: &[usize],
    state: &str,
    points: &mut Vec<WalkPoint>,
) -> Result<()> {
    let up = counts.iter().map(|&count| (UP, count));
    // Active connections that rest keep what those that were used have.
    let down = counts.iter().rev().filter(|_| state != ACTIVE).map(|&count| (DOWN, count));
    let ramp = Ramp::begin()?;
    for (direction, connections) in up.chain(down) {
        ramp.to(connections, None, server, load, |_| {})?;
        let reading = if state == ACTIVE {
            ramp.check_echo(connections)?;
            server.blaming(|_| read_active(load, instrument))?
        } else {
            if state == USED_THEN_IDLE && direction == UP {
                ramp.check_echo(connections)?;
                server.blaming(|_| load.command("echo 1", ECHO_TIME))?;
            }
            instrument.settle(SETTLE_TIME)?
        };
        points.push(WalkPoint { direction, connections, reading });
    }
    Ok(())
}

/// Reads while every connection is active, and returns the median of the readings. It is not
/// settled if the readings took longer than that.
fn read_active(load: &mut Client, instrument: &MemoryInstrument) -> Result<MemoryReading> {
    load.command("run", ECHO_TIME)?;
    let mut readings =
        (0..ACTIVE_READINGS).map(|_| instrument.read()).collect::<Result<Vec<_>, _>>()?;
    let read_at = Moment::now();
    // The window has ended; then comes its result.
    load.next(ECHO_TIME)?;
    let LoadEvent::Result(result) = load.next(ECHO_TIME)? else { bail!("the load gave no result") };
    let is_active = result.window_end_ns.is_some_and(|end_ns| !read_at.is_after(end_ns));
    readings.sort_by_key(|reading| reading.kernel_bytes().unwrap_or(reading.private_bytes));
    Ok(MemoryReading { settled: is_active, ..readings.swap_remove(ACTIVE_READINGS / 2) })
}

/// Returns space, object and bytes of everything in a reading.
fn objects(reading: &MemoryReading) -> Vec<(&'static str, &str, u64)> {
    let mut objects: Vec<(&'static str, &str, u64)> = Vec::new();
    let slabs = reading.slabs.iter().flatten().filter(|slab| !slab.filesystem);
    objects.extend(slabs.map(|slab| ("kernel", slab.name.as_str(), slab.bytes())));
    objects.push(("kernel", PAGE_TABLES, reading.page_tables_bytes));
    objects.extend(reading.kernel_bytes().map(|bytes| ("kernel", KERNEL_SUM, bytes)));
    objects.push(("user", USER_SUM, reading.private_bytes));
    let machine = &reading.machine;
    objects.extend([
        ("machine", "slab pages", machine.slab_bytes),
        ("machine", "page tables", machine.page_tables_bytes),
        ("machine", "anonymous pages", machine.anonymous_bytes),
        ("machine", "page cache", machine.page_cache_bytes),
        ("machine", "vmalloc", machine.vmalloc_bytes),
        ("machine", "per-cpu", machine.percpu_bytes),
        ("machine", "TCP data", reading.tcp_memory_pages * 4096),
        ("machine", UNEXPLAINED, machine.unexplained_bytes()),
        ("machine", USED_SUM, machine.used_bytes),
        ("machine", MACHINE_SUM, machine.available_bytes),
    ]);
    objects
}

/// Fills the rows of all objects in a state.
fn record(state: &str, points: &[WalkPoint], outcome: &mut Outcome) {
    let mut names = BTreeSet::new();
    let mut aliases = BTreeMap::new();
    for WalkPoint { reading, .. } in points {
        names.extend(objects(reading).into_iter().map(|(space, object, _)| (space, object)));
        let slabs = reading.slabs.iter().flatten();
        aliases.extend(slabs.map(|slab| (slab.name.as_str(), slab.aliases.join(" "))));
    }
    for (space, object) in names {
        let aliases = aliases.get(object).cloned().unwrap_or_default();
        record_object(state, space, object, aliases, points, outcome);
    }
}

/// Fills the rows of one object: its readings, and the slope through them.
fn record_object(
    state: &str,
    space: &str,
    object: &str,
    aliases: String,
    points: &[WalkPoint],
    outcome: &mut Outcome,
) {
    let series: Vec<u64> = points.iter().map(|point| bytes_of(point, space, object)).collect();
    let Some(up) = slope(points, &series, UP, object) else { return };
    let row = &mut outcome.row;
    match object {
        USER_SUM if state == NEVER_USED => row.memory_user_bytes_per_connection = Some(up.slope),
        KERNEL_SUM if state == NEVER_USED => {
            row.memory_kernel_bytes_per_connection = Some(up.slope);
        }
        _ => {}
    }
    let most = points.iter().map(|point| point.connections).max().unwrap_or_default();
    let swing =
        series.iter().max().zip(series.iter().min()).map_or(0, |(most, least)| most - least);
    if !SUMS.contains(&object) && swing < most as u64 {
        return;
    }
    let readings = points.iter().zip(&series).map(|(point, &bytes)| MemoryPointRow {
        run_id: row.run_id,
        arm: row.arm.clone(),
        backend: row.backend.clone(),
        state: state.to_owned(),
        direction: point.direction.to_owned(),
        connections: point.connections as u64,
        space: space.to_owned(),
        object: object.to_owned(),
        bytes,
        settled: point.reading.settled,
    });
    outcome.memory_points.extend(readings);
    outcome.memory.push(MemoryRow {
        run_id: row.run_id,
        arm: row.arm.clone(),
        backend: row.backend.clone(),
        state: state.to_owned(),
        space: space.to_owned(),
        object: object.to_owned(),
        aliases,
        bytes_per_connection: up.slope,
        low: up.slope_interval.map(|interval| interval.low),
        high: up.slope_interval.map(|interval| interval.high),
        intercept_bytes: up.intercept,
        down_bytes_per_connection: slope(points, &series, DOWN, object).map(|down| down.slope),
        // The cost over `null` is not known yet, nor is the trial's status.
        ..MemoryRow::default()
    });
}

/// Returns what an object took. A cache that is not listed is empty.
fn bytes_of(point: &WalkPoint, space: &str, object: &str) -> u64 {
    let objects = objects(&point.reading);
    let found = objects.iter().find(|(s, o, _)| (*s, *o) == (space, object));
    found.map_or(0, |&(.., bytes)| bytes)
}

/// Fits a line through the readings of one direction. Less available memory is more that is used.
fn slope(points: &[WalkPoint], bytes: &[u64], direction: &str, object: &str) -> Option<TheilSen> {
    let sign = if object == MACHINE_SUM { -1.0 } else { 1.0 };
    let readings = points.iter().zip(bytes).filter(|(point, _)| point.direction == direction);
    let readings = readings.map(|(point, &bytes)| (point.connections as f64, sign * bytes as f64));
    TheilSen::fit(&readings.collect::<Vec<_>>())
}
