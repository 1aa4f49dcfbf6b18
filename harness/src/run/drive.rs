//! Drives a whole run: prepares it, says what is to be known, measures, and writes the report.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};

use super::course::{Course, RunEnd, time_left};
use super::failures::have_figures;
use super::matrices;
use super::options::Options;
use super::planner::Planner;
use super::prepare::Prepared;
use super::shell::quoted;
use super::stop::StopSignals;
use crate::report::RunReport;
use crate::results::origin::Programs;
use crate::results::{self, Manifest, Results};
use crate::status::ExitStatus;
use crate::terminal;
use crate::trial::Trial;
use crate::verdict::sweep;

/// Runs.
pub fn run(options: Options) -> Result<()> {
    match &options.print {
        Some(name) => matrices::print(name),
        None if options.list => matrices::list(),
        None => drive(options).map(|_| ()),
    }
}

/// Runs, and returns the folder of the run.
pub fn drive(options: Options) -> Result<PathBuf> {
    // Before anything is read: the run may be under way.
    let lock = options.resume.as_deref().map(results::lock).transpose()?;
    let full = options.full;
    let before = options.resume.as_deref().or(options.replay.as_deref());
    let original = before.map(Manifest::read).transpose()?;
    let finished = original.as_ref().and_then(|manifest| manifest.finished_utc.as_deref());
    if let (Some(folder), Some(time)) = (&options.resume, finished) {
        // A run that was killed at its very end has left it.
        results::remove_journal(folder)?;
        let report = RunReport::read(folder)?;
        report.print(full)?;
        terminal::say(&format!(
            "The run in {} is complete since {time}: nothing is to be done\n",
            folder.display()
        ))?;
        have_figures(report.trials())?;
        return Ok(folder.clone());
    }
    let mut prepared = Prepared::new(options, original, lock)?;
    let bar = progress();
    let stop = StopSignals::listen(prepared.context.interruptions.clone(), {
        let (bar, command) = (bar.clone(), prepared.resume_command.clone());
        move || {
            bar.println(format!(
                "Stopping after the current trial; Ctrl-C again stops at once. To resume: {command}"
            ));
        }
    })?;
    let results = match prepared.left.take() {
        Some(left) => left.reopen()?,
        None => Results::create(&prepared.folder)?,
    };
    results.write_manifest(&prepared.manifest)?;
    // The files are what a run is for: what cannot be said is an error at its end.
    let said = announce(&prepared, results.trials().len());
    bar.enable_steady_tick(Duration::from_millis(500));
    let Prepared {
        folder, resume_command, trials, planner, manifest, context, watch, _alone, ..
    } = prepared;
    let mut course = Course { planner, manifest, results, context, watch, stop, bar };
    let in_folder = format!("the trials so far are in {}", folder.display());
    let stopped = |error: anyhow::Error| {
        anyhow!("{error:#}: the run stops; {in_folder}; then, to resume: {resume_command}")
    };
    let end = course.measure(trials).map_err(stopped);
    course.bar.finish_and_clear();
    let end = end?;
    // The trial has no row: it is run again when the run is resumed.
    if end == RunEnd::AtOnce {
        return Err(ExitStatus::Interrupted
            .error(format!("interrupted in the midst of a trial; to resume: {resume_command}")));
    }
    let trials = course.conclude(end).map_err(stopped)?;
    let said = write_report(&folder, full, said);
    if end != RunEnd::Complete {
        return Err(ExitStatus::Interrupted
            .error(format!("interrupted: {in_folder}; to resume: {resume_command}")));
    }
    have_figures(&trials).and(said).map(|()| folder)
}

/// Draws the page of a run and, if what came before could be said, prints one screen of it or all.
fn write_report(folder: &Path, full: bool, said: Result<()>) -> Result<()> {
    let report = RunReport::read(folder)?;
    if let Err(error) = report.draw(folder) {
        // Its rows are there; that is what the run was for.
        eprintln!(
            "ringmark: no page was made: {error:#}; `ringmark report {}` tries again",
            quoted(folder)
        );
    }
    said?;
    report.print(full)?;
    terminal::say(&format!("The results are in {}\n", folder.display()))
}

/// Says what is to be known before the first trial; `done` trials have their rows.
fn announce(prepared: &Prepared, done: usize) -> Result<()> {
    let Prepared { examination, context, manifest, planner, trials, .. } = prepared;
    if let Some(origin) = &prepared.origin {
        terminal::say(&format!("{} ({origin}): {}\n\n", manifest.name, manifest.matrix.question))?;
    }
    examination.say()?;
    if let Some(launchers) = &context.launchers {
        launchers.say(&context.placement)?;
    }
    say_differences(manifest)?;
    if let Some(line) = manifest.programs.as_ref().and_then(Programs::are_of_two_revisions) {
        terminal::say(&format!("{line}\n\n"))?;
    }
    say_estimate(planner, trials, done)
}

/// Says how this differs from the run that it repeats, or from its own beginning.
fn say_differences(manifest: &Manifest) -> Result<()> {
    let (heading, differences) = match (&manifest.replays, manifest.resumed.last()) {
        (_, Some(resumption)) => (
            "This resumes a run, but the machine or the programs have changed:".to_owned(),
            &resumption.differences,
        ),
        (Some(replayed), None) => (
            format!("This repeats {}, but not all is as it was:", replayed.folder),
            &replayed.differences,
        ),
        (None, None) => return Ok(()),
    };
    if differences.is_empty() {
        return Ok(());
    }
    let lines: String = differences.iter().map(|line| format!("  {line}\n")).collect();
    terminal::say(&format!("{heading}\n{lines}"))
}

/// Says how long it will take, so that one can go away meanwhile. A resumed run has `done` trials,
/// and those that are `left` of a block.
fn say_estimate(planner: &Planner, left: &[Trial], done: usize) -> Result<()> {
    let count = left.len() + planner.ahead().map(|(_, trials)| trials).sum::<usize>();
    let minutes = time_left(planner, left).as_secs_f64() / 60.0;
    let there = if done > 0 { format!("{done} trials are there; ") } else { String::new() };
    let more = if sweep::unknown(planner.matrix()).next().is_some() {
        "to find the rates of the sweeps; then theirs"
    } else {
        "and what the gates reject once more"
    };
    terminal::say(&format!("{there}{count} trials, about {minutes:.1} min, {more}\n\n"))
}

/// Makes the bar. It counts estimated milliseconds, so that the time left is about right although
/// trials differ.
fn progress() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{wide_bar} {percent} %, {eta} left  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
