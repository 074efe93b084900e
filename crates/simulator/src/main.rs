//! The simulator as a process, for the demo and for experiments.

mod cli;

use clap::Parser;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    cli::run(&cli::Arguments::parse())
}
