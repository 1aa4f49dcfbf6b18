//! What follows from a run for someone who has to choose.

use crate::results::Run;

/// A rule that the run supports.
#[allow(dead_code, reason = "no run supports one yet")]
pub struct Rule {
    /// The workload or its shape, in words.
    pub subject: String,
    /// One sentence.
    pub statement: String,
    /// The interval, the blocks, the noise.
    pub evidence: String,
}

/// Every rule that the run supports.
pub fn all(_run: &Run) -> Vec<Rule> {
    Vec::new()
}
