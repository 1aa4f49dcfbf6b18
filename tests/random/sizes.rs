//! The sizes of a play's conversations.

use fastrand::Rng;

/// Sizes of a conversation; none for an echo.
pub fn draw(rng: &mut Rng) -> Option<[u64; 2]> {
    let mut size = || 10_f64.powf(4.0 * rng.f64()) as u64;
    let request = size();
    // A flood of requests must not make a flood of responses that takes minutes.
    let sizes = [request, size().min(10 * request)];
    match rng.u32(..8) {
        0..4 => None,
        4 => Some([sizes[0], 0]),
        _ => Some(sizes),
    }
}

/// How many times as many bytes come back as are sent, rounded up.
pub fn growth(sizes: Option<[u64; 2]>) -> usize {
    sizes.map_or(1, |[request, response]| response.div_ceil(request).max(1) as usize)
}

/// The arguments of a server for these sizes.
pub fn arguments(sizes: Option<[u64; 2]>) -> Vec<String> {
    match sizes {
        None => Vec::new(),
        Some([request, 0]) => {
            vec!["--service=sink".to_owned(), format!("--request-bytes={request}")]
        }
        Some([request, response]) => vec![
            "--service=exchange".to_owned(),
            format!("--request-bytes={request}"),
            format!("--response-bytes={response}"),
        ],
    }
}
