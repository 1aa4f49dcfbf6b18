//! `memory_points.csv` and `memory.csv`: readings of memory, and what a connection costs by them.

use serde::{Deserialize, Serialize};

use super::words::Status;

/// A row of `memory_points.csv`: one reading of one object at one connection count. An object is
/// left out, here and in `memory.csv`, if its readings differ by less than a byte for each
/// connection of the walk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryPointRow {
    /// The trial.
    pub run_id: u32,
    /// Its arm.
    pub arm: String,
    /// Its backend.
    pub backend: String,
    /// `never-used`, `used-then-idle` or `active`.
    pub state: String,
    /// `up` or `down`: how the count was reached.
    pub direction: String,
    /// Connections that stood.
    pub connections: u64,
    /// `kernel`, `user` or `machine`.
    pub space: String,
    /// A slab cache, or one of the sums.
    pub object: String,
    /// The bytes in use.
    pub bytes: u64,
    /// Whether the reading had come to rest.
    pub settled: bool,
}

/// A row of `memory.csv`: what one connection costs of one object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryRow {
    /// The trial.
    pub run_id: u32,
    /// Its arm.
    pub arm: String,
    /// Its backend.
    pub backend: String,
    /// `never-used`: no connection has sent anything. `used-then-idle`: each has made one echo and
    /// rests. `active`: each has a message in flight at any moment.
    pub state: String,
    /// `kernel`, `user` or `machine`.
    pub space: String,
    /// A slab cache, or one of the sums.
    pub object: String,
    /// All names of a cache that several kinds of objects share.
    pub aliases: String,
    /// Theil–Sen slope over the points of the way up.
    pub bytes_per_connection: f64,
    /// Lower end of its 95 % interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// The line's value at no connection.
    pub intercept_bytes: f64,
    /// The slope of the way down: if it is less, memory was kept for reuse.
    pub down_bytes_per_connection: Option<f64>,
    /// The kernel's slope less that of `null`, never used: what the backend adds to two bare TCP
    /// endpoints. In user space the slope itself: `null`'s own pages are no part of another server.
    pub over_null_bytes_per_connection: Option<f64>,
    /// Lower end of its interval: the lower end of this slope less the upper end of `null`'s.
    pub over_null_low: Option<f64>,
    /// Upper end.
    pub over_null_high: Option<f64>,
    /// Status of the trial; only `ok` is compared and reported. `slopes.rs` finds the slopes of an
    /// `ok` trial that show something else's memory, or are not told from 0. Nothing is computed
    /// from these.
    pub status: Status,
}

impl MemoryRow {
    /// Returns connections and bytes of the readings that the slope is through.
    pub fn way_up<'a>(
        &'a self,
        points: &'a [MemoryPointRow],
    ) -> impl Iterator<Item = (f64, f64)> + 'a {
        let is_own = |point: &&MemoryPointRow| {
            (point.run_id, &point.state, &point.space, &point.object, point.direction.as_str())
                == (self.run_id, &self.state, &self.space, &self.object, "up")
        };
        points.iter().filter(is_own).map(|point| (point.connections as f64, point.bytes as f64))
    }
}
