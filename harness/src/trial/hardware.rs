//! The CPUs' own counts of the server's threads, over a fixed number of echoes between two moments
//! of rest.

use anyhow::{Context, Result, ensure};

use super::context::TrialContext;
use super::counted_load::{CountedLoad, REST_TIME};
use super::evidence::Evidence;
use super::rest::comes_to_rest;
use super::site::{Site, UNSEEN};
use super::task::Trial;
use super::window::server_cpu_ns;
use super::{gates, in_force};
use crate::machine::Unavailable;
use crate::machine::hardware::{CounterReading, CpuMode, HardwareCounters, HardwareEvent};
use crate::matrix::Workload;
use crate::rows::{HardwareRow, Outcome, Status, TrialRow};

/// Measures one trial of the pass.
pub fn measure(
    trial: &Trial,
    context: &TrialContext,
    workload: &Workload,
    echoes: u64,
    outcome: &mut Outcome,
) -> Result<(Status, String)> {
    let mut counters = Err(Unavailable::new("the server did not hold"));
    let mut site = Site::start(trial, context, &mut outcome.row, |pid| {
        counters = match pid {
            Some(pid) => HardwareCounters::attach(pid),
            None => Err(Unavailable::new(UNSEEN)),
        };
    })?;
    let mut counters = match counters {
        Ok(counters) => counters,
        Err(unavailable) => return Ok((Status::Unsupported, unavailable.to_string())),
    };
    let mut load = CountedLoad::open(&mut site, workload, echoes)?;
    rest(&mut site)?;
    let before = (counters.read().context("read the counters")?, site.server.counters()?);
    let result = load.measure(&mut site.server)?;
    rest(&mut site)?;
    let after = (counters.read().context("read the counters")?, site.server.counters()?);
    load.quit()?;
    let row = &mut outcome.row;
    let counted = site.stop(row)?;
    row.connections = Some(after.1.of_loop("open"));
    row.active_connections = Some(result.active_connections as u64);
    row.echoes = Some(result.echoes);
    row.events_per_wait = after.1.events_per_wait_since(&before.1);
    let since = before.0.iter().zip(after.0).map(|((mode, event, first), (.., last))| {
        hardware_row(row, *mode, *event, last.since(first), result.echoes as f64)
    });
    outcome.hardware = since.collect();
    let row = &outcome.row;
    Ok(gates::judge(&Evidence {
        connections: (workload.connections as u64, row.connections.unwrap_or_default()),
        counters: counted,
        not_in_force: in_force::missing(&row.knobs, &row.in_force),
        ..Evidence::default()
    }))
}

/// Waits until the server's clock stands still.
fn rest(site: &mut Site<'_>) -> Result<()> {
    let processes = site.server.processes()?;
    let server = &mut site.server;
    let is_at_rest = comes_to_rest(|| server_cpu_ns(server, processes.as_ref()), REST_TIME)?;
    ensure!(is_at_rest, "the server did not come to rest within {} s", REST_TIME.as_secs());
    Ok(())
}

fn hardware_row(
    row: &TrialRow,
    mode: CpuMode,
    event: HardwareEvent,
    reading: CounterReading,
    echoes: f64,
) -> HardwareRow {
    let scaled = reading.scaled();
    HardwareRow {
        run_id: row.run_id,
        workload: row.workload.clone(),
        arm: row.arm.clone(),
        backend: row.backend.clone(),
        mode: mode.name().to_owned(),
        event: event.name().to_owned(),
        counted: reading.count,
        running_percent: 100.0 * reading.share(),
        count_per_echo: scaled.as_ref().ok().map(|count| count / echoes),
        source: match scaled {
            Ok(_) => "perf_event".to_owned(),
            Err(unavailable) => format!("unavailable: {unavailable}"),
        },
    }
}
