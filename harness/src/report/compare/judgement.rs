//! Judges two runs, and tells whether all was judged that was asked for: a part is never taken for
//! the whole.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use itertools::{Itertools as _, iproduct};

use super::figures::{Compared, Figure};
use super::obstacles;
use super::pair::{self, Asked, Pair};
use crate::matrix::Workload;
use crate::report::query::{comparison, counted_trial, ratio_of_bounds};
use crate::results::Run;
use crate::rows::{Bounds, Pass, Verdict};
use crate::statistics::Interval;
use crate::status::ExitStatus;
use crate::text::{list, quoted_list};
use crate::verdict::estimate::Estimate;
use crate::verdict::instructions::ArmCounts;
use crate::verdict::metric::{self, Class, Metric};
use crate::verdict::{instructions, memory};

/// `CPU 2, latency 6`.
fn per_class<'a>(metrics: impl Iterator<Item = &'a Metric> + Clone) -> String {
    let count = |class: Class| {
        let count = metrics.clone().filter(|metric| metric.class == class).count();
        (count > 0).then(|| format!("{} {count}", class.name()))
    };
    Class::ALL.into_iter().filter_map(count).join(", ")
}

/// A figure that a run has, or should have.
struct Place<'a> {
    metric: &'static Metric,
    arm: &'a str,
    of: Of<'a>,
}

/// The trials or the walk that a figure is of.
enum Of<'a> {
    Trials(&'a Workload),
    Memory { object: &'static str, state: &'static str },
    Kernel { workload: &'a Workload, kernel: &'a str },
}

impl Place<'_> {
    fn workload(&self) -> String {
        match self.of {
            Of::Trials(workload) => workload.name.clone(),
            Of::Memory { state, .. } => memory::workload(state),
            Of::Kernel { workload, kernel } => instructions::workload_on(&workload.name, kernel),
        }
    }

    fn is_of(&self, figure: &Figure) -> bool {
        figure.metric == self.metric && figure.arm == self.arm && figure.workload == self.workload()
    }

    /// Returns whether a run has the figure at all.
    fn is_measured(&self, run: &Run) -> bool {
        match self.of {
            Of::Trials(workload) => obstacles::has_value(run, workload, self.metric, self.arm),
            Of::Memory { object, state } => pair::slope(run, self.arm, object, state).is_some(),
            Of::Kernel { workload, kernel } => {
                let rows = &run.instructions;
                ArmCounts::of(rows, &workload.name, kernel, self.arm).is_some()
            }
        }
    }

    /// Returns whether a run alone has an answer: a verdict against its baseline, an exact count,
    /// or a slope that is told from zero.
    fn has_answer(&self, run: &Run) -> bool {
        match self.of {
            Of::Trials(workload) if self.metric.pass() == Pass::Syscalls => {
                let calls = counted_trial(run, &workload.name, self.arm)
                    .and_then(|row| self.metric.value(row));
                calls.is_some_and(|calls| calls > 0.0) && pair::is_exact(workload)
            }
            Of::Trials(workload) => {
                comparison(run, &workload.name, self.metric, self.arm, &run.matrix.baseline)
                    .is_some_and(|row| row.verdict.is_judged())
            }
            Of::Memory { object, state } => pair::slope(run, self.arm, object, state)
                .is_some_and(|(_, interval)| interval.low > 0.0),
            Of::Kernel { workload, .. } => self.is_measured(run) && pair::is_exact(workload),
        }
    }

    /// Returns why it is not judged.
    fn why(&self, pair: &Pair, figure: Option<&Figure>) -> String {
        obstacles::absent(pair, self.arm)
            .or_else(|| match self.of {
                Of::Trials(workload) => obstacles::trials(pair, workload, self.metric, self.arm),
                Of::Memory { object, state } => obstacles::slopes(pair, self.arm, object, state),
                Of::Kernel { workload, kernel } => {
                    obstacles::counts(pair, workload, kernel, self.arm)
                }
            })
            .unwrap_or_else(|| match figure.and_then(|figure| Some((figure, figure.relative?))) {
                Some((figure, Compared { verdict: Some(Verdict::FewBlocks), .. })) => {
                    match figure.blocks {
                        [a, b] if a == b => format!("{a} blocks, six are needed"),
                        [a, b] => format!("{a} blocks in A and {b} in B, six are needed in both"),
                    }
                }
                Some((_, Compared { verdict: Some(verdict), .. })) => verdict.words().to_owned(),
                _ => "too near zero for a ratio".to_owned(),
            })
    }
}

/// Returns the figures of A that are asked for and are better or worse, whether B has them or not.
/// The baseline's times are among them only if nothing but the baseline is asked for.
fn places<'a>(pair: &'a Pair, asked: &Asked, arms: &'a [String]) -> Vec<Place<'a>> {
    let mut all = Vec::new();
    let arms = || arms.iter().map(String::as_str).filter(|arm| asked.has_arm(arm));
    let has_others = arms().any(|arm| pair.baseline() != Some(arm));
    for workload in &pair.a.matrix.workloads {
        for metric in metric::OF_TRIALS.iter().filter(|metric| metric.better.is_some()) {
            let judged =
                arms().filter(|arm| !(has_others && obstacles::is_reference(pair, metric, arm)));
            all.extend(judged.map(|arm| Place { metric, arm, of: Of::Trials(workload) }));
        }
    }
    for (metric, state) in iproduct!(&metric::OF_WALKS, memory::STATES) {
        let Some(object) = metric.object() else { continue };
        all.extend(arms().map(|arm| Place { metric, arm, of: Of::Memory { object, state } }));
    }
    let kernels = instructions::kernels(&pair.a.instructions);
    for (workload, kernel) in iproduct!(&pair.a.matrix.workloads, kernels) {
        let place =
            |arm| Place { metric: &metric::INSTRUCTIONS, arm, of: Of::Kernel { workload, kernel } };
        all.extend(arms().map(place));
    }
    let is_wanted = |place: &Place| {
        let passes = pair.a.matrix.passes();
        let has_pass = passes.contains(&place.metric.pass());
        asked.has_metric(place.metric)
            && (place.is_measured(&pair.a) || has_pass && place.is_measured(&pair.b))
    };
    all.retain(is_wanted);
    all
}

/// The judged ratio of a figure: a verdict that the machine's drift is not in, or an exact count.
fn judged(figure: &Figure) -> Option<Compared> {
    figure.telling().filter(|compared| match compared.verdict {
        Some(Verdict::Counted) => figure.is_exact,
        verdict => verdict.is_some_and(Verdict::is_judged),
    })
}

fn is_counted_otherwise(pair: &Pair, figure: &Figure) -> bool {
    figure.metric.pass() == Pass::Syscalls
        && obstacles::sources(pair, &figure.workload, &figure.arm).is_some()
}

/// A figure that could not be judged.
struct Unjudged {
    metric: &'static Metric,
    arm: String,
    workload: String,
    why: String,
    /// Whether A or B alone has an answer.
    is_lost: bool,
}

impl Unjudged {
    fn is_of(&self, figure: &Figure) -> bool {
        figure.metric == self.metric && figure.arm == self.arm && figure.workload == self.workload
    }
}

/// The figures that were asked for, judged and not.
pub struct Judgement<'a> {
    judged: Vec<(&'a Figure, Compared)>,
    unjudged: Vec<Unjudged>,
    /// The reasons why not all was judged.
    gaps: Vec<String>,
}

impl<'a> Judgement<'a> {
    /// Judges these figures.
    pub fn of(pair: &Pair, asked: &Asked, figures: &'a [Figure]) -> Self {
        let arms = pair.a.matrix.arms().collect::<Vec<_>>();
        let (mut found, mut unjudged) = (Vec::new(), Vec::new());
        for place in places(pair, asked, &arms) {
            let figure = figures.iter().find(|figure| place.is_of(figure));
            match figure.and_then(|figure| Some((figure, judged(figure)?))) {
                // A count by other means is no other count.
                Some((figure, ratio)) if !is_counted_otherwise(pair, figure) => {
                    found.push((figure, ratio));
                }
                _ => unjudged.push(Unjudged {
                    metric: place.metric,
                    arm: place.arm.to_owned(),
                    workload: place.workload(),
                    why: place.why(pair, figure),
                    is_lost: place.has_answer(&pair.a) || place.has_answer(&pair.b),
                }),
            }
        }
        let mut judgement = Self { judged: found, unjudged, gaps: obstacles::parts(pair, asked) };
        judgement.gaps.extend(judgement.unanswered(pair, asked));
        judgement.gaps.extend(judgement.lost());
        judgement
    }

    /// Names the kinds of figures of which nothing was judged, although they were asked for.
    /// Without --metric all are that both runs measure.
    fn unanswered(&self, pair: &Pair, asked: &Asked) -> Vec<String> {
        let has_pass = |class: &Class| {
            pair.runs().iter().all(|run| run.matrix.passes().contains(&class.pass()))
        };
        let groups: Vec<(&str, Vec<&Metric>)> = if asked.metrics.is_empty() {
            let classes = Class::ALL.into_iter().filter(has_pass);
            classes
                .map(|class| (class.name(), metric::all().filter(|of| of.class == class).collect()))
                .collect()
        } else {
            let asked = metric::all().filter(|of| asked.has_metric(of));
            asked.map(|metric| (metric.name, vec![metric])).collect()
        };
        let mut gaps: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, metrics) in groups {
            let is_of = |metric: &Metric| metrics.contains(&metric);
            if !self.judged.iter().any(|(figure, _)| is_of(figure.metric)) {
                let of_group = self.unjudged.iter().filter(|of| is_of(of.metric));
                let is_neither = metrics.iter().all(|of| of.better.is_none());
                let why = match &reasons(of_group)[..] {
                    [] if is_neither => {
                        "more of it is neither better nor worse by itself".to_owned()
                    }
                    [] => "no trial gave it".to_owned(),
                    all => {
                        all.iter().map(|(why, _)| why.as_str()).collect::<Vec<_>>().join(", or ")
                    }
                };
                gaps.entry(why).or_default().push(name.to_owned());
            }
        }
        gaps.into_iter()
            .map(|(why, names)| format!("no figure of {} ({why})", list(&names)))
            .collect()
    }

    /// Counts the figures that have an answer within one run, and none here.
    fn lost(&self) -> Option<String> {
        let lost = || self.unjudged.iter().filter(|of| of.is_lost);
        let all = reasons(lost());
        let named: Vec<String> =
            all.iter().take(NAMED).map(|(why, of)| format!("{}: {why}", of.len())).collect();
        let more = if all.len() > named.len() { ", and others" } else { "" };
        let count = lost().count();
        (count > 0).then(|| {
            format!(
                "{count} figures have a verdict within one run and none here ({}{more})",
                named.join(", ")
            )
        })
    }

    /// `judged 13 of 20 figures: CPU 2 of 4, calls 11 of 16`.
    pub fn counts(&self) -> String {
        let of_class = |class: Class| {
            let judged = self.judged.iter().filter(|(of, _)| of.metric.class == class).count();
            let not = self.unjudged.iter().filter(|of| of.metric.class == class).count();
            (judged + not > 0).then(|| format!("{} {judged} of {}", class.name(), judged + not))
        };
        let classes = Class::ALL.into_iter().filter_map(of_class).join(", ");
        let all = self.judged.len() + self.unjudged.len();
        let colon = if classes.is_empty() { "" } else { ": " };
        format!("judged {} of {all} figures{colon}{classes}", self.judged.len())
    }

    /// Returns the reasons why others were not judged, a line each.
    pub fn reasons(&self) -> Vec<String> {
        let line = |(why, of): (String, Vec<&Unjudged>)| {
            let places = [
                few(of.iter().map(|of| of.arm.as_str()), "arms"),
                few(of.iter().map(|of| of.workload.as_str()), "workloads"),
            ];
            format!(
                "{} of {}: {why}",
                per_class(of.iter().map(|of| of.metric)),
                places.join(" in ")
            )
        };
        reasons(self.unjudged.iter()).into_iter().map(line).collect()
    }

    /// Answers --fail-if-slower.
    ///
    /// # Errors
    /// [`ExitStatus::Slower`] where something is slower; [`ExitStatus::NotComparable`] where what
    /// was judged is not, but is not all that was asked for.
    pub fn outcome(&self, pair: &Pair, figures: &[Figure], most_percent: f64) -> Result<String> {
        let most = 1.0 + most_percent / 100.0;
        let is_slower = |(figure, compared): &&(&Figure, Compared)| {
            least_cost(figure, compared).is_some_and(|cost| cost > most)
        };
        let slower: Vec<_> = self.judged.iter().filter(is_slower).collect();
        let more = [moved_baseline(pair, figures, most), self.worse_without_verdict(figures, most)];
        let gaps = [self.gaps.clone(), more.into_iter().flatten().collect()].concat();
        let gaps = gaps.join("; ");
        if !slower.is_empty() {
            let rest = if gaps.is_empty() {
                gaps
            } else {
                format!("; and not all could be judged: {gaps}")
            };
            let worse = self.in_words(&slower, most_percent);
            return Err(ExitStatus::Slower.error(format!("{worse}{rest}; {}", self.counts())));
        }
        if !gaps.is_empty() {
            let advice = "--metric and --arm name what is to be judged";
            return Err(ExitStatus::NotComparable
                .error(format!("not all could be judged: {gaps}; {}; {advice}", self.counts())));
        }
        let hides = |(figure, compared): &&(&Figure, Compared)| {
            compared.verdict != Some(Verdict::Counted)
                && cost(figure, &compared.ratio.interval).1 > most
        };
        let hidden = match self.judged.iter().filter(hides).count() {
            0 => String::new(),
            _ if most_percent == 0.0 => String::new(),
            count => format!(
                "; within the intervals of {count} of them a difference as large could hide"
            ),
        };
        let alike =
            moved_alike(pair, figures, most).map_or_else(String::new, |moved| format!("; {moved}"));
        Ok(format!(
            "Nothing is shown to be worse in B by more than {most_percent} %; {}{hidden}{alike}\n",
            self.counts()
        ))
    }

    /// Names figures without a verdict that read worse than the bound with all of their range. A
    /// count by batches, which fall otherwise each time, is none of them.
    fn worse_without_verdict(&self, figures: &[Figure], most: f64) -> Option<String> {
        let reads_worse = |of: &&Unjudged| {
            let mut figures = figures.iter().filter(|figure| of.is_of(figure));
            figures.any(|figure| {
                figure
                    .telling()
                    .filter(|compared| compared.verdict != Some(Verdict::Counted))
                    .is_some_and(|compared| cost(figure, &compared.ratio.interval).0 > most)
            })
        };
        let worse: Vec<String> = (self.unjudged.iter().filter(reads_worse))
            .map(|of| format!("{} of `{}` in {} ({})", of.metric.name, of.arm, of.workload, of.why))
            .collect();
        let named = worse.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = if worse.len() > NAMED { ", and others" } else { "" };
        (!worse.is_empty()).then(|| {
            format!("{} figures without a verdict read worse than that: {named}{more}", worse.len())
        })
    }

    fn in_words(&self, slower: &[&(&Figure, Compared)], most_percent: f64) -> String {
        let named: Vec<String> = slower
            .iter()
            .take(NAMED)
            .map(|(figure, compared)| in_words(figure, compared))
            .collect();
        let more = match slower.len() - named.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        format!(
            "B is worse than A by more than {most_percent} % in {} of {} figures: {}{more}",
            slower.len(),
            self.judged.len(),
            named.join("; ")
        )
    }
}

/// As many are named in a line; all stand in the table, or in the list below it.
const NAMED: usize = 5;

/// A figure in a line.
pub fn in_words(figure: &Figure, compared: &Compared) -> String {
    let Estimate { mean, interval: Interval { low, high }, .. } = compared.ratio;
    let ratio = ratio_of_bounds(mean, low, high, None);
    format!("{} of `{}` in {}: {ratio}", figure.metric.name, figure.arm, figure.workload)
}

/// Each reason with what it holds for, that of the most first.
fn reasons<'a>(all: impl Iterator<Item = &'a Unjudged>) -> Vec<(String, Vec<&'a Unjudged>)> {
    let mut found: Vec<(String, Vec<&Unjudged>)> = Vec::new();
    for of in all {
        match found.iter_mut().find(|(known, _)| *known == of.why) {
            Some((_, others)) => others.push(of),
            None => found.push((of.why.clone(), vec![of])),
        }
    }
    found.sort_by_key(|(_, of)| std::cmp::Reverse(of.len()));
    found
}

/// Names, or how many they are.
fn few<'a>(all: impl Iterator<Item = &'a str>, what: &str) -> String {
    let all: BTreeSet<&str> = all.collect();
    if all.len() > NAMED { format!("{} {what}", all.len()) } else { quoted_list(all) }
}

/// The bounds of what B costs of A.
fn cost(figure: &Figure, ratio: &Interval) -> (f64, f64) {
    let Interval { low, high } = metric::cost(figure.better, *ratio);
    (low, high)
}

/// The least that B costs of A, by its interval; none where nothing says that it costs more.
fn least_cost(figure: &Figure, compared: &Compared) -> Option<f64> {
    let is_worse = match compared.verdict {
        Some(Verdict::Counted) => true,
        Some(verdict) if verdict.is_difference() => figure.better != Some(verdict),
        _ => false,
    };
    is_worse.then(|| cost(figure, &compared.ratio.interval).0)
}

/// Says that the baseline costs more in B by itself, and beside every other arm: ratios to it then
/// say nothing. All arms alike would be the machine.
fn moved_baseline(pair: &Pair, figures: &[Figure], most: f64) -> Option<String> {
    let is_left_behind = |of: &&Figure| {
        let is_beside = |other: &&Figure| {
            other.arm != of.arm && other.metric == of.metric && other.workload == of.workload
        };
        let mut others =
            figures.iter().filter(is_beside).map(|other| costs(other, other.relative)).peekable();
        others.peek().is_some()
            && others.all(|other| other.is_some_and(|(_, highest)| highest < 1.0 / most))
    };
    let moved: Vec<&Figure> = dearer_baseline(pair, figures, most).filter(is_left_behind).collect();
    let first = moved.first()?;
    let ratio = in_words(first, &first.between_runs?);
    Some(format!(
        "the baseline is worse in B by itself and beside every other arm, in {} figures ({ratio}), \
         so that what is relative to it says nothing",
        moved.len()
    ))
}

/// Says that the baseline and the others cost more: it may be the machine, or all of them.
fn moved_alike(pair: &Pair, figures: &[Figure], most: f64) -> Option<String> {
    let moved: Vec<&Figure> = dearer_baseline(pair, figures, most).collect();
    let first = moved.first()?;
    let ratio = in_words(first, &first.between_runs?);
    Some(format!(
        "not judged: in {} figures the baseline itself is worse in B ({ratio}), by the machine or \
         with all the others",
        moved.len()
    ))
}

/// Times and rates of the baseline that are worse in B with the whole of their intervals.
fn dearer_baseline<'a>(
    pair: &Pair,
    figures: &'a [Figure],
    most: f64,
) -> impl Iterator<Item = &'a Figure> {
    let baseline = pair.baseline().map(str::to_owned);
    figures.iter().filter(move |figure| {
        figure.telling().is_none()
            && Some(&figure.arm) == baseline.as_ref()
            && costs(figure, figure.between_runs).is_some_and(|(least, _)| least > most)
    })
}

fn costs(figure: &Figure, compared: Option<Compared>) -> Option<(f64, f64)> {
    let Estimate { bounds, interval, .. } = compared?.ratio;
    (bounds == Bounds::Interval95 && figure.better.is_some()).then(|| cost(figure, &interval))
}
