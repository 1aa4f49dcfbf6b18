//! The pictures of a run. A picture that a run has nothing for is not drawn, and the page says why.

mod connections;
mod counts;
mod cpu;
mod crossing;
mod instructions;
mod kernels;
mod kit;
mod latency;

use std::path::Path;

use self::kit::Found;
use super::chart::Chart;
use crate::results::Run;

/// The pictures of a run.
pub struct Gallery {
    pub charts: Vec<Chart>,
    /// The pictures that could not be drawn, and why.
    pub absent: Vec<(&'static str, String)>,
}

/// Draws everything that the run has figures for.
pub fn all(run: &Run, folder: &Path) -> Gallery {
    let kinds: [(&str, Found); 13] = [
        ("Latency against the offered rate", latency::by_rate(run)),
        ("CPU per echo against the rate", crossing::by_rate(run)),
        ("CPU per echo against the baseline", cpu::ratios(run, &cpu::CPU)),
        ("99th percentile against the baseline", cpu::ratios(run, &cpu::P99)),
        ("CPU per echo", cpu::absolute(run)),
        ("Latency by percentile", latency::by_percentile(run, folder)),
        ("System calls per echo", counts::syscalls(run)),
        ("Instructions per echo", instructions::by_class(run)),
        ("Instructions per echo by kernel", kernels::instructions(run)),
        ("Memory per connection", counts::memory(run)),
        ("Memory per connection by kernel", kernels::memory(run)),
        ("Cost against the number of connections", connections::costs(run)),
        ("Opening rate", connections::opening(run)),
    ];
    let mut gallery = Gallery { charts: Vec::new(), absent: Vec::new() };
    for (kind, found) in kinds {
        match found {
            Ok(charts) => gallery.charts.extend(charts),
            Err(why) => gallery.absent.push((kind, why)),
        }
    }
    gallery
}
