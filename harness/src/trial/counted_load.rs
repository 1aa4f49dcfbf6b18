//! The load of a pass that counts over a fixed number of echoes.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::site::Site;
use crate::load::result::{LoadEvent, LoadResult};
use crate::matrix::Workload;
use crate::programs::client::Client;
use crate::programs::server::Server;

/// How long the echoes may take, beside the time in which an open loop sends them.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a server may take to come to rest. An SQPOLL thread polls on for as long as
/// sq_thread_idle says (io_uring_setup(2)), 1 s if nothing is given.
pub const REST_TIME: Duration = Duration::from_secs(5);

/// A load whose connections are open and have been used.
pub struct CountedLoad<'a> {
    load: Client,
    workload: &'a Workload,
    /// The echoes of each connection.
    each: u64,
}

impl<'a> CountedLoad<'a> {
    /// Opens it for so many echoes in all; at least one for each connection.
    pub fn open(site: &mut Site<'_>, workload: &'a Workload, echoes: u64) -> Result<Self> {
        let each = (echoes / workload.connections as u64).max(1);
        let more: Vec<String> = workload.all_echoes(each).into_iter().collect();
        let mut load = site.open_load(workload.connections, None, &more)?;
        // Everything is touched once, so that growth of tables and buffers is not counted.
        let warm_up = site.server.blaming(|_| load.command("echo 1", Duration::from_secs(60)))?;
        ensure!(matches!(warm_up, LoadEvent::Echoed(_)), "no echo came back");
        Ok(Self { load, workload, each })
    }

    /// Returns how many echoes it makes in all.
    pub fn echoes(&self) -> u64 {
        self.each * self.workload.connections as u64
    }

    /// Makes the echoes.
    pub fn measure(&mut self, server: &mut Server) -> Result<LoadResult> {
        let time_s = self.workload.rate().map_or(0.0, |rate| self.echoes() as f64 / rate);
        let patience = PATIENCE + Duration::from_secs_f64(time_s);
        let command = self.workload.echo_command(self.each);
        let result = server.blaming(|_| self.load.measure(&command, patience))?;
        ensure!(result.echoes == self.echoes(), "{} echoes came back", result.echoes);
        Ok(result)
    }

    /// Ends it in order.
    pub fn quit(self) -> Result<()> {
        self.load.quit()
    }
}
