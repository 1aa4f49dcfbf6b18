//! Ctrl-C: the first stops after the current trial, the second at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGCONT, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::programs::process::Interruptions;

/// The person's wishes so far.
pub struct StopSignals {
    after_trial: Arc<AtomicBool>,
    interruptions: Interruptions,
}

impl StopSignals {
    /// Takes SIGINT, SIGTERM and SIGCONT from now on. `first` is called, on another thread, at the
    /// first of the former two. The second ends the waits of a trial by `interruptions`.
    pub fn listen(interruptions: Interruptions, first: impl Fn() + Send + 'static) -> Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGCONT]).context("take Ctrl-C")?;
        let stop = Self { after_trial: Arc::default(), interruptions: interruptions.clone() };
        let after_trial = Arc::clone(&stop.after_trial);
        std::thread::spawn(move || {
            for signal in signals.forever() {
                // The process had been stopped: by Ctrl-Z, or by somebody else.
                if signal == SIGCONT {
                    interruptions.note_suspended("harness (`ringmark run`)");
                } else if !after_trial.swap(true, Ordering::Relaxed) {
                    first();
                } else if !interruptions.is_wanted() {
                    interruptions.want();
                } else {
                    // A child hangs. PR_SET_PDEATHSIG kills our children.
                    std::process::exit(130);
                }
            }
        });
        Ok(stop)
    }

    /// Returns whether no other trial shall begin.
    pub fn after_trial(&self) -> bool {
        self.after_trial.load(Ordering::Relaxed)
    }

    /// Returns whether the trial shall be interrupted.
    pub fn at_once(&self) -> bool {
        self.interruptions.is_wanted()
    }
}
