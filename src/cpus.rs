//! Lists of CPUs, as taskset(1) and the kernel write them, and pinning to them.

use crate::error::check;
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use std::{fmt, io};

/// One more than the highest CPU number that is understood: no kernel is built for more (NR_CPUS).
const MAX_CPUS: usize = 8192;

/// In the layout of `cpu_set_t`, which ends at 1,024 CPUs.
type Mask = [u64; MAX_CPUS / 64];

/// CPUs by number, in the order in which they were given: `0-3,8`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CpuList(Vec<usize>);

/// A part of a list of CPUs that is neither a number nor a range.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is neither a CPU number below {MAX_CPUS} nor a range like 0-3")]
pub struct NotCpus(String);

impl CpuList {
    /// Returns the CPUs on which the calling thread may run (sched_getaffinity(2)).
    pub fn allowed() -> io::Result<Self> {
        let mut mask: Mask = [0; _];
        // SAFETY: the kernel writes at most the length of `mask`, whose bits may all be set.
        check(unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) })?;
        Ok(Self((0..MAX_CPUS).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect()))
    }

    /// Lets the calling thread run on these CPUs only, see [`pin`].
    pub fn pin(&self) -> io::Result<()> {
        pin(&self.0)
    }

    /// Returns these CPUs, ascending and without repetition.
    pub fn set(mut self) -> Self {
        self.0.sort_unstable();
        self.0.dedup();
        self
    }

    /// Returns those of these CPUs that are among others too.
    pub fn within(&self, others: &Self) -> Self {
        Self(self.0.iter().copied().filter(|cpu| others.0.contains(cpu)).collect())
    }

    /// The CPUs in their order.
    pub fn cpus(&self) -> &[usize] {
        &self.0
    }
}

/// Lets the calling thread, and what it starts or becomes, run on these CPUs only
/// (sched_setaffinity(2)).
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    let mut mask: Mask = [0; _];
    for &cpu in cpus {
        let word = mask.get_mut(cpu / 64);
        *word.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))? |= 1 << (cpu % 64);
    }
    // SAFETY: 0 is the calling thread, and the kernel reads at most the length of `mask`.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) }).map(drop)
}

impl FromStr for CpuList {
    type Err = NotCpus;

    fn from_str(text: &str) -> Result<Self, NotCpus> {
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
                (Ok(first), Ok(last)) if first <= last && last < MAX_CPUS => {
                    cpus.extend(first..=last);
                }
                _ => return Err(NotCpus(part.to_owned())),
            }
        }
        Ok(Self(cpus))
    }
}

impl From<CpuList> for String {
    fn from(list: CpuList) -> Self {
        list.to_string()
    }
}

impl TryFrom<String> for CpuList {
    type Error = NotCpus;

    fn try_from(text: String) -> Result<Self, NotCpus> {
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
    use super::*;

    fn list(text: &str) -> CpuList {
        text.parse().expect("a list")
    }

    #[test]
    fn parses_and_prints() {
        for (text, cpus, set) in [
            ("0", vec![0], "0"),
            ("0-3,8", vec![0, 1, 2, 3, 8], "0-3,8"),
            ("8,0,1, 2", vec![8, 0, 1, 2], "0-2,8"),
            ("1,1-2,2", vec![1, 1, 2, 2], "1-2"),
        ] {
            assert_eq!(list(text).cpus(), cpus);
            assert_eq!(list(text).set().to_string(), set);
        }
        assert_eq!(list("8,0,1, 2").to_string(), "8,0-2");
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
            let allowed = CpuList::allowed().expect("they are known");
            let last = CpuList(allowed.cpus().last().copied().into_iter().collect());
            last.pin().expect("it is allowed");
            assert_eq!(CpuList::allowed().expect("it is known"), last);
            allowed.pin().expect("they are allowed");
            assert_eq!(CpuList::allowed().expect("they are known"), allowed);
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn agrees_with_the_kernel() {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("/proc");
        let of_kernel = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let allowed = CpuList::allowed().expect("they are known");
        assert_eq!(Some(allowed.to_string().as_str()), of_kernel.map(str::trim));
    }
}
