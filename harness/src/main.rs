//! `ringmark`: loads, measures and reports.

#[allow(dead_code, reason = "the trial runner calls them")]
mod instruments;
mod load;
#[allow(dead_code, reason = "the trial runner calls them")]
mod machine;
#[allow(dead_code, reason = "the trial runner calls them")]
mod statistics;

use clap::{Parser, Subcommand};

/// Drives echo servers, measures them and writes the comparison.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Load(load::Options),
}

fn main() -> std::process::ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Load(options) => load::run(options),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmark: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
