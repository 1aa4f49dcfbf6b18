//! `ringmark`: loads, measures and reports.

mod calibrate;
mod calibration;
mod children;
mod compare;
mod comparisons;
mod doctor;
mod external;
mod gates;
mod instruments;
mod load;
mod machine;
mod matrix;
mod measurement;
mod report;
mod results;
mod run;
mod sides;
mod statistics;
mod sweep;
mod trial;

use clap::{Parser, Subcommand};

use crate::instruments::idle_spinner;

/// Drives echo servers, measures them and writes the comparison.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Doctor(doctor::Options),
    Calibrate(calibrate::Options),
    Run(Box<run::Options>),
    Load(Box<load::Options>),
    Report(report::Options),
    Compare(compare::Options),
    #[command(hide = true)]
    SpinWhenIdle(idle_spinner::Options),
    #[command(hide = true)]
    DescribeSide(sides::DescribeOptions),
    ExecWhenTold(external::exec::Options),
}

fn main() -> std::process::ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Doctor(options) => doctor::run(options),
        Verb::Calibrate(options) => calibrate::run(options),
        Verb::Run(options) => run::run(*options),
        Verb::Load(options) => load::run(*options),
        Verb::Report(options) => report::run(options),
        Verb::Compare(options) => compare::run(&options),
        Verb::SpinWhenIdle(options) => idle_spinner::run(&options),
        Verb::DescribeSide(options) => sides::describe(&options),
        Verb::ExecWhenTold(options) => external::exec::run(&options),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmark: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
