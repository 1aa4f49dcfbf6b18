//! Ctrl-C: the first one lets the trial come to its end, the second one does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::children::Interrupted;

/// What the person asked for so far.
pub struct Stop {
    after_trial: Arc<AtomicBool>,
    at_once: Interrupted,
}

impl Stop {
    /// Takes SIGINT and SIGTERM from now on. `first` is called at the first of them, on another thread.
    pub fn listen(first: impl Fn() + Send + 'static) -> Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM]).context("take Ctrl-C")?;
        let stop = Self { after_trial: Arc::default(), at_once: Interrupted::default() };
        let (after_trial, at_once) = (Arc::clone(&stop.after_trial), Arc::clone(&stop.at_once));
        std::thread::spawn(move || {
            for (count, _) in signals.forever().enumerate() {
                match count {
                    0 => {
                        after_trial.store(true, Ordering::Relaxed);
                        first();
                    }
                    1 => at_once.store(true, Ordering::Relaxed),
                    // Something does not end. The kernel ends the children of who is gone.
                    _ => std::process::exit(130),
                }
            }
        });
        Ok(stop)
    }

    /// Whether no other trial shall begin.
    pub fn after_trial(&self) -> bool {
        self.after_trial.load(Ordering::Relaxed)
    }

    /// Whether the trial shall be broken off.
    pub fn at_once(&self) -> bool {
        self.at_once.load(Ordering::Relaxed)
    }

    /// What ends the waits of a trial.
    pub fn interrupted(&self) -> Interrupted {
        Arc::clone(&self.at_once)
    }
}
