//! The simulator as a process, for the demo and for experiments.

mod cli;

use std::process::ExitCode;

use clap::Parser;

#[expect(clippy::print_stderr, reason = "this is where a command says why it failed")]
fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    match cli::run(&cli::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
