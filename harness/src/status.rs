//! The exit statuses of `ringmark`.

/// Why a command ended other than well. A wrong command line ends with 2, by clap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Something failed, which one line on stderr says.
    Failed = 1,
    /// Two runs cannot be compared, or not all that was asked for could be judged.
    NotComparable = 3,
    /// No trial gave figures that can be used.
    NoFigures = 4,
    /// Something is slower by more than was allowed.
    Slower = 5,
    /// A signal ended it, as a shell says of SIGINT.
    Interrupted = 130,
}

/// An error that has an exit status of its own.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
struct StatusError {
    status: ExitStatus,
    words: String,
}

impl ExitStatus {
    /// Returns an error that ends the program with this status.
    pub fn error(self, words: impl Into<String>) -> anyhow::Error {
        StatusError { status: self, words: words.into() }.into()
    }

    /// Returns the status with which an error ends the program.
    pub fn of(error: &anyhow::Error) -> Self {
        error.downcast_ref::<StatusError>().map_or(Self::Failed, |error| error.status)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, Result, anyhow};

    use super::*;

    #[test]
    fn a_status_outlives_what_is_said_around_it() {
        let slower: Result<()> = Err(ExitStatus::Slower.error("by half"));
        let error = slower.context("b").context("a").expect_err("is one");
        assert_eq!(ExitStatus::of(&error), ExitStatus::Slower);
        assert_eq!(format!("{error:#}"), "a: b: by half");
        assert_eq!(ExitStatus::of(&anyhow!("else")), ExitStatus::Failed);
    }
}
