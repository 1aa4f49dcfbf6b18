//! Says how many connections a matrix asks for.

use crate::matrix::{Matrix, Workload};

/// The most connections of a workload, and the workers and ports that hold them.
pub struct Demand {
    pub workload: String,
    pub connections: usize,
    pub workers: u16,
    pub ports: u16,
}

/// Lists the demands of a matrix's workloads.
pub fn demands(matrix: &Matrix) -> Vec<Demand> {
    if matrix.latency.is_none() && matrix.syscalls.is_none() {
        return Vec::new();
    }
    let demand = |workload: &Workload| Demand {
        workload: format!("workload '{}'", workload.name),
        connections: workload.all_connections(),
        workers: workload.workers.unwrap_or(matrix.workers),
        ports: workload.workers.or(matrix.ports).unwrap_or(matrix.workers),
    };
    matrix.workloads.iter().map(demand).collect()
}

/// Returns the most connections of a matrix at once, its walks among them.
pub fn most_connections(matrix: &Matrix) -> Option<u64> {
    let demands = demands(matrix).into_iter().map(|demand| demand.connections);
    demands.chain(matrix.most_walked()).max().map(|most| most as u64)
}
