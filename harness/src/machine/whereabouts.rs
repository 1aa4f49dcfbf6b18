//! Compares where processes run, by what each says of itself.

use anyhow::{Context, Result};
use ringmark::whereabouts;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The place of a process, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Whereabouts {
    pid: u32,
    start_ticks: Option<u64>,
    boot_id: Option<String>,
    pid_namespace: Option<String>,
    network_namespace: Option<String>,
    /// The stamp of the file that it runs.
    pub program: Option<Value>,
}

impl Whereabouts {
    /// Reads that of this process.
    pub fn of_this_process() -> Result<Self> {
        serde_json::from_value(Value::Object(whereabouts::to_json()))
            .context("where this process is")
    }

    /// Tells whether both are known to run under one kernel.
    pub fn is_on_machine_of(&self, other: &Self) -> bool {
        is_same(&self.boot_id, &other.boot_id)
    }

    /// Tells whether both are known to be in one network namespace. Two of different kernels may
    /// have one number.
    pub fn is_in_network_of(&self, other: &Self) -> bool {
        self.is_on_machine_of(other) && is_same(&self.network_namespace, &other.network_namespace)
    }

    /// Tells whether both are known to be in one PID namespace.
    pub fn sees_processes_of(&self, other: &Self) -> bool {
        self.is_on_machine_of(other) && is_same(&self.pid_namespace, &other.pid_namespace)
    }

    /// Returns the number of that process, if /proc shows the same process here under it.
    pub fn pid_here(&self) -> Option<u32> {
        let is_here = self.sees_processes_of(&Self::of_this_process().ok()?)
            && is_same(&self.start_ticks, &whereabouts::start_ticks(&self.pid.to_string()));
        is_here.then_some(self.pid)
    }
}

/// Compares two values; an unknown one equals none.
fn is_same<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
    one.is_some() && one == other
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_the_process_itself_is_here() {
        let here = Whereabouts::of_this_process().unwrap();
        assert_eq!(here.pid_here(), Some(std::process::id()));
        let other = || Some("another".to_owned());
        for elsewhere in [
            Whereabouts { start_ticks: here.start_ticks.map(|ticks| ticks + 1), ..here.clone() },
            Whereabouts { start_ticks: None, ..here.clone() },
            Whereabouts { boot_id: other(), ..here.clone() },
            Whereabouts { pid_namespace: other(), ..here.clone() },
            Whereabouts { pid_namespace: None, ..here.clone() },
        ] {
            assert_eq!(elsewhere.pid_here(), None, "{elsewhere:?}");
        }
        let (unknown, also) = (Whereabouts::default(), Whereabouts::default());
        assert!(!unknown.is_on_machine_of(&also) && !unknown.is_in_network_of(&also));
    }
}
