//! Reads and writes lists of CPUs as `taskset -c` and the kernel do: `0-3,8`.

use std::str::FromStr;
use std::{fmt, io};

use serde::{Deserialize, Serialize};

/// A set of CPUs by number, ascending and without repetition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CpuList(Vec<usize>);

/// The first CPU number that is refused, because no kernel is built for more (NR_CPUS is at most
/// 8192).
const MAX_CPUS: usize = 8192;

impl CpuList {
    /// Reads the CPUs on which the calling thread may run (sched_getaffinity(2)).
    pub fn allowed() -> io::Result<Self> {
        let mut mask = [0u64; MAX_CPUS / 64];
        // SAFETY: the pointer and the size describe `mask`, which lives through the call; the
        // kernel writes at most that many bytes, and any bit pattern is a valid u64. cpu_set_t is
        // an array of the same words.
        let done =
            unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self((0..MAX_CPUS).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect()))
    }

    /// Lets the calling thread run on these CPUs only, see [`pin`].
    pub fn pin(&self) -> io::Result<()> {
        pin(&self.0)
    }

    /// Keeps the CPUs that are among others too.
    pub fn within(&self, others: &Self) -> Self {
        Self(self.0.iter().copied().filter(|cpu| others.0.contains(cpu)).collect())
    }

    /// Returns the CPUs, ascending.
    pub fn cpus(&self) -> &[usize] {
        &self.0
    }
}

/// Lets the calling thread, and what it starts or becomes, run on these CPUs only
/// (sched_setaffinity(2)).
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    let mut mask = [0u64; MAX_CPUS / 64];
    for &cpu in cpus {
        *mask.get_mut(cpu / 64).ok_or(io::ErrorKind::InvalidInput)? |= 1 << (cpu % 64);
    }
    // SAFETY: 0 is the calling thread; the kernel reads `mask`, of the given size, which lives
    // through the call. cpu_set_t is an array of the same words.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cpus = ringmark::cpus::parse(text, MAX_CPUS)?;
        cpus.sort_unstable();
        cpus.dedup();
        Ok(Self(cpus))
    }
}

impl From<CpuList> for String {
    fn from(list: CpuList) -> Self {
        list.to_string()
    }
}

impl TryFrom<String> for CpuList {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|a, b| a + 1 == *b);
        for (index, run) in runs.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match run {
                [only] => write!(f, "{comma}{only}")?,
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [] => unreachable!("a run has at least one element"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::machine::procfs;

    #[test]
    fn parses_and_prints() {
        for (text, cpus, printed) in [
            ("0", vec![0], "0"),
            ("0-3,8", vec![0, 1, 2, 3, 8], "0-3,8"),
            ("8,0,1, 2", vec![0, 1, 2, 8], "0-2,8"),
            ("1,1-2,2", vec![1, 2], "1-2"),
        ] {
            let list: CpuList = text.parse().unwrap();
            assert_eq!(list.cpus(), cpus);
            assert_eq!(list.to_string(), printed);
        }
    }

    #[test]
    fn refuses_what_is_no_list() {
        for text in ["", "a", "1,", "3-1", "-1", "1-", "0-99999999999", "8192"] {
            assert!(text.parse::<CpuList>().is_err(), "{text}");
        }
    }

    #[test]
    fn pins_to_all_of_a_list() {
        std::thread::spawn(|| {
            let allowed = CpuList::allowed().unwrap();
            let last = CpuList(vec![*allowed.cpus().last().unwrap()]);
            last.pin().unwrap();
            assert_eq!(CpuList::allowed().unwrap(), last);
            allowed.pin().unwrap();
            assert_eq!(CpuList::allowed().unwrap(), allowed);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn agrees_with_the_kernel() {
        let status = procfs::read("/proc/thread-self/status").unwrap();
        let expected = procfs::text(&status, "Cpus_allowed_list").unwrap();
        assert_eq!(CpuList::allowed().unwrap().to_string(), expected);
    }
}
