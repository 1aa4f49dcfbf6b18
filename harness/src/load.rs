//! `ringmark load`.

/// Loads an echo server.
#[derive(clap::Args)]
pub struct Options {}

/// Runs the load.
pub fn run(_options: Options) -> anyhow::Result<()> {
    Ok(())
}
