//! Pressure stall information: how long tasks of the machine waited for CPUs or for I/O
//! (Documentation/accounting/psi.rst, Linux 4.20).

use std::io;

use super::procfs;

/// The time for which some task waited, from boot or between two readings, in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// For a CPU.
    pub cpu_us: u64,
    /// For I/O, as the kernel's scheduler counts it: a sleep that is marked as one (`in_iowait`).
    pub io_us: u64,
}

impl Pressure {
    /// Reads /proc/pressure.
    ///
    /// # Errors
    /// The kernel has none (CONFIG_PSI, `psi=0`), or it is masked.
    pub fn read() -> io::Result<Self> {
        let read = |of: &str| some_us(&procfs::read(format!("/proc/pressure/{of}"))?);
        Ok(Self { cpu_us: read("cpu")?, io_us: read("io")? })
    }

    /// Returns the time since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu_us: self.cpu_us.saturating_sub(earlier.cpu_us),
            io_us: self.io_us.saturating_sub(earlier.io_us),
        }
    }
}

/// Finds the total of the line `some`.
fn some_us(text: &str) -> io::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some ")).unwrap_or_default();
    let total = line.split(' ').find_map(|word| word.strip_prefix("total="));
    total.and_then(|us| us.parse().ok()).ok_or_else(|| procfs::missing("total"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_some_is_found_in_what_the_kernel_writes() {
        let text = "some avg10=0.12 avg60=0.00 avg300=0.00 total=1234567\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=89\n";
        assert_eq!(some_us(text).expect("a total"), 1_234_567);
        assert!(some_us("full avg10=0.00 total=89\n").is_err());
    }
}
