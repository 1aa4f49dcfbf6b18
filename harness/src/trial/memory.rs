//! What a connection costs, as a slope: one server is walked through several connection counts, up
//! and down, and everything that could hold a connection's memory is read at each, at rest.
//!
//! The cost is the slope of the way up. The way down has a slope of its own: where it is smaller,
//! the server or its ring keeps what it once needed, as io_uring keeps its requests for reuse.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ringmark::backend;

use super::clock::Moment;
use super::gates::{self, Evidence};
use super::ramp::{self, Ramp};
use super::{Trial, TrialContext, UNSEEN};
use crate::load::result::LoadEvent;
use crate::machine::memory::{MemoryInstrument, MemoryReading};
use crate::matrix::Memory;
use crate::programs::client::Load;
use crate::programs::server::Server;
use crate::rows::{
    ACTIVE, KERNEL_SUM, MACHINE_SUM, MemoryPointRow, MemoryRow, NEVER_USED, Outcome, PAGE_TABLES,
    Status, TrialRow, UNEXPLAINED, USED_SUM, USED_THEN_IDLE, USER_SUM,
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

/// What was read at one connection count.
struct Point {
    direction: &'static str,
    connections: usize,
    reading: MemoryReading,
}

pub fn measure(
    trial: &Trial,
    context: &TrialContext,
    memory: &Memory,
    outcome: &mut Outcome,
) -> Result<(Status, String)> {
    // Of a server that is not ours nothing else is expected.
    let echoes = backend::find(&trial.arm.backend).map_or(true, |entry| entry.echoes);
    let (memory, skipped) = match trial.room(context, memory.most())? {
        Some((room, reason)) => (&memory.up_to(room), Some(reason)),
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

/// Each state has a server of its own: what one keeps for reuse would hide what the next one needs.
fn measure_state(
    trial: &Trial,
    context: &TrialContext,
    counts: &[usize],
    state: &str,
    outcome: &mut Outcome,
) -> Result<(Status, String)> {
    let row = &mut outcome.row;
    let namespace = trial.namespace(context, row);
    let mut server = trial.server(context, namespace.as_ref(), row, |_| {})?;
    let most = counts.last().copied().unwrap_or_default();
    let more = [format!("--duration={}", humantime::format_duration(ACTIVE_TIME))];
    let mut load = trial.load(context, namespace.as_ref(), &server, row, most, &more)?;
    let instrument = MemoryInstrument::new(server.pid().context(UNSEEN)?)?;
    let mut points = Vec::new();
    let walked = walk(&mut server, &mut load, &instrument, counts, state, &mut points);
    // What was read stays, whatever ended the walk.
    record(trial.run_id, row, state, &points, &mut outcome.memory_points, &mut outcome.memory);
    walked?;
    row.connections = row.connections.max(Some(most as u64));
    row.active_connections = Some(if state == ACTIVE { most as u64 } else { 0 });
    let processes = server.processes()?.map_or(1, |processes| processes.count());
    load.quit()?;
    let counters = trial.stop(server, row)?;
    if processes > 1 {
        let reason = format!("the server has {processes} processes, and pages can be read of one");
        return Ok((Status::Unsupported, reason));
    }
    // The next walk begins where this one did.
    ramp::released()?;
    let sum = outcome.memory.iter().find(|row| row.state == state && row.object == KERNEL_SUM);
    let unsettled = points.iter().filter(|point| !point.reading.settled).count();
    let mut evidence = Evidence {
        unsettled_readings: (unsettled, points.len()),
        disturbed_slope: sum.and_then(slopes::disturbance),
        counters,
        not_in_force: gates::not_in_force(&row.knobs, &row.in_force),
        ..Evidence::default()
    };
    if let Some(unavailable) = instrument.slabs_unavailable() {
        evidence.notes.push(format!(
            "the server's own pages only, kernel objects cannot be read: {unavailable}"
        ));
    }
    Ok(gates::judge(&evidence))
}

fn walk(
    server: &mut Server,
    load: &mut Load,
    instrument: &MemoryInstrument,
    counts: &[usize],
    state: &str,
    points: &mut Vec<Point>,
) -> Result<()> {
    let up = counts.iter().map(|&count| (UP, count));
    // What active connections keep once they rest is what those that were used have.
    let down = counts.iter().rev().filter(|_| state != ACTIVE).map(|&count| (DOWN, count));
    let ramp = Ramp::begin()?;
    for (direction, connections) in up.chain(down) {
        ramp.to(connections, 0, server, load, |_| {})?;
        let reading = match state {
            ACTIVE => {
                ramp.check_echo(connections)?;
                read_active(server, load, instrument)?
            }
            _ => {
                if state == USED_THEN_IDLE && direction == UP {
                    ramp.check_echo(connections)?;
                    load.command("echo 1", ECHO_TIME).map_err(|error| server.blame(error))?;
                }
                instrument.settle(SETTLE_TIME)?
            }
        };
        points.push(Point { direction, connections, reading });
    }
    Ok(())
}

/// The median of some readings while every connection is active; not settled if the readings took
/// longer than that.
fn read_active(
    server: &mut Server,
    load: &mut Load,
    instrument: &MemoryInstrument,
) -> Result<MemoryReading> {
    let expect =
        |event: Result<LoadEvent>, server: &mut Server| event.map_err(|error| server.blame(error));
    expect(load.command("run", ECHO_TIME), server)?;
    let mut readings =
        (0..ACTIVE_READINGS).map(|_| instrument.read()).collect::<Result<Vec<_>, _>>()?;
    let read_at = Moment::now();
    // That the window has ended, and what came of it.
    expect(load.next(ECHO_TIME), server)?;
    let LoadEvent::Result(result) = expect(load.next(ECHO_TIME), server)? else {
        bail!("the load gave no result")
    };
    let is_active = result.window_end_ns.is_some_and(|end_ns| !read_at.is_after(end_ns));
    readings.sort_by_key(|reading| reading.kernel_bytes().unwrap_or(reading.user.private_bytes));
    Ok(MemoryReading { settled: is_active, ..readings.swap_remove(ACTIVE_READINGS / 2) })
}

/// Space, object and bytes of everything in a reading.
fn objects(reading: &MemoryReading) -> Vec<(&'static str, &str, u64)> {
    let mut objects: Vec<(&'static str, &str, u64)> = Vec::new();
    let slabs = reading.slabs.iter().flatten().filter(|slab| !slab.filesystem);
    objects.extend(slabs.map(|slab| ("kernel", slab.name.as_str(), slab.bytes())));
    objects.push(("kernel", PAGE_TABLES, reading.page_tables_bytes));
    objects.extend(reading.kernel_bytes().map(|bytes| ("kernel", KERNEL_SUM, bytes)));
    objects.push(("user", USER_SUM, reading.user.private_bytes));
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

fn record(
    run_id: u32,
    row: &mut TrialRow,
    state: &str,
    points: &[Point],
    all_points: &mut Vec<MemoryPointRow>,
    slopes: &mut Vec<MemoryRow>,
) {
    let mut names = BTreeSet::new();
    let mut aliases = BTreeMap::new();
    for Point { reading, .. } in points {
        names.extend(objects(reading).into_iter().map(|(space, object, _)| (space, object)));
        let slabs = reading.slabs.iter().flatten();
        aliases.extend(slabs.map(|slab| (slab.name.as_str(), slab.aliases.join(" "))));
    }
    for (space, object) in names {
        let series: Vec<(f64, u64)> = points
            .iter()
            .map(|point| {
                // A cache that is not listed is empty.
                let found = objects(&point.reading)
                    .into_iter()
                    .find(|(s, o, _)| (*s, *o) == (space, object));
                (point.connections as f64, found.map_or(0, |(.., bytes)| bytes))
            })
            .collect();
        let fit = |wanted: &str| {
            let of_direction =
                points.iter().zip(&series).filter(|(point, _)| point.direction == wanted);
            // What is available less is used more.
            let sign = if object == MACHINE_SUM { -1.0 } else { 1.0 };
            TheilSen::fit(
                &of_direction.map(|(_, &(x, y))| (x, sign * y as f64)).collect::<Vec<_>>(),
            )
        };
        let Some(line) = fit(UP) else { continue };
        let line_down = fit(DOWN);
        match object {
            USER_SUM if state == NEVER_USED => {
                row.memory_user_bytes_per_connection = Some(line.slope)
            }
            KERNEL_SUM if state == NEVER_USED => {
                row.memory_kernel_bytes_per_connection = Some(line.slope)
            }
            _ => {}
        }
        let is_sum = [KERNEL_SUM, USER_SUM, MACHINE_SUM, USED_SUM, UNEXPLAINED].contains(&object);
        let readings = || series.iter().map(|&(_, bytes)| bytes);
        let swing = readings().max().unwrap_or_default() - readings().min().unwrap_or_default();
        let most = points.iter().map(|point| point.connections).max().unwrap_or_default();
        if !is_sum && swing < most as u64 {
            continue;
        }
        all_points.extend(points.iter().zip(&series).map(|(point, &(_, bytes))| MemoryPointRow {
            run_id,
            arm: row.arm.clone(),
            backend: row.backend.clone(),
            state: state.to_owned(),
            direction: point.direction.to_owned(),
            connections: point.connections as u64,
            space: space.to_owned(),
            object: object.to_owned(),
            bytes,
            settled: point.reading.settled,
        }));
        slopes.push(MemoryRow {
            run_id,
            arm: row.arm.clone(),
            backend: row.backend.clone(),
            state: state.to_owned(),
            space: space.to_owned(),
            object: object.to_owned(),
            aliases: aliases.get(object).cloned().unwrap_or_default(),
            bytes_per_connection: line.slope,
            low: line.slope_interval.map(|interval| interval.low),
            high: line.slope_interval.map(|interval| interval.high),
            intercept_bytes: line.intercept,
            down_bytes_per_connection: line_down.map(|line| line.slope),
            over_null_bytes_per_connection: None,
            over_null_low: None,
            over_null_high: None,
            // That of the trial, which is not known yet.
            status: Status::Failed,
        });
    }
}
