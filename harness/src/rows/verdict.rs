//! The outcome of a comparison, in words.

use serde::{Serialize, Serializer};

/// The outcome of a comparison. The words fit every metric: of CPU and latency `lower` is better,
/// of throughput `higher`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The arm's figure is lower: both tests exclude that there is no difference.
    Lower,
    /// It is higher.
    Higher,
    /// The ratio is 1 within the metric's margin.
    Alike,
    /// Neither is shown.
    NotResolved,
    /// The baseline's readings agree with each other.
    CheckPassed,
    /// The baseline's readings differ from each other, although nothing else does.
    CheckFailed,
    /// Fewer than six blocks count.
    FewBlocks,
    /// The baseline's check failed, or its readings scatter too much: the machine was restless.
    Restless,
    /// The client's own lag in sending differs between the two, by enough to account for a tenth or
    /// more of the difference in latency.
    SendLag,
    /// One of the two had to share a CPU.
    SharedCpu,
    /// One of the two had CPUs that are hyperthreads of one core.
    SharedCore,
    /// The calls of one trial of each, which are a count.
    Counted,
    /// One walk of each; the interval of each slope stands in memory.csv.
    OneWalk,
}

impl Verdict {
    /// Returns its words in `comparisons.csv`.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Lower => "lower",
            Verdict::Higher => "higher",
            Verdict::Alike => "alike",
            Verdict::NotResolved => "not resolved",
            Verdict::CheckPassed => "check passed",
            Verdict::CheckFailed => "check failed",
            Verdict::FewBlocks => "fewer than six blocks, no verdict",
            Verdict::Restless => "restless, no verdict",
            Verdict::SendLag => "send lag differs, no verdict",
            Verdict::SharedCpu => "shared-cpu, no verdict",
            Verdict::SharedCore => "shared-core, no verdict",
            Verdict::Counted => "counted",
            Verdict::OneWalk => "one walk; the interval of each slope stands in memory.csv",
        }
    }

    /// Returns whether a difference is shown.
    pub fn is_difference(self) -> bool {
        matches!(self, Verdict::Lower | Verdict::Higher)
    }

    /// Returns whether it is one of the four that a comparison of enough blocks on a quiet machine
    /// has.
    pub fn is_judged(self) -> bool {
        self.is_difference() || matches!(self, Verdict::Alike | Verdict::NotResolved)
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.words())
    }
}
