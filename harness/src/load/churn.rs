//! Churn: connections that are replaced while the load runs.
//!
//! After a given number of echoes, once all of them are back, the load closes an active connection
//! and opens another to the same port in its place. It closes with a FIN, so that the server sees
//! an orderly end and TIME_WAIT stays with the client, or by a reset. So as many stand as were
//! asked for, or are being opened, and all stand when a run ends. The latency of an echo does not
//! include the opening, which has figures of its own: from before connect() until the event that
//! the connection stands is taken. The kernel shakes hands before a server accepts, so a server
//! that is slow to accept shows in the latency of the first echo instead.

use std::sync::atomic::Ordering::Relaxed;

use anyhow::Result;
use mio::event::Event;

use super::open::OPENING_MAX;
use super::pace::Phase;
use super::thread::LoadThread;
use super::under_way::UnderWay;

impl LoadThread {
    /// Closes connection `index` and begins to open another in its place.
    pub fn replace(&mut self, index: usize) -> Result<()> {
        let plan = &self.shared.plan;
        // Each connection has bytes of its own. Those with the lowest numbers were the first ones'.
        let of_thread = self.opened + self.opening.len() as u64;
        let thread = plan.among_all(self.thread) as u64;
        let turn = of_thread * plan.threads_of_all() as u64 + thread;
        let number = plan.seed.wrapping_add(plan.connections as u64 + turn);
        self.in_flight[index].renew(&plan.message, number, plan.churn.unwrap_or(u64::MAX));
        // Closed before the next is opened, so that never more stand than were asked for. A batch
        // of events has one of each descriptor at most: none of the old connection's can follow.
        drop(self.sockets.swap_remove(index));
        self.shared.connected.fetch_sub(1, Relaxed);
        let socket = self.start(index)?;
        self.sockets.push(socket);
        let last = self.sockets.len() - 1;
        self.sockets.swap(index, last);
        Ok(())
    }

    /// Takes the first event of a connection that was being opened since `since_ns`, which comes
    /// when it stands or has failed, and begins to use it.
    pub fn replaced(
        &mut self,
        event: &Event,
        index: usize,
        since_ns: u64,
        run: &mut UnderWay,
    ) -> Result<()> {
        run.moved = true;
        let now_ns = self.finish_opening(index)?;
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.serve_idle(index)?;
        }
        if let Some(connect_ns) = &mut run.result.connect_ns
            && self.shared.window.phase(now_ns) == Phase::Within
        {
            connect_ns.saturating_record(now_ns - since_ns);
        }
        self.begin(index, run, now_ns);
        self.send(index, run).map(drop)
    }

    /// Replaces each connection on which the run before has left something owed, which would come
    /// back in this one.
    pub fn reopen_owing(&mut self) -> Result<()> {
        for index in 0..self.in_flight.len() {
            if self.in_flight[index].count() > 0 {
                self.replace(index)?;
            }
            if self.opening.len() >= OPENING_MAX {
                self.open(self.sockets.len())?;
            }
        }
        self.open(self.sockets.len()).map(drop)
    }
}
