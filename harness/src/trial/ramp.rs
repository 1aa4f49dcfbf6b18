//! Opens or closes many connections in steps. The steps show how fast it goes as their number
//! grows, and end before the machine's memory does.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::load::result::LatencyUs;
use crate::machine::cgroup::ControlGroup;
use crate::machine::meminfo::Meminfo;
use crate::matrix::connection_limits::reserve_bytes;
use crate::programs::client::Client;
use crate::programs::server::Server;

/// Connections that are opened or closed at once. They take two seconds, and half a gigabyte.
const STEP: usize = 51_200;

/// The outcome of a step.
pub struct Step {
    /// Connections that the load held after it.
    pub connections: usize,
    /// Connections that were opened or closed.
    pub changed: usize,
    /// From the order to the load until the server had taken note of the last.
    pub duration_s: f64,
    /// How long connect() took, of those that were opened.
    pub connect_us: LatencyUs,
    /// `MemAvailable` after it.
    pub available_bytes: u64,
}

/// The most that both ends of a connection take while it is opened, and a message in flight.
const CONNECTION_BYTES: u64 = 16 * 1024;
const MESSAGE_BYTES: u64 = 2 * 1024;

/// How long the machine may take to get back what a closed server held: the kernel tears sockets
/// and rings down after the process has ended.
const RELEASE_TIME: Duration = Duration::from_secs(30);

/// No more comes back when it is less than this in a pause. Few connections are torn down in a
/// shorter one.
const RELEASE_BYTES: u64 = 4 << 20;
const RELEASE_PAUSE: Duration = Duration::from_secs(2);
const RELEASE_PAUSE_MIN: Duration = Duration::from_millis(250);

/// The connections from which on the pause is the whole.
const MANY_CONNECTIONS: usize = 100_000;

/// The way from one number of connections to the next, with an eye on the machine's memory.
pub struct Ramp {
    /// The memory before there were connections.
    before: Available,
}

/// Memory that is available, and what of it the kernel says that it could reclaim.
struct Available {
    available_bytes: u64,
    reclaimable_bytes: u64,
}

impl Ramp {
    /// Begins where there are no connections.
    pub fn begin() -> io::Result<Self> {
        Ok(Self { before: Available::read()? })
    }

    /// Opens or closes connections of a load until it holds `target`, beside those of another;
    /// `each` gets every step.
    ///
    /// # Errors
    /// When the next step could leave less memory than the reserve, or a load ends.
    pub fn to(
        &self,
        target: usize,
        mut other: Option<&mut Client>,
        server: &mut Server,
        load: &mut Client,
        mut each: impl FnMut(Step),
    ) -> Result<()> {
        while load.connections() != target {
            let from = load.connections();
            let next = if from < target {
                target.min(from + STEP)
            } else {
                target.max(from.saturating_sub(STEP))
            };
            self.check(
                &Available::read()?,
                from + other.as_ref().map_or(0, |other| other.connections()),
                next.saturating_sub(from) as u64 * CONNECTION_BYTES,
            )?;
            let begin = Instant::now();
            let connect_us = server.blaming(|_| load.set_connections(next))?;
            server.await_open([&mut *load].into_iter().chain(other.as_deref_mut()))?;
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

    /// Checks memory before all connections have a message on their way at once.
    ///
    /// # Errors
    /// When that could leave less memory than the reserve.
    pub fn check_echo(&self, connections: usize) -> Result<()> {
        self.check(&Available::read()?, connections, connections as u64 * MESSAGE_BYTES)
    }

    /// Returns what is left, without the inodes and dentries of sockets, which the kernel takes for
    /// memory that it could reclaim.
    fn left_bytes(&self, now: &Available) -> u64 {
        let of_sockets = now.reclaimable_bytes.saturating_sub(self.before.reclaimable_bytes);
        now.available_bytes.saturating_sub(of_sockets)
    }

    fn check(&self, now: &Available, connections: usize, more_bytes: u64) -> Result<()> {
        let reserve = reserve_bytes(self.before.available_bytes);
        let left = self.left_bytes(now);
        ensure!(
            more_bytes == 0 || left.saturating_sub(more_bytes) >= reserve,
            "stopped at {connections} connections, before the machine runs out of memory: {} MiB \
             are left, the next step may take {}, and {} shall stay free; free some, or ask for \
             fewer with --connections",
            left >> 20,
            more_bytes >> 20,
            reserve >> 20
        );
        Ok(())
    }
}

impl Available {
    fn read() -> io::Result<Self> {
        let meminfo = Meminfo::read()?;
        let allowed = ControlGroup::read().memory_left_bytes.unwrap_or(u64::MAX);
        Ok(Self {
            available_bytes: meminfo.bytes("MemAvailable")?.min(allowed),
            reclaimable_bytes: meminfo.bytes("SReclaimable")?,
        })
    }
}

/// Returns `MemAvailable`, or less if a control group bounds it.
pub fn available_bytes() -> io::Result<u64> {
    Ok(Available::read()?.available_bytes)
}

/// Returns what is available once no more comes back after a server of so many connections has
/// ended.
pub fn released(connections: usize) -> io::Result<u64> {
    let share = connections as f64 / MANY_CONNECTIONS as f64;
    let pause = RELEASE_PAUSE.mul_f64(share).clamp(RELEASE_PAUSE_MIN, RELEASE_PAUSE);
    let deadline = Instant::now() + RELEASE_TIME;
    let mut last = available_bytes()?;
    loop {
        std::thread::sleep(pause);
        let now = available_bytes()?;
        if now < last + RELEASE_BYTES || Instant::now() >= deadline {
            return Ok(now);
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_before_the_reserve_is_used() {
        let gibibyte = 1 << 30;
        let memory =
            |available_bytes, reclaimable_bytes| Available { available_bytes, reclaimable_bytes };
        let ramp = Ramp { before: memory(64 * gibibyte, gibibyte) };
        let check = |memory: &Available, more_bytes| ramp.check(memory, 5, more_bytes);
        check(&memory(gibibyte, gibibyte), 0).expect("connections may be closed at any time");
        check(&memory(2 * gibibyte, gibibyte), gibibyte).expect("the reserve is left");
        check(&memory(2 * gibibyte, 0), gibibyte)
            .expect("what the kernel has reclaimed is available");
        let refused = check(&memory(2 * gibibyte, gibibyte), gibibyte + 1)
            .expect_err("less than the reserve");
        assert!(refused.to_string().contains("at 5 connections, before"), "{refused}");
        // Sockets hold three of five that are said to be available.
        assert_eq!(ramp.left_bytes(&memory(5 * gibibyte, 4 * gibibyte)), 2 * gibibyte);
    }

    #[test]
    fn a_small_machine_has_a_small_reserve() {
        assert_eq!(reserve_bytes(1 << 40), 1 << 30);
        assert_eq!(reserve_bytes(2_000_000_000), 100_000_000);
    }
}
