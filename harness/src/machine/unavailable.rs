//! Says why an instrument cannot be used here.

/// An instrument that this machine or this user's rights do not allow.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}{advice}")]
pub struct Unavailable {
    /// The thing that is missing.
    pub reason: String,
    /// The next step, after a colon; empty if the reason says it.
    advice: String,
}

impl Unavailable {
    /// Gives the reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), advice: String::new() }
    }

    /// Adds the next step.
    pub fn advising(self, advice: impl std::fmt::Display) -> Self {
        Self { advice: format!(": {advice}"), ..self }
    }
}
