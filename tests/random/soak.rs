//! New seeds over all backends in turn, until the time is over, a play fails, or SIGINT comes.

use crate::play;
use crate::stage::Tally;
use crate::support::{self, Backend};
use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Plays for at least `time`, from `seed` on, all backends or the one named `only`.
pub fn run(time: Duration, seed: Option<u64>, only: Option<&str>) -> ExitCode {
    let mut backends = support::backends();
    if let Some(only) = only {
        let names: Vec<String> = backends.iter().map(|backend| backend.name.clone()).collect();
        backends.retain(|backend| backend.name == only);
        if backends.is_empty() {
            eprintln!("random: there is no backend '{only}'; there are: {}", names.join(" "));
            return ExitCode::from(2);
        }
    }
    for (name, reason) in
        backends.iter().filter_map(|it| Some((&it.name, it.unsupported.as_ref()?)))
    {
        println!("{name} is unsupported: {reason}");
    }
    backends.retain(|backend| backend.unsupported.is_none());
    if backends.is_empty() {
        eprintln!("random: nothing to play: this kernel supports none of the backends");
        return ExitCode::FAILURE;
    }
    block_sigint();

    // Any start is as good as another, as long as the next soak takes another one.
    let first = seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("from seed {first}, {} s, {} backends", time.as_secs(), backends.len());
    let started = Instant::now();
    let mut rows: Vec<(Backend, Tally)> =
        backends.into_iter().map(|backend| (backend, Tally::default())).collect();
    let mut outcome = ExitCode::SUCCESS;
    'rounds: for seed in first.. {
        for (backend, tally) in &mut rows {
            if started.elapsed() >= time || sigint_came() {
                break 'rounds;
            }
            match play::run(backend, seed) {
                Ok(played) => tally.add(&played),
                Err(failure) => {
                    eprintln!("{failure}");
                    outcome = ExitCode::FAILURE;
                    break 'rounds;
                }
            }
        }
        let plays: u64 = rows.iter().map(|(_, tally)| tally.seeds).sum();
        println!(
            "{:>6.0} s  seed {seed} done, {plays} plays in all",
            started.elapsed().as_secs_f64()
        );
    }
    print(&rows);
    outcome
}

/// Keeps SIGINT waiting, in this thread and those that it makes: a handler would interrupt the
/// clients' reads, which fail with EINTR once they have a time-out, see signal(7).
fn block_sigint() {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset(3) initialises the set that lives across all three calls.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

fn sigint_came() -> bool {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigpending(2) writes the set, and it is read only if that succeeded.
    unsafe {
        libc::sigpending(set.as_mut_ptr()) == 0
            && libc::sigismember(set.as_ptr(), libc::SIGINT) == 1
    }
}

fn print(rows: &[(Backend, Tally)]) {
    println!(
        "\n{:<24}{:>8}{:>10}{:>13}{:>16}",
        "backend", "seeds", "steps", "connections", "bytes"
    );
    let mut all = Tally::default();
    let line = |name: &str, tally: &Tally| {
        let Tally { seeds, steps, connections, bytes } = tally;
        println!("{name:<24}{seeds:>8}{steps:>10}{connections:>13}{bytes:>16}");
    };
    for (backend, tally) in rows {
        line(&backend.name, tally);
        all.add(tally);
    }
    line("all", &all);
}
