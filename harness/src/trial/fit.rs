//! Whether the connections that a trial asks for fit into the server and into this machine.

use anyhow::Result;
use ringmark::backend;
use ringmark::backend::document::event_table::MAX_EPOLL_EVENTS;

use super::context::TrialContext;
use super::ramp;
use super::task::Trial;
use crate::matrix::connection_limits::{
    ConnectionLimit, OWN_DESCRIPTORS, own_descriptors, table_bytes,
};

/// Says why the backend's workers cannot hold the connections, if their descriptors are bounded.
pub fn too_many_for_backend(backend: &str, connections: usize, workers: u16) -> Option<String> {
    too_many(connections, workers, backend::find(backend).ok()?.descriptors_per_worker?)
}

fn too_many(connections: usize, workers: u16, bound: usize) -> Option<String> {
    let each = connections.div_ceil(usize::from(workers));
    (each + OWN_DESCRIPTORS > bound).then(|| {
        format!(
            "a worker holds {bound} descriptors at most, and {each} connections with \
             {OWN_DESCRIPTORS} files of its own are more; give it more workers or fewer connections"
        )
    })
}

/// Returns how many connections fit on this machine if they are fewer than `wanted`, and why.
pub fn limit(
    trial: &Trial,
    context: &TrialContext,
    wanted: usize,
) -> Result<Option<ConnectionLimit>> {
    let limits = context.connection_limits.with_available(ramp::available_bytes()?);
    let backend = &trial.arm.backend;
    let own = own_descriptors(context.workers, context.ports);
    let (workers, ports) = (context.workers.into(), context.ports.into());
    let limits = if context.external(backend).is_some() {
        limits.for_external(own)
    } else if backend::find(backend).is_ok_and(|entry| entry.shares_files) {
        limits.for_shared_files(workers, ports, own)
    } else {
        limits.for_server(workers, ports, own, table_bytes([backend.as_str()]))
    };
    let tightest = limits.into_iter().min_by_key(|limit| limit.connections);
    let Some(limit) = tightest.filter(|limit| limit.connections < wanted as u64) else {
        return Ok(None);
    };
    let ConnectionLimit { connections, reason } = limit;
    // A round number, of which each worker has as many: whole blocks of the document's table if
    // there are several.
    let workers = u64::from(context.workers);
    let blocks = workers * MAX_EPOLL_EVENTS as u64;
    let unit = if connections >= 4 * blocks { blocks } else { workers };
    Ok(Some(ConnectionLimit {
        connections: connections / unit * unit,
        reason: format!(
            "{wanted} connections skipped: there is room for {connections} by {reason}"
        ),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_on_descriptors_leaves_room_for_the_workers_own() {
        assert_eq!(too_many_for_backend("epoll-et", 1_000_000, 1), None);
        assert_eq!(too_many(1000, 1, 1024), None);
        assert_eq!(too_many(1008, 1, 1024), None);
        let reason = too_many(1009, 1, 1024).expect("one too many");
        assert!(
            reason.contains("1024 descriptors") && reason.contains("1009 connections"),
            "{reason}"
        );
        assert_eq!(too_many(2016, 2, 1024), None, "two workers share them");
        assert!(too_many(2017, 2, 1024).is_some());
    }
}
