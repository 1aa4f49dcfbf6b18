//! Waits for a server to come to rest.

use std::time::{Duration, Instant};

use anyhow::Result;

/// A server is at rest when its clock moves less than this share of [`REST`].
const REST_SHARE: f64 = 0.05;

/// How long a server's clock is watched for that, each time.
pub const REST: Duration = Duration::from_millis(1);

/// Waits until a clock of CPU time hardly moves; returns false if it does for so long.
pub fn comes_to_rest(mut clock_ns: impl FnMut() -> Result<u64>, most: Duration) -> Result<bool> {
    let deadline = Instant::now() + most;
    loop {
        let (begun, before) = (Instant::now(), clock_ns()?);
        std::thread::sleep(REST);
        let moved_ns = clock_ns()?.saturating_sub(before) as f64;
        if moved_ns < REST_SHARE * begun.elapsed().as_nanos() as f64 {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
    }
}
