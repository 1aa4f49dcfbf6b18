//! Knobs drawn from their ranges, with a liking for the small values at which things run out.

use crate::support::{Knob, Values};
use fastrand::Rng;

/// How knobs are drawn for one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// None is set.
    Defaults,
    /// Each at or near the start of its range.
    Scarce,
    /// Each left alone, near the start of its range, or anywhere up to what a test can bear.
    Mixed,
}

/// Draws `--set` arguments out of some knobs.
pub fn draw<'a>(knobs: impl IntoIterator<Item = &'a Knob>, rng: &mut Rng) -> Vec<String> {
    let style =
        [Style::Defaults, Style::Scarce, Style::Mixed, Style::Mixed, Style::Mixed][rng.usize(..5)];
    let drawn = knobs.into_iter().filter_map(|knob| {
        let value = match &knob.values {
            _ if style == Style::Defaults => return None,
            Values::Words(words) => words[rng.usize(..words.len())].clone(),
            Values::Numbers(range) => {
                number(knob, *range.start(), *range.end(), style, rng)?.to_string()
            }
        };
        Some(format!("--set={}={value}", knob.name))
    });
    drawn.collect()
}

fn number(knob: &Knob, first: u64, last: u64, style: Style, rng: &mut Rng) -> Option<u64> {
    let cap = largest_bearable(&knob.name).clamp(first, last);
    let small = (first + first / 2 + 15).min(cap);
    match (style, rng.u32(..10)) {
        (Style::Scarce, 0..5) => Some(first),
        (Style::Scarce, _) => Some(rng.u64(first..=small)),
        (_, 0..4) => None,
        (_, 4 | 5) => Some(first),
        (_, 6..8) => Some(rng.u64(first..=small)),
        // As likely between 100 and 200 as between 1000 and 2000.
        _ => Some(
            ((first.max(1) as f64) * (cap as f64 / first.max(1) as f64).powf(rng.f64())) as u64,
        ),
    }
}

/// The largest value with which a seed still takes about a second and the machine's memory
/// suffices.
fn largest_bearable(knob: &str) -> u64 {
    match knob {
        "work_ns" => 10_000,
        "busy_poll_us" | "sq_idle_ms" => 20,
        "sq_cpu" => 2,
        "min_wait_us" => 1000,
        "min_wait_events" => 64,
        "receive_bytes" => 131_072,
        "buffer_bytes" => 16_384,
        "stack_bytes" => 1 << 20,
        _ => 4096,
    }
}

/// The value that `arguments` set a knob to.
pub fn set_to(arguments: &[String], knob: &str) -> Option<u64> {
    let prefix = format!("--set={knob}=");
    arguments.iter().find_map(|argument| argument.strip_prefix(&prefix)?.parse().ok())
}
