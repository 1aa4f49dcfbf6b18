//! Whether the CPU's own counters can be read. Nothing that ringmark reports needs them, but
//! perf(1) does.

use perf_event::Builder;
use perf_event::events::Hardware;

use super::Unavailable;
use super::tracepoints::refused;

/// Counts the cycles of the calling thread for a moment, to see whether that works.
pub fn try_cycles() -> Result<(), Unavailable> {
    let counted =
        Builder::new(Hardware::CPU_CYCLES).enabled(true).build().and_then(|mut counter| {
            for number in 0..10_000_u32 {
                std::hint::black_box(number);
            }
            counter.read()
        });
    match counted {
        Ok(0) => Err(Unavailable::new("the counter of cycles opens, but stays at 0")),
        Ok(_) => Ok(()),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP) => {
                Unavailable::new("no hardware counters: virtual machines mostly have none")
            }
            _ => refused(&error),
        }),
    }
}
