//! Ctrl-C: the first one lets the trial come to its end, the second one does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGCONT, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::programs::process::Interruptions;

/// What the person asked for so far.
pub struct Stop {
    after_trial: Arc<AtomicBool>,
    interruptions: Interruptions,
}

impl Stop {
    /// Takes SIGINT and SIGTERM from now on, and SIGCONT. `first` is called at the first of the
    /// former, on another thread.
    pub fn listen(first: impl Fn() + Send + 'static) -> Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGCONT]).context("take Ctrl-C")?;
        let stop = Self { after_trial: Arc::default(), interruptions: Interruptions::default() };
        let (after_trial, interruptions) =
            (Arc::clone(&stop.after_trial), stop.interruptions.clone());
        std::thread::spawn(move || {
            let mut count = 0;
            for signal in signals.forever() {
                // It had been stopped: by Ctrl-Z, or by somebody else.
                if signal == SIGCONT {
                    interruptions.note_suspended("harness (`ringmark run`)");
                    continue;
                }
                count += 1;
                match count - 1 {
                    0 => {
                        after_trial.store(true, Ordering::Relaxed);
                        first();
                    }
                    1 => interruptions.want(),
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
        self.interruptions.is_wanted()
    }

    /// What ends the waits of a trial, and spoils it.
    pub fn interruptions(&self) -> Interruptions {
        self.interruptions.clone()
    }
}
