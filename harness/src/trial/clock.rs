//! When a reading was made, and whether it belongs to the window that the load tells of.

use crate::load::result::LoadResult;

/// A moment, by two clocks that all processes of a machine share, in ns: the one stands still while
/// the machine sleeps, the other does not (clock_gettime(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    monotonic_ns: u64,
    boot_ns: u64,
}

impl Moment {
    /// Reads the clocks.
    pub fn now() -> Self {
        Self { monotonic_ns: ns_of(libc::CLOCK_MONOTONIC), boot_ns: ns_of(libc::CLOCK_BOOTTIME) }
    }

    /// Returns how long ago another was, in ns.
    pub fn ns_since(&self, earlier: &Self) -> u64 {
        self.monotonic_ns.saturating_sub(earlier.monotonic_ns)
    }

    /// Returns whether it comes after a moment of CLOCK_MONOTONIC.
    pub fn is_after(&self, monotonic_ns: u64) -> bool {
        self.monotonic_ns > monotonic_ns
    }
}

fn ns_of(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to a local that lives through the call, which cannot fail: both
    // clocks exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Returns how much later than an end of the window the server's CPU clock may be read, in ns: a
/// hundredth of the window, and at least 10 ms. A program that waits for a CPU gets none sooner.
fn bound_ns(window_ns: u64) -> u64 {
    (window_ns / 100).max(10_000_000)
}

/// How long a thread of the load may wait before it looks at its clock again, in ns.
const LOAD_WAITS_NS: u64 = 50_000_000;

/// The load's window, by its own clock.
#[derive(Clone, Debug)]
pub struct LoadWindow {
    start_ns: u64,
    end_ns: u64,
    longest_gap_ns: u64,
    /// The load whose gap that was.
    who: String,
}

impl LoadWindow {
    /// Reads it from a result; none if another version of the load gave that.
    pub fn of(result: &LoadResult) -> Option<Self> {
        let (start_ns, end_ns) = (result.window_start_ns?, result.window_end_ns?);
        let who = result.longest_gap_of.as_deref().unwrap_or("the load").to_owned();
        Some(Self { start_ns, end_ns, longest_gap_ns: result.longest_gap_ns?, who })
    }

    fn ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

/// Said if the load tells nothing of its window.
const UNTOLD: &str =
    "the load does not tell when its window was: copy this version of ringmark to its side";

/// Says that the parts of a load did not begin together.
pub fn began_apart(window: Option<&LoadWindow>, apart_ns: Option<u64>) -> Option<String> {
    let (window, apart_ns) = window.zip(apart_ns)?;
    let bound_ns = bound_ns(window.ns());
    (apart_ns > bound_ns).then(|| {
        format!(
            "the loads may have begun {:.1} ms apart (bound: {:.1} ms): a command's way to one of \
             them is slow, or `ringmark run` was stopped or had no CPU",
            apart_ns as f64 / 1e6,
            bound_ns as f64 / 1e6
        )
    })
}

/// Says why what was read at `begin` and at `end` is not of the load's window. The two clocks are
/// one only if the load is on this machine.
pub fn not_of_window(
    window: Option<LoadWindow>,
    begin: &Moment,
    end: &Moment,
    is_one_clock: bool,
) -> Vec<String> {
    let mut reasons = load_gap(window.as_ref()).into_iter().collect::<Vec<_>>();
    let Some(window) = window else { return reasons };
    let bound_ns = bound_ns(window.ns());
    let ms = |ns: u64| ns as f64 / 1e6;
    let mut expect = |what: &str, off_ns: u64| {
        if off_ns > bound_ns {
            reasons.push(format!(
                "the server's CPU clock was read {:.1} ms {what} (bound: {:.1} ms): \
                 `ringmark run` or a load was stopped or had no CPU",
                ms(off_ns),
                ms(bound_ns)
            ));
        }
    };
    if is_one_clock {
        expect("after the window began", begin.monotonic_ns.abs_diff(window.start_ns));
        expect("after the window ended", end.monotonic_ns.abs_diff(window.end_ns));
    } else {
        let span_ns = end.ns_since(begin).abs_diff(window.ns());
        expect("sooner or later than at the window's ends", span_ns);
    }
    let asleep_ns = end
        .boot_ns
        .saturating_sub(begin.boot_ns)
        .saturating_sub(end.monotonic_ns - begin.monotonic_ns);
    if asleep_ns > bound_ns {
        reasons.push(format!("the machine slept for {:.1} ms within the window", ms(asleep_ns)));
    }
    reasons
}

/// Returns what the load's own clock says against its figures.
pub fn load_gap(window: Option<&LoadWindow>) -> Option<String> {
    let Some(window) = window else { return Some(UNTOLD.to_owned()) };
    let (gap_ns, bound_ns) = (window.longest_gap_ns, LOAD_WAITS_NS + bound_ns(window.ns()));
    (gap_ns > bound_ns).then(|| {
        format!(
            "a thread of {} did not look at its clock for {:.1} ms (bound: {:.1} ms): it was \
             stopped or had no CPU",
            window.who,
            gap_ns as f64 / 1e6,
            bound_ns as f64 / 1e6
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A window of 3 s, and moments that are so many ms late; the machine sleeps so many ms.
    fn reasons(
        begin_late: u64,
        end_late: u64,
        asleep: u64,
        gap: u64,
        is_one_clock: bool,
    ) -> String {
        let window = LoadWindow {
            start_ns: 1000 * MS,
            end_ns: 4000 * MS,
            longest_gap_ns: gap * MS,
            who: "the load".to_owned(),
        };
        let moment =
            |ms: u64, asleep: u64| Moment { monotonic_ns: ms * MS, boot_ns: (ms + asleep) * MS };
        let (begin, end) = (moment(1000 + begin_late, 7), moment(4000 + end_late, 7 + asleep));
        not_of_window(Some(window), &begin, &end, is_one_clock).join("; ")
    }

    #[test]
    fn what_is_read_too_late_or_stood_still_is_not_of_the_window() {
        assert_eq!(reasons(30, 30, 30, 80, true), "");
        for (found, words) in [
            (reasons(31, 0, 0, 0, true), "31.0 ms after the window began (bound: 30.0 ms)"),
            (reasons(0, 31, 0, 0, true), "31.0 ms after the window ended"),
            (reasons(0, 0, 31, 0, true), "the machine slept for 31.0 ms"),
            (
                reasons(0, 0, 0, 81, true),
                "the load did not look at its clock for 81.0 ms (bound: 80.0 ms)",
            ),
            (reasons(40, 0, 0, 0, false), "40.0 ms sooner or later"),
        ] {
            assert!(found.contains(words) && !found.contains("; "), "{words}: {found}");
        }
        // The clock of another machine is another; only how long it was tells.
        assert_eq!(reasons(500, 500, 0, 0, false), "");
        assert_eq!(bound_ns(50 * MS), 10 * MS);
        let now = Moment::now();
        assert_eq!(not_of_window(None, &now, &now, true), [UNTOLD]);
    }

    #[test]
    fn time_goes_on() {
        let (first, second) = (Moment::now(), Moment::now());
        assert!(second.monotonic_ns >= first.monotonic_ns && second.boot_ns >= second.monotonic_ns);
    }
}
