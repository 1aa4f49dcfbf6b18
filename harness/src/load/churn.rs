//! Churn: connections that are replaced while the load runs.
//!
//! After a given number of echoes an active connection is reset like any other, once all of them
//! are back, and another is opened to the same port in its place. So as many stand as were asked
//! for, or are being opened, and when a run ends all stand again. The latency of an echo does not
//! include the opening, which is recorded for itself: from before connect() until the event that
//! the connection stands is taken. The kernel shakes hands before a server accepts, so a server
//! that is slow to accept shows in the latency of the first echo instead.

use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context as _, Result};
use mio::event::Event;

use super::pace::Moment;
use super::process::monotonic_ns;
use super::worker::{Served, Tally, Worker};

impl Worker {
    /// Resets connection `index` and begins to open another in its place.
    pub(super) fn replace(&mut self, index: usize) -> Result<()> {
        let plan = &self.shared.plan;
        // Each connection has bytes of its own. Those with the lowest numbers were the first ones'.
        let turn =
            (self.opened + self.under_way.len() as u64) * plan.threads as u64 + self.thread as u64;
        let stream = plan.seed.wrapping_add(plan.connections as u64 + turn);
        self.flights[index].renew(stream, plan.churn.unwrap_or(u64::MAX));
        // Closed before the next is opened, so that never more stand than were asked for. A batch
        // of events has one of each descriptor at most: none of the old connection's can follow.
        drop(self.sockets.swap_remove(index));
        self.shared.connected.fetch_sub(1, Relaxed);
        let (socket, since_ns) = self.start(index).map_err(|error| self.explain(index, &error))?;
        self.sockets.push(socket);
        let last = self.sockets.len() - 1;
        self.sockets.swap(index, last);
        self.under_way.insert(index, since_ns);
        Ok(())
    }

    /// Takes the first event of a connection that was being opened since `since_ns`, which comes
    /// when it stands or has failed, and begins to use it.
    pub(super) fn replaced(
        &mut self,
        event: &Event,
        index: usize,
        since_ns: u64,
        tally: &mut Tally,
    ) -> Result<Served> {
        if let Some(error) = self.sockets[index].take_error().context("SO_ERROR")? {
            return Err(self.explain(index, &error));
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.serve_idle(index)?;
        }
        let now_ns = monotonic_ns();
        self.opened += 1;
        self.shared.connected.fetch_add(1, Relaxed);
        if let Some(connect_ns) = &mut tally.connect_ns
            && self.shared.window.moment(now_ns) == Moment::Within
        {
            connect_ns.saturating_record(now_ns - since_ns);
        }
        let begun = self.begin(index, now_ns);
        self.send(index)?;
        Ok(Served { completed: 0, begun, moved: true })
    }
}
