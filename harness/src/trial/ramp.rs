//! Many connections, opened or closed in steps, so that how fast that goes is seen as their number grows, and so
//! that it ends before the machine's memory does.

use std::io;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::children::{Load, Server};
use crate::doctor::reserve_bytes;
use crate::instruments::procfs;
use crate::load::result::LatencyUs;

/// Connections that are opened or closed at once: about two seconds' worth, and half a gigabyte.
const STEP: usize = 51_200;

/// What came of a step.
pub struct Step {
    /// Connections that the load held after it.
    pub connections: usize,
    /// How many were opened or closed.
    pub changed: usize,
    /// From the order to the load until the server had taken note of the last.
    pub duration_s: f64,
    /// Of those that were opened.
    pub connect_us: LatencyUs,
    /// `MemAvailable` after it.
    pub available_bytes: u64,
}

/// Opens or closes connections of a load until it holds `target`, beside `others` that other loads hold; `each` gets
/// every step. One that opens is not begun while less than a reserve is available.
pub fn to(
    target: usize,
    others: usize,
    server: &mut Server,
    load: &mut Load,
    mut each: impl FnMut(Step),
) -> Result<()> {
    while load.connections() != target {
        let from = load.connections();
        let next =
            if from < target { target.min(from + STEP) } else { target.max(from.saturating_sub(STEP)) };
        if next > from {
            check_memory(from + others)?;
        }
        let begin = Instant::now();
        let connect_us = load.set_connections(next).map_err(|error| server.blame(error))?;
        server.await_open((next + others) as u64)?;
        each(Step {
            connections: next,
            changed: next.abs_diff(from),
            duration_s: begin.elapsed().as_secs_f64(),
            connect_us,
            available_bytes: available_bytes()?,
        });
    }
    Ok(())
}

/// `MemAvailable`.
pub fn available_bytes() -> io::Result<u64> {
    procfs::kibibytes(&procfs::read("/proc/meminfo")?, "MemAvailable")
}

fn check_memory(connections: usize) -> Result<()> {
    let meminfo = procfs::read("/proc/meminfo")?;
    let left = procfs::kibibytes(&meminfo, "MemAvailable")?;
    let reserve = reserve_bytes(procfs::kibibytes(&meminfo, "MemTotal")?);
    ensure!(left >= reserve, out_of_memory(connections, left, reserve));
    Ok(())
}

fn out_of_memory(connections: usize, left: u64, reserve: u64) -> String {
    format!(
        "stopped at {connections} connections, before the machine runs out of memory: {} MiB are available, and {} \
         shall stay so; free some, or ask for fewer with --connections",
        left >> 20,
        reserve >> 20
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_keeps_a_reserve() {
        assert_eq!(reserve_bytes(1 << 40), 1 << 30);
        assert_eq!(reserve_bytes(2_000_000_000), 100_000_000);
        let words = out_of_memory(5, 99 << 20, 1 << 30);
        assert!(
            words.contains("at 5 connections") && words.contains("99 MiB") && words.contains("1024"),
            "{words}"
        );
        check_memory(0).expect("tests do not run on a machine that is full");
    }
}
