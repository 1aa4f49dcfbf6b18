//! `ringmark`: loads, measures and reports.

mod count;
mod doctor;
mod load;
mod machine;
mod matrix;
mod programs;
mod report;
mod results;
mod rows;
mod run;
mod statistics;
mod status;
mod terminal;
mod text;
mod trial;
mod verdict;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};

use crate::programs::idle_spinner;
use crate::status::ExitStatus;

const COMPLETIONS: &str = "\
Examples:
  source <(ringmark completions bash)
  ringmark completions zsh > ~/.zfunc/_ringmark
  ringmark completions fish > ~/.config/fish/completions/ringmark.fish";

const MAN: &str = "\
Examples:
  ringmark man ~/.local/share/man/man1
  ringmark-server --man > ~/.local/share/man/man1/ringmark-server.1";

const FIRST_STEPS: &str = "\
First steps:
  ringmark doctor
      what this machine can measure
  ringmark run quick
      a first answer in minutes, tables and a page
  ringmark run standard
      latency against the rate
  ringmark report results/FOLDER
      the tables and the page of a run once more
  ringmark compare results/BEFORE results/AFTER
      two kernels, machines, revisions or servers

Exit status:
  0    done
  1    something failed; one line on stderr says what
  2    the command line is wrong
  3    two runs cannot be compared, or not all could be judged
  4    no trial gave figures that can be used
  5    something is slower than --fail-if-slower allows
  130  interrupted

`ringmark help VERB` has more examples; `ringmark-server --help` has the backends' knobs.";

/// Drives echo servers, measures them and writes the comparison.
#[derive(Parser)]
#[command(name = "ringmark", version = env!("RINGMARK_VERSION"), after_help = FIRST_STEPS)]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Doctor(doctor::Options),
    Run(Box<run::Options>),
    Load(Box<load::Options>),
    Report(report::Options),
    Compare(report::compare::Options),
    Count(run::count::Options),
    Boot(count::boot::Options),
    /// Prints the completions of a shell
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages, one for each verb
    #[command(after_help = MAN)]
    Man {
        /// The folder for the pages, which must exist
        folder: PathBuf,
    },
    #[command(hide = true)]
    SpinWhenIdle(idle_spinner::Options),
    #[command(hide = true)]
    DescribeSide(programs::describe::Options),
    #[command(hide = true)]
    ExecWhenTold(programs::exec::Options),
    #[command(hide = true)]
    Supervise(programs::supervisor::Options),
    #[command(hide = true)]
    InsideGuest(count::guest::Options),
}

/// The command line without the verbs that are not for people, which completions would offer and
/// manual pages describe.
fn for_people() -> clap::Command {
    let all = Cli::command();
    let verbs = all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    clap::Command::new("ringmark")
        .version(env!("RINGMARK_VERSION"))
        .about(all.get_about().cloned().unwrap_or_default())
        .after_help(FIRST_STEPS)
        .subcommands(verbs)
}

fn main() -> std::process::ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Doctor(options) => doctor::run(options),
        Verb::Run(options) => run::run(*options),
        Verb::Load(options) => load::run(*options),
        Verb::Report(options) => report::run(options),
        Verb::Compare(options) => report::compare::run(&options),
        Verb::Count(options) => run::count::run(options),
        Verb::Boot(options) => count::boot::run(&options),
        Verb::InsideGuest(options) => count::guest::run(&options),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut for_people(), "ringmark", &mut script);
            terminal::say(&String::from_utf8_lossy(&script))
        }
        Verb::Man { folder } => clap_mangen::generate_to(for_people(), &folder)
            .with_context(|| format!("manual pages in {}", folder.display())),
        Verb::SpinWhenIdle(options) => idle_spinner::run(&options),
        Verb::DescribeSide(options) => programs::describe::run(&options),
        Verb::ExecWhenTold(options) => programs::exec::run(&options),
        Verb::Supervise(options) => programs::supervisor::run(&options),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) if error.is::<terminal::NoReader>() => std::process::ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ringmark: {error:#}");
            (ExitStatus::of(&error) as u8).into()
        }
    }
}
