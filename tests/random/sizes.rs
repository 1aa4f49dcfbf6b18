//! The sizes of a play's conversations.

use crate::support::Sizes;
use fastrand::Rng;

/// Sizes of a conversation; none for an echo.
pub fn draw(rng: &mut Rng) -> Option<Sizes> {
    let mut size = || 10_f64.powf(4.0 * rng.f64()) as u64;
    let request = size();
    // A flood of requests must not make a flood of responses that takes minutes.
    let response = size().min(10 * request);
    match rng.u32(..8) {
        0..4 => None,
        4 => Some(Sizes(request, 0)),
        _ => Some(Sizes(request, response)),
    }
}
