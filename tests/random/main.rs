//! Every backend under traffic that one seed decides: the knobs, what the peers do, and how it
//! ends.
//!
//! A seed is a [play](play): a server of its own and a bounded number of steps. The same seed makes
//! the same choices; only the timing is the machine's. A play that fails prints the command that
//! repeats it.
//!
//! | variable | effect |
//! |---|---|
//! | `RINGMARK_SEED` | plays this seed instead of the fixed ones; with the next one, where a soak begins |
//! | `RINGMARK_SOAK_SECONDS` | plays ever new seeds over all backends for so long, see [`soak`] |

#[path = "../support/mod.rs"]
mod support;

mod knobs;
mod play;
mod sizes;
mod soak;
mod source;
mod stage;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;
use std::time::Duration;

/// The plays of `cargo test` on each backend.
const SEEDS: [u64; 3] = [1, 2, 3];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    support::raise_open_files();
    let (seed, seconds) = match (number("RINGMARK_SEED"), number("RINGMARK_SOAK_SECONDS")) {
        (Ok(seed), Ok(seconds)) => (seed, seconds),
        (Err(message), _) | (_, Err(message)) => {
            eprintln!("random: {message}");
            return ExitCode::from(2);
        }
    };
    if let Some(seconds) = seconds {
        return soak::run(Duration::from_secs(seconds), seed, arguments.filter.as_deref());
    }
    let seeds = seed.map_or(SEEDS.to_vec(), |seed| vec![seed]);
    let mut trials: Vec<Trial> = Vec::new();
    for backend in support::backends() {
        trials.extend(seeds.iter().map(|&seed| {
            support::trial(&backend, &seed.to_string(), None, move |backend| {
                play::run(backend, seed).unwrap_or_else(|failure| panic!("{failure}"));
            })
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A whole number from the environment.
fn number(variable: &str) -> Result<Option<u64>, String> {
    match std::env::var(variable) {
        Err(_) => Ok(None),
        Ok(text) => text.parse().map(Some).map_err(|_| {
            format!("{variable} is {text:?}, and must be a whole number from 0 to {}", u64::MAX)
        }),
    }
}
